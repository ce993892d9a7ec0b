//! Clusters of a few nodes with one partition, and the bounds for what may happen to them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cartwheel_core::cluster::configuration::{Configuration, Home};
use cartwheel_core::cluster::counts::Group;
use cartwheel_core::cluster::holdings::Holdings;
use cartwheel_core::cluster::membership::{ChangeKind, History, Member, SettingsPatch, Strategy, View};
use cartwheel_core::cluster::partition_state::PartitionState;
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::mutation::{Broken, Mutation};
use cartwheel_core::ring::quorum::Quorum;
use cartwheel_core::ring::{PartitionId, Partitions};
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::{Hlc, WallMs};

/// The key's bucket, if its n is not the default.
const BUCKET: Bytes = Bytes::from_static(b"bucket");

use super::stage::{Done, Situation};

/// The cluster's partitions. Adding one node changes the homes of some of them.
const PARTITIONS: u32 = 16;
/// The shards of each node: so many that each has one partition at most.
const SHARDS: u32 = 1 << 10;

/// Bounds for what may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The number of writes that clients begin.
    pub writes: usize,
    /// The number of reads.
    pub reads: usize,
    /// How often a node crashes.
    pub crashes: u8,
    /// How often a node begins to propose.
    pub ballots: u8,
    /// The last number that a configuration may have.
    pub last: u64,
    /// How often a node of the bootstrap loses its disk and returns in a new incarnation.
    pub renewals: u8,
    /// How often a home loses its record: it is damaged, or power fails before it was synced. One is lost at a time.
    pub losses: u8,
    /// How often a store reports a failure although it has stored the write.
    pub failures: u8,
}

/// A cluster, one of its partitions, and its clients.
#[derive(Debug)]
pub struct Setup {
    /// The nodes, by slot.
    pub nodes: Vec<NodeId>,
    /// The possible views, each with its target.
    pub views: Vec<Arc<View>>,
    /// The index of the view that each node has at first.
    pub sides: Vec<u8>,
    pub partition: PartitionId,
    /// The number of homes of the clients' key.
    pub n: u8,
    /// The key's group.
    pub group: Group,
    /// The n in the settings that clients' requests use.
    pub settings_n: u8,
    pub w: usize,
    pub r: usize,
    /// Whether reads are strong: a majority holds exactly what they answer.
    pub is_strong: bool,
    /// Without ballots, the next configuration is chosen in one action, and the first one at the beginning. A node that
    /// learns of it adopts it.
    pub is_chosen: bool,
    pub bounds: Bounds,
    pub mutation: Option<Mutation>,
    /// Whether a home's answer in an incarnation that is over counts for the next one, as it once did.
    pub counts_past_incarnations: bool,
    /// What each node holds in each view, without the partition.
    held: Vec<Vec<Holdings>>,
    /// The results of earlier attendances, by situation.
    pub memory: Mutex<HashMap<Situation, Arc<Done>>>,
}

pub fn id(node: usize) -> NodeId {
    NodeId::of_name(&format!("node-{node}"))
}

/// A node as it is added. Its first incarnation has its own number.
pub fn member(node: usize, incarnation: u64) -> Member {
    Member {
        zone: "zone".to_owned(),
        host: format!("host-{node}"),
        ..Member::new(&format!("node-{node}"), Incarnation(incarnation))
    }
}

/// A change of the n of the key's bucket.
pub fn set_n(n: u8) -> ChangeKind {
    let quorum = Some(n / 2 + 1);
    let settings = SettingsPatch { n: Some(n), n_by_versions: true, r: quorum, w: quorum, ..SettingsPatch::default() };
    ChangeKind::Bucket { name: BUCKET, settings }
}

/// The view after a bootstrap with so many nodes, with a bucket of `n` replicas, and these changes.
fn view(nodes: usize, n: u8, changes: &[ChangeKind]) -> Arc<View> {
    let bootstrap = ChangeKind::Bootstrap {
        cluster: ClusterId(1),
        partitions: Partitions::new(PARTITIONS).expect("a number of partitions"),
        strategy: Strategy::Balanced,
        members: (1..=nodes).map(|node| member(node, node as u64)).collect(),
        name: String::new(),
    };
    let settings = SettingsPatch { n: Some(n), r: Some(n.min(2)), w: Some(n.min(2)), ..SettingsPatch::default() };
    // If its n changes, the bucket is in the table of the first configuration.
    let changes_n = changes.iter().any(|what| matches!(what, ChangeKind::Bucket { .. }));
    let bucket = (n != 3 || changes_n).then(|| ChangeKind::Bucket { name: BUCKET, settings });
    let mut history = History::new();
    for what in [bootstrap].into_iter().chain(bucket).chain(changes.iter().cloned()) {
        history.record(Hlc::at(WallMs(1)), id(1), what);
    }
    Arc::new(history.view().expect("a history with its bootstrap"))
}

impl Setup {
    /// A cluster bootstrapped with so many nodes, whose clients' key has `n` homes. Each list of `targets` has the
    /// changes that some nodes know. The partition is one in which each of these changes the key's homes, with all
    /// removed nodes among the homes; of several, the one in which the most homes change.
    pub fn new(nodes: usize, n: u8, targets: &[&[ChangeKind]], bounds: Bounds) -> Self {
        let views: Vec<Arc<View>> = targets.iter().map(|changes| view(nodes, n, changes)).collect();
        let homes = |of: &[Home], n: u8| of.iter().take(n.into()).copied().collect::<BTreeSet<Home>>();
        let target_n = |view: &View| view.target_counts().n(&BUCKET);
        let coming = |view: &View, partition: PartitionId, n: u8| {
            (&homes(&view.target(partition), n.max(target_n(view)))
                - &homes(&view.first_configuration(partition).homes, n))
                .len()
        };
        let with_changes =
            || views.iter().zip(targets).filter(|(_, changes)| !changes.is_empty()).map(|(view, _)| view);
        let is_removed = |view: &View, home: &&Home| view.is_removed(**home);
        let is_changed = |partition: &PartitionId| {
            with_changes().all(|view| {
                let first = view.first_configuration(*partition);
                let removed = |homes: &[Home]| homes.iter().filter(|home| is_removed(view, home)).count();
                (coming(view, *partition, n) > 0 || target_n(view) < n) && removed(first.of(n)) == removed(&first.homes)
            })
        };
        let partition = (0..PARTITIONS)
            .map(PartitionId)
            .filter(is_changed)
            .max_by_key(|&partition| with_changes().map(|view| coming(view, partition, view.n_max())).sum::<usize>())
            .expect("a partition whose homes change");
        let mut nodes: Vec<NodeId> = (1..=nodes).map(id).collect();
        for home in views.iter().flat_map(|view| view.target(partition)) {
            if !nodes.contains(&home.node) {
                nodes.push(home.node);
            }
        }
        let group = views[0].first_counts().group_of(&BUCKET);
        let mut setup = Self {
            sides: vec![0; nodes.len()],
            nodes,
            views,
            partition,
            n,
            group,
            settings_n: n,
            w: usize::from(n / 2 + 1),
            r: usize::from(n / 2 + 1),
            is_strong: false,
            is_chosen: bounds.ballots == 0,
            bounds,
            mutation: None,
            counts_past_incarnations: false,
            held: Vec::new(),
            memory: Mutex::default(),
        };
        let held = |&node: &NodeId| setup.views.iter().map(|view| setup.bootstrap(node, view)).collect();
        setup.held = setup.nodes.iter().map(held).collect();
        setup
    }

    fn bootstrap(&self, node: NodeId, view: &Arc<View>) -> Holdings {
        let incarnation = |view: &View| view.member(node).map(|known| known.member.incarnation);
        let incarnation =
            incarnation(view).or_else(|| self.views.iter().find_map(|view| incarnation(view))).expect("a member");
        // The shard has no other partition.
        let shard_id = ShardId { index: ShardId::of_partition(self.partition, SHARDS), count: SHARDS };
        Holdings::new(Home { node, incarnation }, view.clone(), shard_id, [])
    }

    /// Other quorums than majorities.
    #[must_use]
    pub fn with_quorums(self, w: usize, r: usize) -> Self {
        Self { w, r, ..self }
    }

    /// An n in the settings that reconfigurations have yet to adopt, or have adopted.
    #[must_use]
    pub fn with_settings_n(self, settings_n: u8) -> Self {
        Self { settings_n, ..self }
    }

    /// The quorum of a write.
    pub fn writes(&self) -> Quorum {
        if self.is_strong { Quorum::majority(self.settings_n) } else { Quorum::writes(self.w, self.settings_n) }
    }

    /// The quorum of a read.
    pub fn reads(&self) -> Quorum {
        if self.is_strong { Quorum::majority(self.settings_n) } else { Quorum::reads(self.r, self.settings_n) }
    }

    /// Tallies that ignore the incarnations of nodes.
    #[must_use]
    pub fn counting_past_incarnations(self) -> Self {
        Self { counts_past_incarnations: true, ..self }
    }

    /// Whether a node is marked lost in the last view.
    pub fn is_marked_lost(&self, slot: usize) -> bool {
        let last = self.views.len() - 1;
        self.views[last].is_marked_lost(self.home(slot, last as u8))
    }

    /// Whether any node is.
    pub fn marks_lost(&self) -> bool {
        (0..self.nodes.len()).any(|slot| self.is_marked_lost(slot))
    }

    /// A broken rule.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn breaking(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    /// Strong reads.
    #[must_use]
    pub fn strong(self) -> Self {
        Self { is_strong: true, ..self }
    }

    /// The slot of a node.
    pub fn slot(&self, node: NodeId) -> Option<usize> {
        self.nodes.iter().position(|&other| other == node)
    }

    /// The configuration of the bootstrap.
    pub fn first(&self) -> Configuration {
        self.views[0].first_configuration(self.partition)
    }

    /// The home in a slot, in a view.
    pub fn home(&self, slot: usize, view: u8) -> Home {
        self.held[slot][usize::from(view)].me()
    }

    /// What a node with this partition state holds.
    pub fn held(&self, slot: usize, view: u8, partition_state: &PartitionState) -> Holdings {
        let mut held = self.held[slot][usize::from(view)].clone();
        held.take(self.partition, partition_state.clone());
        held
    }

    /// Whether some home of the key is to leave.
    pub fn has_leavers(&self) -> bool {
        let target_of = |view: &Arc<View>| {
            let n = view.target_counts().n_of(self.group);
            view.target(self.partition).into_iter().take(n.into())
        };
        let target: Vec<Home> = self.views.iter().flat_map(target_of).collect();
        self.first().of(self.n).iter().any(|home| !target.contains(home))
    }

    /// Whether a rule is broken.
    pub fn breaks(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The rule that is broken, for the code under test.
    #[cfg(feature = "mutations")]
    pub fn broken(&self) -> Broken {
        self.mutation.map_or_else(Broken::default, Broken::rule)
    }

    /// No rule is broken in this build.
    #[cfg(not(feature = "mutations"))]
    pub fn broken(&self) -> Broken {
        Broken::default()
    }
}
