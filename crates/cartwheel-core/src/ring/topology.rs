//! The members that can hold data, as placement sees them: numbered densely, with numbered zones and hosts.

use std::collections::BTreeMap;

use crate::dot::NodeId;

/// The weight of a node of normal size.
pub const NORMAL_WEIGHT: u32 = 100;

/// What placement knows of a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeInfo {
    /// The node.
    pub id: NodeId,
    /// Its share of the data: [`NORMAL_WEIGHT`] is one share, twice as much is twice the partitions, and 0 is none: such a
    /// node is neither a home nor a stand-in.
    pub weight: u32,
    /// What fails together at large (a data centre, a rack). Nodes of one name are of one zone, the empty name included.
    pub zone: String,
    /// The machine, named within its zone: equal names in two zones are two hosts. Empty: a machine of its own.
    pub host: String,
}

impl NodeInfo {
    /// A node of normal weight on a machine of its own, in the nameless zone.
    pub fn new(id: NodeId) -> Self {
        Self { id, weight: NORMAL_WEIGHT, zone: String::new(), host: String::new() }
    }
}

/// The nodes of weight above 0, sorted by id, with zones and hosts as small numbers.
///
/// Sorted, so that nothing built on it depends on the order in which members were listed.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub ids: Vec<NodeId>,
    pub weights: Vec<u32>,
    /// Of each node.
    pub zone: Vec<u32>,
    /// Of each node.
    pub host: Vec<u32>,
    /// Of each host.
    pub zone_of_host: Vec<u32>,
    pub zones: usize,
}

impl Topology {
    /// Of several entries for one node the first counts.
    pub fn new(nodes: &[NodeInfo]) -> Self {
        let mut sorted: BTreeMap<NodeId, &NodeInfo> = BTreeMap::new();
        for node in nodes.iter().filter(|node| node.weight > 0) {
            sorted.entry(node.id).or_insert(node);
        }
        let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
        // A nameless host is keyed by its node, so it is shared with nobody.
        let mut hosts: BTreeMap<(u32, &str, Option<NodeId>), u32> = BTreeMap::new();
        let mut topology = Self {
            ids: Vec::with_capacity(sorted.len()),
            weights: Vec::with_capacity(sorted.len()),
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
        topology
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The dense number of `id`, if it can hold data.
    pub fn index(&self, id: NodeId) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|index| index as u32)
    }
}
