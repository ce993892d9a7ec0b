//! How a node ends whose directory must not be served any more.

use cartwheel_core::cluster::configuration::Home;
use cartwheel_core::cluster::membership::View;
use tokio::sync::watch;
use tracing::info;

use super::ServeError;
use crate::data_dir::DataDir;
use crate::peers::Retired;

const ANEW: &str =
    "To let the node in anew, start it with an empty directory: cartwheel serve --seed HOST:PORT --name NAME --dir DIR";
const RENEW: &str = "make it a new directory with cartwheel renew, which the other nodes refill";

/// Why a node's directory must not be served any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Farewell {
    /// The node was removed, and others hold all that it held.
    HandedOver,
    /// It was removed, and what it holds was not handed over: it did not seem to be there.
    Unheard,
    /// A peer has refused it, and it knows no more than that.
    Refused(Retired),
}

impl Farewell {
    /// What has become of a node that is refused, as far as it knows itself. `drained`: whether its shards have handed everything over.
    pub(super) fn of(why: Retired, view: &View, own: Home, drained: &[watch::Receiver<bool>]) -> Self {
        let has_other_incarnation =
            view.member(own.node).is_some_and(|known| known.member.incarnation != own.incarnation);
        if why != Retired::Replaced || !view.is_removed(own) || has_other_incarnation {
            return Self::Refused(why);
        }
        if drained.iter().all(|drained| *drained.borrow()) { Self::HandedOver } else { Self::Unheard }
    }

    fn told(self) -> String {
        match self {
            Self::HandedOver => {
                format!(
                    "the node was removed from its cluster, and others hold all that it held: this can be deleted. {ANEW}"
                )
            }
            Self::Unheard => format!(
                "the node was removed from its cluster before it had handed over all that it held: keep this if it may hold what \
                 nobody else does. {ANEW}"
            ),
            Self::Refused(Retired::OldCopy) => format!("{}. Move it away, and {RENEW}", Retired::OldCopy.told()),
            Self::Refused(Retired::Replaced) => {
                format!("{}. Move it away; if the node is still a member, {RENEW}. {ANEW}", Retired::Replaced.told())
            }
        }
    }
}

/// Notes in the directory that it must not be served any more. That is an error unless nothing is lost by it.
pub(super) fn end(data_dir: &DataDir, farewell: Farewell) -> Result<(), ServeError> {
    let told = farewell.told();
    data_dir.retire(&told)?;
    match farewell {
        Farewell::HandedOver => {
            info!("left the cluster: {told}");
            Ok(())
        }
        Farewell::Unheard | Farewell::Refused(_) => Err(data_dir.retired(told).into()),
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
        let founding =
            ChangeKind::Bootstrap { cluster: ClusterId(1), partitions, strategy, members, name: String::new() };
        let mut history = History::new();
        for (at, what) in (1..).zip([founding].into_iter().chain(changes)) {
            history.record(Hlc::from_bits(at), NodeId::of_name("a"), what);
        }
        history.view().unwrap()
    }

    #[test]
    fn a_node_that_was_removed_knows_whether_it_has_handed_everything_over() {
        let own = Home { node: NodeId::of_name("b"), incarnation: Incarnation(1) };
        let remove = ChangeKind::Remove { node: own.node, incarnation: own.incarnation };
        let left = ChangeKind::Left { node: own.node, incarnation: own.incarnation };
        let renewed = ChangeKind::Replace { old: own.node, new: member("b", 2) };
        let shards = |drained: [bool; 2]| drained.map(|drained| watch::channel(drained).1);
        let of = |changes: &[&ChangeKind], drained| {
            let view = view(changes.iter().map(|&change| change.clone()).collect());
            Farewell::of(Retired::Replaced, &view, own, &shards(drained))
        };
        // A peer may say it before the node has heard that its leaving was recorded.
        assert_eq!(of(&[&remove], [true, true]), Farewell::HandedOver);
        assert_eq!(of(&[&remove, &left], [true, true]), Farewell::HandedOver);
        assert_eq!(of(&[&remove, &left], [true, false]), Farewell::Unheard);
        assert_eq!(of(&[&renewed], [false, false]), Farewell::Refused(Retired::Replaced));
        assert_eq!(of(&[], [false, false]), Farewell::Refused(Retired::Replaced), "it has heard of nothing");
        let copy = Farewell::of(Retired::OldCopy, &view(vec![remove]), own, &shards([true, true]));
        assert_eq!(copy, Farewell::Refused(Retired::OldCopy));
    }
}
