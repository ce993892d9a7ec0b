//! Changes of the cluster's members.

use serde::{Deserialize, Serialize};

/// One change of the members. Nodes are named.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum MemberChange {
    /// A node that waits to be a member becomes one.
    Add {
        /// The node.
        node: String,
        /// Its share of the data; a normal one, 100, if not said.
        #[serde(skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
    },
    /// A member hands over what it holds, and leaves.
    Remove {
        /// The node.
        node: String,
    },
    /// A node that waits takes the place of a member.
    Replace {
        /// The member.
        node: String,
        /// The node that waits.
        with: String,
    },
    /// A member is to have another share of the data.
    Weight {
        /// The node.
        node: String,
        /// Its share of the data; 100 is a normal one.
        weight: u32,
    },
    /// A member stands somewhere else.
    Zone {
        /// The node.
        node: String,
        /// Its zone.
        zone: String,
        /// Its machine; as before if not said.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// A member is found somewhere else: it moved, and could not say so itself.
    Address {
        /// The node.
        node: String,
        /// Where peers find it, as `HOST:PORT`; as before if not said.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer_address: Option<String>,
        /// Where HTTP clients find it, as `HOST:PORT`; as before if not said.
        #[serde(skip_serializing_if = "Option::is_none")]
        http_address: Option<String>,
    },
    /// What was removed, by the changes with it or before, and does not answer is given up for good. Partitions that lack so many homes
    /// that they cannot get others are made anew of those that are left, and what was promised of them ends.
    Force,
}

/// What changes of the members lead to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MembersPlan {
    /// Which history of changes it was made on.
    pub version: String,
    /// Whether the changes are made.
    pub applied: bool,
    /// The partitions whose homes change.
    pub moves: Vec<PlannedMove>,
    /// How many replicas of partitions go to nodes that do not hold them.
    pub replicas: usize,
    /// How many keys those hold, tombstones among them; none if nobody could say.
    pub keys: Option<u64>,
    /// How many bytes keys and values have; none if nobody could say.
    pub bytes: Option<u64>,
    /// Not every partition's size is known: for some, keys and bytes are the mean of the others.
    pub estimated: bool,
    /// The partitions that are made anew.
    pub force_recovered: Vec<Remade>,
    /// What an administrator should know before the changes are made.
    pub warnings: Vec<String>,
    /// The members whose weights ask for more replicas than a node can hold.
    #[serde(default)]
    pub capped: Vec<Capped>,
    /// What each member holds before and after.
    pub nodes: Vec<NodeShare>,
    /// How far the placement is from an even one, before.
    pub before: Balance,
    /// And after.
    pub after: Balance,
}

/// A partition that gets other homes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlannedMove {
    /// The partition.
    pub partition: u32,
    /// Who holds it now.
    pub from: Vec<String>,
    /// Who is to hold it.
    pub to: Vec<String>,
    /// How many keys are copied to those who do not hold it; none if nobody could say.
    pub keys: Option<u64>,
    /// How many bytes those and their values have; none if nobody could say.
    pub bytes: Option<u64>,
    /// Keys and bytes are the mean of the other partitions.
    pub estimated: bool,
}

/// A partition that is made anew, as too many of its homes are lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remade {
    /// The partition.
    pub partition: u32,
    /// Those of its homes that are left. If it is empty, nothing is.
    pub left: Vec<String>,
}

/// A member whose weight asks for more replicas than a node can hold: each partition once.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Capped {
    /// The node.
    pub node: String,
    /// Its weight.
    pub weight: u32,
    /// The weight that it counts as.
    pub counts_as: f64,
}

/// What a node holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeShare {
    /// The node.
    pub node: String,
    /// Replicas of partitions that it holds now.
    pub before: usize,
    /// Replicas of partitions that it is to hold.
    pub after: usize,
}

/// How far a placement is from an even one.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Balance {
    /// The largest distance of a node's number of partitions from its weighted share.
    pub off_ideal: f64,
    /// How often a node is met again among the homes of a partition's neighbours where that could be avoided.
    pub node_repeats: u64,
    /// The same of hosts.
    pub host_repeats: u64,
    /// The same of zones.
    pub zone_repeats: u64,
}

/// What is on its way to where it is wished.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moves {
    /// Which history of changes the node that answers goes by.
    pub version: String,
    /// How many partitions there are.
    pub partitions: u32,
    /// The partitions that are not held as they are wished.
    pub moves: Vec<Move>,
    /// How many bytes all of them together have to bring to the nodes that come; none if nobody could say.
    pub bytes: Option<u64>,
    /// How many of those have come; none if a node that comes has not said.
    pub copied_bytes: Option<u64>,
    /// For some partitions, keys and bytes are the mean of the others.
    pub estimated: bool,
    /// What nodes hold that they are no home of any more.
    pub handing_over: Vec<Leaves>,
    /// The members that are leaving.
    pub leaving: Vec<String>,
    /// The nodes that wait to be let in.
    pub waiting: Vec<String>,
}

/// A partition on its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// The partition.
    pub partition: u32,
    /// How far its chain of configurations has come.
    pub step: String,
    /// Who holds it.
    pub from: Vec<String>,
    /// Who is to hold it in the end.
    pub to: Vec<String>,
    /// `copying`, or `agreed`: who holds it and who is to hold it both count.
    pub state: String,
    /// How many keys are copied in all to those who come; none if nobody could say.
    pub keys: Option<u64>,
    /// How many bytes those and their values have; none if nobody could say.
    pub bytes: Option<u64>,
    /// How many of the keys have come; none if one of those who come has not said.
    pub copied_keys: Option<u64>,
    /// How many of the bytes have come; none if one of those who come has not said.
    pub copied_bytes: Option<u64>,
    /// Keys and bytes are the mean of the other partitions.
    pub estimated: bool,
    /// Those who are needed and do not answer.
    pub waits_for: Vec<String>,
}

/// A partition that a node holds and is no home of any more, until every home has confirmed that it holds it, too.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leaves {
    /// The partition.
    pub partition: u32,
    /// Who still holds it.
    pub node: String,
    /// Those who are to confirm that they hold it, too, and do not answer.
    pub waits_for: Vec<String>,
}
