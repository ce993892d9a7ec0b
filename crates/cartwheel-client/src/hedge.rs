//! Hedged reads: a read that takes unusually long is sent to a second home too, and the first answer counts (Dean and Barroso, "The tail at
//! scale", 2013).

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::retry::Budget;

/// A read is hedged when it has taken longer than this share of recent reads.
const QUANTILE: f64 = 0.95;
/// The cost of a hedge. A read earns 1, so at most a twentieth of the reads is hedged.
const COST: u32 = 20;
/// The number of hedges that the budget holds at most.
const BURST: u32 = 10;
/// The number of reads without which the quantile means nothing.
const SAMPLES_MIN: u32 = 100;
/// The number of reads after which each counts half, so that the quantile follows the cluster.
const SAMPLES_MAX: u32 = 2_000;
/// Neighbouring buckets differ by 9%.
const BUCKETS_PER_OCTAVE: f64 = 8.0;
/// The last bucket begins at 67 s.
const BUCKETS: usize = 26 * BUCKETS_PER_OCTAVE as usize + 1;

/// When reads are hedged. Clones of a client share it.
#[derive(Debug)]
pub(crate) struct Hedging {
    budget: Budget,
    took: Mutex<Latencies>,
}

/// The number of recent reads by how long they took.
#[derive(Debug)]
struct Latencies {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Hedging {
    fn default() -> Self {
        let took = Latencies { counts: [0; BUCKETS], total: 0 };
        Self { budget: Budget::empty(COST, BURST), took: took.into() }
    }
}

impl Hedging {
    /// Counts a read, and returns the time after which it is slow; `None` while too few reads were made to tell.
    pub(crate) fn begin(&self) -> Option<Duration> {
        self.budget.earn();
        self.took.lock().unwrap_or_else(PoisonError::into_inner).quantile()
    }

    /// Whether one more read may be hedged, which is counted.
    pub(crate) fn may_hedge(&self) -> bool {
        self.budget.spend()
    }

    /// Records how long a read took at its first node, or how long the client waited for that node before the hedge was answered.
    pub(crate) fn record(&self, took: Duration) {
        self.took.lock().unwrap_or_else(PoisonError::into_inner).record(took);
    }
}

impl Latencies {
    fn record(&mut self, took: Duration) {
        let micros = (took.as_secs_f64() * 1e6).max(1.0);
        let bucket = (micros.log2() * BUCKETS_PER_OCTAVE) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The end of the bucket that the quantile falls into.
    fn quantile(&self) -> Option<Duration> {
        if self.total < SAMPLES_MIN {
            return None;
        }
        let rank = (f64::from(self.total) * QUANTILE) as u32;
        let mut sum = 0;
        let bucket = self.counts.iter().position(|count| {
            sum += count;
            sum > rank
        })?;
        Some(Duration::from_secs_f64(((bucket + 1) as f64 / BUCKETS_PER_OCTAVE).exp2() / 1e6))
    }
}

/// Waits for `first`. If it takes longer than `delay`, starts what `second` returns beside it, if anything. Returns the first result that is
/// final; if neither is, that of `first`. The other future is dropped.
pub(crate) async fn race<T, F: Future<Output = T>>(
    first: impl Future<Output = T>,
    delay: Duration,
    second: impl FnOnce() -> Option<F>,
    is_final: impl Fn(&T) -> bool,
) -> T {
    let mut first = pin!(first);
    if let Ok(done) = tokio::time::timeout(delay, &mut first).await {
        return done;
    }
    let Some(second) = second() else { return first.await };
    let mut second = pin!(second);
    tokio::select! {
        biased;
        one = &mut first => {
            if is_final(&one) {
                return one;
            }
            let other = second.await;
            if is_final(&other) { other } else { one }
        }
        other = &mut second => if is_final(&other) { other } else { first.await },
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{Instant, sleep};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A node's result after a time, in milliseconds.
    async fn node(after: u32, result: Result<char, char>) -> Result<char, char> {
        sleep(after * MS).await;
        result
    }

    /// The result of a read hedged after 10 ms, when it came, and whether the second node was asked.
    async fn raced(
        first: (u32, Result<char, char>),
        second: (u32, Result<char, char>),
    ) -> (Result<char, char>, u128, bool) {
        let (begun, was_hedged) = (Instant::now(), Cell::new(false));
        let hedge = || {
            was_hedged.set(true);
            Some(node(second.0, second.1))
        };
        let result = race(node(first.0, first.1), 10 * MS, hedge, Result::is_ok).await;
        (result, begun.elapsed().as_millis(), was_hedged.get())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_counts() {
        assert_eq!(raced((5, Ok('a')), (5, Ok('b'))).await, (Ok('a'), 5, false));
        assert_eq!(raced((5, Err('a')), (5, Ok('b'))).await, (Err('a'), 5, false), "a failure is repeated, not hedged");
        assert_eq!(raced((1_000, Ok('a')), (5, Ok('b'))).await, (Ok('b'), 15, true));
        assert_eq!(raced((20, Ok('a')), (500, Ok('b'))).await, (Ok('a'), 20, true));
        assert_eq!(raced((30, Ok('a')), (5, Err('b'))).await, (Ok('a'), 30, true));
        assert_eq!(raced((20, Err('a')), (50, Ok('b'))).await, (Ok('b'), 60, true));
        assert_eq!(raced((20, Err('a')), (50, Err('b'))).await, (Err('a'), 60, true));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_the_first_node_is_waited_for() {
        let result = race(node(1_000, Ok('a')), MS, || None::<std::future::Ready<_>>, Result::is_ok).await;
        assert_eq!(result, Ok('a'));
    }

    #[test]
    fn at_most_a_twentieth_of_the_reads_is_hedged() {
        let hedging = Hedging::default();
        let hedged = (0..1_000).filter(|_| {
            hedging.begin();
            hedging.may_hedge()
        });
        assert_eq!(hedged.count(), 50);
    }

    #[test]
    fn reads_are_slow_beyond_the_95th_percentile() {
        let hedging = Hedging::default();
        for ms in 1..100 {
            assert_eq!(hedging.begin(), None, "{ms} reads are too few");
            hedging.record(ms * MS);
        }
        hedging.record(100 * MS);
        let slow = hedging.begin().unwrap();
        assert!((95 * MS..106 * MS).contains(&slow), "{slow:?}");
        for _ in 0..20_000 {
            hedging.record(2 * MS);
        }
        let slow = hedging.begin().unwrap();
        assert!((2 * MS..3 * MS).contains(&slow), "it follows the cluster: {slow:?}");
        hedging.record(Duration::ZERO);
        hedging.record(Duration::MAX);
    }
}
