//! Time as the caller of [`crate::node::Node::step`] supplies it.

use std::ops::Add;
use std::time::Duration;

use crate::value::hlc::WallMs;

/// A point on a clock that never goes back and never jumps, in microseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The time since `earlier`; zero if `self` is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The time at which a step is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For timeouts.
    pub instant: Instant,
    /// For timestamps and expiry. It may be wrong and may jump.
    pub wall: WallMs,
}
