//! Thread priorities.

use tracing::debug;

/// The nice value, from 0 to 19: at 10 a thread gets about a tenth of the time of a normal one when all are busy.
const NICE: i32 = 10;

/// Makes the calling thread yield to threads that have not called this.
pub fn yield_to_others() {
    // On other systems the whole process would yield.
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(NICE)
    {
        debug!(%error, "cannot lower the priority of a thread");
    }
}
