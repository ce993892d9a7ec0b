//! Reports of lost records, after which earlier responses of a home do not count.
//!
//! A coordinator counts a home that has stored a write. The home may then lose its record and recover from others that do not hold the write
//! yet. It counts again without the write, and the coordinator would still count it for the write. The coordinator may never hear of the loss
//! from that home. So other homes spread the report: each home from which a home recovers notes, durably and before it answers, the time since
//! which the recovering home's memory is unbroken. It adds that time to everything that it says about the partition afterwards. A coordinator
//! drops the responses of a home from before the latest such time in any response.
//!
//! Why that is enough: let a write be acknowledged by a majority, and let one home of it, X, have lost the record after it reported the write as
//! stored. X counts again only after a majority of the others has answered it, so one of these, Y, is in the write's majority. If Y stored the
//! write before it answered X, X has it. If Y stored it later, its response to the coordinator named X's loss, and X was not counted.

use std::collections::BTreeMap;

use crate::cluster::configuration::Home;
use crate::value::dot::{Incarnation, NodeId, Since};

/// The time since which an incarnation of a node has lost no record: its last loss, or its start. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Memory {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// The time.
    pub since: Since,
}

/// The homes of a partition that recovered from a loss, with the time since which each has lost nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Losses(BTreeMap<Home, Since>);

impl Losses {
    /// No losses.
    pub const NONE: Self = Self(BTreeMap::new());

    /// Notes that a home has lost records before `since`.
    pub fn note(&mut self, home: Home, since: Since) {
        let known = self.0.entry(home).or_default();
        *known = since.max(*known);
    }

    /// Adds the losses that another node knows.
    pub fn merge(&mut self, others: &Self) {
        others.iter().for_each(|(home, since)| self.note(home, since));
    }

    /// Whether `node` may have lost what it reported with this memory.
    pub fn outdate(&self, node: NodeId, memory: Memory) -> bool {
        let last = self.0.get(&Home { node, incarnation: memory.incarnation });
        last.is_some_and(|&since| since > memory.since)
    }

    /// All losses.
    pub fn iter(&self) -> impl Iterator<Item = (Home, Since)> + '_ {
        self.0.iter().map(|(&home, &since)| (home, since))
    }

    /// Whether there are none.
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

/// The id of a loss, unique among all incarnations of a node. What heals one loss does not heal a later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Loss(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Home = Home { node: NodeId::new(1), incarnation: Incarnation(7) };

    #[test]
    fn a_loss_outdates_only_earlier_responses_of_its_incarnation() {
        let losses: Losses = [(HOME, Since(5))].into_iter().collect();
        for (incarnation, since, is_outdated) in [(7, 4, true), (7, 5, false), (8, 4, false)] {
            let memory = Memory { incarnation: Incarnation(incarnation), since: Since(since) };
            assert_eq!(losses.outdate(HOME.node, memory), is_outdated);
            assert!(!losses.outdate(NodeId::new(2), memory));
        }
    }
}
