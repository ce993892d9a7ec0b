//! The default placement (paper, section 6.2, strategy 3): equal partitions, a weighted share for each node, neighbours on different nodes,
//! hosts and zones, and few moves when members change.

use std::collections::BinaryHeap;

use super::layout::{FREE, Layout, mix};
use super::partitions::Partitions;
use super::topology::{NodeInfo, Topology};
use super::{found, improve};
use crate::value::dot::NodeId;

/// The number of consecutive partitions that should lie on different nodes, hosts and zones: the usual N.
pub const SPREAD: usize = 3;

/// The owners of the partitions for these nodes; `None` if no node can hold data.
///
/// Each node owns its weighted share, rounded up or down, and none owns more than it can hold of all replicas ([`super::Ring::capped`]).
/// `previous` is the current assignment, `None` for a new cluster. Of what its owners keep, only as much moves as the shares demand, plus a few
/// partitions to mend clashes between neighbours. The result depends on nothing else; the order of `nodes` does not matter.
///
/// # Panics
/// If `previous` has another number of partitions.
pub fn balanced(
    previous: Option<&[NodeId]>,
    nodes: &[NodeInfo],
    partitions: Partitions,
    spread: usize,
) -> Option<Vec<NodeId>> {
    let topology = Topology::new(nodes);
    if topology.len() == 0 {
        return None;
    }
    let owner = match previous {
        None => found::found(&topology, partitions, spread),
        Some(previous) => {
            assert_eq!(previous.len(), partitions.len(), "another ring's assignment");
            change(&topology, previous, spread)
        }
    };
    Some(owner.into_iter().map(|node| topology.ids[node as usize]).collect())
}

/// The number of partitions that each node is to own: its weighted share, rounded down. Each remaining partition goes to one more node: first to
/// nodes that own more than their share already, so that they keep it, then by the largest remainder.
pub(super) fn targets(topology: &Topology, counts: &[u32], partitions: usize) -> Vec<u32> {
    let total: u128 = topology.shares.iter().sum();
    let share = |node: usize| topology.shares[node] * partitions as u128;
    let mut targets: Vec<u32> = (0..topology.len()).map(|node| (share(node) / total) as u32).collect();
    let left = partitions - targets.iter().sum::<u32>() as usize;
    if left == 0 {
        return targets;
    }
    let mut order: Vec<_> = (0..topology.len())
        .filter(|node| share(*node) % total != 0)
        .map(|node| (counts[node] <= targets[node], total - share(node) % total, node))
        .collect();
    // More than `left` nodes have a remainder, because the remainders of `left` nodes would sum to less.
    order.select_nth_unstable(left - 1);
    for (_, _, node) in &order[..left] {
        targets[*node] += 1;
    }
    targets
}

/// The assignment after a change of members.
fn change(topology: &Topology, previous: &[NodeId], spread: usize) -> Vec<u32> {
    let before = dense(topology, previous);
    let mut layout = Layout::new(topology, before.clone(), spread);
    let mut counts = layout.counts();
    let targets = targets(topology, &counts, layout.len());
    let moves = targets.iter().zip(&counts).map(|(target, count)| target.saturating_sub(*count)).sum();
    place_free(&mut layout, &mut counts, &targets);
    for node in 0..topology.len() {
        if counts[node] < targets[node] {
            take_surplus(&mut layout, &mut counts, &targets, node as u32);
        }
    }
    improve::improve(&mut layout, &before, moves);
    layout.owner
}

/// The previous owners as dense numbers; `FREE` where the owner is gone.
fn dense(topology: &Topology, previous: &[NodeId]) -> Vec<u32> {
    let mut last = (None, FREE);
    let number = |id: &NodeId| {
        if last.0 != Some(*id) {
            last = (Some(*id), topology.index(*id).unwrap_or(FREE));
        }
        last.1
    };
    previous.iter().map(number).collect()
}

/// Gives each partition without an owner to a node below its target, to the one with the fewest clashes there.
fn place_free(layout: &mut Layout<'_>, counts: &mut [u32], targets: &[u32]) {
    let mut free: Vec<usize> = (0..layout.len()).filter(|at| layout.owner[*at] == FREE).collect();
    free.sort_unstable_by_key(|at| mix(*at as u64, 0));
    let mut below: Vec<u32> =
        (0..counts.len()).filter(|node| counts[*node] < targets[*node]).map(|node| node as u32).collect();
    for at in free {
        let key = |node: u32| {
            let missing = targets[node as usize] - counts[node as usize];
            (layout.cost(at, node), u32::MAX - missing, mix(at as u64, layout.topology.ids[node as usize].get()))
        };
        let best = (0..below.len()).min_by_key(|index| key(below[*index])).expect("targets sum to the partitions");
        let node = below[best];
        layout.owner[at] = node;
        counts[node as usize] += 1;
        if counts[node as usize] == targets[node as usize] {
            below.swap_remove(best);
        }
    }
}

/// Brings `node` up to its target with partitions of nodes above theirs, in the order of what the change gains in clashes.
fn take_surplus(layout: &mut Layout<'_>, counts: &mut [u32], targets: &[u32], node: u32) {
    let id = layout.topology.ids[node as usize].get();
    let gain = |layout: &Layout<'_>, at: usize| {
        i64::from(layout.cost_at(at)) - i64::from(layout.cost(at, node)) // the clashes that the move mends
    };
    let above = |counts: &[u32], owner: u32| counts[owner as usize] > targets[owner as usize];
    let candidates = (0..layout.len()).filter(|at| above(counts, layout.owner[*at]));
    let mut heap: BinaryHeap<_> = candidates.map(|at| (gain(layout, at), mix(at as u64, id), at)).collect();
    while counts[node as usize] < targets[node as usize] {
        let (promised, tie, at) = heap.pop().expect("what is missing here is too much elsewhere");
        let owner = layout.owner[at];
        if owner == node || !above(counts, owner) {
            continue;
        }
        // Partitions taken since may clash with this one. Then it goes back into the heap with its new gain.
        let now = gain(layout, at);
        if now < promised {
            heap.push((now, tie, at));
            continue;
        }
        layout.owner[at] = node;
        counts[owner as usize] -= 1;
        counts[node as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::report::Violations;
    use super::super::{NORMAL_WEIGHT, PartitionId, Ring, RingVersion};
    use super::*;

    fn nodes(count: u64) -> Vec<NodeInfo> {
        (0..count).map(|serial| NodeInfo::new(NodeId::of_name(&format!("node-{serial}")))).collect()
    }

    fn ring(owners: Vec<NodeId>, nodes: &[NodeInfo]) -> Ring {
        let q = Partitions::new(owners.len() as u32).unwrap();
        Ring::new(RingVersion::default(), q, owners, nodes.to_vec()).unwrap()
    }

    #[test]
    fn the_first_assignment_has_no_avoidable_clash() {
        for (count, q, zones) in [(1, 256, 1), (3, 256, 3), (4, 256, 1), (7, 1000, 1), (12, 256, 3), (200, 4096, 5)] {
            let mut nodes = nodes(count);
            for (serial, node) in nodes.iter_mut().enumerate() {
                node.zone = format!("z{}", serial % zones);
            }
            let q = Partitions::new(q).unwrap();
            let ring = ring(balanced(None, &nodes, q, SPREAD).unwrap(), &nodes);
            let found = Violations::count(&ring, SPREAD);
            assert_eq!((found.node_repeats, found.host_repeats, found.zone_repeats), (0, 0, 0), "{count} {ring}");
            assert!(found.off_ideal_max < 1.0);
        }
    }

    #[test]
    fn many_nodes_stand_in_for_a_failed_node() {
        let nodes = nodes(12);
        let ring = ring(balanced(None, &nodes, Partitions::default(), SPREAD).unwrap(), &nodes);
        let of_first = |p: &PartitionId| ring.owner(*p) == nodes[0].id;
        let stand_ins: BTreeSet<_> = ring.partitions().iter().filter(of_first).map(|p| ring.walk(p)[3]).collect();
        assert!(stand_ins.len() >= 6, "{} nodes share the load of one", stand_ins.len());
    }

    #[test]
    fn targets_are_weighted_shares_and_keep_what_can_stay() {
        let mut nodes = nodes(3);
        nodes.sort_by_key(|node| node.id);
        let of = |nodes: &[NodeInfo], counts: &[u32]| targets(&Topology::new(nodes), counts, 10);
        assert_eq!(of(&nodes, &[3, 3, 4]), [3, 3, 4]);
        assert_eq!(of(&nodes, &[3, 4, 3]), [3, 4, 3]);
        nodes[0].weight = 3 * NORMAL_WEIGHT;
        assert_eq!(of(&nodes, &[4, 3, 3]), [4, 3, 3], "each of three nodes holds all three replicas");
        nodes.push(NodeInfo::new(NodeId::new(u64::MAX)));
        // Shares of a third, capped, and of two ninths.
        assert_eq!(of(&nodes, &[3, 2, 2, 2]), [4, 2, 2, 2]);
        nodes[0].weight = 3 * NORMAL_WEIGHT / 2;
        nodes[3].weight = NORMAL_WEIGHT / 2;
        // Shares of a third, capped, and of 2.67, 2.67 and 1.33 partitions.
        assert_eq!(of(&nodes, &[3, 3, 2, 1]), [3, 3, 3, 1]);
    }

    #[test]
    fn the_same_members_move_nothing_and_no_members_own_nothing() {
        let (mut nodes, q) = (nodes(9), Partitions::default());
        let owners = balanced(None, &nodes, q, SPREAD);
        assert_eq!(balanced(owners.as_deref(), &nodes, q, SPREAD), owners);
        nodes.reverse();
        assert_eq!(balanced(None, &nodes, q, SPREAD), owners, "the order of members does not matter");
        assert_eq!(balanced(None, &[], q, SPREAD), None);
    }
}
