//! The cluster as plain data: its members and buckets, the configuration of each partition, and the liveness of each node.

pub mod configuration;
pub mod counts;
pub mod holdings;
pub mod lane;
pub mod liveness;
pub mod losses;
pub mod membership;
pub mod paxos;
pub mod seat;
pub mod sizes;
pub mod successor;
