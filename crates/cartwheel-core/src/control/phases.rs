//! What holds in all partitions, as far as this node knows, and how that spreads: whoever coordinates a request, or is to hold a
//! partition, needs to know who holds it now. It decides nothing: what a replica says of its own partitions goes before it.

use std::collections::BTreeSet;

use super::{Control, ControlEffects, Notice};
use crate::cluster::configuration::{ConfigPhase, ConfigVersion, Home};
use crate::cluster::liveness::Status;
use crate::cluster::membership::{ChangeKind, View};
use crate::message::client::Refusal;
use crate::message::gossip::{PHASES_MAX, PhasesNotice};
use crate::ring::{PartitionId, RingVersion};
use crate::value::dot::{Incarnation, NodeId};
use crate::value::hlc::Hlc;
use crate::value::time::Now;

/// What holds, as one node knows it.
#[derive(Debug)]
pub(super) struct Phases {
    by_partition: Vec<ConfigPhase>,
    digest: u64,
    /// The nodes that knew nothing later than this node, when they last said what they know in this boot.
    compared: BTreeSet<NodeId>,
}

impl Phases {
    /// Nothing but the founding is known.
    pub(super) fn new(view: &View) -> Self {
        let first = |partition| ConfigPhase::Stable(view.first_configuration(partition));
        Self { by_partition: view.ring.partitions().iter().map(first).collect(), digest: 0, compared: BTreeSet::new() }
    }

    /// Takes in what holds in a partition; false if that was known.
    fn learn(&mut self, partition: PartitionId, phase: ConfigPhase) -> bool {
        let Some(known) = self.by_partition.get_mut(partition.index()) else { return false };
        if phase.version() <= known.version() {
            return false;
        }
        self.digest ^= digest(partition, known.version()) ^ digest(partition, phase.version());
        *known = phase;
        true
    }

    /// What holds in each partition.
    pub(super) fn all(&self) -> &[ConfigPhase] {
        &self.by_partition
    }

    fn versions(&self) -> Vec<ConfigVersion> {
        self.by_partition.iter().map(ConfigPhase::version).collect()
    }

    /// What is known of later than these steps.
    fn later_than(&self, versions: &[ConfigVersion]) -> Vec<(PartitionId, ConfigPhase)> {
        let phases = (0..).map(PartitionId).zip(&self.by_partition).zip(versions);
        let later = phases.filter(|((_, phase), version)| phase.version() > **version);
        later.map(|((partition, phase), _)| (partition, phase.clone())).take(PHASES_MAX).collect()
    }

    /// Whether a partition names a node in this incarnation as a home of any key.
    fn name(&self, home: Home) -> bool {
        self.by_partition.iter().any(|phase| phase.is_home_of_any(home))
    }
}

/// Nothing for the founding, so that all begin alike.
fn digest(partition: PartitionId, version: ConfigVersion) -> u64 {
    if version == ConfigVersion::default() {
        return 0;
    }
    let bytes = [u64::from(partition.0).to_le_bytes(), version.0.to_le_bytes()].concat();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

impl Control {
    /// The nodes that this node has learnt from what they know of what holds in partitions, in this boot.
    pub const fn compared(&self) -> &BTreeSet<NodeId> {
        &self.phases.compared
    }

    /// What holds in each partition, as far as this node knows.
    pub fn phases(&self) -> &[ConfigPhase] {
        self.phases.all()
    }

    /// This node's shards go by these phases from now on, and others are to know.
    pub(super) fn phases_here(
        &mut self,
        now: Now,
        phases: Vec<(PartitionId, ConfigPhase)>,
        effects: &mut ControlEffects,
    ) {
        let mut news = Vec::new();
        for (partition, phase) in phases {
            if self.phases.learn(partition, phase.clone()) {
                news.push((partition, phase));
            }
        }
        if news.is_empty() {
            return;
        }
        effects.phases_changed = true;
        for peer in self.everyone_or_some() {
            self.send(now, peer, Notice::Phases(PhasesNotice::Hold(news.clone())), effects);
        }
    }

    /// A peer tells of what holds.
    pub(super) fn phases_there(&mut self, now: Now, from: NodeId, notice: PhasesNotice, effects: &mut ControlEffects) {
        match notice {
            PhasesNotice::Digest { digest, asks } if digest == self.phases.digest => {
                self.phases.compared.insert(from);
                if asks {
                    let same = PhasesNotice::Digest { digest, asks: false };
                    self.send(now, from, Notice::Phases(same), effects);
                }
            }
            PhasesNotice::Digest { .. } => {
                let versions = PhasesNotice::Steps(self.phases.versions(), false);
                self.send(now, from, Notice::Phases(versions), effects);
            }
            PhasesNotice::Steps(versions, is_answer) => {
                let later = self.phases.later_than(&versions);
                if !later.is_empty() {
                    self.send(now, from, Notice::Phases(PhasesNotice::Hold(later)), effects);
                }
                let own = self.phases.versions();
                let is_behind = own.iter().zip(&versions).any(|(own, theirs)| theirs > own);
                if !is_behind && own.len() == versions.len() {
                    self.phases.compared.insert(from);
                }
                if !is_answer && is_behind {
                    self.send(now, from, Notice::Phases(PhasesNotice::Steps(own, true)), effects);
                }
            }
            PhasesNotice::Hold(phases) => {
                for (partition, phase) in phases {
                    if self.phases.learn(partition, phase.clone()) {
                        effects.phases.push((partition, phase));
                        effects.phases_changed = true;
                    }
                }
                // There may be more.
                if !self.phases.compared.contains(&from) {
                    self.tell_phases(now, from, effects);
                }
            }
        }
    }

    /// Tells a peer which phases this node knows, and asks for what that one knows if it has not said so in this boot.
    pub(super) fn tell_phases(&self, now: Now, to: NodeId, effects: &mut ControlEffects) {
        let (digest, asks) = (self.phases.digest, !self.phases.compared.contains(&to));
        self.send(now, to, Notice::Phases(PhasesNotice::Digest { digest, asks }), effects);
    }

    fn is_placed(&self, node: NodeId) -> bool {
        self.view.ring.nodes().iter().any(|placed| placed.id == node)
    }

    /// The nodes that are leaving and that no partition names any more.
    fn unnamed(&self) -> Vec<Home> {
        let leaving = self.view.members().filter(|known| known.leaving && !self.is_placed(known.member.id));
        let homes = leaving.map(|known| Home { node: known.member.id, incarnation: known.member.incarnation });
        homes.filter(|&home| !self.phases.name(home)).collect()
    }

    /// What a node that is leaving records might go with it, so it records no changes any more.
    pub(super) fn takes_changes(&self) -> Result<(), Refusal> {
        let is_leaving = self.view.member(self.config.node).is_some_and(|known| known.leaving);
        if is_leaving && !self.is_placed(self.config.node) {
            return Err(Refusal::BadRequest("this node is leaving the cluster: ask another".to_owned()));
        }
        Ok(())
    }

    /// A removed node that holds nothing any more says so to those who stay. One of them that knows all that the leaving node knows
    /// records that it has left, and so of one that is dead, once no partition names it.
    pub(super) fn see_off(&mut self, now: Now, effects: &mut ControlEffects) {
        let me = self.config.node;
        for Home { node, incarnation } in self.unnamed() {
            if node == me && !self.drained.is_empty() && self.drained.iter().all(|&drained| drained) {
                for peer in self.first_of_those_who_stay().into_iter().chain(self.some_others()) {
                    self.send(now, peer, Notice::Drained(incarnation, self.version()), effects);
                }
            } else if self.liveness().status(node) == Status::Down
                && self.first_of_those_who_stay() == Some(me)
                && self.has_compared_with_most()
            {
                self.record_left(now, node, incarnation);
            }
        }
    }

    /// A node says that in this incarnation it holds nothing any more, and which version of the history it has.
    pub(super) fn has_drained(
        &mut self,
        now: Now,
        from: NodeId,
        incarnation: Incarnation,
        version: RingVersion,
        effects: &mut ControlEffects,
    ) {
        let is_leaving = self.unnamed().contains(&Home { node: from, incarnation });
        if !is_leaving || self.first_of_those_who_stay() != Some(self.config.node) || !self.has_compared_with_most() {
            return;
        }
        if self.has_had(version) {
            self.record_left(now, from, incarnation);
        } else {
            // It says so again, when this node has learnt the rest.
            self.peer_has(now, from, version, effects);
        }
    }

    /// Whether most of those who stay have told this node what holds since it has started. Before that it goes by the founding, which names
    /// no node that came later.
    fn has_compared_with_most(&self) -> bool {
        let is_compared = |node: &NodeId| *node == self.config.node || self.compared().contains(node);
        let stay: Vec<NodeId> = self.those_who_stay().collect();
        2 * stay.iter().filter(|node| is_compared(node)).count() > stay.len()
    }

    fn record_left(&mut self, now: Now, node: NodeId, incarnation: Incarnation) {
        if !self.wanted.says_left(Home { node, incarnation }) {
            self.wanted.record(Hlc::at(now.wall), self.config.node, ChangeKind::Left { node, incarnation });
        }
    }

    /// The first of those who stay and seem to be there: what one is to do, it does. Who was removed stays where too few would remain.
    pub(super) fn first_of_those_who_stay(&self) -> Option<NodeId> {
        let is_there = |node: &NodeId| *node == self.config.node || self.liveness().status(*node) != Status::Down;
        self.those_who_stay().filter(is_there).min()
    }

    fn those_who_stay(&self) -> impl Iterator<Item = NodeId> {
        let stay = self.view.members().filter(|known| !known.leaving || self.is_placed(known.member.id));
        stay.map(|known| known.member.id)
    }

    /// A shard holds nothing any more that its node is to hand over, or does again.
    pub(super) fn drained(&mut self, shard_id: u32, is_drained: bool) {
        if let Some(drained) = self.drained.get_mut(shard_id as usize) {
            *drained = is_drained;
        }
    }
}
