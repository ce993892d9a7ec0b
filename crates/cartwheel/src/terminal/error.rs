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
    /// The key has more than one value.
    #[error(
        "the key has {0} siblings, and a file holds one value: read them without --output, then merge them with a put"
    )]
    Siblings(usize),
}

impl ToExit for CommandError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Io(..) | Self::File(..) | Self::Password(..) | Self::NotConfirmed => Exit::Usage,
            Self::Siblings(_) => Exit::Refused,
        }
    }
}
