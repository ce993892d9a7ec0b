//! Commands on values.

use std::collections::HashSet;

use bytes::Bytes;
use cartwheel_core::value::hlc::WallMs;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::Call;
use super::expiry::{self, GivenTime};
use crate::memory::{MemoryPool, MemoryShare};
use crate::os::clock;
use crate::resp::error::{CommandError, NOT_AN_INTEGER, SYNTAX};
use crate::resp::keys::{Database, Held, Rewrite};
use crate::resp::parser::{Command, integer};
use crate::resp::reply::{Output, Reply, Version};

/// How many keys of one command are worked on at once.
pub(super) const AT_ONCE: usize = 32;
/// Values from this length on take a share of the memory for replies until the client has read them.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// The value as a reply, with its share of the memory.
fn value(call: &Call, held: Option<Held>) -> Result<Reply, CommandError> {
    held.map_or(Ok(Reply::Null), |held| bulk(call, held.bytes))
}

fn bulk(call: &Call, bytes: Bytes) -> Result<Reply, CommandError> {
    if bytes.len() < SHARED_BYTES_MIN {
        return Ok(Reply::Bulk(bytes));
    }
    let share = call.db.api.replies().take(bytes.len())?;
    Ok(Reply::Held(Box::new(Reply::Bulk(bytes)), share))
}

/// A GET that the node answers at once. A long value takes the way on which it gets a share of the memory.
pub(super) fn get_at_once(db: &Database, command: &Command, output: &mut Output, version: Version) -> bool {
    db.read_at_once(command.shared(1), |value| match value {
        Some(bytes) if bytes.len() >= SHARED_BYTES_MIN => false,
        Some(bytes) => {
            output.copy(bytes);
            true
        }
        None => {
            output.push(Reply::Null, version);
            true
        }
    })
}

pub(super) async fn get(call: Call) -> Result<Reply, CommandError> {
    let key = call.key(1)?;
    let held = call.db.read(&key).await?;
    value(&call, held)
}

/// What SET is asked besides the value.
#[derive(Default)]
struct SetOptions {
    expires: Option<GivenTime>,
    keeps_expiry: bool,
    gets: bool,
}

impl SetOptions {
    fn parse(call: &Call) -> Result<Self, CommandError> {
        let (mut options, mut at) = (Self::default(), 3);
        while at < call.command.len() {
            let option = call.command.get(at).to_ascii_uppercase();
            let has_value = at + 1 < call.command.len();
            let is_first = options.expires.is_none() && !options.keeps_expiry;
            match &option[..] {
                b"NX" | b"XX" => {
                    let option = String::from_utf8_lossy(&option).into_owned();
                    return Err(super::needs_agreement(&format!("SET with {option}")));
                }
                b"GET" => options.gets = true,
                b"KEEPTTL" if is_first => options.keeps_expiry = true,
                b"EX" | b"PX" | b"EXAT" | b"PXAT" if is_first && has_value => {
                    options.expires = GivenTime::parse(&option, call.command.get(at + 1), "set")?;
                    at += 1;
                }
                _ => return Err(SYNTAX),
            }
            at += 1;
        }
        Ok(options)
    }
}

pub(super) async fn set(call: Call) -> Result<Reply, CommandError> {
    let SetOptions { expires, keeps_expiry, gets } = SetOptions::parse(&call)?;
    let (key, bytes) = (call.key(1)?, call.command.bytes(2));
    let expires = expires.map(|given| given.at(clock::wall(), "set")).transpose()?;
    if !keeps_expiry {
        let before = if gets { call.db.read(&key).await? } else { None };
        call.db.write(key, bytes, expires).await?;
        return if gets { value(&call, before) } else { Ok(Reply::OK) };
    }
    let (before, _) = call.db.rewrite(&key, |_| Some(Rewrite::Value(bytes.clone()))).await?;
    if before.is_none() {
        call.db.write(key, bytes, None).await?;
    }
    if gets { value(&call, before) } else { Ok(Reply::OK) }
}

/// SETEX and PSETEX: the time comes before the value.
async fn set_expiring(call: Call, unit: &'static [u8], name: &'static str) -> Result<Reply, CommandError> {
    let given = GivenTime::parse(unit, call.command.get(2), name)?.ok_or(SYNTAX)?;
    let expires = given.at(clock::wall(), name)?;
    let (key, value) = (call.key(1)?, call.command.bytes(3));
    call.db.write(key, value, Some(expires)).await?;
    Ok(Reply::OK)
}

pub(super) async fn setex(call: Call) -> Result<Reply, CommandError> {
    set_expiring(call, b"EX", "setex").await
}

pub(super) async fn psetex(call: Call) -> Result<Reply, CommandError> {
    set_expiring(call, b"PX", "psetex").await
}

pub(super) async fn getset(call: Call) -> Result<Reply, CommandError> {
    let key = call.key(1)?;
    let before = call.db.read(&key).await?;
    call.db.write(key, call.command.bytes(2), None).await?;
    value(&call, before)
}

pub(super) async fn getdel(call: Call) -> Result<Reply, CommandError> {
    let key = call.key(1)?;
    let (held, _) = call.db.rewrite(&key, |_| Some(Rewrite::Delete)).await?;
    value(&call, held)
}

fn time(option: &[u8], amount: &[u8]) -> Result<WallMs, CommandError> {
    GivenTime::parse(option, amount, "getex")?.ok_or(SYNTAX)?.at(clock::wall(), "getex")
}

pub(super) async fn getex(call: Call) -> Result<Reply, CommandError> {
    let option = call.command.get(2).to_ascii_uppercase();
    let expires = match (&option[..], call.command.len()) {
        (_, 2) => None,
        (b"PERSIST", 3) => Some(None),
        (b"EX" | b"PX" | b"EXAT" | b"PXAT", 4) => match time(&option, call.command.get(3)) {
            Ok(at) => Some(Some(at)),
            // As in Redis, that the key is absent comes first.
            Err(error) => {
                let held = call.db.read(&call.key(1)?).await?;
                return held.map_or(Ok(Reply::Null), |_| Err(error));
            }
        },
        _ => return Err(SYNTAX),
    };
    let key = call.key(1)?;
    let held = match expires {
        None => call.db.read(&key).await?,
        Some(expires) => {
            let change = |held: &Held| (held.expires != expires).then(|| expiry::rewrite(expires, clock::wall()));
            call.db.rewrite(&key, change).await?.0
        }
    };
    value(&call, held)
}

pub(super) async fn mget(call: Call) -> Result<Reply, CommandError> {
    let mut share = Growing::new(call.db.api.replies());
    let mut values = Vec::with_capacity(call.command.len() - 1);
    let read = |at| {
        let call = &call;
        async move { call.db.read(&call.key(at)?).await }
    };
    let mut reading = stream::iter(1..call.command.len()).map(read).buffered(AT_ONCE);
    while let Some(held) = reading.try_next().await? {
        match held {
            None => values.push(Reply::Null),
            Some(held) => {
                share.add(held.bytes.len())?;
                values.push(Reply::Bulk(held.bytes));
            }
        }
    }
    Ok(share.hold(Reply::Array(values)))
}

/// A share of the memory for replies that grows with the reply. Small replies take none.
struct Growing<'a> {
    pool: &'a MemoryPool,
    bytes: usize,
    share: Option<MemoryShare>,
}

impl<'a> Growing<'a> {
    const fn new(pool: &'a MemoryPool) -> Self {
        Self { pool, bytes: 0, share: None }
    }

    fn add(&mut self, bytes: usize) -> Result<(), CommandError> {
        self.bytes += bytes;
        let held = self.share.as_ref().map_or(SHARED_BYTES_MIN, MemoryShare::bytes);
        if self.bytes > held {
            // In steps, so that many small values need few of them.
            let pool = self.pool;
            self.share.get_or_insert_with(|| pool.nothing()).grow_to(pool, self.bytes.max(2 * held))?;
        }
        Ok(())
    }

    fn hold(self, reply: Reply) -> Reply {
        match self.share {
            Some(share) => Reply::Held(Box::new(reply), share),
            None => reply,
        }
    }
}

/// Every key is written by itself: others may see some of them written and others not.
pub(super) async fn mset(call: Call) -> Result<Reply, CommandError> {
    if call.command.len().is_multiple_of(2) {
        return Err(CommandError::other("wrong number of arguments for 'mset' command"));
    }
    // Of several values for one key the last one stands.
    let mut named = HashSet::new();
    let last = (1..call.command.len()).step_by(2).rev().filter(|&at| named.insert(call.command.get(at)));
    let write = |at| {
        let call = &call;
        async move { call.db.write(call.key(at)?, call.command.bytes(at + 1), None).await }
    };
    stream::iter(last.map(Ok)).try_for_each_concurrent(AT_ONCE, write).await?;
    Ok(Reply::OK)
}

pub(super) async fn strlen(call: Call) -> Result<Reply, CommandError> {
    let held = call.db.read(&call.key(1)?).await?;
    Ok(Reply::Integer(held.map_or(0, |held| held.bytes.len() as i64)))
}

pub(super) async fn getrange(call: Call) -> Result<Reply, CommandError> {
    let number = |at: usize| integer(call.command.get(at)).ok_or(NOT_AN_INTEGER);
    let (start, end) = (number(2)?, number(3)?);
    let held = call.db.read(&call.key(1)?).await?;
    let bytes = held.map(|held| held.bytes).unwrap_or_default();
    bulk(&call, range(start, end, bytes.len()).map(|(from, to)| bytes.slice(from..to)).unwrap_or_default())
}

/// The part from `start` to `end`, the end included; negative numbers count from the end.
fn range(start: i64, end: i64, length: usize) -> Option<(usize, usize)> {
    let length = length as i64;
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let from_end = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    (length > 0 && start <= end).then(|| (start as usize, end as usize + 1))
}

/// When a value expires, in the milliseconds of the Unix epoch; -1 if never.
pub(super) fn expiry_ms(expires: Option<WallMs>) -> i64 {
    expires.map_or(-1, |expires| i64::try_from(expires.0).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_from_both_ends() {
        let part = |start, end| range(start, end, 5).map(|(from, to)| &b"hello"[from..to]);
        for (start, end, expected) in [
            (0, 4, "hello"),
            (0, -1, "hello"),
            (1, 2, "el"),
            (-3, -2, "ll"),
            (-100, 100, "hello"),
            (i64::MIN, i64::MAX, "hello"),
            (4, 4, "o"),
        ] {
            assert_eq!(part(start, end), Some(expected.as_bytes()), "{start} {end}");
        }
        for (start, end) in [(3, 2), (5, 9), (-2, -3), (-1, -100), (i64::MAX, i64::MAX)] {
            assert_eq!(part(start, end), None, "{start} {end}");
        }
        assert_eq!(range(0, -1, 0), None);
    }
}
