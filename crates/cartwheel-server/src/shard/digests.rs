//! Pages of digests of a store's records, read from the disk whatever else the node knows.

use bytes::Bytes;
use cartwheel_core::store::record::{Record, RecordError};
use cartwheel_core::value::digest::ContentDigest;
use cartwheel_core::value::key::Key;
use cartwheel_storage::{Store, StoreError};
use tracing::warn;

/// The most records in one page.
pub const PAGE_RECORDS_MAX: usize = 256;
/// The bytes of records after which a page ends; the last record may exceed it. This takes a millisecond or two of the shard's time.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The range and size of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DigestsRequest {
    /// The first storage key.
    pub from: Bytes,
    /// The storage key before which the range ends; none for no end.
    pub end: Option<Bytes>,
    /// The most records, at most [`PAGE_RECORDS_MAX`].
    pub limit: usize,
}

/// The records of a range, in order of their storage keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DigestPage {
    /// The records.
    pub records: Vec<HeldRecord>,
    /// What follows the page.
    pub rest: Rest,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldRecord {
    /// Its storage key.
    pub storage_key: Bytes,
    /// The record's contents.
    pub held: HeldContent,
    /// The record's size; 0 if it cannot be read.
    pub bytes: usize,
}

/// The contents of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldContent {
    /// The digest of the contents.
    Content(ContentDigest),
    /// The bytes differ from what was written.
    Damaged,
    /// The format is unknown to this build, or the disk failed to read it.
    Unreadable,
}

/// What follows a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// More records, from this storage key on.
    From(Bytes),
    /// Unknown: not even the keys can be read.
    Unreadable,
}

/// The requested page.
pub(super) fn page(store: &dyn Store, request: &DigestsRequest) -> DigestPage {
    let mut page = DigestPage { records: Vec::new(), rest: Rest::Nothing };
    let mut bytes = 0;
    for key in store.keys(&request.from, request.end.as_deref()) {
        let key = match key {
            Ok(key) => key,
            Err(error) => {
                warn!(%error, "cannot list the keys of a partition");
                page.rest = Rest::Unreadable;
                return page;
            }
        };
        if page.records.len() >= request.limit.clamp(1, PAGE_RECORDS_MAX) || bytes >= PAGE_BYTES_MAX {
            page.rest = Rest::From(key);
            return page;
        }
        match store.get(&key) {
            // It was removed since the listing began.
            Ok(None) => continue,
            Ok(Some(record)) => {
                bytes += record.len();
                let held = held(&key, &record);
                page.records.push(HeldRecord { storage_key: key, held, bytes: record.len() });
            }
            Err(StoreError::Damaged(_)) => {
                page.records.push(HeldRecord { storage_key: key, held: HeldContent::Damaged, bytes: 0 });
            }
            Err(error) => {
                warn!(%error, "cannot read a record");
                page.records.push(HeldRecord { storage_key: key, held: HeldContent::Unreadable, bytes: 0 });
            }
        }
    }
    page
}

fn held(storage_key: &Bytes, record: &Bytes) -> HeldContent {
    if Key::from_storage_key(storage_key).is_err() {
        return HeldContent::Damaged;
    }
    match Record::decode(record, storage_key) {
        Ok(record) => HeldContent::Content(ContentDigest::of(storage_key, &record.state)),
        Err(RecordError::Damaged) => HeldContent::Damaged,
        Err(RecordError::Version(_)) => HeldContent::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use cartwheel_core::store::record::LocalHeader;
    use cartwheel_core::value::clock::Clock;
    use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
    use cartwheel_core::value::hlc::Hlc;
    use cartwheel_core::value::state::{Content, Epoch, Notes, Sibling, State};
    use cartwheel_core::value::write_id::WriteId;
    use cartwheel_storage::{Batch, Durability, MemoryStore};

    use super::*;

    fn key(number: u32) -> Key {
        Key::new("b".into(), number.to_be_bytes().to_vec().into()).unwrap()
    }

    fn record(storage_key: &[u8], bytes: usize) -> Bytes {
        let dot =
            Dot { actor: Actor { node: NodeId::new(1), incarnation: Incarnation(1), since: Since(1) }, counter: 1 };
        let sibling = Sibling {
            dot,
            content: Content::typed(vec![7; bytes], "text/plain"),
            hlc: Hlc::from_bits(1),
            epoch: Epoch(1),
            write_id: WriteId::from_bytes([1; 16]),
            expires: None,
        };
        let state = State::from_parts(Clock::new(), [sibling], Notes::new());
        Record { header: LocalHeader::default(), state }.encode(storage_key)
    }

    fn store_of(count: u32, bytes: usize) -> MemoryStore {
        let mut batch = Batch::new();
        for storage_key in (0..count).map(|number| key(number).storage_key()) {
            batch.put(storage_key.clone(), record(&storage_key, bytes));
        }
        let mut store = MemoryStore::default();
        store.commit(batch, Durability::Synced).unwrap();
        store
    }

    fn pages(store: &dyn Store, limit: usize) -> Vec<DigestPage> {
        let mut request = DigestsRequest { from: Bytes::from_static(&[0]), end: None, limit };
        let mut pages = Vec::new();
        loop {
            let page = page(store, &request);
            let rest = page.rest.clone();
            pages.push(page);
            let Rest::From(from) = rest else { return pages };
            request.from = from;
        }
    }

    #[test]
    fn pages_are_bounded_and_complete() {
        for (count, bytes, limit, longest) in [(0, 1, 9, 0), (20, 1, 9, 9), (600, 1, 9_999, 256), (20, 200_000, 256, 6)]
        {
            let store = store_of(count, bytes);
            let pages = pages(&store, limit);
            let lens: Vec<usize> = pages.iter().map(|page| page.records.len()).collect();
            assert_eq!((lens.iter().max().copied(), lens.iter().sum::<usize>()), (Some(longest), count as usize));
            let keys: Vec<_> =
                pages.iter().flat_map(|page| page.records.iter().map(|record| record.storage_key.clone())).collect();
            assert!(keys.is_sorted());
            assert_eq!(pages.last().unwrap().rest, Rest::Nothing);
        }
    }

    #[test]
    fn a_damaged_record_is_reported_and_the_page_goes_on() {
        let mut store = store_of(3, 10);
        let (one, strange) = (key(1).storage_key(), Bytes::from_static(b"no storage key"));
        let mut spoilt = store.get(&one).unwrap().unwrap().to_vec();
        *spoilt.last_mut().unwrap() ^= 1;
        let mut batch = Batch::new();
        batch.put(one.clone(), spoilt.into());
        batch.put(strange.clone(), Bytes::from_static(b"?"));
        store.commit(batch, Durability::Synced).unwrap();
        let all = pages(&store, 256).remove(0).records;
        assert_eq!(all.len(), 4);
        for HeldRecord { storage_key, held, .. } in all {
            let is_damaged = storage_key == one || storage_key == strange;
            assert_eq!(held == HeldContent::Damaged, is_damaged, "{storage_key:?}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_record() {
        let store = store_of(1, 10);
        let storage_key = key(0).storage_key();
        let record = record(&storage_key, 10);
        let state = Record::decode(&record, &storage_key).unwrap().state;
        let found = pages(&store, 1).remove(0).records;
        let held = HeldContent::Content(ContentDigest::of(&storage_key, &state));
        assert_eq!(found, [HeldRecord { storage_key, held, bytes: record.len() }]);
    }
}
