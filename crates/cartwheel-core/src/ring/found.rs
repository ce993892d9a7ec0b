//! The first assignment of a new cluster.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::balanced::targets;
use super::improve;
use super::layout::{FREE, Layout, mix};
use super::partitions::Partitions;
use super::topology::Topology;

/// Owners for all partitions. Zones take turns in proportion to their shares, in each zone its hosts do, and on each host its nodes. Then
/// clashes are mended, and the order is shuffled as far as that makes none.
///
/// The shuffle matters when a node fails: in a fixed order, one node would stand in for all that it owns.
pub(super) fn found(topology: &Topology, partitions: Partitions, spread: usize) -> Vec<u32> {
    let targets = targets(topology, &vec![0; topology.len()], partitions.len());
    let mut layout = Layout::new(topology, take_turns(topology, &targets), spread);
    let all_moved = vec![FREE; layout.len()];
    improve::improve(&mut layout, &all_moved, 0);
    shuffle(&mut layout);
    layout.owner
}

/// A sequence in which every node has its target number of turns, spread evenly.
fn take_turns(topology: &Topology, targets: &[u32]) -> Vec<u32> {
    let hosts = topology.zone_of_host.len();
    let mut of_host = Turns::new(hosts);
    for ((node, host), turns) in (0..).zip(&topology.host).zip(targets) {
        of_host.add(*host, node, *turns);
    }
    let mut of_zone = Turns::new(topology.zones);
    for host in 0..hosts {
        of_zone.add(topology.zone_of_host[host], host as u32, of_host.total(host as u32));
    }
    let mut of_ring = Turns::new(1);
    for zone in 0..topology.zones {
        of_ring.add(0, zone as u32, of_zone.total(zone as u32));
    }
    let partitions = of_ring.total(0);
    (0..partitions).map(|_| of_host.next(of_zone.next(of_ring.next(0)))).collect()
}

/// Groups whose members take turns in proportion to their counts.
struct Turns {
    groups: Vec<Group>,
}

#[derive(Default)]
struct Group {
    /// The members as a heap, next turn first: the middle of the member's next turn as a fraction of the group's turns, in 2^-64ths; the member;
    /// the turns that it has taken; all its turns.
    heap: BinaryHeap<Reverse<(u64, u32, u32, u32)>>,
    total: u32,
}

impl Turns {
    fn new(groups: usize) -> Self {
        Self { groups: (0..groups).map(|_| Group::default()).collect() }
    }

    fn add(&mut self, group: u32, member: u32, turns: u32) {
        let group = &mut self.groups[group as usize];
        group.total += turns;
        if turns > 0 {
            group.heap.push(Reverse((middle(0, turns), member, 0, turns)));
        }
    }

    fn total(&self, group: u32) -> u32 {
        self.groups[group as usize].total
    }

    fn next(&mut self, group: u32) -> u32 {
        let heap = &mut self.groups[group as usize].heap;
        let Reverse((_, member, taken, turns)) = heap.pop().expect("turns are left");
        if taken + 1 < turns {
            heap.push(Reverse((middle(taken + 1, turns), member, taken + 1, turns)));
        }
        member
    }
}

/// The middle of turn `taken` of `turns`, as a fraction of the whole in 2^-64ths.
fn middle(taken: u32, turns: u32) -> u64 {
    ((((2 * u128::from(taken)) + 1) << 64) / (2 * u128::from(turns))) as u64
}

/// Exchanges owners at random wherever that makes no clash.
fn shuffle(layout: &mut Layout<'_>) {
    let len = layout.len();
    let seed = layout.topology.ids.iter().fold(len as u64, |seed, id| mix(seed, id.get()));
    for step in 0..2 * len {
        let (a, b) = (step % len, (mix(seed, step as u64) % len as u64) as usize);
        if layout.owner[a] != layout.owner[b] && layout.swap_gain(a, b) >= 0 {
            layout.owner.swap(a, b);
        }
    }
}
