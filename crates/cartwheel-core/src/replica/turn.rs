//! The turns of keys: while a key's record is read or written, further tasks on it wait, and are then executed together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::owed::{gc_due_changes, listing_change};
use super::{Caller, Done, HandedOver, Mint, MintRefused, Replica, ReplicaCalls};
use crate::cluster::losses::Loss;
use crate::message::{Confirm, Failure, ReplicaResponse, RequestId, Want};
use crate::mutation::Mutation;
use crate::outbox::Outbox;
use crate::replica::gc::Collected;
use crate::replica::hint::HintChange;
use crate::store::command::{ReadFailed, StoreCommand, StoreId, StoreResult, WriteFailed};
use crate::store::record::{LocalHeader, Record, RecordError};
use crate::store::share::{RecordChange, Share};
use crate::value::digest::ContentDigest;
use crate::value::dot::NodeId;
use crate::value::key::Key;
use crate::value::state::{Epoch, State};
use crate::value::time::Now;

#[derive(Debug)]
pub(super) enum Task {
    Read {
        caller: Caller,
        want: Want,
    },
    Merge {
        caller: Caller,
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
    /// Remove the record, unless it is kept as a hint: the node has no other use for it any more.
    Drop,
    /// Bring the key's index entry into line with the record.
    Index,
    /// Collect the record's garbage, for this entry of the index. `deleted` is the number of tombstones and expired values removed.
    Collect {
        entry: Bytes,
        deleted: u64,
    },
}

/// The number of waiting tasks that are searched for a repeated read.
pub(super) const REPEATS_MAX: usize = 64;

impl Task {
    /// Whether another task is a repeated read of the same caller, which this task's response answers. A large record takes long to read,
    /// and callers repeat their requests meanwhile.
    fn is_repeated_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Read { caller, want }, Self::Read { caller: other, want: wanted }) => {
                caller == other && want == wanted
            }
            _ => false,
        }
    }
}

/// The tasks of one key while its store is busy with it.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) waiting: VecDeque<Task>,
    pub(super) phase: TurnPhase,
    /// The epoch in which the first of the waiting tasks was accepted.
    pub(super) waits_since: Epoch,
    /// The epoch in which the first of the running tasks was accepted.
    pub(super) since: Epoch,
}

#[derive(Debug)]
pub(super) enum TurnPhase {
    Reading,
    /// The record is being written. The results are returned once it is durable; if the write fails, all of them fail.
    Writing {
        record: Box<Record>,
        /// The share of the replaced record in its Merkle tree.
        before: Share,
        done: Vec<Done>,
        hints: HintChange,
    },
}

/// A record as it is stored.
pub(super) struct StoredRecord {
    pub(super) record: Record,
    /// Its size in bytes; 0 if nothing is stored.
    pub(super) bytes: usize,
    pub(super) fresh: Fresh,
    /// Its share in its Merkle tree.
    pub(super) share: Share,
    /// What was collected when the record was read, and is still stored.
    pub(super) collected: Collected,
    /// The epoch in which the first of its tasks was accepted.
    pub(super) since: Epoch,
}

/// Whether a record differs from what is stored even before a task has changed it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    No,
    Yes,
}

/// What a write of a record replaces.
pub(super) struct Replaces {
    pub(super) hints: HintChange,
    /// The index entries for which the record was collected.
    pub(super) gc_entries: Vec<Bytes>,
    /// The share of the earlier record in its Merkle tree.
    pub(super) before: Share,
    /// Whether the index has an entry for the key; `None` if the earlier record was lost.
    pub(super) was_listed: Option<bool>,
    /// The epoch in which the first of its tasks was accepted.
    pub(super) since: Epoch,
}

pub(super) fn failed(done: Done, failure: Failure) -> Done {
    match done {
        Done::Response(caller, _) => Done::Response(caller, ReplicaResponse::Failed(failure)),
        Done::Mint(request_id, _) => Done::Mint(request_id, Err(MintRefused::Failed(failure))),
        Done::HandedOver => done,
        Done::Dropped(key, _) => Done::Dropped(key, false),
        Done::Collected(_) => Done::Collected(0),
        Done::Indexed(_) => Done::Indexed(false),
    }
}

/// The read of which this is the result, if it was a read.
pub(super) fn read_again(done: &Done) -> Option<Task> {
    match *done {
        Done::Response(caller, ReplicaResponse::State { .. }) => Some(Task::Read { caller, want: Want::State }),
        Done::Response(caller, ReplicaResponse::Digest { .. }) => Some(Task::Read { caller, want: Want::Digest }),
        Done::Response(..)
        | Done::Mint(..)
        | Done::HandedOver
        | Done::Dropped(..)
        | Done::Collected(_)
        | Done::Indexed(_) => None,
    }
}

impl Replica {
    pub(super) fn enqueue(&mut self, now: Now, key: Key, task: Task, out: &mut Outbox<ReplicaCalls>) {
        self.tasks += 1;
        if !self.turns.contains_key(&key)
            && let Some((record, bytes)) = self.cache.get(&key)
        {
            let held = self.stored_record(now, &key, (record, bytes), Fresh::No, self.epoch);
            return self.run(now, key, held, VecDeque::from([task]), out);
        }
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
                place.insert(Turn { waiting, phase: TurnPhase::Reading, waits_since: self.epoch, since: self.epoch });
                self.read(key, out);
            }
        }
    }

    pub(super) fn read(&mut self, key: Key, out: &mut Outbox<ReplicaCalls>) {
        let id = self.next_store();
        out.stores.push((id, StoreCommand::Read { storage_key: key.storage_key() }));
        self.busy.insert(id, key);
    }

    /// Takes the result of a store command. False if the command is not the replica's.
    pub fn stored(&mut self, now: Now, id: StoreId, result: StoreResult, out: &mut Outbox<ReplicaCalls>) -> bool {
        let Some(key) = self.busy.remove(&id) else { return false };
        let Some(turn) = self.turns.remove(&key) else { return true };
        match (turn.phase, result) {
            (TurnPhase::Reading, StoreResult::Read(Ok(bytes))) => match self.parse(now, &key, bytes, turn.since, out) {
                Some(held) => self.run(now, key, held, turn.waiting, out),
                None => turn.waiting.into_iter().for_each(|task| self.fail(&key, task, out)),
            },
            (TurnPhase::Reading, StoreResult::Read(Err(ReadFailed::Damaged))) => {
                let record = self.lost(&key, RecordError::Damaged, out);
                let held = self.held(&key, record, 0, Fresh::Yes, turn.since);
                self.run(now, key, held, turn.waiting, out);
            }
            (TurnPhase::Reading, _) => {
                for task in turn.waiting {
                    self.fail(&key, task, out);
                }
            }
            (TurnPhase::Writing { record, before, done, hints }, StoreResult::Written(written))
                if self.is_stored(written) =>
            {
                if !self.broken.is(Mutation::CachedRecordKept) {
                    self.cache.insert(&key, &record, hints.bytes_after);
                }
                self.written(&key, &record, before, out);
                self.tasks -= done.len();
                out.calls.done.extend(done);
                self.hints.changed(&hints);
                let mut held = self.held(&key, *record, hints.bytes_after, Fresh::No, turn.waits_since);
                self.collect_due(now, &key, &mut held);
                self.run(now, key, held, turn.waiting, out);
            }
            (TurnPhase::Writing { record, done, hints, .. }, StoreResult::Written(Err(WriteFailed::DiskFull))) => {
                self.hints.unchanged(hints);
                self.write_refused(key, &record, done, turn.waiting, turn.since, out);
            }
            (TurnPhase::Writing { done, hints, .. }, _) => {
                self.hints.is_doubtful(&hints);
                self.write_failed(key, done, turn.waiting, turn.waits_since, out);
            }
        }
        true
    }

    pub(super) fn is_stored(&self, written: Result<(), WriteFailed>) -> bool {
        let acknowledged = self.broken.is(Mutation::FullDiskAcknowledges) && written == Err(WriteFailed::DiskFull);
        written.is_ok() || acknowledged
    }

    /// Handles a failed write. It may be stored or not, so nothing in memory can be trusted: no actor that made a dot in it continues, and the
    /// waiting tasks begin with another read.
    pub(super) fn write_failed(
        &mut self,
        key: Key,
        done: Vec<Done>,
        waiting: VecDeque<Task>,
        since: Epoch,
        out: &mut Outbox<ReplicaCalls>,
    ) {
        self.minter.end_all_actors();
        self.cache.clear();
        out.calls.changes.push(RecordChange::Doubtful(key.clone()));
        self.tasks -= done.len();
        out.calls.done.extend(done.into_iter().map(|done| failed(done, Failure::Storage)));
        self.begin_again(key, waiting, since, out);
    }

    /// Handles a full disk. Nothing was stored and no dot was returned, so the actors continue. Reads among the tasks can still be answered,
    /// unless the record itself is lost.
    pub(super) fn write_refused(
        &mut self,
        key: Key,
        record: &Record,
        done: Vec<Done>,
        mut waiting: VecDeque<Task>,
        since: Epoch,
        out: &mut Outbox<ReplicaCalls>,
    ) {
        for done in done.into_iter().rev() {
            match read_again(&done).filter(|_| record.header.recovering.is_none()) {
                Some(read) => waiting.push_front(read),
                None => {
                    self.tasks -= 1;
                    out.calls.done.push(failed(done, Failure::DiskFull));
                }
            }
        }
        self.begin_again(key, waiting, since, out);
    }

    pub(super) fn begin_again(
        &mut self,
        key: Key,
        waiting: VecDeque<Task>,
        since: Epoch,
        out: &mut Outbox<ReplicaCalls>,
    ) {
        if !waiting.is_empty() {
            self.turns.insert(key.clone(), Turn { waiting, phase: TurnPhase::Reading, waits_since: since, since });
            self.read(key, out);
        }
    }

    /// Executes all waiting tasks on `record`. Reads before the first change are answered at once, the rest once the record is stored.
    pub(super) fn run(
        &mut self,
        now: Now,
        key: Key,
        held: StoredRecord,
        waiting: VecDeque<Task>,
        out: &mut Outbox<ReplicaCalls>,
    ) {
        let StoredRecord { mut record, bytes, fresh, share: before, collected, since } = held;
        let owed = record.header.owed.clone();
        let siblings = if collected.any { self.digest(&key, &record) } else { Some(before.digest) };
        // A handed-over record has an entry in the index, even if the record for which it was made is lost.
        let listed = waiting.iter().filter_map(|task| match task {
            Task::HandedOver(handed) => Some(handed.to),
            _ => None,
        });
        let stray = listed.filter(|home| !owed.contains_key(home)).collect();
        let entry_of = |task: &Task| match task {
            Task::Collect { entry, .. } => Some(entry.clone()),
            _ => None,
        };
        let gc_entries: Vec<Bytes> = waiting.iter().filter_map(entry_of).collect();
        // The entry of a record that was lost, if there was one, is still there.
        let is_searched = waiting.iter().any(|task| matches!(task, Task::Index | Task::Drop));
        let was_listed = (fresh == Fresh::No && !is_searched).then_some(record.header.is_listed);
        let mut changed = fresh == Fresh::Yes;
        let mut done = Vec::new();
        for mut task in waiting {
            if let Task::Collect { deleted, .. } = &mut task {
                *deleted = collected.deleted;
            }
            let ended = self.carry_out(now, &key, &mut record, task, &mut changed, out);
            if changed {
                done.push(ended);
            } else {
                self.tasks -= 1;
                out.calls.done.push(ended);
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
            self.write(key, Replaces { hints, gc_entries, before, was_listed, since }, record, done, out);
        }
    }

    /// Stores a record, or removes one that need not be kept: a delivered hint on a node that is no home (with its actor), or a record of which
    /// everything was collected.
    pub(super) fn write(
        &mut self,
        key: Key,
        replaces: Replaces,
        mut record: Record,
        mut done: Vec<Done>,
        out: &mut Outbox<ReplicaCalls>,
    ) {
        let Replaces { hints, gc_entries, before, was_listed, since } = replaces;
        let id = self.next_store();
        let storage_key = hints.storage_key.clone();
        let due_before = record.header.gc_due;
        let bytes = if self.is_kept(&key, &record) {
            record.header.gc_due = self.next_due(&record, &gc_entries);
            record.header.is_listed = self.is_to_be_listed(&key, &record);
            Some(record.encode_as(&storage_key, self.all_speak))
        } else {
            record = Record {
                // Where trees are kept, the record then counts as one without content.
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
        index.extend(gc_due_changes(&storage_key, due_before, record.header.gc_due, gc_entries));
        index.extend(listing_change(&key, was_listed, record.header.is_listed));
        let sync = self.syncs(key.bucket()) && !self.broken.is(Mutation::CountUnsynced);
        self.has_unsynced |= !sync;
        out.stores.push((id, StoreCommand::Write { storage_key, record: bytes, index, sync }));
        self.hints.begins(&hints);
        let is_hint = bytes_after > 0 && !hints.after.is_empty();
        if self.broken.is(Mutation::ReplyBeforeStored) || is_hint && self.broken.is(Mutation::HintBeforeStored) {
            self.tasks -= done.len();
            out.calls.done.append(&mut done);
        }
        self.busy.insert(id, key.clone());
        let phase = TurnPhase::Writing { record: Box::new(record), before, done, hints };
        self.turns.insert(key, Turn { waiting: VecDeque::new(), phase, waits_since: self.epoch, since });
    }

    pub(super) fn fail(&mut self, key: &Key, task: Task, out: &mut Outbox<ReplicaCalls>) {
        self.tasks -= 1;
        out.calls.done.push(match task {
            Task::Read { caller, .. } | Task::Merge { caller, .. } => {
                Done::Response(caller, ReplicaResponse::Failed(Failure::Storage))
            }
            Task::Mint { request_id, .. } => Done::Mint(request_id, Err(MintRefused::Failed(Failure::Storage))),
            Task::HandedOver(_) => Done::HandedOver,
            Task::Drop => Done::Dropped(key.clone(), false),
            Task::Index => Done::Indexed(false),
            Task::Collect { .. } => Done::Collected(0),
        });
    }
}
