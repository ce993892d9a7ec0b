//! Cartwheel's own commands, for siblings and contexts, in any bucket.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_core::message::client::{Consistency, Get, Put, Retry};
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;

use super::Call;
use crate::metrics::KeyOperation;
use crate::os::clock;
use crate::resp::error::{CommandError, SYNTAX};
use crate::resp::keys::TIMEOUT;
use crate::resp::parser::{Command, integer};
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// The longest time for which a client may wait, in milliseconds.
const TIMEOUT_MS_MAX: i64 = 60_000;
/// The longest time to live, in seconds: about 136 years.
const TTL_SECONDS_MAX: i64 = 4_294_967_295;
/// The longest idempotency key, in bytes.
const ID_BYTES_MAX: usize = 255;

/// The options of these commands.
struct Options {
    consistency: Consistency,
    quorum: Option<u8>,
    context: Option<Bytes>,
    id: Option<Bytes>,
    expires: Option<WallMs>,
    timeout: Duration,
}

impl Options {
    /// Parses what follows the first `from` arguments. `allowed` are the options of the command.
    fn parse(command: &Command, from: usize, allowed: &[&[u8]]) -> Result<Self, CommandError> {
        let (consistency, timeout) = (Consistency::Eventual, TIMEOUT);
        let mut options = Self { consistency, quorum: None, context: None, id: None, expires: None, timeout };
        let mut at = from;
        while at < command.len() {
            let option = command.get(at).to_ascii_uppercase();
            if !allowed.contains(&&option[..]) {
                return Err(SYNTAX);
            }
            if option == b"STRONG" {
                options.consistency = Consistency::Strong;
                at += 1;
                continue;
            }
            if at + 1 >= command.len() {
                return Err(SYNTAX);
            }
            let value = command.get(at + 1);
            let number = |least: i64, most: i64| {
                let number = integer(value).filter(|number| (least..=most).contains(number));
                number.ok_or_else(|| {
                    let option = String::from_utf8_lossy(&option);
                    CommandError::other(format!("{option} is not a number from {least} to {most}"))
                })
            };
            match &option[..] {
                b"R" | b"W" => options.quorum = Some(number(1, 16)? as u8),
                b"SEEN" | b"CONTEXT" => options.context = Some(context(value)?),
                b"ID" if (1..=ID_BYTES_MAX).contains(&value.len()) => options.id = Some(command.bytes(at + 1)),
                b"ID" => return Err(CommandError::other(format!("the ID has no 1 to {ID_BYTES_MAX} bytes"))),
                b"TTL" => {
                    let ms = number(1, TTL_SECONDS_MAX)? as u64 * 1_000;
                    options.expires = Some(WallMs(clock::wall().0.saturating_add(ms)));
                }
                _ => options.timeout = Duration::from_millis(number(1, TIMEOUT_MS_MAX)? as u64),
            }
            at += 2;
        }
        Ok(options)
    }

    fn put(&self, key: Key, content: Content) -> Put {
        Put {
            expires: self.expires,
            context: self.context.clone(),
            retry: self.id.clone().map_or(Retry::Unnamed, Retry::Key),
            consistency: self.consistency,
            w: self.quorum,
            ..Put::blind(key, content)
        }
    }
}

/// A context is shown as text, as over HTTP, so that both APIs take each other's.
fn context(text: &[u8]) -> Result<Bytes, CommandError> {
    let decoded = URL_SAFE_NO_PAD.decode(text);
    let why = "the context is not one that a reply showed: send it as it came";
    decoded.map(Bytes::from).map_err(|_| CommandError::other(why))
}

fn shown(context: Option<&Bytes>) -> Reply {
    context.map_or(Reply::Null, |context| Reply::text(URL_SAFE_NO_PAD.encode(context)))
}

fn key(call: &Call) -> Result<Key, CommandError> {
    Ok(call.db.api.backend().view.borrow().key(call.command.bytes(1), call.command.bytes(2))?)
}

/// The context, and the live values.
pub(super) async fn get(call: Call) -> Result<Reply, CommandError> {
    let options = Options::parse(&call.command, 3, &[b"R", b"STRONG", b"SEEN", b"TIMEOUT"])?;
    let Options { consistency, quorum: r, context: seen, timeout, .. } = options;
    let got = call.db.api.get(Get { key: key(&call)?, consistency, r, seen, wants_context: true }, timeout).await?;
    let (mut values, mut bytes) = (Vec::new(), 0);
    for sibling in got.live(clock::wall()) {
        if let Content::Value { bytes: value, .. } = &sibling.content {
            bytes += value.len();
            values.push(Reply::Bulk(value.clone()));
        }
    }
    let share = call.db.api.replies().take(bytes)?;
    let reply = Reply::Array(vec![shown(got.context.as_ref()), Reply::Array(values)]);
    Ok(Reply::Held(Box::new(reply), share))
}

/// The context of what the write had seen and of the write itself.
pub(super) async fn put(call: Call) -> Result<Reply, CommandError> {
    let options = Options::parse(&call.command, 4, &[b"CONTEXT", b"ID", b"W", b"STRONG", b"TTL", b"TIMEOUT"])?;
    let put = options.put(key(&call)?, Content::untyped(call.command.bytes(3)));
    let done = call.db.api.put(put, KeyOperation::put, options.timeout).await?;
    Ok(shown(done.context.as_ref()))
}

/// The context after the delete; none if there was nothing to delete.
pub(super) async fn del(call: Call) -> Result<Reply, CommandError> {
    let options = Options::parse(&call.command, 3, &[b"CONTEXT", b"ID", b"W", b"STRONG", b"TIMEOUT"])?;
    let put = options.put(key(&call)?, Content::Tombstone);
    let done = call.db.api.put(put, KeyOperation::delete, options.timeout).await?;
    Ok(shown(done.context.as_ref()))
}

pub(super) fn ring(session: &mut Session, _: &Command) -> Result<Reply, CommandError> {
    Ok(Reply::text(session.api().ring_json()))
}
