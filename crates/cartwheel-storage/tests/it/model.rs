//! Every store behaves like a `BTreeMap`, and the store on disk still does after it was opened again.

use std::collections::BTreeMap;

use bytes::Bytes;
use cartwheel_storage::{Batch, Durability, FjallOptions, FjallStore, MemoryStore, Store, StoreError};
use proptest::prelude::*;

/// The expected records. The index has an entry for each key.
type Model = BTreeMap<Bytes, Bytes>;

#[derive(Clone, Debug)]
enum Operation {
    Put(Vec<u8>, usize),
    Remove(Vec<u8>),
    Commit(bool),
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || prop::collection::vec(0_u8..4, 1..4);
    prop_oneof![
        // Lengths on both sides of the size from which records are stored in files of their own.
        6 => (key(), prop_oneof![0_usize..4, 500_usize..2_000]).prop_map(|(key, len)| Operation::Put(key, len)),
        2 => key().prop_map(Operation::Remove),
        3 => any::<bool>().prop_map(Operation::Commit),
        1 => Just(Operation::Reopen),
    ]
}

/// Carries out `operations` on a store and on a map. `reopen` returns the store as it is after a restart.
fn run<S: Store>(operations: Vec<Operation>, mut store: S, mut reopen: impl FnMut(S) -> S) {
    let (mut model, mut ahead, mut batch) = (Model::new(), Model::new(), Batch::new());
    for (number, operation) in operations.into_iter().enumerate() {
        match operation {
            Operation::Put(key, len) => {
                let (key, record) = (Bytes::from(key), Bytes::from(vec![number as u8; len]));
                batch.put(key.clone(), record.clone());
                batch.add_index(key.clone());
                ahead.insert(key, record);
            }
            Operation::Remove(key) => {
                let key = Bytes::from(key);
                batch.remove(key.clone());
                batch.remove_index(key.clone());
                ahead.remove(&key);
            }
            Operation::Commit(synced) => {
                let durability = if synced { Durability::Synced } else { Durability::Os };
                store.commit(std::mem::take(&mut batch), durability).unwrap();
                model.clone_from(&ahead);
            }
            Operation::Reopen => {
                store = reopen(store);
                batch = Batch::new();
                ahead.clone_from(&model);
            }
        }
        agree(&store, &model);
    }
}

fn agree(store: &impl Store, model: &Model) {
    let held: Model = store.scan(&[], None).map(Result::unwrap).collect();
    assert_eq!(&held, model);
    let indexed = store.scan_index(&[0], &[4]).map(Result::unwrap);
    assert!(indexed.eq(model.keys().cloned()), "the index differs from the keys");
    for first in 0..4_u8 {
        let key = [first, 1];
        assert_eq!(store.get(&key).unwrap().as_ref(), model.get(&key[..]));
        assert_eq!(store.size_of(&key).unwrap(), model.get(&key[..]).map(|record| record.len()));
        let (start, end) = ([first], [first + 1]);
        let scanned: Vec<Bytes> = store.scan(&start, Some(&end)).map(|entry| entry.unwrap().0).collect();
        let expected: Vec<Bytes> = model.keys().filter(|key| key[0] == first).cloned().collect();
        assert_eq!(scanned, expected);
        let indexed: Vec<Bytes> = store.scan_index(&start, &end).map(Result::unwrap).collect();
        assert_eq!(indexed, expected);
        assert_eq!(store.scan(&end, Some(&start)).count(), 0, "an empty range");
        assert_eq!(store.scan_index(&end, &start).count(), 0, "an empty range");
    }
}

fn open(dir: &tempfile::TempDir) -> FjallStore {
    FjallStore::open(dir.path(), FjallOptions::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn memory_behaves_like_a_map(operations in prop::collection::vec(operation(), 0..60)) {
        run(operations, MemoryStore::default(), |store| store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn fjall_behaves_like_a_map(operations in prop::collection::vec(operation(), 0..60)) {
        let dir = tempfile::tempdir().unwrap();
        run(operations, open(&dir), |store| {
            drop(store);
            open(&dir)
        });
    }
}

/// Checks of metadata and of refused batches, for both stores. `reopen` is as in [`run`].
fn suite<S: Store>(mut store: S, reopen: impl FnOnce(S) -> S) {
    assert_eq!(store.get_meta(b"ceiling").unwrap(), None);
    let mut batch = Batch::new();
    assert!(batch.is_empty());
    store.commit(batch.clone(), Durability::Synced).unwrap();
    batch.put_meta("ceiling", Bytes::from_static(b"1"));
    batch.put_meta("ceiling", Bytes::from_static(b"2"));
    batch.put(Bytes::from_static(b"ceiling"), Bytes::from_static(b"a record"));
    store.commit(batch, Durability::Synced).unwrap();

    for len in [0, 65_536] {
        let mut batch = Batch::new();
        batch.put(Bytes::from_static(b"good"), Bytes::new());
        batch.put(vec![b'k'; len].into(), Bytes::new());
        assert!(matches!(store.commit(batch, Durability::Os), Err(StoreError::KeyLength(l)) if l == len));
        assert_eq!(store.get(b"good").unwrap(), None, "a refused batch does nothing");
    }

    let store = reopen(store);
    assert_eq!(store.get_meta(b"ceiling").unwrap().unwrap(), "2");
    assert_eq!(store.get(b"ceiling").unwrap().unwrap(), "a record");
}

#[test]
fn memory_keeps_metadata_and_refuses_bad_keys() {
    suite(MemoryStore::default(), |store| store);
}

#[test]
fn fjall_keeps_metadata_and_refuses_bad_keys() {
    let dir = tempfile::tempdir().unwrap();
    suite(open(&dir), |store| {
        drop(store);
        open(&dir)
    });
}

#[test]
fn a_directory_can_be_opened_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let error = FjallStore::open(dir.path(), FjallOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    drop(store);
    open(&dir);
}

#[test]
fn a_directory_without_a_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    std::fs::write(dir.path().join("version"), b"not a version").unwrap();
    let error = FjallStore::open(dir.path(), FjallOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
}
