//! How a node gets its data directory, and how it changes: bootstrap, join, replacement of a lost directory, upgrade.

pub mod bootstrap;
pub(crate) mod join;
pub mod renew;
pub(crate) mod upgrade;
