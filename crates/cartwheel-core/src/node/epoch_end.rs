//! When a shard has finished an epoch.

use std::time::Duration;

use bytes::Bytes;

use super::{Node, Step};
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::value::epoch::Epoch;
use crate::value::time::Instant;

/// How often it is looked whether an epoch is finished.
pub(super) const CHECK_EPOCH_EVERY: Duration = Duration::from_millis(200);

/// Under this name a node keeps the epoch that it finished last with writes that were not synced yet.
pub(super) const FINISHED: &[u8] = b"finished";

/// How far the node is with its epoch.
#[derive(Debug, Default)]
pub(super) struct EpochEnd {
    /// When it began, in this boot.
    pub(super) begun: Option<Instant>,
    pub(super) check_at: Instant,
    /// All that was written in it and before is being synced by this command.
    pub(super) sync: Option<StoreId>,
    pub(super) is_finished: bool,
}

impl EpochEnd {
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        (!self.is_finished).then(|| self.check_at.max(now + CHECK_EPOCH_EVERY / 2))
    }
}

impl Node {
    /// Tells that the epoch is finished, once all that was begun or taken on before it has ended, and every partition was compared
    /// with every other home since it began.
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
            // A disk that went back further than an epoch would bring back what everyone has forgotten.
            self.replica.sync_begins();
            let id = self.replica.next_store();
            self.epoch_end.sync = Some(id);
            let (name, value) = (Bytes::from_static(FINISHED), Bytes::copy_from_slice(&epoch.0.to_be_bytes()));
            return step.effects.stores.push((id, StoreCommand::Remember { name, value }));
        }
        self.epoch_end.is_finished = true;
        step.effects.finished = Some(epoch);
    }

    /// What was written before an epoch is finished is synced, or not.
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
