//! A shard: one thread that owns one protocol state machine and one store.
//!
//! Everything else reaches it through a bounded queue. It takes what has gathered there in one turn and pays for one sync a
//! turn, so the busier it is, the less a write costs.

mod digests;
pub mod disk;
mod group;
mod hints;
mod load;
mod metrics;
mod phases;
mod reader;
pub mod reserve;
mod turn;
pub mod unsynced;
mod wait;

#[cfg(test)]
mod failing_tests;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cartwheel_core::admission::Admitted;
use cartwheel_core::anti_entropy::ReplicaProof;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::liveness::Liveness;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::cluster::sizes::NodeSizes;
use cartwheel_core::message::Envelope;
use cartwheel_core::message::client::{Outcome, Refusal, Request};
use cartwheel_core::node::{Effects, Input, Node};
use cartwheel_core::reconfiguration::partition_state_name;
use cartwheel_core::ring::{PartitionId, Partitions};
use cartwheel_core::store::command::StoreId;
use cartwheel_core::store::loss_book;
use cartwheel_core::store::loss_book::{LossBook, LossesDamaged};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::time::Now;
use cartwheel_core::wire::{Protocol, WireError, decode_partition_state};
use cartwheel_storage::{Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::data_dir::lineage::Mark;
use crate::os::clock::Clock;
pub use digests::{DigestPage, DigestsAsk, HeldContent, HeldRecord, PAGE_RECORDS_MAX, Rest};
use disk::Disk;
pub use group::Shards;
pub use hints::HintsBoard;
use load::{Load, UnderWay};
pub use metrics::ShardMetrics;
pub(crate) use metrics::latency_buckets;
pub use phases::PhasesBox;
use reader::ReaderThread;
use turn::Turns;
use wait::Waiter;

/// How many inputs may wait for a shard. At a few microseconds each, a full queue is some tens of milliseconds of work.
pub const INBOX_MAX: usize = 8_192;
/// How many inputs one turn takes at most, so that the first of them does not wait for too many others.
const TURN_MAX: usize = 512;

/// How often it is told how much background work is let in and how many tombstones are held.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a shard drives: [`Node`], or a script in a test.
pub trait Machine: Send + 'static {
    /// [`Node::step`].
    fn step(&mut self, now: Now, input: Input) -> Effects;

    /// [`Node::is_ready`].
    fn is_ready(&self) -> bool {
        true
    }

    /// What its exchange has proven.
    fn proofs(&self) -> Vec<ReplicaProof> {
        Vec::new()
    }

    /// [`Node::queued`].
    fn queued(&mut self, _waited: Duration) {}

    /// How much it holds of partitions.
    fn sizes(&self, _partitions: &[PartitionId]) -> NodeSizes {
        NodeSizes::default()
    }

    /// How many tombstones it holds.
    fn tombstones(&self) -> u64 {
        0
    }

    /// [`Node::admitted`].
    fn admitted(&self) -> Admitted {
        Admitted::default()
    }
}

impl Machine for Node {
    fn step(&mut self, now: Now, input: Input) -> Effects {
        Self::step(self, now, input)
    }

    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn proofs(&self) -> Vec<ReplicaProof> {
        self.exchange().proofs().collect()
    }

    fn sizes(&self, partitions: &[PartitionId]) -> NodeSizes {
        self.sizes(partitions)
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
}

/// Where a shard's messages go. None of this may block.
pub trait Outgoing: Send + 'static {
    /// Sends `messages` to a peer, or drops them. `synced` is the mark of the shard's last synced commit: what the messages acknowledge
    /// came with that one or an earlier one.
    fn send(&mut self, to: NodeId, messages: Vec<Envelope>, synced: Option<Mark>);
}

/// What waits in a shard's queue.
enum Work {
    Request(Request, oneshot::Sender<Outcome>, UnderWay, Instant),
    /// With its bytes and the room that they take up.
    Message(Envelope, usize, Option<OwnedSemaphorePermit>),
    View(Arc<View>),
    Liveness(Arc<Liveness>),
    Epoch(Epoch),
    AllSpeak(Protocol),
    Phases(Vec<(PartitionId, ConfigPhase)>),
    Digests(DigestsAsk, oneshot::Sender<Option<DigestPage>>),
    Proofs(oneshot::Sender<Vec<ReplicaProof>>),
    Sizes(Vec<PartitionId>, oneshot::Sender<NodeSizes>),
    /// A large record was read beside the shard.
    Read(StoreId, reader::Read),
    Stop,
}

/// The way to a shard.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    inbox: mpsc::Sender<Work>,
    /// Pages of digests are made one at a time, however many ask, so that requests wait for one at most.
    paging: Arc<Semaphore>,
    load: Load,
    metrics: ShardMetrics,
}

/// The shard has stopped.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the node is stopping")]
pub struct Stopped;

impl ShardHandle {
    /// Has the shard carry out a client's request. It refuses at once when too much waits already.
    ///
    /// # Errors
    /// If the shard stops before it has answered. A write may have been done or not.
    pub async fn request(&self, request: Request) -> Result<Outcome, Stopped> {
        if let Err(overloaded) = self.may_ask() {
            return Ok(Err(overloaded));
        }
        let (reply, outcome) = oneshot::channel();
        match self.inbox.try_send(Work::Request(request, reply, self.load.begin(), Instant::now())) {
            Ok(()) => outcome.await.map_err(|_| Stopped),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(Err(self.overloaded())),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Stopped),
        }
    }

    /// Whether a request would be taken on now: one whose value is yet to arrive need not be read if not.
    ///
    /// # Errors
    /// If too much waits already.
    pub fn may_ask(&self) -> Result<(), Refusal> {
        if self.refuses() { Err(self.overloaded()) } else { Ok(()) }
    }

    fn refuses(&self) -> bool {
        self.load.refuses(self.waiting())
    }

    fn overloaded(&self) -> Refusal {
        self.metrics.refusals.inc();
        Refusal::Overloaded
    }

    /// How many inputs wait for the shard.
    pub fn waiting(&self) -> usize {
        self.inbox.max_capacity() - self.inbox.capacity()
    }

    /// How many bytes of peers' messages wait for the shard or are in its turn.
    pub fn waiting_bytes(&self) -> usize {
        self.load.bytes()
    }

    /// How many of clients' requests the shard has under way.
    pub fn under_way(&self) -> usize {
        self.load.under_way()
    }

    /// How much background work the shard lets in, as it was a moment ago.
    pub fn admitted(&self) -> Admitted {
        self.load.admitted()
    }

    /// Hands a peer's message of so many bytes to the shard, and waits while its queue is full.
    ///
    /// # Errors
    /// If the shard has stopped.
    pub async fn deliver(&self, message: Envelope, bytes: usize) -> Result<(), Stopped> {
        let room = self.load.room_for(bytes).await;
        self.inbox.send(Work::Message(message, bytes, room)).await.map_err(|_| Stopped)
    }

    /// Has the shard go by `view` from now on.
    pub async fn set_view(&self, view: Arc<View>) {
        let _ = self.inbox.send(Work::View(view)).await;
    }

    /// What the shard is to think of the other nodes from now on.
    pub async fn set_liveness(&self, liveness: Arc<Liveness>) {
        let _ = self.inbox.send(Work::Liveness(liveness)).await;
    }

    /// The epoch from now on.
    pub async fn set_epoch(&self, epoch: Epoch) {
        let _ = self.inbox.send(Work::Epoch(epoch)).await;
    }

    /// The version of the protocol that all members speak from now on. The data directory says so already.
    pub async fn set_all_speak(&self, protocol: Protocol) {
        let _ = self.inbox.send(Work::AllSpeak(protocol)).await;
    }

    /// What holds in partitions of the shard, as others know it.
    pub async fn set_phases(&self, phases: Vec<(PartitionId, ConfigPhase)>) {
        let _ = self.inbox.send(Work::Phases(phases)).await;
    }

    /// What the shard's disk holds in a range of keys, one page of it; none if the disk cannot be read.
    pub async fn digests(&self, ask: DigestsAsk) -> Option<DigestPage> {
        let _turn = self.paging.acquire().await.ok()?;
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Work::Digests(ask, reply)).await.ok()?;
        answer.await.ok()?
    }

    /// Since when each of the shard's partitions is proven equal here and at each other home; nothing if it stops.
    pub async fn proofs(&self) -> Vec<ReplicaProof> {
        let (reply, answer) = oneshot::channel();
        let _ = self.inbox.send(Work::Proofs(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// How much the shard holds of these partitions of its own; none if it stops.
    pub async fn sizes(&self, partitions: Vec<PartitionId>) -> Option<NodeSizes> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Work::Sizes(partitions, reply)).await.ok()?;
        answer.await.ok()
    }

    /// Has the shard finish what is in its queue, sync its store and end.
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

/// A shard's queue before the shard is there: whatever must be able to reach the shard can be made first.
#[derive(Debug)]
pub struct Inbox {
    queue: mpsc::Receiver<Work>,
    /// For what works for the shard. It does not keep the queue open.
    own: mpsc::WeakSender<Work>,
    load: Load,
    metrics: ShardMetrics,
}

/// A shard's queue and the way into it. Nobody sees what the shard counts.
#[cfg(test)]
pub fn inbox() -> (ShardHandle, Inbox) {
    counted_inbox(&ShardMetrics::default())
}

/// A shard's queue and the way into it. The shard counts what it does in `metrics`.
pub fn counted_inbox(metrics: &ShardMetrics) -> (ShardHandle, Inbox) {
    let (sender, queue) = mpsc::channel(INBOX_MAX);
    let own = sender.downgrade();
    let (paging, load) = (Arc::new(Semaphore::new(1)), Load::default());
    let handle = ShardHandle { inbox: sender, paging, load: load.clone(), metrics: metrics.clone() };
    (handle, Inbox { queue, own, load, metrics: metrics.clone() })
}

/// A shard that runs.
#[derive(Debug)]
pub struct Running {
    /// The shard's thread.
    pub thread: JoinHandle<Option<Mark>>,
    /// What the shard can be asked for.
    pub ready: watch::Receiver<ShardReadiness>,
    /// What it tells its node's control.
    pub news: News,
}

/// What a shard tells its node's control.
#[derive(Clone, Debug)]
pub struct News {
    /// The last epoch that it has finished.
    pub finished: watch::Receiver<Epoch>,
    /// Whether it has nothing any more that its node, which is leaving, is to hand over.
    pub drained: watch::Receiver<bool>,
    /// What holds in its partitions.
    pub phases: PhasesBox,
}

/// What a shard can be asked for, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ShardReadiness {
    /// Only what other nodes can do, until its store is open again.
    StoreFailed,
    /// Nothing that needs a timestamp yet.
    Starting,
    /// Reads, and writes of which other homes have room.
    DiskFull,
    /// Everything.
    Ready,
}

/// Starts the shard with this index on a thread of its own, which ends at [`ShardHandle::stop`].
///
/// # Errors
/// If the system has no thread to give.
pub fn start(
    index: u32,
    machine: impl Machine,
    disk: Disk,
    outgoing: impl Outgoing,
    inbox: Inbox,
    clock: Clock,
) -> io::Result<Running> {
    let Inbox { queue, own, load, metrics } = inbox;
    // Where the shard has ended nobody waits for it.
    let read = move |id, read| own.upgrade().map_or((), |shard| drop(shard.blocking_send(Work::Read(id, read))));
    let reader = ReaderThread::start(index, disk.beside(), read);
    let turns = Turns::new(machine, disk, outgoing, clock).counted(metrics).beside(reader);
    let (ready_sender, ready) = watch::channel(ShardReadiness::Starting);
    let (finished_sender, finished) = watch::channel(Epoch::UNKNOWN);
    let (drained_sender, drained) = watch::channel(false);
    let phases = PhasesBox::default();
    let told = Told { ready: ready_sender, finished: finished_sender, drained: drained_sender, phases: phases.clone() };
    let body = move || run(turns, queue, &load, clock, &told);
    let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(body)?;
    Ok(Running { thread, ready, news: News { finished, drained, phases } })
}

/// Where a shard tells of itself.
struct Told {
    ready: watch::Sender<ShardReadiness>,
    finished: watch::Sender<Epoch>,
    drained: watch::Sender<bool>,
    phases: PhasesBox,
}

fn run<M: Machine, O: Outgoing>(
    mut turns: Turns<M, O>,
    mut inbox: mpsc::Receiver<Work>,
    load: &Load,
    clock: Clock,
    told: &Told,
) -> Option<Mark> {
    let mut gathered = Vec::with_capacity(TURN_MAX);
    // The room that the turn's messages take, until it has ended.
    let mut rooms = Vec::new();
    let mut next_look = clock.instant();
    let waiter = Waiter::of_this_thread();
    // The machine says nothing of itself: the first tick is what it begins with.
    turns.add(Input::Tick);
    turns.take();
    loop {
        let readiness = turns.readiness();
        told.ready.send_if_modified(|ready| std::mem::replace(ready, readiness) != readiness);
        if let Some(epoch) = turns.finished() {
            told.finished.send_replace(epoch);
        }
        if let Some(drained) = turns.drained() {
            told.drained.send_replace(drained);
        }
        told.phases.put(turns.phases());
        let patience = match turns.has_more() {
            true => Some(Duration::ZERO),
            false => turns.wake_at().map(|wake_at| wake_at.since(clock.instant())),
        };
        waiter.gather(&mut inbox, &mut gathered, TURN_MAX, patience);
        // A queue that is closed and empty is the other way of being told to stop.
        let mut stop = inbox.is_closed() && gathered.is_empty();
        let (begun, inputs) = (clock.instant(), gathered.len());
        for work in gathered.drain(..) {
            match work {
                Work::Request(request, reply, under_way, came) => {
                    let waited = came.elapsed();
                    turns.add_request(request, (reply, under_way), waited);
                }
                Work::Message(message, bytes, room) => rooms.extend(turns.add_message(message, bytes, room)),
                Work::View(view) => turns.add(Input::View(view)),
                Work::Liveness(liveness) => turns.add(Input::Liveness(liveness)),
                Work::Epoch(epoch) => turns.add(Input::Epoch(epoch)),
                Work::AllSpeak(protocol) => turns.add(Input::AllSpeak(protocol)),
                Work::Phases(phases) => turns.add(Input::Phases(phases)),
                Work::Digests(ask, reply) => drop(reply.send(turns.digests(&ask))),
                Work::Proofs(reply) => drop(reply.send(turns.proofs())),
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
        load.turn(inputs, clock.instant().since(begun));
        if begun >= next_look {
            next_look = begun + LOOK_EVERY;
            load.admits(turns.admitted());
            turns.count_tombstones();
        }
        if stop {
            return turns.close();
        }
    }
}

/// The partition states in partitions that a shard's store remembers.
///
/// # Errors
/// If the store cannot be read, or holds what is no partition state.
pub fn partition_states(
    store: &dyn Store,
    partitions: Partitions,
    shard_id: ShardId,
) -> Result<Vec<(PartitionId, PartitionState)>, SeatsError> {
    let is_here = |partition: &PartitionId| ShardId::of_partition(*partition, shard_id.count) == shard_id.index;
    let mut partition_states = Vec::new();
    for partition in partitions.iter().filter(is_here) {
        let name = turn::remembered(partition_state_name(partition).as_bytes());
        if let Some(bytes) = store.get_meta(&name)?.filter(|bytes| !bytes.is_empty()) {
            let partition_state = decode_partition_state(&bytes).map_err(|error| match error {
                WireError::Version(_) => SeatsError::Newer(partition, error),
                error => SeatsError::PartitionState(partition, error),
            })?;
            partition_states.push((partition, partition_state));
        }
    }
    Ok(partition_states)
}

/// What a shard's store remembers of other nodes' losses.
///
/// # Errors
/// If the store cannot be read, or holds what makes no sense.
pub fn losses(store: &dyn Store) -> Result<LossBook, SeatsError> {
    let bytes = store.get_meta(&turn::remembered(loss_book::NAME.as_bytes()))?;
    Ok(LossBook::decode(bytes.as_deref().unwrap_or_default())?)
}

/// Why a shard does not know what its node has promised about partitions.
#[derive(Debug, thiserror::Error)]
pub enum SeatsError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is kept of other nodes' losses is damaged.
    #[error("{0}: its data directory is damaged; replace the node")]
    Losses(#[from] LossesDamaged),
    /// What is kept is no partition state.
    #[error(
        "what the node has promised about partition {0} cannot be read ({1}): its data directory is damaged; replace the node"
    )]
    PartitionState(PartitionId, WireError),
    /// A newer build has written it.
    #[error("what the node has promised about partition {0} has {1}: a newer cartwheel has written it; start that one")]
    Newer(PartitionId, WireError),
}
