//! For tests only: a wall clock that is shifted, and jumps while the process runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use std::{fs, io, thread};

use tracing::warn;

/// For tests only: names a file with the number of milliseconds by which `cartwheel serve` shifts its wall clock.
///
/// The file holds one whole number, negative for a clock that is behind. The process keeps reading it, so a change of the file makes the
/// clock jump. It is not a setting, and no help text names it: a shifted clock makes a node stamp its writes wrong.
pub const TEST_CLOCK_OFFSET_FILE: &str = "CARTWHEEL_TEST_CLOCK_OFFSET_FILE";

/// How often the file is read again.
const READ_EVERY: Duration = Duration::from_millis(10);

static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// The present shift of the wall clock.
pub(super) fn current_ms() -> i64 {
    OFFSET_MS.load(Ordering::Relaxed)
}

/// Shifts the wall clock of this process by the offset in the file that [`TEST_CLOCK_OFFSET_FILE`] names, from now on. Does nothing without
/// the variable.
///
/// # Errors
/// If the thread that follows the file cannot be started.
pub fn follow_test_offset() -> io::Result<()> {
    let Some(file) = std::env::var_os(TEST_CLOCK_OFFSET_FILE).filter(|name| !name.is_empty()).map(PathBuf::from) else {
        return Ok(());
    };
    apply(&file);
    warn!(file = %file.display(), offset_ms = current_ms(), "shifted this node's wall clock, for tests only");
    thread::Builder::new().name("test-clock".to_owned()).spawn(move || {
        loop {
            thread::sleep(READ_EVERY);
            apply(&file);
        }
    })?;
    Ok(())
}

/// Applies the offset in `file`. A file that is absent or incomplete changes nothing.
fn apply(file: &Path) {
    let offset = fs::read_to_string(file).ok().and_then(|text| parse(&text));
    if let Some(offset_ms) = offset {
        OFFSET_MS.store(offset_ms, Ordering::Relaxed);
    }
}

/// Parses the offset; none unless the line is complete, because half a number is another number.
fn parse(text: &str) -> Option<i64> {
    text.strip_suffix('\n')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_number_is_no_offset() {
        assert_eq!(parse("-3600000\n"), Some(-3_600_000));
        assert_eq!(parse("-36000"), None);
        assert_eq!(parse("\n"), None);
        assert_eq!(parse("an hour\n"), None);
    }
}
