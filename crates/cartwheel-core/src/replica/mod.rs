//! A node's replicas: records are read, merged and minted, one turn at a time for each key.
//!
//! While a key's record is being read or written, further tasks on it wait. When the store has finished, they are all executed in memory and
//! written as one record. So no state in memory that is newer than the disk is ever returned, a failed write affects only its own tasks, and a
//! busy key costs one write for many tasks.

mod apply;
mod cache;
mod emptied;
pub mod gc;
pub mod gc_sweep;
pub mod hint;
pub mod key_sweep;
mod owed;
mod recovery;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::holdings::Holdings;
use crate::cluster::losses::Memory;
use crate::cluster::membership::Durability;
use crate::cluster::sizes::TreeId;
use crate::config::NodeConfig;
use crate::message::{Failure, ReplicaRequest, ReplicaResponse, RequestId, StateDigest, Want};
use crate::mutation::{Broken, Mutation};
use crate::outbox::Outbox;
use crate::replica::gc::{Collected, Rules};
use crate::replica::hint::HintBook;
use crate::ring::PartitionId;
use crate::store::command::StoreId;
use crate::store::gc_due::GcDue;
use crate::store::record::{Minter, Record};
use crate::store::share::{RecordChange, Share};
use crate::value::dot::{Dot, NodeId, Since};
use crate::value::hlc::{Hlc, HlcClock, WallMs};
use crate::value::key::Key;
use crate::value::state::{Content, Epoch, Seen, State};
use crate::value::time::{Instant, Now};
use crate::value::write_id::WriteId;
use crate::wire::Protocol;
use cache::RecordCache;
use turn::{Fresh, StoredRecord, Task, Turn, TurnPhase};

/// A write that is to get its dot here.
#[derive(Clone, Debug)]
pub struct Mint {
    /// The key to write.
    pub key: Key,
    /// The content.
    pub content: Content,
    /// When it expires.
    pub expires: Option<WallMs>,
    /// When the client stops waiting. After that the write gets no dot, because the client may be retrying it elsewhere.
    pub deadline: Instant,
    /// The id of the write.
    pub write_id: WriteId,
    /// What the write has seen, and so replaces.
    pub seen: Seen,
    /// Whether it also replaces everything older that is held here (last write wins).
    pub covers_held: bool,
    /// Which node decides its timestamp.
    pub stamp: Stamp,
    /// The state that a majority held, to be merged first and exceeded in timestamp (a strong put).
    pub base: Option<State>,
    /// The home for which it is stored here, if this node is none.
    pub stands_in_for: Option<NodeId>,
}

/// Which node decides a write's timestamp. The timestamp always exceeds those of the writes that it was shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamp {
    /// This node. The timestamp is at least this one, if the write has one already, and above all that is held where the last write wins.
    Here(Option<Hlc>),
    /// The node that received the write from its client has decided. The request may be a late attempt, so the timestamp is never raised here. A
    /// write that would lose to what is held is not stored.
    Fixed(Hlc),
}

/// A write that has its dot and is durable here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Minted {
    /// The key's state, including the write.
    pub state: State,
    /// The write's dot and timestamp; `None` if a later write has replaced it already.
    pub made: Option<(Dot, Hlc)>,
    /// The oldest epoch among everything from which the state was built.
    pub epoch: Epoch,
}

/// Why a write got no dot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MintRefused {
    /// The key already holds this many siblings, and the write would add one.
    TooManySiblings(u32),
    /// The write would make the key's siblings too large: their size, and the limit, in bytes.
    TooManyBytes(u64, u64),
    /// The client has stopped waiting.
    Late,
    /// The key holds a write with this timestamp that would win. The node that received the write must give it a later one. Nothing was written.
    StampTooLow(Hlc),
    /// The replica failed.
    Failed(Failure),
}

/// The caller of a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// The coordinator on this node.
    Local(RequestId),
    /// A peer.
    Peer(NodeId, RequestId, TreeId),
}

/// The result of handing a state over to a home.
#[derive(Clone, Debug)]
pub struct HandedOver {
    /// The key.
    pub key: Key,
    /// The home.
    pub to: NodeId,
    /// The digest of the state that the home has stored; `None` if it is no home any more.
    pub stored: Option<StateDigest>,
}

/// The result of a task.
#[derive(Debug)]
pub enum Done {
    /// The response to a request.
    Response(Caller, ReplicaResponse),
    /// The result of a mint.
    Mint(RequestId, Result<Minted, MintRefused>),
    /// The result of a hand-over was recorded, or failed to be: then the hand-over is repeated.
    HandedOver,
    /// A record that this node does not need was removed, if true.
    Dropped(Key, bool),
    /// The index entry of a key is right, if true.
    Indexed(bool),
    /// Garbage was collected: the number of tombstones and expired values removed. If that failed, it is repeated in a later epoch.
    Collected(u64),
}

/// The calls of the replica to other parts of the node.
#[derive(Debug, Default)]
pub struct ReplicaCalls {
    /// Tasks that have ended.
    pub done: Vec<Done>,
    /// Changes of records, for their Merkle trees.
    pub changes: Vec<RecordChange>,
}

/// A shard's records, and the turns on them.
#[derive(Debug)]
pub struct Replica {
    turns: BTreeMap<Key, Turn>,
    busy: BTreeMap<StoreId, Key>,
    tasks: usize,
    tasks_max: usize,
    siblings_max: usize,
    idle_actors_max: usize,
    sibling_bytes_max: usize,
    stores_begun: u64,
    minter: Minter,
    loss_floor: Since,
    /// The trees whose keys have recovered since the store lost writes before [`Self::loss_floor`].
    recovered: BTreeSet<TreeId>,
    keeps_trees: bool,
    durability: Durability,
    held: Arc<Holdings>,
    clock: HlcClock,
    /// The greatest lead in milliseconds of a write's timestamp over the wall clock, since the last [`Self::reset_ahead`].
    ahead_ms: u64,
    epoch: Epoch,
    all_speak: Protocol,
    trusts_clock: bool,
    hints: HintBook,
    /// Some writes have not been synced since the last sync began.
    has_unsynced: bool,
    cache: RecordCache,
    broken: Broken,
    node_wide_count: u64,
}

impl Replica {
    /// The replica of one boot.
    pub fn new(minter: Minter, clock: HlcClock, config: &NodeConfig, held: Arc<Holdings>) -> Self {
        Self {
            turns: BTreeMap::new(),
            busy: BTreeMap::new(),
            tasks: 0,
            tasks_max: config.limits.tasks_max,
            siblings_max: config.limits.siblings_max,
            idle_actors_max: config.limits.idle_actors_max,
            sibling_bytes_max: config.limits.sibling_bytes_max,
            stores_begun: 0,
            minter,
            loss_floor: config.loss_floor,
            recovered: BTreeSet::new(),
            keeps_trees: config.timing.exchange_every.is_some(),
            durability: config.durability,
            held,
            clock,
            ahead_ms: 0,
            epoch: config.epoch,
            all_speak: config.all_speak,
            trusts_clock: true,
            hints: HintBook::new(config.limits.hint_bytes_max),
            has_unsynced: false,
            cache: RecordCache::new(config.limits.record_cache_bytes, config.seed),
            broken: config.broken,
            node_wide_count: 0,
        }
    }

    /// The node's clock for timestamps.
    pub const fn clock(&mut self) -> &mut HlcClock {
        &mut self.clock
    }

    /// The greatest lead of a write's timestamp over the wall clock, in milliseconds, since the last [`Self::reset_ahead`].
    pub const fn ahead_ms(&self) -> u64 {
        self.ahead_ms
    }

    /// Resets [`Self::ahead_ms`].
    pub const fn reset_ahead(&mut self) {
        self.ahead_ms = 0;
    }

    /// Replaces settings and configurations.
    pub fn set_held(&mut self, held: Arc<Holdings>) {
        self.held = held;
    }

    /// Whether a write to `bucket` must survive a power failure before it is acknowledged.
    fn syncs(&self, bucket: &[u8]) -> bool {
        match self.held.view().settings(bucket).durability {
            Durability::NodeDefault => self.durability != Durability::Os,
            Durability::Fsync => true,
            Durability::Os => false,
        }
    }

    /// The time since which this node has lost no record.
    pub const fn memory(&self) -> Memory {
        self.minter.memory()
    }

    /// The node's epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Begins another epoch.
    pub const fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Sets the protocol version that all members support: records are stored in its form.
    pub const fn set_all_speak(&mut self, protocol: Protocol) {
        self.all_speak = protocol;
    }

    /// Sets whether the node's clock is near most of its peers' clocks. If it is not, no value is found expired.
    pub const fn trust_clock(&mut self, trusts_clock: bool) {
        self.trusts_clock = trusts_clock;
    }

    /// Lets the next use of a record read it from the store, where it was found unreadable.
    pub fn forget_cached(&mut self, key: &Key) {
        self.cache.remove(key);
    }

    /// Whether no turn is running.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// Stops or resumes the acceptance of hints.
    pub const fn close_hints(&mut self, is_closed: bool) {
        self.hints.close(is_closed);
    }

    /// The oldest epoch in which an unfinished task or hint was accepted.
    pub fn oldest(&self) -> Option<Epoch> {
        let turns = self.turns.values().map(|turn| turn.since);
        let hints = if self.broken.is(Mutation::HintsOutliveEpochs) { None } else { self.hints.oldest() };
        turns.chain(hints).min()
    }

    /// A new id for a store command.
    pub const fn next_store(&mut self) -> StoreId {
        self.stores_begun += 1;
        StoreId(self.stores_begun)
    }

    /// Takes a request.
    pub fn take_request(&mut self, now: Now, caller: Caller, request: ReplicaRequest, out: &mut Outbox<ReplicaCalls>) {
        if self.tasks >= self.tasks_max {
            out.calls.done.push(Done::Response(caller, ReplicaResponse::Failed(Failure::Overloaded)));
            return;
        }
        if self.is_superseded(request.key()) {
            let response = self.of_emptied(caller, &request);
            out.calls.done.push(Done::Response(caller, response));
            return;
        }
        match request {
            ReplicaRequest::Read { key, want, role: _ } => self.enqueue(now, key, Task::Read { caller, want }, out),
            ReplicaRequest::Recover { key, .. } => {
                self.enqueue(now, key, Task::Read { caller, want: Want::State }, out)
            }
            ReplicaRequest::Merge { key, state, epoch: _, heals, confirm, stands_in_for } => {
                self.clock.observe(state.hlc(), now.wall);
                self.enqueue(now, key, Task::Merge { caller, state, heals, confirm, stands_in_for }, out);
            }
        }
    }

    /// The state of a key, if it can be read at once: it is in memory and counts, no task on it is under way, and nothing of it is due for collection.
    pub fn at_hand(&self, key: &Key) -> Option<&State> {
        if self.turns.contains_key(key) {
            return None;
        }
        let Record { header, state } = self.cache.peek(key)?;
        let is_due = matches!(header.gc_due, Some(GcDue::In(epoch)) if epoch <= self.epoch);
        let is_of_now = header.recovered_since >= self.loss_floor;
        let counts = if is_of_now { header.recovering.is_none() } else { self.is_recovered(key) };
        let is_unchecked = self.broken.is(Mutation::AtOnceUnchecked);
        (!is_due && (counts || is_unchecked)).then_some(state)
    }

    /// Takes a write that is to get its dot here.
    pub fn mint(&mut self, now: Now, request_id: RequestId, mint: Mint, out: &mut Outbox<ReplicaCalls>) {
        if self.tasks >= self.tasks_max {
            out.calls.done.push(Done::Mint(request_id, Err(MintRefused::Failed(Failure::Overloaded))));
            return;
        }
        if self.is_superseded(&mint.key) {
            out.calls.done.push(Done::Mint(request_id, Err(MintRefused::Failed(Failure::Superseded))));
            return;
        }
        self.enqueue(now, mint.key.clone(), Task::Mint { request_id, mint: Box::new(mint) }, out);
    }

    /// Takes the result of a hand-over.
    pub fn handed_over(&mut self, now: Now, handed: HandedOver, out: &mut Outbox<ReplicaCalls>) {
        self.enqueue(now, handed.key.clone(), Task::HandedOver(handed), out);
    }

    /// Brings the index entry of a key into line with its record.
    pub fn index(&mut self, now: Now, key: Key, out: &mut Outbox<ReplicaCalls>) {
        self.enqueue(now, key, Task::Index, out);
    }

    /// Removes a record, unless it is kept as a hint.
    pub fn drop_record(&mut self, now: Now, key: Key, out: &mut Outbox<ReplicaCalls>) {
        self.enqueue(now, key, Task::Drop, out);
    }

    /// The partitions with a record that is being read or written.
    pub fn busy(&self) -> BTreeSet<PartitionId> {
        self.turns.keys().map(|key| self.held.partition_of(key)).collect()
    }

    /// Collects the garbage of a record, for this entry of the index.
    pub fn collect(&mut self, now: Now, key: Key, entry: Bytes, out: &mut Outbox<ReplicaCalls>) {
        self.enqueue(now, key, Task::Collect { entry, deleted: 0 }, out);
    }

    /// The hints kept here.
    pub const fn hints(&mut self) -> &mut HintBook {
        &mut self.hints
    }

    /// Whether a power failure may lose writes that have ended.
    pub const fn has_unsynced(&self) -> bool {
        self.has_unsynced
    }

    /// All writes so far are being synced.
    pub const fn sync_begins(&mut self) {
        self.has_unsynced = false;
    }

    /// The sync failed.
    pub const fn sync_failed(&mut self) {
        self.has_unsynced = true;
    }

    /// Whether this node is a home of `key`.
    fn is_home(&self, key: &Key) -> bool {
        self.held.is_home(key)
    }

    /// Whether this node keeps its record of `key` even if it is not a hint.
    fn keeps(&self, key: &Key) -> bool {
        if self.is_superseded(key) {
            return false;
        }
        let partition = self.held.partition_of(key);
        let drops_all = self.broken.is(Mutation::ReplacedHomePurges) && self.held.is_leaving(partition);
        !drops_all && self.held.keeps(partition, self.held.group(partition, key.bucket()))
    }

    /// The share of a stored record in its Merkle tree.
    fn share_of(&self, key: &Key, record: &Record) -> Share {
        match record.header.content {
            Some(digest) => Share::with(digest, key.storage_key_len(), &record.state),
            None if self.keeps_trees && record.state.siblings().len() > 0 => {
                Share::of(&key.storage_key(), &record.state)
            }
            None => Share::NOTHING,
        }
    }

    fn written(&self, key: &Key, record: &Record, old: Share, out: &mut Outbox<ReplicaCalls>) {
        if let Some(digest) = record.header.content {
            let new = Share::with(digest, key.storage_key_len(), &record.state);
            let is_lost = record.header.is_lost_since(self.loss_floor);
            out.calls.changes.push(RecordChange::Written { key: key.clone(), old, new, is_lost });
        }
    }

    /// The keys whose records are being written, with their earlier shares in their Merkle trees.
    pub fn being_written(&self) -> impl Iterator<Item = (&Key, Share)> {
        self.turns.iter().filter_map(|(key, turn)| match turn.phase {
            TurnPhase::Writing { before, .. } => Some((key, before)),
            TurnPhase::Reading => None,
        })
    }

    /// Whether the stored record of a key may not be durable.
    pub fn is_being_written(&self, key: &Key) -> bool {
        self.turns.get(key).is_some_and(|turn| matches!(turn.phase, TurnPhase::Writing { .. }))
    }

    /// The state of a stored record as another node may see it, without garbage that is due. `None` if it is empty or cannot be read.
    pub fn shown(&self, now: Now, key: &Key, bytes: &Bytes) -> Option<State> {
        if self.is_superseded(key) {
            return None;
        }
        let mut record = Record::decode(bytes, &key.storage_key()).ok()?;
        self.note_loss(key, &mut record);
        let wall = self.trusts_clock.then_some(now.wall);
        gc::collect(&mut record, &self.minter, wall, &self.rules(key));
        Some(record.state).filter(|state| *state != State::default())
    }

    fn collect_due(&self, now: Now, key: &Key, held: &mut StoredRecord) {
        let wall = self.trusts_clock.then_some(now.wall);
        held.collected = gc::collect(&mut held.record, &self.minter, wall, &self.rules(key));
    }

    fn rules(&self, key: &Key) -> Rules {
        let conflict = self.held.view().settings(key.bucket()).conflict;
        Rules { now: self.epoch, conflict, idle_max: self.idle_actors_max, broken: self.broken }
    }

    fn held(&self, key: &Key, record: Record, bytes: usize, fresh: Fresh, since: Epoch) -> StoredRecord {
        let share = self.share_of(key, &record);
        StoredRecord { record, bytes, fresh, share, collected: Collected::default(), since }
    }
}
