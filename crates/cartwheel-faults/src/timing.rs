//! The clients' latencies before, during and after a change of the members.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A part of a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Before the change.
    Before,
    /// From the change until all transfers are done.
    During,
    /// After that.
    After,
    /// Not part of the measurement: latencies are discarded.
    Between,
}

/// The 99th percentile of each part (before, during, after); `None` for a part without requests.
pub type Tails = [Option<Duration>; 3];

/// Latencies, each of a request with all its retries.
#[derive(Debug)]
pub struct Stopwatch {
    phase: AtomicUsize,
    reads: [Mutex<Vec<Duration>>; 3],
    writes: [Mutex<Vec<Duration>>; 3],
}

impl Default for Stopwatch {
    fn default() -> Self {
        let (reads, writes) = Default::default();
        Self { phase: AtomicUsize::new(Phase::Before as usize), reads, writes }
    }
}

impl Stopwatch {
    /// Assigns the latencies from now on to `phase`.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as usize, Ordering::Relaxed);
    }

    /// Records a request that has ended, in success or failure.
    pub fn record(&self, is_write: bool, took: Duration) {
        let times = if is_write { &self.writes } else { &self.reads };
        if let Some(times) = times.get(self.phase.load(Ordering::Relaxed)) {
            times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        }
    }

    /// The 99th percentiles of reads and of writes.
    pub fn tails(&self) -> (Tails, Tails) {
        let tails = |all: &[Mutex<Vec<Duration>>; 3]| {
            std::array::from_fn(|phase| p99(all[phase].lock().unwrap_or_else(PoisonError::into_inner).clone()))
        };
        (tails(&self.reads), tails(&self.writes))
    }
}

/// The smallest time that at least 99 % of the times do not exceed.
fn p99(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    let rank = (times.len() * 99).div_ceil(100);
    times.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_exceeds_the_99th_percentile() {
        let ms = Duration::from_millis;
        assert_eq!(p99(Vec::new()), None);
        assert_eq!(p99(vec![ms(7)]), Some(ms(7)));
        assert_eq!(p99((1..=100).rev().map(ms).collect()), Some(ms(99)));
        assert_eq!(p99((1..=101).map(ms).collect()), Some(ms(100)));
    }

    #[test]
    fn each_latency_counts_in_its_phase() {
        let watch = Stopwatch::default();
        let ms = |ms| Some(Duration::from_millis(ms));
        for (phase, took) in [(Phase::Before, 1), (Phase::During, 2), (Phase::Between, 9), (Phase::After, 3)] {
            watch.enter(phase);
            watch.record(true, Duration::from_millis(took));
        }
        watch.record(false, Duration::from_millis(5));
        assert_eq!(watch.tails(), ([None, None, ms(5)], [ms(1), ms(2), ms(3)]));
    }
}
