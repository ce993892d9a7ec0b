//! What holds in the partitions of a shard, and what this node is in each. Immutable, like the view that it goes with, and cheap to share.

use std::sync::Arc;

use crate::cluster::configuration::{ConfigPhase, ConfigStamp, ConfigVersion, Configuration, Home, Homes};
use crate::cluster::counts::{Group, KnownCounts, ReplicaCounts};
use crate::cluster::membership::View;
use crate::cluster::partition_state::PartitionState;
use crate::cluster::shard_id::ShardId;
use crate::cluster::sizes::TreeId;
use crate::ring::PartitionId;
use crate::value::dot::NodeId;
use crate::value::key::Key;

/// What holds, as this node has it durably or has heard of it.
#[derive(Clone, Debug)]
pub struct Holdings {
    me: Home,
    view: Arc<View>,
    partition_states: PartitionStates,
    known: KnownCounts,
}

/// How many partitions' partition states are copied when one of them changes: about the root of the largest number of them.
const CHUNK: usize = 256;

/// The partition states by partition. A copy costs little: it shares all that does not change, in chunks.
#[derive(Clone, Debug, Default)]
struct PartitionStates {
    /// None where the partition belongs to another shard.
    chunks: Vec<Arc<Vec<Option<Arc<PartitionState>>>>>,
    /// How many are candidates' partition states.
    candidates: usize,
    /// In how many something is left that may go.
    stale_data: usize,
}

impl PartitionStates {
    fn new(partition_states: Vec<Option<Arc<PartitionState>>>) -> Self {
        let count = |is_meant: fn(&PartitionState) -> bool| {
            partition_states.iter().flatten().filter(|partition_state| is_meant(partition_state)).count()
        };
        let (candidates, stale_data) = (
            count(|partition_state| partition_state.is_candidate),
            count(|partition_state| partition_state.has_stale_data),
        );
        Self {
            chunks: partition_states.chunks(CHUNK).map(|chunk| Arc::new(chunk.to_vec())).collect(),
            candidates,
            stale_data,
        }
    }

    fn get(&self, partition: PartitionId) -> Option<&Arc<PartitionState>> {
        self.chunks.get(partition.index() / CHUNK)?.get(partition.index() % CHUNK)?.as_ref()
    }

    fn set(&mut self, partition: PartitionId, partition_state: PartitionState) {
        let Some(before) = self.get(partition).cloned() else { return };
        self.candidates =
            self.candidates + usize::from(partition_state.is_candidate) - usize::from(before.is_candidate);
        self.stale_data =
            self.stale_data + usize::from(partition_state.has_stale_data) - usize::from(before.has_stale_data);
        let chunk = Arc::make_mut(&mut self.chunks[partition.index() / CHUNK]);
        chunk[partition.index() % CHUNK] = Some(Arc::new(partition_state));
    }

    fn iter(&self) -> impl Iterator<Item = (PartitionId, &Arc<PartitionState>)> {
        let partition_states = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0..)
            .map(PartitionId)
            .zip(partition_states)
            .filter_map(|(partition, partition_state)| Some((partition, partition_state.as_ref()?)))
    }
}

impl Holdings {
    /// What holds when a shard starts: what it has saved, and the founding's configurations elsewhere.
    pub fn new(
        me: Home,
        view: Arc<View>,
        shard_id: ShardId,
        saved: impl IntoIterator<Item = (PartitionId, PartitionState)>,
    ) -> Self {
        let partition_state = |partition: PartitionId| {
            let is_here = ShardId::of_partition(partition, shard_id.count) == shard_id.index;
            is_here.then(|| Arc::new(PartitionState::bootstrap(view.first_configuration(partition), me)))
        };
        let mut partition_states: Vec<Option<Arc<PartitionState>>> =
            view.ring.partitions().iter().map(partition_state).collect();
        let mut known = KnownCounts::default();
        for (partition, partition_state) in saved {
            if let Some(place) = partition_states.get_mut(partition.index()).filter(|place| place.is_some()) {
                let mut partition_state = partition_state.said(view.first_counts());
                partition_state.share_counts(&mut known);
                *place = Some(Arc::new(partition_state));
            }
        }
        Self { me, view, partition_states: PartitionStates::new(partition_states), known }
    }

    /// The wish, and the settings.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// This node.
    pub const fn me(&self) -> Home {
        self.me
    }

    /// The same with another wish.
    #[must_use]
    pub fn with_view(&self, view: Arc<View>) -> Self {
        Self { view, ..self.clone() }
    }

    /// The same, as if the settings that this node knows said how many homes keys have, and no configuration: a rule broken on purpose.
    #[must_use]
    pub(crate) fn with_counts_by_settings(mut self) -> Self {
        let target = self.view.target_counts().clone();
        let mut partition_states: Vec<(PartitionId, PartitionState)> = self
            .partition_states()
            .map(|(partition, partition_state)| (partition, PartitionState::clone(partition_state)))
            .collect();
        partition_states.iter_mut().for_each(|(_, partition_state)| partition_state.set_counts(&target));
        partition_states.into_iter().for_each(|(partition, partition_state)| self.take(partition, partition_state));
        self
    }

    /// From now on this node has this partition state.
    pub fn take(&mut self, partition: PartitionId, mut partition_state: PartitionState) {
        partition_state.share_counts(&mut self.known);
        self.partition_states.set(partition, partition_state);
    }

    /// This node's partition state; none if the partition belongs to another shard.
    pub fn partition_state(&self, partition: PartitionId) -> Option<&Arc<PartitionState>> {
        self.partition_states.get(partition)
    }

    /// The partition states of the shard.
    pub fn partition_states(&self) -> impl Iterator<Item = (PartitionId, &Arc<PartitionState>)> {
        self.partition_states.iter()
    }

    /// In how many partitions this node copies what the homes hold, to become one.
    pub const fn candidates(&self) -> usize {
        self.partition_states.candidates
    }

    /// Whether anything is held in any partition that may go.
    pub const fn has_stale_data(&self) -> bool {
        self.partition_states.stale_data > 0
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &Key) -> PartitionId {
        self.view.ring.partition_of(key.token())
    }

    /// How many homes keys have, by bucket, once the latest configuration of a partition that this node knows stands alone.
    pub fn counts(&self, partition: PartitionId) -> ReplicaCounts {
        self.partition_state(partition)
            .map(|partition_state| partition_state.phase.counts().clone())
            .unwrap_or_default()
    }

    /// The group of the keys of `bucket`.
    pub fn group(&self, partition: PartitionId, bucket: &[u8]) -> Group {
        self.partition_state(partition)
            .map(|partition_state| partition_state.phase.counts().group_of(bucket))
            .unwrap_or_default()
    }

    /// The partition of a key, and its group there.
    pub fn group_of(&self, key: &Key) -> (PartitionId, Group) {
        let partition = self.partition_of(key);
        (partition, self.group(partition, key.bucket()))
    }

    /// The tree that a key belongs to.
    pub fn tree_of(&self, key: &Key) -> TreeId {
        let (partition, group) = self.group_of(key);
        TreeId { partition, group }
    }

    /// The groups of a partition's keys.
    pub fn groups(&self, partition: PartitionId) -> Vec<Group> {
        self.partition_state(partition)
            .map(|partition_state| partition_state.phase.counts().groups().collect())
            .unwrap_or_default()
    }

    /// The homes of the keys of a group.
    pub fn homes(&self, partition: PartitionId, group: Group) -> Homes {
        let Some(partition_state) = self.partition_state(partition) else { return Homes::default() };
        let is_past = |home: &Home| match home.node == self.me.node {
            true => *home != self.me,
            false => self.view.is_gone(home.node, home.incarnation),
        };
        partition_state.phase.homes(group, is_past)
    }

    /// The homes of `key`.
    pub fn homes_of(&self, key: &Key) -> Homes {
        let (partition, group) = self.group_of(key);
        self.homes(partition, group)
    }

    /// Whether this node is a home of `key`.
    pub fn is_home(&self, key: &Key) -> bool {
        let (partition, group) = self.group_of(key);
        self.partition_state(partition).is_some_and(|partition_state| partition_state.phase.is_home(self.me, group))
    }

    /// Whether a node is a home of `key`, in whatever incarnation.
    pub fn has_home(&self, key: &Key, node: NodeId) -> bool {
        let (partition, group) = self.group_of(key);
        let is_home =
            |configuration: &Configuration| configuration.homes_of(group).iter().any(|home| home.node == node);
        self.partition_state(partition).is_some_and(|partition_state| partition_state.phase.both().any(is_home))
    }

    /// Whether this node may keep what it has of `key` for a home: in some configuration there is that home, and this node is none. While
    /// one configuration takes over from another, it may be a home in the other one.
    pub fn may_stand_in(&self, key: &Key, home: NodeId) -> bool {
        let (partition, group) = self.group_of(key);
        let is_without_me = |configuration: &Configuration| {
            let homes = configuration.homes_of(group);
            homes.iter().any(|other| other.node == home) && !homes.contains(&self.me)
        };
        self.partition_state(partition).is_some_and(|partition_state| partition_state.phase.both().any(is_without_me))
    }

    /// Whether this node knows no other node to which it could owe what it keeps of `key` for `home`. It knows none, and is none; or it
    /// has forgotten who they are. Nothing is kept for a node that no configuration has named. So a node that is owed something, and that
    /// the founding's configuration does not name, was named by a later one.
    pub fn knows_no_home_instead_of(&self, key: &Key, home: NodeId) -> bool {
        let others = self.homes_of(key).without(self.me.node);
        let is_named = |configuration: &Configuration| configuration.homes.iter().any(|named| named.node == home);
        let is_founding =
            |partition_state: &&Arc<PartitionState>| partition_state.phase.version() == ConfigVersion::default();
        let bootstrap = self.partition_state(self.partition_of(key)).filter(is_founding);
        let has_forgotten = bootstrap.is_some_and(|partition_state| !partition_state.phase.both().any(is_named));
        has_forgotten || others.all().is_empty() && !self.is_home(key)
    }

    /// Whether this node is to be a home of the keys of a group.
    pub fn is_target(&self, partition: PartitionId, group: Group) -> bool {
        let n = self.view.target_counts().n_of(group);
        self.view.target(partition).iter().take(n.into()).any(|&home| home == self.me)
    }

    /// Whether this node holds what it has of a group's keys for more than to hand it over: it is a home, is to be one, or was one and
    /// has not been relieved.
    pub fn keeps(&self, partition: PartitionId, group: Group) -> bool {
        self.partition_state(partition).is_some_and(|partition_state| {
            let is_to_come = || partition_state.is_candidate && self.is_target(partition, group);
            partition_state.phase.counts().has(group) && (partition_state.shares(self.me, group) || is_to_come())
        })
    }

    /// Whether this node is a home of a partition now and is none once the successor that was chosen stands alone.
    pub fn goes(&self, partition: PartitionId) -> bool {
        let next = self.phase(partition).and_then(ConfigPhase::next);
        next.is_some_and(|next| !next.has(self.me))
    }

    /// How far a partition's chain has come.
    pub fn version(&self, partition: PartitionId) -> ConfigVersion {
        self.partition_state(partition).map(|partition_state| partition_state.phase.version()).unwrap_or_default()
    }

    /// On what this node stands when it says something about a partition.
    pub fn config_stamp(&self, partition: PartitionId) -> ConfigStamp {
        let Some(partition_state) = self.partition_state(partition) else { return ConfigStamp::default() };
        ConfigStamp {
            version: partition_state.phase.version(),
            is_syncing: !partition_state.is_synced(),
            ..ConfigStamp::default()
        }
    }

    /// The same about the keys of one group.
    pub fn config_stamp_of(&self, TreeId { partition, group }: TreeId) -> ConfigStamp {
        let holds_all =
            self.partition_state(partition).is_some_and(|partition_state| partition_state.holds_all(self.me, group));
        ConfigStamp { is_syncing: !holds_all, ..self.config_stamp(partition) }
    }

    /// What holds in a partition.
    pub fn phase(&self, partition: PartitionId) -> Option<&ConfigPhase> {
        self.partition_state(partition).map(|partition_state| &partition_state.phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::configuration::Configuration;
    use crate::value::dot::Incarnation;

    #[test]
    fn a_partition_state_that_changes_copies_its_chunk_alone() {
        let me = Home { node: NodeId::new(1), incarnation: Incarnation(1) };
        let partition_state = || {
            PartitionState::bootstrap(
                Configuration { number: 0, homes: vec![me], choosers: 3, counts: ReplicaCounts::default() },
                me,
            )
        };
        let mut before = PartitionStates::new(
            (0..16_384).map(|partition| (partition % 2 == 0).then(|| Arc::new(partition_state()))).collect(),
        );
        before.set(PartitionId(4), PartitionState { is_candidate: true, ..partition_state() });
        assert_eq!((before.candidates, before.stale_data, before.iter().count()), (1, 0, 8_192));
        let mut after = before.clone();
        after.set(PartitionId(4), PartitionState { has_stale_data: true, ..partition_state() });
        after.set(PartitionId(5), PartitionState { has_stale_data: true, ..partition_state() });
        assert_eq!((after.candidates, after.stale_data), (0, 1), "partition 5 belongs to another shard");
        assert!(
            after.get(PartitionId(5)).is_none()
                && after.get(PartitionId(4)).is_some_and(|partition_state| partition_state.has_stale_data)
        );
        assert!(
            before.get(PartitionId(4)).is_some_and(|partition_state| partition_state.is_candidate),
            "what others hold stays as it is"
        );
        let copied = before.chunks.iter().zip(&after.chunks).filter(|(before, after)| !Arc::ptr_eq(before, after));
        assert_eq!(copied.count(), 1);
    }
}
