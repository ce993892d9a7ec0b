//! Clusters of a few nodes and one partition of theirs, and what may happen to them.

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

/// The bucket whose n is asked for, where it is not the default.
const BUCKET: Bytes = Bytes::from_static(b"bucket");

use super::stage::{Done, Situation};

/// Of the cluster. What follows from one node's coming changes some of them.
const PARTITIONS: u32 = 16;
/// Of each node: so many that each has one partition at most.
const SHARDS: u32 = 1 << 10;

/// How much may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// How many writes clients begin.
    pub writes: usize,
    /// How many reads.
    pub reads: usize,
    /// How often a node crashes.
    pub crashes: u8,
    /// How often somebody begins to propose.
    pub ballots: u8,
    /// The last number that a configuration may have.
    pub last: u64,
    /// A founding node loses its disk and comes back in a new incarnation.
    pub renewals: u8,
    /// How often a home loses its record: it is damaged, or the power fails before it was synced. One is lost at a time.
    pub losses: u8,
    /// How often a store fails to say that it has stored what it has.
    pub failures: u8,
}

/// A cluster, one of its partitions, and its clients.
#[derive(Debug)]
pub struct Setup {
    /// The nodes, by slot.
    pub nodes: Vec<NodeId>,
    /// What they may wish.
    pub views: Vec<Arc<View>>,
    /// Which of the wishes each goes by at first.
    pub sides: Vec<u8>,
    pub partition: PartitionId,
    /// How many homes the clients' key has.
    pub n: u8,
    /// The key's group.
    pub group: Group,
    /// The n in the settings that clients' requests go by.
    pub settings_n: u8,
    pub w: usize,
    pub r: usize,
    /// Reads are strong: a majority holds exactly what they answer.
    pub is_strong: bool,
    /// Without ballots, successors are chosen at once, and the first one when it begins: whoever is told of it goes by it.
    pub is_chosen: bool,
    pub bounds: Bounds,
    pub mutation: Option<Mutation>,
    /// What a home has said in an incarnation that is over counts for the next one, as it once did.
    pub counts_past_incarnations: bool,
    /// What each node holds under each wish, but for the partition.
    held: Vec<Vec<Holdings>>,
    /// What nodes did before that looked after the partition in the same situation.
    pub memory: Mutex<HashMap<Situation, Arc<Done>>>,
}

pub fn id(node: usize) -> NodeId {
    NodeId::of_name(&format!("node-{node}"))
}

/// A node, as one adds it. Its first incarnation has its own number.
pub fn member(node: usize, incarnation: u64) -> Member {
    Member {
        zone: "zone".to_owned(),
        host: format!("host-{node}"),
        ..Member::new(&format!("node-{node}"), Incarnation(incarnation))
    }
}

/// The key's bucket is to have another n.
pub fn set_n(n: u8) -> ChangeKind {
    let quorum = Some(n / 2 + 1);
    let settings = SettingsPatch { n: Some(n), n_by_versions: true, r: quorum, w: quorum, ..SettingsPatch::default() };
    ChangeKind::Bucket { name: BUCKET, settings }
}

/// What is wished after the founding of so many nodes, with a bucket of so many replicas, and these changes.
fn view(founders: usize, n: u8, changes: &[ChangeKind]) -> Arc<View> {
    let bootstrap = ChangeKind::Bootstrap {
        cluster: ClusterId(1),
        partitions: Partitions::new(PARTITIONS).expect("a number of partitions"),
        strategy: Strategy::Balanced,
        members: (1..=founders).map(|node| member(node, node as u64)).collect(),
        name: String::new(),
    };
    let settings = SettingsPatch { n: Some(n), r: Some(n.min(2)), w: Some(n.min(2)), ..SettingsPatch::default() };
    // Where its n changes, the bucket is in the table of the first configuration.
    let changes_n = changes.iter().any(|what| matches!(what, ChangeKind::Bucket { .. }));
    let bucket = (n != 3 || changes_n).then(|| ChangeKind::Bucket { name: BUCKET, settings });
    let mut history = History::new();
    for what in [bootstrap].into_iter().chain(bucket).chain(changes.iter().cloned()) {
        history.record(Hlc::at(WallMs(1)), id(1), what);
    }
    Arc::new(history.view().expect("a founded cluster"))
}

impl Setup {
    /// A cluster founded by so many nodes, whose clients' key has `n` homes; each list of changes is what some of the nodes wish. It looks
    /// at a partition in which all of these wishes change the key's homes and those who are removed are among them, and of several at
    /// the one in which most homes change.
    pub fn new(founders: usize, n: u8, wishes: &[&[ChangeKind]], bounds: Bounds) -> Self {
        let views: Vec<Arc<View>> = wishes.iter().map(|changes| view(founders, n, changes)).collect();
        let homes = |of: &[Home], n: u8| of.iter().take(n.into()).copied().collect::<BTreeSet<Home>>();
        let target_n = |view: &View| view.target_counts().n(&BUCKET);
        let coming = |view: &View, partition: PartitionId, n: u8| {
            (&homes(&view.target(partition), n.max(target_n(view)))
                - &homes(&view.first_configuration(partition).homes, n))
                .len()
        };
        let wishing = || views.iter().zip(wishes).filter(|(_, changes)| !changes.is_empty()).map(|(view, _)| view);
        let is_removed = |view: &View, home: &&Home| view.is_removed(**home);
        let is_changed = |partition: &PartitionId| {
            wishing().all(|view| {
                let first = view.first_configuration(*partition);
                let removed = |homes: &[Home]| homes.iter().filter(|home| is_removed(view, home)).count();
                (coming(view, *partition, n) > 0 || target_n(view) < n) && removed(first.of(n)) == removed(&first.homes)
            })
        };
        let partition = (0..PARTITIONS)
            .map(PartitionId)
            .filter(is_changed)
            .max_by_key(|&partition| wishing().map(|view| coming(view, partition, view.n_max())).sum::<usize>())
            .expect("a partition whose homes change");
        let mut nodes: Vec<NodeId> = (1..=founders).map(id).collect();
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
        // No other partition belongs to the shard.
        let shard_id = ShardId { index: ShardId::of_partition(self.partition, SHARDS), count: SHARDS };
        Holdings::new(Home { node, incarnation }, view.clone(), shard_id, [])
    }

    /// The same with other quorums than majorities.
    #[must_use]
    pub fn with_quorums(self, w: usize, r: usize) -> Self {
        Self { w, r, ..self }
    }

    /// The same with an n in the settings that is to be taken on by steps, or that was before.
    #[must_use]
    pub fn with_settings_n(self, settings_n: u8) -> Self {
        Self { settings_n, ..self }
    }

    /// How many must store a write.
    pub fn writes(&self) -> Quorum {
        if self.is_strong { Quorum::majority(self.settings_n) } else { Quorum::writes(self.w, self.settings_n) }
    }

    /// How many a read must hear.
    pub fn reads(&self) -> Quorum {
        if self.is_strong { Quorum::majority(self.settings_n) } else { Quorum::reads(self.r, self.settings_n) }
    }

    /// The same with tallies that know nodes, and not their incarnations.
    #[must_use]
    pub fn counting_past_incarnations(self) -> Self {
        Self { counts_past_incarnations: true, ..self }
    }

    /// Whether a node is given up in the last wish.
    pub fn is_given_up(&self, slot: usize) -> bool {
        let last = self.views.len() - 1;
        self.views[last].is_marked_lost(self.home(slot, last as u8))
    }

    /// Whether any is.
    pub fn gives_up(&self) -> bool {
        (0..self.nodes.len()).any(|slot| self.is_given_up(slot))
    }

    /// The same with a rule broken.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn breaking(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }

    /// The same with strong reads.
    #[must_use]
    pub fn strong(self) -> Self {
        Self { is_strong: true, ..self }
    }

    /// Which slot a node is in.
    pub fn slot(&self, node: NodeId) -> Option<usize> {
        self.nodes.iter().position(|&other| other == node)
    }

    /// The configuration of the founding.
    pub fn first(&self) -> Configuration {
        self.views[0].first_configuration(self.partition)
    }

    /// Who is in a slot, under a wish.
    pub fn home(&self, slot: usize, view: u8) -> Home {
        self.held[slot][usize::from(view)].me()
    }

    /// What is held in a slot, by a node that has this partition state.
    pub fn held(&self, slot: usize, view: u8, partition_state: &PartitionState) -> Holdings {
        let mut held = self.held[slot][usize::from(view)].clone();
        held.take(self.partition, partition_state.clone());
        held
    }

    /// Whether some home of the key is to be none.
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
