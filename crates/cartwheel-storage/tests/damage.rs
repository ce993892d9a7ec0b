//! A byte that has changed on the disk is found when it is read, and a new version takes the place of what it spoiled.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cartwheel_storage::{Batch, Durability, FjallOptions, FjallStore, Store, StoreError};

/// Small, so that records soon leave the journal for files of their own.
const OPTIONS: FjallOptions =
    FjallOptions { cache_bytes: 1 << 20, memtable_bytes: 64 << 10, flush_within: std::time::Duration::from_secs(60) };

/// Incompressible bytes of its own for each number.
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

/// Writes records until the first one has left the journal; returns how many there are.
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

/// Flips a bit of the middle of `bytes` wherever they are in a file of the engine other than a journal; returns how often.
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

fn a_flipped_bit_is_found(len: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    let count = fill(&mut store, len);
    drop(store);
    // A part from within, where compression has left it as it is.
    let victim = record(0, len);
    assert!(flip(dir.path(), &victim[len / 2..len / 2 + 24]) > 0, "the record is still in the journal only");

    let mut store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    let found = store.get(&key(0));
    assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    let scanned: Vec<_> = store.scan(&key(0), Some(&key(1))).collect();
    // A scan names the record where it can: one that lies in a file of its own.
    let is_found = matches!(scanned[..], [Err(StoreError::Damaged(_) | StoreError::DamagedRecord(..))]);
    assert!(is_found, "{scanned:?}");
    let whole =
        (0..count).filter(|&number| store.get(&key(number)).is_ok_and(|held| held == Some(record(number, len))));
    let lost = count - whole.count() as u64;
    println!("{lost} of {count} records of {len} bytes were lost to one bit");
    assert!(lost < count / 2);

    let mut batch = Batch::new();
    batch.put(key(0), record(77, len));
    store.commit(batch, Durability::Synced).unwrap();
    assert_eq!(store.get(&key(0)).unwrap(), Some(record(77, len)));
    drop(store);
    let store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    assert_eq!(store.get(&key(0)).unwrap(), Some(record(77, len)), "the new version is above the damage");
}

#[test]
fn in_a_small_record_among_others() {
    a_flipped_bit_is_found(300);
}

#[test]
fn in_a_record_with_a_place_of_its_own() {
    a_flipped_bit_is_found(2_000);
}

/// What is damaged is told apart from a disk that does not answer.
#[test]
fn a_file_that_ends_too_soon_is_damaged() {
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

/// What the engine does when its own work in the background meets a damaged block: it stops taking writes. It must not hang, and
/// whatever it still gives out must be right.
fn work_in_the_background(len: usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FjallStore::open(dir.path(), OPTIONS).unwrap();
    let count = fill(&mut store, len);
    drop(store);
    assert!(flip(dir.path(), &record(0, len)[len / 2..len / 2 + 24]) > 0);
    let mut told = 0;
    for round in 0..3 {
        let mut store = match FjallStore::open(dir.path(), OPTIONS) {
            Ok(store) => store,
            // Its work in the background begins while it is opened.
            Err(StoreError::Open { source: fjall::Error::Poisoned, .. }) => {
                println!("round {round}: the engine stopped before it was open");
                told += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        // The same keys again, so that the damaged block is due.
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
    println!("records of {len} bytes: {told} of 3 rounds ended so");
}

#[test]
fn work_in_the_background_that_meets_a_damaged_block_ends_in_an_error() {
    work_in_the_background(300);
}

#[test]
fn work_in_the_background_that_meets_a_damaged_large_record_ends_in_an_error() {
    work_in_the_background(2_000);
}

/// A journal that is damaged is not opened, or what follows the damage is missing; nothing else is given out.
#[test]
fn a_flipped_bit_in_the_journal_never_gives_out_what_was_not_written() {
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
    println!("{refused} journals refused, {cut} cut short without a word, {unhurt} as if nothing were");
}
