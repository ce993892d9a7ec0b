//! Who holds a partition: a chain of configurations, of which each is succeeded by another that its own homes agreed on.
//!
//! The ring of the history of changes is only a *wish* ([`crate::cluster::membership::View`]). What holds is each partition's configuration.
//! The first follows from the founding of the cluster; of each there is at most one successor ([`crate::reconfiguration`]). While one
//! takes over from the other, both count: every quorum is needed of each ([`Homes`]).

use std::collections::BTreeSet;
use std::fmt;

use crate::cluster::counts::{Group, ReplicaCounts};
use crate::cluster::losses::Memory;
use crate::ring::N_MAX;
use crate::ring::quorum::{Quorum, majority};
use crate::value::dot::{Incarnation, NodeId};

/// A node in one of its incarnations, as a home of a partition. A new incarnation of a node is another home: it holds nothing of what the one before held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Home {
    /// The node.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// How far a partition's chain has come, as far as somebody knows: twice the number of the configuration that stands alone, or one more
/// while its successor takes over. Whoever knows of a later step goes by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ConfigVersion(pub u64);

impl fmt::Display for ConfigVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, versions) = (self.0 / 2, (self.0 / 2) & VERSIONS_MASK);
        if number >> FORCE_RECOVERED_SHIFT > 0 {
            write!(f, "re-made {}: ", number >> FORCE_RECOVERED_SHIFT)?;
        }
        if self.0.is_multiple_of(2) { write!(f, "{versions}") } else { write!(f, "{versions}-{}", versions + 1) }
    }
}

/// The number of a configuration says how often its chain was re-made in the bits from here on, ...
const FORCE_RECOVERED_SHIFT: u32 = 40;
/// ... in those from here on which of several that may have been re-made at the same time it follows, ...
const BRANCH_SHIFT: u32 = 24;
const BRANCH_MASK: u64 = (1 << (FORCE_RECOVERED_SHIFT - BRANCH_SHIFT)) - 1;
/// ... and below its place in the chain.
const VERSIONS_MASK: u64 = (1 << BRANCH_SHIFT) - 1;

/// The homes of a partition, in order: those of a key in a bucket of n replicas are the first n.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Configuration {
    /// Its place in the chain; the founding's is 0. One that was re-made has a greater number than all before
    /// ([`ConfigPhase::force_recovered`]).
    pub number: u64,
    /// The homes: no node twice, and at least one.
    pub homes: Vec<Home>,
    /// How many of the first homes choose the successor: the largest n of any bucket when this was made, as far as there were
    /// nodes.
    pub choosers: u8,
    /// How many of the first homes are those of a key, by bucket.
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

    /// Those that are homes of any key.
    pub fn homes_of_any(&self) -> &[Home] {
        self.of(self.counts.n_max())
    }

    /// Whether it has this home for the keys of a group.
    pub fn is_home(&self, home: Home, group: Group) -> bool {
        self.homes_of(group).contains(&home)
    }

    /// Those who choose the successor.
    pub fn choosers(&self) -> &[Home] {
        self.of(self.choosers.max(1))
    }

    /// The place of a home, from 0.
    pub fn place(&self, home: Home) -> Option<usize> {
        self.homes.iter().position(|&other| other == home)
    }

    /// Whether it has this home.
    pub fn has(&self, home: Home) -> bool {
        self.homes.contains(&home)
    }

    /// Whether it was chosen by nobody ([`ConfigPhase::force_recovered`]).
    pub const fn is_force_recovered(&self) -> bool {
        self.number > 0 && self.number & VERSIONS_MASK == 0
    }

    /// Whether it can have no successor: so many of those who choose are lost that the others are no majority.
    fn is_stuck(&self, is_lost: impl Fn(&Home) -> bool) -> bool {
        let choosers = self.choosers();
        choosers.iter().filter(|home| !is_lost(home)).count() < majority(choosers.len())
    }

    /// The incarnation in which a node is a home.
    pub fn incarnation_of(&self, node: NodeId) -> Option<Incarnation> {
        self.homes.iter().find(|home| home.node == node).map(|home| home.incarnation)
    }
}

/// What holds in a partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ConfigPhase {
    /// One configuration.
    Stable(Configuration),
    /// The second has been chosen to succeed the first, and its homes are not all known to hold what those of the first held.
    Joint(Configuration, Configuration),
}

impl ConfigPhase {
    /// How far the chain has come.
    pub const fn version(&self) -> ConfigVersion {
        match self {
            Self::Stable(only) => ConfigVersion(only.number.saturating_mul(2)),
            Self::Joint(current, _) => ConfigVersion(current.number.saturating_mul(2).saturating_add(1)),
        }
    }

    /// The configuration whose homes hold everything.
    pub const fn current(&self) -> &Configuration {
        match self {
            Self::Stable(only) => only,
            Self::Joint(current, _) => current,
        }
    }

    /// The one that takes over.
    pub const fn next(&self) -> Option<&Configuration> {
        match self {
            Self::Stable(_) => None,
            Self::Joint(_, next) => Some(next),
        }
    }

    /// The last of the chain.
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

    /// How many homes keys have, by bucket, once the latest configuration stands alone.
    pub const fn counts(&self) -> &ReplicaCounts {
        &self.latest().counts
    }

    /// Whether a configuration lists a node in this incarnation, be it behind the homes of every key.
    pub fn has(&self, home: Home) -> bool {
        self.both().any(|configuration| configuration.has(home))
    }

    /// Whether it is a home of the keys of a group.
    pub fn is_home(&self, home: Home, group: Group) -> bool {
        self.both().any(|configuration| configuration.is_home(home, group))
    }

    /// Whether it is a home of any key.
    pub fn is_home_of_any(&self, home: Home) -> bool {
        self.both().any(|configuration| configuration.homes_of_any().contains(&home))
    }

    /// What holds instead if no successor can be chosen any more, as an administrator has given up so many homes: those alone that are
    /// left, or where there are none, those who are wished, with nothing. None if a
    /// successor can be chosen, or could if others came back who were not given up.
    ///
    /// It follows from what held and from whom the administrator gave up. Two nodes that know different things of that may come to
    /// different ends; those have different numbers, and the greater one holds.
    pub fn force_recovered(
        &self,
        is_given_up: impl Fn(&Home) -> bool,
        is_left: impl Fn(&Home) -> bool,
        target: &[Home],
    ) -> Option<Configuration> {
        let latest = self.latest();
        if !latest.is_stuck(is_given_up) {
            return None;
        }
        let mut homes: Vec<Home> = Vec::new();
        let left = self.both().flat_map(|of| of.of(of.counts.n_max().max(of.choosers))).filter(|home| is_left(home));
        for home in left {
            match homes.iter_mut().find(|known| known.node == home.node) {
                // A later incarnation is named later.
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

    /// Whether it makes sense in itself.
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
        // Nobody comes to a number at which the steps end.
        self.both().all(is_sound) && self.next().is_none_or(follows) && self.latest().number < u64::MAX / 4
    }

    /// The homes of the keys of a group, without those incarnations that are past: they answer nobody.
    pub fn homes(&self, group: Group, is_past: impl Fn(&Home) -> bool) -> Homes {
        self.homes_by(|configuration| configuration.counts.n_of(group), is_past)
    }

    /// Those that are homes of any key, without those incarnations that are past.
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

/// Differs, nearly always, where other homes are left, or where it was another version that had no successor.
fn branch(version: ConfigVersion, homes: &[Home]) -> u64 {
    let homes = homes.iter().flat_map(|home| [home.node.get(), home.incarnation.0]);
    let bytes: Vec<u8> = [version.0].into_iter().chain(homes).flat_map(u64::to_le_bytes).collect();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// The homes of a key: every quorum is needed of each of the two.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Homes {
    /// Those that hold everything.
    pub current: Vec<NodeId>,
    /// Those that take over from them.
    pub next: Option<Vec<NodeId>>,
    /// In which incarnations they are homes, where that matters.
    pub incarnations: Vec<Home>,
    /// How many homes of each list are left out, as their incarnations are over: nobody is in their places until a step ends.
    pub vacant: [usize; 2],
    /// How many homes there should be in each of the two; 0 where nothing says it.
    pub ns: [u8; 2],
}

impl Homes {
    /// Whether what was heard of a node when `before` were the homes still stands for it: it is none now, or one in the incarnation in which it was one
    /// then. A new incarnation holds nothing of what the one before said that it had stored.
    pub fn is_as_before(&self, node: NodeId, before: &Self) -> bool {
        let incarnation =
            |homes: &Self| homes.incarnations.iter().find(|home| home.node == node).map(|home| home.incarnation);
        !self.contains(node) || incarnation(self) == incarnation(before)
    }

    /// Whether what a node said that it holds, when `before` were the homes, still stands for it. Where keys have fewer homes than before, those
    /// that are left have met those that are not: what they held before that is too little.
    pub fn still_holds(&self, node: NodeId, before: &Self) -> bool {
        self.is_as_before(node, before) && self.ns[0] >= before.ns[0]
    }

    /// All of them, each once: those that hold everything first.
    pub fn all(&self) -> Vec<NodeId> {
        let mut all = self.current.clone();
        all.extend(self.next.iter().flatten().filter(|node| !self.current.contains(node)));
        all
    }

    /// Whether a node is one of them.
    pub fn contains(&self, node: NodeId) -> bool {
        self.lists().any(|list| list.contains(&node))
    }

    /// Whether a node may stand in for a home: in some list there is this home, and not that node.
    pub fn may_stand_in(&self, node: NodeId, home: NodeId) -> bool {
        self.lists().any(|list| list.contains(&home) && !list.contains(&node))
    }

    /// The lists of which every quorum is needed.
    pub fn lists(&self) -> impl Iterator<Item = &[NodeId]> {
        [self.current.as_slice()].into_iter().chain(self.next.as_deref())
    }

    /// By how many those that count are too few, in the list that lacks the most.
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

    /// The lists, and how many of each a quorum needs.
    pub fn needs(&self, quorum: Quorum) -> impl Iterator<Item = (&[NodeId], usize)> {
        self.lists().zip(self.ns).map(move |(list, n)| (list, quorum.of(n, list.len())))
    }

    /// How many of them count, in the list of which fewer do.
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

/// On what a node stands that says something about a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConfigStamp {
    /// How far the chain has come, as far as it knows.
    pub version: ConfigVersion,
    /// It is a home that does not hold yet all that the configuration before held: that it holds nothing of a key says nothing.
    pub is_syncing: bool,
    /// Since when it has lost no record.
    pub memory: Memory,
    /// Its store has lost writes of the partition, and it has not recovered from enough others.
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
    fn both_configurations_have_a_say_while_one_takes_over() {
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
    fn what_has_no_successor_is_made_anew_of_who_is_left() {
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
        assert_eq!(ConfigPhase::Stable(force_recovered.clone()).version().to_string(), "re-made 1: 0");
        let other = without(&alone, &[TWO, THREE], &target).unwrap();
        assert_ne!(force_recovered.number, other.number, "what differs in its homes differs in its number");
        let empty = without(&alone, &[ONE, TWO, THREE], &target).unwrap();
        assert_eq!(empty.homes, target[1..], "nobody is left, so the target nodes come");
        assert_eq!(without(&alone, &[ONE, TWO, THREE], &target[..1]), None, "nobody can come");
        let next = Configuration { number: force_recovered.number + 1, ..configuration(0, &[(3, 1), (4, 1), (5, 1)]) };
        assert!(!next.is_force_recovered() && ConfigPhase::Joint(force_recovered, next.clone()).is_sound());
        let again = without(&ConfigPhase::Stable(next.clone()), &next.homes[1..], &target).unwrap();
        assert!(again.number > next.number && again.is_force_recovered());
        assert_eq!(ConfigPhase::Stable(again).version().to_string(), "re-made 2: 0");
    }

    #[test]
    fn all_who_hold_anything_are_left_while_one_takes_over() {
        let (first, second) =
            (configuration(0, &[(1, 1), (2, 1), (3, 1)]), configuration(1, &[(2, 9), (4, 1), (5, 1)]));
        let joint = ConfigPhase::Joint(first, second);
        let is_lost = |home: &Home| home.node.get() > 3 || *home == super::tests::home(2, 1);
        let force_recovered = joint.force_recovered(is_lost, |home| !is_lost(home), &[]).unwrap();
        assert_eq!(force_recovered.homes, [home(1, 1), home(3, 1), home(2, 9)]);
        let is_of_first = |home: &Home| home.node.get() < 4 && home.incarnation == Incarnation(1);
        assert_eq!(joint.force_recovered(is_of_first, |_| true, &[]), None, "the second goes on");
        let has_left = joint.force_recovered(is_lost, |home| !is_lost(home) && home.node.get() != 3, &[]).unwrap();
        assert_eq!(has_left.homes, [home(1, 1), home(2, 9)], "one that has left is no home, though nobody gave it up");
    }

    #[test]
    fn what_homes_held_when_there_were_more_of_them_is_asked_again() {
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
    fn a_new_incarnation_takes_over_from_the_one_before() {
        let joint = ConfigPhase::Joint(configuration(0, &[(1, 1), (2, 1)]), configuration(1, &[(1, 9), (2, 1)]));
        let homes = joint.homes(of(3), |_| false);
        assert_eq!(homes.current, [NodeId::new(2)], "the incarnation before holds what nobody can ask it for");
        assert_eq!(homes.next, Some([1, 2].map(NodeId::new).into()));
        let without = joint.homes(of(3), |past| *past == home(2, 1));
        assert_eq!(without.all(), [NodeId::new(1)]);
        assert!(joint.has(home(1, 1)) && joint.has(home(1, 9)) && !joint.has(home(1, 2)));
        let before = ConfigPhase::Stable(configuration(0, &[(1, 1), (2, 1)])).homes(of(3), |_| false);
        assert!(homes.is_as_before(NodeId::new(2), &before) && !homes.is_as_before(NodeId::new(1), &before));
        assert!(homes.is_as_before(NodeId::new(1), &homes) && homes.is_as_before(NodeId::new(3), &before));
    }
}
