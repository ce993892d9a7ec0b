//! Messages between nodes.

pub mod anti_entropy;
pub mod client;
pub mod gossip;
pub mod listing;
pub mod reconfiguration;
pub mod trace;
pub mod transfer;

use std::time::Duration;

use crate::cluster::configuration::{ConfigStamp, Home};
use crate::cluster::losses::{Loss, Losses};
use crate::message::anti_entropy::{Finding, Question};
use crate::message::client::{Put, PutDone, Refusal};
use crate::message::gossip::Notice;
use crate::message::listing::{ListAnswer, ListQuestion};
use crate::message::reconfiguration::ReconfigurationMessage;
use crate::message::trace::TraceContext;
use crate::message::transfer::{Fetch, Fetched};
use crate::ring::PartitionId;
use crate::value::cluster_id::ClusterId;
pub use crate::value::digest::StateDigest;
use crate::value::dot::{Incarnation, NodeId, Since};
use crate::value::key::Key;
use crate::value::state::{Epoch, State};
use crate::value::time::Now;

/// A message with what every receiver needs to know of its sender.
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
    /// The sender's clocks, so that a wall clock that is wrong, or that jumps, is noticed.
    pub sent: Now,
    /// The sender's configuration of the partition that the message concerns, if it concerns one.
    pub config_stamp: ConfigStamp,
    /// The losses of that partition's homes that the sender knows.
    pub losses: Losses,
    /// The span of a trace that the message belongs to, if it belongs to one. The node that runs the core sets it and reads it; the core
    /// does neither. Boxed, because hardly any message has one.
    pub trace: Option<Box<TraceContext>>,
    /// The message.
    pub message: Message,
}

/// A message from one node to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// A coordinator's request to a replica.
    Request(RequestId, ReplicaRequest),
    /// The replica's response.
    Response(RequestId, ReplicaResponse),
    /// A node that cannot coordinate a write forwards it to one that can, with the time that is left. The receiver coordinates it or refuses it;
    /// it never forwards it again. The epoch is the one in which the sender began: a late write may meanwhile have been made, deleted and
    /// collected.
    Forward(RequestId, Box<Put>, Duration, Epoch),
    /// The outcome of a forwarded write.
    Forwarded(RequestId, Result<PutDone, Refusal>),
    /// A home's question in an exchange of a partition.
    Compare(RequestId, Question),
    /// The response to it.
    Compared(RequestId, Finding),
    /// A syncing home fetches records of an existing home.
    Fetch(RequestId, Fetch),
    /// The home's response.
    Fetched(RequestId, Fetched),
    /// A node whose wall clock has jumped asks for other nodes' clocks.
    ClocksRequest(RequestId),
    /// The response: the clocks are in the envelope.
    Clocks(RequestId),
    /// A question for keys or sizes of buckets, to a home.
    List(RequestId, Box<ListQuestion>),
    /// The home's answer.
    Listed(RequestId, ListAnswer),
    /// A message about the configurations of a partition.
    Reconfiguration(PartitionId, ReconfigurationMessage),
    /// A message about the cluster.
    Notice(Notice),
}

/// The id of a request, by which its response is matched to the requester's operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RequestId {
    /// The part of the requesting node that waits for the response.
    pub requester: Requester,
    /// The operation, unique among all that the requester ever began.
    pub operation: u64,
    /// The request within the operation.
    pub round: u32,
}

impl RequestId {
    /// The index of the requesting shard, of `count`.
    pub const fn shard(self, count: u32) -> u32 {
        (self.operation % count as u64) as u32
    }
}

/// The part of a node that sends a request and takes its response.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Requester {
    /// An operation of the coordinator: a client's request, a repair, a heal or a hand-over.
    Coordinator,
    /// An exchange ([`crate::anti_entropy`]).
    Exchange,
    /// The copying of a partition to a syncing home ([`crate::reconfiguration::transfer`]).
    Transfer,
    /// A list of keys ([`crate::listing`]).
    Listing,
}

/// A request to a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaRequest {
    /// Read a key.
    Read {
        /// The key.
        key: Key,
        /// The whole state, or only its digest.
        want: Want,
        /// The role that the replica must have. As a home, it refuses if it is none.
        role: Role,
    },
    /// Note durably that a home has lost records before a time, then return the state: the home recovers from the response.
    Recover {
        /// The key.
        key: Key,
        /// The home that recovers.
        home: Home,
        /// The home has lost nothing after this.
        since: Since,
    },
    /// Merge a state, durably.
    Merge {
        /// The key.
        key: Key,
        /// The state to merge.
        state: State,
        /// The oldest epoch among the operation's start and all that the state was built from.
        epoch: Epoch,
        /// Set if the state holds what enough other homes held after this loss for the replica to count again.
        heals: Option<Loss>,
        /// What to return.
        confirm: Confirm,
        /// The home for which the receiver stands in, if it does: it keeps a hint for that home until the home has the state.
        stands_in_for: Option<NodeId>,
    },
}

impl ReplicaRequest {
    /// The key of the request.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Read { key, .. } | Self::Recover { key, .. } | Self::Merge { key, .. } => key,
        }
    }
}

/// The role in which a node holds a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// One of the key's homes.
    Home,
    /// A stand-in for a home that cannot be reached.
    StandIn,
}

/// How much a read returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// The state.
    State,
    /// The state's digest, which is equal for equal states.
    Digest,
}

/// How a replica confirms a durable merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confirm {
    /// Only that it is stored.
    Stored,
    /// What the replica then holds: its digest, and the state itself if it differs from the one that was sent.
    Exactly,
}

/// A replica's response. Everything in it is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaResponse {
    /// The state that it holds.
    State {
        /// The state.
        state: State,
        /// The oldest epoch from which the state was built.
        epoch: Epoch,
        /// A loss from which the replica has not recovered. While there is one, its response does not count towards a quorum.
        loss: Option<Loss>,
    },
    /// The digest of the state that it holds.
    Digest {
        /// The digest.
        digest: StateDigest,
        /// As in [`Self::State`].
        loss: Option<Loss>,
    },
    /// The merge is durable.
    Stored,
    /// The merge is durable, and the replica holds exactly this.
    Holds {
        /// The digest of the state.
        digest: StateDigest,
        /// The state, if it differs from the one that was sent.
        state: Option<State>,
        /// As in [`Self::State`].
        loss: Option<Loss>,
    },
    /// The replica could not do it.
    Failed(Failure),
}

impl ReplicaResponse {
    /// The loss in the response.
    pub const fn loss(&self) -> Option<Loss> {
        match self {
            Self::State { loss, .. } | Self::Digest { loss, .. } | Self::Holds { loss, .. } => *loss,
            Self::Stored | Self::Failed(_) => None,
        }
    }
}

/// Why a replica did not carry out a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Its store failed. A write may have been stored or not.
    Storage,
    /// It has reached its limit of tasks. Nothing was done.
    Overloaded,
    /// It is not a home of the key.
    NotAHome,
    /// Its disk is full. Nothing was written.
    DiskFull,
    /// Its hints have reached their size limit. Nothing was written.
    HintsFull,
    /// The epoch stamp on the state is too old, or the replica does not know the epoch yet. Nothing was written.
    WrongEpoch,
    /// The bucket was emptied after the sender's generation of it. Nothing was written.
    Superseded,
}
