//! Membership: a history of explicit changes, merged as a set, and the cluster that folds out of it.
//!
//! Administrators change the members (paper, section 4.8.1); liveness never does. Each change is recorded once, by the node
//! that took it, and travels by gossip. Histories merge as sets, so two administrators on two sides of a cut network
//! converge when it heals. What the cluster is follows from the set alone ([`History::view`]): a change that arrives late
//! takes its place in the order, as if it had been there from the start.
//!
//! Once all members know the same changes, a snapshot may take their place ([`Snapshot`]): it voids every change up to its own timestamp,
//! but the founding. Of several snapshots the last in the order counts. So what a set of changes says is still a function of the set,
//! whichever of the void ones are still in it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::configuration::{ConfigVersion, Home};
use crate::ring::{NORMAL_WEIGHT, NodeInfo, PartitionId, Partitions, RingVersion};
use crate::value::cluster_id::ClusterId;
use crate::value::dot::{Incarnation, NodeId};
use crate::value::hlc::Hlc;

pub mod bucket;
mod check;
mod codec;
mod folded;
mod snapshot;
#[cfg(test)]
mod tests;
mod view;

pub use bucket::{BadSettings, BucketSettings, Conflict, Durability, SettingsPatch, VALUE_BYTES_MAX};
pub use check::{BadChange, check_members, planned};
pub use codec::{DecodeError, HISTORY_VERSION};
pub use folded::Folded;
pub use snapshot::Snapshot;
pub use view::{View, ViewMember};

/// How partitions are assigned to nodes; fixed when the cluster is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Strategy {
    /// Even shares and little movement ([`crate::ring::balanced`]).
    #[default]
    Balanced,
    /// Random tokens ([`crate::ring::random`]).
    Random {
        /// How many a node of normal weight has.
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
    /// Where its peers reach it, as `host:port`.
    pub peer_addr: String,
    /// Where clients reach its HTTP door.
    pub http_addr: String,
    /// Where clients reach its RESP door.
    pub resp_addr: String,
}

impl Member {
    /// A node with the id that follows from its name and a normal share of the data, of which nobody has said where it is.
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

    /// What placement needs to know.
    pub fn info(&self) -> NodeInfo {
        NodeInfo { id: self.id, weight: self.weight, zone: self.zone.clone(), host: self.host.clone() }
    }

    /// The bytes of its texts, which lie outside the struct itself.
    fn text_bytes(&self) -> usize {
        let texts = [&self.name, &self.zone, &self.host, &self.peer_addr, &self.http_addr, &self.resp_addr];
        texts.into_iter().map(String::capacity).sum()
    }
}

/// What a change does. [`History::view`] says when it has no effect.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChangeKind {
    /// Makes the cluster. The first in a history counts, and nothing before it does.
    Bootstrap {
        /// The new cluster's id.
        cluster: ClusterId,
        /// How many partitions its ring has.
        partitions: Partitions,
        /// How they are assigned.
        strategy: Strategy,
        /// Its first nodes.
        members: Vec<Member>,
        /// What its administrators call it; empty if they gave it no name.
        name: String,
    },
    /// Adds a node.
    Add(Member),
    /// Removes a node: it hands over what it holds, and leaves ([`Self::Left`]). This incarnation of it never comes back.
    Remove {
        /// The node.
        node: NodeId,
        /// Its incarnation: a later one of the same node is another member.
        incarnation: Incarnation,
    },
    /// A removed node holds nothing any more, or is dead and no configuration names it: from now on it is a stranger.
    Left {
        /// The node.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// Gives up incarnations that were removed and will never answer again. A partition that lacks them for choosing its next homes is made
    /// anew of those that are left ([`crate::cluster::configuration::ConfigPhase::force_recovered`]): what strong writes were promised ends there.
    MarkLost {
        /// The incarnations.
        homes: Vec<Home>,
        /// How far each partition's chain had come that lacks too many of them, as the administrator knew. Whoever knows less has yet
        /// to learn what it is made of.
        versions: Vec<(PartitionId, ConfigVersion)>,
    },
    /// Puts a node in another's place: it takes over the same partitions. With the old one's id it is the same node with a
    /// new incarnation (a new data directory) or at new addresses.
    Replace {
        /// The node that goes.
        old: NodeId,
        /// The node that comes.
        new: Member,
    },
    /// Changes a node's share of the data.
    Weight {
        /// The node.
        node: NodeId,
        /// Its new weight ([`NodeInfo::weight`]).
        weight: u32,
    },
    /// Says where a node stands.
    Zone {
        /// The node.
        node: NodeId,
        /// Its zone ([`NodeInfo::zone`]).
        zone: String,
        /// Its machine ([`NodeInfo::host`]).
        host: String,
    },
    /// Says where others find a node.
    Address {
        /// The node.
        node: NodeId,
        /// Its incarnation: a later one may be elsewhere.
        incarnation: Incarnation,
        /// Where peers find it.
        peer_addr: String,
        /// Where HTTP clients find it.
        http_addr: String,
    },
    /// Changes a bucket's settings.
    Bucket {
        /// The bucket.
        name: Bytes,
        /// The fields to change.
        settings: SettingsPatch,
    },
    /// What all changes up to this one's timestamp add up to, the founding apart: they are void from now on.
    Snapshot(Box<Snapshot>),
}

impl ChangeKind {
    /// Whether it adds a node in this incarnation, puts it in another's place, or says that it is a member.
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

/// One recorded change. Changes are ordered by time, then by who recorded them, then by number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Change {
    /// When it was recorded, above all changes that the recording node knew.
    pub hlc: Hlc,
    /// The node that recorded it.
    pub node: NodeId,
    /// Which of that node's changes it is, counted from 1.
    pub number: u64,
    /// What it does.
    pub what: ChangeKind,
}

/// A set of changes. Merging is commutative, associative and idempotent.
///
/// A change is kept once, however many histories hold it: a copy of a history costs little, whatever its changes say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    changes: BTreeSet<Arc<Change>>,
}

impl History {
    /// No changes: no cluster.
    pub const fn new() -> Self {
        Self { changes: BTreeSet::new() }
    }

    /// Records `what` on behalf of `node` at `now` or, if the history holds later changes, just after them.
    pub fn record(&mut self, now: Hlc, node: NodeId, what: ChangeKind) -> Change {
        let hlc = self.changes.last().map_or(now, |last| now.max(last.hlc.next()));
        let numbers = self.changes.iter().filter(|change| change.node == node).map(|change| change.number);
        // A broken peer may have told of the greatest there is.
        let number = numbers.max().unwrap_or(0).saturating_add(1);
        let change = Change { hlc, node, number, what };
        self.changes.insert(Arc::new(change.clone()));
        change
    }

    /// Adds a change; true if it is new.
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

    /// The snapshot that stands for all changes before it but the founding, if there is one: it is the first of what is left.
    fn snapshot(&self) -> Option<(&Arc<Change>, &Snapshot)> {
        let first = self.changes.iter().find(|change| !matches!(change.what, ChangeKind::Bootstrap { .. }))?;
        let ChangeKind::Snapshot(snapshot) = &first.what else { return None };
        Some((first, snapshot))
    }

    /// Whether a snapshot stands for its first changes.
    pub fn has_snapshot(&self) -> bool {
        self.snapshot().is_some()
    }

    /// Whether a snapshot stands for a change that is not held.
    fn voids(&self, change: &Arc<Change>) -> bool {
        self.snapshot().is_some_and(|(snapshot, _)| is_void_by(change, snapshot))
    }

    /// Whether it holds `change`, or a snapshot that stands for it.
    pub fn knows(&self, change: &Change) -> bool {
        self.changes.contains(change) || self.snapshot().is_some_and(|(snapshot, _)| is_void_by(change, snapshot))
    }

    /// Whether it says that this incarnation of a node has left.
    pub fn says_left(&self, home: Home) -> bool {
        let left = ChangeKind::Left { node: home.node, incarnation: home.incarnation };
        self.changes().any(|change| change.what == left)
            || self.snapshot().is_some_and(|(_, snapshot)| snapshot.left.contains(&home))
    }

    /// Whether `other` knows all of its changes.
    pub fn is_within(&self, other: &Self) -> bool {
        self.changes.difference(&other.changes).all(|change| other.knows(change))
    }

    /// Adds all changes of `other`; true if any is new.
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

    /// Records a snapshot in the place of all changes, on behalf of `node`, to which all members have said that they know exactly these. False
    /// if none of them founds a cluster.
    pub fn take_snapshot(&mut self, node: NodeId, snapshot: Snapshot) -> bool {
        let Some(hlc) = self.changes.last().map(|last| last.hlc) else { return false };
        let number = self.changes.len() as u64;
        self.insert(Change { hlc, node, number, what: ChangeKind::Snapshot(Box::new(snapshot)) })
    }

    /// How many changes there have been, those included for which a snapshot stands.
    pub fn recorded(&self) -> u64 {
        let held = self.changes.len() as u64;
        let Some((change, snapshot)) = self.snapshot() else { return held };
        // The founding is among those that it stands for, and it counts itself.
        let bootstrap = self.changes.iter().take_while(|held| held.hlc <= change.hlc).count() as u64 - 1;
        (held - bootstrap).saturating_add(snapshot.changes)
    }

    /// Whether it holds less than `later`, which grew out of it.
    pub fn is_before(&self, later: &Self) -> bool {
        self.recorded() != later.recorded() || self.snapshot().map(|of| of.0) != later.snapshot().map(|of| of.0)
    }

    /// The changes that let a node in, and all whose place it took, one after the other: who knows the cluster and these, knows the
    /// node. None for a founder.
    #[must_use]
    pub fn introduction(&self, node: NodeId) -> Self {
        let mut introduction = Self::new();
        let mut nodes = BTreeSet::from([node]);
        // Whoever is replaced came before.
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

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What the changes add up to; nothing while none founds a cluster.
    ///
    /// Every change of members is placed anew. Who asks again after each of many changes keeps a [`Folded`].
    pub fn view(&self) -> Option<View> {
        Folded::default().view(self)
    }

    /// The cluster that the changes found, if they do: that of their [`History::view`], at hardly any cost.
    pub fn cluster(&self) -> Option<ClusterId> {
        view::cluster(self)
    }

    /// A name for exactly this set of changes.
    pub fn version(&self) -> RingVersion {
        let mut hash = blake3::Hasher::new();
        for change in &self.changes {
            // Each encoding with its length, so that no two histories hash the same bytes.
            let bytes = change.encode();
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(&bytes);
        }
        let digest = hash.finalize().as_bytes()[..8].try_into().map_or(0, u64::from_be_bytes);
        RingVersion { changes: self.recorded(), digest }
    }
}

/// Whether `snapshot` stands for `change`.
fn is_void_by(change: &Change, snapshot: &Change) -> bool {
    match change.what {
        ChangeKind::Bootstrap { .. } => false,
        ChangeKind::Snapshot(_) => change < snapshot,
        _ => change.hlc <= snapshot.hlc,
    }
}
