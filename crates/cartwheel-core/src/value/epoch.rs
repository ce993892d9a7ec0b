//! Epochs: rounds after which nothing can bring a deleted value back.
//!
//! A clock cannot tell that: a message may be hours late, a node may be paused, a disk may be restored. So the cluster counts rounds. A member
//! has *finished* epoch e when all that it began or accepted before e has ended and each of its partitions has completed an exchange, begun in
//! e, with every other home. It enters e + 1 when every member has finished e ([`crate::control`]). State travels under the oldest epoch among
//! its operation's start and everything it was built from. A node that is more than one epoch further refuses it.

use std::fmt;

use crate::mutation::{Broken, Mutation};

/// A tombstone is collected this many epochs after it was made. What a record remembers of replaced writes is collected after as many epochs
/// without a change. In a model with messages of any delay, three epochs were too few in 163 of 12,000 runs, four and five in none.
pub const KEPT_FOR: u64 = 5;

/// A write is on every home this many epochs after it was made: it has ended within two, and in the next one every pair of homes runs an
/// exchange.
const SPREAD_AFTER: u64 = 3;

/// A round of the cluster's garbage collection. The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of a new node that has not heard from its cluster yet. Such a node neither writes nor merges anything.
    pub const UNKNOWN: Self = Self(0);

    /// The epoch in which a cluster is bootstrapped.
    pub const FIRST: Self = Self(1);

    /// The epoch after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether what was made in this epoch, or is unchanged since, is due for collection in `now`.
    pub fn is_over(self, now: Self, broken: Broken) -> bool {
        let kept_for = if broken.is(Mutation::CollectEarly) { KEPT_FOR - 1 } else { KEPT_FOR };
        self.0.saturating_add(kept_for) <= now.0
    }

    /// The first epoch in which what was made in this one is due for collection.
    #[must_use]
    pub const fn end(self) -> Self {
        Self(self.0.saturating_add(KEPT_FOR))
    }

    /// Whether state with this stamp is too old for a node in `now`.
    pub fn is_stale(self, now: Self, broken: Broken) -> bool {
        self.next() < now && !broken.is(Mutation::StaleMerged)
    }

    /// Whether a write made in this epoch is on every home by `now`.
    pub const fn is_everywhere(self, now: Self) -> bool {
        self.0.saturating_add(SPREAD_AFTER) <= now.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
