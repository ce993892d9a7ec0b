//! Two nodes that hold the same partitions, on in-memory disks and a network that counts messages and bytes.
#![allow(dead_code, reason = "each file uses its part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::{ChangeKind, Durability, History, Member, Strategy, View};
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::config::{Limits, NodeConfig, Timing};
use cartwheel_core::event::Event;
use cartwheel_core::message::client::{ClientId, Outcome, Put, Refusal};
use cartwheel_core::message::listing::Listed;
use cartwheel_core::message::{Confirm, Envelope, Message, ReplicaRequest, RequestId, Requester};
use cartwheel_core::mutation::Broken;
use cartwheel_core::node::{Input, Node};
use cartwheel_core::ring::Partitions;
use cartwheel_core::store::command::StoreCommand;
use cartwheel_core::store::image::Image;
use cartwheel_core::store::record::{LocalHeader, Record};
use cartwheel_core::value::clock::{Clock, Run};
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Epoch, Notes, Sibling, State};
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::value::write_id::WriteId;
use cartwheel_core::wire;
use cartwheel_core::wire::context::ClusterKey;

pub const CLUSTER: ClusterId = ClusterId(1);
/// How often the first node runs exchanges. The second runs its first ones, and then none for the length of a test.
pub const EVERY: Duration = Duration::from_secs(3_600);

pub fn id(node: usize) -> NodeId {
    NodeId::of_name(&format!("node-{node}"))
}

pub fn member(node: usize) -> Member {
    Member {
        zone: "zone".to_owned(),
        host: format!("host-{node}"),
        ..Member::new(&format!("node-{node}"), Incarnation(node as u64))
    }
}

/// The view of a cluster of so many nodes and partitions.
pub fn view(nodes: usize, partitions: u32) -> Arc<View> {
    Arc::new(history(nodes, partitions).view().expect("a history with its bootstrap"))
}

/// The bootstrap of that cluster.
pub fn history(nodes: usize, partitions: u32) -> History {
    let bootstrap = ChangeKind::Bootstrap {
        cluster: CLUSTER,
        partitions: Partitions::new(partitions).expect("a number of partitions"),
        strategy: Strategy::Balanced,
        members: (1..=nodes).map(member).collect(),
        name: String::new(),
    };
    let mut history = History::new();
    history.record(Hlc::at(WallMs(1)), id(1), bootstrap);
    history
}

/// Without a cache of records: tests change what the store holds.
pub const LIMITS: Limits = Limits { record_cache_bytes: 0, ..Limits::DEFAULT };

pub fn config(node: usize, boot: u32, exchange_every: Option<Duration>) -> NodeConfig {
    NodeConfig {
        cluster: CLUSTER,
        cluster_key: ClusterKey::derive(b"secret"),
        node: id(node),
        incarnation: Incarnation(node as u64),
        boot,
        shard_id: ShardId::ONLY,
        partition_states: Vec::new(),
        losses: cartwheel_core::store::loss_book::LossBook::default(),
        loss_floor: Since(0),
        durability: Durability::Fsync,
        actors: cartwheel_core::store::record::ActorsSince { boot, drawn: node as u64 },
        seed: node as u64,
        timing: Timing { exchange_every, scan_pause: Duration::ZERO, ..Timing::default() },
        limits: LIMITS,
        epoch: Epoch::FIRST,
        all_speak: cartwheel_core::wire::Protocol::NEWEST,
        broken: Broken::default(),
    }
}

pub fn key(number: usize) -> Key {
    Key::new(Bytes::from_static(b"carts"), format!("key-{number}").into()).expect("a valid key")
}

/// A put without a context.
pub fn blind_put(key: &Key, w: Option<u8>) -> Put {
    Put { w, ..Put::blind(key.clone(), Content::untyped("milk")) }
}

/// What a key holds after its `version`-th write.
pub fn state(number: usize, version: u64) -> State {
    let actor = Actor { node: id(1), incarnation: Incarnation(1), since: Since(1 + number as u64) };
    let mut clock = Clock::new();
    clock.insert_run(&Run { actor, upto: version, beyond: vec![] });
    let sibling = Sibling {
        dot: Dot { actor, counter: version },
        content: Content::untyped(format!("value {version}")),
        hlc: Hlc::at(WallMs(version)),
        epoch: Epoch(1),
        write_id: WriteId::from_bytes([version as u8; 16]),
        expires: None,
    };
    State::from_parts(clock, [sibling], Notes::new())
}

/// A disk on which the first `keys` keys hold their first version.
pub fn disk(keys: usize) -> Image {
    let mut image = Image::default();
    for number in 0..keys {
        let storage_key = key(number).storage_key();
        let record = Record { header: LocalHeader::default(), state: state(number, 1) };
        image.records.insert(storage_key.clone(), record.encode(&storage_key));
    }
    image
}

/// The two nodes.
pub struct Pair {
    pub nodes: BTreeMap<NodeId, Node>,
    pub disks: BTreeMap<NodeId, Image>,
    wakes: BTreeMap<NodeId, Instant>,
    queue: VecDeque<(NodeId, Input)>,
    pub now: Instant,
    pub messages: usize,
    pub bytes: usize,
    pub bytes_to: BTreeMap<NodeId, usize>,
    pub scans: usize,
    /// Store commands of any kind.
    pub stores: usize,
    pub events: Vec<(NodeId, Event)>,
    pub replies: Vec<(ClientId, Outcome)>,
    pub lists: Vec<(ClientId, Result<Listed, Refusal>)>,
}

impl Pair {
    pub fn new(disk: Image, partitions: u32) -> Self {
        let mut pair = Self::on((1..=2).map(|node| (id(node), disk.clone())).collect());
        let view = view(2, partitions);
        for node in 1..=2 {
            let every = if node == 1 { EVERY } else { EVERY * 1_000 };
            pair.start(Node::new(config(node, 1, Some(every)), view.clone()), node);
        }
        pair
    }

    /// Disks, and no nodes yet.
    pub fn on(disks: BTreeMap<NodeId, Image>) -> Self {
        Self {
            nodes: BTreeMap::new(),
            disks,
            wakes: BTreeMap::new(),
            queue: VecDeque::new(),
            now: Instant(1),
            messages: 0,
            bytes: 0,
            bytes_to: BTreeMap::new(),
            scans: 0,
            stores: 0,
            events: Vec::new(),
            replies: Vec::new(),
            lists: Vec::new(),
        }
    }

    pub fn start(&mut self, started: Node, node: usize) {
        self.nodes.insert(id(node), started);
        self.queue.push_back((id(node), Input::Tick));
        self.run();
    }

    pub fn stop(&mut self, node: usize) {
        self.queue.push_back((id(node), Input::Stop));
        self.run();
        self.kill(node);
    }

    pub fn kill(&mut self, node: usize) {
        self.nodes.remove(&id(node));
        self.wakes.remove(&id(node));
    }

    pub fn run(&mut self) {
        while let Some((to, input)) = self.queue.pop_front() {
            let now = Now { instant: self.now, wall: WallMs(1_000_000 + self.now.0 / 1_000) };
            let Some(node) = self.nodes.get_mut(&to) else { continue };
            let effects = node.step(now, input);
            self.wakes.insert(to, effects.wake_at.unwrap_or(Instant(u64::MAX)));
            for (id, command) in effects.stores {
                self.stores += 1;
                self.scans += usize::from(matches!(command, StoreCommand::Scan { .. }));
                let result = self.disks.entry(to).or_default().execute(&command);
                self.queue.push_back((to, Input::Stored(id, result)));
            }
            for (peer, envelope) in effects.sends {
                let frame = wire::encode_envelope(&envelope);
                self.messages += 1;
                self.bytes += frame.len();
                *self.bytes_to.entry(peer).or_default() += frame.len();
                let arrived = wire::decode_envelope(frame).expect("a node sends what can be decoded");
                self.queue.push_back((peer, Input::Message(arrived)));
            }
            self.events.extend(effects.events.into_iter().map(|event| (to, event)));
            self.replies.extend(effects.replies);
            self.lists.extend(effects.lists);
        }
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((&node, &at)) = self.wakes.iter().min_by_key(|(_, at)| **at).filter(|(_, at)| **at <= end) {
            self.now = self.now.max(at) + Duration::from_micros(1);
            self.queue.push_back((node, Input::Tick));
            self.run();
        }
        self.now = self.now.max(end);
    }

    /// Makes a node merge a state, as a coordinator would.
    pub fn merge(&mut self, node: usize, number: usize, state: State) {
        let ask = ReplicaRequest::Merge {
            key: key(number),
            state,
            epoch: Epoch(1),
            heals: None,
            confirm: Confirm::Stored,
            stands_in_for: None,
        };
        self.deliver(
            node,
            Message::Request(RequestId { requester: Requester::Coordinator, operation: 1, round: 1 }, ask),
        );
    }

    /// Gives a node an input.
    pub fn input(&mut self, node: usize, input: Input) {
        self.queue.push_back((id(node), input));
        self.run();
    }

    /// Delivers a message of the other node.
    pub fn deliver(&mut self, node: usize, message: Message) {
        self.deliver_from(node, 3 - node, message);
    }

    /// Delivers a message of `from`.
    pub fn deliver_from(&mut self, node: usize, from: usize, message: Message) {
        let envelope = self.envelope_of(from, message);
        self.queue.push_back((id(node), Input::Message(envelope)));
        self.run();
    }

    fn envelope_of(&self, from: usize, message: Message) -> Envelope {
        Envelope {
            cluster: CLUSTER,
            from: id(from),
            from_incarnation: Incarnation(from as u64),
            from_boot: 1,
            sent: Now { wall: WallMs(1_000_000 + self.now.0 / 1_000), ..Now::default() },
            config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
            losses: cartwheel_core::cluster::losses::Losses::NONE,
            trace: None,
            message,
        }
    }

    /// What a node answers to a message of the other node at once.
    pub fn answer_of(&mut self, node: usize, message: Message) -> Option<Message> {
        let (now, from) = (Now { instant: self.now, wall: WallMs(1_000_000 + self.now.0 / 1_000) }, 3 - node);
        let envelope = self.envelope_of(from, message);
        let effects = self.nodes.get_mut(&id(node))?.step(now, Input::Message(envelope));
        effects.sends.into_iter().find(|(to, _)| *to == id(from)).map(|(_, envelope)| envelope.message)
    }

    /// Resets all counters.
    pub fn reset(&mut self) {
        (self.messages, self.bytes, self.scans, self.stores) = (0, 0, 0, 0);
        self.bytes_to.clear();
        self.events.clear();
        self.replies.clear();
    }

    pub fn exchanged(&self, node: usize) -> usize {
        let is_end = |(at, event): &&(NodeId, Event)| *at == id(node) && matches!(event, Event::Exchanged(..));
        self.events.iter().filter(is_end).count()
    }

    pub fn held(&self, node: usize, number: usize) -> Option<State> {
        let storage_key = key(number).storage_key();
        let bytes = self.disks[&id(node)].records.get(&storage_key)?;
        Some(Record::decode(bytes, &storage_key).expect("a sound record").state)
    }
}
