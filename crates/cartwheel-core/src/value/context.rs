//! Contexts: what a client was shown, in a form that it can return but not forge.

use std::fmt;

use crate::value::clock::Clock;
use crate::value::state::{Epoch, Seen};

impl Context {
    /// The dots that a state must contain in epoch `now` to be no older than what was shown.
    pub fn needs_in(&self, now: Epoch) -> Clock {
        if self.epoch.is_everywhere(now) { Clock::new() } else { self.needs.clone() }
    }
}

/// What a client was shown, and the epoch of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// The dots, timestamp and write ids shown.
    pub seen: Seen,
    /// The epoch in which it was shown.
    pub epoch: Epoch,
    /// The dots that a state must contain to be no older than what was shown, as long as that is not on every home ([`Epoch::is_everywhere`]).
    /// These are the dots of the siblings shown, or of the write that returned the context. A state with these dots knows everything that they
    /// replaced, which may be collected earlier than they are.
    pub needs: Clock,
}

/// Why a context was refused. Nothing was read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextError {
    /// It is longer than any context of this cluster.
    TooLong(usize),
    /// Its format version is unknown to this node.
    Version(u8),
    /// It was damaged, forged, or issued by another cluster or for another key.
    NotOurs,
    /// It was issued after the bucket was emptied, which this node does not know yet.
    Newer,
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(len) => write!(f, "the context has {len} bytes, more than any that was given out"),
            Self::Version(version) => write!(
                f,
                "the context has format version {version}, which this node does not know: finish the upgrade, or get the key again"
            ),
            Self::Newer => f.write_str("this node does not know yet that the bucket was emptied: try again"),
            Self::NotOurs => f.write_str(
                "the context was damaged or was not given out for this key: get the key and use the context of that reply",
            ),
        }
    }
}

impl std::error::Error for ContextError {}
