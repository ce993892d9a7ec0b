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
    /// A negative result (a key has no value, a member has a problem, replicas differ), or a failure without a code of its own.
    Negative = 1,
    /// The command line, or a file that it names, is invalid.
    Usage = 2,
    /// No node could be reached.
    Unreachable = 3,
    /// A node answered, but too few replicas did, or not in time. A write may still take effect.
    NoQuorum = 4,
    /// The cluster refused the request, or some records were skipped.
    Refused = 5,
    /// The user stopped the command.
    Interrupted = 130,
}

/// The section of `--help` on exit codes.
pub const HELP: &str = "Exit codes:
    0  success
    1  the key has no value, a member has a problem, or replicas differ; or the command failed
       (cluster health: degraded)
    2  the command line, or a file that it names, is invalid
    3  no node could be reached
    4  too few replicas answered in time; a write may still take effect
       (cluster health: keys lack a majority of their homes)
    5  refused: value too large, node overloaded, or a conflict; or `load` skipped records
  130  interrupted";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends a command.
pub trait ToExit: Display {
    /// The exit code for this error.
    fn exit(&self) -> Exit;
}

impl ToExit for ClientError {
    fn exit(&self) -> Exit {
        match self {
            Self::Endpoint(_) | Self::Tls(_) => Exit::Usage,
            Self::Unavailable { cause: Cause::Unreachable, .. } | Self::UnexpectedResponse(_) => Exit::Unreachable,
            Self::Unavailable { cause: Cause::TimedOut | Cause::TooFewReplicas, .. } => Exit::NoQuorum,
            Self::Unavailable { cause: Cause::Overloaded | Cause::DiskFull, .. } | Self::Refused { .. } => {
                Exit::Refused
            }
            Self::NoRandomness(_) => Exit::Negative,
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
        Self { exit: Exit::Negative, message: message.to_string() }
    }

    /// An invalid command line.
    pub fn usage(message: impl Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }
}

impl<E: ToExit> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: error.exit(), message: error.to_string() }
    }
}
