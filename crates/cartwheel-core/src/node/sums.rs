//! Sums over the records of a partition, by which a backup finds what has changed since the one before.

use super::Node;
use crate::anti_entropy::merkle::{DEPTH_MAX, FANOUT, Tree};
use crate::cluster::sizes::{Size, TreeId};
use crate::message::anti_entropy::Sum;
use crate::ring::PartitionId;

/// The deepest level whose sums are given at once: 4,096 of them.
pub const SUMS_LEVEL_MAX: u8 = 3;

/// The sums of a partition at one level of its Merkle trees, all groups of keys together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionSums {
    /// The keys of the partition and their bytes.
    pub size: Size,
    /// The deepest level at which every tree that has keys knows sums, at most [`SUMS_LEVEL_MAX`].
    pub depth: u8,
    /// The level of `sums`: the one asked for, or `depth` if that is less.
    pub level: u8,
    /// The sum of each range of tokens, in order.
    pub sums: Vec<Sum>,
}

impl Node {
    /// The sums of a partition at `level`; none unless this node is a synced home of all its keys, none of its records is lost, and its trees are
    /// ready. So what its records say is all that a home can say.
    pub fn partition_sums(&self, partition: PartitionId, level: u8) -> Option<PartitionSums> {
        let (held, trees) = (self.held(), self.exchange().trees());
        let (me, state) = (held.me(), held.partition_state(partition)?);
        let groups = held.groups(partition);
        let holds_all = !groups.is_empty() && groups.iter().all(|&group| state.holds_all(me, group));
        let has_lost =
            self.exchange().is_recovering(partition) || trees.losses(partition).is_none_or(|lost| !lost.is_empty());
        if !holds_all || has_lost {
            return None;
        }
        let trees = groups.into_iter().map(|group| trees.get(TreeId { partition, group }));
        let trees: Vec<&Tree> = trees.collect::<Option<_>>()?;
        let filled = || trees.iter().filter(|tree| tree.keys() > 0);
        let depth = filled().map(|tree| tree.depth()).min().unwrap_or(DEPTH_MAX).min(SUMS_LEVEL_MAX);
        let level = level.min(depth);
        let mut size = Size::default();
        let mut sums = vec![Sum::default(); FANOUT.pow(level.into()) as usize];
        for tree in filled() {
            size += tree.size();
            for (index, sum) in (0..).zip(&mut sums) {
                *sum += tree.node(level, index).unwrap_or_default();
            }
        }
        Some(PartitionSums { size, depth, level, sums })
    }
}
