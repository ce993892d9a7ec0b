//! Trees against a model that adds up all keys each time.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ring::{PartitionId, Partitions};
use crate::value::digest::ContentDigest;
use crate::value::token::Token;

/// The model: what each token holds.
type Model = BTreeMap<u128, Share>;

fn sum_of(model: &Model, grid: &Grid, level: u8, index: u32) -> Sum {
    let mut sum = Sum::default();
    for (&position, share) in model {
        if Grid::node_of(level, grid.cell(Token::new(position))) == index {
            sum += Sum { digests: share.digest.to_u128(), keys: 1 };
        }
    }
    sum
}

fn share() -> impl Strategy<Value = Share> {
    let some = (any::<[u8; 16]>(), 0u32..3, 17u64..1_000);
    let some = some.prop_map(|(digest, tombstones, bytes)| Share {
        digest: ContentDigest(digest),
        tombstones,
        bytes,
        is_live: true,
    });
    prop_oneof![1 => Just(Share::NOTHING), 4 => some]
}

/// Writes to tokens of the second of three partitions, few enough that many are written twice.
fn writes() -> impl Strategy<Value = Vec<(u128, Share)>> {
    let third = u128::MAX / 3 + 1;
    let near = (0u128..6).prop_map(move |near| third + near);
    let far = (0u128..40).prop_map(move |step| third + step * (third / 41));
    vec((prop_oneof![near, far], share()), 0..120)
}

fn grid() -> Grid {
    Grid::of(Partitions::new(3).unwrap(), PartitionId(1))
}

fn carry_out(writes: &[(u128, Share)], depth: u8) -> (Tree, Model) {
    let (mut tree, mut model) = (Tree::new(depth), Model::new());
    for &(position, new) in writes {
        let old = model.insert(position, new).unwrap_or_default();
        tree.fold(grid().cell(Token::new(position)), old, new);
    }
    model.retain(|_, share| !share.is_nothing());
    (tree, model)
}

proptest! {
    #[test]
    fn every_node_is_the_sum_of_the_keys_below_it(writes in writes(), depth in 0u8..=3, at: u128) {
        let (tree, model) = carry_out(&writes, depth);
        prop_assert_eq!(tree.keys(), model.len() as u64);
        prop_assert_eq!(tree.tombstones(), model.values().map(|share| u64::from(share.tombstones)).sum::<u64>());
        let bytes = model.values().map(|share| share.bytes).sum::<u64>();
        prop_assert_eq!(tree.size(), Size { keys: model.len() as u64, bytes });
        let positions = model.keys().copied().chain([u128::MAX / 3 + 1 + at % (u128::MAX / 3)]);
        for position in positions {
            for level in 0..=depth {
                let index = Grid::node_of(level, grid().cell(Token::new(position)));
                prop_assert_eq!(tree.node(level, index), Some(sum_of(&model, &grid(), level, index)));
            }
        }
        prop_assert_eq!(tree.node(depth + 1, 0), None);
        prop_assert_eq!(tree.node(depth, 1 << (u32::from(depth) * FANOUT_BITS)), None);
    }

    #[test]
    fn trees_agree_if_and_only_if_their_keys_do(
        mut writes in writes(), depths in (0u8..=3, 0u8..=3), more in (0u128..40, share()), order in any::<u64>(),
    ) {
        let (one, model) = carry_out(&writes, depths.0);
        // The last write to each token, in another order.
        let mut last: Vec<_> = model.iter().map(|(&position, &share)| (position, share)).collect();
        last.sort_by_key(|(position, _)| position.wrapping_mul(u128::from(order) | 1));
        let (other, _) = carry_out(&last, depths.1);
        prop_assert!(one.agrees(&other) && other.agrees(&one));
        writes.push((u128::MAX / 3 + 1 + more.0, more.1));
        let (third, changed) = carry_out(&writes, depths.1);
        prop_assert_eq!(one.agrees(&third), changed == model);
    }

    #[test]
    fn a_shallower_copy_is_what_a_shallower_tree_would_be(writes in writes(), deep in 0u8..=3, shallow in 0u8..=3) {
        let (tree, _) = carry_out(&writes, deep);
        prop_assert_eq!(tree.at_most(shallow), carry_out(&writes, shallow.min(deep)).0);
    }

    #[test]
    fn a_tree_is_overfull_until_it_has_the_depth_for_its_keys(keys in 0u64..10_000_000, leaf_keys_max in 1u32..100) {
        let wanted = Tree::depth_for(keys, leaf_keys_max);
        for depth in 0..=3 {
            let tree = Tree { keys, ..Tree::new(depth) };
            prop_assert_eq!(tree.is_overfull(leaf_keys_max), depth < wanted);
        }
    }
}
