//! How much a node holds of some partitions, for those who plan to move them or look on while they move.

use std::collections::{BTreeMap, BTreeSet};

use crate::anti_entropy::merkle::{Size, TreeId};
use crate::node::Node;
use crate::ring::PartitionId;

/// What a node holds of the partitions that it was asked about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSizes {
    /// How much, by partition and group of keys: of those that it is a home of, is to be one of or was one of, and whose trees are ready.
    pub trees: BTreeMap<TreeId, Size>,
    /// All partitions of which it is no home any more and that it has not handed over and cleared away, whatever it was asked about.
    pub leaves: BTreeSet<PartitionId>,
}

impl NodeSizes {
    /// What a shard's node holds of those of the partitions that are its own.
    pub fn of(node: &Node, partitions: &[PartitionId]) -> Self {
        let (held, trees) = (node.held(), node.exchange().trees());
        let groups = |partition: PartitionId| held.groups(partition).into_iter();
        let of = |&partition: &PartitionId| groups(partition).map(move |group| TreeId { partition, group });
        let (ids, me) = (partitions.iter().flat_map(of), held.me());
        let leaves = held.seats().filter(|(_, seat)| {
            let is_to_hand_over = seat.former.is_some() || seat.has_leftovers;
            is_to_hand_over && (seat.former.is_some() || !seat.phase.is_home_of_any(me))
        });
        Self {
            trees: ids.filter_map(|id| Some((id, trees.size(id)?))).collect(),
            leaves: leaves.map(|(partition, _)| partition).collect(),
        }
    }

    /// Takes in what another shard holds.
    pub fn merge(&mut self, other: Self) {
        self.trees.extend(other.trees);
        self.leaves.extend(other.leaves);
    }
}
