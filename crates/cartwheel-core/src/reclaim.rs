//! What a replica forgets of a key, and when it is to look after it.
//!
//! A tombstone goes [`KEPT_FOR`](crate::epoch::KEPT_FOR) epochs after it was made, an expired value as long after this replica first
//! found it expired, and notes of replaced writes and clock entries without siblings once the record has not changed for so long. By
//! then no state that could bring back what they keep away is under way or on any disk, and none is taken any more
//! ([`Epoch::is_stale`]).
//!
//! Where the last write wins, what lost against a delete goes with it: without the delete it would be the last.
//!
//! Records that have anything to forget have an entry in the index, by which they are found when it is time.

use bytes::Bytes;

use crate::epoch::Epoch;
use crate::hlc::WallMs;
use crate::membership::Conflict;
use crate::mutation::Broken;
use crate::record::{Minter, Record};
use crate::state::{Content, Sibling, State};

/// What the entries begin with, by kind.
const EPOCH_MARK: u8 = b'r';
const WALL_MARK: u8 = b'x';
const HEAD_BYTES: usize = 9;

/// When a record is to be looked after.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Look {
    /// In this epoch.
    In(Epoch),
    /// When a value has expired, by this node's clock.
    At(WallMs),
}

impl Look {
    const fn head(self) -> (u8, u64) {
        match self {
            Self::In(Epoch(number)) => (EPOCH_MARK, number),
            Self::At(WallMs(number)) => (WALL_MARK, number),
        }
    }

    /// The index's entry for a record that is to be looked after then.
    pub fn entry(self, storage_key: &[u8]) -> Bytes {
        [&self.first()[..], storage_key].concat().into()
    }

    /// The first entry that could be there for this time.
    pub fn first(self) -> Bytes {
        let (mark, number) = self.head();
        let mut head = [mark; HEAD_BYTES];
        head[1..].copy_from_slice(&number.to_be_bytes());
        Bytes::copy_from_slice(&head)
    }

    /// The entries of this kind that are due at this time: from the first to behind the last.
    pub fn due(self) -> (Bytes, Bytes) {
        let (mark, number) = self.head();
        let end = number.checked_add(1).map(|next| match self {
            Self::In(_) => Self::In(Epoch(next)).first(),
            Self::At(_) => Self::At(WallMs(next)).first(),
        });
        (Bytes::copy_from_slice(&[mark]), end.unwrap_or_else(|| Bytes::copy_from_slice(&[mark + 1])))
    }
}

/// The storage key of an entry; none if it is not one of these.
pub fn parse(entry: &Bytes) -> Option<Bytes> {
    let &mark = entry.first()?;
    (matches!(mark, EPOCH_MARK | WALL_MARK) && entry.len() >= HEAD_BYTES).then(|| entry.slice(HEAD_BYTES..))
}

/// What was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forgotten {
    /// Whether anything was.
    pub any: bool,
    /// Tombstones and expired values.
    pub deleted: u64,
}

/// By what a replica forgets.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The epoch.
    pub now: Epoch,
    /// The bucket's policy for conflicts.
    pub conflict: Conflict,
    /// Which rule is broken on purpose.
    pub broken: Broken,
}

impl Rules {
    /// Takes out the siblings that `is_due` names, with those that lost against them. True if there were any.
    fn drop(&self, state: &mut State, is_due: impl Fn(&Sibling) -> bool) -> bool {
        let last = state.siblings().filter(|held| is_due(held)).map(Sibling::recency).max();
        let lost = |held: &Sibling| self.conflict == Conflict::Lww && Some(held.recency()) < last;
        last.is_some() && state.drop_siblings(|held| is_due(held) || lost(held))
    }

    fn is_due_tombstone(&self, held: &Sibling) -> bool {
        held.content == Content::Tombstone && held.epoch.is_over(self.now, self.broken)
    }
}

/// Takes out of a record what is to be forgotten. A record that does not count is left alone.
pub fn forget(record: &mut Record, minter: &Minter, wall: WallMs, rules: &Rules) -> Forgotten {
    let &Rules { now, broken, .. } = rules;
    if record.header.catching_up.is_some() {
        return Forgotten::default();
    }
    let before = record.state.siblings().len();
    let tombstones = rules.drop(&mut record.state, |held| rules.is_due_tombstone(held));
    let has_expired = |held: &Sibling| held.content != Content::Tombstone && held.is_deleted(wall);
    if !record.state.siblings().any(has_expired) {
        record.header.expired_since = None;
    } else if let Some(since) = record.header.expired_since {
        if since.is_over(now, broken) && rules.drop(&mut record.state, has_expired) {
            // Others, whose clocks are behind, are yet to learn of it.
            (record.header.changed, record.header.expired_since) = (now, None);
        }
    } else {
        record.header.expired_since = Some(now);
    }
    let deleted = (before - record.state.siblings().len()) as u64;
    let mut any = tombstones || deleted > 0;
    if record.header.changed.is_over(now, broken) && record.state.forget_replaced() {
        // Dots that nobody remembers must not be given again.
        let clock = record.state.clock();
        record.header.own = record.header.own.filter(|&own| clock.highest(minter.actor(own)) > 0);
        any = true;
    }
    Forgotten { any, deleted }
}

/// The state without the tombstones that are to be forgotten: a due one is neither sent nor stored.
pub fn without_due(state: &State, rules: &Rules) -> Option<State> {
    if !state.siblings().any(|held| rules.is_due_tombstone(held)) {
        return None;
    }
    let mut kept = state.clone();
    rules.drop(&mut kept, |held| rules.is_due_tombstone(held)).then_some(kept)
}

/// When a record that was just looked after is to be looked after again; none if it has nothing to forget.
pub fn next_look(record: &Record, now: Epoch) -> Option<Look> {
    let (header, state) = (&record.header, &record.state);
    let tombstones = state.siblings().filter(|held| held.content == Content::Tombstone);
    let is_bare = state.siblings().len() == 0;
    let has_old = header.catching_up.is_some() || is_bare || state.remembers_replaced();
    let expired = header.expired_since.map(Epoch::end);
    let ends = tombstones.map(|held| held.epoch.end()).chain(has_old.then(|| header.changed.end())).chain(expired);
    // Never at once again.
    let soonest = ends.min().map(|end| Look::In(end.max(now.next())));
    soonest.or_else(|| state.siblings().filter_map(|held| held.expires).min().map(Look::At))
}
