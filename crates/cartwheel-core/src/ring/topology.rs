//! The members that can hold data, as placement sees them: with dense numbers for nodes, zones and hosts.

use std::collections::BTreeMap;

use super::balanced::SPREAD;
use crate::value::dot::NodeId;

/// The weight of a node of normal size.
pub const NORMAL_WEIGHT: u32 = 100;

/// A node's attributes for placement.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeInfo {
    /// The node.
    pub id: NodeId,
    /// Its share of the data. [`NORMAL_WEIGHT`] is one share, and twice as much is twice the partitions. A node of weight 0 holds nothing: it is
    /// neither a home nor a stand-in.
    pub weight: u32,
    /// The failure domain (a data centre, a rack). Nodes with equal names are in one zone, the empty name included.
    pub zone: String,
    /// The machine, named within its zone: equal names in two zones are two hosts. Empty: a machine of its own.
    pub host: String,
}

impl NodeInfo {
    /// A node of normal weight on a machine of its own, in the unnamed zone.
    pub fn new(id: NodeId) -> Self {
        Self { id, weight: NORMAL_WEIGHT, zone: String::new(), host: String::new() }
    }
}

/// The nodes of weight above 0, sorted by id, with zones and hosts as small numbers.
///
/// The order makes everything built on it independent of the order in which members were listed.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub ids: Vec<NodeId>,
    pub weights: Vec<u32>,
    /// The effective weight of each node, in units that only compare with each other: its weight, but at most one of [`SPREAD`] equal shares of
    /// all (or of as many shares as there are nodes).
    pub shares: Vec<u128>,
    /// By node.
    pub zone: Vec<u32>,
    /// By node.
    pub host: Vec<u32>,
    /// By host.
    pub zone_of_host: Vec<u32>,
    pub zones: usize,
}

impl Topology {
    /// If a node has several entries, the first counts.
    pub fn new(nodes: &[NodeInfo]) -> Self {
        let mut sorted: BTreeMap<NodeId, &NodeInfo> = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.weight > 0) {
            sorted.entry(node.id).or_insert(node);
        }
        let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
        // An unnamed host is keyed by its node, so no other node shares it.
        let mut hosts: BTreeMap<(u32, &str, Option<NodeId>), u32> = BTreeMap::new();
        let mut topology = Self {
            ids: Vec::with_capacity(sorted.len()),
            weights: Vec::with_capacity(sorted.len()),
            shares: Vec::new(),
            zone: Vec::with_capacity(sorted.len()),
            host: Vec::with_capacity(sorted.len()),
            zone_of_host: Vec::new(),
            zones: 0,
        };
        for (id, node) in sorted {
            let next = zones.len() as u32;
            let zone = *zones.entry(&node.zone).or_insert(next);
            let next = hosts.len() as u32;
            let host = *hosts.entry((zone, &node.host, node.host.is_empty().then_some(id))).or_insert(next);
            if host == next {
                topology.zone_of_host.push(zone);
            }
            topology.ids.push(id);
            topology.weights.push(node.weight);
            topology.zone.push(zone);
            topology.host.push(host);
        }
        topology.zones = zones.len();
        let (cap, unit) = cap(&topology.weights);
        topology.shares = topology.weights.iter().map(|weight| (u128::from(*weight) * unit).min(cap)).collect();
        topology
    }

    /// A node's effective weight, if that is less than its weight.
    pub fn capped(&self, node: usize) -> Option<f64> {
        let (cap, unit) = cap(&self.weights);
        (self.shares[node] < u128::from(self.weights[node]) * unit).then(|| cap as f64 / unit as f64)
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The dense number of `id`, if it can hold data.
    pub fn index(&self, id: NodeId) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|index| index as u32)
    }
}

/// The greatest effective weight of a node, and how many of its units a weight of 1 is.
///
/// A node holds a partition once. A node whose weight exceeds one share in [`SPREAD`] of all cannot hold what its weight asks for. An assignment
/// that gave it so many partitions would leave the other replicas of all of them to the few nodes in between. So the greatest weights count as
/// the largest share that a node can hold, and the others divide the rest by their weights.
fn cap(weights: &[u32]) -> (u128, u128) {
    let mut sorted: Vec<u128> = weights.iter().map(|weight| u128::from(*weight)).collect();
    sorted.sort_unstable_by(|one, other| other.cmp(one));
    let shares = SPREAD.min(sorted.len());
    let mut rest: u128 = sorted.iter().sum();
    for (above, weight) in sorted.iter().enumerate().take(shares) {
        let unit = (shares - above) as u128;
        if weight * unit <= rest {
            return (rest, unit);
        }
        rest -= weight;
    }
    // Unreachable with nodes: the last share is no more than the rest. Without nodes nothing is capped.
    (rest.max(1), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The effective weight of each node.
    fn counted(weights: &[u32]) -> Vec<f64> {
        let info = |(id, weight): (u64, &u32)| NodeInfo { weight: *weight, ..NodeInfo::new(NodeId::new(id)) };
        let topology = Topology::new(&(1..).zip(weights).map(info).collect::<Vec<_>>());
        (0..weights.len()).map(|node| topology.capped(node).unwrap_or(f64::from(weights[node]))).collect()
    }

    #[test]
    fn no_weight_counts_as_more_than_a_node_can_hold() {
        assert_eq!(counted(&[100, 100, 60_000]), [100.0, 100.0, 100.0]);
        assert_eq!(counted(&[1, 1_000, 1_000]), [1.0, 1.0, 1.0]);
        assert_eq!(counted(&[100, 300]), [100.0, 100.0], "two nodes hold two replicas of all");
        assert_eq!(counted(&[100, 100, 100, 60_000]), [100.0, 100.0, 100.0, 150.0], "a third of all");
        assert_eq!(counted(&[100, 60_000, 100, 60_000, 100]), [100.0, 300.0, 100.0, 300.0, 100.0]);
        assert_eq!(counted(&[50, 100, 200, 150]), [50.0, 100.0, 150.0, 150.0]);
        assert_eq!(counted(&[50, 100, 200, 150, 150]), [50.0, 100.0, 200.0, 150.0, 150.0]);
        assert_eq!(counted(&[u32::MAX; 4]), [f64::from(u32::MAX); 4]);
        assert_eq!(counted(&[7]), [7.0]);
        assert_eq!(counted(&[]), [0.0; 0]);
    }
}
