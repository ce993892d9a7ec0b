//! Refuses requests that would wait for long before the node even reads what others ask.
//!
//! Requests that have arrived wait in their connections until the runtime comes to them. How long that is shows in how late a task runs
//! that asked to be woken. While that is too long, a growing share of requests is refused at once, which costs far less than to carry
//! them out, until the rest is served in time again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

/// How often it is looked how late the runtime is.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How late it may be.
const LATE_MAX: Duration = Duration::from_millis(25);
/// With no more connections than this there is no queue worth the name.
const CONNECTIONS_MIN: i64 = 64;
/// By how much the share grows and falls at each look, in thousandths; and what it grows to.
const STEP_UP: u32 = 40;
const STEP_DOWN: u32 = 20;
const SHARE_MAX: u32 = 950;

/// Which requests are refused. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Sluice(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many of a thousand requests are refused.
    share: AtomicU32,
    /// Where the next request stands among a thousand.
    place: AtomicU32,
}

impl Sluice {
    /// Whether the next request is refused.
    pub(super) fn refuses(&self) -> bool {
        let share = self.0.share.load(Ordering::Relaxed);
        // Steps that are prime to a thousand spread the refused ones evenly.
        share > 0 && self.0.place.fetch_add(617, Ordering::Relaxed) % 1_000 < share
    }

    /// Watches the runtime for as long as it runs; `connections` of clients stand.
    pub(super) async fn watch(self, connections: Gauge) {
        loop {
            let due = Instant::now() + LOOK_EVERY;
            tokio::time::sleep_until(due).await;
            self.look(due.elapsed(), connections.get());
        }
    }

    fn look(&self, late: Duration, connections: i64) {
        let share = self.0.share.load(Ordering::Relaxed);
        let is_behind = late > LATE_MAX && connections > CONNECTIONS_MIN;
        let share = if is_behind { (share + STEP_UP).min(SHARE_MAX) } else { share.saturating_sub(STEP_DOWN) };
        self.0.share.store(share, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sluice: &Sluice) -> usize {
        (0..1_000).filter(|_| sluice.refuses()).count()
    }

    #[test]
    fn a_runtime_that_is_late_has_more_and_more_refused_and_one_that_is_not_nothing_in_the_end() {
        let sluice = Sluice::default();
        assert_eq!(refused(&sluice), 0);
        (0..5).for_each(|_| sluice.look(LATE_MAX * 2, 1_000));
        assert_eq!(refused(&sluice), 200);
        (0..100).for_each(|_| sluice.look(LATE_MAX * 2, 1_000));
        assert_eq!(refused(&sluice), 950, "some always get in");
        (0..100).for_each(|_| sluice.look(LATE_MAX, 1_000));
        assert_eq!(refused(&sluice), 0);
    }

    #[test]
    fn few_connections_are_no_queue() {
        let sluice = Sluice::default();
        (0..100).for_each(|_| sluice.look(LATE_MAX * 2, CONNECTIONS_MIN));
        assert_eq!(refused(&sluice), 0);
    }
}
