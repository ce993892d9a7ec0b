//! The configuration stamp that goes with each message, and the losses that are saved before the response to a request.

use super::waiting::Waiting;
use super::{Node, Step};
use crate::cluster::configuration::{ConfigStamp, Home};
use crate::cluster::losses::Losses;
use crate::cluster::sizes::TreeId;
use crate::message::anti_entropy::{Finding, Question};
use crate::message::{ReplicaRequest, RequestId, Requester};
use crate::mutation::Mutation;
use crate::replica::Caller;
use crate::ring::PartitionId;
use crate::store::command::StoreResult;
use crate::value::dot::{NodeId, Since};

impl Node {
    /// The configuration stamp of this node in a partition.
    pub(super) fn config_stamp(&self, partition: PartitionId) -> ConfigStamp {
        self.ours(partition, self.held.config_stamp(partition))
    }

    /// The configuration stamp for one tree of a partition.
    pub(super) fn config_stamp_of(&self, tree: TreeId) -> ConfigStamp {
        self.ours(tree.partition, self.held.config_stamp_of(tree))
    }

    pub(super) fn ours(&self, partition: PartitionId, config_stamp: ConfigStamp) -> ConfigStamp {
        ConfigStamp {
            is_syncing: config_stamp.is_syncing && !self.config.broken.is(Mutation::SyncingCounts),
            memory: self.replica.memory(),
            is_recovering: self.exchange.is_recovering(partition),
            ..config_stamp
        }
    }

    /// The configuration stamp and the known losses of the partition that a request of this node is about.
    pub(super) fn own_config_stamp(&self, request_id: RequestId) -> (ConfigStamp, Losses) {
        let losses = |partition| self.losses.of(partition, self.replica.epoch());
        let key = match request_id.requester {
            Requester::Coordinator => self.coordinator.key_of(request_id.operation),
            Requester::Exchange | Requester::Transfer | Requester::Listing => None,
        };
        if let Some(key) = key {
            let tree = self.held.tree_of(key);
            return (self.config_stamp_of(tree), losses(tree.partition));
        }
        self.partition_of(request_id)
            .map(|partition| (self.config_stamp(partition), losses(partition)))
            .unwrap_or_default()
    }

    /// Passes a request to this node's replica. A request to recover from a loss waits until the loss is durable here.
    pub(super) fn request_own_replica(&mut self, step: &mut Step, caller: Caller, request: ReplicaRequest) {
        if let ReplicaRequest::Recover { key, home, since } = &request {
            let partition = self.held.partition_of(key);
            if !self.losses.has_room(partition, *home) {
                // The peer repeats the request.
                return;
            }
            if !self.losses.note(partition, *home, *since, self.replica.epoch()) {
                return self.waiting.push(self.losses.version(), Waiting::Request(caller, request));
            }
        }
        self.replica.take_request(step.now, caller, request, &mut step.replica);
    }

    /// Passes a peer's question to anti-entropy. If the peer is recovering from a loss, the question waits until that loss is durable here.
    pub(super) fn compare(
        &mut self,
        step: &mut Step,
        from: Home,
        request_id: RequestId,
        config_stamp: ConfigStamp,
        question: Question,
    ) {
        let (partition, epoch) = (question.partition(), self.replica.epoch());
        let is_noted = config_stamp.is_recovering && self.held.partition_state(partition).is_some();
        if is_noted && !self.losses.has_room(partition, from) {
            return;
        }
        if is_noted && !self.losses.note(partition, from, config_stamp.memory.since, epoch) {
            return self.waiting.push(self.losses.version(), Waiting::Compare(from.node, request_id, question));
        }
        self.with_exchange(step, |exchange, cx| exchange.on_question(cx, from.node, request_id, question));
    }

    /// Passes a peer's response to anti-entropy. A new home takes over the losses that the peer knows, which must be durable before the
    /// comparison counts.
    pub(super) fn compared(
        &mut self,
        step: &mut Step,
        from: NodeId,
        request_id: RequestId,
        (config_stamp, losses): (ConfigStamp, &Losses),
        finding: Finding,
    ) {
        // Only a syncing home: two synced ones would pass old losses back and forth for ever.
        let partition = self.exchange.partition_of(request_id.operation);
        let partition = partition.filter(|&partition| self.held.config_stamp(partition).is_syncing);
        let is_durable = partition.is_none_or(|partition| {
            let is_own = |(home, _): &(Home, Since)| *home == self.held.me();
            let of_others: Losses = losses.iter().filter(|known| !is_own(known)).collect();
            self.losses.absorb(partition, &of_others, self.replica.epoch())
        });
        if is_durable {
            self.with_exchange(step, |exchange, cx| exchange.on_finding(cx, from, request_id, config_stamp, finding));
        } else {
            self.with_exchange(step, |exchange, cx| exchange.postpone(cx, request_id.operation));
        }
    }

    /// Saves the losses that other nodes have reported.
    pub(super) fn save_losses(&mut self, step: &mut Step) {
        let Self { losses, replica, .. } = &mut *self;
        let epoch = replica.epoch();
        step.effects.stores.extend(losses.save(step.now.instant, epoch, || replica.next_store()));
    }

    /// Carries out the requests that waited for the save.
    pub(super) fn losses_saved(&mut self, step: &mut Step, result: &StoreResult) {
        let Some(version) = self.losses.stored(step.now.instant, result) else { return };
        for waiting in self.waiting.ready(version) {
            match waiting {
                Waiting::Request(caller, request) => {
                    self.replica.take_request(step.now, caller, request, &mut step.replica)
                }
                Waiting::Compare(from, request_id, question) => {
                    self.with_exchange(step, |exchange, cx| exchange.on_question(cx, from, request_id, question));
                }
            }
        }
    }
}
