//! Restores: a key's state as a backup holds it is merged into the replicas.
//!
//! It is merged as if a replica that was long away delivered it: no write gets a dot, so any node can coordinate, and to do it twice is
//! harmless. The homes that are down get it from the others by anti-entropy.

use super::write_round::WriteRound;
use super::{Next, OperationContext, OperationEvent, ReplyTo};
use crate::message::client::{PutDone, Refusal, Reply, Restore, Shortfall};
use crate::message::{Confirm, Failure, ReplicaRequest, ReplicaResponse, RequestId, Requester};
use crate::ring::quorum::Quorum;
use crate::value::time::Instant;

const WRITE: u32 = 3;

/// A restore under way.
pub(super) struct RestoreOp {
    id: u64,
    reply_to: ReplyTo,
    deadline: Instant,
    restore: Restore,
    round: WriteRound,
}

impl RestoreOp {
    pub(super) fn new(
        cx: &OperationContext<'_>,
        id: u64,
        reply_to: ReplyTo,
        deadline: Instant,
        restore: Restore,
    ) -> Self {
        let settings = cx.view.settings(restore.key.bucket());
        let needed = Quorum::writes(settings.w.into(), settings.n);
        // A stand-in would keep a hint. A restore has time to wait for the homes instead.
        let round = WriteRound::new(cx.homes(&restore.key), Vec::new(), needed);
        Self { id, reply_to, deadline, restore, round }
    }

    pub(super) fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
        match event {
            OperationEvent::Begin => {
                self.send(cx);
                self.wait(cx)
            }
            OperationEvent::Moved => {
                self.round.move_to(cx.homes(&self.restore.key), Vec::new());
                self.send(cx);
                self.settle(cx)
            }
            OperationEvent::Response(from, WRITE, config_stamp, ReplicaResponse::Stored) => {
                self.round.stored(from, config_stamp.memory);
                self.settle(cx)
            }
            OperationEvent::Response(from, WRITE, _, ReplicaResponse::Failed(Failure::DiskFull)) => {
                self.round.full(from);
                let why = "too many of the key's replicas have full disks: free space on them";
                if self.round.is_blocked() { self.refuse(cx, why) } else { self.wait(cx) }
            }
            OperationEvent::Response(_, WRITE, _, ReplicaResponse::Failed(Failure::Superseded)) => {
                self.refuse(cx, "the bucket was emptied while the key was restored")
            }
            OperationEvent::Timer if cx.now.instant >= self.deadline => {
                self.refuse(cx, "too few replicas stored the restored key in time; it may yet appear")
            }
            OperationEvent::Timer => {
                self.send(cx);
                self.settle(cx)
            }
            OperationEvent::Response(..) | OperationEvent::Minted(_) | OperationEvent::Forwarded(..) => self.wait(cx),
        }
    }

    fn wait(&self, cx: &OperationContext<'_>) -> Next {
        Next::Until((cx.now.instant + cx.resend_after(&self.restore.state)).min(self.deadline))
    }

    /// Sends the state to the homes that have not confirmed it. The stamp is the epoch in which the restore began: what an administrator restores
    /// is news of that time, however old the backup is.
    fn send(&self, cx: &mut OperationContext<'_>) {
        for home in self.round.missing() {
            let request = ReplicaRequest::Merge {
                key: self.restore.key.clone(),
                state: self.restore.state.clone(),
                epoch: cx.stamp(None),
                heals: None,
                confirm: Confirm::Stored,
                stands_in_for: None,
            };
            let request_id = RequestId { requester: Requester::Coordinator, operation: self.id, round: WRITE };
            cx.out.requests.push((home, request_id, request));
        }
    }

    fn settle(&mut self, cx: &mut OperationContext<'_>) -> Next {
        self.round.drop_lost(&cx.losses);
        if !self.round.is_enough() || cx.is_behind(&self.restore.key) {
            return self.wait(cx);
        }
        let acks = cx.acks(self.round.stored_at_home(), self.round.homes_stored(), []);
        cx.out.calls.replies.push((self.reply_to, Ok(Reply::Put(PutDone { context: None, acks, body: None }))));
        Next::End
    }

    fn refuse(&self, cx: &mut OperationContext<'_>, why: &str) -> Next {
        let (answered, needed) = (self.round.acknowledged() as u32, self.round.needed() as u32);
        let short = Shortfall { answered, needed, why: why.to_owned() };
        cx.out.calls.replies.push((self.reply_to, Err(Refusal::Unavailable(short))));
        Next::End
    }
}
