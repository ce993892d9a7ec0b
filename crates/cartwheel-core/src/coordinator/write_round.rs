//! The tally of a write: who has stored it, and when that is enough (paper, section 4.5).

use std::collections::BTreeSet;

use crate::dot::NodeId;

/// A write under way. Pure bookkeeping, like the read's.
#[derive(Debug)]
pub struct WriteRound {
    homes: Vec<NodeId>,
    needed: usize,
    stored: BTreeSet<NodeId>,
    /// Those whose disks were full when they last answered.
    full: BTreeSet<NodeId>,
}

impl WriteRound {
    /// A write that `needed` of `homes` are to store.
    pub const fn new(homes: Vec<NodeId>, needed: usize) -> Self {
        Self { homes, needed, stored: BTreeSet::new(), full: BTreeSet::new() }
    }

    /// `node` has stored it, durably. A second time changes nothing.
    pub fn stored(&mut self, node: NodeId) {
        if self.homes.contains(&node) {
            self.stored.insert(node);
            self.full.remove(&node);
        }
    }

    /// `node` has not, because its disk is full; it may yet, when it is asked again.
    pub fn full(&mut self, node: NodeId) {
        if self.homes.contains(&node) && !self.stored.contains(&node) {
            self.full.insert(node);
        }
    }

    /// Whether so many disks are full that too few homes are left.
    pub fn is_blocked(&self) -> bool {
        !self.full.is_empty() && self.homes.len() - self.full.len() < self.needed
    }

    /// Who has not said yet that it has.
    pub fn missing(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.homes.iter().copied().filter(|node| !self.stored.contains(node))
    }

    /// Whether enough have.
    pub fn is_enough(&self) -> bool {
        self.stored.len() >= self.needed
    }

    /// Who has.
    pub const fn acknowledged(&self) -> &BTreeSet<NodeId> {
        &self.stored
    }

    /// How many must.
    pub const fn needed(&self) -> usize {
        self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_distinct_homes_count() {
        let [a, b, c] = [1, 2, 3].map(NodeId::new);
        let mut round = WriteRound::new(vec![a, b], 2);
        for node in [a, a, c] {
            round.stored(node);
            assert!(!round.is_enough());
        }
        assert_eq!(round.missing().collect::<Vec<_>>(), [b]);
        round.stored(b);
        assert!(round.is_enough());
    }

    #[test]
    fn full_disks_block_a_write_once_too_few_are_left() {
        let [a, b, c] = [1, 2, 3].map(NodeId::new);
        let mut round = WriteRound::new(vec![a, b, c], 2);
        round.stored(a);
        for (node, blocked) in [(a, false), (b, false), (NodeId::new(4), false), (c, true)] {
            round.full(node);
            assert_eq!(round.is_blocked(), blocked, "{node}");
        }
        round.stored(c);
        assert!(round.is_enough() && !round.is_blocked());
    }
}
