//! The tally of a write: who has stored it, and when that is enough (paper, section 4.5).

use std::collections::BTreeSet;

use crate::dot::NodeId;

/// A write under way. Pure bookkeeping, like the read's.
#[derive(Debug)]
pub struct WriteRound {
    homes: Vec<NodeId>,
    needed: usize,
    stored: BTreeSet<NodeId>,
}

impl WriteRound {
    /// A write that `needed` of `homes` are to store.
    pub const fn new(homes: Vec<NodeId>, needed: usize) -> Self {
        Self { homes, needed, stored: BTreeSet::new() }
    }

    /// `node` has stored it, durably. A second time changes nothing.
    pub fn stored(&mut self, node: NodeId) {
        if self.homes.contains(&node) {
            self.stored.insert(node);
        }
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
}
