use std::fmt;
use std::io;
use std::path::PathBuf;

use cartwheel_server::lifecycle::bootstrap::BootstrapError;
use cartwheel_server::lifecycle::renew::RenewError;

/// Why a scenario could not be run. A cluster that violates a guarantee is not an error: it is in the scenario's result.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Its standard error.
        stderr: String,
    },
    /// The cluster could not be bootstrapped.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// No new incarnation of a node could be made.
    #[error(transparent)]
    Renew(#[from] RenewError),
    /// A node is not in the state that the scenario needs to go on.
    #[error("{name} {what}; its log {} ends with:\n{tail}", .log.display())]
    Node {
        /// The node's name.
        name: String,
        /// What it did or did not do.
        what: String,
        /// The file of its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// A client could not be made, or a request that the scenario depends on failed.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
}

impl FaultsError {
    /// Makes the error of a failed attempt to do `what`, a verb and its object.
    pub(crate) fn system<E: Into<io::Error>>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what: what.to_string(), source: source.into() }
    }
}
