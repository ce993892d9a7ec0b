//! Where a shard keeps its records: one ordered map for them, one ordered set by which some of them are found, one small map for
//! what the node must remember about itself.
//!
//! A store has one owner, which groups the writes of many requests into one [`Batch`] and pays for one sync.

mod batch;
mod error;
mod fjall_store;
mod journal;
mod memory;

use bytes::Bytes;

pub use batch::Batch;
pub use error::StoreError;
pub use fjall_store::{FjallOptions, FjallStore};
pub use memory::MemoryStore;

/// The longest key that a store takes, in bytes. The shortest has one byte.
pub const KEY_BYTES_MAX: usize = 65_535;

/// What a commit must survive before it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The end of this process, but not a power failure.
    Os,
    /// A power failure.
    Synced,
}

/// Records in the order of their keys.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + 'a>;

/// Keys in their order.
pub type Keys<'a> = Box<dyn Iterator<Item = Result<Bytes, StoreError>> + 'a>;

/// Entries of the index in their order.
pub type IndexScan<'a> = Box<dyn Iterator<Item = Result<Bytes, StoreError>> + 'a>;

/// Reads what a store holds, on another thread than its owner's.
///
/// It keeps the store's files open: it must have been dropped before the store is opened again.
pub trait Reader: Send {
    /// As [`Store::get`]. What was committed before it is called is seen.
    ///
    /// # Errors
    /// As for [`Store::get`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
}

/// A shard's store.
pub trait Store: Send {
    /// The record under `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if what is there is not what was written, or there is no telling whether anything was; otherwise the
    /// medium cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// How many bytes the record under `key` has, if there is one. Where records lie apart from their keys it is not read.
    ///
    /// # Errors
    /// As for [`Self::get`].
    fn size_of(&self, key: &[u8]) -> Result<Option<usize>, StoreError> {
        Ok(self.get(key)?.map(|record| record.len()))
    }

    /// The records from `start` up to `end`, which is left out; all that follow `start` if there is no end. Behind
    /// [`StoreError::DamagedRecord`] it goes on.
    fn scan(&self, start: &[u8], end: Option<&[u8]>) -> Scan<'_>;

    /// The keys from `start` up to `end`, as [`Self::scan`]. Where records lie apart from their keys they are not read, so a damaged
    /// one does not hide its key.
    fn keys(&self, start: &[u8], end: Option<&[u8]>) -> Keys<'_> {
        Box::new(self.scan(start, end).map(|entry| entry.map(|(key, _)| key)))
    }

    /// The entries of the index from `start` up to `end`, which is left out.
    fn scan_index(&self, start: &[u8], end: &[u8]) -> IndexScan<'_>;

    /// What is remembered under `name`, if anything is.
    ///
    /// # Errors
    /// If the medium cannot be read.
    fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// A way to read it on another thread, if it has one.
    fn reader(&self) -> Option<Box<dyn Reader>> {
        None
    }

    /// How much the store holds in memory and has yet to write in order, in bytes. So much room it will need, beside what it holds.
    fn unflushed_bytes(&self) -> u64 {
        0
    }

    /// Carries out all of `batch` or, after a crash, nothing of it. Its writes take effect in the order they were added.
    ///
    /// # Errors
    /// If a key is empty or too long (nothing was done), or the medium failed (it may have been done or not, and further
    /// commits may fail until the store is opened again).
    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError>;
}
