//! The shards of a node.

use crate::ring::PartitionId;

/// The id of a shard of a node, and the number of shards. Each shard is a state machine with a store of its own, and each partition belongs to
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardId {
    /// The index, from 0.
    pub index: u32,
    /// The number of shards, at least 1.
    pub count: u32,
}

impl ShardId {
    /// The only shard of a node.
    pub const ONLY: Self = Self { index: 0, count: 1 };

    /// The first operation number from `from` that belongs to this shard. Numbers of different shards have different remainders.
    pub const fn first_operation(self, from: u64) -> u64 {
        from.next_multiple_of(self.count as u64) + self.index as u64
    }

    /// The index of the shard, of `count`, that a partition belongs to.
    ///
    /// It is not the plain remainder: placement assigns partitions in turn, so the partitions of one node often have the same remainder.
    pub const fn of_partition(partition: PartitionId, count: u32) -> u32 {
        (partition.0.wrapping_mul(0x9e37_79b1) >> 16) % count
    }
}
