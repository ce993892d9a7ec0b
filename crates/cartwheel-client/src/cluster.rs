//! What a node says of its cluster.

use serde::{Deserialize, Serialize};

/// A cluster, as one of its nodes sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's id, in hexadecimal.
    pub cluster: String,
    /// What it is called; empty if it was given no name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The name of the node that answered.
    pub node: String,
    /// Which history of changes it goes by: nodes that say the same agree on members and ring.
    pub ring_version: String,
    /// How far the cluster is with forgetting what was deleted.
    #[serde(default)]
    pub epoch: EpochStatus,
    /// How far an upgrade of the cluster has come.
    #[serde(default)]
    pub protocol: ProtocolStatus,
    /// What it keeps for members that are away.
    #[serde(default)]
    pub hints: Hints,
    /// Whether partitions have as many replicas as they should.
    #[serde(default)]
    pub replication: Replication,
    /// How often, since it started, a key came to it with two values of one version; above 0 it is an alarm.
    #[serde(default)]
    pub dot_collisions: u64,
    /// The members, by id.
    pub members: Vec<MemberStatus>,
}

/// How many homes partitions have, as far as the node knows. Homes that are down count; those that were removed or given up do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Replication {
    /// The largest n of any bucket; 0 if the node does not say.
    pub n: u8,
    /// How many members can hold data: their weight is above 0, and they are not leaving.
    pub data_nodes: usize,
    /// How many homes each partition is to have: n, or all members that can hold data if those are fewer.
    pub wanted: usize,
    /// How many partitions have fewer homes than that.
    pub under_replicated: usize,
    /// How many homes the partition has that has the fewest.
    pub fewest: usize,
}

/// The epoch of a cluster: what was deleted five epochs ago is forgotten. It ends when all members have finished it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EpochStatus {
    /// Its number; 0 while the node does not know it.
    pub epoch: u64,
    /// Since when the node is in it, or has run, as RFC 3339.
    pub since: String,
    /// The names of the members that have not finished it yet, as far as the node knows.
    pub waits_for: Vec<String>,
}

/// The versions of the protocol between nodes. What came with a version is used once all members speak it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProtocolStatus {
    /// The version that all members are known to speak, and which is in use; 0 if the node does not say.
    pub in_use: u32,
    /// The newest that the node speaks.
    pub newest: u32,
    /// The names of the members that are not known to speak that one.
    pub waits_for: Vec<String>,
}

/// The versions of the protocol that a member speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spoken {
    /// The lowest.
    pub oldest: u32,
    /// The highest.
    pub newest: u32,
    /// The one in which the node that answered talks to it; none for that node itself, and while there is no connection.
    pub used: Option<u32>,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// Its zone.
    pub zone: String,
    /// Its machine.
    pub host: String,
    /// Where it serves HTTP, as `host:port`.
    pub http: String,
    /// Where it serves RESP.
    pub resp: String,
    /// Where it listens for its peers.
    pub peers: String,
}

/// A member, and what the node that answered thinks of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The member.
    #[serde(flatten)]
    pub member: Member,
    /// Its share of the data; 100 is a normal one.
    pub weight: u32,
    /// Which data directory it is, in hexadecimal.
    pub incarnation: String,
    /// It was removed, but too few would remain, so it still owns its partitions.
    pub leaving: bool,
    /// Whether it is reached.
    pub state: MemberState,
    /// Since when, as RFC 3339.
    pub since: Option<String>,
    /// Why it is not reached or, of the node that answered, why it is not ready.
    pub problem: Option<String>,
    /// How often its data directory has been opened, as it last said.
    pub boot: Option<u32>,
    /// The version of its program, as it last said.
    pub version: Option<String>,
    /// The versions of the protocol between nodes that it speaks, as it last said.
    #[serde(default)]
    pub protocol: Option<Spoken>,
    /// Whether it is there, as the node that answered sees it; none for that node itself.
    #[serde(default)]
    pub liveness: Option<Liveness>,
    /// Its clock less that of the node that answered, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// What the node that answered keeps for it until it has it; none for that node itself.
    #[serde(default)]
    pub hints: Option<Backlog>,
}

/// What a node keeps for one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backlog {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a node keeps for members that are away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hints {
    /// Records, counted once for each member that they are owed to.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many bytes it may keep.
    pub bytes_max: u64,
    /// Whether part of it keeps as much as it may, so that further records go to other nodes.
    pub full: bool,
}

/// Whether a member is there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Liveness {
    /// How it stands.
    pub status: LivenessStatus,
    /// Since when, as RFC 3339.
    pub since: String,
    /// Why, for people.
    pub why: String,
}

/// How a member stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LivenessStatus {
    /// Nothing speaks against it.
    Alive,
    /// It may be dead, paused, slow or cut off.
    Suspect,
    /// Nobody gets an answer from it.
    Down,
}

/// Whether a node reaches a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It is the node that answered.
    #[serde(rename = "self")]
    Itself,
    /// A connection to it stands.
    Connected,
    /// None does.
    Disconnected,
}

/// How the partitions are shared out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ring {
    /// Which history of changes it comes from.
    pub version: String,
    /// How many partitions there are.
    pub partitions: u32,
    /// The position of each partition's owner among the members.
    pub owners: Vec<usize>,
    /// The positions of all that hold each partition now, in the order in which they are asked.
    pub homes: Vec<Vec<usize>>,
    /// The members, by id.
    pub members: Vec<Member>,
}

/// Where a key lies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Location {
    /// Its place on the ring, in hexadecimal.
    pub token: String,
    /// The partition that holds it.
    pub partition: u32,
    /// Who holds it, homes first, then who stands in for them, in that order.
    pub preference_list: Vec<Replica>,
}

/// A node on a preference list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replica {
    /// Its name.
    pub node: String,
    /// `home` or `standin`.
    pub role: String,
}

/// How a node's replicas compare with those of the other homes of its partitions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replicas {
    /// The name of the node that answered.
    pub node: String,
    /// All that was known to it or to another home then, both hold, as RFC 3339; none as long as one comparison has never come to
    /// its end.
    pub equal_since: Option<String>,
    /// How many comparisons never have.
    pub unproven: usize,
    /// One for each partition of the node and each other home of it.
    pub replicas: Vec<ReplicaProof>,
}

/// Two replicas of a partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaProof {
    /// The partition.
    pub partition: u32,
    /// The keys of buckets with so many replicas.
    pub n: u8,
    /// The name of the other home.
    pub peer: String,
    /// All that either held then, both hold, as RFC 3339; none if that was never shown.
    pub equal_since: Option<String>,
}
