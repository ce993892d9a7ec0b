//! The log on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel};

/// Logs to standard error from here on. It may be called once in a process.
pub fn to_stderr(level: &LogLevel, format: LogFormat) {
    let log =
        tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level.directives())).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
}
