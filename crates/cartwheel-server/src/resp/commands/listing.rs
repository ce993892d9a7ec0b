//! Commands on all keys of a database.

use bytes::Bytes;
use cartwheel_core::cluster::membership::{REDIS_BUCKET, is_redis_bucket};
use cartwheel_core::message::listing::KEYS_MAX;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::position::Position;

use super::Call;
use super::server::is_sync_or_async;
use crate::os::random;
use crate::resp::error::{CommandError, NOT_AN_INTEGER, SYNTAX};
use crate::resp::glob::matches;
use crate::resp::keys::TIMEOUT;
use crate::resp::parser::integer;
use crate::resp::reply::Reply;

/// How many keys SCAN looks at unless the client says otherwise.
const COUNT_DEFAULT: usize = 10;
/// What a key needs in a reply beside its name, in bytes.
const REPLY_BYTES: usize = 64;

/// The options of SCAN.
struct Scan {
    pattern: Option<Bytes>,
    count: usize,
    /// Whether keys of this type exist at all: all are strings.
    has_type: bool,
}

impl Scan {
    fn parse(call: &Call) -> Result<Self, CommandError> {
        let mut scan = Self { pattern: None, count: COUNT_DEFAULT, has_type: true };
        for at in (2..call.command.len()).step_by(2) {
            if at + 1 >= call.command.len() {
                return Err(SYNTAX);
            }
            match &call.command.get(at).to_ascii_uppercase()[..] {
                b"MATCH" => scan.pattern = Some(call.command.bytes(at + 1)),
                b"COUNT" => {
                    let count = integer(call.command.get(at + 1)).ok_or(NOT_AN_INTEGER)?;
                    scan.count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(SYNTAX)?;
                }
                b"TYPE" => scan.has_type = call.command.get(at + 1).eq_ignore_ascii_case(b"string"),
                _ => return Err(SYNTAX),
            }
        }
        Ok(scan)
    }

    fn takes(&self, key: &Key) -> bool {
        self.has_type && self.pattern.as_ref().is_none_or(|pattern| matches(pattern, key.name()))
    }
}

/// The bits of a token that a cursor has: some clients keep a cursor as a floating-point number.
const CURSOR_BITS: u32 = 48;

/// The place before all keys whose tokens begin with the bits of a cursor.
fn place_of(cursor: u64) -> Position {
    Position::of_token_bits(cursor << (u64::BITS - CURSOR_BITS))
}

/// The cursor of a place.
fn cursor_of(place: &Position) -> u64 {
    place.token_bits() >> (u64::BITS - CURSOR_BITS)
}

/// SCAN: the cursor is the first bits of a token, so the node keeps nothing between two calls, and any node goes on with it.
pub(super) async fn scan(call: Call) -> Result<Reply, CommandError> {
    let cursor = call.command.get(1);
    // As Redis reads it, which takes a negative number for a large one.
    let parsed = |text: &str| text.parse().ok().or_else(|| text.parse::<i64>().ok().map(i64::cast_unsigned));
    let cursor: u64 =
        std::str::from_utf8(cursor).ok().and_then(parsed).ok_or(CommandError::Text("ERR invalid cursor".into()))?;
    let scan = Scan::parse(&call)?;
    if cursor >= 1 << CURSOR_BITS {
        return Ok(Reply::Array(vec![Reply::text("0"), Reply::Array(Vec::new())]));
    }
    let (keys, next) = page(&call, cursor, scan.count.min(KEYS_MAX as usize)).await?;
    let found: Vec<Reply> =
        keys.iter().filter(|key| scan.takes(key)).map(|key| Reply::Bulk(key.name().clone())).collect();
    Ok(Reply::Array(vec![Reply::text(next.to_string()), Reply::Array(found)]))
}

/// The keys from a cursor on, about `limit` of them, and the next cursor; 0 at the end.
async fn page(call: &Call, cursor: u64, limit: usize) -> Result<(Vec<Key>, u64), CommandError> {
    let (mut keys, mut after) = (Vec::new(), place_of(cursor));
    loop {
        let page = call.db.keys(after, limit).await?;
        keys.extend(page.keys);
        let Some(next) = page.next else { return Ok((keys, 0)) };
        // The next call begins with all keys whose tokens begin with these bits.
        let bits = cursor_of(&next);
        if bits > cursor {
            keys.retain(|key| cursor_of(&Position::before(key)) < bits);
            return Ok((keys, bits));
        }
        after = next;
    }
}

/// KEYS: all keys that match a pattern.
pub(super) async fn keys(call: Call) -> Result<Reply, CommandError> {
    let pattern = call.command.bytes(1);
    let replies = call.db.api.replies();
    let (mut found, mut share, mut bytes) = (Vec::new(), replies.nothing(), 0);
    let mut after = Position::default();
    loop {
        let page = call.db.keys(after, KEYS_MAX as usize).await?;
        for key in page.keys.iter().filter(|key| matches(&pattern, key.name())) {
            bytes += key.name().len() + REPLY_BYTES;
            found.push(Reply::Bulk(key.name().clone()));
        }
        share.grow_to(replies, bytes)?;
        match page.next {
            Some(next) => after = next,
            None => return Ok(Reply::Held(Box::new(Reply::Array(found)), share)),
        }
    }
}

/// RANDOMKEY: the first key from a random place on the ring on.
pub(super) async fn randomkey(call: Call) -> Result<Reply, CommandError> {
    let place = random::number().map_err(|error| CommandError::other(error.to_string()))?;
    for start in [Position::of_token_bits(place), Position::default()] {
        let mut after = Some(start);
        while let Some(from) = after {
            let page = call.db.keys(from, 1).await?;
            if let Some(key) = page.keys.first() {
                return Ok(Reply::Bulk(key.name().clone()));
            }
            after = page.next;
        }
    }
    Ok(Reply::Null)
}

/// DBSIZE.
pub(super) async fn dbsize(call: Call) -> Result<Reply, CommandError> {
    let sizes =
        call.db.api.backend().bucket_sizes(TIMEOUT).await.map_err(|not_done| CommandError::of(not_done, false))?;
    let keys = sizes.get(&call.db.bucket).map_or(0, |size| size.keys);
    Ok(Reply::Integer(i64::try_from(keys).unwrap_or(i64::MAX)))
}

/// FLUSHDB: empties the database's bucket.
pub(super) async fn flushdb(call: Call) -> Result<Reply, CommandError> {
    check_flush(&call)?;
    empty(&call, call.db.bucket.clone()).await?;
    Ok(Reply::OK)
}

/// FLUSHALL: empties the buckets of all databases.
pub(super) async fn flushall(call: Call) -> Result<Reply, CommandError> {
    check_flush(&call)?;
    let backend = call.db.api.backend();
    let sizes = backend.bucket_sizes(TIMEOUT).await.map_err(|not_done| CommandError::of(not_done, true))?;
    let mut buckets: Vec<Bytes> = sizes.into_keys().filter(|bucket| is_redis_bucket(bucket)).collect();
    // A key that was written a moment ago may not be counted yet.
    for bucket in [REDIS_BUCKET.into(), call.db.bucket.clone()] {
        if !buckets.contains(&bucket) {
            buckets.push(bucket);
        }
    }
    for bucket in buckets {
        empty(&call, bucket).await?;
    }
    Ok(Reply::OK)
}

async fn empty(call: &Call, bucket: Bytes) -> Result<(), CommandError> {
    let emptied = call.db.api.backend().empty_bucket(bucket, TIMEOUT).await;
    emptied.map(drop).map_err(|not_done| CommandError::of(not_done, true))
}

/// Space is freed in the background in any case.
fn check_flush(call: &Call) -> Result<(), CommandError> {
    match call.command.len() {
        1 => Ok(()),
        2 if is_sync_or_async(call.command.get(1)) => Ok(()),
        _ => Err(SYNTAX),
    }
}
