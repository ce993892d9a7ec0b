//! Turns: the state machine's steps, the store commands that they request, and the messages and replies that go out.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::admission::Admitted;
use cartwheel_core::anti_entropy::ReplicaProof;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::latency::RoundTrips;
use cartwheel_core::cluster::sizes::NodeSizes;
use cartwheel_core::event::Event;
use cartwheel_core::message::client::{ClientId, Operation, Outcome, Put, Refusal, Request};
use cartwheel_core::message::listing::{ListRequest, Listed};
use cartwheel_core::message::trace::TraceContext;
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::node::sums::PartitionSums;
use cartwheel_core::node::{Effects, Input};
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::command::{IndexChange, StoreCommand, StoreId, StoreResult, WriteFailed};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::state::Content;
use cartwheel_core::value::time::Instant;
use cartwheel_storage::{Durability, StoreError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{debug, error, info, warn};

use super::at_once::{AtOnce, SharedMachine};
use super::commit_thread::CommitThread;
use super::commits::{CommitUnderWay, Commits, WaitingRead, Writes};
use super::copies::{self, CopiesPage, CopiesRequest};
use super::digests::{self, DigestPage, DigestsRequest};
use super::disk::{Condition, Disk};
use super::load::{Served, UnderWay};
use super::reader::{self, ReaderThread};
use super::report::{LoadBook, ShardReport};
use super::slow::{self, SlowRequests, Waits};
use super::traces::Traces;
use super::unsynced::{OsBoot, Unsynced};
use super::{Machine, Outgoing, ShardMetrics, ShardReadiness, Watching};
use crate::data_dir::lineage::Mark;
use crate::log::RateLimit;
use crate::os::clock::Clock;

/// From this size on a value is large. It takes milliseconds to read, check and encode, so a turn takes in one of them.
pub(super) const LARGE_BYTES: usize = 256 << 10;
/// For how long after a large record the size of a record is checked before it is read.
const CHECK_SIZE_FOR: Duration = Duration::from_secs(1);
/// How long a turn steps before it admits what has arrived meanwhile.
const TURN_FOR: Duration = Duration::from_millis(8);
/// The most inputs in one step of the machine: some hundreds of microseconds of work.
const STEP_MAX: usize = 64;
/// How many turns full of small inputs may pass before a large one is taken in.
const PASSED_OVER_MAX: u32 = 4;
/// The messages for which a buffer keeps its space.
const MESSAGES_KEPT: usize = 256;

/// A state machine with its store, and the commands under way between them.
///
/// A turn is bounded: what is left when its time is over goes on in the next one, before anything new; large values come one per turn, after
/// small inputs.
pub(super) struct Turns<M, O> {
    machine: SharedMachine<M>,
    disk: Disk,
    outgoing: O,
    clock: Clock,
    /// Inputs for the machine.
    inputs: VecDeque<Input>,
    large: Large,
    commits: Commits,
    /// The thread that commits, where there is one.
    commit_thread: Option<CommitThread>,
    unsynced: Unsynced,
    /// The condition of the disk when it was last reported.
    condition: Condition,
    /// Messages to each peer. The buffers are used again and again.
    sends: BTreeMap<NodeId, Vec<Envelope>>,
    replies: Vec<(ClientId, Outcome)>,
    /// The clients that wait for a reply.
    clients: BTreeMap<ClientId, Client>,
    /// The clients that wait for a list.
    listing: BTreeMap<ClientId, oneshot::Sender<Result<Listed, Refusal>>>,
    clients_begun: u64,
    /// The requests that were carried out since they were last counted.
    clients_served: Served,
    /// The number of tombstones at the last count.
    tombstones: u64,
    metrics: ShardMetrics,
    /// [`TURN_FOR`], except in tests.
    turn_for: Duration,
    wake_at: Option<Instant>,
    finished: Option<Epoch>,
    drained: Option<bool>,
    phases: Vec<(PartitionId, ConfigPhase)>,
    traces: Traces,
    slow: SlowRequests,
    book: LoadBook,
}

/// Work with large values that waits for a turn.
#[derive(Default)]
struct Large {
    /// Inputs with a large value, and the room that they take in the shard's queue.
    inputs: VecDeque<(Input, Option<OwnedSemaphorePermit>)>,
    /// Reads of large records.
    reads: VecDeque<(StoreId, Bytes)>,
    /// The thread that does these reads, where there is one.
    reader: Option<ReaderThread>,
    /// Until when the size of a record is checked before it is read, which pays only after a large one.
    check_size_until: Instant,
    /// For how many turns none of this was taken in.
    passed_over: u32,
}

impl Large {
    /// Whether nothing is left for a turn to take in.
    fn is_empty(&self) -> bool {
        self.inputs.is_empty() && (self.reads.is_empty() || self.reader.is_some())
    }

    /// Gives the next read to the reader thread, if that is free.
    fn read_next(&mut self) {
        if let Some(reader) = self.reader.as_mut().filter(|reader| reader.is_free())
            && let Some((id, storage_key)) = self.reads.pop_front()
        {
            reader.request(id, storage_key);
        }
    }
}

/// A client that waits for a reply.
struct Client {
    reply: oneshot::Sender<Outcome>,
    _under_way: UnderWay,
    /// When its request entered the shard's queue.
    arrived: Instant,
    operation: &'static str,
    partition: PartitionId,
    trace: Option<TraceContext>,
    /// What it waited for when it became slow.
    waits: Option<Box<Waits>>,
}

/// The store's name for a value that the machine remembers, distinct from the shard's own names.
pub(super) fn remembered(name: &[u8]) -> Bytes {
    [b"core/", name].concat().into()
}

impl<M: Machine, O: Outgoing> Turns<M, O> {
    pub(super) fn new(machine: M, disk: Disk, outgoing: O, clock: Clock) -> Self {
        Self {
            machine: SharedMachine::new(machine),
            disk,
            outgoing,
            clock,
            inputs: VecDeque::new(),
            large: Large::default(),
            commits: Commits::default(),
            commit_thread: None,
            unsynced: Unsynced::new(OsBoot::current()),
            condition: Condition::Good,
            sends: BTreeMap::new(),
            replies: Vec::new(),
            clients: BTreeMap::new(),
            listing: BTreeMap::new(),
            clients_begun: 0,
            clients_served: Served::default(),
            tombstones: 0,
            metrics: ShardMetrics::default(),
            turn_for: TURN_FOR,
            wake_at: None,
            finished: None,
            drained: None,
            phases: Vec::new(),
            traces: Traces::default(),
            slow: SlowRequests::new(Watching::default()),
            book: LoadBook::default(),
        }
    }

    /// Lets the tasks of this thread read from the machine.
    pub(super) fn open(&self, at_once: &AtOnce) {
        self.machine.open(at_once, self.clock);
    }

    /// Counts in `metrics`.
    pub(super) fn counted(self, metrics: ShardMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Tells of single requests.
    pub(super) fn watching(self, watching: Watching) -> Self {
        let partitions = watching.view.as_ref().map(|view| view.borrow().ring.partitions());
        let book = LoadBook::new(partitions);
        Self { traces: Traces::new(watching.clone()), slow: SlowRequests::new(watching), book, ..self }
    }

    /// Lets a turn step as long as it wants, however slow the machine is.
    #[cfg(test)]
    pub(super) fn without_time_limit(self) -> Self {
        Self { turn_for: Duration::MAX, ..self }
    }

    /// Reads large records on this thread.
    pub(super) fn with_reader(mut self, reader: Option<ReaderThread>) -> Self {
        self.large.reader = reader;
        self
    }

    /// Commits on this thread.
    pub(super) fn with_commit_thread(self, commit_thread: Option<CommitThread>) -> Self {
        Self { commit_thread, ..self }
    }

    /// The configurations that the machine has learned since the last call.
    pub(super) fn phases(&mut self) -> Vec<(PartitionId, ConfigPhase)> {
        std::mem::take(&mut self.phases)
    }

    /// Whether the machine has nothing left to hand over, if that has changed since the last call.
    pub(super) const fn drained(&mut self) -> Option<bool> {
        self.drained.take()
    }

    /// The epoch that the machine has finished since the last call, if any.
    pub(super) const fn finished(&mut self) -> Option<Epoch> {
        self.finished.take()
    }

    /// When the next turn is due if no input arrives.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at.into_iter().chain(self.disk.wake_at()).chain(self.unsynced.wake_at()).min()
    }

    /// Whether the machine can stamp writes and its disk works.
    pub(super) fn readiness(&mut self) -> ShardReadiness {
        let condition = self.disk.condition();
        self.metrics.disk(std::mem::replace(&mut self.condition, condition), condition);
        match condition {
            Condition::Failed => ShardReadiness::StoreFailed,
            _ if !self.machine.lock().is_ready() => ShardReadiness::Starting,
            Condition::Full => ShardReadiness::DiskFull,
            Condition::Good => ShardReadiness::Ready,
        }
    }

    /// Replies with a page of digests of what the disk holds once earlier writes are committed; with none if it cannot be read.
    pub(super) fn digests(&mut self, request: DigestsRequest, reply: oneshot::Sender<Option<DigestPage>>) {
        if let Some(waiting) = self.commits.wait(WaitingRead::Digests(request, reply)) {
            self.carry_out_waiting(waiting);
        }
    }

    /// Replies with a page of the records that the disk holds once earlier writes are committed; with none if one of them cannot be read.
    pub(super) fn copies(&mut self, request: CopiesRequest, reply: oneshot::Sender<Option<CopiesPage>>) {
        if let Some(waiting) = self.commits.wait(WaitingRead::Copies(request, reply)) {
            self.carry_out_waiting(waiting);
        }
    }

    /// [`Machine::partition_sums`].
    pub(super) fn partition_sums(&self, partition: PartitionId, level: u8) -> Option<PartitionSums> {
        self.machine.lock().partition_sums(partition, level)
    }

    /// Since when each replica is verified equal to each other home's.
    pub(super) fn proofs(&self) -> Vec<ReplicaProof> {
        self.machine.lock().proofs()
    }

    /// The measured round trips to each peer.
    pub(super) fn round_trips(&self) -> BTreeMap<NodeId, RoundTrips> {
        self.machine.lock().round_trips()
    }

    /// How much the machine holds of partitions.
    pub(super) fn sizes(&self, partitions: &[PartitionId]) -> NodeSizes {
        self.machine.lock().sizes(partitions)
    }

    /// Adds an input to the next turn.
    pub(super) fn add(&mut self, input: Input) {
        self.inputs.push_back(input);
    }

    /// Adds a peer's message of `bytes` bytes to the next turn or, if it is large, to a later one. Returns its room if it is the next turn.
    pub(super) fn add_message(
        &mut self,
        message: Envelope,
        bytes: usize,
        room: Option<OwnedSemaphorePermit>,
    ) -> Option<OwnedSemaphorePermit> {
        if message.trace.is_some() {
            self.traces.message(&message, self.clock.instant());
        }
        let input = Input::Message(message);
        if bytes < LARGE_BYTES {
            self.inputs.push_back(input);
            return room;
        }
        self.large.inputs.push_back((input, room));
        None
    }

    /// Whether a turn has left work for the next one.
    pub(super) fn has_more(&self) -> bool {
        !self.inputs.is_empty() || !self.large.is_empty()
    }

    /// Adds a client's request, which has waited this long, to the next turn, unless the client has stopped waiting.
    pub(super) fn add_request(
        &mut self,
        mut request: Request,
        (reply, under_way): (oneshot::Sender<Outcome>, UnderWay),
        waited: Duration,
        trace: Option<TraceContext>,
    ) {
        request.timeout = request.timeout.saturating_sub(waited);
        if request.timeout.is_zero() {
            self.metrics.refusals.inc();
            let _ = reply.send(Err(Refusal::Overloaded));
            return;
        }
        self.clients_begun += 1;
        let id = ClientId(self.clients_begun);
        let arrived = Instant(self.clock.instant().0.saturating_sub(waited.as_micros() as u64));
        if let Some(trace) = trace {
            self.traces.request(id, trace, &request, arrived);
        }
        let (operation, partition) =
            (slow::operation(&request), self.book.partition_of(request.operation.key().token()));
        let client = Client { reply, _under_way: under_way, arrived, operation, partition, trace, waits: None };
        self.clients.insert(id, client);
        let is_large = carries(&request.operation) >= LARGE_BYTES;
        let input = Input::Client(id, request);
        if is_large {
            self.large.inputs.push_back((input, None));
        } else {
            self.inputs.push_back(input);
        }
    }

    /// Adds a client's request for a list to the next turn.
    pub(super) fn add_list(&mut self, request: ListRequest, reply: oneshot::Sender<Result<Listed, Refusal>>) {
        self.clients_begun += 1;
        let id = ClientId(self.clients_begun);
        self.listing.insert(id, reply);
        self.inputs.push_back(Input::List(id, request));
    }

    /// The client requests that the machine has carried out since the last call.
    pub(super) fn clients_served(&mut self) -> Served {
        std::mem::take(&mut self.clients_served)
    }

    /// How many client requests have been under way for at least `age`.
    pub(super) fn clients_older_than(&self, age: Duration) -> usize {
        let now = self.clock.instant();
        // In the order in which they came here, and so nearly in that of their arrival.
        self.clients.values().take_while(|client| now.since(client.arrived) >= age).count()
    }

    /// Counts the tombstones that the machine holds.
    pub(super) fn count_tombstones(&mut self) {
        let tombstones = self.machine.lock().tombstones();
        self.metrics.tombstones(std::mem::replace(&mut self.tombstones, tombstones), tombstones);
    }

    /// Records that a turn has ended.
    pub(super) fn turned(&mut self, now: Instant, took: Duration) {
        self.book.turned(now, took);
    }

    /// What the shard does at the moment.
    pub(super) fn report(&self) -> ShardReport {
        let now = self.clock.instant();
        let oldest = self.clients.first_key_value().map(|(_, client)| now.since(client.arrived));
        ShardReport {
            inputs_left: self.inputs.len(),
            large_inputs: self.large.inputs.len(),
            large_reads: self.large.reads.len(),
            requests: self.clients.len(),
            oldest_request: oldest.unwrap_or_default(),
            commits_waiting: self.commits.waiting(),
            commit_for: self.commits.since().map(|begun| now.since(begun)),
            open_spans: self.traces.len(),
            turns: self.book.turns(),
            partitions: self.book.partitions(),
        }
    }

    /// How much background work the machine admits.
    pub(super) fn admitted(&self) -> Admitted {
        self.machine.lock().admitted()
    }

    /// Takes a turn: steps until there is no input and nothing to store, or until its time is over. It commits what is to be stored, or leaves
    /// that to the thread for commits.
    pub(super) fn take(&mut self) {
        let now = self.clock.instant();
        self.disk.tick(now);
        self.note_slow(now);
        if let Some(committed) = self.commit_thread.as_mut().and_then(CommitThread::try_result) {
            self.committed(committed);
        }
        if self.unsynced.take_due(now) {
            // The next commit syncs all earlier ones, too.
            self.commits.taking(None).sync = true;
        }
        self.metrics.turn(self.inputs.len());
        let (mut stepped, mut has_taken_large) = (Duration::ZERO, false);
        loop {
            stepped += self.step_for(self.turn_for.saturating_sub(stepped));
            let is_over = stepped >= self.turn_for;
            // What the machine sends before a commit does not depend on it, so it does not wait for the disk.
            self.flush();
            if self.commit_next() && !is_over {
                continue;
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

    /// Notes what requests wait for that have become slow: when they end, nothing tells it any more.
    fn note_slow(&mut self, now: Instant) {
        let (after, unnoted) = (self.slow.after(), (Bound::Excluded(self.slow.noted), Bound::Unbounded));
        // In the order in which they came here, and so nearly in that of their arrival.
        let slow = self.clients.range_mut(unnoted).take_while(|(_, client)| now.since(client.arrived) >= after);
        for (&id, client) in slow.take(slow::NOTED_MAX) {
            self.slow.noted = id;
            let on_commit = self.commits.since().is_some_and(|begun| begun <= client.arrived);
            let known = self.machine.lock().late_homes(id, now);
            client.waits = known.map(|(key, late)| Box::new(Waits { key, late, on_commit }));
        }
    }

    /// Steps until there is no input or the time `most` has passed, and returns the time taken. It takes in at least one input.
    fn step_for(&mut self, most: Duration) -> Duration {
        let begun = self.clock.instant();
        let mut now = self.clock.now();
        while !self.inputs.is_empty() {
            let mut inputs = self.inputs.len().min(STEP_MAX);
            let mut begins = None;
            if !self.traces.is_idle() {
                inputs = self.traces.step_of(self.inputs.iter().take(inputs));
                begins = self.traces.before_step(self.inputs.iter().take(inputs), now.instant);
            }
            let latest = self.inputs.iter().take(inputs).rev().find_map(|input| match input {
                Input::Client(id, _) => self.clients.get(id),
                _ => None,
            });
            if let Some(client) = latest {
                self.machine.lock().queued(now.instant.since(client.arrived));
            }
            let next_operation = if begins.is_some() { self.machine.lock().next_operation() } else { 0 };
            let mut effects = self.machine.lock().step_all(now, self.inputs.drain(..inputs));
            if !self.traces.is_idle() {
                if let Some(begins) = begins
                    && self.machine.lock().next_operation() != next_operation
                {
                    self.traces.begun(begins, next_operation, now.instant);
                }
                self.traces.effects(&mut effects, now.instant);
            }
            self.carry_out(effects);
            now = self.clock.now();
            if now.instant.since(begun) >= most {
                break;
            }
        }
        now.instant.since(begun)
    }

    /// Takes in one input or read with a large value.
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

    /// Commits the last batch. Returns the store's final mark if all of that worked.
    pub(super) fn close(&mut self) -> Option<Mark> {
        // It does not wait for the thread: the shard reads the requested record itself.
        let reading = self.large.reader.take().and_then(ReaderThread::into_reading);
        reading.into_iter().for_each(|read| self.large.reads.push_front(read));
        self.add(Input::Stop);
        self.take();
        if let Some(committed) = self.commit_thread.take().and_then(CommitThread::end) {
            self.committed(committed);
        }
        while self.has_more() || !self.commits.is_empty() {
            self.take();
        }
        self.disk.close(self.unsynced.last_batch())
    }

    fn carry_out(&mut self, effects: Effects) {
        let Effects { sends, replies, lists, stores, events, finished, drained, phases, wake_at } = effects;
        self.drained = drained.or(self.drained);
        self.phases.extend(phases);
        self.finished = finished.or(self.finished);
        for (to, message) in sends {
            if let Message::Forward(..) = &message.message {
                self.metrics.write_forwarded();
            }
            self.sends.entry(to).or_default().push(message);
        }
        self.replies.extend(replies);
        for (id, listed) in lists {
            // The client may have gone.
            self.listing.remove(&id).map(|reply| reply.send(listed));
        }
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
            StoreCommand::Write { storage_key, record, index, sync } => {
                let admitted_bytes = match self.room_for(&storage_key, record.as_ref()) {
                    Ok(bytes) => bytes,
                    Err(failed) => return self.refuse(id, failed),
                };
                let writes = self.commits.taking(Some(&storage_key));
                writes.admitted_bytes += admitted_bytes;
                writes.add(id, sync);
                match record {
                    Some(record) => writes.batch.put(storage_key, record),
                    None => writes.batch.remove(storage_key),
                }
                for change in index {
                    match change {
                        IndexChange::Add(entry) => writes.batch.add_index(entry),
                        IndexChange::Remove(entry) => writes.batch.remove_index(entry),
                    }
                }
            }
            StoreCommand::Remember { name, value } => self.remember(id, remembered(&name), value),
            read => {
                if let Some(waiting) = self.commits.wait(WaitingRead::Command(id, read)) {
                    self.carry_out_waiting(waiting);
                }
            }
        }
    }

    /// Carries out a read when all writes before it have ended.
    fn carry_out_waiting(&mut self, waiting: WaitingRead) {
        match waiting {
            WaitingRead::Command(id, StoreCommand::Read { storage_key }) if self.may_be_large(&storage_key) => {
                self.large.reads.push_back((id, storage_key));
                self.large.read_next();
            }
            WaitingRead::Command(id, StoreCommand::Read { storage_key }) => self.read(id, &storage_key),
            WaitingRead::Command(id, StoreCommand::Scan { from, upto, at_most }) => {
                let scanned = self.disk.scan(&from, upto.as_deref(), at_most);
                self.ended(id, StoreResult::Scanned(scanned));
            }
            WaitingRead::Command(id, StoreCommand::ScanIndex { from, upto, entries_max }) => {
                let listed = self.disk.scan_index(&from, &upto, entries_max);
                self.ended(id, StoreResult::Listed(listed));
            }
            WaitingRead::Command(id, StoreCommand::Recall { name }) => {
                let recalled = self.disk.recall(&remembered(&name));
                self.ended(id, StoreResult::Read(recalled));
            }
            // Writes do not wait.
            WaitingRead::Command(id, write @ (StoreCommand::Write { .. } | StoreCommand::Remember { .. })) => {
                self.store(id, write);
            }
            WaitingRead::Digests(request, reply) => {
                // The client may have gone away.
                let _ = reply.send(self.disk.readable().map(|store| digests::page(store, &request)));
            }
            WaitingRead::Copies(request, reply) => {
                let page = self.disk.readable().map(|store| copies::page(store, &request));
                let page = page
                    .and_then(|page| page.inspect_err(|error| warn!(%error, "cannot read records for a backup")).ok());
                let _ = reply.send(page);
            }
        }
    }

    /// Whether a record is known to be large before it is read.
    fn may_be_large(&self, storage_key: &Bytes) -> bool {
        self.clock.instant() < self.large.check_size_until && self.disk.size_of(storage_key) >= LARGE_BYTES
    }

    fn read(&mut self, id: StoreId, storage_key: &Bytes) {
        let read = self.disk.read(storage_key);
        self.note_size(&read);
        self.ended(id, StoreResult::Read(read));
    }

    /// Takes in a record that the reader thread has read.
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
            self.large.check_size_until = self.clock.instant() + CHECK_SIZE_FOR;
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

    /// Checks that there is room for a write, and returns the bytes that it takes. A removal is always allowed, because it frees space in the
    /// end.
    fn room_for(&mut self, storage_key: &Bytes, record: Option<&Bytes>) -> Result<u64, WriteFailed> {
        let Some(record) = record else { return self.disk.open_store().map(|_| 0) };
        let bytes = (storage_key.len() + record.len()) as u64;
        self.disk.takes(bytes, self.clock.instant())?;
        Ok(bytes)
    }

    /// Stores a few bytes without which the node cannot go on: the reserve is for this, too.
    fn remember(&mut self, id: StoreId, name: Bytes, value: Bytes) {
        if let Err(failed) = self.disk.open_store() {
            return self.refuse(id, failed);
        }
        let writes = self.commits.taking(None);
        writes.batch.put_meta(name, value);
        writes.add(id, true);
    }

    fn refuse(&mut self, id: StoreId, failed: WriteFailed) {
        self.inputs.push_back(Input::Stored(id, StoreResult::Written(Err(failed))));
    }

    /// Begins the next commit, if there is one and none is under way. Returns whether it has ended already.
    fn commit_next(&mut self) -> bool {
        let Some(mut writes) = self.commits.next() else { return false };
        let (mut batch, begun) = (std::mem::take(&mut writes.batch), self.clock.instant());
        let wanted = if writes.sync { Durability::Synced } else { Durability::Os };
        let durability = self.unsynced.commit(&mut batch, wanted, begun);
        let mark = match self.disk.begin_commit(&mut batch, writes.admitted_bytes) {
            Ok(mark) => mark,
            Err(failed) => {
                self.writes_ended(writes, begun, Err(failed));
                return true;
            }
        };
        self.commits.begun(CommitUnderWay { writes, mark, durability, begun });
        // Without a sync it takes less time than to wake the thread.
        let is_quick = durability == Durability::Os && !self.disk.is_behind();
        if let Some(thread) = self.commit_thread.as_ref().filter(|_| !is_quick) {
            thread.submit(batch, durability);
            return false;
        }
        let committed =
            self.disk.open_store().map_or(Err(StoreError::Poisoned), |store| store.commit(batch, durability));
        self.committed(committed);
        true
    }

    /// Waits for the end of the commit under way on another thread, and takes its result.
    pub(super) fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(thread) = &mut self.commit_thread else { return Poll::Pending };
        let committed = ready!(thread.poll_result(cx));
        self.committed(committed);
        Poll::Ready(())
    }

    /// Takes the result of the commit under way.
    fn committed(&mut self, committed: Result<(), StoreError>) {
        let Some(CommitUnderWay { writes, mark, durability, begun }) = self.commits.ended() else { return };
        let written = self.disk.end_commit(mark, durability, committed, self.clock.instant());
        self.writes_ended(writes, begun, written);
    }

    fn writes_ended(&mut self, writes: Writes, begun: Instant, written: Result<(), WriteFailed>) {
        if written.is_err() {
            // Whether the mark of unsynced writes is stored is uncertain.
            self.unsynced.invalidate();
        }
        if !writes.commands.is_empty() {
            let took = self.clock.instant().since(begun);
            self.metrics.commit(writes.commands.len(), took, written.is_err());
        }
        self.inputs.extend(writes.commands.into_iter().map(|id| Input::Stored(id, StoreResult::Written(written))));
        // Before the next commit begins: they see none of its writes.
        writes.waiting.into_iter().for_each(|waiting| self.carry_out_waiting(waiting));
    }

    /// Sends what has gathered for peers and clients.
    fn flush(&mut self) {
        let synced = self.disk.synced();
        for (&to, messages) in self.sends.iter_mut().filter(|(_, messages)| !messages.is_empty()) {
            self.outgoing.send(to, messages, synced);
            messages.clear();
            messages.shrink_to(MESSAGES_KEPT);
        }
        let now = self.clock.instant();
        for (id, outcome) in self.replies.drain(..) {
            if let Some(client) = self.clients.remove(&id) {
                let took = now.since(client.arrived);
                self.book.requested(client.partition, took);
                if outcome.is_ok() {
                    self.clients_served.add(Served { requests: 1, took });
                }
                if let Some(waits) = &client.waits {
                    self.metrics.slow_request(client.operation);
                    self.slow.log(client.operation, waits, took, &outcome, client.trace);
                }
                // The client may have gone away.
                let _ = client.reply.send(outcome);
            }
        }
    }
}

/// The size of the value in a client's request.
fn carries(operation: &Operation) -> usize {
    match operation {
        Operation::Put(Put { content: Content::Value { bytes, .. }, .. }) => bytes.len(),
        Operation::Put(_) | Operation::Get(_) | Operation::Inspect(_) => 0,
        Operation::Restore(restore) => restore.state.weight().bytes,
    }
}

/// Limits log lines about what others send without good reason.
static PEER_ERRORS: RateLimit = RateLimit::new(Duration::from_secs(10));
static UNREADABLE: RateLimit = RateLimit::new(Duration::from_secs(10));

fn log(event: &Event) {
    match event {
        Event::Repaired(key, node, how) => {
            debug!(?key, peer = %node, found_by = how.name(), "repaired a stale replica")
        }
        Event::Exchanged(tree, node) => {
            debug!(partition = %tree.partition, group = tree.group.0, peer = %node, "exchange completed, replicas are equal");
        }
        Event::ExchangeFailed(tree, node) => {
            debug!(partition = %tree.partition, group = tree.group.0, peer = %node, "exchange did not complete");
        }
        Event::ExchangeRefused(node) => {
            if let Some(count) = PEER_ERRORS.count(1) {
                warn!(
                peer = %node,
                refusals = count,
                "refused an anti-entropy message: it is malformed, or the nodes do not share the partition"
                );
            }
        }
        Event::TreeWrong(partition) => {
            error!(%partition, "rebuilt a Merkle tree that did not match its records");
        }
        Event::TreesUnready { .. } | Event::DigestsSent(_) | Event::Collected(_) | Event::TransferSent { .. } => {}
        Event::TransferReceived { partition, records, bytes } => {
            debug!(%partition, records, bytes, "received records as a new home");
        }
        Event::StaleRefused(node) => {
            debug!(peer = %node, "refused a message that was sent more than one epoch ago");
        }
        Event::DotCollision(key) => {
            error!(
                alarm = "dot_collision",
                ?key,
                "kept two values of one version as siblings: a disk is broken, two nodes run on copies of one data directory, or a message was forged"
            );
        }
        Event::RecordLost(key, error) => {
            warn!(?key, %error, "lost a record; fetching it from other replicas")
        }
        Event::RecordNotKnown(key, error) => {
            if let Some(count) = UNREADABLE.count(1) {
                error!(?key, refusals = count, %error, "refused requests for a record that this build cannot read");
            }
        }
        Event::ClockOff { offset_ms: 0, .. } => info!("clock agrees with the peers' clocks again"),
        Event::ClockOff { offset_ms, refuses: true } => {
            error!(offset_ms, "clock is too far off the peers' clocks; refusing writes: set the clock");
        }
        Event::ClockOff { offset_ms, refuses: false } => {
            warn!(offset_ms, "clock is off the peers' clocks: check the clock");
        }
        Event::TimestampsAhead { ahead_ms: 0 } => info!("timestamps are near the clock again"),
        Event::TimestampsAhead { ahead_ms } => {
            warn!(ahead_ms, "timestamps run ahead of the clock: a clock was wrong, here or on another node");
        }
        Event::NotAHome(node) => {
            debug!(peer = %node, "refused a request: this node, or the node to stand in for, is not a home of the key");
        }
        Event::HintsHeld { .. } => {}
        Event::HintDelivered(node) => debug!(peer = %node, "delivered a hint"),
        Event::HintsFull { is_full: true, bytes_max } => warn!(
            alarm = "hints_full",
            hints_mib = bytes_max >> 20,
            "hints full; further ones go to the next nodes: bring back or replace the nodes that are down, or raise hints_share"
        ),
        Event::HintsFull { is_full: false, .. } => info!("hints have room again"),
        Event::StrayMessage(node) => {
            if let Some(count) = PEER_ERRORS.count(1) {
                warn!(peer = %node, refusals = count, "dropped a message from a node that is not a member");
            }
        }
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
