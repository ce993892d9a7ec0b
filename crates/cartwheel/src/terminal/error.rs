//! The errors of most commands.

use std::path::PathBuf;

use super::exit::{Ending, Exit};

/// The reasons why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The cluster refused the request, or could not be reached.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
    /// The value could not be read, or the answer could not be written.
    #[error("cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// A file could not be written.
    #[error("cannot write {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// A change needs confirmation, and the input is no terminal.
    #[error("nothing was changed: say --yes to make this change, or --dry-run to see what it leads to")]
    NotAgreed,
    /// The key has more than one value.
    #[error(
        "the key has {0} siblings and a file takes one value: see them without --output, and merge them with a put"
    )]
    Siblings(usize),
}

impl Ending for CommandError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Io(..) | Self::File(..) | Self::NotAgreed => Exit::Usage,
            Self::Siblings(_) => Exit::Refused,
        }
    }
}
