//! Transfers to a node that becomes a home: each record comes once, from all homes, and a transfer survives a crash of
//! either side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::anti_entropy::merkle::Grid;
use cartwheel_core::cluster::configuration::Home;
use cartwheel_core::cluster::counts::Group;
use cartwheel_core::cluster::liveness::{Liveness, PeerStatus, Status, Why};
use cartwheel_core::cluster::membership::{ChangeKind, View};
use cartwheel_core::config::NodeConfig;
use cartwheel_core::event::Event;
use cartwheel_core::message::anti_entropy::KeyRange;
use cartwheel_core::message::transfer::{Fetch, Fetched, Page};
use cartwheel_core::message::{Message, RequestId, Requester};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::reconfiguration::partition_state_name;
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::image::Image;
use cartwheel_core::store::record::{LocalHeader, Record};
use cartwheel_core::value::dot::{Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Sibling, State};
use cartwheel_core::wire;

use crate::pair::{EVERY, Pair, config, history, id, key, member, state, view};

const JOINER: usize = 4;
const PARTITIONS: u32 = 4;
const KEYS: usize = 12_000;
const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// A value of some hundred bytes, so that overhead has its usual share.
fn large(number: usize) -> State {
    let small = state(number, 1);
    let siblings = small
        .siblings()
        .map(|sibling| Sibling { content: Content::untyped(vec![number as u8; 500]), ..sibling.clone() });
    State::from_parts(small.clock().clone(), siblings.collect::<Vec<_>>(), Default::default())
}

fn disk() -> Image {
    let mut image = Image::default();
    for number in 0..KEYS {
        let storage_key = key(number).storage_key();
        let record = Record { header: LocalHeader::default(), state: large(number) };
        image.records.insert(storage_key.clone(), record.encode(&storage_key));
    }
    image
}

/// Three nodes, and the view with a fourth.
fn grown() -> Arc<View> {
    let mut history = history(3, PARTITIONS);
    history.record(Hlc::at(WallMs(2)), id(1), ChangeKind::Add(member(JOINER)));
    Arc::new(history.view().expect("a history with its bootstrap"))
}

/// The node that joins, with the partition states of its disk if it ran before.
fn joining_node(net: &Pair, boot: u32) -> Node {
    let partition_state = |partition: PartitionId| {
        let saved = net.disks.get(&id(JOINER))?.named.get(partition_state_name(partition).as_bytes())?;
        Some((partition, wire::decode_partition_state(saved).expect("a partition state")))
    };
    let partition_states = (0..PARTITIONS).map(PartitionId).filter_map(partition_state).collect();
    // Its incarnation was not there at the bootstrap.
    let loss_floor = Since::boot(1);
    Node::new(NodeConfig { partition_states, loss_floor, ..config(JOINER, boot, Some(EVERY)) }, grown())
}

/// Three nodes that hold everything, and a fourth that the target gives its share.
fn net() -> Pair {
    let disk = disk();
    let mut net = Pair::on((1..=3).map(|node| (id(node), disk.clone())).collect());
    for node in 1..=3 {
        net.start(Node::new(config(node, 1, Some(EVERY)), view(3, PARTITIONS)), node);
    }
    net.pass(EVERY);
    net.reset();
    for node in 1..=3 {
        net.input(node, Input::View(grown()));
    }
    net.start(joining_node(&net, 1), JOINER);
    net
}

/// The records that the new node is to hold.
fn wanted() -> BTreeMap<Bytes, State> {
    let (view, me) = (grown(), Home { node: id(JOINER), incarnation: Incarnation(JOINER as u64) });
    let is_wanted = |key: &Key| view.target(view.ring.partition_of(key.token())).contains(&me);
    (0..KEYS)
        .filter(|&number| is_wanted(&key(number)))
        .map(|number| (key(number).storage_key(), large(number)))
        .collect()
}

fn received(net: &Pair) -> (u64, u64) {
    net.events.iter().fold((0, 0), |sum, (_, event)| match event {
        Event::TransferReceived { records, bytes, .. } => (sum.0 + records, sum.1 + bytes),
        _ => sum,
    })
}

/// Checks that the new node holds exactly its share, and that the old homes have purged it.
fn is_taken_over(net: &Pair) {
    let wanted = wanted();
    let held: BTreeMap<Bytes, State> = net.disks[&id(JOINER)]
        .records
        .iter()
        .map(|(key, record)| (key.clone(), Record::decode(record, key).expect("a sound record").state))
        .collect();
    assert!(held == wanted, "{} records are held and {} are wanted", held.len(), wanted.len());
    let stayed: usize = (1..=3).map(|node| net.disks[&id(node)].records.len()).sum();
    assert_eq!(stayed + held.len(), 3 * KEYS);
}

fn pass_until(net: &mut Pair, is_reached: impl Fn(&Pair) -> bool) {
    for _ in 0..2_000 {
        if is_reached(net) {
            return;
        }
        net.pass(Duration::from_millis(20));
    }
    panic!("the state is never reached: {:?} received", received(net));
}

#[test]
fn a_new_home_receives_each_record_once_and_from_all_homes() {
    let mut net = net();
    net.pass(Duration::from_secs(60));
    is_taken_over(&net);
    let records = &net.disks[&id(JOINER)].records;
    let least: usize = records.iter().map(|(key, record)| key.len() + record.len()).sum();
    let carried = net.bytes_to[&id(JOINER)];
    assert!(carried as f64 <= 1.1 * least as f64, "{carried} bytes were sent for {least}");
    assert_eq!(received(&net).0, records.len() as u64);
    let sent = |node: usize| {
        let is_sent = |(at, event): &&(NodeId, Event)| *at == id(node) && matches!(event, Event::TransferSent { .. });
        net.events.iter().filter(is_sent).count()
    };
    assert!((1..=3).all(|node| sent(node) > 3), "{:?} pages", [sent(1), sent(2), sent(3)]);
}

#[test]
fn a_transfer_resumes_after_a_crash_of_the_new_home() {
    let mut net = net();
    let count = wanted().len() as u64;
    for boot in 2..=4 {
        pass_until(&mut net, |net| received(net).0 >= count * u64::from(boot - 1) / 4);
        net.kill(JOINER);
        net.pass(HALF_A_SECOND);
        net.start(joining_node(&net, boot), JOINER);
    }
    net.pass(Duration::from_secs(60));
    is_taken_over(&net);
    let (records, _) = received(&net);
    assert!(records as f64 <= 1.1 * count as f64, "{records} records came for {count}");
}

#[test]
fn other_homes_take_over_from_a_source_that_dies() {
    let mut net = net();
    let count = wanted().len() as u64;
    pass_until(&mut net, |net| received(net).0 >= count / 4);
    net.kill(2);
    net.pass(Duration::from_secs(1));
    let peer_status = PeerStatus { status: Status::Down, since: WallMs(1), why: Why::Heard };
    for node in [1, 3, JOINER] {
        net.input(node, Input::Liveness(Arc::new(Liveness::new([(id(2), peer_status)]))));
    }
    net.pass(Duration::from_secs(60));
    let held: BTreeSet<&Bytes> = net.disks[&id(JOINER)].records.keys().collect();
    assert!(wanted().keys().all(|key| held.contains(key)), "{} of {count} records", held.len());
    let (records, _) = received(&net);
    assert!(records as f64 <= 1.1 * count as f64, "{records} records came for {count}");
}

#[test]
fn invalid_messages_are_refused_and_store_nothing() {
    let mut net = net();
    pass_until(&mut net, |net| received(net).0 > 0);
    let whole = |partition| Grid::of(grown().ring.partitions(), PartitionId(partition)).whole();
    let fetch = |partition: u32, range: KeyRange| Fetch {
        partition: PartitionId(partition),
        groups: [Group::default()].into(),
        range,
    };
    let beyond = KeyRange { from: whole(0).from, upto: whole(1).upto };
    let empty = KeyRange { from: whole(0).from, upto: Some(whole(0).from) };
    for fetch in [fetch(0, beyond), fetch(0, empty), fetch(1, whole(0)), fetch(u32::MAX, whole(0))] {
        net.reset();
        net.deliver_from(
            1,
            JOINER,
            Message::Fetch(RequestId { requester: Requester::Transfer, operation: 1, round: 0 }, fetch.clone()),
        );
        let refused = net.events.iter().filter(|(_, event)| *event == Event::ExchangeRefused(id(JOINER))).count();
        assert_eq!(refused, 1, "{fetch:?}");
    }
    // This was not requested.
    let strange = Key::new(Bytes::from_static(b"carts"), Bytes::from_static(b"strange")).expect("a valid key");
    let page = Page { records: vec![(strange.storage_key(), state(1, 1))], ..Page::default() };
    for operation in 0..1_000 {
        let request_id = RequestId { requester: Requester::Transfer, operation, round: 0 };
        net.deliver_from(JOINER, 1, Message::Fetched(request_id, Fetched::Page(page.clone())));
    }
    net.pass(Duration::from_secs(60));
    is_taken_over(&net);
}
