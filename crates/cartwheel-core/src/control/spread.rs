//! Gossip of the history.
//!
//! A history can be large: each member takes some 150 bytes. So nodes send each other the changes since a version that
//! both have had. They send the whole history only if they remember no such version.

use std::collections::VecDeque;

use super::{Control, ControlEffects, FANOUT, Notice};
use crate::cluster::configuration::Home;
use crate::cluster::liveness::Status;
use crate::cluster::membership::History;
use crate::message::gossip::{Changes, WANT_MAX};
use crate::ring::RingVersion;
use crate::value::dot::NodeId;
use crate::value::time::Now;

/// How many changes a history may hold after a peer's were merged. Far more than one node records, since the sides of a
/// network partition record independently. The limit keeps a faulty peer from filling memory and disk.
pub(super) const LEARNT_MAX: usize = 100_000;
/// In a cluster of up to this many members, a change is sent to all at once.
pub(super) const SMALL_CLUSTER_MAX: usize = 32;
/// How many of its previous versions a node remembers, and how many changes since.
const STEPS_MAX: usize = 64;
const STEP_CHANGES_MAX: usize = 256;
/// The versions that this node has had lately, and the changes since.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Each version, and the changes that made the next one of it; the latest last.
    steps: VecDeque<(RingVersion, History)>,
    changes: usize,
}

impl Recent {
    /// Records that the version was followed by another, through these changes.
    fn push(&mut self, version: RingVersion, came: History) {
        self.changes += came.len();
        self.steps.push_back((version, came));
        while self.steps.len() > STEPS_MAX || self.changes > STEP_CHANGES_MAX {
            let gone = self.steps.pop_front();
            self.changes -= gone.map_or(0, |(_, came)| came.len());
        }
    }

    /// The changes since a version; none if it is not remembered.
    fn since(&self, version: RingVersion) -> Option<History> {
        let position = self.steps.iter().position(|(previous, _)| *previous == version)?;
        let mut came = History::new();
        for (_, step) in self.steps.range(position..) {
            came.merge(step);
        }
        Some(came)
    }
}

impl Control {
    /// Whether the cluster is so small that a change is sent to all members at once.
    pub(super) fn is_small(&self) -> bool {
        self.view.members().len() <= SMALL_CLUSTER_MAX
    }

    /// A few of the other members, chosen at random.
    pub(super) fn some_others(&mut self) -> Vec<NodeId> {
        let mut left = self.others.clone();
        let wanted = FANOUT.min(left.len());
        (0..wanted).map(|_| left.swap_remove(self.random_below(left.len()))).collect()
    }

    /// The members that a change is sent to at once.
    pub(super) fn peers_to_notify(&mut self) -> Vec<NodeId> {
        if self.is_small() { self.others.clone() } else { self.some_others() }
    }

    /// The changes since a version that this node has or has had; none if it does not remember it.
    fn since(&self, version: RingVersion) -> Option<History> {
        if version == self.version() { Some(History::new()) } else { self.recent.since(version) }
    }

    /// Whether this node has, or has had, a version, and so knows all its changes.
    pub(super) fn has_had(&self, version: RingVersion) -> bool {
        version == self.version() || self.recent.steps.iter().any(|&(previous, _)| previous == version)
    }

    /// The notice that members are sent now and then. A member that does not answer may not know that this node is a
    /// member, and listens only to the change that added it.
    pub(super) fn greeting(&self, peer: NodeId) -> Notice {
        let version = self.version();
        let is_known_there = self.peers.get(&peer) == Some(&version);
        if self.liveness().status(peer) != Status::Down || is_known_there {
            return Notice::Have(version);
        }
        let changes = self.history.introduction(self.config.node);
        Notice::Changes(Changes { since: version, version, changes, is_answer: false })
    }

    /// A non-member sends changes. They are accepted if one of them adds it.
    pub(super) fn on_stranger(&mut self, stranger: Home, changes: &History) {
        if changes.changes().any(|change| change.what.lets_in(stranger)) {
            self.learn(changes);
        }
    }

    /// A member reports its version.
    pub(super) fn on_version(&mut self, now: Now, from: NodeId, version: RingVersion, effects: &mut ControlEffects) {
        self.peers.insert(from, version);
        if version == self.version() {
            return;
        }
        match self.since(version) {
            Some(changes) => self.send_changes(now, from, version, changes, effects),
            None => self.want(now, from, effects),
        }
    }

    /// Requests from a member the changes that this node lacks.
    fn want(&self, now: Now, from: NodeId, effects: &mut ControlEffects) {
        let previous = self.recent.steps.iter().rev().map(|&(version, _)| version);
        let versions = [self.version()].into_iter().chain(previous).take(WANT_MAX).collect();
        self.send(now, from, Notice::Want(versions), effects);
    }

    /// A member that has had these versions (the first is its current one) requests the changes that it lacks.
    pub(super) fn on_want(&mut self, now: Now, from: NodeId, had: &[RingVersion], effects: &mut ControlEffects) {
        if let Some(&version) = had.first() {
            self.peers.insert(from, version);
        }
        if had.contains(&self.version()) {
            // The member lacks nothing; this node lacks something of what it has.
            return self.send(now, from, Notice::Have(self.version()), effects);
        }
        match had.iter().find_map(|&version| Some((version, self.since(version)?))) {
            Some((since, changes)) => self.send_changes(now, from, since, changes, effects),
            None => self.send(now, from, Notice::History(self.history.clone()), effects),
        }
    }

    fn send_changes(&self, now: Now, to: NodeId, since: RingVersion, changes: History, effects: &mut ControlEffects) {
        let notice = Changes { since, version: self.version(), changes, is_answer: false };
        self.send(now, to, Notice::Changes(notice), effects);
    }

    /// A member sends the changes since a version.
    pub(super) fn on_changes(&mut self, now: Now, from: NodeId, notice: Changes, effects: &mut ControlEffects) {
        let Changes { since, version, changes, is_answer } = notice;
        self.peers.insert(from, version);
        if version == self.version() {
            // Both have the same version now. This reports it to the peer.
            return self.send(now, from, Notice::Have(version), effects);
        }
        let Some(ours) = self.since(since) else {
            // Either of the two may be far behind.
            return self.on_version(now, from, version, effects);
        };
        if self.learn(&changes) && !is_answer {
            let lacking = ours.without(&changes);
            if !lacking.is_empty() {
                let reply = Changes { since, version: self.version(), changes: lacking, is_answer: true };
                self.send(now, from, Notice::Changes(reply), effects);
            }
        }
    }

    /// A member sends its whole history.
    pub(super) fn on_history(&mut self, now: Now, from: NodeId, history: &History, effects: &mut ControlEffects) {
        if self.learn_all(now, from, history, effects) && !self.history.is_within(history) {
            self.send(now, from, Notice::Complement(self.history.clone()), effects);
        }
    }

    /// Takes in a member's whole history; false if it makes no sense.
    pub(super) fn learn_all(
        &mut self,
        now: Now,
        from: NodeId,
        history: &History,
        effects: &mut ControlEffects,
    ) -> bool {
        if !self.learn(history) {
            return false;
        }
        self.peers.insert(from, history.version());
        if *history == self.history {
            // Both have the same history now. This reports it to the peer.
            self.send(now, from, Notice::Have(self.version()), effects);
        }
        true
    }

    /// Takes in changes; false if they make no sense. They are saved before they are sent on.
    fn learn(&mut self, changes: &History) -> bool {
        if changes.is_within(&self.wanted) {
            return true;
        }
        let mut union = self.wanted.clone();
        union.merge(changes);
        // Changes that would make this another cluster are a mistake or an attack.
        if union.len() > LEARNT_MAX || union.cluster() != Some(self.config.cluster) {
            return false;
        }
        self.wanted = union;
        true
    }

    /// Adopts a saved history. In a small cluster, the author of a change sends it to all members, and a node that
    /// learned of it confirms that to members that have it. In a large cluster each sends it to a few. Gossip does the
    /// rest.
    pub(super) fn adopt(&mut self, now: Now, history: History, effects: &mut ControlEffects) {
        let Some(view) = self.views.view(&history) else { return };
        let came = history.without(&self.history);
        self.recent.push(self.version(), came);
        self.set_view(view);
        self.history = history;
        effects.view = Some(self.view.clone());
        let is_author = self.note_saved(now);
        let version = self.version();
        let alike: Vec<NodeId> =
            self.peers.iter().filter(|&(_, theirs)| *theirs == version).map(|(&peer, _)| peer).collect();
        let receivers = if self.is_small() && !is_author { Vec::new() } else { self.peers_to_notify() };
        for peer in receivers.into_iter().filter(|peer| !alike.contains(peer)) {
            self.send_latest(now, peer, effects);
        }
        for peer in alike {
            self.send(now, peer, Notice::Have(version), effects);
        }
    }

    /// Sends a member the changes since the version that it probably has.
    fn send_latest(&self, now: Now, peer: NodeId, effects: &mut ControlEffects) {
        let theirs = self.peers.get(&peer).and_then(|&version| Some((version, self.since(version)?)));
        let previous = || self.recent.steps.back().cloned();
        if let Some((since, changes)) = theirs.or_else(previous) {
            self.send_changes(now, peer, since, changes, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::membership::{Change, ChangeKind};
    use crate::value::hlc::{Hlc, WallMs};

    fn version(number: u64) -> RingVersion {
        RingVersion { changes: number, digest: number }
    }

    fn one(number: u64) -> History {
        let mut history = History::new();
        let (node, hlc) = (NodeId::new(1), Hlc::at(WallMs(number)));
        history.insert(Change { hlc, node, number, what: ChangeKind::Weight { node, weight: number as u32 } });
        history
    }

    #[test]
    fn recent_changes_are_remembered_by_version() {
        let mut recent = Recent::default();
        (1..=3).for_each(|number| recent.push(version(number), one(number)));
        assert_eq!(recent.since(version(2)).map(|came| came.len()), Some(2));
        assert_eq!(recent.since(version(3)), Some(one(3)));
        assert_eq!(recent.since(version(4)), None, "that is the latest");
        (4..=100).for_each(|number| recent.push(version(number), one(number)));
        assert_eq!((recent.since(version(36)), recent.since(version(37)).map(|came| came.len())), (None, Some(64)));
    }

    #[test]
    fn changes_too_large_to_remember_are_dropped() {
        let mut recent = Recent::default();
        let mut large = History::new();
        for number in 0..=STEP_CHANGES_MAX as u64 {
            large.merge(&one(number));
        }
        recent.push(version(1), one(1));
        recent.push(version(2), large);
        assert_eq!((recent.steps.len(), recent.changes), (0, 0));
    }
}
