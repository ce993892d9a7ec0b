//! The log on standard error.
//!
//! A node never waits for the reader of its log. A line is dropped and counted if it cannot be written, because the disk is full or the
//! reader is gone, or if the queue is full, because the reader has stopped. A thread of its own writes the lines.

mod rate_limit;
mod recent;

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{info, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel};
pub(crate) use rate_limit::RateLimit;
use recent::Recent;

/// How many lines may wait to be written.
const WAITING_MAX: usize = 8_192;

/// The number of lines that could not be written.
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);
/// Counts the lines that found the queue full.
static NO_ROOM: OnceLock<ErrorCounter> = OnceLock::new();
/// The file that standard error goes to, if it goes to a file.
static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The last lines.
static RECENT: Recent = Recent::new();

/// The log of this process. Dropping it writes the waiting lines, within a time limit.
#[derive(Debug)]
#[must_use]
pub struct Log {
    _writer: WorkerGuard,
}

/// Sends the log to standard error. It may be called once in a process.
pub fn to_stderr(level: &LogLevel, format: LogFormat) -> Log {
    FILE.get_or_init(|| file_of(Path::new("/proc/self/fd/2")));
    let (lines, writer) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_MAX).thread_name("log").finish(Stderr);
    let _ = NO_ROOM.set(lines.error_counter());
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level.directives())).with_writer(lines);
    match format {
        LogFormat::Human => log.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    Log { _writer: writer }
}

/// How many lines were lost since the process began.
pub fn lines_lost() -> u64 {
    let no_room = NO_ROOM.get().map_or(0, ErrorCounter::dropped_lines);
    UNWRITTEN.load(Ordering::Relaxed) + no_room as u64
}

/// The last `limit` lines that were logged, the oldest first; at most about a thousand. What a line shows was meant for the log's readers, so it
/// holds no secret.
pub(crate) fn recent(limit: usize) -> Vec<String> {
    RECENT.last(limit)
}

/// Reopens the file that standard error goes to, under the name that it had when the log began, after log rotation has renamed it. Does
/// nothing if standard error does not go to a file.
pub fn reopen() {
    let Some(path) = FILE.get().and_then(Option::as_ref) else {
        return info!("SIGHUP ignored: the log does not go to a file");
    };
    let opened = File::options().append(true).create(true).open(path);
    match opened.and_then(|file| rustix::stdio::dup2_stderr(&file).map_err(io::Error::from)) {
        Ok(()) => info!(path = %path.display(), "reopened the log file after SIGHUP"),
        Err(error) => {
            warn!(path = %path.display(), %error, "cannot reopen the log file after SIGHUP; logging to the old one")
        }
    }
}

/// The regular file that a descriptor refers to.
fn file_of(descriptor: &Path) -> Option<PathBuf> {
    fs::metadata(descriptor).ok().filter(fs::Metadata::is_file)?;
    fs::read_link(descriptor).ok()
}

/// Standard error, with failures counted instead of returned.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // First, so that they can be read where standard error cannot be written.
        RECENT.push(line);
        if io::stderr().write_all(line).is_err() {
            UNWRITTEN.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
