//! Hybrid logical clocks: timestamps that follow causality and stay close to the wall clock.
//!
//! Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks" (OPODIS 2014). An event that causally precedes another
//! has the smaller timestamp; the converse does not hold, so timestamps order writes under last write wins and never decide
//! what supersedes what.

use std::fmt;

/// Milliseconds of wall-clock time since the Unix epoch, as some node's clock reads them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WallMs(pub u64);

/// A hybrid timestamp: 48 bits of milliseconds, 16 bits of logical count that carry into them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

impl Hlc {
    /// Smaller than any timestamp that a clock gives out.
    pub const ZERO: Self = Self(0);

    const LOGICAL_BITS: u32 = 16;

    /// The timestamp with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The timestamp as one sortable number.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The smallest timestamp of the millisecond `wall`.
    pub const fn at(wall: WallMs) -> Self {
        Self(wall.0 << Self::LOGICAL_BITS)
    }

    /// The wall-clock part.
    pub const fn wall(self) -> WallMs {
        WallMs(self.0 >> Self::LOGICAL_BITS)
    }

    /// The smallest timestamp above this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall().0, self.0 & ((1 << Self::LOGICAL_BITS) - 1))
    }
}
