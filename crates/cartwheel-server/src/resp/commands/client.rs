//! `CLIENT` and its subcommands.

use crate::resp::error::{CommandError, SYNTAX};
use crate::resp::parser::{Command, integer};
use crate::resp::reply::Reply;
use crate::resp::session::{Replies, Session};

/// The longest name that a client may give itself or its library, in bytes.
const NAME_BYTES_MAX: usize = 256;

pub(super) fn client(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    let subcommand = command.get(1).to_ascii_uppercase();
    match (&subcommand[..], command.len()) {
        (b"ID", 2) => Ok(Reply::Integer(session.client.id as i64)),
        (b"GETNAME", 2) => {
            let name = session.client.name();
            Ok(if name.is_empty() { Reply::Null } else { Reply::text(name) })
        }
        (b"SETNAME", 3) => {
            session.client.set_name(checked_name(command.get(2))?);
            Ok(Reply::OK)
        }
        (b"SETINFO", 4) => set_info(session, command),
        (b"INFO", 2) => Ok(Reply::Verbatim(format!("{}\n", session.client.line("client|info")))),
        (b"LIST", 2..) => list(session, command),
        (b"KILL", 3..) => kill(session, command),
        (b"REPLY", 3) => {
            session.replies = match &command.get(2).to_ascii_uppercase()[..] {
                b"ON" => Replies::On,
                b"OFF" => Replies::Off,
                b"SKIP" => Replies::SkipNext,
                _ => return Err(SYNTAX),
            };
            Ok(Reply::OK)
        }
        // Connections are closed to make room only when they are idle.
        (b"NO-EVICT" | b"NO-TOUCH", 3) => match &command.get(2).to_ascii_uppercase()[..] {
            b"ON" | b"OFF" => Ok(Reply::OK),
            _ => Err(SYNTAX),
        },
        (b"HELP", 2) => Ok(Reply::texts([
            "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL ID <client-id>|ADDR <ip:port> [SKIPME (YES|NO)]",
            "    Kill connections by number or address.",
            "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)|ID <id> [<id>...]]",
            "    Return information about client connections.",
            "NO-EVICT (ON|OFF)",
            "    Do nothing: idle connections make room for new ones.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "SETINFO <LIB-NAME|LIB-VER> <value>",
            "    Set client meta attr.",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "HELP",
            "    Print this help.",
        ])),
        _ => Err(super::unknown_subcommand(command, "CLIENT")),
    }
}

/// A name without spaces and control characters, which would break the lines of `CLIENT LIST`.
pub(super) fn checked_name(name: &[u8]) -> Result<String, CommandError> {
    let is_plain = name.len() <= NAME_BYTES_MAX && name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    let plain = std::str::from_utf8(name).ok().filter(|_| is_plain);
    plain
        .map(str::to_owned)
        .ok_or_else(|| CommandError::other("Client names cannot contain spaces, newlines or special characters."))
}

fn set_info(session: &Session, command: &Command) -> Result<Reply, CommandError> {
    let option = command.get(2).to_ascii_lowercase();
    let text = || {
        checked_name(command.get(3)).map_err(|_| {
            let option = String::from_utf8_lossy(&option);
            CommandError::other(format!("{option} cannot contain spaces, newlines or special characters."))
        })
    };
    match &option[..] {
        b"lib-name" => session.client.set_library(text()?),
        b"lib-ver" => session.client.set_library_version(text()?),
        _ => {
            let option = String::from_utf8_lossy(command.get(2));
            return Err(CommandError::other(format!("Unrecognized option '{option}'")));
        }
    }
    Ok(Reply::OK)
}

fn list(session: &Session, command: &Command) -> Result<Reply, CommandError> {
    let all = session.api().clients().all();
    let id = |text: &[u8]| integer(text).ok_or_else(|| CommandError::other("Invalid client ID"));
    let chosen: Vec<_> = match (&command.get(2).to_ascii_uppercase()[..], command.len()) {
        (_, 2) => all,
        (b"TYPE", 4) => match &command.get(3).to_ascii_lowercase()[..] {
            b"normal" => all,
            b"master" | b"replica" | b"slave" | b"pubsub" => Vec::new(),
            other => {
                let other = String::from_utf8_lossy(other);
                return Err(CommandError::other(format!("Unknown client type '{other}'")));
            }
        },
        (b"ID", 4..) => {
            let ids = command.from(3).map(id).collect::<Result<Vec<i64>, _>>()?;
            all.into_iter().filter(|client| ids.contains(&(client.id as i64))).collect()
        }
        _ => return Err(SYNTAX),
    };
    let mut lines = String::new();
    for client in chosen {
        let does = if client.id == session.client.id { "client|list" } else { "NULL" };
        lines.push_str(&client.line(does));
        lines.push('\n');
    }
    Ok(Reply::Verbatim(lines))
}

fn kill(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    let all = session.api().clients().all();
    if command.len() == 3 {
        let found = all.iter().find(|client| client.is_at(command.get(2)));
        let found = found.ok_or_else(|| CommandError::other("No such client"))?;
        end(session, found);
        return Ok(Reply::OK);
    }
    let (mut id, mut addr, mut skips_own) = (None, None, true);
    let mut options = command.from(2);
    while let Some(option) = options.next() {
        let value = options.next().ok_or(SYNTAX)?;
        match (&option.to_ascii_uppercase()[..], &value.to_ascii_uppercase()[..]) {
            (b"ID", _) => {
                let given = integer(value).filter(|&id| id > 0);
                id = Some(given.ok_or_else(|| CommandError::other("client-id should be greater than 0"))?);
            }
            (b"ADDR", _) => addr = Some(value),
            (b"SKIPME", b"YES") => skips_own = true,
            (b"SKIPME", b"NO") => skips_own = false,
            _ => return Err(SYNTAX),
        }
    }
    let chosen = all.iter().filter(|client| {
        id.is_none_or(|id| client.id as i64 == id)
            && addr.is_none_or(|addr| client.is_at(addr))
            && !(skips_own && client.id == session.client.id)
    });
    let chosen: Vec<_> = chosen.collect();
    chosen.iter().for_each(|client| end(session, client));
    Ok(Reply::Integer(chosen.len() as i64))
}

fn end(session: &mut Session, client: &crate::resp::clients::Client) {
    if client.id == session.client.id {
        // Its own reply is still sent.
        session.quits = true;
    } else {
        client.killed.notify_one();
    }
}
