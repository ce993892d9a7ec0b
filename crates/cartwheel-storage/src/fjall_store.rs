use std::cell::RefCell;
use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{
    AbstractTree as _, Database, DatabaseBuilder, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
};

use crate::journal;
use crate::{Batch, Committer, Durability, IndexScan, Keys, Reader, Scan, Store, StoreError, Write};

/// Records of at least this size are stored in files of their own, so that compaction moves only their keys.
///
/// With 512 bytes, a random read of a record of 1 kB takes half the CPU time that it takes without separation.
const SEPARATION_BYTES: u32 = 512;

/// A commit waits before it begins while this many memtables wait to be flushed, or this many runs to be compacted. The engine itself waits after a
/// commit, at one or two more of them, and without a limit: it would wait forever for a background thread that has failed.
const SEALED_MAX: usize = 3;
const RUNS_MAX: usize = 28;
const CHECK_EVERY: Duration = Duration::from_millis(2);

/// The resources that a [`FjallStore`] uses.
#[derive(Clone, Copy, Debug)]
pub struct FjallOptions {
    /// The size of the cache of blocks, in bytes.
    pub cache_bytes: u64,
    /// The size at which a memtable is flushed, in bytes. It is fixed when the store is made.
    pub memtable_bytes: u64,
    /// How long a commit waits at most for earlier ones to be flushed. After that it fails with [`StoreError::Stalled`].
    pub flush_within: Duration,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self { cache_bytes: 128 << 20, memtable_bytes: 64 << 20, flush_within: Duration::from_secs(15) }
    }
}

/// A store on disk: one fjall database in a directory of its own.
#[derive(Clone)]
pub struct FjallStore {
    records: Keyspace,
    meta: Keyspace,
    index: Keyspace,
    database: Database,
    flush_within: Duration,
}

impl fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallStore").field("dir", &self.records.path()).finish_non_exhaustive()
    }
}

impl FjallStore {
    /// Opens the store in `dir`, or makes one there.
    ///
    /// # Errors
    /// If another process has it open, the files are not a store that this build understands, or the disk fails.
    pub fn open(dir: &Path, options: FjallOptions) -> Result<Self, StoreError> {
        Self::open_with(dir, options, Database::builder(dir))
    }

    fn open_with(dir: &Path, options: FjallOptions, builder: DatabaseBuilder<Database>) -> Result<Self, StoreError> {
        let failed = |source| match source {
            fjall::Error::Locked => StoreError::InUse(dir.to_path_buf()),
            source => StoreError::Open { dir: dir.to_path_buf(), source },
        };
        let database = builder.cache_size(options.cache_bytes).open().map_err(failed)?;
        let separation = KvSeparationOptions::default().separation_threshold(SEPARATION_BYTES);
        let keyspace = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
        let records =
            database.keyspace("records", || keyspace().with_kv_separation(Some(separation))).map_err(failed)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default).map_err(failed)?;
        let index = database.keyspace("index", KeyspaceCreateOptions::default).map_err(failed)?;
        // A killed process may have left writes that it never synced. From here on the recovered writes can be read, so they must not be lost
        // any more.
        database.persist(PersistMode::SyncAll).map_err(failed)?;
        Ok(Self { records, meta, index, database, flush_within: options.flush_within })
    }

    /// Waits while the engine is behind with its flushes, up to the time limit.
    fn wait_for_flushes(&self) -> Result<(), StoreError> {
        let begun = Instant::now();
        while self.is_behind() {
            if begun.elapsed() > self.flush_within {
                return Err(StoreError::Stalled(self.flush_within));
            }
            std::thread::sleep(CHECK_EVERY);
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        let behind =
            |of: &Keyspace| of.tree.sealed_memtable_count() >= SEALED_MAX || of.tree.l0_run_count() >= RUNS_MAX;
        [&self.records, &self.meta, &self.index].into_iter().any(behind)
    }

    fn commit_shared(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        // Without a mode, the batch would stay in this process's memory until the next commit.
        let mode = match durability {
            Durability::Os => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        let writes = batch.checked()?;
        if writes.is_empty() {
            return if durability == Durability::Synced {
                self.database.persist(mode).map_err(StoreError::from)
            } else {
                Ok(())
            };
        }
        self.wait_for_flushes()?;
        let mut journaled = self.database.batch().durability(Some(mode));
        for write in writes {
            match write {
                Write::Put(key, record) => journaled.insert(&self.records, key, record),
                Write::Remove(key) => journaled.remove(&self.records, key),
                Write::PutMeta(name, value) => journaled.insert(&self.meta, name, value),
                Write::AddIndex(entry) => journaled.insert(&self.index, entry, []),
                Write::RemoveIndex(entry) => journaled.remove(&self.index, entry),
            }
        }
        journaled.commit().map_err(StoreError::from)
    }

    /// Opens the store in `dir` again after a commit has failed in this process. The failed store must have been dropped.
    ///
    /// # Errors
    /// As for [`Self::open`]. The call can be repeated later.
    pub fn reopen(dir: &Path, options: FjallOptions) -> Result<Self, StoreError> {
        journal::write_again(dir).map_err(|source| StoreError::Journal { dir: dir.to_path_buf(), source })?;
        Self::open(dir, options)
    }
}

/// Bounds for the engine.
type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The range from `start` up to and without `end`; `None` if it is empty.
fn range<'a>(start: &'a [u8], end: Option<&'a [u8]>) -> Option<Range<'a>> {
    let is_empty = end.is_some_and(|end| end <= start);
    (!is_empty).then(|| (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded)))
}

/// A [`Reader`] of a [`FjallStore`].
struct FjallReader(Keyspace);

impl Reader for FjallReader {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key)?.map(Bytes::from))
    }
}

/// A [`Committer`] of a [`FjallStore`], which shares its database.
struct FjallCommitter(FjallStore);

impl Committer for FjallCommitter {
    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.0.commit_shared(batch, durability)
    }
}

impl Store for FjallStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.records.get(key)?.map(Bytes::from))
    }

    fn size_of(&self, key: &[u8]) -> Result<Option<usize>, StoreError> {
        Ok(self.records.size_of(key)?.map(|bytes| bytes as usize))
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>) -> Scan<'_> {
        let Some(range) = range(start, end) else { return Box::new(std::iter::empty()) };
        Box::new(self.records.range::<&[u8], _>(range).map(|guard| {
            let seen = RefCell::new(None);
            let entry = guard.into_inner_if(|key| {
                // The record may be in another file than the key, and only that file may be damaged.
                seen.replace(Some(Bytes::copy_from_slice(key)));
                true
            });
            match entry {
                Ok((key, record)) => Ok((key.into(), record.map(Bytes::from).unwrap_or_default())),
                Err(error) => Err(StoreError::of_entry(seen.take(), error)),
            }
        }))
    }

    fn keys(&self, start: &[u8], end: Option<&[u8]>) -> Keys<'_> {
        let Some(range) = range(start, end) else { return Box::new(std::iter::empty()) };
        Box::new(self.records.range::<&[u8], _>(range).map(|guard| Ok(guard.key()?.into())))
    }

    fn scan_index(&self, start: &[u8], end: &[u8]) -> IndexScan<'_> {
        if end <= start {
            return Box::new(std::iter::empty());
        }
        Box::new(self.index.range(start..end).map(|guard| Ok(guard.key()?.into())))
    }

    fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.meta.get(name)?.map(Bytes::from))
    }

    fn reader(&self) -> Option<Box<dyn Reader>> {
        Some(Box::new(FjallReader(self.records.clone())))
    }

    fn unflushed_bytes(&self) -> u64 {
        self.database.write_buffer_size()
    }

    fn committer(&self) -> Option<Box<dyn Committer>> {
        Some(Box::new(FjallCommitter(self.clone())))
    }

    fn is_behind(&self) -> bool {
        Self::is_behind(self)
    }

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.commit_shared(batch, durability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_does_not_wait_forever_for_an_engine_that_flushes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let options = FjallOptions { flush_within: Duration::from_millis(50), ..FjallOptions::default() };
        // Without worker threads the engine does no background work.
        let mut store =
            FjallStore::open_with(dir.path(), options, Database::builder(dir.path()).worker_threads_unchecked(0))
                .unwrap();
        let put = |key: usize| {
            let mut batch = Batch::new();
            batch.put(Bytes::from(vec![b'k', key as u8]), Bytes::from_static(b"milk"));
            batch
        };
        let mut stored = 0;
        let refused = loop {
            match store.commit(put(stored), Durability::Synced) {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
            store.records.rotate_memtable().unwrap();
        };
        assert!(matches!(refused, StoreError::Stalled(_)) && stored == SEALED_MAX, "{refused} after {stored}");
        assert_eq!(store.get(b"k\x00").unwrap().as_deref(), Some(&b"milk"[..]), "reads go on");
        drop(store);
        let mut store = FjallStore::reopen(dir.path(), options).unwrap();
        assert!((0..stored).all(|key| store.get(&[b'k', key as u8]).unwrap().is_some()));
        assert!(store.get(&[b'k', stored as u8]).unwrap().is_none(), "the failed commit was not begun");
        store.commit(put(stored), Durability::Synced).unwrap();
    }
}
