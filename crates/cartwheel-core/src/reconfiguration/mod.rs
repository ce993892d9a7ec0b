//! Reconfiguration: changes a partition's configuration step by step until it equals the target. The paper's section
//! 4.9 hands key ranges over; this module also decides when the new homes may serve them.
//!
//! 1. A node that the target makes a home copies what the homes hold, as a *candidate*.
//! 2. The homes choose the next configuration among themselves ([`paxos`](crate::cluster::paxos)). It differs from the
//!    current one in few homes ([`next_configuration`](mod@crate::cluster::next_configuration)), all of which have
//!    copied. Exactly one is chosen; a node that learns of it adopts it once it is durable there.
//! 3. Both configurations are in force ([`ConfigPhase::Joint`]): every operation needs a quorum of each. Each home of
//!    the next configuration runs exchanges with the current homes, until it holds all that each of them held after
//!    learning of the next configuration. So it holds all that was acknowledged by homes that had not yet learned of it
//!    (it is *synced*).
//! 4. Once a majority of the new homes is synced, and all that are reachable, the phase becomes stable: only the next
//!    configuration is in force.
//! 5. A home that is no longer one keeps its records until it has run one more exchange with every later home. Then it
//!    purges them.
//!
//! Where a majority of the homes that choose is lost for good, no next configuration can be chosen. Once an
//! administrator has marked them lost, the remaining homes form a configuration of their own
//! ([`ConfigPhase::force_recovered`]), and each of them first merges what the others hold. This keeps the data that is
//! left, but no guarantee.
//!
//! No acknowledged write is missed. Each response carries the newest configuration version that the replica
//! knows, and no operation ends while its coordinator knows less than a replica that responded. Take a quorum of the
//! current configuration. If no exchange of point 3 had reached any of its nodes when they responded, the exchanges find
//! what it stored. If one had, its coordinator must go on to both configurations.

mod agenda;
mod attend;
mod purge;
pub mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::admission::Admission;
use crate::anti_entropy::{Compared, Exchange};
use crate::cluster::configuration::{ConfigPhase, ConfigStamp, ConfigVersion, Configuration, Home};
use crate::cluster::holdings::Holdings;
use crate::cluster::liveness::{Liveness, Status};
use crate::cluster::partition_state::PartitionState;
use crate::cluster::paxos::{Acceptor, Ballot, Proposed, Proposer};
use crate::cluster::sizes::TreeId;
use crate::message::Message;
use crate::message::reconfiguration::ReconfigurationMessage;
use crate::mutation::{Broken, Mutation};
use crate::outbox::Outbox;
use crate::reconfiguration::transfer::Transfers;
use crate::replica::Replica;
use crate::ring::PartitionId;
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::value::dot::NodeId;
use crate::value::key::Key;
use crate::value::time::Instant;
use agenda::Agenda;
use purge::Purge;

/// How often a partition is attended to while its configuration differs from the target or this node has something to
/// do for it.
const ATTEND_EVERY: Duration = Duration::from_millis(500);
/// How much longer that interval gets for each partition attended to, and its maximum. A candidate must repeat more
/// often than [`COPIED_FOR`] that it has copied.
const ATTEND_EACH: Duration = Duration::from_micros(500);
const ATTEND_EVERY_MAX: Duration = Duration::from_secs(4);
/// How long a proposer waits for responses before it tries again. Up to twice that at random, so that two proposers do
/// not outbid each other forever.
const PROPOSE_FOR: Duration = Duration::from_millis(800);
/// How long an acceptor that has accepted a configuration leaves it to others to have one chosen; up to twice that.
const DECIDE_AFTER: Duration = Duration::from_secs(3);
/// How long a candidate's report that it has copied is valid. The candidate repeats it.
const COPIED_FOR: Duration = Duration::from_secs(10);
/// How long a node waits before it repeats its query for a newer configuration that a peer has reported.
const QUERY_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How soon a peer that is behind is sent the newer configuration again.
const NOTIFY_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long a node waits before it saves a partition state again after a failure.
const SAVE_RETRY_AFTER: Duration = Duration::from_millis(500);
/// How many partitions a shard copies at once.
const CANDIDATES_MAX: usize = 16;

/// The name under which a partition's state is stored.
pub fn partition_state_name(partition: PartitionId) -> String {
    format!("seat/{partition}")
}

/// Exchanges of this node's replicas with other homes, as far as reconfiguration depends on them.
pub trait Comparisons {
    /// The result of the last successful exchange of a tree with a peer in this boot.
    fn compared(&self, tree: TreeId, peer: NodeId) -> Option<Compared>;

    /// Makes an exchange of a tree with a peer due at once.
    fn compare_soon(&mut self, now: Instant, tree: TreeId, peer: NodeId);

    /// Holds a partition's exchanges back, or makes them due again at once.
    fn hold_back(&mut self, now: Instant, partition: PartitionId, is_held_back: bool);
}

impl Comparisons for Exchange {
    fn compared(&self, tree: TreeId, peer: NodeId) -> Option<Compared> {
        Self::compared(self, tree, peer)
    }

    fn compare_soon(&mut self, now: Instant, tree: TreeId, peer: NodeId) {
        Self::compare_soon(self, now, tree, peer);
    }

    fn hold_back(&mut self, now: Instant, partition: PartitionId, is_held_back: bool) {
        Self::hold_back(self, now, partition, is_held_back);
    }
}

/// What the reconfiguration can read and use in a step.
pub struct ReconfigurationContext<'a> {
    /// The time of the step.
    pub now: Instant,
    /// The partition states in force, and the target placement.
    pub held: &'a Holdings,
    /// The status of the other nodes.
    pub liveness: &'a Liveness,
    /// The results of comparisons.
    pub exchange: &'a mut dyn Comparisons,
    /// The transfers under way.
    pub transfers: &'a mut Transfers,
    /// This node's records.
    pub replica: &'a mut Replica,
    /// Admission of background work.
    pub admission: &'a mut Admission,
    /// Randomness for the backoff of proposers.
    pub random: &'a mut ChaCha8Rng,
    /// The mutation in force, if any.
    pub broken: Broken,
    /// The outbox of the part.
    pub out: &'a mut Outbox<ReconfigurationCalls>,
}

/// What the reconfiguration wants other parts of the node to do.
#[derive(Debug, Default)]
pub struct ReconfigurationCalls {
    /// Partition states that are durable: they are in force on this node from now on.
    pub adopted: Vec<(PartitionId, PartitionState)>,
    /// Records that the replica is to drop, unless they are owed to another node.
    pub drops: Vec<Key>,
}

impl ReconfigurationContext<'_> {
    fn send(&mut self, to: NodeId, partition: PartitionId, message: ReconfigurationMessage) {
        self.out.sends.push((to, partition, Message::Reconfiguration(partition, message)));
    }
}

/// A partition state on its way to the disk.
#[derive(Debug)]
struct Save {
    /// The newest state to be saved.
    partition_state: PartitionState,
    /// Messages to send once it is durable.
    after: Vec<(NodeId, ReconfigurationMessage)>,
    in_flight: Option<InFlight>,
    try_at: Instant,
}

/// A partition state that is being written.
#[derive(Debug)]
struct InFlight {
    partition_state: PartitionState,
    /// Messages to send once it is durable.
    after: Vec<(NodeId, ReconfigurationMessage)>,
}

/// A proposal under way.
#[derive(Debug)]
struct Proposal {
    number: u64,
    proposer: Proposer,
    until: Instant,
}

/// Reports of peers on a partition.
#[derive(Debug, Default)]
struct Reports {
    /// The candidates that have copied what the homes hold, each with the number of the configuration it copied for and
    /// the time of its last report.
    copied: BTreeMap<Home, (u64, Instant)>,
    /// The newest configuration in which each home has reported to be synced, by number.
    synced: BTreeMap<Home, u64>,
}

/// A newer configuration version that a peer has reported and this node does not know yet.
#[derive(Debug)]
struct PendingVersion {
    version: ConfigVersion,
    from: NodeId,
}

/// Reconfiguration of one shard's partitions.
#[derive(Debug)]
pub struct Reconfiguration {
    me: Home,
    /// The partitions whose states the store holds.
    saved: BTreeSet<PartitionId>,
    saves: BTreeMap<PartitionId, Save>,
    /// Saves that failed, and when each is tried again.
    unsaved: Agenda<()>,
    stores: BTreeMap<StoreId, PartitionId>,
    proposals: BTreeMap<PartitionId, Proposal>,
    reports: BTreeMap<PartitionId, Reports>,
    /// When the query to a node that knows a newer version is repeated.
    pending_versions: Agenda<PendingVersion>,
    notified: BTreeMap<(NodeId, PartitionId), Instant>,
    /// When entries of `notified` that have expired are dropped next.
    notified_until: Instant,
    /// The partitions attended to, each with its next regular turn. A partition may be due earlier, but repeats its
    /// messages to peers in its turn only.
    attended: Agenda<Instant>,
    /// The number of the configuration for which this node has reported that it has copied.
    copied: BTreeMap<PartitionId, u64>,
    /// The partitions in which this node is a candidate but copies nothing now: it has copied everything, or no source
    /// is reachable.
    waiting: BTreeSet<PartitionId>,
    /// The ballot under which this node last accepted a configuration, and when it will itself see to it that one is
    /// chosen.
    undecided: BTreeMap<PartitionId, (Ballot, Instant)>,
    /// Since when no local operation is under way in a partition that this node leaves.
    left_at: BTreeMap<PartitionId, Instant>,
    purges: BTreeMap<PartitionId, Purge>,
    /// Purges that wait for the admission controller.
    purges_waiting: BTreeSet<PartitionId>,
}

impl Reconfiguration {
    /// Reconfiguration for one boot. `saved` are the partitions whose states the store holds.
    pub fn new(me: Home, saved: impl IntoIterator<Item = PartitionId>) -> Self {
        Self {
            me,
            saved: saved.into_iter().collect(),
            saves: BTreeMap::new(),
            unsaved: Agenda::default(),
            stores: BTreeMap::new(),
            proposals: BTreeMap::new(),
            reports: BTreeMap::new(),
            pending_versions: Agenda::default(),
            notified: BTreeMap::new(),
            notified_until: Instant::default(),
            attended: Agenda::default(),
            copied: BTreeMap::new(),
            waiting: BTreeSet::new(),
            undecided: BTreeMap::new(),
            left_at: BTreeMap::new(),
            purges: BTreeMap::new(),
            purges_waiting: BTreeSet::new(),
        }
    }

    /// The target or the member list may have changed: checks all partitions. Which nodes are reachable does not change
    /// what is to be done, only whether it can be done now.
    pub fn review(&mut self, now: Instant, held: &Holdings) {
        for (partition, partition_state) in held.partition_states() {
            if self.is_unsettled(held, partition, partition_state) {
                self.begin_attending(now, partition);
            }
        }
    }

    /// Attends to a partition from now on.
    fn begin_attending(&mut self, now: Instant, partition: PartitionId) {
        if !self.attended.contains(partition) {
            self.attended.insert(partition, now, now);
        }
    }

    /// The interval between two turns of a partition. It grows with the number of partitions, to bound the total cost.
    fn turn_every(&self) -> Duration {
        let paced = ATTEND_EACH * u32::try_from(self.attended.len()).unwrap_or(u32::MAX);
        paced.clamp(ATTEND_EVERY, ATTEND_EVERY_MAX)
    }

    /// Makes a partition due now, if it is attended to.
    pub fn attend_soon(&mut self, now: Instant, partition: PartitionId) {
        if self.attended.due_at(partition).is_some_and(|at| at > now) {
            self.attended.put_off(partition, now);
        }
    }

    /// Whether this node has something to do for a partition.
    fn is_unsettled(&self, held: &Holdings, partition: PartitionId, partition_state: &PartitionState) -> bool {
        let is_wanted = || self.is_wanted(held, partition, partition_state);
        if partition_state.has_duties()
            || partition_state.phase.next().is_some() && partition_state.phase.is_home_of_any(self.me)
        {
            return true;
        }
        // Perhaps no other node knows of the accepted configuration. It may be chosen much later, when its homes are
        // long gone.
        if partition_state.acceptor.accepted.is_some() {
            return true;
        }
        if self.force_recovered(held, partition, partition_state).is_some() {
            return true;
        }
        let ConfigPhase::Stable(only) = &partition_state.phase else { return is_wanted() };
        let is_syncing = only.homes_of_any().contains(&self.me) && !partition_state.is_synced();
        let is_to_change = || {
            let (target, counts) = (held.view().target(partition), held.view().target_counts());
            crate::cluster::next_configuration::next_configuration(only, &target, counts, |_| true, |_| false).is_some()
        };
        is_syncing || is_wanted() || only.choosers().contains(&self.me) && is_to_change()
    }

    /// Whether this node is to copy keys to become a home of them. A home of other keys copies those of a bucket whose
    /// n is to grow. If it becomes a home of more keys for another reason, the exchanges of the joint phase suffice.
    fn is_wanted(&self, held: &Holdings, partition: PartitionId, partition_state: &PartitionState) -> bool {
        let (phase, target) = (&partition_state.phase, held.view().target_counts());
        let is_home = phase.is_home_of_any(self.me);
        let mut groups = phase.counts().groups();
        groups.any(|group| {
            let counts = !is_home || target.n_of(group) > phase.counts().n_of(group);
            counts && !phase.is_home(self.me, group) && held.is_target(partition, group)
        })
    }

    /// The force-recovered configuration that this node, as one of its homes, must adopt, if so many homes were marked
    /// lost that no next configuration can be chosen.
    fn force_recovered(
        &self,
        held: &Holdings,
        partition: PartitionId,
        partition_state: &PartitionState,
    ) -> Option<Configuration> {
        held.view()
            .force_recovered(partition, &partition_state.phase)
            .filter(|force_recovered| force_recovered.has(self.me))
    }

    /// The newest partition state, saved or being saved.
    fn newest<'a>(&'a self, held: &'a Holdings, partition: PartitionId) -> Option<&'a PartitionState> {
        self.saves
            .get(&partition)
            .map(|save| &save.partition_state)
            .or_else(|| held.partition_state(partition).map(|partition_state| &**partition_state))
    }

    /// Changes a partition state, and sends the messages once the change is durable.
    fn change<R>(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        change: impl FnOnce(&mut PartitionState) -> R,
        after: Vec<(NodeId, ReconfigurationMessage)>,
    ) {
        let Some(mut partition_state) = self.newest(cx.held, partition).cloned() else { return };
        change(&mut partition_state);
        self.begin_attending(cx.now, partition);
        // What it has learned about others' configurations is saved too. Otherwise, after a restart, it would owe its
        // hints to the homes of the bootstrap.
        let is_dropped = cx.broken.is(Mutation::DebtSettledWithoutHome)
            && !partition_state.is_involved(self.me)
            && !self.saved.contains(&partition)
            && !self.saves.contains_key(&partition);
        if is_dropped || cx.broken.is(Mutation::StepsUnsaved) {
            cx.out.calls.adopted.push((partition, partition_state));
            return self.deliver(cx, partition, after);
        }
        let new = Save { partition_state: partition_state.clone(), after: Vec::new(), in_flight: None, try_at: cx.now };
        let save = self.saves.entry(partition).or_insert(new);
        save.partition_state = partition_state;
        save.after.extend(after);
        self.save(cx, partition);
    }

    fn save(&mut self, cx: &mut ReconfigurationContext<'_>, partition: PartitionId) {
        let Some(save) = self.saves.get_mut(&partition) else { return };
        if save.in_flight.is_some() || cx.now < save.try_at {
            return;
        }
        self.unsaved.remove(partition);
        let id = cx.replica.next_store();
        let value = crate::wire::encode_partition_state(&save.partition_state);
        cx.out.stores.push((id, StoreCommand::Remember { name: Bytes::from(partition_state_name(partition)), value }));
        save.in_flight =
            Some(InFlight { partition_state: save.partition_state.clone(), after: std::mem::take(&mut save.after) });
        self.stores.insert(id, partition);
    }

    /// Whether a store command is of reconfiguration.
    pub fn waits_for(&self, id: StoreId) -> bool {
        self.stores.contains_key(&id)
    }

    /// Takes in the result of a store command for which [`Self::waits_for`] is true.
    pub fn stored(&mut self, cx: &mut ReconfigurationContext<'_>, id: StoreId, result: StoreResult) {
        let Some(partition) = self.stores.remove(&id) else { return };
        if self.purges.get(&partition).is_some_and(|purge| purge.waits_for(id)) {
            return self.page_read(cx, partition, result);
        }
        let Some(save) = self.saves.get_mut(&partition) else { return };
        let Some(InFlight { partition_state, after: mut messages }) = save.in_flight.take() else { return };
        if result == StoreResult::Written(Ok(())) {
            self.saved.insert(partition);
            if save.partition_state == partition_state && save.after.is_empty() {
                self.saves.remove(&partition);
            }
            cx.out.calls.adopted.push((partition, partition_state));
            self.deliver(cx, partition, messages);
        } else {
            // The state may be on the disk or not, and what it promised stays promised.
            messages.append(&mut save.after);
            (save.after, save.try_at) = (messages, cx.now + SAVE_RETRY_AFTER);
            self.unsaved.insert(partition, save.try_at, ());
        }
        self.save(cx, partition);
    }

    fn deliver(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        messages: Vec<(NodeId, ReconfigurationMessage)>,
    ) {
        for (to, message) in messages {
            if to == self.me.node {
                self.heard(cx, self.me, partition, message);
            } else {
                cx.send(to, partition, message);
            }
        }
    }

    /// A peer has reported its configuration stamp. A peer that is behind is sent the newer configuration; one that is
    /// ahead is sent a query for it.
    pub fn on_config_stamp(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        from: NodeId,
        partition: PartitionId,
        config_stamp: ConfigStamp,
    ) {
        let own = cx.held.version(partition);
        if config_stamp.version < own {
            if self.notified_until <= cx.now {
                self.notified.retain(|_, at| *at + NOTIFY_AGAIN_AFTER > cx.now);
                self.notified_until = cx.now + NOTIFY_AGAIN_AFTER;
            }
            if self.notified.get(&(from, partition)).is_none_or(|&at| at + NOTIFY_AGAIN_AFTER <= cx.now)
                && let Some(phase) = cx.held.phase(partition)
            {
                self.notified.insert((from, partition), cx.now);
                cx.send(from, partition, ReconfigurationMessage::Holds(phase.clone()));
            }
        } else if config_stamp.version > own && cx.held.partition_state(partition).is_some() {
            match self.pending_versions.get_mut(partition) {
                Some(known) if config_stamp.version > known.version => {
                    (known.version, known.from) = (config_stamp.version, from)
                }
                Some(_) => {}
                None => self.pending_versions.insert(
                    partition,
                    cx.now,
                    PendingVersion { version: config_stamp.version, from },
                ),
            }
            self.query(cx, partition);
        }
    }

    fn query(&mut self, cx: &mut ReconfigurationContext<'_>, partition: PartitionId) {
        let own = cx.held.version(partition);
        let Some(&PendingVersion { version, from }) = self.pending_versions.get(partition) else { return };
        if version <= own {
            self.pending_versions.remove(partition);
        } else if self.pending_versions.due_at(partition).is_some_and(|at| at <= cx.now) {
            self.pending_versions.put_off(partition, cx.now + QUERY_AGAIN_AFTER);
            cx.send(from, partition, ReconfigurationMessage::Query(own));
        }
    }

    /// Takes in a message about a partition from this incarnation of a node.
    pub fn heard(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        from: Home,
        partition: PartitionId,
        message: ReconfigurationMessage,
    ) {
        let Some(partition_state) = self.newest(cx.held, partition) else { return };
        match message {
            ReconfigurationMessage::Query(version) => {
                if let Some(phase) = cx.held.phase(partition).filter(|phase| phase.version() > version) {
                    cx.send(from.node, partition, ReconfigurationMessage::Holds(phase.clone()));
                }
            }
            ReconfigurationMessage::Holds(phase) => self.learn(cx, from.node, partition, phase),
            ReconfigurationMessage::Prepare(number, ballot) => self.prepare(cx, from, partition, number, ballot),
            ReconfigurationMessage::Accept(ballot, proposal) => self.accept(cx, from, partition, ballot, proposal),
            ReconfigurationMessage::Promise(number, ballot, accepted) => {
                let Some(proposal) = self.proposals.get_mut(&partition).filter(|known| known.number == number) else {
                    return;
                };
                let next = proposal.proposer.promised(from, ballot, accepted);
                self.handle_proposed(cx, partition, next);
            }
            ReconfigurationMessage::Accepted(number, ballot) => {
                let Some(proposal) = self.proposals.get_mut(&partition).filter(|known| known.number == number) else {
                    return;
                };
                let next = proposal.proposer.accepted(from, ballot);
                self.handle_proposed(cx, partition, next);
            }
            ReconfigurationMessage::Outbid(number, ballot, promised) => {
                let is_ours = |known: &&Proposal| {
                    known.number == number && known.proposer.ballot() == ballot && promised > ballot
                };
                if self.proposals.get(&partition).filter(is_ours).is_some() {
                    self.proposals.remove(&partition);
                    let pause = wait(cx.random, PROPOSE_FOR);
                    self.attended.insert(partition, cx.now + pause, cx.now + pause);
                }
            }
            ReconfigurationMessage::Copied(number) => {
                if partition_state.phase.latest().number.checked_add(1) == Some(number) {
                    self.reports.entry(partition).or_default().copied.insert(from, (number, cx.now));
                    self.attend_soon(cx.now, partition);
                }
            }
            ReconfigurationMessage::Synced(number) => {
                if partition_state.phase.latest().number == number && partition_state.phase.latest().has(from) {
                    self.reports.entry(partition).or_default().synced.insert(from, number);
                    self.attend_soon(cx.now, partition);
                }
            }
        }
    }

    /// Adopts a newer configuration that a peer knows: it was chosen, so it is in force. A peer that is behind is sent
    /// the newer one.
    pub fn learn(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        from: NodeId,
        partition: PartitionId,
        phase: ConfigPhase,
    ) {
        let Some(partition_state) = self.newest(cx.held, partition) else { return };
        if !phase.is_sound() {
            return;
        }
        if phase.version() > partition_state.phase.version() {
            let me = self.me;
            self.change(cx, partition, |partition_state| partition_state.advance(me, phase), Vec::new());
        } else if phase.version() < cx.held.version(partition)
            && let Some(known) = cx.held.phase(partition)
        {
            cx.send(from, partition, ReconfigurationMessage::Holds(known.clone()));
        }
    }

    /// Whether this node takes part in choosing the configuration of this number. If the proposer is ahead, this node
    /// asks it for the newer phase; if it is behind, this node sends it the newer one.
    fn may_choose(&self, cx: &mut ReconfigurationContext<'_>, from: Home, partition: PartitionId, number: u64) -> bool {
        let Some(partition_state) = self.newest(cx.held, partition) else { return false };
        let ConfigPhase::Stable(only) = &partition_state.phase else { return false };
        if only.number.saturating_add(1) < number {
            cx.send(from.node, partition, ReconfigurationMessage::Query(partition_state.phase.version()));
        } else if only.number >= number
            && let Some(phase) = cx.held.phase(partition)
        {
            cx.send(from.node, partition, ReconfigurationMessage::Holds(phase.clone()));
        }
        only.number.checked_add(1) == Some(number) && only.choosers().contains(&self.me)
    }

    fn prepare(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        from: Home,
        partition: PartitionId,
        number: u64,
        ballot: Ballot,
    ) {
        if !self.may_choose(cx, from, partition, number) {
            return;
        }
        self.choose(cx, from, partition, |acceptor| match acceptor.prepare(ballot) {
            Ok(accepted) => Ok(ReconfigurationMessage::Promise(number, ballot, accepted)),
            Err(promised) => Err(ReconfigurationMessage::Outbid(number, ballot, promised)),
        });
    }

    fn accept(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        from: Home,
        partition: PartitionId,
        ballot: Ballot,
        proposal: Configuration,
    ) {
        let number = proposal.number;
        if !ConfigPhase::Stable(proposal.clone()).is_sound() || !self.may_choose(cx, from, partition, number) {
            return;
        }
        self.choose(cx, from, partition, |acceptor| match acceptor.accept(ballot, proposal) {
            Ok(()) => Ok(ReconfigurationMessage::Accepted(number, ballot)),
            Err(promised) => Err(ReconfigurationMessage::Outbid(number, ballot, promised)),
        });
    }

    /// Responds to a proposer. A promise or acceptance is sent once it is durable, a refusal at once.
    fn choose(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        from: Home,
        partition: PartitionId,
        choose: impl FnOnce(&mut Acceptor) -> Result<ReconfigurationMessage, ReconfigurationMessage>,
    ) {
        let Some(partition_state) = self.newest(cx.held, partition) else { return };
        let mut acceptor = partition_state.acceptor.clone();
        match choose(&mut acceptor) {
            Ok(message) => self.change(
                cx,
                partition,
                |partition_state| partition_state.acceptor = acceptor,
                vec![(from.node, message)],
            ),
            Err(message) => self.deliver(cx, partition, vec![(from.node, message)]),
        }
    }

    /// Proposes a configuration. This node promises first, durably, so it never uses a ballot twice, even after a
    /// restart.
    fn propose(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        only: &Configuration,
        proposal: Configuration,
    ) {
        if cx.broken.is(Mutation::StepsUnagreed) {
            let (me, phase) = (self.me, ConfigPhase::Joint(only.clone(), proposal));
            let messages = phase
                .both()
                .flat_map(|of| &of.homes)
                .map(|home| (home.node, ReconfigurationMessage::Holds(phase.clone())));
            let messages = messages.filter(|(node, _)| *node != me.node).collect();
            return self.change(cx, partition, |partition_state| partition_state.advance(me, phase), messages);
        }
        let Some(partition_state) = self.newest(cx.held, partition) else { return };
        let highest = partition_state.acceptor.promised.map_or(0, |promised| promised.round);
        let ballot = Ballot { round: highest.saturating_add(1), node: self.me.node };
        let mut acceptor = partition_state.acceptor.clone();
        let Ok(accepted) = acceptor.prepare(ballot) else { return };
        let number = proposal.number;
        let choosers = only.choosers().to_vec();
        let mut messages: Vec<(NodeId, ReconfigurationMessage)> =
            others(&choosers, self.me).map(|node| (node, ReconfigurationMessage::Prepare(number, ballot))).collect();
        messages.push((self.me.node, ReconfigurationMessage::Promise(number, ballot, accepted)));
        let until = cx.now + wait(cx.random, PROPOSE_FOR);
        self.proposals
            .insert(partition, Proposal { number, proposer: Proposer::new(choosers, ballot, proposal), until });
        self.change(cx, partition, |partition_state| partition_state.acceptor = acceptor, messages);
    }

    fn handle_proposed(&mut self, cx: &mut ReconfigurationContext<'_>, partition: PartitionId, next: Proposed) {
        let Some(proposal) = self.proposals.get(&partition) else { return };
        match next {
            Proposed::Waiting => {}
            Proposed::Accept(configuration) => {
                let ballot = proposal.proposer.ballot();
                let choosers = proposal.proposer.choosers().to_vec();
                let messages = choosers
                    .iter()
                    .map(|home| (home.node, ReconfigurationMessage::Accept(ballot, configuration.clone())));
                self.deliver(cx, partition, messages.collect());
            }
            Proposed::Chosen(configuration) => {
                self.proposals.remove(&partition);
                let Some(ConfigPhase::Stable(only)) =
                    self.newest(cx.held, partition).map(|partition_state| partition_state.phase.clone())
                else {
                    return;
                };
                if configuration.number == only.number.saturating_add(1) {
                    self.enter(cx, partition, ConfigPhase::Joint(only, configuration));
                }
            }
        }
    }

    /// Adopts a later phase, and sends it to all homes.
    fn enter(&mut self, cx: &mut ReconfigurationContext<'_>, partition: PartitionId, phase: ConfigPhase) {
        let Some(before) = self.newest(cx.held, partition).map(|partition_state| partition_state.phase.clone()) else {
            return;
        };
        let others = &(&before.nodes() | &phase.nodes()) - &BTreeSet::from([self.me.node]);
        let messages = others.into_iter().map(|node| (node, ReconfigurationMessage::Holds(phase.clone()))).collect();
        let me = self.me;
        self.change(cx, partition, |partition_state| partition_state.advance(me, phase), messages);
    }

    /// Whether this node is a home of any key, or still holds records as a candidate or a retired home.
    pub fn is_involved(&self, held: &Holdings) -> bool {
        held.partition_states()
            .any(|(_, partition_state)| partition_state.phase.is_home_of_any(self.me) || partition_state.has_duties())
    }

    /// When the next timer is due.
    pub fn wake_at(&self) -> Option<Instant> {
        let all = [self.attended.next_at(), self.unsaved.next_at(), self.pending_versions.next_at()];
        all.into_iter().flatten().min()
    }
}

/// A random time between `least` and twice that.
fn wait(random: &mut ChaCha8Rng, least: Duration) -> Duration {
    least + least.mul_f64(f64::from(random.next_u32()) / f64::from(u32::MAX))
}

fn others(homes: &[Home], me: Home) -> impl Iterator<Item = NodeId> {
    homes.iter().map(|home| home.node).filter(move |&node| node != me.node)
}

/// Whether a home seems to be reachable.
fn is_reachable(cx: &ReconfigurationContext<'_>, home: Home) -> bool {
    home == cx.held.me() || !is_gone(cx, home) && cx.liveness.status(home.node) != Status::Down
}

/// Whether a home is not expected back: it is lost, or is removed and down.
fn is_gone(cx: &ReconfigurationContext<'_>, home: Home) -> bool {
    is_lost(cx, home) || cx.held.view().is_removed(home) && cx.liveness.status(home.node) == Status::Down
}

/// Whether a home was marked lost, was replaced by a new incarnation of its node, or has left. This does not depend on
/// failure detection.
fn is_lost(cx: &ReconfigurationContext<'_>, home: Home) -> bool {
    let view = cx.held.view();
    let is_other_incarnation =
        || view.member(home.node).is_none_or(|known| known.member.incarnation != home.incarnation);
    view.is_removed(home) && (view.is_marked_lost(home) || is_other_incarnation())
}
