//! Writes that are acknowledged once the operating system has them, and what an unclean stop means for them.
//!
//! The end of the process loses nothing; the end of the operating system, or of the power, may lose what was written since the last sync. A
//! mark in the store says that there are such writes, and under which run of the operating system. A mark that is still there at the next
//! start, under another run, means that records may have lost acknowledged writes.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::value::dot::Since;
use cartwheel_core::value::time::Instant;
use cartwheel_storage::{Batch, Durability, Store, StoreError};

/// The name of the mark. Its value names the run of the operating system; an empty value means no mark.
const MARK: &[u8] = b"unsynced";
/// The name under which a store keeps its loss floor.
const LOSS_FLOOR: &[u8] = b"loss-floor";
/// The longest time that a write waits for a sync.
const SYNC_AFTER: Duration = Duration::from_millis(100);

/// A run of the operating system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OsBoot(Bytes);

impl OsBoot {
    /// The present run.
    pub fn current() -> Self {
        let id = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self::named(id.trim_ascii())
    }

    /// The run of this name. A run without a name equals none, not even itself.
    fn named(name: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(if name.is_empty() { b"?" } else { name }))
    }

    fn is_still(&self, marked: &[u8]) -> bool {
        self.0 == marked && marked != b"?"
    }
}

/// A store's unsynced writes.
#[derive(Debug)]
pub(super) struct Unsynced {
    os_boot: OsBoot,
    is_marked: bool,
    sync_at: Option<Instant>,
}

impl Unsynced {
    pub(super) const fn new(os_boot: OsBoot) -> Self {
        Self { os_boot, is_marked: false, sync_at: None }
    }

    /// Records a commit, and returns the durability to use: the first unsynced commit is synced after all, because the mark goes with it.
    pub(super) fn commit(&mut self, batch: &mut Batch, durability: Durability, now: Instant) -> Durability {
        if durability == Durability::Os && self.is_marked {
            self.sync_at.get_or_insert(now + SYNC_AFTER);
            return durability;
        }
        if durability == Durability::Os {
            batch.put_meta(MARK, self.os_boot.0.clone());
            self.is_marked = true;
        }
        self.sync_at = None;
        Durability::Synced
    }

    /// Records a failed commit: whether the mark is stored is uncertain. A reopened store syncs all that it holds.
    pub(super) const fn invalidate(&mut self) {
        self.is_marked = false;
        self.sync_at = None;
    }

    /// When a sync is due.
    pub(super) const fn wake_at(&self) -> Option<Instant> {
        self.sync_at
    }

    /// Whether a sync is due. If so, it counts as made.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.sync_at.take_if(|at| *at <= now).is_some()
    }

    /// The contents of the last commit, which syncs everything.
    pub(super) fn last_batch(&self) -> Batch {
        let mut batch = Batch::new();
        if self.is_marked {
            batch.put_meta(MARK, Bytes::new());
        }
        batch
    }
}

/// The loss floor: what the store held before it may have holes. Zero if the store never lost anything. To be called by each boot, with its
/// number, on a store that has synced all that its recovery found.
///
/// # Errors
/// If the store fails.
pub fn loss_floor(store: &mut dyn Store, boot: u32, os_boot: &OsBoot) -> Result<Since, StoreError> {
    let saved = store.get_meta(LOSS_FLOOR)?;
    let saved = saved.and_then(|bytes| bytes.as_ref().try_into().ok().map(u64::from_be_bytes));
    let mark = store.get_meta(MARK)?.unwrap_or_default();
    if mark.is_empty() {
        return Ok(Since(saved.unwrap_or(0)));
    }
    let floor = if os_boot.is_still(&mark) { Since(saved.unwrap_or(0)) } else { Since::boot(boot) };
    let mut batch = Batch::new();
    batch.put_meta(LOSS_FLOOR, Bytes::copy_from_slice(&floor.0.to_be_bytes()));
    batch.put_meta(MARK, Bytes::new());
    store.commit(batch, Durability::Synced)?;
    Ok(floor)
}

#[cfg(test)]
mod tests {
    use cartwheel_storage::MemoryStore;

    use super::*;

    fn written(store: &mut MemoryStore, unsynced: &mut Unsynced, now: Instant) -> Durability {
        let mut batch = Batch::new();
        batch.put("k".into(), "v".into());
        let durability = unsynced.commit(&mut batch, Durability::Os, now);
        store.commit(batch, durability).unwrap();
        durability
    }

    #[test]
    fn only_another_run_of_the_os_loses_unsynced_writes() {
        let (here, later) = (OsBoot::named(b"1"), OsBoot::named(b"2"));
        let mut store = MemoryStore::default();
        assert_eq!(loss_floor(&mut store, 1, &here).unwrap(), Since(0));
        written(&mut store, &mut Unsynced::new(here.clone()), Instant(0));
        assert_eq!(loss_floor(&mut store, 2, &here).unwrap(), Since(0), "the process was killed");
        assert_eq!(loss_floor(&mut store, 2, &later).unwrap(), Since(0), "and its writes were synced then");
        written(&mut store, &mut Unsynced::new(here.clone()), Instant(0));
        assert_eq!(loss_floor(&mut store, 3, &later).unwrap(), Since::boot(3), "the power failed");
        assert_eq!(loss_floor(&mut store, 4, &later).unwrap(), Since::boot(3), "the loss floor is remembered");

        let mut unsynced = Unsynced::new(later.clone());
        written(&mut store, &mut unsynced, Instant(0));
        store.commit(unsynced.last_batch(), Durability::Synced).unwrap();
        assert_eq!(loss_floor(&mut store, 5, &here).unwrap(), Since::boot(3), "an orderly stop loses nothing");
    }

    #[test]
    fn a_run_without_a_name_counts_as_another() {
        let unknown = OsBoot::named(b"");
        let mut store = MemoryStore::default();
        written(&mut store, &mut Unsynced::new(unknown.clone()), Instant(0));
        assert_eq!(loss_floor(&mut store, 2, &unknown).unwrap(), Since::boot(2));
    }

    #[test]
    fn a_sync_follows_in_time() {
        let mut store = MemoryStore::default();
        let mut unsynced = Unsynced::new(OsBoot::named(b"1"));
        assert_eq!(written(&mut store, &mut unsynced, Instant(0)), Durability::Synced, "with the mark");
        assert_eq!(unsynced.wake_at(), None);
        assert_eq!(written(&mut store, &mut unsynced, Instant(10)), Durability::Os);
        assert_eq!(written(&mut store, &mut unsynced, Instant(50)), Durability::Os);
        let due = Instant(10) + SYNC_AFTER;
        assert_eq!(unsynced.wake_at(), Some(due));
        assert!(!unsynced.take_due(Instant(due.0 - 1)));
        assert!(unsynced.take_due(due) && !unsynced.take_due(due));
        assert_eq!(written(&mut store, &mut unsynced, due), Durability::Os);
        assert_eq!(unsynced.commit(&mut Batch::new(), Durability::Synced, due), Durability::Synced);
        assert_eq!(unsynced.wake_at(), None, "any sync resets the time");
    }
}
