//! The side of listing that holds the keys: it answers other nodes' questions from the index and the records.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ListingContext;
use crate::anti_entropy::Exchange;
use crate::cluster::holdings::Holdings;
use crate::cluster::membership::Conflict;
use crate::cluster::sizes::{Size, TreeId};
use crate::message::listing::{KEYS_MAX, ListAnswer, ListFound, ListQuestion, Listing};
use crate::message::{ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, Want};
use crate::replica::Replica;
use crate::ring::{PartitionId, PartitionSet};
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::store::key_index;
use crate::value::dot::NodeId;
use crate::value::hlc::WallMs;
use crate::value::key::{Generation, Key};
use crate::value::position::Position;
use crate::value::state::State;

/// The most questions that a shard works on at once.
const ANSWERS_MAX: usize = 64;
/// How many parts of the index are read for one answer. Where nearly all of its keys belong to other partitions, the answer is short.
const PARTS_MAX: u32 = 8;
/// The least number of entries that a part may have.
const PART_MIN: usize = 64;

/// A question that is being answered.
#[derive(Debug)]
struct Answer {
    from: NodeId,
    request_id: RequestId,
    covered: PartitionSet,
    bucket: Bytes,
    generation: Generation,
    prefix: Bytes,
    keys_max: usize,
    /// Where the next part of the index begins; `None` at the end.
    next: Option<Position>,
    parts: u32,
    /// How many entries the part under way may have.
    entries_max: usize,
    /// The keys found, and whether each has a value; `None` while it is being read.
    found: Vec<(Key, Option<bool>)>,
    unread: usize,
}

/// The questions that a shard works on.
#[derive(Debug, Default)]
pub struct Answers {
    running: BTreeMap<u64, Answer>,
    begun: u64,
    scans: BTreeMap<StoreId, u64>,
}

/// What a home needs to know of itself to answer.
pub struct HomeState<'a> {
    /// Whether the index is whole.
    pub is_indexed: bool,
    /// Anti-entropy, which knows what is counted and what is lost.
    pub exchange: &'a Exchange,
    /// The replica.
    pub replica: &'a mut Replica,
}

impl Answers {
    /// Takes a question.
    pub fn begin(
        &mut self,
        cx: &mut ListingContext<'_>,
        home: &mut HomeState<'_>,
        from: NodeId,
        request_id: RequestId,
        question: ListQuestion,
    ) {
        let covered = covered(cx.held, home, &question);
        let refused = self.running.len() >= ANSWERS_MAX || covered.is_empty();
        match question.listing {
            _ if refused => cx.out.answers.push((from, request_id, ListAnswer::nothing())),
            Listing::Sizes => {
                let found = ListFound::Sizes(sizes(cx.held, home, &covered));
                cx.out.answers.push((from, request_id, ListAnswer { covered, found }));
            }
            Listing::Keys { bucket, generation, after, prefix, keys_max } => {
                self.begun += 1;
                let answer = Answer {
                    from,
                    request_id,
                    covered,
                    bucket,
                    generation,
                    prefix,
                    keys_max: keys_max.clamp(1, KEYS_MAX) as usize,
                    next: Some(after),
                    parts: 0,
                    entries_max: 0,
                    found: Vec::new(),
                    unread: 0,
                };
                self.running.insert(self.begun, answer);
                self.scan(cx, home, self.begun);
            }
        }
    }

    /// Reads the next part of the index.
    fn scan(&mut self, cx: &mut ListingContext<'_>, home: &mut HomeState<'_>, id: u64) {
        let Some(answer) = self.running.get_mut(&id) else { return };
        let Some(after) = &answer.next else { return };
        answer.parts += 1;
        let (from, upto) = key_index::range(&answer.bucket, answer.generation, after);
        let entries_max = PART_MIN.max(2 * (answer.keys_max - answer.found.len()));
        answer.entries_max = entries_max;
        let store_id = home.replica.next_store();
        self.scans.insert(store_id, id);
        cx.out.stores.push((store_id, StoreCommand::ScanIndex { from, upto, entries_max }));
    }

    /// Whether a store command is of this module.
    pub fn waits_for(&self, id: StoreId) -> bool {
        self.scans.contains_key(&id)
    }

    /// Takes the result of a store command.
    pub fn stored(&mut self, cx: &mut ListingContext<'_>, home: &mut HomeState<'_>, id: StoreId, result: StoreResult) {
        let Some(id) = self.scans.remove(&id) else { return };
        let Some(answer) = self.running.get_mut(&id) else { return };
        let StoreResult::Listed(Ok(entries)) = result else { return self.end(cx, id, false) };
        let (mut is_full, mut last) = (false, None);
        for entry in &entries {
            if answer.found.len() >= answer.keys_max {
                is_full = true;
                break;
            }
            last = Some(entry);
            let Some(key) = key_index::parse(entry) else { continue };
            if key.name().starts_with(&answer.prefix) && answer.covered.contains(cx.held.partition_of(&key)) {
                answer.found.push((key, None));
            }
        }
        let is_end = !is_full && entries.len() < answer.entries_max;
        answer.next = last.filter(|_| !is_end).map(|last| key_index::after(last, &answer.bucket));
        if answer.next.is_some() && answer.found.len() < answer.keys_max && answer.parts < PARTS_MAX {
            return self.scan(cx, home, id);
        }
        let is_empty = answer.found.is_empty();
        answer.unread = answer.found.len();
        for (round, (key, _)) in answer.found.iter().enumerate() {
            let request_id = RequestId { requester: Requester::Listing, operation: id, round: round as u32 };
            let read = ReplicaRequest::Read { key: key.clone(), want: Want::State, role: Role::Home };
            cx.out.reads.push((request_id, read));
        }
        if is_empty {
            self.end(cx, id, true);
        }
    }

    /// Takes the response of this node's replica. Returns a key whose index entry is wrong.
    pub fn on_response(
        &mut self,
        cx: &mut ListingContext<'_>,
        wall: WallMs,
        request_id: RequestId,
        response: &ReplicaResponse,
    ) -> Option<Key> {
        let answer = self.running.get_mut(&request_id.operation)?;
        let (key, is_live) = answer.found.get_mut(request_id.round as usize)?;
        if is_live.is_some() {
            return None;
        }
        let ReplicaResponse::State { state, loss: None, .. } = response else {
            self.end(cx, request_id.operation, false);
            return None;
        };
        let conflict = cx.held.view().settings(&answer.bucket).conflict;
        *is_live = Some(shows_a_value(state, conflict, wall));
        let stray = (state.siblings().len() == 0).then(|| key.clone());
        answer.unread -= 1;
        if answer.unread == 0 {
            self.end(cx, request_id.operation, true);
        }
        stray
    }

    fn end(&mut self, cx: &mut ListingContext<'_>, id: u64, is_answered: bool) {
        let Some(answer) = self.running.remove(&id) else { return };
        let answered = if is_answered {
            let live = answer.found.into_iter().filter(|(_, is_live)| *is_live == Some(true));
            let names = live.map(|(key, _)| key.name().clone()).collect();
            ListAnswer { covered: answer.covered, found: ListFound::Keys { names, next: answer.next } }
        } else {
            ListAnswer::nothing()
        };
        cx.out.answers.push((answer.from, answer.request_id, answered));
    }
}

/// Whether a get of a key with this state shows a value.
fn shows_a_value(state: &State, conflict: Conflict, wall: WallMs) -> bool {
    match conflict {
        Conflict::Siblings => state.siblings().any(|held| !held.is_deleted(wall)),
        Conflict::Lww => state.latest().is_some_and(|held| !held.is_deleted(wall)),
    }
}

/// The partitions of a question for which this shard can answer: it is a home, and holds all that a home must.
fn covered(held: &Holdings, home: &HomeState<'_>, question: &ListQuestion) -> PartitionSet {
    let holds = |&partition: &PartitionId| {
        let Some(partition_state) = held.partition_state(partition) else { return false };
        let holds_all = |group| {
            partition_state.holds_all(held.me(), group) && home.exchange.is_recovered(TreeId { partition, group })
        };
        match &question.listing {
            Listing::Keys { bucket, .. } => home.is_indexed && holds_all(held.group(partition, bucket)),
            Listing::Sizes => {
                home.exchange.trees().bucket_sizes(partition).is_some() && holds_all(held.counts(partition).others())
            }
        }
    };
    question.partitions.iter().filter(holds).collect()
}

/// The sizes of buckets' live keys in these partitions.
fn sizes(held: &Holdings, home: &HomeState<'_>, partitions: &PartitionSet) -> BTreeMap<Bytes, Size> {
    let mut sizes = BTreeMap::<Bytes, Size>::new();
    let counted = partitions.iter().filter_map(|partition| home.exchange.trees().bucket_sizes(partition));
    for (bucket, since, size) in counted.flat_map(|counted| counted.iter()) {
        if held.view().form(bucket).generation.since == since {
            *sizes.entry(bucket.clone()).or_default() += size;
        }
    }
    sizes
}
