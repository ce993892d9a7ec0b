//! Measured round trips between nodes, as plain data.

use std::time::Duration;

/// How many ranges each power of two of microseconds is divided into.
const RANGES: u64 = 8;
/// The longest round trip that has a range of its own, about 67 s.
const OCTAVES: u64 = 26;
const LENGTH: usize = (OCTAVES * RANGES) as usize;
/// At this many round trips all counts are halved, so that the latest few thousand decide.
const COUNT_MAX: u32 = 8_192;

/// Counts of latencies in ranges that grow with them: an eighth of a power of two each. Recent latencies count most.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latencies {
    counts: Box<[u16; LENGTH]>,
    total: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: Box::new([0; LENGTH]), total: 0 }
    }
}

impl Latencies {
    /// Counts a latency.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if self.total >= COUNT_MAX {
            self.total = 0;
            for count in self.counts.iter_mut() {
                *count /= 2;
                self.total += u32::from(*count);
            }
        }
        let count = &mut self.counts[range_of(micros)];
        *count = count.saturating_add(1);
        self.total += 1;
    }

    /// How many latencies count.
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// Adds the latencies that another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count = count.saturating_add(*more);
        }
        self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
    }

    /// The latency in microseconds below which this share of all lies, from 0 to 1; none if none was counted. Within a range, latencies count as
    /// evenly spread.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let mut left = share.clamp(0.0, 1.0) * f64::from(self.total);
        let mut last = None;
        for (range, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (from, to) = (floor_of(range) as f64, floor_of(range + 1) as f64);
            let count = f64::from(count);
            if left <= count {
                return Some(from + (to - from) * (left / count));
            }
            left -= count;
            last = Some(to);
        }
        last
    }
}

/// The range of a latency of this many microseconds. Below 8, each microsecond has its own.
fn range_of(micros: u64) -> usize {
    let octave = u64::from(micros.max(1).ilog2());
    let range = if micros < RANGES { micros } else { (octave - 2) * RANGES + ((micros >> (octave - 3)) - RANGES) };
    usize::try_from(range).unwrap_or(LENGTH).min(LENGTH - 1)
}

/// The lowest latency of a range, in microseconds.
const fn floor_of(range: usize) -> u64 {
    let range = range as u64;
    if range < RANGES { range } else { (RANGES + range % RANGES) << (range / RANGES - 1) }
}

/// The round trips to one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoundTrips {
    /// From a read's request to the replica's response.
    pub reads: Latencies,
    /// From a state that is sent to the replica's acknowledgement that it is durable there.
    pub writes: Latencies,
}

impl RoundTrips {
    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        self.reads.merge(&other.reads);
        self.writes.merge(&other.writes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_lies_in_its_range() {
        for micros in (0..5_000).chain([1 << 20, (1 << 25) + 77, (1 << 28) - 1]) {
            let range = range_of(micros);
            assert!(floor_of(range) <= micros && micros < floor_of(range + 1), "{micros}: {range}");
            let width = floor_of(range + 1) - floor_of(range);
            assert!(width == 1 || width * RANGES <= floor_of(range), "{micros}");
        }
        assert_eq!(range_of(u64::MAX), LENGTH - 1);
    }

    #[test]
    fn quantiles_follow_what_was_counted_of_late() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        (1..=1_000).for_each(|millis| latencies.record(Duration::from_millis(millis)));
        for (share, millis) in [(0.1, 100.0), (0.5, 500.0), (0.99, 990.0)] {
            let found = latencies.quantile(share).unwrap() / 1_000.0;
            assert!((found - millis).abs() <= millis / 8.0, "{share}: {found}");
        }
        (0..100_000).for_each(|_| latencies.record(Duration::from_micros(50)));
        assert!(latencies.quantile(0.99).unwrap() < 60.0, "the old ones no longer count");
        assert!(latencies.total() <= COUNT_MAX);
    }
}
