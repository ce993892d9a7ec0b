//! The exit codes, which scripts rely on.

use std::fmt::Display;
use std::process::ExitCode;

use cartwheel_client::{Cause, Error as ClientError};

/// The exit codes. They are part of the public contract, and [`HELP`] lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// The command succeeded.
    Done = 0,
    /// The answer is no: a key has no value, a member has a problem, replicas are not equal. Also the code of a node that cannot run.
    NotFound = 1,
    /// The command line, or a file that it names, is invalid.
    Usage = 2,
    /// No node could be reached.
    Unreachable = 3,
    /// A node answered, but too few replicas did, or not in time. A write may still appear later.
    NoQuorum = 4,
    /// The cluster refused the request, or some records were skipped.
    Refused = 5,
    /// The user stopped the command.
    Interrupted = 130,
}

/// The section of `--help` on exit codes.
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

/// An error that ends a command.
pub trait Ending: Display {
    /// The exit code for this error.
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

/// An error message with an exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The message: what failed and what to do next.
    pub message: String,
}

impl Failure {
    /// A failure without a specific exit code.
    pub fn other(message: impl Display) -> Self {
        Self { exit: Exit::NotFound, message: message.to_string() }
    }

    /// An invalid command line.
    pub fn usage(message: impl Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }
}

impl<E: Ending> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: error.exit(), message: error.to_string() }
    }
}
