//! The members of a view in a fixed order, which is the same on all nodes with the same members.

use crate::cluster::membership::View;
use crate::message::gossip::MembersDigest;
use crate::value::dot::{Incarnation, NodeId};

/// The members of a view, by id, each with its incarnation.
#[derive(Debug, Default)]
pub(super) struct MemberList {
    pub(super) digest: MembersDigest,
    members: Vec<(NodeId, Incarnation)>,
}

impl MemberList {
    pub(super) fn of(view: &View) -> Self {
        let members: Vec<(NodeId, Incarnation)> =
            view.members().map(|known| (known.member.id, known.member.incarnation)).collect();
        let mut hash = blake3::Hasher::new();
        for (node, incarnation) in &members {
            hash.update(&node.get().to_be_bytes());
            hash.update(&incarnation.0.to_be_bytes());
        }
        let digest = hash.finalize().as_bytes()[..16].try_into().map_or(0, u128::from_be_bytes);
        Self { digest: MembersDigest(digest), members }
    }

    pub(super) fn members(&self) -> &[(NodeId, Incarnation)] {
        &self.members
    }

    /// The position of an incarnation of a node.
    pub(super) fn position(&self, node: NodeId, incarnation: Incarnation) -> Option<usize> {
        self.members.binary_search(&(node, incarnation)).ok()
    }
}

impl MembersDigest {
    /// The digest of the members of a view.
    pub fn of(view: &View) -> Self {
        MemberList::of(view).digest
    }
}
