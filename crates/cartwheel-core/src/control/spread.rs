//! How changes of the history spread from node to node.
//!
//! A history can be large: each member is some 150 bytes. So nodes tell each other what came since a version that both have had,
//! and only where there is none that they remember, all that they have.

use std::collections::VecDeque;

use super::{Control, ControlEffects, Notice, TOLD};
use crate::cluster::configuration::Home;
use crate::cluster::liveness::Status;
use crate::cluster::membership::History;
use crate::message::gossip::{Changes, WANT_MAX};
use crate::ring::RingVersion;
use crate::value::dot::NodeId;
use crate::value::time::Now;

/// How many changes a history may hold for a peer's to be taken in. It is far above what one node records, since the sides of a cut
/// network record on their own, and keeps a broken peer from filling memory and disk.
pub(super) const LEARNT_MAX: usize = 100_000;
/// In a cluster of up to so many members everyone is told of a change at once.
pub(super) const EVERYONE_MAX: usize = 32;
/// How many of its former versions a node remembers, and how many changes may have come since.
const STEPS_MAX: usize = 64;
const STEP_CHANGES_MAX: usize = 256;
/// The versions that this node has had lately, and what came to each.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// A version, and what made the next of it; the latest last.
    steps: VecDeque<(RingVersion, History)>,
    changes: usize,
}

impl Recent {
    /// The version was followed by another, with these changes more.
    fn push(&mut self, version: RingVersion, came: History) {
        self.changes += came.len();
        self.steps.push_back((version, came));
        while self.steps.len() > STEPS_MAX || self.changes > STEP_CHANGES_MAX {
            let gone = self.steps.pop_front();
            self.changes -= gone.map_or(0, |(_, came)| came.len());
        }
    }

    /// What came since a version; none if that is not known.
    fn since(&self, version: RingVersion) -> Option<History> {
        let place = self.steps.iter().position(|(former, _)| *former == version)?;
        let mut came = History::new();
        for (_, step) in self.steps.range(place..) {
            came.merge(step);
        }
        Some(came)
    }
}

impl Control {
    /// Whether the cluster is so small that everyone is told of a change at once.
    pub(super) fn is_small(&self) -> bool {
        self.view.members().len() <= EVERYONE_MAX
    }

    /// A handful of the other members, chosen at random.
    pub(super) fn some_others(&mut self) -> Vec<NodeId> {
        let mut left = self.others.clone();
        let wanted = TOLD.min(left.len());
        (0..wanted).map(|_| left.swap_remove(self.random_below(left.len()))).collect()
    }

    /// Whom to tell of a change at once.
    pub(super) fn everyone_or_some(&mut self) -> Vec<NodeId> {
        if self.is_small() { self.others.clone() } else { self.some_others() }
    }

    /// What came since a version that this node has, or has had; none if it knows nothing of it.
    fn since(&self, version: RingVersion) -> Option<History> {
        if version == self.version() { Some(History::new()) } else { self.recent.since(version) }
    }

    /// Whether this node knows all that a version stands for: it has it, or has had it lately.
    pub(super) fn has_had(&self, version: RingVersion) -> bool {
        version == self.version() || self.recent.steps.iter().any(|&(former, _)| former == version)
    }

    /// What a member is told now and then. One that does not answer may not know that this node is a member, and listens only if it is
    /// told what let it in.
    pub(super) fn greeting(&self, peer: NodeId) -> Notice {
        let version = self.version();
        let is_known_there = self.peers.get(&peer) == Some(&version);
        if self.liveness().status(peer) != Status::Down || is_known_there {
            return Notice::Have(version);
        }
        let changes = self.history.introduction(self.config.node);
        Notice::Changes(Changes { since: version, version, changes, is_answer: false })
    }

    /// A node that is no member here tells of changes. It is heard if one of them lets it in.
    pub(super) fn stranger_came(&mut self, stranger: Home, changes: &History) {
        if changes.changes().any(|change| change.what.lets_in(stranger)) {
            self.learn(changes);
        }
    }

    /// A member says which version it has.
    pub(super) fn peer_has(&mut self, now: Now, from: NodeId, version: RingVersion, effects: &mut ControlEffects) {
        self.peers.insert(from, version);
        if version == self.version() {
            return;
        }
        match self.since(version) {
            Some(changes) => self.send_changes(now, from, version, changes, effects),
            None => self.want(now, from, effects),
        }
    }

    /// Asks a member for what it has and this node lacks.
    fn want(&self, now: Now, from: NodeId, effects: &mut ControlEffects) {
        let former = self.recent.steps.iter().rev().map(|&(version, _)| version);
        let versions = [self.version()].into_iter().chain(former).take(WANT_MAX).collect();
        self.send(now, from, Notice::Want(versions), effects);
    }

    /// A member that has had these versions, the first now, asks for what it lacks.
    pub(super) fn wanted_by(&mut self, now: Now, from: NodeId, had: &[RingVersion], effects: &mut ControlEffects) {
        if let Some(&version) = had.first() {
            self.peers.insert(from, version);
        }
        if had.contains(&self.version()) {
            // It lacks nothing; rather it has what this node lacks.
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

    /// A member says what came since a version.
    pub(super) fn changes_came(&mut self, now: Now, from: NodeId, notice: Changes, effects: &mut ControlEffects) {
        let Changes { since, version, changes, is_answer } = notice;
        self.peers.insert(from, version);
        if version == self.version() {
            // Both have the same, and now the peer knows it.
            return self.send(now, from, Notice::Have(version), effects);
        }
        let Some(ours) = self.since(since) else {
            // It may be far behind, or this node.
            return self.peer_has(now, from, version, effects);
        };
        if self.learn(&changes) && !is_answer {
            let lacking = ours.without(&changes);
            if !lacking.is_empty() {
                let answer = Changes { since, version: self.version(), changes: lacking, is_answer: true };
                self.send(now, from, Notice::Changes(answer), effects);
            }
        }
    }

    /// A member tells all that it has.
    pub(super) fn history_came(&mut self, now: Now, from: NodeId, history: &History, effects: &mut ControlEffects) {
        if self.learn_all(now, from, history, effects) && !self.history.is_within(history) {
            self.send(now, from, Notice::Complement(self.history.clone()), effects);
        }
    }

    /// Takes in all that a member has; false if it makes no sense.
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
            // Both have the same, and now the peer knows it.
            self.send(now, from, Notice::Have(self.version()), effects);
        }
        true
    }

    /// Takes in changes; false if they make no sense. What is new here is saved before it is told to anyone.
    fn learn(&mut self, changes: &History) -> bool {
        if changes.is_within(&self.wanted) {
            return true;
        }
        let mut union = self.wanted.clone();
        union.merge(changes);
        // Changes that would make another cluster of this one are a mistake or a lie.
        if union.len() > LEARNT_MAX || union.cluster() != Some(self.config.cluster) {
            return false;
        }
        self.wanted = union;
        true
    }

    /// Goes by a history that is saved. In a small cluster whoever made a change tells everyone, and who learnt of one says so to
    /// those who have it; in a large one each tells some, whoever made it. Gossip does the rest.
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
        let told = if self.is_small() && !is_author { Vec::new() } else { self.everyone_or_some() };
        for peer in told.into_iter().filter(|peer| !alike.contains(peer)) {
            self.tell_latest(now, peer, effects);
        }
        for peer in alike {
            self.send(now, peer, Notice::Have(version), effects);
        }
    }

    /// Tells a member of what has come, since the version that it is likely to have.
    fn tell_latest(&self, now: Now, peer: NodeId, effects: &mut ControlEffects) {
        let theirs = self.peers.get(&peer).and_then(|&version| Some((version, self.since(version)?)));
        let former = || self.recent.steps.back().cloned();
        if let Some((since, changes)) = theirs.or_else(former) {
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
    fn what_came_since_a_version_is_known_for_a_while() {
        let mut recent = Recent::default();
        (1..=3).for_each(|number| recent.push(version(number), one(number)));
        assert_eq!(recent.since(version(2)).map(|came| came.len()), Some(2));
        assert_eq!(recent.since(version(3)), Some(one(3)));
        assert_eq!(recent.since(version(4)), None, "that is the latest");
        (4..=100).for_each(|number| recent.push(version(number), one(number)));
        assert_eq!((recent.since(version(36)), recent.since(version(37)).map(|came| came.len())), (None, Some(64)));
    }

    #[test]
    fn a_step_too_large_is_not_kept() {
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
