//! Errors of commands, in Redis's form: a code in capitals, then what happened and what to do.

use std::borrow::Cow;

use cartwheel_core::message::client::Refusal;
use cartwheel_core::value::key::KeyError;

use super::reply::Reply;
use crate::backend::NotDone;

/// Why a command was not carried out.
#[derive(Clone, Debug)]
pub(super) enum CommandError {
    /// The text of the error, complete with its code.
    Text(Cow<'static, str>),
    /// The node or the cluster could not carry it out: the contract's code, and the text.
    NotDone(&'static str, String),
    /// The value was changed by others while the command changed it.
    Changed,
}

/// Redis's words.
pub(super) const SYNTAX: CommandError = CommandError::Text(Cow::Borrowed("ERR syntax error"));
pub(super) const NOT_AN_INTEGER: CommandError =
    CommandError::Text(Cow::Borrowed("ERR value is not an integer or out of range"));

impl CommandError {
    /// An error without a code of its own.
    pub(super) fn other(message: impl AsRef<str>) -> Self {
        Self::Text(format!("ERR {}", message.as_ref()).into())
    }

    /// The error for a request that was not carried out.
    pub(super) fn of(not_done: NotDone, is_write: bool) -> Self {
        let (refusal, cause) = match not_done {
            NotDone::Refused { refusal: Refusal::StampTooLow(_) | Refusal::ReadTooOld, .. } => return Self::Changed,
            NotDone::Refused { refusal, cause, .. } => (refusal, cause),
            NotDone::Stopped => {
                let may = if is_write { "; the write may yet appear" } else { "" };
                return Self::NotDone(
                    "unavailable",
                    format!("CLUSTERDOWN the node is stopping: ask another node{may}"),
                );
            }
        };
        // Clients know these codes, and try again.
        let code = match &refusal {
            Refusal::Overloaded => "TRYAGAIN",
            Refusal::Unavailable(_) if is_write => "NOREPLICAS",
            Refusal::Unavailable(_) | Refusal::Unverified(_) => "CLUSTERDOWN",
            Refusal::DiskFull => "DISKFULL",
            _ => "ERR",
        };
        let text = match cause {
            Some(cause) => format!("{code} {cause} ({refusal})"),
            None => format!("{code} {refusal}"),
        };
        Self::NotDone(refusal.code(), text)
    }

    /// The contract's code, for metrics.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Text(_) => "bad_request",
            Self::NotDone(code, _) => code,
            Self::Changed => "unavailable",
        }
    }
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> Self {
        Self::of(NotDone::from(refusal), false)
    }
}

impl From<KeyError> for CommandError {
    fn from(error: KeyError) -> Self {
        Self::other(error.to_string())
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Text(text) => Self::Error(text),
            CommandError::NotDone(_, text) => Self::Error(text.into()),
            CommandError::Changed => Self::error("TRYAGAIN others write this key all the time: try again"),
        }
    }
}

impl From<Result<Reply, CommandError>> for Reply {
    fn from(done: Result<Reply, CommandError>) -> Self {
        done.unwrap_or_else(Self::from)
    }
}
