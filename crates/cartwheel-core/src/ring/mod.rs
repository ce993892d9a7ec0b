//! The ring: equal partitions, their owners, and the preference lists that follow (paper, sections 4.2, 4.3 and 6.2).
//!
//! A key's token falls into a partition. The preference list of a partition walks the ring clockwise from it. Its first n nodes are the homes of
//! the keys; the others stand in for homes that cannot be reached (`walk` has the rule). Everything here is a pure function of members and
//! history: whether a node is alive never changes the ring.

use std::fmt;

use crate::value::dot::NodeId;
use crate::value::token::Token;

pub mod balanced;
mod footprint;
mod found;
#[cfg(test)]
mod histories;
mod improve;
mod layout;
mod partition_set;
pub mod partitions;
pub mod quorum;
pub mod random;
pub mod report;
pub mod strategy1;
mod topology;
mod walk;

pub use partition_set::PartitionSet;
pub use partitions::{PartitionId, Partitions};
pub use topology::{NORMAL_WEIGHT, NodeInfo};

use topology::Topology;
use walk::Sweep;

/// The most replicas that a bucket can ask for.
pub const N_MAX: usize = 16;

/// The state of the membership history from which a ring was computed.
///
/// Equal versions mean equal histories. Of two different versions neither need be newer: they may come from two sides of a partitioned network,
/// and the merged history has a third.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RingVersion {
    /// The number of changes in the history.
    pub changes: u64,
    /// A hash of all changes.
    pub digest: u64,
}

impl fmt::Display for RingVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.changes, self.digest)
    }
}

/// A node on a preference list, with its role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PreferenceEntry {
    /// One of the n nodes to which the partition's keys belong.
    Home(NodeId),
    /// A node that takes writes for a home that cannot be reached, and hands them over later.
    StandIn(NodeId),
}

impl PreferenceEntry {
    /// The node, whatever its role.
    pub const fn node(self) -> NodeId {
        match self {
            Self::Home(node) | Self::StandIn(node) => node,
        }
    }
}

/// Why owners and nodes do not form a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadRing {
    /// The number of owners (first) differs from the number of partitions (second).
    OwnerCount(usize, usize),
    /// This partition's owner is not a member of weight above 0.
    UnknownOwner(PartitionId, NodeId),
}

impl fmt::Display for BadRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerCount(owners, partitions) => write!(f, "{owners} owners for {partitions} partitions"),
            Self::UnknownOwner(partition, node) => {
                write!(f, "partition {partition} belongs to {node}, which is not a member with a weight above 0")
            }
        }
    }
}

impl std::error::Error for BadRing {}

/// An immutable ring: the owner of each partition, and a table of the beginning of every preference list.
///
/// Every node of weight above 0 is on every preference list, even one that owns no partition. So keys have as many homes as they need wherever
/// there are enough nodes, whatever the weights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    version: RingVersion,
    partitions: Partitions,
    /// Sorted by id.
    nodes: Vec<NodeInfo>,
    owners: Vec<NodeId>,
    /// For each partition the first `walk_len` nodes of its walk, one partition after the other.
    walks: Vec<NodeId>,
    walk_len: usize,
}

impl Ring {
    /// The ring on which `owners[p]` owns partition `p`. `nodes` are the members; those of weight 0 are on no preference list.
    pub fn new(
        version: RingVersion,
        partitions: Partitions,
        owners: Vec<NodeId>,
        mut nodes: Vec<NodeInfo>,
    ) -> Result<Self, BadRing> {
        if owners.len() != partitions.len() {
            return Err(BadRing::OwnerCount(owners.len(), partitions.len()));
        }
        nodes.sort_unstable();
        nodes.dedup_by_key(|node| node.id);
        let topology = Topology::new(&nodes);
        let dense = dense(&topology, &owners)?;
        let (walks, walk_len) = walks(&topology, &dense);
        Ok(Self { version, partitions, nodes, owners, walks, walk_len })
    }

    /// Whether another ring has the same assignment, whatever history it was computed from.
    pub fn places_like(&self, other: &Self) -> bool {
        self.partitions == other.partitions
            && self.nodes == other.nodes
            && self.owners == other.owners
            && self.walks == other.walks
    }

    /// The history from which this ring was computed.
    pub fn version(&self) -> RingVersion {
        self.version
    }

    /// The ring's partitions.
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// The members, sorted by id.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The owner of each partition.
    pub fn owners(&self) -> &[NodeId] {
        &self.owners
    }

    /// The partition that `token` falls into.
    pub fn partition_of(&self, token: Token) -> PartitionId {
        self.partitions.of(token)
    }

    /// The first node of the partition's preference list.
    pub fn owner(&self, partition: PartitionId) -> NodeId {
        self.owners[partition.index()]
    }

    /// The homes of the partition's keys in a bucket of `n` replicas (at most [`N_MAX`]): `n` different nodes, or all nodes of weight above 0 if
    /// there are fewer. A table lookup.
    pub fn homes(&self, partition: PartitionId, n: usize) -> &[NodeId] {
        let walk = self.walk(partition);
        &walk[..n.min(walk.len())]
    }

    /// The beginning of the partition's preference list for any n: the first [`N_MAX`] nodes of its walk.
    pub fn walk(&self, partition: PartitionId) -> &[NodeId] {
        let from = partition.index() * self.walk_len;
        &self.walks[from..from + self.walk_len]
    }

    /// The whole preference list: `n` homes (at most [`N_MAX`]), then every other node of weight above 0 as a stand-in, in the order in which
    /// they are tried.
    ///
    /// Up to [`N_MAX`] entries are read from a table. Reading further walks the ring once.
    pub fn preference_list(&self, partition: PartitionId, n: usize) -> impl Iterator<Item = PreferenceEntry> + '_ {
        let near = self.walk(partition);
        // Evaluated only if the caller reads past the table and there may be more.
        let far = std::iter::once(()).flat_map(move |()| {
            let all = if near.len() < N_MAX { Vec::new() } else { self.walk_all(partition) };
            all.into_iter().skip(near.len())
        });
        let entry =
            move |(place, node)| if place < n { PreferenceEntry::Home(node) } else { PreferenceEntry::StandIn(node) };
        near.iter().copied().chain(far).enumerate().map(entry)
    }

    /// The walk past every node of weight above 0.
    fn walk_all(&self, partition: PartitionId) -> Vec<NodeId> {
        let topology = Topology::new(&self.nodes);
        let Ok(owners) = dense(&topology, &self.owners) else { unreachable!("checked when the ring was made") };
        let mut sweep = Sweep::new(&topology, &owners);
        (partition.index()..owners.len()).rev().for_each(|at| sweep.back(at));
        let mut walk = Vec::new();
        sweep.walk(usize::MAX, &mut walk);
        walk.into_iter().map(|node| topology.ids[node as usize]).collect()
    }
}

fn dense(topology: &Topology, owners: &[NodeId]) -> Result<Vec<u32>, BadRing> {
    let number = |(p, owner): (usize, &NodeId)| {
        topology.index(*owner).ok_or(BadRing::UnknownOwner(PartitionId(p as u32), *owner))
    };
    owners.iter().enumerate().map(number).collect()
}

/// The first nodes of the walks from all partitions, one walk after the other, and the length of each.
fn walks(topology: &Topology, owners: &[u32]) -> (Vec<NodeId>, usize) {
    let mut sweep = Sweep::new(topology, owners);
    let walk_len = topology.len().min(N_MAX);
    let mut walks = vec![NodeId::new(0); owners.len() * walk_len];
    let mut walk = Vec::with_capacity(walk_len);
    for at in (0..owners.len()).rev() {
        sweep.back(at);
        walk.clear();
        sweep.walk(walk_len, &mut walk);
        for (entry, node) in walks[at * walk_len..].iter_mut().zip(&walk) {
            *entry = topology.ids[*node as usize];
        }
    }
    (walks, walk_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: impl IntoIterator<Item = u64>) -> Vec<NodeInfo> {
        ids.into_iter().map(|id| NodeInfo::new(NodeId::new(id))).collect()
    }

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().map(|id| NodeId::new(*id)).collect()
    }

    fn ring(owners: &[u64], nodes: Vec<NodeInfo>) -> Ring {
        let q = Partitions::new(owners.len() as u32).unwrap();
        Ring::new(RingVersion::default(), q, ids(owners), nodes).unwrap()
    }

    #[test]
    fn the_first_n_nodes_of_the_walk_are_homes_and_all_others_stand_in() {
        let ring = ring(&[1, 2, 2, 3, 1, 4], nodes(1..=5));
        assert_eq!(ring.homes(PartitionId(1), 3), ids(&[2, 3, 1]));
        assert_eq!(ring.homes(PartitionId(5), 3), ids(&[4, 1, 2]), "the walk goes on past position 0");
        let [two, three, one, four] = [2, 3, 1, 4].map(NodeId::new);
        let list: Vec<_> = ring.preference_list(PartitionId(1), 2).collect();
        let five = NodeId::new(5);
        let stand_ins = [one, four, five].map(PreferenceEntry::StandIn);
        let expected = [PreferenceEntry::Home(two), PreferenceEntry::Home(three)].into_iter().chain(stand_ins);
        assert_eq!(list, expected.collect::<Vec<_>>(), "node 5 owns nothing, so it comes after all owners");
        assert_eq!(ring.homes(PartitionId(0), 9).len(), 5, "no more homes than there are nodes");
        assert_eq!(ring.owner(PartitionId(4)), one);
        assert_eq!(ring.partition_of(Token::new(u128::MAX)), PartitionId(5));
    }

    #[test]
    fn a_list_longer_than_the_table_continues_in_the_same_order() {
        let owners: Vec<u64> = (1..=40).collect();
        let mut members = nodes(1..=40);
        members.iter_mut().for_each(|node| node.zone = format!("z{}", node.id.get() % 4));
        let ring = ring(&owners, members);
        for p in ring.partitions().iter() {
            let list: Vec<_> = ring.preference_list(p, 3).map(PreferenceEntry::node).collect();
            assert_eq!(list[..N_MAX], *ring.walk(p));
            let expected: Vec<_> = (0..40).map(|step| NodeId::new((u64::from(p.0) + step) % 40 + 1)).collect();
            assert_eq!(list, expected, "zones take turns around this ring, so the walk skips nothing");
        }
    }

    #[test]
    fn a_zone_repeats_only_when_no_new_zone_is_left() {
        let mut members = nodes(1..=5);
        for (node, zone) in members.iter_mut().zip(["a", "a", "a", "b", "c"]) {
            node.zone = zone.into();
        }
        let ring = ring(&[1, 2, 3, 4, 5], members);
        assert_eq!(ring.walk(PartitionId(0)), ids(&[1, 4, 5, 2, 3]));
        assert_eq!(ring.walk(PartitionId(1)), ids(&[2, 4, 5, 3, 1]));
    }

    #[test]
    fn hosts_are_spread_within_zones() {
        let mut members = nodes(1..=6);
        for (node, host) in members.iter_mut().zip(["h1", "h1", "h2", "h2", "", ""]) {
            node.host = host.into();
        }
        let ring = ring(&[1, 2, 3, 4, 5, 6], members);
        assert_eq!(ring.walk(PartitionId(0)), ids(&[1, 3, 5, 6, 2, 4]), "a nameless host is a host of its own");
    }

    #[test]
    fn owners_must_have_a_weight_above_0() {
        let q = Partitions::new(2).unwrap();
        let mut members = nodes(1..=2);
        members[1].weight = 0;
        let made = Ring::new(RingVersion::default(), q, ids(&[1, 2]), members);
        assert_eq!(made.unwrap_err(), BadRing::UnknownOwner(PartitionId(1), NodeId::new(2)));
        let made = Ring::new(RingVersion::default(), q, ids(&[1]), nodes(1..=1));
        assert_eq!(made.unwrap_err(), BadRing::OwnerCount(1, 2));
    }
}
