//! How far moves are, how fast they go and how long they will take, from looking at them again and again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cartwheel_client::Transfers;

/// Over how long a rate is taken.
const RATE_OVER: Duration = Duration::from_secs(15);
/// A rate over less time than this says nothing.
const RATE_OVER_MIN: Duration = Duration::from_secs(2);

/// What one partition's move has to bring, as it was seen last.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    bytes: u64,
    copied: u64,
}

/// Moves as they were seen so far.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    under_way: BTreeMap<u32, Load>,
    arrived: usize,
    arrived_bytes: u64,
    /// When so many bytes and partitions had come, the latest last.
    looks: VecDeque<(Duration, u64, usize)>,
}

/// How far they are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Standing {
    /// How many partitions are where they are wished, of those that were seen on their way.
    pub(super) arrived: usize,
    /// How many were seen.
    pub(super) partitions: usize,
    /// How many bytes have come.
    pub(super) copied: u64,
    /// Of how many, as far as nodes have said.
    pub(super) bytes: u64,
    /// Bytes a second, lately.
    pub(super) rate: Option<f64>,
    /// How long it takes at this rate.
    pub(super) left: Option<Duration>,
}

impl Standing {
    /// The part that is done: of the bytes, half, and of the partitions, the other half, since a partition is not there with its last
    /// byte: its homes agree on it first.
    pub(super) fn done(&self) -> f64 {
        let part = |done: f64, all: f64| if all > 0.0 { done / all } else { 1.0 };
        let partitions = part(self.arrived as f64, self.partitions as f64);
        if self.bytes == 0 { partitions } else { (part(self.copied as f64, self.bytes as f64) + partitions) / 2.0 }
    }
}

impl Tracker {
    /// Takes in what was seen at a time, counted from the first look.
    pub(super) fn look(&mut self, at: Duration, moves: &Transfers) -> Standing {
        let before = std::mem::take(&mut self.under_way);
        for moving in &moves.transfers {
            let known = before.get(&moving.partition).copied().unwrap_or_default();
            let bytes = moving.bytes.unwrap_or(known.bytes);
            let copied = moving.copied_bytes.unwrap_or(known.copied).min(bytes);
            self.under_way.insert(moving.partition, Load { bytes, copied });
        }
        for (_, load) in before.iter().filter(|(partition, _)| !self.under_way.contains_key(partition)) {
            self.arrived += 1;
            self.arrived_bytes += load.bytes;
        }
        let copied = self.arrived_bytes + self.under_way.values().map(|load| load.copied).sum::<u64>();
        let bytes = self.arrived_bytes + self.under_way.values().map(|load| load.bytes).sum::<u64>();
        let partitions = self.arrived + self.under_way.len();
        self.looks.push_back((at, copied, self.arrived));
        while self.looks.front().is_some_and(|&(then, ..)| at.saturating_sub(then) > RATE_OVER) {
            self.looks.pop_front();
        }
        let mut standing = Standing { arrived: self.arrived, partitions, copied, bytes, rate: None, left: None };
        if let Some(&(then, copied_then, arrived_then)) = self.looks.front()
            && at.saturating_sub(then) >= RATE_OVER_MIN
        {
            let seconds = at.saturating_sub(then).as_secs_f64();
            // What was copied may have been deleted since.
            let rate = copied.saturating_sub(copied_then) as f64 / seconds;
            let arrivals = (self.arrived - arrived_then) as f64 / seconds;
            let copies = time_for((bytes - copied) as f64, rate);
            let arrives = time_for(self.under_way.len() as f64, arrivals);
            (standing.rate, standing.left) = (Some(rate), copies.zip(arrives).map(|(a, b)| a.max(b)));
        }
        standing
    }
}

/// How long so much takes; none if it never ends.
fn time_for(rest: f64, rate: f64) -> Option<Duration> {
    if rest <= 0.0 { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(rest / rate).ok() }
}

#[cfg(test)]
mod tests {
    use cartwheel_client::Transfer;

    use super::*;

    /// Moves of partitions with so many bytes, of which so many are copied.
    fn moves(loads: &[(u32, Option<u64>, Option<u64>)]) -> Transfers {
        let moving = |&(partition, bytes, copied_bytes): &(u32, Option<u64>, Option<u64>)| Transfer {
            partition,
            config_version: "0".to_owned(),
            from: vec![],
            to: vec![],
            state: "copying".to_owned(),
            keys: None,
            bytes,
            copied_keys: None,
            copied_bytes,
            estimated: false,
            waits_for: vec![],
        };
        Transfers {
            version: String::new(),
            partitions: 256,
            transfers: loads.iter().map(moving).collect(),
            bytes: None,
            copied_bytes: None,
            estimated: false,
            retired_replicas: vec![],
            leaving: vec![],
            waiting: vec![],
        }
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn bytes_and_partitions_are_counted_as_they_come() {
        let mut tracker = Tracker::default();
        let first = tracker.look(seconds(0), &moves(&[(1, Some(600), Some(0)), (2, Some(400), Some(100))]));
        assert_eq!((first.arrived, first.partitions, first.copied, first.bytes), (0, 2, 100, 1_000));
        assert_eq!((first.rate, first.left), (None, None), "one look says nothing of how fast it goes");
        let second = tracker.look(seconds(4), &moves(&[(1, Some(600), Some(100))]));
        assert_eq!((second.arrived, second.partitions, second.copied, second.bytes), (1, 2, 500, 1_000));
        assert_eq!((second.rate, second.left), (Some(100.0), Some(seconds(5))));
        // The other partition takes as long again, by the count of those that come.
        let third = tracker.look(seconds(8), &moves(&[(1, Some(600), Some(500))]));
        assert_eq!((third.rate, third.left), (Some(100.0), Some(seconds(8))));
        let last = tracker.look(seconds(9), &moves(&[]));
        assert_eq!((last.arrived, last.copied, last.bytes, last.left), (2, 1_000, 1_000, Some(Duration::ZERO)));
        assert!((last.done() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_known_is_as_it_was_known_last() {
        let mut tracker = Tracker::default();
        tracker.look(seconds(0), &moves(&[(1, Some(600), Some(300)), (2, None, None)]));
        let silent = tracker.look(seconds(5), &moves(&[(1, None, None), (2, None, None)]));
        assert_eq!((silent.copied, silent.bytes), (300, 600));
        assert_eq!((silent.rate, silent.left), (Some(0.0), None), "at this rate it never ends");
        assert!((silent.done() - 0.25).abs() < 1e-9);
        assert!((Tracker::default().look(seconds(0), &moves(&[])).done() - 1.0).abs() < 1e-9, "there is nothing to do");
    }

    #[test]
    fn a_rate_is_that_of_late() {
        let mut tracker = Tracker::default();
        for second in 0..=40 {
            let copied = if second < 20 { 0 } else { (second - 20) * 10 };
            let standing = tracker.look(seconds(second), &moves(&[(1, Some(1_000), Some(copied))]));
            if second == 40 {
                assert_eq!(standing.rate, Some(10.0));
            }
        }
    }
}
