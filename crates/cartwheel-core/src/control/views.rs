//! Who makes views of histories.

use std::fmt::Debug;
use std::sync::Arc;

use crate::membership::{History, View};

/// Makes views of histories. Placing a large ring takes long, so a simulation of many controls in one process lets them share what
/// one has made.
pub trait Views: Debug + Send + Sync {
    /// The view of a history: [`History::view`].
    fn view(&self, history: &History) -> Option<Arc<View>>;
}

/// Folds each history anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Folded;

impl Views for Folded {
    fn view(&self, history: &History) -> Option<Arc<View>> {
        history.view().map(Arc::new)
    }
}
