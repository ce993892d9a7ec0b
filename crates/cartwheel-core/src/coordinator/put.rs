//! Writes (paper, sections 4.4 to 4.6).
//!
//! This node's replica gives the write its dot and stores it. Then the other homes store the result, and W of them
//! acknowledge it. The next healthy node stands in for a home that is down or late, so that in the end n nodes hold the
//! write whatever fails.

use std::time::Duration;

use super::forward::is_tried_once;
use super::get::{READ, context_of, dots_of, send_reads};
use super::read_round::{Joined, Progress, ReadRound};
use super::write_round::{StandIn, WriteRound};
use super::{Next, OperationContext, OperationEvent, OwnFailure, ReplyTo, quorum};
use crate::cluster::configuration::{ConfigStamp, Homes};
use crate::cluster::liveness::Status;
use crate::cluster::membership::{BucketSettings, Conflict};
use crate::message::client::{Consistency, Put, PutDone, Refusal, Reply, Retry, Shortfall};
use crate::message::{Confirm, Failure, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role};
use crate::mutation::Mutation;
use crate::replica::{Mint, MintRefused, Minted, Stamp};
use crate::ring::N_MAX;
use crate::ring::quorum::Quorum;
use crate::value::clock::Run;
use crate::value::context::Context;
use crate::value::dot::NodeId;
use crate::value::state::Content;
use crate::value::time::Instant;

const MINT: u32 = 2;
const WRITE: u32 = 3;
/// The round of a request to a stand-in is this plus its choice ([`StandIn::choice`]).
const STAND_IN: u32 = WRITE;

/// How long an acknowledged put keeps sending to homes that have not stored it, before it leaves them to anti-entropy.
const LINGER: Duration = Duration::from_secs(2);

/// A put that has been validated against the bucket's settings.
pub(super) struct Checked {
    pub(super) put: Put,
    homes: Homes,
    /// All homes, in the order in which they are tried.
    order: Vec<NodeId>,
    settings: BucketSettings,
    context: Option<Context>,
    /// How many homes must store the write.
    w: Quorum,
    /// How many homes a strong put reads first; none for an eventual put.
    reads: Option<Quorum>,
}

impl Checked {
    pub(super) fn new(cx: &OperationContext<'_>, put: Put) -> Result<Self, Refusal> {
        let settings = *cx.view.settings(put.key.bucket());
        if let Content::Value { bytes, .. } = &put.content
            && bytes.len() as u64 > u64::from(settings.max_value_bytes)
        {
            return Err(Refusal::TooLarge(bytes.len() as u64, u64::from(settings.max_value_bytes)));
        }
        let context = put.context.as_ref().map(|sealed| cx.open(sealed, &put.key)).transpose()?;
        let w = quorum('w', put.w, settings.w, &settings)?;
        let all = Quorum::majority(settings.n);
        let (w, reads) = match put.consistency {
            Consistency::Strong if cx.broken.is(Mutation::StrongPutBlind) => (all, None),
            Consistency::Strong => (all, Some(all)),
            Consistency::Eventual => (Quorum::writes(w, settings.n), None),
        };
        let (homes, order) = (cx.homes(&put.key), cx.own_first(&put.key));
        Ok(Self { put, homes, order, settings, context, w, reads })
    }

    /// The homes that a strong put reads.
    fn readers(&self) -> Vec<(NodeId, Role)> {
        self.order.iter().map(|&home| (home, Role::Home)).collect()
    }

    /// Whether other nodes may stand in for homes.
    pub(super) fn may_use_stand_ins(&self, cx: &OperationContext<'_>) -> bool {
        cx.is_sloppy(&self.put.key, self.put.consistency)
    }

    /// Whether the write rewrites a value that may have been deleted since it was read, and the delete collected. It is stamped as of that value, so
    /// only a delete that its homes still hold keeps it away.
    ///
    /// A delete after the read was made in the epoch before the context's or later, for nodes are at most one epoch apart. The write reaches no
    /// home later than in the epoch after the one in which it begins. So it comes before the delete is collected if it begins in the context's
    /// epoch or in one of the next two: `3 < KEPT_FOR - 1`.
    pub(super) fn rewrites_what_may_be_collected(&self, cx: &OperationContext<'_>) -> bool {
        let is_old = || self.context.as_ref().is_none_or(|context| context.epoch.is_everywhere(cx.epoch));
        self.put.rewrites.is_some() && is_old()
    }

    /// How many homes must store the write: the most that any configuration needs.
    fn needed(&self) -> usize {
        self.homes.needs(self.w).map(|(_, needed)| needed).max().unwrap_or(0)
    }

    /// The bucket's n.
    pub(super) const fn n(&self) -> u8 {
        self.settings.n
    }

    /// The reachable nodes that may stand in for homes.
    fn spare(&self, cx: &OperationContext<'_>) -> Vec<NodeId> {
        if !self.may_use_stand_ins(cx) {
            return Vec::new();
        }
        let mut spare = cx.stand_ins(&self.put.key);
        spare.retain(|&node| node != cx.me);
        spare
    }

    /// Up to `count` possible stand-ins that have not answered of late. Each of these is tried only now and then.
    fn late_ones(&self, cx: &mut OperationContext<'_>, count: usize) -> Vec<NodeId> {
        if count == 0 || !self.may_use_stand_ins(cx) {
            return Vec::new();
        }
        let (late, now) = (cx.late_stand_ins(&self.put.key), cx.now.instant);
        late.into_iter().filter(|&node| cx.reach.may_send(node, now)).take(count).collect()
    }

    /// The home for which this node stands in as coordinator, if it is not a home itself: an unreachable one if there
    /// is one.
    fn stands_in_for(&self, cx: &OperationContext<'_>) -> Option<NodeId> {
        let homes = cx.own_first(&self.put.key);
        let unreachable = homes.iter().find(|&&home| !cx.is_reachable(home)).or(homes.first());
        if cx.held.is_home(&self.put.key) { None } else { unreachable.copied() }
    }
}

/// Which requests a put sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// The write to all homes that seem reachable, and to stand-ins for the others.
    First,
    /// The write to a stand-in for each late or full home that has none.
    ToStandIns,
    /// Every unanswered request once more, and the write to new stand-ins in place of those that have not answered.
    Again,
}

/// Whether to send to a home now. A late home that a stand-in can replace is tried only now and then.
fn may_send(cx: &mut OperationContext<'_>, round: &WriteRound, home: NodeId) -> bool {
    !round.may_stand_in(home) && !round.has_stand_in(home) || cx.reach.may_send(home, cx.now.instant)
}

/// A put under way, coordinated by a home of the key or by a stand-in for one.
pub(super) struct PutOp {
    id: u64,
    reply_to: ReplyTo,
    deadline: Instant,
    checked: Checked,
    /// Another coordinator that has not answered may have stored it, so a refusal by this node alone is not final.
    may_be_stored: bool,
    phase: PutPhase,
}

enum PutPhase {
    /// A strong put reads a majority first: its timestamp must be above all that a majority holds.
    Reading(ReadRound),
    Minting {
        context: Context,
        /// The home for which this node stores the write, if this node is not a home.
        stands_in_for: Option<NodeId>,
    },
    Writing {
        round: WriteRound,
        minted: Box<Minted>,
        context: Context,
        /// When it was first sent.
        sent_at: Instant,
        /// When unanswered requests are sent again.
        resend_at: Instant,
        /// Set once the client has its response: until then the put keeps sending to homes that have not stored it.
        lingers_until: Option<Instant>,
    },
}

impl PutOp {
    pub(super) fn new(id: u64, reply_to: ReplyTo, deadline: Instant, checked: Checked) -> Self {
        let reading =
            ReadRound::in_order(checked.homes.clone(), checked.readers(), checked.reads.unwrap_or(Quorum::from(0)));
        let phase = PutPhase::Reading(reading);
        Self { id, reply_to, deadline, checked, may_be_stored: false, phase }
    }

    /// The same for a put that other coordinators were given. `may_be_stored`: one of them may have stored it.
    pub(super) fn after_others(self, may_be_stored: bool) -> Self {
        Self { may_be_stored, ..self }
    }

    /// Whether the client has its response.
    pub(super) const fn has_replied(&self) -> bool {
        matches!(self.phase, PutPhase::Writing { lingers_until: Some(_), .. })
    }

    pub(super) fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
        match event {
            OperationEvent::Begin => match self.checked.reads {
                Some(_) => self.read(cx),
                None => self.mint(cx, None),
            },
            OperationEvent::Response(from, round, config_stamp, response) => {
                self.on_response(cx, from, round, config_stamp, response)
            }
            OperationEvent::Moved => self.moved(cx),
            OperationEvent::Minted(result) => self.minted(cx, result),
            OperationEvent::Timer => self.woken(cx),
            OperationEvent::Forwarded(..) => self.wait(cx),
        }
    }

    fn moved(&mut self, cx: &mut OperationContext<'_>) -> Next {
        let (homes, spare) = (cx.homes(&self.checked.put.key), self.checked.spare(cx));
        (self.checked.homes, self.checked.order) = (homes.clone(), cx.own_first(&self.checked.put.key));
        match &mut self.phase {
            PutPhase::Reading(reading) => {
                reading.move_to(homes, self.checked.readers());
                self.read(cx)
            }
            PutPhase::Minting { .. } => self.wait(cx),
            PutPhase::Writing { round, .. } => {
                round.move_to(homes, spare);
                self.send(cx, Sending::First);
                self.settle(cx)
            }
        }
    }

    fn on_response(
        &mut self,
        cx: &mut OperationContext<'_>,
        from: NodeId,
        round: u32,
        config_stamp: ConfigStamp,
        response: ReplicaResponse,
    ) -> Next {
        match (&mut self.phase, round, response) {
            (PutPhase::Reading(reading), READ, response) => {
                reading.heard(from, config_stamp, response);
                self.read(cx)
            }
            (PutPhase::Writing { round: writing, .. }, WRITE, ReplicaResponse::Stored) => {
                writing.stored(from, config_stamp.memory);
                self.settle(cx)
            }
            (PutPhase::Writing { round: writing, .. }, STAND_IN.., ReplicaResponse::Stored) => {
                writing.hint_stored(from, round - STAND_IN, config_stamp.memory);
                self.settle(cx)
            }
            (
                PutPhase::Writing { round: writing, .. },
                WRITE..,
                ReplicaResponse::Failed(Failure::DiskFull | Failure::HintsFull),
            ) => {
                writing.full(from);
                if writing.is_blocked() && !self.has_replied() {
                    return self.out_of_room(cx);
                }
                self.send(cx, Sending::ToStandIns);
                self.wait(cx)
            }
            _ => self.wait(cx),
        }
    }

    fn woken(&mut self, cx: &mut OperationContext<'_>) -> Next {
        if cx.now.instant >= self.end() {
            return if self.has_replied() { Next::End } else { self.out_of_time(cx) };
        }
        match &mut self.phase {
            PutPhase::Reading(reading) => {
                let requests = reading.hedge();
                send_reads(cx, self.id, &self.checked.put.key, requests);
                self.read(cx)
            }
            PutPhase::Minting { .. } => self.wait(cx),
            PutPhase::Writing { round, resend_at, minted, .. } => {
                let again = cx.now.instant >= *resend_at;
                if again {
                    *resend_at = cx.now.instant + cx.resend_after(&minted.state);
                    // A node that was late for a moment when the write began may be the only other one on this side of
                    // a partition.
                    round.refill(self.checked.spare(cx));
                    round.add_spare(self.checked.late_ones(cx, round.spares_wanted()));
                }
                self.send(cx, if again { Sending::Again } else { Sending::ToStandIns });
                self.wait(cx)
            }
        }
    }

    /// When the operation ends at the latest.
    fn end(&self) -> Instant {
        match &self.phase {
            PutPhase::Writing { lingers_until: Some(until), .. } => *until,
            _ => self.deadline,
        }
    }

    fn wait(&self, cx: &OperationContext<'_>) -> Next {
        let at = match &self.phase {
            PutPhase::Reading(_) => cx.now.instant + cx.timing.hedge_after,
            PutPhase::Minting { .. } => self.deadline,
            PutPhase::Writing { round, sent_at, resend_at, .. } => {
                // The next time at which a home without a stand-in becomes late.
                let may_be_covered = |&home: &NodeId| round.may_stand_in(home) || round.may_cross(home);
                let alone = round.missing().into_iter().filter(may_be_covered);
                let soon = cx.now.instant + Duration::from_millis(1);
                let late = alone.map(|home| (*sent_at + cx.reach.patience(home)).max(soon));
                late.chain([*resend_at]).min().unwrap_or(*resend_at)
            }
        };
        Next::Until(at.min(self.end()))
    }

    fn read(&mut self, cx: &mut OperationContext<'_>) -> Next {
        let PutPhase::Reading(reading) = &mut self.phase else { return self.wait(cx) };
        match reading.progress() {
            Progress::Wait(requests) => {
                send_reads(cx, self.id, &self.checked.put.key, requests);
                self.wait(cx)
            }
            Progress::Short => self.refuse(cx, "too few replicas can be reached; nothing was written"),
            Progress::Enough(_) if cx.is_behind(&self.checked.put.key) => self.wait(cx),
            Progress::Enough(joined) => self.mint(cx, Some(*joined)),
        }
    }

    fn mint(&mut self, cx: &mut OperationContext<'_>, joined: Option<Joined>) -> Next {
        // Check for full disks before any replica has stored the write, while it can still be refused for certain.
        let candidates = [self.checked.homes.all(), self.checked.spare(cx)].concat();
        if cx.full.leave_too_few(&candidates, self.checked.needed(), Some(cx.me), cx.now.instant) {
            return self.refuse_as_full(cx);
        }
        let put = &self.checked.put;
        let blind = || Context { epoch: cx.epoch, ..Context::default() };
        let context = self.checked.context.clone().unwrap_or_else(blind);
        let Retry::Named(write_id) = put.retry else {
            return self.refuse(cx, "the write was not named: this is a defect of the node");
        };
        let stands_in_for = self.checked.stands_in_for(cx);
        if stands_in_for.is_some() && !self.checked.may_use_stand_ins(cx) {
            // It was a home when the put began. What it stored now would count for no home.
            return Next::Reroute(Box::new(put.clone()), OwnFailure::NoHome);
        }
        let mint = Mint {
            key: put.key.clone(),
            content: put.content.clone(),
            expires: put.expires,
            deadline: self.deadline,
            write_id,
            seen: context.seen.clone(),
            stamp: self.stamp(joined.is_some()),
            covers_held: self.checked.settings.conflict == Conflict::Lww,
            base: joined.map(|joined| joined.state),
            stands_in_for,
        };
        cx.out
            .calls
            .mints
            .push((RequestId { requester: Requester::Coordinator, operation: self.id, round: MINT }, mint));
        self.phase = PutPhase::Minting { context, stands_in_for };
        self.wait(cx)
    }

    /// The timestamp of the write. Under last write wins, the node that took an eventual write from its client decides
    /// it, for as long as the client waits. A strong write is stamped above what a majority holds (`has_read`). With
    /// siblings the timestamp decides nothing.
    fn stamp(&self, has_read: bool) -> Stamp {
        let stamp = self.checked.put.stamp.filter(|_| self.checked.settings.conflict == Conflict::Lww && !has_read);
        match (self.reply_to, stamp) {
            (ReplyTo::Peer(..), Some(stamp)) => Stamp::Fixed(stamp),
            (_, Some(stamp)) if self.checked.put.rewrites.is_some() => Stamp::Fixed(stamp),
            (_, stamp) => Stamp::Here(stamp),
        }
    }

    fn minted(&mut self, cx: &mut OperationContext<'_>, result: Result<Minted, MintRefused>) -> Next {
        let PutPhase::Minting { context, stands_in_for } = &self.phase else { return self.wait(cx) };
        match result {
            Ok(minted) => {
                let context = self.context_after(cx, context.clone(), &minted);
                let may_cross = self.checked.may_use_stand_ins(cx) && !cx.broken.is(Mutation::ListsStandApart);
                let mut round = WriteRound::new(self.checked.homes.clone(), self.checked.spare(cx), self.checked.w)
                    .crossing(may_cross);
                match *stands_in_for {
                    Some(home) => round.stored_for(cx.me, home, cx.memory),
                    None => round.stored(cx.me, cx.memory),
                }
                let resend_at = cx.now.instant + cx.resend_after(&minted.state);
                let minted = Box::new(minted);
                let sent_at = cx.now.instant;
                self.phase = PutPhase::Writing { round, minted, context, sent_at, resend_at, lingers_until: None };
                self.send(cx, Sending::First);
                self.settle(cx)
            }
            Err(MintRefused::TooManySiblings(_) | MintRefused::TooManyBytes(..)) if self.may_be_stored => self.refuse(
                cx,
                "this node holds too many unmerged siblings, and another may have stored it; the write may yet appear",
            ),
            Err(MintRefused::TooManySiblings(held)) => {
                cx.out.calls.replies.push((self.reply_to, Err(Refusal::TooManySiblings(held))));
                Next::End
            }
            Err(MintRefused::StampTooLow(held)) => {
                cx.out.calls.replies.push((self.reply_to, Err(Refusal::StampTooLow(held))));
                Next::End
            }
            Err(MintRefused::TooManyBytes(bytes, bytes_max)) => {
                cx.out.calls.replies.push((self.reply_to, Err(Refusal::SiblingsTooLarge(bytes, bytes_max))));
                Next::End
            }
            Err(MintRefused::Late) => self.refuse(cx, "the store was too slow; nothing was written"),
            Err(MintRefused::Failed(Failure::DiskFull | Failure::HintsFull)) => self.own_disk_full(cx),
            // This node's own store failed, so another home may succeed. The write's name keeps it one write.
            Err(MintRefused::Failed(_))
                if matches!(self.reply_to, ReplyTo::Client(_)) && !is_tried_once(cx, &self.checked.put) =>
            {
                Next::Reroute(Box::new(self.checked.put.clone()), OwnFailure::Uncertain)
            }
            Err(MintRefused::Failed(_)) => {
                self.refuse(cx, "the coordinator's own store failed; the write may yet appear")
            }
        }
    }

    /// Nothing was stored here. Another home may carry the write out, if enough nodes have room.
    fn own_disk_full(&self, cx: &mut OperationContext<'_>) -> Next {
        cx.full.note(cx.me, cx.now.instant);
        let candidates = [self.checked.homes.all(), self.checked.spare(cx)].concat();
        let too_few = cx.full.leave_too_few(&candidates, self.checked.needed(), None, cx.now.instant);
        if too_few || !matches!(self.reply_to, ReplyTo::Client(_)) {
            return self.refuse_as_full(cx);
        }
        let own = if self.may_be_stored { OwnFailure::Uncertain } else { OwnFailure::DiskFull };
        Next::Reroute(Box::new(self.checked.put.clone()), own)
    }

    /// Too few of the other homes have room, and this node has stored the write already. The write may yet appear, so
    /// the refusal must not say that nothing was written.
    fn out_of_room(&self, cx: &mut OperationContext<'_>) -> Next {
        if cx.broken.is(Mutation::RefuseStored) {
            return self.refuse_as_full(cx);
        }
        self.refuse(
            cx,
            "too many of the key's other replicas have full disks: free space on them; the write may yet appear",
        )
    }

    fn refuse_as_full(&self, cx: &mut OperationContext<'_>) -> Next {
        if self.may_be_stored {
            return self
                .refuse(cx, "this node's disk is full, and another may have stored it; the write may yet appear");
        }
        cx.out.calls.replies.push((self.reply_to, Err(Refusal::DiskFull)));
        Next::End
    }

    /// What the client has seen once its write is stored: what it had seen before, and the write itself. Siblings that
    /// it was not shown are not included.
    fn context_after(&self, cx: &OperationContext<'_>, mut context: Context, minted: &Minted) -> Context {
        context.epoch = cx.epoch;
        if let (Some((dot, hlc)), Retry::Named(id)) = (minted.made, &self.checked.put.retry) {
            context.seen.clock.insert(dot);
            context.seen.hlc = context.seen.hlc.max(hlc);
            context.seen.ids.insert(*id, hlc);
            // A replica that holds this write also covers all that the write had seen.
            context.needs = [dot].into_iter().collect();
            if cx.broken.is(Mutation::NodeWideCounter) {
                context.seen.clock.insert_run(&Run { actor: dot.actor, upto: dot.counter, beyond: vec![] });
            }
        }
        // A reply with a body shows all siblings.
        if self.checked.put.return_body || cx.broken.is(Mutation::ReplyCoversUnseen) {
            let shown = context_of(cx.epoch, &minted.state);
            context.seen.merge(&shown.seen);
            context.needs.merge(&shown.needs);
        }
        context
    }

    /// Sends the write to homes, and to the next healthy nodes in place of homes that are down, full or late.
    fn send(&mut self, cx: &mut OperationContext<'_>, sending: Sending) {
        let PutPhase::Writing { round, minted, sent_at, .. } = &mut self.phase else { return };
        let mut stand_ins = if sending == Sending::Again { round.missing_stand_ins() } else { Vec::new() };
        let mut receivers = Vec::new();
        // Below W, send to a home even if a stand-in covers it: that adds a copy.
        let is_short = !round.is_enough();
        for home in round.missing() {
            let is_covered = round.is_covered(home);
            if is_covered && !is_short {
                continue;
            }
            let is_avoided = round.may_stand_in(home) && cx.liveness.status(home) == Status::Down;
            let is_sent = sending != Sending::ToStandIns && !is_avoided && may_send(cx, round, home);
            if is_sent {
                receivers.push((home, WRITE, None));
            }
            let is_late = !cx.is_reachable(home) || cx.now.instant >= *sent_at + cx.reach.patience(home);
            // The first stand-in may be unreachable too.
            let is_stable = !is_covered && (!round.has_stand_in(home) || sending == Sending::Again);
            if is_late || round.is_full(home) {
                let stand_in = if is_stable { round.stand_in(home) } else { None };
                // On the first sending, the homes alone may be enough.
                let crosses = || if sending == Sending::First { None } else { round.cross(home) };
                stand_ins.extend(stand_in.or_else(crosses));
            }
        }
        if !cx.broken.is(Mutation::VacantPlacesStayEmpty) {
            stand_ins.extend(std::iter::from_fn(|| round.fill(sending == Sending::Again)).take(N_MAX));
        }
        let addressed = |stand_in: &StandIn| (stand_in.node, STAND_IN + stand_in.choice, Some(stand_in.home));
        receivers.extend(stand_ins.iter().map(addressed));
        for (node, round, stands_in_for) in receivers {
            let request = ReplicaRequest::Merge {
                key: self.checked.put.key.clone(),
                state: minted.state.clone(),
                epoch: cx.stamp(Some(minted.epoch)),
                heals: None,
                confirm: Confirm::Stored,
                stands_in_for,
            };
            cx.out.requests.push((
                node,
                RequestId { requester: Requester::Coordinator, operation: self.id, round },
                request,
            ));
        }
    }

    /// Answers the client once W replicas have stored the write, and ends once every home, or a stand-in for it, has.
    fn settle(&mut self, cx: &mut OperationContext<'_>) -> Next {
        let PutPhase::Writing { round, lingers_until, .. } = &mut self.phase else { return self.wait(cx) };
        round.drop_lost(&cx.losses);
        // A response has reported a newer configuration: the nodes that count may be no quorum of that one.
        if !round.is_enough() || lingers_until.is_none() && cx.is_behind(&self.checked.put.key) {
            return self.wait(cx);
        }
        let is_complete = round.is_complete() || !self.checked.may_use_stand_ins(cx);
        if lingers_until.is_none() {
            *lingers_until = Some(cx.now.instant + LINGER);
            self.reply(cx);
        }
        if is_complete { Next::End } else { self.wait(cx) }
    }

    fn reply(&self, cx: &mut OperationContext<'_>) {
        let PutPhase::Writing { round, minted, context, .. } = &self.phase else { return };
        let put = &self.checked.put;
        let acks = cx.acks(round.stored_at_home(), round.homes_stored(), round.stand_ins_stored());
        let body = put.return_body.then(|| cx.shows(&self.checked.settings).got(&put.key, &minted.state, true, acks));
        let sealed = match put.return_body {
            true => cx.sealer.seal_shown(context, || dots_of(&minted.state), &put.key),
            false => cx.sealer.seal(context, &put.key),
        };
        let done = PutDone { context: Some(sealed), acks, body };
        cx.out.calls.replies.push((self.reply_to, Ok(Reply::Put(done))));
    }

    fn out_of_time(&self, cx: &mut OperationContext<'_>) -> Next {
        match &self.phase {
            PutPhase::Reading(_) => self.refuse(cx, "too few replicas answered in time; nothing was written"),
            PutPhase::Minting { .. } | PutPhase::Writing { .. } => {
                self.refuse(cx, "too few replicas stored it in time; the write may yet appear")
            }
        }
    }

    fn refuse(&self, cx: &mut OperationContext<'_>, why: &str) -> Next {
        let (answered, needed) = match &self.phase {
            PutPhase::Reading(reading) => (reading.counted(), reading.needed()),
            PutPhase::Minting { .. } => (0, self.checked.needed()),
            PutPhase::Writing { round, .. } => (round.acknowledged(), round.needed()),
        };
        let short = Shortfall { answered: answered as u32, needed: needed as u32, why: why.to_owned() };
        cx.out.calls.replies.push((self.reply_to, Err(Refusal::Unavailable(short))));
        Next::End
    }
}
