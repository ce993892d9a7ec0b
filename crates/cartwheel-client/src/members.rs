//! Changes of the cluster's members, and the transfers that they cause.

use serde::{Deserialize, Serialize};

/// One change of the members. Nodes are given by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum MemberChange {
    /// Makes a waiting node a member.
    Add {
        /// The waiting node.
        node: String,
        /// Its share of the data, relative to the others; 100 (normal) if `None`.
        #[serde(skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
    },
    /// Removes a member, which hands over its data and leaves.
    Remove {
        /// The member.
        node: String,
    },
    /// Replaces a member with a waiting node, which takes over its partitions.
    Replace {
        /// The member.
        node: String,
        /// The waiting node.
        with: String,
    },
    /// Sets a member's weight.
    Weight {
        /// The member.
        node: String,
        /// Its share of the data, relative to the others; 100 is normal.
        weight: u32,
    },
    /// Records another zone, or another machine, for a member.
    Zone {
        /// The member.
        node: String,
        /// Its failure zone.
        zone: String,
        /// Its physical machine; unchanged if `None`.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// Records another address for a member that cannot announce it itself.
    Address {
        /// The member.
        node: String,
        /// Its address for peers, as `HOST:PORT`; unchanged if `None`.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer_address: Option<String>,
        /// Its address for HTTP clients, as `HOST:PORT`; unchanged if `None`.
        #[serde(skip_serializing_if = "Option::is_none")]
        http_address: Option<String>,
    },
    /// Marks as lost, for good, each node that was removed (by the other changes or earlier) and does not answer. Partitions that have lost so
    /// many homes that they cannot reconfigure are force-recovered from the homes that are left; guarantees for their earlier writes end.
    Force,
}

/// The plan for a set of changes of the members.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MembersPlan {
    /// The version of the membership history that the plan was made on.
    pub version: String,
    /// Whether the changes have been made.
    pub applied: bool,
    /// The partitions whose homes change.
    pub transfers: Vec<PlannedTransfer>,
    /// The number of replicas to be copied to nodes that do not hold them.
    pub replicas: usize,
    /// The number of keys in those replicas, tombstones included; `None` if no node reported it.
    pub keys: Option<u64>,
    /// The size of their keys and values; `None` if no node reported it.
    pub bytes: Option<u64>,
    /// Whether some partitions' sizes are not known and were taken as the mean of the others'.
    pub estimated: bool,
    /// The partitions that are force-recovered.
    pub force_recovered: Vec<ForceRecovery>,
    /// Warnings to read before making the changes.
    pub warnings: Vec<String>,
    /// The members whose weights exceed what a node can hold.
    #[serde(default)]
    pub capped: Vec<CappedWeight>,
    /// The number of replicas on each member, before and after.
    pub nodes: Vec<NodeShare>,
    /// How even the placement is before the changes.
    pub before: Balance,
    /// How even it is after them.
    pub after: Balance,
}

/// A partition whose homes change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedTransfer {
    /// The partition's number.
    pub partition: u32,
    /// The current homes.
    pub from: Vec<String>,
    /// The target homes.
    pub to: Vec<String>,
    /// The number of keys to be copied to new homes; `None` if no node reported it.
    pub keys: Option<u64>,
    /// The size of those keys and their values; `None` if no node reported it.
    pub bytes: Option<u64>,
    /// Whether `keys` and `bytes` are the mean of the other partitions.
    pub estimated: bool,
}

/// A partition that is force-recovered, because too many of its homes are lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForceRecovery {
    /// The partition's number.
    pub partition: u32,
    /// The homes that are left. If there are none, the partition's data is lost.
    pub left: Vec<String>,
}

/// A member whose weight stands for more replicas than a node can hold, which is one of each partition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CappedWeight {
    /// The node.
    pub node: String,
    /// The weight that was set.
    pub weight: u32,
    /// The weight that the placement uses.
    pub counts_as: f64,
}

/// The number of replicas on a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeShare {
    /// The node.
    pub node: String,
    /// The number of partitions that it holds now.
    pub before: usize,
    /// The number of partitions that it holds after the changes.
    pub after: usize,
}

/// How even a placement is, and how well it spreads replicas.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Balance {
    /// The largest difference between a node's number of partitions and its weighted share.
    pub off_ideal: f64,
    /// How often a node is a home of two neighbouring partitions where that could be avoided.
    pub node_repeats: u64,
    /// The same for physical machines.
    pub host_repeats: u64,
    /// The same for zones.
    pub zone_repeats: u64,
}

/// The partitions that are being transferred to their target homes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transfers {
    /// The version of the membership history that the answering node applies.
    pub version: String,
    /// The number of partitions of the ring.
    pub partitions: u32,
    /// The partitions whose homes are not their target homes yet.
    pub transfers: Vec<Transfer>,
    /// The size of all data to be copied to new homes; `None` if no node reported it.
    pub bytes: Option<u64>,
    /// The part of `bytes` that has been copied; `None` if a new home did not report it.
    pub copied_bytes: Option<u64>,
    /// Whether some partitions' sizes are not known and were taken as the mean of the others'.
    pub estimated: bool,
    /// The replicas that nodes hold without being homes any more, until all homes are synced.
    pub retired_replicas: Vec<RetiredReplica>,
    /// The members that are leaving.
    pub leaving: Vec<String>,
    /// The nodes that wait to be added.
    pub waiting: Vec<String>,
}

/// A partition that is being transferred.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// The partition's number.
    pub partition: u32,
    /// The version of its configuration: one number, or two while the current and the next configuration are both in force.
    pub config_version: String,
    /// The current homes.
    pub from: Vec<String>,
    /// The target homes.
    pub to: Vec<String>,
    /// `copying`, or `joint` once the next configuration is chosen: then quorums of both configurations must answer.
    pub state: String,
    /// The number of keys to be copied to new homes; `None` if no node reported it.
    pub keys: Option<u64>,
    /// The size of those keys and their values; `None` if no node reported it.
    pub bytes: Option<u64>,
    /// The part of `keys` that has been copied; `None` if a new home did not report it.
    pub copied_keys: Option<u64>,
    /// The part of `bytes` that has been copied; `None` if a new home did not report it.
    pub copied_bytes: Option<u64>,
    /// Whether `keys` and `bytes` are the mean of the other partitions.
    pub estimated: bool,
    /// The nodes that the transfer needs and that do not answer.
    pub waits_for: Vec<String>,
}

/// A retired replica: the node holds the partition without being a home of it any more, until every home has confirmed that it is synced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RetiredReplica {
    /// The partition's number.
    pub partition: u32,
    /// The node that holds it.
    pub node: String,
    /// The homes that have not confirmed yet and do not answer.
    pub waits_for: Vec<String>,
}
