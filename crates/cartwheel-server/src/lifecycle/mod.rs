//! How a node comes to its data directory, and how that changes: bootstrap of a cluster, join, replacement of a lost directory, upgrade.

pub mod bootstrap;
pub(crate) mod join;
pub mod renew;
pub(crate) mod upgrade;
