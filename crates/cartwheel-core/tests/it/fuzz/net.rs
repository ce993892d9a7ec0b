//! Nodes on in-memory disks and a network without losses, into which a test may inject any message.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::History;
use cartwheel_core::config::{NodeConfig, Timing};
use cartwheel_core::event::Event;
use cartwheel_core::message::client::{ClientId, Consistency, Get, Operation, Outcome, Put, Request};
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::store::command::{StoreCommand, StoreResult};
use cartwheel_core::store::image::Image;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::wire;

use crate::pair;
pub use crate::pair::{CLUSTER, id};

/// Every node's boot.
pub const BOOT: u32 = 1;
const PARTITIONS: u32 = 16;

/// The bootstrap of a cluster of three.
pub fn history() -> History {
    pair::history(3, PARTITIONS)
}

/// The cluster.
pub struct Net {
    nodes: BTreeMap<NodeId, Node>,
    pub disks: BTreeMap<NodeId, Image>,
    wakes: BTreeMap<NodeId, Instant>,
    queue: VecDeque<(NodeId, Input)>,
    pub replies: BTreeMap<ClientId, Vec<Outcome>>,
    pub strays: usize,
    now: Instant,
    pub asked: u64,
}

impl Net {
    /// So many nodes that begin with empty disks.
    pub fn of(nodes: usize) -> Self {
        Self::on(nodes, BTreeMap::new())
    }

    /// So many nodes, some of which begin with these disks.
    pub fn on(count: usize, disks: BTreeMap<NodeId, Image>) -> Self {
        let view = pair::view(count, PARTITIONS);
        let ids = (1..=count).map(id);
        let mut net = Self {
            nodes: (1..=count).map(|node| (id(node), Node::new(config(node), view.clone()))).collect(),
            disks,
            wakes: BTreeMap::new(),
            queue: ids.map(|node| (node, Input::Tick)).collect(),
            replies: BTreeMap::new(),
            strays: 0,
            now: Instant(1),
            asked: 0,
        };
        net.run();
        net
    }

    /// Handles all inputs on their way.
    pub fn run(&mut self) {
        while let Some((to, input)) = self.queue.pop_front() {
            let now = Now { instant: self.now, wall: WallMs(1_000_000 + self.now.0 / 1_000) };
            let Some(node) = self.nodes.get_mut(&to) else { continue };
            let effects = node.step(now, input);
            self.wakes.insert(to, effects.wake_at.unwrap_or(Instant(u64::MAX)));
            for (id, command) in effects.stores {
                let result = self.store(to, command);
                self.queue.push_back((to, Input::Stored(id, result)));
            }
            for (peer, envelope) in effects.sends {
                // A node sends only what a node can decode.
                let frame = wire::encode_envelope(&envelope);
                let arrived = wire::decode_envelope(frame).expect("a node sends what can be decoded");
                self.queue.push_back((peer, Input::Message(arrived)));
            }
            for (client, outcome) in effects.replies {
                self.replies.entry(client).or_default().push(outcome);
            }
            self.strays += effects.events.iter().filter(|event| matches!(event, Event::StrayMessage(_))).count();
        }
    }

    fn store(&mut self, node: NodeId, command: StoreCommand) -> StoreResult {
        self.disks.entry(node).or_default().execute(&command)
    }

    /// Lets time pass, with all timers that become due.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((&node, &at)) = self.wakes.iter().min_by_key(|(_, at)| **at).filter(|(_, at)| **at <= end) {
            // Time goes on at least a little, or a node that always wants to be woken now would stop it.
            self.now = self.now.max(at) + Duration::from_micros(1);
            self.queue.push_back((node, Input::Tick));
            self.run();
        }
        self.now = self.now.max(end);
    }

    /// Delivers a message to a node.
    pub fn inject(&mut self, to: usize, envelope: Envelope) {
        self.queue.push_back((id(to), Input::Message(envelope)));
    }

    /// Begins a request at a node; see `replies`.
    pub fn ask(&mut self, at: usize, operation: Operation) -> ClientId {
        self.asked += 1;
        let (client, timeout) = (ClientId(self.asked), Duration::from_secs(2));
        self.queue.push_back((id(at), Input::Client(client, Request { operation, timeout })));
        client
    }

    /// Makes a request and waits for its outcome.
    pub fn end_of(&mut self, at: usize, operation: Operation) -> Outcome {
        let client = self.ask(at, operation);
        self.run();
        if !self.replies.contains_key(&client) {
            self.pass(Duration::from_secs(3));
        }
        self.replies[&client][0].clone()
    }
}

fn config(node: usize) -> NodeConfig {
    NodeConfig { timing: Timing::default(), ..pair::config(node, BOOT, None) }
}

/// The incarnation of every sender.
pub const INCARNATION: Incarnation = Incarnation(3);

/// A message as node `from` of `cluster` would send it.
pub fn envelope(cluster: ClusterId, from: NodeId, message: Message) -> Envelope {
    Envelope {
        cluster,
        from,
        from_incarnation: INCARNATION,
        from_boot: BOOT,
        sent: Now { wall: WallMs(1_000_000), ..Now::default() },
        config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
        losses: cartwheel_core::cluster::losses::Losses::NONE,
        trace: None,
        message,
    }
}

pub fn get(key: &Key, consistency: Consistency) -> Operation {
    Operation::Get(Get { key: key.clone(), consistency, r: None, seen: None, wants_context: true })
}

/// A get that reads every home and repairs those that are behind.
pub fn get_of_all(key: &Key) -> Operation {
    Operation::Get(Get {
        key: key.clone(),
        consistency: Consistency::Eventual,
        r: Some(3),
        seen: None,
        wants_context: true,
    })
}

pub fn put(key: &Key, value: &str, context: Option<Bytes>) -> Operation {
    Operation::Put(Put { context, ..Put::blind(key.clone(), Content::untyped(value.to_owned())) })
}
