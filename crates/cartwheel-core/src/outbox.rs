//! What a part of a node wants done.

use crate::event::Event;
use crate::message::{Message, ReplicaRequest, RequestId};
use crate::ring::PartitionId;
use crate::store::command::{StoreCommand, StoreId};
use crate::value::dot::NodeId;

/// What a part of a node (its replica, its coordinator, anti-entropy, reconfiguration, transfers) wants done in a step.
///
/// A part does nothing by itself. It fills its outbox, and the node empties it before the step ends: requests to this node's own replica and
/// calls of other parts are carried out at once, and all else becomes part of the step's effects.
#[derive(Debug, Default)]
pub struct Outbox<Calls> {
    /// Requests to replicas, this node's own among them.
    pub requests: Vec<(NodeId, RequestId, ReplicaRequest)>,
    /// Messages to peers, and the partitions that they are about.
    pub sends: Vec<(NodeId, PartitionId, Message)>,
    /// Commands for the store.
    pub stores: Vec<(StoreId, StoreCommand)>,
    /// What an operator or a metric should know.
    pub events: Vec<Event>,
    /// What other parts of the node are to do, in terms of the part whose outbox this is.
    pub calls: Calls,
}
