//! The machine's clocks. Nothing else in the project reads them on the protocol's behalf.

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
    /// Clocks whose monotonic part starts at zero now.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// What both clocks read.
    pub fn now(&self) -> Now {
        Now { instant: self.instant(), wall: wall() }
    }

    /// What the monotonic clock reads.
    pub fn instant(&self) -> time::Instant {
        time::Instant(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// What the wall clock reads. A clock set before 1970 reads zero, which peers then notice as a clock that is off.
pub fn wall() -> WallMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let read = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    WallMs(read.saturating_add_signed(offset::current_ms()))
}
