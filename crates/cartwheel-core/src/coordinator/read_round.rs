//! The tally of a read: which nodes get the next requests, and whether enough have responded (paper, section 4.5).
//!
//! It does no I/O and has no notion of time. One home sends its state, the others send digests. Where the digests are
//! equal, the read is done. A home whose digest differs sends its state too, and its state is joined.
//!
//! Stand-ins are read where homes are missing. A stand-in that holds the key counts. One that holds nothing says
//! nothing about what the homes hold, and counts only beside at least one home.
//!
//! While a partition moves to its next configuration ([`Homes`]), a quorum of each of the two lists must answer. A
//! syncing home may lack what the homes before it held, so it counts in the next configuration only. Where stand-ins
//! are allowed and the read takes too long, a node that counts in one list may stand in for a home of the other. So any
//! R nodes are enough.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::cluster::configuration::{ConfigStamp, Homes};
use crate::cluster::losses::Memory;
use crate::message::{Failure, ReplicaResponse, Role, StateDigest, Want};
use crate::ring::quorum::Quorum;
use crate::value::dot::NodeId;
use crate::value::state::{Epoch, State};

/// A request without a response is repeated at least every so many hedges.
const REPEAT_MAX: u32 = 32;

/// A read under way.
#[derive(Debug)]
pub struct ReadRound {
    homes: Homes,
    /// The nodes, in the order in which they are tried.
    order: Vec<(NodeId, Role)>,
    needed: Quorum,
    /// Whether a node that counts in one list may stand in for a home of the other.
    may_cross: bool,
    /// Whether stand-ins no longer count.
    homes_only: bool,
    /// Whether every home must send its state.
    states_only: bool,
    slots: BTreeMap<NodeId, Slot>,
    /// How often [`Self::hedge`] was called.
    hedges: u32,
    /// For each node with an unanswered request: the hedge before the first of those requests.
    waits_since: BTreeMap<NodeId, u32>,
}

#[derive(Debug)]
enum Slot {
    Waiting(Role, Want),
    Responded(NodeResponse),
    Failed,
}

#[derive(Debug)]
struct NodeResponse {
    role: Role,
    digest: StateDigest,
    state: Option<State>,
    epoch: Option<Epoch>,
    /// Whether it has recovered its losses.
    counts: bool,
    is_syncing: bool,
    memory: Memory,
}

impl NodeResponse {
    fn holds_something(&self) -> bool {
        static NOTHING: LazyLock<StateDigest> = LazyLock::new(|| StateDigest::of(&State::default()));
        let is_empty = || self.digest == *NOTHING;
        self.state.as_ref().map_or_else(|| !is_empty(), |state| state.siblings().len() > 0)
    }
}

/// Read requests to send: the node, its role, and what to return.
pub type ReadRequests = Vec<(NodeId, Role, Want)>;

/// The progress of a read.
#[derive(Debug)]
pub enum Progress {
    /// Send these requests, if any, and wait.
    Wait(ReadRequests),
    /// Enough nodes have responded.
    Enough(Box<Joined>),
    /// Too few nodes can still answer.
    Short,
}

/// The join of the states of the nodes that answered.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The join.
    pub state: State,
    /// Its digest.
    pub digest: StateDigest,
    /// The oldest epoch of the states it was built from; none if there was no state.
    pub epoch: Option<Epoch>,
    /// How many homes count, in the configuration in which the fewest do.
    pub at_home: usize,
    /// The homes whose responses count, and what each held.
    pub held: BTreeMap<NodeId, StateDigest>,
    /// For each of those homes, the time since which it had lost no record when it answered.
    pub memories: BTreeMap<NodeId, Memory>,
    /// Those homes that are syncing: they count in the next configuration only.
    pub syncing: BTreeSet<NodeId>,
    /// The stand-ins whose responses count.
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

    /// A read of `needed` of `homes`, or stand-ins for them, tried in this order.
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

    /// Whether a node that counts in one list may stand in for a home of the other.
    #[must_use]
    pub fn crossing(self, may_cross: bool) -> Self {
        Self { may_cross, ..self }
    }

    /// A read of each home's state.
    pub fn of_states(homes: Homes, needed: impl Into<Quorum>) -> Self {
        Self { states_only: true, ..Self::new(homes, needed) }
    }

    /// Changes the homes. Responses still count, except those of incarnations that are over.
    pub fn move_to(&mut self, homes: Homes, order: Vec<(NodeId, Role)>) {
        self.slots.retain(|&node, _| homes.still_holds(node, &self.homes));
        self.waits_since.clear();
        (self.homes, self.order) = (homes, order);
        let order = &self.order;
        let role = |node: NodeId| order.iter().find(|(other, _)| *other == node).map(|(_, role)| *role);
        self.slots.retain(|&node, slot| match (role(node), slot) {
            (Some(now), Slot::Responded(response)) => response.role == now,
            (Some(now), Slot::Waiting(was, _)) => *was == now,
            // A node that failed in one role may succeed in another.
            (_, Slot::Failed) | (None, _) => false,
        });
    }

    /// The join of all homes' states, once all have answered, whether they count or not.
    pub fn all(&self) -> Option<Joined> {
        let responded = self
            .slots
            .values()
            .filter(|slot| matches!(slot, Slot::Responded(NodeResponse { state: Some(_), .. })))
            .count();
        (responded == self.order.len()).then(|| self.join())
    }

    /// How many nodes have given a response that counts.
    pub fn counted(&self) -> usize {
        let homes = self.homes_counted();
        let stand_ins = if self.homes_only { 0 } else { self.counting_stand_ins(homes > 0).count() };
        homes + stand_ins
    }

    /// How many homes count, in the configuration in which the fewest do.
    fn homes_counted(&self) -> usize {
        self.homes.fewest(|home| self.counts_in_current(home), |home| self.counts(home))
    }

    fn counts(&self, home: NodeId) -> bool {
        matches!(self.slots.get(&home), Some(Slot::Responded(NodeResponse { role: Role::Home, counts: true, .. })))
    }

    fn counts_in_current(&self, home: NodeId) -> bool {
        let is_syncing = matches!(self.slots.get(&home), Some(Slot::Responded(NodeResponse { is_syncing: true, .. })));
        self.counts(home) && !is_syncing
    }

    /// Whether a home counts in every list that it is in.
    fn counts_wherever_it_is(&self, home: NodeId) -> bool {
        if self.homes.current.contains(&home) { self.counts_in_current(home) } else { self.counts(home) }
    }

    fn responses(&self) -> impl Iterator<Item = (NodeId, &NodeResponse)> {
        self.slots.iter().filter_map(|(&node, slot)| match slot {
            Slot::Responded(response) => Some((node, response)),
            Slot::Waiting(..) | Slot::Failed => None,
        })
    }

    fn counting_stand_ins(&self, beside_a_home: bool) -> impl Iterator<Item = NodeId> + '_ {
        let counts = move |response: &NodeResponse| {
            response.role == Role::StandIn && (beside_a_home || response.holds_something())
        };
        self.responses().filter(move |(_, response)| counts(response)).map(|(node, _)| node)
    }

    /// Lets only homes count from now on. False if enough homes have answered already.
    pub fn require_homes(&mut self) -> bool {
        self.homes_only = true;
        self.homes_missing() > 0
    }

    /// How many homes are missing, in the configuration that lacks the most.
    fn homes_missing(&self) -> usize {
        self.homes.missing(self.needed, |home| self.counts_in_current(home), |home| self.counts(home))
    }

    /// Whether enough nodes have given a response that counts.
    fn is_enough(&self) -> bool {
        let stand_ins = if self.homes_only { 0 } else { self.counting_stand_ins(self.homes_counted() > 0).count() };
        self.homes_missing() <= stand_ins || self.crosses_now() && self.lists_lack_at_most(stand_ins)
    }

    /// Whether a node that counts in one list now stands in for a home of the other: the homes of that list have had
    /// their time.
    fn crosses_now(&self) -> bool {
        let has_responded =
            |(node, _): &(NodeId, Role)| matches!(self.slots.get(node), Some(Slot::Responded(_) | Slot::Failed));
        self.may_cross && !self.homes_only && (self.hedges > 0 || self.order.iter().all(has_responded))
    }

    /// Whether each list has its quorum, if so many stand-ins, and the homes that count in the other list, count in it.
    fn lists_lack_at_most(&self, stand_ins: usize) -> bool {
        self.homes.needs(self.needed).enumerate().all(|(at, (list, needed))| {
            let counts = |node: NodeId| {
                list.contains(&node) && if at == 0 { self.counts_in_current(node) } else { self.counts(node) }
            };
            let at_home = list.iter().filter(|&&home| counts(home)).count();
            // Like any stand-in, a node that holds nothing says nothing about what the list's homes hold.
            let may_stand_in = |response: &NodeResponse| response.counts && (at_home > 0 || response.holds_something());
            let crosses = |(node, response): &(NodeId, &NodeResponse)| {
                response.role == Role::Home && !counts(*node) && may_stand_in(response)
            };
            at_home + stand_ins + self.responses().filter(crosses).count() >= needed
        })
    }

    /// The quorum, in the configuration that needs the most.
    pub fn needed(&self) -> usize {
        self.homes.needs(self.needed).map(|(_, needed)| needed).max().unwrap_or(0)
    }

    /// Raises the number of homes that must answer by one; false if there are not as many.
    pub fn need_more(&mut self) -> bool {
        self.needed = self.needed.and_one();
        self.needed() <= self.order.len()
    }

    /// Whether a request is unanswered.
    pub fn is_waiting(&self) -> bool {
        self.slots.values().any(|slot| matches!(slot, Slot::Waiting(..)))
    }

    /// Whether any node has reported that it holds a value.
    pub fn has_seen_writes(&self) -> bool {
        self.responses().any(|(_, response)| response.holds_something())
    }

    /// The read has taken too long: sends a request to one more node, and repeats the unanswered ones.
    ///
    /// Mostly a request is not lost but in progress, and a large response takes its time. So a request is repeated after
    /// one hedge, two, four and so on, and then every [`REPEAT_MAX`].
    pub fn hedge(&mut self) -> ReadRequests {
        self.hedges += 1;
        let mut requests = ReadRequests::new();
        for (&node, slot) in &self.slots {
            let Slot::Waiting(role, want) = slot else { continue };
            let waited = self.hedges - *self.waits_since.entry(node).or_insert(self.hedges - 1);
            if waited.is_power_of_two() && waited < REPEAT_MAX || waited.is_multiple_of(REPEAT_MAX) {
                requests.push((node, *role, *want));
            }
        }
        requests.extend(self.request_next(1, |_, _| true));
        requests
    }

    /// Takes in a response; false if it answers no request of this round.
    pub fn heard(&mut self, from: NodeId, config_stamp: ConfigStamp, response: ReplicaResponse) -> bool {
        self.waits_since.remove(&from);
        let Some(slot) = self.slots.get_mut(&from) else { return false };
        let (is_syncing, memory) = (config_stamp.is_syncing, config_stamp.memory);
        let Some(&(_, role)) = self.order.iter().find(|(node, _)| *node == from) else { return false };
        let node_response = match response {
            ReplicaResponse::State { state, epoch, loss } => NodeResponse {
                role,
                digest: state.digest(),
                state: Some(state),
                epoch: Some(epoch),
                counts: loss.is_none(),
                is_syncing,
                memory,
            },
            ReplicaResponse::Digest { digest, loss } => {
                // A digest that arrives after the state that superseded it says nothing new.
                if matches!(slot, Slot::Responded(NodeResponse { state: Some(_), .. }) | Slot::Waiting(_, Want::State))
                {
                    return true;
                }
                NodeResponse { role, digest, state: None, epoch: None, counts: loss.is_none(), is_syncing, memory }
            }
            // The node may not know yet that it is a home. The request is repeated later.
            ReplicaResponse::Failed(Failure::NotAHome) if matches!(slot, Slot::Waiting(Role::Home, _)) => return true,
            ReplicaResponse::Failed(_) => {
                *slot = Slot::Failed;
                return true;
            }
            ReplicaResponse::Stored | ReplicaResponse::Holds { .. } => return false,
        };
        *slot = Slot::Responded(node_response);
        true
    }

    /// Requests the state of a home that has sent a digest.
    pub fn request_state(&mut self, node: NodeId) {
        if let Some(slot) = self.slots.get_mut(&node) {
            *slot = Slot::Waiting(Role::Home, Want::State);
        }
    }

    /// The progress of the read. The caller sends the requests that it returns.
    pub fn progress(&mut self) -> Progress {
        let mut requests = self.fetch_missing_states();
        if self.is_enough() && requests.is_empty() {
            return Progress::Enough(Box::new(self.join()));
        }
        requests.extend(self.request_missing());
        let homes_only = self.homes_only;
        let is_awaited = |slot: &&Slot| matches!(slot, Slot::Waiting(role, _) if *role == Role::Home || !homes_only);
        let waiting = self.slots.values().filter(is_awaited).count();
        if requests.is_empty() && waiting == 0 && !self.await_healing() {
            return Progress::Short;
        }
        Progress::Wait(requests)
    }

    /// Makes the next hedge read the homes again that are recovering or syncing. False if there are none.
    fn await_healing(&mut self) -> bool {
        let is_healing = |node: &NodeId| {
            let slot = self.slots.get(node);
            matches!(slot, Some(Slot::Responded(NodeResponse { role: Role::Home, .. })))
                && !self.counts_wherever_it_is(*node)
        };
        let healing: Vec<NodeId> = self.slots.keys().copied().filter(is_healing).collect();
        for &node in &healing {
            self.slots.insert(node, Slot::Waiting(Role::Home, Want::State));
        }
        !healing.is_empty()
    }

    /// Sends requests to as many more nodes as each configuration lacks, if all unanswered requests succeed.
    fn request_missing(&mut self) -> ReadRequests {
        let mut requests = ReadRequests::new();
        let lists: Vec<(Vec<NodeId>, usize)> =
            self.homes.needs(self.needed).map(|(list, needed)| (list.to_vec(), needed)).collect();
        for (list, needed) in lists {
            let may_count = |(node, slot): &(&NodeId, &Slot)| match slot {
                Slot::Waiting(Role::Home, _) => list.contains(node),
                Slot::Responded(NodeResponse { role: Role::Home, .. }) => {
                    list.contains(node) && self.counts_wherever_it_is(**node)
                }
                Slot::Waiting(Role::StandIn, _) => !self.homes_only,
                Slot::Responded(NodeResponse { role: Role::StandIn, .. }) => {
                    !self.homes_only && self.counting_stand_ins(self.homes_counted() > 0).any(|other| other == **node)
                }
                Slot::Failed => false,
            };
            let missing = needed.saturating_sub(self.slots.iter().filter(may_count).count());
            requests.extend(self.request_next(missing, |node, role| role == Role::StandIn || list.contains(&node)));
        }
        requests
    }

    fn request_next(&mut self, count: usize, is_candidate: impl Fn(NodeId, Role) -> bool) -> ReadRequests {
        let mut requests = ReadRequests::new();
        let homes_only = self.homes_only;
        let is_next = |&(node, role): &(NodeId, Role)| is_candidate(node, role) && (!homes_only || role == Role::Home);
        let untried: Vec<(NodeId, Role)> =
            self.order.iter().copied().filter(is_next).filter(|(node, _)| !self.slots.contains_key(node)).collect();
        for (node, role) in untried.into_iter().take(count) {
            // Only one node is to send its state. If it fails, the next one is.
            let states = self.slots.values().any(|slot| match slot {
                Slot::Waiting(_, want) => *want == Want::State,
                Slot::Responded(response) => response.state.is_some(),
                Slot::Failed => false,
            });
            let want = if states && !self.states_only { Want::Digest } else { Want::State };
            self.slots.insert(node, Slot::Waiting(role, want));
            requests.push((node, role, want));
        }
        requests
    }

    /// Once enough nodes have responded, requests from one node each state of which only the digest is known. Until
    /// that node sends it, it does not count.
    fn fetch_missing_states(&mut self) -> ReadRequests {
        if !self.is_enough() {
            return ReadRequests::new();
        }
        let known: BTreeSet<StateDigest> = self.states().map(|(digest, _)| digest).collect();
        let mut wanted = BTreeSet::new();
        let mut requests = ReadRequests::new();
        for (&node, slot) in &mut self.slots {
            if let Slot::Responded(NodeResponse { role, digest, state: None, .. }) = slot
                && !known.contains(digest)
                && wanted.insert(*digest)
            {
                let role = *role;
                *slot = Slot::Waiting(role, Want::State);
                requests.push((node, role, Want::State));
            }
        }
        requests
    }

    fn states(&self) -> impl Iterator<Item = (StateDigest, &State)> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Responded(NodeResponse { digest, state: Some(state), .. }) => Some((*digest, state)),
            _ => None,
        })
    }

    fn join(&self) -> Joined {
        let mut distinct: BTreeMap<StateDigest, &State> = self.states().collect();
        let (digest, state) = match (distinct.pop_first(), distinct.is_empty()) {
            // Mostly all hold the same state, which has been hashed already.
            (Some((digest, state)), true) => (digest, state.clone()),
            (first, _) => {
                let mut state = first.map(|(_, state)| state.clone()).unwrap_or_default();
                for other in distinct.values() {
                    state.merge(other);
                }
                (state.digest(), state)
            }
        };
        let at_home = self.homes_counted();
        let stand_ins = self.counting_stand_ins(at_home > 0).collect();
        let (held, memories, syncing) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut joined = Joined { digest, state, epoch: None, at_home, held, memories, syncing, stand_ins };
        for (node, response) in self.responses() {
            joined.epoch = joined.epoch.into_iter().chain(response.epoch).min();
            if response.role == Role::Home && response.counts {
                joined.held.insert(node, response.digest);
                joined.memories.insert(node, response.memory);
                joined.syncing.extend(response.is_syncing.then_some(node));
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

    fn response(state: &State, want: Want, counts: bool) -> ReplicaResponse {
        let loss = (!counts).then_some(Loss(1));
        match want {
            Want::State => ReplicaResponse::State { state: state.clone(), epoch: Epoch(1), loss },
            Want::Digest => ReplicaResponse::Digest { digest: state.digest(), loss },
        }
    }

    fn nodes(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId::new).collect()
    }

    #[test]
    fn requests_to_a_silent_node_are_repeated_ever_more_seldom() {
        let homes = [1, 2, 3].map(NodeId::new);
        let mut round = ReadRound::new(homes.to_vec().into(), 1);
        assert!(matches!(round.progress(), Progress::Wait(first) if first == [(homes[0], Role::Home, Want::State)]));
        let requested_at = |round: &mut ReadRound, hedges: u32| -> Vec<u32> {
            let is_requested = |round: &mut ReadRound| round.hedge().iter().any(|&(node, ..)| node == homes[0]);
            (1..=hedges).filter(|_| is_requested(round)).collect()
        };
        assert_eq!(requested_at(&mut round, 100), [1, 2, 4, 8, 16, 32, 64, 96]);
        // After a response, the next request starts with the shortest interval.
        round.heard(homes[0], ConfigStamp::default(), ReplicaResponse::Failed(Failure::NotAHome));
        assert_eq!(requested_at(&mut round, 5), [1, 2, 4]);
    }

    #[test]
    fn equal_homes_cost_one_state_and_digests() {
        let mut round = ReadRound::new(nodes(3).into(), 2);
        let Progress::Wait(requests) = round.progress() else { panic!("nothing is known yet") };
        assert_eq!(requests, [(NodeId::new(1), Role::Home, Want::State), (NodeId::new(2), Role::Home, Want::Digest)]);
        for (node, _, want) in requests {
            assert!(round.heard(node, ConfigStamp::default(), response(&state(&[1]), want, true)));
        }
        let Progress::Enough(joined) = round.progress() else { panic!("two have answered") };
        let agreeing = joined.held.values().filter(|digest| **digest == joined.digest).count();
        assert_eq!((agreeing, joined.behind().len()), (2, 0));
    }

    #[test]
    fn an_unrequested_response_does_not_count() {
        let mut round = ReadRound::new(nodes(3).into(), 1);
        round.progress();
        for stranger in [3, 77].map(NodeId::new) {
            assert!(!round.heard(stranger, ConfigStamp::default(), response(&state(&[1]), Want::State, true)));
        }
        assert_eq!(round.counted(), 0);
    }

    #[test]
    fn at_home_is_the_fewest_homes_that_count_in_any_configuration() {
        let [a, b, c, d] = [1, 2, 3, 4].map(NodeId::new);
        let homes = Homes { current: vec![a, b, c], next: Some(vec![a, b, d]), ..Homes::default() };
        let order = vec![(b, Role::Home), (c, Role::Home), (d, Role::Home), (NodeId::new(5), Role::StandIn)];
        let mut round = ReadRound::in_order(homes, order, 3);
        while let Progress::Wait(requests) = round.progress() {
            for (node, _, want) in requests {
                round.heard(node, ConfigStamp::default(), response(&state(&[1]), want, true));
            }
        }
        let Progress::Enough(joined) = round.progress() else { panic!("enough have answered") };
        assert_eq!(
            (joined.held.len(), joined.at_home, joined.stand_ins.len()),
            (3, 2, 1),
            "the first home has not answered"
        );
    }

    proptest! {
        /// Compared with a naive read, which reads node after node until enough count: the result is the join of all states
        /// received.
        #[test]
        fn it_ends_as_a_naive_read_does(
            homes in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(1u64..4, 0..3)), 1..6),
            needed in 1usize..6,
        ) {
            let n = homes.len();
            let needed = needed.min(n);
            let mut round = ReadRound::new(nodes(n as u64).into(), needed);
            let mut requested = BTreeSet::new();
            let ended = loop {
                match round.progress() {
                    Progress::Wait(requests) => {
                        if requests.is_empty() {
                            prop_assert!(homes.iter().any(|(fails, counts, _)| !fails && !counts), "the read waits for a home to heal");
                            break None;
                        }
                        for (node, _, want) in requests {
                            let (fails, counts, writes) = &homes[node.get() as usize - 1];
                            let failed = ReplicaResponse::Failed(Failure::Storage);
                            requested.insert(node);
                            let response = if *fails { failed } else { response(&state(writes), want, *counts) };
                            round.heard(node, ConfigStamp::default(), response);
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
                for node in requested {
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
