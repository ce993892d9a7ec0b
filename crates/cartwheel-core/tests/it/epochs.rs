//! Deletes stay deleted: late messages are refused, and tombstones are collected when they are due. On two nodes and a
//! network without losses.

use std::collections::VecDeque;
use std::time::Duration;

use cartwheel_core::cluster::membership::Durability;
use cartwheel_core::config::NodeConfig;
use cartwheel_core::event::Event;
use cartwheel_core::message::client::{ClientId, Consistency, Get, Operation, Put, Request, Retry};
use cartwheel_core::message::{
    Confirm, Envelope, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester, StateDigest,
};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::store::command::{StoreCommand, StoreResult, WriteFailed};
use cartwheel_core::store::image::Image;
use cartwheel_core::value::clock::Clock;
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, Since};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::state::{Content, Notes, Sibling, State};
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::value::write_id::WriteId;

use crate::pair::{CLUSTER, EVERY, Pair, blind_put, config, id, key, view};

const MINUTE: Duration = Duration::from_secs(60);

/// A state with one sibling: the write of this number, made in an epoch.
fn made(number: u64, content: Content, epoch: u64) -> State {
    let dot = Dot { actor: Actor { node: id(9), incarnation: Incarnation(9), since: Since(9) }, counter: number };
    let clock: Clock = (1..=number).map(|counter| Dot { counter, ..dot }).collect();
    let hlc = Hlc::at(WallMs(1_000 + number));
    let write_id = WriteId::from_bytes([number as u8; 16]);
    let sibling = Sibling { dot, content, hlc, epoch: Epoch(epoch), write_id, expires: None };
    State::from_parts(clock, [sibling], Notes::new())
}

fn value(number: u64, epoch: u64) -> State {
    made(number, Content::untyped("socks"), epoch)
}

fn deleted(number: u64, epoch: u64) -> State {
    made(number, Content::Tombstone, epoch)
}

/// Sends a node a merge of key 1, with an epoch stamp.
fn merge(pair: &mut Pair, node: usize, state: State, stamp: u64) {
    let ask = ReplicaRequest::Merge {
        key: key(1),
        state,
        epoch: Epoch(stamp),
        heals: None,
        confirm: Confirm::Stored,
        stands_in_for: None,
    };
    pair.deliver(node, Message::Request(RequestId { requester: Requester::Coordinator, operation: 1, round: 1 }, ask));
}

fn enter(pair: &mut Pair, epoch: u64) {
    for node in 1..=2 {
        pair.input(node, Input::Epoch(Epoch(epoch)));
    }
    pair.pass(MINUTE);
}

fn tombstones(pair: &Pair) -> [u64; 2] {
    [1, 2].map(|node| pair.nodes[&id(node)].exchange().trees().tombstones())
}

fn deletes_collected(pair: &Pair) -> u64 {
    pair.events.iter().map(|(_, event)| if let Event::Collected(deleted) = event { *deleted } else { 0 }).sum()
}

#[test]
fn a_tombstone_is_collected_after_five_epochs_and_leaves_no_record() {
    let mut pair = Pair::new(Image::default(), 2);
    merge(&mut pair, 1, value(1, 1), 1);
    merge(&mut pair, 1, deleted(2, 1), 1);
    (2..=5).for_each(|epoch| enter(&mut pair, epoch));
    assert!((1..=2).all(|node| pair.held(node, 1) == Some(deleted(2, 1))), "anti-entropy has spread it");
    assert_eq!(tombstones(&pair), [1, 1]);
    enter(&mut pair, 6);
    assert_eq!(tombstones(&pair), [0, 0]);
    assert!((1..=2).all(|node| pair.held(node, 1).unwrap_or_default().siblings().len() == 0));
    assert_eq!(deletes_collected(&pair), 2);
    // The second node has held it since its second epoch.
    (7..=8).for_each(|epoch| enter(&mut pair, epoch));
    for node in 1..=2 {
        assert!(pair.disks[&id(node)].records.is_empty() && pair.disks[&id(node)].index.is_empty());
    }
}

#[test]
fn a_message_that_is_late_by_two_epochs_brings_nothing_back() {
    let mut pair = Pair::new(Image::default(), 2);
    enter(&mut pair, 9);
    merge(&mut pair, 1, value(1, 7), 7);
    assert_eq!(pair.held(1, 1), None);
    assert!(pair.events.contains(&(id(1), Event::StaleRefused(id(2)))));
    merge(&mut pair, 1, value(1, 7), 8);
    assert_eq!(pair.held(1, 1), Some(value(1, 7)), "nodes may be one epoch apart");
}

#[test]
fn a_tombstone_that_is_due_is_not_stored_again() {
    let mut pair = Pair::new(Image::default(), 2);
    enter(&mut pair, 9);
    merge(&mut pair, 1, deleted(2, 4), 8);
    assert_eq!(pair.held(1, 1), None, "it would delete nothing");
    merge(&mut pair, 1, value(1, 8), 9);
    merge(&mut pair, 1, deleted(2, 4), 9);
    let held = pair.held(1, 1).unwrap_or_default();
    assert_eq!(held.siblings().len(), 0, "what it deletes is deleted anyway: {held:?}");
}

#[test]
fn a_write_that_was_forwarded_long_ago_is_not_carried_out() {
    let mut pair = Pair::new(Image::default(), 2);
    enter(&mut pair, 9);
    let put = Put {
        key: key(1),
        content: Content::untyped("socks"),
        expires: None,
        context: None,
        retry: Retry::Named(WriteId::from_bytes([1; 16])),
        stamp: None,
        rewrites: None,
        consistency: Consistency::Eventual,
        w: Some(1),
        return_body: false,
    };
    for (begun, stored) in [(7, 0), (8, 1)] {
        let forward = Message::Forward(
            RequestId { requester: Requester::Coordinator, operation: 1, round: 1 },
            Box::new(put.clone()),
            MINUTE,
            Epoch(begun),
        );
        pair.deliver(1, forward);
        assert_eq!(pair.held(1, 1).unwrap_or_default().siblings().len(), stored, "begun in {begun}");
    }
}

#[test]
fn notes_and_old_clock_entries_are_collected_from_an_idle_record() {
    let mut pair = Pair::new(Image::default(), 2);
    let mut state = value(3, 1);
    let other = Dot { actor: Actor { node: id(8), incarnation: Incarnation(8), since: Since(8) }, counter: 1 };
    state.merge(&State::from_parts([other].into_iter().collect(), [], Notes::new()));
    merge(&mut pair, 1, state.clone(), 1);
    (2..=5).for_each(|epoch| enter(&mut pair, epoch));
    assert_eq!(pair.held(2, 1), Some(state));
    // The second node has held it since its second epoch.
    (6..=8).for_each(|epoch| enter(&mut pair, epoch));
    for node in 1..=2 {
        assert_eq!(pair.held(node, 1), Some(value(3, 1)), "the entry of the actor without a sibling is gone");
    }
}

/// A get reads key 1 on both nodes, one of which holds nothing. It begins in epoch 3 and ends in epoch 4.
#[test]
fn a_repair_is_stamped_with_the_epoch_in_which_its_read_began() {
    let mut node = Node::new(config(1, 1, Some(EVERY)), view(2, 2));
    let mut disk = Image::default();
    let at = |seconds: u64| Now { instant: Instant(seconds * 1_000), wall: WallMs(1_000_000 + seconds) };
    let mut step = |input: Input, disk: &mut Image| {
        let mut sends = Vec::new();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let effects = node.step(at(5), input);
            inputs.extend(effects.stores.into_iter().map(|(id, command)| Input::Stored(id, disk.execute(&command))));
            sends.extend(effects.sends);
        }
        sends
    };
    step(Input::Tick, &mut disk);
    step(Input::Epoch(Epoch(3)), &mut disk);
    let deliver = |message: Message| {
        let (from, from_incarnation) = (id(2), Incarnation(2));
        Input::Message(Envelope {
            cluster: CLUSTER,
            from,
            from_incarnation,
            from_boot: 1,
            sent: Now { wall: WallMs(1_000_005), ..Now::default() },
            config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
            losses: cartwheel_core::cluster::losses::Losses::NONE,
            trace: None,
            message,
        })
    };
    let ask = ReplicaRequest::Merge {
        key: key(1),
        state: value(1, 3),
        epoch: Epoch(3),
        heals: None,
        confirm: Confirm::Stored,
        stands_in_for: None,
    };
    step(
        deliver(Message::Request(RequestId { requester: Requester::Coordinator, operation: 1, round: 1 }, ask)),
        &mut disk,
    );
    let get = Get { key: key(1), seen: None, wants_context: true, consistency: Consistency::Eventual, r: Some(2) };
    let request = Request { operation: Operation::Get(get), timeout: MINUTE };
    let asked = step(Input::Client(ClientId(1), request), &mut disk);
    let request_id = asked.iter().find_map(|(_, envelope)| match envelope.message {
        Message::Request(request_id, ReplicaRequest::Read { .. }) => Some(request_id),
        _ => None,
    });
    let request_id = request_id.expect("the other home is asked");
    step(Input::Epoch(Epoch(4)), &mut disk);
    let empty = ReplicaResponse::State { state: State::default(), epoch: Epoch(4), loss: None };
    let digest = ReplicaResponse::Digest { digest: StateDigest::of(&State::default()), loss: None };
    let mut sends = step(deliver(Message::Response(request_id, digest)), &mut disk);
    sends.extend(step(deliver(Message::Response(request_id, empty)), &mut disk));
    let stamps: Vec<Epoch> = sends
        .into_iter()
        .filter_map(|(_, envelope)| match envelope.message {
            Message::Request(_, ReplicaRequest::Merge { epoch, .. }) => Some(epoch),
            _ => None,
        })
        .collect();
    assert_eq!(stamps, [Epoch(3)]);
}

#[test]
fn a_node_that_does_not_know_the_epoch_stores_nothing() {
    let mut pair = Pair::new(Image::default(), 2);
    pair.input(1, Input::Epoch(Epoch::UNKNOWN));
    merge(&mut pair, 1, value(1, 1), 1);
    assert_eq!(pair.held(1, 1), None);
    pair.input(1, Input::Epoch(Epoch(4)));
    merge(&mut pair, 1, value(1, 1), 4);
    assert_eq!(pair.held(1, 1), Some(value(1, 1)));
}

/// A node that lost more than one epoch's writes in a power failure would bring back what the others have collected.
#[test]
fn an_epoch_ends_once_its_writes_are_synced() {
    for durability in [Durability::Fsync, Durability::Os] {
        let alone = NodeConfig { durability, ..config(1, 1, Some(Duration::from_secs(1))) };
        let mut node = Node::new(alone, view(1, 2));
        let request = Request { operation: Operation::Put(blind_put(&key(1), Some(1))), timeout: MINUTE };
        let (mut disk, mut now) = (Image::default(), Instant(1));
        let mut inputs = VecDeque::from([Input::Tick, Input::Client(ClientId(1), request)]);
        let (mut finished, mut syncs, mut written) = (Vec::new(), 0, false);
        for _ in 0..1_000 {
            let input = inputs.pop_front().unwrap_or(Input::Tick);
            now = now + Duration::from_millis(100);
            let effects = node.step(Now { instant: now, wall: WallMs(1_000_000 + now.0 / 1_000) }, input);
            for (id, command) in effects.stores {
                let is_sync = matches!(&command, StoreCommand::Remember { name, .. } if name.as_ref() == b"finished");
                written |= matches!(command, StoreCommand::Write { .. });
                syncs += u32::from(is_sync);
                // The first sync fails.
                let result = match is_sync && syncs == 1 {
                    true => StoreResult::Written(Err(WriteFailed::Uncertain)),
                    false => disk.execute(&command),
                };
                inputs.push_back(Input::Stored(id, result));
            }
            if let Some(epoch) = effects.finished {
                finished.push((epoch, syncs));
            }
        }
        let needed = if durability == Durability::Os { 2 } else { 0 };
        assert!(written);
        assert_eq!(finished, [(Epoch::FIRST, needed)], "{durability:?}");
    }
}
