//! What a history adds up to: members, settings and the wished ring.
//!
//! The fold takes the changes in their order. It is a function of the set alone, so it does not matter when or by which way
//! a change arrived. A change that makes no sense where it stands (two sides of a cut network could not know of each other)
//! has no effect:
//!
//! - everything before the first change that founds a cluster on a node of weight above 0, and any further founding;
//! - adding a member whose name or id is another's, or a life that was removed, even by an earlier change;
//! - removing, replacing, weighing or moving a node that is no member; for removals, in that life;
//! - a replacement of weight 0 for a node that holds data;
//! - a settings patch whose result is not valid.
//!
//! **A wish with fewer nodes than the largest n moves nothing.** If a change takes data from a node (it is removed, or its
//! weight becomes 0) and fewer nodes that can hold data remain than the largest n of any bucket (the default's included),
//! the ring stays as it was, with the weights, zones and hosts it was made from. A removed node then is *leaving*: still a
//! member, still an owner. The first later change after which enough nodes remain carries everything out. Growing is never
//! held up: one node founds, two more join.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::bucket::BucketSettings;
use super::{ChangeKind, ClusterId, History, Member, SettingsPatch, Strategy};
use crate::dot::{Life, NodeId};
use crate::ring::balanced::{SPREAD, balanced};
use crate::ring::random::random;
use crate::ring::{NodeInfo, Partitions, Ring};

/// A member, and whether it is on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewMember {
    /// The node.
    pub member: Member,
    /// It was removed, but too few would remain, so it still owns its partitions.
    pub leaving: bool,
}

/// A cluster as its history says it should be. Immutable; cheap to share behind an `Arc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// Which cluster.
    pub cluster: ClusterId,
    /// How its partitions are assigned.
    pub strategy: Strategy,
    /// The wished ring. Its version names the history.
    pub ring: Ring,
    members: BTreeMap<NodeId, ViewMember>,
    removed: BTreeSet<(NodeId, Life)>,
    defaults: BucketSettings,
    buckets: BTreeMap<Bytes, BucketSettings>,
}

impl View {
    /// The member with this id.
    pub fn member(&self, node: NodeId) -> Option<&ViewMember> {
        self.members.get(&node)
    }

    /// The members, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &ViewMember> {
        self.members.values()
    }

    /// How many lives of the node were removed.
    pub fn lives_ended(&self, node: NodeId) -> u32 {
        self.removed.range((node, Life(0))..=(node, Life(u64::MAX))).count() as u32
    }

    /// Whether this life of the node was removed: it is refused for ever.
    pub fn is_removed(&self, node: NodeId, life: Life) -> bool {
        self.removed.contains(&(node, life))
    }

    /// The settings of `bucket`, which needs no creation.
    pub fn settings(&self, bucket: &[u8]) -> &BucketSettings {
        self.buckets.get(bucket).unwrap_or(&self.defaults)
    }

    /// The buckets whose settings were ever changed, by name.
    pub fn buckets(&self) -> impl ExactSizeIterator<Item = (&Bytes, &BucketSettings)> {
        self.buckets.iter()
    }

    /// The largest n of any bucket, the default's included.
    pub fn n_max(&self) -> usize {
        n_max(&self.buckets)
    }
}

fn n_max(buckets: &BTreeMap<Bytes, BucketSettings>) -> usize {
    buckets.values().map(|settings| settings.n).fold(BucketSettings::default().n, u8::max).into()
}

pub(super) fn fold(history: &History) -> Option<View> {
    let mut changes = history.changes();
    let mut fold = changes.by_ref().find_map(|change| Fold::found(&change.what))?;
    for change in changes {
        fold.apply(&change.what);
    }
    let version = history.version();
    let owners = fold.owners();
    let ring = Ring::new(version, fold.partitions, owners, fold.placed).expect("owners are placed nodes");
    Some(View {
        cluster: fold.cluster,
        strategy: fold.strategy,
        ring,
        members: fold.members,
        removed: fold.removed,
        defaults: BucketSettings::default(),
        buckets: fold.buckets,
    })
}

/// Which cluster a history founds: the first founding on a node that can hold data counts.
pub(super) fn cluster(history: &History) -> Option<ClusterId> {
    let holds_data = |fold: &Fold| fold.members.values().any(|member| member.member.weight > 0);
    history.changes().find_map(|change| Fold::named(&change.what).filter(holds_data)).map(|fold| fold.cluster)
}

/// The cluster after some of the changes.
struct Fold {
    cluster: ClusterId,
    partitions: Partitions,
    strategy: Strategy,
    members: BTreeMap<NodeId, ViewMember>,
    names: BTreeMap<String, NodeId>,
    removed: BTreeSet<(NodeId, Life)>,
    buckets: BTreeMap<Bytes, BucketSettings>,
    /// The nodes that the assignment in force was made for, sorted by id.
    placed: Vec<NodeInfo>,
    /// That assignment; only kept where the next one depends on it.
    balanced: Option<Vec<NodeId>>,
}

impl Fold {
    fn found(what: &ChangeKind) -> Option<Self> {
        let mut fold = Self::named(what)?;
        fold.place();
        (!fold.placed.is_empty()).then_some(fold)
    }

    /// What a founding names, before anything is placed.
    fn named(what: &ChangeKind) -> Option<Self> {
        let ChangeKind::Found { cluster, partitions, strategy, members } = what else { return None };
        let mut fold = Self {
            cluster: *cluster,
            partitions: *partitions,
            strategy: *strategy,
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            removed: BTreeSet::new(),
            buckets: BTreeMap::new(),
            placed: Vec::new(),
            balanced: None,
        };
        for member in members {
            fold.add(member);
        }
        Some(fold)
    }

    fn apply(&mut self, what: &ChangeKind) {
        let changed = match what {
            ChangeKind::Found { .. } => false,
            ChangeKind::Add(member) => self.add(member),
            ChangeKind::Remove { node, life } => self.remove(*node, *life),
            ChangeKind::Replace { old, new } => self.replace(*old, new),
            ChangeKind::Weight { node, weight } => self.edit(*node, |member| member.weight = *weight),
            ChangeKind::Zone { node, zone, host } => self.edit(*node, |member| {
                member.zone.clone_from(zone);
                member.host.clone_from(host);
            }),
            ChangeKind::Bucket { name, settings } => self.set(name, settings),
        };
        if changed {
            self.place();
        }
    }

    /// Whether `member` may come in; `instead` is the member whose place it takes, if any.
    fn admits(&self, member: &Member, instead: Option<NodeId>) -> bool {
        let free = |holder: Option<NodeId>| holder.is_none() || holder == instead;
        !self.removed.contains(&(member.id, member.life))
            && free(self.names.get(&member.name).copied())
            && free(self.members.contains_key(&member.id).then_some(member.id))
    }

    fn add(&mut self, member: &Member) -> bool {
        // A node that is leaving may come back in a new life: it never went, so it keeps its place.
        let leaving = self.members.get(&member.id).is_some_and(|present| present.leaving);
        if !self.admits(member, leaving.then_some(member.id)) {
            return false;
        }
        if leaving {
            self.drop_member(member.id);
        }
        self.insert(member);
        true
    }

    fn remove(&mut self, node: NodeId, life: Life) -> bool {
        self.removed.insert((node, life));
        let Some(present) = self.members.get_mut(&node).filter(|present| present.member.life == life) else {
            return false;
        };
        present.leaving = true;
        true
    }

    fn replace(&mut self, old: NodeId, new: &Member) -> bool {
        let Some(present) = self.members.get(&old) else { return false };
        let (same, old_life) = (old == new.id && present.member.life == new.life, present.member.life);
        let place = self.placed.iter().position(|node| node.id == old);
        if !self.admits(new, Some(old)) || (place.is_some() && new.weight == 0) {
            return false;
        }
        if !same {
            self.removed.insert((old, old_life));
        }
        if let Some(place) = place {
            self.placed[place] = new.info();
            self.placed.sort_unstable();
            let owners = self.balanced.iter_mut().flatten();
            owners.filter(|owner| **owner == old).for_each(|owner| *owner = new.id);
        }
        self.drop_member(old);
        self.insert(new);
        true
    }

    fn edit(&mut self, node: NodeId, edit: impl FnOnce(&mut Member)) -> bool {
        let Some(present) = self.members.get_mut(&node) else { return false };
        edit(&mut present.member);
        true
    }

    fn set(&mut self, name: &Bytes, patch: &SettingsPatch) -> bool {
        let settings = self.buckets.get(name).copied().unwrap_or_default();
        let Ok(settings) = patch.apply(settings) else { return false };
        let before = n_max(&self.buckets);
        self.buckets.insert(name.clone(), settings);
        // A smaller n may let those go who are leaving.
        n_max(&self.buckets) < before
    }

    fn insert(&mut self, member: &Member) {
        self.names.insert(member.name.clone(), member.id);
        self.members.insert(member.id, ViewMember { member: member.clone(), leaving: false });
    }

    fn drop_member(&mut self, node: NodeId) {
        if let Some(gone) = self.members.remove(&node) {
            self.names.remove(&gone.member.name);
        }
    }

    /// Assigns the partitions to the members as they now are, unless too few remain.
    fn place(&mut self) {
        let staying = self.members.values().filter(|member| !member.leaving && member.member.weight > 0);
        let nodes: Vec<NodeInfo> = staying.map(|member| member.member.info()).collect();
        let stays = |node: &NodeInfo| nodes.binary_search_by_key(&node.id, |other| other.id).is_ok();
        if nodes.len() < n_max(&self.buckets) && !self.placed.iter().all(stays) {
            // Who holds nothing can go all the same.
            self.drop_leaving(|placed, node| !placed.iter().any(|other| other.id == node));
            return;
        }
        if self.strategy == Strategy::Balanced && nodes != self.placed {
            self.balanced = balanced(self.balanced.as_deref(), &nodes, self.partitions, SPREAD);
        }
        self.placed = nodes;
        self.drop_leaving(|_, _| true);
    }

    fn drop_leaving(&mut self, may_go: impl Fn(&[NodeInfo], NodeId) -> bool) {
        let leaving = self.members.values().filter(|member| member.leaving).map(|member| member.member.id);
        let gone: Vec<_> = leaving.filter(|node| may_go(&self.placed, *node)).collect();
        gone.into_iter().for_each(|node| self.drop_member(node));
    }

    /// The assignment in force.
    fn owners(&mut self) -> Vec<NodeId> {
        match self.strategy {
            Strategy::Balanced => self.balanced.take(),
            Strategy::Random { tokens } => random(&self.placed, self.partitions, tokens),
        }
        .expect("a cluster is founded on a node that can hold data")
    }
}
