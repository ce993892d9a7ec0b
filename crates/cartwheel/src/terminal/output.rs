//! What commands say on the terminal. Whoever reads it may have gone, and the disk that it goes to may be full: that ends no command, and no node
//! that runs under one.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use super::error::CommandError;
use super::yaml::to_yaml;
use crate::cli::{Format, FormatArgs};

/// An answer as it was asked for; `readable` makes the text for people, with all there is if it is to be wide.
pub fn formatted<T: Serialize>(format: FormatArgs, answer: &T, readable: impl FnOnce(&T, bool) -> String) -> String {
    // Text and numbers always have a JSON form.
    match format.format() {
        Format::Json => serde_json::to_string(answer).unwrap_or_default() + "\n",
        Format::Yaml => to_yaml(&serde_json::to_value(answer).unwrap_or_default()),
        format => readable(answer, format == Format::Wide),
    }
}

/// Shows an answer as it was asked for; `readable` makes the text for people, with all there is if it is to be wide.
///
/// # Errors
/// If it cannot be written.
pub fn show<T: Serialize>(
    format: FormatArgs,
    answer: &T,
    readable: impl FnOnce(&T, bool) -> String,
) -> Result<(), CommandError> {
    print(formatted(format, answer, readable).as_bytes())
}

/// Writes an answer to standard output. A reader that has gone is no error.
///
/// # Errors
/// If it cannot be written.
pub fn print(bytes: &[u8]) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Io("write the answer", error)),
        _ => Ok(()),
    }
}

/// Writes a line to standard output.
pub fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
