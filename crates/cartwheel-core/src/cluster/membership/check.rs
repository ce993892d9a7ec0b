//! Checks of changes of members and users before they are recorded. Histories merge as sets, so a recorded change may still have no effect once it meets
//! others. A change that is invalid on the node that receives it is refused instead.

use std::fmt;

use super::users::BadUser;
use super::{ChangeKind, Folded, History, Member, View};
use crate::cluster::configuration::Home;
use crate::value::dot::NodeId;
use crate::value::hlc::Hlc;

/// Why a change of members or users is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadChange {
    /// There is no cluster.
    NoCluster,
    /// The change concerns neither members nor users.
    NotOfMembers,
    /// A change of users.
    User(BadUser),
    /// There is no such member.
    NoMember(NodeId),
    /// A member already has this name.
    NameTaken(String),
    /// The node has another incarnation than the one to be removed, as far as this node knows.
    OtherIncarnation(String),
    /// The node is leaving already.
    Leaving(String),
    /// This incarnation of the node was removed.
    Removed(String),
    /// Fewer nodes that can hold data would remain than some bucket's keys have replicas.
    TooFew {
        /// The number of nodes that would remain.
        remain: usize,
        /// The largest n of any bucket.
        n: usize,
    },
    /// A node that holds data cannot be replaced by one of weight 0.
    Weightless(String),
    /// Only a removed node can be marked lost.
    NotRemoved(NodeId),
}

impl fmt::Display for BadChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster => f.write_str("there is no cluster to change"),
            Self::NotOfMembers => f.write_str("this change concerns neither members nor users"),
            Self::User(why) => why.fmt(f),
            Self::NoMember(node) => write!(f, "the cluster has no member {node}: see `cartwheel cluster status`"),
            Self::NameTaken(name) => {
                write!(f, "a member is already called {name}: give the new node another name, or replace the member")
            }
            Self::OtherIncarnation(name) => write!(
                f,
                "{name} has another data directory than the one to be removed: check `cartwheel cluster status` and try again"
            ),
            Self::Leaving(name) => write!(f, "{name} is already leaving the cluster"),
            Self::Removed(name) => write!(
                f,
                "{name} was removed from the cluster, and its data directory cannot be used again: start it with an empty one"
            ),
            Self::TooFew { remain, n } => write!(
                f,
                "{remain} nodes would remain to hold data, and keys have up to {n} replicas: add nodes first, replace the node, or \
                 lower n"
            ),
            Self::NotRemoved(node) => {
                write!(f, "{node} was not removed from the cluster: remove or replace it before you mark it lost")
            }
            Self::Weightless(name) => write!(f, "{name} has weight 0, so it cannot take over the other node's data"),
        }
    }
}

impl std::error::Error for BadChange {}

/// Checks changes of members and users on top of a history, one after the other. The number of remaining nodes is checked at the end, so a node that
/// leaves may be named before one that joins.
///
/// # Errors
/// Why a change is refused.
pub fn check_members(history: &History, changes: &[ChangeKind]) -> Result<(), BadChange> {
    planned(history, changes).map(drop)
}

/// The cluster that results from all these changes of members and users.
///
/// # Errors
/// Why a change is refused.
pub fn planned(history: &History, changes: &[ChangeKind]) -> Result<View, BadChange> {
    let mut folded = Folded::default();
    let mut history = history.clone();
    let mut view = folded.view(&history).ok_or(BadChange::NoCluster)?;
    let mut takes_data = false;
    for what in changes {
        check(&view, what)?;
        takes_data |= is_taking_data(&view, what);
        // The recording node and the time do not matter yet.
        history.record(Hlc::ZERO, NodeId::new(0), what.clone());
        view = folded.view(&history).ok_or(BadChange::NoCluster)?;
    }
    if takes_data {
        enough_remain(&view)?
    }
    Ok(view)
}

fn check(view: &View, what: &ChangeKind) -> Result<(), BadChange> {
    match what {
        ChangeKind::Add(member) => may_come(view, member, None),
        ChangeKind::Remove { node, incarnation } => {
            let present = view.member(*node).ok_or(BadChange::NoMember(*node))?;
            // The removal of an incarnation that is not known yet would pass for that of one long gone.
            if present.member.incarnation != *incarnation {
                return Err(BadChange::OtherIncarnation(present.member.name.clone()));
            }
            if present.leaving {
                return Err(BadChange::Leaving(present.member.name.clone()));
            }
            Ok(())
        }
        ChangeKind::Replace { old, new } => {
            let present = view.member(*old).ok_or(BadChange::NoMember(*old))?;
            if present.leaving {
                return Err(BadChange::Leaving(present.member.name.clone()));
            }
            if present.member.weight > 0 && new.weight == 0 {
                return Err(BadChange::Weightless(new.name.clone()));
            }
            may_come(view, new, Some(*old))
        }
        ChangeKind::Weight { node, .. } | ChangeKind::Zone { node, .. } => {
            view.member(*node).map(drop).ok_or(BadChange::NoMember(*node))
        }
        ChangeKind::Address { node, incarnation, .. } => {
            let present = view.member(*node).ok_or(BadChange::NoMember(*node))?;
            if present.member.incarnation == *incarnation {
                Ok(())
            } else {
                Err(BadChange::OtherIncarnation(present.member.name.clone()))
            }
        }
        ChangeKind::MarkLost { homes, .. } => {
            let kept = homes.iter().find(|&&home| !view.is_removed(home));
            kept.map_or(Ok(()), |home| Err(BadChange::NotRemoved(home.node)))
        }
        ChangeKind::User { name, patch } => view.users().check(name, patch.as_deref()).map_err(BadChange::User),
        ChangeKind::Bootstrap { .. }
        | ChangeKind::Left { .. }
        | ChangeKind::Bucket { .. }
        | ChangeKind::Empty { .. }
        | ChangeKind::Snapshot(_) => Err(BadChange::NotOfMembers),
    }
}

fn may_come(view: &View, member: &Member, instead: Option<NodeId>) -> Result<(), BadChange> {
    if view.is_removed(Home { node: member.id, incarnation: member.incarnation }) {
        return Err(BadChange::Removed(member.name.clone()));
    }
    let is_other =
        |present: &Member| Some(present.id) != instead && (present.name == member.name || present.id == member.id);
    let taken = view.members().find(|present| is_other(&present.member) && !present.leaving);
    taken.map_or(Ok(()), |taken| Err(BadChange::NameTaken(taken.member.name.clone())))
}

/// Whether a change leaves a node that holds data without any.
fn is_taking_data(view: &View, what: &ChangeKind) -> bool {
    let (ChangeKind::Remove { node, .. } | ChangeKind::Weight { node, weight: 0 }) = what else { return false };
    view.member(*node).is_some_and(|present| present.member.weight > 0)
}

fn enough_remain(view: &View) -> Result<(), BadChange> {
    let remain = view.data_nodes();
    let n = usize::from(view.n_max());
    if remain < n { Err(BadChange::TooFew { remain, n }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::membership::Strategy;
    use crate::ring::Partitions;
    use crate::value::cluster_id::ClusterId;
    use crate::value::dot::Incarnation;

    fn member(name: &str, incarnation: u64) -> Member {
        Member::new(name, Incarnation(incarnation))
    }

    /// A cluster of a, b and c, each in its first incarnation.
    fn three() -> History {
        let members: Vec<Member> = ["a", "b", "c"].map(|name| member(name, 1)).into();
        let (partitions, strategy) = (Partitions::new(8).expect("a count"), Strategy::Balanced);
        let mut history = History::new();
        let bootstrap =
            ChangeKind::Bootstrap { cluster: ClusterId(1), partitions, strategy, members, name: String::new() };
        history.record(Hlc::from_bits(1), NodeId::of_name("a"), bootstrap);
        history
    }

    fn add(name: &str) -> ChangeKind {
        ChangeKind::Add(member(name, 1))
    }

    fn remove(name: &str) -> ChangeKind {
        ChangeKind::Remove { node: NodeId::of_name(name), incarnation: Incarnation(1) }
    }

    fn replace(old: &str, new: Member) -> ChangeKind {
        ChangeKind::Replace { old: NodeId::of_name(old), new }
    }

    fn weight(name: &str, weight: u32) -> ChangeKind {
        ChangeKind::Weight { node: NodeId::of_name(name), weight }
    }

    #[test]
    fn as_many_nodes_must_remain_as_keys_have_replicas() {
        let few = |changes: &[ChangeKind], remain| {
            assert_eq!(check_members(&three(), changes), Err(BadChange::TooFew { remain, n: 3 }), "{changes:?}");
        };
        few(&[remove("b")], 2);
        few(&[remove("a"), remove("b"), remove("c")], 0);
        few(&[weight("b", 0)], 2);
        few(&[add("d"), remove("b"), remove("c")], 2);
        few(&[ChangeKind::Add(Member { weight: 0, ..member("d", 1) }), remove("b")], 2);
    }

    #[test]
    fn a_leaving_node_may_be_named_before_a_joining_one() {
        for changes in [
            vec![remove("b"), add("d")],
            vec![add("d"), remove("b")],
            vec![weight("a", 0), add("d")],
            vec![replace("a", member("d", 1)), weight("d", 200), weight("b", 50)],
            vec![remove("a"), remove("b"), remove("c"), add("d"), add("e"), add("f")],
        ] {
            let view = planned(&three(), &changes).unwrap();
            let holders = view.ring.nodes().iter().filter(|node| node.weight > 0).count();
            let stay = view.members().filter(|known| !known.leaving && known.member.weight > 0).count();
            assert_eq!((holders, stay), (3, 3), "{changes:?}");
            assert!(view.ring.partitions().iter().all(|partition| view.target(partition).len() == 3));
        }
    }

    #[test]
    fn an_invalid_change_is_refused_with_its_reason() {
        let refused = |changes: &[ChangeKind]| check_members(&three(), changes).unwrap_err();
        assert_eq!(refused(&[add("d"), add("d")]), BadChange::NameTaken("d".to_owned()));
        assert_eq!(refused(&[add("b")]), BadChange::NameTaken("b".to_owned()));
        assert_eq!(refused(&[replace("a", member("b", 2))]), BadChange::NameTaken("b".to_owned()));
        assert_eq!(refused(&[weight("z", 1)]), BadChange::NoMember(NodeId::of_name("z")));
        assert_eq!(refused(&[remove("z")]), BadChange::NoMember(NodeId::of_name("z")));
        assert_eq!(refused(&[add("d"), remove("b"), remove("b")]), BadChange::Leaving("b".to_owned()));
        assert_eq!(refused(&[add("d"), remove("b"), add("b")]), BadChange::Removed("b".to_owned()));
        let weightless = Member { weight: 0, ..member("d", 1) };
        assert_eq!(refused(&[replace("a", weightless)]), BadChange::Weightless("d".to_owned()));
        let mark_lost = || ChangeKind::MarkLost {
            homes: vec![Home { node: NodeId::of_name("b"), incarnation: Incarnation(1) }],
            versions: Vec::new(),
        };
        assert_eq!(refused(&[add("d"), mark_lost()]), BadChange::NotRemoved(NodeId::of_name("b")));
        let marked_lost = planned(&three(), &[add("d"), remove("b"), mark_lost()]).unwrap();
        assert!(marked_lost.is_marked_lost(Home { node: NodeId::of_name("b"), incarnation: Incarnation(1) }));
        let left = ChangeKind::Left { node: NodeId::of_name("a"), incarnation: Incarnation(1) };
        assert_eq!(refused(&[left]), BadChange::NotOfMembers);
        assert_eq!(check_members(&History::new(), &[add("d")]), Err(BadChange::NoCluster));
    }
}
