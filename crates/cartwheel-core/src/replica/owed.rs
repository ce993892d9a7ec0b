//! What a record is kept for: the home replicas that it is owed to, and what it has to forget.

use bytes::Bytes;

use super::{HandedOver, Replica};
use crate::message::StateDigest;
use crate::mutation::Mutation;
use crate::replica::gc;
use crate::store::command::IndexChange;
use crate::store::gc_due::GcDue;
use crate::store::record::Record;
use crate::value::dot::{NodeId, Since};
use crate::value::key::Key;

/// How the index changes with the time at which a record is to be looked after.
pub(super) fn look_changes(
    storage_key: &[u8],
    before: Option<GcDue>,
    after: Option<GcDue>,
    looked: Vec<Bytes>,
) -> Vec<IndexChange> {
    let after = after.map(|look| look.entry(storage_key));
    let before = before.map(|look| look.entry(storage_key));
    let mut changes: Vec<IndexChange> = Vec::new();
    for gone in looked.into_iter().chain(before.clone()).filter(|entry| Some(entry) != after.as_ref()) {
        changes.push(IndexChange::Remove(gone));
    }
    changes.extend(after.filter(|entry| Some(entry) != before.as_ref()).map(IndexChange::Add));
    changes
}

impl Replica {
    /// The home that a write is to be kept for here, if any: a home of every list needs no hint, as it is compared with the others.
    pub(super) fn to_be_owed(&self, key: &Key, stands_in_for: Option<NodeId>) -> Option<NodeId> {
        stands_in_for.filter(|&home| !self.is_home(key) || self.held.may_stand_in(key, home))
    }

    /// Notes that the record is kept for a home; true if that is new.
    pub(super) fn owe(&self, record: &mut Record, home: Option<NodeId>) -> bool {
        let Some(home) = home.filter(|home| !record.header.owed.contains_key(home)) else { return false };
        if !self.broken.is(Mutation::HintDropped) {
            record.header.owed.insert(home, self.epoch);
        }
        !self.broken.is(Mutation::HintDropped)
    }

    /// A home has the state that was sent to it. Only if that is what is held now is nothing owed to it any more.
    pub(super) fn settle_debt(&self, record: &mut Record, handed: &HandedOver) -> bool {
        let Some(&since) = record.header.owed.get(&handed.to) else {
            return true;
        };
        match handed.stored {
            Some(stored) => {
                let is_same =
                    StateDigest::of(&record.state) == stored || self.broken.is(Mutation::HintDroppedThoughNewer);
                is_same && record.header.owed.remove(&handed.to).is_some()
            }
            // Whoever the homes are now, some of them may lack it. While this node does not know them the debt stays.
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

    /// Whether a record says anything that its absence would not.
    pub(super) fn is_kept(&self, key: &Key, record: &Record) -> bool {
        let header = &record.header;
        if !header.owed.is_empty() || !self.keeps(key) {
            return !header.owed.is_empty();
        }
        let counts_absent = self.loss_floor == Since(0) || self.is_recovered(key);
        !record.state.is_empty() || header.recovering.is_some() || !counts_absent
    }

    /// When a record is to be looked after that was looked after now by the entries `looked`. An entry that is there already will do
    /// if it is early enough: so a record that changes all the time costs the index one change in some epochs.
    pub(super) fn next_look(&self, record: &Record, looked: &[Bytes]) -> Option<GcDue> {
        let is_over = |look: &GcDue| looked.iter().any(|entry| entry.starts_with(&look.first()));
        let planned = record.header.look.filter(|look| !is_over(look));
        match (planned, gc::next_look(record, self.epoch)) {
            (Some(planned), Some(next)) => Some(planned.min(next)),
            (planned, next) => next.or(planned),
        }
    }
}
