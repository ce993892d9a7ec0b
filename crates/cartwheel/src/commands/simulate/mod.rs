//! `cartwheel simulate`: computations about clusters, without any.

mod figures;
mod placement;
mod ring_state;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::SimulateCommand;
use crate::commands::keys;

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The outcome could not be shown.
    #[error(transparent)]
    Show(#[from] keys::Error),
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
pub fn run(command: &SimulateCommand) -> Result<ExitCode, Error> {
    match command {
        SimulateCommand::Placement(args) => placement::run(args)?,
        SimulateCommand::RingState(args) => ring_state::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A number of bytes as people read it.
fn readable_bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..10_485_760 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_that_fit() {
        let shown = [720, 1_536, 131_072, 14_680_064].map(readable_bytes);
        assert_eq!(shown, ["720 B", "1.5 KiB", "128.0 KiB", "14.0 MiB"]);
    }
}
