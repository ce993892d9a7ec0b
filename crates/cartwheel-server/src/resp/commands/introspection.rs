//! `COMMAND` and its subcommands.

use super::{Spec, TABLE, find};
use crate::resp::error::{CommandError, SYNTAX};
use crate::resp::glob::matches;
use crate::resp::parser::Command;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

pub(super) fn command(_: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    if command.len() == 1 {
        return Ok(Reply::Array(TABLE.iter().map(described).collect()));
    }
    let subcommand = command.get(1).to_ascii_uppercase();
    match (&subcommand[..], command.len()) {
        (b"COUNT", 2) => Ok(Reply::Integer(TABLE.len() as i64)),
        (b"INFO", 2) => Ok(Reply::Array(TABLE.iter().map(described).collect())),
        (b"INFO", 3..) => {
            let one = |name: &[u8]| find(name).map_or(Reply::Null, described);
            Ok(Reply::Array(command.from(2).map(one).collect()))
        }
        (b"DOCS", 2) => Ok(Reply::Map(TABLE.iter().map(documented).collect())),
        (b"DOCS", 3..) => Ok(Reply::Map(command.from(2).filter_map(find).map(documented).collect())),
        (b"LIST", 2) => Ok(Reply::texts(TABLE.iter().map(|spec| spec.name))),
        (b"LIST", 5) if command.get(2).eq_ignore_ascii_case(b"FILTERBY") => list(command),
        (b"GETKEYS", 4..) => keys(command),
        (b"HELP", 2) => Ok(Reply::texts([
            "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "(no subcommand)",
            "    Return details about all commands.",
            "COUNT",
            "    Return the total number of commands in this server.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple commands.",
            "GETKEYS <full-command>",
            "    Return the keys from a full command.",
            "INFO [<command-name> ...]",
            "    Return details about multiple commands.",
            "LIST [FILTERBY (MODULE <module-name>|ACLCAT <category>|PATTERN <pattern>)]",
            "    Return the names of the commands.",
            "HELP",
            "    Print this help.",
        ])),
        _ => Err(super::unknown_subcommand(command, "COMMAND")),
    }
}

/// The categories that Redis's access control would have for a command.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let group = match spec.group {
        "string" => Some("@string"),
        "generic" => Some("@keyspace"),
        "connection" => Some("@connection"),
        "transactions" => Some("@transaction"),
        "pubsub" => Some("@pubsub"),
        _ => None,
    };
    let of_flags = spec.flags.iter().filter_map(|flag| match *flag {
        "readonly" => Some("@read"),
        "write" => Some("@write"),
        "admin" => Some("@admin"),
        "fast" => Some("@fast"),
        _ => None,
    });
    of_flags.chain(group).collect()
}

fn described(spec: &Spec) -> Reply {
    let statuses = |names: Vec<&'static str>| Reply::Set(names.into_iter().map(Reply::Status).collect());
    let (first, last, step) = spec.keys;
    Reply::Array(vec![
        Reply::text(spec.name),
        Reply::Integer(spec.arity),
        statuses(spec.flags.to_vec()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        statuses(categories(spec)),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
        Reply::Array(Vec::new()),
    ])
}

fn documented(spec: &Spec) -> (Reply, Reply) {
    let entry = |name: &str, value: &str| (Reply::text(name), Reply::text(value));
    let docs = vec![entry("summary", spec.summary), entry("group", spec.group)];
    (Reply::text(spec.name), Reply::Map(docs))
}

fn list(command: &Command) -> Result<Reply, CommandError> {
    let value = command.get(4).to_ascii_lowercase();
    let is_chosen: Box<dyn Fn(&Spec) -> bool> = match &command.get(3).to_ascii_uppercase()[..] {
        b"MODULE" => Box::new(|_| false),
        b"ACLCAT" => Box::new(|spec| categories(spec).iter().any(|category| category.as_bytes()[1..] == value[..])),
        b"PATTERN" => Box::new(|spec| matches(&value, spec.name.as_bytes())),
        _ => return Err(SYNTAX),
    };
    Ok(Reply::texts(TABLE.iter().filter(|spec| is_chosen(spec)).map(|spec| spec.name)))
}

fn keys(command: &Command) -> Result<Reply, CommandError> {
    let Some(spec) = find(command.get(2)) else {
        return Err(CommandError::other("Invalid command specified"));
    };
    let arguments = command.len() - 2;
    if spec.keys.0 == 0 {
        return Err(CommandError::other("The command has no key arguments"));
    }
    if !spec.takes(arguments) {
        return Err(CommandError::other("Invalid number of arguments specified for command"));
    }
    Ok(Reply::Array(spec.key_positions(arguments).map(|at| Reply::Bulk(command.bytes(2 + at))).collect()))
}
