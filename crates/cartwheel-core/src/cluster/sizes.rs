//! Sizes of a node's data by partition, for plans and progress of transfers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use crate::cluster::counts::Group;
use crate::ring::PartitionId;

/// The sizes of a node's data in the partitions of an inquiry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSizes {
    /// Sizes by partition and group of keys: of those of which the node is, is to become or was a home, and whose trees are ready.
    pub trees: BTreeMap<TreeId, Size>,
    /// All partitions of which the node is no home any more and whose data it has not handed over and purged, whatever the inquiry named.
    pub leaves: BTreeSet<PartitionId>,
}

impl NodeSizes {
    /// Adds the sizes of another shard.
    pub fn merge(&mut self, other: Self) {
        self.trees.extend(other.trees);
        self.leaves.extend(other.leaves);
    }
}

/// The id of a Merkle tree: the keys of a group of one partition, which have the same homes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TreeId {
    /// The partition.
    pub partition: PartitionId,
    /// The group of keys.
    pub group: Group,
}

/// The size of keys and their content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Size {
    /// The number of keys with content, tombstones included.
    pub keys: u64,
    /// The bytes of the keys (as they are stored), their values and media types. Clocks and other metadata are not counted.
    pub bytes: u64,
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.keys = self.keys.saturating_add(other.keys);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The hints kept for one home.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// The number of records.
    pub records: u64,
    /// Their size in bytes.
    pub bytes: u64,
}
