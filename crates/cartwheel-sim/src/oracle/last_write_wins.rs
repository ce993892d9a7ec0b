//! Buckets in which the last write wins: the greatest (timestamp, dot).
//!
//! Replies tell a write's timestamp but not its dot, so between equal timestamps nothing is asked.
//!
//! Timestamps alone do not show that the *last* write won: they may be wrong themselves. So writes are judged by the real order, too, where one was
//! acknowledged before another was asked for ([`precedes`]).

use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::value::state::{Content, Sibling, State};

use super::accounts::Accounts;
use super::siblings::{check_end_written, check_written};
use super::{END, failure, must_meet};
use crate::failure::Failure;
use crate::history::{Fate, KeyHistory, Moment, Read, Write, WriteSet};

/// Longer than a request takes with all its tries.
const REQUEST_MAX_US: u64 = 20_000_000;

/// Checks all reads of a key, and what its replicas hold in the end.
///
/// # Errors
/// The first broken promise.
pub fn check(history: &KeyHistory, end: Option<&State>) -> Result<(), Box<Failure>> {
    let accounts = Accounts::new(history, end);
    for read in &history.reads {
        check_read(history, &accounts, read)?;
    }
    let Some(end) = end else { return Ok(()) };
    check_end_written(history, end)?;
    let acknowledged = |_: Moment, _: u8| true;
    if let Some(message) = outlived(history, end.latest(), acknowledged) {
        return Err(failure(history, "a later write replaces an earlier one", END, format!("in the end {message}")));
    }
    let latest = reach(history, &accounts, end.latest(), END);
    if let Some((place, hlc)) = latest_known(history, |_, _| true).filter(|(_, hlc)| *hlc > latest) {
        let message = format!(
            "in the end there is {}@{latest:?}, but {}@{hlc:?} was acknowledged",
            shown_name(history, end.latest()),
            history.name(place)
        );
        return Err(failure(history, "the last write wins", END, message));
    }
    Ok(())
}

fn check_read(history: &KeyHistory, accounts: &Accounts, read: &Read) -> Result<(), Box<Failure>> {
    check_written(history, read)?;
    if read.siblings.len() > 1 {
        let message = format!("a read shows {}", history.names(history.writes_of(&read.siblings)));
        return Err(failure(history, "one value is shown", read.answered, message));
    }
    let shown = read.siblings.first();
    let is_known = |at: Moment, w: u8| at < read.invoked && must_meet(history, read.r, w);
    if let Some(message) = outlived(history, shown, is_known) {
        return Err(failure(history, "a later write replaces an earlier one", read.answered, message));
    }
    let latest = reach(history, accounts, shown, read.answered);
    let before = latest_known(history, |at, w| at < read.invoked && must_meet(history, read.r, w));
    if let Some((place, hlc)) = before.filter(|(_, hlc)| *hlc > latest) {
        let message = format!(
            "a read shows {}@{latest:?}, but {}@{hlc:?} was acknowledged before it began",
            shown_name(history, shown),
            history.name(place)
        );
        return Err(failure(history, "a read shows what was acknowledged", read.answered, message));
    }
    let seen = seen_stamp(history, read);
    if latest < seen {
        let name = shown_name(history, shown);
        let message = format!("a read shows {name}@{latest:?}, but its context had shown {seen:?}");
        return Err(failure(history, "a session sees what it has seen", read.answered, message));
    }
    Ok(())
}

/// What is wrong if `shown` is what there is though all acknowledged writes were known that `is_known` picks by moment and number of homes: it was
/// replaced by one of them; or nothing is shown, and nothing that came after one of them can have deleted that.
fn outlived(history: &KeyHistory, shown: Option<&Sibling>, is_known: impl Fn(Moment, u8) -> bool) -> Option<String> {
    let is_known = |write: &Write| matches!(write.fate, Fate::Acknowledged { at, w, .. } if is_known(at, w));
    let mut known = history.writes.iter().enumerate().filter(|(_, write)| is_known(write));
    let Some(shown) = shown else {
        let (place, _) = known.find(|(place, write)| lasts(history, *place, write))?;
        return Some(format!("nothing is shown, but {} was written and not deleted after that", history.name(place)));
    };
    let first = history.write_of(shown)?;
    // One delete shows what another does: there is nothing.
    let is_another = |later: &Write| shown.content != Content::Tombstone || later.content != Content::Tombstone;
    let (later, _) = known.find(|(_, later)| is_another(later) && precedes(history, &history.writes[first], later))?;
    let (first, later) = (history.name(first), history.name(later));
    Some(format!(
        "{first} is shown, but {later} was asked for after {first} was acknowledged, and was acknowledged too"
    ))
}

/// Whether a value is there for good: nothing that may have come after it deletes or expires.
fn lasts(history: &KeyHistory, place: usize, write: &Write) -> bool {
    let goes = |write: &Write| write.content == Content::Tombstone || write.expires.is_some();
    let mut others = history.writes.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, write)| write);
    !goes(write) && others.all(|other| other.fate == Fate::Refused || !goes(other) || precedes(history, other, write))
}

/// Whether `later` must win over `first`, whatever their timestamps: `first` was acknowledged before `later` was asked for, and either no two clocks
/// were so far apart, or the homes that gave `later` its dots held `first`.
///
/// Of a write that was tried more than once a try that seemed to have failed may surface later.
fn precedes(history: &KeyHistory, first: &Write, later: &Write) -> bool {
    let Fate::Acknowledged { at, w, .. } = first.fate else { return false };
    if at >= later.invoked || first.attempts > 1 {
        return false;
    }
    let is_apart = history.clocks_within_us.is_some_and(|within_us| later.invoked.at_us > at.at_us + within_us);
    let is_held = w >= history.replicas && !history.damaged && !first.may_be_forgotten(later.invoked.at_us);
    is_apart || (is_held && later.made_at_homes)
}

/// The timestamp that a read may not fall behind: the latest that its context had shown. A write that was stored under several
/// counts by its earliest, for one that replaced it under that has replaced it.
fn seen_stamp(history: &KeyHistory, read: &Read) -> Hlc {
    let earliest = read.seen.iter().filter_map(|place| history.writes.get(place)?.earliest).max();
    earliest.map_or(read.seen_hlc, |earliest| earliest.min(read.seen_hlc))
}

/// Up to which timestamp what is shown has replaced everything: its own, or that of a try of a write which what is shown had been
/// shown by way of another try. That try has replaced all that is earlier, and went with its write.
fn reach(history: &KeyHistory, accounts: &Accounts, shown: Option<&Sibling>, at: Moment) -> Hlc {
    let own = shown.map_or(Hlc::ZERO, |sibling| sibling.hlc).max(forgotten_reach(history, shown, at));
    let Some(place) = shown.and_then(|sibling| history.write_of(sibling)) else { return own };
    let replaced = accounts.accounted(WriteSet::of(place)).iter().filter_map(|place| history.writes.get(place));
    let tries = replaced.filter(|write| write.earliest != write.latest).filter_map(|write| write.latest);
    tries.max().unwrap_or_default().max(own)
}

/// Up to which timestamp deletes have replaced everything that may be forgotten by now, if nothing is shown, or a write from after that:
/// of what is not remembered nothing can be later. A delete that is shown shows nothing, too: of two deletes at once the later one may have been
/// made in an earlier epoch, and goes first.
fn forgotten_reach(history: &KeyHistory, shown: Option<&Sibling>, at: Moment) -> Hlc {
    let shown = shown.filter(|shown| shown.content != Content::Tombstone);
    let shown = shown.and_then(|sibling| history.writes.get(history.write_of(sibling)?));
    let is_after = |delete: &&Write| {
        let is_later = |from_us: u64| shown.is_none_or(|write| write.invoked.at_us + REQUEST_MAX_US >= from_us);
        delete.may_be_forgotten(at.at_us) && delete.forgotten_from_us.is_some_and(is_later)
    };
    history.writes.iter().filter(is_after).filter_map(|delete| delete.latest).max().unwrap_or_default()
}

/// The latest among the acknowledged writes that `counts` picks by moment and number of homes.
fn latest_known(history: &KeyHistory, counts: impl Fn(Moment, u8) -> bool) -> Option<(usize, Hlc)> {
    let stamps = history.writes.iter().enumerate().filter_map(|(place, write)| match write.fate {
        Fate::Acknowledged { at, w, hlc: Some(hlc) } if counts(at, w) => {
            Some((place, write.earliest.map_or(hlc, |earliest| earliest.min(hlc))))
        }
        _ => None,
    });
    stamps.max_by_key(|(_, hlc)| *hlc)
}

fn shown_name(history: &KeyHistory, shown: Option<&Sibling>) -> String {
    shown.and_then(|sibling| history.write_of(sibling)).map_or("nothing".to_owned(), |place| history.name(place))
}
