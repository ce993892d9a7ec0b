//! The ring's equal partitions.

use std::fmt;

use crate::value::token::Token;

/// One of a ring's partitions, counted clockwise from position 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// The partition's place in a slice with one entry per partition.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// Why a number of partitions was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadPartitionCount(pub u32);

impl fmt::Display for BadPartitionCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a ring has 1 to {} partitions, not {}", Partitions::MAX, self.0)
    }
}

impl std::error::Error for BadPartitionCount {}

/// The number of equal partitions of the ring: the paper's Q (section 6.2, strategy 3). Fixed when a cluster is created.
///
/// Q need not be a power of two. Partition `p` holds the positions from `ceil(p * 2^128 / Q)`, included, to the next partition's start,
/// excluded. So sizes differ by at most one position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Partitions(u32);

impl Default for Partitions {
    fn default() -> Self {
        Self(256)
    }
}

impl Partitions {
    /// The most partitions that a ring can have.
    pub const MAX: u32 = 65_536;

    /// A ring of `count` partitions, from 1 to [`Partitions::MAX`].
    pub const fn new(count: u32) -> Result<Self, BadPartitionCount> {
        if count == 0 || count > Self::MAX { Err(BadPartitionCount(count)) } else { Ok(Self(count)) }
    }

    /// The number of partitions.
    pub const fn count(self) -> u32 {
        self.0
    }

    /// The number of partitions as a `usize`, for sizing slices.
    pub const fn len(self) -> usize {
        self.0 as usize
    }

    /// Always false: a ring has at least one partition.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// All partitions, clockwise from position 0.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = PartitionId> + ExactSizeIterator {
        (0..self.0).map(PartitionId)
    }

    /// The partition that `token` falls into: `floor(token * Q / 2^128)`, exactly.
    pub const fn of(self, token: Token) -> PartitionId {
        let count = self.0 as u128;
        let (high, low) = (token.position() >> 64, token.position() & u64::MAX as u128);
        // The product has 145 bits; its upper 17 need only the carry of the lower half.
        PartitionId(((high * count + ((low * count) >> 64)) >> 64) as u32)
    }

    /// The first position of `partition`, which is part of it.
    ///
    /// # Panics
    /// If the ring has no such partition.
    pub const fn start(self, partition: PartitionId) -> Token {
        assert!(partition.0 < self.0, "no such partition");
        if partition.0 == 0 {
            return Token::new(0);
        }
        // 2^128 = Q * whole + rest, without leaving 128 bits; Q is at least 2 here.
        let (count, p) = (self.0 as u128, partition.0 as u128);
        let rest = (u128::MAX % count + 1) % count;
        let whole = u128::MAX / count + (rest == 0) as u128;
        Token::new(p * whole + (p * rest).div_ceil(count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn starts_of_small_rings() {
        let q = Partitions::new(4).unwrap();
        let starts: Vec<_> = q.iter().map(|p| q.start(p).position()).collect();
        assert_eq!(starts, [0, 1 << 126, 1 << 127, 3 << 126]);
        let q = Partitions::new(3).unwrap();
        // 2^128 / 3 = 0x5555...5555 and a third, rounded up.
        assert_eq!(q.start(PartitionId(1)).position(), u128::MAX / 3 + 1);
        assert_eq!(q.start(PartitionId(2)).position(), u128::MAX / 3 * 2 + 1);
    }

    #[test]
    fn a_start_belongs_to_its_partition_and_the_position_before_to_the_one_before() {
        for count in (1..200).chain([255, 256, 257, 1000, 16_384, 65_535, 65_536]) {
            let q = Partitions::new(count).unwrap();
            for p in q.iter() {
                let start = q.start(p);
                assert_eq!(q.of(start), p, "Q {count}");
                let before = Token::new(start.position().wrapping_sub(1));
                assert_eq!(q.of(before).0, (p.0 + count - 1) % count, "Q {count}, before {p:?}");
            }
        }
    }

    #[test]
    fn counts_outside_the_bounds_are_refused() {
        assert_eq!(Partitions::new(0), Err(BadPartitionCount(0)));
        assert_eq!(Partitions::new(65_537), Err(BadPartitionCount(65_537)));
        assert_eq!(Partitions::default().count(), 256);
    }

    proptest! {
        #[test]
        fn every_token_lies_between_its_partitions_start_and_the_next(count in 1u32..=65_536, position: u128) {
            let q = Partitions::new(count).unwrap();
            let p = q.of(Token::new(position));
            prop_assert!(q.start(p).position() <= position);
            if p.0 + 1 < count {
                prop_assert!(position < q.start(PartitionId(p.0 + 1)).position());
            }
        }
    }
}
