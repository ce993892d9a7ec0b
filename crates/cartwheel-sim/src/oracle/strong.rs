//! Checks of keys with strong requests only: they must be linearizable.
//!
//! A key of a `siblings` bucket is a set of live writes. A put removes what it had been shown and adds itself. A get returns the set, including
//! tombstones that are not collected yet. A write with all its attempts is one operation.
//!
//! A key of an `lww` bucket is a register. It does not remember which write it holds, so each attempt is an operation of its own that may have
//! happened or not.

use cartwheel_core::cluster::membership::Conflict;

use super::accounts::Accounts;
use super::{END, Verdict, failure};
use crate::history::{Fate, KeyHistory, Moment, Shown, WriteSet};
use crate::linear::{self, Interval, Linearity, Model};

/// The most attempts of one write that are distinguished. Each is one more operation that may have happened at any time.
const TRIES_MAX: usize = 3;

const CONFIGURATIONS_MAX: usize = 200_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    /// A write that replaces these writes.
    Put(usize, WriteSet),
    /// A read that showed these writes.
    Get(WriteSet),
    /// A delete that found nothing to delete.
    FindNothing,
}

struct Key {
    conflict: Conflict,
    /// Deletes, and values that may have expired.
    tombstones: WriteSet,
    /// The tombstones that may be garbage collected during the run.
    collected: WriteSet,
}

impl Model for Key {
    type State = WriteSet;
    type Operation = Operation;

    fn initial(&self) -> WriteSet {
        WriteSet::EMPTY
    }

    fn apply(&self, live: &WriteSet, operation: &Operation) -> Option<WriteSet> {
        match (operation, self.conflict) {
            (Operation::Put(write, shown), Conflict::Siblings) => {
                Some(live.without(*shown).union(WriteSet::of(*write)))
            }
            (Operation::Put(write, _), Conflict::Lww) => Some(WriteSet::of(*write)),
            (Operation::Get(shown), _) => {
                let is_live =
                    live.without(*shown).without(self.collected).is_empty() && shown.without(*live).is_empty();
                is_live.then_some(*live)
            }
            (Operation::FindNothing, _) => live.without(self.tombstones).is_empty().then_some(*live),
        }
    }
}

/// Searches for a linear order of a key's history.
pub fn check(history: &KeyHistory) -> Verdict {
    let Some(operations) = operations(history) else {
        return Verdict { inconclusive: true, ..Verdict::default() };
    };
    let deletes = history.writes.iter().enumerate();
    let tombstones = deletes
        .filter(|(_, write)| {
            write.content == cartwheel_core::value::state::Content::Tombstone || write.expires.is_some()
        })
        .map(|(index, _)| index)
        .collect();
    let is_collected = |&index: &usize| history.writes[index].may_be_collected(u64::MAX);
    let collected = (0..history.writes.len()).filter(is_collected).collect();
    let model = Key { conflict: history.conflict, tombstones, collected };
    match linear::check(&model, &operations, CONFIGURATIONS_MAX) {
        Linearity::Linear => Verdict::default(),
        Linearity::GaveUp => Verdict { inconclusive: true, ..Verdict::default() },
        Linearity::NotLinear => {
            let (order, culprit) = first_bad(&model, &operations);
            let at = moment_of(history, order);
            let message = format!(
                "no order of the operations explains the answers up to this one: {}",
                culprit.map_or_else(String::new, |operation| describe(history, operation))
            );
            Verdict {
                failure: Some(failure(history, "strong requests are linearizable", at, message)),
                inconclusive: false,
            }
        }
    }
}

/// The key's operations; `None` if it is not known what one of them replaced.
fn operations(history: &KeyHistory) -> Option<Vec<Interval<Operation>>> {
    let accounts = Accounts::new(history, None);
    let reads = || history.reads.iter().filter(|read| read.strong);
    // What a delete without a context saw counts too, though no client was shown it.
    let replaced = accounts.gone((0..history.writes.len()).collect());
    let observed = history.reads.iter().fold(replaced, |set, read| set.union(history.writes_of(&read.siblings)));
    let mut operations = Vec::new();
    for (index, write) in history.writes.iter().enumerate() {
        let operation = match (write.fate, &write.shown) {
            (Fate::Refused, _) => continue,
            // No read showed it and no write replaced it, so leaving it out changes nothing.
            (Fate::Unknown, _) if !observed.contains(index) && !write.may_be_collected(u64::MAX) => continue,
            (Fate::FoundNothing { .. }, _) if write.attempts > 1 => return None,
            (Fate::FoundNothing { .. }, _) => Operation::FindNothing,
            (_, Shown::Writes(shown)) => Operation::Put(index, *shown),
            (_, _) if history.conflict == Conflict::Lww => Operation::Put(index, WriteSet::EMPTY),
            (_, Shown::Names(_)) if accounts.is_exact(index) => Operation::Put(index, accounts.replaced_by(index)),
            (_, _) => return None,
        };
        let answered = write.answered().map(|at| at.order);
        operations.push(Interval { invoked: write.invoked.order, answered, operation });
        if history.conflict == Conflict::Lww && matches!(operation, Operation::Put(..)) {
            for _ in 1..write.tries().min(TRIES_MAX) {
                operations.push(Interval { invoked: write.invoked.order, answered: None, operation });
            }
        }
    }
    for read in reads() {
        let operation = Operation::Get(history.writes_of(&read.siblings));
        operations.push(Interval { invoked: read.invoked.order, answered: Some(read.answered.order), operation });
    }
    operations.sort_by_key(|interval| interval.invoked);
    Some(operations)
}

/// The first response that no linear order explains.
fn first_bad(model: &Key, operations: &[Interval<Operation>]) -> (u64, Option<Operation>) {
    let mut responses: Vec<(u64, Operation)> =
        operations.iter().filter_map(|interval| Some((interval.answered?, interval.operation))).collect();
    responses.sort_by_key(|(answered, _)| *answered);
    for (until, operation) in responses {
        let prefix: Vec<Interval<Operation>> = operations
            .iter()
            .filter(|interval| interval.invoked <= until)
            .map(|interval| Interval {
                answered: interval.answered.filter(|answered| *answered <= until),
                ..interval.clone()
            })
            // A read without a response constrains nothing.
            .filter(|interval| interval.answered.is_some() || matches!(interval.operation, Operation::Put(..)))
            .collect();
        if linear::check(model, &prefix, CONFIGURATIONS_MAX) == Linearity::NotLinear {
            return (until, Some(operation));
        }
    }
    (u64::MAX, None)
}

/// When the response with this position in the run's order came.
fn moment_of(history: &KeyHistory, order: u64) -> Moment {
    let reads = history.reads.iter().map(|read| read.answered);
    let writes = history.writes.iter().filter_map(|write| write.answered());
    reads.chain(writes).find(|moment| moment.order == order).unwrap_or(END)
}

fn describe(history: &KeyHistory, operation: Operation) -> String {
    match operation {
        Operation::Put(index, shown) => format!("the put of {}, shown {}", history.name(index), history.names(shown)),
        Operation::Get(shown) => format!("a get that shows {}", history.names(shown)),
        Operation::FindNothing => "a delete that found nothing".to_owned(),
    }
}
