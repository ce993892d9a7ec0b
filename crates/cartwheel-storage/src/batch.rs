use bytes::Bytes;

use crate::{KEY_BYTES_MAX, StoreError};

/// Writes that are carried out together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    writes: Vec<Write>,
}

/// One write of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// A record in place of whatever is under its key.
    Put(Bytes, Bytes),
    /// No record under this key.
    Remove(Bytes),
    /// Something to remember under a name.
    PutMeta(Bytes, Bytes),
    /// An entry of the index.
    AddIndex(Bytes),
    /// No such entry of the index.
    RemoveIndex(Bytes),
}

impl Batch {
    /// A batch that does nothing.
    pub const fn new() -> Self {
        Self { writes: Vec::new() }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many bytes of keys, names and values it writes.
    pub fn bytes(&self) -> u64 {
        let bytes = |write: &Write| match write {
            Write::Put(key, value) => key.len() + value.len(),
            Write::Remove(key) | Write::AddIndex(key) | Write::RemoveIndex(key) => key.len(),
            Write::PutMeta(name, value) => name.len() + value.len(),
        };
        self.writes.iter().map(|write| bytes(write) as u64).sum()
    }

    /// Stores `record` under `key`, in place of whatever is there.
    pub fn put(&mut self, key: Bytes, record: Bytes) {
        self.writes.push(Write::Put(key, record));
    }

    /// Removes what is under `key`, if anything is.
    pub fn remove(&mut self, key: Bytes) {
        self.writes.push(Write::Remove(key));
    }

    /// Remembers `value` under `name`, in place of whatever is remembered there.
    pub fn put_meta(&mut self, name: impl Into<Bytes>, value: Bytes) {
        self.writes.push(Write::PutMeta(name.into(), value));
    }

    /// Adds `entry` to the index.
    pub fn add_index(&mut self, entry: Bytes) {
        self.writes.push(Write::AddIndex(entry));
    }

    /// Takes `entry` out of the index, if it is there.
    pub fn remove_index(&mut self, entry: Bytes) {
        self.writes.push(Write::RemoveIndex(entry));
    }

    /// The writes, if the store can take all of them.
    pub(crate) fn checked(self) -> Result<Vec<Write>, StoreError> {
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
