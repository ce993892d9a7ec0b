//! Messages between the controls of two nodes.

use bytes::Bytes;

use crate::cluster::configuration::{ConfigPhase, ConfigVersion};
use crate::cluster::membership::History;
use crate::cluster::sizes::NodeSizes;
use crate::ring::{PartitionId, RingVersion};
use crate::value::dot::Incarnation;
use crate::value::epoch::Epoch;

/// A message between the controls of two nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The version of the sender's history.
    Have(RingVersion),
    /// The versions that the sender has had, its present one first. The receiver replies with what the sender lacks.
    Want(Vec<RingVersion>),
    /// The changes of the sender's history since a version.
    Changes(Changes),
    /// The sender's whole history. The receiver replies with its own, if that has more.
    History(History),
    /// The sender's whole history, in reply to [`Notice::History`].
    Complement(History),
    /// A request for the sizes of the receiver's shards.
    Inquiry(Inquiry),
    /// The response to [`Notice::Inquiry`].
    Report(InquiryId, NodeSizes),
    /// The state of partitions' configurations.
    Phases(PhasesNotice),
    /// The sender, which is leaving, holds no data any more in this incarnation, and has this version of the history.
    Drained(Incarnation, RingVersion),
    /// The sender's progress in its epoch.
    Epoch(EpochNotice),
    /// A SWIM packet, for the detector of [`crate::control`].
    Swim(Bytes),
}

/// The number of an inquiry among those of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct InquiryId(pub u64);

/// A request to a node's shards for the sizes of these partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inquiry {
    /// The id of the inquiry.
    pub id: InquiryId,
    /// The partitions.
    pub partitions: Vec<PartitionId>,
}

/// The most versions in [`Notice::Want`].
pub(crate) const WANT_MAX: usize = 16;

/// The changes of a history since a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// A node that has, or had, this version lacks nothing of the sender's but these changes.
    pub since: RingVersion,
    /// The sender's version.
    pub version: RingVersion,
    /// The changes since.
    pub changes: History,
    /// Whether this is the reply to another [`Changes`]. Then the receiver does not reply in turn.
    pub is_answer: bool,
}

/// The most partitions in one inquiry.
pub(crate) const INQUIRY_PARTITIONS_MAX: usize = 4_096;

/// The most partitions in one [`PhasesNotice::Hold`].
pub(crate) const PHASES_MAX: usize = 4_096;

/// Messages by which nodes compare what they know of partitions' configurations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PhasesNotice {
    /// The configuration versions that the sender knows, as a digest.
    Digest {
        /// The digest.
        digest: u64,
        /// Whether the receiver replies even if its digest is equal.
        asks: bool,
    },
    /// The configuration version that the sender knows of each partition, because the digests differ. If the flag is false, the receiver replies
    /// with its own.
    Steps(Vec<ConfigVersion>, bool),
    /// The current configuration of these partitions.
    Hold(Vec<(PartitionId, ConfigPhase)>),
}

/// A member's progress in its epochs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochNotice {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The last epoch that it has finished. In a node that does not know the epoch: one that the cluster had reached when the node was created.
    pub finished: Epoch,
    /// The members that it knows, including itself.
    pub members: MembersDigest,
    /// The members known to have finished the sender's epoch, while they knew the same members.
    pub done: Marks,
    /// The members known to have finished the epoch before.
    pub done_before: Marks,
    /// Whether the sender drains: it is about to be stopped, and had better not be chosen to coordinate or to stand in.
    pub drains: bool,
}

/// The most members that can be marked. It keeps a broken peer from filling memory.
const MEMBERS_MAX: usize = 10_000;

/// A digest of exactly this set of members, each with its incarnation. Equal digests mean equal sets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MembersDigest(pub u128);

/// A subset of the members: one bit for each in the order of their ids, the lowest bit of the first byte for the first. Missing bits are unset.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Marks(Vec<u8>);

impl Marks {
    /// Decodes marks; `None` if there are too many.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MEMBERS_MAX.div_ceil(8)).then(|| Self(bytes.to_vec()))
    }

    /// The bytes that [`Self::from_bytes`] decodes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the member at this position is marked.
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
