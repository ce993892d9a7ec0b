//! Clusters that a bench starts on this machine, with temporary data.

pub(super) mod nodes;
pub(super) mod process;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;

use tempfile::TempDir;

use crate::terminal::error::CommandError;
use crate::terminal::exit::{Exit, ToExit};
use crate::terminal::signals;

/// The reasons why a bench that starts its own servers has no result.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Redis alone was requested, but is not installed.
    #[error("--store redis needs redis-server on the PATH: install Redis, or omit --store")]
    NoRedis,
    /// No free ports were found.
    #[error("cannot find free ports between 12000 and 32000 on 127.0.0.1: stop other servers, then try again")]
    NoPorts,
    /// A server process could not be started.
    #[error("cannot start {name}: {source}; end other processes, or raise the limit (ulimit -u)")]
    Start {
        /// The name of the process.
        name: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A server process ended before it was ready.
    #[error("{name} ended before it was ready ({status}); its output ends with:\n{tail}")]
    Ended {
        /// The name of the process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its output.
        tail: String,
    },
    /// A server did not reach a state in time.
    #[error(
        "{name} was not {state} within {seconds} s; try again on a less busy machine; its output ends with:\n{tail}"
    )]
    NotReady {
        /// The name of the process.
        name: String,
        /// The state.
        state: &'static str,
        /// The time limit.
        seconds: u64,
        /// The last lines of its output.
        tail: String,
    },
    /// A server process ended during a run.
    #[error("a server process ended during a run, so its CPU time is unknown: try again with fewer --connections")]
    ServerEnded,
    /// Redis refused a command that sets up its cluster.
    #[error("Redis at {address} refused {command}: {why}; use Redis 5 or later, or pass --store cartwheel")]
    Redis {
        /// The address of the node.
        address: String,
        /// The command.
        command: String,
        /// The reason.
        why: String,
    },
    /// The settings of Cartwheel's buckets cannot be changed.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
    /// A key could not be stored before the first run.
    #[error("cannot store key {key} after {tries} attempts: {why}; use fewer --connections or a larger --timeout-ms")]
    Fill {
        /// The key.
        key: String,
        /// The number of attempts.
        tries: u32,
        /// The failure of the last attempt.
        why: String,
    },
    /// A temporary directory could not be created.
    #[error("cannot create a directory in {}: {source}; choose a writable directory with --dir", parent.display())]
    Dir {
        /// The directory that was to contain it.
        parent: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A result could not be written.
    #[error("cannot write {}: {source}; choose another file with {flag}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The report could not be printed.
    #[error(transparent)]
    Show(#[from] CommandError),
    /// The histograms cannot be created.
    #[error(transparent)]
    Histogram(#[from] hdrhistogram::CreationError),
    /// Another call of the operating system failed.
    #[error("cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// The user stopped the bench.
    #[error("interrupted: all servers were stopped, and their data was removed")]
    Stopped,
    /// A client's task panicked.
    #[error("a client's task panicked: report this as a bug")]
    Panicked,
}

impl ToExit for LocalError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoRedis | Self::Dir { .. } | Self::File { .. } => Exit::Usage,
            Self::Client(error) => error.exit(),
            Self::Show(error) => error.exit(),
            Self::Fill { .. } => Exit::NoQuorum,
            Self::Stopped => Exit::Interrupted,
            Self::NoPorts
            | Self::Start { .. }
            | Self::Ended { .. }
            | Self::NotReady { .. }
            | Self::ServerEnded
            | Self::Redis { .. }
            | Self::Histogram(_)
            | Self::Io(..)
            | Self::Panicked => Exit::Negative,
        }
    }
}

/// Creates a temporary directory in `parent`, or where the system has them.
///
/// # Errors
/// If it cannot be created.
pub(super) fn directory(parent: Option<&Path>) -> Result<TempDir, LocalError> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
    tempfile::Builder::new()
        .prefix("cartwheel-bench-")
        .tempdir_in(&parent)
        .map_err(|source| LocalError::Dir { parent, source })
}

/// Runs `bench` until it ends or a signal stops it.
///
/// # Errors
/// If the bench fails or is stopped.
pub(super) async fn until_stopped<T, E: From<LocalError>>(bench: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let handled = |error| LocalError::Io("install signal handlers", error);
    let stopped = signals::stop(signals::Parent::Unwatched).map_err(handled)?;
    let hung_up = signals::hang_up().map_err(handled)?;
    let (stopped, hung_up) = (pin!(stopped), pin!(hung_up));
    tokio::select! {
        result = bench => result,
        _ = stopped => Err(LocalError::Stopped.into()),
        _ = hung_up => Err(LocalError::Stopped.into()),
    }
}

/// Writes a result to the file that a flag names.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(path: &Path, flag: &'static str, text: std::io::Result<String>) -> Result<(), LocalError> {
    let written = text.and_then(|text| std::fs::write(path, text));
    written.map_err(|source| LocalError::File { path: path.to_path_buf(), flag, source })
}
