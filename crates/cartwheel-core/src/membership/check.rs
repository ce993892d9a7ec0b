//! Which changes of members are refused, and why. Histories merge as sets, so a change that is recorded may still come to nothing where
//! it meets others; but one that makes no sense to the node that is asked for it is better refused than recorded.

use std::fmt;

use super::{ChangeKind, Folded, History, Member, View};
use crate::configuration::Home;
use crate::dot::NodeId;
use crate::hlc::Hlc;

/// Why a change of members is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadChange {
    /// There is no cluster.
    NoCluster,
    /// It is no change of members.
    NotOfMembers,
    /// There is no such member.
    NoMember(NodeId),
    /// A member is called so already.
    NameTaken(String),
    /// It has another life than the one that is to be removed, as far as the node that is asked knows.
    OtherLife(String),
    /// It is on its way out already.
    Leaving(String),
    /// This life of the node was removed.
    Removed(String),
    /// So many nodes that can hold data would remain, and some bucket's keys have so many replicas.
    TooFew {
        /// How many would remain.
        remain: usize,
        /// The largest n of any bucket.
        n: usize,
    },
    /// A node that holds data cannot be replaced by one of weight 0.
    Weightless(String),
}

impl fmt::Display for BadChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster => f.write_str("there is no cluster to change"),
            Self::NotOfMembers => f.write_str("this is no change of members"),
            Self::NoMember(node) => write!(f, "the cluster has no member {node}: see `cartwheel cluster status`"),
            Self::NameTaken(name) => {
                write!(f, "a member is called {name} already: give the new node another name, or replace the member")
            }
            Self::OtherLife(name) => write!(
                f,
                "{name} has another data directory than the one that is to be removed: look again at `cartwheel cluster status`"
            ),
            Self::Leaving(name) => write!(f, "{name} is leaving the cluster already"),
            Self::Removed(name) => write!(
                f,
                "{name} was removed from the cluster with this data directory, which never comes back: start it with an empty one"
            ),
            Self::TooFew { remain, n } => write!(
                f,
                "{remain} nodes would remain to hold data, and keys have up to {n} replicas: add nodes first, replace the node, or \
                 lower n"
            ),
            Self::Weightless(name) => write!(f, "{name} has weight 0, so it cannot take over what the other holds"),
        }
    }
}

impl std::error::Error for BadChange {}

/// Whether changes of members make sense on top of a history, one after the other.
///
/// # Errors
/// Why not.
pub fn check_members(history: &History, changes: &[ChangeKind]) -> Result<(), BadChange> {
    planned(history, changes).map(drop)
}

/// The cluster that changes of members would lead to.
///
/// # Errors
/// Why they make no sense.
pub fn planned(history: &History, changes: &[ChangeKind]) -> Result<View, BadChange> {
    let mut folded = Folded::default();
    let mut history = history.clone();
    let mut view = folded.view(&history).ok_or(BadChange::NoCluster)?;
    for what in changes {
        check(&view, what)?;
        // Who records it and when is not in question yet.
        history.record(Hlc::ZERO, NodeId::new(0), what.clone());
        view = folded.view(&history).ok_or(BadChange::NoCluster)?;
    }
    Ok(view)
}

fn check(view: &View, what: &ChangeKind) -> Result<(), BadChange> {
    match what {
        ChangeKind::Add(member) => may_come(view, member, None),
        ChangeKind::Remove { node, life } => {
            let present = view.member(*node).ok_or(BadChange::NoMember(*node))?;
            // What is removed before it is known would be taken for what is long gone.
            if present.member.life != *life {
                return Err(BadChange::OtherLife(present.member.name.clone()));
            }
            if present.leaving {
                return Err(BadChange::Leaving(present.member.name.clone()));
            }
            enough_remain(view, *node)
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
        ChangeKind::Weight { node, weight } => {
            view.member(*node).ok_or(BadChange::NoMember(*node))?;
            if *weight == 0 { enough_remain(view, *node) } else { Ok(()) }
        }
        ChangeKind::Zone { node, .. } => view.member(*node).map(drop).ok_or(BadChange::NoMember(*node)),
        ChangeKind::Found { .. } | ChangeKind::Left { .. } | ChangeKind::Bucket { .. } => Err(BadChange::NotOfMembers),
    }
}

fn may_come(view: &View, member: &Member, instead: Option<NodeId>) -> Result<(), BadChange> {
    if view.is_removed(Home { node: member.id, life: member.life }) {
        return Err(BadChange::Removed(member.name.clone()));
    }
    let is_other =
        |present: &Member| Some(present.id) != instead && (present.name == member.name || present.id == member.id);
    let taken = view.members().find(|present| is_other(&present.member) && !present.leaving);
    taken.map_or(Ok(()), |taken| Err(BadChange::NameTaken(taken.member.name.clone())))
}

fn enough_remain(view: &View, without: NodeId) -> Result<(), BadChange> {
    let remain =
        view.members().filter(|present| !present.leaving && present.member.weight > 0 && present.member.id != without);
    let (remain, n) = (remain.count(), usize::from(view.n_max()));
    let holds_data = view.member(without).is_some_and(|present| present.member.weight > 0);
    if holds_data && remain < n { Err(BadChange::TooFew { remain, n }) } else { Ok(()) }
}
