//! What goes into a node's step and what comes out.

use std::sync::Arc;

use crate::cluster::configuration::ConfigPhase;
use crate::cluster::liveness::Liveness;
use crate::cluster::membership::View;
use crate::event::Event;
use crate::message::Envelope;
use crate::message::client::{ClientId, Outcome, Request};
use crate::ring::PartitionId;
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::value::dot::NodeId;
use crate::value::epoch::Epoch;
use crate::value::time::Instant;
use crate::wire::Protocol;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client asks. The caller chooses an id that is not in use; the reply names it.
    Client(ClientId, Request),
    /// A peer's message has arrived.
    Message(Envelope),
    /// A store command has ended.
    Stored(StoreId, StoreResult),
    /// The wish and the settings to go by from now on.
    View(Arc<View>),
    /// What holds in partitions of this shard, as others know it.
    Phases(Vec<(PartitionId, ConfigPhase)>),
    /// What to think of the other nodes from now on.
    Liveness(Arc<Liveness>),
    /// The epoch from now on. It is durable, and no earlier than the one before.
    Epoch(Epoch),
    /// All members speak this version of the protocol, and this node's disk says so: what came with it may be used.
    AllSpeak(Protocol),
    /// The time of [`Effects::wake_at`] has come. A tick too many does no harm.
    Tick,
    /// The node stops in order: it says what it wants to remember, and nothing may follow but the ends of what it has begun.
    Stop,
}

/// What is to be done after a step.
///
/// The parts may be carried out in any order and at the same time: whatever must wait until something is stored is told only by
/// the step that takes in [`Input::Stored`]. Store commands on one key take effect in the order given, and a scan sees all writes that
/// were given before it and none that came after. A message may be lost,
/// repeated or late.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to peers.
    pub sends: Vec<(NodeId, Envelope)>,
    /// Answers to clients; each request gets exactly one.
    pub replies: Vec<(ClientId, Outcome)>,
    /// Commands to the store; each is answered by exactly one [`Input::Stored`].
    pub stores: Vec<(StoreId, StoreCommand)>,
    /// What an operator or a metric should know.
    pub events: Vec<Event>,
    /// The shard has finished this epoch ([`crate::value::epoch`]).
    pub finished: Option<Epoch>,
    /// The shard holds nothing any more that its node, which is leaving, is to hand over; or it does.
    pub drained: Option<bool>,
    /// What holds from now on in partitions, as far as this node knows, for others to hear.
    pub phases: Vec<(PartitionId, ConfigPhase)>,
    /// When the node wants a [`Input::Tick`] at the latest. It replaces what the step before said.
    pub wake_at: Option<Instant>,
}
