//! Estimates how much data a change of homes copies, from the sizes that nodes report.
//!
//! Keys of buckets with different n have different homes, so each group of keys is counted by itself: a new home in third place copies only
//! the keys of buckets that keep three replicas.

use std::collections::{BTreeMap, BTreeSet};

use cartwheel_core::cluster::configuration::{Configuration, Home};
use cartwheel_core::cluster::counts::{Group, ReplicaCounts};
use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::cluster::sizes::{Size, TreeId};
use cartwheel_core::control::Surveyed;
use cartwheel_core::ring::PartitionId;
use cartwheel_core::value::dot::NodeId;

use super::ApiState;

/// The partitions whose sizes each node reports.
pub(super) type SurveyTargets = BTreeMap<NodeId, BTreeSet<PartitionId>>;

/// A partition that moves from some homes to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Route {
    /// The partition.
    pub(super) partition: PartitionId,
    /// Its present homes, in order.
    pub(super) from: Vec<Home>,
    /// Its target homes, in order.
    pub(super) to: Vec<Home>,
    /// The groups of its keys, with the present and the target number of homes.
    pub(super) groups: Vec<(Group, u8, u8)>,
    /// Whether a bucket's n changes.
    pub(super) changes_n: bool,
}

impl Route {
    /// From a configuration to the target of the view.
    pub(super) fn new(partition: PartitionId, from: &Configuration, view: &View) -> Self {
        let (counts, target) = (&from.counts, view.target_counts());
        let of = |counts: &ReplicaCounts, other: &ReplicaCounts| counts.iter().all(|(bucket, n)| other.n(bucket) == n);
        Self {
            partition,
            from: from.homes_of_any().to_vec(),
            to: view.target(partition),
            groups: counts.groups().map(|group| (group, counts.n_of(group), target.n_of(group))).collect(),
            changes_n: !of(counts, target) || !of(target, counts),
        }
    }

    /// Whether the set of homes or a bucket's n changes.
    pub(super) fn is_change(&self) -> bool {
        self.changes_n || self.from.iter().collect::<BTreeSet<_>>() != self.to.iter().collect()
    }

    /// The new homes of any group of keys.
    pub(super) fn all_new_homes(&self) -> BTreeSet<&Home> {
        self.groups.iter().flat_map(|&(_, before, after)| self.new_homes(before, after)).collect()
    }

    /// The new homes of keys that have `before` homes and are to have `after`.
    fn new_homes(&self, before: u8, after: u8) -> impl Iterator<Item = &Home> {
        let from = &self.from[..self.from.len().min(before.into())];
        self.to.iter().take(after.into()).filter(|home| !from.contains(home))
    }
}

/// An amount of data to copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Amount {
    /// The size, counted once per new home.
    pub(super) size: Size,
    /// No home reported the size: it is the mean of other partitions.
    pub(super) is_estimate: bool,
}

/// The node to ask about each partition that moves: its first home that is alive.
pub(super) fn sources(api: &ApiState, view: &View, routes: &[Route]) -> SurveyTargets {
    let (liveness, own) = (api.liveness(), api.local().node);
    let is_there = |home: &&Home| {
        let is_alive = home.node == own || liveness.status(home.node) != Status::Down;
        is_alive && view.member(home.node).is_some_and(|known| known.member.incarnation == home.incarnation)
    };
    let mut targets = SurveyTargets::new();
    for Route { partition, from, .. } in routes {
        if let Some(home) = from.iter().find(is_there) {
            targets.entry(home.node).or_default().insert(*partition);
        }
    }
    targets
}

/// How much is copied of each partition; none where no node reported the size of any partition.
pub(super) fn amounts(routes: &[Route], surveyed: &Surveyed) -> Vec<Option<Amount>> {
    let groups: BTreeSet<Group> = routes.iter().flat_map(|route| &route.groups).map(|&(group, ..)| group).collect();
    let mean = |group| Some((group, mean(group, routes, surveyed)?));
    let means: BTreeMap<Group, Size> = groups.into_iter().filter_map(mean).collect();
    let amount = |route: &Route| {
        let mut amount = Amount::default();
        for &(group, before, after) in &route.groups {
            let new_homes = route.new_homes(before, after).count() as u64;
            if new_homes == 0 {
                continue;
            }
            let reported = reported(route, group, before, surveyed);
            let Size { keys, bytes } = reported.or_else(|| means.get(&group).copied())?;
            amount.size += Size { keys: keys.saturating_mul(new_homes), bytes: bytes.saturating_mul(new_homes) };
            amount.is_estimate |= reported.is_none();
        }
        Some(amount)
    };
    routes.iter().map(amount).collect()
}

/// How much of a partition its new homes hold already; none if one of them has not reported.
pub(super) fn copied(route: &Route, surveyed: &Surveyed) -> Option<Size> {
    let mut copied = Size::default();
    for &(group, before, after) in &route.groups {
        let whole = reported(route, group, before, surveyed);
        for home in route.new_homes(before, after) {
            let held = surveyed.get(&home.node)?.trees.get(&TreeId { partition: route.partition, group });
            let held = held.copied().unwrap_or_default();
            let most = whole.unwrap_or(held);
            copied += Size { keys: held.keys.min(most.keys), bytes: held.bytes.min(most.bytes) };
        }
    }
    Some(copied)
}

/// The sum; none if one amount is unknown.
pub(super) fn total(amounts: &[Option<Amount>]) -> Option<Amount> {
    amounts.iter().try_fold(Amount::default(), |mut total, amount| {
        let amount = amount.as_ref()?;
        total.size += amount.size;
        total.is_estimate |= amount.is_estimate;
        Some(total)
    })
}

/// The size that the first of the partition's homes to have reported gave.
fn reported(route: &Route, group: Group, n: u8, surveyed: &Surveyed) -> Option<Size> {
    let tree = TreeId { partition: route.partition, group };
    let homes = route.from.iter().take(n.into());
    homes.filter_map(|home| surveyed.get(&home.node)?.trees.get(&tree)).next().copied()
}

fn mean(group: Group, routes: &[Route], surveyed: &Surveyed) -> Option<Size> {
    let (mut sum, mut count) = (Size::default(), 0);
    let known = |route: &Route| route.groups.iter().find(|&&(other, ..)| other == group).map(|&(_, n, _)| n);
    for size in routes.iter().filter_map(|route| reported(route, group, known(route)?, surveyed)) {
        sum += size;
        count += 1;
    }
    (count > 0).then(|| Size { keys: sum.keys / count, bytes: sum.bytes / count })
}

#[cfg(test)]
mod tests {
    use cartwheel_core::cluster::sizes::NodeSizes;
    use cartwheel_core::value::dot::Incarnation;

    use super::*;

    fn homes(nodes: &[u64]) -> Vec<Home> {
        nodes.iter().map(|&node| Home { node: NodeId::new(node), incarnation: Incarnation(1) }).collect()
    }

    fn route(partition: u32, from: &[u64], to: &[u64]) -> Route {
        let groups = vec![(Group(1), 1, 1), (Group(3), 3, 3)];
        Route { partition: PartitionId(partition), from: homes(from), to: homes(to), groups, changes_n: false }
    }

    /// A route where all keys have three homes.
    fn of_three(partition: u32, from: &[u64], to: &[u64]) -> Route {
        Route { groups: vec![(Group(3), 3, 3)], ..route(partition, from, to) }
    }

    /// A partition, n, and the number of its keys, of ten bytes each.
    type Reported = (u32, u8, u64);

    /// What nodes report.
    fn surveyed(reported: &[(u64, &[Reported])]) -> Surveyed {
        let tree = |&(partition, n, keys): &Reported| {
            (TreeId { partition: PartitionId(partition), group: Group(n.into()) }, Size { keys, bytes: 10 * keys })
        };
        let sizes = |trees: &[Reported]| NodeSizes { trees: trees.iter().map(tree).collect(), ..NodeSizes::default() };
        reported.iter().map(|&(node, trees)| (NodeId::new(node), sizes(trees))).collect()
    }

    fn keys(amounts: &[Option<Amount>]) -> Vec<Option<(u64, bool)>> {
        amounts.iter().map(|amount| amount.map(|amount| (amount.size.keys, amount.is_estimate))).collect()
    }

    #[test]
    fn a_new_home_copies_the_keys_of_the_buckets_that_place_them_there() {
        let reported = surveyed(&[(1, &[(0, 1, 100), (0, 3, 7), (1, 1, 50), (1, 3, 9)])]);
        let third = route(0, &[1, 2, 3], &[1, 2, 4]);
        assert_eq!(keys(&amounts(&[third], &reported)), [Some((7, false))]);
        // Node 4 comes to the first place; node 1 stays a home, but only of buckets with n=3.
        let first = route(1, &[1, 2, 3], &[4, 1, 5]);
        assert_eq!(keys(&amounts(&[first], &reported)), [Some((50 + 2 * 9, false))]);
        let leaves = route(7, &[1, 2, 3], &[1, 2]);
        assert!(leaves.is_change());
        assert_eq!(
            keys(&amounts(&[leaves], &reported)),
            [Some((0, false))],
            "a partition without new homes copies nothing"
        );
        assert!(!route(0, &[1, 2, 3], &[3, 1, 2]).is_change());
    }

    #[test]
    fn an_unreported_size_is_estimated_as_the_mean() {
        let route = of_three;
        let reported = surveyed(&[(1, &[(0, 3, 100)]), (2, &[(1, 3, 300)])]);
        let routes = [route(0, &[1, 2], &[1, 9]), route(1, &[2, 1], &[8, 9]), route(2, &[3], &[9])];
        let amounts_of = amounts(&routes, &reported);
        assert_eq!(keys(&amounts_of), [Some((100, false)), Some((600, false)), Some((200, true))]);
        let total_of = total(&amounts_of).unwrap();
        assert_eq!((total_of.size, total_of.is_estimate), (Size { keys: 900, bytes: 9_000 }, true));
        let unknown = amounts(&routes, &Surveyed::new());
        assert_eq!((keys(&unknown), total(&unknown)), (vec![None; 3], None));
    }

    #[test]
    fn the_copied_size_is_what_the_new_homes_hold() {
        let route = of_three;
        let moving = route(0, &[1, 2], &[3, 4]);
        let known = surveyed(&[(1, &[(0, 3, 100)]), (3, &[(0, 3, 60)]), (4, &[])]);
        assert_eq!(copied(&moving, &known), Some(Size { keys: 60, bytes: 600 }));
        // A new home may hold records that the source has lost since.
        let more = surveyed(&[(1, &[(0, 3, 100)]), (3, &[(0, 3, 120)]), (4, &[(0, 3, 100)])]);
        assert_eq!(copied(&moving, &more), Some(Size { keys: 200, bytes: 2_000 }));
        assert_eq!(copied(&moving, &surveyed(&[(1, &[(0, 3, 100)]), (3, &[])])), None, "node 4 has not reported");
    }
}
