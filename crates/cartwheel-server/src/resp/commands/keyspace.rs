//! Commands on keys, whatever their values.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::Call;
use super::strings::AT_ONCE;
use crate::os::clock;
use crate::resp::error::{CommandError, NOT_AN_INTEGER, SYNTAX};
use crate::resp::keys::Held;
use crate::resp::parser::integer;
use crate::resp::reply::Reply;

/// What a record needs besides its key and value, in bytes: its clock, times and ids.
const RECORD_BYTES: usize = 128;

/// DEL and UNLINK. Space is freed in the background in any case.
pub(super) async fn del(call: Call) -> Result<Reply, CommandError> {
    let mut named = HashSet::new();
    let once = (1..call.command.len()).filter(|&at| named.insert(call.command.get(at)));
    let call = &call;
    let delete = |at| async move {
        let key = call.key(at)?;
        match call.db.read_to_change(&key).await? {
            None => Ok(0),
            Some(held) => call.db.delete(key, held).await.map(|()| 1),
        }
    };
    counted(once, delete).await
}

/// EXISTS and TOUCH: a key that is named twice counts twice.
pub(super) async fn exists(call: Call) -> Result<Reply, CommandError> {
    let call = &call;
    let exists = |at| async move { Ok(i64::from(call.db.read(&call.key(at)?).await?.is_some())) };
    counted(1..call.command.len(), exists).await
}

/// The sum of what `count` returns for each argument.
async fn counted<F: Future<Output = Result<i64, CommandError>>>(
    arguments: impl Iterator<Item = usize>,
    count: impl Fn(usize) -> F,
) -> Result<Reply, CommandError> {
    let mut counting = stream::iter(arguments).map(count).buffer_unordered(AT_ONCE);
    let mut sum = 0;
    while let Some(one) = counting.try_next().await? {
        sum += one;
    }
    Ok(Reply::Integer(sum))
}

pub(super) async fn kind(call: Call) -> Result<Reply, CommandError> {
    let held = call.db.read(&call.key(1)?).await?;
    Ok(Reply::Status(if held.is_some() { "string" } else { "none" }))
}

pub(super) async fn object(call: Call) -> Result<Reply, CommandError> {
    let subcommand = call.command.get(1).to_ascii_uppercase();
    match (&subcommand[..], call.command.len()) {
        (b"HELP", 2) => Ok(Reply::texts([
            "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "ENCODING <key>",
            "    Return how Redis would encode the value.",
            "FREQ <key>",
            "    Not tracked: an error, as in a Redis without an LFU policy.",
            "IDLETIME <key>",
            "    Return the seconds since the value was written.",
            "REFCOUNT <key>",
            "    Return 1.",
            "HELP",
            "    Print this help.",
        ])),
        (b"ENCODING" | b"FREQ" | b"IDLETIME" | b"REFCOUNT", 3) => {
            let Some(held) = call.db.read(&call.key(2)?).await? else { return Ok(Reply::Null) };
            match &subcommand[..] {
                b"ENCODING" => Ok(Reply::text(encoding(&held))),
                b"IDLETIME" => {
                    let since = clock::wall().0.saturating_sub(held.written.wall().0) / 1_000;
                    Ok(Reply::Integer(i64::try_from(since).unwrap_or(i64::MAX)))
                }
                b"REFCOUNT" => Ok(Reply::Integer(1)),
                _ => Err(CommandError::other(
                    "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies \
                     at runtime LRU and LFU data will take some time to adjust.",
                )),
            }
        }
        _ => Err(super::unknown_subcommand(&call.command, "OBJECT")),
    }
}

/// How Redis would keep the value.
fn encoding(held: &Held) -> &'static str {
    match held.bytes.len() {
        0..=20 if integer(&held.bytes).is_some() => "int",
        0..=44 => "embstr",
        _ => "raw",
    }
}

pub(super) async fn memory(call: Call) -> Result<Reply, CommandError> {
    let subcommand = call.command.get(1).to_ascii_uppercase();
    match (&subcommand[..], call.command.len()) {
        (b"USAGE", 3 | 5) => {
            if call.command.len() == 5 {
                if !call.command.get(3).eq_ignore_ascii_case(b"SAMPLES") {
                    return Err(SYNTAX);
                }
                integer(call.command.get(4)).ok_or(NOT_AN_INTEGER)?;
            }
            let key = call.key(2)?;
            let held = call.db.read(&key).await?;
            let bytes = |held: Held| Reply::Integer((held.bytes.len() + key.storage_key_len() + RECORD_BYTES) as i64);
            Ok(held.map_or(Reply::Null, bytes))
        }
        (b"USAGE", _) => Err(SYNTAX),
        (b"DOCTOR", 2) => Ok(Reply::Verbatim("Data is on disk: see the metrics for the memory of caches.".to_owned())),
        (b"HELP", 2) => Ok(Reply::texts([
            "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "USAGE <key> [SAMPLES <count>]",
            "    Return the bytes that one copy of the key and its value need.",
            "HELP",
            "    Print this help.",
        ])),
        _ => Err(super::unknown_subcommand(&call.command, "MEMORY")),
    }
}
