//! How views are made of histories.

use std::fmt::Debug;
use std::sync::Arc;

use crate::cluster::membership::{Folded, History, Snapshot, View};

/// Makes views of histories. Placing a large ring takes long, so a simulation with many controls lets them share the
/// result.
pub trait Views: Debug + Send {
    /// The view of a history: [`History::view`].
    fn view(&mut self, history: &History) -> Option<Arc<View>>;

    /// The snapshot of a history: [`Folded::snapshot`].
    fn snapshot(&mut self, history: &History) -> Option<Snapshot> {
        Folded::default().snapshot(history)
    }
}

/// Folds only the changes since the last view.
impl Views for Folded {
    fn view(&mut self, history: &History) -> Option<Arc<View>> {
        Self::view(self, history).map(Arc::new)
    }

    fn snapshot(&mut self, history: &History) -> Option<Snapshot> {
        Self::snapshot(self, history)
    }
}
