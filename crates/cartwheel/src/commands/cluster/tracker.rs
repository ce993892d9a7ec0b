//! The progress, the rate and the remaining time of transfers, from repeated samples.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cartwheel_client::Transfers;

/// The period over which a rate is measured.
const RATE_OVER: Duration = Duration::from_secs(15);
/// The shortest period with a meaningful rate.
const RATE_OVER_MIN: Duration = Duration::from_secs(2);

/// The data of one partition's transfer, as of the last sample.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    bytes: u64,
    copied: u64,
}

/// The transfers seen so far.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    under_way: BTreeMap<u32, Amount>,
    arrived: usize,
    arrived_bytes: u64,
    /// Samples of (time, bytes copied, partitions arrived), the latest last.
    samples: VecDeque<(Duration, u64, usize)>,
}

/// The progress of all transfers seen so far.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct TransferProgress {
    /// Partitions that have reached their target, of all partitions seen in transfer.
    pub(super) arrived: usize,
    /// Partitions seen in transfer.
    pub(super) partitions: usize,
    pub(super) copied: u64,
    /// Bytes to copy in all, as far as nodes have reported.
    pub(super) bytes: u64,
    /// Recent bytes per second; none before [`RATE_OVER_MIN`].
    pub(super) rate: Option<f64>,
    /// The remaining time at the recent rates; none if it is unknown or never ends.
    pub(super) left: Option<Duration>,
}

impl TransferProgress {
    /// The completed fraction, 0 to 1. Bytes and partitions each count for half: a partition does not arrive with its last byte, since
    /// its homes must agree on the new configuration first.
    pub(super) fn done(&self) -> f64 {
        let part = |done: f64, all: f64| if all > 0.0 { done / all } else { 1.0 };
        let partitions = part(self.arrived as f64, self.partitions as f64);
        if self.bytes == 0 { partitions } else { (part(self.copied as f64, self.bytes as f64) + partitions) / 2.0 }
    }
}

impl Tracker {
    /// Adds a sample taken at the time `at`, counted from the first sample.
    pub(super) fn update(&mut self, at: Duration, transfers: &Transfers) -> TransferProgress {
        let before = std::mem::take(&mut self.under_way);
        for transfer in &transfers.transfers {
            let known = before.get(&transfer.partition).copied().unwrap_or_default();
            let bytes = transfer.bytes.unwrap_or(known.bytes);
            let copied = transfer.copied_bytes.unwrap_or(known.copied).min(bytes);
            self.under_way.insert(transfer.partition, Amount { bytes, copied });
        }
        for (_, amount) in before.iter().filter(|(partition, _)| !self.under_way.contains_key(partition)) {
            self.arrived += 1;
            self.arrived_bytes += amount.bytes;
        }
        let copied = self.arrived_bytes + self.under_way.values().map(|amount| amount.copied).sum::<u64>();
        let bytes = self.arrived_bytes + self.under_way.values().map(|amount| amount.bytes).sum::<u64>();
        let partitions = self.arrived + self.under_way.len();
        self.samples.push_back((at, copied, self.arrived));
        while self.samples.front().is_some_and(|&(then, ..)| at.saturating_sub(then) > RATE_OVER) {
            self.samples.pop_front();
        }
        let mut progress =
            TransferProgress { arrived: self.arrived, partitions, copied, bytes, rate: None, left: None };
        if let Some(&(then, copied_then, arrived_then)) = self.samples.front()
            && at.saturating_sub(then) >= RATE_OVER_MIN
        {
            let seconds = at.saturating_sub(then).as_secs_f64();
            // Data that was copied may have been deleted since, so the count can fall.
            let rate = copied.saturating_sub(copied_then) as f64 / seconds;
            let arrivals = (self.arrived - arrived_then) as f64 / seconds;
            let copies = time_for((bytes - copied) as f64, rate);
            let arrives = time_for(self.under_way.len() as f64, arrivals);
            (progress.rate, progress.left) = (Some(rate), copies.zip(arrives).map(|(a, b)| a.max(b)));
        }
        progress
    }
}

/// The time that `rest` takes at `rate`; none if it never ends.
fn time_for(rest: f64, rate: f64) -> Option<Duration> {
    if rest <= 0.0 { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(rest / rate).ok() }
}

#[cfg(test)]
mod tests {
    use cartwheel_client::Transfer;

    use super::*;

    /// Transfers of partitions with these bytes in all and copied.
    fn transfers(loads: &[(u32, Option<u64>, Option<u64>)]) -> Transfers {
        let transfer = |&(partition, bytes, copied_bytes): &(u32, Option<u64>, Option<u64>)| Transfer {
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
            transfers: loads.iter().map(transfer).collect(),
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
    fn bytes_and_partitions_are_counted_as_they_arrive() {
        let mut tracker = Tracker::default();
        let first = tracker.update(seconds(0), &transfers(&[(1, Some(600), Some(0)), (2, Some(400), Some(100))]));
        assert_eq!((first.arrived, first.partitions, first.copied, first.bytes), (0, 2, 100, 1_000));
        assert_eq!((first.rate, first.left), (None, None), "one sample gives no rate");
        let second = tracker.update(seconds(4), &transfers(&[(1, Some(600), Some(100))]));
        assert_eq!((second.arrived, second.partitions, second.copied, second.bytes), (1, 2, 500, 1_000));
        assert_eq!((second.rate, second.left), (Some(100.0), Some(seconds(5))));
        // By the count of arrivals, the other partition takes as long again.
        let third = tracker.update(seconds(8), &transfers(&[(1, Some(600), Some(500))]));
        assert_eq!((third.rate, third.left), (Some(100.0), Some(seconds(8))));
        let last = tracker.update(seconds(9), &transfers(&[]));
        assert_eq!((last.arrived, last.copied, last.bytes, last.left), (2, 1_000, 1_000, Some(Duration::ZERO)));
        assert!((last.done() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn unknown_amounts_keep_their_last_known_values() {
        let mut tracker = Tracker::default();
        tracker.update(seconds(0), &transfers(&[(1, Some(600), Some(300)), (2, None, None)]));
        let silent = tracker.update(seconds(5), &transfers(&[(1, None, None), (2, None, None)]));
        assert_eq!((silent.copied, silent.bytes), (300, 600));
        assert_eq!((silent.rate, silent.left), (Some(0.0), None), "without progress the end is unknown");
        assert!((silent.done() - 0.25).abs() < 1e-9);
        assert!(
            (Tracker::default().update(seconds(0), &transfers(&[])).done() - 1.0).abs() < 1e-9,
            "there is nothing to do"
        );
    }

    #[test]
    fn a_rate_covers_the_recent_period_only() {
        let mut tracker = Tracker::default();
        for second in 0..=40 {
            let copied = if second < 20 { 0 } else { (second - 20) * 10 };
            let progress = tracker.update(seconds(second), &transfers(&[(1, Some(1_000), Some(copied))]));
            if second == 40 {
                assert_eq!(progress.rate, Some(10.0));
            }
        }
    }
}
