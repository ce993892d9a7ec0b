//! How much is copied when partitions get other homes, as the nodes say that hold them.
//!
//! Keys of buckets with different n have different homes, so each group of keys is looked at by itself: a home that comes to the third
//! place copies the keys of those buckets that keep three replicas.

use std::collections::{BTreeMap, BTreeSet};

use cartwheel_core::cluster::configuration::{Configuration, Home};
use cartwheel_core::cluster::counts::{Group, ReplicaCounts};
use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::cluster::sizes::{Size, TreeId};
use cartwheel_core::control::Surveyed;
use cartwheel_core::ring::PartitionId;
use cartwheel_core::value::dot::NodeId;

use super::Door;

/// Which nodes are to be asked how much they hold of which partitions.
pub(super) type Questions = BTreeMap<NodeId, BTreeSet<PartitionId>>;

/// A partition on its way from some homes to others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Route {
    /// The partition.
    pub(super) partition: PartitionId,
    /// Who holds it, in order.
    pub(super) from: Vec<Home>,
    /// Who is to hold it, in order.
    pub(super) to: Vec<Home>,
    /// The groups of its keys, and how many homes each has and is to have.
    pub(super) groups: Vec<(Group, u8, u8)>,
    /// A bucket is to have another n.
    pub(super) changes_n: bool,
}

impl Route {
    /// From what a configuration says to what is wished.
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

    /// Whether any home comes or goes.
    pub(super) fn is_change(&self) -> bool {
        self.changes_n || self.from.iter().collect::<BTreeSet<_>>() != self.to.iter().collect()
    }

    /// Those who come as homes of the keys of any group.
    pub(super) fn come_at_all(&self) -> BTreeSet<&Home> {
        self.groups.iter().flat_map(|&(_, before, after)| self.come(before, after)).collect()
    }

    /// Those who come as homes of keys that have `before` homes and are to have `after`.
    fn come(&self, before: u8, after: u8) -> impl Iterator<Item = &Home> {
        let from = &self.from[..self.from.len().min(before.into())];
        self.to.iter().take(after.into()).filter(|home| !from.contains(home))
    }
}

/// How much is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Amount {
    /// So much, counted once for each home that comes.
    pub(super) size: Size,
    /// Nobody said so: it is the mean of other partitions.
    pub(super) is_estimate: bool,
}

/// Whom to ask about the partitions that move: the first home of each that is there.
pub(super) fn sources(door: &Door, view: &View, routes: &[Route]) -> Questions {
    let (liveness, own) = (door.liveness(), door.local().node);
    let is_there = |home: &&Home| {
        let is_alive = home.node == own || liveness.status(home.node) != Status::Down;
        is_alive && view.member(home.node).is_some_and(|known| known.member.incarnation == home.incarnation)
    };
    let mut questions = Questions::new();
    for Route { partition, from, .. } in routes {
        if let Some(home) = from.iter().find(is_there) {
            questions.entry(home.node).or_default().insert(*partition);
        }
    }
    questions
}

/// How much is copied of each partition; none where nobody knows how much any partition holds.
pub(super) fn amounts(routes: &[Route], surveyed: &Surveyed) -> Vec<Option<Amount>> {
    let groups: BTreeSet<Group> = routes.iter().flat_map(|route| &route.groups).map(|&(group, ..)| group).collect();
    let mean = |group| Some((group, mean(group, routes, surveyed)?));
    let means: BTreeMap<Group, Size> = groups.into_iter().filter_map(mean).collect();
    let amount = |route: &Route| {
        let mut amount = Amount::default();
        for &(group, before, after) in &route.groups {
            let come = route.come(before, after).count() as u64;
            if come == 0 {
                continue;
            }
            let said = said(route, group, before, surveyed);
            let Size { keys, bytes } = said.or_else(|| means.get(&group).copied())?;
            amount.size += Size { keys: keys.saturating_mul(come), bytes: bytes.saturating_mul(come) };
            amount.is_estimate |= said.is_none();
        }
        Some(amount)
    };
    routes.iter().map(amount).collect()
}

/// How much of it those who come hold already; none where one of them has not said.
pub(super) fn copied(route: &Route, surveyed: &Surveyed) -> Option<Size> {
    let mut copied = Size::default();
    for &(group, before, after) in &route.groups {
        let whole = said(route, group, before, surveyed);
        for home in route.come(before, after) {
            let held = surveyed.get(&home.node)?.trees.get(&TreeId { partition: route.partition, group });
            let held = held.copied().unwrap_or_default();
            let most = whole.unwrap_or(held);
            copied += Size { keys: held.keys.min(most.keys), bytes: held.bytes.min(most.bytes) };
        }
    }
    Some(copied)
}

/// All of it together; none if one of them is not known.
pub(super) fn total(amounts: &[Option<Amount>]) -> Option<Amount> {
    amounts.iter().try_fold(Amount::default(), |mut total, amount| {
        let amount = amount.as_ref()?;
        total.size += amount.size;
        total.is_estimate |= amount.is_estimate;
        Some(total)
    })
}

/// What the first of its homes said that has answered.
fn said(route: &Route, group: Group, n: u8, surveyed: &Surveyed) -> Option<Size> {
    let tree = TreeId { partition: route.partition, group };
    let homes = route.from.iter().take(n.into());
    homes.filter_map(|home| surveyed.get(&home.node)?.trees.get(&tree)).next().copied()
}

fn mean(group: Group, routes: &[Route], surveyed: &Surveyed) -> Option<Size> {
    let (mut sum, mut count) = (Size::default(), 0);
    let known = |route: &Route| route.groups.iter().find(|&&(other, ..)| other == group).map(|&(_, n, _)| n);
    for size in routes.iter().filter_map(|route| said(route, group, known(route)?, surveyed)) {
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

    /// Where all keys have three homes.
    fn of_three(partition: u32, from: &[u64], to: &[u64]) -> Route {
        Route { groups: vec![(Group(3), 3, 3)], ..route(partition, from, to) }
    }

    /// A partition, n, and how many keys of ten bytes are there.
    type Said = (u32, u8, u64);

    /// What nodes say.
    fn surveyed(said: &[(u64, &[Said])]) -> Surveyed {
        let tree = |&(partition, n, keys): &Said| {
            (TreeId { partition: PartitionId(partition), group: Group(n.into()) }, Size { keys, bytes: 10 * keys })
        };
        let sizes = |trees: &[Said]| NodeSizes { trees: trees.iter().map(tree).collect(), ..NodeSizes::default() };
        said.iter().map(|&(node, trees)| (NodeId::new(node), sizes(trees))).collect()
    }

    fn keys(amounts: &[Option<Amount>]) -> Vec<Option<(u64, bool)>> {
        amounts.iter().map(|amount| amount.map(|amount| (amount.size.keys, amount.is_estimate))).collect()
    }

    #[test]
    fn each_home_that_comes_copies_the_keys_of_the_buckets_whose_home_it_will_be() {
        let said = surveyed(&[(1, &[(0, 1, 100), (0, 3, 7), (1, 1, 50), (1, 3, 9)])]);
        let third = route(0, &[1, 2, 3], &[1, 2, 4]);
        assert_eq!(keys(&amounts(&[third], &said)), [Some((7, false))]);
        // 4 comes to the first place; 1 stays a home of the buckets of three alone.
        let first = route(1, &[1, 2, 3], &[4, 1, 5]);
        assert_eq!(keys(&amounts(&[first], &said)), [Some((50 + 2 * 9, false))]);
        let leaves = route(7, &[1, 2, 3], &[1, 2]);
        assert!(leaves.is_change());
        assert_eq!(keys(&amounts(&[leaves], &said)), [Some((0, false))], "nothing is copied of what nobody knows");
        assert!(!route(0, &[1, 2, 3], &[3, 1, 2]).is_change());
    }

    #[test]
    fn what_nobody_says_is_taken_for_the_mean_of_the_others() {
        let route = of_three;
        let said = surveyed(&[(1, &[(0, 3, 100)]), (2, &[(1, 3, 300)])]);
        let routes = [route(0, &[1, 2], &[1, 9]), route(1, &[2, 1], &[8, 9]), route(2, &[3], &[9])];
        let amounts_of = amounts(&routes, &said);
        assert_eq!(keys(&amounts_of), [Some((100, false)), Some((600, false)), Some((200, true))]);
        let total_of = total(&amounts_of).unwrap();
        assert_eq!((total_of.size, total_of.is_estimate), (Size { keys: 900, bytes: 9_000 }, true));
        let unknown = amounts(&routes, &Surveyed::new());
        assert_eq!((keys(&unknown), total(&unknown)), (vec![None; 3], None));
    }

    #[test]
    fn what_is_copied_is_what_those_hold_who_come() {
        let route = of_three;
        let moving = route(0, &[1, 2], &[3, 4]);
        let known = surveyed(&[(1, &[(0, 3, 100)]), (3, &[(0, 3, 60)]), (4, &[])]);
        assert_eq!(copied(&moving, &known), Some(Size { keys: 60, bytes: 600 }));
        // It may have got what the source has lost since.
        let more = surveyed(&[(1, &[(0, 3, 100)]), (3, &[(0, 3, 120)]), (4, &[(0, 3, 100)])]);
        assert_eq!(copied(&moving, &more), Some(Size { keys: 200, bytes: 2_000 }));
        assert_eq!(copied(&moving, &surveyed(&[(1, &[(0, 3, 100)]), (3, &[])])), None, "4 has not said");
    }
}
