//! What commands say on the terminal. Whoever reads it may have gone, and the disk that it goes to may be full: that ends no command, and no node
//! that runs under one.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::cli::{Format, FormatArgs};
use crate::terminal::yaml::to_yaml;

/// An answer as it was asked for; `readable` makes the text for people, with all there is if it is to be wide.
pub fn formatted<T: Serialize>(format: FormatArgs, answer: &T, readable: impl FnOnce(&T, bool) -> String) -> String {
    // Text and numbers always have a JSON form.
    match format.format() {
        Format::Json => serde_json::to_string(answer).unwrap_or_default() + "\n",
        Format::Yaml => to_yaml(&serde_json::to_value(answer).unwrap_or_default()),
        format => readable(answer, format == Format::Wide),
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
