//! The identity of a cluster.

/// A cluster's id: a random number drawn when the cluster is created, so that nodes of two clusters never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u128);
