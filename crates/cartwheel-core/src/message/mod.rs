//! What nodes say to each other.

pub mod anti_entropy;
pub mod client;
pub mod gossip;
pub mod reconfiguration;
pub mod transfer;

use std::time::Duration;

use crate::cluster::configuration::{ConfigStamp, Home};
use crate::cluster::losses::{Loss, Losses};
use crate::message::anti_entropy::{Finding, Question};
use crate::message::client::{Put, PutDone, Refusal};
use crate::message::gossip::Notice;
use crate::message::reconfiguration::ReconfigurationMessage;
use crate::message::transfer::{Fetch, Fetched};
use crate::ring::PartitionId;
use crate::value::cluster_id::ClusterId;
pub use crate::value::digest::StateDigest;
use crate::value::dot::{Incarnation, NodeId, Since};
use crate::value::key::Key;
use crate::value::state::{Epoch, State};
use crate::value::time::Now;

/// A message with what every receiver must know of its sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The cluster that both must belong to.
    pub cluster: ClusterId,
    /// The sender.
    pub from: NodeId,
    /// The sender's incarnation.
    pub from_incarnation: Incarnation,
    /// The sender's boot within that incarnation.
    pub from_boot: u32,
    /// What the sender's clocks read, so that a wall clock that is off, or that jumps, is noticed.
    pub sent: Now,
    /// On what it stands in the partition that the message is about, if it is about one.
    pub config_stamp: ConfigStamp,
    /// The losses of that partition's homes that it was told of.
    pub losses: Losses,
    /// What it says.
    pub message: Message,
}

/// What one node says to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// A coordinator asks a replica.
    Request(RequestId, ReplicaRequest),
    /// The replica's answer.
    Response(RequestId, ReplicaResponse),
    /// A node that cannot coordinate a write hands it to one that can, with the time that is left. The receiver coordinates it
    /// or refuses; it does not forward it again. The epoch is that in which the sender began: a late write may have been made, deleted
    /// and forgotten meanwhile.
    Forward(RequestId, Put, Duration, Epoch),
    /// How a forwarded write ended.
    Forwarded(RequestId, Result<PutDone, Refusal>),
    /// A home compares its replicas of a partition with another's.
    Compare(RequestId, Question),
    /// What the other holds.
    Compared(RequestId, Finding),
    /// One that is to be a home fetches what a home holds.
    Fetch(RequestId, Fetch),
    /// What the home hands out.
    Fetched(RequestId, Fetched),
    /// A node whose wall clock has jumped asks what others' clocks read.
    ClocksRequest(RequestId),
    /// The answer: the envelope says it.
    Clocks(RequestId),
    /// About who holds a partition.
    Reconfiguration(PartitionId, ReconfigurationMessage),
    /// About the cluster itself.
    Notice(Notice),
}

/// Which question of which operation of the asker an answer belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RequestId {
    /// Which part of the asker it is that asks.
    pub requester: Requester,
    /// The operation, unique among all that the asker ever began.
    pub operation: u64,
    /// The question within the operation.
    pub round: u32,
}

impl RequestId {
    /// The index of the shard, of `count`, that asked.
    pub const fn shard(self, count: u32) -> u32 {
        (self.operation % count as u64) as u32
    }
}

/// Which part of a node asks, and is to be told the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Requester {
    /// An operation of the coordinator's: a client's, or a repair, or one that heals or hands over.
    Coordinator,
    /// A comparison of replicas ([`crate::anti_entropy`]).
    Exchange,
    /// The copying of a partition to one that is to be a home ([`crate::reconfiguration::transfer`]).
    Transfer,
}

/// What a replica is asked to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaRequest {
    /// Say what it holds.
    Read {
        /// The key.
        key: Key,
        /// Whether all of it or only its digest.
        want: Want,
        /// As what it is asked: as a home, it refuses if it is none.
        role: Role,
    },
    /// Note, durably, that a home has lost records before a time, and then say what is held: the home recovers from the answer.
    Recover {
        /// The key.
        key: Key,
        /// The home that recovers.
        home: Home,
        /// Since when it has lost nothing more.
        since: Since,
    },
    /// Take in a state, durably.
    Merge {
        /// The key.
        key: Key,
        /// What to take in.
        state: State,
        /// The oldest epoch among all that the state was built from and the operation's start.
        epoch: Epoch,
        /// The state holds what enough other homes held after this loss for the replica to count again.
        heals: Option<Loss>,
        /// What to answer.
        confirm: Confirm,
        /// The home that the receiver stands in for, if it is to: it owes that home the state until the home has it.
        stands_in_for: Option<NodeId>,
    },
}

impl ReplicaRequest {
    /// The key in question.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Read { key, .. } | Self::Recover { key, .. } | Self::Merge { key, .. } => key,
        }
    }
}

/// As what a node holds a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// As one of the key's homes.
    Home,
    /// In the place of a home that cannot be reached.
    StandIn,
}

/// How much a read returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// The state.
    State,
    /// Its digest, which is equal for equal states.
    Digest,
}

/// How a replica confirms a merge once it is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confirm {
    /// That it is stored.
    Stored,
    /// What exactly is held then: its digest, and the state itself if it is not the one that was sent.
    Exactly,
}

/// What a replica answers. Nothing in it is less than durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaResponse {
    /// What it holds.
    State {
        /// All of it.
        state: State,
        /// The oldest epoch that it was built from.
        epoch: Epoch,
        /// The loss that the replica has not made good; while there is one its answer does not count towards a quorum.
        loss: Option<Loss>,
    },
    /// The digest of what it holds.
    Digest {
        /// The digest.
        digest: StateDigest,
        /// As above.
        loss: Option<Loss>,
    },
    /// The merge is durable.
    Stored,
    /// The merge is durable, and the replica holds exactly this.
    Holds {
        /// The digest of it.
        digest: StateDigest,
        /// The state, if it is not the one that was sent.
        state: Option<State>,
        /// As above.
        loss: Option<Loss>,
    },
    /// The replica could not do it.
    Failed(Failure),
}

impl ReplicaResponse {
    /// The loss that the replica tells of.
    pub const fn loss(&self) -> Option<Loss> {
        match self {
            Self::State { loss, .. } | Self::Digest { loss, .. } | Self::Holds { loss, .. } => *loss,
            Self::Stored | Self::Failed(_) => None,
        }
    }
}

/// Why a replica could not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Its store failed. What was to be written may be there or not.
    Storage,
    /// It has too much to do. Nothing was done.
    Overloaded,
    /// It was asked about a key that it is no home of.
    NotAHome,
    /// Its disk is full. Nothing was written.
    DiskFull,
    /// It holds as much as it may in the place of others. Nothing was written.
    HintsFull,
    /// The stamp on what it was sent is too old, or it does not know the epoch yet. Nothing was written.
    WrongEpoch,
}
