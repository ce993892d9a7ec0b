use std::fmt;
use std::io;
use std::path::PathBuf;

use cartwheel_server::lifecycle::bootstrap::FoundError;
use cartwheel_server::lifecycle::renew::RenewError;

/// Why a scenario could not be played: never that the cluster did not do as it should.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed: {said}")]
    Command {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
    /// No cluster could be founded.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// A lost node could not be made anew.
    #[error(transparent)]
    Renew(#[from] RenewError),
    /// A node does not do what it must do for the scenario to go on.
    #[error("{name} {what}; its log {} ends with:\n{tail}", .log.display())]
    Node {
        /// The node's name.
        name: String,
        /// What it did or did not do.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// The client cannot be used.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
}

impl FaultsError {
    /// What a failed attempt to do `what` becomes.
    pub(crate) fn system<E: Into<io::Error>>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what: what.to_string(), source: source.into() }
    }
}
