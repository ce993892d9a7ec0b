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

    /// The smallest timestamp of the millisecond `wall`; the greatest one there is if that lies beyond all timestamps.
    pub const fn at(wall: WallMs) -> Self {
        if wall.0 > u64::MAX >> Self::LOGICAL_BITS { Self(u64::MAX) } else { Self(wall.0 << Self::LOGICAL_BITS) }
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

/// How far ahead of the local wall clock a timestamp may be to move the local clock.
pub const AHEAD_MS_MAX: u64 = 10_000;

/// How far ahead of what is given out a ceiling is saved, and how near to it a new one is wanted.
const CEILING_LEAD_MS: u64 = 60_000;
const CEILING_RENEW_MS: u64 = 30_000;

/// A node's hybrid clock.
///
/// It gives out nothing above its *ceiling*, which is durable, and starts above the ceiling of the boot before: so its
/// timestamps rise through restarts, whatever the wall clock does in between.
#[derive(Clone, Debug)]
pub struct HlcClock {
    last: Hlc,
    ceiling: Hlc,
    saving: Option<Hlc>,
}

impl HlcClock {
    /// The clock of a boot that finds `ceiling` saved.
    pub const fn new(ceiling: Hlc) -> Self {
        Self { last: ceiling, ceiling, saving: None }
    }

    /// A timestamp above all that this clock gave out or took in; none while it waits for a ceiling to be saved.
    pub fn tick(&mut self, wall: WallMs) -> Option<Hlc> {
        let given = self.last.next().max(Hlc::at(wall));
        if given > self.ceiling {
            return None;
        }
        self.last = given;
        Some(given)
    }

    /// Takes in a timestamp of another node, unless it is so far ahead that one bad clock would drag all others along.
    pub fn observe(&mut self, hlc: Hlc, wall: WallMs) {
        if hlc.wall().0 <= wall.0.saturating_add(AHEAD_MS_MAX) && hlc <= self.ceiling {
            self.last = self.last.max(hlc);
        }
    }

    /// Whether it can give out a timestamp at `wall`.
    pub fn is_ready(&self, wall: WallMs) -> bool {
        self.last.next().max(Hlc::at(wall)) <= self.ceiling
    }

    /// The ceiling that should be saved now, if one should. It counts as being saved until [`Self::saved`].
    pub fn wants_ceiling(&mut self, wall: WallMs) -> Option<Hlc> {
        let now = self.last.max(Hlc::at(wall));
        let soon = Hlc::at(WallMs(now.wall().0.saturating_add(CEILING_RENEW_MS)));
        if self.saving.is_some() || soon <= self.ceiling {
            return None;
        }
        let ceiling = Hlc::at(WallMs(now.wall().0.saturating_add(CEILING_LEAD_MS)));
        self.saving = Some(ceiling);
        Some(ceiling)
    }

    /// The ceiling asked for is durable, or could not be saved.
    pub fn saved(&mut self, stored: bool) {
        if let Some(ceiling) = self.saving.take()
            && stored
        {
            self.ceiling = self.ceiling.max(ceiling);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(wall: u64) -> HlcClock {
        let mut clock = HlcClock::new(Hlc::ZERO);
        clock.wants_ceiling(WallMs(wall)).expect("a new clock wants a ceiling");
        clock.saved(true);
        clock
    }

    #[test]
    fn nothing_is_given_out_above_a_ceiling_that_is_not_saved() {
        let mut clock = HlcClock::new(Hlc::ZERO);
        assert_eq!(clock.tick(WallMs(1_000)), None);
        clock.wants_ceiling(WallMs(1_000)).expect("a new clock wants a ceiling");
        assert_eq!(clock.tick(WallMs(1_000)), None, "it is not durable yet");
        clock.saved(false);
        assert_eq!(clock.tick(WallMs(1_000)), None, "it could not be saved");
        clock.wants_ceiling(WallMs(1_000)).expect("it is wanted again");
        clock.saved(true);
        assert_eq!(clock.tick(WallMs(1_000)), Some(Hlc::at(WallMs(1_000))));
        assert_eq!(clock.tick(WallMs(1_000_000)), None, "the wall clock has leapt over the ceiling");
    }

    #[test]
    fn it_rises_while_the_wall_clock_stands_or_goes_back() {
        let mut clock = ready(1_000);
        let first = clock.tick(WallMs(1_000));
        let second = clock.tick(WallMs(1_000));
        let third = clock.tick(WallMs(10));
        assert!(first < second && second < third);
    }

    #[test]
    fn it_follows_its_peers_but_not_one_that_is_far_ahead() {
        let mut clock = ready(1_000);
        let near = Hlc::at(WallMs(1_000 + AHEAD_MS_MAX));
        clock.observe(Hlc::at(WallMs(1_001 + AHEAD_MS_MAX)), WallMs(1_000));
        assert!(clock.tick(WallMs(1_000)) < Some(near));
        clock.observe(near, WallMs(1_000));
        assert_eq!(clock.tick(WallMs(1_000)), Some(near.next()));
    }
}
