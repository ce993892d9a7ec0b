//! The cluster as plain data: its members and buckets, the configuration of each partition, and the liveness of each node.

pub mod configuration;
pub mod counts;
pub mod holdings;
pub mod latency;
pub mod liveness;
pub mod losses;
pub mod membership;
pub mod next_configuration;
pub mod partition_state;
pub mod paxos;
pub mod shard_id;
pub mod sizes;
