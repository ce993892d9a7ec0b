//! Faults on real processes: five nodes in three zones, each in a network namespace of its own, under real purchases that are put
//! into shopping carts. Nodes are killed, paused, cut off, restarted and run out of disk, they come, go and are replaced; then it is
//! counted which requests were refused, which adds were lost, and when all replicas were equal again.
//!
//! A [`scenario::Scenario`] says what is done and [`judge::EXPECTED`] what must hold. All else is the [`play::Stage`] for it, from
//! the ground up: [`network`], [`disk`] and [`node`] make a [`cluster::Cluster`], [`traffic`] writes to it, the [`ledger`] keeps what was
//! answered, and [`proof`] looks what is there in the end. [`random`] draws what is done from a seed, round after round. Needs root, Linux and `ip` (iproute2), nothing else.

mod act;
pub mod change;
pub mod cluster;
pub mod disk;
mod error;
pub mod judge;
pub mod ledger;
pub mod leftovers;
pub mod members;
pub mod meter;
pub mod network;
pub mod node;
pub mod outages;
pub mod play;
pub mod probe;
pub mod proof;
pub mod random;
pub mod registers;
pub mod report;
mod repro;
pub mod requests;
pub mod scenario;
pub mod sides;
pub mod stock;
pub mod timing;
pub mod traffic;

pub use error::FaultsError;
