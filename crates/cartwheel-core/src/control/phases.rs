//! The phases of all partitions, as far as this node knows, and how they spread. A coordinator, or a node that is to
//! hold a partition, needs to know its current homes. These phases decide nothing: a replica's own partition state
//! takes precedence.

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

/// The phases that one node knows.
#[derive(Debug)]
pub(super) struct Phases {
    by_partition: Vec<ConfigPhase>,
    digest: u64,
    /// The nodes that knew no later phase than this node, when they last reported theirs in this boot.
    compared: BTreeSet<NodeId>,
}

impl Phases {
    /// Only the configurations of the bootstrap are known.
    pub(super) fn new(view: &View) -> Self {
        let first = |partition| ConfigPhase::Stable(view.first_configuration(partition));
        Self { by_partition: view.ring.partitions().iter().map(first).collect(), digest: 0, compared: BTreeSet::new() }
    }

    /// Takes in the phase of a partition; false if it is not newer.
    fn learn(&mut self, partition: PartitionId, phase: ConfigPhase) -> bool {
        let Some(known) = self.by_partition.get_mut(partition.index()) else { return false };
        if phase.version() <= known.version() {
            return false;
        }
        self.digest ^= digest(partition, known.version()) ^ digest(partition, phase.version());
        *known = phase;
        true
    }

    pub(super) fn all(&self) -> &[ConfigPhase] {
        &self.by_partition
    }

    fn versions(&self) -> Vec<ConfigVersion> {
        self.by_partition.iter().map(ConfigPhase::version).collect()
    }

    /// The known phases that are later than these versions.
    fn later_than(&self, versions: &[ConfigVersion]) -> Vec<(PartitionId, ConfigPhase)> {
        let phases = (0..).map(PartitionId).zip(&self.by_partition).zip(versions);
        let later = phases.filter(|((_, phase), version)| phase.version() > **version);
        later.map(|((partition, phase), _)| (partition, phase.clone())).take(PHASES_MAX).collect()
    }

    /// Whether a partition names this incarnation of a node as a home of any key.
    fn names(&self, home: Home) -> bool {
        self.by_partition.iter().any(|phase| phase.is_home_of_any(home))
    }
}

/// The digest is 0 for the configurations of the bootstrap, so that all nodes begin alike.
fn digest(partition: PartitionId, version: ConfigVersion) -> u64 {
    if version == ConfigVersion::default() {
        return 0;
    }
    let bytes = [u64::from(partition.0).to_le_bytes(), version.0.to_le_bytes()].concat();
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

impl Control {
    /// The nodes whose phases this node has learned in this boot.
    pub const fn compared(&self) -> &BTreeSet<NodeId> {
        &self.phases.compared
    }

    /// The phase of each partition, as far as this node knows.
    pub fn phases(&self) -> &[ConfigPhase] {
        self.phases.all()
    }

    /// This node's shards have adopted these phases, which are sent to others.
    pub(super) fn adopt_own_phases(
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
        for peer in self.peers_to_notify() {
            self.send(now, peer, Notice::Phases(PhasesNotice::Hold(news.clone())), effects);
        }
    }

    /// A peer reports phases.
    pub(super) fn on_phases(&mut self, now: Now, from: NodeId, notice: PhasesNotice, effects: &mut ControlEffects) {
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
                // The peer may know of more.
                if !self.phases.compared.contains(&from) {
                    self.send_phases_digest(now, from, effects);
                }
            }
        }
    }

    /// Sends a peer the digest of the known phases, and requests its own if it has not reported it in this boot.
    pub(super) fn send_phases_digest(&self, now: Now, to: NodeId, effects: &mut ControlEffects) {
        let (digest, asks) = (self.phases.digest, !self.phases.compared.contains(&to));
        self.send(now, to, Notice::Phases(PhasesNotice::Digest { digest, asks }), effects);
    }

    fn is_placed(&self, node: NodeId) -> bool {
        self.view.ring.nodes().iter().any(|placed| placed.id == node)
    }

    /// The leaving nodes that no partition names any more.
    fn unnamed(&self) -> Vec<Home> {
        let leaving = self.view.members().filter(|known| known.leaving && !self.is_placed(known.member.id));
        let homes = leaving.map(|known| Home { node: known.member.id, incarnation: known.member.incarnation });
        homes.filter(|&home| !self.phases.names(home)).collect()
    }

    /// Whether this node may record changes. A leaving node may not: they could be lost with it.
    pub(super) fn takes_changes(&self) -> Result<(), Refusal> {
        let is_leaving = self.view.member(self.config.node).is_some_and(|known| known.leaving);
        if is_leaving && !self.is_placed(self.config.node) {
            return Err(Refusal::BadRequest("this node is leaving the cluster: ask another".to_owned()));
        }
        Ok(())
    }

    /// A removed node that holds nothing any more reports so to staying members. One of them that knows all changes
    /// that the leaving node knows records that it has left. If the leaving node is dead, that is recorded once no
    /// partition names it.
    pub(super) fn record_departures(&mut self, now: Now, effects: &mut ControlEffects) {
        let me = self.config.node;
        for Home { node, incarnation } in self.unnamed() {
            if node == me && !self.drained.is_empty() && self.drained.iter().all(|&drained| drained) {
                for peer in self.first_staying().into_iter().chain(self.some_others()) {
                    self.send(now, peer, Notice::Drained(incarnation, self.version()), effects);
                }
            } else if self.liveness().status(node) == Status::Down
                && self.first_staying() == Some(me)
                && self.has_compared_with_most()
            {
                self.record_left(now, node, incarnation);
            }
        }
    }

    /// A node reports that this incarnation of it holds nothing any more, and which version of the history it has.
    pub(super) fn on_drained(
        &mut self,
        now: Now,
        from: NodeId,
        incarnation: Incarnation,
        version: RingVersion,
        effects: &mut ControlEffects,
    ) {
        let is_leaving = self.unnamed().contains(&Home { node: from, incarnation });
        if !is_leaving || self.first_staying() != Some(self.config.node) || !self.has_compared_with_most() {
            return;
        }
        if self.has_had(version) {
            self.record_left(now, from, incarnation);
        } else {
            // The node reports again, and by then this node has learned the rest.
            self.on_version(now, from, version, effects);
        }
    }

    /// Whether most staying members have reported their phases to this node since it started. Before that, this node
    /// may know only the bootstrap, which names no node that joined later.
    fn has_compared_with_most(&self) -> bool {
        let is_compared = |node: &NodeId| *node == self.config.node || self.compared().contains(node);
        let stay: Vec<NodeId> = self.staying().collect();
        2 * stay.iter().filter(|node| is_compared(node)).count() > stay.len()
    }

    fn record_left(&mut self, now: Now, node: NodeId, incarnation: Incarnation) {
        if !self.wanted.says_left(Home { node, incarnation }) {
            self.wanted.record(Hlc::at(now.wall), self.config.node, ChangeKind::Left { node, incarnation });
        }
    }

    /// The staying member with the lowest id that seems reachable: a task for one member is its task. A removed node
    /// stays if too few would remain.
    pub(super) fn first_staying(&self) -> Option<NodeId> {
        let is_reachable = |node: &NodeId| *node == self.config.node || self.liveness().status(*node) != Status::Down;
        self.staying().filter(is_reachable).min()
    }

    fn staying(&self) -> impl Iterator<Item = NodeId> {
        let stay = self.view.members().filter(|known| !known.leaving || self.is_placed(known.member.id));
        stay.map(|known| known.member.id)
    }

    /// Whether a shard has handed over all that its leaving node must hand over.
    pub(super) fn drained(&mut self, shard_id: u32, is_drained: bool) {
        if let Some(drained) = self.drained.get_mut(shard_id as usize) {
            *drained = is_drained;
        }
    }
}
