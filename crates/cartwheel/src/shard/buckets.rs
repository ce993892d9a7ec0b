//! Which buckets a shard holds something in: a mark in the store for each, written with the first record.

use std::collections::HashSet;

use bytes::Bytes;
use cartwheel_core::key::Key;
use cartwheel_storage::{Batch, Store, StoreError};

const MARK: &[u8] = b"bucket/";
/// How many buckets are remembered as marked. Beyond that the memory begins anew, and marks are written once more.
const REMEMBERED_MAX: usize = 16_384;

/// The buckets that are known to have their mark.
#[derive(Debug, Default)]
pub(super) struct MarkedBuckets(HashSet<Bytes>);

impl MarkedBuckets {
    /// Adds the mark of a record's bucket to the batch that writes the record, unless it is there already.
    pub(super) fn mark(&mut self, storage_key: &Bytes, batch: &mut Batch) {
        let Some(bucket) = Key::bucket_of_storage_key(storage_key) else { return };
        if self.0.contains(bucket) {
            return;
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        batch.put_meta(name(bucket), Bytes::new());
        self.0.insert(Bytes::copy_from_slice(bucket));
    }

    /// A commit has failed: what is marked is uncertain.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// Whether `store` holds, or ever held, anything in `bucket`.
pub(super) fn holds(store: &dyn Store, bucket: &[u8]) -> Result<bool, StoreError> {
    Ok(store.get_meta(&name(bucket))?.is_some())
}

fn name(bucket: &[u8]) -> Bytes {
    [MARK, bucket].concat().into()
}

#[cfg(test)]
mod tests {
    use cartwheel_storage::{Durability, MemoryStore};

    use super::*;

    #[test]
    fn the_first_record_of_a_bucket_marks_it() {
        let mut store = MemoryStore::default();
        let mut marked = MarkedBuckets::default();
        let key =
            |bucket: &'static str, name: &'static str| Key::new(bucket.into(), name.into()).unwrap().storage_key();
        let mut batch = Batch::new();
        marked.mark(&key("carts", "alice"), &mut batch);
        assert!(!batch.is_empty());
        store.commit(batch, Durability::Synced).unwrap();
        assert!(holds(&store, b"carts").unwrap());
        assert!(!holds(&store, b"cart").unwrap());
        let mut batch = Batch::new();
        marked.mark(&key("carts", "bob"), &mut batch);
        assert!(batch.is_empty(), "once is enough");
        marked.forget();
        marked.mark(&key("carts", "bob"), &mut batch);
        assert!(!batch.is_empty(), "but not if it may have failed");
    }
}
