//! Membership: a history of explicit changes, merged as a set, and the cluster that follows from it.
//!
//! Administrators change the members (paper, section 4.8.1); liveness never does. Each change is recorded once, by the node that received it,
//! and spreads by gossip. Histories merge as sets, so the changes of two administrators on two sides of a partitioned network converge when it
//! heals. The cluster follows from the set alone ([`History::view`]): a change that arrives late takes its place in the order, as if it had been
//! there from the start.
//!
//! Once all members know the same changes, a snapshot may replace them ([`Snapshot`]): it voids every change up to its own timestamp except the
//! bootstrap. Of several snapshots the last in the order counts. So the meaning of a set of changes is still a function of the set, however many
//! void changes it still contains.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::configuration::{ConfigVersion, Home};
use crate::ring::{NORMAL_WEIGHT, NodeInfo, PartitionId, Partitions, RingVersion};
use crate::value::cluster_id::ClusterId;
use crate::value::dot::{Incarnation, NodeId};
use crate::value::hlc::Hlc;
use crate::value::key::Placement;

pub mod bucket;
mod check;
mod codec;
mod folded;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod users;
mod view;

pub use bucket::{
    BadSettings, BucketForm, BucketSettings, Conflict, Durability, REDIS_BUCKET, SettingsPatch, VALUE_BYTES_MAX,
    is_redis_bucket,
};
pub use check::{BadChange, check_members, planned};
pub use codec::{DecodeError, HISTORY_VERSION};
pub use folded::Folded;
pub use snapshot::Snapshot;
pub use users::{BucketRole, Grant, User, UserPatch, Users};
pub use view::{View, ViewMember};

/// How partitions are assigned to nodes. Fixed when the cluster is created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Strategy {
    /// Even shares and little movement ([`crate::ring::balanced`]).
    #[default]
    Balanced,
    /// Random tokens ([`crate::ring::random`]).
    Random {
        /// The tokens of a node of normal weight.
        tokens: NonZeroU32,
    },
}

/// A node of the cluster, as an administrator added it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// Its name, unique among the members.
    pub name: String,
    /// Its id, unique too: [`NodeId::of_name`] of the name.
    pub id: NodeId,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
    /// Its share of the data ([`NodeInfo::weight`]).
    pub weight: u32,
    /// Its zone ([`NodeInfo::zone`]).
    pub zone: String,
    /// Its machine ([`NodeInfo::host`]).
    pub host: String,
    /// Its address for peers, as `host:port`.
    pub peer_addr: String,
    /// Its address for HTTP clients.
    pub http_addr: String,
    /// Its address for RESP clients.
    pub resp_addr: String,
}

impl Member {
    /// A node with the id of its name, a normal share of the data, and no addresses.
    pub fn new(name: &str, incarnation: Incarnation) -> Self {
        Self {
            name: name.to_owned(),
            id: NodeId::of_name(name),
            incarnation,
            weight: NORMAL_WEIGHT,
            zone: String::new(),
            host: String::new(),
            peer_addr: String::new(),
            http_addr: String::new(),
            resp_addr: String::new(),
        }
    }

    /// Its attributes for placement.
    pub fn info(&self) -> NodeInfo {
        NodeInfo { id: self.id, weight: self.weight, zone: self.zone.clone(), host: self.host.clone() }
    }

    /// The bytes of its strings, which lie outside the struct.
    fn text_bytes(&self) -> usize {
        let texts = [&self.name, &self.zone, &self.host, &self.peer_addr, &self.http_addr, &self.resp_addr];
        texts.into_iter().map(String::capacity).sum()
    }
}

/// The effect of a change. [`History::view`] says when it has none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChangeKind {
    /// Creates the cluster. The first in a history counts, and nothing before it does.
    Bootstrap {
        /// The new cluster's id.
        cluster: ClusterId,
        /// The partitions of its ring.
        partitions: Partitions,
        /// How they are assigned.
        strategy: Strategy,
        /// Its first nodes.
        members: Vec<Member>,
        /// The cluster's name; empty if it has none.
        name: String,
    },
    /// Adds a node.
    Add(Member),
    /// Removes a node: it hands over its data, and leaves ([`Self::Left`]). This incarnation never comes back.
    Remove {
        /// The node.
        node: NodeId,
        /// Its incarnation: a later one of the same node is another member.
        incarnation: Incarnation,
    },
    /// Records that a removed node has left: it holds no data any more, or is dead and in no configuration.
    Left {
        /// The node.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// Marks incarnations lost that were removed and will never answer again. A partition that lacks too many of them to choose its next
    /// configuration is force-recovered from the homes that are left ([`crate::cluster::configuration::ConfigPhase::force_recovered`]). The
    /// guarantee of strong writes ends there.
    MarkLost {
        /// The incarnations.
        homes: Vec<Home>,
        /// The configuration version of each partition that lacks too many of them, as the administrator's node knew it. A node that knows an
        /// earlier version must learn later ones before it force-recovers the partition.
        versions: Vec<(PartitionId, ConfigVersion)>,
    },
    /// Replaces a node by another, which takes over the same partitions. With the old node's id it is the same node with a new incarnation (a
    /// new data directory) or new addresses.
    Replace {
        /// The node that is replaced.
        old: NodeId,
        /// The node that replaces it.
        new: Member,
    },
    /// Changes a node's share of the data.
    Weight {
        /// The node.
        node: NodeId,
        /// Its new weight ([`NodeInfo::weight`]).
        weight: u32,
    },
    /// Changes the location of a node.
    Zone {
        /// The node.
        node: NodeId,
        /// Its zone ([`NodeInfo::zone`]).
        zone: String,
        /// Its machine ([`NodeInfo::host`]).
        host: String,
    },
    /// Changes the addresses of a node.
    Address {
        /// The node.
        node: NodeId,
        /// Its incarnation: a later one may have other addresses.
        incarnation: Incarnation,
        /// Its address for peers.
        peer_addr: String,
        /// Its address for HTTP clients.
        http_addr: String,
        /// Its address for RESP clients, if that changes too. Protocol version 6 does not know it.
        resp_addr: Option<String>,
    },
    /// Changes a bucket's settings.
    Bucket {
        /// The bucket.
        name: Bytes,
        /// The fields to change.
        settings: SettingsPatch,
    },
    /// Empties a bucket: a new generation of it begins at the change's timestamp, in this form. Nothing of an earlier one is read, merged or kept.
    Empty {
        /// The bucket.
        name: Bytes,
        /// How the keys of the new generation are placed.
        placement: Placement,
        /// Whether nodes keep an index of its keys.
        is_indexed: bool,
    },
    /// Makes, changes or removes a user.
    User {
        /// Its name.
        name: String,
        /// The fields to change. The user is removed if there is none.
        patch: Option<Box<UserPatch>>,
    },
    /// Replaces all changes up to this one's timestamp except the bootstrap. They are void from now on.
    Snapshot(Box<Snapshot>),
}

impl ChangeKind {
    /// Whether it makes this incarnation of a node a member: by an addition, a replacement or a snapshot.
    pub(crate) fn lets_in(&self, home: Home) -> bool {
        match self {
            Self::Add(member) | Self::Replace { new: member, .. } => {
                member.id == home.node && member.incarnation == home.incarnation
            }
            Self::Snapshot(snapshot) => snapshot.lets_in(home),
            _ => false,
        }
    }
}

/// One recorded change. Changes are ordered by time, then by recording node, then by number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Change {
    /// When it was recorded: above all changes known to the recording node.
    pub hlc: Hlc,
    /// The node that recorded it.
    pub node: NodeId,
    /// The number of the change among those of that node, from 1.
    pub number: u64,
    /// The effect of the change.
    pub what: ChangeKind,
}

/// A set of changes. Merging is commutative, associative and idempotent.
///
/// Copies of a history share their changes, so a copy is cheap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    changes: BTreeSet<Arc<Change>>,
}

impl History {
    /// An empty history, without a cluster.
    pub const fn new() -> Self {
        Self { changes: BTreeSet::new() }
    }

    /// Records `what` on behalf of `node` at `now` or, if the history holds later changes, just after them.
    pub fn record(&mut self, now: Hlc, node: NodeId, what: ChangeKind) -> Change {
        let hlc = self.changes.last().map_or(now, |last| now.max(last.hlc.next()));
        let numbers = self.changes.iter().filter(|change| change.node == node).map(|change| change.number);
        // A broken peer may have sent the greatest number there is.
        let number = numbers.max().unwrap_or(0).saturating_add(1);
        let change = Change { hlc, node, number, what };
        self.changes.insert(Arc::new(change.clone()));
        change
    }

    /// Adds a change. Returns whether it is new.
    pub fn insert(&mut self, change: Change) -> bool {
        self.insert_shared(Arc::new(change))
    }

    fn insert_shared(&mut self, change: Arc<Change>) -> bool {
        if self.voids(&change) {
            return false;
        }
        let is_snapshot = matches!(change.what, ChangeKind::Snapshot(_));
        let is_new = self.changes.insert(change.clone());
        if is_snapshot && is_new {
            self.changes.retain(|held| !is_void_by(held, &change));
        }
        is_new
    }

    /// The snapshot that replaces all changes before it except the bootstrap, if there is one: the first of the remaining changes.
    fn snapshot(&self) -> Option<(&Arc<Change>, &Snapshot)> {
        let first = self.changes.iter().find(|change| !matches!(change.what, ChangeKind::Bootstrap { .. }))?;
        let ChangeKind::Snapshot(snapshot) = &first.what else { return None };
        Some((first, snapshot))
    }

    /// Whether a snapshot replaces its first changes.
    pub fn has_snapshot(&self) -> bool {
        self.snapshot().is_some()
    }

    /// Whether a snapshot replaces this change.
    fn voids(&self, change: &Arc<Change>) -> bool {
        self.snapshot().is_some_and(|(snapshot, _)| is_void_by(change, snapshot))
    }

    /// Whether it contains `change`, or a snapshot that replaces it.
    pub fn knows(&self, change: &Change) -> bool {
        self.changes.contains(change) || self.snapshot().is_some_and(|(snapshot, _)| is_void_by(change, snapshot))
    }

    /// Whether it records that this incarnation of a node has left.
    pub fn says_left(&self, home: Home) -> bool {
        let left = ChangeKind::Left { node: home.node, incarnation: home.incarnation };
        self.changes().any(|change| change.what == left)
            || self.snapshot().is_some_and(|(_, snapshot)| snapshot.left.contains(&home))
    }

    /// Whether `other` knows all of its changes.
    pub fn is_within(&self, other: &Self) -> bool {
        self.changes.difference(&other.changes).all(|change| other.knows(change))
    }

    /// Adds all changes of `other`. Returns whether any is new.
    pub fn merge(&mut self, other: &Self) -> bool {
        let new: Vec<_> = other.changes.difference(&self.changes).cloned().collect();
        let mut any = false;
        for change in new {
            any |= self.insert_shared(change);
        }
        any
    }

    /// The changes that `other` does not know.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let unknown = self.changes.difference(&other.changes).filter(|change| !other.knows(change));
        Self { changes: unknown.cloned().collect() }
    }

    /// Records a snapshot in place of all changes, on behalf of `node`, to which all members have confirmed that they know exactly these. False
    /// if no change bootstraps a cluster.
    pub fn take_snapshot(&mut self, node: NodeId, snapshot: Snapshot) -> bool {
        let Some(hlc) = self.changes.last().map(|last| last.hlc) else { return false };
        let number = self.changes.len() as u64;
        self.insert(Change { hlc, node, number, what: ChangeKind::Snapshot(Box::new(snapshot)) })
    }

    /// The number of changes ever recorded, including those that a snapshot replaced.
    pub fn recorded(&self) -> u64 {
        let held = self.changes.len() as u64;
        let Some((change, snapshot)) = self.snapshot() else { return held };
        // The bootstrap is among the changes that it replaces, and the count includes the snapshot itself.
        let bootstrap = self.changes.iter().take_while(|held| held.hlc <= change.hlc).count() as u64 - 1;
        (held - bootstrap).saturating_add(snapshot.changes)
    }

    /// Whether it holds less than `later`, which grew from it.
    pub fn is_before(&self, later: &Self) -> bool {
        self.recorded() != later.recorded() || self.snapshot().map(|of| of.0) != later.snapshot().map(|of| of.0)
    }

    /// The changes that made a node and, transitively, the nodes that it replaced members. A node that knows the cluster's bootstrap and these
    /// changes knows the member. Empty for a member of the bootstrap.
    #[must_use]
    pub fn introduction(&self, node: NodeId) -> Self {
        let mut introduction = Self::new();
        let mut nodes = BTreeSet::from([node]);
        // A replaced node was added earlier.
        for change in self.changes.iter().rev() {
            let lets_in = match &change.what {
                ChangeKind::Add(member) | ChangeKind::Replace { new: member, .. } => nodes.contains(&member.id),
                ChangeKind::Snapshot(snapshot) => nodes.iter().any(|&node| snapshot.has(node)),
                _ => false,
            };
            if lets_in {
                introduction.changes.insert(change.clone());
                if let ChangeKind::Replace { old, .. } = change.what {
                    nodes.insert(old);
                }
            }
        }
        introduction
    }

    /// The changes in their order.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = &Change> {
        self.changes.iter().map(|change| &**change)
    }

    /// The number of changes held.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The cluster that follows from the changes; `None` if none bootstraps a cluster.
    ///
    /// Each change of members is placed anew. A caller that asks after each of many changes keeps a [`Folded`].
    pub fn view(&self) -> Option<View> {
        Folded::default().view(self)
    }

    /// The id of the cluster in [`History::view`], without the cost of placement.
    pub fn cluster(&self) -> Option<ClusterId> {
        view::cluster(self)
    }

    /// A digest of exactly this set of changes.
    pub fn version(&self) -> RingVersion {
        let mut hash = blake3::Hasher::new();
        for change in &self.changes {
            // Each encoding follows its length, so no two histories hash the same bytes.
            let bytes = change.encode();
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(&bytes);
        }
        let digest = hash.finalize().as_bytes()[..8].try_into().map_or(0, u64::from_be_bytes);
        RingVersion { changes: self.recorded(), digest }
    }
}

/// Whether `snapshot` replaces `change`.
fn is_void_by(change: &Change, snapshot: &Change) -> bool {
    match change.what {
        ChangeKind::Bootstrap { .. } => false,
        ChangeKind::Snapshot(_) => change < snapshot,
        _ => change.hlc <= snapshot.hlc,
    }
}
