//! Reads and writes of keys, as commands need them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_core::cluster::membership::Conflict;
use cartwheel_core::message::client::{Consistency, Get, Got, Operation, Put, PutDone, Reply as Done, Request};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::position::Position;
use cartwheel_core::value::state::{Content, Sibling};

use super::api::RespApi;
use super::error::CommandError;
use crate::backend::listing::{KeysPage, KeysWanted};
use crate::metrics::{KeyOperation, Outcome};
use crate::os::clock;
use crate::trace;

/// How long a command's requests may take, each.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a rewrite begins anew because the value has changed meanwhile.
const REWRITES_MAX: u32 = 16;

/// A database: the keys of one bucket in which the last write wins.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) api: Arc<RespApi>,
    pub(super) bucket: Bytes,
    /// How many replicas have stored the connection's last write.
    pub(super) stored: Arc<AtomicU32>,
}

/// A value that was read.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) expires: Option<WallMs>,
    pub(super) written: Hlc,
    /// What the read has seen, if it was [to change](Database::read_to_change) the value.
    context: Option<Bytes>,
    content_type: String,
    content_encoding: String,
}

/// What a rewrite makes of a value.
#[derive(Clone, Debug)]
pub(super) enum Rewrite {
    /// The value stays, and expires at this time or never.
    Expires(Option<WallMs>),
    /// Another value, that expires when the present one does.
    Value(Bytes),
    /// The value is deleted.
    Delete,
}

impl Database {
    /// The key called `name`.
    ///
    /// # Errors
    /// If its length is not valid, or the bucket keeps siblings.
    pub(super) fn key(&self, name: &[u8]) -> Result<Key, CommandError> {
        self.key_of(Bytes::copy_from_slice(name))
    }

    fn key_of(&self, name: Bytes) -> Result<Key, CommandError> {
        let view = self.api.backend().view.borrow();
        if view.settings(&self.bucket).conflict != Conflict::Lww {
            let bucket = self.bucket.escape_ascii();
            return Err(CommandError::other(format!(
                "the bucket {bucket} keeps siblings, which Redis does not have: use CW.GET and CW.PUT, or set its conflict to lww"
            )));
        }
        Ok(view.key(self.bucket.clone(), name)?)
    }

    /// A page of the keys.
    pub(super) async fn keys(&self, after: Position, limit: usize) -> Result<KeysPage, CommandError> {
        let (bucket, prefix) = (self.bucket.clone(), Bytes::new());
        let wanted = KeysWanted { bucket, after, prefix, limit, r: 1, timeout: TIMEOUT };
        self.api.backend().keys(wanted).await.map_err(|not_done| CommandError::of(not_done, false))
    }

    /// The value of a key.
    pub(super) async fn read(&self, key: &Key) -> Result<Option<Held>, CommandError> {
        self.read_with(key, false).await
    }

    /// The value of a key, with the context for its change.
    pub(super) async fn read_to_change(&self, key: &Key) -> Result<Option<Held>, CommandError> {
        self.read_with(key, true).await
    }

    /// Gives `take` the value of the key called `name`, or that there is none, if the node can say so at once and no trace is to show it. Returns what
    /// `take` does: whether the read has its reply.
    pub(super) fn read_at_once(&self, name: Bytes, take: impl FnOnce(Option<&[u8]>) -> bool) -> bool {
        let (backend, begun) = (self.api.backend(), Instant::now());
        if backend.tracer.is_on() {
            return false;
        }
        let Ok(key) = self.key_of(name) else { return false };
        let get = Get { key, consistency: Consistency::Eventual, r: None, seen: None, wants_context: false };
        let taken = backend.shards.read_at_once(&get, |found| take(found.last().and_then(bytes_of)));
        if taken == Some(true) {
            self.api.metrics().ended(KeyOperation::get, Outcome::OK, begun);
        }
        taken == Some(true)
    }

    async fn read_with(&self, key: &Key, wants_context: bool) -> Result<Option<Held>, CommandError> {
        let get = Get { key: key.clone(), consistency: Consistency::Eventual, r: None, seen: None, wants_context };
        Ok(held(self.api.get(get, TIMEOUT).await?, clock::wall()))
    }

    /// Stores a value, whatever is there.
    pub(super) async fn write(&self, key: Key, value: Bytes, expires: Option<WallMs>) -> Result<(), CommandError> {
        let put = Put { expires, ..Put::blind(key, Content::untyped(value)) };
        self.put(put, KeyOperation::put).await
    }

    /// Deletes a value that was read to change it, and all that is older than this delete.
    pub(super) async fn delete(&self, key: Key, held: Held) -> Result<(), CommandError> {
        let put = Put { context: held.context, ..Put::blind(key, Content::Tombstone) };
        self.put(put, KeyOperation::delete).await
    }

    /// Reads a key and writes what `change` makes of its value, unless it makes nothing. Returns the value that was read, and whether it was
    /// changed.
    ///
    /// The new value never wins over one that was written meanwhile. Then the whole begins anew.
    pub(super) async fn rewrite(
        &self,
        key: &Key,
        change: impl Fn(&Held) -> Option<Rewrite>,
    ) -> Result<(Option<Held>, bool), CommandError> {
        for _ in 0..REWRITES_MAX {
            let Some(held) = self.read_to_change(key).await? else { return Ok((None, false)) };
            let Some(rewrite) = change(&held) else { return Ok((Some(held), false)) };
            let (bytes, expires) = match rewrite {
                Rewrite::Expires(expires) => (Some(held.bytes.clone()), expires),
                Rewrite::Value(bytes) => (Some(bytes), held.expires),
                Rewrite::Delete => (None, None),
            };
            let operation = if bytes.is_some() { KeyOperation::put } else { KeyOperation::delete };
            let content = bytes.map_or(Content::Tombstone, |bytes| Content::Value {
                bytes,
                content_type: held.content_type.clone(),
                content_encoding: held.content_encoding.clone(),
            });
            let (context, rewrites) = (held.context.clone(), Some(held.written));
            let put = Put { expires, context, rewrites, ..Put::blind(key.clone(), content) };
            match self.put(put, operation).await {
                Ok(()) => return Ok((Some(held), true)),
                Err(CommandError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CommandError::Changed)
    }

    async fn put(&self, put: Put, operation: KeyOperation) -> Result<(), CommandError> {
        let done = self.api.put(put, operation, TIMEOUT).await?;
        self.stored.store(done.acks.home + done.acks.standin, Ordering::Relaxed);
        Ok(())
    }
}

/// The bytes of a value.
fn bytes_of(sibling: &Sibling) -> Option<&[u8]> {
    match &sibling.content {
        Content::Value { bytes, .. } => Some(bytes),
        Content::Tombstone => None,
    }
}

/// The value that a reader sees; of several the last one.
fn held(got: Got, wall: WallMs) -> Option<Held> {
    let last = got.last(wall)?;
    let Content::Value { bytes, content_type, content_encoding } = &last.content else { return None };
    Some(Held {
        bytes: bytes.clone(),
        expires: last.expires,
        written: last.hlc,
        content_type: content_type.clone(),
        content_encoding: content_encoding.clone(),
        context: got.context,
    })
}

impl RespApi {
    /// Reads a key.
    pub(super) async fn get(&self, get: Get, timeout: Duration) -> Result<Got, CommandError> {
        let timed = self.metrics().begin(KeyOperation::get);
        let got = self.traced("RESP read", self.backend().get(get, timeout)).await;
        let got = got.map_err(|not_done| CommandError::of(not_done, false));
        timed.end(outcome(&got));
        got
    }

    /// Writes a key.
    pub(super) async fn put(
        &self,
        put: Put,
        operation: KeyOperation,
        timeout: Duration,
    ) -> Result<PutDone, CommandError> {
        let timed = self.metrics().begin(operation);
        let done = self.traced("RESP write", self.write(put, timeout)).await;
        timed.end(outcome(&done));
        done
    }

    /// Carries out a request within a span of its own, if it is drawn to be in a trace.
    async fn traced<F: Future>(&self, name: &'static str, request: F) -> F::Output {
        let tracer = &self.backend().tracer;
        let Some(span) = tracer.root(name, None) else { return request.await };
        let output = trace::within(&span, request).await;
        tracer.end(span);
        output
    }

    async fn write(&self, put: Put, timeout: Duration) -> Result<PutDone, CommandError> {
        let (place, timeout) = self.backend().admit(&put.key, timeout).await?;
        let request = Request { operation: Operation::Put(put), timeout };
        match self.backend().request(request, Some(place)).await {
            Ok(Done::Put(done)) => Ok(done),
            Ok(Done::Got(_) | Done::Inspected(_)) => Err(mismatched()),
            Err(not_done) => Err(CommandError::of(not_done, true)),
        }
    }
}

fn outcome<T>(done: &Result<T, CommandError>) -> Outcome {
    match done {
        Ok(_) => Outcome::OK,
        Err(error) => Outcome(error.code()),
    }
}

/// Cannot happen: the response to a get is what was read, and that to a put is what was written.
fn mismatched() -> CommandError {
    CommandError::other("the node's response does not match the request: report this as a bug")
}
