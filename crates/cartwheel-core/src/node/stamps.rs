//! What a node says of itself with each answer, and what it notes of others' losses before it answers.

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
    /// On what this node stands in a partition.
    pub(super) fn config_stamp(&self, partition: PartitionId) -> ConfigStamp {
        self.ours(partition, self.held.config_stamp(partition))
    }

    /// The same about some of its keys.
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

    /// The same for the partition that one of this node's own operations is about, and what is known of its homes' losses.
    pub(super) fn own_config_stamp(&self, request_id: RequestId) -> (ConfigStamp, Losses) {
        let losses = |partition| self.losses.of(partition, self.replica.epoch());
        let key = match request_id.requester {
            Requester::Coordinator => self.coordinator.key_of(request_id.operation),
            Requester::Exchange | Requester::Transfer => None,
        };
        if let Some(key) = key {
            let tree = self.held.tree_of(key);
            return (self.config_stamp_of(tree), losses(tree.partition));
        }
        self.partition_of(request_id)
            .map(|partition| (self.config_stamp(partition), losses(partition)))
            .unwrap_or_default()
    }

    /// Asks this node's replica; what a home recovers from waits until the loss is durable here.
    pub(super) fn ask_own(&mut self, step: &mut Step, caller: Caller, ask: ReplicaRequest) {
        if let ReplicaRequest::Recover { key, home, since } = &ask {
            let partition = self.held.partition_of(key);
            if !self.losses.has_room(partition, *home) {
                // It is asked again.
                return;
            }
            if !self.losses.note(partition, *home, *since, self.replica.epoch()) {
                return self.waiting.push(self.losses.version(), Waiting::Ask(caller, ask));
            }
        }
        self.replica.ask(step.now, caller, ask, &mut step.replica);
    }

    /// A peer compares; if it recovers from a loss, it is answered once that is durable here.
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
        self.with_exchange(step, |exchange, cx| exchange.asked(cx, from.node, request_id, question));
    }

    /// A peer has answered a comparison. A new home takes over what the peer knows of losses: it must be durable before the comparison counts.
    pub(super) fn compared(
        &mut self,
        step: &mut Step,
        from: NodeId,
        request_id: RequestId,
        (config_stamp, losses): (ConfigStamp, &Losses),
        finding: Finding,
    ) {
        // Only a new one: otherwise two homes would take over from each other, for ever, what both have long been free to forget.
        let partition = self.exchange.partition_of(request_id.operation);
        let partition = partition.filter(|&partition| self.held.config_stamp(partition).is_syncing);
        let is_durable = partition.is_none_or(|partition| {
            let is_own = |(home, _): &(Home, Since)| *home == self.held.me();
            let of_others: Losses = losses.iter().filter(|known| !is_own(known)).collect();
            self.losses.absorb(partition, &of_others, self.replica.epoch())
        });
        if is_durable {
            self.with_exchange(step, |exchange, cx| exchange.told(cx, from, request_id, config_stamp, finding));
        } else {
            self.with_exchange(step, |exchange, cx| exchange.begin_anew(cx, request_id.operation));
        }
    }

    /// Saves which losses this node was told of.
    pub(super) fn save_losses(&mut self, step: &mut Step) {
        let Self { losses, replica, .. } = &mut *self;
        let epoch = replica.epoch();
        step.effects.stores.extend(losses.save(step.now.instant, epoch, || replica.next_store()));
    }

    /// They are saved, or not: questions that waited for it are answered.
    pub(super) fn losses_saved(&mut self, step: &mut Step, result: &StoreResult) {
        let Some(version) = self.losses.stored(step.now.instant, result) else { return };
        for waiting in self.waiting.ready(version) {
            match waiting {
                Waiting::Ask(caller, ask) => self.replica.ask(step.now, caller, ask, &mut step.replica),
                Waiting::Compare(from, request_id, question) => {
                    self.with_exchange(step, |exchange, cx| exchange.asked(cx, from, request_id, question));
                }
            }
        }
    }
}
