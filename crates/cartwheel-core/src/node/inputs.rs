//! Routing: which part of a node handles an input, and how its messages and replies leave.

use std::time::Duration;

use rand_chacha::rand_core::Rng;

use super::{Node, Step};
use crate::admission::WorkClass;
use crate::cluster::configuration::{ConfigStamp, Home};
use crate::cluster::losses::Losses;
use crate::cluster::sizes::TreeId;
use crate::coordinator::ReplyTo;
use crate::event::Event;
use crate::message::client::{ClientId, Operation, Outcome, Put, Refusal, Reply, Request, Retry};
use crate::message::{Envelope, Failure, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role};
use crate::mutation::Mutation;
use crate::replica::{Caller, Done};
use crate::ring::PartitionId;
use crate::store::command::{StoreId, StoreResult};
use crate::value::dot::NodeId;
use crate::value::epoch::Epoch;
use crate::value::hlc::Hlc;
use crate::value::key::Key;
use crate::value::write_id::WriteId;

/// The longest time that a client or a peer may give an operation.
pub(super) const BUDGET_MAX: Duration = Duration::from_secs(60);

impl Node {
    pub(super) fn client(&mut self, step: &mut Step, id: ClientId, request: Request) {
        let reply_to = ReplyTo::Client(id);
        self.begun.insert(reply_to, step.now.instant);
        if let Some(refusal) = self.superseded_refusal(request.operation.key()) {
            step.coordinator.calls.replies.push((reply_to, Err(refusal)));
            return;
        }
        let operation = match request.operation {
            Operation::Get(get) => {
                if let Some(found) = self.at_once(step.now, &get) {
                    let got = found.got();
                    step.coordinator.calls.replies.push((reply_to, Ok(Reply::Got(got))));
                    return;
                }
                Operation::Get(get)
            }
            Operation::Put(put) => {
                if let Some(refusal) = self.clock_refusal().or_else(|| self.epoch_refusal()) {
                    step.coordinator.calls.replies.push((reply_to, Err(refusal)));
                    return;
                }
                Operation::Put(self.name_write(put))
            }
            Operation::Inspect(key) => Operation::Inspect(key),
            Operation::Restore(restore) => {
                // Without the epoch, the state's stamp would be too old for every home.
                if let Some(refusal) = self.epoch_refusal() {
                    step.coordinator.calls.replies.push((reply_to, Err(refusal)));
                    return;
                }
                Operation::Restore(restore)
            }
        };
        let begun = self.replica.epoch();
        self.with_coordinator(step, |coordinator, cx| {
            coordinator.begin(cx, reply_to, operation, request.timeout.min(BUDGET_MAX), begun)
        });
    }

    /// Gives a write its id, and its timestamp if that follows from the value that it rewrites. All attempts of it, here and on other coordinators,
    /// bear the same ones.
    pub(super) fn name_write(&mut self, mut put: Put) -> Put {
        let of =
            |idempotency_key: &[u8]| WriteId::of_write(idempotency_key, &put.key, &put.content, put.context.as_deref());
        let id = match &put.retry {
            Retry::Named(id) => *id,
            Retry::Key(idempotency_key) => of(idempotency_key),
            Retry::Unnamed => {
                let mut made_up = [0; 16];
                self.random.fill_bytes(&mut made_up);
                of(&made_up)
            }
        };
        put.retry = Retry::Named(id);
        if self.config.broken.is(Mutation::RewritesStampedNow) {
            put.rewrites = None;
        }
        put.stamp = put.stamp.or(put.rewrites.map(Hlc::next));
        put
    }

    /// Why this node cannot take a request for a key whose bucket was emptied after the key's generation: its sender does not know that yet.
    pub(super) fn superseded_refusal(&self, key: &Key) -> Option<Refusal> {
        let why = "the bucket was emptied while the request was under way; nothing was written: try again";
        self.replica.is_superseded(key).then(|| Refusal::unavailable(why))
    }

    pub(super) fn clock_refusal(&self) -> Option<Refusal> {
        let off = self.clock_off.filter(|off| off.refuses)?;
        let why = format!(
            "this node's clock is {} ms off its peers', so it takes no writes: set the clock, or write through another node",
            off.offset_ms.unsigned_abs()
        );
        Some(Refusal::unavailable(why))
    }

    /// Why this node cannot take a write, if it does not know the epoch: its tombstone would be collected too early.
    pub(super) fn epoch_refusal(&self) -> Option<Refusal> {
        let why = "this node is new and has not heard from its cluster yet, so it takes no writes: write through another node";
        let is_unknown = self.replica.epoch() == Epoch::UNKNOWN;
        is_unknown.then(|| Refusal::unavailable(why))
    }

    pub(super) fn message(&mut self, step: &mut Step, envelope: Envelope) {
        let from = envelope.from;
        // A message of an incarnation that this node has not heard of yet is accepted, as if the news of it had come first.
        let view = self.held.view();
        let is_member = view.member(from).is_some() && !view.is_gone(from, envelope.from_incarnation);
        if envelope.cluster != self.config.cluster || !is_member {
            step.effects.events.push(Event::StrayMessage(from));
            return;
        }
        self.clock_guard.heard(from, (envelope.from_incarnation, envelope.from_boot), envelope.sent, step.now);
        let (config_stamp, losses) = (envelope.config_stamp, envelope.losses);
        match envelope.message {
            Message::Request(request_id, request) => {
                let partition = self.held.partition_of(request.key());
                self.with_reconfiguration(step, |reconfiguration, cx| {
                    reconfiguration.on_config_stamp(cx, from, partition, config_stamp)
                });
                self.on_request(step, from, request_id, request);
            }
            Message::Response(request_id, response) => {
                if let Some(partition) = self.partition_of(request_id) {
                    self.with_reconfiguration(step, |reconfiguration, cx| {
                        reconfiguration.on_config_stamp(cx, from, partition, config_stamp)
                    });
                }
                self.on_response(step, from, request_id, (config_stamp, &losses), response);
            }
            Message::Forward(request_id, put, budget, begun) => {
                self.take_over(step, (from, request_id), *put, budget, begun)
            }
            Message::ClocksRequest(request_id) => self.send(step, from, Message::Clocks(request_id)),
            // The envelope has the reading of the clock.
            Message::Clocks(_) => {}
            Message::Forwarded(request_id, result) => {
                self.with_coordinator(step, |coordinator, cx| coordinator.forwarded(cx, from, request_id, result));
            }
            Message::Compare(request_id, question) => {
                self.with_reconfiguration(step, |reconfiguration, cx| {
                    reconfiguration.on_config_stamp(cx, from, question.partition(), config_stamp)
                });
                self.compare(
                    step,
                    Home { node: from, incarnation: envelope.from_incarnation },
                    request_id,
                    config_stamp,
                    question,
                );
            }
            Message::Compared(request_id, finding) => {
                if let Some(partition) = self.partition_of(request_id) {
                    self.with_reconfiguration(step, |reconfiguration, cx| {
                        reconfiguration.on_config_stamp(cx, from, partition, config_stamp)
                    });
                }
                self.compared(step, from, request_id, (config_stamp, &losses), finding);
            }
            Message::Fetch(request_id, fetch) => {
                self.with_reconfiguration(step, |reconfiguration, cx| {
                    reconfiguration.on_config_stamp(cx, from, fetch.partition, config_stamp)
                });
                self.with_transfers(step, |transfers, cx| transfers.on_fetch(cx, from, request_id, fetch));
            }
            Message::Fetched(request_id, fetched) => {
                if let Some(partition) = self.partition_of(request_id) {
                    self.with_reconfiguration(step, |reconfiguration, cx| {
                        reconfiguration.on_config_stamp(cx, from, partition, config_stamp)
                    });
                }
                self.with_transfers(step, |transfers, cx| transfers.on_fetched(cx, from, request_id, fetched));
            }
            Message::List(request_id, question) => self.question(step, from, request_id, *question),
            Message::Listed(request_id, answer) => self.answer(step, from, request_id, answer),
            Message::Reconfiguration(partition, message) => {
                let from = Home { node: from, incarnation: envelope.from_incarnation };
                self.with_reconfiguration(step, |reconfiguration, cx| {
                    reconfiguration.heard(cx, from, partition, message)
                });
            }
            // `control` handles these.
            Message::Notice(_) => step.effects.events.push(Event::StrayMessage(from)),
        }
    }

    /// Coordinates a write that another node has forwarded.
    pub(super) fn take_over(
        &mut self,
        step: &mut Step,
        from: (NodeId, RequestId),
        put: Put,
        budget: Duration,
        begun: Epoch,
    ) {
        let (peer, request_id) = from;
        if self.begun.contains_key(&ReplyTo::Peer(peer, request_id)) {
            // A repeat of a write under way, which gets one reply.
            return;
        }
        if let Some(refusal) = self.refused_forwards.refusal(peer, request_id)
            && !self.config.broken.is(Mutation::RefusedForwardTaken)
        {
            return self.send(step, peer, Message::Forwarded(request_id, Err(refusal.clone())));
        }
        if self.is_wrong_epoch(step, peer, begun) {
            let why = "the write comes too late to be carried out, or to a node that knows too little of its cluster";
            return self.send(step, peer, Message::Forwarded(request_id, Err(Refusal::unavailable(why))));
        }
        if let Some(refusal) = self.superseded_refusal(&put.key).or_else(|| self.clock_refusal()) {
            return self.send(step, peer, Message::Forwarded(request_id, Err(refusal)));
        }
        let (reply_to, put, begun) =
            (ReplyTo::Peer(peer, request_id), Operation::Put(put), begun.min(self.replica.epoch()));
        self.begun.insert(reply_to, step.now.instant);
        self.with_coordinator(step, |coordinator, cx| {
            coordinator.begin(cx, reply_to, put, budget.min(BUDGET_MAX), begun)
        });
    }

    /// Whether a state stamped with this epoch must not be stored here: it is too old, or this node does not know its own epoch.
    pub(super) fn is_wrong_epoch(&self, step: &mut Step, from: NodeId, stamp: Epoch) -> bool {
        let epoch = self.replica.epoch();
        let is_stale = stamp.is_stale(epoch, self.config.broken);
        if is_stale {
            step.effects.events.push(Event::StaleRefused(from));
        }
        is_stale || epoch == Epoch::UNKNOWN
    }

    /// Passes a replica's response to the part that sent the request.
    pub(super) fn on_response(
        &mut self,
        step: &mut Step,
        from: NodeId,
        request_id: RequestId,
        config_stamp: (ConfigStamp, &Losses),
        response: ReplicaResponse,
    ) {
        // Whichever part sent the request: the peer is reachable, and not late.
        self.reach.on_response(from, request_id, step.now.instant);
        match request_id.requester {
            Requester::Coordinator => self.with_coordinator(step, |coordinator, cx| {
                coordinator.on_response(cx, from, request_id, config_stamp, response)
            }),
            Requester::Exchange => {
                self.with_exchange(step, |exchange, cx| exchange.on_response(cx, from, request_id, response))
            }
            Requester::Transfer if from == self.config.node => {
                self.with_transfers(step, |transfers, cx| transfers.on_response(cx, request_id, &response));
            }
            // Transfers make requests to this node's replica only.
            Requester::Transfer => {}
            Requester::Listing if from == self.config.node => self.read_for_list(step, request_id, &response),
            Requester::Listing => {}
        }
    }

    pub(super) fn on_request(&mut self, step: &mut Step, from: NodeId, request_id: RequestId, request: ReplicaRequest) {
        let (key, tree) = (request.key(), self.held.tree_of(request.key()));
        let TreeId { partition, group } = tree;
        // A retired replica serves the homes until they have taken over what it holds.
        let is_left = || {
            let leaves = self
                .held
                .partition_state(partition)
                .is_some_and(|partition_state| partition_state.leaves(self.held.me(), group));
            leaves && request_id.requester == Requester::Exchange
        };
        let is_ours = match &request {
            ReplicaRequest::Read { role: Role::StandIn, .. } => true,
            ReplicaRequest::Merge { stands_in_for: Some(home), .. } => self.held.has_home(key, *home),
            ReplicaRequest::Read { .. } | ReplicaRequest::Recover { .. } | ReplicaRequest::Merge { .. } => {
                self.held.is_home(key) || is_left()
            }
        };
        // A repair that a peer makes here counts as this node's own, and so slows down the comparison that leads to more.
        if request_id.requester == Requester::Exchange {
            self.admission.begin(WorkClass::Repair, step.now.instant);
        }
        let stamp = match &request {
            ReplicaRequest::Merge { epoch, .. } => Some(*epoch),
            ReplicaRequest::Read { .. } | ReplicaRequest::Recover { .. } => None,
        };
        if stamp.is_some_and(|stamp| self.is_wrong_epoch(step, from, stamp)) {
            self.send_about(
                step,
                from,
                partition,
                Message::Response(request_id, ReplicaResponse::Failed(Failure::WrongEpoch)),
            );
        } else if is_ours {
            self.request_own_replica(step, Caller::Peer(from, request_id, tree), request);
        } else {
            step.effects.events.push(Event::NotAHome(from));
            self.send_about(
                step,
                from,
                partition,
                Message::Response(request_id, ReplicaResponse::Failed(Failure::NotAHome)),
            );
        }
    }

    pub(super) fn stored(&mut self, step: &mut Step, id: StoreId, result: StoreResult) {
        if self.epoch_end.sync == Some(id) {
            self.epoch_synced(step, &result);
        } else if self.losses.waits_for(id) {
            self.losses_saved(step, &result);
        } else if self.reconfiguration.waits_for(id) {
            self.with_reconfiguration(step, |reconfiguration, cx| reconfiguration.stored(cx, id, result));
        } else if self.transfers.waits_for(id) {
            self.with_transfers(step, |transfers, cx| transfers.stored(cx, id, result));
        } else if self.answers.waits_for(id) {
            self.index_read(step, id, result);
        } else if self.exchange.waits_for(id) {
            self.with_exchange(step, |exchange, cx| exchange.stored(cx, id, result));
        } else if let Some(result) = self.handoff.stored(step.now.instant, id, result, self.replica.hints())
            && let Some(result) = self.gc_sweep.stored(step.now.instant, id, result)
            && let Some(result) = self.key_sweep.stored(step.now.instant, id, result, &self.replica)
        {
            self.replica.stored(step.now, id, result, &mut step.replica);
        }
    }

    pub(super) fn done(&mut self, step: &mut Step, done: Done) {
        match done {
            Done::Response(Caller::Local(request_id), response) => {
                let (config_stamp, losses) = self.own_config_stamp(request_id);
                self.on_response(step, self.config.node, request_id, (config_stamp, &losses), response);
            }
            Done::Response(Caller::Peer(peer, request_id, tree), response) => {
                let losses = self.losses.of(tree.partition, self.replica.epoch());
                self.send_on(step, peer, (self.config_stamp_of(tree), losses), Message::Response(request_id, response));
            }
            Done::Mint(request_id, result) => {
                let (_, losses) = self.own_config_stamp(request_id);
                self.with_coordinator(step, |coordinator, cx| coordinator.minted(cx, request_id, &losses, result));
            }
            Done::HandedOver => {}
            Done::Dropped(key, is_done) => {
                if self.replica.is_superseded(&key) {
                    self.key_sweep.ended(is_done);
                }
                self.with_reconfiguration(step, |reconfiguration, cx| reconfiguration.dropped(cx, &key))
            }
            Done::Indexed(is_done) => self.key_sweep.ended(is_done),
            Done::Collected(deleted) => {
                self.gc_sweep.ended();
                step.effects.events.push(Event::Collected(deleted));
            }
        }
    }

    pub(super) fn reply(&mut self, step: &mut Step, reply_to: ReplyTo, outcome: Outcome) {
        let begun = self.begun.remove(&reply_to);
        match (begun, &outcome) {
            (Some(begun), Ok(_)) => self.admission.served(self.queued + step.now.instant.since(begun)),
            (_, Err(Refusal::Overloaded)) => self.admission.overloaded(),
            // The time that a failed request took says nothing about the load.
            _ => {}
        }
        match (reply_to, outcome) {
            (ReplyTo::Client(id), outcome) => step.effects.replies.push((id, outcome)),
            (ReplyTo::Peer(peer, request_id), Ok(Reply::Put(done))) => {
                self.send(step, peer, Message::Forwarded(request_id, Ok(done)));
            }
            (ReplyTo::Peer(peer, request_id), Err(refusal)) => {
                self.refused_forwards.refused(step.now.instant, peer, request_id, &refusal);
                self.send(step, peer, Message::Forwarded(request_id, Err(refusal)));
            }
            // Only writes are forwarded, and the node's own operations get no reply.
            (ReplyTo::Peer(..), Ok(Reply::Got(_) | Reply::Inspected(_))) | (ReplyTo::Internal, _) => {}
        }
    }

    /// The partition of the operation of this node that made a request.
    pub(super) fn partition_of(&self, request_id: RequestId) -> Option<PartitionId> {
        match request_id.requester {
            Requester::Coordinator => {
                self.coordinator.key_of(request_id.operation).map(|key| self.held.partition_of(key))
            }
            Requester::Exchange => self.exchange.partition_of(request_id.operation),
            Requester::Transfer => self.transfers.partition_of(request_id.operation),
            Requester::Listing => None,
        }
    }

    pub(super) fn send(&self, step: &mut Step, to: NodeId, message: Message) {
        self.send_on(step, to, (ConfigStamp::default(), Losses::NONE), message);
    }

    /// Sends a message about a partition, with the configuration and the losses that this node knows for it.
    pub(super) fn send_about(&self, step: &mut Step, to: NodeId, partition: PartitionId, message: Message) {
        let losses = self.losses.of(partition, self.replica.epoch());
        self.send_on(step, to, (self.config_stamp(partition), losses), message);
    }

    pub(super) fn send_on(
        &self,
        step: &mut Step,
        to: NodeId,
        (config_stamp, losses): (ConfigStamp, Losses),
        message: Message,
    ) {
        let envelope = Envelope {
            cluster: self.config.cluster,
            from: self.config.node,
            from_incarnation: self.config.incarnation,
            from_boot: self.config.boot,
            sent: step.now,
            config_stamp,
            trace: None,
            losses,
            message,
        };
        step.effects.sends.push((to, envelope));
    }
}
