//! The incremental view of a history that grows.

use super::view::Fold;
use super::{History, Snapshot, View};

/// The last view of a history, kept by a caller whose history grows.
///
/// Each change of members places partitions anew, so a view from the start costs as many placements as there were such changes. But a new change
/// was nearly always recorded after all known ones, and then only its own placement is needed. If a change arrives late and takes its place
/// among the others, everything is computed again. The result is a function of the set alone ([`History::view`]), whatever was computed before.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    /// The changes in `fold`.
    known: History,
    /// `None` while no change bootstraps a cluster.
    fold: Option<Fold>,
}

impl Folded {
    /// The view of `history`; `None` while no change bootstraps a cluster. The same as [`History::view`].
    pub fn view(&mut self, history: &History) -> Option<View> {
        self.fold(history);
        self.fold.as_ref().map(|fold| fold.view(history.version()))
    }

    /// Applies the changes that are new.
    fn fold(&mut self, history: &History) {
        if !self.is_beginning_of(history) {
            *self = Self::default();
        }
        for change in history.changes().skip(self.known.len()) {
            match &mut self.fold {
                Some(fold) => fold.apply(change),
                // Changes before the bootstrap have no effect.
                none => *none = Fold::found(&change.what),
            }
            self.known.insert(change.clone());
        }
    }

    /// A snapshot of `history`; `None` while no change bootstraps a cluster.
    pub fn snapshot(&mut self, history: &History) -> Option<Snapshot> {
        self.fold(history);
        self.fold.as_ref().map(|fold| fold.snapshot(history.recorded()))
    }

    /// Whether the applied changes are the first changes of `history` in its order.
    fn is_beginning_of(&self, history: &History) -> bool {
        let mut changes = history.changes();
        self.known.changes().all(|known| changes.next() == Some(known))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChangeKind, ClusterId, Member, Strategy};
    use super::*;
    use crate::ring::Partitions;
    use crate::value::dot::{Incarnation, NodeId};
    use crate::value::hlc::{Hlc, WallMs};

    fn bootstrap(cluster: u128) -> ChangeKind {
        let member = Member::new("a", Incarnation(1));
        let (cluster, strategy) = (ClusterId(cluster), Strategy::Balanced);
        ChangeKind::Bootstrap {
            cluster,
            partitions: Partitions::default(),
            strategy,
            members: vec![member],
            name: String::new(),
        }
    }

    #[test]
    fn only_a_late_change_causes_a_complete_fold() {
        let node = NodeId::of_name("a");
        let weight = |weight| ChangeKind::Weight { node, weight };
        let mut history = History::new();
        history.record(Hlc::at(WallMs(10)), node, bootstrap(1));
        // It starts with the fold of another cluster, so the cluster that it shows tells whether everything was computed again.
        let mut folded = Folded { known: history.clone(), fold: Fold::found(&bootstrap(2)) };
        let cluster = |view: Option<View>| view.map(|view| view.cluster);
        history.record(Hlc::at(WallMs(20)), node, weight(200));
        let view = folded.view(&history).unwrap();
        assert_eq!((view.cluster, view.ring.nodes()[0].weight), (ClusterId(2), 200));
        assert_eq!(cluster(folded.view(&history)), Some(ClusterId(2)), "nothing is new");
        let mut late = History::new();
        late.record(Hlc::at(WallMs(15)), node, weight(300));
        history.merge(&late);
        assert_eq!(folded.view(&history), history.view());
        assert_eq!(cluster(history.view()), Some(ClusterId(1)));
    }
}
