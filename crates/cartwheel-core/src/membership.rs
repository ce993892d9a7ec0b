//! Which nodes make up the cluster.

/// A cluster's identity, drawn when it is founded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u128);
