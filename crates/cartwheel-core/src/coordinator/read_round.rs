//! The tally of a read: whom to ask next, and when enough has been heard (paper, section 4.5).
//!
//! Pure bookkeeping: it sends nothing and knows no time. One home is asked for its state, the others for digests; where the
//! digests are equal that is all. A home whose digest differs is asked for its state too, and what it holds is joined.
//!
//! Stand-ins are asked where homes are missing. One that holds the key counts; one that holds nothing says nothing of what the homes
//! hold, and counts only beside one of them.
//!
//! While one configuration takes over from another ([`Homes`]), as many of each must answer. One that is being filled says nothing of
//! what the homes before held, and so counts for the second only. Where stand-ins may count and it takes too long, one that counts in one of
//! the two lists stands in for a home of the other: so R nodes are enough, whatever they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::configuration::{ConfigStamp, Homes};
use crate::cluster::losses::Memory;
use crate::message::{Failure, ReplicaResponse, Role, StateDigest, Want};
use crate::ring::quorum::Quorum;
use crate::value::dot::NodeId;
use crate::value::state::{Epoch, State};

/// A node that does not answer is asked again at the latest after so many hedges.
const REPEAT_MAX: u32 = 32;

/// A read under way.
#[derive(Debug)]
pub struct ReadRound {
    homes: Homes,
    /// The nodes in the order in which they are asked.
    order: Vec<(NodeId, Role)>,
    needed: Quorum,
    /// A node that counts in one list may stand in for a home of the other.
    may_cross: bool,
    /// Stand-ins do not count any more.
    homes_only: bool,
    /// Every home is asked for its state.
    states_only: bool,
    slots: BTreeMap<NodeId, Slot>,
    /// How often it has taken too long.
    hedges: u32,
    /// The hedge before which each node was first asked of those that have not answered since.
    waits_since: BTreeMap<NodeId, u32>,
}

#[derive(Debug)]
enum Slot {
    Waiting(Role, Want),
    Heard(Heard),
    Failed,
}

#[derive(Debug)]
struct Heard {
    role: Role,
    digest: StateDigest,
    state: Option<State>,
    epoch: Option<Epoch>,
    /// It has made good its losses.
    counts: bool,
    is_syncing: bool,
    memory: Memory,
}

impl Heard {
    fn holds_something(&self) -> bool {
        let is_empty = || self.digest == StateDigest::of(&State::default());
        self.state.as_ref().map_or_else(|| !is_empty(), |state| state.siblings().len() > 0)
    }
}

/// Questions to be asked.
pub type Questions = Vec<(NodeId, Role, Want)>;

/// What a read has come to.
#[derive(Debug)]
pub enum Progress {
    /// Ask these, if any, and wait.
    Wait(Questions),
    /// Enough homes have answered.
    Enough(Box<Joined>),
    /// Too few can still answer.
    Short,
}

/// The join of what the homes hold that answered.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The join.
    pub state: State,
    /// Its digest.
    pub digest: StateDigest,
    /// The oldest epoch among what it was built from, if any state came with one.
    pub epoch: Option<Epoch>,
    /// How many homes count, in the configuration of which fewer do.
    pub at_home: usize,
    /// The homes whose answers count, and what each held.
    pub held: BTreeMap<NodeId, StateDigest>,
    /// Since when each of them had lost nothing when it answered.
    pub memories: BTreeMap<NodeId, Memory>,
    /// Those of them that are being filled: they count only as homes that take over.
    pub syncing: BTreeSet<NodeId>,
    /// The stand-ins whose answers count.
    pub stand_ins: BTreeSet<NodeId>,
}

impl Joined {
    /// The homes that count and lack something of the join.
    pub fn behind(&self) -> Vec<NodeId> {
        self.held.iter().filter(|(_, digest)| **digest != self.digest).map(|(&node, _)| node).collect()
    }
}

impl ReadRound {
    /// A read of `needed` of `homes`.
    pub fn new(homes: Homes, needed: impl Into<Quorum>) -> Self {
        let order = homes.all().into_iter().map(|home| (home, Role::Home)).collect();
        Self::in_order(homes, order, needed)
    }

    /// A read of `needed` of `homes` and those who stand in for them, asked in this order.
    pub fn in_order(homes: Homes, order: Vec<(NodeId, Role)>, needed: impl Into<Quorum>) -> Self {
        Self {
            homes,
            order,
            needed: needed.into(),
            may_cross: false,
            homes_only: false,
            states_only: false,
            slots: BTreeMap::new(),
            hedges: 0,
            waits_since: BTreeMap::new(),
        }
    }

    /// A read in which a node that counts in one list may stand in for a home of the other, or not.
    #[must_use]
    pub fn crossing(self, may_cross: bool) -> Self {
        Self { may_cross, ..self }
    }

    /// A read that asks each home for its state.
    pub fn of_states(homes: Homes, needed: impl Into<Quorum>) -> Self {
        Self { states_only: true, ..Self::new(homes, needed) }
    }

    /// The homes are others now. What was heard stays heard, but of incarnations that are over.
    pub fn move_to(&mut self, homes: Homes, order: Vec<(NodeId, Role)>) {
        self.slots.retain(|&node, _| homes.still_holds(node, &self.homes));
        self.waits_since.clear();
        (self.homes, self.order) = (homes, order);
        let order = &self.order;
        let role = |node: NodeId| order.iter().find(|(other, _)| *other == node).map(|(_, role)| *role);
        self.slots.retain(|&node, slot| match (role(node), slot) {
            (Some(now), Slot::Heard(heard)) => heard.role == now,
            (Some(now), Slot::Waiting(was, _)) => *was == now,
            // What it could not do as one it may do as another.
            (_, Slot::Failed) | (None, _) => false,
        });
    }

    /// The join of what all homes hold, if all have answered, whether they count or not.
    pub fn all(&self) -> Option<Joined> {
        let heard =
            self.slots.values().filter(|slot| matches!(slot, Slot::Heard(Heard { state: Some(_), .. }))).count();
        (heard == self.order.len()).then(|| self.join())
    }

    /// How many nodes have answered in a way that counts.
    pub fn counted(&self) -> usize {
        let homes = self.homes_counted();
        let stand_ins = if self.homes_only { 0 } else { self.counting_stand_ins(homes > 0).count() };
        homes + stand_ins
    }

    /// How many homes count, in the configuration of which fewer do.
    fn homes_counted(&self) -> usize {
        self.homes.fewest(|home| self.counts_in_current(home), |home| self.counts(home))
    }

    fn counts(&self, home: NodeId) -> bool {
        matches!(self.slots.get(&home), Some(Slot::Heard(Heard { role: Role::Home, counts: true, .. })))
    }

    fn counts_in_current(&self, home: NodeId) -> bool {
        let is_syncing = matches!(self.slots.get(&home), Some(Slot::Heard(Heard { is_syncing: true, .. })));
        self.counts(home) && !is_syncing
    }

    /// Whether what was heard of a home is all that is wanted of it.
    fn counts_wherever_it_is(&self, home: NodeId) -> bool {
        if self.homes.current.contains(&home) { self.counts_in_current(home) } else { self.counts(home) }
    }

    fn answers(&self) -> impl Iterator<Item = (NodeId, &Heard)> {
        self.slots.iter().filter_map(|(&node, slot)| match slot {
            Slot::Heard(heard) => Some((node, heard)),
            Slot::Waiting(..) | Slot::Failed => None,
        })
    }

    fn counting_stand_ins(&self, beside_a_home: bool) -> impl Iterator<Item = NodeId> + '_ {
        let counts = move |heard: &Heard| heard.role == Role::StandIn && (beside_a_home || heard.holds_something());
        self.answers().filter(move |(_, heard)| counts(heard)).map(|(node, _)| node)
    }

    /// From now on only homes count: false if as many as needed have been heard already.
    pub fn require_homes(&mut self) -> bool {
        self.homes_only = true;
        self.homes_missing() > 0
    }

    /// How many homes are missing, in the configuration that lacks the most.
    fn homes_missing(&self) -> usize {
        self.homes.missing(self.needed, |home| self.counts_in_current(home), |home| self.counts(home))
    }

    /// Whether enough have answered in a way that counts.
    fn is_enough(&self) -> bool {
        let stand_ins = if self.homes_only { 0 } else { self.counting_stand_ins(self.homes_counted() > 0).count() };
        self.homes_missing() <= stand_ins || self.crosses_now() && self.lists_lack_at_most(stand_ins)
    }

    /// Whether a node that counts in one list stands in for a home of the other by now: the homes of that one have had their time.
    fn crosses_now(&self) -> bool {
        let has_been_heard =
            |(node, _): &(NodeId, Role)| matches!(self.slots.get(node), Some(Slot::Heard(_) | Slot::Failed));
        self.may_cross && !self.homes_only && (self.hedges > 0 || self.order.iter().all(has_been_heard))
    }

    /// Whether so many stand-ins and the homes that count elsewhere are enough, with those that count, in each list.
    fn lists_lack_at_most(&self, stand_ins: usize) -> bool {
        self.homes.needs(self.needed).enumerate().all(|(at, (list, needed))| {
            let counts = |node: NodeId| {
                list.contains(&node) && if at == 0 { self.counts_in_current(node) } else { self.counts(node) }
            };
            let at_home = list.iter().filter(|&&home| counts(home)).count();
            // Like any other stand-in, one that holds nothing says nothing of what the list's homes hold.
            let may_stand_in = |heard: &Heard| heard.counts && (at_home > 0 || heard.holds_something());
            let crosses =
                |(node, heard): &(NodeId, &Heard)| heard.role == Role::Home && !counts(*node) && may_stand_in(heard);
            at_home + stand_ins + self.answers().filter(crosses).count() >= needed
        })
    }

    /// How many must, in the configuration of which most must.
    pub fn needed(&self) -> usize {
        self.homes.needs(self.needed).map(|(_, needed)| needed).max().unwrap_or(0)
    }

    /// Asks for one more home than before to answer; false if there is none.
    pub fn need_more(&mut self) -> bool {
        self.needed = self.needed.and_one();
        self.needed() <= self.order.len()
    }

    /// Whether any home that was asked has not answered yet.
    pub fn is_waiting(&self) -> bool {
        self.slots.values().any(|slot| matches!(slot, Slot::Waiting(..)))
    }

    /// Whether anything live was heard of, from however few homes.
    pub fn has_heard_of_writes(&self) -> bool {
        self.answers().any(|(_, heard)| heard.holds_something())
    }

    /// It has taken too long: asks those again that have not answered, and one home more.
    ///
    /// As a rule a question is not lost but is being answered, and a large answer takes its time. So a node is asked again after one
    /// hedge, two, four and so on, and then every [`REPEAT_MAX`].
    pub fn hedge(&mut self) -> Questions {
        self.hedges += 1;
        let mut questions = Questions::new();
        for (&node, slot) in &self.slots {
            let Slot::Waiting(role, want) = slot else { continue };
            let waited = self.hedges - *self.waits_since.entry(node).or_insert(self.hedges - 1);
            if waited.is_power_of_two() && waited < REPEAT_MAX || waited.is_multiple_of(REPEAT_MAX) {
                questions.push((node, *role, *want));
            }
        }
        questions.extend(self.ask_next(1, |_, _| true));
        questions
    }

    /// Takes in an answer; false if nobody asked for it.
    pub fn heard(&mut self, from: NodeId, config_stamp: ConfigStamp, answer: ReplicaResponse) -> bool {
        self.waits_since.remove(&from);
        let Some(slot) = self.slots.get_mut(&from) else { return false };
        let (is_syncing, memory) = (config_stamp.is_syncing, config_stamp.memory);
        let Some(&(_, role)) = self.order.iter().find(|(node, _)| *node == from) else { return false };
        let heard = match answer {
            ReplicaResponse::State { state, epoch, loss } => Heard {
                role,
                digest: StateDigest::of(&state),
                state: Some(state),
                epoch: Some(epoch),
                counts: loss.is_none(),
                is_syncing,
                memory,
            },
            ReplicaResponse::Digest { digest, loss } => {
                // A digest that comes after the state it was superseded by says nothing new.
                if matches!(slot, Slot::Heard(Heard { state: Some(_), .. }) | Slot::Waiting(_, Want::State)) {
                    return true;
                }
                Heard { role, digest, state: None, epoch: None, counts: loss.is_none(), is_syncing, memory }
            }
            // It may not have heard yet that it is one; then it is asked again.
            ReplicaResponse::Failed(Failure::NotAHome) if matches!(slot, Slot::Waiting(Role::Home, _)) => return true,
            ReplicaResponse::Failed(_) => {
                *slot = Slot::Failed;
                return true;
            }
            ReplicaResponse::Stored | ReplicaResponse::Holds { .. } => return false,
        };
        *slot = Slot::Heard(heard);
        true
    }

    /// A home that has sent a digest is asked for its state.
    pub fn ask_for_state(&mut self, node: NodeId) {
        if let Some(slot) = self.slots.get_mut(&node) {
            *slot = Slot::Waiting(Role::Home, Want::State);
        }
    }

    /// What the read has come to, and whom to ask next.
    pub fn progress(&mut self) -> Progress {
        let mut questions = self.fetch_missing_states();
        if self.is_enough() && questions.is_empty() {
            return Progress::Enough(Box::new(self.join()));
        }
        questions.extend(self.ask_missing());
        let homes_only = self.homes_only;
        let is_awaited = |slot: &&Slot| matches!(slot, Slot::Waiting(role, _) if *role == Role::Home || !homes_only);
        let waiting = self.slots.values().filter(is_awaited).count();
        if questions.is_empty() && waiting == 0 && !self.await_healing() {
            return Progress::Short;
        }
        Progress::Wait(questions)
    }

    /// Puts the homes that have not made good a loss, or are being filled, back among those to be asked at the next hedge. False if
    /// there are none.
    fn await_healing(&mut self) -> bool {
        let is_healing = |node: &NodeId| {
            let slot = self.slots.get(node);
            matches!(slot, Some(Slot::Heard(Heard { role: Role::Home, .. }))) && !self.counts_wherever_it_is(*node)
        };
        let healing: Vec<NodeId> = self.slots.keys().copied().filter(is_healing).collect();
        for &node in &healing {
            self.slots.insert(node, Slot::Waiting(Role::Home, Want::State));
        }
        !healing.is_empty()
    }

    /// Asks as many more as are missing in either configuration, if all answer that have been asked.
    fn ask_missing(&mut self) -> Questions {
        let mut questions = Questions::new();
        let lists: Vec<(Vec<NodeId>, usize)> =
            self.homes.needs(self.needed).map(|(list, needed)| (list.to_vec(), needed)).collect();
        for (list, needed) in lists {
            let may_count = |(node, slot): &(&NodeId, &Slot)| match slot {
                Slot::Waiting(Role::Home, _) => list.contains(node),
                Slot::Heard(Heard { role: Role::Home, .. }) => {
                    list.contains(node) && self.counts_wherever_it_is(**node)
                }
                Slot::Waiting(Role::StandIn, _) => !self.homes_only,
                Slot::Heard(Heard { role: Role::StandIn, .. }) => {
                    !self.homes_only && self.counting_stand_ins(self.homes_counted() > 0).any(|other| other == **node)
                }
                Slot::Failed => false,
            };
            let missing = needed.saturating_sub(self.slots.iter().filter(may_count).count());
            questions.extend(self.ask_next(missing, |node, role| role == Role::StandIn || list.contains(&node)));
        }
        questions
    }

    fn ask_next(&mut self, count: usize, may_ask: impl Fn(NodeId, Role) -> bool) -> Questions {
        let mut questions = Questions::new();
        let homes_only = self.homes_only;
        let is_next = |&(node, role): &(NodeId, Role)| may_ask(node, role) && (!homes_only || role == Role::Home);
        let unasked: Vec<(NodeId, Role)> =
            self.order.iter().copied().filter(is_next).filter(|(node, _)| !self.slots.contains_key(node)).collect();
        for (node, role) in unasked.into_iter().take(count) {
            // Only the first is asked for everything; the second stands in for it where the first has failed.
            let states = self.slots.values().any(|slot| match slot {
                Slot::Waiting(_, want) => *want == Want::State,
                Slot::Heard(heard) => heard.state.is_some(),
                Slot::Failed => false,
            });
            let want = if states && !self.states_only { Want::Digest } else { Want::State };
            self.slots.insert(node, Slot::Waiting(role, want));
            questions.push((node, role, want));
        }
        questions
    }

    /// Once enough have answered: asks one home for each state of which only the digest is known. Until it answers, that home
    /// does not count.
    fn fetch_missing_states(&mut self) -> Questions {
        if !self.is_enough() {
            return Questions::new();
        }
        let known: BTreeSet<StateDigest> = self.states().map(|(digest, _)| digest).collect();
        let mut wanted = BTreeSet::new();
        let mut questions = Questions::new();
        for (&node, slot) in &mut self.slots {
            if let Slot::Heard(Heard { role, digest, state: None, .. }) = slot
                && !known.contains(digest)
                && wanted.insert(*digest)
            {
                let role = *role;
                *slot = Slot::Waiting(role, Want::State);
                questions.push((node, role, Want::State));
            }
        }
        questions
    }

    fn states(&self) -> impl Iterator<Item = (StateDigest, &State)> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Heard(Heard { digest, state: Some(state), .. }) => Some((*digest, state)),
            _ => None,
        })
    }

    fn join(&self) -> Joined {
        let mut distinct: BTreeMap<StateDigest, &State> = self.states().collect();
        let (digest, state) = match (distinct.pop_first(), distinct.is_empty()) {
            // As a rule all hold the same, and that has been hashed already.
            (Some((digest, state)), true) => (digest, state.clone()),
            (first, _) => {
                let mut state = first.map(|(_, state)| state.clone()).unwrap_or_default();
                for other in distinct.values() {
                    state.merge(other);
                }
                (StateDigest::of(&state), state)
            }
        };
        let at_home = self.homes_counted();
        let stand_ins = self.counting_stand_ins(at_home > 0).collect();
        let (held, memories, syncing) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut joined = Joined { digest, state, epoch: None, at_home, held, memories, syncing, stand_ins };
        for (node, heard) in self.answers() {
            joined.epoch = joined.epoch.into_iter().chain(heard.epoch).min();
            if heard.role == Role::Home && heard.counts {
                joined.held.insert(node, heard.digest);
                joined.memories.insert(node, heard.memory);
                joined.syncing.extend(heard.is_syncing.then_some(node));
            }
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::losses::Loss;
    use crate::message::Failure;
    use crate::value::clock::Clock;
    use crate::value::dot::{Actor, Dot, Incarnation, Since};
    use crate::value::hlc::Hlc;
    use crate::value::state::{Content, Notes, Sibling};
    use crate::value::write_id::WriteId;

    fn state(writes: &[u64]) -> State {
        let actor = Actor { node: NodeId::new(9), incarnation: Incarnation(9), since: Since(9) };
        let sibling = |&counter: &u64| Sibling {
            dot: Dot { actor, counter },
            content: Content::Tombstone,
            hlc: Hlc::ZERO,
            epoch: Epoch(1),
            write_id: WriteId::from_bytes([counter as u8; 16]),
            expires: None,
        };
        State::from_parts(Clock::new(), writes.iter().map(sibling), Notes::new())
    }

    fn answer(state: &State, want: Want, counts: bool) -> ReplicaResponse {
        let loss = (!counts).then_some(Loss(1));
        match want {
            Want::State => ReplicaResponse::State { state: state.clone(), epoch: Epoch(1), loss },
            Want::Digest => ReplicaResponse::Digest { digest: StateDigest::of(state), loss },
        }
    }

    fn nodes(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId::new).collect()
    }

    #[test]
    fn a_node_that_is_answering_is_not_asked_all_the_time() {
        let homes = [1, 2, 3].map(NodeId::new);
        let mut round = ReadRound::new(homes.to_vec().into(), 1);
        assert!(matches!(round.progress(), Progress::Wait(first) if first == [(homes[0], Role::Home, Want::State)]));
        let asked_at = |round: &mut ReadRound, hedges: u32| -> Vec<u32> {
            let is_asked = |round: &mut ReadRound| round.hedge().iter().any(|&(node, ..)| node == homes[0]);
            (1..=hedges).filter(|_| is_asked(round)).collect()
        };
        assert_eq!(asked_at(&mut round, 100), [1, 2, 4, 8, 16, 32, 64, 96]);
        // What has answered and is asked for more is asked as soon as at first.
        round.heard(homes[0], ConfigStamp::default(), ReplicaResponse::Failed(Failure::NotAHome));
        assert_eq!(asked_at(&mut round, 5), [1, 2, 4]);
    }

    #[test]
    fn equal_homes_cost_one_state_and_digests() {
        let mut round = ReadRound::new(nodes(3).into(), 2);
        let Progress::Wait(questions) = round.progress() else { panic!("nothing is known yet") };
        assert_eq!(questions, [(NodeId::new(1), Role::Home, Want::State), (NodeId::new(2), Role::Home, Want::Digest)]);
        for (node, _, want) in questions {
            assert!(round.heard(node, ConfigStamp::default(), answer(&state(&[1]), want, true)));
        }
        let Progress::Enough(joined) = round.progress() else { panic!("two have answered") };
        let agreeing = joined.held.values().filter(|digest| **digest == joined.digest).count();
        assert_eq!((agreeing, joined.behind().len()), (2, 0));
    }

    #[test]
    fn an_answer_that_nobody_asked_for_counts_for_nothing() {
        let mut round = ReadRound::new(nodes(3).into(), 1);
        round.progress();
        for stranger in [3, 77].map(NodeId::new) {
            assert!(!round.heard(stranger, ConfigStamp::default(), answer(&state(&[1]), Want::State, true)));
        }
        assert_eq!(round.counted(), 0);
    }

    #[test]
    fn while_homes_change_those_count_as_homes_that_every_configuration_has() {
        let [a, b, c, d] = [1, 2, 3, 4].map(NodeId::new);
        let homes = Homes { current: vec![a, b, c], next: Some(vec![a, b, d]), ..Homes::default() };
        let order = vec![(b, Role::Home), (c, Role::Home), (d, Role::Home), (NodeId::new(5), Role::StandIn)];
        let mut round = ReadRound::in_order(homes, order, 3);
        while let Progress::Wait(questions) = round.progress() {
            for (node, _, want) in questions {
                round.heard(node, ConfigStamp::default(), answer(&state(&[1]), want, true));
            }
        }
        let Progress::Enough(joined) = round.progress() else { panic!("enough have answered") };
        assert_eq!((joined.held.len(), joined.at_home, joined.stand_ins.len()), (3, 2, 1), "a was not heard");
    }

    proptest! {
        /// Against a dumb version: ask everyone who does not fail until enough count; the answer is the join of those heard.
        #[test]
        fn it_ends_as_a_dumb_read_would(
            homes in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(1u64..4, 0..3)), 1..6),
            needed in 1usize..6,
        ) {
            let n = homes.len();
            let needed = needed.min(n);
            let mut round = ReadRound::new(nodes(n as u64).into(), needed);
            let mut heard = BTreeSet::new();
            let ended = loop {
                match round.progress() {
                    Progress::Wait(questions) => {
                        if questions.is_empty() {
                            prop_assert!(homes.iter().any(|(fails, counts, _)| !fails && !counts), "it waits for a home to heal");
                            break None;
                        }
                        for (node, _, want) in questions {
                            let (fails, counts, writes) = &homes[node.get() as usize - 1];
                            let failed = ReplicaResponse::Failed(Failure::Storage);
                            heard.insert(node);
                            let answer = if *fails { failed } else { answer(&state(writes), want, *counts) };
                            round.heard(node, ConfigStamp::default(), answer);
                        }
                    }
                    Progress::Enough(joined) => break Some(joined),
                    Progress::Short => break None,
                }
            };
            let could_count = homes.iter().filter(|(fails, counts, _)| !fails && *counts).count();
            prop_assert_eq!(ended.is_some(), could_count >= needed);
            if let Some(joined) = ended {
                let mut expected = State::default();
                for node in heard {
                    let (fails, _, writes) = &homes[node.get() as usize - 1];
                    if !fails {
                        expected.merge(&state(writes));
                    }
                }
                prop_assert!(joined.held.len() >= needed);
                prop_assert_eq!(&joined.state, &expected);
                prop_assert_eq!(joined.digest, StateDigest::of(&expected));
            }
        }
    }
}
