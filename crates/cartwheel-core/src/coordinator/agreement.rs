//! The second half of a strong get: a majority must hold exactly what is returned.
//!
//! Joining a majority's states is not enough. Of two concurrent gets, one may have read write x and not y, the other y
//! and not x, and no order of the writes explains both. If each returns only what a majority held *exactly*, some
//! replica held first one response and then the other. A replica's state only grows, so one response includes the other.
//!
//! Homes collect tombstones, each at its own epoch change, and a home that has collected a key does not accept its
//! tombstones again. So take a join of nothing but tombstones that some home may have collected: those due in the epoch
//! after the coordinator's. Then a home that holds nothing at all counts as holding the join. It says the same about
//! the key, and the values that those tombstones suppress are nowhere by then.

use std::collections::{BTreeMap, BTreeSet};

use super::read_round::Joined;
use crate::cluster::configuration::{ConfigStamp, Homes};
use crate::cluster::losses::Losses;
use crate::message::StateDigest;
use crate::replica::gc::{self, Rules};
use crate::ring::quorum::Quorum;
use crate::value::dot::NodeId;
use crate::value::state::State;

/// A join that a majority is to hold.
#[derive(Debug)]
pub struct Agreement {
    homes: Homes,
    needed: Quorum,
    joined: Joined,
    /// The state that each home that counts was last known to hold exactly.
    held: BTreeMap<NodeId, StateDigest>,
    /// The rules by which homes may already have collected tombstones.
    rules: Rules,
}

impl Agreement {
    /// Begins with the join of a majority's states. `rules` are the coordinator's rules of garbage collection.
    pub fn new(homes: Homes, needed: impl Into<Quorum>, joined: Joined, rules: Rules) -> Self {
        let rules = Rules { now: rules.now.next(), ..rules };
        let (held, needed) = (joined.held.clone(), needed.into());
        Self { homes, needed, joined, held, rules }
    }

    /// The join that a majority is to hold.
    pub const fn joined(&self) -> &Joined {
        &self.joined
    }

    /// The homes known to hold exactly the join, or to have collected it.
    pub fn agreeing(&self) -> BTreeSet<NodeId> {
        let kept = gc::without_due(&self.joined.state, &self.rules);
        let collected = kept.filter(|kept| kept.siblings().len() == 0).map(|_| StateDigest::of(&State::default()));
        let exactly =
            |(_, digest): &(&NodeId, &StateDigest)| **digest == self.joined.digest || Some(**digest) == collected;
        self.held.iter().filter(exactly).map(|(&node, _)| node).collect()
    }

    /// Changes the homes. What an incarnation that is over held says nothing about the next one.
    pub fn move_to(&mut self, homes: Homes) {
        self.held.retain(|&node, _| homes.still_holds(node, &self.homes));
        self.homes = homes;
    }

    /// Drops reports that homes sent before they lost records. These homes are sent the join again.
    pub fn drop_lost(&mut self, losses: &Losses) {
        let memories = &self.joined.memories;
        let memory = |node: &NodeId| memories.get(node).copied().unwrap_or_default();
        self.held.retain(|node, _| !losses.outdate(*node, memory(node)));
    }

    /// How many homes are known to hold exactly the join, in the configuration in which the fewest do.
    pub fn at_home(&self) -> usize {
        let agreeing = self.agreeing();
        let in_current = |home: NodeId| agreeing.contains(&home) && !self.joined.syncing.contains(&home);
        self.homes.fewest(in_current, |home| agreeing.contains(&home))
    }

    /// Whether a majority of each configuration holds exactly the join.
    pub fn is_reached(&self) -> bool {
        let agreeing = self.agreeing();
        let in_current = |home: NodeId| agreeing.contains(&home) && !self.joined.syncing.contains(&home);
        self.homes.missing(self.needed, in_current, |home| agreeing.contains(&home)) == 0
    }

    /// The majority, in the configuration that needs the most.
    pub fn needed(&self) -> usize {
        self.homes.needs(self.needed).map(|(_, needed)| needed).max().unwrap_or(0)
    }

    /// The homes that must be sent the join.
    pub fn behind(&self) -> Vec<NodeId> {
        let agreeing = self.agreeing();
        self.homes.all().into_iter().filter(|node| !agreeing.contains(node)).collect()
    }

    /// A home has stored the join and now holds exactly this. True if the join has grown by something that the home
    /// held.
    pub fn holds(
        &mut self,
        node: NodeId,
        config_stamp: ConfigStamp,
        digest: StateDigest,
        state: Option<&State>,
        counts: bool,
    ) -> bool {
        if !self.homes.contains(node) {
            return false;
        }
        if counts {
            self.held.insert(node, digest);
            self.joined.memories.insert(node, config_stamp.memory);
            match config_stamp.is_syncing {
                true => self.joined.syncing.insert(node),
                false => self.joined.syncing.remove(&node),
            };
        }
        let grown = state.is_some_and(|state| self.joined.state.merge(state).changed);
        if grown {
            self.joined.digest = self.joined.state.digest();
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::configuration::Home;
    use crate::cluster::losses::Memory;
    use crate::cluster::membership::Conflict;
    use crate::mutation::Broken;
    use crate::value::clock::Clock;
    use crate::value::dot::{Actor, Dot, Incarnation, Since};
    use crate::value::epoch::Epoch;
    use crate::value::state::Notes;

    fn state(counters: &[u64]) -> State {
        let actor = Actor { node: NodeId::new(9), incarnation: Incarnation(9), since: Since(9) };
        let clock: Clock = counters.iter().map(|&counter| Dot { actor, counter }).collect();
        State::from_parts(clock, [], Notes::new())
    }

    /// Homes 1 and 2 of 1, 2 and 3 were read and held different states.
    fn begun() -> Agreement {
        let held = [(1, state(&[1])), (2, state(&[2]))];
        let joined = Joined {
            state: state(&[1, 2]),
            digest: StateDigest::of(&state(&[1, 2])),
            epoch: None,
            at_home: 2,
            held: held.iter().map(|(node, state)| (NodeId::new(*node), state.digest())).collect(),
            memories: BTreeMap::new(),
            syncing: BTreeSet::new(),
            stand_ins: BTreeSet::new(),
        };
        let rules = Rules { now: Epoch(1), conflict: Conflict::Siblings, idle_max: 8, broken: Broken::default() };
        Agreement::new(Vec::from([1, 2, 3].map(NodeId::new)).into(), 2, joined, rules)
    }

    fn holds(agreement: &mut Agreement, node: u64, held: &State, counts: bool) -> bool {
        agreement.holds(NodeId::new(node), ConfigStamp::default(), StateDigest::of(held), Some(held), counts)
    }

    #[test]
    fn both_configurations_must_agree_while_they_are_joint() {
        let mut agreement = begun();
        let (joined, next) = (state(&[1, 2]), Some([1, 4, 5].map(NodeId::new).into()));
        agreement.move_to(Homes { next, ..Vec::from([1, 2, 3].map(NodeId::new)).into() });
        assert_eq!(agreement.behind(), [1, 2, 3, 4, 5].map(NodeId::new));
        holds(&mut agreement, 1, &joined, true);
        holds(&mut agreement, 2, &joined, true);
        assert!(!agreement.is_reached(), "only one home of the next configuration holds it");
        let syncing = ConfigStamp { is_syncing: true, ..ConfigStamp::default() };
        agreement.holds(NodeId::new(4), syncing, StateDigest::of(&joined), None, true);
        assert!(agreement.is_reached(), "a syncing home counts in the next configuration");
        agreement.holds(NodeId::new(2), syncing, StateDigest::of(&joined), None, true);
        assert!(!agreement.is_reached(), "a syncing home does not count in the current one");
    }

    #[test]
    fn a_state_held_by_an_incarnation_does_not_count_for_the_next_one() {
        let mut agreement = begun();
        let incarnations =
            |incarnation: u64| vec![Home { node: NodeId::new(1), incarnation: Incarnation(incarnation) }];
        let homes = |incarnation: u64| Homes {
            incarnations: incarnations(incarnation),
            ..Vec::from([1, 2, 3].map(NodeId::new)).into()
        };
        agreement.move_to(homes(1));
        holds(&mut agreement, 1, &state(&[1, 2]), true);
        holds(&mut agreement, 2, &state(&[1, 2]), true);
        agreement.move_to(homes(1));
        assert!(agreement.is_reached());
        agreement.move_to(homes(9));
        assert!(!agreement.is_reached() && agreement.behind().contains(&NodeId::new(1)));
    }

    #[test]
    fn a_state_held_before_a_loss_does_not_count_after_it() {
        let mut agreement = begun();
        let memory = |since: u64| Memory { incarnation: Incarnation(1), since: Since(since) };
        let config_stamp = |since: u64| ConfigStamp { memory: memory(since), ..ConfigStamp::default() };
        let digest = StateDigest::of(&state(&[1, 2]));
        for node in [1, 2] {
            agreement.holds(NodeId::new(node), config_stamp(1), digest, None, true);
        }
        assert!(agreement.is_reached());
        let losses: Losses =
            [(Home { node: NodeId::new(1), incarnation: Incarnation(1) }, Since(2))].into_iter().collect();
        for (since, is_reached) in [(1, false), (2, true)] {
            agreement.holds(NodeId::new(1), config_stamp(since), digest, None, true);
            agreement.drop_lost(&losses);
            assert_eq!(agreement.is_reached(), is_reached);
        }
    }

    #[test]
    fn a_majority_must_hold_exactly_what_is_returned() {
        let mut agreement = begun();
        assert!(!agreement.is_reached());
        assert!(!holds(&mut agreement, 1, &state(&[1, 2]), true));
        assert!(holds(&mut agreement, 3, &state(&[1, 2, 3]), true), "the third held more");
        assert!(!agreement.is_reached(), "the first holds less than the join now");
        assert_eq!(agreement.behind(), [1, 2].map(NodeId::new));
        holds(&mut agreement, 2, &state(&[1, 2, 3]), true);
        assert!(agreement.is_reached());
    }

    #[test]
    fn only_homes_that_count_make_a_majority() {
        let mut agreement = begun();
        let joined = state(&[1, 2]);
        holds(&mut agreement, 1, &joined, true);
        holds(&mut agreement, 7, &joined, true);
        assert!(!agreement.is_reached(), "the seventh is not a home");
        holds(&mut agreement, 3, &joined, false);
        assert!(!agreement.is_reached(), "the third has lost its record");
        holds(&mut agreement, 3, &joined, true);
        assert!(agreement.is_reached());
    }
}
