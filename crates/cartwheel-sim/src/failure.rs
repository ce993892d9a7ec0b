//! The result of a failed check.

use std::fmt;

use cartwheel_core::value::key::Key;

/// A violation of the protocol's guarantees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The name of the check that failed.
    pub check: &'static str,
    /// The key, if the check concerns one.
    pub key: Option<Key>,
    /// When it was found, in microseconds of simulated time.
    pub at_us: u64,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}.{:06}", self.check, self.at_us / 1_000_000, self.at_us % 1_000_000)?;
        if let Some(key) = &self.key {
            write!(f, " on {key:?}")?;
        }
        write!(f, ": {}", self.message)
    }
}
