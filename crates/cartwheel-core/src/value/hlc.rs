//! Hybrid logical clocks: timestamps that follow causality and stay close to the wall clock.
//!
//! Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks" (OPODIS 2014). An event that causally precedes another has the smaller
//! timestamp. The converse does not hold, so timestamps order writes under last write wins and never decide causality.

use std::fmt;

/// Milliseconds of wall-clock time since the Unix epoch, as some node's clock reads them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WallMs(pub u64);

/// A hybrid timestamp: 48 bits of milliseconds, then 16 bits of logical count that overflow into them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

impl Hlc {
    /// Smaller than any timestamp that a clock returns.
    pub const ZERO: Self = Self(0);

    const LOGICAL_BITS: u32 = 16;

    /// How many timestamps lie between those of two writes; all bits below the greatest one are set.
    const BETWEEN: u64 = 15;

    /// The timestamp with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The timestamp as one sortable number.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The smallest timestamp of the millisecond `wall`; the greatest timestamp if `wall` lies beyond all of them.
    pub const fn at(wall: WallMs) -> Self {
        if wall.0 > u64::MAX >> Self::LOGICAL_BITS { Self(u64::MAX) } else { Self(wall.0 << Self::LOGICAL_BITS) }
    }

    /// The wall-clock part.
    pub const fn wall(self) -> WallMs {
        WallMs(self.0 >> Self::LOGICAL_BITS)
    }

    /// The smallest timestamp above this one: that of a change of this write alone (such as when its value expires).
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The smallest timestamp above this one for a write that replaces whatever is held. Those between the two are for changes of this write alone,
    /// which so lose to every write that came after it.
    pub const fn after(self) -> Self {
        Self((self.0 | Self::BETWEEN).saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall().0, self.0 & ((1 << Self::LOGICAL_BITS) - 1))
    }
}

/// The greatest lead over the local wall clock at which a timestamp still moves the local clock, in milliseconds.
pub const AHEAD_MS_MAX: u64 = 10_000;

/// A node's clock for the timestamps of its writes: never behind its wall clock, never far ahead of it.
///
/// It rises even when the wall clock moves back a little. Nothing of it is saved: a boot starts from the wall clock. No rule needs it to be
/// above the timestamps of the boot before, because a write gets a timestamp above everything that its record holds, and its identity in clocks
/// is its dot. A clock that started above a saved bound went further ahead with each boot, and won over later writes of nodes that had not been
/// restarted.
///
/// It follows a wall clock that was set back by more than [`AHEAD_MS_MAX`]: peers would not follow it that far ahead, and a restart would set it
/// back anyway.
#[derive(Clone, Debug, Default)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// The clock of a new boot.
    pub const fn new() -> Self {
        Self { last: Hlc::ZERO }
    }

    /// A timestamp above all that this clock returned or observed, as far as they are near `wall`.
    pub fn tick(&mut self, wall: WallMs) -> Hlc {
        let near = if is_near(self.last, wall) { self.last } else { Hlc::ZERO };
        self.last = near.after().max(Hlc::at(wall));
        self.last
    }

    /// Takes in a timestamp of another node. One that is too far ahead is ignored, so that one bad clock cannot move all others.
    pub fn observe(&mut self, hlc: Hlc, wall: WallMs) {
        if is_near(hlc, wall) {
            self.last = self.last.max(hlc);
        }
    }
}

/// Whether a timestamp is at most [`AHEAD_MS_MAX`] ahead of `wall`.
const fn is_near(hlc: Hlc, wall: WallMs) -> bool {
    hlc.wall().0 <= wall.0.saturating_add(AHEAD_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_write_lie_below_the_next_write() {
        let mut clock = HlcClock::new();
        let mut changed = clock.tick(WallMs(1));
        let later = changed.after();
        for _ in 0..15 {
            changed = changed.next();
            assert!(changed < later && changed.after() == later);
        }
        assert_eq!(clock.tick(WallMs(0)), later);
        assert_eq!(Hlc::from_bits(u64::MAX).after(), Hlc::from_bits(u64::MAX));
    }

    #[test]
    fn it_rises_while_the_wall_clock_stands_or_goes_back_a_little() {
        let mut clock = HlcClock::new();
        let first = clock.tick(WallMs(20_000));
        let second = clock.tick(WallMs(20_000));
        let third = clock.tick(WallMs(10_001));
        assert!(first < second && second < third);
    }

    #[test]
    fn it_follows_a_wall_clock_that_was_set_back_far() {
        let mut clock = HlcClock::new();
        clock.tick(WallMs(3_600_000));
        assert_eq!(clock.tick(WallMs(1_000)), Hlc::at(WallMs(1_000)));
        let second = clock.tick(WallMs(1_000));
        assert_eq!(second, Hlc::at(WallMs(1_000)).after(), "and goes on from there");
    }

    #[test]
    fn it_follows_its_peers_but_not_one_that_is_far_ahead() {
        let mut clock = HlcClock::new();
        clock.tick(WallMs(1_000));
        let near = Hlc::at(WallMs(1_000 + AHEAD_MS_MAX));
        clock.observe(Hlc::at(WallMs(1_001 + AHEAD_MS_MAX)), WallMs(1_000));
        assert!(clock.tick(WallMs(1_000)) < near);
        clock.observe(near, WallMs(1_000));
        assert_eq!(clock.tick(WallMs(1_000)), near.after());
    }

    /// This holds however often and however fast a node is restarted.
    #[test]
    fn boots_do_not_run_ahead() {
        for boot in 0..100 {
            let wall = WallMs(1_000_000 + boot);
            assert_eq!(HlcClock::new().tick(wall), Hlc::at(wall));
        }
    }
}
