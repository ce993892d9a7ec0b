//! What a node reports to its operator.

use crate::cluster::sizes::{Backlog, TreeId};
use crate::ring::PartitionId;
use crate::store::record::RecordError;
use crate::value::dot::NodeId;
use crate::value::key::Key;

/// How a replica that was behind was found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Repair {
    /// A client's request met it.
    Read,
    /// It had told of a loss.
    Heal,
    /// It was compared with another.
    Exchange,
}

impl Repair {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Heal => "heal",
            Self::Exchange => "exchange",
        }
    }
}

/// What an operator or a metric should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// One dot came with two contents: a disk is broken or a message was forged.
    DotCollision(Key),
    /// A stored record cannot be read: it is healed from the other replicas.
    RecordLost(Key, RecordError),
    /// A stored record is one of a newer build. It stays as it is, and nothing is done on it here.
    RecordNotKnown(Key, RecordError),
    /// A replica was behind and was sent what it lacked.
    Repaired(Key, NodeId, Repair),
    /// The replicas of a partition here and at a peer were compared and are equal, or were made so.
    Exchanged(TreeId, NodeId),
    /// A comparison did not come to its end, and is tried again.
    ExchangeFailed(TreeId, NodeId),
    /// Records were handed out to a node that is to be their home.
    TransferSent {
        /// How many.
        records: u64,
        /// Their bytes, as this node stores them.
        bytes: u64,
    },
    /// Records came that this node is to be a home of.
    TransferReceived {
        /// Their partition.
        partition: PartitionId,
        /// How many.
        records: u64,
        /// Their bytes, as the node stores them that sent them.
        bytes: u64,
    },
    /// A peer asked about a partition that it does not share, or said what makes no sense; it was refused.
    ExchangeRefused(NodeId),
    /// A partition's Merkle tree was not what its records add up to; it was made anew.
    TreeWrong(PartitionId),
    /// So many partitions' Merkle trees are being made, and so long take no part in comparisons.
    TreesUnready {
        /// As it was last told.
        before: usize,
        /// As it is.
        now: usize,
    },
    /// So many digests of keys or of ranges of keys were sent to peers, in comparisons.
    DigestsSent(usize),
    /// This node's clock is off its peers', by this much; it takes no writes while `refuses`.
    ClockOff {
        /// The median peer's clock less this node's, in milliseconds; 0 once it is off no longer.
        offset_ms: i64,
        /// Whether writes are refused.
        refuses: bool,
    },
    /// Writes got timestamps this far ahead of this node's wall clock of late, because they had to win over what was held; an operator should know
    /// that clocks were wrong.
    TimestampsAhead {
        /// By how many milliseconds at most; 0 once it happens no longer.
        ahead_ms: u64,
    },
    /// A record was looked after; so many tombstones and expired values went from it.
    Collected(u64),
    /// State of a peer's was refused because its stamp is too old.
    StaleRefused(NodeId),
    /// A message of another cluster, or of a node that is no member; it was dropped.
    StrayMessage(NodeId),
    /// What is kept here for a home has changed.
    HintsHeld {
        /// The home.
        home: NodeId,
        /// As it was last told.
        before: Backlog,
        /// As it is.
        now: Backlog,
    },
    /// As much is kept here for other nodes as may be, or no longer so much.
    HintsFull {
        /// Which of the two.
        is_full: bool,
        /// How many bytes may be kept.
        bytes_max: u64,
    },
    /// A home has stored what was kept here for it.
    HintDelivered(NodeId),
    /// A peer wanted a key read or stored of which this node is no home, nor the other in whose place it was to be kept; it was refused.
    NotAHome(NodeId),
}
