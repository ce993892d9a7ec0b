//! Who makes views of histories.

use std::fmt::Debug;
use std::sync::Arc;

use crate::cluster::membership::{Folded, History, Snapshot, View};

/// Makes views of histories. Placing a large ring takes long, so a simulation of many controls in one process lets them share what
/// one has made.
pub trait Views: Debug + Send {
    /// The view of a history: [`History::view`].
    fn view(&mut self, history: &History) -> Option<Arc<View>>;

    /// What a history adds up to, as a snapshot: [`Folded::snapshot`].
    fn snapshot(&mut self, history: &History) -> Option<Snapshot> {
        Folded::default().snapshot(history)
    }
}

/// Folds only what has come since.
impl Views for Folded {
    fn view(&mut self, history: &History) -> Option<Arc<View>> {
        Self::view(self, history).map(Arc::new)
    }

    fn snapshot(&mut self, history: &History) -> Option<Snapshot> {
        Self::snapshot(self, history)
    }
}
