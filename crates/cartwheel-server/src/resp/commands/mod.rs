//! The commands, and the table in which they are found.

mod client;
mod cluster;
mod connection;
mod expiry;
mod introspection;
mod keyspace;
mod listing;
mod native;
mod server;
mod strings;
mod table;

use cartwheel_core::value::key::Key;
use futures_util::future::BoxFuture;

use super::error::CommandError;
use super::keys::Database;
use super::parser::Command;
use super::reply::{Output, Reply, Version};
use super::session::Session;
pub(super) use table::{Spec, TABLE, find};

/// A command with keys, to be carried out beside others.
#[derive(Debug)]
pub(super) struct Call {
    /// The connection's database.
    pub(super) db: Database,
    pub(super) command: Command,
}

impl Call {
    /// The key that an argument names.
    fn key(&self, at: usize) -> Result<Key, CommandError> {
        self.db.key(self.command.get(at))
    }
}

/// Begins a command.
type Later = fn(Call) -> BoxFuture<'static, Reply>;

/// Writes the reply to a read. If the node cannot say at once what it is, writes nothing and returns false.
pub(super) type ReadAtOnce = fn(&Database, &Command, &mut Output, Version) -> bool;

/// How a command is carried out.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// At once: it uses nothing but the connection and the node's state.
    Now(fn(&mut Session, &Command) -> Result<Reply, CommandError>),
    /// Beside others.
    Later(Later),
    /// At once if that is possible, else beside others.
    Read(ReadAtOnce, Later),
    /// It is refused with a reason.
    Refused(Reason),
}

/// Why Cartwheel does not have a command that Redis has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// It depends on the present value, so replicas would have to agree on it.
    NeedsAgreement,
    /// Transactions over keys.
    Transactions,
    /// Channels.
    Channels,
}

impl Reason {
    /// What to tell the client.
    pub(super) fn error(self, name: &str) -> CommandError {
        let name = name.to_ascii_uppercase();
        match self {
            Self::NeedsAgreement => needs_agreement(&name),
            Self::Transactions => CommandError::other(format!(
                "{name} is not supported: each key is changed by itself, and there are no transactions over keys; keep in one value what changes together"
            )),
            Self::Channels => CommandError::other(format!(
                "{name} is not supported: there are no channels; read the key again, or use a message broker"
            )),
        }
    }
}

/// The error of what depends on the present value.
fn needs_agreement(what: &str) -> CommandError {
    CommandError::other(format!(
        "{what} is not supported yet: it depends on the present value, on which replicas would have to agree; GET and SET the value, or use CW.GET \
         and CW.PUT with a context, which keep concurrent changes"
    ))
}

/// The error for a subcommand that does not exist, or has a wrong number of arguments.
fn unknown_subcommand(command: &Command, container: &str) -> CommandError {
    let given = String::from_utf8_lossy(command.get(1)).chars().take(128).collect::<String>();
    if table::has_subcommand(container, &given) {
        let name = format!("{}|{}", container.to_ascii_lowercase(), given.to_ascii_lowercase());
        return wrong_number_of_arguments(&name);
    }
    CommandError::other(format!("unknown subcommand '{given}'. Try {container} HELP."))
}

/// Redis's error for too few or too many arguments.
pub(super) fn wrong_number_of_arguments(name: &str) -> CommandError {
    CommandError::other(format!("wrong number of arguments for '{name}' command"))
}

/// Redis's error for a command that does not exist.
pub(super) fn unknown(command: &Command) -> CommandError {
    const SHOWN_MAX: usize = 128;
    let shown = |bytes: &[u8], max: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into_owned();
    let mut arguments = String::new();
    for argument in command.from(1) {
        if arguments.len() >= SHOWN_MAX {
            break;
        }
        arguments.push_str(&format!("'{}' ", shown(argument, SHOWN_MAX - arguments.len())));
    }
    let name = shown(command.get(0), SHOWN_MAX);
    CommandError::other(format!("unknown command '{name}', with args beginning with: {arguments}"))
}
