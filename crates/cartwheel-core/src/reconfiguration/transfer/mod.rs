//! Transfers: bulk copies of a partition's records to a node that is to become a home of it. The paper's section 4.9
//! leaves this open.
//!
//! A partition is divided into parts, which are fetched from several homes at once, in pages of records as they are
//! stored. Progress is saved, so a transfer resumes after a crash of either side. Both sides begin a page only when
//! their admission controllers allow it ([`crate::admission`]).
//!
//! A transfer proves nothing: it may miss records that were being written, or were written since. The exchange that
//! follows it ([`crate::anti_entropy`]) finds those, and proves that nothing is missing. Exchanges are held back until
//! the transfer ends.

mod part;
mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::admission::{Admission, WorkClass};
use crate::anti_entropy::merkle::Grid;
use crate::cluster::counts::Group;
use crate::cluster::holdings::Holdings;
use crate::cluster::liveness::{Liveness, Status};
use crate::config::{NodeConfig, Timing};
use crate::event::Event;
use crate::message::anti_entropy::{KeyRange, Refused};
use crate::message::transfer::{Fetch, Fetched};
use crate::message::{Confirm, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester};
use crate::mutation::Broken;
use crate::outbox::Outbox;
use crate::replica::Replica;
use crate::ring::PartitionId;
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::store::saved_transfer::Saved;
use crate::value::dot::{NodeId, Since};
use crate::value::epoch::Epoch;
use crate::value::key::Key;
use crate::value::time::{Instant, Now};
use crate::wire;
use part::{Part, Stage};
use serving::Serving;

/// How many parts a partition has at most. Each is fetched from one home at a time.
const PARTS_MAX: usize = 4;
/// How many pages a shard has requested at once, in all and from one home.
const PAGES_MAX: usize = 8;
const PAGES_PER_SOURCE_MAX: usize = 2;
/// How often a page is requested before another home is tried.
const TRIES_MAX: u32 = 3;
/// How long a part waits after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What a transfer can read and use in a step.
pub struct TransferContext<'a> {
    /// The time of the step.
    pub now: Now,
    /// The partition states in force, and the target placement.
    pub held: &'a Holdings,
    /// The status of the other nodes.
    pub liveness: &'a Liveness,
    /// Timeouts.
    pub timing: &'a Timing,
    /// This node's records.
    pub replica: &'a mut Replica,
    /// Admission of background work.
    pub admission: &'a mut Admission,
    /// The mutation in force, if any.
    pub broken: Broken,
    /// The outbox of the part.
    pub out: &'a mut Outbox<TransferCalls>,
}

/// What transfers want other parts of the node to do.
#[derive(Debug, Default)]
pub struct TransferCalls {
    /// Transfers that have ended: the reconfiguration attends to their partitions next.
    pub ended: Vec<PartitionId>,
}

impl TransferContext<'_> {
    fn fetch(&mut self, from: NodeId, operation: u64, fetch: Fetch) {
        let request_id = RequestId { requester: Requester::Transfer, operation, round: 0 };
        self.out.sends.push((from, fetch.partition, Message::Fetch(request_id, fetch)));
    }
}

/// The transfer of one partition to this node.
#[derive(Debug)]
struct Transfer {
    groups: BTreeSet<Group>,
    sources: Vec<NodeId>,
    /// The parts that are left; none while the saved progress is being read.
    parts: Option<Vec<Part>>,
    is_dirty: bool,
}

impl Transfer {
    const fn new(groups: BTreeSet<Group>, parts: Option<Vec<Part>>) -> Self {
        Self { groups, sources: Vec::new(), parts, is_dirty: false }
    }
}

/// The transfers to and from one shard.
#[derive(Debug)]
pub struct Transfers {
    running: BTreeMap<PartitionId, Transfer>,
    recalls: BTreeMap<StoreId, PartitionId>,
    saves: BTreeMap<StoreId, PartitionId>,
    /// Transfers that have ended or are no longer wanted, whose saved progress is to be deleted.
    ending: Vec<PartitionId>,
    serving: BTreeMap<StoreId, Serving>,
    /// The coordinator uses the same numbers; the requester of the [`RequestId`] tells them apart.
    next_operation: u64,
    stride: u64,
    loss_floor: Since,
}

fn saved_name(partition: PartitionId) -> Bytes {
    format!("transfer/{partition}").into()
}

impl Transfers {
    /// Transfers for one boot.
    pub fn new(config: &NodeConfig) -> Self {
        Self {
            running: BTreeMap::new(),
            recalls: BTreeMap::new(),
            saves: BTreeMap::new(),
            ending: Vec::new(),
            serving: BTreeMap::new(),
            next_operation: config
                .shard_id
                .first_operation(config.incarnation.first_operation(config.boot, config.seed)),
            stride: config.shard_id.count.into(),
            loss_floor: config.loss_floor,
        }
    }

    /// Begins a transfer from the start, of a partition of which this node holds nothing.
    pub fn begin(&mut self, held: &Holdings, partition: PartitionId) {
        let full_range = Grid::of(held.view().ring.partitions(), partition).whole();
        self.ending.retain(|&other| other != partition);
        self.running.insert(partition, Transfer::new(BTreeSet::new(), Some(vec![Part::of(full_range)])));
    }

    /// Sets the groups to fetch and the homes to fetch them from. A transfer of an earlier boot resumes. True once all
    /// records were fetched, or if there is no source.
    pub fn want(
        &mut self,
        held: &Holdings,
        partition: PartitionId,
        groups: BTreeSet<Group>,
        sources: Vec<NodeId>,
    ) -> bool {
        let transfer = self.running.entry(partition).or_insert_with(|| Transfer::new(groups.clone(), None));
        if transfer.parts.is_some() && !transfer.groups.is_empty() && !groups.is_subset(&transfer.groups) {
            // The fetched pages lack some of the groups.
            let full_range = Grid::of(held.view().ring.partitions(), partition).whole();
            *transfer = Transfer::new(groups.clone(), Some(vec![Part::of(full_range)]));
        }
        let is_source = |source: NodeId| sources.contains(&source);
        let is_over = sources.is_empty() || transfer.parts.as_ref().is_some_and(Vec::is_empty);
        // A part whose source is no longer one can be requested from another home at once.
        for part in transfer.parts.iter_mut().flatten() {
            if let Stage::Requested { from, .. } = part.stage
                && !is_source(from)
            {
                part.stage = Stage::Idle { until: Instant(0), failed: None };
            }
        }
        transfer.groups = groups;
        transfer.sources = sources;
        is_over
    }

    /// Ends the transfer of a partition, which this node no longer wants or is now a home of.
    pub fn end(&mut self, partition: PartitionId) {
        if self.running.remove(&partition).is_some() {
            self.ending.push(partition);
        }
    }

    /// Requests what is due.
    pub fn tick(&mut self, cx: &mut TransferContext<'_>) {
        for partition in std::mem::take(&mut self.ending) {
            let id = cx.replica.next_store();
            cx.out.stores.push((id, StoreCommand::Remember { name: saved_name(partition), value: Bytes::new() }));
            self.saves.insert(id, partition);
        }
        let partitions: Vec<PartitionId> = self.running.keys().copied().collect();
        for &partition in &partitions {
            self.recall(cx, partition);
            self.save(cx, partition);
            self.resend_requests(cx, partition);
        }
        // Records of other nodes cannot be merged before the epoch is known.
        if cx.replica.epoch() != Epoch::UNKNOWN {
            let mut load = self.load();
            partitions.into_iter().for_each(|partition| self.request_pages(cx, partition, &mut load));
        }
    }

    fn recall(&mut self, cx: &mut TransferContext<'_>, partition: PartitionId) {
        let is_requested = || self.recalls.values().any(|&other| other == partition);
        if self.running.get(&partition).is_some_and(|transfer| transfer.parts.is_none()) && !is_requested() {
            let id = cx.replica.next_store();
            cx.out.stores.push((id, StoreCommand::Recall { name: saved_name(partition) }));
            self.recalls.insert(id, partition);
        }
    }

    fn save(&mut self, cx: &mut TransferContext<'_>, partition: PartitionId) {
        let Some(transfer) = self.running.get_mut(&partition).filter(|transfer| transfer.is_dirty) else { return };
        let Some(parts) = &transfer.parts else { return };
        if self.saves.values().any(|&saved| saved == partition) {
            return;
        }
        transfer.is_dirty = false;
        let left = parts.iter().map(|part| part.left.clone()).collect();
        let value = wire::encode_transfer(&Saved { floor: self.loss_floor, groups: transfer.groups.clone(), left });
        let id = cx.replica.next_store();
        cx.out.stores.push((id, StoreCommand::Remember { name: saved_name(partition), value }));
        self.saves.insert(id, partition);
    }

    /// Repeats the requests for pages that have not arrived.
    fn resend_requests(&mut self, cx: &mut TransferContext<'_>, partition: PartitionId) {
        let Some(transfer) = self.running.get_mut(&partition) else { return };
        let groups = transfer.groups.clone();
        for part in transfer.parts.iter_mut().flatten() {
            let Stage::Requested { operation, from, tries, again_at } = &mut part.stage else { continue };
            if *again_at > cx.now.instant {
                continue;
            }
            if *tries >= TRIES_MAX || cx.liveness.status(*from) == Status::Down {
                part.stage = Stage::Idle { until: cx.now.instant, failed: Some(*from) };
                continue;
            }
            *tries += 1;
            *again_at = cx.now.instant + cx.timing.resend_after * (1 << *tries);
            let range = part.left.clone();
            cx.fetch(*from, *operation, Fetch { partition, groups: groups.clone(), range });
        }
    }

    /// How many pages are under way from each home.
    fn load(&self) -> BTreeMap<NodeId, usize> {
        let parts = self.running.values().flat_map(|transfer| transfer.parts.iter().flatten());
        let mut load = BTreeMap::new();
        parts.filter_map(Part::source).for_each(|source| *load.entry(source).or_default() += 1);
        load
    }

    /// Requests the next page of each idle part, and counts it in `load`.
    fn request_pages(
        &mut self,
        cx: &mut TransferContext<'_>,
        partition: PartitionId,
        load: &mut BTreeMap<NodeId, usize>,
    ) {
        let Some(transfer) = self.running.get_mut(&partition) else { return };
        let (groups, sources) = (&transfer.groups, &transfer.sources);
        for part in transfer.parts.iter_mut().flatten() {
            let Stage::Idle { until, failed } = part.stage else { continue };
            if until > cx.now.instant || load.values().sum::<usize>() >= PAGES_MAX {
                continue;
            }
            let busy = |source: NodeId| load.get(&source).copied().unwrap_or_default();
            let is_free = |source: &&NodeId| {
                cx.liveness.status(**source) != Status::Down && busy(**source) < PAGES_PER_SOURCE_MAX
            };
            // Equally loaded sources take turns.
            let turn = (self.next_operation / self.stride) as usize % sources.len().max(1);
            let (before, first) = sources.split_at(turn);
            let free = first.iter().chain(before).filter(is_free);
            // A source at its limit will have room soon.
            let Some(&from) = free.min_by_key(|&&source| (failed == Some(source), busy(source))) else { continue };
            if !cx.admission.may_begin(WorkClass::Transfer, cx.now.instant) {
                return;
            }
            self.next_operation += self.stride;
            let operation = self.next_operation;
            let again_at = cx.now.instant + cx.timing.resend_after * 2;
            part.stage = Stage::Requested { operation, from, tries: 1, again_at };
            *load.entry(from).or_default() += 1;
            cx.fetch(from, operation, Fetch { partition, groups: groups.clone(), range: part.left.clone() });
        }
    }

    /// The partition that is fetched by this operation, and the index of the part.
    fn locate(&self, operation: u64) -> Option<(PartitionId, usize)> {
        let location = |transfer: &Transfer| transfer.parts.as_ref()?.iter().position(|part| part.is_at(operation));
        self.running.iter().find_map(|(&partition, transfer)| Some((partition, location(transfer)?)))
    }

    fn part(&mut self, (partition, location): (PartitionId, usize)) -> Option<&mut Part> {
        self.running.get_mut(&partition)?.parts.as_mut()?.get_mut(location)
    }

    /// The partition that is fetched by this operation.
    pub fn partition_of(&self, operation: u64) -> Option<PartitionId> {
        self.locate(operation).map(|(partition, _)| partition)
    }

    /// Takes in a home's page or refusal.
    pub fn on_fetched(&mut self, cx: &mut TransferContext<'_>, from: NodeId, request_id: RequestId, fetched: Fetched) {
        let held = cx.held;
        let Some(location) = self.locate(request_id.operation) else { return };
        let partition = location.0;
        let Some(part) = self.part(location) else { return };
        let Stage::Requested { from: source, .. } = part.stage else { return };
        if source != from {
            return;
        }
        let put_off = |until: Instant| Stage::Idle { until, failed: Some(from) };
        let page = match fetched {
            Fetched::Page(page) => page,
            Fetched::Refused(Refused::Busy) => {
                part.stage = put_off(cx.now.instant + cx.timing.resend_after);
                return;
            }
            Fetched::Refused(_) => {
                part.stage = put_off(cx.now.instant + RETRY_AFTER);
                return;
            }
        };
        if page.epoch.is_stale(cx.replica.epoch(), cx.broken) {
            cx.out.events.push(Event::StaleRefused(from));
            part.stage = put_off(cx.now.instant + RETRY_AFTER);
            return;
        }
        let advances = page.next.as_ref().is_none_or(|next| *next > part.left.from && part.left.ends_after(next));
        let end = page.next.clone().or_else(|| part.left.upto.clone());
        let fetched = KeyRange { from: part.left.from.clone(), upto: end };
        let key = |storage_key: &Bytes| {
            let key = Key::from_storage_key(storage_key).ok().filter(|_| fetched.contains(storage_key))?;
            (held.partition_of(&key) == partition).then_some(key)
        };
        let keys: Option<Vec<Key>> = page.records.iter().map(|(storage_key, _)| key(storage_key)).collect();
        let Some(keys) = keys.filter(|_| advances) else {
            cx.out.events.push(Event::ExchangeRefused(from));
            part.stage = put_off(cx.now.instant + RETRY_AFTER);
            return;
        };
        let operation = request_id.operation;
        let records = keys.len() as u64;
        let waiting = (1..).take(keys.len()).collect();
        for (number, (key, (_, state))) in (1..).zip(keys.into_iter().zip(page.records)) {
            let request = ReplicaRequest::Merge {
                key,
                state,
                epoch: page.epoch,
                heals: None,
                confirm: Confirm::Stored,
                stands_in_for: None,
            };
            cx.out.requests.push((
                cx.held.me().node,
                RequestId { requester: Requester::Transfer, operation, round: number },
                request,
            ));
        }
        part.stage = Stage::Storing { operation, from, waiting, has_failed: false, next: page.next };
        cx.admission.does(WorkClass::Transfer, records as usize, cx.now.instant);
        cx.out.events.push(Event::TransferReceived { partition, records, bytes: page.bytes });
        self.advance(cx, operation);
    }

    /// Takes in the response of this node's replica to a merge.
    pub fn on_response(&mut self, cx: &mut TransferContext<'_>, request_id: RequestId, response: &ReplicaResponse) {
        let Some(part) = self.locate(request_id.operation).and_then(|location| self.part(location)) else { return };
        let Stage::Storing { waiting, has_failed, .. } = &mut part.stage else { return };
        if waiting.remove(&request_id.round) {
            *has_failed |= !matches!(response, ReplicaResponse::Stored);
            self.advance(cx, request_id.operation);
        }
    }

    /// Goes on to the next page once all records of a page are stored.
    fn advance(&mut self, cx: &mut TransferContext<'_>, operation: u64) {
        let Some((partition, location)) = self.locate(operation) else { return };
        let Some(transfer) = self.running.get_mut(&partition) else { return };
        let parts_max = transfer.sources.len().min(PARTS_MAX);
        let Some(parts) = &mut transfer.parts else { return };
        let part = &mut parts[location];
        let Stage::Storing { waiting, has_failed, next, .. } = &mut part.stage else { return };
        if !waiting.is_empty() {
            return;
        }
        if *has_failed {
            // The disk may have room again later. The stored part of the page need not be sent again.
            part.stage = Stage::Idle { until: cx.now.instant + RETRY_AFTER, failed: None };
            return;
        }
        transfer.is_dirty = true;
        if let Some(next) = next.take() {
            part.left.from = next;
            part.stage = Stage::Idle { until: cx.now.instant, failed: None };
            let rest = if parts.len() < parts_max { parts[location].split() } else { None };
            parts.extend(rest);
        } else {
            parts.remove(location);
        }
        if parts.is_empty() {
            cx.out.calls.ended.push(partition);
        }
    }

    /// Whether a store command is of transfers.
    pub fn waits_for(&self, id: StoreId) -> bool {
        self.recalls.contains_key(&id) || self.saves.contains_key(&id) || self.serving.contains_key(&id)
    }

    /// Takes in the result of a store command for which [`Self::waits_for`] is true.
    pub fn stored(&mut self, cx: &mut TransferContext<'_>, id: StoreId, result: StoreResult) {
        if let Some(serving) = self.serving.remove(&id) {
            return self.read(cx, serving, result);
        }
        if let Some(partition) = self.saves.remove(&id) {
            // Progress that was not saved is fetched again after a crash.
            if result != StoreResult::Written(Ok(()))
                && let Some(transfer) = self.running.get_mut(&partition)
            {
                transfer.is_dirty = true;
            }
            return;
        }
        let Some(partition) = self.recalls.remove(&id) else { return };
        let Some(transfer) = self.running.get_mut(&partition).filter(|transfer| transfer.parts.is_none()) else {
            return;
        };
        let full_range = Grid::of(cx.held.view().ring.partitions(), partition).whole();
        let saved = match result {
            StoreResult::Read(Ok(Some(bytes))) => wire::decode_transfer(&bytes),
            _ => None,
        };
        let counts = |saved: &Saved| {
            let is_wide =
                saved.groups.is_superset(&transfer.groups) && saved.left.iter().all(|left| full_range.covers(left));
            saved.floor == self.loss_floor && saved.left.len() <= PARTS_MAX && is_wide
        };
        match saved.filter(counts) {
            Some(saved) => {
                transfer.parts = Some(saved.left.into_iter().map(Part::of).collect());
                transfer.groups = saved.groups;
            }
            None => transfer.parts = Some(vec![Part::of(full_range)]),
        }
        if transfer.parts.as_ref().is_some_and(Vec::is_empty) {
            cx.out.calls.ended.push(partition);
        }
    }

    /// When the next timer is due.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        // A part that is due but was not begun waits for an input that wakes the node anyway.
        let parts = self.running.values().flat_map(|transfer| transfer.parts.iter().flatten());
        let next = parts.filter_map(Part::wake_at).filter(|&at| at > now).min();
        if self.ending.is_empty() { next } else { Some(now) }
    }
}
