//! Quorum arithmetic (paper, section 4.5).

/// Whether every set of `r` of `n` replicas shares a member with every set of `w` of them, so that a read meets each
/// acknowledged write: `r + w > n`.
pub const fn overlap(n: usize, r: usize, w: usize) -> bool {
    r + w > n
}

/// The smallest number of `n` replicas such that any two sets of that many share a member.
pub const fn majority(n: usize) -> usize {
    n / 2 + 1
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
    fn r_plus_w_above_n_exactly_when_every_read_set_meets_every_write_set() {
        for n in 1..=7 {
            for (r, w) in (1..=n).flat_map(|r| (1..=n).map(move |w| (r, w))) {
                assert_eq!(overlap(n, r, w), all_meet(n, r, w), "n {n}, r {r}, w {w}");
            }
        }
    }

    #[test]
    fn a_majority_is_the_least_that_always_meets_another() {
        for n in 1..=7 {
            assert!(all_meet(n, majority(n), majority(n)), "n {n}");
            let less = majority(n) - 1;
            assert!(less == 0 || !all_meet(n, less, less), "n {n}");
        }
    }
}
