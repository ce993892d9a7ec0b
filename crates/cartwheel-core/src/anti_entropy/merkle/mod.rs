//! Merkle trees: replicas of any size are compared in a few messages (paper, section 4.7).
//!
//! A node keeps one [`Tree`] for each group of a partition's keys of which it is a home ([`Trees`]). A leaf is the sum
//! of the [`ContentDigest`](crate::value::digest::ContentDigest)s of the keys in its range of tokens. So a write
//! updates it by subtracting the key's old digest and adding the new one, without reading any other key. An inner node
//! is the sum of the leaves below it. So trees of different depths can be compared on every level that both have.

mod bucket_sizes;
mod build;
mod grid;
mod saved;
mod trees;

use crate::cluster::sizes::Size;
use crate::message::anti_entropy::Sum;
use crate::store::share::Share;
pub use bucket_sizes::BucketSizes;
pub use grid::Grid;
pub use trees::{ScanFindings, Trees};

/// The fan-out as a power of two.
pub const FANOUT_BITS: u32 = 4;
/// How many children an inner node has.
pub const FANOUT: u32 = 1 << FANOUT_BITS;
/// The depth of the deepest tree, which has a million leaves.
pub const DEPTH_MAX: u8 = 5;

/// A tree of sums over the keys of a partition. Only its leaves are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    depth: u8,
    digests: Vec<u128>,
    counts: Vec<u32>,
    keys: u64,
    tombstones: u64,
    bytes: u64,
}

impl Tree {
    /// A tree over no keys.
    pub fn new(depth: u8) -> Self {
        let leaves = 1 << (u32::from(depth.min(DEPTH_MAX)) * FANOUT_BITS);
        let depth = depth.min(DEPTH_MAX);
        Self { depth, digests: vec![0; leaves], counts: vec![0; leaves], keys: 0, tombstones: 0, bytes: 0 }
    }

    /// The level of the leaves. The root is on level 0.
    pub const fn depth(&self) -> u8 {
        self.depth
    }

    /// The number of keys with content.
    pub const fn keys(&self) -> u64 {
        self.keys
    }

    /// The number of tombstones.
    pub const fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// The number of keys and their bytes.
    pub const fn size(&self) -> Size {
        Size { keys: self.keys, bytes: self.bytes }
    }

    /// Replaces the share `old` of a key in `cell` of the partition's [`Grid`] by `new`.
    pub fn fold(&mut self, cell: u32, old: Share, new: Share) {
        let leaf = Grid::node_of(self.depth, cell) as usize;
        let (minus, plus) = (old.digest.to_u128(), new.digest.to_u128());
        self.digests[leaf] = self.digests[leaf].wrapping_sub(minus).wrapping_add(plus);
        self.tombstones = self.tombstones.saturating_sub(old.tombstones.into()).saturating_add(new.tombstones.into());
        self.bytes = self.bytes.saturating_sub(old.bytes).saturating_add(new.bytes);
        if !old.is_nothing() {
            self.counts[leaf] = self.counts[leaf].saturating_sub(1);
            self.keys = self.keys.saturating_sub(1);
        }
        if !new.is_nothing() {
            self.counts[leaf] = self.counts[leaf].saturating_add(1);
            self.keys += 1;
        }
    }

    /// The sum at `index` of `level`; none if there is no such node.
    pub fn node(&self, level: u8, index: u32) -> Option<Sum> {
        if level > self.depth || u64::from(index) >> (u32::from(level) * FANOUT_BITS) != 0 {
            return None;
        }
        let width = 1 << (u32::from(self.depth - level) * FANOUT_BITS);
        let leaves = index as usize * width..(index as usize + 1) * width;
        let digests = self.digests[leaves.clone()].iter().fold(0, |sum: u128, digest| sum.wrapping_add(*digest));
        let keys = self.counts[leaves].iter().map(|&count| u64::from(count)).sum();
        Some(Sum { digests, keys })
    }

    /// Whether it has more than `leaf_keys_max` keys a leaf on average and can be deeper.
    pub fn is_overfull(&self, leaf_keys_max: u32) -> bool {
        self.depth < DEPTH_MAX && self.keys > u64::from(leaf_keys_max) * self.digests.len() as u64
    }

    /// The least depth at which `keys` keys are not too many.
    pub fn depth_for(keys: u64, leaf_keys_max: u32) -> u8 {
        let fits = |&depth: &u8| keys <= u64::from(leaf_keys_max) << (u32::from(depth) * FANOUT_BITS);
        (0..DEPTH_MAX).find(fits).unwrap_or(DEPTH_MAX)
    }

    /// A tree over the same keys that is no deeper than `depth`.
    pub fn at_most(&self, depth: u8) -> Self {
        let depth = depth.min(self.depth);
        let mut tree = Self::new(depth);
        let shift = u32::from(self.depth - depth) * FANOUT_BITS;
        for (leaf, (digest, count)) in self.digests.iter().zip(&self.counts).enumerate() {
            tree.digests[leaf >> shift] = tree.digests[leaf >> shift].wrapping_add(*digest);
            tree.counts[leaf >> shift] = tree.counts[leaf >> shift].saturating_add(*count);
        }
        (tree.keys, tree.tombstones, tree.bytes) = (self.keys, self.tombstones, self.bytes);
        tree
    }

    /// Whether both cover the same keys with the same content, as far as the shallower can tell.
    pub fn agrees(&self, other: &Self) -> bool {
        let depth = self.depth.min(other.depth);
        self.at_most(depth) == other.at_most(depth)
    }
}

#[cfg(test)]
mod tests;
