//! The cluster that follows from a history: members, settings and the target ring.
//!
//! The fold applies the changes in their order. It is a function of the set alone, so it does not matter when or how a change arrived. A change
//! has no effect if it is invalid at its place in the order, which happens when two sides of a partitioned network record changes without
//! knowing of each other:
//!
//! - everything before the first bootstrap with a node of weight above 0, and any further bootstrap;
//! - the addition of a member whose name or id is taken, or of an incarnation that was removed, even by an earlier change;
//! - the removal, replacement or edit of a node that is not a member; a removal names the incarnation, too;
//! - a replacement of weight 0 for a node that holds data;
//! - a settings patch with an invalid result.
//!
//! **A target with fewer nodes than the largest n moves nothing.** A change may take data from a node: it is removed, or its weight becomes 0.
//! If fewer nodes that can hold data remain than the largest n of any bucket (the default's included), the ring stays as it was, with the
//! weights, zones and hosts from which it was made. The first later change after which enough nodes remain puts everything into effect. Growth
//! is never delayed: one node bootstraps the cluster, and two more join.
//!
//! A node that is marked lost ([`ChangeKind::MarkLost`]) counts as lost once it is removed, by an earlier change or a later one.
//!
//! A removed node is *leaving*: it stays a member until its leave is recorded too ([`ChangeKind::Left`]). So does a node that another node has
//! replaced. Only an incarnation replaced by a new incarnation of the same node is gone at once. A node whose leave is recorded is gone, even if
//! the change that removed it has no effect any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::bucket::{BucketForm, BucketSettings, Conflict, REDIS_BUCKET};
use super::{Change, ChangeKind, ClusterId, History, Member, SettingsPatch, Snapshot, Strategy, Users};
use crate::cluster::configuration::{ConfigPhase, ConfigVersion, Configuration, Home};
use crate::cluster::counts::{BUCKETS_MAX, ReplicaCounts};
use crate::ring::balanced::{SPREAD, balanced};
use crate::ring::random::random;
use crate::ring::{NodeInfo, PartitionId, Partitions, Ring, RingVersion};
use crate::value::dot::{Incarnation, NodeId};
use crate::value::key::{Generation, Key, KeyError};

/// A member, and whether it is leaving.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewMember {
    /// The node.
    pub member: Member,
    /// It was removed, but its leave is not recorded yet.
    pub leaving: bool,
}

/// The ring with which a cluster was bootstrapped.
#[derive(PartialEq, Eq, Debug)]
struct Bootstrap {
    ring: Ring,
    incarnations: BTreeMap<NodeId, Incarnation>,
}

/// A cluster as its history describes it. Immutable, and cheap to share behind an `Arc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// The cluster's name; empty if it has none.
    pub cluster_name: String,
    /// The placement strategy.
    pub strategy: Strategy,
    /// The target ring. Its version identifies the history.
    pub ring: Ring,
    bootstrap: Arc<Bootstrap>,
    members: BTreeMap<NodeId, ViewMember>,
    removed: BTreeSet<(NodeId, Incarnation)>,
    marked_lost: BTreeSet<Home>,
    force_recovered_from: BTreeMap<PartitionId, ConfigVersion>,
    defaults: BucketSettings,
    redis_defaults: BucketSettings,
    buckets: BTreeMap<Bytes, BucketSettings>,
    forms: BTreeMap<Bytes, BucketForm>,
    users: Arc<Users>,
    first_counts: ReplicaCounts,
    target_counts: ReplicaCounts,
    /// The buckets whose n was ever different from the default.
    counted: BTreeSet<Bytes>,
}

impl View {
    /// The member with this id.
    pub fn member(&self, node: NodeId) -> Option<&ViewMember> {
        self.members.get(&node)
    }

    /// The change that records a member's addresses in this incarnation; `None` if they are already known, or if the node is not a member in
    /// that incarnation. Without an address for RESP clients, the known one stays.
    pub fn moved(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        peer_addr: &str,
        http_addr: &str,
        resp_addr: Option<&str>,
    ) -> Option<ChangeKind> {
        let known = &self.member(node)?.member;
        let resp_addr = resp_addr.filter(|addr| *addr != known.resp_addr);
        let is_news = (known.peer_addr.as_str(), known.http_addr.as_str()) != (peer_addr, http_addr);
        let (peer_addr, http_addr) = (peer_addr.to_owned(), http_addr.to_owned());
        (known.incarnation == incarnation && (is_news || resp_addr.is_some())).then(|| ChangeKind::Address {
            node,
            incarnation,
            peer_addr,
            http_addr,
            resp_addr: resp_addr.map(str::to_owned),
        })
    }

    /// The members, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &ViewMember> {
        self.members.values()
    }

    /// How many incarnations of the node are gone.
    pub fn incarnations_ended(&self, node: NodeId) -> u32 {
        let removed = self.removed.range((node, Incarnation(0))..=(node, Incarnation(u64::MAX)));
        removed.filter(|&&(node, incarnation)| self.is_gone(node, incarnation)).count() as u32
    }

    /// Whether this incarnation of the node was removed and has left. It is refused for ever.
    pub fn is_gone(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let is_leaving = || self.members.get(&node).is_some_and(|present| present.member.incarnation == incarnation);
        self.removed.contains(&(node, incarnation)) && !is_leaving()
    }

    /// Whether this incarnation of a node was removed: it is leaving or gone, and is no target home.
    pub fn is_removed(&self, home: Home) -> bool {
        self.removed.contains(&(home.node, home.incarnation))
    }

    /// The form of a bucket.
    pub fn form(&self, bucket: &[u8]) -> BucketForm {
        self.forms.get(bucket).copied().unwrap_or(BucketForm::FIRST)
    }

    /// The forms of the buckets that were ever emptied, by name.
    pub fn emptied(&self) -> impl ExactSizeIterator<Item = (&Bytes, BucketForm)> {
        self.forms.iter().map(|(name, &form)| (name, form))
    }

    /// The key called `name` in the present generation of `bucket`.
    ///
    /// # Errors
    /// If either is empty or longer than the contract allows.
    pub fn key(&self, bucket: Bytes, name: Bytes) -> Result<Key, KeyError> {
        Key::of_generation(self.form(&bucket).generation, bucket, name)
    }

    /// Whether the bucket of a key was emptied after the key's generation of it.
    pub fn is_superseded(&self, key: &Key) -> bool {
        self.supersedes(key.bucket(), key.generation())
    }

    /// Whether a bucket was emptied after a generation of it.
    pub fn supersedes(&self, bucket: &[u8], generation: Generation) -> bool {
        let present = |form: &BucketForm| generation != form.generation && generation.since <= form.generation.since;
        !self.forms.is_empty() && self.forms.get(bucket).is_some_and(present)
    }

    /// The users. Two views share them as long as they do not change.
    pub const fn users(&self) -> &Arc<Users> {
        &self.users
    }

    /// Whether an administrator has marked a home lost: it was removed, and never answers again.
    pub fn is_marked_lost(&self, home: Home) -> bool {
        self.marked_lost.contains(&home) && self.is_removed(home)
    }

    /// The configuration that replaces `phase` in a partition that is stuck, because too many of its homes are marked lost. `None` if it is not
    /// stuck, or if the homes were marked lost for a later version only.
    pub fn force_recovered(&self, partition: PartitionId, phase: &ConfigPhase) -> Option<Configuration> {
        self.force_recovered_from.get(&partition).filter(|&&from| phase.version() >= from)?;
        let is_left = |home: &Home| !self.is_marked_lost(*home) && !self.is_gone(home.node, home.incarnation);
        phase.force_recovered(|&home| self.is_marked_lost(home), is_left, &self.target(partition))
    }

    /// The first configuration of a partition, which follows from the bootstrap.
    pub fn first_configuration(&self, partition: PartitionId) -> Configuration {
        let Bootstrap { ring, incarnations } = &*self.bootstrap;
        let homes = ring
            .walk(partition)
            .iter()
            .map(|&node| Home { node, incarnation: incarnations.get(&node).copied().unwrap_or(Incarnation(0)) });
        let (choosers, counts) = (BucketSettings::default().n, self.first_counts.clone());
        Configuration { number: 0, homes: homes.collect(), choosers, counts }
    }

    /// The numbers of homes by bucket in the first configurations.
    pub const fn first_counts(&self) -> &ReplicaCounts {
        &self.first_counts
    }

    /// The target numbers of homes by bucket. In force is what each partition's configuration says.
    pub const fn target_counts(&self) -> &ReplicaCounts {
        &self.target_counts
    }

    /// Whether configurations may have a table with this bucket: its size is limited to [`BUCKETS_MAX`].
    pub fn may_count(&self, bucket: &[u8]) -> bool {
        self.counted.len() < BUCKETS_MAX || self.counted.contains(bucket)
    }

    /// The target homes of a partition.
    pub fn target(&self, partition: PartitionId) -> Vec<Home> {
        let incarnation =
            |node: NodeId| self.members.get(&node).map_or(Incarnation(0), |present| present.member.incarnation);
        self.ring
            .homes(partition, usize::from(self.n_max()))
            .iter()
            .map(|&node| Home { node, incarnation: incarnation(node) })
            .collect()
    }

    /// The settings of `bucket`. A bucket need not be created.
    pub fn settings(&self, bucket: &[u8]) -> &BucketSettings {
        self.buckets.get(bucket).unwrap_or_else(|| match BucketSettings::initial(bucket).conflict {
            Conflict::Siblings => &self.defaults,
            Conflict::Lww => &self.redis_defaults,
        })
    }

    /// The buckets whose settings were ever changed, by name.
    pub fn buckets(&self) -> impl ExactSizeIterator<Item = (&Bytes, &BucketSettings)> {
        self.buckets.iter()
    }

    /// The largest n of any bucket, the default's included.
    pub fn n_max(&self) -> u8 {
        self.target_counts.n_max()
    }

    /// Whether the targets of all partitions and the members are the same as in another view. Settings of buckets other than n may differ.
    pub fn places_like(&self, other: &Self) -> bool {
        self.target_counts == other.target_counts
            && self.members == other.members
            && self.removed == other.removed
            && self.marked_lost == other.marked_lost
            && self.force_recovered_from == other.force_recovered_from
            && self.ring.places_like(&other.ring)
    }

    /// The number of members that can hold data: not leaving, with a weight above 0.
    pub fn data_nodes(&self) -> usize {
        self.members().filter(|known| !known.leaving && known.member.weight > 0).count()
    }

    /// The number of homes that each partition is to have: the largest n of any bucket, or the number of nodes that can hold data if that is
    /// less.
    pub fn homes_wanted(&self) -> usize {
        usize::from(self.n_max()).min(self.data_nodes())
    }

    /// The number of homes left for keys of the bucket with the largest n in `phase`, without homes that are lost or have left. Of a joint
    /// configuration, the smaller number.
    pub fn homes_left(&self, phase: &ConfigPhase) -> usize {
        let is_past = |home: &Home| self.is_gone(home.node, home.incarnation) || self.is_marked_lost(*home);
        phase.homes_of_any(is_past).lists().map(<[NodeId]>::len).min().unwrap_or(0)
    }

    /// Its size in memory in bytes: the struct, the contents of its tables and strings, and the ring ([`Ring::size_in_memory`]), without the
    /// overhead of the allocator and the tables.
    pub fn size_in_memory(&self) -> usize {
        let member = |present: &ViewMember| size_of::<(NodeId, ViewMember)>() + present.member.text_bytes();
        let bucket = |name: &Bytes| size_of::<(Bytes, BucketSettings)>() + name.len();
        let form = |name: &Bytes| size_of::<(Bytes, BucketForm)>() + name.len();
        size_of::<Self>() - size_of::<Ring>()
            + self.ring.size_in_memory()
            + self.bootstrap.ring.size_in_memory()
            + self.bootstrap.incarnations.len() * size_of::<(NodeId, Incarnation)>()
            + self.members.values().map(member).sum::<usize>()
            + self.removed.len() * size_of::<(NodeId, Incarnation)>()
            + self.marked_lost.len() * size_of::<Home>()
            + self.force_recovered_from.len() * size_of::<(PartitionId, ConfigVersion)>()
            + self.buckets.keys().map(bucket).sum::<usize>()
            + self.forms.keys().map(form).sum::<usize>()
            + self.users.size_in_memory()
            + self.first_counts.size_in_memory()
            + self.target_counts.size_in_memory()
    }
}

fn n_max(buckets: &BTreeMap<Bytes, BucketSettings>) -> u8 {
    buckets.values().map(|settings| settings.n).fold(BucketSettings::default().n, u8::max)
}

/// The id of the cluster that the changes bootstrap, if they do; without any placement.
pub(super) fn cluster(history: &History) -> Option<ClusterId> {
    history.changes().find_map(|change| Fold::unplaced(&change.what)).map(|fold| fold.cluster)
}

/// The cluster after a prefix of the changes.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    cluster: ClusterId,
    cluster_name: String,
    partitions: Partitions,
    strategy: Strategy,
    members: BTreeMap<NodeId, ViewMember>,
    names: BTreeMap<String, NodeId>,
    bootstrap: Option<Arc<Bootstrap>>,
    removed: BTreeSet<(NodeId, Incarnation)>,
    /// The incarnations that have left.
    left: BTreeSet<(NodeId, Incarnation)>,
    marked_lost: BTreeSet<Home>,
    force_recovered_from: BTreeMap<PartitionId, ConfigVersion>,
    buckets: BTreeMap<Bytes, BucketSettings>,
    forms: BTreeMap<Bytes, BucketForm>,
    users: Arc<Users>,
    /// The n that earlier builds recorded ([`SettingsPatch::n_by_versions`]).
    first_ns: BTreeMap<Bytes, u8>,
    /// The buckets whose n was ever different from the default.
    counted: BTreeSet<Bytes>,
    /// The nodes for which the assignment in force was made, sorted by id.
    placed: Vec<NodeInfo>,
    /// The assignment in force; kept only where the next one depends on it.
    balanced: Option<Vec<NodeId>>,
}

impl Fold {
    /// The cluster that `what` bootstraps, if it does.
    pub(super) fn found(what: &ChangeKind) -> Option<Self> {
        let mut fold = Self::unplaced(what)?;
        fold.place();
        fold.bootstrap = Some(Arc::new(fold.first_ring()));
        Some(fold)
    }

    /// The first members, of which at least one can hold data, before placement.
    fn unplaced(what: &ChangeKind) -> Option<Self> {
        let ChangeKind::Bootstrap { cluster, partitions, strategy, members, name } = what else { return None };
        let mut fold = Self {
            cluster: *cluster,
            cluster_name: name.clone(),
            partitions: *partitions,
            strategy: *strategy,
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            bootstrap: None,
            removed: BTreeSet::new(),
            left: BTreeSet::new(),
            marked_lost: BTreeSet::new(),
            force_recovered_from: BTreeMap::new(),
            buckets: BTreeMap::new(),
            forms: BTreeMap::new(),
            users: Arc::default(),
            first_ns: BTreeMap::new(),
            counted: BTreeSet::new(),
            placed: Vec::new(),
            balanced: None,
        };
        for member in members {
            fold.add(member);
        }
        fold.members.values().any(|founder| founder.member.weight > 0).then_some(fold)
    }

    /// The view after all changes so far, with the history's version.
    pub(super) fn view(&self, version: RingVersion) -> View {
        let ring = Ring::new(version, self.partitions, self.owners(), self.placed.clone());
        View {
            cluster: self.cluster,
            cluster_name: self.cluster_name.clone(),
            strategy: self.strategy,
            ring: ring.expect("owners are placed nodes"),
            bootstrap: self.bootstrap.clone().expect("a fold begins with a bootstrap"),
            members: self.members.clone(),
            removed: self.removed.clone(),
            marked_lost: self.marked_lost.clone(),
            force_recovered_from: self.force_recovered_from.clone(),
            defaults: BucketSettings::default(),
            redis_defaults: BucketSettings::initial(REDIS_BUCKET.as_bytes()),
            buckets: self.buckets.clone(),
            forms: self.forms.clone(),
            users: self.users.clone(),
            first_counts: ReplicaCounts::new(self.first_ns.clone().into_iter().take(BUCKETS_MAX).collect()),
            target_counts: self.target_counts(),
            counted: self.counted.clone(),
        }
    }

    fn target_counts(&self) -> ReplicaCounts {
        let ns = self.buckets.iter().map(|(name, settings)| (name, settings.n));
        let others = ns.filter(|&(_, n)| n != ReplicaCounts::default_n());
        ReplicaCounts::new(others.take(BUCKETS_MAX).map(|(name, n)| (name.clone(), n)).collect())
    }

    /// Applies the next change in the order.
    pub(super) fn apply(&mut self, change: &Change) {
        let changed = match &change.what {
            ChangeKind::Bootstrap { .. } => false,
            ChangeKind::Add(member) => self.add(member),
            ChangeKind::Remove { node, incarnation } => self.remove(*node, *incarnation),
            ChangeKind::Left { node, incarnation } => self.leave(*node, *incarnation),
            ChangeKind::MarkLost { homes, versions } => {
                self.marked_lost.extend(homes);
                for &(partition, version) in versions {
                    let from = self.force_recovered_from.entry(partition).or_default();
                    *from = version.max(*from);
                }
                false
            }
            ChangeKind::Replace { old, new } => self.replace(*old, new),
            ChangeKind::Weight { node, weight } => self.edit(*node, |member| member.weight = *weight),
            ChangeKind::Zone { node, zone, host } => self.edit(*node, |member| {
                member.zone.clone_from(zone);
                member.host.clone_from(host);
            }),
            ChangeKind::Address { node, incarnation, peer_addr, http_addr, resp_addr } => {
                self.edit_incarnation(*node, *incarnation, |member| {
                    member.peer_addr.clone_from(peer_addr);
                    member.http_addr.clone_from(http_addr);
                    if let Some(resp_addr) = resp_addr {
                        member.resp_addr.clone_from(resp_addr);
                    }
                });
                // It holds the same data, whatever its address.
                false
            }
            ChangeKind::Bucket { name, settings } => self.set(name, settings),
            ChangeKind::Empty { name, placement, is_indexed } => {
                self.empty(name, Generation { since: change.hlc, placement: *placement }, *is_indexed);
                false
            }
            ChangeKind::User { name, patch } => {
                Arc::make_mut(&mut self.users).change(name, patch.as_deref());
                false
            }
            ChangeKind::Snapshot(snapshot) => {
                self.restore(snapshot);
                false
            }
        };
        if changed {
            self.place();
        }
    }

    /// A snapshot of the cluster after `changes` changes.
    pub(super) fn snapshot(&self, changes: u64) -> Snapshot {
        let homes = |incarnations: &BTreeSet<(NodeId, Incarnation)>| {
            incarnations.iter().map(|&(node, incarnation)| Home { node, incarnation }).collect()
        };
        let place = |owner: &NodeId| self.placed.iter().position(|node| node.id == *owner).unwrap_or_default() as u32;
        Snapshot {
            changes,
            members: self.members.values().map(|known| (known.member.clone(), known.leaving)).collect(),
            removed: homes(&self.removed),
            left: homes(&self.left),
            marked_lost: self.marked_lost.iter().copied().collect(),
            force_recovered_from: self
                .force_recovered_from
                .iter()
                .map(|(&partition, &version)| (partition, version))
                .collect(),
            buckets: self.buckets.iter().map(|(name, &settings)| (name.clone(), settings)).collect(),
            forms: self.forms.iter().map(|(name, &form)| (name.clone(), form)).collect(),
            users: self.users.iter().map(|(name, user)| (name.to_owned(), user.clone())).collect(),
            first_ns: self.first_ns.iter().map(|(name, &n)| (name.clone(), n)).collect(),
            counted: self.counted.iter().cloned().collect(),
            placed: self.placed.clone(),
            owners: self.balanced.iter().flatten().map(place).collect(),
        }
    }

    /// Replaces everything but the bootstrap by a snapshot. A snapshot in which no node holds data is invalid and has no effect.
    fn restore(&mut self, snapshot: &Snapshot) {
        let mut placed: Vec<NodeInfo> = snapshot.placed.iter().filter(|node| node.weight > 0).cloned().collect();
        placed.sort_unstable();
        placed.dedup_by_key(|node| node.id);
        let owner =
            |&place: &u32| snapshot.placed.get(place as usize).filter(|node| node.weight > 0).map(|node| node.id);
        let owners: Option<Vec<NodeId>> = snapshot.owners.iter().map(owner).collect();
        let owners = owners.filter(|owners| owners.len() == self.partitions.len());
        if placed.is_empty() {
            return;
        }
        self.balanced = match self.strategy {
            Strategy::Balanced => owners.or_else(|| balanced(None, &placed, self.partitions, SPREAD)),
            Strategy::Random { .. } => None,
        };
        self.placed = placed;
        let present = |(member, leaving): &(Member, bool)| ViewMember { member: member.clone(), leaving: *leaving };
        let incarnations = |homes: &[Home]| homes.iter().map(|home| (home.node, home.incarnation)).collect();
        self.members = snapshot.members.iter().map(|member| (member.0.id, present(member))).collect();
        self.names = snapshot.members.iter().map(|(member, _)| (member.name.clone(), member.id)).collect();
        (self.removed, self.left) = (incarnations(&snapshot.removed), incarnations(&snapshot.left));
        self.marked_lost = snapshot.marked_lost.iter().copied().collect();
        self.force_recovered_from = snapshot.force_recovered_from.iter().copied().collect();
        self.buckets = snapshot.buckets.iter().cloned().collect();
        self.forms = snapshot.forms.iter().cloned().collect();
        self.users = Arc::new(snapshot.users.iter().cloned().collect());
        self.first_ns = snapshot.first_ns.iter().cloned().collect();
        self.counted = snapshot.counted.iter().cloned().collect();
    }

    /// Whether `member` may enter; `instead` is the member that it replaces, if any.
    fn admits(&self, member: &Member, instead: Option<NodeId>) -> bool {
        let free = |holder: Option<NodeId>| holder.is_none() || holder == instead;
        // A new incarnation of a member may be removed before it is known. Its old incarnation is dead all the same.
        (!self.removed.contains(&(member.id, member.incarnation)) || instead == Some(member.id))
            && free(self.names.get(&member.name).copied())
            && free(self.members.contains_key(&member.id).then_some(member.id))
    }

    fn add(&mut self, member: &Member) -> bool {
        // A leaving node may come back in a new incarnation. It never left, so it keeps its place.
        let leaving = self.members.get(&member.id).is_some_and(|present| present.leaving);
        let is_removed = self.removed.contains(&(member.id, member.incarnation));
        if is_removed || !self.admits(member, leaving.then_some(member.id)) {
            return false;
        }
        if leaving {
            self.drop_member(member.id);
        }
        self.insert(member);
        true
    }

    fn remove(&mut self, node: NodeId, incarnation: Incarnation) -> bool {
        self.removed.insert((node, incarnation));
        let Some(present) = self.members.get_mut(&node).filter(|present| present.member.incarnation == incarnation)
        else {
            return false;
        };
        present.leaving = true;
        true
    }

    fn leave(&mut self, node: NodeId, incarnation: Incarnation) -> bool {
        self.left.insert((node, incarnation));
        // The change that removed it may have no effect any more, after an earlier change arrived late. The node has left all the same.
        self.remove(node, incarnation)
    }

    /// The ring of the bootstrap, and the incarnations of its nodes.
    fn first_ring(&self) -> Bootstrap {
        let owners = self.assignment().expect("a cluster is founded on a node that can hold data");
        let incarnations =
            self.members.values().map(|present| (present.member.id, present.member.incarnation)).collect();
        let ring = Ring::new(RingVersion::default(), self.partitions, owners, self.placed.clone());
        Bootstrap { ring: ring.expect("owners are placed nodes"), incarnations }
    }

    fn replace(&mut self, old: NodeId, new: &Member) -> bool {
        let Some(present) = self.members.get(&old) else { return false };
        let (same, old_incarnation) =
            (old == new.id && present.member.incarnation == new.incarnation, present.member.incarnation);
        let place = self.placed.iter().position(|node| node.id == old);
        if !self.admits(new, (old == new.id).then_some(old)) || (place.is_some() && new.weight == 0) {
            return false;
        }
        if !same {
            self.removed.insert((old, old_incarnation));
        }
        if let Some(place) = place {
            self.placed[place] = new.info();
            self.placed.sort_unstable();
            let owners = self.balanced.iter_mut().flatten();
            owners.filter(|owner| **owner == old).for_each(|owner| *owner = new.id);
        }
        if old == new.id {
            self.drop_member(old);
        } else if let Some(present) = self.members.get_mut(&old) {
            present.leaving = true;
        }
        self.insert(new);
        let is_removed = self.removed.contains(&(new.id, new.incarnation));
        self.members.entry(new.id).and_modify(|present| present.leaving = is_removed);
        true
    }

    fn edit_incarnation(&mut self, node: NodeId, incarnation: Incarnation, edit: impl FnOnce(&mut Member)) {
        if let Some(present) = self.members.get_mut(&node).filter(|present| present.member.incarnation == incarnation) {
            edit(&mut present.member);
        }
    }

    fn edit(&mut self, node: NodeId, edit: impl FnOnce(&mut Member)) -> bool {
        let Some(present) = self.members.get_mut(&node) else { return false };
        edit(&mut present.member);
        true
    }

    fn set(&mut self, name: &Bytes, patch: &SettingsPatch) -> bool {
        let settings = self.buckets.get(name).copied().unwrap_or_else(|| BucketSettings::initial(name));
        let Ok(settings) = patch.apply(settings) else { return false };
        if !patch.n_by_versions && patch.n.is_some() {
            self.first_ns.insert(name.clone(), settings.n);
        }
        if settings.n != ReplicaCounts::default_n() {
            self.counted.insert(name.clone());
        }
        let before = n_max(&self.buckets);
        self.buckets.insert(name.clone(), settings);
        // A smaller n may let leaving nodes go.
        n_max(&self.buckets) < before
    }

    /// Begins a generation. Of two that begin at the same time, one counts everywhere.
    fn empty(&mut self, name: &Bytes, generation: Generation, is_indexed: bool) {
        let form = self.forms.entry(name.clone()).or_insert(BucketForm::FIRST);
        if generation.since > form.generation.since {
            let was_unindexed = form.was_unindexed || !form.is_indexed;
            *form = BucketForm { generation, is_indexed, was_unindexed };
        }
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

    /// Assigns the partitions to the present members, unless too few remain.
    fn place(&mut self) {
        let staying = self.members.values().filter(|member| !member.leaving && member.member.weight > 0);
        let mut nodes: Vec<NodeInfo> = staying.map(|member| member.member.info()).collect();
        let stays = |node: &NodeInfo| nodes.binary_search_by_key(&node.id, |other| other.id).is_ok();
        if nodes.len() < usize::from(n_max(&self.buckets)) && !self.placed.iter().all(stays) {
            // A node that has left cannot be called back. Its leave was recorded by a node that did not know how few remain.
            let is_there = |node: &&NodeInfo| !self.has_left(node.id);
            let kept: Vec<NodeInfo> = self.placed.iter().filter(is_there).cloned().collect();
            if kept.is_empty() || kept.len() == self.placed.len() {
                return self.drop_left();
            }
            nodes = kept;
        }
        if self.strategy == Strategy::Balanced && nodes != self.placed {
            self.balanced = balanced(self.balanced.as_deref(), &nodes, self.partitions, SPREAD);
        }
        self.placed = nodes;
        self.drop_left();
    }

    fn has_left(&self, node: NodeId) -> bool {
        let is_gone = |present: &ViewMember| present.leaving && self.left.contains(&(node, present.member.incarnation));
        self.members.get(&node).is_none_or(is_gone)
    }

    /// Removes the members that are leaving and have left, unless the assignment still needs them.
    fn drop_left(&mut self) {
        let has_left = |present: &&ViewMember| {
            let id = present.member.id;
            self.has_left(id) && !self.placed.iter().any(|node| node.id == id)
        };
        let gone: Vec<NodeId> = self.members.values().filter(has_left).map(|present| present.member.id).collect();
        gone.into_iter().for_each(|node| self.drop_member(node));
    }

    /// The assignment in force.
    fn assignment(&self) -> Option<Vec<NodeId>> {
        match self.strategy {
            Strategy::Balanced => self.balanced.clone(),
            Strategy::Random { tokens } => random(&self.placed, self.partitions, tokens),
        }
    }

    fn owners(&self) -> Vec<NodeId> {
        self.assignment().expect("a cluster is founded on a node that can hold data")
    }
}
