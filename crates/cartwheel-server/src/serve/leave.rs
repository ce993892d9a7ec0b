//! Ends a node whose directory must not be served again.

use cartwheel_core::cluster::configuration::Home;
use cartwheel_core::cluster::membership::View;
use tokio::sync::watch;
use tracing::info;

use super::ServeError;
use crate::data_dir::DataDir;
use crate::peers::Retired;

const REJOIN: &str =
    "to join again, start the node with an empty directory: cartwheel serve --seed HOST:PORT --name NAME --dir DIR";
const RENEW: &str = "give it a new directory with cartwheel renew, which the other nodes refill";

/// Why a node's directory must not be served again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LeaveReason {
    /// The node was removed, and others hold all that it held.
    HandedOver,
    /// The node was removed while it seemed to be down, and has not handed over what it holds.
    WhileDown,
    /// A peer has refused it; the node knows no more than that.
    Refused(Retired),
}

impl LeaveReason {
    /// The reason, as far as the refused node knows it. `drained`: whether each of its shards has handed over everything.
    pub(super) fn of(why: Retired, view: &View, own: Home, drained: &[watch::Receiver<bool>]) -> Self {
        let has_other_incarnation =
            view.member(own.node).is_some_and(|known| known.member.incarnation != own.incarnation);
        if why != Retired::Replaced || !view.is_removed(own) || has_other_incarnation {
            return Self::Refused(why);
        }
        if drained.iter().all(|drained| *drained.borrow()) { Self::HandedOver } else { Self::WhileDown }
    }

    fn text(self) -> String {
        match self {
            Self::HandedOver => {
                format!(
                    "the node was removed from its cluster, and others hold all its data; delete the directory; {REJOIN}"
                )
            }
            Self::WhileDown => format!(
                "the node was removed from its cluster before it had handed over its data; keep the directory if it may hold what no other node \
                does; {REJOIN}"
            ),
            Self::Refused(Retired::OldCopy) => format!("{}; move it away, and {RENEW}", Retired::OldCopy.text()),
            Self::Refused(Retired::Replaced) => {
                format!("{}; move it away; if the node is still a member, {RENEW}; {REJOIN}", Retired::Replaced.text())
            }
        }
    }
}

/// Marks the directory as not to be served again. Returns an error unless others hold all its data.
pub(super) fn end(data_dir: &DataDir, reason: LeaveReason) -> Result<(), ServeError> {
    let text = reason.text();
    data_dir.retire(&text)?;
    match reason {
        LeaveReason::HandedOver => {
            info!(reason = text, "left the cluster");
            Ok(())
        }
        LeaveReason::WhileDown | LeaveReason::Refused(_) => Err(data_dir.retired(text).into()),
    }
}

#[cfg(test)]
mod tests {
    use cartwheel_core::cluster::membership::{ChangeKind, History, Member, Strategy};
    use cartwheel_core::ring::Partitions;
    use cartwheel_core::value::cluster_id::ClusterId;
    use cartwheel_core::value::dot::{Incarnation, NodeId};
    use cartwheel_core::value::hlc::Hlc;

    use super::*;

    fn member(name: &str, incarnation: u64) -> Member {
        Member::new(name, Incarnation(incarnation))
    }

    /// A cluster of four after these changes.
    fn view(changes: Vec<ChangeKind>) -> View {
        let members: Vec<Member> = ["a", "b", "c", "d"].map(|name| member(name, 1)).into();
        let (partitions, strategy) = (Partitions::default(), Strategy::default());
        let bootstrap =
            ChangeKind::Bootstrap { cluster: ClusterId(1), partitions, strategy, members, name: String::new() };
        let mut history = History::new();
        for (at, what) in (1..).zip([bootstrap].into_iter().chain(changes)) {
            history.record(Hlc::from_bits(at), NodeId::of_name("a"), what);
        }
        history.view().unwrap()
    }

    #[test]
    fn a_removed_node_knows_whether_it_has_handed_everything_over() {
        let own = Home { node: NodeId::of_name("b"), incarnation: Incarnation(1) };
        let remove = ChangeKind::Remove { node: own.node, incarnation: own.incarnation };
        let left = ChangeKind::Left { node: own.node, incarnation: own.incarnation };
        let renewed = ChangeKind::Replace { old: own.node, new: member("b", 2) };
        let shards = |drained: [bool; 2]| drained.map(|drained| watch::channel(drained).1);
        let of = |changes: &[&ChangeKind], drained| {
            let view = view(changes.iter().map(|&change| change.clone()).collect());
            LeaveReason::of(Retired::Replaced, &view, own, &shards(drained))
        };
        // A peer may refuse the node before the node has learned that its leaving was recorded.
        assert_eq!(of(&[&remove], [true, true]), LeaveReason::HandedOver);
        assert_eq!(of(&[&remove, &left], [true, true]), LeaveReason::HandedOver);
        assert_eq!(of(&[&remove, &left], [true, false]), LeaveReason::WhileDown);
        assert_eq!(of(&[&renewed], [false, false]), LeaveReason::Refused(Retired::Replaced));
        assert_eq!(of(&[], [false, false]), LeaveReason::Refused(Retired::Replaced), "the node knows of no change");
        let copy = LeaveReason::of(Retired::OldCopy, &view(vec![remove]), own, &shards([true, true]));
        assert_eq!(copy, LeaveReason::Refused(Retired::OldCopy));
    }
}
