//! Clients' writes and reads, judged by the coordinator's own tallies.
//!
//! A write's coordinator is a home, and uses the phase that this home knows. A read's coordinator is some other node.
//! Both get each answer at once: a late answer would let an operation end later, which demands less of later reads. A
//! lost answer is modelled as one that was never given.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cartwheel_core::cluster::configuration::{ConfigPhase, ConfigStamp, ConfigVersion, Homes};
use cartwheel_core::cluster::losses::{Loss, Losses, Memory};
use cartwheel_core::cluster::membership::Conflict;
use cartwheel_core::coordinator::agreement::Agreement;
use cartwheel_core::coordinator::read_round::{Joined, Progress, ReadRound};
use cartwheel_core::coordinator::write_round::WriteRound;
use cartwheel_core::message::{ReplicaResponse, StateDigest};
use cartwheel_core::mutation::{Broken, Mutation};
use cartwheel_core::replica::gc::Rules;
use cartwheel_core::ring::quorum::Quorum;
use cartwheel_core::value::clock::Clock;
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::value::state::{Content, Notes, Sibling, State};
use cartwheel_core::value::write_id::WriteId;

use super::setup::Setup;

/// A set of writes, as bits.
pub type Writes = u8;

/// A client's write.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Write {
    /// The home that coordinates it: the first one that stores it.
    pub coordinator: Option<usize>,
    /// Whether its coordinator has stopped, so that it is never acknowledged.
    pub is_orphaned: bool,
    /// The nodes that have answered that they have stored it.
    pub stored: BTreeMap<NodeId, Memory>,
    /// The losses that answers have reported.
    pub losses: Losses,
    /// The newest version that an answer has reported.
    pub heard_of: ConfigVersion,
    /// Whether it was acknowledged to the client.
    pub is_acknowledged: bool,
}

/// A replica's answer to a read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Holds {
    pub writes: Writes,
    pub is_syncing: bool,
    /// Whether it has not recovered from a loss.
    pub is_lost: bool,
    pub memory: Memory,
}

/// A client's read.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Read {
    /// The phase that its coordinator uses; none before it begins and once it has ended.
    pub phase: Option<Arc<ConfigPhase>>,
    /// The writes that were acknowledged before it began.
    pub must: Writes,
    /// The last answer of each home.
    pub answers: BTreeMap<NodeId, Holds>,
    /// The losses that answers have reported.
    pub losses: Losses,
    /// The newest version that an answer has reported.
    pub heard_of: ConfigVersion,
    /// What a strong read makes a majority hold.
    pub join: Option<Writes>,
    /// What the client got.
    pub got: Option<Writes>,
}

/// The homes that a coordinator uses that knows this phase.
pub fn homes(setup: &Setup, view: u8, phase: &ConfigPhase) -> Homes {
    let view = &setup.views[usize::from(view)];
    let homes = phase.homes(setup.group, |home| view.is_gone(home.node, home.incarnation));
    if setup.breaks(Mutation::OneSideWritten) { Homes { next: None, ..homes } } else { homes }
}

/// Whether what a node has stored still counts after a change of homes.
pub fn still_counts(setup: &Setup, node: NodeId, now: &Homes, before: &Homes) -> bool {
    setup.counts_past_incarnations || now.is_as_before(node, before)
}

/// Whether what a node was heard to hold still counts after a change of homes.
pub fn still_holds(setup: &Setup, node: NodeId, now: &Homes, before: &Homes) -> bool {
    setup.counts_past_incarnations || now.still_holds(node, before)
}

/// Whether a coordinator with this phase may not end, because it has heard of a newer version.
fn is_behind(setup: &Setup, phase: &ConfigPhase, heard_of: ConfigVersion) -> bool {
    heard_of > phase.version() && !setup.breaks(Mutation::StaleStepAccepted)
}

impl Write {
    /// Acknowledges the write once enough homes have stored it.
    pub fn settle(&mut self, setup: &Setup, view: u8, phase: &ConfigPhase) {
        let mut round = WriteRound::new(homes(setup, view, phase), Vec::new(), setup.writes());
        self.stored.iter().for_each(|(&node, &memory)| round.stored(node, memory));
        round.drop_lost(&self.losses);
        if round.is_enough() && !is_behind(setup, phase, self.heard_of) {
            *self = Self { is_acknowledged: true, ..Self::default() };
        }
    }
}

impl Read {
    /// Goes on as far as it can; true if it has ended.
    pub fn settle(&mut self, setup: &Setup, view: u8) -> bool {
        let Some(phase) = &self.phase else { return false };
        let homes = homes(setup, view, phase);
        if self.join.is_none() {
            let Some(joined) = round(&self.answers, homes.clone(), setup.reads()) else { return false };
            if is_behind(setup, phase, self.heard_of) {
                return false;
            }
            self.join = Some(writes_of(&joined.state));
        }
        let got = self.join.unwrap_or_default();
        if setup.is_strong && (!self.is_agreed(homes, setup.reads(), got) || is_behind(setup, phase, self.heard_of)) {
            return false;
        }
        *self = Self { got: Some(got), must: self.must, ..Self::default() };
        true
    }

    /// Whether a majority holds exactly the join.
    fn is_agreed(&self, homes: Homes, needed: Quorum, join: Writes) -> bool {
        let (state, digest) = known(join);
        let counting = || self.answers.iter().filter(|(_, holds)| !holds.is_lost);
        let held = counting().map(|(&node, holds)| (node, known(holds.writes).1)).collect();
        let memories = counting().map(|(&node, holds)| (node, holds.memory)).collect();
        let syncing = self.answers.iter().filter(|(_, holds)| holds.is_syncing).map(|(&node, _)| node).collect();
        let joined =
            Joined { state, digest, epoch: None, at_home: 0, held, memories, syncing, stand_ins: BTreeSet::new() };
        let rules =
            Rules { now: Epoch::FIRST, conflict: Conflict::Siblings, idle_max: usize::MAX, broken: Broken::default() };
        let mut agreement = Agreement::new(homes, needed, joined, rules);
        agreement.drop_lost(&self.losses);
        agreement.is_reached()
    }
}

/// What a recovering home then holds: the join of enough of the other homes, or of all of them; none if too few have
/// answered.
pub fn recovered(setup: &Setup, answers: &BTreeMap<NodeId, Holds>, others: Homes) -> Option<Writes> {
    let all = others.all();
    let is_heard = all.iter().all(|node| answers.contains_key(node));
    let fewest = others.lists().map(<[NodeId]>::len).min().unwrap_or(0);
    let needed = Quorum::majority_within(setup.settings_n, fewest);
    is_heard
        .then(|| all.iter().filter_map(|node| answers.get(node)).fold(0, |join, holds| join | holds.writes))
        .or_else(|| round(answers, others.clone(), needed).map(|joined| writes_of(&joined.state)))
}

/// The join of the answers, if enough count.
fn round(answers: &BTreeMap<NodeId, Holds>, homes: Homes, needed: Quorum) -> Option<Joined> {
    let mut round = ReadRound::of_states(homes.clone(), needed);
    round.progress();
    homes.all().iter().for_each(|_| drop(round.hedge()));
    for (&node, holds) in answers {
        let config_stamp = ConfigStamp { is_syncing: holds.is_syncing, memory: holds.memory, ..ConfigStamp::default() };
        let (state, _) = known(holds.writes);
        round.heard(
            node,
            config_stamp,
            ReplicaResponse::State { state, epoch: Epoch::FIRST, loss: holds.is_lost.then_some(Loss(1)) },
        );
    }
    match round.progress() {
        Progress::Enough(joined) => Some(*joined),
        Progress::Wait(_) | Progress::Short => None,
    }
}

thread_local! {
    static STATES: RefCell<BTreeMap<Writes, (State, StateDigest)>> = const { RefCell::new(BTreeMap::new()) };
}

/// A record with these writes, and its digest.
fn known(writes: Writes) -> (State, StateDigest) {
    STATES.with_borrow_mut(|states| states.entry(writes).or_insert_with(|| record(writes)).clone())
}

fn record(writes: Writes) -> (State, StateDigest) {
    let actor = Actor { node: NodeId::new(1), incarnation: Incarnation(1), since: Since(1) };
    let sibling = |bit: u8| Sibling {
        dot: Dot { actor, counter: u64::from(bit) + 1 },
        content: Content::Tombstone,
        hlc: Hlc::ZERO,
        epoch: Epoch::FIRST,
        write_id: WriteId::from_bytes([bit; 16]),
        expires: None,
    };
    let held = (0..8).filter(|bit| writes & (1 << bit) != 0).map(sibling);
    let state = State::from_parts(Clock::new(), held, Notes::new());
    let digest = StateDigest::of(&state);
    (state, digest)
}

fn writes_of(state: &State) -> Writes {
    state.siblings().fold(0, |writes, held| writes | 1 << (held.dot.counter - 1))
}
