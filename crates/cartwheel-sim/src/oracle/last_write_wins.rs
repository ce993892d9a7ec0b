//! Checks of buckets in which the last write wins: the one with the greatest (timestamp, dot).
//!
//! Replies show a write's timestamp but not its dot, so nothing is checked between equal timestamps.
//!
//! Timestamps alone do not show that the *last* write won, because they may be wrong themselves. So writes are also checked by their real order,
//! where one was acknowledged before another was invoked ([`precedes`]).

use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::value::state::{Content, Sibling, State};

use super::accounts::Accounts;
use super::siblings::{check_end_written, check_written};
use super::{END, failure, must_meet};
use crate::failure::Failure;
use crate::history::{Fate, KeyHistory, Moment, Read, Write, WriteSet};

/// More than a request takes with all its attempts.
const REQUEST_MAX_US: u64 = 20_000_000;

/// Checks all reads of a key, and what its replicas hold at the end.
///
/// # Errors
/// The first violation.
pub fn check(history: &KeyHistory, end: Option<&State>) -> Result<(), Box<Failure>> {
    let accounts = Accounts::new(history, end);
    for read in &history.reads {
        check_read(history, &accounts, read)?;
    }
    let Some(end) = end else { return Ok(()) };
    check_end_written(history, end)?;
    let acknowledged = |_: Moment, _: u8| true;
    if let Some(message) = order_violation(history, end.latest(), acknowledged) {
        return Err(failure(history, "a later write replaces an earlier one", END, format!("in the end {message}")));
    }
    let latest = replaced_up_to(history, &accounts, end.latest(), END);
    if let Some((index, hlc)) = latest_known(history, |_, _| true).filter(|(_, hlc)| *hlc > latest) {
        let message = format!(
            "in the end there is {}@{latest:?}, but {}@{hlc:?} was acknowledged",
            shown_name(history, end.latest()),
            history.name(index)
        );
        return Err(failure(history, "the last write wins", END, message));
    }
    Ok(())
}

fn check_read(history: &KeyHistory, accounts: &Accounts, read: &Read) -> Result<(), Box<Failure>> {
    check_written(history, read)?;
    if read.siblings.len() > 1 {
        let message = format!("a read shows {}", history.names(history.writes_of(&read.siblings)));
        return Err(failure(history, "an lww read shows one value", read.answered, message));
    }
    let shown = read.siblings.first();
    let is_known = |at: Moment, w: u8| at < read.invoked && must_meet(history, read.r, w);
    if let Some(message) = order_violation(history, shown, is_known) {
        return Err(failure(history, "a later write replaces an earlier one", read.answered, message));
    }
    let latest = replaced_up_to(history, accounts, shown, read.answered);
    let before = latest_known(history, |at, w| at < read.invoked && must_meet(history, read.r, w));
    if let Some((index, hlc)) = before.filter(|(_, hlc)| *hlc > latest) {
        let message = format!(
            "a read shows {}@{latest:?}, but {}@{hlc:?} was acknowledged before it began",
            shown_name(history, shown),
            history.name(index)
        );
        return Err(failure(history, "a read shows acknowledged writes", read.answered, message));
    }
    let seen = seen_stamp(history, read);
    if latest < seen {
        let name = shown_name(history, shown);
        let message = format!("a read shows {name}@{latest:?}, but its context had shown {seen:?}");
        return Err(failure(history, "a read covers its context", read.answered, message));
    }
    Ok(())
}

/// The violation if `shown` is the present value although all acknowledged writes were known that `is_known` selects by moment and number of homes:
/// one of them replaces `shown`; or nothing is shown, and no write that came after one of them can have deleted its value.
fn order_violation(
    history: &KeyHistory,
    shown: Option<&Sibling>,
    is_known: impl Fn(Moment, u8) -> bool,
) -> Option<String> {
    let is_known = |write: &Write| matches!(write.fate, Fate::Acknowledged { at, w, .. } if is_known(at, w));
    let mut known = history.writes.iter().enumerate().filter(|(_, write)| is_known(write));
    let Some(shown) = shown else {
        let (index, _) = known.find(|(index, write)| is_permanent(history, *index, write))?;
        return Some(format!("nothing is shown, but {} was written and not deleted after that", history.name(index)));
    };
    let first = history.write_of(shown)?;
    // A delete shows what no value shows: a later value may have been deleted too, and its tombstone collected.
    let is_another =
        |index: usize, later: &Write| shown.content != Content::Tombstone || is_permanent(history, index, later);
    let original = original(history, first)?;
    let (later, _) = known.find(|&(index, later)| is_another(index, later) && precedes(history, original, later))?;
    let (first, later) = (history.name(first), history.name(later));
    Some(format!("{first} is shown, but {later} was invoked after {first} was acknowledged, and was acknowledged too"))
}

/// The write that a write rewrites, or that write in its turn; the write itself if it rewrites none. Nothing if it is not known which one that is, or
/// if that one has several timestamps.
fn original(history: &KeyHistory, index: usize) -> Option<&Write> {
    let mut write = &history.writes[index];
    // Each step leads to a lower timestamp.
    while let Some(rewritten) = write.rewrites {
        write =
            history.writes.iter().find(|write| (write.earliest, write.latest) == (Some(rewritten), Some(rewritten)))?;
    }
    Some(write)
}

/// Whether a value stays: no write that may have come after it deletes it, and no write that expires may have replaced it. A write that rewrites
/// an earlier value cannot.
fn is_permanent(history: &KeyHistory, index: usize, write: &Write) -> bool {
    let goes = |write: &Write| write.content == Content::Tombstone || write.expires.is_some();
    let comes_before = |other: usize| original(history, other).is_some_and(|other| precedes(history, other, write));
    let mut others = history.writes.iter().enumerate().filter(|(other, _)| *other != index);
    let may_replace = |(at, other): (usize, &Write)| other.fate != Fate::Refused && goes(other) && !comes_before(at);
    !goes(write) && !others.any(may_replace)
}

/// Whether `later` must win over `first`, whatever their timestamps: `first` was acknowledged before `later` was invoked, and either no two clocks
/// were so far apart, or the homes that made the dots of `later` held `first`.
///
/// It says nothing of a write with several attempts: one that seemed to have failed may take effect later. Nor of one that rewrites a value: it loses to
/// whatever came after that value.
fn precedes(history: &KeyHistory, first: &Write, later: &Write) -> bool {
    let Fate::Acknowledged { at, w, .. } = first.fate else { return false };
    if at >= later.invoked || first.attempts > 1 || later.rewrites.is_some() {
        return false;
    }
    let is_apart = history.clocks_within_us.is_some_and(|within_us| later.invoked.at_us > at.at_us + within_us);
    let is_held = w >= history.replicas && !history.damaged && !first.may_be_collected(later.invoked.at_us);
    is_apart || (is_held && later.made_at_homes)
}

/// The timestamp that a read must reach: the latest that its context covers. A write with several timestamps counts by its earliest, because a
/// write that replaced it under that has replaced it under all.
fn seen_stamp(history: &KeyHistory, read: &Read) -> Hlc {
    let earliest = read.seen.iter().filter_map(|index| history.writes.get(index)?.earliest).max();
    earliest.map_or(read.seen_hlc, |earliest| earliest.min(read.seen_hlc))
}

/// The timestamp up to which the shown value has replaced everything. That is its own, or the timestamp of another attempt of a write that the
/// shown value has replaced: that attempt has replaced everything earlier, and was replaced together with its write.
fn replaced_up_to(history: &KeyHistory, accounts: &Accounts, shown: Option<&Sibling>, at: Moment) -> Hlc {
    let own = shown.map_or(Hlc::ZERO, |sibling| sibling.hlc).max(collected_up_to(history, shown, at));
    let Some(index) = shown.and_then(|sibling| history.write_of(sibling)) else { return own };
    let replaced = accounts.accounted(WriteSet::of(index)).iter().filter_map(|index| history.writes.get(index));
    let tries = replaced.filter(|write| write.earliest != write.latest).filter_map(|write| write.latest);
    tries.max().unwrap_or_default().max(own)
}

/// The timestamp up to which garbage collected deletes have replaced everything, if nothing is shown, or a write from after the collection. A
/// delete that is shown counts as nothing: of two concurrent deletes, the later one may have been made in an earlier epoch, and is collected first.
fn collected_up_to(history: &KeyHistory, shown: Option<&Sibling>, at: Moment) -> Hlc {
    let shown = shown.filter(|shown| shown.content != Content::Tombstone);
    let shown = shown.and_then(|sibling| history.writes.get(history.write_of(sibling)?));
    let is_after = |delete: &&Write| {
        let is_later = |from_us: u64| shown.is_none_or(|write| write.invoked.at_us + REQUEST_MAX_US >= from_us);
        delete.may_be_collected(at.at_us) && delete.collected_from_us.is_some_and(is_later)
    };
    history.writes.iter().filter(is_after).filter_map(|delete| delete.latest).max().unwrap_or_default()
}

/// The latest of the acknowledged writes that `counts` selects by moment and number of homes.
fn latest_known(history: &KeyHistory, counts: impl Fn(Moment, u8) -> bool) -> Option<(usize, Hlc)> {
    let stamps = history.writes.iter().enumerate().filter_map(|(index, write)| match write.fate {
        Fate::Acknowledged { at, w, hlc: Some(hlc) } if counts(at, w) => {
            Some((index, write.earliest.map_or(hlc, |earliest| earliest.min(hlc))))
        }
        _ => None,
    });
    stamps.max_by_key(|(_, hlc)| *hlc)
}

fn shown_name(history: &KeyHistory, shown: Option<&Sibling>) -> String {
    shown.and_then(|sibling| history.write_of(sibling)).map_or("nothing".to_owned(), |index| history.name(index))
}
