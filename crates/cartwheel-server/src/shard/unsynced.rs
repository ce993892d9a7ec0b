//! Writes that are acknowledged once the operating system has them, and what a stop without notice means for them.
//!
//! The end of the process takes nothing away; the end of the operating system, or of the power, may take what was written since
//! the last sync. A mark in the store says that there are such writes, and under which run of the operating system: one that is
//! still there at the next start, under another run, means that records may have lost writes that were acknowledged.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::value::dot::Since;
use cartwheel_core::value::time::Instant;
use cartwheel_storage::{Batch, Durability, Store, StoreError};

/// The name of the mark. Its value names the run of the operating system; an empty one is no mark.
const MARK: &[u8] = b"unsynced";
/// The name under which a store remembers its last loss.
const LOSS_FLOOR: &[u8] = b"loss-floor";
/// How long a write waits for a sync at most.
const SYNC_AFTER: Duration = Duration::from_millis(100);

/// One run of the operating system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OsBoot(Bytes);

impl OsBoot {
    /// The one that runs now.
    pub fn current() -> Self {
        let id = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self::named(id.trim_ascii())
    }

    /// The one of this name. Where there is none to be had, none is like another, and none like itself.
    fn named(name: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(if name.is_empty() { b"?" } else { name }))
    }

    fn is_still(&self, marked: &[u8]) -> bool {
        self.0 == marked && marked != b"?"
    }
}

/// A store's writes that are not synced yet.
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

    /// Takes note of a commit, and says with what durability it is to be made: the first that is not synced is, for the sake of
    /// the mark that goes with it.
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

    /// A commit has failed: whether the mark is there is uncertain. A store that is opened again syncs all that it holds.
    pub(super) const fn forget(&mut self) {
        self.is_marked = false;
        self.sync_at = None;
    }

    /// When a sync is due.
    pub(super) const fn wake_at(&self) -> Option<Instant> {
        self.sync_at
    }

    /// Whether a sync is due. If it is, it counts as made.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        self.sync_at.take_if(|at| *at <= now).is_some()
    }

    /// What the last commit is to do, which syncs everything.
    pub(super) fn last_batch(&self) -> Batch {
        let mut batch = Batch::new();
        if self.is_marked {
            batch.put_meta(MARK, Bytes::new());
        }
        batch
    }
}

/// What the store held before this may have holes; zero if it never lost anything. To be asked at each start of a store that has
/// synced all that its recovery found, by the boot of this number.
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
    fn only_another_run_of_the_os_takes_unsynced_writes_away() {
        let (here, later) = (OsBoot::named(b"1"), OsBoot::named(b"2"));
        let mut store = MemoryStore::default();
        assert_eq!(loss_floor(&mut store, 1, &here).unwrap(), Since(0));
        written(&mut store, &mut Unsynced::new(here.clone()), Instant(0));
        assert_eq!(loss_floor(&mut store, 2, &here).unwrap(), Since(0), "the process was killed");
        assert_eq!(loss_floor(&mut store, 2, &later).unwrap(), Since(0), "and what it had written was synced then");
        written(&mut store, &mut Unsynced::new(here.clone()), Instant(0));
        assert_eq!(loss_floor(&mut store, 3, &later).unwrap(), Since::boot(3), "the power failed");
        assert_eq!(loss_floor(&mut store, 4, &later).unwrap(), Since::boot(3), "it is remembered");

        let mut unsynced = Unsynced::new(later.clone());
        written(&mut store, &mut unsynced, Instant(0));
        store.commit(unsynced.last_batch(), Durability::Synced).unwrap();
        assert_eq!(loss_floor(&mut store, 5, &here).unwrap(), Since::boot(3), "an orderly stop loses nothing");
    }

    #[test]
    fn a_run_that_cannot_be_named_is_another() {
        let unknown = OsBoot::named(b"");
        let mut store = MemoryStore::default();
        written(&mut store, &mut Unsynced::new(unknown.clone()), Instant(0));
        assert_eq!(loss_floor(&mut store, 2, &unknown).unwrap(), Since::boot(2));
    }

    #[test]
    fn a_sync_follows_within_its_time() {
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
        assert_eq!(unsynced.wake_at(), None, "any sync will do");
    }
}
