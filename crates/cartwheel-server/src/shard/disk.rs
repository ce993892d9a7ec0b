//! A shard's disk: its store while that works, and the way back to it after it has failed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::store::command::{ReadFailed, ScanLimit, Scanned, WriteFailed};
use cartwheel_core::value::time::Instant;
use cartwheel_storage::{Batch, Durability, Store, StoreError};
use tracing::{error, info};

use super::reader::Beside;
use super::reserve::Reserve;
use crate::data_dir::lineage::Mark;

/// Opens a shard's store again. It must make sure that it is the right one, and that what a recovery found is synced.
pub type Reopen = Box<dyn FnMut() -> Result<Box<dyn Store>, ReopenError> + Send>;

/// Why a store could not be opened again.
pub type ReopenError = Box<dyn std::error::Error + Send + Sync>;

/// How long a store that has failed is left alone, the first time. Each time after that it is twice as long.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// A store that has worked for so long is not the one that failed before.
const WORKED_FOR: Duration = Duration::from_secs(60);

/// A shard's disk.
pub struct Disk {
    store: State,
    reopen: Reopen,
    reserve: Reserve,
    /// The store as it is read beside the shard, while it is not known to have failed.
    beside: Beside,
    retry_after: Duration,
    opened: Instant,
    /// The mark of the last commit; none if commits are not marked.
    mark: Option<Mark>,
    /// That of the last one that is known to be synced.
    synced: Option<Mark>,
}

enum State {
    Open(Box<dyn Store>),
    /// The engine has stopped taking writes before one of them was begun. What it holds is certain and can be read.
    ReadOnly(Box<dyn Store>, Instant),
    /// A commit has failed. Whether it was carried out will show when the store is opened again; until then, any read might return
    /// what a later one would not. So there is nothing to read from.
    Closed(Instant),
}

/// What a shard's disk is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// Everything.
    Good,
    /// Reads.
    Full,
    /// Nothing, or reads at most, until the store is open again.
    Failed,
}

impl Disk {
    /// The disk of a store that has just been opened.
    pub fn new(store: Box<dyn Store>, reopen: Reopen, mut reserve: Reserve) -> Self {
        reserve.check(store.unflushed_bytes(), Instant::default());
        let beside = Beside::default();
        beside.open(store.reader());
        let (retry_after, opened) = (RETRY_AFTER, Instant::default());
        Self { store: State::Open(store), reopen, reserve, beside, retry_after, opened, mark: None, synced: None }
    }

    /// The same, whose commits are marked as those of this boot.
    #[must_use]
    pub fn marked(self, boot: u32) -> Self {
        Self { mark: Some(Mark { boot, commit: 0 }), ..self }
    }

    /// The mark of the last commit that no power failure can take away.
    pub const fn synced(&self) -> Option<Mark> {
        self.synced
    }

    /// The disk of a store that takes up none, and does not come back after a failure.
    #[cfg(test)]
    pub fn of_memory(store: Box<dyn Store>) -> Self {
        Self::new(store, Box::new(|| Err("it was in memory only".into())), Reserve::none())
    }

    /// What it is good for.
    pub fn condition(&self) -> Condition {
        match self.store {
            State::Open(_) if self.reserve.is_full() => Condition::Full,
            State::Open(_) => Condition::Good,
            State::ReadOnly(..) | State::Closed(_) => Condition::Failed,
        }
    }

    /// The store as another thread reads it.
    pub(super) fn beside(&self) -> Beside {
        self.beside.clone()
    }

    /// When [`Self::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.store {
            State::Open(_) => self.reserve.wake_at(),
            State::ReadOnly(_, at) | State::Closed(at) => Some(at),
        }
    }

    /// Looks whether a full disk has room again; opens a store that has failed.
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

    /// The bytes under a key.
    pub fn read(&self, storage_key: &[u8]) -> Result<Option<Bytes>, ReadFailed> {
        let store = self.readable().ok_or(ReadFailed::Unreadable)?;
        store.get(storage_key).map_err(|error| unread("a record", &error))
    }

    /// How many bytes a record has, without reading it where the store can tell; 0 if there is none, or it cannot be told.
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
                    error!("a record could not be read: {error}");
                    scanned.damaged.push(key);
                    continue;
                }
                entry => entry.map_err(|error| unread("a range of records", &error))?,
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
        entries.collect::<Result<_, _>>().map_err(|error| unread("the index", &error))
    }

    /// What is remembered under a name.
    pub fn recall(&self, name: &[u8]) -> Result<Option<Bytes>, ReadFailed> {
        let store = self.readable().ok_or(ReadFailed::Unreadable)?;
        let recalled = store.get_meta(name).map_err(|error| unread("what was remembered", &error))?;
        Ok(recalled.filter(|value| !value.is_empty()))
    }

    /// Whether a write of so many bytes may go into the next batch.
    pub fn takes(&mut self, bytes: u64, now: Instant) -> Result<(), WriteFailed> {
        let store = self.open_store()?;
        let unflushed = store.unflushed_bytes();
        if self.reserve.takes(bytes, unflushed, now) { Ok(()) } else { Err(WriteFailed::DiskFull) }
    }

    /// Whether it is worth trying to write at all, however full the disk is.
    pub fn open_store(&mut self) -> Result<&mut Box<dyn Store>, WriteFailed> {
        match &mut self.store {
            State::Open(store) => Ok(store),
            State::ReadOnly(..) | State::Closed(_) => Err(WriteFailed::Uncertain),
        }
    }

    /// Carries out a batch.
    pub fn commit(&mut self, mut batch: Batch, durability: Durability, now: Instant) -> Result<(), WriteFailed> {
        self.reserve.committed();
        // One that fails may have been carried out, so its number is not given again.
        if let Some(mark) = &mut self.mark {
            mark.commit += 1;
            mark.put(&mut batch);
        }
        let committed = self.open_store()?.commit(batch, durability);
        if committed.is_ok() && durability == Durability::Synced {
            self.synced = self.mark;
        }
        committed.map_err(|error| {
            self.failed(&error, now);
            WriteFailed::Uncertain
        })
    }

    /// Carries out the last batch, and syncs what was written without a sync.
    ///
    /// Returns the mark that the store has then, if all of that worked.
    pub fn close(&mut self, last: Batch) -> Option<Mark> {
        self.beside.close();
        let State::Open(store) = &mut self.store else { return None };
        if let Err(error) = store.commit(last, Durability::Synced) {
            error!("the store could not be synced at the end: {error}");
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
            "store_failed: this node stores no writes until its store is open again, which is tried in {:?}: {error}. Check the disk; if \
             this comes again and again with room on the disk, its files are damaged: replace the node",
            self.retry_after
        );
        self.retry_after = (self.retry_after * 2).min(RETRY_AFTER_MAX);
        self.store = match (std::mem::replace(&mut self.store, State::Closed(at)), error) {
            // The engine says so before it begins with a write.
            (State::Open(store), StoreError::Poisoned | StoreError::Stalled(_)) => State::ReadOnly(store, at),
            // Whatever was open is closed here.
            (open, _) => {
                self.beside.close();
                drop(open);
                State::Closed(at)
            }
        };
    }

    fn open_again(&mut self, now: Instant) {
        // One store at a time.
        self.beside.close();
        self.store = State::Closed(now);
        match (self.reopen)() {
            Ok(store) => {
                info!("the store is open again");
                self.reserve.check(store.unflushed_bytes(), now);
                self.beside.open(store.reader());
                self.store = State::Open(store);
                self.opened = now;
            }
            Err(error) => {
                let at = now + self.retry_after;
                error!("the store could not be opened again, which is tried in {:?}: {error}", self.retry_after);
                self.retry_after = (self.retry_after * 2).min(RETRY_AFTER_MAX);
                self.store = State::Closed(at);
            }
        }
    }
}

pub(super) fn unread(what: &str, error: &StoreError) -> ReadFailed {
    error!("{what} could not be read: {error}");
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
