//! The configurations of partitions, as the machines know them.

use cartwheel_core::cluster::configuration::{ConfigPhase, Configuration, Home, Homes};
use cartwheel_core::ring::PartitionId;
use cartwheel_core::ring::quorum::majority;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Key;

use super::World;
use crate::cluster::partition_state_in;
use crate::machine::Machine;

impl World {
    /// The present configuration of a partition: the latest that any machine uses, or has on its disk.
    pub fn phase(&self, partition: PartitionId) -> ConfigPhase {
        let first = self.cluster.view().first_configuration(partition);
        let running = self.machines.iter().filter_map(|machine| machine.node()?.held().phase(partition).cloned());
        let saved = self.machines.iter().filter(|machine| !machine.is_up());
        let saved = saved.filter_map(|machine| Some(partition_state_in(machine.disk().current(), partition)?.phase));
        running
            .chain(saved)
            .chain([ConfigPhase::Stable(first)])
            .max_by_key(ConfigPhase::version)
            .expect("there is at least the first configuration")
    }

    /// The home replicas of a key if they never changed; otherwise none.
    pub fn unmoved_homes(&self, key: &Key) -> Vec<NodeId> {
        let partition = self.cluster.partition_of(key);
        let first = ConfigPhase::Stable(self.cluster.view().first_configuration(partition));
        let is_first = self.phase(partition).version() == first.version();
        if is_first { first.homes(first.counts().group_of(key.bucket()), |_| false).all() } else { Vec::new() }
    }

    /// The home replicas of a key; during a reconfiguration, those of both configurations.
    pub fn homes(&self, key: &Key) -> Vec<usize> {
        self.homes_of(key).all().into_iter().filter_map(|id| self.cluster.index(id)).collect()
    }

    /// Whether a machine is the only home of a key, or may become it: by a reconfiguration under way, or by a requested change that has not
    /// taken effect yet.
    pub fn is_only_home(&self, index: usize, key: &Key) -> bool {
        let may_be_single = self.controls.as_ref().is_some_and(|controls| controls.may_have_one_home(key.bucket()));
        may_be_single || self.homes_of(key).lists().any(|list| list == [self.cluster.id(index)])
    }

    /// Whether the present configuration has this incarnation of a machine as a home of a key.
    pub fn is_home_yet(&self, index: usize, key: &Key) -> bool {
        let phase = self.phase(self.cluster.partition_of(key));
        let current = phase.current();
        let mut homes = current.of(current.counts.n(key.bucket())).iter();
        homes.any(|home| self.cluster.index(home.node) == Some(index) && self.is_left(home))
    }

    fn homes_of(&self, key: &Key) -> Homes {
        let phase = self.phase(self.cluster.partition_of(key));
        phase.homes(phase.counts().group_of(key.bucket()), |_| false)
    }

    /// Whether each partition can reconfigure without a machine's incarnation: a majority of the homes that choose, and of those for each n, are
    /// other incarnations that are not lost. The same must hold of a next configuration that may be chosen already, and where the machine is
    /// about to replace a home. And no node may be about to choose an incarnation that is lost already.
    pub fn can_do_without(&self, index: usize) -> bool {
        let partitions = self.cluster.view().ring.partitions();
        self.knows_all_incarnations()
            && partitions.iter().all(|partition| {
                let phase = self.phase(partition);
                let partition_state =
                    self.machines[index].node().and_then(|node| node.held().partition_state(partition));
                let may_come = partition_state.is_some_and(|partition_state| partition_state.is_candidate);
                phase.both().all(|configuration| self.keeps_majority(configuration, index, may_come))
                    && self.proposed(partition).all(|proposal| self.keeps_majority(&proposal, index, false))
            })
    }

    /// The next configurations that some node has accepted, and that may yet be chosen.
    fn proposed(&self, partition: PartitionId) -> impl Iterator<Item = Configuration> {
        let latest = self.phase(partition).latest().number;
        let partition_state = move |machine: &Machine| match machine.node() {
            Some(node) => {
                node.held().partition_state(partition).map(|partition_state| partition_state.acceptor.clone())
            }
            None => {
                partition_state_in(machine.disk().current(), partition).map(|partition_state| partition_state.acceptor)
            }
        };
        let accepted = self.machines.iter().filter_map(move |machine| Some(partition_state(machine)?.accepted?.1));
        accepted.filter(move |proposal| proposal.number > latest)
    }

    /// Whether all running nodes know the present incarnation of every member.
    fn knows_all_incarnations(&self) -> bool {
        let views = self.machine_controls.iter().filter_map(|at| Some(at.control.as_ref()?.view()));
        views.into_iter().flat_map(|view| view.members()).all(|known| {
            let index = self.cluster.index(known.member.id).expect("every member is a machine");
            self.machines[index].incarnation == known.member.incarnation
        })
    }

    /// Whether the incarnation of a home is neither lost nor gone.
    fn is_left(&self, home: &Home) -> bool {
        let index = self.cluster.index(home.node);
        index.is_some_and(|index| self.machines[index].incarnation == home.incarnation && !self.is_gone(index))
    }

    fn keeps_majority(&self, configuration: &Configuration, lost: usize, may_come: bool) -> bool {
        let is_left = |home: &&Home| self.cluster.index(home.node) != Some(lost) && self.is_left(home);
        let ns = configuration.counts.ns().into_iter().chain([configuration.choosers]);
        let keeps = |homes: &[Home]| {
            let had = homes.iter().any(|home| self.cluster.index(home.node) == Some(lost));
            let left = homes.iter().filter(is_left).count();
            // The home that it replaces may be one of those that are left.
            let left = if had || !may_come { left } else { left.saturating_sub(1) };
            !had && !may_come || left >= majority(homes.len())
        };
        ns.map(|n| configuration.of(n)).all(keeps)
    }
}
