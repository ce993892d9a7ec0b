//! Who holds what: the configurations of partitions, as the machines know them.

use cartwheel_core::configuration::{Configuration, Home, Phase};
use cartwheel_core::key::Key;
use cartwheel_core::quorum::majority;
use cartwheel_core::ring::PartitionId;

use super::World;
use crate::cluster::seat_in;

impl World {
    /// What holds in a partition: the latest that any machine goes by, or has on its disk.
    pub fn phase(&self, partition: PartitionId) -> Phase {
        let first = self.cluster.view().first_configuration(partition);
        let running = self.machines.iter().filter_map(|machine| machine.node()?.held().phase(partition).cloned());
        let saved = self.machines.iter().filter(|machine| !machine.is_up());
        let saved = saved.filter_map(|machine| Some(seat_in(machine.disk().current(), partition)?.phase));
        running.chain(saved).chain([Phase::Alone(first)]).max_by_key(Phase::step).expect("the first")
    }

    /// The home replicas of a key, while one configuration takes over from another those of both.
    pub fn homes(&self, key: &Key) -> Vec<usize> {
        let homes = self.phase(self.cluster.partition_of(key)).homes(self.cluster.bucket(key).n, |_| false);
        homes.all().into_iter().filter_map(|id| self.cluster.index(id)).collect()
    }

    /// Whether each partition can find a successor without a machine's life: a majority of those who choose, and of the homes of each
    /// n, has another life that is not lost.
    pub fn can_do_without(&self, index: usize) -> bool {
        let partitions = self.cluster.view().ring.partitions();
        partitions.iter().all(|partition| {
            let phase = self.phase(partition);
            phase.both().all(|configuration| self.keeps_majority(configuration, index))
        })
    }

    fn keeps_majority(&self, configuration: &Configuration, lost: usize) -> bool {
        let is_left = |home: &&Home| {
            let index = self.cluster.index(home.node).filter(|&index| index != lost);
            index.is_some_and(|index| self.machines[index].life == home.life && !self.is_gone(index))
        };
        let ns = self.cluster.spec().buckets.iter().map(|bucket| bucket.n).chain([configuration.choosers]);
        let keeps = |homes: &[Home]| {
            let had = homes.iter().any(|home| self.cluster.index(home.node) == Some(lost));
            !had || homes.iter().filter(is_left).count() >= majority(homes.len())
        };
        ns.map(|n| configuration.of(n)).all(keeps)
    }
}
