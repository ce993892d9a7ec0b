//! The members of a view in an order that all who have the same members share, and marks on some of them.

use crate::cluster::membership::View;
use crate::value::dot::{Life, NodeId};

/// How many members can be marked; it keeps a broken peer from filling memory.
pub(super) const MEMBERS_MAX: usize = 10_000;

/// A name for exactly this set of members, each with its life. Equal digests mean equal sets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MembersDigest(pub u128);

impl MembersDigest {
    /// That of the members of a view.
    pub fn of(view: &View) -> Self {
        Roster::of(view).digest
    }
}

/// Some of the members: one bit for each in the order of their ids, the lowest bit of the first byte for the first. Bits that are not
/// there are not set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks(Vec<u8>);

impl Marks {
    /// The marks that these bytes are; none if they are too many.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MEMBERS_MAX.div_ceil(8)).then(|| Self(bytes.to_vec()))
    }

    /// The bytes that [`Self::from_bytes`] reads.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the member at this place is marked.
    pub(super) fn has(&self, place: usize) -> bool {
        self.0.get(place / 8).is_some_and(|byte| byte & (1 << (place % 8)) != 0)
    }
}

impl FromIterator<bool> for Marks {
    fn from_iter<I: IntoIterator<Item = bool>>(marks: I) -> Self {
        let mut bytes = Vec::new();
        for (place, is_marked) in marks.into_iter().enumerate() {
            if place % 8 == 0 {
                bytes.push(0);
            }
            if let Some(byte) = bytes.last_mut() {
                *byte |= u8::from(is_marked) << (place % 8);
            }
        }
        Self(bytes)
    }
}

/// The members of a view, by id, each with its life.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) digest: MembersDigest,
    members: Vec<(NodeId, Life)>,
}

impl Roster {
    pub(super) fn of(view: &View) -> Self {
        let members: Vec<(NodeId, Life)> = view.members().map(|known| (known.member.id, known.member.life)).collect();
        let mut hash = blake3::Hasher::new();
        for (node, life) in &members {
            hash.update(&node.get().to_be_bytes());
            hash.update(&life.0.to_be_bytes());
        }
        let digest = hash.finalize().as_bytes()[..16].try_into().map_or(0, u128::from_be_bytes);
        Self { digest: MembersDigest(digest), members }
    }

    /// The members in their order.
    pub(super) fn members(&self) -> &[(NodeId, Life)] {
        &self.members
    }

    /// At which place a life of a node stands.
    pub(super) fn place(&self, node: NodeId, life: Life) -> Option<usize> {
        self.members.binary_search(&(node, life)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_bits_in_order() {
        let marks: Marks = (0..10).map(|place| place == 1 || place == 9).collect();
        assert_eq!(marks.as_bytes(), [0b10, 0b10]);
        assert_eq!((0..20).filter(|&place| marks.has(place)).collect::<Vec<_>>(), [1, 9]);
        assert_eq!(Marks::from_bytes(marks.as_bytes()), Some(marks));
        assert_eq!(Marks::from_bytes(&vec![0; MEMBERS_MAX / 8 + 1]), None);
    }
}
