//! The configurations of a shard's partitions, and this node's role in each. Immutable, like the view that it refers to, and cheap to share.

use std::sync::Arc;

use crate::cluster::configuration::{ConfigPhase, ConfigStamp, ConfigVersion, Configuration, Home, Homes};
use crate::cluster::counts::{Group, KnownCounts, ReplicaCounts};
use crate::cluster::membership::View;
use crate::cluster::partition_state::PartitionState;
use crate::cluster::shard_id::ShardId;
use crate::cluster::sizes::TreeId;
use crate::ring::PartitionId;
use crate::ring::quorum::Quorum;
use crate::value::dot::NodeId;
use crate::value::key::Key;

/// The configurations of partitions, as this node has saved or learnt them.
#[derive(Clone, Debug)]
pub struct Holdings {
    me: Home,
    view: Arc<View>,
    partition_states: PartitionStates,
    known: KnownCounts,
}

/// The number of partition states that are copied when one of them changes: about the square root of the greatest number of partitions.
const CHUNK: usize = 256;

/// The partition states by partition. A copy is cheap: it shares all unchanged chunks.
#[derive(Clone, Debug, Default)]
struct PartitionStates {
    /// `None` where the partition belongs to another shard.
    chunks: Vec<Arc<Vec<Option<Arc<PartitionState>>>>>,
    /// The number of states with [`PartitionState::is_candidate`].
    candidates: usize,
    /// The number of states with [`PartitionState::has_stale_data`].
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
    /// The holdings of a shard that starts: its saved states, and elsewhere the configurations of the bootstrap.
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
            if let Some(entry) = partition_states.get_mut(partition.index()).filter(|entry| entry.is_some()) {
                let mut partition_state = partition_state.with_unknown_counts(view.first_counts());
                partition_state.share_counts(&mut known);
                *entry = Some(Arc::new(partition_state));
            }
        }
        Self { me, view, partition_states: PartitionStates::new(partition_states), known }
    }

    /// The target placement and the settings.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// This node, in its incarnation.
    pub const fn me(&self) -> Home {
        self.me
    }

    /// The same with another target placement.
    #[must_use]
    pub fn with_view(&self, view: Arc<View>) -> Self {
        Self { view, ..self.clone() }
    }

    /// The same, with numbers of homes from the settings that this node knows, not from configurations: a rule broken on purpose.
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

    /// Sets this node's state of a partition.
    pub fn take(&mut self, partition: PartitionId, mut partition_state: PartitionState) {
        partition_state.share_counts(&mut self.known);
        self.partition_states.set(partition, partition_state);
    }

    /// This node's state of a partition; `None` if the partition belongs to another shard.
    pub fn partition_state(&self, partition: PartitionId) -> Option<&Arc<PartitionState>> {
        self.partition_states.get(partition)
    }

    /// The states of the shard's partitions.
    pub fn partition_states(&self) -> impl Iterator<Item = (PartitionId, &Arc<PartitionState>)> {
        self.partition_states.iter()
    }

    /// The number of partitions of which this node copies the data, to become a home.
    pub const fn candidates(&self) -> usize {
        self.partition_states.candidates
    }

    /// Whether any partition has stale data.
    pub const fn has_stale_data(&self) -> bool {
        self.partition_states.stale_data > 0
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &Key) -> PartitionId {
        self.view.ring.partition_of(key.token())
    }

    /// The numbers of homes by bucket, once the latest configuration of a partition known here is stable.
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

    /// The tree of a key.
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

    /// The homes of `key`, if this node alone is a read quorum of them: it holds all that they hold, and no next configuration counts too.
    pub fn homes_if_quorum_alone(&self, key: &Key, quorum: Quorum) -> Option<&[Home]> {
        let (partition, group) = self.group_of(key);
        let partition_state = self.partition_state(partition)?;
        let ConfigPhase::Stable(only) = &partition_state.phase else { return None };
        let homes = only.homes_of(group);
        let is_alone =
            quorum.of(only.counts.n_of(group), homes.len()) == 1 && partition_state.holds_all(self.me, group);
        is_alone.then_some(homes)
    }

    /// Whether a node is a home of `key`, in whatever incarnation.
    pub fn has_home(&self, key: &Key, node: NodeId) -> bool {
        let (partition, group) = self.group_of(key);
        let is_home =
            |configuration: &Configuration| configuration.homes_of(group).iter().any(|home| home.node == node);
        self.partition_state(partition).is_some_and(|partition_state| partition_state.phase.both().any(is_home))
    }

    /// Whether this node may keep a hint of `key` for a home: some configuration has that home and does not have this node. While the
    /// configuration is joint, this node may be a home in the other one.
    pub fn may_stand_in(&self, key: &Key, home: NodeId) -> bool {
        let (partition, group) = self.group_of(key);
        let is_without_me = |configuration: &Configuration| {
            let homes = configuration.homes_of(group);
            homes.iter().any(|other| other.node == home) && !homes.contains(&self.me)
        };
        self.partition_state(partition).is_some_and(|partition_state| partition_state.phase.both().any(is_without_me))
    }

    /// Whether this node knows no other node for which it could keep its hint of `key` in place of `home`: it knows no other home and is none
    /// itself, or it has lost track of the configurations. A hint is kept only for a node that some configuration has named. So if the known
    /// configuration is the bootstrap's and does not name `home`, a later one did.
    pub fn knows_no_home_instead_of(&self, key: &Key, home: NodeId) -> bool {
        let others = self.homes_of(key).without(self.me.node);
        let is_named = |configuration: &Configuration| configuration.homes.iter().any(|named| named.node == home);
        let is_bootstrap =
            |partition_state: &&Arc<PartitionState>| partition_state.phase.version() == ConfigVersion::default();
        let bootstrap = self.partition_state(self.partition_of(key)).filter(is_bootstrap);
        let has_forgotten = bootstrap.is_some_and(|partition_state| !partition_state.phase.both().any(is_named));
        has_forgotten || others.all().is_empty() && !self.is_home(key)
    }

    /// Whether this node is a target home of the keys of a group.
    pub fn is_target(&self, partition: PartitionId, group: Group) -> bool {
        let n = self.view.target_counts().n_of(group);
        self.view.target(partition).iter().take(n.into()).any(|&home| home == self.me)
    }

    /// Whether this node holds data of a group's keys for more than hand-over: it is a home, is to become one, or was one and has not been
    /// released.
    pub fn keeps(&self, partition: PartitionId, group: Group) -> bool {
        self.partition_state(partition).is_some_and(|partition_state| {
            let is_to_come = || partition_state.is_candidate && self.is_target(partition, group);
            partition_state.phase.counts().has(group) && (partition_state.shares(self.me, group) || is_to_come())
        })
    }

    /// Whether this node is a home of a partition now and is none in the next configuration.
    pub fn is_leaving(&self, partition: PartitionId) -> bool {
        let next = self.phase(partition).and_then(ConfigPhase::next);
        next.is_some_and(|next| !next.has(self.me))
    }

    /// The version of a partition's configuration.
    pub fn version(&self, partition: PartitionId) -> ConfigVersion {
        self.partition_state(partition).map(|partition_state| partition_state.phase.version()).unwrap_or_default()
    }

    /// The configuration stamp of this node's messages about a partition.
    pub fn config_stamp(&self, partition: PartitionId) -> ConfigStamp {
        let Some(partition_state) = self.partition_state(partition) else { return ConfigStamp::default() };
        ConfigStamp {
            version: partition_state.phase.version(),
            is_syncing: !partition_state.is_synced(),
            ..ConfigStamp::default()
        }
    }

    /// The configuration stamp of this node's messages about one group of keys.
    pub fn config_stamp_of(&self, TreeId { partition, group }: TreeId) -> ConfigStamp {
        let holds_all =
            self.partition_state(partition).is_some_and(|partition_state| partition_state.holds_all(self.me, group));
        ConfigStamp { is_syncing: !holds_all, ..self.config_stamp(partition) }
    }

    /// The configuration of a partition, with its phase.
    pub fn phase(&self, partition: PartitionId) -> Option<&ConfigPhase> {
        self.partition_state(partition).map(|partition_state| &partition_state.phase)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::cluster::configuration::Configuration;
    use crate::cluster::membership::{ChangeKind, History, Member, Strategy};
    use crate::ring::Partitions;
    use crate::value::cluster_id::ClusterId;
    use crate::value::dot::Incarnation;
    use crate::value::hlc::{Hlc, WallMs};

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
            "other copies keep their state"
        );
        let copied = before.chunks.iter().zip(&after.chunks).filter(|(before, after)| !Arc::ptr_eq(before, after));
        assert_eq!(copied.count(), 1);
    }

    #[test]
    fn a_home_is_a_quorum_alone_if_it_holds_everything_and_one_is_enough() {
        let members = (1..=5).map(|node| Member::new(&format!("node-{node}"), Incarnation(node))).collect();
        let mut history = History::new();
        let bootstrap = ChangeKind::Bootstrap {
            cluster: ClusterId(7),
            partitions: Partitions::new(8).unwrap(),
            strategy: Strategy::Balanced,
            members,
            name: String::new(),
        };
        history.record(Hlc::at(WallMs(1)), NodeId::new(1), bootstrap);
        let view = Arc::new(history.view().unwrap());
        let key = Key::new(Bytes::from_static(b"carts"), Bytes::from_static(b"alice")).unwrap();
        let partition = view.ring.partition_of(key.token());
        let nodes = view.ring.homes(partition, 4).to_vec();
        let of = |me: NodeId, states: Vec<(PartitionId, PartitionState)>| {
            let incarnation = view.member(me).unwrap().member.incarnation;
            Holdings::new(Home { node: me, incarnation }, view.clone(), ShardId::ONLY, states)
        };
        let one = Quorum::reads(1, 3);
        let home = of(nodes[0], vec![]);
        assert_eq!(home.homes_if_quorum_alone(&key, one).map(<[Home]>::len), Some(3));
        assert!(home.homes_if_quorum_alone(&key, Quorum::reads(2, 3)).is_none(), "two are needed");
        assert!(
            home.homes_if_quorum_alone(&key, Quorum::reads(1, 2)).is_none(),
            "keys have a home more than the settings say"
        );
        assert!(of(nodes[3], vec![]).homes_if_quorum_alone(&key, one).is_none(), "no home");
        let state = PartitionState::clone(home.partition_state(partition).unwrap());
        let unsynced = PartitionState { synced: BTreeSet::new(), ..state.clone() };
        assert!(
            of(nodes[0], vec![(partition, unsynced)]).homes_if_quorum_alone(&key, one).is_none(),
            "it may lack something"
        );
        let current = state.phase.current().clone();
        let next = Configuration { number: 1, ..current.clone() };
        let joint = PartitionState { phase: ConfigPhase::Joint(current, next), ..state };
        assert!(
            of(nodes[0], vec![(partition, joint)]).homes_if_quorum_alone(&key, one).is_none(),
            "another list counts too"
        );
    }
}
