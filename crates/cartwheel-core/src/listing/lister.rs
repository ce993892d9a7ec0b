//! The side of listing that a client asks: it asks homes, and merges their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::{Asked, ListingContext};
use crate::cluster::liveness::Status;
use crate::cluster::sizes::Size;
use crate::message::client::{ClientId, Refusal};
use crate::message::listing::{
    KEYS_MAX, ListAnswer, ListFound, ListQuestion, Listed, ListedKey, Listing, earlier, page,
};
use crate::message::{RequestId, Requester};
use crate::ring::{PartitionId, PartitionSet};
use crate::value::dot::NodeId;
use crate::value::key::Key;
use crate::value::position::Position;
use crate::value::time::Instant;
use crate::wire::Protocol;

/// The most lists that a shard makes at once.
const LISTS_MAX: usize = 64;
/// How long a home is waited for before another one is asked.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon homes are asked again where none could answer.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// One partition of a list.
#[derive(Debug, Default)]
struct Part {
    /// How many homes must answer; 0 before the homes are known.
    needed: usize,
    /// The homes that have answered for it.
    answered: BTreeSet<NodeId>,
    /// The homes that were asked and have neither answered nor been found unable.
    asked: BTreeSet<NodeId>,
    /// The homes that could not answer.
    unable: BTreeSet<NodeId>,
}

/// A question that has not been answered.
#[derive(Debug)]
struct Waiting {
    home: NodeId,
    partitions: PartitionSet,
    until: Instant,
}

#[derive(Debug)]
struct List {
    client: ClientId,
    listing: Listing,
    r: u8,
    deadline: Instant,
    parts: BTreeMap<PartitionId, Part>,
    waiting: BTreeMap<u32, Waiting>,
    rounds: u32,
    /// When homes are asked again that could not answer, if there are partitions without any other.
    again_at: Option<Instant>,
    /// Each key with the number of homes that have named it.
    keys: BTreeMap<Key, usize>,
    /// The list is complete up to here; `None` if it is complete.
    upto: Option<Position>,
    sizes: BTreeMap<Bytes, Size>,
}

/// The lists that a shard is making.
#[derive(Debug)]
pub struct Lister {
    lists: BTreeMap<u64, List>,
    next_operation: u64,
    stride: u64,
}

impl Lister {
    /// A lister whose operations have these numbers: the first, and the difference between two.
    pub const fn new(first_operation: u64, stride: u64) -> Self {
        Self { lists: BTreeMap::new(), next_operation: first_operation, stride }
    }

    /// When an answer is late.
    pub fn wake_at(&self) -> Option<Instant> {
        let waiting = self.lists.values().flat_map(|list| list.waiting.values().map(|waiting| waiting.until));
        let lists = self.lists.values();
        waiting.chain(lists.flat_map(|list| list.again_at.into_iter().chain([list.deadline]))).min()
    }

    /// Begins a list.
    pub fn begin(&mut self, cx: &mut ListingContext<'_>, asked: Asked) {
        let Asked { id, request } = asked;
        if self.lists.len() >= LISTS_MAX {
            cx.out.replies.push((id, Err(Refusal::Overloaded)));
            return;
        }
        if cx.all_speak < Protocol::KEY_INDEX {
            let why = "some nodes run a build without an index of keys: finish the upgrade, then try again";
            cx.out.replies.push((id, Err(Refusal::unavailable(why))));
            return;
        }
        if let Listing::Keys { bucket, .. } = &request.listing
            && !cx.held.view().form(bucket).is_indexed
        {
            let why = "the bucket keeps no index, so its keys cannot be listed: it was created with \"index\": false";
            cx.out.replies.push((id, Err(Refusal::BadRequest(why.to_owned()))));
            return;
        }
        self.next_operation += self.stride;
        let operation = self.next_operation;
        let list = List {
            client: id,
            listing: request.listing,
            r: request.r.max(1),
            deadline: cx.now + request.timeout,
            parts: cx.held.partition_states().map(|(partition, _)| (partition, Part::default())).collect(),
            waiting: BTreeMap::new(),
            rounds: 0,
            again_at: None,
            keys: BTreeMap::new(),
            upto: None,
            sizes: BTreeMap::new(),
        };
        self.lists.insert(operation, list);
        self.go_on(cx, operation);
    }

    /// Takes a home's answer.
    pub fn answered(&mut self, cx: &mut ListingContext<'_>, from: NodeId, request_id: RequestId, answer: ListAnswer) {
        let Some(list) = self.lists.get_mut(&request_id.operation) else { return };
        let Some(waiting) = list.waiting.get(&request_id.round).filter(|waiting| waiting.home == from) else { return };
        if answer.covered.iter().any(|partition| !waiting.partitions.contains(partition)) {
            // The home answers what it was not asked: as if it could not answer.
            list.give_up(request_id.round);
        } else {
            list.take(request_id.round, answer);
        }
        self.go_on(cx, request_id.operation);
    }

    /// Asks other homes where an answer is late, and ends what is too late.
    pub fn tick(&mut self, cx: &mut ListingContext<'_>) {
        let now = cx.now;
        let is_late = |list: &List| {
            let again = list.again_at.is_some_and(|at| at <= now);
            again || list.deadline <= now || list.waiting.values().any(|waiting| waiting.until <= now)
        };
        let late: Vec<u64> = self.lists.iter().filter(|(_, list)| is_late(list)).map(|(&id, _)| id).collect();
        for operation in late {
            let Some(list) = self.lists.get_mut(&operation) else { continue };
            let rounds: Vec<u32> =
                list.waiting.iter().filter(|(_, waiting)| waiting.until <= now).map(|(&round, _)| round).collect();
            rounds.into_iter().for_each(|round| list.give_up(round));
            if list.again_at.is_some_and(|at| at <= now) {
                list.begin_again();
            }
            self.go_on(cx, operation);
        }
    }

    fn go_on(&mut self, cx: &mut ListingContext<'_>, operation: u64) {
        let Some(list) = self.lists.get_mut(&operation) else { return };
        list.ask(cx, operation);
        let outcome = match list.again_at {
            _ if cx.now >= list.deadline => Err(Refusal::unavailable("no home of some keys could list them in time")),
            None if list.waiting.is_empty() => Ok(list.listed(cx)),
            _ => return,
        };
        if let Some(list) = self.lists.remove(&operation) {
            cx.out.replies.push((list.client, outcome));
        }
    }
}

impl List {
    /// Asks homes for all partitions that need more answers.
    fn ask(&mut self, cx: &mut ListingContext<'_>, operation: u64) {
        self.again_at = None;
        let mut questions: BTreeMap<NodeId, PartitionSet> = BTreeMap::new();
        for (&partition, part) in &mut self.parts {
            if part.needed > 0 && part.answered.len() + part.asked.len() >= part.needed {
                continue;
            }
            let homes = homes(cx, &self.listing, partition);
            part.needed = usize::from(self.r).min(homes.len()).max(1);
            while part.answered.len() + part.asked.len() < part.needed {
                let is_new =
                    |home: &&NodeId| ![&part.answered, &part.asked, &part.unable].iter().any(|of| of.contains(*home));
                let Some(&home) = homes.iter().find(is_new) else {
                    // A node that has just started may not have counted its keys, or completed its index.
                    self.again_at = Some(cx.now + AGAIN_AFTER);
                    break;
                };
                part.asked.insert(home);
                questions.entry(home).or_default().insert(partition);
            }
        }
        let until = (cx.now + PATIENCE).min(self.deadline);
        for (home, partitions) in questions {
            self.rounds += 1;
            let request_id = RequestId { requester: Requester::Listing, operation, round: self.rounds };
            let question = ListQuestion { partitions: partitions.clone(), listing: self.listing.clone() };
            cx.out.questions.push((home, request_id, question));
            self.waiting.insert(self.rounds, Waiting { home, partitions, until });
        }
    }

    /// Lets all homes be asked again that could not answer.
    fn begin_again(&mut self) {
        self.parts.values_mut().filter(|part| part.answered.len() < part.needed).for_each(|part| part.unable.clear());
    }

    fn give_up(&mut self, round: u32) {
        let Some(Waiting { home, partitions, .. }) = self.waiting.remove(&round) else { return };
        for partition in partitions.iter() {
            if let Some(part) = self.parts.get_mut(&partition) {
                part.asked.remove(&home);
                part.unable.insert(home);
            }
        }
    }

    fn take(&mut self, round: u32, answer: ListAnswer) {
        if answer.covered.is_empty() {
            return self.give_up(round);
        }
        let Some(Waiting { home, partitions, .. }) = self.waiting.remove(&round) else { return };
        for partition in partitions.iter() {
            let Some(part) = self.parts.get_mut(&partition) else { continue };
            // What another shard of the home holds is asked again.
            part.asked.remove(&home);
            if answer.covered.contains(partition) {
                part.answered.insert(home);
            }
        }
        match (answer.found, &self.listing) {
            (ListFound::Keys { names, next }, Listing::Keys { bucket, generation, .. }) => {
                let keys =
                    names.into_iter().filter_map(|name| Key::of_generation(*generation, bucket.clone(), name).ok());
                keys.for_each(|key| *self.keys.entry(key).or_default() += 1);
                self.upto = earlier(self.upto.take(), next);
            }
            (ListFound::Sizes(sizes), _) => {
                for (bucket, size) in sizes {
                    *self.sizes.entry(bucket).or_default() += size;
                }
            }
            (ListFound::Keys { .. }, Listing::Sizes) => {}
        }
    }

    fn listed(&mut self, cx: &ListingContext<'_>) -> Listed {
        let Listing::Keys { keys_max, .. } = &self.listing else {
            return Listed::Sizes(std::mem::take(&mut self.sizes));
        };
        let keys_max = (*keys_max).clamp(1, KEYS_MAX) as usize;
        let all = std::mem::take(&mut self.keys);
        let needed = |key: &Key| self.parts.get(&cx.held.partition_of(key)).map_or(1, |part| part.needed);
        let listed = |(key, named)| ListedKey { is_agreed: named >= needed(&key), key };
        let mut keys: Vec<ListedKey> = all.into_iter().map(listed).collect();
        let next = page(&mut keys, self.upto.take(), keys_max);
        Listed::Keys { keys, next }
    }
}

/// The homes of a partition in the order in which they are asked: this node, then those that are alive, then the rest.
fn homes(cx: &ListingContext<'_>, listing: &Listing, partition: PartitionId) -> Vec<NodeId> {
    let group = match listing {
        Listing::Keys { bucket, .. } => cx.held.group(partition, bucket),
        Listing::Sizes => cx.held.counts(partition).others(),
    };
    let mut homes = cx.held.homes(partition, group).all();
    let me = cx.held.me().node;
    homes.sort_by_key(|&home| match cx.liveness.status(home) {
        _ if home == me => 0,
        Status::Alive => 1,
        Status::Suspect => 2,
        Status::Down => 3,
    });
    homes
}
