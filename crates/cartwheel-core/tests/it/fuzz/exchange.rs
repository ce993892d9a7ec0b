//! Generators of invalid requests and answers of exchanges and transfers.

use bytes::Bytes;
use cartwheel_core::cluster::counts::Group;
use cartwheel_core::cluster::sizes::TreeId;
use cartwheel_core::message::anti_entropy::{Finding, KeyRange, ListPage, Question, Refused, Sum};
use cartwheel_core::message::transfer::{Fetch, Fetched, Page};
use cartwheel_core::ring::PartitionId;
use cartwheel_core::value::digest::ContentDigest;
use cartwheel_core::value::state::Epoch;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::arbitrary::{forged_key, number, state};

/// Mostly one of the ring's sixteen partitions, and a group of keys that exists.
fn tree() -> impl Strategy<Value = TreeId> {
    let partition = prop_oneof![6 => 0u32..16, 1 => any::<u32>()];
    (partition, prop_oneof![6 => Just(0u64), 1 => any::<u64>()])
        .prop_map(|(partition, group)| TreeId { partition: PartitionId(partition), group: Group(group) })
}

/// Storage keys, some of them valid.
fn storage_key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (0usize..3).prop_map(|number| forged_key(number).storage_key()),
        vec(any::<u8>(), 0..24).prop_map(Bytes::from),
        (0u8..16).prop_map(|start| [&[start << 4][..], &[0; 15]].concat().into()),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    (storage_key(), option::of(storage_key())).prop_map(|(from, upto)| KeyRange { from, upto })
}

pub fn question() -> BoxedStrategy<Question> {
    let place = prop_oneof![3 => 0u32..16, 1 => any::<u32>()];
    let level = prop_oneof![4 => 0u8..3, 1 => any::<u8>()];
    prop_oneof![
        (tree(), level, vec(place, 0..600)).prop_map(|(tree, level, nodes)| Question::Nodes { tree, level, nodes }),
        (tree(), range()).prop_map(|(tree, range)| Question::Keys { tree, range }),
    ]
    .boxed()
}

pub fn finding() -> BoxedStrategy<Finding> {
    let sum = (any::<u128>(), any::<u64>()).prop_map(|(digests, keys)| Sum { digests, keys });
    let entries = btree_map(storage_key(), any::<[u8; 16]>().prop_map(ContentDigest), 0..6);
    let page = (entries, option::of(storage_key())).prop_map(|(entries, next)| ListPage { entries, next });
    prop_oneof![
        (any::<u8>(), any::<bool>(), vec(sum, 0..20)).prop_map(|(depth, is_recovered, sums)| Finding::Sums {
            depth,
            is_recovered,
            sums
        }),
        (any::<bool>(), page).prop_map(|(is_recovered, page)| Finding::Keys { is_recovered, page }),
        refused().prop_map(Finding::Refused),
    ]
    .boxed()
}

fn refused() -> impl Strategy<Value = Refused> {
    prop::sample::select(vec![Refused::NotAHome, Refused::NotReady, Refused::Busy, Refused::Nonsense])
}

pub fn fetch() -> BoxedStrategy<Fetch> {
    (tree(), range())
        .prop_map(|(tree, range)| Fetch { partition: tree.partition, groups: [tree.group].into(), range })
        .boxed()
}

pub fn fetched() -> BoxedStrategy<Fetched> {
    let page = (number(), vec((storage_key(), state()), 0..4), option::of(storage_key()), any::<u64>());
    prop_oneof![
        3 => page.prop_map(|(epoch, records, next, bytes)| {
            Fetched::Page(Page { epoch: Epoch(epoch), records, next, bytes })
        }),
        1 => refused().prop_map(Fetched::Refused),
    ]
    .boxed()
}
