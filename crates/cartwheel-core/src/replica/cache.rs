//! Records of the store, decoded, so that a key that is used again needs no disk.
//!
//! An entry is what the store holds durably: it is removed when a write of its key begins, and comes back when the write has ended. After a failed
//! write nothing in memory is trusted, so all entries go. What depends on the time, the epoch or the configuration is worked out at each use.
//!
//! Entries are in two generations. A used entry moves to the young one; when the young one has half of the bytes, it becomes the old one, and what
//! was old goes. So each use costs little, and what is used more often than that stays.

use std::collections::BTreeMap;

use crate::store::record::Record;
use crate::value::key::Key;

/// What an entry takes beside its record, in bytes.
const ENTRY_BYTES: usize = 512;
/// A record of more than this share of the whole is not kept.
const LARGEST_SHARE: usize = 64;

/// The cache of one replica.
#[derive(Debug)]
pub(super) struct RecordCache {
    bytes_max: usize,
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    entries: BTreeMap<Key, Entry>,
    bytes: usize,
}

/// A record as it is stored.
#[derive(Clone, Debug)]
struct Entry {
    record: Record,
    /// Its size in the store.
    bytes: usize,
}

impl Generation {
    fn insert(&mut self, key: Key, entry: Entry) {
        self.bytes += entry.bytes + ENTRY_BYTES;
        if let Some(before) = self.entries.insert(key, entry) {
            self.bytes -= before.bytes + ENTRY_BYTES;
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.bytes + ENTRY_BYTES;
        Some(entry)
    }
}

impl RecordCache {
    /// A cache of at most `bytes_max` bytes; with 0 it keeps nothing.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, young: Generation::default(), old: Generation::default() }
    }

    /// The record of `key` and its size in the store, if it is here. If it is to be `shown`, its digest will be asked for, and is worked out once
    /// for all uses.
    pub(super) fn get(&mut self, key: &Key, shown: bool) -> Option<(Record, usize)> {
        let found = |Entry { record, bytes }: &Entry| {
            if shown {
                record.state.digest();
            }
            (record.clone(), *bytes)
        };
        if let Some(entry) = self.young.entries.get(key) {
            return Some(found(entry));
        }
        let entry = self.old.remove(key)?;
        let found = found(&entry);
        self.keep(key.clone(), entry);
        Some(found)
    }

    /// Keeps what the store holds under `key`: `record`, with this size.
    pub(super) fn insert(&mut self, key: &Key, record: &Record, bytes: usize) {
        self.remove(key);
        if bytes == 0 || bytes.saturating_mul(LARGEST_SHARE) > self.bytes_max {
            return;
        }
        // The record may be part of a larger buffer, which must not live as long.
        let record = Record { header: record.header.clone(), state: record.state.detached() };
        self.keep(key.clone(), Entry { record, bytes });
    }

    /// Removes the record of `key`.
    pub(super) fn remove(&mut self, key: &Key) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) {
        (self.young, self.old) = (Generation::default(), Generation::default());
    }

    fn keep(&mut self, key: Key, entry: Entry) {
        self.young.insert(key, entry);
        if self.young.bytes >= self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = RecordCache::new(100 * (ENTRY_BYTES + 100));
        for number in 0..255 {
            cache.insert(&key(number), &record(number.into()), 100);
            assert_eq!(cache.get(&key(0), true), Some((record(0), 100)), "after {number}");
        }
        assert_eq!(cache.get(&key(254), true), Some((record(254), 100)));
        assert_eq!(cache.get(&key(100), true), None);
    }

    #[test]
    fn large_and_absent_records_are_not_kept() {
        let mut cache = RecordCache::new(64_000);
        cache.insert(&key(1), &record(1), 100);
        cache.insert(&key(1), &record(2), 1_001);
        assert_eq!(cache.get(&key(1), true), None, "nor what they replace");
        cache.insert(&key(2), &record(1), 1_000);
        cache.insert(&key(2), &Record::default(), 0);
        assert_eq!(cache.get(&key(2), true), None);
        let mut none = RecordCache::new(0);
        none.insert(&key(1), &record(1), 1);
        assert_eq!(none.get(&key(1), false), None);
    }

    proptest! {
        /// It never returns anything but what was inserted last, and is never larger than it may be.
        #[test]
        fn it_holds_what_was_inserted_last(
            acts in prop::collection::vec((0_u8..12, 0_u64..50, 0_usize..300), 0..200), bytes_max in 0_usize..20_000,
        ) {
            let (mut cache, mut model) = (RecordCache::new(bytes_max), BTreeMap::new());
            for (number, value, bytes) in acts {
                match value {
                    0 => { cache.clear(); model.clear(); }
                    1..5 => { cache.remove(&key(number)); model.remove(&number); }
                    5..25 => {
                        if let Some(found) = cache.get(&key(number), true) {
                            prop_assert_eq!(Some(&found), model.get(&number));
                        }
                    }
                    _ => { cache.insert(&key(number), &record(value), bytes); model.insert(number, (record(value), bytes)); }
                }
                let held = |generation: &Generation| generation.entries.values().map(|entry| entry.bytes + ENTRY_BYTES).sum::<usize>();
                prop_assert_eq!((held(&cache.young), held(&cache.old)), (cache.young.bytes, cache.old.bytes));
                let largest = ENTRY_BYTES + 300;
                prop_assert!(cache.young.bytes + cache.old.bytes <= bytes_max + largest);
            }
        }
    }
}
