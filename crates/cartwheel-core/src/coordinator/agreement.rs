//! The second half of a strong get: a majority must come to hold exactly what is answered.
//!
//! Joining a majority's states is not enough. Of two gets at the same time, one may have met write x and not y, the other y and
//! not x, and no order of the writes explains both. If each answers only what a majority held *exactly*, then some replica held
//! the one and later the other; a replica's state only grows, so the one answer includes the other.
//!
//! But homes forget deletes, one an epoch earlier than another, and one that has forgotten a key takes its tombstones in no more. So where
//! nothing is joined but tombstones that some home may have forgotten, those due in the epoch after the coordinator's, one that holds nothing
//! at all counts as holding that: it says the same of the key, and nothing that those tombstones keep away is anywhere by then.

use std::collections::{BTreeMap, BTreeSet};

use super::read_round::Joined;
use crate::cluster::configuration::{ConfigStamp, Homes};
use crate::cluster::losses::Losses;
use crate::message::StateDigest;
use crate::replica::gc::{self, Rules};
use crate::ring::quorum::Quorum;
use crate::value::dot::NodeId;
use crate::value::state::State;

/// A join on its way to a majority.
#[derive(Debug)]
pub struct Agreement {
    homes: Homes,
    needed: Quorum,
    joined: Joined,
    /// What each home was last known to hold exactly, of those that count.
    held: BTreeMap<NodeId, StateDigest>,
    /// By what homes may have forgotten already.
    rules: Rules,
}

impl Agreement {
    /// Begins with what a read of a majority has joined, by a coordinator that forgets by `rules`.
    pub fn new(homes: Homes, needed: impl Into<Quorum>, joined: Joined, rules: Rules) -> Self {
        let rules = Rules { now: rules.now.next(), ..rules };
        let (held, needed) = (joined.held.clone(), needed.into());
        Self { homes, needed, joined, held, rules }
    }

    /// What a majority is to hold.
    pub const fn joined(&self) -> &Joined {
        &self.joined
    }

    /// The homes known to hold exactly that, or to have forgotten it.
    pub fn agreeing(&self) -> BTreeSet<NodeId> {
        let kept = gc::without_due(&self.joined.state, &self.rules);
        let forgotten = kept.filter(|kept| kept.siblings().len() == 0).map(|_| StateDigest::of(&State::default()));
        let exactly =
            |(_, digest): &(&NodeId, &StateDigest)| **digest == self.joined.digest || Some(**digest) == forgotten;
        self.held.iter().filter(exactly).map(|(&node, _)| node).collect()
    }

    /// The homes are others now. What one held in an incarnation that is over says nothing of the next one.
    pub fn move_to(&mut self, homes: Homes) {
        self.held.retain(|&node, _| homes.still_holds(node, &self.homes));
        self.homes = homes;
    }

    /// Drops what homes said that they hold before they lost records: they are asked again.
    pub fn drop_lost(&mut self, losses: &Losses) {
        let memories = &self.joined.memories;
        let memory = |node: &NodeId| memories.get(node).copied().unwrap_or_default();
        self.held.retain(|node, _| !losses.outdate(*node, memory(node)));
    }

    /// How many homes are known to hold exactly that, in the configuration of which fewer do.
    pub fn at_home(&self) -> usize {
        let agreeing = self.agreeing();
        let in_current = |home: NodeId| agreeing.contains(&home) && !self.joined.syncing.contains(&home);
        self.homes.fewest(in_current, |home| agreeing.contains(&home))
    }

    /// Whether a majority holds exactly what is to be answered, of each configuration.
    pub fn is_reached(&self) -> bool {
        let agreeing = self.agreeing();
        let in_current = |home: NodeId| agreeing.contains(&home) && !self.joined.syncing.contains(&home);
        self.homes.missing(self.needed, in_current, |home| agreeing.contains(&home)) == 0
    }

    /// How many must, in the configuration of which most must.
    pub fn needed(&self) -> usize {
        self.homes.needs(self.needed).map(|(_, needed)| needed).max().unwrap_or(0)
    }

    /// The homes that must be sent the join.
    pub fn behind(&self) -> Vec<NodeId> {
        let agreeing = self.agreeing();
        self.homes.all().into_iter().filter(|node| !agreeing.contains(node)).collect()
    }

    /// A home has stored the join and holds exactly this; true if it taught us something, so that the join has grown.
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
            self.joined.digest = StateDigest::of(&self.joined.state);
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

    /// Of homes 1, 2 and 3, the first two were read and held different states.
    fn begun() -> Agreement {
        let held = [(1, state(&[1])), (2, state(&[2]))];
        let joined = Joined {
            state: state(&[1, 2]),
            digest: StateDigest::of(&state(&[1, 2])),
            epoch: None,
            at_home: 2,
            held: held.iter().map(|(node, state)| (NodeId::new(*node), StateDigest::of(state))).collect(),
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
    fn both_configurations_must_agree_while_one_takes_over() {
        let mut agreement = begun();
        let (joined, next) = (state(&[1, 2]), Some([1, 4, 5].map(NodeId::new).into()));
        agreement.move_to(Homes { next, ..Vec::from([1, 2, 3].map(NodeId::new)).into() });
        assert_eq!(agreement.behind(), [1, 2, 3, 4, 5].map(NodeId::new));
        holds(&mut agreement, 1, &joined, true);
        holds(&mut agreement, 2, &joined, true);
        assert!(!agreement.is_reached(), "of those that take over only the first holds it");
        let syncing = ConfigStamp { is_syncing: true, ..ConfigStamp::default() };
        agreement.holds(NodeId::new(4), syncing, StateDigest::of(&joined), None, true);
        assert!(agreement.is_reached(), "what a home that is being filled has stored it has");
        agreement.holds(NodeId::new(2), syncing, StateDigest::of(&joined), None, true);
        assert!(!agreement.is_reached(), "what such a one lacks it may never have been told");
    }

    #[test]
    fn what_a_incarnation_held_does_not_count_for_the_next_one() {
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
    fn what_a_home_held_before_a_loss_does_not_count_after_it() {
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
    fn a_majority_must_hold_exactly_what_is_answered() {
        let mut agreement = begun();
        assert!(!agreement.is_reached());
        assert!(!holds(&mut agreement, 1, &state(&[1, 2]), true));
        assert!(holds(&mut agreement, 3, &state(&[1, 2, 3]), true), "the third knew more");
        assert!(!agreement.is_reached(), "the first holds less than is to be answered now");
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
        assert!(!agreement.is_reached(), "the seventh is no home");
        holds(&mut agreement, 3, &joined, false);
        assert!(!agreement.is_reached(), "the third has lost its record");
        holds(&mut agreement, 3, &joined, true);
        assert!(agreement.is_reached());
    }
}
