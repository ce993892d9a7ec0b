//! Threads that yield to others where the machine is busy.

use tracing::debug;

/// By how much they yield, on the system's scale from 0 to 19: at 10, where all have work to do, they get a tenth of what others get.
const NICE: i32 = 10;

/// Has the thread that calls yield to threads that have not called this.
pub fn yield_to_others() {
    // Elsewhere it would be the whole process that yields.
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(NICE)
    {
        debug!("a thread does not yield to others: {error}");
    }
}
