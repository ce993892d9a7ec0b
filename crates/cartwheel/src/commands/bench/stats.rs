//! The measurements, recorded during the run.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest recorded time in microseconds: two requests that each take the longest timeout. Times have three significant digits.
const LATENCY_US_MAX: u64 = 200_000_000;
const LATENCY_DIGITS: u8 = 3;
/// The maximum number of error kinds. It bounds the memory, since the name of a kind comes from the network.
const ERROR_KINDS_MAX: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
}

#[derive(Clone, Debug)]
pub(super) struct Stats {
    pub(super) reads: Histogram<u64>,
    pub(super) writes: Histogram<u64>,
    pub(super) errors: BTreeMap<String, u64>,
    /// Operations of an open loop that were skipped because no connection was free.
    pub(super) skipped: u64,
    /// Reads of keys without a value.
    pub(super) not_found: u64,
    /// Gets that returned more than one sibling, and the most siblings that a get returned.
    pub(super) gets_with_siblings: u64,
    pub(super) siblings_max: u64,
    /// The gets that returned more than one sibling, by the number of siblings.
    pub(super) gets_by_siblings: BTreeMap<u64, u64>,
}

impl Stats {
    fn new() -> Result<Self, hdrhistogram::CreationError> {
        let histogram = Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS)?;
        Ok(Self {
            reads: histogram.clone(),
            writes: histogram,
            errors: BTreeMap::new(),
            skipped: 0,
            not_found: 0,
            gets_with_siblings: 0,
            siblings_max: 0,
            gets_by_siblings: BTreeMap::new(),
        })
    }

    /// The number of operations that succeeded.
    pub(super) fn ops(&self) -> u64 {
        self.reads.len() + self.writes.len()
    }

    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Records the outcomes of all connections. Nothing counts until [`Recorder::begin`].
#[derive(Debug)]
pub(super) struct Recorder(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    is_measuring: bool,
    stats: Stats,
}

impl Recorder {
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self(Mutex::new(Counts { is_measuring: false, stats: Stats::new()? })))
    }

    /// Begins the measurement: from now on every outcome counts.
    pub(super) fn begin(&self) {
        self.counts().is_measuring = true;
    }

    pub(super) fn stats(&self) -> Stats {
        self.counts().stats.clone()
    }

    /// The numbers of operations that have succeeded and failed.
    pub(super) fn progress(&self) -> (u64, u64) {
        let counts = self.counts();
        (counts.stats.ops(), counts.stats.failed())
    }

    pub(super) fn record_success(&self, kind: Kind, took: Duration) {
        self.note(|stats| {
            let histogram = if kind == Kind::Read { &mut stats.reads } else { &mut stats.writes };
            histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        });
    }

    pub(super) fn record_failure(&self, kind: &str) {
        self.note(|stats| {
            let known = stats.errors.len() < ERROR_KINDS_MAX || stats.errors.contains_key(kind);
            *stats.errors.entry(if known { kind } else { "others" }.to_owned()).or_default() += 1;
        });
    }

    pub(super) fn record_skip(&self) {
        self.note(|stats| stats.skipped += 1);
    }

    /// Records the number of values that a get returned.
    pub(super) fn record_get(&self, siblings: u64) {
        // Most gets return one value, and need no second lock.
        if siblings != 1 {
            self.note(|stats| {
                stats.not_found += u64::from(siblings == 0);
                stats.gets_with_siblings += u64::from(siblings > 1);
                stats.siblings_max = stats.siblings_max.max(siblings);
                if siblings > 1 {
                    *stats.gets_by_siblings.entry(siblings).or_default() += 1;
                }
            });
        }
    }

    fn note(&self, note: impl FnOnce(&mut Stats)) {
        let mut counts = self.counts();
        if counts.is_measuring {
            note(&mut counts.stats);
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The middle of the values, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn outcomes_before_the_beginning_do_not_count() {
        let recorder = Recorder::new().unwrap();
        recorder.record_success(Kind::Read, Duration::from_millis(1));
        recorder.record_failure("503 unavailable");
        recorder.record_get(3);
        recorder.begin();
        recorder.record_success(Kind::Write, Duration::from_millis(2));
        recorder.record_get(0);
        recorder.record_get(2);
        let stats = recorder.stats();
        assert_eq!((stats.reads.len(), stats.writes.len(), stats.failed()), (0, 1, 0));
        assert_eq!((stats.not_found, stats.gets_with_siblings), (1, 1));
        assert_eq!(stats.gets_by_siblings, BTreeMap::from([(2, 1)]));
        assert!((1_998..=2_002).contains(&stats.writes.max()));
    }

    #[test]
    fn error_kinds_are_bounded_and_every_error_is_counted() {
        let recorder = Recorder::new().unwrap();
        recorder.begin();
        for number in 0..1_000 {
            recorder.record_failure(&format!("{number}"));
        }
        let stats = recorder.stats();
        assert_eq!(stats.failed(), 1_000);
        assert_eq!(stats.errors.len(), ERROR_KINDS_MAX + 1);
    }
}
