//! The turns of keys: while a key's record is read or written, further tasks on it wait, and are then carried out together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::owed::look_changes;
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
    /// It may go, if nobody is owed it: the node has nothing to do with it any more.
    Drop,
    /// The index says by this entry that there is something to forget; so many tombstones and expired values were.
    Collect {
        entry: Bytes,
        deleted: u64,
    },
}

/// Among so many tasks it is looked whether a question is there already.
pub(super) const REPEATS_MAX: usize = 64;

impl Task {
    /// Whether another task is the same question of the same asker, which is answered by the answer to this one. Large records take long
    /// to read, and are asked for again meanwhile.
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
    /// The epoch in which the first of those that wait was taken on.
    pub(super) waits_since: Epoch,
    /// The same of those that are being carried out.
    pub(super) since: Epoch,
}

#[derive(Debug)]
pub(super) enum TurnPhase {
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
pub(super) struct StoredRecord {
    pub(super) record: Record,
    /// Its size; 0 if nothing is stored.
    pub(super) bytes: usize,
    pub(super) fresh: Fresh,
    /// What it adds to its Merkle tree.
    pub(super) share: Share,
    /// What was forgotten when it was read, and is still stored.
    pub(super) collected: Collected,
    /// The epoch in which the first of the tasks on it was taken on.
    pub(super) since: Epoch,
}

/// Whether a record differs from what is stored before any task has changed it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    No,
    Yes,
}

/// What a record is written in the place of.
pub(super) struct Replaces {
    pub(super) hints: HintChange,
    /// The entries of the index by which it was found to be looked after.
    pub(super) looked: Vec<Bytes>,
    /// What it added to its Merkle tree.
    pub(super) before: Share,
    /// The epoch in which the first of the tasks that are in it was taken on.
    pub(super) since: Epoch,
}

pub(super) fn failed(done: Done, failure: Failure) -> Done {
    match done {
        Done::Response(caller, _) => Done::Response(caller, ReplicaResponse::Failed(failure)),
        Done::Mint(request_id, _) => Done::Mint(request_id, Err(MintRefused::Failed(failure))),
        Done::HandedOver | Done::Dropped(_) => done,
        Done::Collected(_) => Done::Collected(0),
    }
}

/// The task that this is the end of, if it was a read.
pub(super) fn read_again(done: &Done) -> Option<Task> {
    match *done {
        Done::Response(caller, ReplicaResponse::State { .. }) => Some(Task::Read { caller, want: Want::State }),
        Done::Response(caller, ReplicaResponse::Digest { .. }) => Some(Task::Read { caller, want: Want::Digest }),
        Done::Response(..) | Done::Mint(..) | Done::HandedOver | Done::Dropped(_) | Done::Collected(_) => None,
    }
}

impl Replica {
    pub(super) fn take_on(&mut self, key: Key, task: Task, out: &mut Outbox<ReplicaCalls>) {
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

    /// Takes in the end of a store command; false if it is not one of the replica's.
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

    /// A write that failed may be stored or not, so nothing in memory can be trusted: no actor that made a dot in it goes on,
    /// and the tasks that wait begin with another read.
    pub(super) fn write_failed(
        &mut self,
        key: Key,
        done: Vec<Done>,
        waiting: VecDeque<Task>,
        since: Epoch,
        out: &mut Outbox<ReplicaCalls>,
    ) {
        self.minter.end_all_actors();
        out.calls.changes.push(RecordChange::Doubtful(key.clone()));
        self.tasks -= done.len();
        out.calls.done.extend(done.into_iter().map(|done| failed(done, Failure::Storage)));
        self.begin_again(key, waiting, since, out);
    }

    /// The disk is full. Nothing was stored and nobody was told of the dots that were given, so the actors go on; and what was only
    /// to be read can still be, unless the record itself is lost.
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

    /// Carries out all waiting tasks on `record`. What was asked before anything changed is answered at once, the rest when the
    /// record is stored.
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
        // What was handed over has an entry in the index, even if the record that it was for is lost.
        let listed = waiting.iter().filter_map(|task| match task {
            Task::HandedOver(handed) => Some(handed.to),
            _ => None,
        });
        let stray = listed.filter(|home| !owed.contains_key(home)).collect();
        let entry_of = |task: &Task| match task {
            Task::Collect { entry, .. } => Some(entry.clone()),
            _ => None,
        };
        let looked: Vec<Bytes> = waiting.iter().filter_map(entry_of).collect();
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
            self.write(key, Replaces { hints, looked, before, since }, record, done, out);
        }
    }

    /// Stores a record, or removes what needs to be kept no more: what a node that is no home owes to nobody any more, and with it
    /// the actor, and what has forgotten everything.
    pub(super) fn write(
        &mut self,
        key: Key,
        replaces: Replaces,
        mut record: Record,
        mut done: Vec<Done>,
        out: &mut Outbox<ReplicaCalls>,
    ) {
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
            Task::Drop => Done::Dropped(key.clone()),
            Task::Collect { .. } => Done::Collected(0),
        });
    }
}
