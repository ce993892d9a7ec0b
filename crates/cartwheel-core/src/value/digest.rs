//! Digests of states, by which replicas are compared without sending their values.

use std::fmt;

use crate::value::dot::Actor;
use crate::value::state::{Content, Epoch, Sibling, State};

/// Separates these hashes from all others. A changed form of the digest needs another number.
const DOMAIN: &[u8; 32] = b"cartwheel: digest of a state, v2";
const CONTENT_DOMAIN: &[u8; 32] = b"cartwheel: digest of content, v1";
const SIBLING_DOMAIN: &[u8; 32] = b"cartwheel: digest of sibling, v1";

/// A longer value is represented by its write id in a [`StateDigest`]. Hashing 16 MiB takes milliseconds for each replica of each read, and
/// requests for small values would wait meanwhile.
const HASHED_BYTES_MAX: usize = 4 << 10;

/// A digest of a [`State`], equal for equal states on every node.
///
/// For a large value it contains the length and the [write id](crate::value::write_id::WriteId), which is already a hash of the value. A disk or
/// peer that gives a write other bytes is detected by the checksum of records and by [`ContentDigest`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateDigest(pub [u8; 16]);

impl StateDigest {
    /// The digest of `state`.
    ///
    /// Each part is hashed with its length or count, in the state's own order. So no two states feed the same bytes, and nothing has to be
    /// encoded first.
    pub fn of(state: &State) -> Self {
        let mut parts = Parts(blake3::Hasher::new_keyed(DOMAIN));
        parts.number(state.clock().actors_len() as u64);
        for run in state.clock().runs() {
            parts.actor(run.actor);
            parts.number(run.upto);
            parts.number(run.beyond.len() as u64);
            run.beyond.into_iter().for_each(|counter| parts.number(counter));
        }
        parts.number(state.siblings().len() as u64);
        state.siblings().for_each(|sibling| parts.sibling(sibling, Some(sibling.epoch), HASHED_BYTES_MAX));
        parts.bytes(state.notes().as_bytes());
        Self(parts.finish())
    }
}

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A digest of a key's contents, by which replicas are proven equal and from which Merkle leaves are summed.
///
/// It covers the key and its siblings, and nothing that may differ between replicas with the same content. Clock, notes and epochs are collected by
/// each replica in its own time; the local header belongs to one replica; and expiry depends on the reader's clock. A key without siblings has
/// the digest of a key that was never written: [`Self::NONE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ContentDigest(pub [u8; 16]);

impl ContentDigest {
    /// The digest of a state without siblings; it adds nothing to a sum.
    pub const NONE: Self = Self([0; 16]);

    /// The digest of the siblings in `state`, the state of the key stored under `storage_key`.
    pub fn of(storage_key: &[u8], state: &State) -> Self {
        if state.siblings().len() == 0 {
            return Self::NONE;
        }
        let mut parts = Parts(blake3::Hasher::new_keyed(CONTENT_DOMAIN));
        parts.bytes(storage_key);
        parts.number(state.siblings().len() as u64);
        state.siblings().for_each(|sibling| parts.sibling(sibling, None, usize::MAX));
        Self(parts.finish())
    }

    /// The digest as a number, for sums.
    pub const fn to_u128(self) -> u128 {
        u128::from_le_bytes(self.0)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A hash that orders two contents of one dot the same way on every node.
pub(super) fn fingerprint(sibling: &Sibling) -> [u8; 16] {
    let mut parts = Parts(blake3::Hasher::new_keyed(SIBLING_DOMAIN));
    parts.sibling(sibling, Some(sibling.epoch), usize::MAX);
    parts.finish()
}

struct Parts(blake3::Hasher);

impl Parts {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn actor(&mut self, actor: Actor) {
        for number in [actor.node.get(), actor.incarnation.0, actor.since.0] {
            self.number(number);
        }
    }

    fn sibling(&mut self, sibling: &Sibling, epoch: Option<Epoch>, hashed_bytes_max: usize) {
        // Destructured completely, so that a new field cannot be missed here.
        let Sibling { dot, content, hlc, epoch: _, write_id, expires } = sibling;
        self.actor(dot.actor);
        for number in [dot.counter, hlc.to_bits()].into_iter().chain(epoch.map(|epoch| epoch.0)) {
            self.number(number);
        }
        self.0.update(&write_id.to_bytes());
        // As in the stored form, where 1 ms stands for the first millisecond and 0 for "never".
        self.number(expires.map_or(0, |wall| wall.0.max(1)));
        match content {
            Content::Tombstone => self.number(0),
            Content::Value { bytes, content_type, content_encoding } => {
                // Values stored before content encodings existed keep their digest.
                if content_encoding.is_empty() {
                    self.number(1);
                } else {
                    self.number(2);
                    self.bytes(content_encoding.as_bytes());
                }
                self.bytes(content_type.as_bytes());
                if bytes.len() <= hashed_bytes_max {
                    self.bytes(bytes);
                } else {
                    self.number(bytes.len() as u64);
                }
            }
        }
    }

    fn finish(self) -> [u8; 16] {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        digest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::value::clock::{Clock, Run};
    use crate::value::dot::{Dot, Incarnation, NodeId, Since};
    use crate::value::hlc::{Hlc, WallMs};
    use crate::value::state::{Note, Notes};
    use crate::value::write_id::WriteId;

    fn actor(node: u64, incarnation: u64, since: u64) -> Actor {
        Actor { node: NodeId::new(node), incarnation: Incarnation(incarnation), since: Since(since) }
    }

    fn value(bytes: &'static str, content_type: &str) -> Content {
        Content::typed(bytes, content_type)
    }

    fn sibling() -> Sibling {
        Sibling {
            dot: Dot { actor: actor(1, 2, 3), counter: 4 },
            content: value("milk", "text/plain"),
            hlc: Hlc::from_bits(5),
            epoch: Epoch(6),
            write_id: WriteId::from_bytes([7; 16]),
            expires: Some(WallMs(8)),
        }
    }

    /// A clock that covers the dots of all siblings here, so that only the change under test makes a difference.
    fn clock(runs: &[(u64, u64, u64, u64, &[u64])]) -> Clock {
        let mut clock = Clock::new();
        for &(node, incarnation, since, upto, beyond) in [(1, 2, 3, 9, &[][..]), (1, 2, 4, 9, &[])].iter().chain(runs) {
            clock.insert_run(&Run { actor: actor(node, incarnation, since), upto, beyond: beyond.to_vec() });
        }
        clock
    }

    fn note(id: u8, hlc: u64, shown: bool) -> (WriteId, Note) {
        (WriteId::from_bytes([id; 16]), Note { hlc: Hlc::from_bits(hlc), shown })
    }

    fn with_sibling(change: impl FnOnce(&mut Sibling)) -> State {
        let mut changed = sibling();
        change(&mut changed);
        State::from_parts(clock(&[]), [changed], Notes::new())
    }

    fn with_clock(runs: &[(u64, u64, u64, u64, &[u64])]) -> State {
        State::from_parts(clock(runs), [sibling()], Notes::new())
    }

    fn with_notes(notes: &[(WriteId, Note)]) -> State {
        State::from_parts(clock(&[]), [sibling()], notes.iter().copied().collect())
    }

    #[test]
    fn every_part_of_a_state_changes_its_digest() {
        let states = [
            State::default(),
            with_sibling(|_| {}),
            State::from_parts(clock(&[]), [], Notes::new()),
            with_sibling(|held| held.dot.counter = 3),
            with_sibling(|held| held.dot.actor.since = Since(4)),
            with_sibling(|held| held.content = Content::Tombstone),
            with_sibling(|held| held.content = value("", "")),
            with_sibling(|held| held.content = value("cream", "text/plain")),
            with_sibling(|held| held.content = value("milk", "text/html")),
            with_sibling(|held| held.content = value("nmilk", "text/plai")),
            with_sibling(|held| held.hlc = Hlc::from_bits(1)),
            with_sibling(|held| held.epoch = Epoch(1)),
            with_sibling(|held| held.write_id = WriteId::from_bytes([1; 16])),
            with_sibling(|held| held.expires = None),
            with_sibling(|held| held.expires = Some(WallMs(9))),
            with_clock(&[(5, 1, 1, 1, &[])]),
            with_clock(&[(6, 1, 1, 1, &[])]),
            with_clock(&[(5, 2, 1, 1, &[])]),
            with_clock(&[(5, 1, 2, 1, &[])]),
            with_clock(&[(5, 1, 1, 2, &[])]),
            with_clock(&[(5, 1, 1, 1, &[3])]),
            with_clock(&[(5, 1, 1, 1, &[4])]),
            with_clock(&[(5, 1, 1, 1, &[3, 5])]),
            with_notes(&[note(1, 1, true)]),
            with_notes(&[note(2, 1, true)]),
            with_notes(&[note(1, 2, true)]),
            with_notes(&[note(1, 1, false)]),
            with_notes(&[note(1, 1, true), note(2, 1, true)]),
        ];
        let digests: BTreeSet<_> = states.iter().map(StateDigest::of).collect();
        assert_eq!(digests.len(), states.len());
    }

    #[test]
    fn a_large_value_is_represented_by_its_write_id() {
        let large = |byte: u8, length: usize, id: u8| {
            with_sibling(|held| {
                held.content = Content::untyped(vec![byte; length]);
                held.write_id = WriteId::from_bytes([id; 16]);
            })
        };
        let of = |byte, length, id| StateDigest::of(&large(byte, length, id));
        let length = HASHED_BYTES_MAX + 1;
        assert_ne!(of(1, length, 1), of(2, length, 2));
        assert_ne!(of(1, length, 1), of(1, length + 1, 1));
        assert_ne!(of(1, HASHED_BYTES_MAX, 1), of(2, HASHED_BYTES_MAX, 1));
        // Different bytes under one write id, which only a faulty node makes, are found by comparing contents.
        assert_eq!(of(1, length, 1), of(2, length, 1));
        assert_ne!(ContentDigest::of(b"key", &large(1, length, 1)), ContentDigest::of(b"key", &large(2, length, 1)));
    }

    #[test]
    fn two_siblings_differ_from_one_and_their_order_of_arrival_does_not_matter() {
        let other = || Sibling { dot: Dot { actor: actor(1, 2, 4), counter: 1 }, ..sibling() };
        let of = |siblings: Vec<Sibling>| StateDigest::of(&State::from_parts(clock(&[]), siblings, Notes::new()));
        assert_eq!(of(vec![sibling(), other()]), of(vec![other(), sibling()]));
        assert_ne!(of(vec![sibling(), other()]), of(vec![sibling()]));
        assert_ne!(of(vec![other()]), of(vec![sibling()]));
    }

    #[test]
    fn every_part_of_content_changes_its_digest() {
        let states = [
            with_sibling(|_| {}),
            with_sibling(|held| held.dot.counter = 3),
            with_sibling(|held| held.dot.actor.since = Since(4)),
            with_sibling(|held| held.dot.actor.incarnation = Incarnation(4)),
            with_sibling(|held| held.dot.actor.node = NodeId::new(4)),
            with_sibling(|held| held.content = Content::Tombstone),
            with_sibling(|held| held.content = value("", "")),
            with_sibling(|held| held.content = value("cream", "text/plain")),
            with_sibling(|held| held.content = value("milk", "text/html")),
            with_sibling(|held| held.content = value("nmilk", "text/plai")),
            with_sibling(|held| held.hlc = Hlc::from_bits(1)),
            with_sibling(|held| held.write_id = WriteId::from_bytes([1; 16])),
            with_sibling(|held| held.expires = None),
            with_sibling(|held| held.expires = Some(WallMs(9))),
            State::from_parts(clock(&[]), [sibling(), with_since(4)], Notes::new()),
        ];
        let digests: BTreeSet<_> = states.iter().map(|state| ContentDigest::of(b"key", state)).collect();
        assert_eq!(digests.len(), states.len());
        assert!(!digests.contains(&ContentDigest::NONE));
        assert_ne!(ContentDigest::of(b"key", &states[0]), ContentDigest::of(b"kez", &states[0]));
    }

    #[test]
    fn clock_notes_and_epochs_do_not_change_the_content_digest() {
        let of = |state: &State| ContentDigest::of(b"key", state);
        let plain = of(&with_sibling(|_| {}));
        assert_eq!(of(&with_sibling(|held| held.epoch = Epoch(1))), plain);
        assert_eq!(of(&with_clock(&[(5, 1, 1, 1, &[3])])), plain);
        assert_eq!(of(&with_notes(&[note(1, 1, true)])), plain);
        let swapped = State::from_parts(clock(&[]), [with_since(4), sibling()], Notes::new());
        assert_eq!(of(&State::from_parts(clock(&[]), [sibling(), with_since(4)], Notes::new())), of(&swapped));
    }

    #[test]
    fn a_state_without_siblings_has_the_empty_content_digest() {
        for state in [State::default(), State::from_parts(clock(&[]), [], [note(1, 1, true)].into_iter().collect())] {
            assert_eq!(ContentDigest::of(b"key", &state), ContentDigest::NONE);
        }
        assert_eq!(ContentDigest::NONE.to_u128(), 0);
        assert_eq!(ContentDigest([1; 16]).to_u128(), u128::from_le_bytes([1; 16]));
    }

    fn with_since(since: u64) -> Sibling {
        Sibling { dot: Dot { actor: actor(1, 2, since), counter: 1 }, ..sibling() }
    }
}
