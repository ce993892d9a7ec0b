//! The tally of a write: who has stored it, and when that is enough (paper, section 4.5).
//!
//! While one configuration takes over from another ([`Homes`]), as many of each must have stored it. Who has stored it has: it does
//! not matter whether that node is still being filled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::configuration::Homes;
use crate::dot::NodeId;
use crate::losses::{Losses, Memory};

/// A write under way. Pure bookkeeping, like the read's.
#[derive(Debug)]
pub struct WriteRound {
    homes: Homes,
    needed: usize,
    /// Who has stored it, and since when each had lost nothing when it said so.
    stored: BTreeMap<NodeId, Memory>,
    /// Those whose disks were full when they last answered.
    full: BTreeSet<NodeId>,
    /// The nodes that may stand in for a home and do not yet, in the order in which they are asked.
    spare: VecDeque<NodeId>,
    /// Who stands in for which home. A home may have several, if the first did not answer.
    standing_in: BTreeMap<NodeId, NodeId>,
}

impl WriteRound {
    /// A write that `needed` of `homes` are to store, or of those who stand in for one of them.
    pub fn new(homes: Homes, spare: Vec<NodeId>, needed: usize) -> Self {
        let (stored, full) = (BTreeMap::new(), BTreeSet::new());
        Self { homes, needed, stored, full, spare: spare.into(), standing_in: BTreeMap::new() }
    }

    /// The homes are others now, and so are those who may stand in for them. Who has stored it has, unless that life is over.
    pub fn move_to(&mut self, homes: Homes, spare: Vec<NodeId>) {
        self.stored.retain(|&node, _| homes.is_as_before(node, &self.homes));
        self.full.retain(|&node| homes.is_as_before(node, &self.homes));
        self.homes = homes;
        self.refill(spare);
        let homes = &self.homes;
        self.standing_in.retain(|node, home| !homes.contains(*node) && homes.contains(*home));
    }

    /// Those who may stand in are others now.
    pub fn refill(&mut self, spare: Vec<NodeId>) {
        let is_spare = |node: &NodeId| !self.standing_in.contains_key(node) && !self.homes.contains(*node);
        self.spare = spare.into_iter().filter(is_spare).collect();
    }

    /// These may stand in too, after the others.
    pub fn also(&mut self, late: Vec<NodeId>) {
        let others: Vec<NodeId> = self.spare.drain(..).collect();
        self.refill([others, late].concat());
    }

    /// For how many homes nobody is left who could stand in.
    pub fn lacks(&self) -> usize {
        self.missing().iter().filter(|&&home| !self.has_stand_in(home)).count().saturating_sub(self.spare.len())
    }

    /// `node` has stored it, durably, and has lost nothing since this time.
    pub fn stored(&mut self, node: NodeId, memory: Memory) {
        if self.is_asked(node) {
            let known = self.stored.entry(node).or_insert(memory);
            *known = if known.life == memory.life { memory.max(*known) } else { memory };
            self.full.remove(&node);
        }
    }

    /// Drops what nodes said before they lost records: they are asked again.
    pub fn drop_lost(&mut self, losses: &Losses) {
        self.stored.retain(|&node, &mut memory| !losses.outdate(node, memory));
    }

    /// `node` has not, because it has no room; it may yet, when it is asked again.
    pub fn full(&mut self, node: NodeId) {
        if self.is_asked(node) && !self.stored.contains_key(&node) {
            self.full.insert(node);
        }
    }

    /// Whether `node` said last that it has no room.
    pub fn is_full(&self, node: NodeId) -> bool {
        self.full.contains(&node)
    }

    fn is_asked(&self, node: NodeId) -> bool {
        self.homes.contains(node) || self.standing_in.contains_key(&node)
    }

    /// Whether so many disks are full that too few nodes are left.
    pub fn is_blocked(&self) -> bool {
        let may_stand_in = self.spare.len() + self.standing_in.keys().filter(|node| !self.full.contains(node)).count();
        let has_room = |list: &[NodeId]| list.iter().filter(|home| !self.full.contains(home)).count();
        !self.full.is_empty() && self.homes.lists().any(|list| has_room(list) + may_stand_in < self.needed)
    }

    /// The homes that have not said yet that they have it.
    pub fn missing(&self) -> Vec<NodeId> {
        self.homes.all().into_iter().filter(|node| !self.stored.contains_key(node)).collect()
    }

    /// The stand-ins that have not said so, and for which home they are asked.
    pub fn missing_stand_ins(&self) -> Vec<(NodeId, NodeId)> {
        let missing = self.standing_in.iter().filter(|(node, home)| {
            !self.stored.contains_key(node) && !self.stored.contains_key(home) && !self.full.contains(node)
        });
        missing.map(|(&node, &home)| (node, home)).collect()
    }

    /// Whether somebody is left who could stand in for `home`, and nobody does.
    pub fn may_stand_in(&self, home: NodeId) -> bool {
        !self.spare.is_empty() && !self.has_stand_in(home)
    }

    /// Has the next node stand in for `home`; none if there is none left.
    pub fn stand_in(&mut self, home: NodeId) -> Option<NodeId> {
        let node = self.spare.pop_front()?;
        self.standing_in.insert(node, home);
        Some(node)
    }

    /// `node`, which may be none of the spare ones, stands in for `home`.
    pub fn stands_in(&mut self, node: NodeId, home: NodeId) {
        self.spare.retain(|&spare| spare != node);
        self.standing_in.insert(node, home);
    }

    /// Whether somebody who may have room has been asked to stand in for `home`.
    pub fn has_stand_in(&self, home: NodeId) -> bool {
        self.standing_in.iter().any(|(node, &of)| of == home && !self.full.contains(node))
    }

    /// Whether every home has it, or one who stands in for it.
    pub fn is_complete(&self) -> bool {
        self.homes.all().into_iter().all(|home| self.stored.contains_key(&home) || self.is_covered(home))
    }

    /// Whether somebody has it who stands in for `home`.
    pub fn is_covered(&self, home: NodeId) -> bool {
        self.standing_in.iter().any(|(node, of)| *of == home && self.stored.contains_key(node))
    }

    /// Whether enough have it.
    pub fn is_enough(&self) -> bool {
        self.acknowledged() >= self.needed
    }

    /// The homes that have it.
    pub fn homes_stored(&self) -> impl Iterator<Item = &NodeId> {
        self.stored.keys().filter(|&&node| self.homes.contains(node))
    }

    /// The stand-ins that have it.
    pub fn stand_ins_stored(&self) -> impl Iterator<Item = &NodeId> {
        self.stored.keys().filter(|&&node| !self.homes.contains(node))
    }

    /// How many have it, in the configuration of which fewer do.
    pub fn acknowledged(&self) -> usize {
        let of = |list: &[NodeId]| {
            let stand_ins =
                self.standing_in.iter().filter(|(node, home)| self.stored.contains_key(node) && list.contains(home));
            self.stored_of(list) + stand_ins.count()
        };
        self.homes.lists().map(of).min().unwrap_or(0)
    }

    /// How many homes have it, in the configuration of which fewer do.
    pub fn stored_at_home(&self) -> usize {
        let has_stored = |home: NodeId| self.stored.contains_key(&home);
        self.homes.fewest(has_stored, has_stored)
    }

    fn stored_of(&self, homes: &[NodeId]) -> usize {
        homes.iter().filter(|home| self.stored.contains_key(home)).count()
    }

    /// How many must.
    pub const fn needed(&self) -> usize {
        self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::{Configuration, Home, Phase};
    use crate::dot::{Life, Since};

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
    fn what_a_life_has_stored_does_not_count_for_the_next_one() {
        let home = |node: u64, life: u64| Home { node: NodeId::new(node), life: Life(life) };
        let phase = |number: u64, homes: [Home; 2]| {
            Phase::Alone(Configuration { number, homes: homes.to_vec(), choosers: 2 }).homes(2, |_| false)
        };
        let mut round = WriteRound::new(phase(0, [home(1, 1), home(2, 1)]), Vec::new(), 2);
        round.stored(NodeId::new(1), Memory::default());
        round.move_to(phase(1, [home(1, 1), home(3, 1)]), Vec::new());
        assert_eq!(round.missing(), [NodeId::new(3)]);
        round.move_to(phase(2, [home(3, 1), home(1, 9)]), Vec::new());
        assert_eq!(round.missing(), [NodeId::new(3), NodeId::new(1)]);
    }

    #[test]
    fn what_a_home_stored_before_a_loss_does_not_count_after_it() {
        let [a, b] = [1, 2].map(NodeId::new);
        let memory = |since: u64| Memory { life: Life(1), since: Since(since) };
        let mut round = WriteRound::new(vec![a, b].into(), Vec::new(), 2);
        round.stored(a, memory(1));
        round.stored(b, memory(1));
        round.drop_lost(&[(Home { node: a, life: Life(1) }, Since(2))].into_iter().collect());
        assert_eq!((round.is_enough(), round.missing()), (false, vec![a]));
        // A late answer is no better; one that was given since is.
        for (since, is_enough) in [(1, false), (2, true)] {
            round.stored(a, memory(since));
            round.drop_lost(&[(Home { node: a, life: Life(1) }, Since(2))].into_iter().collect());
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
        assert!(!round.is_enough(), "nobody has asked it yet");
        assert_eq!(round.stand_in(b), Some(d));
        round.full(d);
        assert!(!round.has_stand_in(b) && !round.is_blocked());
        assert_eq!(round.stand_in(b), Some(e));
        assert_eq!(round.missing_stand_ins(), [(e, b)]);
        round.stored(e, Memory::default());
        assert!(round.is_enough() && !round.is_complete());
        assert_eq!(round.stand_ins_stored().collect::<Vec<_>>(), [&e]);
        round.stored(c, Memory::default());
        assert!(round.is_complete());
        assert_eq!(round.stand_in(c), None);
    }
}
