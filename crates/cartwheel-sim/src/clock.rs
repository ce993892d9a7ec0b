//! The two clocks of a machine: a monotonic clock, and a wall clock that may be wrong.

use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::time::{Instant, Now};

/// The begin of every run, in milliseconds since the Unix epoch.
pub const START_WALL_MS: u64 = 1_700_000_000_000;

/// A machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// The value of the monotonic clock at the start of the simulation. It differs between machines and boots, because no node may rely on
    /// another's.
    pub instant_offset_us: u64,
    /// The error of the wall clock: positive if it is ahead.
    pub wall_offset_ms: i64,
}

impl Clock {
    /// The values of both clocks at `now_us` of simulated time.
    pub const fn read(&self, now_us: u64) -> Now {
        let wall = (START_WALL_MS + now_us / 1000).saturating_add_signed(self.wall_offset_ms);
        Now { instant: Instant(now_us + self.instant_offset_us), wall: WallMs(wall) }
    }

    /// The simulated time at which the monotonic clock reads `instant`; 0 if that was before the run.
    pub const fn simulated_us(&self, instant: Instant) -> u64 {
        instant.0.saturating_sub(self.instant_offset_us)
    }
}
