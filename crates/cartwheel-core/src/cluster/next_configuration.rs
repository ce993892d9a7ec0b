//! The next configuration on the way to the target.
//!
//! No reconfiguration exchanges more homes than a majority can do without, where there is a choice. So the homes that stay can finish it even if
//! all new homes fail in the middle.

use std::collections::BTreeSet;

use crate::cluster::configuration::{Configuration, Home};
use crate::cluster::counts::{BUCKETS_MAX, ReplicaCounts};

/// The next configuration on the way from `current` to the `target` homes, with `target_counts` as the numbers of homes of keys; `None` if the
/// target is reached. Of the new homes, ready ones come first; of the old homes, dead ones go first.
///
/// Each reconfiguration does one of four things, tried in this order, so that what is left for the next is simple:
/// - A bucket that is to have an n other than the default enters the table with the n that it has.
/// - The n of buckets decrease.
/// - Homes are exchanged.
/// - The n of buckets increase.
pub fn next_configuration(
    current: &Configuration,
    target: &[Home],
    target_counts: &ReplicaCounts,
    is_ready: impl Fn(Home) -> bool,
    is_dead: impl Fn(Home) -> bool,
) -> Option<Configuration> {
    if target.is_empty() {
        return None;
    }
    let counts = &current.counts;
    let room = BUCKETS_MAX.saturating_sub(counts.len());
    let mut coming = target_counts
        .iter()
        .map(|(bucket, _)| bucket)
        .filter(|bucket| counts.get(bucket).is_none())
        .take(room)
        .peekable();
    let is_any = |is: fn(u8, u8) -> bool| counts.iter().any(|(bucket, n)| is(n, target_counts.n(bucket)));
    let (homes, counts) = if coming.peek().is_some() {
        (current.homes_of_any().to_vec(), counts.with_buckets(coming))
    } else if is_any(|n, target| n > target) {
        let lowered = counts.with(|bucket, n| n.min(target_counts.n(bucket)));
        (current.of(lowered.n_max()).to_vec(), lowered)
    } else if let Some(homes) = exchanged(current, target, is_ready, is_dead) {
        (homes, counts.clone())
    } else if is_any(|n, target| n < target) {
        let raised = counts.with(|bucket, n| raised(n, target_counts.n(bucket), current.homes.len(), target.len()));
        (target[..target.len().min(raised.n_max().into())].to_vec(), raised)
    } else {
        return None;
    };
    let choosers = counts.n_max().min(homes.len() as u8);
    Some(Configuration { number: current.number.saturating_add(1), homes, choosers, counts })
}

/// The n to which one is raised at once: the present homes must be a majority of the new ones.
fn raised(n: u8, target: u8, homes: usize, there: usize) -> u8 {
    let here = n.min(homes as u8).max(1);
    let most = here.saturating_add(1).max(here.saturating_mul(2).saturating_sub(1));
    // An n above the number of nodes changes nothing but the number.
    if target <= n || usize::from(most) >= there { target.max(n) } else { most.min(target) }
}

/// The homes after an exchange of some; `None` if keys have their target homes.
fn exchanged(
    current: &Configuration,
    target: &[Home],
    is_ready: impl Fn(Home) -> bool,
    is_dead: impl Fn(Home) -> bool,
) -> Option<Vec<Home>> {
    let n_max = current.counts.n_max();
    let prefix = |homes: &[Home], n: u8| homes.iter().take(n.into()).copied().collect::<BTreeSet<Home>>();
    // This is nearly always so, and it is checked for every partition.
    let is_reached = current.of(n_max) == &target[..target.len().min(n_max.into())];
    if is_reached || current.counts.ns().iter().all(|&n| prefix(&current.homes, n) == prefix(target, n)) {
        return None;
    }
    let (present, target) = (current.of(n_max), &target[..target.len().min(n_max.into())]);
    let at_once = (present.len().min(target.len()).saturating_sub(1) / 2).max(1);
    let comes = |home: &&Home| !present.contains(home);
    let mut homes: Vec<Home> = Vec::new();
    if target.iter().filter(comes).count() <= at_once {
        homes.extend(target);
    } else {
        let mut coming: Vec<Home> = target.iter().filter(comes).copied().collect();
        coming.sort_by_key(|&home| !is_ready(home));
        coming.truncate(at_once);
        // If a node comes in a new incarnation, its old one does not stay.
        let stays = |home: &Home| !target.contains(home) && !coming.iter().any(|new| new.node == home.node);
        let mut going: Vec<Home> = present.iter().copied().filter(stays).collect();
        going.sort_by_key(|&home| is_dead(home));
        let mut staying = going.into_iter().take(present.len().saturating_sub(at_once));
        for home in target {
            if present.contains(home) || coming.contains(home) {
                homes.push(*home);
            } else {
                homes.extend(staying.next());
            }
        }
    }
    Some(homes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::configuration::ConfigPhase;
    use crate::ring::quorum::majority;
    use crate::value::dot::{Incarnation, NodeId};

    fn home(node: u64) -> Home {
        Home { node: NodeId::new(node), incarnation: Incarnation(1) }
    }

    fn homes(nodes: &[u64]) -> Vec<Home> {
        nodes.iter().map(|&node| home(node)).collect()
    }

    /// Buckets with these n.
    fn counts(ns: &[u8]) -> ReplicaCounts {
        ReplicaCounts::new(ns.iter().map(|&n| (vec![n].into(), n)).collect())
    }

    fn configuration(nodes: &[u64], ns: &[u8]) -> Configuration {
        Configuration { number: 4, homes: homes(nodes), choosers: 3, counts: counts(ns) }
    }

    fn next(current: &[u64], target: &[u64], ns: &[u8], dead: u64) -> Option<Vec<u64>> {
        let next = next_configuration(
            &configuration(current, ns),
            &homes(target),
            &counts(ns),
            |other| other != home(5),
            |other| other == home(dead),
        )?;
        assert_eq!(next.number, 5);
        Some(next.homes.iter().map(|home| home.node.get()).collect())
    }

    #[test]
    fn few_homes_change_at_once() {
        assert_eq!(next(&[1, 2, 3], &[4, 1, 2], &[3], 0), Some(vec![4, 1, 2]));
        assert_eq!(next(&[1, 2, 3], &[4, 5, 6], &[3], 0), Some(vec![4, 1, 2]));
        assert_eq!(next(&[1, 2, 3], &[4, 5, 6], &[3], 1), Some(vec![4, 2, 3]), "the dead goes first");
        assert_eq!(next(&[1, 2, 3], &[5, 4, 6], &[3], 0), Some(vec![1, 4, 2]), "5 is not ready");
        assert_eq!(next(&[1, 2, 3, 4, 5], &[6, 7, 8, 4, 5], &[5], 0), Some(vec![6, 7, 1, 4, 5]));
        assert_eq!(next(&[1], &[2, 1, 3], &[3], 0), Some(vec![2, 1]), "one home comes at a time");
        assert_eq!(next(&[1, 2], &[2, 1, 3], &[3], 0), Some(vec![2, 1, 3]));
    }

    #[test]
    fn homes_change_only_where_keys_need_it() {
        assert_eq!(next(&[1, 2, 3], &[3, 2, 1], &[3], 0), None, "the order matters to no key");
        assert_eq!(next(&[1, 2, 3], &[3, 2, 1], &[1, 3], 0), Some(vec![3, 2, 1]));
        assert_eq!(next(&[1, 2, 3, 4, 5, 6], &[1, 2, 3], &[3], 0), None, "more homes are listed than any key has");
        assert_eq!(next(&[1, 2, 3, 4], &[1, 2, 3, 4, 5], &[3, 5], 0), Some(vec![1, 2, 3, 4, 5]));
        assert_eq!(next(&[1, 2, 3], &[], &[3], 0), None);
    }

    #[test]
    fn an_n_changes_after_its_bucket_has_entered_the_table() {
        let of = |n: u8| ReplicaCounts::new([("a".into(), n)].into());
        let none = ReplicaCounts::default();
        let versions = |from: &ReplicaCounts, nodes: &[u64], to: &ReplicaCounts, target: &[u64]| {
            let mut now = Configuration { counts: from.clone(), ..configuration(nodes, &[]) };
            let mut all = Vec::new();
            while let Some(next) = next_configuration(&now, &homes(target), to, |_| true, |_| false) {
                assert!(ConfigPhase::Joint(now.clone(), next.clone()).is_sound() && all.len() < 9);
                all.push((next.counts.get(b"a").unwrap_or(0), next.homes.len(), next.choosers));
                now = next;
            }
            all
        };
        let nine: Vec<u64> = (1..10).collect();
        assert_eq!(versions(&none, &[1, 2, 3], &of(5), &nine[..5]), [(3, 3, 3), (5, 5, 5)]);
        assert_eq!(versions(&none, &[1, 2, 3], &of(8), &nine[..8]), [(3, 3, 3), (5, 5, 5), (8, 8, 8)]);
        assert_eq!(versions(&none, &[1, 2, 3], &of(1), &nine[..3]), [(3, 3, 3), (1, 3, 3)]);
        assert_eq!(versions(&of(1), &[1, 2, 3], &none, &nine[..3]), [(2, 3, 3), (3, 3, 3)], "it stays in the table");
        assert_eq!(versions(&of(5), &[1, 2, 3, 4, 5], &none, &nine[..3]), [(3, 3, 3)]);
        assert_eq!(versions(&of(3), &[1, 2, 3], &of(16), &nine[..3]), [(16, 3, 3)], "there are no more nodes");
        assert_eq!(versions(&of(16), &[1, 2, 3], &none, &nine[..3]), [(3, 3, 3)]);
        assert_eq!(versions(&of(16), &[1, 2, 3], &of(16), &nine[..5]), [(16, 4, 4), (16, 5, 5)], "nodes have come");
    }

    proptest! {
        #[test]
        fn the_target_is_reached_and_the_homes_that_stay_can_finish_each_reconfiguration(
            current in prop::collection::btree_map(0u64..9, 1u64..3, 1..6),
            target in prop::collection::btree_map(0u64..9, 1u64..3, 1..6),
            dead in 0u64..9,
        ) {
            let counts = counts(&[1, 5]);
            let homes = |incarnations: BTreeMap<u64, u64>| -> Vec<Home> {
                incarnations.into_iter().map(|(node, incarnation)| Home { node: NodeId::new(node), incarnation: Incarnation(incarnation) }).collect()
            };
            let (current, target) = (homes(current), homes(target));
            let mut now = Configuration { number: 0, homes: current, choosers: 5, counts: counts.clone() };
            for _ in 0..10 {
                let is_dead = |home: Home| home.node.get() == dead;
                let Some(next) = next_configuration(&now, &target, &counts, |home| !is_dead(home), is_dead) else { break };
                prop_assert!(!next.homes.is_empty() && next.homes.len() <= 5);
                prop_assert!(ConfigPhase::Joint(now.clone(), next.clone()).is_sound(), "{:?} to {:?}", now, next);
                let staying = next.homes.iter().filter(|home| now.has(**home)).count();
                let grows_from_few = now.homes.len() < 3 || next.homes.len() > now.homes.len() || next.homes.len() < 3;
                prop_assert!(staying >= majority(next.homes.len()) || grows_from_few, "{:?} to {:?}", now, next);
                now = next;
            }
            prop_assert_eq!(now.homes, target);
        }
    }
}
