//! What became of each attempt that a client makes: for those who count more than whether a request succeeded in the end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One attempt at one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt<'a> {
    /// The node, as the client was given it.
    pub endpoint: &'a str,
    /// Whether it was to change something.
    pub is_write: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The node answered.
    Answered {
        /// The status of the answer.
        status: u16,
        /// The contract's code, as `unavailable`, if the answer is an error.
        code: Option<String>,
    },
    /// There was no connection to be had: the node saw nothing of the request.
    NoConnection,
    /// The connection broke before the whole answer was there.
    Broken,
    /// The answer did not come in time.
    TimedOut,
}

/// Who is told of each attempt.
#[derive(Clone, Default)]
pub(crate) struct Watcher(pub(crate) Option<Arc<dyn Fn(&Attempt<'_>) + Send + Sync>>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher(..)" } else { "Watcher" })
    }
}
