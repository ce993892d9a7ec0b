//! One exchange: compares one tree with one peer, from the root down to the keys that differ.
//!
//! Writes go on meanwhile. Where two sums are equal, both homes held the same at some time after the beginning. Where a
//! key differed, both have stored the join of what they held after it. So at the end each holds all that the other held
//! when the exchange began.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::ExchangeContext;
use super::key_repair::{KeyRepair, RepairProgress, Side};
use crate::admission::WorkClass;
use crate::anti_entropy::merkle::{DEPTH_MAX, FANOUT, Trees};
use crate::cluster::configuration::ConfigStamp;
use crate::cluster::sizes::TreeId;
use crate::event::{Event, Repair};
use crate::message::anti_entropy::{Finding, KeyRange, ListPage, Question, Refused};
use crate::message::{Message, ReplicaRequest, ReplicaResponse, RequestId, Requester};
use crate::mutation::Mutation;
use crate::value::dot::NodeId;
use crate::value::key::Key;
use crate::value::time::{Instant, Now};

/// How many sums one request may list at most.
pub const NODES_MAX: usize = 256;
/// How many keys of one exchange are repaired at once.
const REPAIRS_MAX: usize = 16;
/// How often a request is sent before the exchange fails.
const TRIES_MAX: u32 = 6;
/// The longest time between two tries.
const TRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// An exchange under way.
#[derive(Debug)]
pub struct Session {
    id: u64,
    /// The tree that is compared.
    pub tree: TreeId,
    /// The home that it is compared with.
    pub peer: NodeId,
    /// When it began.
    pub begun: Now,
    /// Whether all records of the peer's replica count, as far as its responses say.
    pub is_recovered: bool,
    /// The configuration stamp of the peer's first response.
    pub config_stamp: Option<ConfigStamp>,
    failed: bool,
    /// Tree nodes to compare, by level and index.
    nodes: VecDeque<(u8, u32)>,
    /// Ranges whose keys are to be listed.
    ranges: VecDeque<KeyRange>,
    pending: Option<(u32, Question)>,
    /// A range whose keys the peer has listed, while this node lists its own.
    listed: Option<(KeyRange, ListPage)>,
    differing: VecDeque<Key>,
    repairs: BTreeMap<u32, KeyRepair>,
    rounds: u32,
    tries: u32,
    /// When the next timer is due.
    pub wake_at: Instant,
}

/// What a session does next.
#[derive(Debug)]
pub enum SessionStep {
    /// It waits.
    Wait,
    /// It has ended.
    End {
        /// Whether both homes hold all that either held when it began.
        is_equal: bool,
    },
}

impl Session {
    /// An exchange that has sent no request yet.
    pub fn new(id: u64, tree: TreeId, peer: NodeId, begun: Now) -> Self {
        Self {
            id,
            tree,
            peer,
            begun,
            is_recovered: true,
            config_stamp: None,
            failed: false,
            nodes: VecDeque::from([(0, 0)]),
            ranges: VecDeque::new(),
            pending: None,
            listed: None,
            differing: VecDeque::new(),
            repairs: BTreeMap::new(),
            rounds: 0,
            tries: 0,
            wake_at: begun.instant,
        }
    }

    /// Goes on as far as it can.
    pub fn advance(&mut self, cx: &mut ExchangeContext<'_>) -> SessionStep {
        let now = cx.now.instant;
        while self.repairs.len() < REPAIRS_MAX
            && !self.differing.is_empty()
            && cx.admission.may_begin(WorkClass::Repair, now)
            && let Some(key) = self.differing.pop_front()
        {
            self.begin_repair(cx, key);
        }
        if self.pending.is_some() || self.listed.is_some() || !self.differing.is_empty() {
            return SessionStep::Wait;
        }
        let tree = self.tree;
        if let Some(&(level, _)) = self.nodes.front() {
            let mut nodes = Vec::new();
            while let Some(&(same, index)) = self.nodes.front()
                && same == level
                && nodes.len() < NODES_MAX
            {
                nodes.push(index);
                self.nodes.pop_front();
            }
            self.send_question(cx, Question::Nodes { tree, level, nodes });
        } else if !self.ranges.is_empty() {
            if cx.admission.may_begin(WorkClass::List, now)
                && let Some(range) = self.ranges.pop_front()
            {
                self.send_question(cx, Question::Keys { tree, range });
            }
        } else if self.repairs.is_empty() {
            return SessionStep::End { is_equal: !self.failed };
        }
        SessionStep::Wait
    }

    /// Whether only admission of more background work keeps it from going on.
    pub fn is_kept_waiting(&self) -> bool {
        let is_due = if self.differing.is_empty() { !self.ranges.is_empty() } else { self.repairs.len() < REPAIRS_MAX };
        is_due && self.pending.is_none() && self.listed.is_none()
    }

    fn round(&mut self) -> u32 {
        self.rounds = self.rounds.wrapping_add(1);
        self.rounds
    }

    fn send_question(&mut self, cx: &mut ExchangeContext<'_>, question: Question) {
        let round = self.round();
        cx.send(self.peer, self.tree.partition, Message::Compare(self.request_id(round), question.clone()));
        self.pending = Some((round, question));
        self.progress(cx);
    }

    const fn request_id(&self, round: u32) -> RequestId {
        RequestId { requester: Requester::Exchange, operation: self.id, round }
    }

    fn progress(&mut self, cx: &ExchangeContext<'_>) {
        self.tries = 0;
        self.wait(cx);
    }

    fn wait(&mut self, cx: &ExchangeContext<'_>) {
        self.wake_at = cx.now.instant + (cx.timing.resend_after * (1 << self.tries)).min(TRY_AFTER_MAX);
    }

    /// Its timer is due: sends unanswered requests again. False if that was done often enough.
    pub fn wake(&mut self, cx: &mut ExchangeContext<'_>) -> bool {
        if self.is_kept_waiting() && self.repairs.is_empty() {
            self.wait(cx);
            return true;
        }
        self.tries += 1;
        if self.tries > TRIES_MAX {
            return false;
        }
        if let Some((round, question)) = &self.pending {
            cx.send(self.peer, self.tree.partition, Message::Compare(self.request_id(*round), question.clone()));
        }
        for (&round, repair) in &self.repairs {
            self.send_repair(cx, round, repair);
        }
        self.wait(cx);
        true
    }

    fn begin_repair(&mut self, cx: &mut ExchangeContext<'_>, key: Key) {
        // A read and the merge that follows it have a round each.
        let (round, _) = (self.round(), self.round());
        let repair = KeyRepair::new(key, cx.epoch);
        self.send_repair(cx, round, &repair);
        self.repairs.insert(round, repair);
        self.progress(cx);
    }

    fn send_repair(&self, cx: &mut ExchangeContext<'_>, round: u32, repair: &KeyRepair) {
        for (side, request) in repair.requests() {
            let to = if side == Side::Here { cx.me } else { self.peer };
            let merges = u32::from(matches!(request, ReplicaRequest::Merge { .. }));
            cx.out.requests.push((to, self.request_id(round.wrapping_add(merges)), request));
        }
    }

    /// Takes in a replica's response.
    pub fn on_response(&mut self, cx: &mut ExchangeContext<'_>, from: NodeId, round: u32, response: ReplicaResponse) {
        let side = match from {
            from if from == cx.me => Side::Here,
            from if from == self.peer => Side::There,
            _ => return,
        };
        // The responses to a merge carry the round after that of the read.
        let round = if self.repairs.contains_key(&round) { round } else { round.wrapping_sub(1) };
        let Some(repair) = self.repairs.get_mut(&round) else { return };
        if side == Side::Here
            && let Some(loss) = response.loss()
        {
            cx.out.calls.heals.push((repair.key.clone(), loss));
        }
        match repair.on_response(side, response) {
            RepairProgress::Waiting => {}
            RepairProgress::Merge => {
                let repair = &self.repairs[&round];
                for (side, _) in repair.requests() {
                    let behind = if side == Side::Here { cx.me } else { self.peer };
                    cx.out.events.push(Event::Repaired(repair.key.clone(), behind, Repair::Exchange));
                }
                self.send_repair(cx, round, repair);
            }
            RepairProgress::Done => drop(self.repairs.remove(&round)),
            RepairProgress::Failed => {
                self.failed = true;
                self.repairs.remove(&round);
            }
        }
        self.progress(cx);
    }

    /// Takes in the peer's finding. Returns a range whose keys the caller lists here and passes to [`Self::on_own_keys`].
    ///
    /// # Errors
    /// If the comparison cannot go on.
    pub fn on_finding(
        &mut self,
        cx: &mut ExchangeContext<'_>,
        trees: &Trees,
        round: u32,
        finding: Finding,
    ) -> Result<Option<KeyRange>, SessionError> {
        let Some((_, question)) = self.pending.take_if(|(pending, _)| *pending == round) else { return Ok(None) };
        match (question, finding) {
            (question, Finding::Refused(Refused::Busy)) => {
                // Handled as if the request had been lost.
                self.pending = Some((round, question));
                Ok(None)
            }
            (_, Finding::Refused(_)) => Err(SessionError::Refused),
            (Question::Nodes { level, nodes, .. }, Finding::Sums { depth, is_recovered, sums }) => {
                self.progress(cx);
                self.is_recovered &= is_recovered;
                if sums.len() != nodes.len() || depth > DEPTH_MAX {
                    return Err(SessionError::Nonsense);
                }
                let mine = trees.get(self.tree).ok_or(SessionError::Refused)?;
                for (index, theirs) in nodes.into_iter().zip(sums) {
                    let sum = mine.node(level, index).ok_or(SessionError::Refused)?;
                    if sum == theirs || (cx.broken.is(Mutation::ExchangeSkipsLastLeaf) && is_last(level, index)) {
                        continue;
                    }
                    // Below a leaf's worth of keys, the keys are listed and the tree is not descended further.
                    let is_small = sum.keys.saturating_add(theirs.keys) <= u64::from(trees.leaf_keys_max());
                    if is_small || level >= depth.min(mine.depth()) {
                        self.list(trees, level, index);
                    } else {
                        self.nodes.extend((0..FANOUT).map(|child| (level + 1, index * FANOUT + child)));
                    }
                }
                Ok(None)
            }
            (Question::Keys { range, .. }, Finding::Keys { is_recovered, page }) => {
                self.progress(cx);
                self.is_recovered &= is_recovered;
                let advances = page.next.as_ref().is_none_or(|next| *next > range.from && range.ends_after(next));
                let end = page.next.clone().or_else(|| range.upto.clone());
                let part = KeyRange { from: range.from.clone(), upto: end };
                if !advances || !page.entries.keys().all(|key| part.contains(key)) {
                    return Err(SessionError::Nonsense);
                }
                self.listed = Some((range, page));
                Ok(Some(part))
            }
            _ => Err(SessionError::Nonsense),
        }
    }

    /// Queues the keys of a tree node to be listed. Adjacent ranges are listed together.
    fn list(&mut self, trees: &Trees, level: u8, index: u32) {
        let Some(range) = trees.grid(self.tree.partition).and_then(|grid| grid.range(level, index)) else { return };
        match self.ranges.back_mut() {
            Some(last) if last.upto.as_ref() == Some(&range.from) => last.upto = range.upto,
            _ => self.ranges.push_back(range),
        }
    }

    /// Takes in this node's own keys of the range that the peer has listed.
    ///
    /// # Errors
    /// If the peer's keys make no sense.
    pub fn on_own_keys(
        &mut self,
        cx: &mut ExchangeContext<'_>,
        trees: &Trees,
        own: ListPage,
    ) -> Result<(), SessionError> {
        let Some((range, theirs)) = self.listed.take() else { return Ok(()) };
        let bound = own.next.iter().chain(&theirs.next).min().cloned();
        let both = KeyRange { from: range.from, upto: bound.clone() };
        let differs = |key: &&Bytes| both.ends_after(key) && own.entries.get(*key) != theirs.entries.get(*key);
        let differing: BTreeSet<&Bytes> = own.entries.keys().chain(theirs.entries.keys()).filter(differs).collect();
        for storage_key in differing {
            let key = Key::from_storage_key(storage_key).map_err(|_| SessionError::Nonsense)?;
            if trees.id_of(&key) != self.tree {
                return Err(SessionError::Nonsense);
            }
            self.differing.push_back(key);
        }
        if let Some(from) = bound {
            self.ranges.push_front(KeyRange { from, upto: range.upto });
        }
        self.progress(cx);
        Ok(())
    }
}

/// Why an exchange cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionError {
    /// One of the two nodes has no tree that is ready, or is no longer a home.
    Refused,
    /// The peer's response makes no sense.
    Nonsense,
}

/// Whether this is the last of several nodes of its level.
const fn is_last(level: u8, index: u32) -> bool {
    level > 0 && index + 1 == 1 << (level as u32 * 4)
}
