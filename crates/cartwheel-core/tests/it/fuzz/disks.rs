//! Disks with nonsense beside the records: in the index, and in the stored trees and proofs of anti-entropy. Nodes keep
//! working.

use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::message::client::{Consistency, Reply};
use cartwheel_core::replica::hint;
use cartwheel_core::store::image::Image;
use cartwheel_core::store::key_index;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::arbitrary::{cases, forged_key, number};
use super::net::{Net, get, id, put};

/// Index entries that look like hints for a node or for an unknown one, and others.
fn entry() -> impl Strategy<Value = Bytes> {
    let home = prop_oneof![(1usize..=4).prop_map(id), number().prop_map(cartwheel_core::value::dot::NodeId::new)];
    let storage_key = prop_oneof![
        (0usize..3).prop_map(|number| forged_key(number).storage_key()),
        vec(any::<u8>(), 0..60).prop_map(Bytes::from)
    ];
    prop_oneof![
        4 => (home, storage_key).prop_map(|(home, key)| hint::entry(home, &key)),
        1 => vec(any::<u8>(), 0..30).prop_map(Bytes::from),
    ]
}

/// Stored values of anti-entropy, with random contents.
fn named() -> impl Strategy<Value = (Bytes, Bytes)> {
    let name = prop_oneof![Just(Bytes::from("proven equal")), Just(Bytes::from("caught up"))]; // retired word
    (name, vec(any::<u8>(), 0..200).prop_map(Bytes::from))
}

fn disk() -> impl Strategy<Value = Image> {
    (btree_set(entry(), 0..40), vec(named(), 0..4)).prop_map(|(index, named)| Image {
        index,
        named: named.into_iter().collect(),
        ..Image::default()
    })
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn entries_are_read_as_they_were_made(bytes in vec(any::<u8>(), 0..40)) {
        let bytes = Bytes::from(bytes);
        if let Some((home, storage_key)) = hint::parse(&bytes) {
            prop_assert_eq!(hint::entry(home, &storage_key), bytes);
        }
    }

    #[test]
    fn nonsense_on_disks_stops_no_node(disks in btree_map((1usize..=3).prop_map(id), disk(), 0..=3)) {
        let strays = disks.values().map(|disk| disk.index.len()).sum::<usize>();
        let mut net = Net::on(3, disks);
        for number in 0..3 {
            let done = net.end_of(1 + number, put(&forged_key(number), "a client's", None));
            prop_assert!(matches!(done, Ok(Reply::Put(_))), "{:?}", done);
        }
        net.pass(Duration::from_secs(120));
        for number in 0..3 {
            for node in 1..=3 {
                let read = net.end_of(node, get(&forged_key(number), Consistency::Strong));
                prop_assert!(matches!(&read, Ok(Reply::Got(got)) if got.siblings.len() == 1), "{:?}", read);
            }
        }
        // Entries that name a key and a member, but have no record that is owed, are removed. Those of live keys stay.
        let is_stray = |entry: &&Bytes| key_index::parse(entry).is_none();
        let left = net.disks.values().map(|disk| disk.index.iter().filter(is_stray).count()).sum::<usize>();
        prop_assert!(left <= strays);
    }
}
