//! Sizes of the partitions that a shard holds.

use super::Node;
use crate::cluster::sizes::{NodeSizes, TreeId};
use crate::ring::PartitionId;

impl Node {
    /// The sizes of those of `partitions` that this shard holds, and the partitions that it leaves.
    pub fn sizes(&self, partitions: &[PartitionId]) -> NodeSizes {
        let (held, trees) = (self.held(), self.exchange().trees());
        let groups = |partition: PartitionId| held.groups(partition).into_iter();
        let of = |&partition: &PartitionId| groups(partition).map(move |group| TreeId { partition, group });
        let (ids, me) = (partitions.iter().flat_map(of), held.me());
        let leaves = held.partition_states().filter(|(_, partition_state)| {
            let is_to_hand_over = partition_state.retired.is_some() || partition_state.has_stale_data;
            is_to_hand_over && (partition_state.retired.is_some() || !partition_state.phase.is_home_of_any(me))
        });
        NodeSizes {
            trees: ids.filter_map(|id| Some((id, trees.size(id)?))).collect(),
            leaves: leaves.map(|(partition, _)| partition).collect(),
        }
    }
}
