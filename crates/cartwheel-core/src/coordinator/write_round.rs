//! The tally of a write: which nodes have stored it, and whether they are enough (paper, section 4.5).
//!
//! While a partition moves to its next configuration ([`Homes`]), a quorum of each of the two lists must have stored
//! the write. A new replica that is still syncing counts: it has stored this write. Where stand-ins are allowed and too
//! few nodes are left, a node that counts in one list may stand in for a home of the other. So any W nodes are enough.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cluster::configuration::Homes;
use crate::cluster::losses::{Losses, Memory};
use crate::ring::quorum::Quorum;
use crate::value::dot::NodeId;

/// A write under way. It does no I/O and has no notion of time, like the read's round.
#[derive(Debug)]
pub struct WriteRound {
    homes: Homes,
    needed: Quorum,
    /// The nodes that have stored it, each with the time since which it had lost no record when it said so.
    stored: BTreeMap<NodeId, Memory>,
    /// The nodes whose disks were full when they last responded.
    full: BTreeSet<NodeId>,
    /// The nodes that may stand in for a home and do not yet, in the order in which they are tried.
    spare: VecDeque<NodeId>,
    /// The stand-ins. A home may have several, if the first did not respond.
    stand_ins: Vec<StandIn>,
    /// Whether a node that counts in one list may stand in for a home of the other.
    may_cross: bool,
    /// How many stand-ins were chosen so far.
    choices: u32,
}

/// A node that is to keep the write as a hint for a home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StandIn {
    /// The node.
    pub node: NodeId,
    /// The home.
    pub home: NodeId,
    /// The number of this choice, from 1. A node may be chosen for a home of each list; this tells its two responses
    /// apart.
    pub choice: u32,
    /// It was not sent the write for any other reason, so it adds a copy.
    adds_copy: bool,
    /// It fills a vacant place of a list, and keeps the write for another home of that list.
    fills_vacancy: bool,
    /// It has confirmed that it keeps the write for this home.
    has_hint: bool,
}

impl StandIn {
    /// Whether it stands in for this home, and does not fill a vacant place.
    fn is_for(&self, home: NodeId) -> bool {
        self.home == home && !self.fills_vacancy
    }
}

impl WriteRound {
    /// A write that `needed` of `homes`, or stand-ins for them, must store. The nodes of `spare` may stand in.
    pub fn new(homes: Homes, spare: Vec<NodeId>, needed: impl Into<Quorum>) -> Self {
        Self {
            homes,
            needed: needed.into(),
            stored: BTreeMap::new(),
            full: BTreeSet::new(),
            spare: spare.into(),
            stand_ins: Vec::new(),
            may_cross: false,
            choices: 0,
        }
    }

    /// Whether a node that counts in one list may stand in for a home of the other.
    #[must_use]
    pub fn crossing(self, may_cross: bool) -> Self {
        Self { may_cross, ..self }
    }

    /// Changes the homes and the possible stand-ins. What a node has stored still counts, unless the incarnation that
    /// stored it is over.
    pub fn move_to(&mut self, homes: Homes, spare: Vec<NodeId>) {
        self.stored.retain(|&node, _| homes.is_as_before(node, &self.homes));
        self.full.retain(|&node| homes.is_as_before(node, &self.homes));
        self.homes = homes;
        let homes = &self.homes;
        self.stand_ins.retain(|stand_in| homes.may_stand_in(stand_in.node, stand_in.home));
        self.drop_hints_of_lost();
        self.refill(spare);
    }

    /// Replaces the possible stand-ins.
    pub fn refill(&mut self, spare: Vec<NodeId>) {
        let is_spare = |node: &NodeId| !self.stands_in_somewhere(*node) && !self.homes.contains(*node);
        self.spare = spare.into_iter().filter(is_spare).collect();
    }

    fn stands_in_somewhere(&self, node: NodeId) -> bool {
        self.stand_ins.iter().any(|stand_in| stand_in.node == node)
    }

    /// Adds possible stand-ins, to be tried after the others.
    pub fn add_spare(&mut self, late: Vec<NodeId>) {
        let others: Vec<NodeId> = self.spare.drain(..).collect();
        self.refill([others, late].concat());
    }

    /// How many homes and vacant places have no stand-in while no possible one is left.
    pub fn spares_wanted(&self) -> usize {
        let alone = self.missing().iter().filter(|&&home| !self.has_stand_in(home)).count();
        (alone + self.vacancies(false).count()).saturating_sub(self.spare.len())
    }

    /// `node` has durably stored the write as a hint, as the stand-in of this `choice`. It has lost no record since
    /// `memory`.
    pub fn hint_stored(&mut self, node: NodeId, choice: u32, memory: Memory) {
        self.stored(node, memory);
        let confirmed = self.stand_ins.iter_mut().find(|stand_in| (stand_in.node, stand_in.choice) == (node, choice));
        confirmed.into_iter().for_each(|stand_in| stand_in.has_hint = true);
    }

    /// `node` has durably stored the write, and has lost no record since `memory`.
    pub fn stored(&mut self, node: NodeId, memory: Memory) {
        if self.is_receiver(node) {
            let known = self.stored.entry(node).or_insert(memory);
            *known = if known.incarnation == memory.incarnation { memory.max(*known) } else { memory };
            self.full.remove(&node);
        }
    }

    /// Drops the responses that nodes sent before they lost records. These nodes are sent the write again.
    pub fn drop_lost(&mut self, losses: &Losses) {
        self.stored.retain(|&node, &mut memory| !losses.outdate(node, memory));
        self.drop_hints_of_lost();
    }

    fn drop_hints_of_lost(&mut self) {
        let stored = &self.stored;
        self.stand_ins.iter_mut().for_each(|stand_in| stand_in.has_hint &= stored.contains_key(&stand_in.node));
    }

    /// `node` has no room for the write. A later attempt may succeed.
    pub fn full(&mut self, node: NodeId) {
        let lacks_a_hint = self.stand_ins.iter().any(|stand_in| stand_in.node == node && !stand_in.has_hint);
        if self.is_receiver(node) && (lacks_a_hint || !self.stored.contains_key(&node)) {
            self.full.insert(node);
        }
    }

    /// Whether `node` last reported that it has no room.
    pub fn is_full(&self, node: NodeId) -> bool {
        self.full.contains(&node)
    }

    fn is_receiver(&self, node: NodeId) -> bool {
        self.homes.contains(node) || self.stands_in_somewhere(node)
    }

    /// Whether full disks leave too few nodes.
    pub fn is_blocked(&self) -> bool {
        let has_room = |node: &NodeId| self.stored.contains_key(node) || !self.full.contains(node);
        let elsewhere = if self.may_cross { self.homes.all() } else { Vec::new() };
        let may_count = |list: &[NodeId]| {
            let stand_ins = self.spare.iter().copied().chain(self.stand_ins.iter().map(|stand_in| stand_in.node));
            let nodes: BTreeSet<NodeId> = list.iter().copied().chain(stand_ins).chain(elsewhere.clone()).collect();
            nodes.iter().filter(|node| has_room(node)).count()
        };
        !self.full.is_empty() && self.homes.needs(self.needed).any(|(list, needed)| may_count(list) < needed)
    }

    /// The homes that have not confirmed the write.
    pub fn missing(&self) -> Vec<NodeId> {
        self.homes.all().into_iter().filter(|node| !self.stored.contains_key(node)).collect()
    }

    /// The stand-ins that have not confirmed the write, for homes that have not confirmed it either.
    pub fn missing_stand_ins(&self) -> Vec<StandIn> {
        let is_missing = |stand_in: &&StandIn| {
            let is_wanted = stand_in.fills_vacancy || !self.stored.contains_key(&stand_in.home);
            !stand_in.has_hint && is_wanted && !self.full.contains(&stand_in.node)
        };
        self.stand_ins.iter().filter(is_missing).copied().collect()
    }

    /// Whether `home` has no stand-in and a possible one is left.
    pub fn may_stand_in(&self, home: NodeId) -> bool {
        !self.spare.is_empty() && !self.has_stand_in(home)
    }

    /// Chooses the next possible stand-in for `home`; none if none is left.
    pub fn stand_in(&mut self, home: NodeId) -> Option<StandIn> {
        let node = self.spare.pop_front()?;
        Some(self.choose(node, home, true))
    }

    /// Chooses a node to fill a vacant place (the incarnation of its home is over) of a list that has too few homes
    /// without it. The node keeps the write for another home of that list. With `again`, chosen nodes that have not
    /// responded do not count: they may be down.
    pub fn fill(&mut self, again: bool) -> Option<StandIn> {
        let (home, list) = self.vacancies(again).next()?;
        let counts_elsewhere = |node: &NodeId| !self.counts_in(&list, *node, |_| true) && !self.full.contains(node);
        let crossing = || self.stored.keys().copied().find(counts_elsewhere).filter(|_| self.may_cross);
        let node = self.spare.front().copied().or_else(crossing)?;
        self.spare.retain(|&spare| spare != node);
        let stand_in = self.choose(node, home, !self.stored.contains_key(&node));
        let chosen = self.stand_ins.last_mut().filter(|chosen| chosen.choice == stand_in.choice)?;
        chosen.fills_vacancy = true;
        Some(*chosen)
    }

    /// The vacant places that are needed and not filled: for each, a home of the list to keep the write for, and the
    /// list.
    fn vacancies(&self, again: bool) -> impl Iterator<Item = (NodeId, Vec<NodeId>)> + '_ {
        let may_do = move |stand_in: &&StandIn| stand_in.has_hint || !again && !self.full.contains(&stand_in.node);
        self.homes.needs(self.needed).zip(self.homes.vacant).flat_map(move |((list, needed), vacant)| {
            let fills = |stand_in: &&StandIn| stand_in.fills_vacancy && list.contains(&stand_in.home);
            let filled = self.stand_ins.iter().filter(fills).filter(may_do).count();
            let wanted = needed.saturating_sub(list.len()).min(vacant).saturating_sub(filled);
            list.first().into_iter().cycle().take(wanted).map(|&home| (home, list.to_vec()))
        })
    }

    /// Chooses a node that already has the write, and counts in the other list only, to stand in for `home`. This adds
    /// no copy, so it is done only where enough nodes have the write and one list is short.
    pub fn cross(&mut self, home: NodeId) -> Option<StandIn> {
        let node = self.crosses(home)?;
        Some(self.choose(node, home, false))
    }

    /// Whether [`Self::cross`] would find a node.
    pub fn may_cross(&self, home: NodeId) -> bool {
        self.crosses(home).is_some()
    }

    fn crosses(&self, home: NodeId) -> Option<NodeId> {
        // Stand-ins already chosen will be enough, if they have room.
        let is_likely = |stand_in: &StandIn| stand_in.has_hint || !self.full.contains(&stand_in.node);
        if !self.may_cross || self.stored.len() < self.needed() || !self.is_short_if(is_likely) {
            return None;
        }
        let would_count =
            |node: NodeId| self.homes.lists().any(|list| list.contains(&home) && !self.counts_in(list, node, |_| true));
        self.stored.keys().copied().find(|&node| !self.full.contains(&node) && would_count(node))
    }

    fn choose(&mut self, node: NodeId, home: NodeId, adds_copy: bool) -> StandIn {
        self.choices += 1;
        let stand_in = StandIn { node, home, choice: self.choices, adds_copy, fills_vacancy: false, has_hint: false };
        self.stand_ins.push(stand_in);
        stand_in
    }

    /// `node`, which need not be a possible stand-in, has durably stored the write for `home`, and has lost no record
    /// since `memory`.
    pub fn stored_for(&mut self, node: NodeId, home: NodeId, memory: Memory) {
        self.spare.retain(|&spare| spare != node);
        let stand_in = self.choose(node, home, true);
        self.hint_stored(node, stand_in.choice, memory);
    }

    /// Whether a node that may have room was chosen to stand in for `home`.
    pub fn has_stand_in(&self, home: NodeId) -> bool {
        let may_have_room = |stand_in: &StandIn| stand_in.has_hint || !self.full.contains(&stand_in.node);
        self.stand_ins.iter().any(|stand_in| stand_in.is_for(home) && stand_in.adds_copy && may_have_room(stand_in))
    }

    /// Whether every home, or a stand-in for it, has the write.
    pub fn is_complete(&self) -> bool {
        self.homes.all().into_iter().all(|home| self.stored.contains_key(&home) || self.is_covered(home))
    }

    /// Whether a stand-in for `home` has the write.
    pub fn is_covered(&self, home: NodeId) -> bool {
        self.stand_ins.iter().any(|stand_in| stand_in.is_for(home) && stand_in.has_hint)
    }

    /// Whether the write has its quorum in every list.
    pub fn is_enough(&self) -> bool {
        !self.is_short_if(|stand_in| stand_in.has_hint)
    }

    /// Whether some list is below its quorum, if the stand-ins selected by `is_in` count.
    fn is_short_if(&self, is_in: impl Fn(&StandIn) -> bool) -> bool {
        self.homes.needs(self.needed).any(|(list, needed)| self.acknowledged_of(list, &is_in) < needed)
    }

    /// The homes that have the write.
    pub fn homes_stored(&self) -> impl Iterator<Item = &NodeId> {
        self.stored.keys().filter(|&&node| self.homes.contains(node))
    }

    /// The stand-ins that have the write.
    pub fn stand_ins_stored(&self) -> impl Iterator<Item = &NodeId> {
        self.stored.keys().filter(|&&node| !self.homes.contains(node))
    }

    /// How many nodes count, in the configuration in which the fewest do. A node counts at most once in each.
    pub fn acknowledged(&self) -> usize {
        self.homes.lists().map(|list| self.acknowledged_of(list, |stand_in| stand_in.has_hint)).min().unwrap_or(0)
    }

    fn acknowledged_of(&self, list: &[NodeId], is_in: impl Fn(&StandIn) -> bool) -> usize {
        self.stored.keys().filter(|&&node| self.counts_in(list, node, &is_in)).count()
    }

    /// Whether a node that has the write counts in a list: as a home of it, or as a stand-in for one (`is_in`).
    fn counts_in(&self, list: &[NodeId], node: NodeId, is_in: impl Fn(&StandIn) -> bool) -> bool {
        let stands_in = |stand_in: &StandIn| stand_in.node == node && list.contains(&stand_in.home) && is_in(stand_in);
        list.contains(&node) || self.stand_ins.iter().any(stands_in)
    }

    /// How many homes have the write, in the configuration in which the fewest do.
    pub fn stored_at_home(&self) -> usize {
        let has_stored = |home: NodeId| self.stored.contains_key(&home);
        self.homes.fewest(has_stored, has_stored)
    }

    /// The quorum, in the configuration that needs the most.
    pub fn needed(&self) -> usize {
        self.homes.needs(self.needed).map(|(_, needed)| needed).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::configuration::{ConfigPhase, Configuration, Home};
    use crate::cluster::counts::{Group, ReplicaCounts};
    use crate::value::dot::{Incarnation, Since};

    #[test]
    fn only_distinct_homes_count() {
        let [a, b, c] = [1, 2, 3].map(NodeId::new);
        let mut round = WriteRound::new(vec![a, b].into(), Vec::new(), 2);
        for node in [a, a, c] {
            round.stored(node, Memory::default());
            assert!(!round.is_enough());
        }
        assert_eq!(round.missing(), [b]);
        round.stored(b, Memory::default());
        assert!(round.is_enough());
    }

    #[test]
    fn a_write_stored_by_an_incarnation_does_not_count_for_the_next_one() {
        let home =
            |node: u64, incarnation: u64| Home { node: NodeId::new(node), incarnation: Incarnation(incarnation) };
        let phase = |number: u64, homes: [Home; 2]| {
            let counts = ReplicaCounts::default();
            let configuration = Configuration { number, homes: homes.to_vec(), choosers: 2, counts };
            ConfigPhase::Stable(configuration).homes(Group::default(), |_| false)
        };
        let mut round = WriteRound::new(phase(0, [home(1, 1), home(2, 1)]), Vec::new(), 2);
        round.stored(NodeId::new(1), Memory::default());
        round.move_to(phase(1, [home(1, 1), home(3, 1)]), Vec::new());
        assert_eq!(round.missing(), [NodeId::new(3)]);
        round.move_to(phase(2, [home(3, 1), home(1, 9)]), Vec::new());
        assert_eq!(round.missing(), [NodeId::new(3), NodeId::new(1)]);
    }

    #[test]
    fn a_write_stored_before_a_loss_does_not_count_after_it() {
        let [a, b] = [1, 2].map(NodeId::new);
        let memory = |since: u64| Memory { incarnation: Incarnation(1), since: Since(since) };
        let mut round = WriteRound::new(vec![a, b].into(), Vec::new(), 2);
        round.stored(a, memory(1));
        round.stored(b, memory(1));
        round.drop_lost(&[(Home { node: a, incarnation: Incarnation(1) }, Since(2))].into_iter().collect());
        assert_eq!((round.is_enough(), round.missing()), (false, vec![a]));
        // A late response from before the loss does not count; a response from after it does.
        for (since, is_enough) in [(1, false), (2, true)] {
            round.stored(a, memory(since));
            round.drop_lost(&[(Home { node: a, incarnation: Incarnation(1) }, Since(2))].into_iter().collect());
            assert_eq!(round.is_enough(), is_enough);
        }
    }

    #[test]
    fn full_disks_block_a_write_once_too_few_are_left() {
        let [a, b, c] = [1, 2, 3].map(NodeId::new);
        let mut round = WriteRound::new(vec![a, b, c].into(), Vec::new(), 2);
        round.stored(a, Memory::default());
        for (node, blocked) in [(a, false), (b, false), (NodeId::new(4), false), (c, true)] {
            round.full(node);
            assert_eq!(round.is_blocked(), blocked, "{node}");
        }
        round.stored(c, Memory::default());
        assert!(round.is_enough() && !round.is_blocked());
    }

    #[test]
    fn a_stand_in_counts_once_it_is_asked_and_covers_its_home() {
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(NodeId::new);
        let mut round = WriteRound::new(vec![a, b, c].into(), vec![d, e], 2);
        round.stored(a, Memory::default());
        round.stored(d, Memory::default());
        assert!(!round.is_enough(), "it was not chosen as a stand-in yet");
        assert_eq!(round.stand_in(b).map(|stand_in| stand_in.node), Some(d));
        round.full(d);
        assert!(!round.has_stand_in(b) && !round.is_blocked());
        let stand_in = round.stand_in(b).unwrap();
        assert_eq!((stand_in.node, stand_in.home, &round.missing_stand_ins()[..]), (e, b, &[stand_in][..]));
        round.hint_stored(e, stand_in.choice, Memory::default());
        assert!(round.is_enough() && !round.is_complete());
        assert_eq!(round.stand_ins_stored().collect::<Vec<_>>(), [&e]);
        round.stored(c, Memory::default());
        assert!(round.is_complete());
        assert_eq!(round.stand_in(c), None);
    }
    #[test]
    fn a_node_that_counts_in_one_list_stands_in_for_a_home_of_the_other_once_it_keeps_a_hint() {
        let [a, b, c, d] = [1, 2, 3, 4].map(NodeId::new);
        let homes = || Homes { current: vec![a, b, c], next: Some(vec![a, b, d]), ..Homes::default() };
        let strict = WriteRound::new(homes(), Vec::new(), 2);
        let sloppy = WriteRound::new(homes(), Vec::new(), 2).crossing(true);
        for (mut round, may_cross) in [(strict, false), (sloppy, true)] {
            round.stored(c, Memory::default());
            round.stored(d, Memory::default());
            assert_eq!((round.acknowledged(), round.may_cross(a)), (1, may_cross), "two copies, one in each list");
            assert_eq!(round.cross(a).is_some(), may_cross);
        }
        let mut round = WriteRound::new(homes(), Vec::new(), 2).crossing(true);
        round.stored(d, Memory::default());
        assert_eq!(round.cross(a), None, "there is one copy, whatever it counts for");
        round.stored(c, Memory::default());
        let [first, second] = [a, b].map(|home| round.cross(home).unwrap());
        assert_eq!([(first.node, first.home), (second.node, second.home)], [(c, a), (d, b)]);
        assert!(!round.may_cross(a) && !round.is_covered(a) && !round.has_stand_in(a));
        round.stored(c, Memory::default());
        round.hint_stored(d, second.choice, Memory::default());
        assert_eq!(
            (round.acknowledged(), round.missing_stand_ins()),
            (1, vec![first]),
            "it has not confirmed the hint"
        );
        round.hint_stored(c, first.choice, Memory::default());
        assert!(round.is_enough() && round.is_covered(a));
        // After the change to the second configuration, a hint for one of its homes still counts.
        round.move_to(vec![a, b, d].into(), Vec::new());
        assert_eq!((round.acknowledged(), round.stored_at_home()), (2, 1));
    }
}
