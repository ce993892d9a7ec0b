//! The assignment of a partition's tokens to the leaves of its trees.

use bytes::Bytes;

use super::{DEPTH_MAX, FANOUT_BITS};
use crate::message::anti_entropy::KeyRange;
use crate::ring::{PartitionId, Partitions};
use crate::value::token::Token;

const CELL_BITS: u32 = DEPTH_MAX as u32 * FANOUT_BITS;

/// A partition divided into the leaves of the deepest possible tree (cells). Other trees join adjacent cells. So on
/// every node a leaf of one depth is the sum of the same sixteen leaves of the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    start: u128,
    last: u128,
    cell: u128,
}

impl Grid {
    /// The grid of a partition.
    ///
    /// # Panics
    /// If the ring has no such partition.
    pub const fn of(partitions: Partitions, partition: PartitionId) -> Self {
        let start = partitions.start(partition).position();
        let last = if partition.0 + 1 == partitions.count() {
            u128::MAX
        } else {
            partitions.start(PartitionId(partition.0 + 1)).position() - 1
        };
        Self { start, last, cell: ((last - start) >> CELL_BITS) + 1 }
    }

    /// The cell of a token of this partition.
    pub const fn cell(&self, token: Token) -> u32 {
        (token.position().wrapping_sub(self.start) / self.cell) as u32
    }

    /// The index of the node on `level` that contains a cell.
    pub const fn node_of(level: u8, cell: u32) -> u32 {
        cell >> (CELL_BITS - level as u32 * FANOUT_BITS)
    }

    /// The whole partition.
    pub fn whole(&self) -> KeyRange {
        KeyRange { from: storage_key(self.start), upto: self.last.checked_add(1).map(storage_key) }
    }

    /// The keys of a node; none if it contains no token.
    pub fn range(&self, level: u8, index: u32) -> Option<KeyRange> {
        let shift = CELL_BITS - u32::from(level) * FANOUT_BITS;
        let first = self.position(u128::from(index) << shift)?;
        let end = self.position((u128::from(index) + 1) << shift);
        Some(KeyRange {
            from: storage_key(first),
            upto: end.map_or_else(|| self.whole().upto, |end| Some(storage_key(end))),
        })
    }

    /// The position at which a cell begins; none if that is beyond the partition.
    fn position(&self, cell: u128) -> Option<u128> {
        let position = self.cell.checked_mul(cell)?.checked_add(self.start)?;
        (position <= self.last).then_some(position)
    }
}

/// The prefix of the storage keys of a token.
fn storage_key(position: u128) -> Bytes {
    Bytes::copy_from_slice(&Token::new(position).to_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_node_of_a_token_on_each_level_has_it_in_its_range(
            count in prop_oneof![1u32..300, Just(65_536u32)], position: u128, level in 0..=DEPTH_MAX,
        ) {
            let partitions = Partitions::new(count).unwrap();
            let token = Token::new(position);
            let grid = Grid::of(partitions, partitions.of(token));
            let index = Grid::node_of(level, grid.cell(token));
            prop_assert!(u64::from(index) < 1 << (u32::from(level) * FANOUT_BITS));
            let range = grid.range(level, index).expect("a token is in it");
            prop_assert!(range.contains(&token.to_bytes()));
            if let Some(next) = grid.range(level, index + 1).filter(|_| index + 1 < 1 << (u32::from(level) * FANOUT_BITS)) {
                prop_assert_eq!(Some(next.from), range.upto);
            }
            if level > 0 {
                prop_assert_eq!(Grid::node_of(level - 1, grid.cell(token)), index / 16);
            }
        }

        #[test]
        fn the_ranges_of_a_level_cover_the_partition_without_overlap(count in 1u32..20, partition in 0u32..20, level in 0u8..=3) {
            let partitions = Partitions::new(count).unwrap();
            let grid = Grid::of(partitions, PartitionId(partition % count));
            let mut next = Some(grid.whole().from);
            for index in 0..1 << (u32::from(level) * FANOUT_BITS) {
                let Some(range) = grid.range(level, index) else { continue };
                prop_assert_eq!(Some(range.from), next);
                next = range.upto;
            }
            prop_assert_eq!(next, grid.whole().upto);
        }
    }
}
