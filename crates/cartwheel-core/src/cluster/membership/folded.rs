//! The fold of a history that grows.

use super::view::Fold;
use super::{History, Snapshot, View};

/// The last fold of a history, kept by whoever holds one that grows.
///
/// Each change of members places partitions anew, so a fold from the start costs as many placements as there were such changes.
/// But nearly always what is new was recorded after all that was known, and then its own placements are enough. Where a change comes
/// late and takes its place among the others, everything is folded again: what comes out is a function of the set alone
/// ([`History::view`]), whatever was asked before.
#[derive(Clone, Debug, Default)]
pub struct Folded {
    /// What `fold` was made of.
    known: History,
    /// Nothing while no change founds a cluster.
    fold: Option<Fold>,
}

impl Folded {
    /// What the changes of `history` add up to; nothing while none founds a cluster. The same as [`History::view`].
    pub fn view(&mut self, history: &History) -> Option<View> {
        self.fold(history);
        self.fold.as_ref().map(|fold| fold.view(history.version()))
    }

    /// Folds what has come since.
    fn fold(&mut self, history: &History) {
        if !self.is_beginning_of(history) {
            *self = Self::default();
        }
        for change in history.changes().skip(self.known.len()) {
            match &mut self.fold {
                Some(fold) => fold.apply(&change.what),
                // What comes before the founding has no effect.
                none => *none = Fold::found(&change.what),
            }
            self.known.insert(change.clone());
        }
    }

    /// What the changes of `history` add up to, as a snapshot; none while none founds a cluster.
    pub fn snapshot(&mut self, history: &History) -> Option<Snapshot> {
        self.fold(history);
        self.fold.as_ref().map(|fold| fold.snapshot(history.recorded()))
    }

    /// Whether what is folded are the first changes of `history` in its order.
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
    fn only_a_late_change_has_everything_folded_again() {
        let node = NodeId::of_name("a");
        let weight = |weight| ChangeKind::Weight { node, weight };
        let mut history = History::new();
        history.record(Hlc::at(WallMs(10)), node, bootstrap(1));
        // It takes a fold of another cluster for the one of this history, so what it shows tells whether that was made again.
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
