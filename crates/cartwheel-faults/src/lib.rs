//! Fault tests on real processes. Five nodes in three zones, each in a network namespace of its own, serve clients that put real purchases into
//! shopping carts. Scenarios kill, pause, cut off, restart, wipe, add, remove and replace nodes. The result counts refused requests and lost adds,
//! and measures when all replicas were equal again. It needs root, Linux and `ip` (iproute2).
//!
//! | module | contents |
//! | --- | --- |
//! | [`scenario`] | the scenarios, and how long their parts take |
//! | [`runner`] | runs a scenario on a cluster of its own |
//! | `scenario_run`, `repro` | the faults of each scenario, step by step |
//! | [`random`] | draws and runs faults from a seed, round after round |
//! | [`judge`] | the guarantees after each scenario |
//! | [`network`], [`disk`], [`node`], [`cluster`] | the system under test, from the network up |
//! | [`members`], [`change`], [`meter`] | changes of the members, their progress and the bytes they transfer |
//! | [`traffic`], [`registers`], [`stock`], [`requests`] | the clients: writers of carts, users of registers, stored carts, single requests |
//! | [`ledger`], [`outages`], [`sides`], [`timing`] | the record of requests: results, excuses, sides of a cut, latencies |
//! | [`proof`], [`probe`] | checks of the data at the end, and of one node's state |
//! | [`report`] | the table that is printed at the end |
//! | [`cleanup`] | removes the remains of killed runs |

pub mod change;
pub mod cleanup;
pub mod cluster;
pub mod disk;
mod error;
pub mod judge;
pub mod ledger;
pub mod members;
pub mod meter;
pub mod network;
pub mod node;
pub mod outages;
pub mod probe;
pub mod proof;
pub mod random;
pub mod registers;
pub mod report;
mod repro;
pub mod requests;
pub mod runner;
pub mod scenario;
mod scenario_run;
pub mod sides;
pub mod stock;
pub mod timing;
pub mod traffic;

pub use error::FaultsError;
