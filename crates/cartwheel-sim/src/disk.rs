//! A node's store: writes take time, and until they are synced a crash may lose them.

use std::collections::BTreeSet;

use bytes::Bytes;
use cartwheel_core::store::command::{ReadFailed, StoreCommand, StoreResult, WriteFailed};
use cartwheel_core::store::image::Image;

use crate::options::DiskOptions;
use crate::rng::Rng;

/// The content of a disk, and what of it is damaged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Medium {
    image: Image,
    /// Damaged records whose damage the store itself detects.
    damaged: BTreeSet<Bytes>,
}

impl Medium {
    pub(crate) const fn image(&self) -> &Image {
        &self.image
    }

    fn apply(&mut self, change: &StoreCommand) {
        self.image.change(change);
        if let StoreCommand::Write { storage_key, .. } = change {
            self.damaged.remove(storage_key);
        }
    }
}

/// A command that is being carried out.
#[derive(Clone, Debug)]
pub struct Started {
    /// The time until it ends, in microseconds from now.
    pub delay_us: u64,
    /// The result that it will have.
    pub result: StoreResult,
    /// What is durable once it has ended.
    pub durable: Durable,
}

/// All changes below this number are durable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Durable(u64);

/// One node's store.
///
/// Commands take effect in the order in which they are started, so a read sees an earlier write that has not ended yet. A crash keeps a prefix of
/// the changes: at least up to the last synced one that has ended.
#[derive(Debug)]
pub struct Disk {
    options: DiskOptions,
    rng: Rng,
    /// Whether it refuses records for lack of space.
    full: bool,
    /// The content that a running node sees.
    current: Medium,
    /// The content after a crash that loses all it can.
    durable: Medium,
    /// The changes that are in `current` and not in `durable`; the first is number `pending_from`.
    pending: Vec<StoreCommand>,
    pending_from: u64,
}

impl Disk {
    /// An empty store.
    pub fn new(options: DiskOptions, rng: Rng) -> Self {
        Self {
            options,
            rng,
            full: false,
            current: Medium::default(),
            durable: Medium::default(),
            pending: Vec::new(),
            pending_from: 0,
        }
    }

    /// An empty store with the same options, and as full.
    pub fn replaced(&self, rng: Rng) -> Self {
        Self { full: self.full, ..Self::new(self.options.clone(), rng) }
    }

    /// Starts a command.
    pub fn start(&mut self, command: &StoreCommand) -> Started {
        let mut delay_us = self.options.delay_min_us + self.rng.waiting_us(self.options.delay_mean_us);
        if self.rng.chance(self.options.stall_per_mille) {
            delay_us += self.rng.below(self.options.stall_max_us);
        }
        match command {
            StoreCommand::Write { record: Some(_), .. } if self.full => {
                let result = StoreResult::Written(Err(WriteFailed::DiskFull));
                Started { delay_us, result, durable: Durable::default() }
            }
            StoreCommand::Write { sync, .. } => self.change(command.clone(), *sync, delay_us),
            StoreCommand::Remember { .. } => self.change(command.clone(), true, delay_us),
            StoreCommand::Read { .. }
            | StoreCommand::Scan { .. }
            | StoreCommand::ScanIndex { .. }
            | StoreCommand::Recall { .. } => {
                let fails = self.rng.chance(self.options.read_fail_per_mille);
                let result = if fails { unreadable(command, ReadFailed::Unreadable) } else { self.read(command) };
                Started { delay_us, result, durable: Durable::default() }
            }
        }
    }

    fn read(&self, command: &StoreCommand) -> StoreResult {
        let result = self.current.image.read(command).unwrap_or(StoreResult::Written(Ok(())));
        let is_damaged = |key: &Bytes| self.current.damaged.contains(key);
        match (command, &result) {
            (StoreCommand::Read { storage_key }, _) if is_damaged(storage_key) => {
                unreadable(command, ReadFailed::Damaged)
            }
            _ => self.without_damaged(result),
        }
    }

    /// Moves the damaged records of a scan from its records to its list of damaged ones.
    fn without_damaged(&self, mut result: StoreResult) -> StoreResult {
        if let StoreResult::Scanned(Ok(scanned)) = &mut result {
            let is_damaged = |(key, _): &(Bytes, Bytes)| self.current.damaged.contains(key);
            scanned.damaged = scanned.records.extract_if(.., |read| is_damaged(read)).map(|(key, _)| key).collect();
        }
        result
    }

    fn change(&mut self, change: StoreCommand, sync: bool, delay_us: u64) -> Started {
        let fails = self.rng.chance(self.options.write_fail_per_mille);
        let stored = !fails || self.rng.chance(500);
        if stored {
            self.current.apply(&change);
            self.pending.push(change);
        }
        // A failed write that was stored all the same stays stored: what is read after it must survive a crash.
        let durable = if stored && (sync || fails) {
            Durable(self.pending_from + self.pending.len() as u64)
        } else {
            Durable::default()
        };
        let sync_us = if sync { self.rng.below(self.options.sync_max_us) } else { 0 };
        let result = StoreResult::Written(if fails { Err(WriteFailed::Uncertain) } else { Ok(()) });
        Started { delay_us: delay_us + sync_us, result, durable }
    }

    /// Ends a command: makes durable what it says.
    pub fn end(&mut self, durable: Durable) {
        let count = durable.0.saturating_sub(self.pending_from).min(self.pending.len() as u64);
        self.keep(count as usize);
    }

    fn keep(&mut self, count: usize) {
        for change in self.pending.drain(..count) {
            self.durable.apply(&change);
        }
        self.pending_from += count as u64;
    }

    /// The records whose changes a crash may lose, in the order of the changes.
    pub fn unsynced(&self) -> impl Iterator<Item = Option<&Bytes>> {
        self.pending.iter().map(|change| match change {
            StoreCommand::Write { storage_key, .. } => Some(storage_key),
            _ => None,
        })
    }

    /// Crashes the machine: of the changes that were not synced, a random prefix of at least `least` survives. Returns the records that lost
    /// changes.
    pub fn crash(&mut self, least: usize) -> Vec<Bytes> {
        let survivors = self.rng.below(self.pending.len() as u64 + 1) as usize;
        self.keep(survivors.max(least));
        let lost = self.unsynced().flatten().cloned().collect();
        self.pending_from += self.pending.len() as u64;
        self.pending.clear();
        self.current = self.durable.clone();
        lost
    }

    /// A copy of the present content.
    pub(crate) fn copy(&self) -> Medium {
        self.current.clone()
    }

    /// Replaces the content with a copy.
    pub(crate) fn restore_copy(&mut self, copy: Medium) {
        self.pending_from += self.pending.len() as u64;
        self.pending.clear();
        (self.current, self.durable) = (copy.clone(), copy);
    }

    /// The content that a crash cannot change.
    pub const fn durable(&self) -> &Image {
        &self.durable.image
    }

    /// The content that the node reads.
    pub const fn current(&self) -> &Image {
        &self.current.image
    }

    /// Whether a change of this record is not durable yet.
    pub fn is_pending(&self, storage_key: &[u8]) -> bool {
        self.pending
            .iter()
            .any(|change| matches!(change, StoreCommand::Write { storage_key: key, .. } if key == storage_key))
    }

    /// Flips one bit of a stored record. Half of the time the store detects that by its own checksums.
    pub fn damage(&mut self, storage_key: &Bytes) {
        let Some(record) = self.current.image.records.get(storage_key) else { return };
        let mut bytes = record.to_vec();
        let bit = self.rng.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if bit.is_multiple_of(2) {
            self.current.damaged.insert(storage_key.clone());
            self.durable.damaged.insert(storage_key.clone());
        }
        let bytes = Bytes::from(bytes);
        self.current.image.records.insert(storage_key.clone(), bytes.clone());
        self.durable.image.records.insert(storage_key.clone(), bytes);
    }

    /// Makes the disk refuse records for lack of space, or accept them again.
    pub const fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether it refuses records for lack of space.
    pub const fn is_full(&self) -> bool {
        self.full
    }

    /// Makes commands quick and free of failures from now on.
    pub const fn become_reliable(&mut self) {
        self.options.stall_per_mille = 0;
        self.options.read_fail_per_mille = 0;
        self.options.write_fail_per_mille = 0;
        self.full = false;
    }
}

/// The failed result of a command that reads.
fn unreadable(command: &StoreCommand, why: ReadFailed) -> StoreResult {
    match command {
        StoreCommand::Scan { .. } => StoreResult::Scanned(Err(why)),
        StoreCommand::ScanIndex { .. } => StoreResult::Listed(Err(why)),
        _ => StoreResult::Read(Err(why)),
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::rng::Stream;

    fn write(key: &'static str, record: &'static str, sync: bool) -> StoreCommand {
        StoreCommand::Write { storage_key: key.into(), record: Some(record.into()), index: Vec::new(), sync }
    }

    fn disk(seed: u64) -> Disk {
        Disk::new(DiskOptions { sync_max_us: 10, ..DiskOptions::default() }, Rng::new(seed, Stream::Disks))
    }

    #[test]
    fn a_crash_keeps_synced_changes_and_a_prefix_of_the_others() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut disk = disk(seed);
            disk.start(&write("a", "1", false));
            let synced = disk.start(&write("b", "1", true));
            disk.end(synced.durable);
            disk.start(&write("a", "2", false));
            disk.start(&write("b", "2", true));
            disk.crash(0);
            let held = |key: &'static str| disk.current().records[key.as_bytes()].clone();
            outcomes.insert((held("a"), held("b")));
        }
        let outcomes: Vec<_> = outcomes.iter().map(|(a, b)| (a.as_ref(), b.as_ref())).collect();
        assert_eq!(outcomes, [(&b"1"[..], &b"1"[..]), (b"2", b"1"), (b"2", b"2")]);
    }

    #[test]
    fn a_command_from_before_a_crash_makes_nothing_newer_durable() {
        let mut disk = disk(1);
        let synced = disk.start(&write("a", "1", true));
        disk.crash(0);
        disk.start(&write("a", "2", false));
        disk.end(synced.durable);
        assert!(disk.is_pending(b"a"));
    }

    #[test]
    fn damage_changes_what_is_read() {
        let mut disk = disk(1);
        let synced = disk.start(&write("a", "1", true));
        disk.end(synced.durable);
        disk.damage(&"a".into());
        assert_ne!(disk.current().records[&b"a"[..]].as_ref(), b"1");
    }

    #[test]
    fn some_damage_is_detected_by_the_store_until_the_record_is_rewritten() {
        let read = StoreCommand::Read { storage_key: "a".into() };
        let mut noticed = 0;
        for seed in 0..20 {
            let mut disk = disk(seed);
            let synced = disk.start(&write("a", "1", true));
            disk.end(synced.durable);
            disk.damage(&"a".into());
            noticed += usize::from(disk.start(&read).result == StoreResult::Read(Err(ReadFailed::Damaged)));
            disk.start(&write("a", "2", true));
            assert_eq!(disk.start(&read).result, StoreResult::Read(Ok(Some("2".into()))));
        }
        assert!((1..20).contains(&noticed), "{noticed} of 20");
    }

    #[test]
    fn a_full_disk_takes_no_records_but_small_notes() {
        let mut disk = disk(1);
        disk.set_full(true);
        let refused = disk.start(&write("a", "1", true));
        assert_eq!(refused.result, StoreResult::Written(Err(WriteFailed::DiskFull)));
        let note = disk.start(&StoreCommand::Remember { name: "note".into(), value: "7".into() });
        assert_eq!(note.result, StoreResult::Written(Ok(())));
        disk.end(refused.durable);
        assert!(disk.current().records.is_empty());
        disk.set_full(false);
        assert_eq!(disk.start(&write("a", "1", true)).result, StoreResult::Written(Ok(())));
    }
}
