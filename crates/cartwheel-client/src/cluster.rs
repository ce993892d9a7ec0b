//! The state of a cluster, as one of its nodes reports it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Placement;

/// A cluster, as the answering node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's id, in hexadecimal.
    pub cluster: String,
    /// The cluster's name; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The name of the node that answered.
    pub node: String,
    /// The version of the membership history that the node applies. Nodes with the same version agree on members and ring.
    pub ring_version: String,
    /// The progress of the garbage collection of deletes.
    #[serde(default)]
    pub epoch: EpochStatus,
    /// The progress of an upgrade of the cluster.
    #[serde(default)]
    pub protocol: ProtocolStatus,
    /// The hints that the node keeps for other members.
    #[serde(default)]
    pub hints: Hints,
    /// Whether partitions have as many replicas as they should.
    #[serde(default)]
    pub replication: Replication,
    /// The number of keys that, since the node started, reached it with two different values of one version. Above 0 it is an alarm: a disk or
    /// memory is broken.
    #[serde(default)]
    pub dot_collisions: u64,
    /// The disk of the node's data directory; `None` if its file system does not answer, or the node does not report it.
    #[serde(default)]
    pub disk: Option<DiskSpace>,
    /// In the order of their ids.
    pub members: Vec<MemberStatus>,
}

/// The disk of a node's data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskSpace {
    /// The size of the file system.
    pub bytes: u64,
    /// What is free.
    pub free_bytes: u64,
    /// Below this much free space the node stores no writes.
    pub reserve_bytes: u64,
}

/// The number of homes that partitions have, as far as the node knows. Homes that are down count; those that were removed or marked lost do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Replication {
    /// The largest n of any bucket; 0 if the node does not report it.
    pub n: u8,
    /// The number of members that can hold data: their weight is above 0, and they are not leaving.
    pub data_nodes: usize,
    /// The number of homes that each partition should have: n, or the number of `data_nodes` if that is less.
    pub target: usize,
    /// The number of partitions with fewer homes than `target`.
    pub under_replicated: usize,
    /// The smallest number of homes of any partition.
    pub fewest: usize,
}

/// The cluster's epoch. It ends when all members have finished it. Deletes are garbage collected once they are five epochs old.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EpochStatus {
    /// The number; 0 while the node does not know it.
    pub epoch: u64,
    /// When the node entered the epoch, or started if that was later (RFC 3339).
    pub since: String,
    /// The names of the members that have not finished the epoch, as far as the node knows.
    pub waits_for: Vec<String>,
}

/// The versions of the protocol between nodes. The features of a version are used once all members speak it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProtocolStatus {
    /// The version in use: the newest that all members are known to speak; 0 if the node does not report it.
    pub in_use: u32,
    /// The newest version that the node speaks.
    pub newest: u32,
    /// The names of the members that are not known to speak `newest`.
    pub waits_for: Vec<String>,
}

/// The versions of the protocol that a member speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProtocolVersions {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
    /// The version in use between the answering node and this member; `None` for the answering node itself, and while there is no connection.
    pub used: Option<u32>,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The node's name, which is unique in the cluster.
    pub name: String,
    /// The node's id, in hexadecimal.
    pub id: String,
    /// The failure zone: replicas of a key go to different zones where that is possible.
    pub zone: String,
    /// The physical machine.
    pub host: String,
    /// The address of its HTTP server, as `host:port`.
    pub http: String,
    /// The address of its RESP server.
    pub resp: String,
    /// The address for its peers.
    pub peers: String,
}

/// A member, as the answering node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The name, id, location and addresses.
    #[serde(flatten)]
    pub member: Member,
    /// The member's share of the data, relative to the others; 100 is normal.
    pub weight: u32,
    /// The incarnation (the identity of the data directory), in hexadecimal.
    pub incarnation: String,
    /// Whether it was removed but still owns partitions, because too few members would remain.
    pub leaving: bool,
    /// Whether it drains: it serves, but is about to be stopped ([`Client::set_drain`](crate::Client::set_drain)).
    #[serde(default)]
    pub draining: bool,
    /// Whether the answering node is connected to it.
    pub state: MemberState,
    /// When `state` began (RFC 3339).
    pub since: Option<String>,
    /// Why it cannot be reached; for the answering node itself, why that is not ready.
    pub problem: Option<String>,
    /// How often its data directory has been opened, as it last reported.
    pub boot: Option<u32>,
    /// The version of its program, as it last reported.
    pub version: Option<String>,
    /// The versions of the protocol between nodes that it speaks, as it last reported.
    #[serde(default)]
    pub protocol: Option<ProtocolVersions>,
    /// The failure detector's verdict on it; `None` for the answering node itself.
    #[serde(default)]
    pub liveness: Option<Liveness>,
    /// Its clock minus the answering node's, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// The hints that the answering node keeps for it; `None` for that node itself.
    #[serde(default)]
    pub hints: Option<Backlog>,
}

/// The hints that a node keeps for one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backlog {
    /// The number of records.
    pub records: u64,
    /// Their size.
    pub bytes: u64,
}

/// The hints that a node keeps for all members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hints {
    /// The number of records, counted once for each member that they are kept for.
    pub records: u64,
    /// Their size.
    pub bytes: u64,
    /// The limit of `bytes`.
    pub bytes_max: u64,
    /// Whether a shard of the node has reached its limit, so that further hints go to other nodes.
    pub full: bool,
}

/// The failure detector's verdict on a member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Liveness {
    /// The verdict.
    pub status: LivenessStatus,
    /// When `status` began (RFC 3339).
    pub since: String,
    /// The reason, as text for people.
    pub why: String,
}

/// A verdict of the failure detector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LivenessStatus {
    /// It answers, as far as the node knows.
    Alive,
    /// It may be dead, paused, slow or cut off.
    Suspect,
    /// It answers no node.
    Down,
}

/// Whether a node has a connection to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// The member is the answering node.
    #[serde(rename = "self")]
    Itself,
    /// There is a connection.
    Connected,
    /// There is none.
    Disconnected,
}

/// The placement of the partitions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ring {
    /// The version of the membership history that it was computed from.
    pub version: String,
    /// The number of partitions.
    pub partitions: u32,
    /// For each partition, the owner, as an index into `members`.
    pub owners: Vec<usize>,
    /// For each partition, its current homes, as indexes into `members`, in the order in which coordinators contact them.
    pub homes: Vec<Vec<usize>>,
    /// The buckets whose keys are not placed by their whole names, by percent-encoded name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub placements: BTreeMap<String, Placement>,
    /// In the order of their ids.
    pub members: Vec<Member>,
}

/// The position of a key on the ring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Location {
    /// The key's token, in hexadecimal.
    pub token: String,
    /// The partition's number.
    pub partition: u32,
    /// The homes, then their stand-ins, in the order in which coordinators contact them.
    pub preference_list: Vec<Replica>,
}

/// A node on a preference list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replica {
    /// The node's name.
    pub node: String,
    /// `home` or `standin`.
    pub role: String,
}

/// How a node's replicas compare with those at the other homes of its partitions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replicas {
    /// The name of the node that answered.
    pub node: String,
    /// The node's replicas and those of all other homes were equal as of this time (RFC 3339): each holds all that any of them held then. `None`
    /// until every comparison has been completed once.
    pub equal_since: Option<String>,
    /// The number of comparisons that were never completed.
    pub unproven: usize,
    /// One for each partition of the node and each other home of that partition.
    pub replicas: Vec<ReplicaProof>,
}

/// The comparison of two replicas of a partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaProof {
    /// The partition's number.
    pub partition: u32,
    /// The comparison covers the keys of buckets with this n.
    pub n: u8,
    /// The name of the other home.
    pub peer: String,
    /// The two were equal as of this time (RFC 3339): each holds all that either held then. `None` if that was never shown.
    pub equal_since: Option<String>,
}
