//! What was measured, while it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Times are kept in microseconds to three digits, up to an operation of two requests that each took as long as one may.
const LATENCY_US_MAX: u64 = 200_000_000;
const LATENCY_DIGITS: u8 = 3;
/// How many kinds of errors are told apart: what a kind is called comes from the network.
const ERROR_KINDS_MAX: usize = 32;

/// Which operation was carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
}

/// Counts and times.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    pub(super) reads: Histogram<u64>,
    pub(super) writes: Histogram<u64>,
    pub(super) errors: BTreeMap<String, u64>,
    /// Operations of an open loop for which no connection was free.
    pub(super) left_out: u64,
    /// Reads of keys that hold nothing.
    pub(super) not_found: u64,
    /// Gets that showed more than one sibling, and the most that one showed.
    pub(super) gets_with_siblings: u64,
    pub(super) siblings_max: u64,
}

impl Stats {
    fn new() -> Result<Self, hdrhistogram::CreationError> {
        let histogram = Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS)?;
        Ok(Self {
            reads: histogram.clone(),
            writes: histogram,
            errors: BTreeMap::new(),
            left_out: 0,
            not_found: 0,
            gets_with_siblings: 0,
            siblings_max: 0,
        })
    }

    /// How many operations succeeded.
    pub(super) fn ops(&self) -> u64 {
        self.reads.len() + self.writes.len()
    }

    /// How many failed.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Takes in what happens, from all connections; nothing of it counts until it is told to.
#[derive(Debug)]
pub(super) struct Recorder(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    counts: bool,
    stats: Stats,
}

impl Recorder {
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self(Mutex::new(Counted { counts: false, stats: Stats::new()? })))
    }

    /// From now on everything counts.
    pub(super) fn begin(&self) {
        self.counted().counts = true;
    }

    /// What has been counted.
    pub(super) fn stats(&self) -> Stats {
        self.counted().stats.clone()
    }

    /// How many operations have succeeded and failed.
    pub(super) fn progress(&self) -> (u64, u64) {
        let counted = self.counted();
        (counted.stats.ops(), counted.stats.failed())
    }

    /// Notes an operation that succeeded.
    pub(super) fn done(&self, kind: Kind, took: Duration) {
        self.note(|stats| {
            let histogram = if kind == Kind::Read { &mut stats.reads } else { &mut stats.writes };
            histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        });
    }

    /// Notes one that failed.
    pub(super) fn failed(&self, kind: &str) {
        self.note(|stats| {
            let known = stats.errors.len() < ERROR_KINDS_MAX || stats.errors.contains_key(kind);
            *stats.errors.entry(if known { kind } else { "others" }.to_owned()).or_default() += 1;
        });
    }

    /// Notes an operation that was left out.
    pub(super) fn left_out(&self) {
        self.note(|stats| stats.left_out += 1);
    }

    /// Notes what a get showed.
    pub(super) fn shown(&self, siblings: u64) {
        // Most gets show one, and need no second lock.
        if siblings != 1 {
            self.note(|stats| {
                stats.not_found += u64::from(siblings == 0);
                stats.gets_with_siblings += u64::from(siblings > 1);
                stats.siblings_max = stats.siblings_max.max(siblings);
            });
        }
    }

    fn note(&self, note: impl FnOnce(&mut Stats)) {
        let mut counted = self.counted();
        if counted.counts {
            note(&mut counted.stats);
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_the_beginning_does_not_count() {
        let recorder = Recorder::new().unwrap();
        recorder.done(Kind::Read, Duration::from_millis(1));
        recorder.failed("503 unavailable");
        recorder.shown(3);
        recorder.begin();
        recorder.done(Kind::Write, Duration::from_millis(2));
        recorder.shown(0);
        let stats = recorder.stats();
        assert_eq!((stats.reads.len(), stats.writes.len(), stats.failed()), (0, 1, 0));
        assert_eq!((stats.not_found, stats.gets_with_siblings), (1, 0));
        assert!((1_998..=2_002).contains(&stats.writes.max()));
    }

    #[test]
    fn kinds_of_errors_are_bounded_and_their_number_is_right() {
        let recorder = Recorder::new().unwrap();
        recorder.begin();
        for number in 0..1_000 {
            recorder.failed(&format!("{number}"));
        }
        let stats = recorder.stats();
        assert_eq!(stats.failed(), 1_000);
        assert_eq!(stats.errors.len(), ERROR_KINDS_MAX + 1);
    }
}
