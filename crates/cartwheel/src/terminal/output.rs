//! The output of commands. The reader of a pipe may be gone, and the disk of a redirected output may be full. Neither may end a command
//! or a node that runs under it, as `println!` would by its panic.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use super::error::CommandError;
use super::yaml::to_yaml;
use crate::cli::{Format, FormatArgs};

/// Formats a response. `readable` makes the text of the table formats, with all fields if its flag is set.
pub fn formatted<T: Serialize>(format: FormatArgs, response: &T, readable: impl FnOnce(&T, bool) -> String) -> String {
    // Responses consist of text and numbers, which always have a JSON form.
    match format.format() {
        Format::Json => serde_json::to_string(response).unwrap_or_default() + "\n",
        Format::Yaml => to_yaml(&serde_json::to_value(response).unwrap_or_default()),
        format => readable(response, format == Format::Wide),
    }
}

/// Prints a response; see [`formatted`].
///
/// # Errors
/// If standard output cannot be written.
pub fn show<T: Serialize>(
    format: FormatArgs,
    response: &T,
    readable: impl FnOnce(&T, bool) -> String,
) -> Result<(), CommandError> {
    print(formatted(format, response, readable).as_bytes())
}

/// Writes to standard output. A closed pipe is not an error.
///
/// # Errors
/// If standard output cannot be written.
pub fn print(bytes: &[u8]) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::Io("write to standard output", error))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard output, and ignores errors.
pub fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Writes a line to standard error, and ignores errors.
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
