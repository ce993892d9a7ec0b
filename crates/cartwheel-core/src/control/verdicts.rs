//! The verdicts on all other nodes, and the liveness that follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::verdict::Verdict;
use crate::cluster::liveness::{Liveness, PeerStatus, Status};
use crate::value::dot::NodeId;
use crate::value::time::{Instant, Now};

/// How long the first message of a node may wait to be reported: its status stays the same. When a large cluster
/// starts, each node hears all others for the first time within seconds, and each report goes to all shards.
const FIRST_HEARD_REPORTED_WITHIN: Duration = Duration::from_secs(1);

/// The verdicts of one node. They are only evaluated when one has changed or a time has come.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    peers: BTreeMap<NodeId, Verdict>,
    /// The nodes that must answer before they count as alive again.
    unresponsive: BTreeSet<NodeId>,
    /// When changes are evaluated.
    judge_at: Option<Instant>,
    /// When the first hold of a flapping node ends.
    held_until: Option<Instant>,
    /// Whether each node drains, and in which boot it last said so.
    drains: BTreeMap<NodeId, (u32, bool)>,
    liveness: Arc<Liveness>,
}

impl Verdicts {
    /// The liveness of all other nodes.
    pub(super) const fn liveness(&self) -> &Arc<Liveness> {
        &self.liveness
    }

    /// The verdict on a node.
    pub(super) fn get(&self, node: NodeId) -> Option<&Verdict> {
        self.peers.get(&node)
    }

    /// The number of other nodes.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Adds a node of which nothing is known yet.
    pub(super) fn insert(&mut self, now: Now, node: NodeId) {
        self.peers.insert(node, Verdict::new(now.wall));
        self.drains.remove(&node);
        self.unresponsive.remove(&node);
        self.judge_at = Some(now.instant);
    }

    /// Removes nodes that are no longer members.
    pub(super) fn retain(&mut self, now: Now, is_member: impl Fn(NodeId) -> bool) {
        let before = self.peers.len();
        self.peers.retain(|&node, _| is_member(node));
        if self.peers.len() < before {
            self.unresponsive.retain(|node| self.peers.contains_key(node));
            self.drains.retain(|node, _| self.peers.contains_key(node));
            self.judge_at = Some(now.instant);
        }
    }

    /// A node has said in this boot whether it drains. What it said in an earlier boot no longer counts.
    pub(super) fn drains(&mut self, now: Instant, node: NodeId, boot: u32, drains: bool) {
        let known = self.drains.get(&node).copied();
        if !self.peers.contains_key(&node) || known.is_some_and(|(latest, _)| boot < latest) {
            return;
        }
        self.drains.insert(node, (boot, drains));
        if known.is_some_and(|(_, drained)| drained) != drains {
            self.judge_at = Some(now);
        }
    }

    /// Changes the verdict on a node.
    pub(super) fn edit(&mut self, now: Instant, node: NodeId, change: impl FnOnce(&mut Verdict)) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let before = *peer;
        change(peer);
        if *peer == before {
            return;
        }
        if peer.is_unresponsive() {
            self.unresponsive.insert(node);
        } else {
            self.unresponsive.remove(&node);
        }
        let mut heard = before;
        heard.heard = true;
        let only_heard = *peer == heard;
        let judge_at = if only_heard { now + FIRST_HEARD_REPORTED_WITHIN } else { now };
        self.judge_at = Some(self.judge_at.map_or(judge_at, |at| at.min(judge_at)));
    }

    /// Whether any node owes a response.
    pub(super) fn any_unresponsive(&self) -> bool {
        !self.unresponsive.is_empty()
    }

    /// The nodes that owe a response, or all nodes, in the order of ids, beginning after a node.
    pub(super) fn in_turn(&self, after: NodeId, all: bool) -> impl Iterator<Item = NodeId> + '_ {
        let turn = (Bound::Excluded(after), Bound::Unbounded);
        let unresponsive = self.unresponsive.range(turn).chain(self.unresponsive.range(..=after)).copied();
        let all_nodes = self.peers.range(turn).chain(self.peers.range(..=after)).map(|(&node, _)| node);
        unresponsive.filter(move |_| !all).chain(all_nodes.filter(move |_| all))
    }

    /// When the verdicts are evaluated next without a further change.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.judge_at.into_iter().chain(self.held_until).min()
    }

    /// The new liveness, if it has changed. With `blind`, no node is ever suspected.
    pub(super) fn judge(&mut self, now: Now, blind: bool) -> Option<Arc<Liveness>> {
        self.wake_at().filter(|&at| at <= now.instant)?;
        let peer_statuses = self.peers.iter_mut().map(|(&node, peer)| {
            let peer_status = peer.judge(now);
            (node, if blind { PeerStatus { status: Status::Alive, ..peer_status } } else { peer_status })
        });
        let draining = self.drains.iter().filter(|(_, (_, drains))| *drains).map(|(&node, _)| node);
        let liveness = Liveness::new(peer_statuses).with_draining(draining);
        self.judge_at = None;
        self.held_until = self.peers.values().filter_map(|peer| peer.held_until).min();
        (liveness != *self.liveness).then(|| {
            self.liveness = Arc::new(liveness);
            self.liveness.clone()
        })
    }
}
