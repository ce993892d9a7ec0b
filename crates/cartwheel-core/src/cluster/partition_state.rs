//! What a node is in one partition, and must not forget.

use std::collections::BTreeSet;

use super::paxos::Acceptor;
use crate::cluster::configuration::{ConfigPhase, Configuration, Home};
use crate::cluster::counts::{Group, KnownCounts, ReplicaCounts};

/// A node's partition state in a partition: what it knows of the chain of configurations, and what it has promised.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PartitionState {
    /// What holds.
    pub phase: ConfigPhase,
    /// The configurations for which this node holds all that the one before held when it ended, by number.
    pub synced: BTreeSet<u64>,
    /// Whose home this node was, if the later homes have not all confirmed that they hold what it holds: a configuration that it has
    /// put together of those before, in which it is a home of the keys of which it was one in any of them.
    pub retired: Option<Configuration>,
    /// It copies what the homes hold, to become one.
    pub is_candidate: bool,
    /// It holds what may go: nobody needs it any more.
    pub has_stale_data: bool,
    /// What it has promised and accepted as one who chooses the successor.
    pub acceptor: Acceptor,
}

impl PartitionState {
    /// The partition state of a node that has heard of nothing but the founding.
    pub fn bootstrap(first: Configuration, me: Home) -> Self {
        let synced = if first.has(me) { BTreeSet::from([first.number]) } else { BTreeSet::new() };
        Self {
            phase: ConfigPhase::Stable(first),
            synced,
            retired: None,
            is_candidate: false,
            has_stale_data: false,
            acceptor: Acceptor::default(),
        }
    }

    /// Whether what this node holds, and what it does not hold, stands for what the current configuration holds.
    pub fn is_synced(&self) -> bool {
        self.is_synced_in(self.phase.current().number)
    }

    /// Whether it holds all that the configuration before this one held when it ended.
    pub fn is_synced_in(&self, number: u64) -> bool {
        self.synced.contains(&number)
    }

    /// The same, as it is to be read after an earlier build wrote it, which did not say how many homes keys have.
    #[must_use]
    pub fn said(mut self, counts: &ReplicaCounts) -> Self {
        self.each(|configuration| {
            if configuration.counts.is_unsaid() {
                configuration.counts = counts.clone();
            }
        });
        self
    }

    /// Has its configurations share tables with those of other partitions.
    pub(crate) fn share_counts(&mut self, known: &mut KnownCounts) {
        self.each(|configuration| known.share(&mut configuration.counts));
    }

    /// All configurations that it knows say this of how many homes keys have.
    pub(crate) fn set_counts(&mut self, counts: &ReplicaCounts) {
        self.each(|configuration| configuration.counts = counts.clone());
    }

    fn each(&mut self, change: impl FnMut(&mut Configuration)) {
        let known: Vec<&mut Configuration> = match &mut self.phase {
            ConfigPhase::Stable(only) => vec![only],
            ConfigPhase::Joint(current, next) => vec![current, next],
        };
        let accepted = self.acceptor.accepted.iter_mut().map(|(_, configuration)| configuration);
        known.into_iter().chain(&mut self.retired).chain(accepted).for_each(change);
    }

    /// Whether this node was a home of the keys of a group, and has not been relieved.
    pub fn leaves(&self, me: Home, group: Group) -> bool {
        !self.phase.is_home(me, group) && self.retired.as_ref().is_some_and(|retired| retired.is_home(me, group))
    }

    /// Whether the node has something to say of the keys of a group: it is a home, or was one and has not been relieved.
    pub fn shares(&self, me: Home, group: Group) -> bool {
        self.phase.is_home(me, group) || self.leaves(me, group)
    }

    /// Whether it holds all that a home of the keys of a group must, by the configuration that those go by that is not yet succeeded. A
    /// home of some keys may only be on its way to become one of others.
    pub fn holds_all(&self, me: Home, group: Group) -> bool {
        let current = self.phase.current();
        self.is_synced() && self.phase.counts().has(group) && current.is_home(me, group)
    }

    /// Whether the node has anything to do with the partition that it must remember.
    pub fn is_involved(&self, me: Home) -> bool {
        self.phase.has(me) || self.has_duties()
    }

    /// Whether the node has anything to do that is none of a home's: to hand over, to copy or to clear away.
    pub fn has_duties(&self) -> bool {
        self.retired.is_some() || self.is_candidate || self.has_stale_data
    }

    /// Goes by a later phase; false if it is none. What was promised was for a successor that has been chosen now.
    pub fn advance(&mut self, me: Home, phase: ConfigPhase) -> bool {
        if phase.version() <= self.phase.version() {
            return false;
        }
        self.retired = self.retired_after(me, &phase);
        let latest = phase.latest().number;
        if latest > self.phase.latest().number {
            self.acceptor = Acceptor::default();
        }
        self.synced.retain(|&number| number + 1 >= latest);
        self.phase = phase;
        if self.phase.has(me) {
            // It may have copied more than it is a home of now.
            self.has_stale_data |= std::mem::take(&mut self.is_candidate);
        }
        true
    }
}

impl PartitionState {
    /// Whoever held keys of which it is no home any more keeps them until those who are have confirmed that they hold them.
    fn retired_after(&self, me: Home, phase: &ConfigPhase) -> Option<Configuration> {
        let before: Vec<&Configuration> =
            self.retired.iter().chain(self.phase.both()).filter(|before| before.has(me)).collect();
        let was_home = |group: Group| before.iter().any(|before| before.is_home(me, group));
        if phase.counts().groups().all(|group| phase.is_home(me, group) || !was_home(group)) {
            return None;
        }
        // Where it is listed first it was a home of all whose n was the default, if it was that anywhere.
        let first = before.iter().min_by_key(|before| before.place(me))?;
        let n = first.place(me).map_or(0, |place| place + 1) as u8;
        let counts = phase.counts();
        let counts = counts.with(|bucket, _| if was_home(counts.group_of(bucket)) { n } else { 0 });
        Some(Configuration { counts, ..Configuration::clone(first) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::dot::{Incarnation, NodeId};

    fn home(node: u64) -> Home {
        Home { node: NodeId::new(node), incarnation: Incarnation(1) }
    }

    fn counts() -> ReplicaCounts {
        ReplicaCounts::new([("one", 1), ("two", 2)].map(|(bucket, n)| (bucket.into(), n)).into())
    }

    /// The group of keys that have `n` homes.
    fn of(n: u8) -> Group {
        let bucket: &[u8] = [b"one", b"two", b"any"][usize::from(n) - 1];
        counts().group_of(bucket)
    }

    fn configuration(number: u64, nodes: &[u64]) -> Configuration {
        let homes = nodes.iter().map(|&node| home(node)).collect();
        Configuration { number, homes, choosers: 3, counts: counts() }
    }

    fn partition_state(me: u64) -> PartitionState {
        PartitionState::bootstrap(configuration(0, &[1, 2, 3]), home(me))
    }

    #[test]
    fn a_home_keeps_what_it_has_until_it_is_released() {
        let mut partition_state = partition_state(3);
        let next = configuration(1, &[1, 2, 4]);
        assert!(
            partition_state.is_synced()
                && partition_state.advance(home(3), ConfigPhase::Joint(configuration(0, &[1, 2, 3]), next.clone()))
        );
        assert!(partition_state.retired.is_none() && partition_state.is_synced(), "it is a home of the first still");
        assert!(
            partition_state.advance(home(3), ConfigPhase::Stable(next.clone()))
                && !partition_state.advance(home(3), ConfigPhase::Stable(next))
        );
        assert!(
            partition_state.leaves(home(3), of(3))
                && !partition_state.leaves(home(3), of(2))
                && partition_state.is_involved(home(3))
        );
        // It is wanted again before it was relieved.
        assert!(partition_state.advance(home(3), ConfigPhase::Stable(configuration(2, &[3, 1, 2]))));
        assert!(partition_state.retired.is_none() && !partition_state.is_synced());
    }

    #[test]
    fn a_home_of_some_keys_does_not_hold_all_of_those_of_which_it_is_to_become_one() {
        let mut partition_state = partition_state(2);
        let joint = ConfigPhase::Joint(configuration(0, &[1, 2, 3]), configuration(1, &[2, 1, 3]));
        assert!(partition_state.holds_all(home(2), of(3)) && partition_state.advance(home(2), joint));
        assert!(partition_state.phase.is_home(home(2), of(1)) && !partition_state.holds_all(home(2), of(1)));
        assert!(partition_state.holds_all(home(2), of(2)) && partition_state.holds_all(home(2), of(3)));
    }

    #[test]
    fn a_home_that_moves_back_leaves_the_keys_of_smaller_buckets() {
        let mut partition_state = partition_state(1);
        assert!(partition_state.advance(home(1), ConfigPhase::Stable(configuration(1, &[2, 1, 3]))));
        assert!(partition_state.leaves(home(1), of(1)) && !partition_state.leaves(home(1), of(2)));
        assert!(partition_state.advance(home(1), ConfigPhase::Stable(configuration(2, &[2, 3, 4]))));
        assert!(
            partition_state.leaves(home(1), of(1)) && partition_state.leaves(home(1), of(3)),
            "it was the first of the first"
        );
    }

    #[test]
    fn a_home_leaves_the_keys_of_a_bucket_whose_n_was_lowered() {
        let of_n = |number: u64, one: u8, two: u8| {
            let by_bucket = [("one", one), ("two", two)].map(|(bucket, n)| (bucket.into(), n));
            Configuration { counts: ReplicaCounts::new(by_bucket.into()), ..configuration(number, &[1, 2, 3, 4]) }
        };
        let mut partition_state = PartitionState::bootstrap(of_n(0, 4, 4), home(4));
        assert!(
            partition_state.advance(home(4), ConfigPhase::Joint(of_n(0, 4, 4), of_n(1, 2, 4)))
                && partition_state.retired.is_none()
        );
        assert!(partition_state.advance(home(4), ConfigPhase::Stable(of_n(1, 2, 4))));
        assert!(
            partition_state.leaves(home(4), of(1))
                && !partition_state.leaves(home(4), of(2))
                && !partition_state.leaves(home(4), of(3))
        );
        // The other's is lowered before it was relieved of the first.
        assert!(partition_state.advance(home(4), ConfigPhase::Stable(of_n(2, 2, 3))));
        assert!(
            partition_state.leaves(home(4), of(1))
                && partition_state.leaves(home(4), of(2))
                && !partition_state.leaves(home(4), of(3))
        );
        // It was a home of these alone, and is again.
        assert!(
            partition_state.advance(home(4), ConfigPhase::Stable(of_n(3, 4, 4))) && partition_state.retired.is_none()
        );
    }

    #[test]
    fn a_stranger_is_whole_in_nothing() {
        let mut partition_state = partition_state(9);
        assert!(!partition_state.is_synced() && !partition_state.is_involved(home(9)));
        partition_state.acceptor.promised = Some(super::super::paxos::Ballot { round: 1, node: NodeId::new(1) });
        assert!(
            partition_state
                .advance(home(9), ConfigPhase::Joint(configuration(0, &[1, 2, 3]), configuration(1, &[1, 2, 9])))
        );
        assert!(
            partition_state.acceptor.promised.is_none()
                && partition_state.is_involved(home(9))
                && !partition_state.is_synced()
        );
    }
}
