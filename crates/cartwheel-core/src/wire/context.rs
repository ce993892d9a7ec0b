//! Sealed contexts: a client can return one but not forge one.

use std::cmp::Ordering;
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

/// The version of the sealed form.
const VERSION: u8 = 1;

const MAC_BYTES: usize = 32;

const HEADER_BYTES: usize = 1 + MAC_BYTES;

/// The longest sealed context that is accepted.
pub const SEALED_BYTES_MAX: usize = 16 * 1024;

/// The longest sealed context that is issued: 4 kB in a header, in base64.
pub const SEALED_BYTES_GIVEN_MAX: usize = 3_000;

/// The most single dots beyond gaps in a context, besides those of the siblings with which it is issued.
///
/// If two writers each continue from their own put's reply, each has every second dot of an actor. A write of such a writer before its last one
/// has been replaced on every replica that has the later one. A replica without the later one only keeps a superfluous sibling until it has it.
/// So fewer dots never lose a write.
pub const SINGLES_MAX: usize = 128;

/// The least that one write id adds to a context.
const ID_BYTES: usize = 16;

/// The secret under which a cluster's nodes authenticate contexts.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// Derives the key from a cluster's shared secret.
    pub fn derive(secret: &[u8]) -> Self {
        Self(blake3::derive_key("cartwheel 2026 context authentication", secret))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// Seals and opens the contexts of one cluster.
///
/// A checksum would not be enough: a forged context, or one of another key, would remove siblings that its sender never saw.
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

    /// Limits the single dots beyond gaps in contexts to `singles_max`.
    #[must_use]
    pub const fn naming(mut self, singles_max: usize) -> Self {
        self.singles_max = singles_max;
        self
    }

    /// Seals `context` for `key` alone.
    pub fn seal(&self, context: &Context, key: &Key) -> Bytes {
        self.seal_shown(context, || context.needs.clone(), key)
    }

    /// Seals a context issued with the siblings of the dots `shown`. If it would be too long, it keeps these dots.
    pub fn seal_shown(&self, context: &Context, shown: impl FnOnce() -> Clock, key: &Key) -> Bytes {
        let payload = self.fitted(context, key.generation().since, shown);
        let mut sealed = Vec::with_capacity(HEADER_BYTES + payload.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(self.mac(&payload, key).as_bytes());
        sealed.extend_from_slice(&payload);
        sealed.into()
    }

    /// The encoded context, without what makes it too long. Whatever is left out can only cost superfluous siblings. Write ids are left out
    /// first, which matters if a retry is still under way; then single dots; then actors without a sibling shown, which matters where a replica
    /// lacks data. If siblings have so many actors that they do not fit, some of those are left out, and the next read shows them again.
    fn fitted(&self, context: &Context, since: Hlc, shown: impl FnOnce() -> Clock) -> Vec<u8> {
        let payload_max = SEALED_BYTES_GIVEN_MAX - HEADER_BYTES;
        let seen = &context.seen;
        if seen.ids.len() <= NOTES_MAX && seen.clock.singles_len() <= self.singles_max {
            let payload = encode_context(context, since);
            if payload.len() <= payload_max {
                return payload;
            }
        }
        let (mut context, shown) = (context.clone(), shown());
        // A put keeps no more than this.
        keep_newest(&mut context.seen, NOTES_MAX);
        context.seen.clock.thin(self.singles_max, &shown);
        let mut payload = encode_context(&context, since);
        if let Some(surplus) = payload.len().checked_sub(payload_max + 1) {
            let ids = context.seen.ids.len();
            keep_newest(&mut context.seen, ids.saturating_sub((surplus + 1).div_ceil(ID_BYTES)));
            payload = encode_context(&context, since);
        }
        if payload.len() > payload_max {
            context.seen.clock.retain_actors(|actor| shown.highest(actor) > 0);
            payload = encode_context(&context, since);
        }
        while payload.len() > payload_max {
            let Context { seen, needs, .. } = &mut context;
            let actors: BTreeSet<_> = seen.clock.actors().skip(1 + seen.clock.actors_len() / 8).collect();
            if actors.is_empty() {
                // One actor alone is too large only by its single dots.
                seen.clock.thin(seen.clock.singles_len() / 2, &Clock::new());
            } else {
                seen.clock.retain_actors(|actor| actors.contains(&actor));
            }
            *needs = needs.dots_in(&seen.clock);
            payload = encode_context(&context, since);
        }
        payload
    }

    /// Opens a context sealed for `key`. One that was issued before the bucket was emptied has seen nothing of what the bucket holds now.
    ///
    /// # Errors
    /// If this cluster did not issue `sealed` for `key`, or issued it after the bucket was emptied, which this node does not know yet.
    pub fn open(&self, sealed: &[u8], key: &Key) -> Result<Context, ContextError> {
        if sealed.len() > SEALED_BYTES_MAX {
            return Err(ContextError::TooLong(sealed.len()));
        }
        let (&version, rest) = sealed.split_first().ok_or(ContextError::NotOurs)?;
        if version != VERSION {
            return Err(ContextError::Version(version));
        }
        let (mac, payload) = rest.split_first_chunk::<MAC_BYTES>().ok_or(ContextError::NotOurs)?;
        // `Hash` compares in constant time, so the time of a refusal tells a forger nothing.
        if self.mac(payload, key) != blake3::Hash::from_bytes(*mac) {
            return Err(ContextError::NotOurs);
        }
        let (context, since) = decode_context(payload).map_err(|_| ContextError::NotOurs)?;
        match since.cmp(&key.generation().since) {
            Ordering::Equal => Ok(context),
            Ordering::Less => Ok(Context { epoch: context.epoch, ..Context::default() }),
            Ordering::Greater => Err(ContextError::Newer),
        }
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

/// Keeps the ids of the newest writes.
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
    use crate::value::key::{Generation, Placement};

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
    fn a_sealed_context_has_a_bounded_length_and_no_additional_dots() {
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
            let opened = sealer().open(&sealed, &key()).expect("an issued context is accepted");
            assert!(whole.seen.clock.covers(&opened.seen.clock) && opened.seen.clock.covers(&opened.needs));
            assert!(!opened.seen.clock.is_empty());
            if shown.actors_len() < 50 && shown.singles_len() < 50 {
                assert!(opened.seen.clock.covers(&shown), "the siblings that were shown are still named");
                assert_eq!(opened.needs, shown);
            }
        }
    }

    #[test]
    fn a_context_of_an_emptied_bucket_has_seen_nothing_of_it() {
        let [old, new] = [1, 2]
            .map(|since| key().in_generation(Generation { since: Hlc::from_bits(since), placement: Placement::Name }));
        let shown: Clock = [dot(1, 1)].into_iter().collect();
        let sealed = sealer().seal(&context([dot(1, 1)], &shown), &old);
        assert_eq!(sealer().open(&sealed, &new), Ok(Context { epoch: Epoch(9), ..Context::default() }));
        assert_eq!(sealer().open(&sealed, &key()), Err(ContextError::Newer));
        assert_eq!(sealer().open(&sealed, &old).map(|opened| opened.needs), Ok(shown));
    }
}
