//! Crash test of the store on disk: a writing process is killed again and again. What it has synced survives, batches are atomic, and the store
//! opens.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use cartwheel_storage::{Batch, Durability, FjallOptions, FjallStore, Store};

/// The environment variable that makes the test process the writer. Its value is the store's directory.
const WRITER: &str = "CARTWHEEL_TEST_WRITER_DIR";

/// The number of kills.
const ROUNDS: u64 = 25;

/// The number of batches after which a writer that was not killed ends.
const BATCHES_MAX: u64 = 200_000;

const KEYS: u64 = 3_000;
const WRITES: u64 = 16;

// Small, so that journals are sealed and files merged while the writer runs.
const OPTIONS: FjallOptions =
    FjallOptions { cache_bytes: 8 << 20, memtable_bytes: 256 << 10, flush_within: std::time::Duration::from_secs(60) };

/// The writes of batch `number`. Batches differ, and contain puts of small and large records and removals.
fn writes(number: u64) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
    (0..WRITES).map(move |place| {
        let mixed = (number * WRITES + place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = Bytes::from(format!("key-{}", (mixed >> 20) % KEYS));
        let len = if mixed.is_multiple_of(4) { 900 } else { 90 };
        let record = (!mixed.is_multiple_of(10)).then(|| Bytes::from(format!("{number}.{place}-").repeat(len / 8)));
        (key, record)
    })
}

#[test]
fn writer() {
    let Some(dir) = std::env::var_os(WRITER) else { return };
    let mut store = FjallStore::open(Path::new(&dir), OPTIONS).unwrap();
    for number in last_batch(&store) + 1..=BATCHES_MAX {
        let mut batch = Batch::new();
        for (key, record) in writes(number) {
            match record {
                Some(record) => batch.put(key, record),
                None => batch.remove(key),
            }
        }
        batch.put_meta("last", Bytes::from(number.to_string()));
        store.commit(batch, Durability::Synced).unwrap();
        println!("\nstored {number}");
    }
}

fn last_batch(store: &FjallStore) -> u64 {
    let last = store.get_meta(b"last").unwrap();
    last.map_or(0, |last| std::str::from_utf8(&last).unwrap().parse().unwrap())
}

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets a writer continue in `dir`, kills it after some batches, and returns the last batch that it had reported as stored.
fn write_and_kill(dir: &Path, batches: usize) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::writer", "--nocapture"]).env(WRITER, dir).stdout(Stdio::piped());
    let mut writer = Killed(command.spawn().unwrap());
    let lines = BufReader::new(writer.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut stored = lines.filter_map(|line| line.strip_prefix("stored ").map(|number| number.parse::<u64>().unwrap()));
    let mut last = stored.by_ref().take(batches).last().expect("the writer reports batches");
    writer.0.kill().unwrap();
    // The pipe still holds what it reported before it was killed.
    last = stored.last().unwrap_or(last);
    last
}

#[test]
fn synced_batches_survive_many_kills() {
    if std::env::var_os(WRITER).is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut model, mut in_model) = (BTreeMap::new(), 0);
    let mut slowest_ms = 0;
    for round in 0..ROUNDS {
        let told = write_and_kill(dir.path(), 1 + (round * 7_919 % 400) as usize);
        let begun = Instant::now();
        let store = FjallStore::open(dir.path(), OPTIONS).unwrap();
        let opened_ms = begun.elapsed().as_millis();
        slowest_ms = slowest_ms.max(opened_ms);
        let last = last_batch(&store);
        println!("round {round}: {told} batches reported, {last} found, opened in {opened_ms} ms");
        assert!(last >= told, "batch {told} was reported as stored, but the last one found is {last}");
        for number in in_model + 1..=last {
            for (key, record) in writes(number) {
                match record {
                    Some(record) => drop(model.insert(key, record)),
                    None => drop(model.remove(&key)),
                }
            }
        }
        in_model = last;
        let held: BTreeMap<Bytes, Bytes> = store.scan(&[], None).map(Result::unwrap).collect();
        assert!(held == model, "round {round}: the content differs from that of the first {last} batches");
    }
    println!("{in_model} batches, {ROUNDS} kills, slowest opening {slowest_ms} ms");
}
