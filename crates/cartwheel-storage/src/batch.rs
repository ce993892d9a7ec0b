use bytes::Bytes;

use crate::{KEY_BYTES_MAX, StoreError};

/// Writes that are committed together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    writes: Vec<Write>,
}

/// A write of a [`Batch`].
#[derive(Clone, Debug)]
pub enum Write {
    /// Stores a record under a key, replacing the present one.
    Put(Bytes, Bytes),
    /// Removes the record of a key.
    Remove(Bytes),
    /// Stores metadata under a name.
    PutMeta(Bytes, Bytes),
    /// Adds an entry to the index.
    AddIndex(Bytes),
    /// Removes an entry from the index.
    RemoveIndex(Bytes),
}

impl Batch {
    /// An empty batch.
    pub const fn new() -> Self {
        Self { writes: Vec::new() }
    }

    /// Whether it has no writes.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The size of the keys, names and values that it writes, in bytes.
    pub fn bytes(&self) -> u64 {
        let bytes = |write: &Write| match write {
            Write::Put(key, value) => key.len() + value.len(),
            Write::Remove(key) | Write::AddIndex(key) | Write::RemoveIndex(key) => key.len(),
            Write::PutMeta(name, value) => name.len() + value.len(),
        };
        self.writes.iter().map(|write| bytes(write) as u64).sum()
    }

    /// Stores `record` under `key`, replacing the present one.
    pub fn put(&mut self, key: Bytes, record: Bytes) {
        self.writes.push(Write::Put(key, record));
    }

    /// Removes the record of `key`, if there is one.
    pub fn remove(&mut self, key: Bytes) {
        self.writes.push(Write::Remove(key));
    }

    /// Stores `value` as metadata under `name`, replacing the present one.
    pub fn put_meta(&mut self, name: impl Into<Bytes>, value: Bytes) {
        self.writes.push(Write::PutMeta(name.into(), value));
    }

    /// Adds `entry` to the index.
    pub fn add_index(&mut self, entry: Bytes) {
        self.writes.push(Write::AddIndex(entry));
    }

    /// Removes `entry` from the index, if it is there.
    pub fn remove_index(&mut self, entry: Bytes) {
        self.writes.push(Write::RemoveIndex(entry));
    }

    /// The writes in their order, for a store that commits them.
    ///
    /// # Errors
    /// If a key is empty or too long.
    pub fn checked(self) -> Result<Vec<Write>, StoreError> {
        for write in &self.writes {
            let len = match write {
                Write::Put(key, _) | Write::Remove(key) | Write::AddIndex(key) | Write::RemoveIndex(key) => key.len(),
                Write::PutMeta(name, _) => name.len(),
            };
            if len == 0 || len > KEY_BYTES_MAX {
                return Err(StoreError::KeyLength(len));
            }
        }
        Ok(self.writes)
    }
}
