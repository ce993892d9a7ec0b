//! Quorum arithmetic (paper, section 4.5).

/// Whether every set of `r` of `n` replicas shares a member with every set of `w` of them, so that a read meets each acknowledged write: `r + w
/// > n`.
pub const fn overlap(n: usize, r: usize, w: usize) -> bool {
    r + w > n
}

/// The smallest number of `n` replicas such that any two sets of that many share a member.
pub const fn majority(n: usize) -> usize {
    n / 2 + 1
}

/// The number of home replicas of one configuration that an operation needs.
///
/// A request counts in terms of its bucket's settings. While a change of n is under way, a configuration may have another n, and the number
/// adapts to it. So `r + w > n` in the settings means that reads meet writes in that configuration too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quorum {
    share: Share,
    more: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Share {
    Exactly(usize),
    Writes(usize, u8),
    Reads(usize, u8),
    Majority(u8),
    MajorityWithin(u8, usize),
}

impl Quorum {
    const fn new(share: Share) -> Self {
        Self { share, more: 0 }
    }

    /// The number of replicas that must store a write, with `n` from the settings; at most the configuration's n.
    pub const fn writes(w: usize, n: u8) -> Self {
        Self::new(Share::Writes(w, n))
    }

    /// The number of replicas that must answer a read, with `n` from the settings. A configuration with a larger n needs as many more.
    pub const fn reads(r: usize, n: u8) -> Self {
        Self::new(Share::Reads(r, n))
    }

    /// A majority of the configuration's n, or of the settings' `n` where that is unknown.
    pub const fn majority(n: u8) -> Self {
        Self::new(Share::Majority(n))
    }

    /// A majority, but at most `most`.
    pub const fn majority_within(n: u8, most: usize) -> Self {
        Self::new(Share::MajorityWithin(n, most))
    }

    /// The same plus one.
    #[must_use]
    pub const fn and_one(self) -> Self {
        Self { more: self.more + 1, ..self }
    }

    /// The number needed of a configuration in which keys have `n` homes (0: as many as the settings say), of which `there` exist.
    pub fn of(self, n: u8, there: usize) -> usize {
        let or = |settings: u8| usize::from(if n == 0 { settings } else { n });
        let needed = match self.share {
            Share::Exactly(needed) => needed,
            Share::Writes(w, settings) => w.min(or(settings)),
            Share::Reads(r, settings) => match or(settings).checked_sub(settings.into()) {
                // A read that hears all existing replicas misses nothing.
                Some(more) => (r + more).min(there.max(r)),
                None => r.min(or(settings)),
            },
            Share::Majority(settings) => majority(or(settings)),
            Share::MajorityWithin(settings, most) => majority(or(settings)).min(most),
        };
        needed + self.more
    }
}

impl From<usize> for Quorum {
    fn from(needed: usize) -> Self {
        Self::new(Share::Exactly(needed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sets of `size` of `n` replicas, as bit masks.
    fn sets(n: usize, size: usize) -> impl Iterator<Item = u32> + Clone {
        (0..1u32 << n).filter(move |set| set.count_ones() as usize == size)
    }

    fn all_meet(n: usize, r: usize, w: usize) -> bool {
        sets(n, r).all(|read| sets(n, w).all(|write| read & write != 0))
    }

    #[test]
    fn r_plus_w_exceeds_n_exactly_when_every_read_set_meets_every_write_set() {
        for n in 1..=7 {
            for (r, w) in (1..=n).flat_map(|r| (1..=n).map(move |w| (r, w))) {
                assert_eq!(overlap(n, r, w), all_meet(n, r, w), "n {n}, r {r}, w {w}");
            }
        }
    }

    #[test]
    fn reads_meet_writes_in_a_configuration_of_any_n() {
        for (settings, n) in (1..=5u8).flat_map(|settings| (1..=5u8).map(move |n| (settings, n))) {
            for (r, w) in (1..=settings).flat_map(|r| (1..=settings).map(move |w| (r, w))) {
                let (r, w) = (usize::from(r), usize::from(w));
                let there = usize::from(n);
                let (reads, writes) =
                    (Quorum::reads(r, settings).of(n, there), Quorum::writes(w, settings).of(n, there));
                assert!((1..=usize::from(n)).contains(&reads) && (1..=usize::from(n)).contains(&writes));
                if overlap(settings.into(), r, w) {
                    assert!(overlap(n.into(), reads, writes), "n {n}, settings {settings}, r {r}, w {w}");
                }
                assert_eq!(Quorum::reads(r, settings).of(0, there), r);
            }
        }
    }

    #[test]
    fn a_majority_is_the_smallest_number_of_which_any_two_sets_meet() {
        for n in 1..=7 {
            assert!(all_meet(n, majority(n), majority(n)), "n {n}");
            let less = majority(n) - 1;
            assert!(less == 0 || !all_meet(n, less, less), "n {n}");
        }
    }
}
