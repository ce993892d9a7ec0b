//! Contexts: what a client was shown, in a form that it can carry but not make.

use std::fmt;

use bytes::Bytes;

use crate::clock::Clock;
use crate::hlc::Hlc;
use crate::key::Key;
use crate::membership::ClusterId;
use crate::mutation::{Broken, Mutation};
use crate::state::{Epoch, Seen};
use crate::wire;
use crate::write_id::WriteId;

/// The version of the form below.
const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
const HEADER_BYTES: usize = 1 + MAC_BYTES;

/// The longest sealed context that is looked at.
pub const SEALED_BYTES_MAX: usize = 16 * 1024;

/// How long a sealed context may become by the write ids in it: 4 kB in a header, in base64. With more ids it keeps the newest
/// that fit; one that is left out can only cost a superfluous sibling, if a retry of that write is still on its way.
const SEALED_BYTES_WISHED: usize = 3_000;

/// What one write id adds to a context at the least.
const ID_BYTES: usize = 16;

/// The secret under which a cluster's nodes authenticate contexts.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// The key that belongs to a cluster's shared secret.
    pub fn derive(secret: &[u8]) -> Self {
        Self(blake3::derive_key("cartwheel 2026 context authentication", secret))
    }
}

impl Context {
    /// The dots that a state must know in epoch `now` to be no older than what was shown.
    pub fn needs_in(&self, now: Epoch) -> Clock {
        if self.epoch.is_everywhere(now) { Clock::new() } else { self.needs.clone() }
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// What a client was shown, and in which epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// The dots, timestamp and write ids.
    pub seen: Seen,
    /// The epoch in which it was shown.
    pub epoch: Epoch,
    /// The dots that a state must know to be no older than what was shown, as long as that is not on every home
    /// ([`Epoch::is_everywhere`]): those of the siblings shown, or of the write that the context is the answer to. Whoever knows them
    /// knows all that they replaced, which may be forgotten before they are.
    pub needs: Clock,
}

/// Why a context was refused. Nothing was read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextError {
    /// It is longer than any context this cluster gives out.
    TooLong(usize),
    /// Its form has a version that this node does not know.
    Version(u8),
    /// It was damaged, made up, or given out by another cluster or for another key.
    NotOurs,
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(len) => write!(f, "the context has {len} bytes, more than any that was given out"),
            Self::Version(version) => write!(
                f,
                "the context has format version {version}, which this node does not know: finish the upgrade, or get the key again"
            ),
            Self::NotOurs => f.write_str(
                "the context was damaged or was not given out for this key: get the key and use the context of that reply",
            ),
        }
    }
}

impl std::error::Error for ContextError {}

/// Gives out and takes back contexts of one cluster.
///
/// A checksum would not do: a forged context, or one that belongs to another key, would wipe siblings that its sender never saw.
#[derive(Clone, Debug)]
pub struct Sealer {
    cluster: ClusterId,
    key: ClusterKey,
    broken: Broken,
}

impl Sealer {
    /// The sealer of `cluster`.
    pub const fn new(cluster: ClusterId, key: ClusterKey, broken: Broken) -> Self {
        Self { cluster, key, broken }
    }

    /// The sealed form of `context`, good for `key` alone.
    pub fn seal(&self, context: &Context, key: &Key) -> Bytes {
        let mut payload = wire::encode_context(context);
        let surplus = (HEADER_BYTES + payload.len()).saturating_sub(SEALED_BYTES_WISHED);
        if surplus > 0 {
            let mut trimmed = context.clone();
            drop_oldest(&mut trimmed.seen, surplus.div_ceil(ID_BYTES));
            payload = wire::encode_context(&trimmed);
        }
        let mut sealed = Vec::with_capacity(HEADER_BYTES + payload.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(self.mac(&payload, key).as_bytes());
        sealed.extend_from_slice(&payload);
        sealed.into()
    }

    /// The context that was sealed for `key`.
    ///
    /// # Errors
    /// If this cluster did not give `sealed` out for `key`.
    pub fn open(&self, sealed: &[u8], key: &Key) -> Result<Context, ContextError> {
        if sealed.len() > SEALED_BYTES_MAX {
            return Err(ContextError::TooLong(sealed.len()));
        }
        let (&version, rest) = sealed.split_first().ok_or(ContextError::NotOurs)?;
        if version != VERSION {
            return Err(ContextError::Version(version));
        }
        let (mac, payload) = rest.split_first_chunk::<MAC_BYTES>().ok_or(ContextError::NotOurs)?;
        // `Hash` compares in constant time, so a forger learns nothing from how long a refusal takes.
        if self.mac(payload, key) != blake3::Hash::from_bytes(*mac) {
            return Err(ContextError::NotOurs);
        }
        wire::decode_context(payload).map_err(|_| ContextError::NotOurs)
    }

    fn mac(&self, payload: &[u8], key: &Key) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key.0);
        hasher.update(&self.cluster.0.to_be_bytes());
        if !self.broken.is(Mutation::BorrowedContext) {
            hasher.update(&[VERSION, key.bucket().len() as u8]);
            hasher.update(key.bucket());
            hasher.update(&(key.name().len() as u32).to_be_bytes());
            hasher.update(key.name());
        }
        hasher.update(payload);
        hasher.finalize()
    }
}

fn drop_oldest(seen: &mut Seen, count: usize) {
    let mut by_age: Vec<(Hlc, WriteId)> = seen.ids.iter().map(|(&id, &hlc)| (hlc, id)).collect();
    by_age.sort_unstable();
    for (_, id) in by_age.into_iter().take(count) {
        seen.ids.remove(&id);
    }
}
