//! Turns: the state machine's steps, the store commands that they ask for, and what goes out.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::admission::Admitted;
use cartwheel_core::anti_entropy::ReplicaProof;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::sizes::NodeSizes;
use cartwheel_core::event::Event;
use cartwheel_core::message::Envelope;
use cartwheel_core::message::client::{ClientId, Operation, Outcome, Put, Refusal, Request};
use cartwheel_core::node::{Effects, Input};
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::command::{IndexChange, StoreCommand, StoreId, StoreResult, WriteFailed};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::state::Content;
use cartwheel_core::value::time::Instant;
use cartwheel_storage::{Batch, Durability};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{debug, error, info, warn};

use super::digests::{self, DigestPage, DigestsAsk};
use super::disk::{Condition, Disk};
use super::load::UnderWay;
use super::reader::{self, ReaderThread};
use super::unsynced::{OsBoot, Unsynced};
use super::{Machine, Outgoing, ShardMetrics, ShardReadiness};
use crate::data_dir::lineage::Mark;
use crate::log::RateLimit;
use crate::os::clock::Clock;

/// From this many bytes on a value is large. It takes milliseconds to read, check and encode, so a turn takes in one of them.
pub(super) const LARGE_BYTES: usize = 256 << 10;
/// For how long after a large record it is worth looking how large a record is before it is read.
const LOOK_FOR: Duration = Duration::from_secs(1);
/// How long a turn steps before it lets in what has come meanwhile.
const TURN_FOR: Duration = Duration::from_millis(8);
/// So many turns that are full of small inputs may pass before a large one is taken in all the same.
const PASSED_OVER_MAX: u32 = 4;

/// A state machine with its store and all that is under way between them.
///
/// A turn is bounded: what is left of it when its time is over goes on in the next one, behind which nothing new has to wait, and large
/// values come one a turn, after what is small.
pub(super) struct Turns<M, O> {
    machine: M,
    disk: Disk,
    outgoing: O,
    clock: Clock,
    /// What the machine has yet to take in.
    inputs: VecDeque<Input>,
    large: Large,
    writes: Writes,
    unsynced: Unsynced,
    /// What the disk was good for when that was last told.
    condition: Condition,
    sends: BTreeMap<NodeId, Vec<Envelope>>,
    replies: Vec<(ClientId, Outcome)>,
    /// The clients that wait for an answer.
    clients: BTreeMap<ClientId, Client>,
    clients_begun: u64,
    /// How many tombstones were counted last.
    tombstones: u64,
    metrics: ShardMetrics,
    wake_at: Option<Instant>,
    finished: Option<Epoch>,
    drained: Option<bool>,
    phases: Vec<(PartitionId, ConfigPhase)>,
}

/// What has to do with large values and waits for a turn to take it in.
#[derive(Default)]
struct Large {
    /// Inputs that carry one, with the room that they take up in the shard's queue.
    inputs: VecDeque<(Input, Option<OwnedSemaphorePermit>)>,
    /// Reads of large records.
    reads: VecDeque<(StoreId, Bytes)>,
    /// The thread that does these, where there is one.
    reader: Option<ReaderThread>,
    /// Until when it is looked how large a record is before it is read, which is worth it only after a large one.
    look_until: Instant,
    /// For how many turns nothing of this was taken in.
    passed_over: u32,
}

impl Large {
    /// Whether nothing is left for a turn to take in.
    fn is_empty(&self) -> bool {
        self.inputs.is_empty() && (self.reads.is_empty() || self.reader.is_some())
    }

    /// Has the next record read beside the shard, if that can be.
    fn read_next(&mut self) {
        if let Some(reader) = self.reader.as_mut().filter(|reader| reader.is_free())
            && let Some((id, storage_key)) = self.reads.pop_front()
        {
            reader.ask(id, storage_key);
        }
    }
}

/// A client that waits for an answer.
struct Client {
    reply: oneshot::Sender<Outcome>,
    _under_way: UnderWay,
    /// When its request came to the shard's queue.
    came: Instant,
}

/// The writes that the next commit carries out.
#[derive(Default)]
struct Writes {
    batch: Batch,
    commands: Vec<StoreId>,
    keys: HashSet<Bytes>,
    sync: bool,
}

impl Writes {
    fn add(&mut self, id: StoreId, sync: bool) {
        self.commands.push(id);
        self.sync |= sync;
    }
}

/// What the machine remembers, apart from what the shard does.
pub(super) fn remembered(name: &[u8]) -> Bytes {
    [b"core/", name].concat().into()
}

impl<M: Machine, O: Outgoing> Turns<M, O> {
    pub(super) fn new(machine: M, disk: Disk, outgoing: O, clock: Clock) -> Self {
        Self {
            machine,
            disk,
            outgoing,
            clock,
            inputs: VecDeque::new(),
            large: Large::default(),
            writes: Writes::default(),
            unsynced: Unsynced::new(OsBoot::current()),
            condition: Condition::Good,
            sends: BTreeMap::new(),
            replies: Vec::new(),
            clients: BTreeMap::new(),
            clients_begun: 0,
            tombstones: 0,
            metrics: ShardMetrics::default(),
            wake_at: None,
            finished: None,
            drained: None,
            phases: Vec::new(),
        }
    }

    /// The same, counting what it does in `metrics`.
    pub(super) fn counted(self, metrics: ShardMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// The same, which has this thread read large records.
    pub(super) fn beside(mut self, reader: Option<ReaderThread>) -> Self {
        self.large.reader = reader;
        self
    }

    /// What holds in partitions, as the machine has come to know since this was last asked.
    pub(super) fn phases(&mut self) -> Vec<(PartitionId, ConfigPhase)> {
        std::mem::take(&mut self.phases)
    }

    /// Whether the machine has nothing any more to hand over, if that has changed since this was last asked.
    pub(super) const fn drained(&mut self) -> Option<bool> {
        self.drained.take()
    }

    /// The epoch that the machine has finished since this was last asked, if it has.
    pub(super) const fn finished(&mut self) -> Option<Epoch> {
        self.finished.take()
    }

    /// When the next turn is due, if no input comes.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at.into_iter().chain(self.disk.wake_at()).chain(self.unsynced.wake_at()).min()
    }

    /// Whether the machine can stamp writes and its disk works.
    pub(super) fn readiness(&mut self) -> ShardReadiness {
        let condition = self.disk.condition();
        self.metrics.disk(std::mem::replace(&mut self.condition, condition), condition);
        match condition {
            Condition::Failed => ShardReadiness::StoreFailed,
            _ if !self.machine.is_ready() => ShardReadiness::Starting,
            Condition::Full => ShardReadiness::DiskFull,
            Condition::Good => ShardReadiness::Ready,
        }
    }

    /// A page of what the disk holds; none if it cannot be read.
    pub(super) fn digests(&self, ask: &DigestsAsk) -> Option<DigestPage> {
        self.disk.readable().map(|store| digests::page(store, ask))
    }

    /// What the machine's exchange has proven.
    pub(super) fn proofs(&self) -> Vec<ReplicaProof> {
        self.machine.proofs()
    }

    /// How much the machine holds of partitions.
    pub(super) fn sizes(&self, partitions: &[PartitionId]) -> NodeSizes {
        self.machine.sizes(partitions)
    }

    /// Adds an input to the next turn.
    pub(super) fn add(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    /// Adds a peer's message of so many bytes to this turn or a later one, and gives its room back if that is the next one.
    pub(super) fn add_message(
        &mut self,
        message: Envelope,
        bytes: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> Option<OwnedSemaphorePermit> {
        let input = Input::Message(message);
        if bytes < LARGE_BYTES {
            self.inputs.push_back(input);
            return room;
        }
        self.large.inputs.push_back((input, room));
        None
    }

    /// Whether anything is left that a turn had no time for.
    pub(super) fn has_more(&self) -> bool {
        !self.inputs.is_empty() || !self.large.is_empty()
    }

    /// Adds a client's request, which has waited so long, to the next turn, unless the client waits no longer.
    pub(super) fn add_request(
        &mut self,
        mut request: Request,
        (reply, under_way): (oneshot::Sender<Outcome>, UnderWay),
        waited: Duration,
    ) {
        request.timeout = request.timeout.saturating_sub(waited);
        if request.timeout.is_zero() {
            self.metrics.refusals.inc();
            let _ = reply.send(Err(Refusal::Overloaded));
            return;
        }
        self.clients_begun += 1;
        let id = ClientId(self.clients_begun);
        let came = Instant(self.clock.instant().0.saturating_sub(waited.as_micros() as u64));
        self.clients.insert(id, Client { reply, _under_way: under_way, came });
        let is_large = carries(&request.operation) >= LARGE_BYTES;
        let input = Input::Client(id, request);
        if is_large {
            self.large.inputs.push_back((input, None));
        } else {
            self.inputs.push_back(input);
        }
    }

    /// Counts the tombstones that the machine holds.
    pub(super) fn count_tombstones(&mut self) {
        let tombstones = self.machine.tombstones();
        self.metrics.tombstones(std::mem::replace(&mut self.tombstones, tombstones), tombstones);
    }

    /// How much background work the machine lets in.
    pub(super) fn admitted(&self) -> Admitted {
        self.machine.admitted()
    }

    /// Takes a turn: steps until nothing is left to take in and nothing to store, or until its time is over. What was to be stored is.
    pub(super) fn take(&mut self) {
        let now = self.clock.instant();
        self.disk.tick(now);
        if self.unsynced.take_due(now) {
            self.sync(now);
        }
        self.metrics.turn(self.inputs.len());
        let (mut stepped, mut has_taken_large) = (Duration::ZERO, false);
        loop {
            stepped += self.step_for(TURN_FOR.saturating_sub(stepped));
            let is_over = stepped >= TURN_FOR;
            // What the machine says before a commit does not depend on it, so it does not wait for the disk either.
            self.flush();
            if !self.writes.commands.is_empty() {
                self.commit();
                if !is_over {
                    continue;
                }
            }
            if has_taken_large || self.large.is_empty() {
                if !is_over && !self.inputs.is_empty() {
                    continue;
                }
                return;
            }
            if is_over && self.large.passed_over < PASSED_OVER_MAX {
                self.large.passed_over += 1;
                return;
            }
            has_taken_large = true;
            self.take_large();
        }
    }

    /// Steps until nothing is left to take in or so much time has passed, and says how long that took. One input is taken in always.
    fn step_for(&mut self, most: Duration) -> Duration {
        let begun = self.clock.instant();
        let mut now = self.clock.now();
        while let Some(input) = self.inputs.pop_front() {
            if let Input::Client(id, _) = &input
                && let Some(client) = self.clients.get(id)
            {
                self.machine.queued(now.instant.since(client.came));
            }
            let effects = self.machine.step(now, input);
            self.carry_out(effects);
            now = self.clock.now();
            if now.instant.since(begun) >= most {
                break;
            }
        }
        now.instant.since(begun)
    }

    /// Lets in one thing that has to do with a large value.
    fn take_large(&mut self) {
        self.large.passed_over = 0;
        if self.large.reader.is_none()
            && let Some((id, storage_key)) = self.large.reads.pop_front()
        {
            self.read(id, &storage_key);
        } else if let Some((input, _room)) = self.large.inputs.pop_front() {
            self.inputs.push_back(input);
        }
    }

    /// Syncs what was written without a sync.
    fn sync(&mut self, now: Instant) {
        // The disk says what fails, and opens itself again.
        let _ = self.write_out(Batch::new(), Durability::Synced, now);
    }

    /// Hands a batch to the disk. After a failure nothing is certain that was remembered of what the store holds.
    fn write_out(&mut self, batch: Batch, durability: Durability, now: Instant) -> Result<(), WriteFailed> {
        let written = self.disk.commit(batch, durability, now);
        if written.is_err() {
            self.unsynced.forget();
        }
        written
    }

    /// The same, at the end. Returns the mark that the store has then, if all of that worked.
    pub(super) fn close(&mut self) -> Option<Mark> {
        // It is not waited for: the shard reads itself what was asked for.
        let reading = self.large.reader.take().and_then(ReaderThread::into_reading);
        reading.into_iter().for_each(|read| self.large.reads.push_front(read));
        self.add(Input::Stop);
        self.take();
        while self.has_more() {
            self.take();
        }
        self.disk.close(self.unsynced.last_batch())
    }

    fn carry_out(&mut self, effects: Effects) {
        let Effects { sends, replies, stores, events, finished, drained, phases, wake_at } = effects;
        self.drained = drained.or(self.drained);
        self.phases.extend(phases);
        self.finished = finished.or(self.finished);
        for (to, message) in sends {
            self.sends.entry(to).or_default().push(message);
        }
        self.replies.extend(replies);
        for (id, command) in stores {
            self.store(id, command);
        }
        for event in events {
            self.metrics.event(&event);
            log(&event);
        }
        self.wake_at = wake_at;
    }

    fn store(&mut self, id: StoreId, command: StoreCommand) {
        match command {
            StoreCommand::Read { storage_key } if self.may_be_large(&storage_key) => {
                self.commit_before(&storage_key);
                self.large.reads.push_back((id, storage_key));
                self.large.read_next();
            }
            StoreCommand::Read { storage_key } => self.read(id, &storage_key),
            StoreCommand::Scan { from, upto, at_most } => {
                self.commit_if_any();
                let scanned = self.disk.scan(&from, upto.as_deref(), at_most);
                self.ended(id, StoreResult::Scanned(scanned));
            }
            StoreCommand::ScanIndex { from, upto, entries_max } => {
                self.commit_if_any();
                let listed = self.disk.scan_index(&from, &upto, entries_max);
                self.ended(id, StoreResult::Listed(listed));
            }
            StoreCommand::Recall { name } => {
                self.commit_if_any();
                let recalled = self.disk.recall(&remembered(&name));
                self.ended(id, StoreResult::Read(recalled));
            }
            StoreCommand::Write { storage_key, record, index, sync } => {
                if let Err(failed) = self.room_for(&storage_key, record.as_ref()) {
                    return self.refuse(id, failed);
                }
                match record {
                    Some(record) => self.writes.batch.put(storage_key.clone(), record),
                    None => self.writes.batch.remove(storage_key.clone()),
                }
                for change in index {
                    match change {
                        IndexChange::Add(entry) => self.writes.batch.add_index(entry),
                        IndexChange::Remove(entry) => self.writes.batch.remove_index(entry),
                    }
                }
                self.writes.keys.insert(storage_key);
                self.writes.add(id, sync);
            }
            StoreCommand::Remember { name, value } => self.remember(id, remembered(&name), value),
        }
    }

    /// Whether a record is known to be large before it is read.
    fn may_be_large(&self, storage_key: &Bytes) -> bool {
        self.clock.instant() < self.large.look_until && self.disk.size_of(storage_key) >= LARGE_BYTES
    }

    fn read(&mut self, id: StoreId, storage_key: &Bytes) {
        self.commit_before(storage_key);
        let read = self.disk.read(storage_key);
        self.note_size(&read);
        self.ended(id, StoreResult::Read(read));
    }

    /// A record that was asked for was read beside the shard.
    pub(super) fn has_read(&mut self, id: StoreId, read: reader::Read) {
        self.note_size(&read);
        self.ended(id, StoreResult::Read(read));
        if let Some(reader) = &mut self.large.reader {
            reader.has_read();
        }
        self.large.read_next();
    }

    fn note_size(&mut self, read: &reader::Read) {
        if read.as_ref().is_ok_and(|record| record.as_ref().is_some_and(|record| record.len() >= LARGE_BYTES)) {
            self.large.look_until = self.clock.instant() + LOOK_FOR;
        }
    }

    /// Commands on one key take effect in their order.
    fn commit_before(&mut self, storage_key: &Bytes) {
        if self.writes.keys.contains(storage_key) {
            self.commit();
        }
    }

    fn ended(&mut self, id: StoreId, result: StoreResult) {
        let failed =
            matches!(result, StoreResult::Read(Err(_)) | StoreResult::Scanned(Err(_)) | StoreResult::Listed(Err(_)));
        if failed {
            self.metrics.read_failed();
        }
        self.inputs.push_back(Input::Stored(id, result));
    }

    /// What is removed makes room, sooner or later, so it is done however full the disk is.
    fn room_for(&mut self, storage_key: &Bytes, record: Option<&Bytes>) -> Result<(), WriteFailed> {
        match record {
            Some(record) => self.disk.takes((storage_key.len() + record.len()) as u64, self.clock.instant()),
            None => self.disk.open_store().map(drop),
        }
    }

    /// A few bytes, without which the node cannot go on with what it does: the reserve is for this too.
    fn remember(&mut self, id: StoreId, name: Bytes, value: Bytes) {
        if let Err(failed) = self.disk.open_store() {
            return self.refuse(id, failed);
        }
        self.writes.batch.put_meta(name, value);
        self.writes.add(id, true);
    }

    fn commit_if_any(&mut self) {
        if !self.writes.commands.is_empty() {
            self.commit();
        }
    }

    fn refuse(&mut self, id: StoreId, failed: WriteFailed) {
        self.inputs.push_back(Input::Stored(id, StoreResult::Written(Err(failed))));
    }

    /// Carries out the writes that have gathered, with one sync for all of them.
    fn commit(&mut self) {
        let Writes { mut batch, commands, sync, .. } = std::mem::take(&mut self.writes);
        let begun = self.clock.instant();
        let wanted = if sync { Durability::Synced } else { Durability::Os };
        let durability = self.unsynced.commit(&mut batch, wanted, begun);
        let written = self.write_out(batch, durability, begun);
        let took = self.clock.instant().since(begun);
        self.metrics.commit(commands.len(), took, written.is_err());
        self.inputs.extend(commands.into_iter().map(|id| Input::Stored(id, StoreResult::Written(written))));
    }

    /// Lets everything out that has gathered for peers and clients.
    fn flush(&mut self) {
        while let Some((to, messages)) = self.sends.pop_first() {
            self.outgoing.send(to, messages, self.disk.synced());
        }
        for (id, outcome) in self.replies.drain(..) {
            if let Some(client) = self.clients.remove(&id) {
                // A client that has gone away is no concern of ours.
                let _ = client.reply.send(outcome);
            }
        }
    }
}

/// How many bytes of a value a client's request carries.
fn carries(operation: &Operation) -> usize {
    match operation {
        Operation::Put(Put { content: Content::Value { bytes, .. }, .. }) => bytes.len(),
        Operation::Put(_) | Operation::Get(_) => 0,
    }
}

/// How often what others send for no good reason is worth a line.
static NONSENSE: RateLimit = RateLimit::new(Duration::from_secs(10));
static NOT_KNOWN: RateLimit = RateLimit::new(Duration::from_secs(10));

fn log(event: &Event) {
    match event {
        Event::Repaired(key, node, how) => debug!("brought {key:?} up to date on {node} ({})", how.name()),
        Event::Exchanged(tree, node) => {
            debug!("partition {}, keys {:x}, is equal here and at {node}", tree.partition, tree.group.0);
        }
        Event::ExchangeFailed(tree, node) => {
            debug!(
                "partition {}, keys {:x}, could not be compared with {node} to the end",
                tree.partition, tree.group.0
            );
        }
        Event::ExchangeRefused(node) => {
            if let Some(count) = NONSENSE.count(1) {
                warn!(
                    "refused what {node} said of a partition ({count} refused since the last such line): it shares none like it, or it \
                     makes no sense"
                );
            }
        }
        Event::TreeWrong(partition) => {
            error!("the Merkle tree of partition {partition} was not what its records add up to, and was made anew");
        }
        Event::TreesUnready { .. } | Event::DigestsSent(_) | Event::Collected(_) | Event::TransferSent { .. } => {}
        Event::TransferReceived { partition, records, bytes } => {
            debug!("took {records} records ({bytes} bytes) of partition {partition}, to be a home of it");
        }
        Event::StaleRefused(node) => {
            debug!(
                "refused what {node} sent: it was sent more than one epoch ago, and what it carries may be forgotten"
            );
        }
        Event::DotCollision(key) => {
            error!(
                "dot_collision: {key:?} came with two values of one version, and both are kept as siblings: a disk is broken, two nodes run on \
                 copies of one data directory, or a message was forged"
            );
        }
        Event::RecordLost(key, error) => {
            warn!("the record of {key:?} was lost and will be fetched from its replicas: {error}")
        }
        Event::RecordNotKnown(key, error) => {
            if let Some(count) = NOT_KNOWN.count(1) {
                error!("nothing is done on {key:?} here ({count} refused since the last such line): {error}");
            }
        }
        Event::ClockOff { offset_ms: 0, .. } => info!("this node's clock agrees with its peers' again"),
        Event::ClockOff { offset_ms, refuses: true } => {
            error!("this node's clock is {offset_ms} ms off its peers' and it takes no writes: set the clock");
        }
        Event::ClockOff { offset_ms, refuses: false } => {
            warn!("this node's clock is {offset_ms} ms off its peers': check the clock");
        }
        Event::TimestampsAhead { ahead_ms: 0 } => info!("this node's timestamps are near its clock again"),
        Event::TimestampsAhead { ahead_ms } => {
            warn!(
                ahead_ms,
                "this node's writes get timestamps ahead of its clock: a clock was wrong, here or elsewhere"
            );
        }
        Event::NotAHome(node) => {
            debug!(
                "refused {node}: it asked for a key that is not kept here, or in the place of a node that is no home of it"
            );
        }
        Event::HintsHeld { .. } => {}
        Event::HintDelivered(node) => debug!("{node} has taken what was kept here for it"),
        Event::HintsFull { is_full: true, bytes_max } => warn!(
            "hints_full: a shard of this node keeps {} MiB of records for nodes that are away, which is all that it may: further ones go \
             to the next nodes. Bring those nodes back or replace them, or raise hints_share",
            bytes_max >> 20
        ),
        Event::HintsFull { is_full: false, .. } => info!("this node keeps records for nodes that are away again"),
        Event::StrayMessage(node) => {
            if let Some(count) = NONSENSE.count(1) {
                warn!("dropped a message that {node} should not have sent ({count} refused since the last such line)");
            }
        }
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
