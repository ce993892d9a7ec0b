//! The end of an epoch on a shard ([`crate::value::epoch`]).

use std::time::Duration;

use bytes::Bytes;

use super::{Node, Step};
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::value::epoch::Epoch;
use crate::value::time::Instant;

/// How often the node checks whether the epoch is finished.
pub(super) const CHECK_EPOCH_EVERY: Duration = Duration::from_millis(200);

/// The name under which the store keeps the last epoch that ended with a sync.
pub(super) const FINISHED: &[u8] = b"finished";

/// Progress towards the end of the epoch.
#[derive(Debug, Default)]
pub(super) struct EpochEnd {
    /// When the epoch began in this boot.
    pub(super) begun: Option<Instant>,
    pub(super) check_at: Instant,
    /// The command that syncs all writes of the epoch and before.
    pub(super) sync: Option<StoreId>,
    pub(super) is_finished: bool,
}

impl EpochEnd {
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        (!self.is_finished).then(|| self.check_at.max(now + CHECK_EPOCH_EVERY / 2))
    }
}

impl Node {
    /// Reports the epoch as finished once all operations and hints from before it have ended, and every partition was compared with each
    /// other home since it began.
    pub(super) fn finish_epoch(&mut self, step: &mut Step) {
        let now = step.now.instant;
        let epoch = self.replica.epoch();
        let begun = *self.epoch_end.begun.get_or_insert(now);
        let EpochEnd { is_finished, sync, check_at, .. } = self.epoch_end;
        if is_finished || sync.is_some() || now < check_at || epoch == Epoch::UNKNOWN {
            return;
        }
        self.epoch_end.check_at = now + CHECK_EPOCH_EVERY;
        let oldest = self.coordinator.oldest().into_iter().chain(self.replica.oldest()).min();
        let has_ended = oldest.is_none_or(|oldest| oldest >= epoch) && !self.held.has_stale_data();
        if !has_ended || !self.exchange.has_compared_since(begun, now) {
            return;
        }
        if self.replica.has_unsynced() {
            // A disk that loses unsynced writes of an earlier epoch would bring back deletes that all replicas have collected.
            self.replica.sync_begins();
            let id = self.replica.next_store();
            self.epoch_end.sync = Some(id);
            let (name, value) = (Bytes::from_static(FINISHED), Bytes::copy_from_slice(&epoch.0.to_be_bytes()));
            return step.effects.stores.push((id, StoreCommand::Remember { name, value }));
        }
        self.epoch_end.is_finished = true;
        step.effects.finished = Some(epoch);
    }

    /// Takes the result of the sync at the end of an epoch.
    pub(super) fn epoch_synced(&mut self, step: &mut Step, result: &StoreResult) {
        self.epoch_end.sync = None;
        if *result == StoreResult::Written(Ok(())) {
            self.epoch_end.is_finished = true;
            step.effects.finished = Some(self.replica.epoch());
        } else {
            self.replica.sync_failed();
        }
    }
}
