//! Why a record is kept: hints for home replicas, and the record's entries for garbage collection and in the index of its bucket.

use bytes::Bytes;

use super::{HandedOver, Replica};
use crate::mutation::Mutation;
use crate::replica::gc;
use crate::store::command::IndexChange;
use crate::store::gc_due::GcDue;
use crate::store::key_index;
use crate::store::record::Record;
use crate::value::dot::{NodeId, Since};
use crate::value::key::Key;

/// The changes of the index when the time of a record's garbage collection changes.
pub(super) fn gc_due_changes(
    storage_key: &[u8],
    before: Option<GcDue>,
    after: Option<GcDue>,
    entries: Vec<Bytes>,
) -> Vec<IndexChange> {
    let after = after.map(|due| due.entry(storage_key));
    let before = before.map(|due| due.entry(storage_key));
    let mut changes: Vec<IndexChange> = Vec::new();
    for gone in entries.into_iter().chain(before.clone()).filter(|entry| Some(entry) != after.as_ref()) {
        changes.push(IndexChange::Remove(gone));
    }
    changes.extend(after.filter(|entry| Some(entry) != before.as_ref()).map(IndexChange::Add));
    changes
}

/// The change of the index when a key becomes live or ends to be. `before`: whether it has an entry, if that is known.
pub(super) fn listing_change(key: &Key, before: Option<bool>, after: bool) -> Option<IndexChange> {
    if before == Some(after) {
        return None;
    }
    let entry = key_index::entry(key);
    Some(if after { IndexChange::Add(entry) } else { IndexChange::Remove(entry) })
}

impl Replica {
    /// The home for which a write must be kept here, if any. A home of every list needs no hint, because it takes part in exchanges.
    pub(super) fn hint_home(&self, key: &Key, stands_in_for: Option<NodeId>) -> Option<NodeId> {
        stands_in_for.filter(|&home| !self.is_home(key) || self.held.may_stand_in(key, home))
    }

    /// Notes that the record is kept for a home. Returns whether that is new.
    pub(super) fn owe(&self, record: &mut Record, home: Option<NodeId>) -> bool {
        let Some(home) = home.filter(|home| !record.header.owed.contains_key(home)) else { return false };
        if !self.broken.is(Mutation::HintDropped) {
            record.header.owed.insert(home, self.epoch);
        }
        !self.broken.is(Mutation::HintDropped)
    }

    /// Records the result of a hand-over. The hint is dropped only if the home has exactly the state that is held now.
    pub(super) fn settle_debt(&self, record: &mut Record, handed: &HandedOver) -> bool {
        let Some(&since) = record.header.owed.get(&handed.to) else {
            return true;
        };
        match handed.stored {
            Some(stored) => {
                let is_same = record.state.digest() == stored || self.broken.is(Mutation::HintDroppedThoughNewer);
                is_same && record.header.owed.remove(&handed.to).is_some()
            }
            // Of the present homes, some may lack the record. While this node does not know them, the hint stays.
            None => {
                let is_lost = self.held.knows_no_home_instead_of(&handed.key, handed.to);
                if is_lost && !self.broken.is(Mutation::DebtSettledWithoutHome) {
                    return false;
                }
                let homes = self.held.homes_of(&handed.key).without(self.minter.node()).all();
                record.header.owed.remove(&handed.to);
                for home in homes {
                    record.header.owed.entry(home).or_insert(since);
                }
                true
            }
        }
    }

    /// Whether a record contains anything that its absence would not express.
    pub(super) fn is_kept(&self, key: &Key, record: &Record) -> bool {
        let header = &record.header;
        if self.is_superseded(key) {
            return false;
        }
        if !header.owed.is_empty() || !self.keeps(key) {
            return !header.owed.is_empty();
        }
        let counts_absent = self.loss_floor == Since(0) || self.is_recovered(key);
        !record.state.is_empty() || header.recovering.is_some() || !counts_absent
    }

    /// When a record is due for garbage collection next, after it was collected by the index entries `entries`. An existing entry stays if it is
    /// early enough, so a record that changes all the time costs the index one change in some epochs.
    pub(super) fn next_due(&self, record: &Record, entries: &[Bytes]) -> Option<GcDue> {
        let is_over = |due: &GcDue| entries.iter().any(|entry| entry.starts_with(&due.first()));
        let planned = record.header.gc_due.filter(|due| !is_over(due));
        match (planned, gc::next_due(record, self.epoch)) {
            (Some(planned), Some(next)) => Some(planned.min(next)),
            (planned, next) => next.or(planned),
        }
    }
}
