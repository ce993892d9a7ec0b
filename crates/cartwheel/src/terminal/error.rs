//! The errors of most commands.

use std::path::PathBuf;

use super::exit::{Exit, ToExit};

/// The reasons why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The cluster refused the request, or could not be reached.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
    /// Standard input could not be read, or standard output could not be written.
    #[error("cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// A file could not be written.
    #[error("cannot write {0}: {1}; choose another file with --output")]
    File(PathBuf, std::io::Error),
    /// The file with a new password cannot be read.
    #[error("cannot take the password from {0}: {1}")]
    Password(PathBuf, String),
    /// A change needs confirmation, and the input is not a terminal.
    #[error("the change was not confirmed, so nothing was changed: pass --yes to make it")]
    NotConfirmed,
    /// The cluster has no member of this name.
    #[error("the cluster has no member called {0}: see `cartwheel cluster status`")]
    NoMember(String),
    /// If the member is stopped too, keys lack a majority of their homes.
    #[error(
        "cannot drain {member}: without it, {short} of {partitions} partitions lack a majority of their homes{}; bring other nodes back or add nodes \
         first, or pass --force",
        also_away(away)
    )]
    StopsQuorums {
        /// The member to be stopped.
        member: String,
        /// The other members that are away or drain.
        away: Vec<String>,
        /// How many partitions would lack a majority.
        short: usize,
        /// How many there are.
        partitions: usize,
    },
    /// The key has more than one value.
    #[error(
        "the key has {0} siblings, and a file holds one value: read them without --output, then merge them with a put"
    )]
    Siblings(usize),
}

fn also_away(away: &[String]) -> String {
    if away.is_empty() { String::new() } else { format!(" (also away or draining: {})", away.join(", ")) }
}

impl ToExit for CommandError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Io(..) | Self::File(..) | Self::Password(..) | Self::NotConfirmed => Exit::Usage,
            Self::NoMember(_) => Exit::Negative,
            Self::Siblings(_) | Self::StopsQuorums { .. } => Exit::Refused,
        }
    }
}
