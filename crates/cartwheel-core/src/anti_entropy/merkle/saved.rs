//! The stored form of trees, which an orderly stop saves.
//!
//! It names the boot that saved it, and only the very next boot trusts it. So nothing needs to delete it: after a boot
//! that did not end in order, its boot number is out of date.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::bucket_sizes::BucketSizes;
use super::build::Forest;
use super::{DEPTH_MAX, FANOUT_BITS, Tree};
use crate::cluster::counts::Group;
use crate::value::dot::Incarnation;

const VERSION: u8 = 5;
/// Deeper trees are saved at this depth, to keep a stop short. They grow again in the background.
const SAVED_DEPTH_MAX: u8 = 3;
const CHECKSUM_BYTES: usize = 8;

/// The boot that saved the trees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavedBy {
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The boot within it.
    pub boot: u32,
}

/// The bytes to store.
pub fn encode(forest: &Forest, sizes: &BucketSizes, by: SavedBy) -> Bytes {
    let mut bytes = vec![VERSION];
    bytes.extend(by.incarnation.0.to_le_bytes());
    bytes.extend(by.boot.to_le_bytes());
    sizes.encode_to(&mut bytes);
    for (&group, tree) in forest {
        let tree = tree.at_most(SAVED_DEPTH_MAX);
        bytes.extend(group.0.to_le_bytes());
        bytes.push(tree.depth);
        bytes.extend(tree.tombstones.to_le_bytes());
        bytes.extend(tree.bytes.to_le_bytes());
        for (digest, count) in tree.digests.iter().zip(&tree.counts) {
            bytes.extend(digest.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes.into()
}

/// The saved trees, the sizes of buckets, and the boot that saved them; none if the bytes are damaged or of another version.
pub fn decode(bytes: &[u8]) -> Option<(Forest, BucketSizes, SavedBy)> {
    let (contents, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let mut contents = Reader(contents);
    if xxh3_64(contents.0).to_le_bytes() != checksum || contents.take::<1>()? != [VERSION] {
        return None;
    }
    let by = SavedBy {
        incarnation: Incarnation(u64::from_le_bytes(contents.take()?)),
        boot: u32::from_le_bytes(contents.take()?),
    };
    let sizes = BucketSizes::decode_from(&mut contents)?;
    let mut forest = Forest::new();
    while !contents.0.is_empty() {
        let group = Group(u64::from_le_bytes(contents.take()?));
        let [depth] = contents.take()?;
        if depth > DEPTH_MAX {
            return None;
        }
        let mut tree = Tree::new(depth);
        tree.tombstones = u64::from_le_bytes(contents.take()?);
        tree.bytes = u64::from_le_bytes(contents.take()?);
        for leaf in 0..1 << (u32::from(depth) * FANOUT_BITS) {
            tree.digests[leaf] = u128::from_le_bytes(contents.take()?);
            tree.counts[leaf] = u32::from_le_bytes(contents.take()?);
            tree.keys += u64::from(tree.counts[leaf]);
        }
        forest.insert(group, tree);
    }
    Some((forest, sizes, by))
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::share::Share;
    use crate::value::digest::ContentDigest;
    use crate::value::hlc::Hlc;
    use crate::value::key::{Generation, Placement};

    fn forest(depth: u8) -> Forest {
        let mut forest = Forest::from([(Group(1), Tree::new(0)), (Group(3), Tree::new(depth))]);
        for cell in 0..300u32 {
            let tree = forest.get_mut(&Group(3)).expect("it is there");
            let digest = ContentDigest([(cell % 255) as u8 + 1; 16]);
            let share = Share { digest, tombstones: cell % 2, bytes: 40 + u64::from(cell), is_live: true };
            tree.fold(cell * 3_000, Share::NOTHING, share);
        }
        forest
    }

    fn sizes() -> BucketSizes {
        let mut sizes = BucketSizes::default();
        for (bucket, since, bytes) in [("carts", 0, 40), ("carts", 7, 50), ("sessions", 0, 60)] {
            let generation = Generation { since: Hlc::from_bits(since), placement: Placement::Name };
            let share = Share { digest: ContentDigest([1; 16]), tombstones: 0, bytes, is_live: true };
            sizes.fold_in(bucket.as_bytes(), generation, Share::NOTHING, share);
        }
        sizes
    }

    const BY: SavedBy = SavedBy { incarnation: Incarnation(7), boot: 3 };

    #[test]
    fn saved_trees_come_back_at_most_as_deep_as_allowed() {
        for depth in 0..=3 {
            assert_eq!(decode(&encode(&forest(depth), &sizes(), BY)), Some((forest(depth), sizes(), BY)));
        }
        assert_eq!(decode(&encode(&forest(4), &sizes(), BY)), Some((forest(3), sizes(), BY)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_changed_bytes_are_rejected(
            bytes in prop::collection::vec(any::<u8>(), 0..60), at: prop::sample::Index, bit in 0u8..8,
        ) {
            let _ = decode(&bytes);
            let mut saved = encode(&forest(1), &sizes(), BY).to_vec();
            let at = at.index(saved.len());
            saved[at] ^= 1 << bit;
            prop_assert_eq!(decode(&saved), None);
        }
    }
}
