//! What a home said counts no longer than its records were whole.
//!
//! A coordinator counts a home that has stored a write. If the home then loses its record and recovers from others that do not hold the write
//! yet, it counts again without it, and the coordinator would count it all the same. The coordinator may never hear of the loss from that home.
//! So a recovering home makes itself heard through the others: each home that it recovers from notes, durably and before it answers, since when
//! the recovering home's memory is unbroken, and sends that along with all that it says about the partition afterwards. A coordinator drops what
//! a home said before the latest such time that any answer names.
//!
//! Why that is enough: let a write be acknowledged on a majority, and let one home of it, X, have lost the record after it said that it had
//! stored it. X counts again only after a majority of the others has answered it, so one of these, Y, is in the write's majority. If Y stored the
//! write before it answered X, X has it. If Y stored it later, its answer to the coordinator named X's loss, and X was not counted.

use std::collections::BTreeMap;

use crate::cluster::configuration::Home;
use crate::value::dot::{Incarnation, NodeId, Since};

/// Since when an incarnation of a node has lost no record: its last loss, or its start. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Memory {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Since when.
    pub since: Since,
}

/// Which homes of a partition recovered from a loss, and since when each has lost nothing more.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Losses(BTreeMap<Home, Since>);

impl Losses {
    /// No home has lost anything.
    pub const NONE: Self = Self(BTreeMap::new());

    /// A home has lost records before `since`.
    pub fn note(&mut self, home: Home, since: Since) {
        let known = self.0.entry(home).or_default();
        *known = since.max(*known);
    }

    /// Adds what another node knows.
    pub fn merge(&mut self, others: &Self) {
        others.iter().for_each(|(home, since)| self.note(home, since));
    }

    /// Whether `node` may have lost what it said when its memory was this.
    pub fn outdate(&self, node: NodeId, memory: Memory) -> bool {
        let last = self.0.get(&Home { node, incarnation: memory.incarnation });
        last.is_some_and(|&since| since > memory.since)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Home, Since)> + '_ {
        self.0.iter().map(|(&home, &since)| (home, since))
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Home, Since)> for Losses {
    fn from_iter<I: IntoIterator<Item = (Home, Since)>>(losses: I) -> Self {
        let mut all = Self::default();
        losses.into_iter().for_each(|(home, since)| all.note(home, since));
        all
    }
}

/// The number of a loss, unique among those of all incarnations of a node. What makes good one loss does not make good a later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Loss(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Home = Home { node: NodeId::new(1), incarnation: Incarnation(7) };

    #[test]
    fn a_loss_outdates_only_what_its_incarnation_said_before_it() {
        let losses: Losses = [(HOME, Since(5))].into_iter().collect();
        for (incarnation, since, is_outdated) in [(7, 4, true), (7, 5, false), (8, 4, false)] {
            let memory = Memory { incarnation: Incarnation(incarnation), since: Since(since) };
            assert_eq!(losses.outdate(HOME.node, memory), is_outdated);
            assert!(!losses.outdate(NodeId::new(2), memory));
        }
    }
}
