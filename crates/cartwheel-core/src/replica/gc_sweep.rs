//! The sweep of garbage collection: which records are collected next ([`crate::replica::gc`]).
//!
//! It reads the index from its beginning to what is due, a page at a time: once in every epoch, and every few seconds for expired values.

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

/// The number of index entries read at once.
const PAGE: usize = 64;
/// The number of records collected at once.
const AT_ONCE: usize = 32;
/// How often expired values are searched for.
const EXPIRED_EVERY: Duration = Duration::from_secs(5);
/// The pause after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The next task of the sweep.
#[derive(Debug)]
pub enum GcTask {
    /// A command for the store; [`GcSweep::begun`] must be called with its id.
    Store(StoreCommand),
    /// The replica must collect the garbage of a key, for this index entry.
    Collect(Key, Bytes),
}

/// The kind of sweep that is running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sweep {
    Epoch(Epoch),
    Expired(WallMs),
}

impl Sweep {
    const fn gc_due(self) -> GcDue {
        match self {
            Self::Epoch(epoch) => GcDue::In(epoch),
            Self::Expired(wall) => GcDue::At(wall),
        }
    }
}

/// The garbage collection of one shard.
#[derive(Debug, Default)]
pub struct GcSweep {
    sweep: Option<(Sweep, Bytes)>,
    waiting_for: Option<StoreId>,
    due: VecDeque<(Key, Bytes)>,
    under_way: usize,
    /// The last epoch whose sweep has ended.
    swept: Epoch,
    next_expired: Instant,
    pause_until: Instant,
    wake_at: Option<Instant>,
}

impl GcSweep {
    /// When there may be work that no other input announces.
    pub const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Sets the id of the store command returned last.
    pub const fn begun(&mut self, id: StoreId) {
        self.waiting_for = Some(id);
    }

    /// The collection of a record has ended.
    pub const fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Whether everything that was due in `epoch` has been collected.
    pub fn is_done(&self, epoch: Epoch) -> bool {
        self.swept >= epoch && self.due.is_empty() && self.under_way == 0
    }

    /// The next task in `epoch`, if more may begin.
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
        let command = StoreCommand::ScanIndex { from: from.clone(), upto: sweep.gc_due().due().1, entries_max: PAGE };
        self.sweep = Some((sweep, from));
        Some(GcTask::Store(command))
    }

    fn begin(&mut self, now: Now, epoch: Epoch) -> Option<(Sweep, Bytes)> {
        let sweep = if self.swept < epoch {
            Sweep::Epoch(epoch)
        } else if now.instant >= self.next_expired {
            self.next_expired = now.instant + EXPIRED_EVERY;
            Sweep::Expired(now.wall)
        } else {
            return None;
        };
        Some((sweep, sweep.gc_due().due().0))
    }

    /// Takes the result of a store command; returns it if the command is not the sweep's.
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
            // The sweep starts again.
            _ => self.pause_until = now + PAUSE,
        }
        None
    }
}
