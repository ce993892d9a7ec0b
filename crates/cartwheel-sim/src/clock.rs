//! The two clocks of a machine: one that never jumps, and one that tells the time and may be wrong.

use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::time::{Instant, Now};

/// When every run begins, in milliseconds since the Unix epoch.
pub const START_WALL_MS: u64 = 1_700_000_000_000;

/// A machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// What the monotonic clock showed when the simulation began. It differs between machines and between boots, as nothing
    /// may rely on it elsewhere.
    pub instant_offset_us: u64,
    /// How far the wall clock is ahead, or behind if negative.
    pub wall_offset_ms: i64,
}

impl Clock {
    /// What the clocks read at `now_us` of simulated time.
    pub const fn read(&self, now_us: u64) -> Now {
        let wall = (START_WALL_MS + now_us / 1000).saturating_add_signed(self.wall_offset_ms);
        Now { instant: Instant(now_us + self.instant_offset_us), wall: WallMs(wall) }
    }

    /// The simulated time at which the monotonic clock reads `instant`; 0 if that was before the run.
    pub const fn simulated_us(&self, instant: Instant) -> u64 {
        instant.0.saturating_sub(self.instant_offset_us)
    }
}
