//! How a command ended, as a number that scripts go by.

use std::fmt::Display;
use std::process::ExitCode;

use cartwheel_client::{Cause, Error as ClientError};

/// The exit codes. They are part of the contract: [`HELP`] says the same to users.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// It is done.
    Done = 0,
    /// The answer is no: a key has no value, a member has a problem, replicas are not equal. A node that cannot run ends with it too.
    NotFound = 1,
    /// The command line, or a file that it names, makes no sense.
    Usage = 2,
    /// No node could be reached.
    Unreachable = 3,
    /// A node answered, but too few replicas did, or not in time. A write may yet appear.
    NoQuorum = 4,
    /// The cluster refused, or some records were skipped.
    Refused = 5,
    /// The user stopped it.
    Interrupted = 130,
}

/// What `--help` says of them.
pub const HELP: &str = "Exit codes:
    0  done
    1  no: the key has no value, a member has a problem, replicas differ; or a node cannot run
    2  the command line, or a file that it names, makes no sense
    3  no node could be reached
    4  too few replicas answered, or not in time; a write may yet appear
    5  refused: too large, overloaded, a conflict; or `load` skipped records
  130  interrupted";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that a command ends with.
pub trait Ending: Display {
    /// What the command's exit code says of it.
    fn exit(&self) -> Exit;
}

impl Ending for ClientError {
    fn exit(&self) -> Exit {
        match self {
            Self::Endpoint(_) => Exit::Usage,
            Self::Unavailable { cause: Cause::Unreachable, .. } | Self::UnexpectedResponse(_) => Exit::Unreachable,
            Self::Unavailable { cause: Cause::TimedOut | Cause::TooFewReplicas, .. } => Exit::NoQuorum,
            Self::Unavailable { cause: Cause::Overloaded | Cause::DiskFull, .. } | Self::Refused { .. } => {
                Exit::Refused
            }
            Self::NoRandomness(_) => Exit::NotFound,
        }
    }
}

/// Why the program ends, and with which code.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What went wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure that no exit code tells more of.
    pub fn other(message: impl Display) -> Self {
        Self { exit: Exit::NotFound, message: message.to_string() }
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }
}

impl<E: Ending> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: error.exit(), message: error.to_string() }
    }
}
