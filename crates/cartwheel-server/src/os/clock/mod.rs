//! The machine's clocks. Only this module reads them for the protocol.

mod offset;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::time::{self, Now};

pub use offset::{TEST_CLOCK_OFFSET_FILE, follow_test_offset};

/// The two clocks of a process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The zero of the monotonic clock.
    started: Instant,
}

impl Clock {
    /// Starts the monotonic clock at zero.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The time on both clocks.
    pub fn now(&self) -> Now {
        Now { instant: self.instant(), wall: wall() }
    }

    /// The time on the monotonic clock.
    pub fn instant(&self) -> time::Instant {
        time::Instant(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// The time on the wall clock. A clock set before 1970 reads zero, which peers detect as a clock that is off.
pub fn wall() -> WallMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let read = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    WallMs(read.saturating_add_signed(offset::current_ms()))
}
