//! Random numbers from the seed, in a separate stream for each purpose.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// The purpose of random numbers. Each purpose has a stream of its own, so that one more draw for one purpose does not change the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// The run's options.
    Options = 1,
    /// Delays, losses and duplicates of messages.
    Network = 2,
    /// Delays and failures of stores.
    Disks = 3,
    /// Times and victims of faults.
    Faults = 4,
    /// Requests of clients.
    Clients = 5,
    /// Seeds of the nodes' own generators.
    Nodes = 6,
    /// Changes of settings, and delays of their messages.
    Settings = 7,
    /// Full disks.
    Room = 8,
    /// Buckets with unsynced writes, and the losses of power failures.
    Power = 9,
    /// Nodes beyond those that keys need, and buckets that do not use them.
    StandIns = 12,
    /// Delays of probes, and runs that end with a crash.
    Probes = 10,
    /// Lost disks, and the new incarnations.
    Wipe = 11,
    /// The interval of exchanges, and orderly stops.
    Exchange = 13,
    /// Delays of messages about epochs.
    Epochs = 14,
    /// Options of runs of a day.
    Days = 15,
    /// Values that expire during the run.
    Expiry = 16,
    /// Nodes, keys and requests of [`crate::placement`].
    Placement = 17,
    /// Changes of members.
    Topology = 18,
    /// Crashes of all nodes at once.
    Outages = 19,
    /// Runs that end with the loss of majorities.
    Losses = 20,
    /// Copies of disks, and their restores.
    Copies = 31,
    /// Clusters whose founder leaves, and the restarts of their stand-ins.
    Founders = 32,
    /// Runs whose nodes take several inputs in a step.
    Turns = 33,
    /// Sizes of the nodes' caches of records.
    Caches = 34,
    /// A bucket that is emptied now and then, and its clients.
    Emptied = 35,
}

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The generator of one stream of a seed.
    pub fn new(seed: u64, stream: Stream) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64);
        Self(rng)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the multiplication is below 2^-32 for the small bounds used here.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// An index of a list of `len` items, which must not be empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// True with a probability of `per_mille` in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// A number in `low..=high` with an even distribution of its order of magnitude; `low` must be above 0.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (mut top, span) = (low, 64 - (high / low.max(1)).leading_zeros());
        top = top.saturating_shl(self.below(u64::from(span)) as u32).min(high);
        self.range(low, top.saturating_mul(2).min(high))
    }

    /// An exponentially distributed time with about the given mean, for events that are independent of each other.
    ///
    /// The logarithm is computed in integers (piecewise linear), so that all machines draw the same.
    pub fn waiting_us(&mut self, mean_us: u64) -> u64 {
        const LN_2: u64 = 45_426; // 2^16 ln 2
        let bits = self.bits() | 1;
        let zeros = bits.leading_zeros();
        // A number in 1..2, with 16 bits after the point.
        let mantissa = (bits << zeros) >> 47;
        let minus_log2 = (u64::from(zeros) << 16) + (2 << 16) - mantissa;
        ((u128::from(mean_us) * u128::from(minus_log2 * LN_2)) >> 32) as u64
    }
}

trait SaturatingShl {
    fn saturating_shl(self, shift: u32) -> Self;
}

impl SaturatingShl for u64 {
    fn saturating_shl(self, shift: u32) -> Self {
        self.saturating_mul(1_u64.checked_shl(shift).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_bounds() {
        let mut rng = Rng::new(7, Stream::Options);
        for _ in 0..1000 {
            assert!(rng.below(3) < 3);
            assert!((5..=9).contains(&rng.range(5, 9)));
            assert!((10..=5000).contains(&rng.magnitude(10, 5000)));
        }
        assert_eq!(rng.below(0), 0);
        assert!(!rng.chance(0) && rng.chance(1000));
    }

    #[test]
    fn waiting_times_have_their_mean() {
        let mut rng = Rng::new(7, Stream::Faults);
        let sum: u64 = (0..10_000).map(|_| rng.waiting_us(1000)).sum();
        assert!((9_000_000..11_500_000).contains(&sum), "{sum}");
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |stream| Rng::new(1, stream).bits();
        assert_eq!(draw(Stream::Network), draw(Stream::Network));
        assert_ne!(draw(Stream::Network), draw(Stream::Disks));
    }
}
