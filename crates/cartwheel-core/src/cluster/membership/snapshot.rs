//! A summary of a history, recorded in place of its changes, so that it does not grow for ever.

use bytes::Bytes;

use super::{BucketForm, BucketSettings, Member, User};
use crate::cluster::configuration::{ConfigVersion, Home};
use crate::ring::{NodeInfo, PartitionId};
use crate::value::dot::NodeId;

/// The result of all changes up to a time ([`super::ChangeKind::Snapshot`]).
///
/// It has the timestamp of the last of them, and is recorded by a node to which all members have confirmed that they know exactly these changes.
/// A member that has confirmed it records only later changes. So no change that was ever acknowledged can appear that the snapshot does not
/// include.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Snapshot {
    /// The number of changes that it replaces.
    pub changes: u64,
    /// The members by id, and whether each is leaving.
    pub members: Vec<(Member, bool)>,
    /// The incarnations that were removed or replaced.
    pub removed: Vec<Home>,
    /// The incarnations that have left.
    pub left: Vec<Home>,
    /// The incarnations that were marked lost.
    pub marked_lost: Vec<Home>,
    /// The version from which each partition may be force-recovered.
    pub force_recovered_from: Vec<(PartitionId, ConfigVersion)>,
    /// The settings of the buckets whose settings were ever changed.
    pub buckets: Vec<(Bytes, BucketSettings)>,
    /// The forms of the buckets that were ever emptied.
    pub forms: Vec<(Bytes, BucketForm)>,
    /// The users, by name.
    pub users: Vec<(String, User)>,
    /// The n of buckets in the partitions' first configurations, where it is not the default.
    pub first_ns: Vec<(Bytes, u8)>,
    /// The buckets whose n was ever different from the default.
    pub counted: Vec<Bytes>,
    /// The nodes for which the assignment in force was made.
    pub placed: Vec<NodeInfo>,
    /// The assignment in force, where the next one depends on it: for each partition the index of its owner in `placed`. Otherwise empty.
    pub owners: Vec<u32>,
}

impl Snapshot {
    /// Whether it lists this incarnation of a node as a member.
    pub(super) fn lets_in(&self, home: Home) -> bool {
        self.members.iter().any(|(member, _)| member.id == home.node && member.incarnation == home.incarnation)
    }

    /// Whether it lists a node as a member, in any incarnation.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.members.iter().any(|(member, _)| member.id == node)
    }
}
