//! A node of Cartwheel: the runtime around the protocol.
//!
//! [`serve::serve`] runs a node. [`config`] holds its settings, [`lifecycle`] makes and replaces data directories, and [`log`] sets up the
//! log. All other operations go over HTTP.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod access;
mod backend;
pub mod config;
mod control;
mod control_queue;
pub mod data_dir;
mod http;
pub mod lifecycle;
pub mod log;
mod memory;
mod metrics;
mod os;
mod peers;
mod percent;
mod resp;
pub mod serve;
mod shard;
mod tcp;
pub mod tls;
mod trace;

pub use os::clock::TEST_CLOCK_OFFSET_FILE;

/// The version of the program, as nodes report it to each other.
const VERSION: &str = match cartwheel_core::wire::PRETENDS {
    false => env!("CARGO_PKG_VERSION"),
    true => concat!(env!("CARGO_PKG_VERSION"), "+next"),
};
