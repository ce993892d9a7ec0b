//! Contexts as clients carry them: sealed, so that a client can carry one but not make one.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use super::{decode_context, encode_context};
use crate::mutation::{Broken, Mutation};
use crate::value::clock::Clock;
use crate::value::cluster_id::ClusterId;
use crate::value::context::{Context, ContextError};
use crate::value::hlc::Hlc;
use crate::value::key::Key;
use crate::value::state::{NOTES_MAX, Seen};
use crate::value::write_id::WriteId;

/// The version of the form below.
const VERSION: u8 = 1;

const MAC_BYTES: usize = 32;

const HEADER_BYTES: usize = 1 + MAC_BYTES;

/// The longest sealed context that is looked at.
pub const SEALED_BYTES_MAX: usize = 16 * 1024;

/// The longest sealed context that is given out: 4 kB in a header, in base64.
pub const SEALED_BYTES_GIVEN_MAX: usize = 3_000;

/// How many single dots beyond gaps a context names, besides those of the siblings that it was given out with.
///
/// Two writers who each go on from their own put's reply have every second dot of an actor. What such a writer wrote before its last write
/// has been replaced by that, on every replica that has met the later one: that it is named here only saves a replica that has not a
/// sibling that goes once it does. To name fewer dots never loses a write.
pub const SINGLES_MAX: usize = 128;

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

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// Gives out and takes back contexts of one cluster.
///
/// A checksum would not do: a forged context, or one that belongs to another key, would wipe siblings that its sender never saw.
#[derive(Clone, Debug)]
pub struct Sealer {
    cluster: ClusterId,
    key: ClusterKey,
    singles_max: usize,
    broken: Broken,
}

impl Sealer {
    /// The sealer of `cluster`.
    pub const fn new(cluster: ClusterId, key: ClusterKey, broken: Broken) -> Self {
        Self { cluster, key, singles_max: SINGLES_MAX, broken }
    }

    /// Makes contexts name at most `singles_max` single dots beyond gaps.
    #[must_use]
    pub const fn naming(mut self, singles_max: usize) -> Self {
        self.singles_max = singles_max;
        self
    }

    /// The sealed form of `context`, good for `key` alone.
    pub fn seal(&self, context: &Context, key: &Key) -> Bytes {
        self.seal_shown(context, || context.needs.clone(), key)
    }

    /// The sealed form of a context that was given out with the siblings of these dots: if it would be too long, it goes on naming them.
    pub fn seal_shown(&self, context: &Context, shown: impl FnOnce() -> Clock, key: &Key) -> Bytes {
        let payload = self.fitted(context, shown);
        let mut sealed = Vec::with_capacity(HEADER_BYTES + payload.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(self.mac(&payload, key).as_bytes());
        sealed.extend_from_slice(&payload);
        sealed.into()
    }

    /// The encoded context, without what makes it too long. Whatever is left out can only cost superfluous siblings: names of writes, if a
    /// retry is still on its way; single dots, and then actors of which no sibling was shown, where a replica is behind; and, of siblings
    /// by so many actors that they do not fit, some, which the next read shows again.
    fn fitted(&self, context: &Context, shown: impl FnOnce() -> Clock) -> Vec<u8> {
        let payload_max = SEALED_BYTES_GIVEN_MAX - HEADER_BYTES;
        let seen = &context.seen;
        if seen.ids.len() <= NOTES_MAX && seen.clock.singles_len() <= self.singles_max {
            let payload = encode_context(context);
            if payload.len() <= payload_max {
                return payload;
            }
        }
        let (mut context, shown) = (context.clone(), shown());
        // A put keeps no more of them.
        keep_newest(&mut context.seen, NOTES_MAX);
        context.seen.clock.thin(self.singles_max, &shown);
        let mut payload = encode_context(&context);
        if let Some(surplus) = payload.len().checked_sub(payload_max + 1) {
            let ids = context.seen.ids.len();
            keep_newest(&mut context.seen, ids.saturating_sub((surplus + 1).div_ceil(ID_BYTES)));
            payload = encode_context(&context);
        }
        if payload.len() > payload_max {
            context.seen.clock.retain_actors(|actor| shown.highest(actor) > 0);
            payload = encode_context(&context);
        }
        while payload.len() > payload_max {
            let Context { seen, needs, .. } = &mut context;
            let actors: BTreeSet<_> = seen.clock.actors().skip(1 + seen.clock.actors_len() / 8).collect();
            if actors.is_empty() {
                // One actor alone is too much only by its single dots.
                seen.clock.thin(seen.clock.singles_len() / 2, &Clock::new());
            } else {
                seen.clock.retain_actors(|actor| actors.contains(&actor));
            }
            *needs = needs.dots_in(&seen.clock);
            payload = encode_context(&context);
        }
        payload
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
        decode_context(payload).map_err(|_| ContextError::NotOurs)
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

/// Keeps the names of the newest writes.
fn keep_newest(seen: &mut Seen, count: usize) {
    let mut by_age: Vec<(Hlc, WriteId)> = seen.ids.iter().map(|(&id, &hlc)| (hlc, id)).collect();
    by_age.sort_unstable();
    let surplus = by_age.len().saturating_sub(count);
    for (_, id) in by_age.into_iter().take(surplus) {
        seen.ids.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
    use crate::value::epoch::Epoch;

    fn sealer() -> Sealer {
        Sealer::new(ClusterId(1), ClusterKey::derive(b"secret"), Broken::default())
    }

    fn key() -> Key {
        Key::new(Bytes::from_static(b"carts"), Bytes::from_static(b"alice")).expect("a valid key")
    }

    fn dot(node: u64, counter: u64) -> Dot {
        Dot {
            actor: Actor { node: NodeId::new(node), incarnation: Incarnation(u64::MAX), since: Since(u64::MAX) },
            counter,
        }
    }

    fn context(seen: impl IntoIterator<Item = Dot>, shown: &Clock) -> Context {
        let ids = (0..200u8).map(|id| (WriteId::from_bytes([id; 16]), Hlc::from_bits(u64::from(id)))).collect();
        Context {
            seen: Seen { clock: seen.into_iter().collect(), hlc: Hlc::ZERO, ids },
            epoch: Epoch(9),
            needs: shown.clone(),
        }
    }

    #[test]
    fn a_context_is_never_longer_than_promised_and_names_no_dot_that_was_not_in_it() {
        let gaps = |node| (1..3_000).map(move |number| dot(node, 10_000_000_000 * number));
        let many = |actors| (0..actors).map(|node| dot(node, 3));
        let cases: Vec<(Vec<Dot>, Vec<Dot>)> = vec![
            (gaps(1).chain(gaps(2)).collect(), vec![dot(2, 20_000_000_000)]),
            (many(1_000).collect(), vec![dot(7, 3)]),
            (many(1_000).collect(), many(1_000).collect()),
            (gaps(1).collect(), gaps(1).collect()),
            (many(300).chain(gaps(1)).collect(), many(40).collect()),
        ];
        for (seen, shown) in cases {
            let shown: Clock = shown.into_iter().collect();
            let whole = context(seen, &shown);
            let sealed = sealer().seal(&whole, &key());
            assert!(sealed.len() <= SEALED_BYTES_GIVEN_MAX, "{} bytes", sealed.len());
            let opened = sealer().open(&sealed, &key()).expect("what was given out is taken back");
            assert!(whole.seen.clock.covers(&opened.seen.clock) && opened.seen.clock.covers(&opened.needs));
            assert!(!opened.seen.clock.is_empty());
            if shown.actors_len() < 50 && shown.singles_len() < 50 {
                assert!(opened.seen.clock.covers(&shown), "the siblings that were shown are still named");
                assert_eq!(opened.needs, shown);
            }
        }
    }
}
