//! What the controls of two nodes say to each other.

use bytes::Bytes;

use crate::cluster::configuration::{ConfigPhase, ConfigVersion};
use crate::cluster::membership::History;
use crate::cluster::sizes::NodeSizes;
use crate::ring::{PartitionId, RingVersion};
use crate::value::dot::Incarnation;
use crate::value::epoch::Epoch;

/// What nodes say to each other about their history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Which version the sender has.
    Have(RingVersion),
    /// Which versions the sender has had, the one that it has first. The receiver is to tell what it lacks.
    Want(Vec<RingVersion>),
    /// What came to the sender's history since a version.
    Changes(Changes),
    /// All that the sender has. The receiver answers with all that it has, if that is more.
    History(History),
    /// All that the sender has, in answer to [`Notice::History`].
    Complement(History),
    /// The receiver's shards are to say how much they hold.
    Inquiry(Inquiry),
    /// The answer to [`Notice::Inquiry`].
    Report(InquiryId, NodeSizes),
    /// What holds in partitions.
    Phases(PhasesNotice),
    /// The sender, which is leaving, holds nothing any more in this incarnation, and has this version of the history.
    Drained(Incarnation, RingVersion),
    /// How far the sender is with its epoch.
    Epoch(EpochNotice),
    /// About who is there: a packet of SWIM, as the detector of [`crate::control`] reads it.
    Swim(Bytes),
}

/// Which question, of those that one node asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct InquiryId(pub u64);

/// A question to a node's shards: how much they hold of these partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inquiry {
    /// Which question it is.
    pub id: InquiryId,
    /// The partitions.
    pub partitions: Vec<PartitionId>,
}

/// How many versions a node names when it asks for what it lacks.
pub(crate) const WANT_MAX: usize = 16;

/// What came to a history since a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// Whoever has, or had, this version lacks nothing of the sender's but these changes.
    pub since: RingVersion,
    /// Which version the sender has.
    pub version: RingVersion,
    /// What came since.
    pub changes: History,
    /// It answers another of these: the receiver is not to answer in turn.
    pub is_answer: bool,
}

/// How many partitions one question names at most.
pub(crate) const ASKED_MAX: usize = 4_096;

/// How many phases one notice carries at most.
pub(crate) const PHASES_MAX: usize = 4_096;

/// What nodes tell each other of what holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PhasesNotice {
    /// How far the sender knows each partition's chain.
    Digest {
        /// A digest of that.
        digest: u64,
        /// It is answered, also if the receiver knows just as much.
        asks: bool,
    },
    /// How far it knows each, as its digest is another. If it is no answer, the receiver tells in turn how far it is itself.
    Steps(Vec<ConfigVersion>, bool),
    /// What holds in these partitions.
    Hold(Vec<(PartitionId, ConfigPhase)>),
}

/// What a member tells of its epochs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochNotice {
    /// In which it is.
    pub epoch: Epoch,
    /// The last that it has finished. Of one that does not know the epoch: one that the cluster had reached when it was made.
    pub finished: Epoch,
    /// Whom it knows as members, itself included.
    pub members: MembersDigest,
    /// Who of them has finished the epoch that it is in, while they knew the same members.
    pub done: Marks,
    /// Who has finished the one before.
    pub done_before: Marks,
}

/// How many members can be marked; it keeps a broken peer from filling memory.
const MEMBERS_MAX: usize = 10_000;

/// A name for exactly this set of members, each with its incarnation. Equal digests mean equal sets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MembersDigest(pub u128);

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
    pub(crate) fn has(&self, place: usize) -> bool {
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
