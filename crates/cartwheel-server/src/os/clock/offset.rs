//! For tests only: a wall clock that is wrong, and jumps while the process runs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use std::{fs, io, thread};

use tracing::warn;

/// For tests only: names a file that says by how many milliseconds `cartwheel serve` shifts its wall clock.
///
/// The file holds one whole number, negative for a clock that is behind. The process reads it again all the time, so whoever writes it makes
/// the clock jump. It is no setting, and no help text names it: a shifted clock makes a node stamp its writes wrong.
pub const TEST_CLOCK_OFFSET_FILE: &str = "CARTWHEEL_TEST_CLOCK_OFFSET_FILE";

/// How often the file is read again.
const READ_EVERY: Duration = Duration::from_millis(10);

static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// By how much the wall clock of this process is shifted.
pub(super) fn current_ms() -> i64 {
    OFFSET_MS.load(Ordering::Relaxed)
}

/// Shifts the wall clock of this process by what the file says that [`TEST_CLOCK_OFFSET_FILE`] names, from now on. Without the variable it does
/// nothing.
///
/// # Errors
/// If the thread that follows the file cannot be started.
pub fn follow_test_offset() -> io::Result<()> {
    let Some(file) = std::env::var_os(TEST_CLOCK_OFFSET_FILE).filter(|name| !name.is_empty()).map(PathBuf::from) else {
        return Ok(());
    };
    take_over(&file);
    warn!(file = %file.display(), offset_ms = current_ms(), "for tests only: this node's wall clock is shifted");
    thread::Builder::new().name("test-clock".to_owned()).spawn(move || {
        loop {
            thread::sleep(READ_EVERY);
            take_over(&file);
        }
    })?;
    Ok(())
}

/// A file that is not there, or is just being written, changes nothing.
fn take_over(file: &Path) {
    let said = fs::read_to_string(file).ok().and_then(|text| parse(&text));
    if let Some(offset_ms) = said {
        OFFSET_MS.store(offset_ms, Ordering::Relaxed);
    }
}

/// What the text says; nothing unless the line is complete, for half a number is another number.
fn parse(text: &str) -> Option<i64> {
    text.strip_suffix('\n')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_number_is_no_offset() {
        assert_eq!(parse("-3600000\n"), Some(-3_600_000));
        assert_eq!(parse("-36000"), None);
        assert_eq!(parse("\n"), None);
        assert_eq!(parse("an hour\n"), None);
    }
}
