//! The cluster under test: its nodes, its settings, and how its state machines are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cartwheel_core::cluster::membership::{
    ChangeKind, Conflict, Durability, History, Member, SettingsPatch, Strategy, View,
};
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::config::{Limits, NodeConfig, Timing};
use cartwheel_core::control::{Control, ControlConfig, SNAPSHOT_AFTER};
use cartwheel_core::mutation::Broken;
use cartwheel_core::node::Node;
use cartwheel_core::reconfiguration::partition_state_name;
use cartwheel_core::ring::{PartitionId, Partitions};
use cartwheel_core::store::image::Image;
use cartwheel_core::store::loss_book::{self, LossBook};
use cartwheel_core::store::record::ActorsSince;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId, Since};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::value::key::Key;
use cartwheel_core::wire;
use cartwheel_core::wire::Protocol;
use cartwheel_core::wire::context::{ClusterKey, Sealer};

/// A bucket and how the workload uses it.
#[derive(Clone, Debug)]
pub struct BucketSpec {
    /// Its name.
    pub name: String,
    /// The number of replicas of a key.
    pub n: u8,
    /// The number of replicas that a get waits for.
    pub r: u8,
    /// The number of replicas that a put waits for.
    pub w: u8,
    /// How concurrent writes are shown.
    pub conflict: Conflict,
    /// When writes are acknowledged.
    pub durability: Durability,
    /// Whether stand-ins may store writes for homes.
    pub sloppy: bool,
    /// Whether clients use only strong requests on it, so that its keys must be linearizable.
    pub strong_only: bool,
}

/// A node and its location.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its physical machine.
    pub host: String,
}

/// A cluster's settings.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// All nodes, including those that join later.
    pub nodes: Vec<NodeSpec>,
    /// The number of nodes, the last ones, that are not members at first.
    pub spares: usize,
    /// One node bootstraps the cluster alone and the others join it. The last of them replaces the founder before clients start.
    pub outlives_founder: bool,
    /// The number of partitions of the ring.
    pub partitions: u32,
    /// The buckets.
    pub buckets: Vec<BucketSpec>,
    /// The nodes' limits.
    pub limits: Limits,
    /// The nodes' timeouts and intervals.
    pub timing: Timing,
}

const CLUSTER: ClusterId = ClusterId(0xca27);

/// A cluster's nodes, and what is the same for all of them.
#[derive(Debug)]
pub struct Cluster {
    spec: ClusterSpec,
    ids: Vec<NodeId>,
    indices: BTreeMap<NodeId, usize>,
    view: Arc<View>,
    cluster_key: ClusterKey,
    broken: Broken,
    /// The range in which an administrator changes the n of each bucket; a single value if none does.
    ns: Vec<(u8, u8)>,
}

impl Cluster {
    /// Makes a cluster. `broken` names a rule of the protocol to break, for tests of the simulator itself.
    ///
    /// # Panics
    /// If the settings are invalid.
    pub fn new(spec: ClusterSpec, broken: Broken) -> Self {
        let ids: Vec<NodeId> = spec.nodes.iter().map(|node| NodeId::of_name(&node.name)).collect();
        let indices = ids.iter().enumerate().map(|(index, &id)| (id, index)).collect();
        let view = Arc::new(history(&spec).view().expect("the settings are valid"));
        let ns = spec.buckets.iter().map(|bucket| (bucket.n, bucket.n)).collect();
        Self { spec, ids, indices, view, cluster_key: ClusterKey::derive(b"simulated"), broken, ns }
    }

    /// Its settings.
    pub const fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The number of nodes that are members at the start of the clients.
    pub fn founders(&self) -> usize {
        self.ids.len() - self.spec.spares
    }

    /// The number of nodes that bootstrap the cluster.
    pub const fn first_members(&self) -> usize {
        first_members(&self.spec)
    }

    /// A node as a member of the cluster.
    pub fn member(&self, index: usize, incarnation: Incarnation) -> Member {
        member(index, &self.spec.nodes[index], incarnation)
    }

    /// Whether it has no nodes.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// A node's id.
    pub fn id(&self, index: usize) -> NodeId {
        self.ids[index]
    }

    /// The node with this id.
    pub fn index(&self, id: NodeId) -> Option<usize> {
        self.indices.get(&id).copied()
    }

    /// A node's name.
    pub fn name(&self, index: usize) -> &str {
        &self.spec.nodes[index].name
    }

    /// The name of the node with this id, also of one that is not in the cluster.
    pub fn name_of(&self, id: NodeId) -> &str {
        self.index(id).map_or("stranger", |index| self.name(index))
    }

    /// The cluster's seal of contexts.
    pub fn sealer(&self) -> Sealer {
        Sealer::new(CLUSTER, self.cluster_key.clone(), self.broken)
    }

    /// The bucket of a key.
    ///
    /// # Panics
    /// If the run has no such bucket.
    pub fn bucket(&self, key: &Key) -> &BucketSpec {
        self.known_bucket(key).expect("the clients of histories use only the run's buckets")
    }

    /// The bucket of a key, if it is one of the run's; [`crate::emptied`] has one of its own.
    fn known_bucket(&self, key: &Key) -> Option<&BucketSpec> {
        self.spec.buckets.iter().find(|bucket| bucket.name.as_bytes() == key.bucket())
    }

    /// Whether the bucket of a key acknowledges writes before they are synced.
    pub fn leaves_to_the_os(&self, key: &Key) -> bool {
        self.known_bucket(key).is_some_and(|bucket| bucket.durability == Durability::Os)
    }

    /// Whether a bucket acknowledges writes before they are synced.
    pub fn leaves_writes_to_the_os(&self) -> bool {
        self.spec.buckets.iter().any(|bucket| bucket.durability == Durability::Os)
    }

    /// The least number of replicas that a key has by its bucket's settings: no more than there are nodes.
    pub fn replicas(&self, key: &Key) -> u8 {
        self.ns_of(key).0.min(self.founders() as u8)
    }

    /// The largest number of replicas that a key has. Where R and W overlap among so many, a read must see a write.
    pub fn replicas_max(&self, key: &Key) -> u8 {
        self.ns_of(key).1.min(self.founders() as u8)
    }

    /// The least n that the key's bucket gets, however many nodes there are.
    pub fn n_least(&self, key: &Key) -> u8 {
        self.ns_of(key).0
    }

    fn ns_of(&self, key: &Key) -> (u8, u8) {
        let index = self.spec.buckets.iter().position(|bucket| bucket.name.as_bytes() == key.bucket());
        self.ns[index.expect("clients use only the run's buckets")]
    }

    /// The range in which an administrator changes the n of each bucket.
    pub fn ns(&self) -> &[(u8, u8)] {
        &self.ns
    }

    /// Sets the range in which an administrator changes the n of each bucket.
    pub fn set_ns(&mut self, ns: Vec<(u8, u8)>) {
        self.ns = ns;
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &Key) -> PartitionId {
        self.view.ring.partition_of(key.token())
    }

    /// The view at bootstrap.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Makes a node's state machine from its disk.
    pub fn make_node(
        &self,
        index: usize,
        start: Start,
        loss_floor: Since,
        disk: &Image,
        view: Arc<View>,
        seed: u64,
    ) -> Node {
        let Start { incarnation, boot, epoch, actors, .. } = start;
        let partition_states = self
            .view
            .ring
            .partitions()
            .iter()
            .filter_map(|partition| Some((partition, partition_state_in(disk, partition)?)));
        let config = NodeConfig {
            cluster: CLUSTER,
            cluster_key: self.cluster_key.clone(),
            node: self.ids[index],
            incarnation,
            boot,
            shard_id: ShardId::ONLY,
            partition_states: partition_states.collect(),
            losses: losses_in(disk),
            loss_floor,
            durability: Durability::Fsync,
            actors,
            seed,
            timing: self.spec.timing,
            limits: self.spec.limits,
            epoch,
            all_speak: Protocol::NEWEST,
            broken: self.broken,
        };
        Node::new(config, view)
    }

    /// Makes a node's control state machine from its saved history.
    ///
    /// # Panics
    /// If the history is invalid.
    pub fn make_control(&self, index: usize, start: Start, saved: Option<History>, seed: u64) -> Control {
        let (node, Start { incarnation, boot, epoch, epoch_floor, .. }) = (self.ids[index], start);
        let (cluster, broken) = (CLUSTER, self.broken);
        // Derived instead of drawn, so that runs of earlier seeds stay the same.
        let snapshot_after = if (self.spec.partitions / 2).is_multiple_of(2) { 4 } else { SNAPSHOT_AFTER };
        let shards = 1;
        let config = ControlConfig {
            cluster,
            node,
            incarnation,
            boot,
            seed,
            epoch,
            epoch_floor,
            shards,
            snapshot_after,
            broken,
        };
        Control::new(config, saved.unwrap_or_else(|| self.bootstrap())).expect("the history is valid")
    }

    /// The changes that bootstrap the cluster.
    pub fn bootstrap(&self) -> History {
        history(&self.spec)
    }
}

/// One start of a node: a boot of an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
    /// The number of the incarnation's boot, from 1.
    pub boot: u32,
    /// The boot since which it continues its actors.
    pub actors: ActorsSince,
    /// The epoch on its disk.
    pub epoch: Epoch,
    /// The latest epoch on another node's disk when its disk was made.
    pub epoch_floor: Epoch,
}

/// A partition's state on a disk.
///
/// # Panics
/// If it cannot be decoded.
pub fn partition_state_in(disk: &Image, partition: PartitionId) -> Option<PartitionState> {
    let bytes = disk.named.get(partition_state_name(partition).as_bytes())?;
    Some(wire::decode_partition_state(bytes).expect("saved data can be decoded"))
}

/// The losses of other nodes on a disk.
///
/// # Panics
/// If they cannot be decoded.
pub fn losses_in(disk: &Image) -> LossBook {
    let bytes = disk.named.get(loss_book::NAME.as_bytes());
    bytes.map_or_else(LossBook::default, |bytes| LossBook::decode(bytes).expect("saved data can be decoded"))
}

/// The incarnation of a node's first data directory.
pub const fn first_incarnation(index: usize) -> Incarnation {
    Incarnation(index as u64 + 1)
}

const fn first_members(spec: &ClusterSpec) -> usize {
    if spec.outlives_founder { 1 } else { spec.nodes.len() - spec.spares }
}

fn history(spec: &ClusterSpec) -> History {
    let founders = spec.nodes.iter().take(first_members(spec)).enumerate();
    let members: Vec<Member> = founders.map(|(index, node)| member(index, node, first_incarnation(index))).collect();
    let founder = members[0].id;
    let partitions = Partitions::new(spec.partitions).expect("the number of partitions is valid");
    let mut history = History::new();
    let found = ChangeKind::Bootstrap {
        cluster: CLUSTER,
        partitions,
        strategy: Strategy::Balanced,
        members,
        name: String::new(),
    };
    history.record(Hlc::ZERO, founder, found);
    for bucket in &spec.buckets {
        let settings = SettingsPatch {
            n: Some(bucket.n),
            r: Some(bucket.r),
            w: Some(bucket.w),
            conflict: Some(bucket.conflict),
            durability: Some(bucket.durability),
            sloppy: Some(bucket.sloppy),
            ..SettingsPatch::default()
        };
        let name = Bytes::copy_from_slice(bucket.name.as_bytes());
        history.record(Hlc::ZERO, founder, ChangeKind::Bucket { name, settings });
    }
    history
}

fn member(index: usize, node: &NodeSpec, incarnation: Incarnation) -> Member {
    Member {
        zone: node.zone.clone(),
        host: node.host.clone(),
        peer_addr: format!("{index}"),
        ..Member::new(&node.name, incarnation)
    }
}

/// The key called `name` in `bucket`.
///
/// # Panics
/// If either is empty or too long.
pub fn key(bucket: &str, name: &str) -> Key {
    Key::new(Bytes::copy_from_slice(bucket.as_bytes()), Bytes::copy_from_slice(name.as_bytes()))
        .expect("the key is valid")
}
