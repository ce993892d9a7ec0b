//! Lists of a bucket's keys and the sizes of buckets, from the index of keys that each home keeps.
//!
//! The shard that a client asks ([`lister`]) asks homes of its partitions, as few nodes as cover them all, and merges their answers. A home
//! ([`answers`]) reads a page of its index, then the records of these keys, so that a list shows what a get would: no tombstones, and nothing that
//! has expired.

pub mod answers;
pub mod lister;

use crate::cluster::holdings::Holdings;
use crate::cluster::liveness::Liveness;
use crate::message::client::{ClientId, Refusal};
use crate::message::listing::{ListAnswer, ListQuestion, ListRequest, Listed};
use crate::message::{ReplicaRequest, RequestId};
use crate::store::command::{StoreCommand, StoreId};
use crate::value::dot::NodeId;
use crate::value::time::Instant;
use crate::wire::Protocol;

/// What listing may know in a step, and what it wants done.
pub struct ListingContext<'a> {
    /// The time of the step.
    pub now: Instant,
    /// The configurations of this shard's partitions.
    pub held: &'a Holdings,
    /// The version of the protocol that all members support.
    pub all_speak: Protocol,
    /// The status of the other nodes.
    pub liveness: &'a Liveness,
    /// What listing wants done.
    pub out: &'a mut ListingCalls,
}

/// What listing wants done in a step.
#[derive(Debug, Default)]
pub struct ListingCalls {
    /// Questions to homes, this node among them.
    pub questions: Vec<(NodeId, RequestId, ListQuestion)>,
    /// Answers to other nodes' questions, and to this node's own.
    pub answers: Vec<(NodeId, RequestId, ListAnswer)>,
    /// Requests to this node's replica.
    pub reads: Vec<(RequestId, ReplicaRequest)>,
    /// Commands for the store.
    pub stores: Vec<(StoreId, StoreCommand)>,
    /// Replies to clients.
    pub replies: Vec<(ClientId, Result<Listed, Refusal>)>,
}

/// A client's request for a list, as it came.
#[derive(Debug)]
pub struct Asked {
    /// The client's request.
    pub id: ClientId,
    /// What it asks for.
    pub request: ListRequest,
}
