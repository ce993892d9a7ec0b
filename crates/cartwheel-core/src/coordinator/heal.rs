//! Healing: how a home that lost a record counts again.
//!
//! It must hold all that a majority of the other homes hold, or all that all of them hold, read after the loss. An
//! earlier read may lack a write that the home itself acknowledged before it lost the record. The homes that are read
//! note the loss first ([`crate::store::loss_book`]).

use super::get::{READ, REPAIR};
use super::read_round::{Joined, Progress, ReadRequests, ReadRound};
use super::{Next, OperationContext, OperationEvent};
use crate::cluster::configuration::Home;
use crate::cluster::losses::{Loss, Memory};
use crate::event::{Event, Repair};
use crate::message::{Confirm, ReplicaRequest, RequestId, Requester};
use crate::ring::quorum::Quorum;
use crate::value::dot::NodeId;
use crate::value::key::Key;
use crate::value::time::Instant;

/// The healing of one reported loss.
pub(super) struct HealOp {
    id: u64,
    deadline: Instant,
    key: Key,
    node: NodeId,
    loss: Loss,
    /// The home's memory when it reported the loss: since when it had lost no further record.
    memory: Memory,
    round: ReadRound,
}

impl HealOp {
    pub(super) fn new(
        cx: &OperationContext<'_>,
        id: u64,
        deadline: Instant,
        key: Key,
        node: NodeId,
        (loss, memory): (Loss, Memory),
    ) -> Self {
        let n = cx.view.settings(key.bucket()).n;
        let others = cx.homes(&key).without(node);
        let fewest = others.lists().map(<[NodeId]>::len).min().unwrap_or(0);
        let needed = Quorum::majority_within(n, fewest);
        Self { id, deadline, key, node, loss, memory, round: ReadRound::of_states(others, needed) }
    }

    /// The loss that it heals: the key, the home and the loss.
    pub(super) fn target(&self) -> (Key, NodeId, Loss) {
        (self.key.clone(), self.node, self.loss)
    }

    pub(super) fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
        match event {
            OperationEvent::Begin => self.advance(cx),
            // The next report of the loss starts another heal.
            OperationEvent::Moved => Next::End,
            OperationEvent::Response(from, READ, config_stamp, response) => {
                self.round.heard(from, config_stamp, response);
                self.advance(cx)
            }
            OperationEvent::Timer if cx.now.instant >= self.deadline => Next::End,
            OperationEvent::Timer => {
                let requests = self.round.hedge();
                self.send(cx, requests);
                self.advance(cx)
            }
            OperationEvent::Response(..) | OperationEvent::Minted(_) | OperationEvent::Forwarded(..) => self.wait(cx),
        }
    }

    /// Each home that is read notes the loss first. Coordinators that hear from it later no longer count what the lost
    /// record held.
    fn send(&self, cx: &mut OperationContext<'_>, requests: ReadRequests) {
        let home = Home { node: self.node, incarnation: self.memory.incarnation };
        for (node, ..) in requests {
            let request = ReplicaRequest::Recover { key: self.key.clone(), home, since: self.memory.since };
            cx.out.requests.push((
                node,
                RequestId { requester: Requester::Coordinator, operation: self.id, round: READ },
                request,
            ));
        }
    }

    fn wait(&self, cx: &OperationContext<'_>) -> Next {
        Next::Until((cx.now.instant + cx.timing.resend_after).min(self.deadline))
    }

    fn advance(&mut self, cx: &mut OperationContext<'_>) -> Next {
        if cx.is_behind(&self.key) {
            return self.wait(cx);
        }
        // Other homes may have lost the record too. Once all have answered there is nothing more to read.
        if let Some(joined) = self.round.all() {
            return self.heal(cx, joined);
        }
        match self.round.progress() {
            Progress::Wait(requests) => {
                self.send(cx, requests);
                self.wait(cx)
            }
            Progress::Enough(joined) => self.heal(cx, *joined),
            Progress::Short => Next::End,
        }
    }

    fn heal(&self, cx: &mut OperationContext<'_>, joined: Joined) -> Next {
        cx.out.events.push(Event::Repaired(self.key.clone(), self.node, Repair::Heal));
        let request = ReplicaRequest::Merge {
            key: self.key.clone(),
            epoch: cx.stamp(joined.epoch),
            state: joined.state,
            heals: Some(self.loss),
            confirm: Confirm::Stored,
            stands_in_for: None,
        };
        cx.out.requests.push((
            self.node,
            RequestId { requester: Requester::Coordinator, operation: self.id, round: REPAIR },
            request,
        ));
        Next::End
    }
}
