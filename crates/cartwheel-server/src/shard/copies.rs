//! Pages of a store's records as they are on the disk, for backups.

use bytes::Bytes;
use cartwheel_storage::{Store, StoreError};

/// The most records in one page.
const RECORDS_MAX: usize = 512;
/// The bytes of records after which a page ends; the last record may exceed it. This takes a millisecond or two of the shard's time.
const BYTES_MAX: usize = 1 << 20;

/// The range of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopiesRequest {
    /// The first storage key.
    pub from: Bytes,
    /// The storage key before which the range ends; none for no end.
    pub end: Option<Bytes>,
}

/// The records of a range, in order of their storage keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CopiesPage {
    /// Storage keys and encoded records.
    pub records: Vec<(Bytes, Bytes)>,
    /// The storage key at which the next page begins; none at the end of the range.
    pub next: Option<Bytes>,
}

/// The requested page.
///
/// # Errors
/// If a record, or the list of keys, cannot be read: a backup must not pass over it.
pub(super) fn page(store: &dyn Store, request: &CopiesRequest) -> Result<CopiesPage, StoreError> {
    let mut page = CopiesPage::default();
    let mut bytes = 0;
    for key in store.keys(&request.from, request.end.as_deref()) {
        let key = key?;
        if page.records.len() >= RECORDS_MAX || bytes >= BYTES_MAX {
            page.next = Some(key);
            break;
        }
        // It may have been removed since the listing began.
        if let Some(record) = store.get(&key)? {
            bytes += record.len();
            page.records.push((key, record));
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use cartwheel_storage::{Batch, Durability, MemoryStore};

    use super::*;

    fn store_of(count: u32, bytes: usize) -> MemoryStore {
        let mut batch = Batch::new();
        for number in 0..count {
            batch.put(number.to_be_bytes().to_vec().into(), vec![7; bytes].into());
        }
        let mut store = MemoryStore::default();
        store.commit(batch, Durability::Synced).unwrap();
        store
    }

    #[test]
    fn pages_are_bounded_and_complete() {
        for (count, bytes, longest) in [(0, 1, 0), (20, 1, 20), (1_200, 1, 512), (20, 200_000, 6)] {
            let store = store_of(count, bytes);
            let mut request = CopiesRequest { from: Bytes::from_static(&[0]), end: None };
            let (mut keys, mut lens) = (Vec::new(), Vec::new());
            loop {
                let page = page(&store, &request).unwrap();
                lens.push(page.records.len());
                keys.extend(page.records.into_iter().map(|(key, _)| key));
                let Some(next) = page.next else { break };
                request.from = next;
            }
            assert!(keys.is_sorted());
            assert_eq!((keys.len(), lens.into_iter().max()), (count as usize, Some(longest)));
        }
        let request = CopiesRequest { from: Bytes::from_static(&[0]), end: Some(3_u32.to_be_bytes().to_vec().into()) };
        assert_eq!(page(&store_of(9, 1), &request).unwrap().records.len(), 3);
    }
}
