//! Which hints are due: what is kept for homes that are there again goes to them (paper, section 4.6).
//!
//! The index is gone through home by home, a page at a time. After a start, and after a write whose outcome is not known, it is also gone
//! through as a whole, to know how much there is. Hundreds of thousands of entries may be there, so each step of that waits for the
//! admission controller; meanwhile hints are handed over.

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

/// How many entries of the index are read at once.
pub const PAGE: usize = 64;
/// To read one record by its key takes about as long as to scan so many.
const RECORDS_IN_A_READ: usize = 2;
/// How long a home that still is owed something after all was tried is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often it is looked whether there is anything for a home to which nothing is owed as far as is known: a write that failed may
/// have been carried out.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is to be done next.
#[derive(Debug)]
pub enum HandoffTask {
    /// A command for the store that lists hints of a home; [`Handoff::begun`] is told its number.
    Store(StoreCommand),
    /// One that counts hints, and reads about as many records as this; likewise.
    Count(StoreCommand, usize),
    /// What is kept of a key goes to a home.
    HandOver(Key, NodeId),
}

/// What a command of its own was for.
#[derive(Clone, Debug)]
enum Asked {
    /// The next entries, to be counted in the count of this number.
    ToCount(u64),
    /// The record of an entry, likewise.
    Size(u64, Bytes),
    /// So many of the next entries of a home.
    Owed(NodeId, usize),
}

#[derive(Clone, Debug)]
struct Home {
    /// Where its entries are gone on with.
    from: Bytes,
    /// Not before this.
    at: Instant,
}

/// Why there is nothing to do.
#[derive(Clone, Debug)]
struct Idle {
    /// When the next home is due; none while all are.
    until: Option<Instant>,
    /// Those that are due and were not to be tried.
    unreachable: Vec<NodeId>,
}

impl Idle {
    /// When there may be something to do that no input tells of: those that are not there now are looked after as often as those that
    /// could not take everything.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let soon = now + AGAIN_AFTER / 4;
        if self.unreachable.is_empty() { self.until.map(|until| until.max(soon)) } else { Some(soon) }
    }
}

/// The hints that are being gone through.
#[derive(Debug, Default)]
pub struct Handoff {
    asked: Option<Asked>,
    waiting_for: Option<StoreId>,
    /// Entries whose records are to be counted, in the count of this number.
    uncounted: VecDeque<Bytes>,
    uncounted_in: u64,
    /// Keys that are to be handed over next.
    due: VecDeque<(Key, NodeId)>,
    homes: BTreeMap<NodeId, Home>,
    /// The members are among them.
    members_known: bool,
    /// None of them could be looked after. Until more of them are due they are not gone through again, unless something changes.
    idle: Option<Idle>,
    /// After a store that failed.
    pause_until: Instant,
    wake_at: Option<Instant>,
}

impl Handoff {
    /// When there may be something to do that no other input tells of.
    pub const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The command last given out has this number.
    pub const fn begun(&mut self, id: StoreId) {
        self.waiting_for = Some(id);
    }

    /// The members are others from now on.
    pub fn members_changed(&mut self) {
        self.members_known = false;
        self.look_again();
    }

    /// Something has changed that may make a home due: who is there.
    pub fn look_again(&mut self) {
        self.idle = None;
    }

    /// The next thing to do at `now`, if so many keys may be handed over beside those that are being handed over, and hints may be
    /// counted if `may_count` says so. `at_once` says how many a home is to be tried with, from none to [`PAGE`].
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
            // Asked once a step: to be told that a home may be tried is to try it.
            let mut unreachable = idle.unreachable.iter().map(|&home| (home, at_once(home)));
            let Some((home, entries_max)) = unreachable.find(|&(_, entries_max)| entries_max > 0) else {
                self.wake_at = idle.wake_at(now);
                return None;
            };
            return self.look_at(home, entries_max);
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
        // What was listed for a count that was broken off is not all that is to be counted in this one.
        if self.uncounted_in == number
            && let Some(entry) = self.uncounted.pop_front()
            && entry >= from
        {
            // One that is no hint's must be got past too: it is nobody's key, so nothing is found.
            let storage_key = hint::parse(&entry).map_or_else(|| entry.clone(), |(_, storage_key)| storage_key);
            self.asked = Some(Asked::Size(number, entry));
            return HandoffTask::Count(StoreCommand::Read { storage_key }, RECORDS_IN_A_READ);
        }
        self.uncounted.clear();
        self.asked = Some(Asked::ToCount(number));
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
        self.look_at(node, entries_max)
    }

    /// Goes on with the entries of a home.
    fn look_at(&mut self, node: NodeId, entries_max: usize) -> Option<HandoffTask> {
        let (from, upto) = (self.homes.get(&node)?.from.clone(), hint::end(node));
        self.asked = Some(Asked::Owed(node, entries_max));
        Some(HandoffTask::Store(StoreCommand::ScanIndex { from, upto, entries_max }))
    }

    /// Takes in the end of a store command; gives it back if it was none of this.
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
        self.look_again();
        match (self.asked.take(), result) {
            // What was asked for a count that was broken off says nothing.
            (Some(Asked::ToCount(number) | Asked::Size(number, _)), _) if number != book.count_number() => {}
            (Some(Asked::ToCount(number)), StoreResult::Listed(Ok(entries))) => {
                if entries.is_empty() {
                    book.all_counted();
                }
                (self.uncounted, self.uncounted_in) = (entries.into(), number);
            }
            // One that is damaged is lost, and owed to nobody. One that only cannot be read now is looked at again.
            (Some(Asked::Size(_, entry)), StoreResult::Read(Err(ReadFailed::Unreadable))) => {
                self.uncounted.push_front(entry);
                self.pause_until = now + AGAIN_AFTER;
            }
            (Some(Asked::Size(_, entry)), StoreResult::Read(read)) => {
                let bytes = read.ok().flatten();
                let since = bytes.as_ref().and_then(|bytes| owed_since(bytes, &entry));
                book.count(&entry, since.map(|since| (bytes.map_or(0, |bytes| bytes.len()), since)));
            }
            (Some(Asked::Owed(node, page)), StoreResult::Listed(Ok(entries))) => {
                let again =
                    if entries.is_empty() && book.owed_to(node).records == 0 { LOOK_EVERY } else { AGAIN_AFTER };
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

/// Since when a record is owed to the home of an entry.
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
        let whole = next(&mut handoff, &book).unwrap();
        end(&mut handoff, &mut book, StoreResult::Listed(Ok(entries)));
        assert!(matches!(next(&mut handoff, &book), Some(StoreCommand::Read { .. })));
        end(&mut handoff, &mut book, StoreResult::Read(Ok(None)));
        // A write has failed: what was counted may be wrong.
        book.recount();
        assert_eq!(next(&mut handoff, &book), Some(whole));
    }
}
