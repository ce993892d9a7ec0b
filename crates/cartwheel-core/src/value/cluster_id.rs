//! The name of a cluster.

/// Which cluster: a random number drawn when it is made, so that nodes of two clusters never mix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u128);
