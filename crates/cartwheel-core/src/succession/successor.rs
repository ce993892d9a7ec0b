//! Which configuration is to succeed another on the way to the wish.
//!
//! No step exchanges more homes than a majority can do without, where there is a choice: then those who stay can finish the step
//! though all who come fail in the middle of it.

use std::collections::BTreeSet;

use crate::configuration::{Configuration, Home};

/// The next configuration on the way from `current` to `wished`; none if keys of every n in `ns` have the homes that they are to have.
/// Of those that are to come, the ready come first; of those that are to go, the dead go first.
pub fn successor(
    current: &Configuration,
    wished: &[Home],
    ns: &BTreeSet<u8>,
    is_ready: impl Fn(Home) -> bool,
    is_dead: impl Fn(Home) -> bool,
) -> Option<Configuration> {
    let n_max = ns.last().copied().unwrap_or(1).max(1);
    let prefix = |homes: &[Home], n: u8| homes.iter().take(n.into()).copied().collect::<BTreeSet<Home>>();
    // That nearly always is so, and asked of every partition.
    let is_reached = current.of(n_max) == &wished[..wished.len().min(n_max.into())];
    if wished.is_empty() || is_reached || ns.iter().all(|&n| prefix(&current.homes, n) == prefix(wished, n)) {
        return None;
    }
    let (present, wished) = (current.of(n_max), &wished[..wished.len().min(n_max.into())]);
    let at_once = (present.len().min(wished.len()).saturating_sub(1) / 2).max(1);
    let comes = |home: &&Home| !present.contains(home);
    let mut homes: Vec<Home> = Vec::new();
    if wished.iter().filter(comes).count() <= at_once {
        homes.extend(wished);
    } else {
        let mut coming: Vec<Home> = wished.iter().filter(comes).copied().collect();
        coming.sort_by_key(|&home| !is_ready(home));
        coming.truncate(at_once);
        // A node that comes in a new life does not stay in its old one.
        let stays = |home: &Home| !wished.contains(home) && !coming.iter().any(|new| new.node == home.node);
        let mut going: Vec<Home> = present.iter().copied().filter(stays).collect();
        going.sort_by_key(|&home| is_dead(home));
        let mut staying = going.into_iter().take(present.len().saturating_sub(at_once));
        for home in wished {
            if present.contains(home) || coming.contains(home) {
                homes.push(*home);
            } else {
                homes.extend(staying.next());
            }
        }
    }
    let choosers = n_max.min(homes.len() as u8);
    Some(Configuration { number: current.number.saturating_add(1), homes, choosers })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::configuration::Phase;
    use crate::dot::{Life, NodeId};
    use crate::quorum::majority;

    fn home(node: u64) -> Home {
        Home { node: NodeId::new(node), life: Life(1) }
    }

    fn homes(nodes: &[u64]) -> Vec<Home> {
        nodes.iter().map(|&node| home(node)).collect()
    }

    fn configuration(nodes: &[u64]) -> Configuration {
        Configuration { number: 4, homes: homes(nodes), choosers: 3 }
    }

    fn next(current: &[u64], wished: &[u64], ns: &[u8], dead: u64) -> Option<Vec<u64>> {
        let ns = ns.iter().copied().collect();
        let next = successor(
            &configuration(current),
            &homes(wished),
            &ns,
            |other| other != home(5),
            |other| other == home(dead),
        )?;
        assert_eq!(next.number, 5);
        Some(next.homes.iter().map(|home| home.node.get()).collect())
    }

    #[test]
    fn few_change_at_once() {
        assert_eq!(next(&[1, 2, 3], &[4, 1, 2], &[3], 0), Some(vec![4, 1, 2]));
        assert_eq!(next(&[1, 2, 3], &[4, 5, 6], &[3], 0), Some(vec![4, 1, 2]));
        assert_eq!(next(&[1, 2, 3], &[4, 5, 6], &[3], 1), Some(vec![4, 2, 3]), "the dead goes first");
        assert_eq!(next(&[1, 2, 3], &[5, 4, 6], &[3], 0), Some(vec![1, 4, 2]), "5 is not ready");
        assert_eq!(next(&[1, 2, 3, 4, 5], &[6, 7, 8, 4, 5], &[5], 0), Some(vec![6, 7, 1, 4, 5]));
        assert_eq!(next(&[1], &[2, 1, 3], &[3], 0), Some(vec![2, 1]), "one home comes at a time");
        assert_eq!(next(&[1, 2], &[2, 1, 3], &[3], 0), Some(vec![2, 1, 3]));
    }

    #[test]
    fn only_what_keys_need_is_changed() {
        assert_eq!(next(&[1, 2, 3], &[3, 2, 1], &[3], 0), None, "the order matters to no key");
        assert_eq!(next(&[1, 2, 3], &[3, 2, 1], &[1, 3], 0), Some(vec![3, 2, 1]));
        assert_eq!(next(&[1, 2, 3, 4, 5, 6], &[1, 2, 3], &[3], 0), None, "more homes are listed than any key has");
        assert_eq!(next(&[1, 2, 3, 4], &[1, 2, 3, 4, 5], &[3, 5], 0), Some(vec![1, 2, 3, 4, 5]));
        assert_eq!(next(&[1, 2, 3], &[], &[3], 0), None);
    }

    proptest! {
        #[test]
        fn the_wish_is_reached_and_those_who_stay_can_finish_each_step(
            current in prop::collection::btree_map(0u64..9, 1u64..3, 1..6),
            wished in prop::collection::btree_map(0u64..9, 1u64..3, 1..6),
            dead in 0u64..9,
        ) {
            let ns = BTreeSet::from([1, 3, 5]);
            let homes = |lives: BTreeMap<u64, u64>| -> Vec<Home> {
                lives.into_iter().map(|(node, life)| Home { node: NodeId::new(node), life: Life(life) }).collect()
            };
            let (current, wished) = (homes(current), homes(wished));
            let mut now = Configuration { number: 0, homes: current, choosers: 5 };
            for _ in 0..10 {
                let is_dead = |home: Home| home.node.get() == dead;
                let Some(next) = successor(&now, &wished, &ns, |home| !is_dead(home), is_dead) else { break };
                prop_assert!(!next.homes.is_empty() && next.homes.len() <= 5);
                prop_assert!(Phase::Joint(now.clone(), next.clone()).is_sound(), "{:?} to {:?}", now, next);
                let staying = next.homes.iter().filter(|home| now.has(**home)).count();
                let grows_from_few = now.homes.len() < 3 || next.homes.len() > now.homes.len() || next.homes.len() < 3;
                prop_assert!(staying >= majority(next.homes.len()) || grows_from_few, "{:?} to {:?}", now, next);
                now = next;
            }
            prop_assert_eq!(now.homes, wished);
        }
    }
}
