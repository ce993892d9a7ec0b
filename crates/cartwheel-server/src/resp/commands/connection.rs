//! Commands on the connection itself.

use crate::resp::error::{CommandError, NOT_AN_INTEGER, SYNTAX};
use crate::resp::parser::{Command, integer};
use crate::resp::reply::{Reply, Version};
use crate::resp::session::{DATABASES, Session};

pub(super) fn ok(_: &mut Session, _: &Command) -> Result<Reply, CommandError> {
    Ok(Reply::OK)
}

pub(super) fn ping(_: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    match command.len() {
        1 => Ok(Reply::Status("PONG")),
        2 => Ok(Reply::Bulk(command.bytes(1))),
        _ => Err(super::wrong_number_of_arguments("ping")),
    }
}

pub(super) fn echo(_: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    Ok(Reply::Bulk(command.bytes(1)))
}

pub(super) fn quit(session: &mut Session, _: &Command) -> Result<Reply, CommandError> {
    session.quits = true;
    Ok(Reply::OK)
}

pub(super) fn reset(session: &mut Session, _: &Command) -> Result<Reply, CommandError> {
    session.reset();
    Ok(Reply::Status("RESET"))
}

pub(super) fn select(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    let number = integer(command.get(1)).ok_or(NOT_AN_INTEGER)?;
    let number = u32::try_from(number).ok().filter(|&number| number < DATABASES);
    session.select(number.ok_or_else(|| CommandError::other("DB index is out of range"))?);
    Ok(Reply::OK)
}

/// AUTH, whose credentials were right.
pub(super) fn auth(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    match command.len() {
        2 if !session.needs_user() => Err(CommandError::other(
            "AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        )),
        2 | 3 => Ok(Reply::OK),
        _ => Err(SYNTAX),
    }
}

pub(super) fn acl(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    match (&command.get(1).to_ascii_uppercase()[..], command.len()) {
        (b"WHOAMI", 2) => Ok(Reply::text(session.user().to_owned())),
        (b"HELP", 2) => Ok(Reply::texts([
            "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "WHOAMI",
            "    Return the current connection username.",
            "HELP",
            "    Print this help.",
        ])),
        _ => Err(super::unknown_subcommand(command, "ACL")),
    }
}

pub(super) fn hello(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    let version = match command.len() {
        1 => session.version,
        _ => match integer(command.get(1)) {
            None => return Err(CommandError::other("Protocol version is not an integer or out of range")),
            Some(2) => Version::Two,
            Some(3) => Version::Three,
            Some(_) => return Err(CommandError::Text("NOPROTO unsupported protocol version".into())),
        },
    };
    let (mut at, mut name) = (2, None);
    while at < command.len() {
        let more = command.len() - at - 1;
        match &command.get(at).to_ascii_uppercase()[..] {
            // They were right.
            b"AUTH" if more >= 2 => at += 3,
            b"SETNAME" if more >= 1 => {
                name = Some(super::client::checked_name(command.get(at + 1))?);
                at += 2;
            }
            _ => {
                let option = String::from_utf8_lossy(command.get(at));
                return Err(CommandError::other(format!("Syntax error in HELLO option '{option}'")));
            }
        }
    }
    if session.is_unknown() {
        let text = "NOAUTH HELLO must be called with the client already authenticated, or with AUTH <user> <password>";
        return Err(CommandError::Text(text.into()));
    }
    if let Some(name) = name {
        session.client.set_name(name);
    }
    session.version = version;
    let number = if version == Version::Two { 2 } else { 3 };
    session.client.set_version(number);
    let entry = |name: &str, value| (Reply::text(name), value);
    Ok(Reply::Map(vec![
        entry("server", Reply::text("redis")),
        entry("version", Reply::text(super::server::REDIS_VERSION)),
        entry("proto", Reply::Integer(number.into())),
        entry("id", Reply::Integer(session.client.id as i64)),
        entry("mode", Reply::text(session.mode())),
        entry("role", Reply::text("master")),
        entry("modules", Reply::Array(Vec::new())),
    ]))
}
