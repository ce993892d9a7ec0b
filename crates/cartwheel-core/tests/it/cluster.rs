//! What clients of a small cluster get, mostly on a perfect network and perfect disks: reads, writes, deletes,
//! refusals, clocks, losses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::{
    ChangeKind, Conflict, Durability, History, Member, SettingsPatch, Strategy, View,
};
use cartwheel_core::config::{Limits, NodeConfig, Timing};
use cartwheel_core::event::Event;
use cartwheel_core::message::client::{
    ClientId, Consistency, Get, Got, Operation, Outcome, Put, PutDone, Refusal, Reply, Request, Restore, Retry,
};
use cartwheel_core::message::{Confirm, Envelope, Message, ReplicaRequest, RequestId, Requester};
use cartwheel_core::mutation::Broken;

#[cfg(feature = "mutations")]
use cartwheel_core::mutation::Mutation;
use cartwheel_core::node::{Effects, Input, Node};
use cartwheel_core::ring::Partitions;
use cartwheel_core::store::command::{ReadFailed, StoreCommand, StoreResult, WriteFailed};
use cartwheel_core::store::image::Image;
use cartwheel_core::store::record::Record;
use cartwheel_core::value::clock::Clock;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::digest::ContentDigest;
use cartwheel_core::value::dot::{Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Epoch, Notes, State};
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::wire;
use cartwheel_core::wire::context::SEALED_BYTES_GIVEN_MAX;

use crate::pair::{self, CLUSTER, id};

/// Nodes, their disks, and the messages on their way.
struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    disks: BTreeMap<NodeId, Image>,
    wakes: BTreeMap<NodeId, Instant>,
    walls: BTreeMap<NodeId, WallMs>,
    down: BTreeSet<NodeId>,
    failing_writes: BTreeSet<NodeId>,
    full: BTreeSet<NodeId>,
    /// Nodes whose store finds the record damaged, until it is written again.
    damaged: BTreeSet<NodeId>,
    /// Nodes to which messages are held back.
    slow: BTreeSet<NodeId>,
    held_back: VecDeque<(NodeId, Input)>,
    /// If set, forwarded writes are also kept here, to be delivered again.
    forwards_kept: Option<Vec<(NodeId, Input)>>,
    queue: VecDeque<(NodeId, Input)>,
    replies: BTreeMap<ClientId, Outcome>,
    events: Vec<(NodeId, Event)>,
    now: Instant,
    clients: u64,
    boots: u32,
    broken: Broken,
}

fn view(nodes: usize) -> View {
    let member = |node: usize| Member { zone: format!("zone-{}", node % 2), ..pair::member(node) };
    let mut history = History::new();
    let bootstrap = ChangeKind::Bootstrap {
        cluster: CLUSTER,
        partitions: Partitions::new(32).expect("32 partitions are allowed"),
        strategy: Strategy::Random { tokens: NonZeroU32::MIN.saturating_add(15) },
        members: (1..=nodes).map(member).collect(),
        name: String::new(),
    };
    history.record(Hlc::at(WallMs(1)), id(1), bootstrap);
    let lww = SettingsPatch { conflict: Some(Conflict::Lww), ..SettingsPatch::default() };
    history.record(Hlc::at(WallMs(1)), id(1), ChangeKind::Bucket { name: Bytes::from_static(b"lww"), settings: lww });
    let os = SettingsPatch { durability: Some(Durability::Os), ..SettingsPatch::default() };
    history.record(Hlc::at(WallMs(1)), id(1), ChangeKind::Bucket { name: Bytes::from_static(b"os"), settings: os });
    history.view().expect("a history with its bootstrap")
}

fn config(node: usize, boot: u32, loss_floor: Since) -> NodeConfig {
    let limits = Limits { siblings_max: 4, sibling_bytes_max: 1_000, ..pair::LIMITS };
    NodeConfig { loss_floor, limits, timing: Timing::default(), ..pair::config(node, boot, None) }
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        Self::of_broken(nodes, Broken::default())
    }

    /// [`Self::new`], with nodes that all break a rule.
    fn of_broken(nodes: usize, broken: Broken) -> Self {
        let config = |node, boot, floor| NodeConfig { broken, ..config(node, boot, floor) };
        let view = Arc::new(view(nodes));
        let ids = (1..=nodes).map(id);
        let mut cluster = Self {
            nodes: (1..=nodes).map(|node| (id(node), Node::new(config(node, 1, Since(0)), view.clone()))).collect(),
            disks: ids.clone().map(|node| (node, Image::default())).collect(),
            wakes: BTreeMap::new(),
            walls: ids.clone().map(|node| (node, WallMs(1_000_000))).collect(),
            down: BTreeSet::new(),
            failing_writes: BTreeSet::new(),
            full: BTreeSet::new(),
            damaged: BTreeSet::new(),
            slow: BTreeSet::new(),
            held_back: VecDeque::new(),
            forwards_kept: None,
            queue: ids.map(|node| (node, Input::Tick)).collect(),
            replies: BTreeMap::new(),
            events: Vec::new(),
            now: Instant(1),
            clients: 0,
            boots: 1,
            broken,
        };
        cluster.run();
        cluster
    }

    /// Handles all inputs on their way.
    fn run(&mut self) {
        while let Some((node, input)) = self.queue.pop_front() {
            if self.down.contains(&node) {
                continue;
            }
            if self.slow.contains(&node) && matches!(input, Input::Message(_)) {
                self.held_back.push_back((node, input));
                continue;
            }
            let now = Now { instant: self.now, wall: self.walls[&node] };
            let effects = self.nodes.get_mut(&node).expect("a node").step(now, input);
            self.carry_out(node, effects);
        }
    }

    fn carry_out(&mut self, node: NodeId, effects: Effects) {
        for (store, command) in effects.stores {
            let result = self.store(node, command);
            self.queue.push_back((node, Input::Stored(store, result)));
        }
        for (to, envelope) in effects.sends {
            if let (Some(kept), Message::Forward(..)) = (&mut self.forwards_kept, &envelope.message) {
                kept.push((to, Input::Message(envelope.clone())));
            }
            self.queue.push_back((to, Input::Message(through_the_codec(&envelope))));
        }
        self.replies.extend(effects.replies);
        self.events.extend(effects.events.into_iter().map(|event| (node, event)));
        self.wakes.insert(node, effects.wake_at.expect("a node always wants to be woken some time"));
    }

    fn store(&mut self, node: NodeId, command: StoreCommand) -> StoreResult {
        let disk = self.disks.get_mut(&node).expect("a disk");
        match command {
            StoreCommand::Read { .. } if self.damaged.contains(&node) => StoreResult::Read(Err(ReadFailed::Damaged)),
            StoreCommand::Write { .. } if self.full.contains(&node) => StoreResult::Written(Err(WriteFailed::DiskFull)),
            StoreCommand::Write { .. } if self.failing_writes.contains(&node) => {
                StoreResult::Written(Err(WriteFailed::Uncertain))
            }
            command => {
                if matches!(command, StoreCommand::Write { .. }) {
                    self.damaged.remove(&node);
                }
                disk.execute(&command)
            }
        }
    }

    fn request(&mut self, node: usize, operation: Operation) -> Outcome {
        self.clients += 1;
        let client = ClientId(self.clients);
        let request = Request { operation, timeout: Duration::from_secs(3) };
        self.queue.push_back((id(node), Input::Client(client, request)));
        for _ in 0..10_000 {
            self.run();
            if let Some(outcome) = self.replies.remove(&client) {
                return outcome;
            }
            self.pass_time();
        }
        panic!("the request was never answered");
    }

    fn pass_time(&mut self) {
        let up = self.wakes.iter().filter(|(node, _)| !self.down.contains(node));
        let (&node, &at) = up.min_by_key(|(_, at)| **at).expect("a node that is up");
        self.now = self.now.max(at);
        self.queue.push_back((node, Input::Tick));
    }

    /// Power fails at a node whose store had not synced anything yet.
    fn lose_power(&mut self, node: usize) {
        self.lose_power_and(node, Broken::default());
    }

    /// [`Self::lose_power`], and from then on the node breaks a rule.
    fn lose_power_and(&mut self, node: usize, broken: Broken) {
        self.disks.insert(id(node), Image::default());
        let view = self.nodes[&id(node)].view().clone();
        let config = NodeConfig { broken, ..config(node, 2, Since::boot(2)) };
        self.nodes.insert(id(node), Node::new(config, view));
        self.queue.push_back((id(node), Input::Tick));
        self.run();
    }

    /// Kills and restarts a node so many times.
    fn restart(&mut self, node: usize, times: u32) {
        for _ in 0..times {
            let view = self.nodes[&id(node)].view().clone();
            self.boots += 1;
            let config = NodeConfig { broken: self.broken, ..config(node, self.boots, Since(0)) };
            self.nodes.insert(id(node), Node::new(config, view));
            self.queue.push_back((id(node), Input::Tick));
            self.run();
        }
    }

    /// The homes of a key, and the other nodes, by number.
    fn homes(&self, key: &Key) -> (Vec<usize>, Vec<usize>) {
        let view = self.nodes[&id(1)].view();
        let homes = view.ring.homes(view.ring.partition_of(key.token()), 3).to_vec();
        let number = |home: &NodeId| (1..=self.nodes.len()).find(|&node| id(node) == *home).expect("a node");
        let others = (1..=self.nodes.len()).filter(|&node| !homes.contains(&id(node))).collect();
        (homes.iter().map(number).collect(), others)
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.pass_time();
            self.run();
        }
    }

    fn put(&mut self, node: usize, put: Put) -> Result<PutDone, Refusal> {
        match self.request(node, Operation::Put(put))? {
            Reply::Put(done) => Ok(done),
            other => panic!("a put was answered with {other:?}"),
        }
    }

    fn get(&mut self, node: usize, get: Get) -> Result<Got, Refusal> {
        match self.request(node, Operation::Get(get))? {
            Reply::Got(got) => Ok(got),
            other => panic!("a get was answered with {other:?}"),
        }
    }
}

fn through_the_codec(envelope: &Envelope) -> Envelope {
    let decoded = wire::decode_envelope(wire::encode_envelope(envelope)).expect("a frame of our own");
    assert_eq!(decoded, *envelope);
    decoded
}

fn key(bucket: &'static str) -> Key {
    Key::new(Bytes::from_static(bucket.as_bytes()), Bytes::from_static(b"alice")).expect("a valid key")
}

fn put_of(bucket: &'static str, value: &'static str) -> Put {
    Put::blind(key(bucket), Content::untyped(value))
}

fn put(value: &'static str) -> Put {
    put_of("carts", value)
}

fn delete() -> Put {
    Put { content: Content::Tombstone, ..put("") }
}

fn get() -> Get {
    Get { key: key("carts"), consistency: Consistency::Eventual, r: None, seen: None, wants_context: true }
}

fn strong_get() -> Get {
    Get { consistency: Consistency::Strong, ..get() }
}

fn values(got: &Got) -> Vec<String> {
    let mut values: Vec<String> = got
        .siblings
        .iter()
        .map(|held| match &held.content {
            Content::Value { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            Content::Tombstone => "deleted".to_owned(),
        })
        .collect();
    values.sort();
    values
}

#[test]
fn a_put_is_read_through_every_node() {
    let mut cluster = Cluster::new(5);
    let done = cluster.put(1, put("a")).unwrap();
    assert!(done.acks.home >= 2 && done.acks.zones >= 1 && done.acks.standin == 0);
    for node in 1..=5 {
        let got = cluster.get(node, get()).unwrap();
        assert_eq!(values(&got), ["a"]);
        assert_eq!(got.acks.home, 2);
    }
}

#[test]
fn the_reply_to_a_put_does_not_cover_a_sibling_that_its_request_had_not_seen() {
    let mut cluster = Cluster::new(1);
    let w1 = |put: Put| Put { w: Some(1), ..put };
    cluster.put(1, w1(put("a"))).unwrap();
    let after_b = cluster.put(1, w1(put("b"))).unwrap().context;
    cluster.put(1, w1(Put { context: after_b, ..put("c") })).unwrap();
    let got = cluster.get(1, Get { r: Some(1), ..get() }).unwrap();
    assert_eq!(values(&got), ["a", "c"], "only the write that it had seen is replaced");
    // A reply with a body shows the other siblings, and its context covers them.
    let shown = cluster.put(1, w1(Put { context: got.context, return_body: true, ..put("d") })).unwrap();
    assert_eq!(shown.body.as_ref().map(values), Some(vec!["d".to_owned()]));
}

#[test]
fn a_context_is_good_for_its_own_key_alone() {
    let mut cluster = Cluster::new(3);
    let context = cluster.put(1, put("a")).unwrap().context;
    cluster.put(1, put_of("other", "b")).unwrap();
    let borrowed = Put { context: context.clone(), ..put_of("other", "c") };
    assert!(matches!(cluster.put(2, borrowed), Err(Refusal::BadContext(_))));
    for bit in 0..context.as_ref().map_or(0, Bytes::len) * 8 {
        let mut forged = context.clone().unwrap_or_default().to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        let forged = Put { context: Some(forged.into()), ..put("d") };
        assert!(matches!(cluster.put(1, forged), Err(Refusal::BadContext(_))));
    }
    assert_eq!(values(&cluster.get(3, get()).unwrap()), ["a"]);
}

#[test]
fn the_same_write_again_through_another_node_makes_no_second_sibling() {
    let mut cluster = Cluster::new(5);
    let retry = Retry::Key(Bytes::from_static(b"order 17"));
    for node in 1..=5 {
        cluster.put(node, Put { retry: retry.clone(), ..put("a") }).unwrap();
    }
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["a"]);
    // The same idempotency key with another value is another write.
    cluster.put(1, Put { retry, ..put("b") }).unwrap();
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["a", "b"]);
}

#[test]
fn a_delete_removes_what_it_has_seen() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.put(1, delete()).unwrap().context, None, "nothing was there");
    let seen = cluster.put(1, put("a")).unwrap().context;
    cluster.put(2, put("b")).unwrap();
    cluster.put(3, Put { context: seen, ..delete() }).unwrap();
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["b", "deleted"]);
    cluster.put(1, delete()).unwrap();
    let got = cluster.get(2, get()).unwrap();
    assert_eq!(got.live(WallMs(0)).count(), 0);
    assert!(got.context.is_some(), "a tombstone is held");
}

/// Two of three homes have collected a tombstone, and the third will in its next epoch.
#[test]
fn a_strong_get_of_a_deleted_key_is_answered_at_the_turn_of_an_epoch() {
    for (ahead, behind) in [([1, 2], 3), ([1, 3], 2), ([2, 3], 1)] {
        let mut cluster = Cluster::new(3);
        let context = cluster.put(1, put("shoes")).unwrap().context;
        cluster.put(1, Put { context, ..delete() }).unwrap();
        cluster.pass(Duration::from_secs(1));
        for epoch in 2..=6 {
            let nodes = ahead.into_iter().chain((epoch < 6).then_some(behind));
            cluster.queue.extend(nodes.map(|node| (id(node), Input::Epoch(Epoch(epoch)))));
            cluster.run();
        }
        for node in 1..=3 {
            let got = cluster.get(node, strong_get()).unwrap();
            let is_deleted = got.siblings.iter().all(|held| held.content == Content::Tombstone);
            assert!(is_deleted, "through {node}, {behind} is behind");
        }
    }
}

#[test]
fn a_repeated_delete_that_meets_its_own_tombstone_is_one_delete() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, put("a")).unwrap();
    let delete = Put { retry: Retry::Key(Bytes::from_static(b"once")), ..delete() };
    cluster.down.insert(id(3));
    cluster.put(1, delete.clone()).unwrap();
    cluster.down.remove(&id(3));
    // The third node does not hold the tombstone that it reads from the others.
    cluster.put(3, delete).unwrap();
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["deleted"]);
}

/// Found by the simulator: a forwarded delete was tried on a second home and answered. Then the first home deleted what
/// had been written since.
#[test]
fn a_late_attempt_of_a_delete_deletes_nothing_written_since() {
    let mut cluster = Cluster::new(5);
    let partition = cluster.nodes[&id(1)].view().ring.partition_of(key("carts").token());
    let homes = cluster.nodes[&id(1)].view().ring.homes(partition, 3).to_vec();
    let outside = (1..=5).find(|&node| !homes.contains(&id(node))).expect("five nodes, three homes");
    // The first home gets the forwarded delete, but is too slow to answer it.
    cluster.slow.insert(homes[0]);
    assert_eq!(cluster.put(outside, delete()).unwrap().context, None, "nothing is there yet");
    cluster.put(outside, put("b")).unwrap();
    cluster.slow.clear();
    cluster.queue.append(&mut std::mem::take(&mut cluster.held_back));
    cluster.run();
    assert_eq!(values(&cluster.get(outside, Get { r: Some(3), ..get() }).unwrap()), ["b"]);
}

#[test]
fn a_late_attempt_of_a_write_does_not_win_over_a_later_write() {
    let mut cluster = Cluster::new(5);
    let partition = cluster.nodes[&id(1)].view().ring.partition_of(key("lww").token());
    let homes = cluster.nodes[&id(1)].view().ring.homes(partition, 3).to_vec();
    let outside = (1..=5).find(|&node| !homes.contains(&id(node))).expect("five nodes, three homes");
    cluster.slow.insert(homes[0]);
    cluster.put(outside, put_of("lww", "a")).unwrap();
    cluster.walls.values_mut().for_each(|wall| wall.0 += 1_000);
    let second = (1..=5).find(|&node| id(node) == homes[1]).expect("one of the five");
    cluster.put(second, put_of("lww", "b")).unwrap();
    cluster.walls.values_mut().for_each(|wall| wall.0 += 1_000);
    cluster.slow.clear();
    // The forwarded writes arrive first, then what the other homes have sent since.
    cluster.queue.append(&mut std::mem::take(&mut cluster.held_back));
    cluster.run();
    let got = cluster.get(outside, Get { key: key("lww"), r: Some(3), ..get() }).unwrap();
    assert_eq!(values(&got), ["b"]);
}

fn get_lww(r: u8) -> Get {
    Get { key: key("lww"), r: Some(r), ..get() }
}

/// The clock of a home was once ahead, and now all clocks are behind what it holds.
#[test]
fn a_forwarded_write_wins_over_what_its_coordinator_holds() {
    let mut cluster = Cluster::new(5);
    let (homes, others) = cluster.homes(&key("lww"));
    cluster.walls.insert(id(homes[0]), WallMs(1_005_000));
    cluster.put(homes[0], Put { w: Some(3), ..put_of("lww", "ahead") }).unwrap();
    cluster.walls.insert(id(homes[0]), WallMs(1_000_000));
    for value in ["a", "b", "c"] {
        cluster.put(others[0], put_of("lww", value)).unwrap();
        for node in 1..=5 {
            assert_eq!(values(&cluster.get(node, get_lww(2)).unwrap()), [value]);
        }
    }
    cluster.put(others[1], Put { content: Content::Tombstone, ..put_of("lww", "") }).unwrap();
    assert_eq!(values(&cluster.get(others[0], get_lww(3)).unwrap()), ["deleted"]);
    let is_reported =
        cluster.events.iter().any(|(_, event)| matches!(event, Event::TimestampsAhead { ahead_ms: 5_000.. }));
    assert!(is_reported, "an operator should know");
}

/// The late attempt reaches a home that holds only the later write, so it cannot know the name of the late one.
#[test]
fn a_late_attempt_loses_on_a_home_that_never_had_its_write() {
    assert_eq!(after_a_late_attempt(Broken::default()), ["b"]);
}

#[test]
#[cfg(feature = "mutations")]
fn a_late_attempt_that_is_raised_wins_over_a_later_write() {
    assert_eq!(after_a_late_attempt(Broken::rule(Mutation::LateForwardRaised)), ["a"]);
}

fn after_a_late_attempt(broken: Broken) -> Vec<String> {
    let mut cluster = Cluster::of_broken(5, broken);
    let (homes, others) = cluster.homes(&key("lww"));
    let slow: BTreeSet<NodeId> = [id(homes[0]), id(homes[2])].into();
    cluster.slow.extend(slow);
    cluster.put(others[0], Put { w: Some(1), ..put_of("lww", "a") }).unwrap();
    let is_forward = |input: &Input| matches!(input, Input::Message(Envelope { message: Message::Forward(..), .. }));
    let late: Vec<_> =
        std::mem::take(&mut cluster.held_back).into_iter().filter(|(_, input)| is_forward(input)).collect();
    assert!(!late.is_empty());
    cluster.slow.clear();
    cluster.down.insert(id(homes[1]));
    cluster.walls.values_mut().for_each(|wall| wall.0 += 1_000);
    cluster.put(homes[2], put_of("lww", "b")).unwrap();
    cluster.queue.extend(late);
    cluster.run();
    cluster.down.clear();
    values(&cluster.get(others[0], get_lww(3)).unwrap())
}

/// Rewrites what was read, which is `a`, at one node. Returns what readers at another see then, and the refusal, if there was one.
fn rewrite(cluster: &mut Cluster, read: Got, at: usize, reader: usize) -> (Vec<String>, Option<Refusal>) {
    let (written, expires) = (read.siblings[0].hlc, Some(WallMs(2_000_000)));
    let rewrite = Put { context: read.context, rewrites: Some(written), expires, ..put_of("lww", "a") };
    let refused = cluster.put(at, rewrite).err();
    cluster.run();
    (values(&cluster.get(reader, get_lww(3)).unwrap()), refused)
}

/// What readers see after `b` replaced `a`, and a rewrite that had read `a` came after that. The rewrite goes through a home, or through another node.
fn after_a_late_rewrite(broken: Broken, at_home: bool) -> (Vec<String>, Option<Refusal>) {
    let mut cluster = Cluster::of_broken(5, broken);
    let (homes, others) = cluster.homes(&key("lww"));
    cluster.put(homes[0], Put { w: Some(3), ..put_of("lww", "a") }).unwrap();
    let read = cluster.get(others[0], get_lww(2)).unwrap();
    // The clock of the node that takes `b` is behind, so that `b` comes as close to `a` as it can.
    cluster.walls.values_mut().for_each(|wall| wall.0 -= 5_000);
    cluster.put(homes[1], Put { w: Some(1), ..put_of("lww", "b") }).unwrap();
    cluster.walls.values_mut().for_each(|wall| wall.0 += 5_000);
    rewrite(&mut cluster, read, if at_home { homes[0] } else { others[1] }, others[0])
}

#[test]
fn a_rewrite_loses_to_what_replaced_its_value() {
    for at_home in [true, false] {
        let (shown, refused) = after_a_late_rewrite(Broken::default(), at_home);
        assert_eq!(shown, ["b"]);
        assert!(matches!(refused, Some(Refusal::StampTooLow(_))), "{refused:?}: the coordinator holds b");
    }
}

/// What readers see after `a` was deleted, epochs have passed, and a rewrite came that had read `a` before that. The rewrite goes through a home, or
/// through another node.
fn after_a_rewrite_of_what_was_collected(epochs: u64, at_home: bool) -> (Vec<String>, Option<Refusal>) {
    let mut cluster = Cluster::new(5);
    let (homes, others) = cluster.homes(&key("lww"));
    cluster.put(homes[0], Put { w: Some(3), ..put_of("lww", "a") }).unwrap();
    let read = cluster.get(others[0], get_lww(2)).unwrap();
    cluster.walls.values_mut().for_each(|wall| wall.0 += 1_000);
    let delete = Put { context: read.context.clone(), w: Some(3), ..Put::blind(key("lww"), Content::Tombstone) };
    cluster.put(homes[1], delete).unwrap();
    for epoch in 2..=1 + epochs {
        cluster.queue.extend(homes.iter().chain(&others).map(|&node| (id(node), Input::Epoch(Epoch(epoch)))));
        cluster.run();
    }
    rewrite(&mut cluster, read, if at_home { homes[0] } else { others[1] }, others[0])
}

#[test]
fn a_rewrite_does_not_bring_back_a_value_whose_delete_was_collected() {
    for (epochs, at_home) in (0..=8).flat_map(|epochs| [(epochs, true), (epochs, false)]) {
        let (shown, refused) = after_a_rewrite_of_what_was_collected(epochs, at_home);
        assert!(!shown.contains(&"a".to_owned()), "{epochs} epochs, home: {at_home}: {shown:?}");
        let expected = if epochs < 3 { "a later value" } else { "too long ago" };
        let refused = refused.map(|refused| refused.to_string()).unwrap_or_default();
        assert!(refused.contains(expected), "{epochs} epochs, home: {at_home}: {refused}");
    }
}

#[test]
fn a_rewrite_of_the_present_value_is_stored_directly_above_it() {
    let mut cluster = Cluster::new(5);
    let (homes, others) = cluster.homes(&key("lww"));
    cluster.put(homes[0], put_of("lww", "a")).unwrap();
    for (number, node) in [homes[0], others[0], homes[2], others[1]].into_iter().enumerate() {
        let read = cluster.get(node, get_lww(2)).unwrap();
        let (written, expires) = (read.siblings[0].hlc, Some(WallMs(2_000_000 + number as u64)));
        let rewrite = Put { context: read.context, rewrites: Some(written), expires, ..put_of("lww", "a") };
        cluster.put(node, rewrite).unwrap();
        let after = cluster.get(others[0], get_lww(3)).unwrap();
        assert_eq!((after.siblings[0].hlc, after.siblings[0].expires), (written.next(), expires));
    }
}

#[test]
#[cfg(feature = "mutations")]
fn a_rewrite_that_is_stamped_like_any_write_wins_over_what_replaced_its_value() {
    for at_home in [true, false] {
        assert_eq!(after_a_late_rewrite(Broken::rule(Mutation::RewritesStampedNow), at_home).0, ["a"]);
    }
}

#[test]
#[cfg(feature = "mutations")]
fn a_boot_that_begins_ahead_of_its_clock_stamps_ahead() {
    let mut cluster = Cluster::of_broken(5, Broken::rule(Mutation::BootsLead));
    let (homes, _) = cluster.homes(&key("lww"));
    cluster.restart(homes[0], 1);
    cluster.put(homes[0], put_of("lww", "a")).unwrap();
    let got = cluster.get(homes[0], get_lww(3)).unwrap();
    assert!(got.siblings[0].hlc.wall() > WallMs(1_000_500));
}

#[test]
fn a_node_that_restarts_repeatedly_stamps_by_its_clock() {
    let mut cluster = Cluster::new(5);
    let (homes, others) = cluster.homes(&key("lww"));
    cluster.restart(homes[0], 3);
    cluster.put(homes[0], put_of("lww", "a")).unwrap();
    cluster.put(homes[0], Put { content: Content::Tombstone, ..put_of("lww", "") }).unwrap();
    let deleted = cluster.get(homes[0], get_lww(3)).unwrap();
    assert_eq!(deleted.siblings[0].hlc.wall(), WallMs(1_000_000));
    cluster.walls.values_mut().for_each(|wall| wall.0 += 1_000);
    cluster.put(others[0], put_of("lww", "b")).unwrap();
    assert_eq!(values(&cluster.get(others[1], get_lww(3)).unwrap()), ["b"]);
    // Its clock is set back between two boots, below timestamps that it gave. What it holds counts.
    cluster.restart(homes[0], 1);
    cluster.walls.values_mut().for_each(|wall| wall.0 -= 3_000);
    cluster.put(homes[0], put_of("lww", "c")).unwrap();
    assert_eq!(values(&cluster.get(others[1], get_lww(3)).unwrap()), ["c"]);
}

#[test]
fn a_node_whose_clock_is_off_does_not_coordinate_a_forwarded_write() {
    let mut cluster = Cluster::new(5);
    let (homes, others) = cluster.homes(&key("lww"));
    cluster.put(homes[0], Put { w: Some(3), ..put_of("lww", "a") }).unwrap();
    for &node in &others {
        cluster.get(node, get_lww(3)).unwrap();
    }
    // The forwarded write is its first input after the jump.
    cluster.walls.insert(id(homes[0]), WallMs(4_600_000));
    cluster.put(others[0], put("b")).unwrap();
    cluster.put(others[0], put_of("lww", "b")).unwrap();
    let got = cluster.get(others[0], get_lww(2)).unwrap();
    assert_eq!(values(&got), ["b"]);
    assert_ne!(got.siblings[0].dot.actor.node, id(homes[0]));
    assert!(got.siblings[0].hlc.wall() < WallMs(2_000_000));
}

#[test]
fn the_last_write_wins_in_a_bucket_of_that_policy() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, put_of("lww", "a")).unwrap();
    cluster.put(2, put_of("lww", "b")).unwrap();
    assert_eq!(values(&cluster.get(3, Get { key: key("lww"), ..get() }).unwrap()), ["b"]);
}

#[test]
fn a_value_past_its_expiry_is_deleted() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, Put { expires: Some(WallMs(2_000_000)), ..put("a") }).unwrap();
    let got = cluster.get(1, get()).unwrap();
    assert_eq!((got.live(WallMs(1_999_999)).count(), got.live(WallMs(2_000_000)).count()), (1, 0));
}

#[test]
fn a_quorum_that_the_bucket_cannot_give_is_refused() {
    let mut cluster = Cluster::new(3);
    for bad in [Some(0), Some(4)] {
        assert!(matches!(cluster.put(1, Put { w: bad, ..put("a") }), Err(Refusal::BadRequest(_))));
        assert!(matches!(cluster.get(1, Get { r: bad, ..get() }), Err(Refusal::BadRequest(_))));
    }
    let large = Content::untyped(vec![0; 1_048_577]);
    assert_eq!(cluster.put(1, Put { content: large, ..put("") }), Err(Refusal::TooLarge(1_048_577, 1_048_576)));
}

#[test]
fn too_many_siblings_stop_blind_puts_and_nothing_else() {
    let mut cluster = Cluster::new(3);
    for value in ["a", "b", "c", "d"] {
        cluster.put(1, Put { w: Some(3), ..put(value) }).unwrap();
    }
    assert_eq!(cluster.put(1, put("e")), Err(Refusal::TooManySiblings(4)));
    let got = cluster.get(1, get()).unwrap();
    cluster.put(1, Put { context: got.context, ..put("abcd") }).unwrap();
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["abcd"]);
}

/// The key has room again when the forwarded write is delivered a second time, but its client was told that it was
/// refused.
#[test]
fn a_forwarded_write_that_was_refused_is_refused_when_it_is_delivered_again() {
    assert_eq!(after_a_refused_forward_again(Broken::default()), ["abcd"]);
}

#[test]
#[cfg(feature = "mutations")]
fn a_refused_forward_that_is_delivered_again_appears_without_the_rule() {
    assert_eq!(after_a_refused_forward_again(Broken::rule(Mutation::RefusedForwardTaken)), ["abcd", "e"]);
}

fn after_a_refused_forward_again(broken: Broken) -> Vec<String> {
    let mut cluster = Cluster::of_broken(5, broken);
    let (homes, others) = cluster.homes(&key("carts"));
    for value in ["a", "b", "c", "d"] {
        cluster.put(homes[0], Put { w: Some(3), ..put(value) }).unwrap();
    }
    cluster.forwards_kept = Some(Vec::new());
    assert_eq!(cluster.put(others[0], put("e")), Err(Refusal::TooManySiblings(4)));
    let forwards = cluster.forwards_kept.take().unwrap();
    assert!(!forwards.is_empty(), "a node that is not a home of the key forwards its writes");
    let got = cluster.get(homes[0], get()).unwrap();
    cluster.put(homes[0], Put { context: got.context, ..put("abcd") }).unwrap();
    cluster.queue.extend(forwards);
    cluster.run();
    values(&cluster.get(homes[0], get()).unwrap())
}

#[test]
fn requests_succeed_with_one_node_down_and_fail_with_two_down_if_they_need_two() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, put("a")).unwrap();
    cluster.down.insert(id(2));
    let context = cluster.get(1, get()).unwrap().context;
    cluster.put(3, Put { context, ..put("b") }).unwrap();
    assert_eq!(values(&cluster.get(3, strong_get()).unwrap()), ["b"]);
    cluster.down.insert(id(3));
    let refused = cluster.put(1, put("c"));
    assert!(matches!(refused, Err(Refusal::Unavailable(short)) if short.answered == 1 && short.needed == 2));
    assert!(matches!(cluster.get(1, get()), Err(Refusal::Unavailable(_))));
    assert!(matches!(cluster.get(1, strong_get()), Err(Refusal::Unavailable(_))));
    assert!(matches!(cluster.get(1, Get { key: key("empty"), ..get() }), Err(Refusal::Unverified(_))));
    assert!(cluster.get(1, Get { r: Some(1), ..get() }).is_ok());
}

#[test]
fn a_write_goes_to_another_home_if_the_first_cannot_store_it() {
    let mut cluster = Cluster::new(3);
    cluster.failing_writes.insert(id(1));
    let done = cluster.put(1, put("a")).unwrap();
    assert_eq!(done.acks.home, 2);
    assert_eq!(values(&cluster.get(2, get()).unwrap()), ["a"]);
    cluster.failing_writes.extend([id(2), id(3)]);
    assert!(matches!(cluster.put(1, put("b")), Err(Refusal::Unavailable(_))));
}

#[test]
fn a_home_with_a_full_disk_is_not_needed_while_others_are_enough() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, Put { w: Some(3), ..put("a") }).unwrap();
    cluster.full.insert(id(1));
    for through in 1..=3 {
        assert_eq!(cluster.put(through, Put { w: Some(2), ..put("b") }).unwrap().acks.home, 2);
    }
    assert_eq!(cluster.put(1, Put { w: Some(3), ..put("c") }), Err(Refusal::DiskFull));
    assert_eq!(values(&cluster.get(1, Get { r: Some(2), ..get() }).unwrap()), ["a", "b", "b", "b"]);
    cluster.full.clear();
    cluster.put(1, Put { w: Some(3), ..put("d") }).expect("its own disk is tried each time");
}

#[test]
fn a_write_is_refused_as_disk_full_only_if_no_node_has_stored_it() {
    let mut cluster = Cluster::new(3);
    cluster.full.extend([id(2), id(3)]);
    let refused = cluster.put(1, put("a"));
    assert!(
        matches!(&refused, Err(Refusal::Unavailable(short)) if short.why.contains("may yet appear")),
        "{refused:?}"
    );
    let held = cluster.disks[&id(1)].records.clone();
    assert!(!held.is_empty(), "the first home has stored it");
    // Now node 1 knows of the full disks, and does not store the next write first.
    assert_eq!(cluster.put(1, put("b")), Err(Refusal::DiskFull));
    let delete = Put { content: Content::Tombstone, context: None, w: Some(2), ..put("") };
    assert!(cluster.put(1, delete).is_err(), "a delete needs room too");
    assert_eq!(cluster.disks[&id(1)].records, held);
    for through in [2, 3] {
        assert_eq!(cluster.put(through, Put { w: Some(3), ..put("c") }), Err(Refusal::DiskFull));
    }
    cluster.full.clear();
    cluster.now = cluster.now + Duration::from_secs(2);
    cluster.put(1, put("d")).expect("full disks are tried again after a while");
}

/// The first node has lost its record of the key, whose value is "a" on the two others.
fn counts_once_healed(cluster: &mut Cluster) {
    // Alone, it can neither show the value nor say that there is none.
    cluster.down.extend([id(2), id(3)]);
    assert!(matches!(cluster.get(1, Get { r: Some(1), ..get() }), Err(Refusal::Unverified(_))));
    cluster.down.clear();
    assert_eq!(values(&cluster.get(1, Get { r: Some(3), ..get() }).unwrap()), ["a"], "the get waits for the heal");
    cluster.down.extend([id(2), id(3)]);
    assert_eq!(values(&cluster.get(1, Get { r: Some(1), ..get() }).unwrap()), ["a"]);
}

#[test]
fn a_record_that_the_store_finds_damaged_is_a_lost_record() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, Put { w: Some(3), ..put("a") }).unwrap();
    cluster.damaged.insert(id(1));
    counts_once_healed(&mut cluster);
}

#[test]
fn a_damaged_record_on_a_full_disk_is_not_shown_and_its_read_is_refused_in_time() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, Put { w: Some(3), ..put("a") }).unwrap();
    cluster.damaged.insert(id(1));
    cluster.full.insert(id(1));
    assert_eq!(values(&cluster.get(1, Get { r: Some(2), ..get() }).unwrap()), ["a"], "the others have it");
    assert!(matches!(cluster.get(1, Get { r: Some(3), ..get() }), Err(Refusal::Unavailable(_))));
    cluster.full.clear();
    assert_eq!(values(&cluster.get(1, Get { r: Some(3), ..get() }).unwrap()), ["a"]);
}

#[test]
fn a_get_answers_only_if_it_covers_what_its_context_has_seen() {
    let mut cluster = Cluster::new(3);
    cluster.down.insert(id(3));
    let seen = cluster.put(1, put("a")).unwrap().context;
    cluster.down.remove(&id(3));
    cluster.down.extend([id(1), id(2)]);
    // Alone, the third home does not hold what the context has seen.
    let behind = cluster.get(3, Get { r: Some(1), seen: seen.clone(), ..get() });
    assert!(matches!(behind, Err(Refusal::Unavailable(_))), "{behind:?}");
    cluster.down.remove(&id(2));
    let got = cluster.get(3, Get { r: Some(1), seen, ..get() }).unwrap();
    assert_eq!(values(&got), ["a"], "the get reads further replicas");
}

#[test]
fn a_stale_replica_is_repaired_by_a_read() {
    let mut cluster = Cluster::new(3);
    cluster.down.insert(id(3));
    cluster.put(1, put("a")).unwrap();
    cluster.down.remove(&id(3));
    let storage_key = key("carts").storage_key();
    assert!(!cluster.disks[&id(3)].records.contains_key(&storage_key));
    cluster.get(3, get()).unwrap();
    cluster.run();
    assert!(cluster.disks[&id(3)].records.contains_key(&storage_key));
    cluster.down.extend([id(1), id(2)]);
    assert_eq!(values(&cluster.get(3, Get { r: Some(1), ..get() }).unwrap()), ["a"]);
}

#[test]
fn a_damaged_record_does_not_count_until_it_is_healed() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, Put { w: Some(3), ..put("a") }).unwrap();
    let storage_key = key("carts").storage_key();
    let disk = &mut cluster.disks.get_mut(&id(1)).expect("a disk").records;
    let mut damaged = disk[&storage_key].to_vec();
    damaged[20] ^= 4;
    disk.insert(storage_key, damaged.into());
    counts_once_healed(&mut cluster);
}

#[test]
fn a_node_whose_clock_is_off_its_peers_takes_no_writes() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, Put { w: Some(3), ..put("a") }).unwrap();
    cluster.walls.insert(id(1), WallMs(1_020_000));
    cluster.get(1, Get { r: Some(3), ..get() }).unwrap();
    let refused = cluster.put(1, put("b"));
    assert!(matches!(&refused, Err(Refusal::Unavailable(short)) if short.why.contains("clock")), "{refused:?}");
    cluster.put(2, put("c")).expect("the others take writes");
}

/// All clocks agree with each other, but none with what the others reported before the jump.
#[test]
fn clocks_that_step_back_together_stop_no_writes() {
    let mut cluster = Cluster::new(5);
    // Every node hears every other.
    for bucket in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        (1..=5).for_each(|node| drop(cluster.get(node, Get { key: key(bucket), ..strong_get() }).unwrap()));
    }
    let alone = |cluster: &mut Cluster| match cluster.put(2, put_of("lww", "gloves")) {
        Err(Refusal::Unavailable(short)) => assert!(short.why.contains("clock"), "{}", short.why),
        other => panic!("a clock that jumps alone is off: {other:?}"),
    };
    cluster.walls.insert(id(2), WallMs(400_000));
    alone(&mut cluster);
    cluster.walls.values_mut().for_each(|wall| *wall = WallMs(400_000));
    // Each notices at its next step, whatever that is for.
    cluster.queue.extend((1..=5).map(|node| (id(node), Input::Tick)));
    cluster.run();
    for node in 1..=5 {
        cluster.put(node, put_of("lww", "socks")).unwrap();
    }
    cluster.walls.insert(id(2), WallMs(4_000_000));
    alone(&mut cluster);
}

#[test]
fn a_message_of_a_non_member_changes_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, put("a")).unwrap();
    let before = cluster.disks.clone();
    let merge = ReplicaRequest::Merge {
        key: key("carts"),
        state: State::from_parts(Clock::new(), [], Notes::new()),
        epoch: Epoch(1),
        heals: None,
        confirm: Confirm::Stored,
        stands_in_for: None,
    };
    let envelope = |cluster, from| Envelope {
        cluster,
        from,
        from_incarnation: Incarnation(1),
        from_boot: 1,
        sent: Now { wall: WallMs(u64::MAX), ..Now::default() },
        config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
        losses: cartwheel_core::cluster::losses::Losses::NONE,
        trace: None,
        message: Message::Request(
            RequestId { requester: Requester::Coordinator, operation: 1, round: 1 },
            merge.clone(),
        ),
    };
    for stray in [envelope(ClusterId(2), id(2)), envelope(CLUSTER, id(9))] {
        let now = Now { instant: cluster.now, wall: WallMs(1_000_000) };
        let effects = cluster.nodes.get_mut(&id(1)).expect("a node").step(now, Input::Message(stray.clone()));
        assert_eq!(effects.events, [Event::StrayMessage(stray.from)]);
        assert!(effects.sends.is_empty() && effects.stores.is_empty());
    }
    assert_eq!(cluster.disks, before);
}

#[test]
fn more_requests_than_the_limit_are_refused_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.down.extend([id(2), id(3)]);
    let request = Request { operation: Operation::Get(get()), timeout: Duration::from_secs(3) };
    let max = Limits::default().operations_max as u64;
    for client in 0..=max {
        cluster.queue.push_back((id(1), Input::Client(ClientId(1_000_000 + client), request.clone())));
    }
    cluster.run();
    let refused: Vec<_> = cluster.replies.values().collect();
    assert_eq!(refused, [&Err(Refusal::Overloaded)]);
}

#[test]
fn siblings_that_would_be_too_large_for_a_message_are_refused() {
    let mut cluster = Cluster::new(3);
    let heavy = || Put { content: Content::untyped(vec![0; 600]), ..put("") };
    let first = cluster.put(1, heavy()).unwrap();
    let refused = cluster.put(2, heavy()).unwrap_err();
    assert!(matches!(refused, Refusal::SiblingsTooLarge(1_200.., 1_000)), "{refused:?}");
    cluster.put(2, Put { context: first.context, ..heavy() }).unwrap();
}

/// Two writers that each go on from their own put's reply have every second dot of an actor, without end.
#[test]
fn contexts_of_writers_that_never_read_stay_short_and_remain_valid() {
    let mut cluster = Cluster::new(3);
    let (mut contexts, mut longest) = ([None, None], 0);
    for _ in 0..1_800 {
        for (writer, value) in ["a", "b"].into_iter().enumerate() {
            let done = cluster.put(1, Put { context: contexts[writer].take(), ..put(value) }).unwrap();
            let context = done.context.unwrap();
            longest = longest.max(context.len());
            contexts[writer] = Some(context);
        }
    }
    assert!(longest <= SEALED_BYTES_GIVEN_MAX, "{longest} bytes");
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["a", "b"], "the last write of each writer, and nothing else");
}

/// A write on an old context of a long chain replaces nothing that came after that context, and is not replaced by it.
#[test]
fn a_context_that_is_used_twice_makes_siblings_however_long_its_chain_is() {
    let mut cluster = Cluster::new(3);
    let chain = |cluster: &mut Cluster, mut context: Option<Bytes>, puts: usize| {
        for _ in 0..puts {
            context = cluster.put(1, Put { context, ..put("chain") }).unwrap().context;
        }
        context
    };
    let old = chain(&mut cluster, None, 10);
    let context = chain(&mut cluster, old.clone(), 300);
    for fork in ["fork", "fork again"] {
        cluster.put(1, Put { context: old.clone(), ..put(fork) }).unwrap();
    }
    chain(&mut cluster, context, 300);
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["chain", "fork", "fork again"]);
}

/// A put that has seen little counts like a put without a context where it would add a sibling, however often its
/// context is used.
#[test]
fn puts_on_one_old_context_are_refused_at_the_limit_of_siblings() {
    let mut cluster = Cluster::new(3);
    let old = cluster.put(1, put("a")).unwrap().context;
    let on_old = |value: &'static str| Put { context: old.clone(), w: Some(3), ..put(value) };
    for value in ["b", "c", "d", "e"] {
        cluster.put(1, on_old(value)).unwrap();
    }
    for node in [1, 2, 3] {
        assert_eq!(cluster.put(node, on_old("f")), Err(Refusal::TooManySiblings(4)));
    }
    // A put that replaces what it adds to passes, and so does one that merges the siblings.
    let own = cluster.get(1, get()).unwrap();
    assert_eq!(values(&own), ["b", "c", "d", "e"]);
    let merged = cluster.put(2, Put { context: own.context, ..put("bcde") }).unwrap();
    cluster.put(3, Put { context: merged.context, ..put("f") }).unwrap();
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["f"]);
}

/// Siblings that several coordinators took independently may exceed a key's limits together. All are kept, and a put
/// passes if it makes them no more and no larger.
#[test]
fn a_key_that_merging_has_made_too_large_takes_puts_that_make_it_no_larger() {
    let mut cluster = Cluster::new(3);
    let sized = |byte: u8, len: usize| Put { content: Content::untyped(vec![byte; len]), w: Some(1), ..put("") };
    let mut contexts = Vec::new();
    for node in [1, 2, 3] {
        cluster.down = [1, 2, 3].into_iter().filter(|&other| other != node).map(id).collect();
        contexts.push(cluster.put(node, sized(node as u8, 700)).unwrap().context);
    }
    cluster.down.clear();
    assert_eq!(cluster.get(1, Get { r: Some(3), ..get() }).unwrap().siblings.len(), 3, "more than 1,000 bytes in all");
    cluster.run();
    let larger = cluster.put(1, Put { context: contexts[0].clone(), w: Some(3), ..sized(4, 701) });
    assert!(matches!(larger, Err(Refusal::SiblingsTooLarge(..))), "{larger:?}");
    assert!(cluster.put(1, Put { w: Some(3), ..sized(5, 1) }).is_err());
    cluster.put(1, Put { context: contexts[0].clone(), w: Some(3), ..sized(6, 700) }).unwrap();
    let got = cluster.get(1, get()).unwrap();
    assert_eq!(got.siblings.len(), 3);
    cluster.put(1, Put { context: got.context, ..sized(7, 1_000) }).unwrap();
    assert_eq!(cluster.get(1, get()).unwrap().siblings.len(), 1);
}

#[test]
fn a_write_is_synced_unless_its_bucket_leaves_it_to_the_os() {
    for (bucket, synced) in [("carts", true), ("os", false)] {
        let mut cluster = Cluster::new(1);
        let request = Request {
            operation: Operation::Put(Put { w: Some(1), ..put_of(bucket, "a") }),
            timeout: Duration::from_secs(1),
        };
        let node = cluster.nodes.get_mut(&id(1)).expect("a node");
        let now = Now { instant: Instant(2), wall: WallMs(1_000_000) };
        let (read, _) = node.step(now, Input::Client(ClientId(1), request)).stores.remove(0);
        let effects = node.step(now, Input::Stored(read, StoreResult::Read(Ok(None))));
        let syncs: Vec<bool> = effects
            .stores
            .iter()
            .filter_map(|(_, command)| match command {
                StoreCommand::Write { sync, .. } => Some(*sync),
                _ => None,
            })
            .collect();
        assert_eq!(syncs, [synced], "{bucket}");
    }
}

#[test]
fn after_a_power_failure_a_home_does_not_count_until_it_has_recovered() {
    let mut cluster = Cluster::new(3);
    cluster.down.insert(id(3));
    cluster.put(1, put_of("os", "milk")).unwrap();
    // The write is on homes 1 and 2. Power fails at 1, which has not synced it; 2 is away, 3 never had it.
    cluster.lose_power(1);
    cluster.down = BTreeSet::from([id(2)]);
    let get = || Get { key: key("os"), ..get() };
    for through in [1, 3] {
        let refused = cluster.get(through, get()).unwrap_err();
        assert_eq!(refused.code(), "unverified", "an acknowledged write is not reported as absent");
        let refused = cluster.get(through, Get { consistency: Consistency::Strong, ..get() }).unwrap_err();
        assert_eq!(refused.code(), "unavailable");
    }
    cluster.down.clear();
    assert_eq!(values(&cluster.get(1, get()).unwrap()), ["milk"]);
    cluster.run();
    // Once it has recovered, it counts.
    cluster.down.insert(id(2));
    assert_eq!(values(&cluster.get(1, Get { r: Some(2), ..get() }).unwrap()), ["milk"]);
}

#[cfg(feature = "mutations")]
#[test]
fn a_home_that_counts_after_a_power_failure_hides_an_acknowledged_write() {
    let mut cluster = Cluster::new(3);
    cluster.down.insert(id(3));
    cluster.put(1, put_of("os", "milk")).unwrap();
    cluster.lose_power_and(1, Broken::rule(Mutation::CountAfterPowerLoss));
    cluster.down = BTreeSet::from([id(2)]);
    let got = cluster.get(1, Get { key: key("os"), ..get() }).expect("two homes answer");
    assert_eq!(values(&got), [""; 0], "the rule prevents this");
}

/// What R=1 finds on a home that has an older value in memory and on disk: power failed there before the present value was synced. The other homes
/// are down. The home's answers are to be the same whether it reads its disk or its memory.
fn read_after_a_power_failure(broken: Broken) -> [Result<Vec<String>, &'static str>; 2] {
    let mut cluster = Cluster::new(3);
    cluster.put(1, Put { w: Some(3), ..put_of("os", "milk") }).unwrap();
    let (synced, context) =
        (cluster.disks[&id(1)].clone(), cluster.get(1, Get { key: key("os"), ..get() }).unwrap().context);
    cluster.put(1, Put { w: Some(3), context, ..put_of("os", "bread") }).unwrap();
    let view = cluster.nodes[&id(1)].view().clone();
    let config = NodeConfig { broken, ..config(1, 2, Since::boot(2)) };
    let config = NodeConfig { limits: Limits { record_cache_bytes: 1 << 20, ..config.limits }, ..config };
    cluster.disks.insert(id(1), synced);
    cluster.nodes.insert(id(1), Node::new(config, view));
    cluster.down = [2, 3].map(id).into();
    [(); 2].map(|()| {
        let got = cluster.get(1, Get { key: key("os"), r: Some(1), ..get() });
        got.map(|got| values(&got)).map_err(|refused| refused.code())
    })
}

#[test]
fn a_record_in_memory_that_does_not_count_answers_no_read() {
    assert_eq!(read_after_a_power_failure(Broken::default()), [Err("unavailable"), Err("unavailable")]);
    #[cfg(feature = "mutations")]
    {
        let broken = Broken::rule(cartwheel_core::mutation::Mutation::AtOnceUnchecked);
        let old = read_after_a_power_failure(broken);
        assert_eq!(old, [Err("unavailable"), Ok(vec!["milk".to_owned()])], "the rule prevents this");
    }
}

/// A home answers R=1 from memory without anything else; with R=2, or a context, or strongly, it asks another.
#[test]
fn one_home_answers_at_once_where_one_is_enough() {
    let mut cluster = Cluster::new(3);
    let view = cluster.nodes[&id(1)].view().clone();
    let limits = Limits { record_cache_bytes: 1 << 20, ..config(1, 1, Since(0)).limits };
    cluster.nodes.insert(id(1), Node::new(NodeConfig { limits, ..config(1, 2, Since(0)) }, view));
    let written = cluster.put(1, Put { w: Some(3), ..put("a") }).unwrap();
    let now = Now { instant: Instant(2), wall: WallMs(1_000_000) };
    let at_once = |cluster: &mut Cluster, get: &Get| {
        cluster.nodes.get_mut(&id(1)).unwrap().read_at_once(now, Duration::ZERO, get, |found| {
            let got = found.got();
            // Whoever wants only the last value gets that of the whole reply.
            assert_eq!(found.last(), got.last(now.wall));
            got
        })
    };
    let one = Get { r: Some(1), ..get() };
    let got = at_once(&mut cluster, &one).unwrap();
    assert_eq!((values(&got), got.acks.home, got.acks.standin, got.acks.zones), (vec!["a".to_owned()], 1, 0, 1));
    assert!(got.context.is_some());
    assert!(at_once(&mut cluster, &Get { wants_context: false, ..one.clone() }).unwrap().context.is_none());
    for usual in [
        get(),
        Get { r: Some(0), ..get() },
        Get { r: Some(4), ..get() },
        Get { seen: written.context.clone(), ..one.clone() },
        Get { consistency: Consistency::Strong, ..one.clone() },
        Get { key: key("absent"), ..one.clone() },
    ] {
        assert!(at_once(&mut cluster, &usual).is_none(), "{usual:?}");
    }
    // While the key is being written, a read waits for the write.
    cluster.slow = [2, 3].map(id).into();
    let request = Request { operation: Operation::Put(put("b")), timeout: Duration::from_secs(1) };
    cluster.nodes.get_mut(&id(1)).unwrap().step(now, Input::Client(ClientId(99), request));
    assert!(at_once(&mut cluster, &one).is_none());
}

/// What a strong get finds after a home that lost a write ran an exchange only with a home that never had it.
fn read_after_comparing_with_another_that_lacks_it(broken: Broken) -> Result<Vec<String>, Refusal> {
    let mut cluster = Cluster::new(3);
    cluster.down.insert(id(3));
    cluster.put(1, put_of("os", "milk")).unwrap();
    cluster.lose_power_and(1, broken);
    cluster.down = BTreeSet::from([id(2)]);
    cluster.pass(Duration::from_secs(120));
    let got = cluster.get(1, Get { key: key("os"), ..strong_get() });
    got.map(|got| values(&got))
}

#[test]
fn an_exchange_with_one_other_home_is_not_enough_to_count_again() {
    let refused = read_after_comparing_with_another_that_lacks_it(Broken::default()).unwrap_err();
    assert_eq!(refused.code(), "unavailable");
    #[cfg(feature = "mutations")]
    {
        let broken = Broken::rule(cartwheel_core::mutation::Mutation::ExchangeCountsAmnesiac);
        let nothing = read_after_comparing_with_another_that_lacks_it(broken);
        assert_eq!(nothing, Ok(Vec::new()), "an acknowledged write is reported as absent");
    }
}

#[test]
fn all_homes_together_recover_when_power_fails_everywhere() {
    let mut cluster = Cluster::new(3);
    cluster.put(1, put_of("os", "milk")).unwrap();
    cluster.run();
    for node in 1..=3 {
        let kept = cluster.disks[&id(node)].clone();
        cluster.lose_power(node);
        // Only node 2's operating system had written its data by then.
        cluster.disks.insert(id(node), if node == 2 { kept } else { Image::default() });
    }
    let get = || Get { key: key("os"), ..get() };
    // The first get may find no home that counts. It starts their recovery.
    let _ = cluster.get(1, get());
    for through in 1..=3 {
        assert_eq!(values(&cluster.get(through, Get { r: Some(3), ..get() }).unwrap()), ["milk"]);
    }
    // A write after that begins a new actor, so lost dots are not made again.
    cluster.put(1, put_of("os", "bread")).unwrap();
    assert_eq!(values(&cluster.get(2, Get { r: Some(3), ..get() }).unwrap()), ["bread", "milk"]);
}

/// A home stores a write, loses its record, and recovers from homes that do not have the write yet. Its answer before
/// the loss says nothing about what it holds now.
#[test]
fn a_write_does_not_count_a_home_that_has_lost_it_and_recovered_meanwhile() {
    let mut cluster = Cluster::new(3);
    cluster.slow = [2, 3].map(id).into();
    cluster.clients += 1;
    let writer = ClientId(cluster.clients);
    let request = Request { operation: Operation::Put(put("a")), timeout: Duration::from_secs(3) };
    cluster.queue.push_back((id(1), Input::Client(writer, request)));
    cluster.run();
    assert!(cluster.replies.is_empty(), "one home is not enough");
    // The requests to the other homes are lost.
    cluster.slow.clear();
    cluster.held_back.clear();
    cluster.damaged.insert(id(1));
    assert!(values(&cluster.get(1, get()).unwrap()).is_empty());
    assert_eq!(cluster.get(1, Get { r: Some(3), ..get() }).unwrap().acks.home, 3, "it has recovered");
    // The write is sent again, and reaches the third home.
    cluster.slow.insert(id(2));
    for _ in 0..1_000 {
        if !cluster.replies.contains_key(&writer) {
            cluster.pass_time();
            cluster.run();
        }
    }
    let outcome = cluster.replies.remove(&writer);
    assert!(matches!(outcome, Some(Ok(Reply::Put(_)))), "{outcome:?}");
    cluster.slow.clear();
    cluster.held_back.clear();
    cluster.down.insert(id(3));
    assert_eq!(values(&cluster.get(2, strong_get()).unwrap()), ["a"]);
}

/// What a node's disk holds of a key.
fn copied(cluster: &Cluster, node: usize, key: &Key) -> State {
    let storage_key = key.storage_key();
    let read = cluster.disks[&id(node)].records.get(&storage_key);
    read.map_or_else(State::default, |bytes| Record::decode(bytes, &storage_key).expect("a sound record").state)
}

fn restore(cluster: &mut Cluster, node: usize, key: Key, state: State) -> Result<PutDone, Refusal> {
    match cluster.request(node, Operation::Restore(Restore { key, state }))? {
        Reply::Put(done) => Ok(done),
        other => panic!("a restore was answered with {other:?}"),
    }
}

#[test]
fn a_restored_key_reaches_every_home_as_it_was_though_one_was_down() {
    let mut old = Cluster::new(3);
    let seen = old.put(1, put("replaced")).unwrap().context;
    old.put(2, Put { context: seen, expires: Some(WallMs(u64::MAX >> 20)), ..put("a") }).unwrap();
    old.put(3, put("b")).unwrap();
    old.pass(Duration::from_secs(60));
    let state = copied(&old, 1, &key("carts"));
    assert_eq!(state.siblings().len(), 2);

    let mut cluster = Cluster::new(5);
    let (homes, others) = cluster.homes(&key("carts"));
    cluster.down.insert(id(homes[0]));
    let done = restore(&mut cluster, others[0], key("carts"), state.clone()).unwrap();
    assert_eq!((done.acks.home, done.acks.standin, done.context), (2, 0, None), "through a node that is no home");
    cluster.down.clear();
    cluster.pass(Duration::from_secs(120));
    for &home in &homes {
        assert_eq!(copied(&cluster, home, &key("carts")), state, "home {home}");
    }
    // Once more is harmless.
    restore(&mut cluster, homes[0], key("carts"), state.clone()).unwrap();
    assert_eq!(copied(&cluster, homes[0], &key("carts")), state);
    // A write that has seen the restored siblings replaces them.
    let context = cluster.get(others[1], get()).unwrap().context;
    cluster.put(others[1], Put { context, ..put("c") }).unwrap();
    assert_eq!(values(&cluster.get(others[0], Get { r: Some(3), ..get() }).unwrap()), ["c"]);

    cluster.down = homes[..2].iter().map(|&home| id(home)).collect();
    assert_eq!(restore(&mut cluster, others[0], key("carts"), state).unwrap_err().code(), "unavailable");
}

#[test]
fn what_was_written_since_a_backup_survives_its_restore() {
    let mut cluster = Cluster::new(3);
    let seen = cluster.put(1, put("a")).unwrap().context;
    cluster.run();
    let state = copied(&cluster, 1, &key("carts"));
    cluster.put(2, Put { context: seen, ..put("b") }).unwrap();
    cluster.put(3, put("c")).unwrap();
    restore(&mut cluster, 2, key("carts"), state).unwrap();
    assert_eq!(values(&cluster.get(1, Get { r: Some(3), ..get() }).unwrap()), ["b", "c"], "a was replaced");
}

/// The backup's clock names an actor of this very node. After the key was collected, the node writes it under another.
#[test]
fn a_restore_of_a_collected_key_brings_back_no_dot_that_a_later_write_has() {
    let mut cluster = Cluster::new(3);
    let write = |cluster: &mut Cluster, value| cluster.put(1, put(value)).unwrap();
    let context = write(&mut cluster, "a").context;
    cluster.run();
    let state = copied(&cluster, 1, &key("carts"));
    cluster.put(1, Put { context, ..delete() }).unwrap();
    cluster.pass(Duration::from_secs(1));
    for epoch in 2..=14 {
        cluster.queue.extend((1..=3).map(|node| (id(node), Input::Epoch(Epoch(epoch)))));
        cluster.run();
        cluster.pass(Duration::from_secs(1));
    }
    assert!(copied(&cluster, 1, &key("carts")).is_empty(), "nothing remembers the key");
    write(&mut cluster, "b");
    restore(&mut cluster, 2, key("carts"), state).unwrap();
    write(&mut cluster, "c");
    assert_eq!(values(&cluster.get(1, Get { r: Some(3), ..get() }).unwrap()), ["a", "b", "c"]);
    let dots: BTreeSet<_> = copied(&cluster, 1, &key("carts")).siblings().map(|held| held.dot).collect();
    assert_eq!(dots.len(), 3);
}

#[test]
fn a_home_sums_up_its_partition_and_any_change_shows() {
    let mut cluster = Cluster::new(3);
    let partition = cluster.nodes[&id(1)].view().ring.partition_of(key("carts").token());
    let sums = |cluster: &mut Cluster, node: usize| {
        cluster.pass(Duration::from_secs(5));
        cluster.nodes[&id(node)].partition_sums(partition, 3)
    };
    cluster.put(1, Put { w: Some(3), ..put("a") }).unwrap();
    let before = sums(&mut cluster, 1).unwrap();
    assert_eq!(
        (before.size.keys, before.level, before.sums.len()),
        (1, before.depth, 16_usize.pow(before.level.into()))
    );
    let expected = ContentDigest::of(&key("carts").storage_key(), &copied(&cluster, 1, &key("carts"))).to_u128();
    assert_eq!(before.sums.iter().map(|sum| sum.digests).collect::<Vec<_>>(), [expected]);
    assert_eq!(sums(&mut cluster, 2).unwrap(), before, "equal replicas have equal sums");
    cluster.put(2, Put { w: Some(3), ..put("b") }).unwrap();
    let after = sums(&mut cluster, 1).unwrap();
    assert!(after.sums != before.sums && after.size.keys == 1);
}
