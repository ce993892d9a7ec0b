//! What a node does as a coordinator: it carries clients' requests out on the replicas.
//!
//! An operation is a small state machine of its own (`get`, `put`, `observe`, `forward`, `heal`). It is told what has happened and pushes what
//! is to be asked into the [`Outbox`]; the replica on this node is asked in the same way as any other.

pub mod agreement;
mod forward;
pub mod full_disks;
mod get;
mod heal;
mod observe;
mod put;
pub mod read_round;
pub mod write_round;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use full_disks::FullDisks;

use crate::context::{Context, Sealer};
use crate::dot::NodeId;
use crate::effects::{ClientId, Event, Timing};
use crate::hlc::HlcClock;
use crate::key::Key;
use crate::liveness::Liveness;
use crate::membership::{BucketSettings, View};
use crate::message::{Answer, Ask, Lane, Ticket};
use crate::mutation::Broken;
use crate::record::Loss;
use crate::replica::{Mint, MintRefused, Minted};
use crate::request::{Acks, Operation, Outcome, Put, PutDone, Refusal, Shortfall};
use crate::state::{Content, Epoch};
use crate::time::{Instant, Now};

/// How long a loss is tried to be healed before it must be told of again.
const HEAL_FOR: Duration = Duration::from_secs(5);

/// How many losses are healed at once; one more waits until it is told of again.
const HEALINGS_MAX: usize = 256;

/// Who is told how an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyTo {
    /// A client of this node.
    Client(ClientId),
    /// The node that forwarded the request, under its ticket.
    Peer(NodeId, Ticket),
    /// Nobody: the node does it for itself.
    Nobody,
}

/// What operations want done.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Questions to replicas, this node's own among them.
    pub asks: Vec<(NodeId, Ticket, Ask)>,
    /// Writes that are to get their dot from this node's replica.
    pub mints: Vec<(Ticket, Mint)>,
    /// Writes that another node is to coordinate.
    pub forwards: Vec<(NodeId, Ticket, Put, Duration)>,
    /// Ended operations.
    pub replies: Vec<(ReplyTo, Outcome)>,
    /// What an operator should know.
    pub events: Vec<Event>,
}

/// What an operation may know and use while it is driven.
pub struct Cx<'a> {
    /// The time of the step.
    pub now: Now,
    /// This node.
    pub me: NodeId,
    /// The ring and the settings.
    pub view: &'a View,
    /// Who is worth asking.
    pub liveness: &'a Liveness,
    /// Opens and seals contexts.
    pub sealer: &'a Sealer,
    /// How long to wait for what.
    pub timing: &'a Timing,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The node's timestamps.
    pub clock: &'a mut HlcClock,
    /// Whose disks are full.
    pub full: &'a mut FullDisks,
    /// Which rule is broken on purpose.
    pub broken: Broken,
    /// What is to be done.
    pub out: &'a mut Outbox,
}

impl Cx<'_> {
    /// The homes of `key`, this node first if it is one.
    fn homes(&self, key: &Key, n: u8) -> Vec<NodeId> {
        let partition = self.view.ring.partition_of(key.token());
        let mut homes = self.view.ring.homes(partition, usize::from(n)).to_vec();
        if let Some(own) = homes.iter().position(|&node| node == self.me) {
            homes[..=own].rotate_right(1);
        }
        homes
    }

    /// The replicas behind an answer, counted for the client.
    fn acks<'n>(&self, homes: impl IntoIterator<Item = &'n NodeId>) -> Acks {
        let mut acks = Acks::default();
        let mut zones = BTreeSet::new();
        for &node in homes {
            acks.home += 1;
            zones.insert(self.view.member(node).map(|known| known.member.zone.as_str()));
        }
        acks.zones = zones.len() as u32;
        acks
    }

    fn open(&self, sealed: &[u8], key: &Key) -> Result<Context, Refusal> {
        self.sealer.open(sealed, key).map_err(|error| Refusal::BadContext(error.to_string()))
    }
}

/// What an operation is told.
enum Told {
    /// It begins.
    Begin,
    /// A replica has answered its question of this round.
    Answer(NodeId, u32, Answer),
    /// This node's replica has given the write its dot, or not.
    Minted(Result<Minted, MintRefused>),
    /// Another coordinator has carried the write out, or not.
    Forwarded(NodeId, Result<PutDone, Refusal>),
    /// The time it asked for has come.
    Timer,
}

/// What an operation waits for.
enum Next {
    /// More to be told, or this time.
    Until(Instant),
    /// Nothing: it has ended.
    End,
    /// The write is complete; a home is to coordinate it.
    Place(Box<Put>),
    /// This node's replica cannot store it, and has stored it or not; another home is to coordinate it.
    Reroute(Box<Put>, Own),
}

/// What became of a write on this node's own replica.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    /// It failed in the middle of it.
    Uncertain,
    /// Its disk is full: nothing was stored.
    DiskFull,
}

enum Kind {
    Get(get::GetOp),
    Observe(observe::ObserveOp),
    Put(put::PutOp),
    Forward(forward::ForwardOp),
    Heal(heal::HealOp),
}

impl Kind {
    fn told(&mut self, cx: &mut Cx<'_>, told: Told) -> Next {
        match self {
            Self::Get(get) => get.told(cx, told),
            Self::Observe(observe) => observe.told(cx, told),
            Self::Put(put) => put.told(cx, told),
            Self::Forward(forward) => forward.told(cx, told),
            Self::Heal(heal) => heal.told(cx, told),
        }
    }
}

/// An operation under way, and when it wants to be woken.
struct Running {
    kind: Kind,
    key: Key,
    reply_to: ReplyTo,
    deadline: Instant,
    wake_at: Instant,
}

/// The operations that a node coordinates or has forwarded.
pub struct Coordinator {
    running: BTreeMap<u64, Running>,
    timers: BTreeSet<(Instant, u64)>,
    /// The losses that are being healed.
    healing: BTreeSet<(Key, NodeId, Loss)>,
    next_operation: u64,
    /// By how much the numbers of its operations grow.
    stride: u64,
    operations_max: usize,
}

impl Coordinator {
    /// The coordinator of one boot. Operations are numbered through all boots, so that a late answer to one of an earlier boot is
    /// not taken for an answer to one of this, and the numbers of a node's shards are apart.
    pub const fn new(boot: u32, lane: Lane, operations_max: usize) -> Self {
        Self {
            running: BTreeMap::new(),
            timers: BTreeSet::new(),
            healing: BTreeSet::new(),
            next_operation: lane.first_operation((boot as u64) << 40),
            stride: lane.count as u64,
            operations_max,
        }
    }

    /// When the first operation wants to be woken.
    pub fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Begins an operation. Writes must have been named.
    pub fn begin(&mut self, cx: &mut Cx<'_>, reply_to: ReplyTo, operation: Operation, timeout: Duration) {
        if self.running.len() - self.healing.len() >= self.operations_max {
            cx.out.replies.push((reply_to, Err(Refusal::Overloaded)));
            return;
        }
        let id = self.number();
        let (deadline, key) = (cx.now.instant + timeout, operation.key().clone());
        let kind = match operation {
            Operation::Get(get) => get::GetOp::new(cx, id, reply_to, deadline, get).map(Kind::Get),
            Operation::Put(put) => Self::place_put(cx, id, reply_to, deadline, put),
        };
        match kind {
            Ok(kind) => self.drive(cx, id, Running { kind, key, reply_to, deadline, wake_at: deadline }, Told::Begin),
            Err(refusal) => cx.out.replies.push((reply_to, Err(refusal))),
        }
    }

    /// A number for an operation.
    const fn number(&mut self) -> u64 {
        self.next_operation += self.stride;
        self.next_operation
    }

    /// A write is coordinated by a home, for only a node that stores the result may give it a dot.
    fn place_put(cx: &mut Cx<'_>, id: u64, reply_to: ReplyTo, deadline: Instant, put: Put) -> Result<Kind, Refusal> {
        if put.content == Content::Tombstone && put.context.is_none() {
            return observe::ObserveOp::new(cx, id, reply_to, deadline, put).map(Kind::Observe);
        }
        let checked = put::Checked::new(cx, put)?;
        if checked.homes.first() == Some(&cx.me) {
            return Ok(Kind::Put(put::PutOp::new(id, reply_to, deadline, checked)));
        }
        if matches!(reply_to, ReplyTo::Peer(..)) {
            let why = "the write was forwarded to a node that is no home of its key".to_owned();
            return Err(Refusal::Unavailable(Shortfall { answered: 0, needed: 1, why }));
        }
        Ok(Kind::Forward(forward::ForwardOp::new(id, reply_to, deadline, checked.put, checked.homes)))
    }

    /// A replica has answered.
    pub fn answered(&mut self, cx: &mut Cx<'_>, from: NodeId, ticket: Ticket, answer: Answer) {
        cx.full.heard(from, &answer, cx.now.instant);
        if let Some(loss) = answer.loss() {
            self.heal(cx, from, ticket, loss);
        }
        self.tell(cx, ticket.operation, Told::Answer(from, ticket.round, answer));
    }

    /// Begins to heal a loss that a home has told of in answer to an operation that still runs.
    fn heal(&mut self, cx: &mut Cx<'_>, node: NodeId, ticket: Ticket, loss: Loss) {
        if let Some(asked) = self.running.get(&ticket.operation) {
            self.heal_key(cx, asked.key.clone(), node, loss);
        }
    }

    /// Begins to heal a loss, unless that is under way or too many are.
    pub fn heal_key(&mut self, cx: &mut Cx<'_>, key: Key, node: NodeId, loss: Loss) {
        if self.healing.len() >= HEALINGS_MAX || !self.healing.insert((key.clone(), node, loss)) {
            return;
        }
        let deadline = cx.now.instant + HEAL_FOR;
        let id = self.number();
        let kind = Kind::Heal(heal::HealOp::new(cx, id, deadline, key.clone(), node, loss));
        self.drive(cx, id, Running { kind, key, reply_to: ReplyTo::Nobody, deadline, wake_at: deadline }, Told::Begin);
    }

    /// This node's replica has given a write its dot, or not.
    pub fn minted(&mut self, cx: &mut Cx<'_>, ticket: Ticket, result: Result<Minted, MintRefused>) {
        self.tell(cx, ticket.operation, Told::Minted(result));
    }

    /// Another coordinator has ended a write that was forwarded to it.
    pub fn forwarded(&mut self, cx: &mut Cx<'_>, from: NodeId, ticket: Ticket, result: Result<PutDone, Refusal>) {
        self.tell(cx, ticket.operation, Told::Forwarded(from, result));
    }

    /// Wakes the operations whose time has come.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        while let Some(&(at, id)) = self.timers.first()
            && at <= cx.now.instant
        {
            self.tell(cx, id, Told::Timer);
        }
    }

    /// An operation that has ended is not told anything any more.
    fn tell(&mut self, cx: &mut Cx<'_>, id: u64, told: Told) {
        if let Some(running) = self.running.remove(&id) {
            self.timers.remove(&(running.wake_at, id));
            self.drive(cx, id, running, told);
        }
    }

    fn drive(&mut self, cx: &mut Cx<'_>, id: u64, mut running: Running, told: Told) {
        let mut next = running.kind.told(cx, told);
        loop {
            running.kind = match next {
                Next::Until(wake_at) => {
                    running.wake_at = wake_at;
                    self.timers.insert((wake_at, id));
                    self.running.insert(id, running);
                    return;
                }
                Next::End => {
                    if let Kind::Heal(heal) = &running.kind {
                        self.healing.remove(&heal.target());
                    }
                    return;
                }
                Next::Place(put) => match Self::place_put(cx, id, running.reply_to, running.deadline, *put) {
                    Ok(kind) => kind,
                    Err(refusal) => {
                        cx.out.replies.push((running.reply_to, Err(refusal)));
                        return;
                    }
                },
                Next::Reroute(put, own) => {
                    let mut others = cx.homes(&put.key, cx.view.settings(put.key.bucket()).n);
                    others.retain(|&node| node != cx.me);
                    let (reply_to, deadline) = (running.reply_to, running.deadline);
                    Kind::Forward(forward::ForwardOp::new(id, reply_to, deadline, *put, others).after(own))
                }
            };
            next = running.kind.told(cx, Told::Begin);
        }
    }
}

/// How many replicas a request wants, if the bucket can give them.
fn quorum(letter: char, wanted: Option<u8>, default: u8, settings: &BucketSettings) -> Result<usize, Refusal> {
    let quorum = wanted.unwrap_or(default);
    if quorum == 0 || quorum > settings.n {
        return Err(Refusal::BadRequest(format!(
            "{letter}={quorum}, but the bucket keeps n={} replicas: use 1 to {}",
            settings.n, settings.n
        )));
    }
    Ok(usize::from(quorum))
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").field("running", &self.running.len()).finish_non_exhaustive()
    }
}
