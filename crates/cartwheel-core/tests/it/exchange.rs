//! Anti-entropy between two nodes: how many messages it takes, what it repairs, and when it runs.

use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::cluster::counts::Group;
use cartwheel_core::cluster::liveness::{Liveness, PeerStatus, Status, Why};
use cartwheel_core::cluster::sizes::TreeId;
use cartwheel_core::event::Event;
use cartwheel_core::message::anti_entropy::{KeyRange, Question};
use cartwheel_core::message::{Message, RequestId, Requester};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::ring::PartitionId;
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::state::State;

use crate::pair::{EVERY, Pair, config, disk, id, key, state, view};

/// Two replicas of so many keys, in two partitions, whose trees are ready and proven equal.
fn compared(keys: usize) -> Pair {
    let mut pair = Pair::new(disk(keys), 2);
    pair.pass(EVERY);
    assert_eq!(pair.exchanged(2), 2, "each at once, and then not again for a while");
    pair.reset();
    pair
}

#[test]
fn equal_replicas_are_compared_in_two_messages_a_partition_however_many_keys_they_hold() {
    let mut bytes = Vec::new();
    for keys in [0, 1, 5_000] {
        let mut pair = compared(keys);
        pair.pass(EVERY);
        assert_eq!((pair.messages, pair.exchanged(1), pair.scans), (4, 2, 0), "{keys} keys");
        bytes.push(pair.bytes);
    }
    assert!(bytes.iter().all(|&bytes| bytes < 600), "{bytes:?}");
}

#[test]
fn only_keys_that_differ_are_sent_and_both_sides_get_the_join() {
    let mut pair = compared(5_000);
    // Node 1 is behind, node 2 is behind, both have a write that the other lacks, and only node 2 has a key.
    pair.merge(2, 7, state(7, 2));
    pair.merge(1, 8, state(8, 2));
    pair.merge(1, 9, state(900_009, 1));
    pair.merge(2, 9, state(900_010, 1));
    pair.merge(2, 6_000, state(6_000, 1));
    pair.reset();
    pair.pass(EVERY);
    assert_eq!(pair.exchanged(1), 2);
    for number in [7, 8, 9, 6_000] {
        assert_eq!(pair.held(1, number), pair.held(2, number), "key {number}");
    }
    assert_eq!(pair.held(1, 7), Some(state(7, 2)));
    assert_eq!(pair.held(2, 8), Some(state(8, 2)));
    assert_eq!(pair.held(1, 6_000), Some(state(6_000, 1)));
    assert_eq!(pair.held(2, 9).map(|held: State| held.siblings().len()), Some(3));
    let repaired = pair.events.iter().filter(|(_, event)| matches!(event, Event::Repaired(..))).count();
    assert_eq!(repaired, 5, "key 9 was behind on both");
    assert!(pair.messages < 60, "{} messages", pair.messages);
    // They are equal now, and an exchange finds that.
    pair.reset();
    pair.pass(EVERY);
    assert_eq!((pair.messages, pair.exchanged(1)), (4, 2));
}

#[test]
fn a_node_that_is_alive_again_is_compared_with_soon_and_then_at_its_turn() {
    let mut pair = compared(10);
    // Halfway between the turns of the two partitions.
    pair.pass(EVERY / 4);
    let set_status = |pair: &mut Pair, status| {
        let peer_status = PeerStatus { status, since: WallMs(1), why: Why::Heard };
        pair.input(1, Input::Liveness(Arc::new(Liveness::new([(id(2), peer_status)]))));
    };
    for status in [Status::Down, Status::Suspect] {
        set_status(&mut pair, status);
        pair.merge(2, 7, state(7, 2));
        pair.reset();
        set_status(&mut pair, Status::Alive);
        pair.pass(Duration::from_secs(10));
        assert_eq!(pair.exchanged(1), 2, "{status}");
        assert_eq!(pair.held(1, 7), Some(state(7, 2)));
    }
    pair.reset();
    set_status(&mut pair, Status::Alive);
    pair.pass(Duration::from_secs(10));
    assert_eq!(pair.exchanged(1), 0, "it was alive all the time");
    pair.pass(EVERY);
    assert_eq!(pair.exchanged(1), 2, "no turn is skipped or taken twice");
}

#[test]
fn an_empty_replica_gets_everything() {
    let mut pair = compared(3_000);
    pair.nodes.remove(&id(2));
    pair.disks.remove(&id(2));
    pair.start(Node::new(config(2, 2, Some(EVERY * 1_000)), view(2, 2)), 2);
    pair.pass(EVERY);
    assert!((0..3_000).all(|number| pair.held(2, number) == Some(state(number, 1))));
    assert_eq!(pair.exchanged(1), 2);
}

#[test]
fn only_the_next_boot_trusts_trees_saved_at_a_stop() {
    let mut pair = compared(2_000);
    // The replicas stay equal, so comparing them needs no scan.
    (1..=2).for_each(|node| pair.merge(node, 7, state(7, 2)));
    pair.stop(2);
    pair.reset();
    let restart = |pair: &mut Pair, boot| {
        pair.start(Node::new(config(2, boot, Some(EVERY * 1_000)), view(2, 2)), 2);
        pair.pass(Duration::from_secs(60));
    };
    restart(&mut pair, 2);
    assert_eq!(pair.scans, 0, "nothing has to be scanned");
    let of = |pair: &Pair| {
        let trees = pair.nodes[&id(2)].exchange().trees();
        trees.get(trees.id_of(&key(8))).cloned()
    };
    let saved = of(&pair).expect("a tree that is ready");
    pair.merge(2, 8, state(8, 2));
    // It is killed, and the trees that it saved before are out of date.
    pair.nodes.remove(&id(2));
    restart(&mut pair, 3);
    assert!(pair.scans > 0);
    let built = of(&pair).expect("a tree that is ready");
    assert!(!built.agrees(&saved));
}

#[test]
fn invalid_requests_are_refused_and_counted() {
    let tree = |partition, n: u64| TreeId { partition: PartitionId(partition), group: Group(n - 3) };
    let nodes = |tree, level, nodes| Question::Nodes { tree, level, nodes };
    let keys = |from: &'static [u8], upto: Option<&'static [u8]>| Question::Keys {
        tree: tree(0, 3),
        range: KeyRange { from: from.into(), upto: upto.map(Into::into) },
    };
    let nonsense = [
        nodes(tree(2, 3), 0, vec![0]),
        nodes(tree(u32::MAX, 3), 0, vec![0]),
        nodes(tree(0, 5), 0, vec![0]),
        nodes(tree(0, 3), 6, vec![0]),
        nodes(tree(0, 3), 255, vec![0]),
        nodes(tree(0, 3), 0, vec![1]),
        nodes(tree(0, 3), 1, vec![16]),
        nodes(tree(0, 3), 0, vec![0; 257]),
        keys(b"b", Some(b"a")),
        keys(b"a", Some(b"a")),
    ];
    let mut pair = compared(10);
    for question in nonsense {
        pair.reset();
        pair.deliver(
            1,
            Message::Compare(RequestId { requester: Requester::Coordinator, operation: 1, round: 1 }, question.clone()),
        );
        let refused = pair.events.iter().filter(|(_, event)| *event == Event::ExchangeRefused(id(2))).count();
        assert_eq!(refused, 1, "{question:?}");
    }
    pair.pass(EVERY);
    assert_eq!(pair.exchanged(1), 2);
}
