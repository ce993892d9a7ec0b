//! How much a node holds of some partitions, for those who plan to move them or look on while they move.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use crate::cluster::counts::Group;
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
    /// Takes in what another shard holds.
    pub fn merge(&mut self, other: Self) {
        self.trees.extend(other.trees);
        self.leaves.extend(other.leaves);
    }
}

/// Which tree: the keys of a group of one partition, which have the same homes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TreeId {
    /// The partition.
    pub partition: PartitionId,
    /// Which of its keys.
    pub group: Group,
}

/// How much keys and what they hold amount to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// How many keys hold anything, be it a tombstone.
    pub keys: u64,
    /// How many bytes the keys, as they are stored, their values and media types have. Clocks and the like are not counted.
    pub bytes: u64,
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.keys = self.keys.saturating_add(other.keys);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What is owed to one home.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}
