//! Passes the configurations that a shard learns to the node's control.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::ring::PartitionId;
use tokio::sync::Notify;

/// The latest configuration of each partition that the control has not taken yet. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PhasesBox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<BTreeMap<PartitionId, ConfigPhase>>,
    filled: Notify,
}

impl PhasesBox {
    pub(super) fn put(&self, phases: Vec<(PartitionId, ConfigPhase)>) {
        if phases.is_empty() {
            return;
        }
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(phases);
        self.0.filled.notify_one();
    }

    /// Waits until there are any, and takes them.
    pub async fn take(&self) -> Vec<(PartitionId, ConfigPhase)> {
        loop {
            let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !waiting.is_empty() {
                return waiting.into_iter().collect();
            }
            self.0.filled.notified().await;
        }
    }
}
