//! Lists of keys, the index behind them, and buckets that are emptied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::ChangeKind;
use cartwheel_core::config::NodeConfig;
use cartwheel_core::message::client::{ClientId, Refusal, Request};
use cartwheel_core::message::client::{Consistency, Get, Operation};
use cartwheel_core::message::listing::{ListRequest, Listed, Listing};
use cartwheel_core::message::{Confirm, Failure, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::store::key_index;
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::{Generation, Key, Placement};
use cartwheel_core::value::position::Position;
use cartwheel_core::value::state::Epoch;
use cartwheel_core::wire::Protocol;

use crate::pair::{EVERY, Pair, config, disk, history, id, key, state, view};

const PARTITIONS: u32 = 8;
const CLIENT: ClientId = ClientId(77);

fn carts(generation: Generation, after: Position, keys_max: u32) -> Listing {
    Listing::Keys { bucket: Bytes::from_static(b"carts"), generation, after, prefix: Bytes::new(), keys_max }
}

fn asked(pair: &mut Pair, node: usize, listing: Listing, r: u8) -> Result<Listed, Refusal> {
    pair.lists.clear();
    pair.input(node, Input::List(CLIENT, ListRequest { listing, r, timeout: Duration::from_secs(5) }));
    pair.lists.pop().map_or_else(|| panic!("the list was never made"), |(_, listed)| listed)
}

/// All keys, page by page, and whether the replicas agree on all of them.
fn all_keys(pair: &mut Pair, node: usize, r: u8) -> (Vec<Key>, bool) {
    let (mut keys, mut agreed, mut after) = (Vec::new(), true, Position::default());
    loop {
        match asked(pair, node, carts(Generation::FIRST, after, 7), r) {
            Ok(Listed::Keys { keys: page, next }) => {
                agreed &= page.iter().all(|listed| listed.is_agreed);
                keys.extend(page.into_iter().map(|listed| listed.key));
                match next {
                    Some(next) => after = next,
                    None => return (keys, agreed),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn entries(pair: &Pair, node: usize) -> usize {
    pair.disks[&id(node)].index.iter().filter(|entry| key_index::parse(entry).is_some()).count()
}

#[test]
fn keys_that_an_earlier_build_stored_are_listed_once_all_members_know_the_index() {
    let mut pair = Pair::on((1..=2).map(|node| (id(node), disk(30))).collect());
    for node in 1..=2 {
        let config = NodeConfig { all_speak: Protocol::OLDEST, ..config(node, 1, Some(EVERY)) };
        pair.start(Node::new(config, view(2, PARTITIONS)), node);
    }
    pair.merge(1, 30, state(30, 1));
    pair.pass(Duration::from_secs(60));
    assert_eq!((entries(&pair, 1), entries(&pair, 2)), (0, 0), "an earlier build could not read these records");
    let refused = asked(&mut pair, 1, carts(Generation::FIRST, Position::default(), 7), 1);
    assert!(matches!(&refused, Err(Refusal::Unavailable(short)) if short.why.contains("upgrade")), "{refused:?}");
    for node in 1..=2 {
        pair.input(node, Input::AllSpeak(Protocol::NEWEST));
    }
    pair.merge(1, 31, state(31, 1));
    pair.pass(Duration::from_secs(60));
    assert_eq!(entries(&pair, 1), 32);
    let (keys, _) = all_keys(&mut pair, 1, 1);
    let expected: BTreeSet<Key> = (0..32).map(key).collect();
    assert_eq!(keys.iter().cloned().collect::<BTreeSet<_>>(), expected);
    assert!(keys.is_sorted(), "in the order of their tokens");
}

#[test]
fn a_list_says_on_which_keys_the_replicas_do_not_agree() {
    let mut pair = Pair::new(disk(20), PARTITIONS);
    pair.pass(Duration::from_secs(60));
    assert!(all_keys(&mut pair, 2, 2).1);
    pair.merge(1, 20, state(20, 1));
    let (keys, agreed) = all_keys(&mut pair, 2, 2);
    assert_eq!((keys.len(), agreed), (21, false));
    assert_eq!((all_keys(&mut pair, 1, 1).0.len(), all_keys(&mut pair, 2, 1).0.len()), (21, 20));
    pair.kill(1);
    pair.pass(Duration::from_secs(1));
    pair.input(
        2,
        Input::List(
            CLIENT,
            ListRequest {
                listing: carts(Generation::FIRST, Position::default(), 7),
                r: 2,
                timeout: Duration::from_secs(5),
            },
        ),
    );
    pair.lists.clear();
    pair.pass(Duration::from_secs(10));
    assert!(matches!(pair.lists[..], [(CLIENT, Err(Refusal::Unavailable(_)))]), "{:?}", pair.lists);
}

#[test]
fn sizes_count_each_key_once() {
    let mut pair = Pair::new(disk(20), PARTITIONS);
    pair.pass(Duration::from_secs(60));
    let Ok(Listed::Sizes(sizes)) = asked(&mut pair, 1, Listing::Sizes, 1) else { panic!("there are sizes") };
    let bytes: usize = (0..20).map(|number| key(number).storage_key_len() + 7).sum();
    let size = sizes[&b"carts"[..]];
    assert_eq!((sizes.len(), size.keys, size.bytes as usize), (1, 20, bytes));
}

/// The history with the bucket emptied at this time, and its generation.
fn emptied(at: u64) -> (Arc<cartwheel_core::cluster::membership::View>, Generation) {
    let mut history = history(2, PARTITIONS);
    let name = Bytes::from_static(b"carts");
    let change = ChangeKind::Empty { name, placement: Placement::Slot, is_indexed: true };
    let change = history.record(Hlc::at(WallMs(at)), id(1), change);
    (Arc::new(history.view().unwrap()), Generation { since: change.hlc, placement: Placement::Slot })
}

#[test]
fn what_a_bucket_held_before_it_was_emptied_is_gone_and_does_not_come_back() {
    let mut pair = Pair::new(disk(40), PARTITIONS);
    pair.pass(Duration::from_secs(60));
    let (view, generation) = emptied(1_000);
    pair.input(1, Input::View(view.clone()));
    // The second node does not know yet, and still has everything.
    pair.pass(Duration::from_secs(10));
    assert_eq!((pair.disks[&id(1)].records.len(), entries(&pair, 1)), (0, 0));
    assert_eq!(pair.disks[&id(2)].records.len(), 40);
    let listed = asked(&mut pair, 1, carts(generation, Position::default(), 7), 1);
    assert_eq!(listed, Ok(Listed::Keys { keys: Vec::new(), next: None }));
    // A late write, a comparison, and a read.
    let merge = ReplicaRequest::Merge {
        key: key(1),
        state: state(1, 2),
        epoch: Epoch(1),
        heals: None,
        confirm: Confirm::Stored,
        stands_in_for: None,
    };
    for (requester, expected) in [
        (Requester::Coordinator, ReplicaResponse::Failed(Failure::Superseded)),
        (Requester::Exchange, ReplicaResponse::Stored),
    ] {
        let request_id = RequestId { requester, operation: 1, round: 1 };
        let answered = pair.answer_of(1, Message::Request(request_id, merge.clone()));
        assert_eq!(answered, Some(Message::Response(request_id, expected)));
    }
    let get = Get { key: key(1), consistency: Consistency::Eventual, r: None, seen: None, wants_context: true };
    let request = Request { operation: Operation::Get(get), timeout: Duration::from_secs(1) };
    pair.input(1, Input::Client(CLIENT, request));
    assert!(matches!(&pair.replies[..], [(_, Err(Refusal::Unavailable(_)))]), "{:?}", pair.replies);
    pair.pass(EVERY + Duration::from_secs(60));
    assert!(
        pair.exchanged(1) > 0 && pair.disks[&id(1)].records.is_empty(),
        "the comparisons have brought nothing back"
    );
    pair.input(2, Input::View(view));
    pair.pass(Duration::from_secs(60));
    assert_eq!((pair.disks[&id(2)].records.len(), entries(&pair, 2)), (0, 0));
}
