//! Request latencies of the last minute, second by second, in bounded memory.

use std::time::Duration;

/// The length of the window in seconds.
pub(super) const WINDOW_S: usize = 60;
/// Eight buckets to each power of two, so a latency is known to an eighth of itself. The last bucket holds everything over two minutes.
const BUCKETS: usize = 208;

/// Counts of latencies in buckets.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: [u32; BUCKETS],
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, took: Duration) {
        let count = &mut self.counts[bucket(took)];
        *count = count.saturating_add(1);
        self.total += 1;
    }

    pub(super) const fn count(&self) -> u64 {
        self.total
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.total += other.total;
    }

    fn subtract(&mut self, other: &Self) {
        for (count, less) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_sub(*less);
        }
        self.total = self.total.saturating_sub(other.total);
    }

    /// Halves all counts, so that older latencies weigh less.
    pub(super) fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        self.total = self.counts.iter().map(|&count| u64::from(count)).sum();
    }

    /// The latency that 99 of 100 requests do not exceed, to an eighth; zero if there are none.
    pub(super) fn p99(&self) -> Duration {
        let mut above = self.total / 100;
        for (bucket, &count) in self.counts.iter().enumerate().rev() {
            match above.checked_sub(count.into()) {
                Some(rest) => above = rest,
                None => return end(bucket),
            }
        }
        Duration::ZERO
    }
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if us < 8 {
        return us as usize;
    }
    let power = us.ilog2();
    ((power as usize - 2) * 8 + (us >> (power - 3)) as usize % 8).min(BUCKETS - 1)
}

/// The longest latency that falls into a bucket.
fn end(bucket: usize) -> Duration {
    if bucket < 8 {
        return Duration::from_micros(bucket as u64);
    }
    let (power, eighth) = (bucket / 8 + 2, bucket as u64 % 8);
    Duration::from_micros(((9 + eighth) << (power - 3)) - 1)
}

/// The latencies of the last minute.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The seconds that have ended, as a ring buffer.
    seconds: Vec<Histogram>,
    next: usize,
    /// The sum of `seconds`.
    sum: Histogram,
    current: Histogram,
}

impl Default for Window {
    fn default() -> Self {
        let seconds = vec![Histogram::default(); WINDOW_S];
        Self { seconds, next: 0, sum: Histogram::default(), current: Histogram::default() }
    }
}

impl Window {
    pub(super) fn record(&mut self, took: Duration) {
        self.current.record(took);
    }

    /// Ends the current second and returns it.
    pub(super) fn end_second(&mut self) -> Histogram {
        let ended = std::mem::take(&mut self.current);
        self.sum.add(&ended);
        let oldest = std::mem::replace(&mut self.seconds[self.next], ended.clone());
        self.sum.subtract(&oldest);
        self.next = (self.next + 1) % WINDOW_S;
        ended
    }

    /// The 99th percentile of the seconds that have ended.
    pub(super) fn p99(&self) -> Duration {
        self.sum.p99()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_latency_is_known_to_an_eighth() {
        for us in (0..100_000).chain((100_000..100_000_000).step_by(997)) {
            let took = Duration::from_micros(us);
            let (end, before) = (end(bucket(took)), bucket(took).checked_sub(1).map(end));
            assert!(took <= end && end.as_micros() as u64 <= us + us / 8, "{us}: {end:?}");
            assert!(before.is_none_or(|before| before < took), "{us}: {before:?}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_99th_percentile_ignores_one_slow_request_in_a_hundred() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.p99(), Duration::ZERO);
        (0..99).for_each(|_| histogram.record(ms(1)));
        histogram.record(ms(100));
        assert!(histogram.p99() < ms(2), "one in a hundred is slow");
        histogram.record(ms(100));
        assert!(histogram.p99() >= ms(100), "two are");
    }

    #[test]
    fn seconds_older_than_the_window_do_not_count() {
        let mut window = Window::default();
        window.record(ms(100));
        window.end_second();
        for _ in 1..WINDOW_S {
            window.record(ms(1));
            window.end_second();
            assert!(window.p99() >= ms(100));
        }
        window.record(ms(1));
        assert_eq!(window.end_second().count(), 1);
        assert!(window.p99() < ms(2), "{:?}", window.p99());
    }
}
