//! A node's view of the liveness of all others.
//!
//! It is a guess, made by the node's [`crate::control`] and used wherever nodes are chosen for a request. It never changes which nodes are
//! homes.

use std::fmt;

use crate::value::dot::NodeId;
use crate::value::hlc::WallMs;

/// The liveness of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Status {
    /// There is no sign of a failure.
    #[default]
    Alive,
    /// It may be dead, paused, slow or unreachable. It is sent requests only if no better node is available.
    Suspect,
    /// No node has heard from it for some time.
    Down,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 3] = [Self::Alive, Self::Suspect, Self::Down];

    /// The name in replies and metrics.
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

/// Why a node has its status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Why {
    /// It has not been heard from yet, and there is no sign of a failure.
    NotHeardYet,
    /// It has answered, or another node that reaches it has said so.
    Heard,
    /// Neither this node's probe nor the probes of other nodes were answered.
    ProbeUnanswered,
    /// It answers probes of other nodes but not this node's: at least one direction between the two is cut.
    OnlyOthersReachIt,
    /// Another node suspects it.
    SuspectedByOthers,
    /// The connection to it broke or cannot be made.
    ConnectionLost,
    /// It was suspected, and did not refute that in time.
    SuspicionConfirmed,
    /// Another node has declared it down.
    DeclaredDownByOthers,
    /// It answers, but has failed and recovered too often recently to be relied on.
    Flapping,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHeardYet => "not heard from yet",
            Self::Heard => "it answers",
            Self::ProbeUnanswered => "it answered neither this node's probe nor those of other nodes",
            Self::OnlyOthersReachIt => "it answers other nodes but not this one",
            Self::SuspectedByOthers => "another node gets no answer from it",
            Self::ConnectionLost => "the connection to it broke or cannot be made",
            Self::SuspicionConfirmed => "it answered no probes and did not refute the suspicion in time",
            Self::DeclaredDownByOthers => "another node has declared it down",
            Self::Flapping => "it answers, but has failed and recovered too often recently",
        })
    }
}

/// A node's status, with its time and reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The status.
    pub status: Status,
    /// When it began, by the clock of the node that assigned it.
    pub since: WallMs,
    /// The reason.
    pub why: Why,
}

/// The statuses of all other nodes. Immutable: a change makes a new value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Liveness {
    /// Sorted by id. In one piece, because a large cluster's are rebuilt often.
    peer_statuses: Vec<(NodeId, PeerStatus)>,
    /// Sorted.
    draining: Vec<NodeId>,
}

impl Liveness {
    /// The liveness with these statuses, one for each node.
    pub fn new(peer_statuses: impl IntoIterator<Item = (NodeId, PeerStatus)>) -> Self {
        let mut peer_statuses: Vec<(NodeId, PeerStatus)> = peer_statuses.into_iter().collect();
        peer_statuses.sort_by_key(|&(node, _)| node);
        peer_statuses.dedup_by_key(|&mut (node, _)| node);
        Self { peer_statuses, draining: Vec::new() }
    }

    /// The same, with these nodes draining.
    #[must_use]
    pub fn with_draining(self, draining: impl IntoIterator<Item = NodeId>) -> Self {
        let mut draining: Vec<NodeId> = draining.into_iter().collect();
        draining.sort_unstable();
        draining.dedup();
        Self { draining, ..self }
    }

    /// Whether another node drains: it serves, but is about to be stopped. It keeps its part as a home, and is chosen last to coordinate and to
    /// stand in.
    pub fn is_draining(&self, node: NodeId) -> bool {
        self.draining.binary_search(&node).is_ok()
    }

    /// The status of a node; `Alive` if nothing is known of it.
    pub fn status(&self, node: NodeId) -> Status {
        self.get(node).map_or(Status::Alive, |peer_status| peer_status.status)
    }

    /// The status of a node with its reason; `None` for the node itself and for strangers.
    pub fn get(&self, node: NodeId) -> Option<&PeerStatus> {
        let place = self.peer_statuses.binary_search_by_key(&node, |&(node, _)| node).ok()?;
        self.peer_statuses.get(place).map(|(_, peer_status)| peer_status)
    }

    /// All statuses, by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &PeerStatus)> {
        self.peer_statuses.iter().map(|(node, peer_status)| (*node, peer_status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_node_counts_as_alive() {
        let down = PeerStatus { status: Status::Down, since: WallMs(1), why: Why::SuspicionConfirmed };
        let liveness = Liveness::new([(NodeId::new(1), down)]);
        assert_eq!(liveness.status(NodeId::new(1)), Status::Down);
        assert_eq!(liveness.status(NodeId::new(2)), Status::Alive);
    }
}
