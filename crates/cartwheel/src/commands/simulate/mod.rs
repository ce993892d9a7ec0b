//! `cartwheel simulate`: computations about clusters, without a running one.

pub(super) mod figures;
mod placement;
mod ring_state;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::SimulateCommand;
use crate::terminal::error::CommandError;

/// The reasons why a simulation has no output.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The results could not be written.
    #[error(transparent)]
    Show(#[from] CommandError),
    /// A chart could not be written.
    #[error("cannot write {}: {source}; choose a writable directory with --svg-dir", path.display())]
    Svg {
        /// The path of the chart.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Runs a simulation and shows the results.
///
/// # Errors
/// If the results or a chart cannot be written.
pub fn run(command: &SimulateCommand) -> Result<ExitCode, SimulateError> {
    match command {
        SimulateCommand::Placement(args) => placement::run(args)?,
        SimulateCommand::RingState(args) => ring_state::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}
