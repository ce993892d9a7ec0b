//! What a node does as a replica: it reads, merges and mints records, one turn at a time for each key.
//!
//! While a key's record is being read or written, further tasks on it wait; when the store is done they are all carried out in
//! memory and written as one record. So there is never a state in memory that is newer than the disk and could be shown, a
//! failed write spoils nothing but its own tasks, and a busy key costs one write for many tasks.

mod apply;
pub mod gc;
pub mod gc_sweep;
pub mod hint;
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
use crate::store::record::{Minter, Record};
use crate::store::share::{RecordChange, Share};
use crate::value::dot::{Dot, NodeId, Since};
use crate::value::hlc::{Hlc, HlcClock, WallMs};
use crate::value::key::Key;
use crate::value::state::{Content, Epoch, Seen, State};
use crate::value::time::{Instant, Now};
use crate::value::write_id::WriteId;
use crate::wire::Protocol;
use turn::{Fresh, StoredRecord, Task, Turn, TurnPhase};

/// A write to be given its dot here.
#[derive(Clone, Debug)]
pub struct Mint {
    /// What to write where.
    pub key: Key,
    /// The content.
    pub content: Content,
    /// When it expires.
    pub expires: Option<WallMs>,
    /// When the client stops waiting: after that it gets no dot, for the client may be trying it elsewhere.
    pub deadline: Instant,
    /// The write's name.
    pub write_id: WriteId,
    /// What it has seen, and so replaces.
    pub seen: Seen,
    /// It also replaces everything older that is held here (last write wins).
    pub covers_held: bool,
    /// Who decides its timestamp.
    pub stamp: Stamp,
    /// What a majority held, to be merged first and stamped above (a strong put).
    pub base: Option<State>,
    /// The home in whose place it is stored here, if this node is none.
    pub stands_in_for: Option<NodeId>,
}

/// Which node decides a write's timestamp. It is always above what the write has been shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamp {
    /// This one: at least this timestamp, if the write has one already, and where the last write wins above all that is held.
    Here(Option<Hlc>),
    /// The node that took the write from its client has decided. What arrives may be a late attempt, so it is never raised here; one that would
    /// lose to what is held is not stored.
    Fixed(Hlc),
}

/// A write that has its dot and is durable here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Minted {
    /// The key's state with the write in it.
    pub state: State,
    /// The write's dot and timestamp; none if a later write has replaced it already.
    pub made: Option<(Dot, Hlc)>,
    /// The oldest epoch among all that the state was built from.
    pub epoch: Epoch,
}

/// Why a write got no dot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MintRefused {
    /// The key holds this many siblings, and the write would add to them.
    TooManySiblings(u32),
    /// The write would make the key's siblings larger than a key may be: so many bytes, and how many they may have.
    TooManyBytes(u64, u64),
    /// The client has stopped waiting.
    Late,
    /// What is held here under this timestamp would win over it: it must get a later one from the node that took it. Nothing was written.
    StampTooLow(Hlc),
    /// The replica could not.
    Failed(Failure),
}

/// Whose task it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// The coordinator on this node.
    Local(RequestId),
    /// A peer's.
    Peer(NodeId, RequestId, TreeId),
}

/// What became of a state that was handed to a home.
#[derive(Clone, Debug)]
pub struct HandedOver {
    /// The key.
    pub key: Key,
    /// The home.
    pub to: NodeId,
    /// The digest of the state that it has stored; none if it is no home any more.
    pub stored: Option<StateDigest>,
}

/// A task that has ended.
#[derive(Debug)]
pub enum Done {
    /// The answer to a question.
    Response(Caller, ReplicaResponse),
    /// The end of a mint.
    Mint(RequestId, Result<Minted, MintRefused>),
    /// A hand-over is noted, or not: then it is made again.
    HandedOver,
    /// A record that nobody needs here is gone, or is not.
    Dropped(Key),
    /// A record was looked after: so many tombstones and expired values went. If that failed, it is done again in another epoch.
    Collected(u64),
}

/// What the replica wants other parts of the node to do.
#[derive(Debug, Default)]
pub struct ReplicaCalls {
    /// Tasks that have ended.
    pub done: Vec<Done>,
    /// Changes of records, for their Merkle trees.
    pub changes: Vec<RecordChange>,
}

/// A node's records and the turns on them.
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
    /// The trees whose keys have been caught up since the store lost writes before [`Self::loss_floor`].
    recovered: BTreeSet<TreeId>,
    keeps_trees: bool,
    durability: Durability,
    held: Arc<Holdings>,
    clock: HlcClock,
    /// How far ahead of the wall clock the timestamps were that writes got here, at most, since that was last asked.
    ahead_ms: u64,
    epoch: Epoch,
    all_speak: Protocol,
    trusts_clock: bool,
    hints: HintBook,
    /// Some writes have been left to the operating system since the store was last known to be synced.
    has_unsynced: bool,
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
            all_speak: Protocol::OLDEST,
            trusts_clock: true,
            hints: HintBook::new(config.limits.hint_bytes_max),
            has_unsynced: false,
            broken: config.broken,
            node_wide_count: 0,
        }
    }

    /// The node's timestamps.
    pub const fn clock(&mut self) -> &mut HlcClock {
        &mut self.clock
    }

    /// How far ahead of the wall clock the timestamps were that writes got here, in milliseconds, at most, since [`Self::forget_ahead`].
    pub const fn ahead_ms(&self) -> u64 {
        self.ahead_ms
    }

    /// Another look at that begins.
    pub const fn forget_ahead(&mut self) {
        self.ahead_ms = 0;
    }

    /// Goes by other settings or other configurations from now on.
    pub fn set_held(&mut self, held: Arc<Holdings>) {
        self.held = held;
    }

    /// Whether a write to `bucket` is to survive a power failure before it is acknowledged.
    fn syncs(&self, bucket: &[u8]) -> bool {
        match self.held.view().settings(bucket).durability {
            Durability::NodeDefault => self.durability != Durability::Os,
            Durability::Fsync => true,
            Durability::Os => false,
        }
    }

    /// Since when this node has lost no record.
    pub const fn memory(&self) -> Memory {
        self.minter.memory()
    }

    /// The node's epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Another epoch has begun.
    pub const fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// All members speak this version of the protocol from now on: records are stored in its form.
    pub const fn set_all_speak(&mut self, protocol: Protocol) {
        self.all_speak = protocol;
    }

    /// Whether the node's clock is near most of its peers'. While it is not, no value is found to have expired.
    pub const fn trust_clock(&mut self, trusts_clock: bool) {
        self.trusts_clock = trusts_clock;
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// From now on nothing more is to be kept for others, or it is again.
    pub const fn close_hints(&mut self, is_closed: bool) {
        self.hints.close(is_closed);
    }

    /// The oldest epoch in which anything was taken on that has not ended, hints included.
    pub fn oldest(&self) -> Option<Epoch> {
        let turns = self.turns.values().map(|turn| turn.since);
        let hints = if self.broken.is(Mutation::HintsOutliveEpochs) { None } else { self.hints.oldest() };
        turns.chain(hints).min()
    }

    /// A number for a store command.
    pub const fn next_store(&mut self) -> StoreId {
        self.stores_begun += 1;
        StoreId(self.stores_begun)
    }

    /// Takes on a question.
    pub fn ask(&mut self, now: Now, caller: Caller, ask: ReplicaRequest, out: &mut Outbox<ReplicaCalls>) {
        if self.tasks >= self.tasks_max {
            out.calls.done.push(Done::Response(caller, ReplicaResponse::Failed(Failure::Overloaded)));
            return;
        }
        match ask {
            ReplicaRequest::Read { key, want, role: _ } => self.take_on(key, Task::Read { caller, want }, out),
            ReplicaRequest::Recover { key, .. } => self.take_on(key, Task::Read { caller, want: Want::State }, out),
            ReplicaRequest::Merge { key, state, epoch: _, heals, confirm, stands_in_for } => {
                self.clock.observe(state.hlc(), now.wall);
                self.take_on(key, Task::Merge { caller, state, heals, confirm, stands_in_for }, out);
            }
        }
    }

    /// Takes on a write that is to get its dot here.
    pub fn mint(&mut self, request_id: RequestId, mint: Mint, out: &mut Outbox<ReplicaCalls>) {
        if self.tasks >= self.tasks_max {
            out.calls.done.push(Done::Mint(request_id, Err(MintRefused::Failed(Failure::Overloaded))));
            return;
        }
        self.take_on(mint.key.clone(), Task::Mint { request_id, mint: Box::new(mint) }, out);
    }

    /// A home has taken a state over, or is none any more.
    pub fn handed_over(&mut self, handed: HandedOver, out: &mut Outbox<ReplicaCalls>) {
        self.take_on(handed.key.clone(), Task::HandedOver(handed), out);
    }

    /// A record may go, if nobody is owed it.
    pub fn drop_record(&mut self, key: Key, out: &mut Outbox<ReplicaCalls>) {
        self.take_on(key, Task::Drop, out);
    }

    /// The partitions of which any record is being read or written.
    pub fn busy(&self) -> BTreeSet<PartitionId> {
        self.turns.keys().map(|key| self.held.partition_of(key)).collect()
    }

    /// The index says that a record has something to forget.
    pub fn collect(&mut self, key: Key, entry: Bytes, out: &mut Outbox<ReplicaCalls>) {
        self.take_on(key, Task::Collect { entry, deleted: 0 }, out);
    }

    /// What is kept here for others.
    pub const fn hints(&mut self) -> &mut HintBook {
        &mut self.hints
    }

    /// Whether a power failure may take writes away that have ended.
    pub const fn has_unsynced(&self) -> bool {
        self.has_unsynced
    }

    /// All writes up to here are being synced.
    pub const fn sync_begins(&mut self) {
        self.has_unsynced = false;
    }

    /// They may not be.
    pub const fn sync_failed(&mut self) {
        self.has_unsynced = true;
    }

    /// Whether this node is a home of `key`.
    fn is_home(&self, key: &Key) -> bool {
        self.held.is_home(key)
    }

    /// Whether this node keeps what it has of `key` though it is owed to nobody.
    fn keeps(&self, key: &Key) -> bool {
        let partition = self.held.partition_of(key);
        let forgets = self.broken.is(Mutation::ReplacedHomePurges) && self.held.goes(partition);
        !forgets && self.held.keeps(partition, self.held.group(partition, key.bucket()))
    }

    /// What a stored record adds to its Merkle tree.
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

    /// The keys whose records are being written, and what each added to its Merkle tree before.
    pub fn being_written(&self) -> impl Iterator<Item = (&Key, Share)> {
        self.turns.iter().filter_map(|(key, turn)| match turn.phase {
            TurnPhase::Writing { before, .. } => Some((key, before)),
            TurnPhase::Reading => None,
        })
    }

    /// Whether what the store holds of a key may not be durable.
    pub fn is_being_written(&self, key: &Key) -> bool {
        self.turns.get(key).is_some_and(|turn| matches!(turn.phase, TurnPhase::Writing { .. }))
    }

    /// What another node may be told of a stored record: nothing of what is due to be forgotten. None if there is nothing in it, or it
    /// cannot be read.
    pub fn shown(&self, now: Now, key: &Key, bytes: &Bytes) -> Option<State> {
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
