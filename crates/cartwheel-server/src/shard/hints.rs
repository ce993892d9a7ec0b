//! The hints of a node's shards, summed up for operators.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cartwheel_core::cluster::sizes::Backlog;
use cartwheel_core::value::dot::NodeId;

/// The hints of all shards. Clones share them. It is written only when a hint is added or delivered.
#[derive(Clone, Debug, Default)]
pub struct HintsBoard {
    owed: Arc<Mutex<BTreeMap<NodeId, Backlog>>>,
    full_shards: Arc<AtomicU64>,
    bytes_max: Arc<AtomicU64>,
}

impl HintsBoard {
    /// What each home is owed, where it is owed anything.
    pub fn owed(&self) -> BTreeMap<NodeId, Backlog> {
        self.locked().clone()
    }

    /// How many shards keep as many hints as they may.
    pub fn full_shards(&self) -> u64 {
        self.full_shards.load(Ordering::Relaxed)
    }

    /// How many bytes of hints all shards together may keep.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Sets how many bytes of hints all shards together may keep.
    pub fn set_bytes_max(&self, bytes: u64) {
        self.bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Records that a shard's hints for `home` have changed.
    pub(super) fn changed(&self, home: NodeId, before: Backlog, now: Backlog) {
        let mut owed = self.locked();
        let held = owed.entry(home).or_default();
        held.records = (held.records + now.records).saturating_sub(before.records);
        held.bytes = (held.bytes + now.bytes).saturating_sub(before.bytes);
        if *held == Backlog::default() {
            owed.remove(&home);
        }
    }

    /// Records that a shard keeps as many hints as it may, or no longer.
    pub(super) fn full(&self, is_full: bool) {
        if is_full {
            self.full_shards.fetch_add(1, Ordering::Relaxed);
        } else {
            self.full_shards.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<NodeId, Backlog>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_of_all_shards_for_one_home_are_summed() {
        let (board, home, none) = (HintsBoard::default(), NodeId::new(7), Backlog::default());
        let backlog = |records, bytes| Backlog { records, bytes };
        board.changed(home, none, backlog(2, 20));
        board.changed(home, none, backlog(1, 5));
        assert_eq!(board.owed()[&home], backlog(3, 25));
        board.changed(home, backlog(2, 20), backlog(1, 10));
        assert_eq!(board.owed()[&home], backlog(2, 15));
        board.changed(home, backlog(1, 10), none);
        board.changed(home, backlog(1, 5), none);
        assert!(board.owed().is_empty());
        board.full(true);
        board.full(true);
        board.full(false);
        assert_eq!(board.full_shards(), 1);
    }
}
