//! Sloppy quorums: stand-ins and their hints, while nodes are down, leave, or change their configuration; on a perfect
//! network and perfect disks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::cluster::configuration::{ConfigPhase, Configuration, Home};
use cartwheel_core::cluster::liveness::{Liveness, PeerStatus, Status, Why};
use cartwheel_core::cluster::membership::{ChangeKind, Conflict, History, Member, SettingsPatch, View};
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::cluster::sizes::Backlog;
use cartwheel_core::config::NodeConfig;
use cartwheel_core::event::Event;
use cartwheel_core::message::client::{
    Acks, ClientId, Consistency, Get, Operation, Outcome, Put, PutDone, Refusal, ReplicaContents, Reply, Request,
};
use cartwheel_core::message::{Confirm, Envelope, Message, ReplicaRequest, RequestId, Requester, Role};
use cartwheel_core::mutation::Broken;
use cartwheel_core::node::{Input, Node};
use cartwheel_core::reconfiguration::partition_state_name;
use cartwheel_core::replica::hint;
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::image::Image;
use cartwheel_core::store::record::Record;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Epoch;
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::wire;

use crate::pair::{blind_put, config, history, id, key, member, state};

const NODES: usize = 5;

struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    disks: BTreeMap<NodeId, Image>,
    wakes: BTreeMap<NodeId, Instant>,
    down: BTreeSet<NodeId>,
    /// All others know of these nodes that they drain.
    draining: Vec<NodeId>,
    queue: VecDeque<(NodeId, Input)>,
    /// Replicas' answers to this node are held back while it is a home of this key.
    held_back: Option<(NodeId, Key)>,
    late: Vec<(NodeId, Input)>,
    /// Replicas' answers to this node are held back.
    hears_late: Option<NodeId>,
    replies: BTreeMap<ClientId, Outcome>,
    events: Vec<(NodeId, Event)>,
    drained: BTreeMap<NodeId, bool>,
    /// Writes to these nodes' replicas are lost.
    unwritten: BTreeSet<NodeId>,
    /// How many of the next forwarded writes are lost, and how many of the answers to them.
    lost_forwards: (usize, usize),
    /// How many forwarded writes and answers to them have arrived.
    forwards: (usize, usize),
    history: History,
    now: Instant,
    clients: u64,
}

impl Cluster {
    /// Unless `tune` sets it otherwise, nodes run no exchanges, so only hints move data.
    fn new(tune: impl Fn(usize, &mut NodeConfig)) -> Self {
        Self::with_nodes(NODES, tune)
    }

    /// [`Self::new`], with so many nodes at first.
    fn with_nodes(nodes: usize, tune: impl Fn(usize, &mut NodeConfig)) -> Self {
        let history = history(nodes, 32);
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            wakes: BTreeMap::new(),
            down: BTreeSet::new(),
            draining: Vec::new(),
            queue: VecDeque::new(),
            held_back: None,
            late: Vec::new(),
            hears_late: None,
            replies: BTreeMap::new(),
            events: Vec::new(),
            drained: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            lost_forwards: (0, 0),
            forwards: (0, 0),
            history,
            now: Instant(1),
            clients: 0,
        };
        (1..=nodes).for_each(|node| cluster.start(node, &tune));
        cluster.run();
        cluster
    }

    fn start(&mut self, node: usize, tune: impl Fn(usize, &mut NodeConfig)) {
        self.start_again(node, 1, tune);
    }

    /// Boots a node with the partition states that its disk holds.
    fn start_again(&mut self, node: usize, boot: u32, tune: impl Fn(usize, &mut NodeConfig)) {
        let partition_state = |partition: PartitionId| {
            let saved = self.disks.get(&id(node))?.named.get(partition_state_name(partition).as_bytes())?;
            Some((partition, wire::decode_partition_state(saved).expect("a partition state")))
        };
        let partition_states = self.view().ring.partitions().iter().filter_map(partition_state).collect();
        let mut config = NodeConfig { partition_states, ..config(node, boot, None) };
        tune(node, &mut config);
        self.nodes.insert(id(node), Node::new(config, self.view()));
        self.queue.push_back((id(node), Input::Tick));
    }

    fn leaves(&mut self, node: usize) {
        self.nodes.remove(&id(node));
        self.wakes.remove(&id(node));
    }

    fn view(&self) -> Arc<View> {
        Arc::new(self.history.view().expect("a cluster with its bootstrap"))
    }

    /// All nodes learn of a change of the cluster.
    fn change(&mut self, kind: ChangeKind) {
        self.history.record(Hlc::at(WallMs(2)), id(1), kind);
        let view = self.view();
        self.queue.extend(self.nodes.keys().map(|&node| (node, Input::View(view.clone()))));
        self.run();
    }

    /// Only these nodes are down, and all others know it.
    fn down(&mut self, down: &[NodeId]) {
        self.down = down.iter().copied().collect();
        let peer_status = |node: &NodeId| {
            let status = if self.down.contains(node) { Status::Down } else { Status::Alive };
            (*node, PeerStatus { status, since: WallMs(1), why: Why::Heard })
        };
        let known: BTreeSet<NodeId> = self.nodes.keys().copied().chain(self.down.iter().copied()).collect();
        let draining = self.draining.iter().copied();
        let liveness = Arc::new(Liveness::new(known.iter().map(peer_status)).with_draining(draining));
        self.queue.extend(self.nodes.keys().map(|&node| (node, Input::Liveness(liveness.clone()))));
        self.run();
    }

    fn run(&mut self) {
        while let Some((node, input)) = self.queue.pop_front() {
            let Some(machine) = self.nodes.get_mut(&node).filter(|_| !self.down.contains(&node)) else { continue };
            let wall = WallMs(1_000_000 + self.now.since(Instant::default()).as_millis() as u64);
            let effects = machine.step(Now { instant: self.now, wall }, input);
            for (store, command) in effects.stores {
                let result = self.disks.entry(node).or_default().execute(&command);
                self.queue.push_back((node, Input::Stored(store, result)));
            }
            for (to, envelope) in effects.sends {
                let arrived = wire::decode_envelope(wire::encode_envelope(&envelope)).expect("a frame of our own");
                if matches!(arrived.message, Message::Request(_, ReplicaRequest::Merge { .. }))
                    && self.unwritten.contains(&to)
                {
                    continue;
                }
                let (lost, arrivals) = (&mut self.lost_forwards, &mut self.forwards);
                let forward = match arrived.message {
                    Message::Forward(..) => Some((&mut lost.0, &mut arrivals.0)),
                    Message::Forwarded(..) => Some((&mut lost.1, &mut arrivals.1)),
                    _ => None,
                };
                if let Some((lost, arrived)) = forward {
                    if *lost > 0 {
                        *lost -= 1;
                        continue;
                    }
                    *arrived += 1;
                }
                let is_answer = matches!(arrived.message, Message::Response(..));
                let is_held_back = self.held_back.as_ref().is_some_and(|(node, _)| *node == to);
                let is_late = is_answer && (is_held_back || self.hears_late == Some(to));
                let arrived = (to, Input::Message(arrived));
                if is_late { self.late.push(arrived) } else { self.queue.push_back(arrived) }
            }
            if let Some((held_back, key)) = &self.held_back
                && !self.nodes[held_back].held().is_home(key)
            {
                self.held_back = None;
                self.queue.extend(std::mem::take(&mut self.late));
            }
            if !effects.phases.is_empty() {
                let others = self.nodes.keys().filter(|&&other| other != node);
                self.queue.extend(others.map(|&other| (other, Input::Phases(effects.phases.clone()))));
            }
            self.replies.extend(effects.replies);
            self.drained.extend(effects.drained.map(|is_drained| (node, is_drained)));
            self.events.extend(effects.events.into_iter().map(|event| (node, event)));
            self.wakes.insert(node, effects.wake_at.expect("a node always wants to be woken some time"));
        }
    }

    fn tick(&mut self) {
        let up = self.wakes.iter().filter(|(node, _)| !self.down.contains(node));
        let (&node, &at) = up.min_by_key(|(_, at)| **at).expect("a node that is up");
        self.now = self.now.max(at) + Duration::from_micros(1);
        self.queue.push_back((node, Input::Tick));
        self.run();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    fn ask(&mut self, node: NodeId, operation: Operation) -> Outcome {
        self.clients += 1;
        let client = ClientId(self.clients);
        let request = Request { operation, timeout: Duration::from_secs(10) };
        self.queue.push_back((node, Input::Client(client, request)));
        for _ in 0..10_000 {
            self.run();
            if let Some(outcome) = self.replies.remove(&client) {
                return outcome;
            }
            self.tick();
        }
        panic!("the request was never answered");
    }

    fn put(&mut self, node: NodeId, key: &Key, w: u8) -> Result<PutDone, Refusal> {
        match self.ask(node, Operation::Put(blind_put(key, Some(w))))? {
            Reply::Put(done) => Ok(done),
            other => panic!("a put was answered with {other:?}"),
        }
    }

    /// Begins a write by a client of a node, which waits this long.
    fn begin_put(&mut self, node: NodeId, key: &Key, w: u8, timeout: Duration) -> ClientId {
        self.clients += 1;
        let client = ClientId(self.clients);
        let request = Request { operation: Operation::Put(blind_put(key, Some(w))), timeout };
        self.queue.push_back((node, Input::Client(client, request)));
        self.run();
        client
    }

    /// The number of values that a node's client is shown.
    fn get(&mut self, node: NodeId, key: &Key, r: u8) -> Result<usize, Refusal> {
        let get =
            Get { key: key.clone(), consistency: Consistency::Eventual, r: Some(r), seen: None, wants_context: true };
        match self.ask(node, Operation::Get(get))? {
            Reply::Got(got) => Ok(got.siblings.len()),
            other => panic!("a get was answered with {other:?}"),
        }
    }

    /// The homes of a key, and its stand-ins in their order.
    fn places(&self, key: &Key) -> (Vec<NodeId>, Vec<NodeId>) {
        let view = self.view();
        let partition = view.ring.partition_of(key.token());
        let homes = view.ring.homes(partition, 3).to_vec();
        let list = view.ring.preference_list(partition, 3).map(|replica| replica.node());
        (homes.clone(), list.filter(|node| !homes.contains(node)).collect())
    }

    fn record(&self, node: NodeId, key: &Key) -> Option<Record> {
        let storage_key = key.storage_key();
        let bytes = self.disks.get(&node)?.records.get(&storage_key)?;
        Some(Record::decode(bytes, &storage_key).expect("a sound record"))
    }

    fn owed(&self, node: NodeId, key: &Key) -> Vec<NodeId> {
        self.record(node, key).into_iter().flat_map(|record| record.header.owed.into_keys()).collect()
    }

    /// Checks that there are no hints, and that exactly the homes of each key hold a state, all the same one.
    fn assert_settled(&self, keys: &[Key]) {
        for key in keys {
            let holders: BTreeSet<NodeId> =
                self.nodes.keys().copied().filter(|&node| self.record(node, key).is_some()).collect();
            assert_eq!(holders, self.places(key).0.into_iter().collect(), "{key:?}");
            let states: Vec<_> = holders.iter().filter_map(|&node| self.record(node, key)).collect();
            assert!(states.iter().all(|record| record.state == states[0].state && record.header.owed.is_empty()));
        }
        let (first, end) = hint::all();
        for disk in self.disks.values() {
            assert_eq!(disk.index.range(first.clone()..end.clone()).count(), 0);
        }
    }
}

fn acks(home: u32, standin: u32) -> Acks {
    Acks { home, standin, zones: 1 }
}

#[test]
fn a_hint_is_delivered_to_its_home_and_reported_in_events() {
    let mut cluster = Cluster::new(|_, _| {});
    let (homes, standins) = cluster.places(&key(1));
    cluster.down(&homes[2..]);
    assert_eq!(cluster.put(homes[0], &key(1), 3).unwrap().acks, acks(2, 1));
    assert_eq!(cluster.owed(standins[0], &key(1)), [homes[2]]);
    let held = |cluster: &Cluster| {
        let backlog = cluster.events.iter().rev().find_map(|(node, event)| match event {
            Event::HintsHeld { home, now, .. } if *node == standins[0] => Some((*home, *now)),
            _ => None,
        });
        backlog.unwrap()
    };
    let (home, Backlog { records, bytes }) = held(&cluster);
    assert!(home == homes[2] && records == 1 && bytes > 0);
    cluster.down(&[]);
    cluster.pass(Duration::from_secs(10));
    cluster.assert_settled(&[key(1)]);
    assert_eq!(held(&cluster), (homes[2], Backlog::default()));
    let delivered = cluster.events.iter().filter(|(_, event)| *event == Event::HintDelivered(homes[2])).count();
    assert_eq!(delivered, 1);
}

/// Requests and repairs of exchanges and reads make no home late, so every home takes each write itself.
#[test]
fn a_healthy_cluster_at_low_load_leaves_no_hints() {
    let mut cluster = Cluster::new(comparing);
    let keys: Vec<Key> = (0..40).map(key).collect();
    for (number, key) in keys.iter().enumerate() {
        let homes = cluster.places(key).0;
        // One home holds what the others lack. Exchanges repair half of the keys, and the first read the others.
        let ask = ReplicaRequest::Merge {
            key: key.clone(),
            state: state(number, 1),
            epoch: Epoch::FIRST,
            heals: None,
            confirm: Confirm::Stored,
            stands_in_for: None,
        };
        cluster.queue.push_back((homes[0], Input::Message(asked_by(homes[1], ask))));
        cluster.run();
        if number % 2 == 0 {
            cluster.get(homes[1], key, 3).unwrap();
        }
    }
    for key in &keys {
        cluster.pass(Duration::from_millis(100));
        let (homes, stand_ins) = cluster.places(key);
        let done = cluster.put(homes[0], key, 3).unwrap();
        assert_eq!(done.acks, acks(3, 0));
        assert!(stand_ins.iter().all(|&node| cluster.owed(node, key).is_empty()), "{key:?}");
    }
}

#[test]
fn a_stand_in_at_its_limit_of_hints_is_skipped_for_the_next() {
    let full = Cluster::new(|_, _| {}).places(&key(1)).1[0];
    let mut cluster = Cluster::new(|node, config| {
        if id(node) == full {
            config.limits.hint_bytes_max = 1;
        }
    });
    let (homes, standins) = cluster.places(&key(1));
    cluster.down(&homes[2..]);
    // One record is taken, because no hints were kept so far. That reaches the limit.
    let same: Vec<Key> =
        (1..400).map(key).filter(|key| cluster.places(key) == (homes.clone(), standins.clone())).collect();
    let [first, second, ..] = &same[..] else { panic!("too few keys of one partition") };
    cluster.put(homes[0], first, 3).unwrap();
    assert_eq!(cluster.owed(full, first), [homes[2]]);
    assert!(cluster.events.contains(&(full, Event::HintsFull { is_full: true, bytes_max: 1 })));
    assert_eq!(cluster.put(homes[0], second, 3).unwrap().acks, acks(2, 1), "no write is refused");
    assert_eq!(cluster.record(full, second), None);
    assert_eq!(cluster.owed(standins[1], second), [homes[2]]);
    // A record that is already kept may grow: no acknowledged write is dropped.
    cluster.put(homes[0], first, 3).unwrap();
    assert_eq!(cluster.record(full, first).map(|record| record.state.siblings().len()), Some(2));
    // It also coordinates no write as a stand-in while other nodes can.
    cluster.down(&homes);
    assert_eq!(cluster.put(full, second, 1).unwrap().acks, acks(0, 1));
    assert_eq!(cluster.record(full, second), None);

    cluster.down(&[]);
    cluster.pass(Duration::from_secs(20));
    cluster.assert_settled(&[first.clone(), second.clone()]);
    assert!(cluster.events.contains(&(full, Event::HintsFull { is_full: false, bytes_max: 1 })));
}

/// Candidates copy by exchanges.
fn comparing(_: usize, config: &mut NodeConfig) {
    config.timing.exchange_every = Some(Duration::from_secs(1));
}

/// Keys written while `gone` was down, so that stand-ins keep hints for it. For the first third, the others did not
/// know that it was down.
fn written_without(cluster: &mut Cluster, gone: NodeId) -> Vec<Key> {
    let keys: Vec<Key> = (0..200).map(key).filter(|key| cluster.places(key).0.contains(&gone)).collect();
    assert!(keys.len() > 80);
    cluster.down = BTreeSet::from([gone]);
    for (number, key) in keys.iter().enumerate() {
        if number == keys.len() / 3 {
            cluster.down(&[gone]);
        }
        let other = cluster.places(key).0.into_iter().find(|&home| home != gone).expect("another home");
        assert_eq!(cluster.put(other, key, 3).unwrap().acks, acks(2, 1));
        let keeper = cluster.places(key).1[0];
        assert_eq!(cluster.owed(keeper, key), [gone]);
    }
    keys
}

#[test]
fn hints_for_a_replaced_home_go_to_the_node_that_replaces_it() {
    let mut cluster = Cluster::new(comparing);
    let keys = written_without(&mut cluster, id(2));
    cluster.change(ChangeKind::Replace { old: id(2), new: member(6) });
    cluster.leaves(2);
    cluster.start(6, comparing);
    cluster.down(&[id(2)]);
    cluster.pass(Duration::from_secs(60));
    cluster.change(ChangeKind::Left { node: id(2), incarnation: Incarnation(2) });
    cluster.down(&[]);
    cluster.pass(Duration::from_secs(20));
    assert!(keys.iter().all(|key| cluster.places(key).0.contains(&id(6))));
    cluster.assert_settled(&keys);
}

#[test]
fn a_dead_home_is_replaced_if_some_keys_have_an_even_number_of_homes() {
    for n in [2, 4] {
        let mut cluster = Cluster::new(comparing);
        let even = SettingsPatch { n: Some(n), r: Some(1), w: Some(n), ..SettingsPatch::default() };
        cluster.change(ChangeKind::Bucket { name: "even".into(), settings: even });
        cluster.pass(Duration::from_secs(60));
        cluster.down(&[id(2)]);
        cluster.change(ChangeKind::Replace { old: id(2), new: member(6) });
        cluster.leaves(2);
        cluster.start(6, comparing);
        cluster.down(&[id(2)]);
        cluster.pass(Duration::from_secs(120));
        for (node, partition_state) in cluster.nodes.iter().flat_map(|(id, node)| {
            node.held().partition_states().map(move |(_, partition_state)| (id, partition_state))
        }) {
            let is_over = partition_state.phase.next().is_none() && !partition_state.phase.nodes().contains(&id(2));
            assert!(
                is_over || !partition_state.phase.nodes().contains(node),
                "n={n}: {node} is still a home in {:?}",
                partition_state.phase
            );
        }
    }
}

#[test]
fn hints_for_a_home_that_leaves_go_to_the_new_homes() {
    let mut cluster = Cluster::new(comparing);
    let keys = written_without(&mut cluster, id(2));
    let keepers: Vec<NodeId> = keys.iter().map(|key| cluster.places(key).1[0]).collect();
    cluster.change(ChangeKind::Remove { node: id(2), incarnation: Incarnation(2) });
    cluster.leaves(2);
    let is_home = |(key, keeper): (&Key, &NodeId)| cluster.places(key).0.contains(keeper);
    let stays = keys.iter().zip(&keepers).map(is_home).collect::<BTreeSet<bool>>();
    assert!(stays.contains(&true), "some keepers become homes");
    cluster.down(&[id(2)]);
    cluster.pass(Duration::from_secs(60));
    cluster.change(ChangeKind::Left { node: id(2), incarnation: Incarnation(2) });
    cluster.down(&[]);
    cluster.pass(Duration::from_secs(20));
    for key in &keys {
        let lacking = |home: &NodeId| cluster.record(*home, key).is_none();
        assert_eq!(cluster.places(key).0.into_iter().filter(lacking).collect::<Vec<_>>(), [], "{key:?}");
        assert!((1..=NODES).all(|node| cluster.owed(id(node), key).is_empty()), "{key:?}");
    }
}

#[test]
fn a_strong_write_that_began_on_a_former_home_is_carried_out_by_the_new_homes() {
    let mut cluster = Cluster::new(comparing);
    let (homes, _) = cluster.places(&key(1));
    let leaver = (1..=NODES).find(|&node| id(node) == homes[0]).expect("one of them");
    cluster.put(homes[0], &key(1), 3).unwrap();
    // It reads the other homes, and is no longer a home when they answer.
    cluster.held_back = Some((homes[0], key(1)));
    cluster.change(ChangeKind::Remove { node: homes[0], incarnation: Incarnation(leaver as u64) });
    let put = Put { consistency: Consistency::Strong, ..blind_put(&key(1), None) };
    let Ok(Reply::Put(done)) = cluster.ask(homes[0], Operation::Put(put)) else { panic!("it was refused") };
    assert!(cluster.held_back.is_none(), "it was no longer a home when it was answered");
    assert!(done.acks.standin == 0 && done.acks.home >= 2, "{:?}", done.acks);
}

/// A strong write whose other homes become unreachable after they were read, and then a strong read on one of them.
fn strong_on_both_sides(broken: Broken) -> (Result<Reply, Refusal>, Result<Reply, Refusal>) {
    let mut cluster = Cluster::new(|_, config| config.broken = broken);
    let (homes, standins) = cluster.places(&key(1));
    cluster.unwritten = homes[1..].iter().copied().collect();
    let put = Put { consistency: Consistency::Strong, ..blind_put(&key(1), None) };
    let written = cluster.ask(homes[0], Operation::Put(put));
    cluster.down(&[&homes[..1], &standins[..]].concat());
    let get = Get { key: key(1), consistency: Consistency::Strong, r: None, seen: None, wants_context: true };
    let read = cluster.ask(homes[1], Operation::Get(get));
    (written, read)
}

#[test]
fn a_strong_write_counts_only_homes() {
    let (written, read) = strong_on_both_sides(Broken::default());
    assert!(matches!(written, Err(Refusal::Unavailable(_))), "{written:?}");
    assert!(matches!(&read, Ok(Reply::Got(got)) if got.siblings.is_empty()), "{read:?}");
    #[cfg(feature = "mutations")]
    {
        let broken = Broken::rule(cartwheel_core::mutation::Mutation::StandInCountsForStrong);
        let (written, read) = strong_on_both_sides(broken);
        assert!(matches!(written, Ok(Reply::Put(_))), "{written:?}");
        assert!(
            matches!(&read, Ok(Reply::Got(got)) if got.siblings.is_empty()),
            "the acknowledged write is missing: {read:?}"
        );
    }
}

#[test]
fn with_w_1_a_single_node_of_five_takes_writes_for_every_key_and_reads_them_back() {
    let mut cluster = Cluster::new(|_, _| {});
    let keys: Vec<Key> = (0..200).map(key).collect();
    let roles: BTreeSet<bool> = keys.iter().map(|key| cluster.places(key).0.contains(&id(4))).collect();
    assert_eq!(roles.len(), 2, "it is a home of some and of others not");
    cluster.down(&[1, 2, 3, 5].map(id));
    for key in &keys {
        let done = cluster.put(id(4), key, 1).unwrap();
        assert_eq!(done.acks.home + done.acks.standin, 1, "{key:?}");
        let read = cluster.get(id(4), key, 1);
        let is_home = cluster.places(key).0.contains(&id(4));
        assert!(read == Ok(1), "{key:?}, home {is_home}: {read:?}");
    }
    assert!(matches!(cluster.get(id(4), &key(1_000), 3), Err(Refusal::Unavailable(_) | Refusal::Unverified(_))));
    assert!(matches!(cluster.put(id(4), &keys[0], 2), Err(Refusal::Unavailable(_))), "W is still required");
    cluster.down(&[]);
    cluster.pass(Duration::from_secs(30));
    // Each write is on a home now. Anti-entropy brings it to the other homes.
    for key in &keys {
        assert!(cluster.owed(id(4), key).is_empty(), "{key:?}");
        assert!(cluster.places(key).0.iter().any(|&home| cluster.record(home, key).is_some()), "{key:?}");
    }
}

#[test]
fn a_read_of_what_a_client_saw_long_ago_needs_a_home_and_not_only_stand_ins() {
    let mut cluster = Cluster::new(comparing);
    let (homes, standins) = cluster.places(&key(1));
    let seen = cluster.put(homes[0], &key(1), 3).unwrap().context.expect("a context");
    // What the client saw is on every home by now, so reads no longer check it.
    for epoch in 2..=5 {
        let nodes: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        cluster.queue.extend(nodes.into_iter().map(|node| (node, Input::Epoch(Epoch(epoch)))));
        cluster.run();
    }
    cluster.down(&homes);
    cluster.put(standins[0], &key(1), 1).unwrap();
    let mut get = |seen| {
        let get = Get { key: key(1), consistency: Consistency::Eventual, r: Some(1), seen, wants_context: true };
        cluster.ask(standins[0], Operation::Get(get))
    };
    let Ok(Reply::Got(got)) = get(None) else { panic!("a client without a context is shown what is there") };
    assert_eq!(got.siblings.len(), 1, "it holds nothing of the first write");
    assert!(
        matches!(get(Some(seen)), Err(Refusal::Unavailable(_))),
        "the answer would be older than what the client has seen"
    );
}

#[test]
fn an_inspection_shows_what_each_replica_holds_and_repairs_none() {
    let mut cluster = Cluster::new(|_, _| {});
    let (homes, standins) = cluster.places(&key(1));
    // How many versions a replica holds; none if it does not answer.
    let inspect = |cluster: &mut Cluster| -> BTreeMap<NodeId, (Role, Option<usize>)> {
        let outcome = cluster.ask(homes[0], Operation::Inspect(key(1)));
        let Ok(Reply::Inspected(inspected)) = outcome else { panic!("an inspection was answered with {outcome:?}") };
        let held = |contents: &ReplicaContents| match contents {
            ReplicaContents::Held { versions, is_recovering: false, .. } => Some(versions.len()),
            ReplicaContents::Silent => None,
            other => panic!("{other:?}"),
        };
        inspected.replicas.iter().map(|replica| (replica.node, (replica.role, held(&replica.contents)))).collect()
    };
    cluster.down(&homes[1..]);
    cluster.put(homes[0], &key(1), 2).unwrap();
    let shown = inspect(&mut cluster);
    assert_eq!(shown.len(), NODES);
    assert_eq!([shown[&homes[0]], shown[&homes[1]]], [(Role::Home, Some(1)), (Role::Home, None)]);
    let covering = standins.iter().filter(|node| shown[*node] == (Role::StandIn, Some(1))).count();
    assert!(covering > 0, "{shown:?}");
    // The homes are back, and no node has noticed.
    cluster.down.clear();
    let shown = inspect(&mut cluster);
    assert_eq!([shown[&homes[1]], shown[&homes[2]]], [(Role::Home, Some(0)); 2]);
    assert!(homes[1..].iter().all(|&home| cluster.record(home, &key(1)).is_none()), "nothing was repaired");
}

#[test]
fn a_node_that_was_late_when_a_write_began_can_stand_in_later() {
    let mut cluster = Cluster::new(|_, _| {});
    let of_1 = |cluster: &Cluster, key: &Key| {
        cluster.places(key).0.contains(&id(1)) && !cluster.places(key).0.contains(&id(2))
    };
    let key = (0..).map(key).find(|key| of_1(&cluster, key)).expect("a key of the first");
    // No node answers the first one, which does not know that they are down.
    cluster.down = [2, 3, 4, 5].map(id).into_iter().collect();
    cluster.put(id(1), &key, 1).unwrap();
    cluster.pass(Duration::from_millis(600));
    let client = cluster.begin_put(id(1), &key, 2, Duration::from_secs(3));
    cluster.pass(Duration::from_millis(50));
    cluster.down.remove(&id(2));
    // Any message of it shows that it is alive.
    cluster.put(id(2), &key, 1).unwrap();
    cluster.pass(Duration::from_secs(3));
    let outcome = cluster.replies.remove(&client);
    assert!(matches!(&outcome, Some(Ok(Reply::Put(done))) if done.acks == acks(1, 1)), "{outcome:?}");
}

/// A member sends requests for a key of which the node is neither a home nor a valid stand-in.
#[test]
fn a_node_refuses_to_store_a_key_it_has_no_role_for() {
    let mut cluster = Cluster::new(|_, _| {});
    let (homes, standins) = cluster.places(&key(1));
    let merge = |stands_in_for| ReplicaRequest::Merge {
        key: key(1),
        state: state(1, 1),
        epoch: Epoch(1),
        heals: None,
        confirm: Confirm::Stored,
        stands_in_for,
    };
    let asks =
        [merge(None), merge(Some(standins[0])), merge(Some(standins[1])), merge(Some(NodeId::of_name("unknown")))];
    for ask in asks {
        cluster.events.clear();
        cluster.queue.push_back((standins[0], Input::Message(asked_by(homes[0], ask.clone()))));
        cluster.run();
        assert!(cluster.events.contains(&(standins[0], Event::NotAHome(homes[0]))), "{ask:?}");
        assert_eq!(cluster.record(standins[0], &key(1)), None, "{ask:?}");
    }
}

#[test]
fn a_leaving_node_that_has_handed_over_everything_takes_no_more_hints() {
    let mut cluster = Cluster::new(comparing);
    let (homes, standins) = cluster.places(&key(1));
    let leaver = (1..=NODES).find(|&node| id(node) == standins[0]).expect("one of them");
    cluster.change(ChangeKind::Remove { node: id(leaver), incarnation: Incarnation(leaver as u64) });
    let is_drained = |cluster: &Cluster| cluster.drained.get(&id(leaver)) == Some(&true);
    assert!(!is_drained(&cluster));
    cluster.pass(Duration::from_secs(60));
    assert!(is_drained(&cluster));
    // The request comes from a node that does not know that it leaves.
    let (state, epoch, confirm) = (state(1, 1), Epoch(1), Confirm::Stored);
    let ask = ReplicaRequest::Merge { key: key(1), state, epoch, heals: None, confirm, stands_in_for: Some(homes[1]) };
    cluster.queue.push_back((id(leaver), Input::Message(asked_by(homes[0], ask))));
    cluster.run();
    assert_eq!(cluster.record(id(leaver), &key(1)), None);
    // A client that reaches no other node gets a refusal.
    let others = (1..=NODES).map(id).filter(|&node| node != id(leaver));
    cluster.down(&others.collect::<Vec<_>>());
    assert!(matches!(cluster.put(id(leaver), &key(1), 1), Err(Refusal::Unavailable(_) | Refusal::DiskFull)));
    assert_eq!(cluster.record(id(leaver), &key(1)), None);
}

/// A request from a member.
fn asked_by(from: NodeId, ask: ReplicaRequest) -> Envelope {
    Envelope {
        cluster: ClusterId(1),
        from,
        from_incarnation: member_of(from).incarnation,
        from_boot: 1,
        sent: Now { wall: WallMs(1_000_000), ..Now::default() },
        config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
        losses: cartwheel_core::cluster::losses::Losses::NONE,
        trace: None,
        message: Message::Request(RequestId { requester: Requester::Coordinator, operation: 1, round: 1 }, ask),
    }
}

fn member_of(node: NodeId) -> Member {
    (1..=NODES).map(member).find(|member| member.id == node).expect("a member")
}

/// Writes through `through` while no other node answers. Only `wakes` answers again, once the write is under way.
fn written_as_one_wakes(cluster: &mut Cluster, key: &Key, through: NodeId, wakes: NodeId) -> Option<Outcome> {
    cluster.down = (1..=NODES).map(id).filter(|&node| node != through).collect();
    cluster.put(through, key, 1).unwrap();
    // Until the first write has stopped lingering.
    cluster.pass(Duration::from_secs(3));
    let client = cluster.begin_put(through, key, 2, Duration::from_secs(3));
    cluster.down.remove(&wakes);
    cluster.pass(Duration::from_secs(3));
    cluster.replies.remove(&client)
}

#[test]
fn a_write_below_w_retries_a_home_that_a_stand_in_covers() {
    let mut cluster = Cluster::new(|_, _| {});
    let (homes, standins) = cluster.places(&key(1));
    let outcome = written_as_one_wakes(&mut cluster, &key(1), standins[0], homes[0]);
    assert!(matches!(&outcome, Some(Ok(Reply::Put(done))) if done.acks == acks(1, 1)), "{outcome:?}");
}

#[test]
fn a_write_below_w_retries_a_stand_in_that_was_late_if_there_is_no_other() {
    let mut cluster = Cluster::new(|_, _| {});
    let (homes, standins) = cluster.places(&key(1));
    let outcome = written_as_one_wakes(&mut cluster, &key(1), homes[0], standins[1]);
    assert!(matches!(&outcome, Some(Ok(Reply::Put(done))) if done.acks == acks(1, 1)), "{outcome:?}");
}

#[test]
fn the_last_home_that_a_write_is_forwarded_to_is_left_time_for_it() {
    let mut cluster = Cluster::new(|_, _| {});
    let (homes, standins) = cluster.places(&key(1));
    // These homes do not answer, and the other nodes do not know.
    cluster.down = homes[..2].iter().copied().collect();
    let client = cluster.begin_put(standins[0], &key(1), 1, Duration::from_millis(600));
    cluster.pass(Duration::from_secs(1));
    let outcome = cluster.replies.remove(&client);
    assert!(matches!(&outcome, Some(Ok(Reply::Put(_)))), "{outcome:?}");
}

/// Nodes 2 to 6 of a cluster that node 1 bootstrapped alone. Node 6 has replaced node 1.
fn without_its_first_node(tune: impl Fn(usize, &mut NodeConfig)) -> Cluster {
    let tune = |node: usize, config: &mut NodeConfig| {
        comparing(node, config);
        tune(node, config);
    };
    let mut cluster = Cluster::with_nodes(1, tune);
    let join = |cluster: &mut Cluster, node: usize, kind: ChangeKind| {
        cluster.change(kind);
        cluster.start(node, tune);
        cluster.down(&[]);
    };
    (2..=NODES).for_each(|node| join(&mut cluster, node, ChangeKind::Add(member(node))));
    cluster.pass(Duration::from_secs(60));
    join(&mut cluster, 6, ChangeKind::Replace { old: id(1), new: member(6) });
    cluster.pass(Duration::from_secs(60));
    assert_eq!(cluster.drained.get(&id(1)), Some(&true), "it has handed over what it held");
    cluster.leaves(1);
    cluster.change(ChangeKind::Left { node: id(1), incarnation: Incarnation(1) });
    cluster.down(&[]);
    cluster
}

/// How many of the writes that only two stand-ins have acknowledged are left on any home, after the stand-ins restarted
/// and the homes came back. `remembers` removes what the restarted nodes are not to know of configurations.
fn kept_through_a_restart_of_stand_ins(
    tune: impl Fn(usize, &mut NodeConfig),
    remembers: impl Fn(&mut Image),
) -> (usize, usize) {
    let mut cluster = without_its_first_node(&tune);
    let (homes, standins) = cluster.places(&key(1));
    let keys: Vec<Key> = (0..600).map(key).filter(|key| cluster.places(key).0 == homes).collect();
    assert!(keys.len() > 10 && standins.len() == 2);
    cluster.down(&homes);
    for key in &keys {
        assert_eq!(cluster.put(standins[0], key, 2).unwrap().acks, acks(0, 2));
    }
    cluster.pass(Duration::from_secs(3));
    for node in (2..=6).filter(|&node| standins.contains(&id(node))) {
        cluster.nodes.remove(&id(node));
        remembers(cluster.disks.get_mut(&id(node)).expect("a disk"));
        cluster.start_again(node, 2, |node, config| {
            comparing(node, config);
            tune(node, config);
        });
    }
    cluster.down(&homes);
    cluster.pass(Duration::from_secs(10));
    cluster.down(&[]);
    cluster.pass(Duration::from_secs(30));
    let is_left = |key: &&Key| homes.iter().any(|&home| cluster.record(home, key).is_some());
    if remembers_all(&cluster, &standins) {
        cluster.assert_settled(&keys);
    }
    (keys.iter().filter(is_left).count(), keys.len())
}

fn remembers_all(cluster: &Cluster, nodes: &[NodeId]) -> bool {
    nodes.iter().all(|node| cluster.disks[node].named.keys().filter(|name| name.starts_with(b"seat/")).count() == 32)
}

#[test]
fn hints_survive_a_restart_of_the_stand_ins_though_no_node_of_the_bootstrap_is_left() {
    let (left, all) = kept_through_a_restart_of_stand_ins(|_, _| {}, |_| {});
    assert_eq!(left, all);
}

/// The directory of an earlier build has no state of a partition in which its node had no role.
#[test]
fn a_stand_in_keeps_its_hints_while_it_knows_no_home() {
    let forget = |disk: &mut Image| disk.named.retain(|name, _| !name.starts_with(b"seat/"));
    let (left, all) = kept_through_a_restart_of_stand_ins(|_, _| {}, forget);
    assert_eq!(left, all);
    #[cfg(feature = "mutations")]
    {
        let broken = Broken::rule(cartwheel_core::mutation::Mutation::DebtSettledWithoutHome);
        let (left, _) = kept_through_a_restart_of_stand_ins(|_, config| config.broken = broken, forget);
        assert_eq!(left, 0, "all copies are removed, as hints for an unknown home are dropped");
    }
}

/// A cluster in which the partition of `key` is in its joint phase: in the next configuration the first stand-in is a
/// home, and the last home is not. The phase does not end, because the nodes run no exchanges.
fn in_a_joint_phase(key: &Key, tune: impl Fn(usize, &mut NodeConfig)) -> Cluster {
    let mut cluster = Cluster::new(|_, _| {});
    let (view, home) = (cluster.view(), |node: usize| Home { node: id(node), incarnation: Incarnation(node as u64) });
    let partition = view.ring.partition_of(key.token());
    let current = view.first_configuration(partition);
    let mut next = Configuration { number: 1, ..current.clone() };
    next.homes.swap(2, 3);
    for node in 1..=NODES {
        let mut partition_state = PartitionState::bootstrap(current.clone(), home(node));
        assert!(partition_state.advance(home(node), ConfigPhase::Joint(current.clone(), next.clone())));
        let named = &mut cluster.disks.entry(id(node)).or_default().named;
        named.insert(partition_state_name(partition).into(), wire::encode_partition_state(&partition_state));
        cluster.start_again(node, 2, &tune);
    }
    cluster.run();
    cluster
}

/// Each group of two nodes or more.
fn groups() -> impl Iterator<Item = Vec<NodeId>> {
    let group = |mask: u32| (1..=NODES).filter(move |node| mask >> (node - 1) & 1 == 1).map(id).collect::<Vec<_>>();
    (1..1 << NODES).map(group).filter(|group| group.len() > 1)
}

/// Whichever nodes are reachable, and whatever their roles in each of the two lists: W of them are enough for an
/// eventual write, and for a read. When the others are back, the write reaches all its homes.
#[test]
fn a_write_in_a_joint_phase_is_acknowledged_and_read_where_w_nodes_are_reachable() {
    let mut cluster = in_a_joint_phase(&key(1), |_, _| {});
    let partition = |key: &Key| cluster.view().ring.partition_of(key.token());
    let mut fresh = (2..).map(key).filter(|other| partition(other) == partition(&key(1))).take(200).collect::<Vec<_>>();
    let mut written = Vec::new();
    for (group, are_known) in groups().flat_map(|group| [(group.clone(), true), (group, false)]) {
        let w = group.len().min(3) as u8;
        let down: Vec<NodeId> = (1..=NODES).map(id).filter(|node| !group.contains(node)).collect();
        cluster.down(&[]);
        if are_known {
            cluster.down(&down)
        } else {
            cluster.down = down.into_iter().collect()
        }
        for &through in &group {
            let key = fresh.pop().expect("a fresh key");
            let done = cluster.put(through, &key, w);
            assert!(done.is_ok(), "{group:?} through {through}, known {are_known}: {done:?}");
            let holders = group.iter().filter(|&&node| cluster.record(node, &key).is_some()).count();
            assert!(holders >= usize::from(w), "{group:?} through {through}: {holders} hold it");
            assert_eq!(cluster.get(through, &key, w), Ok(1), "{group:?} through {through}, known {are_known}");
            written.push(key);
        }
    }
    cluster.down.clear();
    (1..=NODES).for_each(|node| cluster.start_again(node, 3, comparing));
    cluster.down(&[]);
    cluster.pass(Duration::from_secs(60));
    cluster.assert_settled(&written);
}

/// A stand-in hands a write over, and takes a second one before it learns that the first was stored. Returns the homes
/// that it owes the key then.
fn owed_after_a_write_during_the_hand_over(broken: Broken) -> Vec<NodeId> {
    let mut cluster = Cluster::new(|_, config| config.broken = broken);
    let (homes, standins) = cluster.places(&key(1));
    cluster.down(&homes[2..]);
    cluster.put(homes[0], &key(1), 3).unwrap();
    cluster.hears_late = Some(standins[0]);
    cluster.down(&[]);
    while cluster.late.is_empty() {
        cluster.tick();
        cluster.run();
    }
    cluster.down(&homes[2..]);
    assert_eq!(cluster.put(homes[0], &key(1), 3).unwrap().acks, acks(2, 1));
    cluster.hears_late = None;
    cluster.queue.extend(std::mem::take(&mut cluster.late));
    cluster.run();
    cluster.owed(standins[0], &key(1))
}

#[test]
fn a_hint_that_has_grown_during_its_hand_over_stays() {
    assert_eq!(owed_after_a_write_during_the_hand_over(Broken::default()).len(), 1);
    #[cfg(feature = "mutations")]
    {
        let broken = Broken::rule(cartwheel_core::mutation::Mutation::HintDroppedThoughNewer);
        assert_eq!(owed_after_a_write_during_the_hand_over(broken), [], "the second write is dropped with the first");
    }
}

/// An incarnation of a home has ended, and the reconfiguration has not replaced it yet. Its new incarnation, or another
/// node, fills its place meanwhile.
fn written_to_all_after_an_incarnation_has_ended(
    broken: Broken,
    nodes: usize,
) -> (Cluster, Vec<Result<PutDone, Refusal>>) {
    let tune = |_: usize, config: &mut NodeConfig| config.broken = broken;
    let mut cluster = Cluster::with_nodes(nodes, tune);
    let is_home = |cluster: &Cluster, key: &Key| cluster.places(key).0.contains(&id(2));
    let keys: Vec<Key> = (1..).map(key).filter(|key| is_home(&cluster, key)).take(20).collect();
    cluster.change(ChangeKind::Replace { old: id(2), new: Member { incarnation: Incarnation(12), ..member(2) } });
    cluster.leaves(2);
    cluster.disks.remove(&id(2));
    cluster.start_again(2, 1, |node, config| {
        tune(node, config);
        config.incarnation = Incarnation(12);
    });
    cluster.run();
    let through = |key: &Key| cluster.places(key).0.into_iter().find(|&home| home != id(2)).expect("another home");
    let throughs: Vec<NodeId> = keys.iter().map(through).collect();
    let written = keys.iter().zip(throughs).map(|(key, through)| cluster.put(through, key, 3)).collect();
    (cluster, written)
}

#[test]
fn a_write_to_all_homes_is_acknowledged_though_an_incarnation_of_one_has_ended() {
    for nodes in [3, NODES] {
        let (cluster, written) = written_to_all_after_an_incarnation_has_ended(Broken::default(), nodes);
        for done in written {
            let acks = done.expect("three nodes are there").acks;
            assert_eq!(acks.home + acks.standin, 3);
        }
        drop(cluster);
        #[cfg(feature = "mutations")]
        {
            let broken = Broken::rule(cartwheel_core::mutation::Mutation::VacantPlacesStayEmpty);
            let (_, written) = written_to_all_after_an_incarnation_has_ended(broken, nodes);
            assert!(
                written.iter().all(Result::is_err),
                "without the rule no node fills the place of the ended incarnation"
            );
        }
    }
}

/// A cluster in a joint phase, of which only the home that comes in and the one that goes out are reachable.
fn incoming_and_outgoing(broken: Broken) -> Cluster {
    let mut cluster = in_a_joint_phase(&key(1), |_, config| config.broken = broken);
    let (homes, standins) = cluster.places(&key(1));
    cluster.down(&[homes[0], homes[1], standins[1]]);
    cluster
}

/// A write with w=2 through the outgoing home.
fn written_by_incoming_and_outgoing(broken: Broken) -> (Cluster, Result<PutDone, Refusal>) {
    let mut cluster = incoming_and_outgoing(broken);
    let homes = cluster.places(&key(1)).0;
    let written = cluster.put(homes[2], &key(1), 2);
    (cluster, written)
}

/// Reads with r=2: before the write through the outgoing home, and after it through the outgoing and the incoming home.
fn read_from_incoming_and_outgoing(broken: Broken) -> [Result<usize, Refusal>; 3] {
    let (homes, standins) = incoming_and_outgoing(Broken::default()).places(&key(1));
    let before = incoming_and_outgoing(broken).get(homes[2], &key(1), 2);
    // It was written while the rule held.
    let (mut cluster, written) = written_by_incoming_and_outgoing(Broken::default());
    written.unwrap();
    for node in [homes[2], standins[0]] {
        let number = (1..=NODES).find(|number| id(*number) == node).expect("a node");
        cluster.start_again(number, 3, |_, config| config.broken = broken);
    }
    cluster.run();
    [before, cluster.get(homes[2], &key(1), 2), cluster.get(standins[0], &key(1), 2)]
}

#[test]
fn a_home_of_one_list_answers_reads_for_the_home_of_the_other() {
    let [before, through_outgoing, through_incoming] = read_from_incoming_and_outgoing(Broken::default());
    assert!(matches!(before, Err(Refusal::Unverified(_))), "only homes can say that a key does not exist: {before:?}");
    assert_eq!((through_outgoing, through_incoming), (Ok(1), Ok(1)));
    #[cfg(feature = "mutations")]
    {
        let broken = Broken::rule(cartwheel_core::mutation::Mutation::ListsStandApart);
        let [_, through_outgoing, through_incoming] = read_from_incoming_and_outgoing(broken);
        for refused in [through_outgoing, through_incoming] {
            assert!(matches!(refused, Err(Refusal::Unavailable(_) | Refusal::Unverified(_))), "{refused:?}");
        }
    }
}

#[test]
fn a_home_of_one_list_keeps_a_hint_for_the_home_of_the_other_that_it_stands_in_for() {
    let (cluster, written) = written_by_incoming_and_outgoing(Broken::default());
    let (homes, standins) = cluster.places(&key(1));
    assert_eq!(written.unwrap().acks, acks(1, 1));
    for node in [homes[2], standins[0]] {
        let owed = cluster.owed(node, &key(1));
        assert!(owed.iter().all(|home| homes[..2].contains(home)) && owed.len() == 1, "{node} owes {owed:?}");
    }
    #[cfg(feature = "mutations")]
    {
        let broken = Broken::rule(cartwheel_core::mutation::Mutation::ListsStandApart);
        let (_, written) = written_by_incoming_and_outgoing(broken);
        assert!(matches!(written, Err(Refusal::Unavailable(_))), "two copies count as one: {written:?}");
    }
}

/// A cluster under last write wins, and a strong write that a node which is not a home of its key forwards to a home.
fn forwarded_strong_write(prepare: impl Fn(&mut Cluster)) -> (Cluster, Outcome) {
    let mut cluster = Cluster::new(|_, _| {});
    let settings = SettingsPatch { conflict: Some(Conflict::Lww), ..SettingsPatch::default() };
    cluster.change(ChangeKind::Bucket { name: key(1).bucket().to_vec().into(), settings });
    prepare(&mut cluster);
    let through = cluster.places(&key(1)).1[0];
    let put = Put { consistency: Consistency::Strong, ..blind_put(&key(1), None) };
    let outcome = cluster.ask(through, Operation::Put(put));
    (cluster, outcome)
}

/// A strong write is tried on one coordinator only, because an attempt that seems to have failed may take effect later.
/// So no other coordinator makes up for a lost message.
#[test]
fn a_forwarded_write_that_is_lost_is_sent_again_and_stays_one_write() {
    for lost in [(1, 0), (0, 1), (2, 1)] {
        let (cluster, outcome) = forwarded_strong_write(|cluster| cluster.lost_forwards = lost);
        assert!(matches!(&outcome, Ok(Reply::Put(done)) if done.acks.home >= 2), "{lost:?}: {outcome:?}");
        assert_eq!(cluster.forwards, (1 + lost.1, 1), "each lost message was sent once more");
        for record in cluster.places(&key(1)).0.into_iter().filter_map(|home| cluster.record(home, &key(1))) {
            let runs: Vec<_> = record.state.clock().runs().map(|run| (run.upto, run.beyond.len())).collect();
            assert_eq!(runs, [(1, 0)], "{lost:?}: one write has one dot");
        }
    }
}

#[test]
fn a_coordinator_ignores_repeats_of_a_write_that_is_under_way() {
    let (cluster, outcome) = forwarded_strong_write(|cluster| {
        cluster.unwritten = cluster.places(&key(1)).0[1..].iter().copied().collect();
    });
    assert!(matches!(outcome, Err(Refusal::Unavailable(_))), "{outcome:?}");
    let (arrived, answered) = cluster.forwards;
    assert!(arrived > 1 && answered <= 1, "{arrived} repeats had {answered} answers");
}

/// What a node that drains coordinates or keeps for others is in the way when it stops. It stays a home, and where no other node is left it does
/// the rest too.
#[test]
fn nodes_that_drain_are_chosen_last_to_coordinate_and_to_stand_in() {
    let mut cluster = Cluster::new(|_, _| {});
    let (homes, stand_ins) = cluster.places(&key(1));
    cluster.draining = vec![homes[0], stand_ins[0]];
    cluster.down(&homes[2..]);
    let done = cluster.put(stand_ins[1], &key(1), 3).unwrap();
    assert_eq!(done.acks, acks(2, 1), "the home that drains counts");
    assert_eq!(cluster.owed(stand_ins[1], &key(1)), homes[2..]);
    assert_eq!(cluster.owed(stand_ins[0], &key(1)), []);
    let coordinators: Vec<NodeId> =
        cluster.record(homes[0], &key(1)).unwrap().state.clock().runs().map(|run| run.actor.node).collect();
    assert_eq!(coordinators, [homes[1]]);

    cluster.draining.clone_from(&stand_ins);
    cluster.down(&homes[2..]);
    assert_eq!(cluster.put(homes[0], &key(2), 2).unwrap().acks.home, 2);
    let (homes, stand_ins) = cluster.places(&key(3));
    cluster.draining = [&homes[..], &stand_ins].concat();
    cluster.down(&homes[1..2]);
    assert_eq!(cluster.put(stand_ins[1], &key(3), 3).unwrap().acks, acks(2, 1), "all drain, so any will do");
}
