//! Writes that another node coordinates, because this one is no home of the key or cannot store it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{Cx, Next, OperationEvent, Own, ReplyTo};
use crate::cluster::membership::Conflict;
use crate::message::client::{Consistency, Put, PutDone, Refusal, Reply, Shortfall};
use crate::message::{RequestId, Requester};
use crate::value::dot::NodeId;
use crate::value::hlc::{Hlc, WallMs};
use crate::value::time::Instant;

/// How many times as long as for a replica's answer a coordinator is waited for before another is tried.
const FORWARD_PATIENCE: u32 = 8;

/// How often a write gets a later timestamp because a coordinator holds something later, and how much further above that each time, in
/// milliseconds: on a key that others write all the time, the next timestamp would be too low again by the time it arrives.
const RAISES_MS: [u64; 7] = [0, 0, 1, 4, 16, 64, 256];
/// No raise goes further ahead of the wall clock than this, but for what must be won over.
const RAISE_AHEAD_MS_MAX: u64 = 1_000;

/// A forwarded put under way. It goes to one home after another until one has carried it out; the write's name keeps it one
/// write, whichever of them did.
///
/// Under last write wins this node alone decides its timestamp, and only as long as its client waits. A coordinator that holds something later
/// stores nothing and says so, and the write gets a timestamp above that. So what is acknowledged won over what its coordinator held, and an attempt
/// that arrives late bears a timestamp from before the acknowledgement: it loses to whatever was written since.
pub(super) struct ForwardOp {
    id: u64,
    reply_to: ReplyTo,
    deadline: Instant,
    put: Put,
    untried: VecDeque<NodeId>,
    /// The coordinators that have it and have not said how it ended.
    out: BTreeSet<NodeId>,
    /// It has been handed to some coordinator.
    was_tried: bool,
    /// What the last coordinator said that could not carry it out, and may have.
    shortfall: Option<Shortfall>,
    /// A coordinator has refused it because of full disks: nothing was written there.
    disk_full: bool,
    /// If nobody carries it out, this node does, in the place of a home.
    or_here: bool,
    /// How often it got a later timestamp.
    raises: usize,
    /// When another coordinator is tried.
    next_at: Instant,
    /// When those that have it are sent it again, and how long after that.
    resend_at: Instant,
    resend_after: Duration,
    /// Some coordinator was sent it more than once: what it says that was not done may have been done the first time.
    was_resent: bool,
}

impl ForwardOp {
    /// A put that is to go to one of `homes` after another.
    pub(super) fn new(id: u64, reply_to: ReplyTo, deadline: Instant, put: Put, homes: Vec<NodeId>) -> Self {
        let (untried, out) = (homes.into(), BTreeSet::new());
        Self {
            id,
            reply_to,
            deadline,
            put,
            untried,
            out,
            was_tried: false,
            shortfall: None,
            disk_full: false,
            or_here: false,
            raises: 0,
            next_at: deadline,
            resend_at: deadline,
            resend_after: Duration::ZERO,
            was_resent: false,
        }
    }

    /// A put that this node may carry out itself in the end.
    pub(super) fn or_here(self) -> Self {
        Self { or_here: true, ..self }
    }

    /// A put that this node has tried to carry out.
    pub(super) fn after(mut self, own: Own) -> Self {
        match own {
            Own::Uncertain => self.shortfall = Some(unknown()),
            Own::DiskFull => self.disk_full = true,
            Own::NoHome => {}
        }
        self
    }

    pub(super) fn on_event(&mut self, cx: &mut Cx<'_>, event: OperationEvent) -> Next {
        match event {
            OperationEvent::Begin if self.put.stamp.is_none() => {
                self.put.stamp = Some(cx.clock.tick(cx.now.wall));
                self.try_next(cx)
            }
            OperationEvent::Begin => self.try_next(cx),
            OperationEvent::Timer if cx.now.instant < self.next_at.min(self.deadline) => self.resend(cx),
            OperationEvent::Timer => self.try_next(cx),
            OperationEvent::Forwarded(from, result) => self.ended(cx, from, result),
            OperationEvent::Response(..) | OperationEvent::Minted(_) | OperationEvent::Moved => self.wait(),
        }
    }

    fn ended(&mut self, cx: &mut Cx<'_>, from: NodeId, result: Result<PutDone, Refusal>) -> Next {
        match result {
            Err(Refusal::Unavailable(short)) => {
                self.out.remove(&from);
                self.shortfall = Some(short);
                self.try_next(cx)
            }
            Err(Refusal::StampTooLow(held)) if !matches!(self.reply_to, ReplyTo::Peer(..)) => {
                self.raise(cx, from, held)
            }
            // It says that nothing was done; but if it was asked twice it says so of the second time only.
            Err(Refusal::Overloaded) => {
                self.out.remove(&from);
                self.shortfall.get_or_insert_with(unknown);
                self.try_next(cx)
            }
            // This one and its replicas have not written it, but another may have.
            Err(Refusal::DiskFull) => {
                self.out.remove(&from);
                self.disk_full = true;
                if self.was_resent {
                    self.shortfall.get_or_insert_with(unknown);
                }
                self.try_next(cx)
            }
            // This one has not written it, but another may have.
            Err(Refusal::TooManySiblings(_) | Refusal::SiblingsTooLarge(..))
                if self.shortfall.is_some() || self.was_resent || self.out.iter().any(|&other| other != from) =>
            {
                self.out.remove(&from);
                self.try_next(cx)
            }
            result => {
                cx.out.calls.replies.push((self.reply_to, result.map(Reply::Put)));
                Next::End
            }
        }
    }

    /// Goes to the same coordinator again, above what it holds.
    fn raise(&mut self, cx: &mut Cx<'_>, from: NodeId, held: Hlc) -> Next {
        if self.put.stamp.is_some_and(|stamp| stamp > held) {
            // It says so of an earlier attempt.
            return self.wait();
        }
        self.out.remove(&from);
        match RAISES_MS.get(self.raises) {
            Some(&further_ms) => {
                self.raises += 1;
                let further = Hlc::at(WallMs(held.wall().0.saturating_add(further_ms)));
                let bound = Hlc::at(WallMs(cx.now.wall.0.saturating_add(RAISE_AHEAD_MS_MAX)));
                let tick = cx.clock.tick(cx.now.wall);
                self.put.stamp = Some(tick.max(held.next()).max(further.min(bound)));
                self.untried.push_front(from);
            }
            None => drop(self.shortfall.get_or_insert_with(unknown)),
        }
        self.try_next(cx)
    }

    fn try_next(&mut self, cx: &mut Cx<'_>) -> Next {
        let is_late = cx.now.instant >= self.deadline;
        if (self.was_tried || self.shortfall.is_some()) && is_tried_once(cx, &self.put) {
            self.untried.clear();
        }
        match self.untried.pop_front() {
            Some(home) if !is_late => {
                self.send(cx, home);
                self.out.insert(home);
                self.was_tried = true;
                self.next_at = self.when_to_try_next(cx);
                self.resend_after = cx.resend_after_bytes(self.put.content.weight());
                self.resend_at = cx.now.instant + self.resend_after;
                self.wait()
            }
            None if self.or_here && !is_late && !is_tried_once(cx, &self.put) => {
                let may_be_stored = self.shortfall.is_some() || !self.out.is_empty();
                Next::StandIn(Box::new(self.put.clone()), may_be_stored)
            }
            None if !self.out.is_empty() && !is_late => {
                self.next_at = self.deadline;
                self.wait()
            }
            _ => self.refuse(cx),
        }
    }

    fn send(&self, cx: &mut Cx<'_>, home: NodeId) {
        // With each timestamp it is another question.
        let request_id =
            RequestId { requester: Requester::Coordinator, operation: self.id, round: 1 + self.raises as u32 };
        let budget = self.deadline.since(cx.now.instant);
        cx.out.calls.forwards.push((home, request_id, self.put.clone(), budget, cx.begun));
    }

    /// A question or its answer may have been lost. A coordinator that is at work on it takes no notice, and one that has ended it answers
    /// again: by the write's name it knows what it has done. Most often nothing was lost, so it is sent ever more seldom.
    fn resend(&mut self, cx: &mut Cx<'_>) -> Next {
        if cx.now.instant >= self.resend_at {
            self.out.iter().for_each(|&home| self.send(cx, home));
            self.was_resent = true;
            self.resend_after *= 2;
            self.resend_at = cx.now.instant + self.resend_after;
        }
        self.wait()
    }

    fn refuse(&mut self, cx: &mut Cx<'_>) -> Next {
        let refusal = match self.shortfall.take() {
            None if self.disk_full && self.out.is_empty() => Refusal::DiskFull,
            short => Refusal::Unavailable(short.unwrap_or_else(unknown)),
        };
        cx.out.calls.replies.push((self.reply_to, Err(refusal)));
        Next::End
    }

    fn wait(&self) -> Next {
        Next::Until(self.next_at.min(self.resend_at).min(self.deadline))
    }

    fn when_to_try_next(&self, cx: &Cx<'_>) -> Instant {
        if self.untried.is_empty() && !self.or_here {
            return self.deadline;
        }
        // A coordinator has to wait for others in turn.
        let slowest = self.out.iter().map(|&node| FORWARD_PATIENCE * cx.reach.patience(node)).max();
        let patience = slowest.map_or(cx.timing.forward_after, |slowest| slowest.min(cx.timing.forward_after));
        // Whoever comes last has as long as the first.
        let turns = self.untried.len() + usize::from(self.or_here) + 1;
        let share = self.deadline.since(cx.now.instant) / u32::try_from(turns).unwrap_or(u32::MAX);
        cx.now.instant + patience.min(share)
    }
}

/// A strong put under last write wins is tried on one coordinator only. A try that seems to have failed may surface later, and a
/// register cannot tell it from a new write: it would win over what was acknowledged in between.
pub(super) fn is_tried_once(cx: &Cx<'_>, put: &Put) -> bool {
    let is_register = cx.view.settings(put.key.bucket()).conflict == Conflict::Lww;
    put.consistency == Consistency::Strong && is_register
}

pub(super) fn unknown() -> Shortfall {
    Shortfall {
        answered: 0,
        needed: 1,
        why: "no home of the key carried the write out in time; it may yet appear".to_owned(),
    }
}
