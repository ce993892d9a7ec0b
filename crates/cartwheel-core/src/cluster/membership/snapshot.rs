//! What a history adds up to, recorded in the place of its changes, so that it does not grow for ever.

use bytes::Bytes;

use super::{BucketSettings, Member};
use crate::cluster::configuration::{ConfigVersion, Home};
use crate::ring::{NodeInfo, PartitionId};
use crate::value::dot::NodeId;

/// What all changes up to a time add up to ([`super::ChangeKind::Snapshot`]).
///
/// It is recorded with the timestamp of the last of them, by a node to which all members have said that they know exactly these. Who has
/// said so records only later changes, so no change that anybody was told of can turn up that the snapshot does not hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Snapshot {
    /// How many changes it stands for.
    pub changes: u64,
    /// The members, by id, and whether each is on its way out.
    pub members: Vec<(Member, bool)>,
    /// The incarnations that were removed, or replaced.
    pub removed: Vec<Home>,
    /// Those that have left.
    pub left: Vec<Home>,
    /// Those that were given up.
    pub marked_lost: Vec<Home>,
    /// From which step on each partition may be made anew.
    pub force_recovered_from: Vec<(PartitionId, ConfigVersion)>,
    /// The settings of the buckets whose settings were ever changed.
    pub buckets: Vec<(Bytes, BucketSettings)>,
    /// The n of buckets in the partitions' first configurations, where it is not the default.
    pub first_ns: Vec<(Bytes, u8)>,
    /// The buckets whose n was ever another than the default.
    pub counted: Vec<Bytes>,
    /// The nodes that the assignment of partitions in force was made for.
    pub placed: Vec<NodeInfo>,
    /// That assignment where the next one depends on it: for each partition the place of its owner in `placed`. Empty elsewhere.
    pub owners: Vec<u32>,
}

impl Snapshot {
    /// Whether it says that this incarnation of a node is let in.
    pub(super) fn lets_in(&self, home: Home) -> bool {
        self.members.iter().any(|(member, _)| member.id == home.node && member.incarnation == home.incarnation)
    }

    /// Whether it says that a node is a member, in whatever incarnation.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.members.iter().any(|(member, _)| member.id == node)
    }
}
