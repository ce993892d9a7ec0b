//! The runtime around the protocol: data directories, shards, connections between nodes, the HTTP door, and the command line.

pub mod bench;
pub mod cli;
pub mod clock;
pub mod data_dir;
pub mod dev;
pub mod founding;
pub mod http;
pub mod keys;
pub mod load;
pub mod peers;
pub mod random;
pub mod serve;
pub mod shard;
pub mod signals;
