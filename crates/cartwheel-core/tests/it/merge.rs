//! The laws of merge, and the stored form of records.

use bytes::Bytes;
use cartwheel_core::cluster::losses::Loss;
use cartwheel_core::store::gc_due::GcDue;
use cartwheel_core::store::record::{Idle, LocalHeader, OwnActor, Record, RecordError};
use cartwheel_core::value::clock::{Clock, Run};
use cartwheel_core::value::digest::ContentDigest;
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::state::{Content, Epoch, Note, Notes, Sibling, State};
use cartwheel_core::value::write_id::WriteId;
use proptest::prelude::*;

fn actor(node: u64) -> Actor {
    Actor { node: NodeId::new(node), incarnation: Incarnation(7), since: Since(9) }
}

/// On sound disks a write is a function of its dot. Two dots in five share a write id.
fn sibling(node: u64, counter: u64) -> Sibling {
    let mut id = [0; 16];
    id[0] = if node + counter > 4 { 1 } else { (node * 16 + counter) as u8 };
    let content = if counter.is_multiple_of(3) {
        Content::Tombstone
    } else {
        Content::typed(format!("{node}:{counter}"), "text/plain")
    };
    Sibling {
        dot: Dot { actor: actor(node), counter },
        content,
        hlc: Hlc::at(WallMs(counter * 100 + node)),
        epoch: Epoch(1),
        write_id: WriteId::from_bytes(id),
        expires: counter.is_multiple_of(2).then_some(WallMs(counter)),
    }
}

fn clocks() -> impl Strategy<Value = Clock> {
    prop::collection::vec((0u64..3, 0u64..4, prop::collection::vec(1u64..7, 0..3)), 0..4).prop_map(|runs| {
        let mut clock = Clock::new();
        for (node, upto, beyond) in runs {
            clock.insert_run(&Run { actor: actor(node), upto, beyond });
        }
        clock
    })
}

fn states() -> impl Strategy<Value = State> {
    let siblings = prop::collection::vec((0u64..3, 1u64..7), 0..5);
    let notes =
        prop::collection::btree_map(prop::sample::select(vec![1u8, 0x11, 0x12, 0x21]), (0u64..5, any::<bool>()), 0..3);
    (clocks(), siblings, notes).prop_map(|(clock, siblings, notes)| {
        let note = |(id, (hlc, shown)): (u8, (u64, bool))| {
            let mut bytes = [0; 16];
            bytes[0] = id;
            (WriteId::from_bytes(bytes), Note { hlc: Hlc::from_bits(hlc), shown })
        };
        let siblings = siblings.into_iter().map(|(node, counter)| sibling(node, counter));
        State::from_parts(clock, siblings, notes.into_iter().map(note).collect())
    })
}

/// States of a cluster in which dots were made twice: each sibling has one of two contents. They have no notes, because
/// a note on one of two such writes would also apply to the other.
fn collided_states() -> impl Strategy<Value = State> {
    let siblings = prop::collection::vec((0u64..2, 1u64..4, any::<bool>()), 0..5);
    (clocks(), siblings).prop_map(|(clock, siblings)| {
        let collided = |(node, counter, is_other)| match is_other {
            false => sibling(node, counter),
            true => other_content(&sibling(node, counter)),
        };
        State::from_parts(clock, siblings.into_iter().map(collided), Notes::new())
    })
}

/// Another write with the same dot.
fn other_content(sibling: &Sibling) -> Sibling {
    let mut id = sibling.write_id.to_bytes();
    id[1] = 1;
    Sibling { content: Content::untyped("another"), write_id: WriteId::from_bytes(id), ..sibling.clone() }
}

fn merged(a: &State, b: &State) -> State {
    let mut joined = a.clone();
    joined.merge(b);
    joined
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn merge_is_commutative_associative_and_idempotent(a in states(), b in states(), c in states()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
    }

    #[test]
    fn merge_keeps_its_laws_if_dots_were_made_twice(a in collided_states(), b in collided_states(), c in collided_states()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        let mut joined = a.clone();
        prop_assert_eq!(joined.merge(&b).changed, joined != a);
        prop_assert_eq!(joined.merge(&b), cartwheel_core::value::state::Merged::default());
        let bytes = Record { header: LocalHeader::default(), state: joined.clone() }.encode(b"key");
        prop_assert_eq!(Record::decode(&bytes, b"key").unwrap().state, joined);
    }

    #[test]
    fn merge_reports_whether_it_changed_anything(a in states(), b in states()) {
        let mut joined = a.clone();
        let merged = joined.merge(&b);
        prop_assert_eq!(merged.changed, joined != a);
        prop_assert_eq!(merged.collisions, 0);
        prop_assert!(joined.clock().covers(a.clock()) && joined.clock().covers(b.clock()));
        prop_assert!(!joined.merge(&b).changed);
    }

    #[test]
    fn a_state_keeps_its_invariants(a in states(), b in states()) {
        let joined = merged(&a, &b);
        for held in joined.siblings() {
            prop_assert!(joined.clock().contains(held.dot));
            prop_assert!(joined.notes().get(held.write_id).is_none_or(|note| !note.shown));
        }
    }

    #[test]
    fn records_decode_to_what_was_stored(state in states(), count in 0u64..3, lost: bool, owed in 0u64..3) {
        let own = (count > 0).then_some(OwnActor { since: Since(5), count });
        let recovering = lost.then_some(Loss(7));
        let owed = (0..owed).map(|node| (NodeId::new(node), Epoch(node + 1))).collect();
        let gc_due = [None, Some(GcDue::In(Epoch(8))), Some(GcDue::At(WallMs(9)))][count as usize];
        let expired_since = lost.then_some(Epoch(6));
        let idle = lost.then(|| Idle { since: Epoch(4), noted: state.clock().clone(), gone: state.idle() });
        let content = Some(ContentDigest([7; 16]));
        let (changed, recovered_since) = (Epoch(3), Since(9));
        let header = LocalHeader { own, recovering, changed, recovered_since, owed, gc_due, expired_since, idle, is_listed: lost, content };
        let record = Record { header, state };
        let bytes = record.encode(b"key");
        prop_assert_eq!(Record::decode(&bytes, b"key"), Ok(record));
        prop_assert_eq!(Record::decode(&bytes, b"another"), Err(RecordError::Damaged));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_detected(state in states(), bit in any::<prop::sample::Index>()) {
        let record = Record { header: LocalHeader::default(), state };
        let mut bytes = record.encode(b"key").to_vec();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Record::decode(&Bytes::from(bytes), b"key"), Err(RecordError::Damaged));
    }

    #[test]
    fn no_bytes_make_a_record_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::decode(&Bytes::from(bytes), b"key");
    }
}

/// Either of the two may have been acknowledged to a client, so both are kept.
#[test]
fn two_contents_of_one_dot_are_reported_and_kept_everywhere() {
    let ours = sibling(1, 1);
    for theirs in [other_content(&ours), Sibling { content: Content::untyped("same name"), ..ours.clone() }] {
        let [a, b] = [&ours, &theirs].map(|held| State::from_parts(Clock::new(), [held.clone()], Notes::new()));
        let mut joined = a.clone();
        assert_eq!(joined.merge(&b).collisions, 1);
        assert_eq!(joined, merged(&b, &a));
        assert_eq!(joined.siblings().len(), 2);
        assert_eq!(joined.distinct_siblings().len(), 2, "readers see both");
        assert_eq!(joined.merge(&b).collisions, 0, "it is reported once");
    }
}

#[test]
fn a_put_replaces_only_the_content_of_a_collided_dot_that_it_was_shown() {
    let ours = sibling(1, 1);
    let theirs = other_content(&ours);
    let [a, b] = [&ours, &theirs].map(|held| State::from_parts(Clock::new(), [held.clone()], Notes::new()));
    let mut seen_one = merged(&a, &b);
    seen_one.put(sibling(2, 1), &a.seen());
    assert_eq!(seen_one.siblings().cloned().collect::<Vec<_>>(), [theirs, sibling(2, 1)]);
    assert_eq!(merged(&seen_one, &merged(&a, &b)), seen_one, "another replica does not bring back what was replaced");
    let mut seen_both = merged(&a, &b);
    let seen = seen_both.seen();
    seen_both.put(sibling(2, 1), &seen);
    assert_eq!(seen_both.siblings().cloned().collect::<Vec<_>>(), [sibling(2, 1)]);
}
