//! A node's durable state of one partition.

use std::collections::BTreeSet;

use super::paxos::Acceptor;
use crate::cluster::configuration::{ConfigPhase, Configuration, Home};
use crate::cluster::counts::{Group, KnownCounts, ReplicaCounts};

/// A node's state of a partition: what it knows of the chain of configurations, and what it has promised.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PartitionState {
    /// The configuration in force, with its phase.
    pub phase: ConfigPhase,
    /// The numbers of the configurations for which this node is synced: it holds all that the configuration before held when it ended.
    pub synced: BTreeSet<u64>,
    /// The earlier configurations in which this node was a home, until the later homes have confirmed that they hold what it holds. They are
    /// merged into one, in which it is a home of the keys of which it was a home in any of them.
    pub retired: Option<Configuration>,
    /// It copies the homes' data, to become one.
    pub is_candidate: bool,
    /// It holds stale data: data that no node needs any more.
    pub has_stale_data: bool,
    /// What it has promised and accepted in the choice of the next configuration.
    pub acceptor: Acceptor,
}

impl PartitionState {
    /// The state of a node that knows only the bootstrap's configuration.
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

    /// Whether the node is synced for the current configuration: what it holds, and what it lacks, counts.
    pub fn is_synced(&self) -> bool {
        self.is_synced_in(self.phase.current().number)
    }

    /// Whether the node is synced for this configuration: it holds all that the one before held when it ended.
    pub fn is_synced_in(&self, number: u64) -> bool {
        self.synced.contains(&number)
    }

    /// The state as written by an earlier build, with the numbers of homes filled in, which that build did not store.
    #[must_use]
    pub fn with_unknown_counts(mut self, counts: &ReplicaCounts) -> Self {
        self.each(|configuration| {
            if configuration.counts.is_unknown() {
                configuration.counts = counts.clone();
            }
        });
        self
    }

    /// Shares the tables of its configurations with those of other partitions.
    pub(crate) fn share_counts(&mut self, known: &mut KnownCounts) {
        self.each(|configuration| known.share(&mut configuration.counts));
    }

    /// Sets the numbers of homes in all configurations that it knows.
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

    /// Whether this node was a home of the keys of a group, is none any more, and has not been released.
    pub fn leaves(&self, me: Home, group: Group) -> bool {
        !self.phase.is_home(me, group) && self.retired.as_ref().is_some_and(|retired| retired.is_home(me, group))
    }

    /// Whether this node's records of a group's keys matter to others: it is a home, or was one and has not been released.
    pub fn shares(&self, me: Home, group: Group) -> bool {
        self.phase.is_home(me, group) || self.leaves(me, group)
    }

    /// Whether it holds all that a home of a group's keys must hold by the current configuration. A home of some keys may still be syncing to
    /// become a home of others.
    pub fn holds_all(&self, me: Home, group: Group) -> bool {
        let current = self.phase.current();
        self.is_synced() && self.phase.counts().has(group) && current.is_home(me, group)
    }

    /// Whether the node must remember its state of the partition.
    pub fn is_involved(&self, me: Home) -> bool {
        self.phase.has(me) || self.has_duties()
    }

    /// Whether the node has a duty other than a home's: to hand over, to copy or to purge.
    pub fn has_duties(&self) -> bool {
        self.retired.is_some() || self.is_candidate || self.has_stale_data
    }

    /// Advances to a later phase; false if `phase` is not later. Promises are dropped once the next configuration that they concern is chosen.
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
            // It may have copied data of keys of which it is no home now.
            self.has_stale_data |= std::mem::take(&mut self.is_candidate);
        }
        true
    }
}

impl PartitionState {
    /// A node keeps keys of which it is no home any more until their homes have confirmed that they hold them.
    fn retired_after(&self, me: Home, phase: &ConfigPhase) -> Option<Configuration> {
        let before: Vec<&Configuration> =
            self.retired.iter().chain(self.phase.both()).filter(|before| before.has(me)).collect();
        let was_home = |group: Group| before.iter().any(|before| before.is_home(me, group));
        if phase.counts().groups().all(|group| phase.is_home(me, group) || !was_home(group)) {
            return None;
        }
        // At its earliest place in a list it was a home of all keys with the default n, if it was that anywhere.
        let first = before.iter().min_by_key(|before| before.position(me))?;
        let n = first.position(me).map_or(0, |position| position + 1) as u8;
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
        // It becomes a home again before it was released.
        assert!(partition_state.advance(home(3), ConfigPhase::Stable(configuration(2, &[3, 1, 2]))));
        assert!(partition_state.retired.is_none() && !partition_state.is_synced());
    }

    #[test]
    fn a_home_of_some_keys_does_not_yet_hold_the_keys_that_it_is_to_take() {
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
        // The other bucket's n is lowered before it was released from the first.
        assert!(partition_state.advance(home(4), ConfigPhase::Stable(of_n(2, 2, 3))));
        assert!(
            partition_state.leaves(home(4), of(1))
                && partition_state.leaves(home(4), of(2))
                && !partition_state.leaves(home(4), of(3))
        );
        // It was a home of these keys only, and becomes one again.
        assert!(
            partition_state.advance(home(4), ConfigPhase::Stable(of_n(3, 4, 4))) && partition_state.retired.is_none()
        );
    }

    #[test]
    fn a_node_without_a_role_is_not_synced() {
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
