//! Core dumps, which would hold passwords and keys.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tracing::warn;

/// Forbids core dumps of this process. Other processes of the same user cannot read its memory either.
pub(crate) fn forbid() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "cannot forbid core dumps: after a crash one may hold secrets");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn no_core_is_dumped() {
        forbid();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
