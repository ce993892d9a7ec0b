//! The log of slow requests.

use std::time::Duration;

use cartwheel_core::message::client::{ClientId, Operation, Outcome, Request};
use cartwheel_core::message::trace::TraceContext;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;
use tracing::warn;

use super::Watching;
use crate::log::RateLimit;

/// How often a line is written. The others are counted in it.
static LINES: RateLimit = RateLimit::new(Duration::from_secs(1));

/// How much of a key is logged, in characters.
const KEY_CHARS_MAX: usize = 256;

/// How many requests a turn looks at that have become slow.
pub(super) const NOTED_MAX: usize = 16;

/// Which requests are slow.
pub(super) struct SlowRequests {
    watching: Watching,
    /// The latest request of which it is known what it waits for.
    pub(super) noted: ClientId,
}

/// What a request waited for when it became slow.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) key: Key,
    /// The homes of the key that had not answered for longer than they usually take.
    pub(super) late: Vec<NodeId>,
    /// Whether this node's disk was at work on a commit that was begun before the request.
    pub(super) on_commit: bool,
}

/// The name of an operation, as in metrics.
pub(super) fn operation(request: &Request) -> &'static str {
    match &request.operation {
        Operation::Get(_) => "get",
        Operation::Put(put) if put.content == Content::Tombstone => "delete",
        Operation::Put(_) => "put",
        Operation::Inspect(_) => "inspect",
        Operation::Restore(_) => "restore",
    }
}

impl SlowRequests {
    pub(super) const fn new(watching: Watching) -> Self {
        Self { watching, noted: ClientId(0) }
    }

    /// From which time on a request is slow.
    pub(super) const fn after(&self) -> Duration {
        self.watching.slow_request
    }

    /// Logs a request that has ended.
    pub(super) fn log(
        &self,
        operation: &'static str,
        waits: &Waits,
        took: Duration,
        outcome: &Outcome,
        trace: Option<TraceContext>,
    ) {
        let Some(requests) = LINES.count(1) else { return };
        let (bucket, mut key) = (waits.key.bucket().escape_ascii(), waits.key.name().escape_ascii().to_string());
        // It is ASCII now.
        key.truncate(KEY_CHARS_MAX);
        let late = waits.late.iter().map(|&node| self.watching.name_of(node)).collect::<Vec<_>>().join(",");
        let outcome = outcome.as_ref().map_or_else(|refusal| refusal.code(), |_| "ok");
        let trace = trace.map_or_else(String::new, |context| format!("{:032x}", context.trace));
        let (took_ms, on_commit) = (took.as_millis() as u64, waits.on_commit);
        warn!(operation, %bucket, key, took_ms, outcome, late, on_commit, trace, requests, "slow request");
    }
}
