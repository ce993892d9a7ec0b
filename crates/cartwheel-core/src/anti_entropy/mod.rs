//! Anti-entropy: replicas become equal by themselves (paper, section 4.7).
//!
//! It runs beside the coordinator and the replica. It keeps this node's Merkle trees and compares each with every other
//! home of its partition from time to time (one such [`session`] is an exchange). It also answers the exchanges that
//! other homes begin. A key that differs is read at both homes and joined, and a home that lacks something of the join
//! merges it.

mod key_repair;
mod list;
pub mod merkle;
mod proofs;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Admission, WorkClass};
use crate::anti_entropy::merkle::{DEPTH_MAX, FANOUT_BITS, Trees};
use crate::cluster::configuration::ConfigStamp;
use crate::cluster::holdings::Holdings;
use crate::cluster::liveness::{Liveness, Status};
use crate::cluster::losses::Loss;
use crate::cluster::partition_state::PartitionState;
use crate::cluster::sizes::TreeId;
use crate::config::{NodeConfig, Timing};
use crate::event::Event;
use crate::message::anti_entropy::{Finding, KeyRange, Question, Refused};
use crate::message::{Message, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, Want};
use crate::mutation::{Broken, Mutation};
use crate::outbox::Outbox;
use crate::replica::Replica;
use crate::ring::PartitionId;
use crate::ring::quorum::majority;
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::store::record::Minter;
use crate::store::share::RecordChange;
use crate::value::dot::{NodeId, Since};
use crate::value::hlc::WallMs;
use crate::value::key::Key;
use crate::value::state::Epoch;
use crate::value::time::{Instant, Now};
pub use proofs::Compared;
use proofs::{Pair, Proofs};
use session::{NODES_MAX, Session, SessionStep};

/// How many exchanges a shard runs at once, in all and with one peer.
const SESSIONS_MAX: usize = 4;
const SESSIONS_PER_PEER_MAX: usize = 2;
/// How many lists of keys for peers wait for the store at once. Further requests are refused as [`Refused::Busy`].
const LISTS_MAX: usize = 16;
/// How many lost records are checked at once.
const CHECKS_MAX: usize = 64;
/// How many due exchanges are searched for one that can begin.
const DUE_SEEN_MAX: usize = 64;
/// How often the proofs are saved.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// How long an exchange is put off until the losses that the peer reported are durable here.
const ANEW_AFTER: Duration = Duration::from_millis(100);

/// The names of stored entries. The same names without a number held an earlier format.
const PROVEN: &[u8] = b"proven equal 2";
const RECOVERED: &[u8] = b"caught up 2"; // a name on the disk: retired word

/// What anti-entropy can read and use in a step.
pub struct ExchangeContext<'a> {
    /// The time of the step.
    pub now: Now,
    /// This node.
    pub me: NodeId,
    /// The status of the other nodes.
    pub liveness: &'a Liveness,
    /// Timeouts.
    pub timing: &'a Timing,
    /// The node's epoch.
    pub epoch: Epoch,
    /// This node's replica.
    pub replica: &'a mut Replica,
    /// Admission of background work.
    pub admission: &'a mut Admission,
    /// The mutation in force, if any.
    pub broken: Broken,
    /// The outbox of the part.
    pub out: &'a mut Outbox<ExchangeCalls>,
}

impl ExchangeContext<'_> {
    fn send(&mut self, to: NodeId, partition: PartitionId, message: Message) {
        self.out.sends.push((to, partition, message));
    }

    fn store(&mut self, command: StoreCommand) -> StoreId {
        let id = self.replica.next_store();
        self.out.stores.push((id, command));
        id
    }

    /// Charges a scan that has ended to its class of background work, by the number of records read.
    fn charge_read(&mut self, class: WorkClass, result: &StoreResult) {
        if let StoreResult::Scanned(Ok(scanned)) = result {
            self.admission.has_read(class, scanned.records.len(), self.now.instant);
        }
    }
}

/// What the exchange wants other parts of the node to do.
#[derive(Debug, Default)]
pub struct ExchangeCalls {
    /// Lost records of this node that the coordinator is to recover from other home replicas.
    pub heals: Vec<(Key, Loss)>,
}

/// Since when a partition here and at a peer is proven equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaProof {
    /// The partition, and the n of the buckets whose keys are meant.
    pub tree: TreeId,
    /// The other home.
    pub peer: NodeId,
    /// By this node's clock: both homes hold all that either held at this time. None if that was never shown.
    pub since: Option<WallMs>,
}

/// The purpose of a store command under way.
#[derive(Debug)]
enum StorePurpose {
    RecallProven,
    RecallRecovered,
    SaveProven,
    SaveRecovered,
    /// To list keys for an exchange of this node.
    ListHere(u64, KeyRange),
    /// To list keys for a peer.
    ListFor(NodeId, RequestId, TreeId, KeyRange),
}

/// Anti-entropy of one shard.
#[derive(Debug)]
pub struct Exchange {
    trees: Trees,
    held: Arc<Holdings>,
    proofs: Proofs,
    sessions: BTreeMap<u64, Session>,
    stores: BTreeMap<StoreId, StorePurpose>,
    /// Lost records that are being checked, by operation.
    checks: BTreeMap<u64, Key>,
    next_operation: u64,
    stride: u64,
    every: Option<Duration>,
    loss_floor: Since,
    /// The loss of all writes before the loss floor.
    floor_loss: Option<Loss>,
    recovered: BTreeSet<TreeId>,
    recovered_dirty: bool,
    proven_dirty: bool,
    next_save_at: Instant,
    unready: usize,
    has_started: bool,
    /// Partitions whose records a transfer is fetching. An exchange now would fetch them twice.
    held_back: BTreeSet<PartitionId>,
}

impl Exchange {
    /// Anti-entropy for one boot.
    pub fn new(config: &NodeConfig, held: Arc<Holdings>) -> Self {
        let is_fetched = |partition_state: &PartitionState| {
            partition_state.is_candidate && !partition_state.phase.is_home_of_any(held.me())
        };
        let held_back = held
            .partition_states()
            .filter(|(_, partition_state)| is_fetched(partition_state))
            .map(|(partition, _)| partition)
            .collect();
        Self {
            trees: Trees::new(config, held.clone()),
            held,
            proofs: Proofs::default(),
            sessions: BTreeMap::new(),
            stores: BTreeMap::new(),
            checks: BTreeMap::new(),
            next_operation: config
                .shard_id
                .first_operation(config.incarnation.first_operation(config.boot, config.seed)),
            stride: config.shard_id.count.into(),
            every: config.timing.exchange_every,
            loss_floor: config.loss_floor,
            floor_loss: floor_loss(config),
            recovered: BTreeSet::new(),
            recovered_dirty: false,
            proven_dirty: false,
            next_save_at: Instant::default(),
            unready: 0,
            has_started: false,
            held_back,
        }
    }

    /// The partition of an exchange.
    pub fn partition_of(&self, operation: u64) -> Option<PartitionId> {
        self.sessions.get(&operation).map(|session| session.tree.partition)
    }

    /// The Merkle trees of this node, ready or not.
    pub const fn trees(&self) -> &Trees {
        &self.trees
    }

    /// Whether the store has lost writes of a partition that it has not recovered from other homes.
    pub fn is_recovering(&self, partition: PartitionId) -> bool {
        self.loss_floor > Since(0) && self.trees.ids_of(partition).any(|tree| !self.is_recovered(tree))
    }

    /// Whether a tree has recovered all that the store lost when it last lost writes. Only then do its records count,
    /// absent ones included.
    pub fn is_recovered(&self, tree: TreeId) -> bool {
        self.loss_floor == Since(0) || self.recovered.contains(&tree)
    }

    /// Since when each partition is proven equal here and at each other home.
    pub fn proofs(&self) -> impl Iterator<Item = ReplicaProof> + '_ {
        self.proofs.iter().map(|((tree, peer), since)| ReplicaProof { tree, peer, since })
    }

    /// Whether each partition has ended an exchange with every other home that began at `instant` or later, in this
    /// boot.
    pub fn all_begun_since(&self, instant: Instant) -> bool {
        self.has_started && self.proofs.all_begun_since(instant)
    }

    /// Adopts new settings and configurations. The partition state of `touched` partitions has changed. `moved`
    /// partitions are compared at once.
    pub fn set_held(
        &mut self,
        cx: &mut ExchangeContext<'_>,
        held: Arc<Holdings>,
        touched: &BTreeSet<PartitionId>,
        moved: &BTreeSet<PartitionId>,
    ) {
        let before = std::mem::replace(&mut self.held, held.clone());
        let is_all = self.trees.set_held(held, touched);
        self.inherit_recovered(cx, &before, touched);
        if !self.has_started {
            return;
        }
        if is_all {
            self.adopt_holdings(cx);
            self.check_all_recovered(cx);
        } else if !touched.is_empty() {
            self.adopt_partitions(cx, touched);
        }
        moved.iter().for_each(|&partition| self.proofs.hasten_partition(partition, cx.now.instant));
    }

    /// Keys that become a group of their own are recovered if the group that they were in was.
    fn inherit_recovered(&mut self, cx: &mut ExchangeContext<'_>, before: &Holdings, touched: &BTreeSet<PartitionId>) {
        for &partition in touched {
            let (were, are) = (before.counts(partition), self.held.counts(partition));
            let others = TreeId { partition, group: were.others() };
            if were.len() >= are.len() || !self.recovered.contains(&others) {
                continue;
            }
            let new = are.iter().filter(|(bucket, _)| were.get(bucket).is_none());
            let new = new.map(|(bucket, _)| are.group_of(bucket)).chain([are.others()]);
            for tree in new.map(|group| TreeId { partition, group }) {
                self.recovered.insert(tree);
                cx.replica.set_recovered(tree);
                self.recovered_dirty = true;
            }
        }
    }

    /// The result of the last successful exchange of a tree with a peer in this boot.
    pub fn compared(&self, tree: TreeId, peer: NodeId) -> Option<Compared> {
        self.proofs.compared((tree, peer))
    }

    /// Makes an exchange of a tree with a peer due at once.
    pub fn compare_soon(&mut self, now: Instant, tree: TreeId, peer: NodeId) {
        let is_under_way = self.sessions.values().any(|session| session.tree == tree && session.peer == peer);
        if !is_under_way {
            self.proofs.hasten_pair((tree, peer), now);
        }
    }

    /// Holds a partition's exchanges back, or makes them due again at once.
    pub fn hold_back(&mut self, now: Instant, partition: PartitionId, is_held_back: bool) {
        if is_held_back {
            self.held_back.insert(partition);
        } else if self.held_back.remove(&partition) {
            self.proofs.hasten_partition(partition, now);
        }
    }

    /// The liveness of the other nodes has changed from `before`. Exchanges with nodes that are alive again become due
    /// soon.
    pub fn liveness_changed(&mut self, now: Instant, before: &Liveness, liveness: &Liveness) {
        let Some(every) = self.every else { return };
        for (node, peer_status) in liveness.iter() {
            if peer_status.status == Status::Alive && before.status(node) != Status::Alive {
                self.proofs.hasten(node, now, after_absence(every));
            }
        }
    }

    fn adopt_holdings(&mut self, cx: &ExchangeContext<'_>) {
        let Some(every) = self.every else { return };
        let within = self.first_within(every);
        self.proofs.set_homes(&self.held, &self.trees, cx.now.instant, every, within);
        self.sessions.retain(|_, session| self.proofs.knows((session.tree, session.peer)));
    }

    /// How soon new pairs are compared.
    fn first_within(&self, every: Duration) -> Duration {
        if self.loss_floor > Since(0) { Duration::ZERO } else { after_absence(every) }
    }

    /// Adopts new homes or trees for these partitions only.
    fn adopt_partitions(&mut self, cx: &mut ExchangeContext<'_>, touched: &BTreeSet<PartitionId>) {
        let Some(every) = self.every else { return };
        let times = (every, self.first_within(every));
        for &partition in touched {
            self.proofs.set_homes_of(&self.held, &self.trees, partition, cx.now.instant, times);
            let trees: Vec<TreeId> = self.trees.ids_of(partition).collect();
            trees.into_iter().for_each(|tree| self.check_recovered(cx, tree));
        }
        self.sessions.retain(|_, session| self.proofs.knows((session.tree, session.peer)));
    }

    /// A tree that has no other home to recover from counts as recovered.
    fn check_all_recovered(&mut self, cx: &mut ExchangeContext<'_>) {
        if self.loss_floor == Since(0) {
            return;
        }
        let trees: Vec<TreeId> = self.trees.ids().collect();
        trees.into_iter().for_each(|tree| self.check_recovered(cx, tree));
    }

    /// Takes in changes of this node's records.
    pub fn changed(&mut self, changes: Vec<RecordChange>) {
        if self.every.is_none() {
            return;
        }
        for change in changes {
            if let RecordChange::Lost(key) = &change {
                let partition = self.trees.id_of(key).partition;
                self.proofs.disprove_partition(partition);
                self.proven_dirty = true;
            }
            self.trees.change(change);
        }
    }

    /// Begins what is due.
    pub fn tick(&mut self, cx: &mut ExchangeContext<'_>) {
        let Some(every) = self.every else { return };
        if !self.has_started {
            self.start(cx);
        }
        let replica = &mut *cx.replica;
        if cx.admission.next_at(WorkClass::Scan) <= cx.now.instant
            && let Some(scan) = self.trees.tick(cx.now.instant, || replica.next_store())
        {
            cx.admission.begin(WorkClass::Scan, cx.now.instant);
            cx.out.stores.push(scan);
        }
        let kept_waiting: Vec<u64> =
            self.sessions.iter().filter(|(_, session)| session.is_kept_waiting()).map(|(&id, _)| id).collect();
        kept_waiting.into_iter().for_each(|id| self.advance(cx, id));
        let woken: Vec<u64> =
            self.sessions.iter().filter(|(_, session)| session.wake_at <= cx.now.instant).map(|(&id, _)| id).collect();
        for id in woken {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if cx.liveness.status(session.peer) == Status::Down || !session.wake(cx) {
                self.fail(cx, id);
            }
        }
        self.begin_due(cx, every);
        self.save(cx);
        let now = self.trees.unready();
        let before = std::mem::replace(&mut self.unready, now);
        if before != now {
            cx.out.events.push(Event::TreesUnready { before, now });
        }
    }

    fn start(&mut self, cx: &mut ExchangeContext<'_>) {
        self.has_started = true;
        self.adopt_holdings(cx);
        self.next_save_at = cx.now.instant + SAVE_EVERY;
        for (name, own) in [(PROVEN, StorePurpose::RecallProven), (RECOVERED, StorePurpose::RecallRecovered)] {
            let id = cx.store(StoreCommand::Recall { name: name.into() });
            self.stores.insert(id, own);
        }
        let replica = &mut *cx.replica;
        cx.out.stores.extend(self.trees.recall(|| replica.next_store()));
        self.check_all_recovered(cx);
    }

    fn begin_due(&mut self, cx: &mut ExchangeContext<'_>, every: Duration) {
        while self.sessions.len() < SESSIONS_MAX {
            let with = |peer| self.sessions.values().filter(|session| session.peer == peer).count();
            let is_free = |&(_, peer): &Pair| with(peer) < SESSIONS_PER_PEER_MAX;
            let Some(pair) = self.proofs.due(cx.now.instant).take(DUE_SEEN_MAX).find(is_free) else { return };
            let (tree, peer) = pair;
            let is_held_back = self.held_back.contains(&tree.partition);
            if is_held_back || cx.liveness.status(peer) == Status::Down || self.trees.get(tree).is_none() {
                self.proofs.put_off(pair, cx.now.instant + retry_after(every));
                continue;
            }
            if !cx.admission.may_begin(WorkClass::Compare, cx.now.instant) {
                return;
            }
            self.proofs.begins(pair, cx.now.instant, every);
            self.check_losses(cx, tree);
            let id = self.number();
            let mut session = Session::new(id, tree, peer, cx.now);
            let next = session.advance(cx);
            self.sessions.insert(id, session);
            self.handle_step(cx, id, next);
        }
    }

    /// A new operation number. The coordinator uses the same numbers; the requester of the [`RequestId`] tells them
    /// apart.
    const fn number(&mut self) -> u64 {
        self.next_operation += self.stride;
        self.next_operation
    }

    /// When the next timer is due, if no scan may begin before `scan_at`.
    pub fn wake_at(&self, now: Instant, scan_at: Instant) -> Option<Instant> {
        self.every?;
        let sessions = self.sessions.values().map(|session| session.wake_at).min();
        let due = if self.sessions.len() < SESSIONS_MAX { self.proofs.next_due(now) } else { None };
        let save = self.proven_dirty.then_some(self.next_save_at);
        let start = (!self.has_started).then_some(now);
        sessions
            .into_iter()
            .chain(due)
            .chain(save)
            .chain(start)
            .chain(self.trees.wake_at().map(|at| at.max(scan_at)))
            .min()
    }

    /// Whether every tree was compared with every other home since `begun`, and no exchange that began before it is
    /// under way.
    pub fn has_compared_since(&self, begun: Instant, now: Instant) -> bool {
        // Where there is nothing to compare, an epoch lasts as long as elsewhere.
        let lasts = self.every.is_some_and(|every| now >= begun + every);
        let is_late = self.sessions.values().any(|session| session.begun.instant < begun);
        lasts && self.has_started && !is_late && self.proofs.all_begun_since(begun)
    }

    fn advance(&mut self, cx: &mut ExchangeContext<'_>, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let next = session.advance(cx);
        self.handle_step(cx, id, next);
    }

    fn handle_step(&mut self, cx: &mut ExchangeContext<'_>, id: u64, next: SessionStep) {
        match next {
            SessionStep::Wait => {}
            SessionStep::End { is_equal: false } => self.fail(cx, id),
            SessionStep::End { is_equal: true } => {
                let Some(session) = self.sessions.remove(&id) else { return };
                // Trees that were lost meanwhile prove nothing.
                if self.trees.get(session.tree).is_none() {
                    return;
                }
                let pair = (session.tree, session.peer);
                self.proofs.prove(pair, session.begun, session.is_recovered, session.config_stamp);
                self.proven_dirty = true;
                cx.out.events.push(Event::Exchanged(session.tree, session.peer));
                self.check_recovered(cx, session.tree);
            }
        }
    }

    /// Ends this exchange and puts off the next: losses that the peer reported are not durable here yet.
    pub fn postpone(&mut self, cx: &mut ExchangeContext<'_>, id: u64) {
        if let Some(session) = self.sessions.remove(&id) {
            self.proofs.put_off((session.tree, session.peer), cx.now.instant + ANEW_AFTER);
        }
    }

    fn fail(&mut self, cx: &mut ExchangeContext<'_>, id: u64) {
        let Some(session) = self.sessions.remove(&id) else { return };
        cx.out.events.push(Event::ExchangeFailed(session.tree, session.peer));
        if let Some(every) = self.every {
            self.proofs.put_off((session.tree, session.peer), cx.now.instant + retry_after(every));
        }
    }

    /// Handles a peer's request for sums or keys.
    pub fn on_question(
        &mut self,
        cx: &mut ExchangeContext<'_>,
        from: NodeId,
        request_id: RequestId,
        question: Question,
    ) {
        let partition = question.partition();
        let refused = match question {
            Question::Nodes { tree, level, nodes } => match self.sums(from, tree, level, &nodes) {
                Ok(sums) => {
                    cx.out.events.push(Event::DigestsSent(nodes.len()));
                    return cx.send(from, partition, Message::Compared(request_id, sums));
                }
                Err(refused) => refused,
            },
            Question::Keys { tree, range } => match self.may_list(cx, from, tree, &range) {
                Ok(range) => {
                    let id = cx.store(list::scan(&range));
                    self.stores.insert(id, StorePurpose::ListFor(from, request_id, tree, range));
                    return;
                }
                Err(refused) => refused,
            },
        };
        if matches!(refused, Refused::Nonsense | Refused::NotAHome) {
            cx.out.events.push(Event::ExchangeRefused(from));
        }
        cx.send(from, partition, Message::Compared(request_id, Finding::Refused(refused)));
    }

    fn sums(&self, from: NodeId, tree: TreeId, level: u8, nodes: &[u32]) -> Result<Finding, Refused> {
        self.check_shared(from, tree)?;
        let width = 1_u64 << (u32::from(level.min(DEPTH_MAX)) * FANOUT_BITS);
        if level > DEPTH_MAX || nodes.len() > NODES_MAX || nodes.iter().any(|&node| u64::from(node) >= width) {
            return Err(Refused::Nonsense);
        }
        let held = self.trees.get(tree).ok_or(Refused::NotReady)?;
        let sums = nodes.iter().map(|&node| held.node(level, node)).collect::<Option<_>>();
        Ok(Finding::Sums {
            depth: held.depth(),
            is_recovered: self.all_records_count(tree),
            sums: sums.ok_or(Refused::NotReady)?,
        })
    }

    /// The range that may be listed for a peer.
    fn may_list(
        &self,
        cx: &mut ExchangeContext<'_>,
        from: NodeId,
        tree: TreeId,
        range: &KeyRange,
    ) -> Result<KeyRange, Refused> {
        self.check_shared(from, tree)?;
        let all_keys = self.trees.grid(tree.partition).ok_or(Refused::NotAHome)?.whole();
        if !all_keys.covers(range) {
            return Err(Refused::Nonsense);
        }
        if self.trees.get(tree).is_none() {
            return Err(Refused::NotReady);
        }
        let lists = self.stores.values().filter(|own| matches!(own, StorePurpose::ListFor(..))).count();
        let may_begin = lists < LISTS_MAX
            && cx.admission.next_at(WorkClass::Repair) <= cx.now.instant
            && cx.admission.may_begin(WorkClass::List, cx.now.instant);
        if may_begin { Ok(range.clone()) } else { Err(Refused::Busy) }
    }

    fn check_shared(&self, from: NodeId, tree: TreeId) -> Result<(), Refused> {
        if self.every.is_none() || !self.has_started {
            return Err(Refused::NotReady);
        }
        // A node that is yet to become a home cannot serve an exchange. A node that was a home may still begin one
        // for as long as it needs to.
        let partition_state = self.held.partition_state(tree.partition).filter(|_| self.trees.contains(tree));
        let is_shared = |partition_state: &Arc<PartitionState>| {
            partition_state.shares(self.held.me(), tree.group) && self.held.view().member(from).is_some()
        };
        if partition_state.is_some_and(is_shared) { Ok(()) } else { Err(Refused::NotAHome) }
    }

    /// Whether every record of a tree counts, absent ones included.
    fn all_records_count(&self, tree: TreeId) -> bool {
        let is_syncing = self.held.config_stamp_of(tree).is_syncing;
        let is_unharmed = self.trees.losses(tree.partition).is_some_and(|losses| losses.is_empty());
        self.is_recovered(tree) && is_unharmed && !is_syncing
    }

    /// Takes in a peer's response to a question of an exchange.
    pub fn on_finding(
        &mut self,
        cx: &mut ExchangeContext<'_>,
        from: NodeId,
        request_id: RequestId,
        config_stamp: ConfigStamp,
        finding: Finding,
    ) {
        let id = request_id.operation;
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.peer == from) else { return };
        // Later responses of the peer carry no earlier configuration stamp.
        session.config_stamp.get_or_insert(config_stamp);
        let range = session.on_finding(cx, &self.trees, request_id.round, finding);
        if !session.is_recovered {
            // The peer has lost something, so its proof no longer holds.
            let pair = (session.tree, session.peer);
            self.proofs.disprove(pair);
            self.proven_dirty = true;
        }
        match range {
            Ok(None) => self.advance(cx, id),
            Ok(Some(range)) => {
                let store = cx.store(list::scan(&range));
                self.stores.insert(store, StorePurpose::ListHere(id, range));
            }
            Err(broken) => self.broken(cx, id, from, broken),
        }
    }

    fn broken(&mut self, cx: &mut ExchangeContext<'_>, id: u64, peer: NodeId, broken: session::SessionError) {
        if broken == session::SessionError::Nonsense {
            cx.out.events.push(Event::ExchangeRefused(peer));
        }
        self.fail(cx, id);
    }

    /// Takes in a replica's response.
    pub fn on_response(
        &mut self,
        cx: &mut ExchangeContext<'_>,
        from: NodeId,
        request_id: RequestId,
        response: ReplicaResponse,
    ) {
        if from == cx.me
            && let Some(key) = self.checks.remove(&request_id.operation)
        {
            // The loss of all writes before the floor is recovered partition by partition, not record by record.
            let loss = response.loss().filter(|&loss| Some(loss) != self.floor_loss);
            cx.out.calls.heals.extend(loss.map(|loss| (key, loss)));
            return;
        }
        let Some(session) = self.sessions.get_mut(&request_id.operation) else { return };
        session.on_response(cx, from, request_id.round, response);
        cx.out.calls.heals.retain(|(_, loss)| Some(*loss) != self.floor_loss);
        self.advance(cx, request_id.operation);
    }

    /// Whether a store command is of anti-entropy.
    pub fn waits_for(&self, id: StoreId) -> bool {
        self.stores.contains_key(&id) || self.trees.waits_for(id)
    }

    /// Takes in the result of a store command for which [`Self::waits_for`] is true.
    pub fn stored(&mut self, cx: &mut ExchangeContext<'_>, id: StoreId, result: StoreResult) {
        match self.stores.remove(&id) {
            None => {
                cx.charge_read(WorkClass::Scan, &result);
                let found = self.trees.stored(cx.now.instant, id, result, cx.replica.being_written());
                found.lost.into_iter().for_each(|key| self.check(cx, key));
                if let Some(partition) = found.wrong {
                    self.proofs.disprove_partition(partition);
                    cx.out.events.push(Event::TreeWrong(partition));
                }
            }
            Some(StorePurpose::RecallProven) => {
                if let StoreResult::Read(Ok(Some(bytes))) = result {
                    self.proofs.remember(&bytes, self.loss_floor);
                }
            }
            Some(StorePurpose::RecallRecovered) => {
                if let StoreResult::Read(Ok(Some(bytes))) = result {
                    for tree in proofs::decode_recovered(&bytes, self.loss_floor) {
                        self.recovered.insert(tree);
                        cx.replica.set_recovered(tree);
                    }
                }
            }
            Some(StorePurpose::SaveProven) => self.proven_dirty |= result != StoreResult::Written(Ok(())),
            Some(StorePurpose::SaveRecovered) => self.recovered_dirty |= result != StoreResult::Written(Ok(())),
            Some(StorePurpose::ListHere(id, range)) => {
                cx.charge_read(WorkClass::List, &result);
                self.listed_here(cx, id, &range, result);
            }
            Some(StorePurpose::ListFor(peer, request_id, tree, range)) => {
                cx.charge_read(WorkClass::List, &result);
                self.listed_for(cx, peer, request_id, tree, &range, result);
            }
        }
    }

    fn listed_here(&mut self, cx: &mut ExchangeContext<'_>, id: u64, range: &KeyRange, result: StoreResult) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let StoreResult::Scanned(Ok(scanned)) = result else { return self.fail(cx, id) };
        let (page, damaged) = list::page(&self.trees, session.tree, range, &scanned, cx.replica.being_written());
        let peer = session.peer;
        let listed = session.on_own_keys(cx, &self.trees, page);
        damaged.into_iter().for_each(|key| self.check(cx, key));
        match listed {
            Ok(()) => self.advance(cx, id),
            Err(broken) => self.broken(cx, id, peer, broken),
        }
    }

    fn listed_for(
        &mut self,
        cx: &mut ExchangeContext<'_>,
        peer: NodeId,
        request_id: RequestId,
        tree: TreeId,
        range: &KeyRange,
        result: StoreResult,
    ) {
        let finding = match result {
            StoreResult::Scanned(Ok(scanned)) if self.trees.get(tree).is_some() => {
                let (page, damaged) = list::page(&self.trees, tree, range, &scanned, cx.replica.being_written());
                damaged.into_iter().for_each(|key| self.check(cx, key));
                cx.out.events.push(Event::DigestsSent(page.entries.len()));
                Finding::Keys { is_recovered: self.all_records_count(tree), page }
            }
            _ => Finding::Refused(Refused::NotReady),
        };
        cx.send(peer, tree.partition, Message::Compared(request_id, finding));
    }

    /// Reads a record that is unreadable or lost. The replica then marks it, and its loss is healed.
    fn check(&mut self, cx: &mut ExchangeContext<'_>, key: Key) {
        if self.checks.len() < CHECKS_MAX {
            cx.replica.forget_cached(&key);
            let operation = self.number();
            let request = ReplicaRequest::Read { key: key.clone(), want: Want::Digest, role: Role::Home };
            cx.out.requests.push((cx.me, RequestId { requester: Requester::Exchange, operation, round: 0 }, request));
            self.checks.insert(operation, key);
        }
    }

    fn check_losses(&mut self, cx: &mut ExchangeContext<'_>, tree: TreeId) {
        let losses = self.trees.losses(tree.partition).into_iter().flat_map(|losses| losses.keys());
        let keys: Vec<Key> = losses.take(CHECKS_MAX).filter_map(|key| Key::from_storage_key(key).ok()).collect();
        keys.into_iter().for_each(|key| self.check(cx, key));
    }

    /// Marks a tree as recovered once it was compared with enough other homes: what its records still lack was never
    /// lost, so all of them count again.
    fn check_recovered(&mut self, cx: &mut ExchangeContext<'_>, tree: TreeId) {
        if self.is_recovered(tree) {
            return;
        }
        let phase = self.held.phase(tree.partition);
        let ns = phase.into_iter().flat_map(|phase| phase.both().map(|of| of.counts.n_of(tree.group)));
        let n = ns.max().unwrap_or_default();
        let needed = |others: usize| majority(n.into()).min(others);
        let too_early = cx.broken.is(Mutation::ExchangeCountsAmnesiac) && self.proofs.is_compared(tree);
        if too_early || self.proofs.is_recovered(tree, needed) {
            self.recovered.insert(tree);
            cx.replica.set_recovered(tree);
            self.recovered_dirty = true;
        }
    }

    fn save(&mut self, cx: &mut ExchangeContext<'_>) {
        let is_under_way =
            self.stores.values().any(|own| matches!(own, StorePurpose::SaveRecovered | StorePurpose::RecallRecovered));
        if self.recovered_dirty && !is_under_way {
            self.recovered_dirty = false;
            let value = proofs::encode_recovered(&self.recovered, self.loss_floor);
            let id = cx.store(StoreCommand::Remember { name: RECOVERED.into(), value });
            self.stores.insert(id, StorePurpose::SaveRecovered);
        }
        if self.proven_dirty && cx.now.instant >= self.next_save_at {
            self.save_proven(cx);
        }
    }

    fn save_proven(&mut self, cx: &mut ExchangeContext<'_>) {
        self.proven_dirty = false;
        self.next_save_at = cx.now.instant + SAVE_EVERY;
        let value = self.proofs.encode(self.loss_floor);
        let id = cx.store(StoreCommand::Remember { name: PROVEN.into(), value });
        self.stores.insert(id, StorePurpose::SaveProven);
    }

    /// The node stops in order: saves trees and proofs.
    pub fn stop(&mut self, cx: &mut ExchangeContext<'_>) {
        if self.every.is_none() || !self.has_started {
            return;
        }
        let being_written = cx.replica.being_written().map(|(key, _)| self.trees.id_of(key).partition).collect();
        let replica = &mut *cx.replica;
        cx.out.stores.extend(self.trees.save(|| replica.next_store(), &being_written));
        self.save_proven(cx);
    }
}

/// How long an exchange that could not begin or has failed is put off.
fn retry_after(every: Duration) -> Duration {
    (every / 8).clamp(Duration::from_millis(100), Duration::from_secs(5))
}

/// How soon exchanges run with a node that was away, or from a node that has just started: in a sixth of the usual
/// interval, but not so soon that clients notice.
fn after_absence(every: Duration) -> Duration {
    (every / 6).min(Duration::from_secs(10))
}

/// The loss of all writes before this boot's loss floor, if there is one.
fn floor_loss(config: &NodeConfig) -> Option<Loss> {
    let NodeConfig { node, incarnation, boot, loss_floor: floor, actors, .. } = *config;
    (floor > Since(0)).then(|| Minter::new(node, incarnation, boot, actors).loss_before(floor))
}
