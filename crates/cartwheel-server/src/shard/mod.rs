//! A shard: one thread that owns one protocol state machine and one store.
//!
//! The thread is a runtime of its own. The shard's connections are tasks beside the shard, so that most of its work wakes no other thread. A
//! bounded queue leads to the shard, from these tasks and from other threads. A turn takes what has gathered there; what it stores is committed on
//! another thread while the shard goes on, so the busier the shard is, the less a write costs.

mod at_once;
mod commit_thread;
mod commits;
mod copies;
mod digests;
pub mod disk;
mod group;
mod hints;
mod load;
mod metrics;
mod phases;
mod reader;
mod report;
pub mod reserve;
mod shared;
mod slow;
mod thread;
mod traces;
mod turn;
pub mod unsynced;
mod wait;

#[cfg(test)]
mod failing_tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::task::Context;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cartwheel_core::admission::Admitted;
use cartwheel_core::anti_entropy::ReplicaProof;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::latency::RoundTrips;
use cartwheel_core::cluster::liveness::Liveness;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::cluster::sizes::NodeSizes;
use cartwheel_core::message::Envelope;
use cartwheel_core::message::client::{ClientId, Get, Outcome, Refusal, Request};
use cartwheel_core::message::listing::{ListRequest, Listed};
use cartwheel_core::message::trace::TraceContext;
use cartwheel_core::node::sums::PartitionSums;
use cartwheel_core::node::{Effects, FoundAtOnce, Input, Node};
use cartwheel_core::reconfiguration::partition_state_name;
use cartwheel_core::ring::{PartitionId, Partitions};
use cartwheel_core::store::command::StoreId;
use cartwheel_core::store::loss_book;
use cartwheel_core::store::loss_book::{LossBook, LossesDamaged};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::time::{Instant as CoreInstant, Now};
use cartwheel_core::wire::{Protocol, WireError, decode_partition_state};
use cartwheel_storage::{Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::data_dir::lineage::Mark;
use crate::os::clock::Clock;
use crate::trace::Tracer;
use at_once::AtOnce;
use commit_thread::CommitThread;
pub use copies::{CopiesPage, CopiesRequest};
pub use digests::{DigestPage, DigestsRequest, HeldContent, HeldRecord, PAGE_RECORDS_MAX, Rest};
use disk::Disk;
pub use group::Shards;
pub use hints::HintsBoard;
pub use load::Place;
use load::{Load, UnderWay, UnderWayLimit};
pub use metrics::ShardMetrics;
pub(crate) use metrics::latency_buckets;
pub use phases::PhasesBox;
use reader::ReaderThread;
pub use report::{ShardReport, Times};
use thread::ShardRuntime;
pub use traces::OPEN_MAX as OPEN_SPANS_MAX;
use turn::Turns;
use wait::Waiter;

/// How many inputs may wait for a shard. At a few microseconds each, a full queue is some tens of milliseconds of work.
pub const INBOX_MAX: usize = 8_192;
/// The most inputs in one turn, so that the first of them does not wait for too many others.
const TURN_MAX: usize = 512;

/// How often, at least, further requests may begin while some have to wait.
const ADMIT_EVERY: Duration = Duration::from_millis(10);

/// How often the admitted background work and the tombstones are reported.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What a shard drives: [`Node`], or a script in a test.
pub trait Machine: Send + 'static {
    /// [`Node::step`].
    fn step(&mut self, now: Now, input: Input) -> Effects;

    /// [`Node::step_all`].
    fn step_all(&mut self, now: Now, inputs: impl Iterator<Item = Input>) -> Effects {
        let mut effects = Effects::default();
        inputs.for_each(|input| effects.merge(self.step(now, input)));
        effects
    }

    /// [`Node::is_ready`].
    fn is_ready(&self) -> bool {
        true
    }

    /// Since when each replica is verified equal to each other home's.
    fn proofs(&self) -> Vec<ReplicaProof> {
        Vec::new()
    }

    /// [`Node::round_trips`].
    fn round_trips(&self) -> BTreeMap<NodeId, RoundTrips> {
        BTreeMap::new()
    }

    /// [`Node::queued`].
    fn queued(&mut self, _waited: Duration) {}

    /// [`Node::read_at_once`].
    fn read_at_once(&mut self, _now: Now, _waited: Duration, _get: &Get, _take: &mut dyn FnMut(&FoundAtOnce<'_>)) {}

    /// How much it holds of partitions.
    fn sizes(&self, _partitions: &[PartitionId]) -> NodeSizes {
        NodeSizes::default()
    }

    /// [`Node::partition_sums`].
    fn partition_sums(&self, _partition: PartitionId, _level: u8) -> Option<PartitionSums> {
        None
    }

    /// How many tombstones it holds.
    fn tombstones(&self) -> u64 {
        0
    }

    /// [`Node::admitted`].
    fn admitted(&self) -> Admitted {
        Admitted::default()
    }

    /// [`Node::next_operation`].
    fn next_operation(&self) -> u64 {
        0
    }

    /// [`Node::late_homes`].
    fn late_homes(&self, _client: ClientId, _now: CoreInstant) -> Option<(Key, Vec<NodeId>)> {
        None
    }
}

impl Machine for Node {
    fn step(&mut self, now: Now, input: Input) -> Effects {
        Self::step(self, now, input)
    }

    fn step_all(&mut self, now: Now, inputs: impl Iterator<Item = Input>) -> Effects {
        Self::step_all(self, now, inputs)
    }

    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn proofs(&self) -> Vec<ReplicaProof> {
        self.exchange().proofs().collect()
    }

    fn round_trips(&self) -> BTreeMap<NodeId, RoundTrips> {
        Self::round_trips(self).map(|(node, round_trips)| (node, round_trips.clone())).collect()
    }

    fn read_at_once(&mut self, now: Now, waited: Duration, get: &Get, take: &mut dyn FnMut(&FoundAtOnce<'_>)) {
        Self::read_at_once(self, now, waited, get, take);
    }

    fn sizes(&self, partitions: &[PartitionId]) -> NodeSizes {
        self.sizes(partitions)
    }

    fn partition_sums(&self, partition: PartitionId, level: u8) -> Option<PartitionSums> {
        self.partition_sums(partition, level)
    }

    fn tombstones(&self) -> u64 {
        self.exchange().trees().tombstones()
    }

    fn queued(&mut self, waited: Duration) {
        Self::queued(self, waited);
    }

    fn admitted(&self) -> Admitted {
        Self::admitted(self)
    }

    fn next_operation(&self) -> u64 {
        Self::next_operation(self)
    }

    fn late_homes(&self, client: ClientId, now: CoreInstant) -> Option<(Key, Vec<NodeId>)> {
        Self::late_homes(self, client, now)
    }
}

/// Sends a shard's messages. It must not block.
pub trait Outgoing: Send + 'static {
    /// Sends `messages` to a peer, or drops them. `synced` is the mark of the shard's last synced commit: everything that the messages
    /// acknowledge was committed with that mark or an earlier one.
    fn send(&mut self, to: NodeId, messages: &[Envelope], synced: Option<Mark>);
}

/// An entry of a shard's queue.
enum Work {
    Request(Request, oneshot::Sender<Outcome>, UnderWay, Instant, Option<TraceContext>),
    List(ListRequest, oneshot::Sender<Result<Listed, Refusal>>),
    /// A message, its size, and the room that it takes.
    Message(Envelope, usize, Option<OwnedSemaphorePermit>),
    View(Arc<View>),
    Liveness(Arc<Liveness>),
    Epoch(Epoch),
    AllSpeak(Protocol),
    Phases(Vec<(PartitionId, ConfigPhase)>),
    Digests(DigestsRequest, oneshot::Sender<Option<DigestPage>>),
    Copies(CopiesRequest, oneshot::Sender<Option<CopiesPage>>),
    Sums(PartitionId, u8, oneshot::Sender<Option<PartitionSums>>),
    Proofs(oneshot::Sender<Vec<ReplicaProof>>),
    RoundTrips(oneshot::Sender<BTreeMap<NodeId, RoundTrips>>),
    Sizes(Vec<PartitionId>, oneshot::Sender<NodeSizes>),
    Report(oneshot::Sender<ShardReport>),
    /// A large record that another thread has read.
    Read(StoreId, reader::Read),
    Stop,
}

/// A handle to a shard.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    inbox: mpsc::Sender<Work>,
    /// Pages of digests and of records are made one at a time, however many are requested, so that client requests wait for one at most.
    paging: Arc<Semaphore>,
    at_once: AtOnce,
    load: Load,
    metrics: ShardMetrics,
    watching: Watching,
    spawner: Handle,
}

/// What a shard tells of single requests.
#[derive(Clone, Debug)]
pub struct Watching {
    /// The names of nodes; none in tests.
    pub view: Option<watch::Receiver<Arc<View>>>,
    /// Takes the spans of those that are in a trace.
    pub tracer: Tracer,
    /// Those that take this long are logged.
    pub slow_request: Duration,
}

impl Default for Watching {
    /// Traces and logs nothing.
    fn default() -> Self {
        Self { view: None, tracer: Tracer::default(), slow_request: Duration::MAX }
    }
}

impl Watching {
    /// A node's name, or its id if it is no longer a member.
    fn name_of(&self, node: NodeId) -> String {
        let name = |view: &View| view.member(node).map(|known| known.member.name.clone());
        self.view.as_ref().and_then(|view| name(&view.borrow())).unwrap_or_else(|| node.to_string())
    }
}

/// The shard has stopped.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

impl ShardHandle {
    /// Carries out a client's request, in its place if it was admitted. An overloaded shard refuses it at once.
    ///
    /// # Errors
    /// If the shard stops before it responds. A write may or may not have been done.
    pub async fn request(&self, request: Request, place: Option<Place>) -> Result<Outcome, Stopped> {
        if let Err(overloaded) = self.admits() {
            return Ok(Err(overloaded));
        }
        let (reply, outcome) = oneshot::channel();
        let trace = self.watching.tracer.current();
        match self.inbox.try_send(Work::Request(request, reply, self.load.begin(place), Instant::now(), trace)) {
            Ok(()) => outcome.await.map_err(|_| Stopped),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(Err(self.overloaded())),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Stopped),
        }
    }

    /// Gives `take` what a read finds, if the machine can answer it at once and the caller is a task of the shard's thread. Otherwise nothing has
    /// happened, and the read needs a [`request`](Self::request).
    pub fn read_at_once<T>(&self, get: &Get, take: impl FnOnce(&FoundAtOnce<'_>) -> T) -> Option<T> {
        self.at_once.read(get, take)
    }

    /// Lists keys, or the sizes of buckets, of the shard's partitions.
    ///
    /// # Errors
    /// If the shard stops before it responds.
    pub async fn list(&self, request: ListRequest) -> Result<Result<Listed, Refusal>, Stopped> {
        if let Err(overloaded) = self.admits() {
            return Ok(Err(overloaded));
        }
        let (reply, listed) = oneshot::channel();
        self.inbox.send(Work::List(request, reply)).await.map_err(|_| Stopped)?;
        listed.await.map_err(|_| Stopped)
    }

    /// Waits until a request is admitted, for at most `patience`. Its value is read, and the request made, afterwards.
    ///
    /// # Errors
    /// If the shard is overloaded.
    pub async fn admit(&self, patience: Duration) -> Result<Place, Refusal> {
        self.admits()?;
        self.load.admit(patience).await.ok_or_else(|| self.overloaded())
    }

    /// Checks that the shard is not so overloaded that it refuses at once.
    ///
    /// # Errors
    /// If the shard is overloaded.
    pub fn admits(&self) -> Result<(), Refusal> {
        if self.refuses() { Err(self.overloaded()) } else { Ok(()) }
    }

    fn refuses(&self) -> bool {
        self.load.refuses(self.waiting())
    }

    fn overloaded(&self) -> Refusal {
        self.metrics.refusals.inc();
        Refusal::Overloaded
    }

    /// Spawns tasks on the shard's thread. They end with the shard.
    pub const fn spawner(&self) -> &Handle {
        &self.spawner
    }

    /// The number of inputs in the shard's queue.
    pub fn waiting(&self) -> usize {
        self.inbox.max_capacity() - self.inbox.capacity()
    }

    /// The bytes of peers' messages in the shard's queue or turn.
    pub fn waiting_bytes(&self) -> usize {
        self.load.bytes()
    }

    /// How many there may be.
    pub const fn waiting_bytes_max(&self) -> usize {
        load::BYTES_MAX
    }

    /// How many client requests the shard may have under way at the moment.
    pub fn under_way_max(&self) -> usize {
        self.load.under_way_max()
    }

    /// The number of client requests that the shard has under way.
    pub fn under_way(&self) -> usize {
        self.load.under_way()
    }

    /// How much background work the shard admits, as last reported.
    pub fn admitted(&self) -> Admitted {
        self.load.admitted()
    }

    /// Hands a peer's message of `bytes` bytes to the shard, and waits while its queue is full.
    ///
    /// # Errors
    /// If the shard has stopped.
    pub async fn deliver(&self, message: Envelope, bytes: usize) -> Result<(), Stopped> {
        let room = self.load.room_for(bytes).await;
        self.inbox.send(Work::Message(message, bytes, room)).await.map_err(|_| Stopped)
    }

    /// Sets the shard's view.
    pub async fn set_view(&self, view: Arc<View>) {
        let _ = self.inbox.send(Work::View(view)).await;
    }

    /// Sets the liveness of the other nodes.
    pub async fn set_liveness(&self, liveness: Arc<Liveness>) {
        let _ = self.inbox.send(Work::Liveness(liveness)).await;
    }

    /// Sets the epoch.
    pub async fn set_epoch(&self, epoch: Epoch) {
        let _ = self.inbox.send(Work::Epoch(epoch)).await;
    }

    /// Sets the version of the protocol that all members speak. It must be saved in the data directory before.
    pub async fn set_all_speak(&self, protocol: Protocol) {
        let _ = self.inbox.send(Work::AllSpeak(protocol)).await;
    }

    /// Passes on configurations of the shard's partitions that others know.
    pub async fn set_phases(&self, phases: Vec<(PartitionId, ConfigPhase)>) {
        let _ = self.inbox.send(Work::Phases(phases)).await;
    }

    /// A page of digests of a range of keys; none if the disk cannot be read.
    pub async fn digests(&self, request: DigestsRequest) -> Option<DigestPage> {
        let _turn = self.paging.acquire().await.ok()?;
        let (reply, response) = oneshot::channel();
        self.inbox.send(Work::Digests(request, reply)).await.ok()?;
        response.await.ok()?
    }

    /// A page of the records of a range of keys; none if one of them cannot be read.
    pub async fn copies(&self, request: CopiesRequest) -> Option<CopiesPage> {
        let _turn = self.paging.acquire().await.ok()?;
        let (reply, response) = oneshot::channel();
        self.inbox.send(Work::Copies(request, reply)).await.ok()?;
        response.await.ok()?
    }

    /// The sums of a partition, if the shard is a synced home of all its keys.
    pub async fn partition_sums(&self, partition: PartitionId, level: u8) -> Option<PartitionSums> {
        let (reply, response) = oneshot::channel();
        self.inbox.send(Work::Sums(partition, level, reply)).await.ok()?;
        response.await.ok()?
    }

    /// Since when each of the shard's replicas is verified equal to each other home's; nothing if the shard stops.
    pub async fn proofs(&self) -> Vec<ReplicaProof> {
        let (reply, response) = oneshot::channel();
        let _ = self.inbox.send(Work::Proofs(reply)).await;
        response.await.unwrap_or_default()
    }

    /// The round trips to each peer that the shard has measured; nothing if the shard stops.
    pub async fn round_trips(&self) -> BTreeMap<NodeId, RoundTrips> {
        let (reply, response) = oneshot::channel();
        let _ = self.inbox.send(Work::RoundTrips(reply)).await;
        response.await.unwrap_or_default()
    }

    /// How much the shard holds of these partitions of its own; none if the shard stops.
    pub async fn sizes(&self, partitions: Vec<PartitionId>) -> Option<NodeSizes> {
        let (reply, response) = oneshot::channel();
        self.inbox.send(Work::Sizes(partitions, reply)).await.ok()?;
        response.await.ok()
    }

    /// What the shard does at the moment; none if it stops.
    pub async fn report(&self) -> Option<ShardReport> {
        let (reply, response) = oneshot::channel();
        self.inbox.send(Work::Report(reply)).await.ok()?;
        response.await.ok()
    }

    /// Makes the shard finish its queue, sync its store and end.
    pub async fn stop(&self) {
        let _ = self.inbox.send(Work::Stop).await;
    }

    /// Whether the shard runs.
    pub fn is_running(&self) -> bool {
        !self.inbox.is_closed()
    }

    /// Waits until the shard has ended.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }
}

/// A shard's queue, made before the shard so that what must reach the shard can be made first.
#[derive(Debug)]
pub struct Inbox {
    queue: mpsc::Receiver<Work>,
    /// A sender for the shard's own helpers. It does not keep the queue open.
    own: mpsc::WeakSender<Work>,
    at_once: AtOnce,
    load: Load,
    metrics: ShardMetrics,
    watching: Watching,
    runtime: ShardRuntime,
}

/// Makes a shard's queue and a handle to it. The shard's metrics are not published.
#[cfg(test)]
pub fn inbox() -> (ShardHandle, Inbox) {
    counted_inbox(&ShardMetrics::default(), &Watching::default()).unwrap()
}

/// Makes a shard's queue and a handle to it. The shard counts in `metrics`, and tells of requests in `watching`.
///
/// # Errors
/// If the system has no resources for the shard's runtime.
pub fn counted_inbox(metrics: &ShardMetrics, watching: &Watching) -> io::Result<(ShardHandle, Inbox)> {
    let (sender, queue) = mpsc::channel(INBOX_MAX);
    let own = sender.downgrade();
    let (paging, load, runtime) = (Arc::new(Semaphore::new(1)), Load::default(), ShardRuntime::new()?);
    let spawner = runtime.spawner();
    let at_once = AtOnce::default();
    let handle = ShardHandle {
        inbox: sender,
        paging,
        at_once: at_once.clone(),
        load: load.clone(),
        metrics: metrics.clone(),
        watching: watching.clone(),
        spawner,
    };
    Ok((handle, Inbox { queue, own, at_once, load, metrics: metrics.clone(), watching: watching.clone(), runtime }))
}

/// A running shard.
#[derive(Debug)]
pub struct Running {
    /// The shard's thread.
    pub thread: JoinHandle<Option<Mark>>,
    /// The shard's readiness.
    pub ready: watch::Receiver<ShardReadiness>,
    /// What it reports to its node's control.
    pub reports: ShardReports,
}

/// What a shard reports to its node's control.
#[derive(Clone, Debug)]
pub struct ShardReports {
    /// The last epoch that it has finished.
    pub finished: watch::Receiver<Epoch>,
    /// Whether it has nothing left that its leaving node must hand over.
    pub drained: watch::Receiver<bool>,
    /// The configurations of its partitions.
    pub phases: PhasesBox,
}

/// What a shard can do, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ShardReadiness {
    /// Only what other nodes can do, until its store is open again.
    StoreFailed,
    /// Nothing that needs a timestamp yet.
    Starting,
    /// Reads, and writes for which other homes have room.
    DiskFull,
    /// Everything.
    Ready,
}

/// Starts the shard with this index on a thread of its own, which ends at [`ShardHandle::stop`].
///
/// # Errors
/// If the system cannot start a thread.
pub fn start(
    index: u32,
    machine: impl Machine,
    disk: Disk,
    outgoing: impl Outgoing,
    inbox: Inbox,
    clock: Clock,
) -> io::Result<Running> {
    let Inbox { queue, own, at_once, load, metrics, watching, runtime } = inbox;
    // After the shard has ended, the result is dropped.
    let read = move |id, read| own.upgrade().map_or((), |shard| drop(shard.blocking_send(Work::Read(id, read))));
    let reader = ReaderThread::start(index, disk.shared_reader(), read);
    let commit_thread = CommitThread::start(index, disk.shared_committer());
    let turns = Turns::new(machine, disk, outgoing, clock).counted(metrics).watching(watching);
    let turns = turns.with_reader(reader).with_commit_thread(commit_thread);
    let (ready_sender, ready) = watch::channel(ShardReadiness::Starting);
    let (finished_sender, finished) = watch::channel(Epoch::UNKNOWN);
    let (drained_sender, drained) = watch::channel(false);
    let phases = PhasesBox::default();
    let published =
        Published { ready: ready_sender, finished: finished_sender, drained: drained_sender, phases: phases.clone() };
    let body = move || {
        turns.open(&at_once);
        runtime.run(run(turns, queue, (&load, &at_once), clock, &published))
    };
    let thread = std::thread::Builder::new().name(format!("shard-{index}")).spawn(body)?;
    Ok(Running { thread, ready, reports: ShardReports { finished, drained, phases } })
}

/// Where a shard publishes its state.
struct Published {
    ready: watch::Sender<ShardReadiness>,
    finished: watch::Sender<Epoch>,
    drained: watch::Sender<bool>,
    phases: PhasesBox,
}

async fn run<M: Machine, O: Outgoing>(
    mut turns: Turns<M, O>,
    mut inbox: mpsc::Receiver<Work>,
    (load, at_once): (&Load, &AtOnce),
    clock: Clock,
    published: &Published,
) -> Option<Mark> {
    let mut gathered = Vec::with_capacity(TURN_MAX);
    // The room of the turn's messages, until the turn has ended.
    let mut rooms = Vec::new();
    let mut next_report = clock.instant();
    let mut waiter = Waiter::new();
    let mut under_way_limit = UnderWayLimit::default();
    // The machine starts with the first tick.
    turns.add(Input::Tick);
    turns.take();
    loop {
        let readiness = turns.readiness();
        published.ready.send_if_modified(|ready| std::mem::replace(ready, readiness) != readiness);
        if let Some(epoch) = turns.finished() {
            published.finished.send_replace(epoch);
        }
        if let Some(drained) = turns.drained() {
            published.drained.send_replace(drained);
        }
        published.phases.put(turns.phases());
        let patience = match turns.has_more() {
            true => Some(Duration::ZERO),
            false => turns.wake_at().map(|wake_at| wake_at.since(clock.instant())),
        };
        let patience = match load.is_exhausted() {
            true => Some(patience.map_or(ADMIT_EVERY, |patience| patience.min(ADMIT_EVERY))),
            false => patience,
        };
        if patience == Some(Duration::ZERO) || !inbox.is_empty() {
            // The other tasks of the thread get their turn, too.
            tokio::task::yield_now().await;
        }
        let committed = |cx: &mut Context<'_>| turns.poll_committed(cx);
        waiter.gather(&mut inbox, &mut gathered, TURN_MAX, patience, committed).await;
        // A closed and empty queue means stop, too.
        let mut stop = inbox.is_closed() && gathered.is_empty();
        let (begun, inputs) = (clock.instant(), gathered.len());
        for work in gathered.drain(..) {
            match work {
                Work::Request(request, reply, under_way, arrived, trace) => {
                    let waited = arrived.elapsed();
                    turns.add_request(request, (reply, under_way), waited, trace);
                }
                Work::List(request, reply) => turns.add_list(request, reply),
                Work::Message(message, bytes, room) => rooms.extend(turns.add_message(message, bytes, room)),
                Work::View(view) => turns.add(Input::View(view)),
                Work::Liveness(liveness) => turns.add(Input::Liveness(liveness)),
                Work::Epoch(epoch) => turns.add(Input::Epoch(epoch)),
                Work::AllSpeak(protocol) => turns.add(Input::AllSpeak(protocol)),
                Work::Phases(phases) => turns.add(Input::Phases(phases)),
                Work::Digests(request, reply) => turns.digests(request, reply),
                Work::Copies(request, reply) => turns.copies(request, reply),
                Work::Sums(partition, level, reply) => drop(reply.send(turns.partition_sums(partition, level))),
                Work::Proofs(reply) => drop(reply.send(turns.proofs())),
                Work::RoundTrips(reply) => drop(reply.send(turns.round_trips())),
                Work::Report(reply) => drop(reply.send(turns.report())),
                Work::Sizes(partitions, reply) => drop(reply.send(turns.sizes(&partitions))),
                Work::Read(id, read) => turns.has_read(id, read),
                Work::Stop => stop = true,
            }
        }
        if turns.wake_at().is_some_and(|wake_at| wake_at <= clock.instant()) {
            turns.add(Input::Tick);
        }
        turns.take();
        rooms.clear();
        let ended = clock.instant();
        load.turn(inputs, ended.since(begun));
        at_once.turn(ended, ended.since(begun));
        turns.turned(ended, ended.since(begun));
        let served = turns.clients_served();
        let older_than = |age| turns.clients_older_than(age);
        let under_way_max = under_way_limit.served(served, ended, older_than);
        load.set_under_way_max(under_way_max);
        if begun >= next_report {
            next_report = begun + REPORT_EVERY;
            load.admits(turns.admitted());
            turns.count_tombstones();
        }
        if stop {
            return turns.close();
        }
    }
}

/// The partition states in a shard's store.
///
/// # Errors
/// If the store cannot be read, or an entry is malformed.
pub fn partition_states(
    store: &dyn Store,
    partitions: Partitions,
    shard_id: ShardId,
) -> Result<Vec<(PartitionId, PartitionState)>, PartitionStatesError> {
    let is_here = |partition: &PartitionId| ShardId::of_partition(*partition, shard_id.count) == shard_id.index;
    let mut partition_states = Vec::new();
    for partition in partitions.iter().filter(is_here) {
        let name = turn::remembered(partition_state_name(partition).as_bytes());
        if let Some(bytes) = store.get_meta(&name)?.filter(|bytes| !bytes.is_empty()) {
            let partition_state = decode_partition_state(&bytes).map_err(|error| match error {
                WireError::Version(_) => PartitionStatesError::Newer(partition, error),
                error => PartitionStatesError::PartitionState(partition, error),
            })?;
            partition_states.push((partition, partition_state));
        }
    }
    Ok(partition_states)
}

/// What a shard's store knows of other nodes' losses.
///
/// # Errors
/// If the store cannot be read, or an entry is malformed.
pub fn losses(store: &dyn Store) -> Result<LossBook, PartitionStatesError> {
    let bytes = store.get_meta(&turn::remembered(loss_book::NAME.as_bytes()))?;
    Ok(LossBook::decode(bytes.as_deref().unwrap_or_default())?)
}

/// Why a shard's partition states cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionStatesError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The entry about other nodes' losses is damaged.
    #[error("{0}: the data directory is damaged; replace the node")]
    Losses(#[from] LossesDamaged),
    /// A partition state is malformed.
    #[error("cannot read the state of partition {0} ({1}): the data directory is damaged; replace the node")]
    PartitionState(PartitionId, WireError),
    /// A newer build has written a partition state.
    #[error("cannot read the state of partition {0}: it has {1}; start the newer cartwheel that wrote it")]
    Newer(PartitionId, WireError),
}
