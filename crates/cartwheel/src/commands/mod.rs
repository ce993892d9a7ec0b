//! The commands, one module each.
//!
//! `serve`, `dev`, `config` and `renew` use [`cartwheel_server`]. The other commands are clients of the HTTP API and do not use the
//! server's code.

pub mod backup;
pub mod bench;
pub mod buckets;
pub mod cert;
pub mod cluster;
pub mod config;
pub mod debug;
pub mod dev;
pub mod keys;
pub mod listing;
pub mod load;
pub mod man;
pub mod ready;
pub mod renew;
pub mod serve;
pub mod simulate;
pub mod top;
pub mod users;
pub mod verify;
