//! The homes of a partition: a chain of configurations, each of which chooses the next one by agreement of its own homes.
//!
//! The ring of the membership history is only the *target* ([`crate::cluster::membership::View`]). In force is each partition's configuration.
//! The first follows from the bootstrap of the cluster; each has at most one next configuration ([`crate::reconfiguration`]). While a
//! configuration is joint, both lists of homes count: each quorum must be reached in both ([`Homes`]).

use std::collections::BTreeSet;
use std::fmt;

use crate::cluster::counts::{Group, ReplicaCounts};
use crate::cluster::losses::Memory;
use crate::ring::N_MAX;
use crate::ring::quorum::{Quorum, majority};
use crate::value::dot::{Incarnation, NodeId};

/// An incarnation of a node, as a home of a partition. A new incarnation of a node is another home: it holds nothing of what the earlier one
/// held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Home {
    /// The node.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// The version of a partition's configuration, as a node knows it: twice the number of the configuration if it is stable, one more if it is
/// joint. A node that learns of a later version adopts it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ConfigVersion(pub u64);

impl fmt::Display for ConfigVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, versions) = (self.0 / 2, (self.0 / 2) & VERSIONS_MASK);
        if number >> FORCE_RECOVERED_SHIFT > 0 {
            write!(f, "force-recovered {}: ", number >> FORCE_RECOVERED_SHIFT)?;
        }
        if self.0.is_multiple_of(2) { write!(f, "{versions}") } else { write!(f, "{versions}-{}", versions + 1) }
    }
}

/// The layout of a configuration's number. The bits from here on count how often its chain was force-recovered.
const FORCE_RECOVERED_SHIFT: u32 = 40;
/// The bits from here on distinguish force recoveries that may have happened at the same time.
const BRANCH_SHIFT: u32 = 24;
const BRANCH_MASK: u64 = (1 << (FORCE_RECOVERED_SHIFT - BRANCH_SHIFT)) - 1;
/// The lower bits are the place in the chain.
const VERSIONS_MASK: u64 = (1 << BRANCH_SHIFT) - 1;

/// The homes of a partition, in order. The homes of a key in a bucket of n replicas are the first n.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Configuration {
    /// Its number in the chain; the bootstrap's is 0. A force-recovered configuration has a greater number than all before it
    /// ([`ConfigPhase::force_recovered`]).
    pub number: u64,
    /// The homes: at least one, and no node twice.
    pub homes: Vec<Home>,
    /// How many of the first homes choose the next configuration (the acceptors of Paxos): the largest n of any bucket when this configuration
    /// was made, as far as there were nodes.
    pub choosers: u8,
    /// How many of the first homes are the homes of a key, by bucket.
    pub counts: ReplicaCounts,
}

impl Configuration {
    /// The homes of keys that have `n` of them.
    pub fn of(&self, n: u8) -> &[Home] {
        &self.homes[..usize::from(n).min(self.homes.len())]
    }

    /// The homes of the keys of a group.
    pub fn homes_of(&self, group: Group) -> &[Home] {
        self.of(self.counts.n_of(group))
    }

    /// The homes of any key.
    pub fn homes_of_any(&self) -> &[Home] {
        self.of(self.counts.n_max())
    }

    /// Whether `home` is a home of the keys of a group.
    pub fn is_home(&self, home: Home, group: Group) -> bool {
        self.homes_of(group).contains(&home)
    }

    /// The homes that choose the next configuration.
    pub fn choosers(&self) -> &[Home] {
        self.of(self.choosers.max(1))
    }

    /// The position of a home, from 0.
    pub fn position(&self, home: Home) -> Option<usize> {
        self.homes.iter().position(|&other| other == home)
    }

    /// Whether it lists this home.
    pub fn has(&self, home: Home) -> bool {
        self.homes.contains(&home)
    }

    /// Whether it was not chosen but force-recovered ([`ConfigPhase::force_recovered`]).
    pub const fn is_force_recovered(&self) -> bool {
        self.number > 0 && self.number & VERSIONS_MASK == 0
    }

    /// Whether it can have no next configuration: without the lost homes, those that choose are no majority.
    fn is_stuck(&self, is_lost: impl Fn(&Home) -> bool) -> bool {
        let choosers = self.choosers();
        choosers.iter().filter(|home| !is_lost(home)).count() < majority(choosers.len())
    }

    /// The incarnation in which a node is a home.
    pub fn incarnation_of(&self, node: NodeId) -> Option<Incarnation> {
        self.homes.iter().find(|home| home.node == node).map(|home| home.incarnation)
    }
}

/// The configuration in force of a partition, with its phase.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ConfigPhase {
    /// One configuration is in force.
    Stable(Configuration),
    /// The second has been chosen as the next configuration, but not all its homes are known to hold what the homes of the first held.
    Joint(Configuration, Configuration),
}

impl ConfigPhase {
    /// The configuration version.
    pub const fn version(&self) -> ConfigVersion {
        match self {
            Self::Stable(only) => ConfigVersion(only.number.saturating_mul(2)),
            Self::Joint(current, _) => ConfigVersion(current.number.saturating_mul(2).saturating_add(1)),
        }
    }

    /// The current configuration, whose homes hold everything.
    pub const fn current(&self) -> &Configuration {
        match self {
            Self::Stable(only) => only,
            Self::Joint(current, _) => current,
        }
    }

    /// The next configuration, if the phase is joint.
    pub const fn next(&self) -> Option<&Configuration> {
        match self {
            Self::Stable(_) => None,
            Self::Joint(_, next) => Some(next),
        }
    }

    /// The last configuration of the chain.
    pub const fn latest(&self) -> &Configuration {
        match self {
            Self::Stable(only) => only,
            Self::Joint(_, next) => next,
        }
    }

    /// Both configurations, the current one first.
    pub fn both(&self) -> impl Iterator<Item = &Configuration> {
        [self.current()].into_iter().chain(self.next())
    }

    /// The nodes of both, each once.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.both().flat_map(|configuration| &configuration.homes).map(|home| home.node).collect()
    }

    /// The numbers of homes by bucket, once the latest configuration is stable.
    pub const fn counts(&self) -> &ReplicaCounts {
        &self.latest().counts
    }

    /// Whether a configuration lists this home, even behind the homes of every key.
    pub fn has(&self, home: Home) -> bool {
        self.both().any(|configuration| configuration.has(home))
    }

    /// Whether `home` is a home of the keys of a group, in either configuration.
    pub fn is_home(&self, home: Home, group: Group) -> bool {
        self.both().any(|configuration| configuration.is_home(home, group))
    }

    /// Whether `home` is a home of any key, in either configuration.
    pub fn is_home_of_any(&self, home: Home) -> bool {
        self.both().any(|configuration| configuration.homes_of_any().contains(&home))
    }

    /// The force-recovered configuration, if no next configuration can be chosen any more because an administrator has marked too many homes
    /// lost. It consists of the homes that are left or, if there are none, of the target homes, which begin without data. `None` if a next
    /// configuration can be chosen, or could be if homes came back that are not marked lost.
    ///
    /// It follows from the configuration in force and from the homes that are marked lost. Two nodes that know different facts may compute
    /// different configurations; those have different numbers, and the greater one wins.
    pub fn force_recovered(
        &self,
        is_marked_lost: impl Fn(&Home) -> bool,
        is_left: impl Fn(&Home) -> bool,
        target: &[Home],
    ) -> Option<Configuration> {
        let latest = self.latest();
        if !latest.is_stuck(is_marked_lost) {
            return None;
        }
        let mut homes: Vec<Home> = Vec::new();
        let left = self.both().flat_map(|of| of.of(of.counts.n_max().max(of.choosers))).filter(|home| is_left(home));
        for home in left {
            match homes.iter_mut().find(|known| known.node == home.node) {
                // The later configuration has the later incarnation.
                Some(known) => *known = *home,
                None => homes.push(*home),
            }
        }
        if homes.is_empty() {
            homes.extend(target.iter().filter(|home| is_left(home)));
        }
        homes.truncate(N_MAX);
        let force_recovered = (latest.number >> FORCE_RECOVERED_SHIFT) + 1;
        let number =
            force_recovered << FORCE_RECOVERED_SHIFT | (branch(self.version(), &homes) & BRANCH_MASK) << BRANCH_SHIFT;
        let (choosers, counts) = (latest.choosers, latest.counts.clone());
        (!homes.is_empty()).then_some(Configuration { number, homes, choosers, counts })
    }

    /// Whether it is consistent in itself.
    pub fn is_sound(&self) -> bool {
        let is_sound = |configuration: &Configuration| {
            let nodes: BTreeSet<NodeId> = configuration.homes.iter().map(|home| home.node).collect();
            let has_homes = !nodes.is_empty() && nodes.len() == configuration.homes.len() && nodes.len() <= N_MAX;
            has_homes && configuration.counts.is_sound()
        };
        let follows = |next: &Configuration| {
            let current = self.current();
            current.number.checked_add(1) == Some(next.number) && current.counts.may_become(&next.counts)
        };
        // No real chain comes near a number at which versions overflow.
        self.both().all(is_sound) && self.next().is_none_or(follows) && self.latest().number < u64::MAX / 4
    }

    /// The homes of the keys of a group, without past incarnations, which answer no requests.
    pub fn homes(&self, group: Group, is_past: impl Fn(&Home) -> bool) -> Homes {
        self.homes_by(|configuration| configuration.counts.n_of(group), is_past)
    }

    /// The homes of any key, without past incarnations.
    pub fn homes_of_any(&self, is_past: impl Fn(&Home) -> bool) -> Homes {
        self.homes_by(|configuration| configuration.counts.n_max(), is_past)
    }

    fn homes_by(&self, n: impl Fn(&Configuration) -> u8, is_past: impl Fn(&Home) -> bool) -> Homes {
        let is_followed = |home: &Home| {
            self.latest().incarnation_of(home.node).is_some_and(|incarnation| incarnation != home.incarnation)
        };
        let nodes = |configuration: &Configuration| {
            let homes = configuration.of(n(configuration)).iter();
            homes.filter(|home| !is_followed(home) && !is_past(home)).map(|home| home.node).collect()
        };
        let incarnations = self.both().flat_map(|configuration| configuration.of(n(configuration)));
        let incarnations = incarnations.filter(|home| !is_followed(home)).copied().collect();
        let ns = [self.current(), self.latest()].map(&n);
        let (current, next) = (nodes(self.current()), self.next().map(nodes));
        let vacant = |of: &Configuration, nodes: &Vec<NodeId>| of.of(n(of)).len() - nodes.len();
        let vacant = [
            vacant(self.current(), &current),
            self.next().zip(next.as_ref()).map_or(0, |(of, nodes)| vacant(of, nodes)),
        ];
        Homes { current, next, incarnations, vacant, ns }
    }
}

/// A hash that nearly always differs if other homes are left, or if another version was stuck.
fn branch(version: ConfigVersion, homes: &[Home]) -> u64 {
    let homes = homes.iter().flat_map(|home| [home.node.get(), home.incarnation.0]);
    let bytes: Vec<u8> = [version.0].into_iter().chain(homes).flat_map(u64::to_le_bytes).collect();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// The homes of a key. Each quorum must be reached in both lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Homes {
    /// The homes that hold everything.
    pub current: Vec<NodeId>,
    /// The homes that take over from them, in a joint configuration.
    pub next: Option<Vec<NodeId>>,
    /// The homes' incarnations, where those matter.
    pub incarnations: Vec<Home>,
    /// For each list, the number of homes left out because their incarnation is over. Their places stay vacant until a reconfiguration ends.
    pub vacant: [usize; 2],
    /// For each list, the number of homes it should have; 0 if unknown.
    pub ns: [u8; 2],
}

impl Homes {
    /// Whether a response of a node from the time when `before` were the homes still counts: the node is no home now, or it is one in the same
    /// incarnation as then. A new incarnation holds nothing of what an earlier one stored.
    pub fn is_as_before(&self, node: NodeId, before: &Self) -> bool {
        let incarnation =
            |homes: &Self| homes.incarnations.iter().find(|home| home.node == node).map(|home| home.incarnation);
        !self.contains(node) || incarnation(self) == incarnation(before)
    }

    /// Whether a node's report of what it holds, from the time when `before` were the homes, still counts. If keys now have fewer homes, the
    /// remaining homes have merged the data of the others, so an earlier report lacks that.
    pub fn still_holds(&self, node: NodeId, before: &Self) -> bool {
        self.is_as_before(node, before) && self.ns[0] >= before.ns[0]
    }

    /// All homes, each once, those of the current list first.
    pub fn all(&self) -> Vec<NodeId> {
        let mut all = self.current.clone();
        all.extend(self.next.iter().flatten().filter(|node| !self.current.contains(node)));
        all
    }

    /// Whether a node is a home.
    pub fn contains(&self, node: NodeId) -> bool {
        self.lists().any(|list| list.contains(&node))
    }

    /// Whether a node may stand in for a home: some list contains the home and does not contain the node.
    pub fn may_stand_in(&self, node: NodeId, home: NodeId) -> bool {
        self.lists().any(|list| list.contains(&home) && !list.contains(&node))
    }

    /// The lists in each of which a quorum is needed.
    pub fn lists(&self) -> impl Iterator<Item = &[NodeId]> {
        [self.current.as_slice()].into_iter().chain(self.next.as_deref())
    }

    /// How many more nodes must count to reach the quorum, in the list that lacks most.
    pub fn missing(
        &self,
        quorum: Quorum,
        in_current: impl Fn(NodeId) -> bool,
        in_next: impl Fn(NodeId) -> bool,
    ) -> usize {
        let lacks = |list: &[NodeId], n: u8, count: usize| quorum.of(n, list.len()).saturating_sub(count);
        let [n, next_n] = self.ns;
        let current = lacks(&self.current, n, self.current.iter().filter(|&&home| in_current(home)).count());
        let of_next = |next: &Vec<NodeId>| lacks(next, next_n, next.iter().filter(|&&home| in_next(home)).count());
        self.next.as_ref().map_or(current, |next| current.max(of_next(next)))
    }

    /// The lists, and the quorum of each.
    pub fn needs(&self, quorum: Quorum) -> impl Iterator<Item = (&[NodeId], usize)> {
        self.lists().zip(self.ns).map(move |(list, n)| (list, quorum.of(n, list.len())))
    }

    /// The number of homes that count, in the list with fewer of them.
    pub fn fewest(&self, in_current: impl Fn(NodeId) -> bool, in_next: impl Fn(NodeId) -> bool) -> usize {
        let current = self.current.iter().filter(|&&home| in_current(home)).count();
        let next = self.next.as_ref().map(|next| next.iter().filter(|&&home| in_next(home)).count());
        next.map_or(current, |next| next.min(current))
    }

    /// The same homes without `node`.
    #[must_use]
    pub fn without(mut self, node: NodeId) -> Self {
        self.current.retain(|&home| home != node);
        self.next.iter_mut().for_each(|next| next.retain(|&home| home != node));
        self
    }
}

impl From<Vec<NodeId>> for Homes {
    fn from(current: Vec<NodeId>) -> Self {
        Self { current, ..Self::default() }
    }
}

/// The configuration stamp of a message: what its sender knows and is when it says something about a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConfigStamp {
    /// The configuration version that the sender knows.
    pub version: ConfigVersion,
    /// The sender is a home that is not synced: if it holds nothing of a key, that means nothing.
    pub is_syncing: bool,
    /// The time since which the sender has lost no record.
    pub memory: Memory,
    /// The sender's store has lost writes of the partition, and the sender has not recovered from enough other homes.
    pub is_recovering: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(node: u64, incarnation: u64) -> Home {
        Home { node: NodeId::new(node), incarnation: Incarnation(incarnation) }
    }

    fn configuration(number: u64, homes: &[(u64, u64)]) -> Configuration {
        let homes = homes.iter().map(|&(node, incarnation)| home(node, incarnation)).collect();
        let by_bucket = [("one", 1), ("two", 2)].map(|(bucket, n)| (bucket.into(), n));
        Configuration { number, homes, choosers: 3, counts: ReplicaCounts::new(by_bucket.into()) }
    }

    /// The group of keys that have `n` homes.
    fn of(n: u8) -> Group {
        let bucket: &[u8] = [b"one", b"two", b"any"][usize::from(n) - 1];
        configuration(0, &[]).counts.group_of(bucket)
    }

    #[test]
    fn both_lists_of_homes_count_while_a_configuration_is_joint() {
        let (first, second) =
            (configuration(0, &[(1, 1), (2, 1), (3, 1)]), configuration(1, &[(1, 1), (4, 1), (3, 1)]));
        let alone = ConfigPhase::Stable(first.clone());
        assert_eq!((alone.version(), alone.homes(of(3), |_| false).all().len()), (ConfigVersion(0), 3));
        let joint = ConfigPhase::Joint(first, second.clone());
        assert_eq!((joint.version(), joint.version().to_string()), (ConfigVersion(1), "0-1".to_owned()));
        assert_eq!(joint.homes(of(3), |_| false).all(), [1, 2, 3, 4].map(NodeId::new));
        assert_eq!(joint.homes(of(1), |_| false).all(), [NodeId::new(1)]);
        assert!(
            joint.is_home(home(4, 1), of(2)) && !joint.is_home(home(4, 1), of(1)) && !joint.is_home(home(4, 2), of(3))
        );
        assert_eq!(ConfigPhase::Stable(second).version(), ConfigVersion(2));
    }

    #[test]
    fn a_stuck_configuration_is_force_recovered_from_the_homes_that_are_left() {
        let alone = ConfigPhase::Stable(configuration(4, &[(1, 1), (2, 1), (3, 1)]));
        let target = [home(1, 1), home(4, 1), home(5, 1)];
        let without = |of: &ConfigPhase, lost: &[Home], target: &[Home]| {
            of.force_recovered(|home| lost.contains(home), |home| !lost.contains(home), target)
        };
        const ONE: Home = Home { node: NodeId::new(1), incarnation: Incarnation(1) };
        const TWO: Home = Home { node: NodeId::new(2), incarnation: Incarnation(1) };
        const THREE: Home = Home { node: NodeId::new(3), incarnation: Incarnation(1) };
        assert_eq!(without(&alone, &[], &target), None);
        assert_eq!(without(&alone, &[TWO], &target), None, "two of three can choose");
        let force_recovered = without(&alone, &[TWO, ONE], &target).unwrap();
        assert_eq!(
            (&force_recovered.homes[..], force_recovered.choosers, force_recovered.is_force_recovered()),
            (&[THREE][..], 3, true)
        );
        assert!(
            ConfigPhase::Stable(force_recovered.clone()).version() > alone.version()
                && ConfigPhase::Stable(force_recovered.clone()).is_sound()
        );
        assert_eq!(ConfigPhase::Stable(force_recovered.clone()).version().to_string(), "force-recovered 1: 0");
        let other = without(&alone, &[TWO, THREE], &target).unwrap();
        assert_ne!(force_recovered.number, other.number, "what differs in its homes differs in its number");
        let empty = without(&alone, &[ONE, TWO, THREE], &target).unwrap();
        assert_eq!(empty.homes, target[1..], "no home is left, so the target homes take over");
        assert_eq!(without(&alone, &[ONE, TWO, THREE], &target[..1]), None, "no target home is left");
        let next = Configuration { number: force_recovered.number + 1, ..configuration(0, &[(3, 1), (4, 1), (5, 1)]) };
        assert!(!next.is_force_recovered() && ConfigPhase::Joint(force_recovered, next.clone()).is_sound());
        let again = without(&ConfigPhase::Stable(next.clone()), &next.homes[1..], &target).unwrap();
        assert!(again.number > next.number && again.is_force_recovered());
        assert_eq!(ConfigPhase::Stable(again).version().to_string(), "force-recovered 2: 0");
    }

    #[test]
    fn homes_of_both_lists_remain_in_a_force_recovery_of_a_joint_configuration() {
        let (first, second) =
            (configuration(0, &[(1, 1), (2, 1), (3, 1)]), configuration(1, &[(2, 9), (4, 1), (5, 1)]));
        let joint = ConfigPhase::Joint(first, second);
        let is_lost = |home: &Home| home.node.get() > 3 || *home == super::tests::home(2, 1);
        let force_recovered = joint.force_recovered(is_lost, |home| !is_lost(home), &[]).unwrap();
        assert_eq!(force_recovered.homes, [home(1, 1), home(3, 1), home(2, 9)]);
        let is_of_first = |home: &Home| home.node.get() < 4 && home.incarnation == Incarnation(1);
        assert_eq!(joint.force_recovered(is_of_first, |_| true, &[]), None, "the second goes on");
        let has_left = joint.force_recovered(is_lost, |home| !is_lost(home) && home.node.get() != 3, &[]).unwrap();
        assert_eq!(
            has_left.homes,
            [home(1, 1), home(2, 9)],
            "a node that has left is no home, even if it is not marked lost"
        );
    }

    #[test]
    fn reports_from_before_n_was_lowered_do_not_count() {
        let of_n = |n: u8| {
            let counts = ReplicaCounts::new([("two".into(), n)].into());
            ConfigPhase::Stable(Configuration { counts, ..configuration(0, &[(1, 1), (2, 1), (3, 1)]) })
                .homes(of(2), |_| false)
        };
        let one = NodeId::new(1);
        assert!(of_n(3).still_holds(one, &of_n(2)) && of_n(2).still_holds(one, &of_n(2)));
        assert!(of_n(2).is_as_before(one, &of_n(3)) && !of_n(2).still_holds(one, &of_n(3)));
    }

    #[test]
    fn a_new_incarnation_replaces_the_earlier_one() {
        let joint = ConfigPhase::Joint(configuration(0, &[(1, 1), (2, 1)]), configuration(1, &[(1, 9), (2, 1)]));
        let homes = joint.homes(of(3), |_| false);
        assert_eq!(homes.current, [NodeId::new(2)], "the earlier incarnation cannot be asked");
        assert_eq!(homes.next, Some([1, 2].map(NodeId::new).into()));
        let without = joint.homes(of(3), |past| *past == home(2, 1));
        assert_eq!(without.all(), [NodeId::new(1)]);
        assert!(joint.has(home(1, 1)) && joint.has(home(1, 9)) && !joint.has(home(1, 2)));
        let before = ConfigPhase::Stable(configuration(0, &[(1, 1), (2, 1)])).homes(of(3), |_| false);
        assert!(homes.is_as_before(NodeId::new(2), &before) && !homes.is_as_before(NodeId::new(1), &before));
        assert!(homes.is_as_before(NodeId::new(1), &homes) && homes.is_as_before(NodeId::new(3), &before));
    }
}
