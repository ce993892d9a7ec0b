//! A shard's disk: its store, and its recovery after a failure.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::store::command::{ReadFailed, ScanLimit, Scanned, WriteFailed};
use cartwheel_core::value::time::Instant;
use cartwheel_storage::{Batch, Durability, Store, StoreError};
use tracing::{error, info};

use super::commit_thread::SharedCommitter;
use super::reader::SharedReader;
use super::reserve::Reserve;
use crate::data_dir::lineage::Mark;

/// Opens a shard's store again. It must check that the store is the right one, and sync what its recovery found.
pub type Reopen = Box<dyn FnMut() -> Result<Box<dyn Store>, ReopenError> + Send>;

/// Why a store could not be opened again.
pub type ReopenError = Box<dyn std::error::Error + Send + Sync>;

/// The time before a failed store is opened again the first time. It doubles each time.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// A store that has worked this long starts again with the first retry time.
const WORKED_FOR: Duration = Duration::from_secs(60);

/// A shard's disk.
pub struct Disk {
    store: State,
    reopen: Reopen,
    reserve: Reserve,
    /// The store for reads on another thread, until it is known to have failed.
    shared_reader: SharedReader,
    /// The store for commits on another thread, until one has failed.
    shared_committer: SharedCommitter,
    retry_after: Duration,
    opened: Instant,
    /// The mark of the last commit; none if commits are not marked.
    mark: Option<Mark>,
    /// The mark of the last commit that is known to be synced.
    synced: Option<Mark>,
}

enum State {
    Open(Box<dyn Store>),
    /// The engine has stopped taking writes before it began one. Its contents are certain and can be read.
    ReadOnly(Box<dyn Store>, Instant),
    /// A commit has failed. Whether it was carried out shows when the store is opened again; until then a read might return what a later one
    /// would not. So nothing can be read.
    Closed(Instant),
}

/// What a shard's disk can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// Reads and writes.
    Good,
    /// Reads.
    Full,
    /// Nothing, or at most reads, until the store is open again.
    Failed,
}

impl Disk {
    /// The disk of a store that has just been opened.
    pub fn new(store: Box<dyn Store>, reopen: Reopen, mut reserve: Reserve) -> Self {
        reserve.check(store.unflushed_bytes(), Instant::default());
        let (shared_reader, shared_committer) = (SharedReader::default(), SharedCommitter::default());
        shared_reader.open(store.reader());
        shared_committer.open(store.committer());
        let (retry_after, opened) = (RETRY_AFTER, Instant::default());
        Self {
            store: State::Open(store),
            reopen,
            reserve,
            shared_reader,
            shared_committer,
            retry_after,
            opened,
            mark: None,
            synced: None,
        }
    }

    /// Marks commits with this boot.
    #[must_use]
    pub fn marked(self, boot: u32) -> Self {
        Self { mark: Some(Mark { boot, commit: 0 }), ..self }
    }

    /// The mark of the last commit that survives a power failure.
    pub const fn synced(&self) -> Option<Mark> {
        self.synced
    }

    /// The disk of a store in memory, which takes no space and is lost after a failure.
    #[cfg(test)]
    pub fn of_memory(store: Box<dyn Store>) -> Self {
        Self::new(store, Box::new(|| Err("the store was in memory only".into())), Reserve::none())
    }

    /// What the disk can do now.
    pub fn condition(&self) -> Condition {
        match self.store {
            State::Open(_) if self.reserve.is_full() => Condition::Full,
            State::Open(_) => Condition::Good,
            State::ReadOnly(..) | State::Closed(_) => Condition::Failed,
        }
    }

    /// The store for reads on another thread.
    pub(super) fn shared_reader(&self) -> SharedReader {
        self.shared_reader.clone()
    }

    /// The store for commits on another thread.
    pub(super) fn shared_committer(&self) -> SharedCommitter {
        self.shared_committer.clone()
    }

    /// When [`Self::tick`] is due.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.store {
            State::Open(_) => self.reserve.wake_at(),
            State::ReadOnly(_, at) | State::Closed(at) => Some(at),
        }
    }

    /// Checks whether a full disk has room again; opens a failed store.
    pub fn tick(&mut self, now: Instant) {
        if self.wake_at().is_none_or(|at| now < at) {
            return;
        }
        match &self.store {
            State::Open(store) => self.reserve.check(store.unflushed_bytes(), now),
            State::ReadOnly(..) | State::Closed(_) => self.open_again(now),
        }
    }

    /// The store, if it may be read.
    pub fn readable(&self) -> Option<&dyn Store> {
        match &self.store {
            State::Open(store) | State::ReadOnly(store, _) => Some(store.as_ref()),
            State::Closed(_) => None,
        }
    }

    /// The record under a key.
    pub fn read(&self, storage_key: &[u8]) -> Result<Option<Bytes>, ReadFailed> {
        let store = self.readable().ok_or(ReadFailed::Unreadable)?;
        store.get(storage_key).map_err(|error| unread("record", &error))
    }

    /// The size of a record, without reading it where the store can tell; 0 if there is none, or the size is unknown.
    pub fn size_of(&self, storage_key: &[u8]) -> usize {
        self.readable().and_then(|store| store.size_of(storage_key).ok().flatten()).unwrap_or(0)
    }

    /// The records from a key on.
    pub fn scan(&self, from: &[u8], upto: Option<&[u8]>, at_most: ScanLimit) -> Result<Scanned, ReadFailed> {
        let store = self.readable().ok_or(ReadFailed::Unreadable)?;
        let mut scanned = Scanned { is_all: true, ..Scanned::default() };
        let mut bytes = 0;
        for entry in store.scan(from, upto) {
            let (key, record) = match entry {
                Err(StoreError::DamagedRecord(key, error)) => {
                    error!(%error, "cannot read a record");
                    scanned.damaged.push(key);
                    continue;
                }
                entry => entry.map_err(|error| unread("range of records", &error))?,
            };
            bytes += record.len();
            let is_full = scanned.records.len() + scanned.damaged.len() >= at_most.records.max(1);
            if is_full || (bytes > at_most.bytes && !scanned.records.is_empty()) {
                scanned.is_all = false;
                break;
            }
            scanned.records.push((key, record));
        }
        Ok(scanned)
    }

    /// The entries of the index from one on.
    pub fn scan_index(&self, from: &[u8], upto: &[u8], entries_max: usize) -> Result<Vec<Bytes>, ReadFailed> {
        let store = self.readable().ok_or(ReadFailed::Unreadable)?;
        let entries = store.scan_index(from, upto).take(entries_max);
        entries.collect::<Result<_, _>>().map_err(|error| unread("index", &error))
    }

    /// The value remembered under a name.
    pub fn recall(&self, name: &[u8]) -> Result<Option<Bytes>, ReadFailed> {
        let store = self.readable().ok_or(ReadFailed::Unreadable)?;
        let recalled = store.get_meta(name).map_err(|error| unread("remembered value", &error))?;
        Ok(recalled.filter(|value| !value.is_empty()))
    }

    /// Checks that a write of `bytes` bytes may go into the next batch.
    pub fn takes(&mut self, bytes: u64, now: Instant) -> Result<(), WriteFailed> {
        let store = self.open_store()?;
        let unflushed = store.unflushed_bytes();
        if self.reserve.takes(bytes, unflushed, now) { Ok(()) } else { Err(WriteFailed::DiskFull) }
    }

    /// The store, if writing is worth a try, however full the disk is.
    pub fn open_store(&mut self) -> Result<&mut Box<dyn Store>, WriteFailed> {
        match &mut self.store {
            State::Open(store) => Ok(store),
            State::ReadOnly(..) | State::Closed(_) => Err(WriteFailed::Uncertain),
        }
    }

    /// Commits a batch.
    #[cfg(test)]
    pub fn commit(&mut self, mut batch: Batch, durability: Durability, now: Instant) -> Result<(), WriteFailed> {
        let mark = self.begin_commit(&mut batch, 0)?;
        let committed = self.open_store()?.commit(batch, durability);
        self.end_commit(mark, durability, committed, now)
    }

    /// Whether a commit would have to wait for earlier ones now.
    pub fn is_behind(&self) -> bool {
        self.readable().is_some_and(|store| store.is_behind())
    }

    /// Marks a batch that is about to be committed, and for which [`Self::takes`] admitted so many bytes. Returns its mark, if commits are
    /// marked.
    pub fn begin_commit(&mut self, batch: &mut Batch, admitted_bytes: u64) -> Result<Option<Mark>, WriteFailed> {
        self.reserve.commit_begins(admitted_bytes);
        // A failed commit may have been carried out, so its number is not used again.
        if let Some(mark) = &mut self.mark {
            mark.commit += 1;
            mark.put(batch);
        }
        if let Err(failed) = self.open_store() {
            self.reserve.commit_ends();
            return Err(failed);
        }
        Ok(self.mark)
    }

    /// Takes the result of the commit with this mark.
    pub fn end_commit(
        &mut self,
        mark: Option<Mark>,
        durability: Durability,
        committed: Result<(), StoreError>,
        now: Instant,
    ) -> Result<(), WriteFailed> {
        self.reserve.commit_ends();
        if committed.is_ok() && durability == Durability::Synced {
            self.synced = mark;
        }
        committed.map_err(|error| {
            self.failed(&error, now);
            WriteFailed::Uncertain
        })
    }

    /// Commits the last batch, and syncs all unsynced writes.
    ///
    /// Returns the store's final mark if all of that worked.
    pub fn close(&mut self, last: Batch) -> Option<Mark> {
        self.shared_reader.close();
        self.shared_committer.close();
        let State::Open(store) = &mut self.store else { return None };
        if let Err(error) = store.commit(last, Durability::Synced) {
            error!(%error, "cannot sync the store at the end");
            return None;
        }
        Mark::of_store(store.as_ref()).ok()
    }

    fn failed(&mut self, error: &StoreError, now: Instant) {
        if now.since(self.opened) > WORKED_FOR {
            self.retry_after = RETRY_AFTER;
        }
        let at = now + self.retry_after;
        error!(
        alarm = "store_failed",
        retry_in = ?self.retry_after,
        %error,
        "store failed; storing no writes until it is open again: check the disk, and replace the node if this repeats with free space"
        );
        self.retry_after = (self.retry_after * 2).min(RETRY_AFTER_MAX);
        self.store = match (std::mem::replace(&mut self.store, State::Closed(at)), error) {
            // The engine reports this before it begins a write.
            (State::Open(store), StoreError::Poisoned | StoreError::Stalled(_)) => State::ReadOnly(store, at),
            // Any open store is closed here.
            (open, _) => {
                self.shared_reader.close();
                self.shared_committer.close();
                drop(open);
                State::Closed(at)
            }
        };
    }

    fn open_again(&mut self, now: Instant) {
        // The old store is closed first: a directory has one open store at a time.
        self.shared_reader.close();
        self.shared_committer.close();
        self.store = State::Closed(now);
        match (self.reopen)() {
            Ok(store) => {
                info!("store is open again");
                self.reserve.check(store.unflushed_bytes(), now);
                self.shared_reader.open(store.reader());
                self.shared_committer.open(store.committer());
                self.store = State::Open(store);
                self.opened = now;
            }
            Err(error) => {
                let at = now + self.retry_after;
                error!(retry_in = ?self.retry_after, %error, "cannot reopen the store; retrying");
                self.retry_after = (self.retry_after * 2).min(RETRY_AFTER_MAX);
                self.store = State::Closed(at);
            }
        }
    }
}

pub(super) fn unread(what: &str, error: &StoreError) -> ReadFailed {
    error!(what, %error, "cannot read from the store");
    if matches!(error, StoreError::Damaged(_) | StoreError::DamagedRecord(..)) {
        ReadFailed::Damaged
    } else {
        ReadFailed::Unreadable
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("condition", &self.condition()).finish_non_exhaustive()
    }
}
