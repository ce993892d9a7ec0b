//! The choice of the next key.

/// The number of YCSB's items. Ranks are zipfian over the items, and an item's hash chooses the key.
const ITEMS: f64 = 10_000_000_000.0;
const THETA: f64 = 0.99;
/// The sum of 1/i^THETA over all items, as in YCSB.
const ZETA_ITEMS: f64 = 26.469_028_201_783_02;

/// The distribution of keys, over this many keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys {
    Uniform(u64),
    /// Scrambled zipfian: popular keys are spread over the key space.
    Zipfian(u64),
}

impl Keys {
    /// Draws the number of a key, below the number of keys.
    pub(super) fn next(self, random: &mut fastrand::Rng) -> u64 {
        match self {
            Self::Uniform(count) => random.u64(..count),
            Self::Zipfian(count) => fnv1a(rank(random.f64())) % count,
        }
    }

    /// The name of the distribution in a report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Uniform(_) => "uniform",
            Self::Zipfian(_) => "zipfian",
        }
    }
}

pub(super) fn name(number: u64) -> String {
    format!("user{number}")
}

/// The rank, from 0, for a number drawn uniformly from 0 to 1 (Gray et al., "Quickly generating billion-record synthetic databases",
/// 1994).
fn rank(drawn: f64) -> u64 {
    let scaled = drawn * ZETA_ITEMS;
    let second = 1.0 + 0.5_f64.powf(THETA);
    if scaled < 1.0 {
        return 0;
    }
    if scaled < second {
        return 1;
    }
    let eta = (1.0 - (2.0 / ITEMS).powf(1.0 - THETA)) / (1.0 - second / ZETA_ITEMS);
    (ITEMS * (eta * drawn - eta + 1.0).powf(1.0 / (1.0 - THETA))) as u64
}

fn fnv1a(number: u64) -> u64 {
    number
        .to_le_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(keys: Keys, count: u64, draws: usize) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = vec![0; count as usize];
        for _ in 0..draws {
            counts[keys.next(&mut random) as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn zipfian_shares_match_the_distribution() {
        let counts = counts(Keys::Zipfian(100_000), 100_000, 1_000_000);
        // The share of rank i is 1 / (i^0.99 * 26.47): 3.78%, 1.90%. Hash collisions add almost nothing to either.
        for (rank, share) in [(0, 0.0378), (1, 0.0190)] {
            let found = counts[rank] as f64 / 1e6;
            assert!((found - share).abs() < 0.001, "{rank}: {found}");
        }
        // The 10,000 most popular items have 39%; hash collisions add a part of the rest to their keys.
        let popular = counts[..10_000].iter().sum::<usize>() as f64 / 1e6;
        assert!((0.4..0.6).contains(&popular), "{popular}");
    }

    #[test]
    fn uniform_shares_are_equal() {
        let counts = counts(Keys::Uniform(10), 10, 100_000);
        assert!(counts[0] < 10_500 && counts[9] > 9_500, "{counts:?}");
    }

    #[test]
    fn a_single_key_is_always_chosen() {
        let mut random = fastrand::Rng::with_seed(1);
        assert!((0..1_000).all(|_| Keys::Zipfian(1).next(&mut random) + Keys::Uniform(1).next(&mut random) == 0));
    }
}
