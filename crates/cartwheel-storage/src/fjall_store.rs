use std::cell::RefCell;
use std::fmt;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use crate::batch::Write;
use crate::journal;
use crate::{Batch, Durability, IndexScan, Keys, Reader, Scan, Store, StoreError};

/// Records from this many bytes on live in files of their own, so that compaction moves their keys only.
///
/// At 512 bytes a random read of a 1 kB record costs half the CPU time that it costs without.
const SEPARATION_BYTES: u32 = 512;

/// How a [`FjallStore`] uses the machine.
#[derive(Clone, Copy, Debug)]
pub struct FjallOptions {
    /// Memory for blocks that were read, in bytes.
    pub cache_bytes: u64,
    /// How much is written to memory before it is written out in order, in bytes. It is settled when the store is made.
    pub memtable_bytes: u64,
}

impl Default for FjallOptions {
    fn default() -> Self {
        Self { cache_bytes: 128 << 20, memtable_bytes: 64 << 20 }
    }
}

/// A store on disk: one fjall database in a directory of its own.
pub struct FjallStore {
    records: Keyspace,
    meta: Keyspace,
    index: Keyspace,
    database: Database,
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
    /// If another process has it open, or the files are not a store that this build understands, or the disk fails.
    pub fn open(dir: &Path, options: FjallOptions) -> Result<Self, StoreError> {
        let failed = |source| match source {
            fjall::Error::Locked => StoreError::InUse(dir.to_path_buf()),
            source => StoreError::Open { dir: dir.to_path_buf(), source },
        };
        let database = Database::builder(dir).cache_size(options.cache_bytes).open().map_err(failed)?;
        let separation = KvSeparationOptions::default().separation_threshold(SEPARATION_BYTES);
        let keyspace = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
        let records =
            database.keyspace("records", || keyspace().with_kv_separation(Some(separation))).map_err(failed)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default).map_err(failed)?;
        let index = database.keyspace("index", KeyspaceCreateOptions::default).map_err(failed)?;
        // A process that was killed may have left writes that it never synced. What the recovery found is read from here on, so
        // it must not be lost any more.
        database.persist(PersistMode::SyncAll).map_err(failed)?;
        Ok(Self { records, meta, index, database })
    }

    /// Opens the store in `dir` again after a commit failed in this process, which has dropped it.
    ///
    /// # Errors
    /// As for [`Self::open`]; the store can be tried again later.
    pub fn reopen(dir: &Path, options: FjallOptions) -> Result<Self, StoreError> {
        journal::write_again(dir).map_err(|source| StoreError::Journal { dir: dir.to_path_buf(), source })?;
        Self::open(dir, options)
    }
}

/// Bounds that the engine takes.
type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// From `start` up to `end`; none if nothing lies between them.
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
                // The record may lie in another file than the key, and be damaged alone.
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

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        // Without a mode of its own, a batch would stay in this process's memory until the next one.
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
}
