//! The sweep of keys: removes what buckets held before they were emptied, and brings the index of keys into line with records.
//!
//! What a bucket held is found in the index, so other buckets are not read. A pass over all records is made once for each store: it adds what
//! earlier builds stored without an index. It is also made after a bucket without an index was emptied.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::membership::View;
use crate::replica::Replica;
use crate::store::command::{ScanLimit, Scanned, StoreCommand, StoreId, StoreResult};
use crate::store::key_index;
use crate::store::record::Record;
use crate::value::hlc::Hlc;
use crate::value::key::Key;
use crate::value::time::Instant;
use crate::wire::Protocol;

/// How many index entries are read at once.
const PAGE: usize = 64;
/// How much of a pass is read at once.
const SCAN: ScanLimit = ScanLimit { records: 256, bytes: 1 << 20 };
/// How many records are changed at once.
const AT_ONCE: usize = 32;
/// The pause after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The name of the stored entry that says up to which time all buckets that were emptied without an index are swept, and that the index is whole.
const NAME: &[u8] = b"keys indexed";

/// The next task of the sweep.
#[derive(Debug)]
pub enum KeyTask {
    /// A command for the store; [`KeySweep::begun`] must be called with its id.
    Store(StoreCommand),
    /// The replica must remove the record of a key, whose bucket was emptied.
    Drop(Key),
    /// The replica must bring the index entry of a key into line.
    Index(Key),
}

/// What is known of the index of this store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Indexed {
    /// The stored entry has not been read yet.
    #[default]
    Unknown,
    /// Some records may have no entry.
    Partly,
    /// Each live key has its entry, and of buckets that were emptied without an index up to this time nothing is left.
    Upto(Hlc),
}

/// The store command under way.
#[derive(Clone, Debug)]
enum Pending {
    Recall,
    /// Entries of a bucket before its present generation.
    Emptied(Bytes),
    /// A part of the pass.
    Pass,
    Remember(Hlc),
}

/// A pass over all records.
#[derive(Clone, Debug)]
struct Pass {
    /// Where it goes on; `None` at the end.
    from: Option<Bytes>,
    /// It covers the buckets that were emptied up to this time.
    upto: Hlc,
    /// Something failed, so it begins again at its end.
    has_failed: bool,
}

/// The sweep of keys of one shard.
#[derive(Debug, Default)]
pub struct KeySweep {
    indexed: Indexed,
    pending: Option<Pending>,
    waiting_for: Option<StoreId>,
    /// The times since which buckets are known to be emptied.
    known: BTreeMap<Bytes, Hlc>,
    /// The buckets whose earlier generations are still to be removed, and where the search goes on.
    emptied: BTreeMap<Bytes, Bytes>,
    /// The time of the latest emptying of a bucket without an index.
    unindexed: Hlc,
    pass: Option<Pass>,
    due: VecDeque<KeyTask>,
    under_way: usize,
    pause_until: Instant,
    wake_at: Option<Instant>,
}

impl KeySweep {
    /// When there may be work that no other input announces.
    pub const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Sets the id of the store command returned last.
    pub const fn begun(&mut self, id: StoreId) {
        self.waiting_for = Some(id);
    }

    /// Whether each live key has its entry in the index.
    pub const fn is_whole(&self) -> bool {
        matches!(self.indexed, Indexed::Upto(_))
    }

    /// Adopts the buckets that were emptied.
    pub fn adopt(&mut self, view: &View) {
        for (bucket, form) in view.emptied() {
            let since = form.generation.since;
            if self.known.get(bucket) != Some(&since) {
                self.known.insert(bucket.clone(), since);
                self.emptied.insert(bucket.clone(), key_index::before(bucket, since).0);
            }
            if form.was_unindexed {
                self.unindexed = self.unindexed.max(since);
            }
        }
    }

    /// The change of a record has ended.
    pub fn ended(&mut self, is_done: bool) {
        self.under_way = self.under_way.saturating_sub(1);
        if !is_done && let Some(pass) = &mut self.pass {
            pass.has_failed = true;
        }
    }

    /// The next task, if more may begin.
    pub fn next(&mut self, now: Instant, all_speak: Protocol, may_begin: bool) -> Option<KeyTask> {
        self.wake_at = None;
        if self.waiting_for.is_some() || self.under_way >= AT_ONCE {
            return None;
        }
        let is_idle = self.indexed != Indexed::Unknown
            && self.due.is_empty()
            && self.emptied.is_empty()
            && (all_speak < Protocol::KEY_INDEX || !self.needs_pass());
        if is_idle {
            return None;
        }
        if now < self.pause_until || !may_begin {
            self.wake_at = Some(self.pause_until.max(now + PAUSE / 20));
            return None;
        }
        if let Some(task) = self.due.pop_front() {
            self.under_way += 1;
            return Some(task);
        }
        // A part is read once all that the one before has found is done.
        if self.under_way > 0 {
            return None;
        }
        let (pending, command) = self.command()?;
        self.pending = Some(pending);
        Some(KeyTask::Store(command))
    }

    fn needs_pass(&self) -> bool {
        self.indexed < Indexed::Upto(self.unindexed) || self.pass.is_some()
    }

    fn command(&mut self) -> Option<(Pending, StoreCommand)> {
        if self.indexed == Indexed::Unknown {
            return Some((Pending::Recall, StoreCommand::Recall { name: NAME.into() }));
        }
        if let Some((bucket, from)) = self.emptied.first_key_value() {
            let upto = key_index::before(bucket, self.known[bucket]).1;
            let command = StoreCommand::ScanIndex { from: from.clone(), upto, entries_max: PAGE };
            return Some((Pending::Emptied(bucket.clone()), command));
        }
        let begin = || Pass { from: Some(Bytes::new()), upto: self.unindexed, has_failed: false };
        let pass = self.pass.get_or_insert_with(begin);
        if pass.from.is_none() && pass.has_failed {
            *pass = begin();
        }
        Some(match &pass.from {
            Some(from) => (Pending::Pass, StoreCommand::Scan { from: from.clone(), upto: None, at_most: SCAN }),
            None => {
                let value = Bytes::copy_from_slice(&pass.upto.to_bits().to_be_bytes());
                (Pending::Remember(pass.upto), StoreCommand::Remember { name: NAME.into(), value })
            }
        })
    }

    /// Takes the result of a store command; returns it if the command is not the sweep's.
    pub fn stored(&mut self, now: Instant, id: StoreId, result: StoreResult, replica: &Replica) -> Option<StoreResult> {
        if self.waiting_for != Some(id) {
            return Some(result);
        }
        self.waiting_for = None;
        match (self.pending.take(), result) {
            (Some(Pending::Recall), StoreResult::Read(Ok(bytes))) => {
                let upto = bytes.and_then(|bytes| Some(u64::from_be_bytes(*bytes.first_chunk()?)));
                self.indexed = upto.map_or(Indexed::Partly, |bits| Indexed::Upto(Hlc::from_bits(bits)));
            }
            (Some(Pending::Emptied(bucket)), StoreResult::Listed(Ok(entries))) => {
                self.found(&bucket, &entries, replica)
            }
            (Some(Pending::Pass), StoreResult::Scanned(Ok(scanned))) => self.passed(&scanned, replica),
            (Some(Pending::Remember(upto)), StoreResult::Written(Ok(()))) => {
                self.indexed = Indexed::Upto(upto);
                self.pass = None;
            }
            // The store has failed: the command is given again.
            _ => self.pause_until = now + PAUSE,
        }
        None
    }

    fn found(&mut self, bucket: &Bytes, entries: &[Bytes], replica: &Replica) {
        let Some(since) = self.known.get(bucket) else { return };
        let keys = entries.iter().filter_map(|entry| key_index::parse(entry)).filter(|key| replica.is_superseded(key));
        self.due.extend(keys.map(KeyTask::Drop));
        let first = key_index::before(bucket, *since).0;
        match entries.last() {
            Some(last) => drop(self.emptied.insert(bucket.clone(), [last, &[0][..]].concat().into())),
            // What could not be removed is still there, so the search ends only where it finds nothing from the start.
            None if self.emptied.get(bucket) != Some(&first) => drop(self.emptied.insert(bucket.clone(), first)),
            None => drop(self.emptied.remove(bucket)),
        }
    }

    fn passed(&mut self, scanned: &Scanned, replica: &Replica) {
        let Some(pass) = &mut self.pass else { return };
        pass.from = scanned.next();
        for (storage_key, bytes) in &scanned.records {
            let Ok(key) = Key::from_storage_key(storage_key) else { continue };
            if replica.is_superseded(&key) {
                self.due.push_back(KeyTask::Drop(key));
                continue;
            }
            let record = Record::decode(bytes, storage_key).ok();
            if record.is_some_and(|record| record.header.is_listed != replica.is_to_be_listed(&key, &record)) {
                self.due.push_back(KeyTask::Index(key));
            }
        }
    }
}
