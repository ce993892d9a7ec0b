//! The shards of a node.

use crate::ring::PartitionId;

/// Which of a node's shards, of how many. Each is a state machine with a store of its own, and each partition belongs to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardId {
    /// From 0.
    pub index: u32,
    /// At least 1.
    pub count: u32,
}

impl ShardId {
    /// The only shard of a node.
    pub const ONLY: Self = Self { index: 0, count: 1 };

    /// The first number from `from` that a shard's operations may have: they differ from all other shards' by their remainder.
    pub const fn first_operation(self, from: u64) -> u64 {
        from.next_multiple_of(self.count as u64) + self.index as u64
    }

    /// The index of the shard, of `count`, that a partition belongs to.
    ///
    /// It is not the plain remainder: placement deals partitions out in turn, so that the remainder of those that one node is a
    /// home of is often the same.
    pub const fn of_partition(partition: PartitionId, count: u32) -> u32 {
        (partition.0.wrapping_mul(0x9e37_79b1) >> 16) % count
    }
}
