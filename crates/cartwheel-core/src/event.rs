//! Events that a node reports to its operator.

use crate::cluster::sizes::{Backlog, TreeId};
use crate::ring::PartitionId;
use crate::store::record::RecordError;
use crate::value::dot::NodeId;
use crate::value::key::Key;

/// How a replica that lacked data was found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Repair {
    /// A client's read or write reached it.
    Read,
    /// It reported a lost record.
    Heal,
    /// An exchange compared it with another replica.
    Exchange,
}

impl Repair {
    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Heal => "heal",
            Self::Exchange => "exchange",
        }
    }
}

/// An event for logs and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Two replicas hold different contents under one dot: a disk is broken or a message was forged.
    DotCollision(Key),
    /// A stored record cannot be read. It is healed from the other replicas.
    RecordLost(Key, RecordError),
    /// A stored record has the format of a newer build. It stays as it is, and this node does nothing with it.
    RecordNotKnown(Key, RecordError),
    /// A replica lacked data and was sent it.
    Repaired(Key, NodeId, Repair),
    /// An exchange of a partition with a peer has ended: the replicas are equal, or were made equal.
    Exchanged(TreeId, NodeId),
    /// An exchange failed, and is tried again.
    ExchangeFailed(TreeId, NodeId),
    /// Records were sent to a node that is becoming their home.
    TransferSent {
        /// The number of records.
        records: u64,
        /// Their size in bytes, as this node stores them.
        bytes: u64,
    },
    /// Records arrived of which this node is becoming a home.
    TransferReceived {
        /// Their partition.
        partition: PartitionId,
        /// The number of records.
        records: u64,
        /// Their size in bytes, as the sender stores them.
        bytes: u64,
    },
    /// A peer's anti-entropy request was refused: it concerns a partition that the two nodes do not share, or it is malformed.
    ExchangeRefused(NodeId),
    /// A partition's Merkle tree did not match its records, and was rebuilt.
    TreeWrong(PartitionId),
    /// The number of partitions whose Merkle trees are being built has changed. They take no part in exchanges meanwhile.
    TreesUnready {
        /// The number last reported.
        before: usize,
        /// The number now.
        now: usize,
    },
    /// The number of digests, of keys or of ranges of keys, that were sent to peers in exchanges.
    DigestsSent(usize),
    /// This node's clock differs from its peers' clocks.
    ClockOff {
        /// The median peer's clock minus this node's, in milliseconds; 0 once the clock is right again.
        offset_ms: i64,
        /// Whether the node refuses writes because of it.
        refuses: bool,
    },
    /// Recent writes got timestamps ahead of this node's wall clock, because they had to exceed a timestamp that their record held. Some clock
    /// was wrong.
    TimestampsAhead {
        /// The greatest lead in milliseconds; 0 once it no longer happens.
        ahead_ms: u64,
    },
    /// Garbage collection removed this many tombstones and expired values from a record.
    Collected(u64),
    /// A peer's state was refused because its epoch stamp is too old.
    StaleRefused(NodeId),
    /// A message of another cluster, or of a node that is not a member, was dropped.
    StrayMessage(NodeId),
    /// The hints that this node keeps for a home have changed.
    HintsHeld {
        /// The home.
        home: NodeId,
        /// The backlog last reported.
        before: Backlog,
        /// The backlog now.
        now: Backlog,
    },
    /// This node's hints have reached their size limit, or have fallen below it again.
    HintsFull {
        /// Whether the limit is reached.
        is_full: bool,
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// A home has stored what this node kept for it.
    HintDelivered(NodeId),
    /// A peer's request for a key was refused: this node is neither a home of the key nor the named stand-in.
    NotAHome(NodeId),
}
