//! Limits the rate of log lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one line through per interval and counts the others.
#[derive(Debug)]
pub(crate) struct RateLimit {
    every: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl RateLimit {
    /// Lets one line through per `every`.
    pub(crate) const fn new(every: Duration) -> Self {
        Self { every, state: Mutex::new((None, 0)) }
    }

    /// Counts `count` events. When a line is due, returns the number of events since the last one.
    pub(crate) fn count(&self, count: u64) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, pending) = &mut *state;
        *pending += count;
        if last.is_some_and(|last| last.elapsed() < self.every) {
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(pending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_all_events_since_the_last() {
        let limit = RateLimit::new(Duration::from_secs(3600));
        assert_eq!(limit.count(3), Some(3));
        assert_eq!(limit.count(1), None);
        assert_eq!(limit.count(2), None);
        let limit = RateLimit::new(Duration::ZERO);
        assert_eq!((limit.count(1), limit.count(5)), (Some(1), Some(5)));
    }
}
