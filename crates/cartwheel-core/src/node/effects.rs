//! The input of a node's step, and its effects.

use std::sync::Arc;

use crate::cluster::configuration::ConfigPhase;
use crate::cluster::liveness::Liveness;
use crate::cluster::membership::View;
use crate::event::Event;
use crate::message::Envelope;
use crate::message::client::{ClientId, Outcome, Refusal, Request};
use crate::message::listing::{ListRequest, Listed};
use crate::ring::PartitionId;
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::value::dot::NodeId;
use crate::value::epoch::Epoch;
use crate::value::time::Instant;
use crate::wire::Protocol;

/// Something that happened outside the state machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client's request. The caller chooses an id that is not in use; the reply bears it.
    Client(ClientId, Request),
    /// A client's request for keys or sizes of buckets in this shard's partitions. The id is not in use by another list.
    List(ClientId, ListRequest),
    /// A message of a peer.
    Message(Envelope),
    /// The result of a store command.
    Stored(StoreId, StoreResult),
    /// The membership, target placement and settings in force from now on.
    View(Arc<View>),
    /// Configurations of partitions of this shard, as other nodes know them.
    Phases(Vec<(PartitionId, ConfigPhase)>),
    /// The status of the other nodes from now on.
    Liveness(Arc<Liveness>),
    /// The epoch from now on. It is durable, and not earlier than the one before.
    Epoch(Epoch),
    /// All members speak this version of the protocol, and that is durable: features of it may be used.
    AllSpeak(Protocol),
    /// The time of [`Effects::wake_at`] has come. Additional ticks do no harm.
    Tick,
    /// The node stops in order and returns what it wants to save. After it only results of store commands may follow.
    Stop,
}

/// What the caller is to do after a step.
///
/// The parts may be carried out in any order and at the same time: an effect that must wait until something is stored is returned only by
/// the step that takes the [`Input::Stored`]. Store commands on one key take effect in the order given. A scan sees all writes given
/// before it and none given after it. A message may be lost, repeated or late.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to peers.
    pub sends: Vec<(NodeId, Envelope)>,
    /// Replies to clients; each request gets exactly one.
    pub replies: Vec<(ClientId, Outcome)>,
    /// Replies to clients' requests for lists; each gets exactly one.
    pub lists: Vec<(ClientId, Result<Listed, Refusal>)>,
    /// Commands for the store; each ends with exactly one [`Input::Stored`].
    pub stores: Vec<(StoreId, StoreCommand)>,
    /// What an operator or a metric should know.
    pub events: Vec<Event>,
    /// The epoch that the shard has finished ([`crate::value::epoch`]).
    pub finished: Option<Epoch>,
    /// Set when it changes: whether the shard of a leaving node has handed everything over.
    pub drained: Option<bool>,
    /// Configurations that are in force from now on, to be sent to other nodes.
    pub phases: Vec<(PartitionId, ConfigPhase)>,
    /// When the node wants an [`Input::Tick`] at the latest. It replaces the time that the step before returned.
    pub wake_at: Option<Instant>,
}

impl Effects {
    /// Adds the effects of the next step.
    pub fn merge(&mut self, next: Self) {
        let Self { sends, replies, lists, stores, events, finished, drained, phases, wake_at } = next;
        self.sends.extend(sends);
        self.replies.extend(replies);
        self.lists.extend(lists);
        self.stores.extend(stores);
        self.events.extend(events);
        self.finished = finished.or(self.finished);
        self.drained = drained.or(self.drained);
        self.phases.extend(phases);
        self.wake_at = wake_at;
    }
}
