//! The Redis API server: the protocol of Redis, versions 2 and 3, so that every Redis client is a client of Cartwheel.
//!
//! A connection is served on a shard's thread. What has arrived of it is parsed at once; commands on different keys are carried out side by side, and their
//! replies are written in the order of the commands.
//!
//! Errors, limits and the forms of replies are Redis's, version 7.0. Where Cartwheel differs, the book's page on the Redis API says how and why.

mod access;
mod api;
mod clients;
mod commands;
mod connection;
mod error;
mod glob;
mod keys;
mod parser;
mod reply;
mod server;
mod session;
mod slots;

use std::time::Duration;

pub use api::RespApi;
pub(crate) use server::serve;

/// The time between log lines about failed commands.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The longest argument of a command that is kept. No bucket takes longer values.
const VALUE_BYTES_MAX: usize = cartwheel_core::cluster::membership::VALUE_BYTES_MAX as usize;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown_clients_tests;
