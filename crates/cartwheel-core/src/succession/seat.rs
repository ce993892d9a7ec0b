//! What a node is in one partition, and must not forget.

use std::collections::BTreeSet;

use super::paxos::Acceptor;
use crate::configuration::{Configuration, Home, Phase};

/// A node's seat in a partition: what it knows of the chain of configurations, and what it has promised.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Seat {
    /// What holds.
    pub phase: Phase,
    /// The configurations for which this node holds all that the one before held when it ended, by number.
    pub whole: BTreeSet<u64>,
    /// The configuration whose home this node was, and whose later homes have not all confirmed that they hold what it holds.
    pub former: Option<Configuration>,
    /// It copies what the homes hold, to become one.
    pub is_candidate: bool,
    /// It holds what may go: nobody needs it any more.
    pub has_leftovers: bool,
    /// What it has promised and accepted as one who chooses the successor.
    pub acceptor: Acceptor,
}

impl Seat {
    /// The seat of a node that has heard of nothing but the founding.
    pub fn founding(first: Configuration, me: Home) -> Self {
        let whole = if first.has(me) { BTreeSet::from([first.number]) } else { BTreeSet::new() };
        Self {
            phase: Phase::Alone(first),
            whole,
            former: None,
            is_candidate: false,
            has_leftovers: false,
            acceptor: Acceptor::default(),
        }
    }

    /// Whether what this node holds, and what it does not hold, stands for what the current configuration holds.
    pub fn is_whole(&self) -> bool {
        self.is_whole_in(self.phase.current().number)
    }

    /// Whether it holds all that the configuration before this one held when it ended.
    pub fn is_whole_in(&self, number: u64) -> bool {
        self.whole.contains(&number)
    }

    /// Whether this node was a home of keys in buckets of `n` replicas, and has not been relieved.
    pub fn leaves(&self, me: Home, n: u8) -> bool {
        !self.phase.is_home(me, n) && self.former.as_ref().is_some_and(|former| former.of(n).contains(&me))
    }

    /// Whether the node has anything to do with the partition that it must remember.
    pub fn is_involved(&self, me: Home) -> bool {
        self.phase.has(me) || self.has_duties()
    }

    /// Whether the node has anything to do that is none of a home's: to hand over, to copy or to clear away.
    pub fn has_duties(&self) -> bool {
        self.former.is_some() || self.is_candidate || self.has_leftovers
    }

    /// Goes by a later phase; false if it is none. What was promised was for a successor that has been chosen now.
    pub fn advance(&mut self, me: Home, phase: Phase) -> bool {
        if phase.step() <= self.phase.step() {
            return false;
        }
        // Whoever held keys of which it is no home any more keeps them until those who are have confirmed that they hold them.
        let before = self.former.iter().chain(self.phase.both()).filter(|before| before.has(me));
        let was = before.min_by_key(|before| before.place(me)).cloned();
        let place = phase.both().filter_map(|now| now.place(me)).min().unwrap_or(usize::MAX);
        self.former = was.filter(|was| was.place(me).is_some_and(|before| before < place));
        let latest = phase.latest().number;
        if latest > self.phase.latest().number {
            self.acceptor = Acceptor::default();
        }
        self.whole.retain(|&number| number + 1 >= latest);
        self.phase = phase;
        if self.phase.has(me) {
            // It may have copied more than it is a home of now.
            self.has_leftovers |= std::mem::take(&mut self.is_candidate);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot::{Life, NodeId};

    fn home(node: u64) -> Home {
        Home { node: NodeId::new(node), life: Life(1) }
    }

    fn configuration(number: u64, nodes: &[u64]) -> Configuration {
        Configuration { number, homes: nodes.iter().map(|&node| home(node)).collect(), choosers: 3 }
    }

    fn seat(me: u64) -> Seat {
        Seat::founding(configuration(0, &[1, 2, 3]), home(me))
    }

    #[test]
    fn a_home_keeps_what_it_has_until_it_is_relieved() {
        let mut seat = seat(3);
        let next = configuration(1, &[1, 2, 4]);
        assert!(seat.is_whole() && seat.advance(home(3), Phase::Joint(configuration(0, &[1, 2, 3]), next.clone())));
        assert!(seat.former.is_none() && seat.is_whole(), "it is a home of the first still");
        assert!(seat.advance(home(3), Phase::Alone(next.clone())) && !seat.advance(home(3), Phase::Alone(next)));
        assert!(seat.leaves(home(3), 3) && !seat.leaves(home(3), 2) && seat.is_involved(home(3)));
        // It is wanted again before it was relieved.
        assert!(seat.advance(home(3), Phase::Alone(configuration(2, &[3, 1, 2]))));
        assert!(seat.former.is_none() && !seat.is_whole());
    }

    #[test]
    fn a_home_that_moves_back_leaves_the_keys_of_smaller_buckets() {
        let mut seat = seat(1);
        assert!(seat.advance(home(1), Phase::Alone(configuration(1, &[2, 1, 3]))));
        assert!(seat.leaves(home(1), 1) && !seat.leaves(home(1), 2));
        assert!(seat.advance(home(1), Phase::Alone(configuration(2, &[2, 3, 4]))));
        assert!(seat.leaves(home(1), 1) && seat.leaves(home(1), 3), "it was the first of the first");
    }

    #[test]
    fn a_stranger_is_whole_in_nothing() {
        let mut seat = seat(9);
        assert!(!seat.is_whole() && !seat.is_involved(home(9)));
        seat.acceptor.promised = Some(super::super::paxos::Ballot { round: 1, node: NodeId::new(1) });
        assert!(seat.advance(home(9), Phase::Joint(configuration(0, &[1, 2, 3]), configuration(1, &[1, 2, 9]))));
        assert!(seat.acceptor.promised.is_none() && seat.is_involved(home(9)) && !seat.is_whole());
    }
}
