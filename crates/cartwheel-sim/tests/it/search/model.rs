//! The actions of the model, and the properties that every state must have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cartwheel_core::cluster::configuration::{ConfigPhase, ConfigVersion, Configuration, Home};
use cartwheel_core::cluster::losses::{Losses, Memory};
use cartwheel_core::cluster::next_configuration::next_configuration;
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::cluster::paxos::{Ballot, Proposed, Proposer};
use cartwheel_core::message::reconfiguration::ReconfigurationMessage;
use cartwheel_core::mutation::Mutation;
use cartwheel_core::ring::quorum::majority;
use cartwheel_core::value::dot::{NodeId, Since};
use stateright::{Model, Property};

use super::operations::{Holds, Read, Write, Writes, homes, recovered, still_counts, still_holds};
use super::setup::Setup;
use super::stage::{Done, Seen, Situation, Stage};

pub const ONE_NEXT: &str = "each configuration has one next configuration";
pub const SEEN: &str = "every later read shows an acknowledged write";
pub const KEPT: &str = "nothing is purged that no other home keeps";
pub const LEFT: &str = "a force-recovered home answers only once it holds all that was left";
pub const FORCE_RECOVERED: &str = "a partition without a next configuration is force-recovered, and answers again";
pub const SAVED: &str = "a syncing home holds what a home that was not lost held";
pub const LAST_IS_STABLE: &str = "the last configuration becomes stable";
pub const READ_WHILE_JOINT: &str = "a read ends in a joint phase";
pub const OVER_A_CRASH: &str = "a joint phase ends though a node crashed during it";
pub const READ_AFTERWARDS: &str = "a write acknowledged before a reconfiguration is read after it";
pub const RECOVERED: &str = "a home that lost what it held counts again";
pub const PURGED: &str = "a retired home has purged what it held";

/// A proposal under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Proposal {
    number: u64,
    proposer: Proposer,
    /// Set once its proposer knows that this was chosen, and has not adopted it yet.
    chosen: Option<Configuration>,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Machine {
    /// The index of its view.
    pub view: u8,
    /// Its state of the partition.
    pub partition_state: Arc<PartitionState>,
    /// The saved state, if it is an older one.
    unsaved: Option<Arc<PartitionState>>,
    /// What it holds of the clients' key, durably.
    data: Writes,
    /// Whether it has lost what it held, and not recovered yet.
    is_lost: bool,
    /// How often it has lost it.
    losses: u8,
    /// The losses of others that it has noted, durably.
    noted: Losses,
    /// The answers of others since its recovery began, and the newest version that they have reported.
    heard: BTreeMap<NodeId, Holds>,
    heard_of: ConfigVersion,
    /// The exchanges since it started.
    pub compared: BTreeMap<NodeId, Seen>,
    proposal: Option<Proposal>,
}

impl Machine {
    /// A node that holds nothing and has heard from no other.
    fn with_nothing(view: u8, partition_state: PartitionState) -> Self {
        Self {
            view,
            partition_state: Arc::new(partition_state),
            unsaved: None,
            data: 0,
            is_lost: false,
            losses: 0,
            noted: Losses::NONE,
            heard: BTreeMap::new(),
            heard_of: ConfigVersion(0),
            compared: BTreeMap::new(),
            proposal: None,
        }
    }
}

/// What has happened, as far as the properties need it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Marks {
    has_missed: bool,
    has_lost: bool,
    has_purged: bool,
    has_crashed_midway: bool,
    has_read_while_joint: bool,
    has_read_afterwards: bool,
    has_answered_too_early: bool,
    has_answered_again: bool,
    has_saved: bool,
}

/// A state of the model.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    machines: Vec<Arc<Machine>>,
    /// The phases that a node has adopted. Any node may learn of them at any time, repeatedly, or never.
    announced: Arc<BTreeSet<Announced>>,
    /// The homes that have reported to be synced, each with the configuration's number. A report is heard whenever it
    /// matters.
    synced: Arc<BTreeSet<(Home, u64)>>,
    /// What choosers were asked to accept. It may arrive at any time, or never.
    proposed: Arc<BTreeSet<(Ballot, Configuration)>>,
    writes: Vec<Write>,
    reads: Vec<Read>,
    crashes: u8,
    ballots: u8,
    renewals: u8,
    losses: u8,
    failures: u8,
    /// Set once a majority is marked lost: what each node held then; none for the lost ones.
    left: Option<Vec<Option<Writes>>>,
    marks: Marks,
}

/// A phase, ordered by version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Announced {
    version: ConfigVersion,
    current: Configuration,
    next: Option<Configuration>,
}

impl Announced {
    fn of(phase: &ConfigPhase) -> Self {
        Self { version: phase.version(), current: phase.current().clone(), next: phase.next().cloned() }
    }

    fn is(&self, phase: &ConfigPhase) -> bool {
        self.version == phase.version() && self.current == *phase.current() && self.next.as_ref() == phase.next()
    }

    fn phase(&self) -> ConfigPhase {
        match &self.next {
            Some(next) => ConfigPhase::Joint(self.current.clone(), next.clone()),
            None => ConfigPhase::Stable(self.current.clone()),
        }
    }
}

/// What may happen. Nodes are named by their slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A node hears which homes are synced, and may make the phase stable with the next configuration.
    Hear(usize),
    /// It learns of a later phase.
    Learn(usize, Announced),
    /// It begins to propose, with a new ballot.
    Propose(usize),
    /// The first node's `Prepare` reaches the second.
    Prepare(usize, usize),
    /// An `Accept` reaches a node.
    Accept(Ballot, Configuration, usize),
    /// A proposer adopts what was chosen.
    Enter(usize),
    /// The homes of the latest configuration choose the next one, and a node learns of it.
    Choose(Announced),
    /// The first node runs an exchange with the second.
    Compare(usize, usize),
    /// A node purges what it need not keep.
    Drop(usize),
    /// A node stops and starts again with what is on its disk.
    Crash(usize),
    /// A node loses its disk and returns in a new incarnation; all nodes know.
    Renew(usize),
    /// Some nodes are lost with their disks, and marked lost; all nodes know.
    MarkLost,
    /// A home loses what it holds. If true, in a power failure, and so with all that it remembered.
    Lose(usize, bool),
    /// The first node, which has lost what it held, reads the second to recover.
    Recover(usize, usize),
    /// A node stores a write, and its store reports a failure.
    StoreFails(usize, usize),
    /// A node stores a write, if it is a home.
    Store(usize, usize),
    /// A coordinator begins a read.
    BeginRead(usize),
    /// A node answers a read, if it is a home.
    Answer(usize, usize),
    /// A read's coordinator learns of a later phase.
    FollowRead(usize, Announced),
    /// A node stores the join of a strong read.
    WriteBack(usize, usize),
}

impl Machine {
    fn home(&self, setup: &Setup, slot: usize) -> Home {
        setup.home(slot, self.view)
    }

    fn is_home(&self, setup: &Setup, slot: usize) -> bool {
        self.partition_state.phase.is_home(self.home(setup, slot), setup.group)
    }

    fn is_syncing(&self, setup: &Setup, slot: usize) -> bool {
        let latest = self.partition_state.phase.latest();
        latest.homes_of(setup.group).contains(&self.home(setup, slot))
            && !self.partition_state.is_synced_in(latest.number)
    }

    fn memory(&self, setup: &Setup, slot: usize) -> Memory {
        Memory { incarnation: self.home(setup, slot).incarnation, since: Since(u64::from(self.losses) + 1) }
    }

    /// Its answer to a read of the key.
    fn holds(&self, setup: &Setup, slot: usize) -> Holds {
        Holds {
            writes: self.data,
            is_syncing: !self.partition_state.holds_all(self.home(setup, slot), setup.group)
                && !setup.breaks(Mutation::SyncingCounts),
            is_lost: self.is_lost,
            memory: self.memory(setup, slot),
        }
    }

    fn leaves(&self, setup: &Setup, slot: usize) -> bool {
        self.partition_state.leaves(self.home(setup, slot), setup.group)
    }

    /// Adopts another partition state. Drops what no longer matters, so that states that differ in nothing else are
    /// equal.
    fn adopt(&mut self, setup: &Setup, slot: usize, partition_state: PartitionState, is_unsaved: bool) {
        let has_left = self.partition_state.retired.is_some();
        if is_unsaved {
            self.unsaved.get_or_insert_with(|| self.partition_state.clone());
        } else {
            self.unsaved = None;
        }
        let has_moved = partition_state.phase != self.partition_state.phase;
        self.partition_state = Arc::new(partition_state);
        if has_moved {
            self.heard.clear();
            let version = self.partition_state.phase.version();
            self.compared.retain(|_, seen| seen.version >= version);
            self.compared.values_mut().for_each(|seen| seen.is_since_left &= has_left);
        }
        if !self.is_syncing(setup, slot) && !self.leaves(setup, slot) {
            self.compared.clear();
        }
        let goes_on = |proposal: &Proposal| matches!(&self.partition_state.phase, ConfigPhase::Stable(only) if only.number + 1 == proposal.number);
        self.proposal = self.proposal.take().filter(goes_on);
    }
}

impl State {
    fn start(setup: &Setup) -> Self {
        let first = setup.first();
        let machine = |slot: usize| {
            let view = setup.sides[slot];
            let me = setup.home(slot, view);
            let mut partition_state = PartitionState::bootstrap(first.clone(), me);
            partition_state.is_candidate = !first.has(me);
            Arc::new(Machine::with_nothing(view, partition_state))
        };
        let mut state = Self {
            machines: (0..setup.nodes.len()).map(machine).collect(),
            announced: Arc::new(BTreeSet::from([Announced::of(&ConfigPhase::Stable(first.clone()))])),
            synced: Arc::default(),
            proposed: Arc::default(),
            writes: vec![Write::default(); setup.bounds.writes],
            reads: vec![Read::default(); setup.bounds.reads],
            crashes: 0,
            ballots: 0,
            renewals: 0,
            losses: 0,
            failures: 0,
            left: None,
            marks: Marks::default(),
        };
        if setup.is_chosen {
            state.next_choice(setup).iter().for_each(|next| state.announce(&next.phase()));
        }
        state
    }

    /// The next configuration that the homes of the latest one would choose, if enough of them are there.
    fn next_choice(&self, setup: &Setup) -> Option<Announced> {
        let latest = self.announced.last().filter(|announced| announced.next.is_none())?;
        let (only, view) = (&latest.current, self.view());
        let is_available = |home: &&Home| {
            setup.slot(home.node).filter(|&slot| !self.is_lost(slot)).is_some_and(|slot| {
                let machine = &self.machines[slot];
                machine.home(setup, slot) == **home && machine.partition_state.phase.version() == latest.version
            })
        };
        let available = only.choosers().iter().filter(is_available).count();
        if available < majority(only.choosers().len()) || only.number >= setup.bounds.last {
            return None;
        }
        let target = setup.views[usize::from(view)].target(setup.partition);
        let counts = setup.views[usize::from(view)].target_counts();
        let next = next_configuration(only, &target, counts, |_| true, |_| false)?;
        Some(Announced::of(&ConfigPhase::Joint(only.clone(), next)))
    }

    fn machine(&mut self, slot: usize) -> &mut Machine {
        Arc::make_mut(&mut self.machines[slot])
    }

    /// A node adopts another partition state. Any node may learn of its phase.
    fn adopt(&mut self, setup: &Setup, slot: usize, partition_state: PartitionState, is_unsaved: bool) {
        self.announce(&partition_state.phase);
        let before = self.machines[slot].partition_state.clone();
        self.machine(slot).adopt(setup, slot, partition_state, is_unsaved);
        self.follow(setup, slot, &before.phase);
    }

    /// Applies the result of an action.
    fn ended(&mut self, setup: &Setup, slot: usize, done: &Done) {
        let me = self.machines[slot].home(setup, slot);
        for (_, message) in &done.said {
            match message {
                ReconfigurationMessage::Holds(phase) => self.announce(phase),
                ReconfigurationMessage::Synced(number) if !self.synced.contains(&(me, *number)) => {
                    Arc::make_mut(&mut self.synced).insert((me, *number));
                }
                _ => {}
            }
        }
        if done.partition_state != *self.machines[slot].partition_state {
            self.adopt(setup, slot, done.partition_state.clone(), done.is_unsaved);
        }
    }

    fn announce(&mut self, phase: &ConfigPhase) {
        if !self.announced.iter().any(|announced| announced.is(phase)) {
            Arc::make_mut(&mut self.announced).insert(Announced::of(phase));
        }
    }

    fn others(&self, setup: &Setup, slot: usize) -> Vec<NodeId> {
        setup.nodes.iter().copied().filter(|&node| node != setup.nodes[slot]).collect()
    }

    /// A node attends to the partition. In a joint phase it considers all others down, so it waits for no node that it
    /// does not need.
    fn attend(&mut self, setup: &Setup, slot: usize, synced: &Arc<BTreeSet<(Home, u64)>>) {
        let before = self.machines[slot].clone();
        let situation = Situation {
            slot,
            view: before.view,
            partition_state: before.partition_state.clone(),
            compared: before.compared.clone(),
            synced: synced.clone(),
        };
        let known = setup.memory.lock().expect("no other thread panicked").get(&situation).cloned();
        let done = known.unwrap_or_else(|| {
            let down =
                if before.partition_state.phase.next().is_some() { self.others(setup, slot) } else { Vec::new() };
            let mut stage = Stage::new(setup, slot, &before, synced, &down);
            stage.tick();
            let done = Arc::new(stage.done());
            setup.memory.lock().expect("no other thread panicked").insert(situation, done.clone());
            done
        });
        if !done.said.iter().any(|(_, message)| matches!(message, ReconfigurationMessage::Prepare(..))) {
            self.ended(setup, slot, &done);
            if self.machines[slot].partition_state != before.partition_state {
                self.attend_after_event(setup, slot);
            }
        }
    }

    /// A node attends to the partition, as it does after every event.
    fn attend_after_event(&mut self, setup: &Setup, slot: usize) {
        self.attend(setup, slot, &Arc::default());
    }

    fn learn(&mut self, setup: &Setup, slot: usize, announced: &Announced) {
        let before = self.machines[slot].clone();
        let mut stage = Stage::new(setup, slot, &before, &BTreeSet::new(), &[]);
        let from = setup.home((slot + 1) % setup.nodes.len(), before.view);
        stage.hear(from, ReconfigurationMessage::Holds(announced.phase()));
        self.ended(setup, slot, &stage.done());
    }

    /// A node proposes. The new homes have reported that they have copied, and the choosers before it seem to be down.
    fn propose(&mut self, setup: &Setup, slot: usize) {
        let before = self.machines[slot].clone();
        let me = before.home(setup, slot);
        let ConfigPhase::Stable(only) = &before.partition_state.phase else { return };
        let choosers = only.choosers().to_vec();
        let down: Vec<NodeId> = choosers.iter().take_while(|&&home| home != me).map(|home| home.node).collect();
        let mut stage = Stage::new(setup, slot, &before, &BTreeSet::new(), &down);
        for home in setup.views[usize::from(before.view)].target(setup.partition) {
            if !only.homes_of(setup.group).contains(&home) && home != me {
                stage.hear(home, ReconfigurationMessage::Copied(only.number + 1));
            }
        }
        stage.tick();
        let prepared = stage.said.iter().find_map(|(_, message)| match message {
            ReconfigurationMessage::Prepare(number, ballot) => Some((*number, *ballot)),
            _ => None,
        });
        let Some((number, ballot)) = prepared else {
            return self.ended(setup, slot, &stage.done());
        };
        let partition_state = stage.partition_state.clone();
        // The proposal, if no configuration was accepted before.
        for &home in choosers.iter().filter(|&&home| home != me) {
            stage.hear(home, ReconfigurationMessage::Promise(number, ballot, None));
        }
        let proposal = stage.said.iter().find_map(|(_, message)| match message {
            ReconfigurationMessage::Accept(_, proposal) => Some(proposal.clone()),
            _ => None,
        });
        let Some(proposal) = proposal else { return };
        let mut proposer = Proposer::new(choosers, ballot, proposal);
        let next = proposer.promised(me, ballot, before.partition_state.acceptor.accepted.clone());
        self.ballots += 1;
        self.machine(slot).proposal = Some(Proposal { number, proposer, chosen: None });
        let is_unsaved = stage.is_unsaved;
        self.adopt(setup, slot, partition_state, is_unsaved);
        self.go_on(slot, next);
    }

    fn go_on(&mut self, slot: usize, next: Proposed) {
        let Some(mut proposal) = self.machines[slot].proposal.clone() else { return };
        match next {
            Proposed::Waiting => {}
            Proposed::Accept(configuration) => {
                Arc::make_mut(&mut self.proposed).insert((proposal.proposer.ballot(), configuration));
            }
            Proposed::Chosen(configuration) => proposal.chosen = Some(configuration),
        }
        self.machine(slot).proposal = Some(proposal);
    }

    /// A chooser gets a proposer's message. If it answers, the answer arrives at once.
    fn choose(&mut self, setup: &Setup, slot: usize, proposer: usize, message: ReconfigurationMessage) {
        let before = self.machines[slot].clone();
        let mut stage = Stage::new(setup, slot, &before, &BTreeSet::new(), &[]);
        // A message of the proposer to itself would not be recorded, so it is delivered as from another node.
        let asker = if proposer == slot { (slot + 1) % self.machines.len() } else { proposer };
        stage.hear(self.machines[asker].home(setup, asker), message);
        let done = stage.done();
        self.ended(setup, slot, &done);
        let me = before.home(setup, slot);
        for (_, message) in done.said {
            let Some(mut proposal) = self.machines[proposer].proposal.clone() else { continue };
            let next = match message {
                ReconfigurationMessage::Promise(number, ballot, accepted) if number == proposal.number => {
                    proposal.proposer.promised(me, ballot, accepted)
                }
                ReconfigurationMessage::Accepted(number, ballot) if number == proposal.number => {
                    proposal.proposer.accepted(me, ballot)
                }
                _ => continue,
            };
            self.machine(proposer).proposal = Some(proposal);
            self.go_on(proposer, next);
        }
    }

    fn enter(&mut self, setup: &Setup, slot: usize) {
        let before = self.machines[slot].clone();
        let Some(Proposal { chosen: Some(next), .. }) = &before.proposal else { return };
        let announced =
            Announced::of(&ConfigPhase::Joint(before.partition_state.phase.current().clone(), next.clone()));
        Arc::make_mut(&mut self.announced).insert(announced.clone());
        self.learn(setup, slot, &announced);
    }

    /// Whether a node takes part in exchanges of others.
    fn shares(&self, setup: &Setup, slot: usize) -> bool {
        let machine = &self.machines[slot];
        !machine.partition_state.is_candidate && (machine.is_home(setup, slot) || machine.leaves(setup, slot))
    }

    /// One node runs an exchange with another. A syncing home gets what the other holds; a retired home and the other
    /// both get the join.
    fn compare(&mut self, setup: &Setup, slot: usize, with: usize) {
        let (one, other) = (self.machines[slot].clone(), self.machines[with].clone());
        let home = other.home(setup, with);
        let (is_syncing, leaves) = (one.is_syncing(setup, slot), one.leaves(setup, slot));
        let version = other.partition_state.phase.version();
        if !self.shares(setup, with) || version < one.partition_state.phase.version() {
            return;
        }
        let seen = Seen {
            version,
            synced: other.partition_state.holds_all(home, setup.group) && !other.is_lost,
            is_since_left: leaves,
        };
        if is_syncing && one.partition_state.phase.current().homes_of(setup.group).contains(&home) {
            self.machine(slot).data |= other.data;
            self.machine(slot).noted.merge(&other.noted);
            self.machine(slot).compared.insert(home.node, seen);
        } else if leaves && one.partition_state.phase.is_home(home, setup.group) {
            self.machine(with).data |= one.data;
            self.machine(slot).data |= other.data;
            self.machine(slot).compared.insert(home.node, seen);
        }
    }

    /// A node purges what it holds of the key, unless it must keep it.
    fn purge(&mut self, setup: &Setup, slot: usize) {
        let before = self.machines[slot].clone();
        let held = setup.held(slot, before.view, &before.partition_state);
        if !before.partition_state.has_stale_data {
            return;
        }
        if !held.keeps(setup.partition, setup.group) {
            self.machine(slot).data = 0;
            self.marks.has_purged |= before.data != 0;
            let keeps = |&other: &usize| {
                self.machines[other].is_home(setup, other) || self.machines[other].leaves(setup, other)
            };
            let kept = (0..self.machines.len()).filter(keeps).fold(0, |kept, other| kept | self.machines[other].data);
            // What a home has lost in another way does not count here.
            self.marks.has_lost |= self.losses == 0 && before.data & !kept != 0;
        }
        let partition_state =
            PartitionState { has_stale_data: false, ..PartitionState::clone(&before.partition_state) };
        self.adopt(setup, slot, partition_state, before.unsaved.is_some());
    }

    fn crash(&mut self, slot: usize) {
        self.crashes += 1;
        self.orphan(slot);
        let is_midway = |machine: &Arc<Machine>| machine.partition_state.phase.next().is_some();
        self.marks.has_crashed_midway |= self.machines.iter().any(is_midway);
        let machine = self.machine(slot);
        machine.compared.clear();
        machine.heard.clear();
        machine.proposal = None;
        if let Some(saved) = machine.unsaved.take() {
            machine.partition_state = saved;
        }
    }

    /// All nodes adopt the last view, in which this node has another incarnation.
    fn renew(&mut self, setup: &Setup, slot: usize) {
        self.renewals += 1;
        self.orphan(slot);
        let last = setup.views.len() as u8 - 1;
        (0..self.machines.len()).for_each(|slot| self.machine(slot).view = last);
        let mut partition_state = PartitionState::bootstrap(setup.first(), setup.home(slot, last));
        partition_state.is_candidate = true;
        *self.machine(slot) = Machine::with_nothing(last, partition_state);
    }

    /// All nodes adopt the last view, in which some nodes are marked lost. These do nothing any more.
    fn mark_lost(&mut self, setup: &Setup) {
        let last = setup.views.len() as u8 - 1;
        for slot in 0..self.machines.len() {
            self.machine(slot).view = last;
            if setup.is_marked_lost(slot) {
                self.orphan(slot);
            }
        }
        let left = |(slot, machine): (usize, &Arc<Machine>)| (!setup.is_marked_lost(slot)).then_some(machine.data);
        self.left = Some(self.machines.iter().enumerate().map(left).collect());
    }

    fn is_lost(&self, slot: usize) -> bool {
        self.left.as_ref().is_some_and(|left| left[slot].is_none())
    }

    /// A force-recovered home that is synced must hold what each home of its configuration held.
    fn check_force_recovered(&mut self, setup: &Setup) {
        let Some(left) = &self.left else { return };
        let had = |home: &Home| setup.slot(home.node).and_then(|slot| left[slot]).unwrap_or_default();
        let mut marks = self.marks;
        for (slot, machine) in self.machines.iter().enumerate() {
            if let ConfigPhase::Stable(only) = &machine.partition_state.phase
                && only.is_force_recovered()
                && only.has(machine.home(setup, slot))
                && machine.partition_state.is_synced()
            {
                let all = only.homes.iter().fold(0, |all, home| all | had(home));
                marks.has_answered_too_early |= all & !machine.data != 0;
                marks.has_answered_again = true;
                marks.has_saved |= all & !left[slot].unwrap_or_default() != 0;
            }
        }
        self.marks = marks;
    }

    fn view(&self) -> u8 {
        self.machines.iter().map(|machine| machine.view).max().unwrap_or(0)
    }

    /// The writes that every read that begins now must show.
    fn must(&self, setup: &Setup) -> Writes {
        let acknowledged = self.writes.iter().zip(0..).filter(|(write, _)| write.is_acknowledged);
        let written: Writes = acknowledged.fold(0, |must, (_, bit)| must | 1 << bit);
        let read = self.reads.iter().filter_map(|read| read.got.filter(|_| setup.is_strong));
        read.fold(written, |must, got| must | got)
    }

    /// A home loses its record: it is damaged, or power fails before it was synced.
    fn lose(&mut self, slot: usize, with_power: bool) {
        self.losses += 1;
        if with_power {
            self.crash(slot);
            self.crashes -= 1;
        }
        let machine = self.machine(slot);
        machine.data = 0;
        machine.is_lost = true;
        machine.losses += 1;
        machine.heard.clear();
        machine.heard_of = ConfigVersion(0);
    }

    /// A home that has lost its record reads another, which notes the loss first.
    fn recover(&mut self, setup: &Setup, slot: usize, from: usize) {
        let (one, view) = (self.machines[slot].clone(), self.view());
        if !self.machines[from].is_home(setup, from) {
            return;
        }
        let (home, memory) = (one.home(setup, slot), one.memory(setup, slot));
        self.machine(from).noted.note(home, memory.since);
        let holds = self.machines[from].holds(setup, from);
        let version = self.machines[from].partition_state.phase.version();
        let node = setup.nodes[from];
        let machine = self.machine(slot);
        machine.heard.insert(node, holds);
        machine.heard_of = machine.heard_of.max(version);
        let others = homes(setup, view, &machine.partition_state.phase).without(home.node);
        if machine.heard_of <= machine.partition_state.phase.version()
            && let Some(join) = recovered(setup, &machine.heard, others)
        {
            machine.data |= join;
            machine.is_lost = false;
            machine.heard.clear();
            machine.heard_of = ConfigVersion(0);
        }
    }

    fn store(&mut self, setup: &Setup, write: usize, slot: usize) {
        if !self.machines[slot].is_home(setup, slot) {
            return;
        }
        self.machine(slot).data |= 1 << write;
        let (version, node) = (self.machines[slot].partition_state.phase.version(), setup.nodes[slot]);
        let (memory, noted) = (self.machines[slot].memory(setup, slot), self.machines[slot].noted.clone());
        let now = &mut self.writes[write];
        now.coordinator.get_or_insert(slot);
        now.stored.insert(node, memory);
        if !setup.breaks(Mutation::CountLost) {
            now.losses.merge(&noted);
        }
        now.heard_of = now.heard_of.max(version);
        self.settle_write(setup, write);
    }

    fn settle_write(&mut self, setup: &Setup, write: usize) {
        let view = self.view();
        if let Some(coordinator) = self.writes[write].coordinator {
            let partition_state = self.machines[coordinator].partition_state.clone();
            self.writes[write].settle(setup, view, &partition_state.phase);
            self.begin_at_once(setup);
        }
    }

    /// The writes that a node coordinates continue with the phase that it knows now.
    fn follow(&mut self, setup: &Setup, slot: usize, before: &ConfigPhase) {
        let view = self.view();
        let (before, now) =
            (homes(setup, view, before), homes(setup, view, &self.machines[slot].partition_state.phase));
        let own: Vec<usize> =
            (0..self.writes.len()).filter(|&write| self.writes[write].coordinator == Some(slot)).collect();
        for write in own {
            self.writes[write].stored.retain(|&node, _| still_counts(setup, node, &now, &before));
            self.settle_write(setup, write);
        }
    }

    /// A node has stopped; the writes that it coordinated are never acknowledged.
    fn orphan(&mut self, slot: usize) {
        for write in self.writes.iter_mut().filter(|write| write.coordinator == Some(slot)) {
            *write = Write { is_orphaned: true, ..Write::default() };
        }
    }

    /// A read begins. Its coordinator knows only the bootstrap; it may learn of more before it reads any home.
    fn begin_read(&mut self, setup: &Setup, read: usize) {
        let (phase, must) = (ConfigPhase::Stable(setup.first()), self.must(setup));
        self.reads[read] = Read { phase: Some(Arc::new(phase)), must, ..Read::default() };
    }

    /// With a single write, a read that begins later need show no more than one that begins at once.
    fn begin_at_once(&mut self, setup: &Setup) {
        if let [Write { is_acknowledged: true, .. }] = self.writes[..]
            && let [Read { phase: None, got: None, .. }] = self.reads[..]
        {
            self.begin_read(setup, 0);
        }
    }

    fn answer(&mut self, setup: &Setup, read: usize, slot: usize) {
        let machine = self.machines[slot].clone();
        if !machine.is_home(setup, slot) {
            return;
        }
        let read_now = &mut self.reads[read];
        if let Some(join) = read_now.join {
            self.machine(slot).data |= join;
        }
        let holds = self.machines[slot].holds(setup, slot);
        let read_now = &mut self.reads[read];
        if !setup.breaks(Mutation::CountLost) {
            read_now.losses.merge(&machine.noted);
        }
        read_now.answers.insert(setup.nodes[slot], holds);
        read_now.heard_of = read_now.heard_of.max(machine.partition_state.phase.version());
        read_now.join = read_now.join.map(|join| join | holds.writes);
        self.settle_read(setup, read);
    }

    fn settle_read(&mut self, setup: &Setup, read: usize) {
        let view = self.view();
        let phase = self.reads[read].phase.clone();
        let read = &mut self.reads[read];
        if read.settle(setup, view) {
            let got = read.got.unwrap_or_default();
            // There is no guarantee once a majority is lost.
            self.marks.has_missed |= self.left.is_none() && read.must & !got != 0;
            let has_moved = self.machines.iter().any(|machine| machine.partition_state.phase.current().number > 0);
            self.marks.has_read_while_joint |= phase.is_some_and(|phase| phase.next().is_some());
            self.marks.has_read_afterwards |= has_moved && read.must & got != 0;
            read.must = 0;
        }
    }
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // All clients have read.
        if !state.reads.is_empty() && state.reads.iter().all(|read| read.got.is_some()) {
            return;
        }
        let slots = || (0..self.nodes.len()).filter(|&slot| !state.is_lost(slot));
        for slot in slots() {
            let machine = &state.machines[slot];
            let (me, phase) = (machine.home(self, slot), &machine.partition_state.phase);
            if phase.next().is_some() || state.left.is_some() {
                actions.push(Action::Hear(slot));
            }
            actions.extend(later(state, phase.version()).map(|announced| Action::Learn(slot, announced)));
            if let ConfigPhase::Stable(only) = phase
                && only.choosers().contains(&me)
            {
                if state.ballots < self.bounds.ballots && only.number < self.bounds.last {
                    actions.push(Action::Propose(slot));
                }
                if let Some(proposal) = &machine.proposal {
                    actions.extend(slots().filter(|&to| to != slot).map(|to| Action::Prepare(slot, to)));
                    actions.extend(proposal.chosen.iter().map(|_| Action::Enter(slot)));
                }
                let proposed = state.proposed.iter().filter(|(_, proposal)| proposal.number == only.number + 1);
                actions.extend(proposed.map(|(ballot, proposal)| Action::Accept(*ballot, proposal.clone(), slot)));
            }
            if machine.is_syncing(self, slot) || machine.leaves(self, slot) {
                actions.extend(slots().filter(|&with| with != slot).map(|with| Action::Compare(slot, with)));
            }
            if machine.partition_state.has_stale_data {
                actions.push(Action::Drop(slot));
            }
            if state.losses < self.bounds.losses
                && machine.data != 0
                && state.machines.iter().all(|other| !other.is_lost)
            {
                actions.extend([false, true].map(|with_power| Action::Lose(slot, with_power)));
            }
            if machine.is_lost {
                let others = homes(self, state.view(), phase).without(me.node).all();
                actions
                    .extend(others.iter().filter_map(|&node| self.slot(node)).map(|from| Action::Recover(slot, from)));
            }
            if state.crashes < self.bounds.crashes {
                actions.push(Action::Crash(slot));
            }
        }
        if self.is_chosen {
            actions.extend(state.next_choice(self).map(Action::Choose));
        }
        if state.renewals < self.bounds.renewals {
            actions.push(Action::Renew(0));
        }
        if self.marks_lost() && state.left.is_none() {
            actions.push(Action::MarkLost);
        }
        for (number, write) in state.writes.iter().enumerate() {
            if write.is_acknowledged || write.is_orphaned {
                continue;
            }
            if state.failures < self.bounds.failures {
                actions.extend(slots().map(|slot| Action::StoreFails(number, slot)));
            }
            let Some(coordinator) = write.coordinator else {
                actions.extend(slots().map(|slot| Action::Store(number, slot)));
                break;
            };
            let asked = homes(self, state.view(), &state.machines[coordinator].partition_state.phase).all();
            let asked = asked
                .into_iter()
                .filter(|node| write.stored.get(node).is_none_or(|&memory| write.losses.outdate(*node, memory)));
            let asked = asked.filter_map(|node| self.slot(node)).filter(|&slot| !state.is_lost(slot));
            actions.extend(asked.map(|slot| Action::Store(number, slot)));
        }
        for (number, read) in state.reads.iter().enumerate() {
            if read.got.is_some() {
                continue;
            }
            let Some(phase) = &read.phase else {
                let is_next = state.reads[..number].iter().all(|read| read.got.is_some());
                if is_next && (state.must(self) != 0 || self.is_strong) {
                    actions.push(Action::BeginRead(number));
                }
                break;
            };
            for node in homes(self, state.view(), phase).all() {
                let Some(slot) = self.slot(node).filter(|&slot| !state.is_lost(slot)) else { continue };
                let is_wanted = match (read.answers.get(&node), read.join) {
                    (None, None) => true,
                    // A syncing or recovering home is read again.
                    (Some(holds), None) => {
                        holds.is_syncing && state.machines[slot].partition_state.is_synced()
                            || holds.is_lost && !state.machines[slot].is_lost
                    }
                    (holds, Some(join)) => holds.is_none_or(|holds| {
                        let is_better = holds.is_lost && !state.machines[slot].is_lost;
                        holds.writes != join || is_better || read.losses.outdate(node, holds.memory)
                    }),
                };
                if is_wanted {
                    actions.push(match read.join {
                        None => Action::Answer(number, slot),
                        Some(_) => Action::WriteBack(number, slot),
                    });
                }
            }
            actions.extend(later(state, phase.version()).map(|announced| Action::FollowRead(number, announced)));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Hear(slot) => {
                let synced = state.synced.clone();
                state.attend(self, slot, &synced);
            }
            Action::Learn(slot, announced) => {
                state.learn(self, slot, &announced);
                state.attend_after_event(self, slot);
            }
            Action::Propose(slot) => state.propose(self, slot),
            Action::Prepare(slot, to) => {
                let Proposal { number, proposer, .. } = state.machines[slot].proposal.as_ref()?;
                let message = ReconfigurationMessage::Prepare(*number, proposer.ballot());
                state.choose(self, to, slot, message);
            }
            Action::Accept(ballot, proposal, slot) => {
                let proposer = self.slot(ballot.node)?;
                state.choose(self, slot, proposer, ReconfigurationMessage::Accept(ballot, proposal));
            }
            Action::Enter(slot) => {
                state.enter(self, slot);
                state.attend_after_event(self, slot);
            }
            Action::Choose(announced) => state.announce(&announced.phase()),
            Action::Compare(slot, with) => {
                state.compare(self, slot, with);
                state.attend_after_event(self, slot);
            }
            Action::Drop(slot) => {
                state.purge(self, slot);
                state.attend_after_event(self, slot);
            }
            Action::Crash(slot) => {
                state.crash(slot);
                state.attend_after_event(self, slot);
            }
            Action::Renew(slot) => state.renew(self, slot),
            Action::MarkLost => state.mark_lost(self),
            Action::Lose(slot, with_power) => {
                state.lose(slot, with_power);
                state.attend_after_event(self, slot);
            }
            Action::Recover(slot, from) => state.recover(self, slot, from),
            Action::StoreFails(write, slot) => {
                if !state.machines[slot].is_home(self, slot) {
                    return None;
                }
                state.failures += 1;
                state.machine(slot).data |= 1 << write;
            }
            Action::Store(write, slot) => state.store(self, write, slot),
            Action::BeginRead(read) => state.begin_read(self, read),
            Action::Answer(read, slot) | Action::WriteBack(read, slot) => state.answer(self, read, slot),
            Action::FollowRead(read, announced) => {
                let before = homes(self, state.view(), state.reads[read].phase.as_ref()?);
                let now = homes(self, state.view(), &announced.phase());
                state.reads[read].phase = Some(Arc::new(announced.phase()));
                let stands = |node: NodeId| now.contains(node) && still_holds(self, node, &now, &before);
                state.reads[read].answers.retain(|&node, _| stands(node));
                state.settle_read(self, read);
            }
        }
        state.check_force_recovered(self);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_NEXT, |_: &Self, state: &State| state.has_one_chain()),
            Property::always(SEEN, |_: &Self, state: &State| !state.marks.has_missed),
            Property::always(KEPT, |_: &Self, state: &State| !state.marks.has_lost),
            Property::sometimes(LAST_IS_STABLE, |setup: &Self, state: &State| state.has_stepped_to(setup.bounds.last)),
        ];
        if self.bounds.losses > 0 {
            properties.push(Property::sometimes(RECOVERED, |_: &Self, state: &State| {
                state.losses > 0 && state.machines.iter().all(|machine| !machine.is_lost)
            }));
        }
        if self.bounds.crashes > 0 && self.bounds.last > 0 {
            let has_crashed = |_: &Self, state: &State| state.marks.has_crashed_midway && state.has_stepped_to(1);
            properties.push(Property::sometimes(OVER_A_CRASH, has_crashed));
        }
        if self.marks_lost() {
            properties.push(Property::always(LEFT, |_: &Self, state: &State| !state.marks.has_answered_too_early));
            properties
                .push(Property::sometimes(FORCE_RECOVERED, |_: &Self, state: &State| state.marks.has_answered_again));
            properties.push(Property::sometimes(SAVED, |_: &Self, state: &State| state.marks.has_saved));
        }
        if self.bounds.reads > 0 && self.bounds.last > 0 {
            properties.push(Property::sometimes(READ_WHILE_JOINT, |_: &Self, state: &State| {
                state.marks.has_read_while_joint
            }));
            properties
                .push(Property::sometimes(READ_AFTERWARDS, |_: &Self, state: &State| state.marks.has_read_afterwards));
        }
        if self.bounds.writes > 0 && self.bounds.last > 0 && self.has_leavers() {
            properties.push(Property::sometimes(PURGED, |_: &Self, state: &State| state.marks.has_purged));
        }
        properties
    }
}

/// The announced phases later than a version.
fn later(state: &State, version: ConfigVersion) -> impl Iterator<Item = Announced> {
    state.announced.iter().filter(move |announced| announced.version > version).cloned()
}

impl State {
    fn has_stepped_to(&self, number: u64) -> bool {
        self.machines
            .iter()
            .any(|machine| matches!(&machine.partition_state.phase, ConfigPhase::Stable(only) if only.number >= number))
    }

    /// Whether all announced configurations of the same number are the same.
    fn has_one_chain(&self) -> bool {
        let mut chain: BTreeMap<u64, &Configuration> = BTreeMap::new();
        let all =
            self.announced.iter().flat_map(|announced| [Some(&announced.current), announced.next.as_ref()]).flatten();
        all.into_iter()
            .all(|configuration| *chain.entry(configuration.number).or_insert(configuration) == configuration)
    }
}
