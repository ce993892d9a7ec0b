//! Hinted handoff (paper, section 4.6): delivers a hint to its home, and drops it here once the home has stored it.

use super::get::READ;
use super::{Next, OperationContext, OperationEvent};
use crate::event::Event;
use crate::message::{Confirm, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, StateDigest, Want};
use crate::mutation::Mutation;
use crate::replica::HandedOver;
use crate::value::dot::NodeId;
use crate::value::key::Key;
use crate::value::time::Instant;

const DELIVER: u32 = 2;

/// The delivery of one key to one home.
pub(super) struct HandOverOp {
    id: u64,
    deadline: Instant,
    key: Key,
    to: NodeId,
    /// The digest of the state that was sent.
    sent: Option<StateDigest>,
}

impl HandOverOp {
    pub(super) const fn new(id: u64, deadline: Instant, key: Key, to: NodeId) -> Self {
        Self { id, deadline, key, to, sent: None }
    }

    /// The key and the home.
    pub(super) fn target(&self) -> (Key, NodeId) {
        (self.key.clone(), self.to)
    }

    pub(super) fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
        match event {
            OperationEvent::Begin => self.begin(cx),
            OperationEvent::Response(from, READ, _, ReplicaResponse::State { state, epoch, .. })
                if from == cx.me && self.sent.is_none() =>
            {
                self.sent = Some(state.digest());
                let request = ReplicaRequest::Merge {
                    key: self.key.clone(),
                    state,
                    epoch: cx.stamp(Some(epoch)),
                    heals: None,
                    confirm: Confirm::Stored,
                    stands_in_for: None,
                };
                cx.out.requests.push((
                    self.to,
                    RequestId { requester: Requester::Coordinator, operation: self.id, round: DELIVER },
                    request,
                ));
                Next::Until(self.deadline)
            }
            OperationEvent::Response(from, DELIVER, _, ReplicaResponse::Stored) if from == self.to => {
                // If a newer configuration exists, the node may no longer be a home. The hint stays until this node
                // knows.
                if !cx.is_behind(&self.key) && cx.held.has_home(&self.key, from) {
                    cx.out.events.push(Event::HintDelivered(from));
                    self.ended(cx, self.sent);
                }
                Next::End
            }
            // The delivery is tried again later, whether the home or the read here has failed.
            OperationEvent::Response(_, READ | DELIVER, _, ReplicaResponse::Failed(_)) => Next::End,
            OperationEvent::Timer if cx.now.instant >= self.deadline => Next::End,
            OperationEvent::Response(..)
            | OperationEvent::Moved
            | OperationEvent::Timer
            | OperationEvent::Minted(_)
            | OperationEvent::Forwarded(..) => Next::Until(self.deadline),
        }
    }

    fn begin(&self, cx: &mut OperationContext<'_>) -> Next {
        // Where this node knows no home in its place, the node that the hint is for may know more.
        let is_lost =
            cx.held.knows_no_home_instead_of(&self.key, self.to) && !cx.broken.is(Mutation::DebtSettledWithoutHome);
        if !cx.held.has_home(&self.key, self.to) && !is_lost {
            self.ended(cx, None);
            return Next::End;
        }
        let request = ReplicaRequest::Read { key: self.key.clone(), want: Want::State, role: Role::StandIn };
        cx.out.requests.push((
            cx.me,
            RequestId { requester: Requester::Coordinator, operation: self.id, round: READ },
            request,
        ));
        Next::Until(self.deadline)
    }

    fn ended(&self, cx: &mut OperationContext<'_>, stored: Option<StateDigest>) {
        cx.out.calls.handed_over.push(HandedOver { key: self.key.clone(), to: self.to, stored });
    }
}
