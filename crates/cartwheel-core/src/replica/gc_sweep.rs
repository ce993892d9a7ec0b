//! Which records are looked after next, because they have something to forget ([`crate::replica::gc`]).
//!
//! The index is gone through from its beginning to what is due, a page at a time: once in every epoch, and every few seconds for
//! values that have expired.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::store::gc_due;
use crate::store::gc_due::GcDue;
use crate::value::epoch::Epoch;
use crate::value::hlc::WallMs;
use crate::value::key::Key;
use crate::value::time::{Instant, Now};

/// How many entries of the index are read at once.
const PAGE: usize = 64;
/// How many records are looked after at once.
const AT_ONCE: usize = 32;
/// How often it is looked whether values have expired.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long nothing is done after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be done next.
#[derive(Debug)]
pub enum GcTask {
    /// A command for the store; [`GcSweep::begun`] is told its number.
    Store(StoreCommand),
    /// The replica is to look after a key, which this entry of the index names.
    Collect(Key, Bytes),
}

/// What is being gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sweep {
    Epoch(Epoch),
    Expired(WallMs),
}

impl Sweep {
    const fn look(self) -> GcDue {
        match self {
            Self::Epoch(epoch) => GcDue::In(epoch),
            Self::Expired(wall) => GcDue::At(wall),
        }
    }
}

/// The reclaiming of one shard.
#[derive(Debug, Default)]
pub struct GcSweep {
    sweep: Option<(Sweep, Bytes)>,
    waiting_for: Option<StoreId>,
    due: VecDeque<(Key, Bytes)>,
    under_way: usize,
    /// The epoch whose sweep has ended.
    swept: Epoch,
    next_expired: Instant,
    pause_until: Instant,
    wake_at: Option<Instant>,
}

impl GcSweep {
    /// When there may be something to do that no other input tells of.
    pub const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The command last given out has this number.
    pub const fn begun(&mut self, id: StoreId) {
        self.waiting_for = Some(id);
    }

    /// A record was looked after.
    pub const fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Whether everything that was due in `epoch` has been looked at.
    pub fn is_done(&self, epoch: Epoch) -> bool {
        self.swept >= epoch && self.due.is_empty() && self.under_way == 0
    }

    /// The next thing to do in `epoch`, if it may do more.
    pub fn next(&mut self, now: Now, epoch: Epoch, may_begin: bool) -> Option<GcTask> {
        self.wake_at = None;
        if epoch == Epoch::UNKNOWN || self.waiting_for.is_some() || self.under_way >= AT_ONCE {
            return None;
        }
        if now.instant < self.pause_until || !may_begin {
            self.wake_at = Some(self.pause_until.max(now.instant + PAUSE / 20));
            return None;
        }
        if let Some((key, entry)) = self.due.pop_front() {
            self.under_way += 1;
            return Some(GcTask::Collect(key, entry));
        }
        let Some((sweep, from)) = self.sweep.take().or_else(|| self.begin(now, epoch)) else {
            self.wake_at = Some(self.next_expired);
            return None;
        };
        let command = StoreCommand::ScanIndex { from: from.clone(), upto: sweep.look().due().1, entries_max: PAGE };
        self.sweep = Some((sweep, from));
        Some(GcTask::Store(command))
    }

    fn begin(&mut self, now: Now, epoch: Epoch) -> Option<(Sweep, Bytes)> {
        let sweep = if self.swept < epoch {
            Sweep::Epoch(epoch)
        } else if now.instant >= self.next_expired {
            self.next_expired = now.instant + LOOK_EVERY;
            Sweep::Expired(now.wall)
        } else {
            return None;
        };
        Some((sweep, sweep.look().due().0))
    }

    /// Takes in the end of a store command; gives it back if it was none of this.
    pub fn stored(&mut self, now: Instant, id: StoreId, result: StoreResult) -> Option<StoreResult> {
        if self.waiting_for != Some(id) {
            return Some(result);
        }
        self.waiting_for = None;
        match (self.sweep.take(), result) {
            (Some((sweep, _)), StoreResult::Listed(Ok(entries))) => {
                match (entries.last(), sweep) {
                    (Some(last), sweep) if entries.len() >= PAGE => {
                        self.sweep = Some((sweep, [&last[..], &[0]].concat().into()));
                    }
                    (_, Sweep::Epoch(epoch)) => self.swept = epoch,
                    (_, Sweep::Expired(_)) => {}
                }
                let key = |entry: &Bytes| Key::from_storage_key(&gc_due::parse(entry)?).ok();
                self.due.extend(entries.into_iter().filter_map(|entry| Some((key(&entry)?, entry))));
            }
            // It is begun again.
            _ => self.pause_until = now + PAUSE,
        }
        None
    }
}
