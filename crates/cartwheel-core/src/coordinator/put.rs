//! Writes (paper, sections 4.4 and 4.5): this node's replica gives the write its dot and stores it, then the other homes store
//! the result, and W of them make it acknowledged.

use super::forward::is_tried_once;
use super::get::{READ, send_questions, show};
use super::read_round::{Joined, Progress, ReadRound};
use super::write_round::WriteRound;
use super::{Cx, Next, Own, ReplyTo, Told, quorum};
use crate::clock::Run;
use crate::context::Context;
use crate::dot::NodeId;
use crate::membership::{BucketSettings, Conflict};
use crate::message::{Answer, Ask, Confirm, Failure, Ticket};
use crate::mutation::Mutation;
use crate::quorum::majority;
use crate::replica::{Mint, MintRefused, Minted};
use crate::request::{Consistency, Put, PutDone, Refusal, Reply, Retry, Shortfall};
use crate::state::Content;
use crate::time::Instant;

const MINT: u32 = 2;
const WRITE: u32 = 3;

/// A put whose parts make sense together.
pub(super) struct Checked {
    pub(super) put: Put,
    /// The homes of the key, this node first if it is one.
    pub(super) homes: Vec<NodeId>,
    settings: BucketSettings,
    context: Option<Context>,
    /// How many homes must store the write.
    w: usize,
    /// How many must say what they hold before it, if any.
    reads: Option<usize>,
}

impl Checked {
    pub(super) fn new(cx: &Cx<'_>, put: Put) -> Result<Self, Refusal> {
        let settings = *cx.view.settings(put.key.bucket());
        if let Content::Value { bytes, .. } = &put.content
            && bytes.len() as u64 > u64::from(settings.max_value_bytes)
        {
            return Err(Refusal::TooLarge(bytes.len() as u64, u64::from(settings.max_value_bytes)));
        }
        let context = put.context.as_ref().map(|sealed| cx.open(sealed, &put.key)).transpose()?;
        let w = quorum('w', put.w, settings.w, &settings)?;
        let all = majority(usize::from(settings.n));
        let (w, reads) = match put.consistency {
            Consistency::Strong if cx.broken.is(Mutation::StrongPutBlind) => (all, None),
            Consistency::Strong => (all, Some(all)),
            Consistency::Eventual => (w, None),
        };
        let homes = cx.homes(&put.key, settings.n);
        Ok(Self { put, homes, settings, context, w, reads })
    }
}

/// A put under way, on one of the key's homes.
pub(super) struct PutOp {
    id: u64,
    reply_to: ReplyTo,
    deadline: Instant,
    checked: Checked,
    phase: Phase,
}

enum Phase {
    /// A strong put must be stamped above what a majority holds.
    Reading(ReadRound),
    Minting {
        context: Context,
    },
    Writing {
        round: WriteRound,
        minted: Box<Minted>,
        context: Context,
    },
}

impl PutOp {
    pub(super) fn new(id: u64, reply_to: ReplyTo, deadline: Instant, checked: Checked) -> Self {
        let phase = Phase::Reading(ReadRound::new(checked.homes.clone(), checked.reads.unwrap_or(0)));
        Self { id, reply_to, deadline, checked, phase }
    }

    pub(super) fn told(&mut self, cx: &mut Cx<'_>, told: Told) -> Next {
        match told {
            Told::Begin => match self.checked.reads {
                Some(_) => self.read(cx),
                None => self.mint(cx, None),
            },
            Told::Answer(from, round, answer) => self.answered(cx, from, round, answer),
            Told::Minted(result) => self.minted(cx, result),
            Told::Timer => self.woken(cx),
            Told::Forwarded(..) => self.wait(cx),
        }
    }

    fn answered(&mut self, cx: &mut Cx<'_>, from: NodeId, round: u32, answer: Answer) -> Next {
        match (&mut self.phase, round, answer) {
            (Phase::Reading(reading), READ, answer) => {
                reading.heard(from, answer);
                self.read(cx)
            }
            (Phase::Writing { round: writing, .. }, WRITE, Answer::Stored) => {
                writing.stored(from);
                self.settle(cx)
            }
            (Phase::Writing { round: writing, .. }, WRITE, Answer::Failed(Failure::DiskFull)) => {
                writing.full(from);
                if writing.is_blocked() { self.out_of_room(cx) } else { self.wait(cx) }
            }
            _ => self.wait(cx),
        }
    }

    fn woken(&mut self, cx: &mut Cx<'_>) -> Next {
        if cx.now.instant >= self.deadline {
            return self.out_of_time(cx);
        }
        match &mut self.phase {
            Phase::Reading(reading) => {
                let questions = reading.hedge();
                send_questions(cx, self.id, &self.checked.put.key, questions);
                self.read(cx)
            }
            Phase::Minting { .. } => self.wait(cx),
            Phase::Writing { .. } => {
                self.send(cx);
                self.wait(cx)
            }
        }
    }

    fn wait(&self, cx: &Cx<'_>) -> Next {
        let at = match &self.phase {
            Phase::Reading(_) => cx.now.instant + cx.timing.hedge_after,
            Phase::Minting { .. } => self.deadline,
            Phase::Writing { .. } => cx.now.instant + cx.timing.resend_after,
        };
        Next::Until(at.min(self.deadline))
    }

    fn read(&mut self, cx: &mut Cx<'_>) -> Next {
        let Phase::Reading(reading) = &mut self.phase else { return self.wait(cx) };
        match reading.progress() {
            Progress::Wait(questions) => {
                send_questions(cx, self.id, &self.checked.put.key, questions);
                self.wait(cx)
            }
            Progress::Short => self.refuse(cx, "too few replicas can be reached; nothing was written"),
            Progress::Enough(joined) => self.mint(cx, Some(*joined)),
        }
    }

    fn mint(&mut self, cx: &mut Cx<'_>, joined: Option<Joined>) -> Next {
        // Better before anyone has stored it than after.
        if cx.full.leave_too_few(&self.checked.homes, self.checked.w, Some(cx.me), cx.now.instant) {
            return self.refuse_as_full(cx);
        }
        let put = &self.checked.put;
        let blind = || Context { epoch: cx.epoch, ..Context::default() };
        let context = self.checked.context.clone().unwrap_or_else(blind);
        let Retry::Named(write_id) = put.retry else {
            return self.refuse(cx, "the write was not named: this is a defect of the node");
        };
        let mint = Mint {
            key: put.key.clone(),
            content: put.content.clone(),
            expires: put.expires,
            deadline: self.deadline,
            write_id,
            seen: context.seen.clone(),
            blind: self.checked.context.is_none(),
            stamp: put.stamp,
            covers_held: self.checked.settings.conflict == Conflict::Lww,
            base: joined.map(|joined| joined.state),
        };
        cx.out.mints.push((Ticket { operation: self.id, round: MINT }, mint));
        self.phase = Phase::Minting { context };
        self.wait(cx)
    }

    fn minted(&mut self, cx: &mut Cx<'_>, result: Result<Minted, MintRefused>) -> Next {
        let Phase::Minting { context } = &self.phase else { return self.wait(cx) };
        match result {
            Ok(minted) => {
                let context = self.context_after(cx, context.clone(), &minted);
                let mut round = WriteRound::new(self.checked.homes.clone(), self.checked.w);
                round.stored(cx.me);
                self.phase = Phase::Writing { round, minted: Box::new(minted), context };
                self.send(cx);
                self.settle(cx)
            }
            Err(MintRefused::TooManySiblings(held)) => {
                cx.out.replies.push((self.reply_to, Err(Refusal::TooManySiblings(held))));
                Next::End
            }
            Err(MintRefused::Late) => self.refuse(cx, "the store was too slow; nothing was written"),
            Err(MintRefused::Failed(Failure::DiskFull)) => self.own_disk_full(cx),
            // The store of this node is the trouble, so another home may do better; the write's name keeps it one write.
            Err(MintRefused::Failed(_))
                if matches!(self.reply_to, ReplyTo::Client(_)) && !is_tried_once(cx, &self.checked.put) =>
            {
                Next::Reroute(Box::new(self.checked.put.clone()), Own::Uncertain)
            }
            Err(MintRefused::Failed(_)) => {
                self.refuse(cx, "the coordinator's own store failed; the write may yet appear")
            }
        }
    }

    /// Nothing was stored here. Another home may do better, if enough of the others have room.
    fn own_disk_full(&self, cx: &mut Cx<'_>) -> Next {
        cx.full.note(cx.me, cx.now.instant);
        let too_few = cx.full.leave_too_few(&self.checked.homes, self.checked.w, None, cx.now.instant);
        if too_few || !matches!(self.reply_to, ReplyTo::Client(_)) {
            return self.refuse_as_full(cx);
        }
        Next::Reroute(Box::new(self.checked.put.clone()), Own::DiskFull)
    }

    /// Too few of the other homes have room for what this one has stored. So the write may yet appear, and it would be wrong to
    /// call it refused.
    fn out_of_room(&self, cx: &mut Cx<'_>) -> Next {
        if cx.broken.is(Mutation::RefuseStored) {
            return self.refuse_as_full(cx);
        }
        self.refuse(
            cx,
            "too many of the key's other replicas have full disks: free space on them; the write may yet appear",
        )
    }

    fn refuse_as_full(&self, cx: &mut Cx<'_>) -> Next {
        cx.out.replies.push((self.reply_to, Err(Refusal::DiskFull)));
        Next::End
    }

    /// What the client has seen once its write is stored: what it had seen before and the write itself, and no sibling that it
    /// was not shown.
    fn context_after(&self, cx: &Cx<'_>, mut context: Context, minted: &Minted) -> Context {
        context.epoch = context.epoch.min(minted.epoch);
        if let (Some((dot, hlc)), Retry::Named(id)) = (minted.made, &self.checked.put.retry) {
            context.seen.clock.insert(dot);
            context.seen.hlc = context.seen.hlc.max(hlc);
            context.seen.ids.insert(*id, hlc);
            if cx.broken.is(Mutation::NodeWideCounter) {
                context.seen.clock.insert_run(&Run { actor: dot.actor, upto: dot.counter, beyond: vec![] });
            }
        }
        // A reply with a body shows all that is there.
        if self.checked.put.return_body || cx.broken.is(Mutation::ReplyCoversUnseen) {
            context.seen.merge(&minted.state.seen());
        }
        context
    }

    fn send(&self, cx: &mut Cx<'_>) {
        let Phase::Writing { round, minted, context } = &self.phase else { return };
        for node in round.missing() {
            let ask = Ask::Merge {
                key: self.checked.put.key.clone(),
                state: minted.state.clone(),
                epoch: context.epoch.min(minted.epoch),
                heals: None,
                confirm: Confirm::Stored,
            };
            cx.out.asks.push((node, Ticket { operation: self.id, round: WRITE }, ask));
        }
    }

    fn settle(&self, cx: &mut Cx<'_>) -> Next {
        let Phase::Writing { round, minted, context } = &self.phase else { return self.wait(cx) };
        if !round.is_enough() {
            return self.wait(cx);
        }
        let put = &self.checked.put;
        let acks = cx.acks(round.acknowledged());
        let body = put
            .return_body
            .then(|| show(cx, &put.key, &self.checked.settings, &minted.state, Some(context.epoch), acks));
        let done = PutDone { context: Some(cx.sealer.seal(context, &put.key)), acks, body };
        cx.out.replies.push((self.reply_to, Ok(Reply::Put(done))));
        Next::End
    }

    fn out_of_time(&self, cx: &mut Cx<'_>) -> Next {
        match &self.phase {
            Phase::Reading(_) => self.refuse(cx, "too few replicas answered in time; nothing was written"),
            Phase::Minting { .. } | Phase::Writing { .. } => {
                self.refuse(cx, "too few replicas stored it in time; the write may yet appear")
            }
        }
    }

    fn refuse(&self, cx: &mut Cx<'_>, why: &str) -> Next {
        let (answered, needed) = match &self.phase {
            Phase::Reading(reading) => (reading.counted(), reading.needed()),
            Phase::Minting { .. } => (0, self.checked.w),
            Phase::Writing { round, .. } => (round.acknowledged().len(), round.needed()),
        };
        let short = Shortfall { answered: answered as u32, needed: needed as u32, why: why.to_owned() };
        cx.out.replies.push((self.reply_to, Err(Refusal::Unavailable(short))));
        Next::End
    }
}
