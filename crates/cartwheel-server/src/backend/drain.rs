//! Whether the node drains: it serves all that it is asked, but is about to be stopped, so clients and peers had better choose others.
//!
//! It is of this process. A node that starts does not drain, however the last one ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whether the node drains, and since when.
#[derive(Debug, Default)]
pub struct Drain(AtomicU64);

impl Drain {
    /// Whether the node drains. It costs no more than a load, because each request asks.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Since when the node drains, if it does.
    pub fn since(&self) -> Option<SystemTime> {
        let millis = self.0.load(Ordering::Relaxed);
        (millis != 0).then(|| UNIX_EPOCH + Duration::from_millis(millis))
    }

    /// Drains or no longer drains. Returns whether that is news.
    pub fn set(&self, drains: bool) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let since = if drains { u64::try_from(now).unwrap_or(u64::MAX).max(1) } else { 0 };
        let set = |before: u64| if (before != 0) == drains { None } else { Some(since) };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set).is_ok()
    }
}
