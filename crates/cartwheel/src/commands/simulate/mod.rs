//! `cartwheel simulate`: computations about clusters, without any.

mod chart;
mod figures;
mod placement;
mod ring_state;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::SimulateCommand;
use crate::terminal::error::CommandError;

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The outcome could not be shown.
    #[error(transparent)]
    Show(#[from] CommandError),
    /// A chart could not be written.
    #[error("cannot write {}: {source}. Give a directory that can be written to with --svg-dir", path.display())]
    Svg {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Computes what is asked for and shows it.
///
/// # Errors
/// If it cannot be shown.
pub fn run(command: &SimulateCommand) -> Result<ExitCode, SimulateError> {
    match command {
        SimulateCommand::Placement(args) => placement::run(args)?,
        SimulateCommand::RingState(args) => ring_state::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}
