//! Scheduling of hinted handoff: which hints are due for delivery to homes that are reachable again (paper, section
//! 4.6).
//!
//! The hint index is read home by home, a page at a time. After a start, and after a store write whose outcome is
//! unknown, the whole index is read as well to count the backlog. It may have hundreds of thousands of entries, so each
//! step of the count waits for the admission controller. Deliveries go on meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::replica::hint::{self, HintBook};
use crate::store::command::{ReadFailed, StoreCommand, StoreId, StoreResult};
use crate::store::record::Record;
use crate::value::dot::NodeId;
use crate::value::epoch::Epoch;
use crate::value::key::Key;
use crate::value::time::Instant;

/// How many index entries are read at once.
pub const PAGE: usize = 64;
/// Reading one record by its key takes about as long as scanning this many.
const RECORDS_IN_A_READ: usize = 2;
/// How long to wait before a home is tried again, if hints are left after all of them were tried.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often the index is checked for a home without known hints: a store write that was reported as failed may have
/// been carried out.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The next task of hinted handoff.
#[derive(Debug)]
pub enum HandoffTask {
    /// A store command that lists hints of a home. The caller passes its id to [`Handoff::begun`].
    Store(StoreCommand),
    /// A store command that counts hints, and about how many records it reads. The caller passes its id to
    /// [`Handoff::begun`].
    Count(StoreCommand, usize),
    /// Deliver the hint of a key to a home.
    HandOver(Key, NodeId),
}

/// The purpose of the store command under way.
#[derive(Clone, Debug)]
enum Pending {
    /// To list the next entries, for the count of this number.
    ToCount(u64),
    /// To read the record of an entry, for the count of this number.
    Size(u64, Bytes),
    /// To list up to this many entries of a home.
    Owed(NodeId, usize),
}

#[derive(Clone, Debug)]
struct Home {
    /// The entry at which its listing goes on.
    from: Bytes,
    /// The earliest time of the next listing.
    at: Instant,
}

/// Nothing can be delivered now.
#[derive(Clone, Debug)]
struct Idle {
    /// When the next home is due; none while all are.
    until: Option<Instant>,
    /// The homes that are due and unreachable.
    unreachable: Vec<NodeId>,
}

impl Idle {
    /// When to try again without a further input. Unreachable homes are tried as soon as those that could not take
    /// everything.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let soon = now + AGAIN_AFTER / 4;
        if self.unreachable.is_empty() { self.until.map(|until| until.max(soon)) } else { Some(soon) }
    }
}

/// The state of hinted handoff on one shard.
#[derive(Debug, Default)]
pub struct Handoff {
    pending: Option<Pending>,
    waiting_for: Option<StoreId>,
    /// Entries whose records are to be read, for the count of number `uncounted_in`.
    uncounted: VecDeque<Bytes>,
    uncounted_in: u64,
    /// The deliveries that come next.
    due: VecDeque<(Key, NodeId)>,
    homes: BTreeMap<NodeId, Home>,
    /// Whether `homes` includes all members.
    members_known: bool,
    /// Set while no home that is due is reachable. Until another home is due or something changes, the homes are not
    /// gone through again.
    idle: Option<Idle>,
    /// No task before this time: a store command has failed.
    pause_until: Instant,
    wake_at: Option<Instant>,
}

impl Handoff {
    /// When to ask for the next task without a further input.
    pub const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The store command that [`Self::next`] last returned has this id.
    pub const fn begun(&mut self, id: StoreId) {
        self.waiting_for = Some(id);
    }

    /// The member list has changed.
    pub fn members_changed(&mut self) {
        self.members_known = false;
        self.recheck_homes();
    }

    /// Checks all homes again: one may have become reachable or due.
    pub fn recheck_homes(&mut self) {
        self.idle = None;
    }

    /// The next task. `room` is how many more keys may be handed over, `may_count` whether the count may go on, and
    /// `at_once` with how many entries a home may be tried now, from none to [`PAGE`].
    pub fn next(
        &mut self,
        now: Instant,
        room: usize,
        may_count: impl FnOnce() -> bool,
        mut at_once: impl FnMut(NodeId) -> usize,
        members: impl Iterator<Item = NodeId>,
        book: &HintBook,
    ) -> Option<HandoffTask> {
        self.wake_at = None;
        if self.waiting_for.is_some() {
            return None;
        }
        if now < self.pause_until {
            self.wake_at = Some(self.pause_until);
            return None;
        }
        if let Some(upto) = book.counted_upto()
            && may_count()
        {
            return Some(self.count(upto.clone(), book.count_number()));
        }
        if room == 0 {
            return None;
        }
        if let Some((key, home)) = self.due.pop_front() {
            return Some(HandoffTask::HandOver(key, home));
        }
        if let Some(idle) = &self.idle
            && idle.until.is_none_or(|until| now < until)
        {
            // At most one home is tried in a step: a positive result of `at_once` counts as an attempt.
            let mut unreachable = idle.unreachable.iter().map(|&home| (home, at_once(home)));
            let Some((home, entries_max)) = unreachable.find(|&(_, entries_max)| entries_max > 0) else {
                self.wake_at = idle.wake_at(now);
                return None;
            };
            return self.list_home(home, entries_max);
        }
        if !self.members_known {
            self.members_known = true;
            members.for_each(|home| self.note(now, home));
        }
        book.owed().for_each(|(home, _)| self.note(now, home));
        self.list(now, at_once)
    }

    fn note(&mut self, now: Instant, home: NodeId) {
        self.homes.entry(home).or_insert_with(|| Home { from: hint::first(home), at: now });
    }

    fn count(&mut self, from: Bytes, number: u64) -> HandoffTask {
        // A listing for a count that was broken off does not cover all of this one.
        if self.uncounted_in == number
            && let Some(entry) = self.uncounted.pop_front()
            && entry >= from
        {
            // The count must get past an entry that is not a hint, too. It names no key, so the read finds nothing.
            let storage_key = hint::parse(&entry).map_or_else(|| entry.clone(), |(_, storage_key)| storage_key);
            self.pending = Some(Pending::Size(number, entry));
            return HandoffTask::Count(StoreCommand::Read { storage_key }, RECORDS_IN_A_READ);
        }
        self.uncounted.clear();
        self.pending = Some(Pending::ToCount(number));
        HandoffTask::Count(StoreCommand::ScanIndex { from, upto: hint::all().1, entries_max: PAGE }, PAGE)
    }

    fn list(&mut self, now: Instant, mut at_once: impl FnMut(NodeId) -> usize) -> Option<HandoffTask> {
        let is_due = |home: &Home| home.at <= now;
        let due: Vec<NodeId> = self.homes.iter().filter(|(_, home)| is_due(home)).map(|(&node, _)| node).collect();
        let mut found = due.iter().map(|&node| (node, at_once(node)));
        let Some((node, entries_max)) = found.find(|&(_, entries_max)| entries_max > 0) else {
            let later = self.homes.values().filter(|home| !is_due(home)).map(|home| home.at);
            let idle = Idle { until: later.min(), unreachable: due };
            self.wake_at = idle.wake_at(now);
            self.idle = Some(idle);
            return None;
        };
        self.list_home(node, entries_max)
    }

    /// Lists the next entries of a home.
    fn list_home(&mut self, node: NodeId, entries_max: usize) -> Option<HandoffTask> {
        let (from, upto) = (self.homes.get(&node)?.from.clone(), hint::end(node));
        self.pending = Some(Pending::Owed(node, entries_max));
        Some(HandoffTask::Store(StoreCommand::ScanIndex { from, upto, entries_max }))
    }

    /// Takes in the result of a store command; returns it if the command was not of this module.
    pub fn stored(
        &mut self,
        now: Instant,
        id: StoreId,
        result: StoreResult,
        book: &mut HintBook,
    ) -> Option<StoreResult> {
        if self.waiting_for != Some(id) {
            return Some(result);
        }
        self.waiting_for = None;
        self.recheck_homes();
        match (self.pending.take(), result) {
            // A result for a count that was broken off means nothing.
            (Some(Pending::ToCount(number) | Pending::Size(number, _)), _) if number != book.count_number() => {}
            (Some(Pending::ToCount(number)), StoreResult::Listed(Ok(entries))) => {
                if entries.is_empty() {
                    book.all_counted();
                }
                (self.uncounted, self.uncounted_in) = (entries.into(), number);
            }
            // A damaged record is lost, so it is owed to no home. A record that cannot be read now is read again later.
            (Some(Pending::Size(_, entry)), StoreResult::Read(Err(ReadFailed::Unreadable))) => {
                self.uncounted.push_front(entry);
                self.pause_until = now + AGAIN_AFTER;
            }
            (Some(Pending::Size(_, entry)), StoreResult::Read(read)) => {
                let bytes = read.ok().flatten();
                let since = bytes.as_ref().and_then(|bytes| owed_since(bytes, &entry));
                book.count(&entry, since.map(|since| (bytes.map_or(0, |bytes| bytes.len()), since)));
            }
            (Some(Pending::Owed(node, page)), StoreResult::Listed(Ok(entries))) => {
                let again =
                    if entries.is_empty() && book.owed_to(node).records == 0 { CHECK_EVERY } else { AGAIN_AFTER };
                self.listed(now + again, node, page, &entries);
            }
            _ => self.pause_until = now + AGAIN_AFTER,
        }
        None
    }

    fn listed(&mut self, again_at: Instant, node: NodeId, page: usize, entries: &[Bytes]) {
        let Some(home) = self.homes.get_mut(&node) else { return };
        match entries.last() {
            Some(last) if entries.len() >= page => home.from = hint::after(last),
            _ => *home = Home { from: hint::first(node), at: again_at },
        }
        let keys = entries.iter().filter_map(|entry| Key::from_storage_key(&hint::parse(entry)?.1).ok());
        self.due.extend(keys.map(|key| (key, node)));
    }
}

/// Since when the record of an entry has been owed to its home.
fn owed_since(record: &Bytes, entry: &Bytes) -> Option<Epoch> {
    let (home, storage_key) = hint::parse(entry)?;
    Record::decode(record, &storage_key).ok()?.header.owed.get(&home).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(handoff: &mut Handoff, book: &HintBook) -> Option<StoreCommand> {
        match handoff.next(Instant(1), 1, || true, |_| PAGE, [].into_iter(), book) {
            Some(HandoffTask::Store(command) | HandoffTask::Count(command, _)) => Some(command),
            _ => None,
        }
    }

    fn end(handoff: &mut Handoff, book: &mut HintBook, result: StoreResult) {
        handoff.begun(StoreId(1));
        assert!(handoff.stored(Instant(1), StoreId(1), result, book).is_none());
    }

    #[test]
    fn a_count_that_is_broken_off_begins_anew_from_the_first_entry() {
        let (mut handoff, mut book) = (Handoff::default(), HintBook::new(u64::MAX));
        let entries: Vec<Bytes> = [1, 2].map(|home| hint::entry(NodeId::new(home), b"key")).into();
        let first = next(&mut handoff, &book).unwrap();
        end(&mut handoff, &mut book, StoreResult::Listed(Ok(entries)));
        assert!(matches!(next(&mut handoff, &book), Some(StoreCommand::Read { .. })));
        end(&mut handoff, &mut book, StoreResult::Read(Ok(None)));
        // A store write has failed, so the count may be wrong.
        book.recount();
        assert_eq!(next(&mut handoff, &book), Some(first));
    }
}
