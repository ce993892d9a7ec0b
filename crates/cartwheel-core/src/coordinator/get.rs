//! Reads (paper, sections 4.5 and 5): R homes answer, their states are joined, and homes that were behind are repaired.

use std::collections::BTreeSet;

use super::agreement::Agreement;
use super::read_round::{Joined, Progress, ReadRequests, ReadRound};
use super::{Next, OperationContext, OperationEvent, ReplyTo, quorum};
use crate::cluster::configuration::ConfigStamp;
use crate::cluster::membership::{BucketSettings, Conflict};
use crate::event::{Event, Repair};
use crate::message::client::{Acks, Consistency, Get, Got, Refusal, Reply, Shortfall, last_live};
use crate::message::{Confirm, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, Want};
use crate::mutation::Mutation;
use crate::replica::gc::Rules;
use crate::ring::quorum::Quorum;
use crate::value::clock::Clock;
use crate::value::context::Context;
use crate::value::dot::NodeId;
use crate::value::hlc::WallMs;
use crate::value::key::Key;
use crate::value::state::{Epoch, Sibling, State};
use crate::value::time::Instant;
use crate::wire::context::Sealer;

/// The round of a read's requests.
pub(super) const READ: u32 = 1;
/// The round of a strong get's write-back.
const WRITE_BACK: u32 = 2;
/// The round of repairs, whose responses no operation waits for.
pub(super) const REPAIR: u32 = u32::MAX;

/// How many hedging delays a get lingers after its reply, to repair homes that answer late.
const LINGER: u32 = 4;

/// A get under way.
pub(super) struct GetOp {
    id: u64,
    reply_to: ReplyTo,
    deadline: Instant,
    key: Key,
    settings: BucketSettings,
    consistency: Consistency,
    wants_context: bool,
    /// What the response must cover, so that it is no older than what the client has seen.
    seen: Clock,
    /// Every home has held what the client has seen for so long that reads need not check it. A stand-in may still lack
    /// it.
    is_seen_by_homes: bool,
    round: ReadRound,
    phase: GetPhase,
}

enum GetPhase {
    Reading,
    /// A strong get is making a majority hold exactly what it will return.
    Agreeing {
        agreement: Box<Agreement>,
        /// The homes that have stored any join of this get.
        confirmed: BTreeSet<NodeId>,
    },
    /// The client has its response. Homes that answer late are still repaired.
    Lingering {
        joined: Box<Joined>,
        until: Instant,
    },
}

impl GetOp {
    pub(super) fn new(
        cx: &OperationContext<'_>,
        id: u64,
        reply_to: ReplyTo,
        deadline: Instant,
        get: Get,
    ) -> Result<Self, Refusal> {
        let settings = *cx.view.settings(get.key.bucket());
        let r = quorum('r', get.r, settings.r, &settings)?;
        let context = get.seen.as_ref().map(|sealed| cx.open(sealed, &get.key)).transpose()?;
        let is_seen_by_homes = context.as_ref().is_some_and(|context| context.epoch.is_everywhere(cx.epoch));
        let seen = context.map_or_else(Clock::new, |context| context.needs_in(cx.epoch));
        let (homes, readers) = (cx.homes(&get.key), cx.readers(&get.key, get.consistency));
        let needed = match get.consistency {
            Consistency::Eventual => Quorum::reads(r, settings.n),
            Consistency::Strong => Quorum::majority(settings.n),
        };
        let may_cross = cx.is_sloppy(&get.key, get.consistency) && !cx.broken.is(Mutation::ListsStandApart);
        let round = ReadRound::in_order(homes, readers, needed).crossing(may_cross);
        let Get { key, consistency, wants_context, .. } = get;
        let phase = GetPhase::Reading;
        Ok(Self {
            id,
            reply_to,
            deadline,
            key,
            settings,
            consistency,
            wants_context,
            seen,
            is_seen_by_homes,
            round,
            phase,
        })
    }

    /// Whether the client has its response.
    pub(super) const fn has_replied(&self) -> bool {
        matches!(self.phase, GetPhase::Lingering { .. })
    }

    pub(super) fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
        match event {
            OperationEvent::Begin => self.advance(cx),
            OperationEvent::Response(from, round, config_stamp, response) => {
                self.on_response(cx, from, round, config_stamp, response)
            }
            OperationEvent::Moved => self.moved(cx),
            OperationEvent::Timer => self.woken(cx),
            OperationEvent::Minted(_) | OperationEvent::Forwarded(..) => self.wait(cx),
        }
    }

    fn moved(&mut self, cx: &mut OperationContext<'_>) -> Next {
        let homes = cx.homes(&self.key);
        self.round.move_to(homes.clone(), cx.readers(&self.key, self.consistency));
        match &mut self.phase {
            GetPhase::Reading => self.advance(cx),
            GetPhase::Agreeing { agreement, .. } => {
                agreement.move_to(homes);
                self.write_back(cx);
                self.settle(cx)
            }
            GetPhase::Lingering { .. } => self.wait(cx),
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
        match (&mut self.phase, round) {
            (GetPhase::Reading, READ) => {
                self.round.heard(from, config_stamp, response);
                self.advance(cx)
            }
            (GetPhase::Agreeing { agreement, confirmed }, WRITE_BACK) => {
                if let ReplicaResponse::Holds { digest, state, loss } = response {
                    confirmed.insert(from);
                    if agreement.holds(from, config_stamp, digest, state.as_ref(), loss.is_none()) {
                        self.write_back(cx);
                    }
                }
                self.settle(cx)
            }
            (GetPhase::Lingering { .. }, READ) => self.on_late_response(cx, from, config_stamp, response),
            _ => self.wait(cx),
        }
    }

    /// A replica has responded after the client got its response. A home that is behind is repaired. If it holds more, the
    /// other homes get that.
    fn on_late_response(
        &mut self,
        cx: &mut OperationContext<'_>,
        from: NodeId,
        config_stamp: ConfigStamp,
        response: ReplicaResponse,
    ) -> Next {
        let is_home = cx.homes(&self.key).contains(from);
        let GetPhase::Lingering { joined, .. } = &mut self.phase else { return self.wait(cx) };
        match &response {
            ReplicaResponse::Digest { digest, .. } if *digest != joined.digest && is_home => {
                self.round.request_state(from);
                send_reads(cx, self.id, &self.key, vec![(from, Role::Home, Want::State)]);
                return self.wait(cx);
            }
            ReplicaResponse::State { state, epoch, .. } => {
                if joined.state.merge(state).changed {
                    joined.digest = joined.state.digest();
                    joined.epoch = joined.epoch.into_iter().chain([*epoch]).min();
                }
                if is_home {
                    joined.held.insert(from, state.digest());
                }
                for node in joined.behind() {
                    repair(cx, self.id, &self.key, joined, node);
                    joined.held.insert(node, joined.digest);
                }
            }
            ReplicaResponse::Digest { .. }
            | ReplicaResponse::Stored
            | ReplicaResponse::Holds { .. }
            | ReplicaResponse::Failed(_) => {}
        }
        self.round.heard(from, config_stamp, response);
        if self.round.is_waiting() { self.wait(cx) } else { Next::End }
    }

    fn woken(&mut self, cx: &mut OperationContext<'_>) -> Next {
        if cx.now.instant >= self.deadline {
            return self.out_of_time(cx);
        }
        match &self.phase {
            GetPhase::Reading => {
                let requests = self.round.hedge();
                send_reads(cx, self.id, &self.key, requests);
                self.advance(cx)
            }
            GetPhase::Agreeing { .. } => {
                self.write_back(cx);
                self.wait(cx)
            }
            GetPhase::Lingering { until, .. } => {
                if cx.now.instant >= *until {
                    return Next::End;
                }
                self.wait(cx)
            }
        }
    }

    fn wait(&self, cx: &OperationContext<'_>) -> Next {
        let at = match &self.phase {
            GetPhase::Reading => cx.now.instant + cx.timing.hedge_after,
            GetPhase::Agreeing { agreement, .. } => cx.now.instant + cx.resend_after(&agreement.joined().state),
            GetPhase::Lingering { until, .. } => *until,
        };
        Next::Until(at.min(self.deadline))
    }

    fn advance(&mut self, cx: &mut OperationContext<'_>) -> Next {
        loop {
            match self.round.progress() {
                Progress::Wait(requests) => {
                    send_reads(cx, self.id, &self.key, requests);
                    return self.wait(cx);
                }
                Progress::Short => return self.refuse(cx, "too few replicas can be reached"),
                // A response has reported a newer configuration: the nodes that count may be no quorum of that one.
                Progress::Enough(_) if cx.is_behind(&self.key) => return self.wait(cx),
                // Only homes can say that the key does not exist.
                Progress::Enough(joined) if !self.shows_anything(cx, &joined.state) && self.round.require_homes() => {}
                Progress::Enough(joined)
                    if self.is_seen_by_homes && joined.at_home == 0 && self.round.require_homes() => {}
                Progress::Enough(joined) if joined.state.clock().covers(&self.seen) => {
                    return self.read(cx, joined);
                }
                // A replica that was not read yet may hold what the client has seen.
                Progress::Enough(_) => {
                    if !self.round.need_more() {
                        return self.refuse(cx, "no replica that answered holds all that the context has seen");
                    }
                }
            }
        }
    }

    /// Whether a client would be shown a value.
    fn shows_anything(&self, cx: &OperationContext<'_>, state: &State) -> bool {
        match self.settings.conflict {
            Conflict::Siblings => state.siblings().any(|held| !held.is_deleted(cx.now.wall)),
            Conflict::Lww => state.latest().is_some_and(|held| !held.is_deleted(cx.now.wall)),
        }
    }

    fn read(&mut self, cx: &mut OperationContext<'_>, joined: Box<Joined>) -> Next {
        if self.consistency == Consistency::Strong {
            let rules =
                Rules { now: cx.epoch, conflict: self.settings.conflict, idle_max: usize::MAX, broken: cx.broken };
            let needed = Quorum::majority(self.settings.n);
            let agreement = Agreement::new(cx.homes(&self.key), needed, *joined, rules).into();
            self.phase = GetPhase::Agreeing { agreement, confirmed: BTreeSet::new() };
            let next = self.settle(cx);
            if matches!(next, Next::Until(_)) {
                self.write_back(cx);
            }
            return next;
        }
        self.reply(cx, &joined.state, cx.acks(joined.at_home, joined.held.keys(), &joined.stand_ins));
        let mut joined = joined;
        for node in joined.behind() {
            repair(cx, self.id, &self.key, &joined, node);
            joined.held.insert(node, joined.digest);
        }
        self.linger(cx, joined)
    }

    fn linger(&mut self, cx: &OperationContext<'_>, joined: Box<Joined>) -> Next {
        let until = cx.now.instant + LINGER * cx.timing.hedge_after;
        self.phase = GetPhase::Lingering { joined, until };
        if self.round.is_waiting() { self.wait(cx) } else { Next::End }
    }

    /// Sends the join to every home that is not known to hold exactly that.
    fn write_back(&self, cx: &mut OperationContext<'_>) {
        let GetPhase::Agreeing { agreement, .. } = &self.phase else { return };
        let joined = agreement.joined();
        for node in agreement.behind() {
            let request = ReplicaRequest::Merge {
                key: self.key.clone(),
                state: joined.state.clone(),
                epoch: cx.stamp(joined.epoch),
                heals: None,
                confirm: Confirm::Exactly,
                stands_in_for: None,
            };
            cx.out.requests.push((
                node,
                RequestId { requester: Requester::Coordinator, operation: self.id, round: WRITE_BACK },
                request,
            ));
        }
    }

    fn settle(&mut self, cx: &mut OperationContext<'_>) -> Next {
        let GetPhase::Agreeing { agreement, .. } = &mut self.phase else { return self.wait(cx) };
        agreement.drop_lost(&cx.losses);
        let GetPhase::Agreeing { agreement, confirmed } = &self.phase else { return self.wait(cx) };
        let homes = cx.homes(&self.key);
        let needed = homes.needs(Quorum::majority(self.settings.n)).map(|(_, needed)| needed).max().unwrap_or(0);
        let unchecked = cx.broken.is(Mutation::StrongGetUnchecked) && confirmed.len() >= needed;
        let (at_home, counted) = match agreement.is_reached() {
            true if cx.is_behind(&self.key) => return self.wait(cx),
            true => (agreement.at_home(), agreement.agreeing()),
            false if unchecked => (confirmed.len(), confirmed.clone()),
            false => return self.wait(cx),
        };
        let joined = agreement.joined();
        self.reply(cx, &joined.state, cx.acks(at_home, &counted, []));
        Next::End
    }

    fn reply(&self, cx: &mut OperationContext<'_>, state: &State, acks: Acks) {
        let got = cx.shows(&self.settings).got(&self.key, state, self.wants_context, acks);
        cx.out.calls.replies.push((self.reply_to, Ok(Reply::Got(got))));
    }

    fn out_of_time(&mut self, cx: &mut OperationContext<'_>) -> Next {
        match &self.phase {
            GetPhase::Reading => self.refuse(cx, "too few replicas answered in time"),
            GetPhase::Agreeing { agreement, .. } => {
                let short = Shortfall {
                    answered: agreement.agreeing().len() as u32,
                    needed: agreement.needed() as u32,
                    why: "no majority of the home replicas came to agree in time".to_owned(),
                };
                cx.out.calls.replies.push((self.reply_to, Err(Refusal::Unavailable(short))));
                Next::End
            }
            GetPhase::Lingering { .. } => Next::End,
        }
    }

    fn refuse(&self, cx: &mut OperationContext<'_>, why: &str) -> Next {
        let homes = cx.homes(&self.key).all().len();
        let short = Shortfall {
            answered: self.round.counted() as u32,
            needed: self.round.needed().min(homes.max(usize::from(self.settings.n))) as u32,
            why: why.to_owned(),
        };
        let nothing =
            self.consistency == Consistency::Eventual && self.seen.is_empty() && !self.round.has_seen_writes();
        let refusal = if nothing { Refusal::Unverified(short) } else { Refusal::Unavailable(short) };
        cx.out.calls.replies.push((self.reply_to, Err(refusal)));
        Next::End
    }
}

pub(super) fn send_reads(cx: &mut OperationContext<'_>, id: u64, key: &Key, requests: ReadRequests) {
    for (node, role, want) in requests {
        let request = ReplicaRequest::Read { key: key.clone(), want, role };
        cx.out.requests.push((
            node,
            RequestId { requester: Requester::Coordinator, operation: id, round: READ },
            request,
        ));
    }
}

/// Sends the join to a home that was behind (read repair).
pub(super) fn repair(cx: &mut OperationContext<'_>, id: u64, key: &Key, joined: &Joined, node: NodeId) {
    cx.out.events.push(Event::Repaired(key.clone(), node, Repair::Read));
    let request = ReplicaRequest::Merge {
        key: key.clone(),
        state: joined.state.clone(),
        epoch: cx.stamp(joined.epoch),
        heals: None,
        confirm: Confirm::Stored,
        stands_in_for: None,
    };
    cx.out.requests.push((
        node,
        RequestId { requester: Requester::Coordinator, operation: id, round: REPAIR },
        request,
    ));
}

/// How a node shows clients what a bucket holds.
pub(crate) struct Shows<'a> {
    pub(crate) sealer: &'a Sealer,
    /// The node's epoch.
    pub(crate) epoch: Epoch,
    pub(crate) settings: &'a BucketSettings,
}

impl Shows<'_> {
    /// What a client sees of `state`, under the bucket's conflict policy. There is no context if it wants none, or nothing was ever written.
    pub(crate) fn got(&self, key: &Key, state: &State, wants_context: bool, acks: Acks) -> Got {
        let siblings = match self.settings.conflict {
            Conflict::Siblings => state.distinct_siblings().into_iter().cloned().collect(),
            Conflict::Lww => state.latest().cloned().into_iter().collect(),
        };
        let seal = || self.sealer.seal_shown(&context_of(self.epoch, state), || dots_of(state), key);
        let context = (wants_context && !state.is_empty()).then(seal);
        Got { siblings, context, acks }
    }

    /// What [`Got::last`] gives for what [`Self::got`] gives.
    pub(crate) fn last<'s>(&self, state: &'s State, wall: WallMs) -> Option<&'s Sibling> {
        match self.settings.conflict {
            Conflict::Siblings => last_live(state.distinct_siblings(), wall),
            Conflict::Lww => last_live(state.latest(), wall),
        }
    }
}

/// The dots of the siblings in `state`.
pub(super) fn dots_of(state: &State) -> Clock {
    state.siblings().map(|held| held.dot).collect()
}

/// The context for a client that was shown all of `state`.
pub(super) fn context_of(epoch: Epoch, state: &State) -> Context {
    let recent = state.siblings().filter(|held| !held.epoch.is_everywhere(epoch));
    Context { seen: state.seen(), epoch, needs: recent.map(|held| held.dot).collect() }
}
