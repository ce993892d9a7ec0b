//! Hints: records that a stand-in keeps for homes that could not be reached (paper, section 4.6).
//!
//! A hint is not a copy: the stand-in holds the key's record as a home would, and the record's header names the homes for which it is kept
//! ([`crate::store::record::LocalHeader::owed`]). The index has an entry for each home and key, by which they are found.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::cluster::sizes::Backlog;
use crate::event::Event;
use crate::store::command::IndexChange;
use crate::value::dot::NodeId;
use crate::value::epoch::Epoch;

/// The first byte of hint entries in the index.
const MARK: u8 = b'h';
const HEAD_BYTES: usize = 9;

/// The index entry of a record that is kept for `home`.
pub fn entry(home: NodeId, storage_key: &[u8]) -> Bytes {
    [&first(home)[..], storage_key].concat().into()
}

/// The common prefix of the entries of `home`, which is also the lower end of their range.
pub fn first(home: NodeId) -> Bytes {
    let mut head = [MARK; HEAD_BYTES];
    head[1..].copy_from_slice(&home.get().to_be_bytes());
    Bytes::copy_from_slice(&head)
}

/// The upper end of the range of entries of `home`, excluded.
pub fn end(home: NodeId) -> Bytes {
    home.get().checked_add(1).map_or_else(|| Bytes::from_static(&[MARK + 1]), |next| first(NodeId::new(next)))
}

/// The range of all hint entries: the lower end, and the upper end, excluded.
pub fn all() -> (Bytes, Bytes) {
    (Bytes::from_static(&[MARK]), Bytes::from_static(&[MARK + 1]))
}

/// The home and the storage key of an entry; `None` if it is not a hint entry.
pub fn parse(entry: &Bytes) -> Option<(NodeId, Bytes)> {
    let home = entry.strip_prefix(&[MARK])?.first_chunk()?;
    Some((NodeId::new(u64::from_be_bytes(*home)), entry.slice(HEAD_BYTES..)))
}

/// The least possible entry after `entry`.
pub fn after(entry: &Bytes) -> Bytes {
    [&entry[..], &[0]].concat().into()
}

/// The change of a record's hints by a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HintChange {
    /// The record's storage key.
    pub storage_key: Bytes,
    /// The homes for which it was kept, and since which epoch.
    pub before: BTreeMap<NodeId, Epoch>,
    /// The homes for which it is kept afterwards.
    pub after: BTreeMap<NodeId, Epoch>,
    /// Homes with an index entry although the record is not kept for them: the record of the entry was lost.
    pub stray: BTreeSet<NodeId>,
    /// The record's size in bytes before.
    pub bytes_before: usize,
    /// The record's size in bytes afterwards.
    pub bytes_after: usize,
}

impl HintChange {
    /// The homes for which the record was kept before or is kept afterwards.
    fn homes(&self) -> BTreeSet<NodeId> {
        self.before.keys().chain(self.after.keys()).copied().collect()
    }

    /// Their index entries.
    fn entries(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.homes().into_iter().map(|home| entry(home, &self.storage_key))
    }

    /// The changes of the index.
    pub fn index(&self) -> Vec<IndexChange> {
        let before: BTreeSet<NodeId> = self.before.keys().copied().collect();
        let removed = before.union(&self.stray).filter(|home| !self.after.contains_key(home));
        let removed = removed.map(|&home| IndexChange::Remove(entry(home, &self.storage_key)));
        let added = self.after.keys().filter(|home| !before.contains(home));
        let added = added.map(|&home| IndexChange::Add(entry(home, &self.storage_key)));
        removed.chain(added).collect()
    }
}

/// The numbers and sizes of a node's hints.
///
/// After a start they are unknown: the index is read once from end to end, while writes go on.
#[derive(Debug)]
pub struct HintBook {
    owed: BTreeMap<NodeId, Backlog>,
    bytes_max: u64,
    /// No more hints are accepted.
    is_closed: bool,
    /// The entries before this are counted; `None` if all are.
    counted_upto: Option<Bytes>,
    /// Entries at or after `counted_upto` that were written meanwhile, and are counted as they are now.
    written: BTreeSet<Bytes>,
    /// The number of the count: how often counting has begun.
    count: u64,
    /// Entries that were counted as nothing, because the record is lost, or because a write of it was under way.
    skipped: BTreeSet<Bytes>,
    /// Entries that a write under way changes. The index and the record may show the state before or after the write.
    under_way: BTreeSet<Bytes>,
    /// The number of hints by the epoch since which they are kept.
    since: BTreeMap<Epoch, u64>,
    /// The backlogs last reported.
    reported: BTreeMap<NodeId, Backlog>,
    reported_full: bool,
    /// Whether anything may have changed since the last report.
    has_news: bool,
}

impl HintBook {
    /// A book in which nothing is counted yet.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            owed: BTreeMap::new(),
            bytes_max,
            is_closed: false,
            counted_upto: Some(all().0),
            written: BTreeSet::new(),
            count: 1,
            skipped: BTreeSet::new(),
            under_way: BTreeSet::new(),
            since: BTreeMap::new(),
            reported: BTreeMap::new(),
            reported_full: false,
            has_news: true,
        }
    }

    /// The backlog of each home that has one.
    pub fn owed(&self) -> impl Iterator<Item = (NodeId, Backlog)> + '_ {
        self.owed.iter().map(|(&home, &backlog)| (home, backlog))
    }

    /// The backlog of `home`.
    pub fn owed_to(&self, home: NodeId) -> Backlog {
        self.owed.get(&home).copied().unwrap_or_default()
    }

    /// The oldest epoch since which a hint is kept. [`Epoch::UNKNOWN`] until all entries are counted, and until the writes whose entries were
    /// skipped have ended.
    pub fn oldest(&self) -> Option<Epoch> {
        let is_open = || self.under_way.iter().any(|entry| self.skipped.contains(entry));
        if self.counted_upto.is_some() || !self.skipped.is_empty() && is_open() {
            return Some(Epoch::UNKNOWN);
        }
        self.since.keys().next().copied()
    }

    /// Whether the size limit is reached.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    /// Whether no more hints are accepted.
    pub fn takes_no_more(&self) -> bool {
        self.is_closed || self.is_full()
    }

    /// Stops or resumes the acceptance of hints.
    pub const fn close(&mut self, is_closed: bool) {
        self.is_closed = is_closed;
    }

    fn bytes(&self) -> u64 {
        self.owed.values().map(|backlog| backlog.bytes).sum()
    }

    /// The changes to report since the last call. While hints are counted again, the earlier report stands.
    pub fn news(&mut self) -> Vec<Event> {
        if !std::mem::take(&mut self.has_news) {
            return Vec::new();
        }
        let mut news = Vec::new();
        let homes: BTreeSet<NodeId> = self.reported.keys().chain(self.owed.keys()).copied().collect();
        for home in homes {
            let (before, now) = (self.reported.get(&home).copied().unwrap_or_default(), self.owed_to(home));
            if before != now && (now.records > before.records || self.counted_upto.is_none()) {
                news.push(Event::HintsHeld { home, before, now });
                self.reported.insert(home, now);
            }
        }
        self.reported.retain(|_, backlog| *backlog != Backlog::default());
        // The alarm ends only once there is some space, not whenever a record comes or goes.
        let is_full = self.is_full() || (self.reported_full && self.bytes() > self.bytes_max - self.bytes_max / 8);
        if is_full != self.reported_full {
            self.reported_full = is_full;
            news.push(Event::HintsFull { is_full, bytes_max: self.bytes_max });
        }
        news
    }

    /// Where counting continues; `None` if it is complete.
    pub const fn counted_upto(&self) -> Option<&Bytes> {
        self.counted_upto.as_ref()
    }

    /// Counts an entry: the size of its record and the epoch since which it is kept, or `None` if it is not kept. All earlier entries are
    /// counted.
    pub fn count(&mut self, entry: &Bytes, record: Option<(usize, Epoch)>) {
        let next = after(entry);
        self.pass(&next);
        match (parse(entry), record) {
            _ if self.written.contains(entry) || self.skipped.contains(entry) => {}
            (Some((home, _)), Some((bytes, since))) => self.add(home, bytes, since),
            (Some(_), None) => drop(self.skipped.insert(entry.clone())),
            (None, _) => {}
        }
        self.counted_upto = Some(next);
    }

    /// Marks the entries before `upto` as counted. Those that a write under way changes are skipped, and are counted as that write leaves them
    /// when it ends.
    fn pass(&mut self, upto: &Bytes) {
        if let Some(from) = self.counted_upto.as_ref().filter(|from| *from <= upto) {
            let passed =
                self.under_way.range(from.clone()..upto.clone()).filter(|entry| !self.written.contains(*entry));
            self.skipped.extend(passed.cloned());
        }
    }

    /// Begins to count again, because the numbers may be wrong.
    pub fn recount(&mut self) {
        self.owed.clear();
        self.since.clear();
        self.skipped.clear();
        self.written.clear();
        self.counted_upto = Some(all().0);
        self.count += 1;
    }

    /// The number of the present or last count.
    pub const fn count_number(&self) -> u64 {
        self.count
    }

    /// Ends the count: everything is counted.
    pub fn all_counted(&mut self) {
        self.pass(&all().1);
        self.has_news = true;
        self.counted_upto = None;
        self.written.clear();
    }

    /// A write of a record begins. [`Self::changed`], [`Self::unchanged`] or [`Self::is_doubtful`] must follow.
    pub fn begins(&mut self, change: &HintChange) {
        self.under_way.extend(change.entries());
    }

    /// A write has failed, and the record is as it was before.
    pub fn unchanged(&mut self, change: HintChange) {
        self.end(&change);
        self.changed(&HintChange { after: change.before.clone(), bytes_after: change.bytes_before, ..change });
    }

    /// A write has an unknown outcome. Everything is counted again.
    pub fn is_doubtful(&mut self, change: &HintChange) {
        self.end(change);
        self.recount();
    }

    fn end(&mut self, change: &HintChange) {
        for entry in change.entries() {
            self.under_way.remove(&entry);
        }
    }

    /// A write has ended.
    pub fn changed(&mut self, change: &HintChange) {
        self.end(change);
        for home in change.homes() {
            let was_counted = self.counted_upto.as_ref().is_none_or(|upto| {
                let entry = entry(home, &change.storage_key);
                entry < *upto || !self.written.insert(entry)
            });
            let was_skipped = !self.skipped.is_empty() && self.skipped.remove(&entry(home, &change.storage_key));
            if was_counted
                && !was_skipped
                && let Some(&since) = change.before.get(&home)
            {
                self.subtract(home, change.bytes_before, since);
            }
            if let Some(&since) = change.after.get(&home) {
                self.add(home, change.bytes_after, since);
            }
        }
    }

    fn add(&mut self, home: NodeId, bytes: usize, since: Epoch) {
        *self.since.entry(since).or_default() += 1;
        self.has_news = true;
        let backlog = self.owed.entry(home).or_default();
        backlog.records += 1;
        backlog.bytes += bytes as u64;
    }

    fn subtract(&mut self, home: NodeId, bytes: usize, since: Epoch) {
        if let Some(count) = self.since.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.since.remove(&since);
            }
        }
        let Some(backlog) = self.owed.get_mut(&home) else { return };
        self.has_news = true;
        backlog.records = backlog.records.saturating_sub(1);
        backlog.bytes = backlog.bytes.saturating_sub(bytes as u64);
        if backlog.records == 0 {
            self.owed.remove(&home);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_of_a_home_form_one_range() {
        let homes = [0, 1, 255, 256, u64::MAX - 1, u64::MAX].map(NodeId::new);
        for home in homes {
            for key in [&b"\0"[..], b"key", &[0xff; 40]] {
                let entry = entry(home, key);
                assert!(first(home) <= entry && entry < end(home), "{home}");
                assert!(all().0 <= entry && entry < all().1);
                assert!(entry < after(&entry));
                assert_eq!(parse(&entry), Some((home, Bytes::copy_from_slice(key))));
            }
        }
        for pair in homes.windows(2) {
            assert!(end(pair[0]) <= first(pair[1]));
        }
        for other in [&b""[..], b"h", b"h1234567", b"g12345678"] {
            assert_eq!(parse(&Bytes::copy_from_slice(other)), None);
        }
    }

    fn owe(key: &'static str, before: &[u64], after: &[u64], bytes: (usize, usize)) -> HintChange {
        let homes = |of: &[u64]| of.iter().map(|&home| (NodeId::new(home), Epoch(home))).collect();
        let (bytes_before, bytes_after) = bytes;
        let stray = BTreeSet::new();
        HintChange {
            storage_key: key.into(),
            before: homes(before),
            after: homes(after),
            stray,
            bytes_before,
            bytes_after,
        }
    }

    #[test]
    fn hints_written_during_a_count_are_counted_once() {
        let mut book = HintBook::new(100);
        let there = [entry(NodeId::new(1), b"a"), entry(NodeId::new(2), b"a"), entry(NodeId::new(2), b"b")];
        book.count(&there[0], Some((10, Epoch(1))));
        assert_eq!(book.oldest(), Some(Epoch::UNKNOWN));
        // Already counted; not counted yet; new; removed before it was counted.
        book.changed(&owe("a", &[1, 2], &[1, 2], (10, 15)));
        book.changed(&owe("c", &[], &[2], (0, 30)));
        book.changed(&owe("b", &[2], &[], (20, 0)));
        there[1..].iter().for_each(|entry| book.count(entry, Some((10, Epoch(2)))));
        book.all_counted();
        assert_eq!(book.oldest(), Some(Epoch(1)));
        let backlog = |records, bytes| Backlog { records, bytes };
        let owed: Vec<_> = book.owed().collect();
        assert_eq!(owed, [(NodeId::new(1), backlog(1, 15)), (NodeId::new(2), backlog(2, 45))]);
        book.changed(&owe("c", &[2], &[2, 3], (30, 40)));
        assert!(!book.is_full() || book.owed_to(NodeId::new(3)).bytes == 40);
        assert_eq!(book.owed_to(NodeId::new(2)), backlog(2, 55));
        assert!(book.is_full());
        book.changed(&owe("c", &[2, 3], &[], (40, 0)));
        assert_eq!(book.owed_to(NodeId::new(3)), Backlog::default());
        assert!(!book.is_full());
    }

    #[test]
    fn changes_of_backlogs_and_of_the_full_alarm_are_reported_once() {
        let (home, none) = (NodeId::new(2), Backlog::default());
        let mut book = HintBook::new(100);
        book.all_counted();
        assert_eq!(book.news(), []);
        book.changed(&owe("a", &[], &[2], (0, 60)));
        let first = Backlog { records: 1, bytes: 60 };
        assert_eq!(book.news(), [Event::HintsHeld { home, before: none, now: first }]);
        assert_eq!(book.news(), [], "it is reported once");
        book.changed(&owe("b", &[], &[2], (0, 40)));
        let second = Backlog { records: 2, bytes: 100 };
        let full = |is_full| Event::HintsFull { is_full, bytes_max: 100 };
        assert_eq!(book.news(), [Event::HintsHeld { home, before: first, now: second }, full(true)]);
        book.changed(&owe("b", &[2], &[2], (40, 30)));
        assert_eq!(book.news().len(), 1, "the alarm does not end with a few bytes");
        book.changed(&owe("a", &[2], &[], (60, 0)));
        assert_eq!(book.news().last(), Some(&full(false)));
        // A failed write makes the numbers unknown, not zero.
        book.recount();
        assert_eq!(book.news(), []);
        book.count(&entry(home, b"b"), Some((30, Epoch(1))));
        book.all_counted();
        assert_eq!(book.news(), []);
    }

    /// A write under way; the disk may have applied it already.
    #[derive(Clone, Debug)]
    struct Writing {
        change: HintChange,
        is_applied: bool,
    }

    #[derive(Clone, Debug)]
    enum Act {
        /// A write of a key begins, after which the key is kept for these homes.
        Begin(usize, BTreeSet<u64>, usize),
        /// The disk applies the write.
        Apply(usize),
        /// The book gets the result.
        End(usize),
        /// The disk has no space for the write, if it was not applied.
        Refuse(usize),
        /// The count advances by one step: a page of entries, the read of a record, or its arrival at the book.
        Count,
        /// A record was lost.
        Recount,
    }

    fn an_act() -> impl Strategy<Value = Act> {
        let homes = prop::collection::btree_set(1u64..4, 0..3);
        prop_oneof![
            3 => (0usize..4, homes, 1usize..50).prop_map(|(key, homes, bytes)| Act::Begin(key, homes, bytes)),
            3 => (0usize..4).prop_map(Act::Apply),
            3 => (0usize..4).prop_map(Act::End),
            1 => (0usize..4).prop_map(Act::Refuse),
            6 => Just(Act::Count),
            1 => Just(Act::Recount),
        ]
    }

    /// Keys, the homes for which the disk keeps each, and the writes under way.
    #[derive(Debug, Default)]
    struct Disk {
        held: [(BTreeMap<NodeId, Epoch>, usize); 4],
        writing: [Option<Writing>; 4],
    }

    const KEYS: [&str; 4] = ["a", "b", "c", "d"];

    impl Disk {
        fn entries(&self) -> BTreeMap<Bytes, (usize, Epoch)> {
            let of = |(key, (owed, bytes)): (&&str, &(BTreeMap<NodeId, Epoch>, usize))| {
                let entries = owed.iter().map(|(&home, &since)| (entry(home, key.as_bytes()), (*bytes, since)));
                entries.collect::<Vec<_>>()
            };
            KEYS.iter().zip(&self.held).flat_map(of).collect()
        }

        /// The oldest epoch of a hint on the disk, without hints that a write under way has just added.
        fn oldest(&self) -> Option<Epoch> {
            let of = |((owed, _), writing): (&(BTreeMap<NodeId, Epoch>, usize), &Option<Writing>)| {
                let was_owed =
                    |home: &NodeId| writing.as_ref().is_none_or(|writing| writing.change.before.contains_key(home));
                let kept = owed.iter().filter(|(home, _)| was_owed(home));
                kept.map(|(_, &since)| since).collect::<Vec<_>>()
            };
            self.held.iter().zip(&self.writing).flat_map(of).min()
        }

        fn apply(&mut self, key: usize) {
            if let Some(writing) = &mut self.writing[key] {
                writing.is_applied = true;
                self.held[key] = (writing.change.after.clone(), writing.change.bytes_after);
            }
        }
    }

    /// The count of the index as [`crate::coordinator::handoff`] does it: a page, then the record of each of its entries.
    #[derive(Debug, Default)]
    struct Counting {
        number: u64,
        listed: Option<Vec<Bytes>>,
        page: VecDeque<Bytes>,
        read: Option<(Bytes, Option<(usize, Epoch)>)>,
    }

    impl Counting {
        fn advance(&mut self, disk: &Disk, book: &mut HintBook) {
            if self.number != book.count_number() {
                *self = Self { number: book.count_number(), ..Self::default() };
            }
            let Some(upto) = book.counted_upto().cloned() else { return };
            if let Some((entry, record)) = self.read.take() {
                book.count(&entry, record);
            } else if let Some(entry) = self.page.pop_front() {
                self.read = Some((entry.clone(), disk.entries().get(&entry).copied()));
            } else {
                match self.listed.take() {
                    Some(listed) if listed.is_empty() => book.all_counted(),
                    Some(listed) => self.page = listed.into(),
                    None => {
                        self.listed = Some(disk.entries().into_keys().filter(|entry| *entry >= upto).take(2).collect())
                    }
                }
            }
        }
    }

    proptest! {
        /// However writes end during a count, the book finally matches the disk, and never reports the oldest hint as younger than it is.
        #[test]
        fn a_count_during_writes_is_exact(acts in prop::collection::vec(an_act(), 0..80)) {
            let (mut disk, mut book, mut counting) = (Disk::default(), HintBook::new(u64::MAX), Counting::default());
            let ends = |key| [Act::Apply(key), Act::End(key)];
            let rest = (0..KEYS.len()).flat_map(ends).chain(vec![Act::Count; 40]);
            for act in acts.into_iter().chain(rest) {
                match act {
                    Act::Begin(key, homes, bytes) if disk.writing[key].is_none() => {
                        let (before, bytes_before) = disk.held[key].clone();
                        let after: BTreeMap<NodeId, Epoch> =
                            homes.into_iter().map(|home| (NodeId::new(home), Epoch(home))).collect();
                        let bytes_after = if after.is_empty() { 0 } else { bytes };
                        let (storage_key, stray) = (KEYS[key].into(), BTreeSet::new());
                        let change = HintChange { storage_key, before, after, stray, bytes_before, bytes_after };
                        book.begins(&change);
                        disk.writing[key] = Some(Writing { change, is_applied: false });
                    }
                    Act::Apply(key) => disk.apply(key),
                    Act::End(key) if disk.writing[key].as_ref().is_some_and(|writing| writing.is_applied) => {
                        let writing = disk.writing[key].take();
                        writing.into_iter().for_each(|writing| book.changed(&writing.change));
                    }
                    Act::Refuse(key) if disk.writing[key].as_ref().is_some_and(|writing| !writing.is_applied) => {
                        let writing = disk.writing[key].take();
                        writing.into_iter().for_each(|writing| book.unchanged(writing.change));
                    }
                    Act::Count => counting.advance(&disk, &mut book),
                    Act::Recount => book.recount(),
                    Act::Begin(..) | Act::End(_) | Act::Refuse(_) => {}
                }
                if let Some(oldest) = disk.oldest() {
                    prop_assert!(book.oldest().is_some_and(|known| known <= oldest), "{:?} of {oldest:?}", book.oldest());
                }
            }
            prop_assert!(book.counted_upto().is_none());
            let mut there: BTreeMap<NodeId, Backlog> = BTreeMap::new();
            let mut oldest = None;
            for (entry, (bytes, since)) in disk.entries() {
                let (home, _) = parse(&entry).expect("an entry");
                let backlog = there.entry(home).or_default();
                (backlog.records, backlog.bytes) = (backlog.records + 1, backlog.bytes + bytes as u64);
                oldest = oldest.into_iter().chain([since]).min();
            }
            prop_assert_eq!((book.owed().collect::<BTreeMap<_, _>>(), book.oldest()), (there, oldest));
        }
    }

    /// A write ends during the count: the record that is read for an entry may be newer than the book's knowledge.
    #[test]
    fn a_record_read_while_its_write_ends_is_counted_once() {
        let mut book = HintBook::new(100);
        let there = [entry(NodeId::new(1), b"a"), entry(NodeId::new(2), b"a")];
        book.count(&there[0], Some((10, Epoch(3))));
        book.count(&there[1], None);
        let mut change = owe("a", &[1, 2], &[1], (10, 10));
        change.before.values_mut().chain(change.after.values_mut()).for_each(|since| *since = Epoch(3));
        book.changed(&change);
        book.all_counted();
        assert_eq!((book.oldest(), book.owed().count()), (Some(Epoch(3)), 1));
    }
}
