//! The size of the membership state as a cluster grows, on the wire and in memory.

use bytes::Bytes;
use cartwheel_core::cluster::membership::{ChangeKind, History, Member, Strategy, View};
use cartwheel_core::ring::{NORMAL_WEIGHT, Partitions};
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use serde::Serialize;

/// The clusters to measure, as numbers of nodes and partitions. The default of 256 partitions is used where each node then owns some.
pub const CLUSTERS: [(u32, u32); 6] =
    [(10, 256), (10, 16_384), (100, 256), (100, 16_384), (1_000, 16_384), (5_000, 16_384)];

/// The bootstrap of a cluster of `nodes` nodes in three zones, with names and addresses of realistic length.
pub fn bootstrap(nodes: u32, partitions: Partitions) -> History {
    let members: Vec<_> = (0..nodes).map(member).collect();
    let by = NodeId::of_name("node-0");
    let mut history = History::new();
    let what = ChangeKind::Bootstrap {
        cluster: ClusterId(1),
        partitions,
        strategy: Strategy::Balanced,
        members,
        name: String::new(),
    };
    // A present-day time, because small numbers are encoded in fewer bytes.
    history.record(Hlc::at(WallMs(1_750_000_000_000)), by, what);
    history
}

fn member(serial: u32) -> Member {
    let name = format!("node-{serial}");
    let address = |port: u16| format!("{name}.cartwheel.example.com:{port}");
    Member {
        id: NodeId::of_name(&name),
        // An incarnation is a random number of 64 bits.
        incarnation: Incarnation(NodeId::of_name(&format!("incarnation-{serial}")).get()),
        weight: NORMAL_WEIGHT,
        zone: format!("zone-{}", serial % 3),
        host: String::new(),
        peer_addr: address(7400),
        http_addr: address(8080),
        resp_addr: address(6380),
        name,
    }
}

/// The size of one cluster's membership state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RingState {
    /// The number of members.
    pub nodes: usize,
    /// The number of partitions of the ring.
    pub partitions: u32,
    /// The encoded history, as it is saved, and sent where two nodes' histories differ. Nodes with equal ones exchange only its version, of 16
    /// bytes.
    pub history_bytes: usize,
    /// The whole view in memory, including the ring ([`View::size_in_memory`]).
    pub view_bytes: usize,
    /// The ring in memory ([`cartwheel_core::ring::Ring::size_in_memory`]).
    pub ring_bytes: usize,
}

impl RingState {
    /// Measures a cluster with this encoded history, and the view that it folds into.
    pub fn new(encoded: &Bytes, view: &View) -> Self {
        Self {
            nodes: view.members().len(),
            partitions: view.ring.partitions().count(),
            history_bytes: encoded.len(),
            view_bytes: view.size_in_memory(),
            ring_bytes: view.ring.size_in_memory(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(nodes: u32, partitions: u32) -> RingState {
        let history = bootstrap(nodes, Partitions::new(partitions).unwrap());
        RingState::new(&history.encode(), &history.view().unwrap())
    }

    #[test]
    fn the_history_grows_with_nodes_and_the_view_with_partitions_too() {
        let (small, fine, large) = (state(20, 256), state(20, 1024), state(40, 256));
        assert_eq!((small.nodes, small.partitions, large.nodes), (20, 256, 40));
        assert!(fine.history_bytes - small.history_bytes <= 2, "owners are not sent");
        assert!((19..=21).contains(&(large.history_bytes * 10 / small.history_bytes)), "{small:?} {large:?}");
        // For each more partition, an owner and a list of 16 nodes.
        assert_eq!(fine.ring_bytes - small.ring_bytes, 768 * 17 * 8);
        // A view also keeps the ring at bootstrap.
        assert_eq!(fine.view_bytes - small.view_bytes, 2 * 768 * 17 * 8);
        assert!(large.view_bytes > small.view_bytes);
    }
}
