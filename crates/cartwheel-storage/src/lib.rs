//! The storage of a shard: an ordered map of records, an ordered set of index entries by which some records are found, and a small map of metadata
//! that the node keeps about itself.
//!
//! A store has one owner, which groups the writes of many requests into one [`Batch`] and syncs once for all of them.
//!
//! | module | holds |
//! | --- | --- |
//! | `batch` | [`Batch`]: writes that are committed together |
//! | `fjall_store`, `journal` | [`FjallStore`]: the store on disk, and the repair of its journals after a failed sync |
//! | `memory` | [`MemoryStore`]: the store of tests |
//! | `error` | [`StoreError`] |

mod batch;
mod error;
mod fjall_store;
mod journal;
mod memory;

use bytes::Bytes;

pub use batch::{Batch, Write};
pub use error::StoreError;
pub use fjall_store::{FjallOptions, FjallStore};
pub use memory::MemoryStore;

/// The length of the longest key, in bytes. The shortest key has one byte.
pub const KEY_BYTES_MAX: usize = 65_535;

/// What a commit must survive once it has returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The end of this process, but not a power failure.
    Os,
    /// A power failure.
    Synced,
}

/// An iterator over keys and their records, in the order of the keys.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + 'a>;

/// An iterator over keys, in their order.
pub type Keys<'a> = Box<dyn Iterator<Item = Result<Bytes, StoreError>> + 'a>;

/// An iterator over index entries, in their order.
pub type IndexScan<'a> = Box<dyn Iterator<Item = Result<Bytes, StoreError>> + 'a>;

/// Reads a store's records on another thread than its owner's.
///
/// It keeps the store's files open, so it must be dropped before the store is opened again.
pub trait Reader: Send {
    /// As [`Store::get`]. It sees everything that was committed before the call.
    ///
    /// # Errors
    /// As for [`Store::get`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
}

/// Commits to a store on another thread than its owner's, which reads meanwhile and commits nothing itself.
///
/// It keeps the store's files open, so it must be dropped before the store is opened again.
pub trait Committer: Send {
    /// As [`Store::commit`].
    ///
    /// # Errors
    /// As for [`Store::commit`].
    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError>;
}

/// The store of a shard.
pub trait Store: Send {
    /// The record of `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the record differs from what was written, or if that cannot be known. Another error if the disk cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The size of the record of `key` in bytes, if there is one. It does not read records that are stored apart from their keys.
    ///
    /// # Errors
    /// As for [`Self::get`].
    fn size_of(&self, key: &[u8]) -> Result<Option<usize>, StoreError> {
        Ok(self.get(key)?.map(|record| record.len()))
    }

    /// The records from `start` up to and without `end`, or all from `start` on without `end`. The scan continues after a
    /// [`StoreError::DamagedRecord`].
    fn scan(&self, start: &[u8], end: Option<&[u8]>) -> Scan<'_>;

    /// The keys from `start` up to and without `end`. It does not read records that are stored apart from their keys, so a damaged record does
    /// not hide its key.
    fn keys(&self, start: &[u8], end: Option<&[u8]>) -> Keys<'_> {
        Box::new(self.scan(start, end).map(|entry| entry.map(|(key, _)| key)))
    }

    /// The index entries from `start` up to and without `end`.
    fn scan_index(&self, start: &[u8], end: &[u8]) -> IndexScan<'_>;

    /// The metadata under `name`, if there is any.
    ///
    /// # Errors
    /// If the disk cannot be read.
    fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// A reader for another thread, if the store supports that.
    fn reader(&self) -> Option<Box<dyn Reader>> {
        None
    }

    /// A committer for another thread, if the store supports that.
    fn committer(&self) -> Option<Box<dyn Committer>> {
        None
    }

    /// The size of the committed data that is not flushed yet, in bytes. Flushing needs that much disk space in addition to what the store uses.
    fn unflushed_bytes(&self) -> u64 {
        0
    }

    /// Whether a commit would wait now, because the engine is behind with earlier ones.
    fn is_behind(&self) -> bool {
        false
    }

    /// Commits `batch` as a whole: after a crash, all of it is there or nothing. Its writes take effect in the order in which they were added.
    ///
    /// # Errors
    /// If a key is empty or too long, in which case nothing was done. If the disk fails, the batch may have been committed or not, and further
    /// commits may fail until the store is opened again.
    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError>;
}
