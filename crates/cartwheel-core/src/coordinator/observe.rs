//! Deletes without a context: they delete what a get sees.
//!
//! The node that took the request reads once what there is to delete. If each coordinator that the delete is tried on
//! read for itself, a late attempt would delete what was written after the client had its response.

use super::get::{READ, context_of, dots_of, send_reads};
use super::read_round::{Joined, Progress, ReadRound};
use super::{Next, OperationContext, OperationEvent, ReplyTo, quorum};
use crate::cluster::membership::BucketSettings;
use crate::message::client::{Consistency, Put, PutDone, Refusal, Reply, Retry, Shortfall};
use crate::ring::quorum::Quorum;
use crate::value::state::State;
use crate::value::time::Instant;

/// A delete that reads what it is to delete.
pub(super) struct ObserveOp {
    id: u64,
    reply_to: ReplyTo,
    deadline: Instant,
    put: Put,
    settings: BucketSettings,
    round: ReadRound,
}

impl ObserveOp {
    pub(super) fn new(
        cx: &OperationContext<'_>,
        id: u64,
        reply_to: ReplyTo,
        deadline: Instant,
        put: Put,
    ) -> Result<Self, Refusal> {
        let settings = *cx.view.settings(put.key.bucket());
        quorum('w', put.w, settings.w, &settings)?;
        let needed = match put.consistency {
            Consistency::Eventual => Quorum::reads(settings.r.into(), settings.n),
            Consistency::Strong => Quorum::majority(settings.n),
        };
        let readers = cx.readers(&put.key, put.consistency);
        let round = ReadRound::in_order(cx.homes(&put.key), readers, needed);
        Ok(Self { id, reply_to, deadline, put, settings, round })
    }

    pub(super) fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
        match event {
            OperationEvent::Begin => self.advance(cx),
            OperationEvent::Response(from, READ, config_stamp, response) => {
                self.round.heard(from, config_stamp, response);
                self.advance(cx)
            }
            OperationEvent::Moved => {
                let readers = cx.readers(&self.put.key, self.put.consistency);
                self.round.move_to(cx.homes(&self.put.key), readers);
                self.advance(cx)
            }
            OperationEvent::Timer if cx.now.instant >= self.deadline => self.refuse(cx),
            OperationEvent::Timer => {
                let requests = self.round.hedge();
                send_reads(cx, self.id, &self.put.key, requests);
                self.advance(cx)
            }
            OperationEvent::Response(..) | OperationEvent::Minted(_) | OperationEvent::Forwarded(..) => self.wait(cx),
        }
    }

    fn wait(&self, cx: &OperationContext<'_>) -> Next {
        Next::Until((cx.now.instant + cx.timing.hedge_after).min(self.deadline))
    }

    fn advance(&mut self, cx: &mut OperationContext<'_>) -> Next {
        match self.round.progress() {
            Progress::Wait(requests) => {
                send_reads(cx, self.id, &self.put.key, requests);
                self.wait(cx)
            }
            Progress::Short => self.refuse(cx),
            Progress::Enough(_) if cx.is_behind(&self.put.key) => self.wait(cx),
            // Only homes can say that the key does not exist.
            Progress::Enough(joined) if joined.state.is_empty() && self.round.require_homes() => self.advance(cx),
            Progress::Enough(joined) if joined.state.is_empty() => self.nothing_to_delete(cx, &joined),
            Progress::Enough(joined) => Next::Place(Box::new(self.delete_seen(cx, &joined))),
        }
    }

    /// The delete, with what was read as its context.
    fn delete_seen(&self, cx: &OperationContext<'_>, joined: &Joined) -> Put {
        let mut context = context_of(cx.epoch, &joined.state);
        // A retry may have met its own tombstone, which must not be noted as replaced.
        if let Retry::Named(own) = &self.put.retry {
            context.seen.ids.remove(own);
        }
        Put {
            context: Some(cx.sealer.seal_shown(&context, || dots_of(&joined.state), &self.put.key)),
            ..self.put.clone()
        }
    }

    fn nothing_to_delete(&self, cx: &mut OperationContext<'_>, joined: &Joined) -> Next {
        let acks = cx.acks(joined.at_home, joined.held.keys(), &joined.stand_ins);
        let shown =
            |cx: &OperationContext<'_>| cx.shows(&self.settings).got(&self.put.key, &State::default(), true, acks);
        let body = self.put.return_body.then(|| shown(cx));
        cx.out.calls.replies.push((self.reply_to, Ok(Reply::Put(PutDone { context: None, acks, body }))));
        Next::End
    }

    fn refuse(&self, cx: &mut OperationContext<'_>) -> Next {
        let short = Shortfall {
            answered: self.round.counted() as u32,
            needed: self.round.needed() as u32,
            why: "too few replicas said in time what there is to delete; nothing was deleted".to_owned(),
        };
        cx.out.calls.replies.push((self.reply_to, Err(Refusal::Unavailable(short))));
        Next::End
    }
}
