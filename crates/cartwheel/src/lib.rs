//! The runtime around the protocol: data directories, shards, connections between nodes, the HTTP door, and the command line.

#![warn(clippy::print_stdout, clippy::print_stderr)]

/// The version of the program, as its nodes tell each other.
pub const VERSION: &str = match cartwheel_core::wire::PRETENDS {
    false => env!("CARGO_PKG_VERSION"),
    true => concat!(env!("CARGO_PKG_VERSION"), "+next"),
};

mod acceptor;
pub mod bench;
pub mod buckets;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod control;
pub mod data_dir;
pub mod dev;
pub mod exit;
pub mod founding;
pub mod http;
pub mod joining;
pub mod keys;
pub mod lineage;
pub mod load;
pub mod log;
pub mod metrics;
pub mod output;
pub mod peers;
mod priority;
pub mod random;
mod rate_limit;
pub mod renewing;
pub mod serve;
pub mod shard;
pub mod signals;
pub mod simulate;
pub mod upgrading;
pub mod verify;
mod yaml;
