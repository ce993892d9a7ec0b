//! Damage on the disk: a changed bit is detected when it is read, and a new version of the record replaces the damaged one.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cartwheel_storage::{Batch, Durability, FjallOptions, FjallStore, Store, StoreError};

// Small, so that records soon move from the journal to other files.
const OPTIONS: FjallOptions =
    FjallOptions { cache_bytes: 1 << 20, memtable_bytes: 64 << 10, flush_within: std::time::Duration::from_secs(60) };

/// Incompressible bytes that differ for each number.
fn record(number: u64, len: usize) -> Bytes {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number:06}"))
}

/// Writes records until the first one has left the journal, and returns their number.
fn fill(store: &mut FjallStore, len: usize) -> u64 {
    let count = (512 << 10) / len as u64;
    for number in 0..count {
        let mut batch = Batch::new();
        batch.put(key(number), record(number, len));
        store.commit(batch, Durability::Synced).unwrap();
    }
    count
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Flips a bit in the middle of `bytes` wherever they are in the engine's files, journals excepted. Returns the number of flips.
fn flip(dir: &Path, bytes: &[u8]) -> usize {
    let mut flipped = 0;
    for path in files(dir).into_iter().filter(|path| path.extension().is_none_or(|extension| extension != "jnl")) {
        let mut content = fs::read(&path).unwrap();
        let places: Vec<usize> =
            content.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes).map(|(at, _)| at).collect();
        for &at in &places {
            content[at + bytes.len() / 2] ^= 0x10;
        }
        if !places.is_empty() {
            fs::write(&path, content).unwrap();
        }
        flipped += places.len();
    }
    flipped
}

fn a_flipped_bit_is_detected(len: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    let count = fill(&mut store, len);
    drop(store);
    // Use a part from the middle, which compression has left unchanged.
    let victim = record(0, len);
    assert!(flip(dir.path(), &victim[len / 2..len / 2 + 24]) > 0, "the record is still in the journal only");

    let mut store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    let found = store.get(&key(0));
    assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    let scanned: Vec<_> = store.scan(&key(0), Some(&key(1))).collect();
    // A scan can name the key of a damaged record if the record is in another file than the key.
    let is_found = matches!(scanned[..], [Err(StoreError::Damaged(_) | StoreError::DamagedRecord(..))]);
    assert!(is_found, "{scanned:?}");
    let whole =
        (0..count).filter(|&number| store.get(&key(number)).is_ok_and(|held| held == Some(record(number, len))));
    let lost = count - whole.count() as u64;
    println!("{lost} of {count} records of {len} bytes were lost to one flipped bit");
    assert!(lost < count / 2);

    let mut batch = Batch::new();
    batch.put(key(0), record(77, len));
    store.commit(batch, Durability::Synced).unwrap();
    assert_eq!(store.get(&key(0)).unwrap(), Some(record(77, len)));
    drop(store);
    let store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    assert_eq!(store.get(&key(0)).unwrap(), Some(record(77, len)), "the new version hides the damaged one");
}

#[test]
fn a_flipped_bit_in_a_small_record_is_detected() {
    a_flipped_bit_is_detected(300);
}

#[test]
fn a_flipped_bit_in_a_record_in_a_file_of_its_own_is_detected() {
    a_flipped_bit_is_detected(2_000);
}

/// Such damage is distinguished from a disk that does not respond.
#[test]
fn a_file_that_ends_too_soon_counts_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    let count = fill(&mut store, 2_000);
    drop(store);
    let part = &record(0, 2_000)[1_000..1_024];
    let path = files(dir.path()).into_iter().find(|path| {
        path.extension().is_none_or(|extension| extension != "jnl")
            && fs::read(path).unwrap().windows(part.len()).any(|window| window == part)
    });
    let store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    fs::OpenOptions::new().write(true).open(path.unwrap()).unwrap().set_len(500).unwrap();
    let lost = (0..count).filter(|&number| matches!(store.get(&key(number)), Err(StoreError::Damaged(_)))).count();
    assert!(lost > 0);
}

/// Lets the engine's background work meet a damaged block. The engine stops taking writes then. It must not hang, and all that it still returns
/// must be right.
fn background_work_meets_damage(len: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    let count = fill(&mut store, len);
    drop(store);
    assert!(flip(dir.path(), &record(0, len)[len / 2..len / 2 + 24]) > 0);
    let mut told = 0;
    for round in 0..3 {
        let mut store = match FjallStore::open(dir.path(), OPTIONS) {
            Ok(store) => store,
            // Background work begins while the store is being opened.
            Err(StoreError::Open { source: fjall::Error::Poisoned, .. }) => {
                println!("round {round}: the engine stopped before it was open");
                told += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        // Write the same keys again, so that the damaged block is compacted.
        for number in 0..4 * count {
            let mut batch = Batch::new();
            batch.put(key(number % count), record(number % count, len));
            match store.commit(batch, Durability::Synced) {
                Ok(()) => {}
                Err(StoreError::Poisoned) => {
                    println!("round {round}: the engine stopped at write {number}");
                    told += 1;
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        for number in 0..count {
            match store.get(&key(number)) {
                Ok(held) => assert_eq!(held, Some(record(number, len))),
                Err(StoreError::Damaged(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
    println!("records of {len} bytes: the engine stopped in {told} of 3 rounds");
}

#[test]
fn background_work_that_meets_a_damaged_block_ends_in_an_error() {
    background_work_meets_damage(300);
}

#[test]
fn background_work_that_meets_a_damaged_large_record_ends_in_an_error() {
    background_work_meets_damage(2_000);
}

/// Either the store with the damaged journal cannot be opened, or the records after the damage are missing. Nothing else is returned.
#[test]
fn a_flipped_bit_in_the_journal_never_returns_what_was_not_written() {
    const RECORDS: u64 = 12;
    let made = tempfile::tempdir().unwrap();
    let mut store = FjallStore::open(made.path(), OPTIONS).unwrap();
    for number in 0..RECORDS {
        let mut batch = Batch::new();
        batch.put(key(number), record(number, 40));
        store.commit(batch, Durability::Synced).unwrap();
    }
    drop(store);
    let journal =
        files(made.path()).into_iter().find(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    let journal = journal.unwrap();
    let whole = fs::read(&journal).unwrap();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap();
    let (mut refused, mut cut, mut unhurt) = (0, 0, 0);
    for at in (0..=end).step_by(7) {
        let mut damaged = whole[..=end].to_vec();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&journal, damaged).unwrap();
        match FjallStore::open(made.path(), OPTIONS) {
            Err(_) => refused += 1,
            Ok(store) => {
                let held =
                    (0..RECORDS).take_while(|&number| store.get(&key(number)).unwrap() == Some(record(number, 40)));
                let held = held.count() as u64;
                for number in held..RECORDS {
                    assert_eq!(store.get(&key(number)).unwrap(), None, "byte {at}");
                }
                if held < RECORDS { cut += 1 } else { unhurt += 1 }
            }
        }
    }
    println!("{refused} journals refused, {cut} cut short without an error, {unhurt} read completely");
}
