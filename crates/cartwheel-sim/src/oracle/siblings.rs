//! Checks of buckets that show concurrent writes as siblings.
//!
//! Every acknowledged write is present at the end, or was replaced by a write that had been shown it and that is itself present or replaced. No
//! replaced write comes back. The same holds of each read, for the writes that it must see.

use cartwheel_core::value::state::State;

use super::accounts::Accounts;
use super::{END, failure, must_meet};
use crate::failure::Failure;
use crate::history::{Fate, KeyHistory, Moment, Read, Shown, Write, WriteSet};

/// Checks all reads of a key, and what its replicas hold at the end.
///
/// # Errors
/// The first violation.
pub fn check(history: &KeyHistory, end: Option<&State>) -> Result<(), Box<Failure>> {
    let accounts = Accounts::new(history, end);
    for read in &history.reads {
        check_read(history, &accounts, read)?;
    }
    end.map_or(Ok(()), |end| check_end(history, &accounts, end))
}

fn check_read(history: &KeyHistory, accounts: &Accounts, read: &Read) -> Result<(), Box<Failure>> {
    check_written(history, read)?;
    let shown = history.writes_of(&read.siblings);
    if shown.iter().count() != read.siblings.len() {
        let message = format!("a read shows one write twice among {}", history.names(shown));
        return Err(failure(history, "a write is shown once", read.answered, message));
    }
    let accounted = accounts.accounted(shown.union(repeated_deletes(history)).union(collected(history, read.answered)));
    let missing = known_to(history, read).without(accounted);
    if !missing.is_empty() {
        let message = format!(
            "a read shows {}; acknowledged before it began and not accounted for: {}",
            history.names(shown),
            history.names(missing)
        );
        return Err(failure(history, "a read shows acknowledged writes", read.answered, message));
    }
    let unseen = read.seen.without(accounted);
    if !unseen.is_empty() {
        let message = format!(
            "a read shows {}; its context had shown, and nothing accounts for, {}",
            history.names(shown),
            history.names(unseen)
        );
        return Err(failure(history, "a read covers its context", read.answered, message));
    }
    // A state that has the shown writes has replaced what these had been shown. So has a state with the writes that the read must see.
    let back = shown.intersection(accounts.gone(shown.union(known_to(history, read))));
    if !back.is_empty() {
        let message = format!("a read shows {}; already replaced: {}", history.names(shown), history.names(back));
        return Err(failure(history, "a replaced write is not shown again", read.answered, message));
    }
    Ok(())
}

/// Deletes without a context that had several attempts. Each attempt deletes what it sees itself. So one of them may have deleted the tombstone of
/// another client's delete, which had deleted an earlier attempt's: then both tombstones are gone. Nothing is lost by that, because a tombstone
/// says no more than its dots do.
fn repeated_deletes(history: &KeyHistory) -> WriteSet {
    let is_repeated = |write: &Write| {
        let happened = !matches!(write.fate, Fate::Refused | Fate::FoundNothing { .. });
        happened && write.attempts > 1 && !matches!(write.shown, Shown::Writes(_))
    };
    history.writes.iter().enumerate().filter(|(_, write)| is_repeated(write)).map(|(index, _)| index).collect()
}

/// Deletes that may have been garbage collected.
fn collected(history: &KeyHistory, at: Moment) -> WriteSet {
    let writes = history.writes.iter().enumerate();
    writes.filter(|(_, write)| write.may_be_collected(at.at_us)).map(|(index, _)| index).collect()
}

/// The writes that a read must see.
fn known_to(history: &KeyHistory, read: &Read) -> WriteSet {
    let known = |fate: Fate| match fate {
        Fate::Acknowledged { at, w, .. } => at < read.invoked && must_meet(history, read.r, w),
        _ => false,
    };
    history.writes.iter().enumerate().filter(|(_, write)| known(write.fate)).map(|(index, _)| index).collect()
}

/// Checks that everything shown was written, and not by a write that was refused.
pub(super) fn check_written(history: &KeyHistory, read: &Read) -> Result<(), Box<Failure>> {
    for sibling in &read.siblings {
        match history.write_of(sibling) {
            None => {
                let message = format!("a read shows {sibling:?}");
                return Err(failure(history, "only written values are shown", read.answered, message));
            }
            Some(index) if history.writes[index].fate == Fate::Refused => {
                let message = format!("a read shows {}, which was refused", history.name(index));
                return Err(failure(history, "a refused write is not stored", read.answered, message));
            }
            Some(index) if history.writes[index].invoked > read.answered => {
                let message = format!("a read shows {}, which was written later", history.name(index));
                return Err(failure(history, "only written values are shown", read.answered, message));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_end(history: &KeyHistory, accounts: &Accounts, end: &State) -> Result<(), Box<Failure>> {
    check_end_written(history, end)?;
    let present = history.writes_of(end.distinct_siblings());
    let acknowledged: WriteSet =
        (0..history.writes.len()).filter(|&index| history.writes[index].acknowledged().is_some()).collect();
    let lost = acknowledged
        .without(accounts.accounted(present.union(repeated_deletes(history)).union(collected(history, END))));
    if !lost.is_empty() {
        let message =
            format!("in the end there is {}; acknowledged and lost: {}", history.names(present), history.names(lost));
        return Err(failure(history, "no acknowledged write is lost", END, message));
    }
    let shown = history.reads.iter().fold(WriteSet::EMPTY, |set, read| set.union(history.writes_of(&read.siblings)));
    let back = present.intersection(accounts.gone(acknowledged.union(shown).union(present)));
    if !back.is_empty() {
        let message =
            format!("in the end there is {}; already replaced: {}", history.names(present), history.names(back));
        return Err(failure(history, "a replaced write does not come back", END, message));
    }
    Ok(())
}

/// Checks that everything held at the end was written, and not by a write that was refused.
pub(super) fn check_end_written(history: &KeyHistory, end: &State) -> Result<(), Box<Failure>> {
    for sibling in end.siblings() {
        let Some(index) = history.write_of(sibling) else {
            let message = format!("in the end there is {sibling:?}");
            return Err(failure(history, "only written values are held", END, message));
        };
        if history.writes[index].fate == Fate::Refused {
            let message = format!("in the end there is {}, which was refused", history.name(index));
            return Err(failure(history, "a refused write is not stored", END, message));
        }
    }
    Ok(())
}
