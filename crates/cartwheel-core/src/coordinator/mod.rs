//! The coordinator: carries out clients' requests on the replicas.
//!
//! Each operation is a state machine of its own (`get`, `put`, `observe`, `inspect`, `forward`, `heal`, `hand_over`, `restore`). It
//! takes events and pushes the requests that it wants sent into the [`Outbox`]. It addresses the replica on its own node
//! in the same way as any other.

pub mod agreement;
mod forward;
pub mod full_disks;
pub(crate) mod get;
mod hand_over;
pub mod handoff;
mod heal;
mod inspect;
mod observe;
mod put;
pub mod reach;
pub mod read_round;
mod restore;
pub mod write_round;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::admission::{Admission, WorkClass};
use crate::cluster::configuration::{ConfigStamp, ConfigVersion, Homes};
use crate::cluster::holdings::Holdings;
use crate::cluster::liveness::{Liveness, Status};
use crate::cluster::losses::{Loss, Losses, Memory};
use crate::cluster::membership::{BucketSettings, View};
use crate::cluster::shard_id::ShardId;
use crate::config::Timing;
use crate::message::client::{Acks, ClientId, Consistency, Operation, Outcome, Put, PutDone, Refusal};
use crate::message::{ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, Want};
use crate::mutation::{Broken, Mutation};
use crate::outbox::Outbox;
use crate::replica::{HandedOver, Mint, MintRefused, Minted};
use crate::ring::PartitionId;
use crate::value::context::{Context, ContextError};
use crate::value::dot::NodeId;
use crate::value::hlc::HlcClock;
use crate::value::key::Key;
use crate::value::state::{Content, Epoch, State};
use crate::value::time::{Instant, Now};
use crate::wire::context::Sealer;
use full_disks::FullDisks;
use reach::Reach;

/// How long a heal of one loss may run. After that, the next report of the loss starts another.
const HEAL_FOR: Duration = Duration::from_secs(5);

/// How many losses are healed at once. A further one waits until it is reported again.
const HEALINGS_MAX: usize = 256;

/// How long a home has to store a hint that is delivered to it, before the delivery is tried again.
const HAND_OVER_FOR: Duration = Duration::from_secs(5);

/// How many background operations may run beside those that clients wait for.
const BACKGROUND_MAX: usize = 10_000;

/// The round of requests whose only purpose is to see whether a peer answers.
const PROBE: u32 = get::REPAIR - 1;

/// The delay before an unconfirmed state is sent again allows a replica one microsecond for this many bytes.
const SENT_BYTES_IN_1_US: u64 = 16;

/// How many keys are handed over at once.
pub const HAND_OVERS_MAX: usize = 64;

/// Where the outcome of an operation goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ReplyTo {
    /// A client of this node.
    Client(ClientId),
    /// The node that forwarded the request, and the id that it gave it.
    Peer(NodeId, RequestId),
    /// No reply: the node runs the operation for itself.
    Internal,
}

/// What operations want other parts of the node to do.
#[derive(Debug, Default)]
pub struct CoordinatorCalls {
    /// Writes to which this node's replica gives their dots.
    pub mints: Vec<(RequestId, Mint)>,
    /// Writes that another node coordinates, with the time that they may take and the epoch in which they began.
    pub forwards: Vec<(NodeId, RequestId, Put, Duration, Epoch)>,
    /// States that home replicas have taken over, or have refused to.
    pub handed_over: Vec<HandedOver>,
    /// Operations that have ended.
    pub replies: Vec<(ReplyTo, Outcome)>,
}

/// What an operation can read and use in a step.
pub struct OperationContext<'a> {
    /// The time of the step.
    pub now: Now,
    /// This node.
    pub me: NodeId,
    /// The membership, target placement and bucket settings.
    pub view: &'a View,
    /// The partition states in force.
    pub held: &'a Holdings,
    /// The latest configuration version of the key's partition that a response to the operation reported. The operation does not end while
    /// this is later than the version in force here.
    pub reported_version: ConfigVersion,
    /// The losses of the key's homes that responses to the operation reported. What those homes said before no longer counts.
    pub losses: Losses,
    /// The boot since which this node has lost no record.
    pub memory: Memory,
    /// The status of the other nodes.
    pub liveness: &'a Liveness,
    /// Opens and seals contexts.
    pub sealer: &'a Sealer,
    /// Timeouts.
    pub timing: &'a Timing,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The epoch in which the operation began.
    pub begun: Epoch,
    /// The clock that gives timestamps.
    pub clock: &'a mut HlcClock,
    /// Nodes that reported a full disk.
    pub full: &'a mut FullDisks,
    /// Response times of the other nodes.
    pub reach: &'a mut Reach,
    /// Admission of background work.
    pub admission: &'a mut Admission,
    /// The mutation in force, if any.
    pub broken: Broken,
    /// The outbox of the part.
    pub out: &'a mut Outbox<CoordinatorCalls>,
}

impl OperationContext<'_> {
    fn homes(&self, key: &Key) -> Homes {
        let homes = self.held.homes_of(key);
        if self.broken.is(Mutation::OneSideWritten) { Homes { next: None, ..homes } } else { homes }
    }

    /// All homes of `key`, this node first if it is one.
    fn own_first(&self, key: &Key) -> Vec<NodeId> {
        let mut homes = self.homes(key).all();
        if let Some(own) = homes.iter().position(|&node| node == self.me) {
            if self.held.is_home(key) {
                homes[..=own].rotate_right(1);
            } else {
                // This node was a home of the key in an earlier incarnation.
                homes.remove(own);
            }
        }
        homes
    }

    /// How long to wait before a state that a replica has not confirmed is sent again. Large states take longer to
    /// travel and to store.
    fn resend_after(&self, state: &State) -> Duration {
        self.resend_after_bytes(state.weight().bytes)
    }

    /// [`Self::resend_after`] for a state of this many bytes.
    fn resend_after_bytes(&self, bytes: usize) -> Duration {
        self.timing.resend_after + Duration::from_micros(bytes as u64 / SENT_BYTES_IN_1_US)
    }

    /// How clients are shown what a bucket with these settings holds.
    const fn shows<'s>(&'s self, settings: &'s BucketSettings) -> get::Shows<'s> {
        get::Shows { sealer: self.sealer, epoch: self.epoch, settings }
    }

    /// Whether a response has reported a newer configuration of the key's partition than this node knows. The replicas
    /// that the operation has counted may not be a quorum of that one.
    fn is_behind(&self, key: &Key) -> bool {
        let is_behind = self.reported_version > self.held.version(self.held.partition_of(key));
        is_behind && !self.broken.is(Mutation::StaleStepAccepted)
    }

    fn is_sloppy(&self, key: &Key, consistency: Consistency) -> bool {
        let is_broken = self.broken.is(Mutation::StandInCountsForStrong);
        (consistency == Consistency::Eventual || is_broken) && self.view.settings(key.bucket()).sloppy
    }

    /// Whether `node` is worth waiting for: it is not known to be down, and has not left a request unanswered for too
    /// long.
    fn is_reachable(&self, node: NodeId) -> bool {
        node == self.me || (self.liveness.status(node) != Status::Down && !self.reach.is_late(node, self.now.instant))
    }

    /// The nodes that may stand in for homes of `key` and seem reachable, in the order of the walk.
    fn stand_ins(&self, key: &Key) -> Vec<NodeId> {
        self.draining_last(self.no_homes(key).filter(|&node| self.is_reachable(node)).collect())
    }

    /// The nodes in the same order, but those that drain after all others: what they begin or keep for others is best not begun there. They are
    /// not left out, because a request that needs them must not fail.
    fn draining_last(&self, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
        nodes.sort_by_key(|&node| self.liveness.is_draining(node));
        nodes
    }

    /// The nodes that may stand in, have not answered of late, and are not known to be down.
    fn late_stand_ins(&self, key: &Key) -> Vec<NodeId> {
        let is_down = |node: NodeId| self.liveness.status(node) == Status::Down;
        self.no_homes(key).filter(|&node| !self.is_reachable(node) && !is_down(node)).collect()
    }

    /// The nodes that are not homes of `key`, in the order of the walk.
    fn no_homes(&self, key: &Key) -> impl Iterator<Item = NodeId> {
        let (partition, homes) = (self.view.ring.partition_of(key.token()), self.homes(key));
        let may = move |node: NodeId| (node == self.me || !homes.contains(node)) && !self.is_own_home(key, node);
        self.view.ring.walk(partition).iter().copied().filter(move |&node| may(node))
    }

    fn is_own_home(&self, key: &Key, node: NodeId) -> bool {
        node == self.me && self.held.is_home(key)
    }

    /// The nodes that a read sends requests to, in this order: reachable homes, this node first; then stand-ins, if the request may
    /// use them; then the other homes.
    fn readers(&self, key: &Key, consistency: Consistency) -> Vec<(NodeId, Role)> {
        let (near, far): (Vec<_>, Vec<_>) = self.own_first(key).into_iter().partition(|&home| self.is_reachable(home));
        let stand_ins = if self.is_sloppy(key, consistency) { self.stand_ins(key) } else { Vec::new() };
        let near = self.draining_last(near);
        let as_homes = |homes: Vec<NodeId>| homes.into_iter().map(|home| (home, Role::Home));
        as_homes(near).chain(stand_ins.into_iter().map(|node| (node, Role::StandIn))).chain(as_homes(far)).collect()
    }

    /// The replicas behind a response, as the client sees them. `at_home` of them count as homes (the fewest in any
    /// configuration), the others as stand-ins.
    fn acks<'n>(
        &self,
        at_home: usize,
        homes: impl IntoIterator<Item = &'n NodeId>,
        stand_ins: impl IntoIterator<Item = &'n NodeId>,
    ) -> Acks {
        let mut acks = Acks::default();
        let mut zones = BTreeSet::new();
        let zone = |node: &NodeId| self.view.member(*node).map(|known| known.member.zone.as_str());
        for node in homes.into_iter().chain(stand_ins) {
            acks.standin += 1;
            zones.insert(zone(node));
        }
        acks.home = at_home as u32;
        acks.standin = acks.standin.saturating_sub(acks.home);
        acks.zones = zones.len() as u32;
        acks
    }

    /// The epoch stamp of a state that an operation sends: the oldest of its own epoch and those of the states it was
    /// built from.
    fn stamp(&self, built_from: Option<Epoch>) -> Epoch {
        if self.broken.is(Mutation::RepairsStampedWhenSent) {
            return self.epoch;
        }
        built_from.map_or(self.begun, |epoch| epoch.min(self.begun))
    }

    fn open(&self, sealed: &[u8], key: &Key) -> Result<Context, Refusal> {
        self.sealer.open(sealed, key).map_err(|error| match error {
            ContextError::Newer => Refusal::unavailable(error.to_string()),
            ContextError::TooLong(_) | ContextError::Version(_) | ContextError::NotOurs => {
                Refusal::BadContext(error.to_string())
            }
        })
    }
}

/// An input to an operation.
enum OperationEvent {
    /// The operation begins.
    Begin,
    /// A replica has responded to the request of this round; the stamp says under which configuration.
    Response(NodeId, u32, ConfigStamp, ReplicaResponse),
    /// The homes of the key have changed.
    Moved,
    /// This node's replica has given the write its dot, or has refused it.
    Minted(Result<Minted, MintRefused>),
    /// Another coordinator has ended the write.
    Forwarded(NodeId, Result<PutDone, Refusal>),
    /// The operation's timer is due.
    Timer,
}

/// What an operation does after an event.
enum Next {
    /// It waits for the next event, or until this time.
    Until(Instant),
    /// It has ended.
    End,
    /// The delete now has its context, and a home is to coordinate it.
    Place(Box<Put>),
    /// This node cannot carry out the write, and another home is to coordinate it. [`OwnFailure`] says whether this node may
    /// have stored it.
    Reroute(Box<Put>, OwnFailure),
    /// No home has carried out the write, so this node coordinates it as a stand-in. True if a home that has not
    /// answered may have stored it.
    StandIn(Box<Put>, bool),
}

/// How a write failed on this node's own replica.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnFailure {
    /// The store failed, and may have stored the write.
    Uncertain,
    /// The disk is full. Nothing was stored.
    DiskFull,
    /// This node is no longer a home. Nothing was stored.
    NoHome,
}

enum Kind {
    Get(get::GetOp),
    Observe(observe::ObserveOp),
    Inspect(inspect::InspectOp),
    Put(Box<put::PutOp>),
    Forward(forward::ForwardOp),
    Heal(heal::HealOp),
    HandOver(hand_over::HandOverOp),
    Restore(Box<restore::RestoreOp>),
}

impl Kind {
    fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
        match self {
            Self::Get(get) => get.on_event(cx, event),
            Self::Observe(observe) => observe.on_event(cx, event),
            Self::Inspect(inspect) => inspect.on_event(cx, event),
            Self::Put(put) => put.on_event(cx, event),
            Self::Forward(forward) => forward.on_event(cx, event),
            Self::Heal(heal) => heal.on_event(cx, event),
            Self::HandOver(hand_over) => hand_over.on_event(cx, event),
            Self::Restore(restore) => restore.on_event(cx, event),
        }
    }

    /// Whether a client or another node waits for its outcome.
    const fn is_foreground(&self) -> bool {
        match self {
            Self::Get(get) => !get.has_replied(),
            Self::Put(put) => !put.has_replied(),
            Self::Observe(_) | Self::Inspect(_) | Self::Forward(_) | Self::Restore(_) => true,
            Self::Heal(_) | Self::HandOver(_) => false,
        }
    }
}

/// An operation under way.
struct Running {
    kind: Kind,
    key: Key,
    reply_to: ReplyTo,
    deadline: Instant,
    wake_at: Instant,
    is_foreground: bool,
    /// The epoch in which it began, here or on the node that forwarded it.
    begun: Epoch,
    /// The newest configuration version of the key's partition that a response has reported.
    reported_version: ConfigVersion,
    /// The losses of the key's homes that responses have reported.
    losses: Losses,
}

/// The operations that a node coordinates or has forwarded.
pub struct Coordinator {
    /// Boxed, because each event takes its operation out and puts it back.
    running: BTreeMap<u64, Box<Running>>,
    timers: BTreeSet<(Instant, u64)>,
    /// The losses that are being healed.
    healing: BTreeSet<(Key, NodeId, Loss)>,
    /// The keys that are being handed over, each with the home that it goes to.
    handing_over: BTreeSet<(Key, NodeId)>,
    /// How many running operations a client or another node waits for.
    foreground: usize,
    next_operation: u64,
    /// The difference between two consecutive operation numbers: the node's number of shards.
    stride: u64,
    operations_max: usize,
}

impl Coordinator {
    /// The coordinator of one boot of an incarnation ([`crate::value::dot::Incarnation::first_operation`]). Operation
    /// numbers never repeat across boots, so a late response to an operation of an earlier boot is not taken for one
    /// to an operation of this boot. The shards of a node use disjoint numbers.
    pub const fn new(first_operation: u64, shard_id: ShardId, operations_max: usize) -> Self {
        Self {
            running: BTreeMap::new(),
            timers: BTreeSet::new(),
            healing: BTreeSet::new(),
            handing_over: BTreeSet::new(),
            foreground: 0,
            next_operation: shard_id.first_operation(first_operation),
            stride: shard_id.count as u64,
            operations_max,
        }
    }

    /// When the first timer is due.
    pub fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Begins an operation. A write must have its name ([`crate::value::write_id::WriteId`]) already.
    pub fn begin(
        &mut self,
        cx: &mut OperationContext<'_>,
        reply_to: ReplyTo,
        operation: Operation,
        timeout: Duration,
        begun: Epoch,
    ) {
        cx.begun = begun;
        if self.foreground >= self.operations_max {
            cx.out.calls.replies.push((reply_to, Err(Refusal::Overloaded)));
            return;
        }
        let id = self.number();
        let (deadline, key) = (cx.now.instant + timeout, operation.key().clone());
        probe_late_homes(cx, id, &key);
        let kind = match operation {
            Operation::Get(get) => get::GetOp::new(cx, id, reply_to, deadline, get).map(Kind::Get),
            Operation::Put(put) => Self::place_put(cx, id, reply_to, deadline, put),
            Operation::Inspect(key) => Ok(Kind::Inspect(inspect::InspectOp::new(cx, id, reply_to, deadline, key))),
            Operation::Restore(restore) => {
                Ok(Kind::Restore(restore::RestoreOp::new(cx, id, reply_to, deadline, restore).into()))
            }
        };
        match kind {
            Ok(kind) => self.drive(cx, id, Running::new(kind, key, reply_to, deadline, begun), OperationEvent::Begin),
            Err(refusal) => cx.out.calls.replies.push((reply_to, Err(refusal))),
        }
    }

    /// The number that the next operation gets.
    pub const fn next_operation(&self) -> u64 {
        self.next_operation + self.stride
    }

    const fn number(&mut self) -> u64 {
        self.next_operation += self.stride;
        self.next_operation
    }

    /// A write goes to a home, because only a node that stores the result may give it a dot.
    fn place_put(
        cx: &mut OperationContext<'_>,
        id: u64,
        reply_to: ReplyTo,
        deadline: Instant,
        put: Put,
    ) -> Result<Kind, Refusal> {
        if put.content == Content::Tombstone && put.context.is_none() {
            return observe::ObserveOp::new(cx, id, reply_to, deadline, put).map(Kind::Observe);
        }
        let checked = put::Checked::new(cx, put)?;
        if matches!(reply_to, ReplyTo::Client(_)) && checked.rewrites_what_may_be_collected(cx) {
            return Err(Refusal::ReadTooOld);
        }
        if cx.held.is_home(&checked.put.key) {
            return Ok(Kind::Put(put::PutOp::new(id, reply_to, deadline, checked).into()));
        }
        let may_stand_in = checked.may_use_stand_ins(cx);
        if matches!(reply_to, ReplyTo::Peer(..)) {
            if may_stand_in {
                return Ok(Kind::Put(put::PutOp::new(id, reply_to, deadline, checked).into()));
            }
            let why = "the write was forwarded to a node that is no home of its key";
            return Err(Refusal::unavailable(why));
        }
        let coordinators = coordinators(cx, &checked, may_stand_in);
        if coordinators.first() == Some(&cx.me) {
            return Ok(Kind::Put(put::PutOp::new(id, reply_to, deadline, checked).into()));
        }
        let forward = forward::ForwardOp::new(id, reply_to, deadline, checked.put, coordinators);
        Ok(Kind::Forward(if may_stand_in { forward.or_here() } else { forward }))
    }

    /// Takes in a replica's response.
    pub fn on_response(
        &mut self,
        cx: &mut OperationContext<'_>,
        from: NodeId,
        request_id: RequestId,
        (config_stamp, losses): (ConfigStamp, &Losses),
        response: ReplicaResponse,
    ) {
        cx.full.on_response(from, &response, cx.now.instant);
        if let Some(loss) = response.loss() {
            self.heal(cx, from, request_id, (loss, config_stamp.memory));
        }
        if let Some(running) = self.running.get_mut(&request_id.operation) {
            running.reported_version = running.reported_version.max(config_stamp.version);
            running.note(cx, losses);
        }
        self.deliver(
            cx,
            request_id.operation,
            OperationEvent::Response(from, request_id.round, config_stamp, response),
        );
    }

    /// Begins to heal a loss that a home has reported to an operation that still runs.
    fn heal(&mut self, cx: &mut OperationContext<'_>, node: NodeId, request_id: RequestId, loss: (Loss, Memory)) {
        if let Some(running) = self.running.get(&request_id.operation) {
            self.heal_key(cx, running.key.clone(), node, loss);
        }
    }

    /// Begins to heal a loss, unless that is under way already or too many heals are. Only a home's loss is healed.
    pub fn heal_key(&mut self, cx: &mut OperationContext<'_>, key: Key, node: NodeId, loss: (Loss, Memory)) {
        if !cx.held.has_home(&key, node) {
            return;
        }
        let target = (key.clone(), node, loss.0);
        let is_new = self.healing.len() < HEALINGS_MAX && !self.healing.contains(&target);
        if !is_new || !cx.admission.may_begin(WorkClass::Heal, cx.now.instant) {
            return;
        }
        self.healing.insert(target);
        let deadline = cx.now.instant + HEAL_FOR;
        let id = self.number();
        let kind = Kind::Heal(heal::HealOp::new(cx, id, deadline, key.clone(), node, loss));
        let running = Running::new(kind, key, ReplyTo::Internal, deadline, cx.epoch);
        self.drive(cx, id, running, OperationEvent::Begin);
    }

    /// Begins to deliver what this node holds of a key to a home that it is owed to, unless that is under way already.
    /// False if too many deliveries are.
    pub fn hand_over(&mut self, cx: &mut OperationContext<'_>, key: Key, to: NodeId) -> bool {
        if self.handing_over.len() >= HAND_OVERS_MAX {
            return false;
        }
        if self.handing_over.insert((key.clone(), to)) {
            let (id, deadline) = (self.number(), cx.now.instant + HAND_OVER_FOR);
            let kind = Kind::HandOver(hand_over::HandOverOp::new(id, deadline, key.clone(), to));
            let running = Running::new(kind, key, ReplyTo::Internal, deadline, cx.epoch);
            self.drive(cx, id, running, OperationEvent::Begin);
        }
        true
    }

    /// The key of an operation that has not ended.
    pub fn key_of(&self, operation: u64) -> Option<&Key> {
        self.running.get(&operation).map(|running| &running.key)
    }

    /// The key of a client's request that is under way. It looks at all operations.
    pub fn key_of_client(&self, client: ClientId) -> Option<&Key> {
        self.running.values().find(|running| running.reply_to == ReplyTo::Client(client)).map(|running| &running.key)
    }

    /// The epoch in which the oldest running operation began.
    pub fn oldest(&self) -> Option<Epoch> {
        self.running.values().map(|running| running.begun).min()
    }

    /// The number of keys that are being handed over.
    pub fn handing_over(&self) -> usize {
        self.handing_over.len()
    }

    /// This node's replica has given a write its dot, or has refused it.
    pub fn minted(
        &mut self,
        cx: &mut OperationContext<'_>,
        request_id: RequestId,
        losses: &Losses,
        result: Result<Minted, MintRefused>,
    ) {
        if let Some(running) = self.running.get_mut(&request_id.operation) {
            running.note(cx, losses);
        }
        self.deliver(cx, request_id.operation, OperationEvent::Minted(result));
    }

    /// Another coordinator has ended a write that was forwarded to it.
    pub fn forwarded(
        &mut self,
        cx: &mut OperationContext<'_>,
        from: NodeId,
        request_id: RequestId,
        result: Result<PutDone, Refusal>,
    ) {
        cx.reach.on_response(from, request_id, cx.now.instant);
        self.deliver(cx, request_id.operation, OperationEvent::Forwarded(from, result));
    }

    /// The homes of these partitions have changed.
    pub fn moved(&mut self, cx: &mut OperationContext<'_>, partitions: &BTreeSet<PartitionId>) {
        let is_affected = |running: &Running| partitions.contains(&cx.held.partition_of(&running.key));
        let moved: Vec<u64> =
            self.running.iter().filter(|(_, running)| is_affected(running)).map(|(&id, _)| id).collect();
        moved.into_iter().for_each(|id| self.deliver(cx, id, OperationEvent::Moved));
    }

    /// Wakes the operations whose timers are due.
    pub fn tick(&mut self, cx: &mut OperationContext<'_>) {
        while let Some(&(at, id)) = self.timers.first()
            && at <= cx.now.instant
        {
            self.deliver(cx, id, OperationEvent::Timer);
        }
    }

    /// Passes an event to an operation, if it still runs.
    fn deliver(&mut self, cx: &mut OperationContext<'_>, id: u64, event: OperationEvent) {
        if let Some(running) = self.running.remove(&id) {
            self.timers.remove(&(running.wake_at, id));
            self.foreground -= usize::from(running.is_foreground);
            self.drive(cx, id, running, event);
        }
    }

    fn drive(&mut self, cx: &mut OperationContext<'_>, id: u64, mut running: Box<Running>, event: OperationEvent) {
        (cx.begun, cx.reported_version, cx.losses) = (running.begun, running.reported_version, running.losses.clone());
        let mut next = running.kind.on_event(cx, event);
        loop {
            running.kind = match next {
                Next::Until(wake_at) => {
                    running.wake_at = wake_at;
                    running.is_foreground = running.kind.is_foreground();
                    // Under overload, operations that nothing waits for are dropped first.
                    if !running.is_foreground && self.running.len() >= 2 * self.operations_max + BACKGROUND_MAX {
                        return self.drop_target(&running.kind);
                    }
                    self.foreground += usize::from(running.is_foreground);
                    self.timers.insert((wake_at, id));
                    self.running.insert(id, running);
                    return;
                }
                Next::End => return self.drop_target(&running.kind),
                Next::Place(put) => match Self::place_put(cx, id, running.reply_to, running.deadline, *put) {
                    Ok(kind) => kind,
                    Err(refusal) => {
                        cx.out.calls.replies.push((running.reply_to, Err(refusal)));
                        return;
                    }
                },
                Next::Reroute(put, own) => {
                    let mut others = cx.own_first(&put.key);
                    if cx.is_sloppy(&put.key, put.consistency) {
                        others.extend(cx.stand_ins(&put.key));
                    }
                    others.retain(|&node| node != cx.me);
                    let (reply_to, deadline) = (running.reply_to, running.deadline);
                    Kind::Forward(forward::ForwardOp::new(id, reply_to, deadline, *put, others).after(own))
                }
                Next::StandIn(put, may_be_stored) => match put::Checked::new(cx, *put) {
                    Ok(checked) => {
                        let put = put::PutOp::new(id, running.reply_to, running.deadline, checked);
                        Kind::Put(put.after_others(may_be_stored).into())
                    }
                    Err(refusal) => {
                        let refusal = if may_be_stored { Refusal::Unavailable(forward::unknown()) } else { refusal };
                        cx.out.calls.replies.push((running.reply_to, Err(refusal)));
                        return;
                    }
                },
            };
            next = running.kind.on_event(cx, OperationEvent::Begin);
        }
    }

    fn drop_target(&mut self, ended: &Kind) {
        match ended {
            Kind::Heal(heal) => drop(self.healing.remove(&heal.target())),
            Kind::HandOver(hand_over) => drop(self.handing_over.remove(&hand_over.target())),
            Kind::Get(_) | Kind::Observe(_) | Kind::Inspect(_) | Kind::Put(_) | Kind::Forward(_) | Kind::Restore(_) => {
            }
        }
    }
}

/// Probes homes that have not answered of late. No operation waits for these probes: a request that other replicas can
/// serve must not wait for a dead one.
fn probe_late_homes(cx: &mut OperationContext<'_>, id: u64, key: &Key) {
    for home in cx.own_first(key) {
        if cx.reach.is_late(home, cx.now.instant) && cx.reach.may_send(home, cx.now.instant) {
            let request = ReplicaRequest::Read { key: key.clone(), want: Want::Digest, role: Role::Home };
            cx.out.requests.push((
                home,
                RequestId { requester: Requester::Coordinator, operation: id, round: PROBE },
                request,
            ));
        }
    }
}

/// The nodes that may coordinate a write of which this node is no home: the homes, or, if none is reachable, the first
/// healthy nodes on the walk (this node included).
fn coordinators(cx: &OperationContext<'_>, checked: &put::Checked, may_stand_in: bool) -> Vec<NodeId> {
    let mut homes = cx.draining_last(cx.own_first(&checked.put.key));
    if !may_stand_in {
        return homes;
    }
    homes.retain(|&home| cx.is_reachable(home));
    if homes.is_empty() {
        homes = cx.stand_ins(&checked.put.key);
        homes.truncate(usize::from(checked.n()));
        match homes.iter().position(|&node| node == cx.me) {
            Some(own) => homes[..=own].rotate_right(1),
            None if homes.is_empty() => homes.push(cx.me),
            None => {}
        }
    }
    homes
}

impl Running {
    /// Merges the losses of homes that a response reports.
    fn note(&mut self, cx: &OperationContext<'_>, losses: &Losses) {
        if !losses.is_empty() && !cx.broken.is(Mutation::CountLost) {
            self.losses.merge(losses);
        }
    }

    fn new(kind: Kind, key: Key, reply_to: ReplyTo, deadline: Instant, begun: Epoch) -> Box<Self> {
        let (wake_at, is_foreground, reported_version, losses) = (deadline, false, ConfigVersion(0), Losses::NONE);
        Box::new(Self { kind, key, reply_to, deadline, wake_at, is_foreground, begun, reported_version, losses })
    }
}

/// The quorum that a request demands, checked against the bucket's n.
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
