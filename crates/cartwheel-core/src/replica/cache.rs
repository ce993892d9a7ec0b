//! Records of the store, decoded, so that a key that is used again needs no disk.
//!
//! An entry is what the store holds durably. While a record is written, its key has a turn, which looks at no entry; the entry is replaced when
//! the write has ended. After a failed write nothing in memory is trusted, so all entries go. What depends on the time, the epoch or the
//! configuration is worked out at each use.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::record::Record;
use crate::value::key::Key;

/// What an entry takes beside its record, in bytes.
const ENTRY_BYTES: usize = 512;
/// The size of a record by which the number of entries is estimated.
const RECORD_BYTES_EXPECTED: usize = 1024;
/// A record of more than this share of the whole is not kept.
const LARGEST_SHARE: usize = 64;

/// The cache of one replica.
pub(super) struct RecordCache {
    bytes_max: usize,
    entries: Cache<Key, Entry, Sizes, Seed>,
    /// The bucket of the key kept last. Most keys after it have the same one, which they share.
    bucket: Bytes,
}

/// A record as it is stored.
#[derive(Clone)]
struct Entry {
    record: Record,
    /// Its size in the store.
    bytes: usize,
}

/// What entries count for.
#[derive(Clone)]
struct Sizes;

impl Weighter<Key, Entry> for Sizes {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        (entry.bytes + ENTRY_BYTES) as u64
    }
}

/// Hashes keys with a number that clients do not know, so that they cannot choose keys with one hash. Which entries are evicted depends on it, so
/// in the simulator it is the same in each run of a seed.
#[derive(Clone)]
struct Seed(u64);

impl BuildHasher for Seed {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(self.0)
    }
}

struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl RecordCache {
    /// A cache of at most `bytes_max` bytes; with 0 it keeps nothing.
    pub(super) fn new(bytes_max: usize, seed: u64) -> Self {
        let expected = bytes_max / (ENTRY_BYTES + RECORD_BYTES_EXPECTED);
        Self {
            bytes_max,
            entries: Cache::with(expected, bytes_max as u64, Sizes, Seed(seed), DefaultLifecycle::default()),
            bucket: Bytes::new(),
        }
    }

    /// The record of `key` and its size in the store, if it is here. The state is shared with the entry, so its digest is worked out once for all
    /// uses.
    pub(super) fn get(&mut self, key: &Key) -> Option<(Record, usize)> {
        let Entry { record, bytes } = self.entries.get(key)?;
        Some((record.clone(), *bytes))
    }

    /// The record of `key`, if it is here.
    pub(super) fn peek(&self, key: &Key) -> Option<&Record> {
        self.entries.get(key).map(|entry| &entry.record)
    }

    /// Keeps what the store holds under `key`: `record`, with this size; 0 if it holds nothing.
    pub(super) fn insert(&mut self, key: &Key, record: &Record, bytes: usize) {
        if bytes == 0 || bytes.saturating_mul(LARGEST_SHARE) > self.bytes_max {
            return self.remove(key);
        }
        // The record and the key may be parts of larger buffers, which must not live as long.
        let record = Record { header: record.header.clone(), state: record.state.detached() };
        if self.bucket != key.bucket() {
            self.bucket = Bytes::copy_from_slice(key.bucket());
        }
        self.entries.insert(key.detached(self.bucket.clone()), Entry { record, bytes });
    }

    /// Removes the record of `key`.
    pub(super) fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

impl fmt::Debug for RecordCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordCache").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::value::epoch::Epoch;

    fn key(number: u8) -> Key {
        Key::new(Bytes::from_static(b"b"), Bytes::copy_from_slice(&[number])).unwrap()
    }

    fn record(number: u64) -> Record {
        let mut record = Record::default();
        record.header.changed = Epoch(number);
        record
    }

    #[test]
    fn the_message_in_which_a_key_came_does_not_stay() {
        let mut cache = RecordCache::new(1 << 20, 1);
        let message = Bytes::from(vec![b'm'; 1 << 16]);
        let of_message = |from: usize| Key::new(message.slice(from..from + 2), message.slice(10..20)).unwrap();
        cache.insert(&of_message(0), &record(1), 100);
        cache.insert(&of_message(4), &record(2), 100);
        assert_eq!(cache.get(&of_message(0)), Some((record(2), 100)));
        assert!(message.is_unique());
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = RecordCache::new(100 * (ENTRY_BYTES + 100), 1);
        for number in 0..255 {
            cache.insert(&key(number), &record(number.into()), 100);
            assert_eq!(cache.get(&key(0)), Some((record(0), 100)), "after {number}");
        }
        assert_eq!(cache.get(&key(254)), Some((record(254), 100)));
        assert_eq!(cache.get(&key(100)), None);
    }

    #[test]
    fn large_and_absent_records_are_not_kept() {
        let mut cache = RecordCache::new(64_000, 1);
        cache.insert(&key(1), &record(1), 100);
        cache.insert(&key(1), &record(2), 1_001);
        assert_eq!(cache.get(&key(1)), None, "nor what they replace");
        cache.insert(&key(2), &record(1), 1_000);
        cache.insert(&key(2), &Record::default(), 0);
        assert_eq!(cache.get(&key(2)), None);
        let mut none = RecordCache::new(0, 1);
        none.insert(&key(1), &record(1), 1);
        assert_eq!(none.get(&key(1)), None);
    }

    proptest! {
        /// It never returns anything but what was inserted last, and is never larger than it may be.
        #[test]
        fn it_holds_what_was_inserted_last(
            acts in prop::collection::vec((0_u8..12, 0_u64..50, 0_usize..300), 0..200), bytes_max in 0_usize..20_000,
            seed in any::<u64>(),
        ) {
            let (mut cache, mut model) = (RecordCache::new(bytes_max, seed), BTreeMap::new());
            for (number, value, bytes) in acts {
                match value {
                    0 => { cache.clear(); model.clear(); }
                    1..5 => { cache.remove(&key(number)); model.remove(&number); }
                    5..25 => {
                        if let Some(found) = cache.get(&key(number)) {
                            prop_assert_eq!(Some(&found), model.get(&number));
                        }
                    }
                    _ => { cache.insert(&key(number), &record(value), bytes); model.insert(number, (record(value), bytes)); }
                }
                prop_assert!(cache.entries.weight() <= bytes_max as u64);
            }
        }
    }
}
