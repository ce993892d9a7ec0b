//! Decoders: any bytes are decoded or refused, and what is decoded can be encoded again.

use bytes::Bytes;
use cartwheel_core::cluster::losses::Loss;
use cartwheel_core::cluster::membership::History;
use cartwheel_core::message::Envelope;
use cartwheel_core::mutation::Broken;
use cartwheel_core::store::gc_due::GcDue;
use cartwheel_core::store::record::{Idle, LocalHeader, OwnActor, Record};
use cartwheel_core::value::context::Context;
use cartwheel_core::value::digest::ContentDigest;
use cartwheel_core::value::dot::Since;
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Epoch, Seen};
use cartwheel_core::wire;
use cartwheel_core::wire::context::{ClusterKey, Sealer};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::arbitrary::{any_message, cases, clock, number, spoils, spoilt, state};
use super::net::{CLUSTER, envelope, id};
use super::notices::a_history;
use super::reconfiguration::{config_stamp, losses, partition_state};

fn record() -> impl Strategy<Value = Record> {
    let own = option::of((number(), number()))
        .prop_map(|own| own.map(|(since, count)| OwnActor { since: Since(since), count }));
    let loss = option::of(number()).prop_map(|loss| loss.map(|loss| Loss(loss.max(1))));
    let content = option::of(any::<[u8; 16]>().prop_map(ContentDigest));
    (own, loss, number(), number(), content, state()).prop_map(|(own, recovering, changed, since, content, state)| {
        let owed = state.siblings().map(|held| (held.dot.actor.node, held.epoch)).collect();
        let gc_due = [None, Some(GcDue::In(Epoch(changed.max(1)))), Some(GcDue::At(WallMs(since.max(1))))]
            [(changed % 3) as usize];
        let expired_since = own.map(|_| Epoch(since.max(1)));
        let (changed, recovered_since) = (Epoch(changed), Since(since));
        let idle = (since % 2 == 1).then(|| Idle { since: changed, noted: state.clock().clone(), gone: state.idle() });
        Record {
            header: LocalHeader {
                own,
                recovering,
                changed,
                recovered_since,
                owed,
                gc_due,
                expired_since,
                idle,
                is_listed: changed.0 % 2 == 1,
                content,
            },
            state,
        }
    })
}

fn context() -> impl Strategy<Value = Context> {
    (clock(), number(), state(), number()).prop_map(|(clock, hlc, state, epoch)| Context {
        seen: Seen { clock, hlc: Hlc::from_bits(hlc), ids: state.seen().ids },
        epoch: Epoch(epoch),
        needs: state.clock().clone(),
    })
}

fn sealer() -> Sealer {
    Sealer::new(CLUSTER, ClusterKey::derive(b"secret"), Broken::default())
}

fn key() -> Key {
    Key::new(Bytes::from_static(b"carts"), Bytes::from_static(b"alice")).expect("a valid key")
}

proptest! {
    #![proptest_config(cases(3_000))]

    #[test]
    fn envelopes(
        message in any_message(), config_stamp in config_stamp(), losses in losses(), spoils in spoils(), noise in vec(any::<u8>(), 0..200)
    ) {
        let sent = Envelope { config_stamp, losses, ..envelope(CLUSTER, id(3), message) };
        let frame = wire::encode_envelope(&sent);
        prop_assert_eq!(wire::decode_envelope(frame.clone()), Ok(sent));
        for bytes in [spoilt(&frame, &spoils), noise.into()] {
            // What can be decoded can be encoded, and decodes to the same value.
            if let Ok(read) = wire::decode_envelope(bytes) {
                prop_assert_eq!(wire::decode_envelope(wire::encode_envelope(&read)), Ok(read));
            }
        }
    }

    #[test]
    fn records(record in record(), spoils in spoils(), noise in vec(any::<u8>(), 0..200)) {
        let storage_key = key().storage_key();
        let stored = record.encode(&storage_key);
        prop_assert_eq!(Record::decode(&stored, &storage_key), Ok(record));
        prop_assert!(Record::decode(&stored, b"another key").is_err());
        let spoilt = spoilt(&stored, &spoils);
        if spoilt != stored {
            prop_assert!(Record::decode(&spoilt, &storage_key).is_err(), "a damaged record was taken for a sound one");
        }
        prop_assert!(Record::decode(&noise.into(), &storage_key).is_err());
    }

    #[test]
    fn partition_states(partition_state in partition_state(), spoils in spoils(), noise in vec(any::<u8>(), 0..200)) {
        let stored = wire::encode_partition_state(&partition_state);
        prop_assert_eq!(wire::decode_partition_state(&stored), Ok(partition_state));
        for bytes in [spoilt(&stored, &spoils), noise.into()] {
            if let Ok(read) = wire::decode_partition_state(&bytes) {
                prop_assert_eq!(wire::decode_partition_state(&wire::encode_partition_state(&read)), Ok(read));
            }
        }
    }

    #[test]
    fn contexts(context in context(), spoils in spoils(), noise in vec(any::<u8>(), 0..200)) {
        let sealed = sealer().seal(&context, &key());
        prop_assert_eq!(sealer().open(&sealed, &key()), Ok(context));
        let spoilt = spoilt(&sealed, &spoils);
        if spoilt != sealed {
            prop_assert!(sealer().open(&spoilt, &key()).is_err(), "a forged context was taken for a real one");
        }
        prop_assert!(sealer().open(&noise, &key()).is_err());
    }

    #[test]
    fn storage_keys(noise in vec(any::<u8>(), 0..400), spoils in spoils()) {
        let good = key().storage_key();
        for bytes in [spoilt(&good, &spoils), noise.into()] {
            if let Ok(read) = Key::from_storage_key(&bytes) {
                prop_assert_eq!(read.storage_key(), bytes);
            }
        }
    }
}

proptest! {
    // Folding a history places partitions, which takes a while.
    #![proptest_config(cases(500))]

    #[test]
    fn histories(history in a_history(), spoils in spoils(), noise in vec(any::<u8>(), 0..200)) {
        let stored = history.encode();
        prop_assert!(history.view().is_some());
        prop_assert_eq!(History::decode(&stored), Ok(history));
        for bytes in [spoilt(&stored, &spoils), noise.into()] {
            if let Ok(read) = History::decode(&bytes) {
                let _ = read.view();
                let _ = read.version();
                prop_assert_eq!(History::decode(&read.encode()), Ok(read));
            }
        }
    }
}

/// Lengths that claim more than there is, and groups nested very deep.
#[test]
fn false_lengths_and_deep_nesting_are_refused_at_once() {
    let mut huge_field = vec![0x12];
    huge_field.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(wire::decode_envelope(huge_field.clone().into()).is_err());
    assert!(History::decode(&huge_field).is_err());

    // Groups of an unknown field, each within the one before.
    let deep = vec![0xa3; 1 << 20];
    assert!(wire::decode_envelope(deep.clone().into()).is_err());
    assert!(History::decode(&deep).is_err());
}

/// Timestamps have 48 bits of milliseconds. A wall clock beyond them must not become an early one.
#[test]
fn a_wall_clock_beyond_all_timestamps_is_late() {
    assert!(Hlc::at(WallMs(1 << 48)) > Hlc::at(WallMs((1 << 48) - 1)));
    assert!(Hlc::at(WallMs(u64::MAX)) >= Hlc::at(WallMs(1 << 48)));
}
