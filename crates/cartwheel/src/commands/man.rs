//! `cartwheel man`: the manual pages, made from the command line's help.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::terminal::exit::{Exit, Failure};

/// Writes a page for each command into `dir`.
///
/// # Errors
/// If the directory or a page cannot be written.
pub fn write(dir: &Path) -> Result<ExitCode, Failure> {
    let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    written.map_err(|error| Failure::other(format_args!("cannot write manual pages to {}: {error}", dir.display())))?;
    Ok(Exit::Done.into())
}
