//! What a node thinks of every other: whether it is worth asking.
//!
//! It is a guess, made by the node's [`crate::control`] and handed to all that choose whom to ask. It never changes who is a home.

use std::fmt;

use crate::value::dot::NodeId;
use crate::value::hlc::WallMs;

/// Whether a node is worth asking.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Status {
    /// Nothing speaks against it.
    #[default]
    Alive,
    /// It may be dead, paused, slow or cut off: it is asked if nobody better is there.
    Suspect,
    /// Nobody has heard of it for some time.
    Down,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Alive, Self::Suspect, Self::Down];

    /// Its name in answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a node stands as it does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// Nothing was heard of it yet, and nothing speaks against it.
    NotHeardYet,
    /// It, or somebody who reaches it, has said that it is there.
    Heard,
    /// A probe went unanswered, and so did those that other nodes made.
    ProbeUnanswered,
    /// It answers probes that others make, not this node's: one direction between the two is cut, or both.
    OnlyOthersReachIt,
    /// Another node suspects it.
    SuspectedByOthers,
    /// The connection to it broke or cannot be made.
    ConnectionLost,
    /// It was suspected, and did not speak up in the time it had.
    SuspicionConfirmed,
    /// Another node has given it up.
    DeclaredDownByOthers,
    /// It answers, but has come and gone too often of late to be relied on.
    Flapping,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHeardYet => "nothing was heard of it yet",
            Self::Heard => "it answers",
            Self::ProbeUnanswered => "it did not answer a probe, neither this node's nor one that others made",
            Self::OnlyOthersReachIt => "it answers others, but not this node",
            Self::SuspectedByOthers => "another node gets no answer from it",
            Self::ConnectionLost => "the connection to it broke or cannot be made",
            Self::SuspicionConfirmed => "it did not answer probes, nor speak up when it was suspected",
            Self::DeclaredDownByOthers => "another node has had no answer from it for some time",
            Self::Flapping => "it answers, but has come and gone too often of late",
        })
    }
}

/// How a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Whether it is worth asking.
    pub status: Status,
    /// Since when, by the clock of the node that thinks so.
    pub since: WallMs,
    /// Why.
    pub why: Why,
}

/// What a node thinks of every other. It does not change: a later opinion is a later value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Liveness {
    /// By id. A large cluster's are made anew often, and in one piece.
    peer_statuses: Vec<(NodeId, PeerStatus)>,
}

impl Liveness {
    /// The opinion that is made of these standings, one for each node.
    pub fn new(peer_statuses: impl IntoIterator<Item = (NodeId, PeerStatus)>) -> Self {
        let mut peer_statuses: Vec<(NodeId, PeerStatus)> = peer_statuses.into_iter().collect();
        peer_statuses.sort_by_key(|&(node, _)| node);
        peer_statuses.dedup_by_key(|&mut (node, _)| node);
        Self { peer_statuses }
    }

    /// Whether a node is worth asking. One of which nothing is known is.
    pub fn status(&self, node: NodeId) -> Status {
        self.get(node).map_or(Status::Alive, |peer_status| peer_status.status)
    }

    /// How a node stands; none for the node whose opinion this is, and for strangers.
    pub fn get(&self, node: NodeId) -> Option<&PeerStatus> {
        let place = self.peer_statuses.binary_search_by_key(&node, |&(node, _)| node).ok()?;
        self.peer_statuses.get(place).map(|(_, peer_status)| peer_status)
    }

    /// How each stands, by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &PeerStatus)> {
        self.peer_statuses.iter().map(|(node, peer_status)| (*node, peer_status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_which_nothing_is_known_is_worth_asking() {
        let down = PeerStatus { status: Status::Down, since: WallMs(1), why: Why::SuspicionConfirmed };
        let liveness = Liveness::new([(NodeId::new(1), down)]);
        assert_eq!(liveness.status(NodeId::new(1)), Status::Down);
        assert_eq!(liveness.status(NodeId::new(2)), Status::Alive);
    }
}
