//! Writes that another node coordinates, because this one is not a home of the key or cannot store it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{Next, OperationContext, OperationEvent, OwnFailure, ReplyTo};
use crate::cluster::membership::Conflict;
use crate::message::client::{Consistency, Put, PutDone, Refusal, Reply, Shortfall};
use crate::message::{RequestId, Requester};
use crate::value::dot::NodeId;
use crate::value::hlc::{Hlc, WallMs};
use crate::value::time::Instant;

/// The forwarding node waits this many times as long for a coordinator as for a replica's response, before it tries
/// another.
const FORWARD_PATIENCE: u32 = 8;

/// How far above the held timestamp each further raise goes, in milliseconds. Its length bounds the number of raises.
/// On a key with many concurrent writes the next timestamp would be too low again by the time it arrives, so the step
/// grows.
const RAISES_MS: [u64; 7] = [0, 0, 1, 4, 16, 64, 256];
/// A raise goes no further ahead of the wall clock than this, except as far as the held timestamp requires.
const RAISE_AHEAD_MS_MAX: u64 = 1_000;

/// A forwarded put under way. It goes to one home after another until one has carried it out. The write's name keeps it
/// one write, whichever coordinators carry it out.
///
/// Under last write wins this node alone decides the timestamp, and only while its client waits. A coordinator that
/// holds a later write stores nothing and says so, and the write gets a timestamp above that one. So an acknowledged
/// write won over all that its coordinator held. A late attempt carries a timestamp from before the acknowledgement,
/// and loses to whatever was written since.
pub(super) struct ForwardOp {
    id: u64,
    reply_to: ReplyTo,
    deadline: Instant,
    put: Put,
    untried: VecDeque<NodeId>,
    /// The coordinators that were sent the write and have not answered.
    out: BTreeSet<NodeId>,
    /// Whether it has been sent to any coordinator.
    was_tried: bool,
    /// The last shortfall that a coordinator reported; that coordinator may have stored the write.
    shortfall: Option<Shortfall>,
    /// A coordinator has refused it because of full disks, and has written nothing.
    disk_full: bool,
    /// Whether this node stands in for a home if no home carries the write out.
    or_here: bool,
    /// How often its timestamp was raised.
    raises: usize,
    /// When the next coordinator is tried.
    next_at: Instant,
    /// When the write is sent again to the coordinators that have not answered, and the interval after that.
    resend_at: Instant,
    resend_after: Duration,
    /// Whether any coordinator was sent it more than once. Then a refusal may be of the second delivery, after the
    /// first was carried out.
    was_resent: bool,
}

impl ForwardOp {
    /// A put that tries each of `homes` in turn.
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

    /// Lets this node carry the put out as a stand-in if no home does.
    pub(super) fn or_here(self) -> Self {
        Self { or_here: true, ..self }
    }

    /// A put that this node has tried to carry out itself, and how that failed.
    pub(super) fn after(mut self, own: OwnFailure) -> Self {
        match own {
            OwnFailure::Uncertain => self.shortfall = Some(unknown()),
            OwnFailure::DiskFull => self.disk_full = true,
            OwnFailure::NoHome => {}
        }
        self
    }

    pub(super) fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
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

    fn ended(&mut self, cx: &mut OperationContext<'_>, from: NodeId, result: Result<PutDone, Refusal>) -> Next {
        match result {
            Err(Refusal::Unavailable(short)) => {
                self.out.remove(&from);
                self.shortfall = Some(short);
                self.try_next(cx)
            }
            Err(Refusal::StampTooLow(held))
                if self.put.rewrites.is_none() && !matches!(self.reply_to, ReplyTo::Peer(..)) =>
            {
                self.raise(cx, from, held)
            }
            // A coordinator under overload has done nothing. But if it was sent the write twice, that holds for the
            // second delivery only.
            Err(Refusal::Overloaded) => {
                self.out.remove(&from);
                self.shortfall.get_or_insert_with(unknown);
                self.try_next(cx)
            }
            // This coordinator and its replicas have not written it, but another may have.
            Err(Refusal::DiskFull) => {
                self.out.remove(&from);
                self.disk_full = true;
                if self.was_resent {
                    self.shortfall.get_or_insert_with(unknown);
                }
                self.try_next(cx)
            }
            // This coordinator has not written it, but another may have.
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

    /// Sends the write to the same coordinator again, with a timestamp above what that one holds.
    fn raise(&mut self, cx: &mut OperationContext<'_>, from: NodeId, held: Hlc) -> Next {
        if self.put.stamp.is_some_and(|stamp| stamp > held) {
            // The refusal is of an earlier attempt.
            return self.wait();
        }
        self.out.remove(&from);
        match RAISES_MS.get(self.raises) {
            Some(&further_ms) => {
                self.raises += 1;
                let further = Hlc::at(WallMs(held.wall().0.saturating_add(further_ms)));
                let bound = Hlc::at(WallMs(cx.now.wall.0.saturating_add(RAISE_AHEAD_MS_MAX)));
                let tick = cx.clock.tick(cx.now.wall);
                self.put.stamp = Some(tick.max(held.after()).max(further.min(bound)));
                self.untried.push_front(from);
            }
            None => drop(self.shortfall.get_or_insert_with(unknown)),
        }
        self.try_next(cx)
    }

    fn try_next(&mut self, cx: &mut OperationContext<'_>) -> Next {
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

    fn send(&self, cx: &mut OperationContext<'_>, home: NodeId) {
        // Each timestamp makes it a different request.
        let request_id =
            RequestId { requester: Requester::Coordinator, operation: self.id, round: 1 + self.raises as u32 };
        let budget = self.deadline.since(cx.now.instant);
        // Its timestamp is fixed, which is all that a coordinator has to know.
        let put = Put { rewrites: None, ..self.put.clone() };
        cx.out.calls.forwards.push((home, request_id, put, budget, cx.begun));
    }

    /// A request or its response may have been lost, so it is sent again. A coordinator that still works on the write
    /// ignores the repeat, and one that has ended it replies again: the write's name identifies the outcome. Mostly
    /// nothing was lost, so the interval doubles each time.
    fn resend(&mut self, cx: &mut OperationContext<'_>) -> Next {
        if cx.now.instant >= self.resend_at {
            self.out.iter().for_each(|&home| self.send(cx, home));
            self.was_resent = true;
            self.resend_after *= 2;
            self.resend_at = cx.now.instant + self.resend_after;
        }
        self.wait()
    }

    fn refuse(&mut self, cx: &mut OperationContext<'_>) -> Next {
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

    fn when_to_try_next(&self, cx: &OperationContext<'_>) -> Instant {
        if self.untried.is_empty() && !self.or_here {
            return self.deadline;
        }
        // A coordinator has to wait for replicas in turn.
        let slowest = self.out.iter().map(|&node| FORWARD_PATIENCE * cx.reach.patience(node)).max();
        let patience = slowest.map_or(cx.timing.forward_after, |slowest| slowest.min(cx.timing.forward_after));
        // The last candidate gets as much time as the first.
        let turns = self.untried.len() + usize::from(self.or_here) + 1;
        let share = self.deadline.since(cx.now.instant) / u32::try_from(turns).unwrap_or(u32::MAX);
        cx.now.instant + patience.min(share)
    }
}

/// Whether the put may be tried on one coordinator only: a strong put under last write wins. An attempt that seems to
/// have failed may take effect later. A register cannot tell it from a new write, so it would win over writes
/// acknowledged in between.
pub(super) fn is_tried_once(cx: &OperationContext<'_>, put: &Put) -> bool {
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
