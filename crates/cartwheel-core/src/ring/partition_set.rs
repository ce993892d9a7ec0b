//! Sets of partitions.

use std::fmt;

use bytes::Bytes;

use super::PartitionId;

/// A set of partitions, as a bit for each.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PartitionSet {
    /// Bit p of the number n is partition 64n + p. The last number is not 0.
    bits: Vec<u64>,
}

impl PartitionSet {
    /// Adds a partition.
    pub fn insert(&mut self, partition: PartitionId) {
        let (word, bit) = place(partition);
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= bit;
    }

    /// Whether it contains a partition.
    pub fn contains(&self, partition: PartitionId) -> bool {
        let (word, bit) = place(partition);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// The partitions, in order.
    pub fn iter(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let of_word = |(word, &bits): (usize, &u64)| {
            (0..u64::BITS)
                .filter(move |bit| bits >> bit & 1 == 1)
                .map(move |bit| PartitionId(word as u32 * u64::BITS + bit))
        };
        self.bits.iter().enumerate().flat_map(of_word)
    }

    /// The first partition.
    pub fn first(&self) -> Option<PartitionId> {
        self.iter().next()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|&bits| bits == 0)
    }

    /// The sent form.
    pub(crate) fn to_bytes(&self) -> Bytes {
        self.bits.iter().flat_map(|bits| bits.to_le_bytes()).collect()
    }

    /// The inverse of [`Self::to_bytes`]; `None` for bytes that it does not return.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let bits: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        (bits.last() != Some(&0)).then_some(Self { bits })
    }
}

const fn place(partition: PartitionId) -> (usize, u64) {
    ((partition.0 / u64::BITS) as usize, 1 << (partition.0 % u64::BITS))
}

impl FromIterator<PartitionId> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = PartitionId>>(partitions: I) -> Self {
        let mut set = Self::default();
        partitions.into_iter().for_each(|partition| set.insert(partition));
        set
    }
}

impl fmt::Debug for PartitionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(partitions in prop::collection::btree_set(0u32..300, 0..20)) {
            let set: PartitionSet = partitions.iter().copied().map(PartitionId).collect();
            prop_assert_eq!(set.iter().map(|partition| partition.0).collect::<BTreeSet<_>>(), partitions.clone());
            prop_assert_eq!(set.is_empty(), partitions.is_empty());
            prop_assert!((0..300).all(|partition| set.contains(PartitionId(partition)) == partitions.contains(&partition)));
            prop_assert_eq!(PartitionSet::from_bytes(&set.to_bytes()), Some(set));
        }
    }
}
