//! What a node does as a replica: it reads, merges and mints records, one turn at a time for each key.
//!
//! While a key's record is being read or written, further tasks on it wait; when the store is done they are all carried out in
//! memory and written as one record. So there is never a state in memory that is newer than the disk and could be shown, a
//! failed write spoils nothing but its own tasks, and a busy key costs one write for many tasks.

pub mod gc;
pub mod gc_sweep;
pub mod hint;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::holdings::Holdings;
use crate::cluster::losses::{Loss, Memory};
use crate::cluster::membership::Durability;
use crate::cluster::sizes::TreeId;
use crate::config::NodeConfig;
use crate::event::Event;
use crate::message::{Answer, Ask, Confirm, Failure, RequestId, StateDigest, Want};
use crate::mutation::{Broken, Mutation};
use crate::replica::gc::{Forgotten, Rules};
use crate::replica::hint::{HintBook, HintChange};
use crate::ring::PartitionId;
use crate::store::command::{IndexChange, ReadFailed, StoreCommand, StoreId, StoreResult, WriteFailed};
use crate::store::look::Look;
use crate::store::record::{LocalHeader, Minter, Record, RecordError};
use crate::store::share::{Change, Share};
use crate::value::digest::ContentDigest;
use crate::value::dot::{Dot, NodeId, Since};
use crate::value::hlc::{Hlc, HlcClock, WallMs};
use crate::value::key::Key;
use crate::value::state::{Content, Epoch, Known, Seen, Sibling, State};
use crate::value::time::{Instant, Now};
use crate::value::write_id::WriteId;
use crate::wire::Protocol;

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
pub enum Asker {
    /// The coordinator on this node.
    Here(RequestId),
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
    Answer(Asker, Answer),
    /// The end of a mint.
    Mint(RequestId, Result<Minted, MintRefused>),
    /// A hand-over is noted, or not: then it is made again.
    HandedOver,
    /// A record that nobody needs here is gone, or is not.
    Dropped(Key),
    /// A record was looked after: so many tombstones and expired values went. If that failed, it is done again in another epoch.
    Forgot(u64),
}

/// What a step of the replica leads to.
#[derive(Debug, Default)]
pub struct Work {
    /// Tasks that have ended.
    pub done: Vec<Done>,
    /// Commands for the store.
    pub stores: Vec<(StoreId, StoreCommand)>,
    /// What an operator should know.
    pub events: Vec<Event>,
    /// What has become of records, for their Merkle trees.
    pub changes: Vec<Change>,
}

#[derive(Debug)]
enum Task {
    Read {
        asker: Asker,
        want: Want,
    },
    Merge {
        asker: Asker,
        state: State,
        heals: Option<Loss>,
        confirm: Confirm,
        stands_in_for: Option<NodeId>,
    },
    Mint {
        request_id: RequestId,
        mint: Box<Mint>,
    },
    HandedOver(HandedOver),
    /// It may go, if nobody is owed it: the node has nothing to do with it any more.
    Drop,
    /// The index says by this entry that there is something to forget; so many tombstones and expired values were.
    Forget {
        entry: Bytes,
        deleted: u64,
    },
}

/// Among so many tasks it is looked whether a question is there already.
const REPEATS_MAX: usize = 64;

impl Task {
    /// Whether another task is the same question of the same asker, which is answered by the answer to this one. Large records take long
    /// to read, and are asked for again meanwhile.
    fn is_repeated_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Read { asker, want }, Self::Read { asker: other, want: wanted }) => asker == other && want == wanted,
            _ => false,
        }
    }
}

/// The tasks of one key while its store is busy with it.
#[derive(Debug)]
struct Turn {
    waiting: VecDeque<Task>,
    phase: Phase,
    /// The epoch in which the first of those that wait was taken on.
    waits_since: Epoch,
    /// The same of those that are being carried out.
    since: Epoch,
}

#[derive(Debug)]
enum Phase {
    Reading,
    /// The record that is being written, and what to say once it is durable; if it cannot be, all of that has failed.
    Writing {
        record: Box<Record>,
        /// What the record that it replaces added to its Merkle tree.
        before: Share,
        done: Vec<Done>,
        hints: HintChange,
    },
}

/// A record as it is stored.
struct Held {
    record: Record,
    /// Its size; 0 if nothing is stored.
    bytes: usize,
    fresh: Fresh,
    /// What it adds to its Merkle tree.
    share: Share,
    /// What was forgotten when it was read, and is still stored.
    forgotten: Forgotten,
    /// The epoch in which the first of the tasks on it was taken on.
    since: Epoch,
}

/// Whether a record differs from what is stored before any task has changed it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    No,
    Yes,
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
    pub fn ask(&mut self, now: Now, asker: Asker, ask: Ask, work: &mut Work) {
        if self.tasks >= self.tasks_max {
            work.done.push(Done::Answer(asker, Answer::Failed(Failure::Overloaded)));
            return;
        }
        match ask {
            Ask::Read { key, want, role: _ } => self.take_on(key, Task::Read { asker, want }, work),
            Ask::Recover { key, .. } => self.take_on(key, Task::Read { asker, want: Want::State }, work),
            Ask::Merge { key, state, epoch: _, heals, confirm, stands_in_for } => {
                self.clock.observe(state.hlc(), now.wall);
                self.take_on(key, Task::Merge { asker, state, heals, confirm, stands_in_for }, work);
            }
        }
    }

    /// Takes on a write that is to get its dot here.
    pub fn mint(&mut self, request_id: RequestId, mint: Mint, work: &mut Work) {
        if self.tasks >= self.tasks_max {
            work.done.push(Done::Mint(request_id, Err(MintRefused::Failed(Failure::Overloaded))));
            return;
        }
        self.take_on(mint.key.clone(), Task::Mint { request_id, mint: Box::new(mint) }, work);
    }

    /// A home has taken a state over, or is none any more.
    pub fn handed_over(&mut self, handed: HandedOver, work: &mut Work) {
        self.take_on(handed.key.clone(), Task::HandedOver(handed), work);
    }

    /// A record may go, if nobody is owed it.
    pub fn drop_record(&mut self, key: Key, work: &mut Work) {
        self.take_on(key, Task::Drop, work);
    }

    /// The partitions of which any record is being read or written.
    pub fn busy(&self) -> BTreeSet<PartitionId> {
        self.turns.keys().map(|key| self.held.partition_of(key)).collect()
    }

    /// The index says that a record has something to forget.
    pub fn forget(&mut self, key: Key, entry: Bytes, work: &mut Work) {
        self.take_on(key, Task::Forget { entry, deleted: 0 }, work);
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
        let forgets = self.broken.is(Mutation::SucceededHomeForgets) && self.held.goes(partition);
        !forgets && self.held.keeps(partition, self.held.group(partition, key.bucket()))
    }

    fn take_on(&mut self, key: Key, task: Task, work: &mut Work) {
        self.tasks += 1;
        match self.turns.entry(key) {
            Entry::Occupied(mut turn) => {
                let turn = turn.get_mut();
                if turn.waiting.iter().take(REPEATS_MAX).any(|waiting| waiting.is_repeated_by(&task)) {
                    self.tasks -= 1;
                    return;
                }
                if turn.waiting.is_empty() {
                    turn.waits_since = self.epoch;
                }
                turn.waiting.push_back(task);
            }
            Entry::Vacant(place) => {
                let key = place.key().clone();
                let waiting = VecDeque::from([task]);
                place.insert(Turn { waiting, phase: Phase::Reading, waits_since: self.epoch, since: self.epoch });
                self.read(key, work);
            }
        }
    }

    fn read(&mut self, key: Key, work: &mut Work) {
        let id = self.next_store();
        work.stores.push((id, StoreCommand::Read { storage_key: key.storage_key() }));
        self.busy.insert(id, key);
    }

    /// Takes in the end of a store command; false if it is not one of the replica's.
    pub fn stored(&mut self, now: Now, id: StoreId, result: StoreResult, work: &mut Work) -> bool {
        let Some(key) = self.busy.remove(&id) else { return false };
        let Some(turn) = self.turns.remove(&key) else { return true };
        match (turn.phase, result) {
            (Phase::Reading, StoreResult::Read(Ok(bytes))) => match self.parse(now, &key, bytes, turn.since, work) {
                Some(held) => self.run(now, key, held, turn.waiting, work),
                None => turn.waiting.into_iter().for_each(|task| self.fail(&key, task, work)),
            },
            (Phase::Reading, StoreResult::Read(Err(ReadFailed::Damaged))) => {
                let record = self.lost(&key, RecordError::Damaged, work);
                let held = self.held(&key, record, 0, Fresh::Yes, turn.since);
                self.run(now, key, held, turn.waiting, work);
            }
            (Phase::Reading, _) => {
                for task in turn.waiting {
                    self.fail(&key, task, work);
                }
            }
            (Phase::Writing { record, before, done, hints }, StoreResult::Written(written))
                if self.is_stored(written) =>
            {
                self.written(&key, &record, before, work);
                self.tasks -= done.len();
                work.done.extend(done);
                self.hints.changed(&hints);
                let mut held = self.held(&key, *record, hints.bytes_after, Fresh::No, turn.waits_since);
                self.forget_due(now, &key, &mut held);
                self.run(now, key, held, turn.waiting, work);
            }
            (Phase::Writing { record, done, hints, .. }, StoreResult::Written(Err(WriteFailed::DiskFull))) => {
                self.hints.unchanged(hints);
                self.write_refused(key, &record, done, turn.waiting, turn.since, work);
            }
            (Phase::Writing { done, hints, .. }, _) => {
                self.hints.is_doubtful(&hints);
                self.write_failed(key, done, turn.waiting, turn.waits_since, work);
            }
        }
        true
    }

    fn is_stored(&self, written: Result<(), WriteFailed>) -> bool {
        let acknowledged = self.broken.is(Mutation::FullDiskAcknowledges) && written == Err(WriteFailed::DiskFull);
        written.is_ok() || acknowledged
    }

    /// A write that failed may be stored or not, so nothing in memory can be trusted: no actor that made a dot in it goes on,
    /// and the tasks that wait begin with another read.
    fn write_failed(&mut self, key: Key, done: Vec<Done>, waiting: VecDeque<Task>, since: Epoch, work: &mut Work) {
        self.minter.end_all_actors();
        work.changes.push(Change::Doubtful(key.clone()));
        self.tasks -= done.len();
        work.done.extend(done.into_iter().map(|done| failed(done, Failure::Storage)));
        self.begin_again(key, waiting, since, work);
    }

    /// The disk is full. Nothing was stored and nobody was told of the dots that were given, so the actors go on; and what was only
    /// to be read can still be, unless the record itself is lost.
    fn write_refused(
        &mut self,
        key: Key,
        record: &Record,
        done: Vec<Done>,
        mut waiting: VecDeque<Task>,
        since: Epoch,
        work: &mut Work,
    ) {
        for done in done.into_iter().rev() {
            match read_again(&done).filter(|_| record.header.recovering.is_none()) {
                Some(read) => waiting.push_front(read),
                None => {
                    self.tasks -= 1;
                    work.done.push(failed(done, Failure::DiskFull));
                }
            }
        }
        self.begin_again(key, waiting, since, work);
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

    fn written(&self, key: &Key, record: &Record, old: Share, work: &mut Work) {
        if let Some(digest) = record.header.content {
            let new = Share::with(digest, key.storage_key_len(), &record.state);
            let is_lost = record.header.is_lost_since(self.loss_floor);
            work.changes.push(Change::Written { key: key.clone(), old, new, is_lost });
        }
    }

    /// The keys whose records are being written, and what each added to its Merkle tree before.
    pub fn being_written(&self) -> impl Iterator<Item = (&Key, Share)> {
        self.turns.iter().filter_map(|(key, turn)| match turn.phase {
            Phase::Writing { before, .. } => Some((key, before)),
            Phase::Reading => None,
        })
    }

    /// Whether what the store holds of a key may not be durable.
    pub fn is_being_written(&self, key: &Key) -> bool {
        self.turns.get(key).is_some_and(|turn| matches!(turn.phase, Phase::Writing { .. }))
    }

    /// The keys of a tree hold all that enough other homes held after the last loss of writes: they count again.
    pub fn catch_up(&mut self, tree: TreeId) {
        self.recovered.insert(tree);
    }

    fn is_recovered(&self, key: &Key) -> bool {
        let (partition, group) = self.held.group_of(key);
        self.recovered.contains(&TreeId { partition, group })
    }

    fn begin_again(&mut self, key: Key, waiting: VecDeque<Task>, since: Epoch, work: &mut Work) {
        if !waiting.is_empty() {
            self.turns.insert(key.clone(), Turn { waiting, phase: Phase::Reading, waits_since: since, since });
            self.read(key, work);
        }
    }

    /// The stored record. One that cannot be read is replaced at once by the mark of its loss, so that the loss has one number; none if
    /// a newer build can read it.
    ///
    /// What is to be forgotten is forgotten before anybody sees it.
    fn parse(&mut self, now: Now, key: &Key, bytes: Option<Bytes>, since: Epoch, work: &mut Work) -> Option<Held> {
        let len = bytes.as_ref().map_or(0, Bytes::len);
        let (mut record, fresh) = match bytes.map(|bytes| Record::decode(&bytes, &key.storage_key())) {
            None => (Record::default(), Fresh::No),
            Some(Ok(record)) => (record, Fresh::No),
            Some(Err(error @ RecordError::Version(_))) => {
                work.events.push(Event::RecordNotKnown(key.clone(), error));
                return None;
            }
            Some(Err(error)) => (self.lost(key, error, work), Fresh::Yes),
        };
        self.note_loss(key, &mut record);
        let mut held = self.held(key, record, len, fresh, since);
        self.forget_due(now, key, &mut held);
        Some(held)
    }

    /// Whatever a record says of its losses is from before the store's last one. A stand-in makes no promise about what it does not hold.
    fn note_loss(&self, key: &Key, record: &mut Record) {
        let may_count = self.broken.is(Mutation::CountAfterPowerLoss) || !self.is_home(key);
        if record.header.recovered_since < self.loss_floor && !may_count {
            let lost = self.minter.loss_before(self.loss_floor);
            record.header.recovering = if self.is_recovered(key) { None } else { Some(lost) };
        }
    }

    /// What another node may be told of a stored record: nothing of what is due to be forgotten. None if there is nothing in it, or it
    /// cannot be read.
    pub fn shown(&self, now: Now, key: &Key, bytes: &Bytes) -> Option<State> {
        let mut record = Record::decode(bytes, &key.storage_key()).ok()?;
        self.note_loss(key, &mut record);
        let wall = self.trusts_clock.then_some(now.wall);
        gc::forget(&mut record, &self.minter, wall, &self.rules(key));
        Some(record.state).filter(|state| *state != State::default())
    }

    fn forget_due(&self, now: Now, key: &Key, held: &mut Held) {
        let wall = self.trusts_clock.then_some(now.wall);
        held.forgotten = gc::forget(&mut held.record, &self.minter, wall, &self.rules(key));
    }

    fn rules(&self, key: &Key) -> Rules {
        let conflict = self.held.view().settings(key.bucket()).conflict;
        Rules { now: self.epoch, conflict, idle_max: self.idle_actors_max, broken: self.broken }
    }

    fn held(&self, key: &Key, record: Record, bytes: usize, fresh: Fresh, since: Epoch) -> Held {
        let share = self.share_of(key, &record);
        Held { record, bytes, fresh, share, forgotten: Forgotten::default(), since }
    }

    /// What stands in the place of a record that cannot be read: on a home the mark of its loss, elsewhere nothing.
    fn lost(&mut self, key: &Key, error: RecordError, work: &mut Work) -> Record {
        work.events.push(Event::RecordLost(key.clone(), error));
        work.changes.push(Change::Lost(key.clone()));
        // Whatever it was owed for cannot be told any more: a home may have stood in for another before it became one.
        self.hints.forget();
        if !self.is_home(key) {
            return Record::default();
        }
        if self.broken.is(Mutation::CountAmnesiac) {
            return Record::default();
        }
        Record::lost(self.minter.lose(), self.loss_floor)
    }

    /// Carries out all waiting tasks on `record`. What was asked before anything changed is answered at once, the rest when the
    /// record is stored.
    fn run(&mut self, now: Now, key: Key, held: Held, waiting: VecDeque<Task>, work: &mut Work) {
        let Held { mut record, bytes, fresh, share: before, forgotten, since } = held;
        let owed = record.header.owed.clone();
        let siblings = if forgotten.any { self.digest(&key, &record) } else { Some(before.digest) };
        // What was handed over has an entry in the index, even if the record that it was for is lost.
        let listed = waiting.iter().filter_map(|task| match task {
            Task::HandedOver(handed) => Some(handed.to),
            _ => None,
        });
        let stray = listed.filter(|home| !owed.contains_key(home)).collect();
        let entry_of = |task: &Task| match task {
            Task::Forget { entry, .. } => Some(entry.clone()),
            _ => None,
        };
        let looked: Vec<Bytes> = waiting.iter().filter_map(entry_of).collect();
        let mut changed = fresh == Fresh::Yes;
        let mut done = Vec::new();
        for mut task in waiting {
            if let Task::Forget { deleted, .. } = &mut task {
                *deleted = forgotten.deleted;
            }
            let ended = self.carry_out(now, &key, &mut record, task, &mut changed, work);
            if changed {
                done.push(ended);
            } else {
                self.tasks -= 1;
                work.done.push(ended);
            }
        }
        if changed {
            let content = self.digest(&key, &record);
            if fresh == Fresh::Yes || content.is_none() || content != siblings {
                record.header.changed = self.epoch;
            }
            record.header.content = content;
            if record.header.recovering.is_none() {
                record.header.recovered_since = self.loss_floor;
            }
            let hints = HintChange {
                storage_key: key.storage_key(),
                before: owed,
                after: BTreeMap::new(),
                stray,
                bytes_before: bytes,
                bytes_after: 0,
            };
            self.write(key, Replaces { hints, looked, before, since }, record, done, work);
        }
    }

    fn digest(&self, key: &Key, record: &Record) -> Option<ContentDigest> {
        self.keeps_trees.then(|| ContentDigest::of(&key.storage_key(), &record.state))
    }

    /// Stores a record, or removes what needs to be kept no more: what a node that is no home owes to nobody any more, and with it
    /// the actor, and what has forgotten everything.
    fn write(&mut self, key: Key, replaces: Replaces, mut record: Record, mut done: Vec<Done>, work: &mut Work) {
        let Replaces { hints, looked, before, since } = replaces;
        let id = self.next_store();
        let storage_key = hints.storage_key.clone();
        let look_before = record.header.look;
        let bytes = if self.is_kept(&key, &record) {
            record.header.look = self.next_look(&record, &looked);
            Some(record.encode_as(&storage_key, self.all_speak))
        } else {
            record = Record {
                // Where trees are kept, nothing is what is there then.
                header: LocalHeader {
                    content: record.header.content.map(|_| ContentDigest::NONE),
                    ..LocalHeader::default()
                },
                ..Record::default()
            };
            None
        };
        let bytes_after = bytes.as_ref().map_or(0, Bytes::len);
        let hints = HintChange { after: record.header.owed.clone(), bytes_after, ..hints };
        let mut index = hints.index();
        index.extend(look_changes(&storage_key, look_before, record.header.look, looked));
        let sync = self.syncs(key.bucket()) && !self.broken.is(Mutation::CountUnsynced);
        self.has_unsynced |= !sync;
        work.stores.push((id, StoreCommand::Write { storage_key, record: bytes, index, sync }));
        self.hints.begins(&hints);
        let is_hint = bytes_after > 0 && !hints.after.is_empty();
        if self.broken.is(Mutation::ReplyBeforeStored) || is_hint && self.broken.is(Mutation::HintBeforeStored) {
            self.tasks -= done.len();
            work.done.append(&mut done);
        }
        self.busy.insert(id, key.clone());
        let phase = Phase::Writing { record: Box::new(record), before, done, hints };
        self.turns.insert(key, Turn { waiting: VecDeque::new(), phase, waits_since: self.epoch, since });
    }

    /// Whether a record says anything that its absence would not.
    fn is_kept(&self, key: &Key, record: &Record) -> bool {
        let header = &record.header;
        if !header.owed.is_empty() || !self.keeps(key) {
            return !header.owed.is_empty();
        }
        let counts_absent = self.loss_floor == Since(0) || self.is_recovered(key);
        !record.state.is_empty() || header.recovering.is_some() || !counts_absent
    }

    /// When a record is to be looked after that was looked after now by the entries `looked`. An entry that is there already will do
    /// if it is early enough: so a record that changes all the time costs the index one change in some epochs.
    fn next_look(&self, record: &Record, looked: &[Bytes]) -> Option<Look> {
        let is_over = |look: &Look| looked.iter().any(|entry| entry.starts_with(&look.first()));
        let planned = record.header.look.filter(|look| !is_over(look));
        match (planned, gc::next_look(record, self.epoch)) {
            (Some(planned), Some(next)) => Some(planned.min(next)),
            (planned, next) => next.or(planned),
        }
    }

    fn carry_out(
        &mut self,
        now: Now,
        key: &Key,
        record: &mut Record,
        task: Task,
        changed: &mut bool,
        work: &mut Work,
    ) -> Done {
        match task {
            Task::Read { asker, want } => Done::Answer(asker, self.holds(record, want)),
            Task::Merge { asker, state, heals, confirm, stands_in_for } => {
                let home = self.to_be_owed(key, stands_in_for);
                if home.is_some() && record.header.owed.is_empty() && self.hints.takes_no_more() {
                    return Done::Answer(asker, Answer::Failed(Failure::HintsFull));
                }
                *changed |= self.merge(key, record, &state, heals, work);
                *changed |= self.owe(record, home);
                Done::Answer(asker, confirmation(record, &state, confirm))
            }
            Task::Mint { request_id, mint } => {
                let home = self.to_be_owed(key, mint.stands_in_for);
                if home.is_some() && record.header.owed.is_empty() && self.hints.takes_no_more() {
                    return Done::Mint(request_id, Err(MintRefused::Failed(Failure::HintsFull)));
                }
                let made = self.give_dot(now, record, *mint, changed, work);
                if made.is_ok() {
                    *changed |= self.owe(record, home);
                }
                Done::Mint(request_id, made)
            }
            Task::HandedOver(handed) => {
                *changed |= self.settle_debt(record, &handed);
                Done::HandedOver
            }
            Task::Drop => {
                *changed |= !self.is_kept(key, record) && *record != Record::default();
                Done::Dropped(key.clone())
            }
            Task::Forget { deleted, .. } => {
                *changed = true;
                Done::Forgot(deleted)
            }
        }
    }

    fn holds(&self, record: &Record, want: Want) -> Answer {
        let loss = record.header.recovering;
        match want {
            Want::State => Answer::State { state: record.state.clone(), epoch: self.epoch, loss },
            Want::Digest => Answer::Digest { digest: StateDigest::of(&record.state), loss },
        }
    }

    /// The home that a write is to be kept for here, if any: a home of every list needs no hint, as it is compared with the others.
    fn to_be_owed(&self, key: &Key, stands_in_for: Option<NodeId>) -> Option<NodeId> {
        stands_in_for.filter(|&home| !self.is_home(key) || self.held.may_stand_in(key, home))
    }

    /// Notes that the record is kept for a home; true if that is new.
    fn owe(&self, record: &mut Record, home: Option<NodeId>) -> bool {
        let Some(home) = home.filter(|home| !record.header.owed.contains_key(home)) else { return false };
        if !self.broken.is(Mutation::HintDropped) {
            record.header.owed.insert(home, self.epoch);
        }
        !self.broken.is(Mutation::HintDropped)
    }

    /// A home has the state that was sent to it. Only if that is what is held now is nothing owed to it any more.
    fn settle_debt(&self, record: &mut Record, handed: &HandedOver) -> bool {
        let Some(&since) = record.header.owed.get(&handed.to) else {
            return true;
        };
        match handed.stored {
            Some(stored) => {
                let is_same =
                    StateDigest::of(&record.state) == stored || self.broken.is(Mutation::HintDroppedThoughNewer);
                is_same && record.header.owed.remove(&handed.to).is_some()
            }
            // Whoever the homes are now, some of them may lack it. While this node does not know them the debt stays.
            None => {
                let is_lost = self.held.knows_no_home_instead_of(&handed.key, handed.to);
                if is_lost && !self.broken.is(Mutation::DebtSettledWithoutHome) {
                    return false;
                }
                let homes = self.held.homes_of(&handed.key).without(self.minter.node()).all();
                record.header.owed.remove(&handed.to);
                for home in homes {
                    record.header.owed.entry(home).or_insert(since);
                }
                true
            }
        }
    }

    fn merge(&mut self, key: &Key, record: &mut Record, state: &State, heals: Option<Loss>, work: &mut Work) -> bool {
        let kept = if self.broken.is(Mutation::DueStored) { None } else { gc::without_due(state, &self.rules(key)) };
        if record.state.is_empty() && heals.is_none() && kept.as_ref().is_some_and(|kept| kept.siblings().len() == 0) {
            // Everybody forgets it now, and there is nothing here that it would replace.
            return false;
        }
        let state = kept.as_ref().unwrap_or(state);
        self.minter.check_memory(record, state.clock());
        let merged = record.state.merge(state);
        for _ in 0..merged.collisions {
            work.events.push(Event::DotCollision(key.clone()));
        }
        let healed = heals.is_some() && record.header.recovering == heals;
        if healed {
            record.header.recovering = None;
        }
        self.broken.after_merge(&mut record.state, state);
        merged.changed || healed
    }

    fn give_dot(
        &mut self,
        now: Now,
        record: &mut Record,
        mint: Mint,
        changed: &mut bool,
        work: &mut Work,
    ) -> Result<Minted, MintRefused> {
        if now.instant >= mint.deadline {
            return Err(MintRefused::Late);
        }
        if let Some(base) = &mint.base {
            *changed |= self.merge(&mint.key, record, base, None, work);
        }
        if let Some(known) = record.state.knows(mint.write_id) {
            return Ok(self.already_made(record, mint.write_id, known));
        }
        let seen = mint.seen;
        let is_fixed = matches!(mint.stamp, Stamp::Fixed(_)) && !self.broken.is(Mutation::LateForwardRaised);
        let above = highest_replaced(record, &seen, mint.base.is_some() || (mint.covers_held && !is_fixed));
        let stamp = match mint.stamp {
            Stamp::Fixed(stamp) | Stamp::Here(Some(stamp)) => stamp,
            Stamp::Here(None) => self.clock.tick(now.wall),
        };
        let hlc = stamp.max(above.next());
        if is_fixed && mint.covers_held && !self.broken.is(Mutation::ForwardStoredBelow) {
            let held = record.state.siblings().filter(|held| !is_replaced(held, &seen)).map(|held| held.hlc).max();
            if let Some(held) = held.filter(|&held| held >= hlc) {
                return Err(MintRefused::StampTooLow(held));
            }
        }
        self.clock.observe(hlc, now.wall);
        self.ahead_ms = self.ahead_ms.max(hlc.wall().0.saturating_sub(now.wall.0));
        self.minter.check_memory(record, &seen.clock);
        let own = record.header.own;
        let dot = self.broken.dot(self.minter.mint(record, &seen.clock), &mut self.node_wide_count);
        let sibling = Sibling {
            dot,
            content: mint.content,
            hlc,
            epoch: self.epoch,
            write_id: mint.write_id,
            expires: mint.expires,
        };
        if let Err(refused) = self.add(&mut record.state, sibling, &seen, mint.covers_held) {
            // The dot was given to nothing, and a counter that is left out would be a gap in every clock from now on.
            record.header.own = own;
            return Err(refused);
        }
        self.broken.after_put(&mut record.state, dot);
        *changed = true;
        Ok(Minted { state: record.state.clone(), made: Some((dot, hlc)), epoch: self.epoch })
    }

    /// Adds a write to a state, unless that would make the state larger than it may be. A write that replaces as much as it adds
    /// always passes, however large the state has become by merging.
    fn add(&self, state: &mut State, sibling: Sibling, seen: &Seen, covers_held: bool) -> Result<(), MintRefused> {
        let put = |state: &mut State, sibling| match covers_held {
            true => state.put_over(sibling, seen),
            false => state.put(sibling, seen),
        };
        let (before, bytes_max) = (state.weight(), self.sibling_bytes_max);
        // Hardly any key is near its bounds, and only for those is the state copied.
        if before.siblings < self.siblings_max && before.bytes + sibling.weight() <= bytes_max {
            put(state, sibling);
            return Ok(());
        }
        let mut larger = state.clone();
        put(&mut larger, sibling);
        let after = larger.weight();
        if after.siblings > before.siblings.max(self.siblings_max) {
            return Err(MintRefused::TooManySiblings(u32::try_from(before.siblings).unwrap_or(u32::MAX)));
        }
        if after.bytes > before.bytes.max(bytes_max) {
            return Err(MintRefused::TooManyBytes(after.bytes as u64, bytes_max as u64));
        }
        *state = larger;
        Ok(())
    }

    fn already_made(&self, record: &Record, write_id: WriteId, known: Known) -> Minted {
        let made = match known {
            Known::Live(dot) => {
                let is_it = |held: &&Sibling| held.dot == dot && held.write_id == write_id;
                record.state.siblings().find(is_it).map(|held| (dot, held.hlc))
            }
            Known::Replaced => None,
        };
        Minted { state: record.state.clone(), made, epoch: self.epoch }
    }

    fn fail(&mut self, key: &Key, task: Task, work: &mut Work) {
        self.tasks -= 1;
        work.done.push(match task {
            Task::Read { asker, .. } | Task::Merge { asker, .. } => {
                Done::Answer(asker, Answer::Failed(Failure::Storage))
            }
            Task::Mint { request_id, .. } => Done::Mint(request_id, Err(MintRefused::Failed(Failure::Storage))),
            Task::HandedOver(_) => Done::HandedOver,
            Task::Drop => Done::Dropped(key.clone()),
            Task::Forget { .. } => Done::Forgot(0),
        });
    }
}

/// What a record is written in the place of.
struct Replaces {
    hints: HintChange,
    /// The entries of the index by which it was found to be looked after.
    looked: Vec<Bytes>,
    /// What it added to its Merkle tree.
    before: Share,
    /// The epoch in which the first of the tasks that are in it was taken on.
    since: Epoch,
}

/// How the index changes with the time at which a record is to be looked after.
fn look_changes(storage_key: &[u8], before: Option<Look>, after: Option<Look>, looked: Vec<Bytes>) -> Vec<IndexChange> {
    let after = after.map(|look| look.entry(storage_key));
    let before = before.map(|look| look.entry(storage_key));
    let mut changes: Vec<IndexChange> = Vec::new();
    for gone in looked.into_iter().chain(before.clone()).filter(|entry| Some(entry) != after.as_ref()) {
        changes.push(IndexChange::Remove(gone));
    }
    changes.extend(after.filter(|entry| Some(entry) != before.as_ref()).map(IndexChange::Add));
    changes
}

/// The timestamp that a write must be above: of what it replaces, or of everything that is held.
fn highest_replaced(record: &Record, seen: &Seen, everything: bool) -> Hlc {
    let replaced = record.state.siblings().filter(|held| everything || is_replaced(held, seen));
    replaced.map(|held| held.hlc).max().unwrap_or_default().max(seen.hlc)
}

/// Whether a write that has seen `seen` replaces what is held.
fn is_replaced(held: &Sibling, seen: &Seen) -> bool {
    seen.clock.contains(held.dot) || seen.ids.contains_key(&held.write_id)
}

fn confirmation(record: &Record, sent: &State, confirm: Confirm) -> Answer {
    match confirm {
        Confirm::Stored => Answer::Stored,
        Confirm::Exactly => Answer::Holds {
            digest: StateDigest::of(&record.state),
            state: (record.state != *sent).then(|| record.state.clone()),
            loss: record.header.recovering,
        },
    }
}

fn failed(done: Done, failure: Failure) -> Done {
    match done {
        Done::Answer(asker, _) => Done::Answer(asker, Answer::Failed(failure)),
        Done::Mint(request_id, _) => Done::Mint(request_id, Err(MintRefused::Failed(failure))),
        Done::HandedOver | Done::Dropped(_) => done,
        Done::Forgot(_) => Done::Forgot(0),
    }
}

/// The task that this is the end of, if it was a read.
fn read_again(done: &Done) -> Option<Task> {
    match *done {
        Done::Answer(asker, Answer::State { .. }) => Some(Task::Read { asker, want: Want::State }),
        Done::Answer(asker, Answer::Digest { .. }) => Some(Task::Read { asker, want: Want::Digest }),
        Done::Answer(..) | Done::Mint(..) | Done::HandedOver | Done::Dropped(_) | Done::Forgot(_) => None,
    }
}
