//! What commands say on the terminal. Whoever reads it may have gone, and the disk that it goes to may be full: that ends no command, and no node
//! that runs under one.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Writes a line to standard output.
pub fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Writes a line to standard error.
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
