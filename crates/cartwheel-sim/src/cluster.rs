//! The cluster under test: who is in it, and how its nodes are made.

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
use cartwheel_core::wire::context::{ClusterKey, Sealer};

/// A bucket and how the workload uses it.
#[derive(Clone, Debug)]
pub struct BucketSpec {
    /// Its name.
    pub name: String,
    /// Replicas of a key.
    pub n: u8,
    /// Replicas that a get waits for.
    pub r: u8,
    /// Replicas that a put waits for.
    pub w: u8,
    /// How it shows concurrent writes.
    pub conflict: Conflict,
    /// When its writes are acknowledged.
    pub durability: Durability,
    /// Whether nodes may stand in for homes.
    pub sloppy: bool,
    /// Clients read and write it only strongly, so that its keys are linearizable.
    pub strong_only: bool,
}

/// A node and where it stands.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its host.
    pub host: String,
}

/// A cluster's settings.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// The nodes that there may be.
    pub nodes: Vec<NodeSpec>,
    /// How many of them, the last, are no members at first.
    pub spares: usize,
    /// One node founds the cluster alone, the others join it, and then the last of them replaces the founder before clients come.
    pub outlives_founder: bool,
    /// How many partitions the ring has.
    pub partitions: u32,
    /// The buckets.
    pub buckets: Vec<BucketSpec>,
    /// How much a node takes on.
    pub limits: Limits,
    /// How long a node waits.
    pub timing: Timing,
}

const CLUSTER: ClusterId = ClusterId(0xca27);

/// A cluster's members and what they agree on.
#[derive(Debug)]
pub struct Cluster {
    spec: ClusterSpec,
    ids: Vec<NodeId>,
    indices: BTreeMap<NodeId, usize>,
    view: Arc<View>,
    cluster_key: ClusterKey,
    broken: Broken,
    /// Between which numbers an administrator changes the n of each bucket, if one does.
    ns: Vec<(u8, u8)>,
}

impl Cluster {
    /// The cluster of these settings, with a rule of its protocol broken if a test of the tests wants it.
    ///
    /// # Panics
    /// If the settings make no cluster.
    pub fn new(spec: ClusterSpec, broken: Broken) -> Self {
        let ids: Vec<NodeId> = spec.nodes.iter().map(|node| NodeId::of_name(&node.name)).collect();
        let indices = ids.iter().enumerate().map(|(index, &id)| (id, index)).collect();
        let view = Arc::new(history(&spec).view().expect("settings of a cluster"));
        let ns = spec.buckets.iter().map(|bucket| (bucket.n, bucket.n)).collect();
        Self { spec, ids, indices, view, cluster_key: ClusterKey::derive(b"simulated"), broken, ns }
    }

    /// Its settings.
    pub const fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// How many nodes found the cluster.
    pub fn founders(&self) -> usize {
        self.ids.len() - self.spec.spares
    }

    /// How many nodes the founding names.
    pub const fn first_members(&self) -> usize {
        first_members(&self.spec)
    }

    /// A node as a member.
    pub fn member(&self, index: usize, incarnation: Incarnation) -> Member {
        member(index, &self.spec.nodes[index], incarnation)
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// A member's id.
    pub fn id(&self, index: usize) -> NodeId {
        self.ids[index]
    }

    /// The member with this id.
    pub fn index(&self, id: NodeId) -> Option<usize> {
        self.indices.get(&id).copied()
    }

    /// A member's name.
    pub fn name(&self, index: usize) -> &str {
        &self.spec.nodes[index].name
    }

    /// The name of the node with this id.
    pub fn name_of(&self, id: NodeId) -> &str {
        self.index(id).map_or("stranger", |index| self.name(index))
    }

    /// What opens and makes the cluster's contexts.
    pub fn sealer(&self) -> Sealer {
        Sealer::new(CLUSTER, self.cluster_key.clone(), self.broken)
    }

    /// The bucket of a key.
    ///
    /// # Panics
    /// If the run has no such bucket.
    pub fn bucket(&self, key: &Key) -> &BucketSpec {
        self.spec
            .buckets
            .iter()
            .find(|bucket| bucket.name.as_bytes() == key.bucket())
            .expect("clients use only the run's buckets")
    }

    /// Whether any bucket acknowledges writes that are not synced.
    pub fn leaves_writes_to_the_os(&self) -> bool {
        self.spec.buckets.iter().any(|bucket| bucket.durability == Durability::Os)
    }

    /// How many replicas a key has at least, as far as settings say it: no more than there are nodes.
    pub fn replicas(&self, key: &Key) -> u8 {
        self.ns_of(key).0.min(self.founders() as u8)
    }

    /// How many it has at most. Reads meet writes for certain where they would among so many.
    pub fn replicas_max(&self, key: &Key) -> u8 {
        self.ns_of(key).1.min(self.founders() as u8)
    }

    /// The least n that its bucket comes to have, however many nodes there are.
    pub fn n_least(&self, key: &Key) -> u8 {
        self.ns_of(key).0
    }

    fn ns_of(&self, key: &Key) -> (u8, u8) {
        let place = self.spec.buckets.iter().position(|bucket| bucket.name.as_bytes() == key.bucket());
        self.ns[place.expect("clients use only the run's buckets")]
    }

    /// Between which numbers an administrator changes the n of each bucket.
    pub fn ns(&self) -> &[(u8, u8)] {
        &self.ns
    }

    /// An administrator will change the n of each bucket, between these numbers.
    pub fn let_n_change(&mut self, ns: Vec<(u8, u8)>) {
        self.ns = ns;
    }

    /// The partition of a key.
    pub fn partition_of(&self, key: &Key) -> PartitionId {
        self.view.ring.partition_of(key.token())
    }

    /// The ring and the settings as they were founded.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// A node's state machine as it starts from its disk. This is the one place that knows how a node is made.
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
            broken: self.broken,
        };
        Node::new(config, view)
    }

    /// A node's control as it starts from what it has saved.
    ///
    /// # Panics
    /// If what it has saved makes no cluster.
    pub fn make_control(&self, index: usize, start: Start, saved: Option<History>, seed: u64) -> Control {
        let (node, Start { incarnation, boot, epoch, epoch_floor, .. }) = (self.ids[index], start);
        let (cluster, broken) = (CLUSTER, self.broken);
        // Not drawn, so that seeds stay what they were.
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
        Control::new(config, saved.unwrap_or_else(|| self.bootstrap())).expect("a history of a cluster")
    }

    /// The changes that make the cluster.
    pub fn bootstrap(&self) -> History {
        history(&self.spec)
    }
}

/// Which start of a node: the boot of an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// The incarnation of its disk.
    pub incarnation: Incarnation,
    /// Which of the incarnation's boots it is, from 1.
    pub boot: u32,
    /// Since when it goes on with its actors.
    pub actors: ActorsSince,
    /// The epoch that is on its disk.
    pub epoch: Epoch,
    /// The epoch that was on another's disk when its disk was made.
    pub epoch_floor: Epoch,
}

/// The partition state in a partition that a disk remembers.
///
/// # Panics
/// If what it remembers is none.
pub fn partition_state_in(disk: &Image, partition: PartitionId) -> Option<PartitionState> {
    let bytes = disk.named.get(partition_state_name(partition).as_bytes())?;
    Some(wire::decode_partition_state(bytes).expect("what was saved"))
}

/// What a disk remembers of other nodes' losses.
///
/// # Panics
/// If what it remembers is none.
pub fn losses_in(disk: &Image) -> LossBook {
    let bytes = disk.named.get(loss_book::NAME.as_bytes());
    bytes.map_or_else(LossBook::default, |bytes| LossBook::decode(bytes).expect("what was saved"))
}

/// The incarnation of a node's first disk.
pub const fn first_incarnation(index: usize) -> Incarnation {
    Incarnation(index as u64 + 1)
}

/// How many nodes the founding names.
const fn first_members(spec: &ClusterSpec) -> usize {
    if spec.outlives_founder { 1 } else { spec.nodes.len() - spec.spares }
}

/// The changes that make the cluster.
fn history(spec: &ClusterSpec) -> History {
    let founders = spec.nodes.iter().take(first_members(spec)).enumerate();
    let members: Vec<Member> = founders.map(|(index, node)| member(index, node, first_incarnation(index))).collect();
    let founder = members[0].id;
    let partitions = Partitions::new(spec.partitions).expect("a number of partitions");
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
    Key::new(Bytes::copy_from_slice(bucket.as_bytes()), Bytes::copy_from_slice(name.as_bytes())).expect("a valid key")
}
