use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use crate::{Batch, Durability, IndexScan, Scan, Store, StoreError, Write};

/// A store in memory, for tests. Its content ends with the process, and durability makes no difference.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<Bytes, Bytes>,
    meta: BTreeMap<Bytes, Bytes>,
    index: BTreeSet<Bytes>,
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.records.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>) -> Scan<'_> {
        if end.is_some_and(|end| end <= start) {
            return Box::new(std::iter::empty());
        }
        let range = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        Box::new(self.records.range::<[u8], _>(range).map(|(key, record)| Ok((key.clone(), record.clone()))))
    }

    fn scan_index(&self, start: &[u8], end: &[u8]) -> IndexScan<'_> {
        if end <= start {
            return Box::new(std::iter::empty());
        }
        let range = (Bound::Included(start), Bound::Excluded(end));
        Box::new(self.index.range::<[u8], _>(range).cloned().map(Ok))
    }

    fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.meta.get(name).cloned())
    }

    fn commit(&mut self, batch: Batch, _durability: Durability) -> Result<(), StoreError> {
        for write in batch.checked()? {
            match write {
                Write::Put(key, record) => {
                    self.records.insert(key, record);
                }
                Write::Remove(key) => {
                    self.records.remove(&key);
                }
                Write::PutMeta(name, value) => {
                    self.meta.insert(name, value);
                }
                Write::AddIndex(entry) => {
                    self.index.insert(entry);
                }
                Write::RemoveIndex(entry) => {
                    self.index.remove(&entry);
                }
            }
        }
        Ok(())
    }
}
