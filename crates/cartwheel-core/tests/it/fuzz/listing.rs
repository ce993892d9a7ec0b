//! Generators of questions for lists, and of answers.

use std::collections::BTreeMap;

use cartwheel_core::cluster::sizes::Size;
use cartwheel_core::message::listing::{ListAnswer, ListFound, ListQuestion, Listing};
use cartwheel_core::ring::{PartitionId, PartitionSet};
use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::value::key::{Generation, Placement};
use cartwheel_core::value::position::Position;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::arbitrary::number;

fn partitions() -> impl Strategy<Value = PartitionSet> {
    btree_set(prop_oneof![4 => 0u32..8, 1 => 0u32..70_000], 0..6)
        .prop_map(|partitions| partitions.into_iter().map(PartitionId).collect())
}

fn position() -> impl Strategy<Value = Position> {
    vec(any::<u8>(), 0..20).prop_map(|bytes| Position::from_bytes(bytes.into()))
}

pub fn generation() -> impl Strategy<Value = Generation> {
    let placement = prop_oneof![4 => 0u32..4, 1 => Just(4_097)];
    (prop_oneof![3 => Just(0), 1 => number()], placement).prop_map(|(since, placement)| Generation {
        since: Hlc::from_bits(since),
        placement: Placement::from_number(placement).unwrap_or_default(),
    })
}

pub fn list_question() -> BoxedStrategy<ListQuestion> {
    let bucket = prop_oneof![3 => Just("carts".to_owned()), 1 => ".{0,6}"];
    let keys = (bucket, generation(), position(), ".{0,3}", any::<u32>()).prop_map(
        |(bucket, generation, after, prefix, keys_max)| Listing::Keys {
            bucket: bucket.into(),
            generation,
            after,
            prefix: prefix.into(),
            keys_max,
        },
    );
    let listing = prop_oneof![3 => keys, 1 => Just(Listing::Sizes)];
    (partitions(), listing).prop_map(|(partitions, listing)| ListQuestion { partitions, listing }).boxed()
}

pub fn list_answer() -> BoxedStrategy<ListAnswer> {
    let keys = (vec(vec(any::<u8>(), 0..6), 0..4), option::of(position()))
        .prop_map(|(names, next)| ListFound::Keys { names: names.into_iter().map(Into::into).collect(), next });
    let sizes = btree_map(".{0,4}", (number(), number()), 0..4).prop_map(|sizes| {
        let size = |(bucket, (keys, bytes)): (String, (u64, u64))| (bucket.into(), Size { keys, bytes });
        ListFound::Sizes(sizes.into_iter().map(size).collect::<BTreeMap<_, _>>())
    });
    let found = prop_oneof![3 => keys, 1 => sizes];
    (partitions(), found).prop_map(|(covered, found)| ListAnswer { covered, found }).boxed()
}
