//! Placement over thousands of random membership histories: balance, movement and spread.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::balanced::{SPREAD, balanced};
use super::report::Violations;
use super::{NORMAL_WEIGHT, NodeInfo, PartitionId, Partitions, Ring, RingVersion};
use crate::value::dot::NodeId;

struct Draw(ChaCha8Rng);

impl Draw {
    fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }
}

/// The kind of clusters in a history.
#[derive(Clone, Copy)]
struct Kind {
    partitions: u32,
    zones: u32,
    nodes_per_host: u32,
    weights: bool,
    /// Changes are made in all zones at once.
    even: bool,
    least: u32,
    most: u32,
    steps: u32,
}

/// Sums over all steps of all histories of a kind.
#[derive(Default, Debug)]
struct Sums {
    steps: u32,
    owners_moved: u64,
    owners_least: u64,
    replicas_moved: u64,
    replicas_least: u64,
    /// The fewest moves from the old to the new numbers of replicas, however good these are.
    replicas_implied: u64,
    worst_owners: f64,
    worst_replicas: f64,
    node_repeats: u64,
    host_repeats: u64,
    zone_repeats: u64,
    windows: u64,
}

fn node(draw: &mut Draw, kind: Kind, serial: u32) -> NodeInfo {
    let weight = if kind.weights { [50, 100, 100, 150, 200][draw.below(5) as usize] } else { NORMAL_WEIGHT };
    // Zones take turns, as a careful operator would assign them.
    let zone = format!("z{}", serial % kind.zones);
    let host =
        if kind.nodes_per_host > 1 { format!("h{}", serial / kind.zones / kind.nodes_per_host) } else { String::new() };
    NodeInfo { id: NodeId::of_name(&format!("node-{serial}")), weight, zone, host }
}

fn ring(owners: &[NodeId], nodes: &[NodeInfo], partitions: Partitions) -> Ring {
    Ring::new(RingVersion::default(), partitions, owners.to_vec(), nodes.to_vec()).unwrap()
}

fn replicas(ring: &Ring) -> BTreeMap<NodeId, u64> {
    let mut counts = BTreeMap::new();
    for p in ring.partitions().iter() {
        ring.homes(p, 3).iter().for_each(|home| *counts.entry(*home).or_insert(0) += 1);
    }
    counts
}

fn check_balance(ring: &Ring) {
    let violations = Violations::count(ring, SPREAD);
    assert!(violations.off_ideal_max < 1.0, "{violations:?}\n{ring}");
}

fn check_lists(ring: &Ring) {
    let zone: BTreeMap<NodeId, &str> = ring.nodes().iter().map(|node| (node.id, &*node.zone)).collect();
    let zones: BTreeSet<_> = zone.values().collect();
    for p in ring.partitions().iter() {
        let homes = ring.homes(p, 3);
        assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), zone.len().min(3), "{ring}");
        let seen: BTreeSet<_> = homes.iter().map(|home| zone[home]).collect();
        assert_eq!(seen.len(), zones.len().min(3), "zones of {p}\n{ring}");
    }
}

fn step(sums: &mut Sums, before: &Ring, after: &Ring) {
    let q = before.partitions();
    let owners = |ring: &Ring| {
        let mut counts: BTreeMap<NodeId, u64> = BTreeMap::new();
        ring.owners().iter().for_each(|owner| *counts.entry(*owner).or_insert(0) += 1);
        counts
    };
    let missing = |before: &BTreeMap<NodeId, u64>, after: &BTreeMap<NodeId, u64>| -> u64 {
        after.iter().map(|(node, count)| count.saturating_sub(*before.get(node).unwrap_or(&0))).sum()
    };
    let owners_least = missing(&owners(before), &owners(after));
    let owners_moved = q.iter().filter(|p| before.owner(*p) != after.owner(*p)).count() as u64;
    let new_homes =
        |p: PartitionId| after.homes(p, 3).iter().filter(|home| !before.homes(p, 3).contains(home)).count() as u64;
    let replicas_moved: u64 = q.iter().map(new_homes).sum();
    let had = replicas(before);
    // N times the number of partitions owned, although no node can hold a partition twice.
    let target = |count: u64| (3 * count).min(q.count().into());
    let ideal = owners(after).into_iter().map(|(node, count)| (node, target(count))).collect();
    let replicas_least = missing(&had, &ideal);
    sums.steps += 1;
    sums.owners_moved += owners_moved;
    sums.owners_least += owners_least;
    sums.replicas_moved += replicas_moved;
    sums.replicas_least += replicas_least;
    sums.replicas_implied += missing(&had, &replicas(after));
    sums.worst_owners = sums.worst_owners.max(owners_moved as f64 / owners_least.max(1) as f64);
    sums.worst_replicas = sums.worst_replicas.max(replicas_moved as f64 / replicas_least.max(1) as f64);
    let violations = Violations::count(after, SPREAD);
    sums.node_repeats += violations.node_repeats;
    sums.host_repeats += violations.host_repeats;
    sums.zone_repeats += violations.zone_repeats;
    sums.windows += u64::from(q.count());
}

fn history(seed: u64, kind: Kind, sums: &mut Sums) {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
    let q = Partitions::new(kind.partitions).unwrap();
    let mut founders = kind.least + draw.below(kind.most - kind.least + 1);
    if kind.even {
        founders -= founders % kind.zones;
    }
    let mut serial = founders;
    let mut nodes: Vec<_> = (0..founders).map(|serial| node(&mut draw, kind, serial)).collect();
    let mut owners = balanced(None, &nodes, q, SPREAD).unwrap();
    let mut last = ring(&owners, &nodes, q);
    check_balance(&last);
    check_lists(&last);
    for _ in 0..kind.steps {
        let size = nodes.len() as u32;
        match draw.below(8) {
            0..=3 if size < kind.most => {
                let joiners = if kind.even { kind.zones } else { 1 };
                nodes.extend((serial..serial + joiners).map(|serial| node(&mut draw, kind, serial)));
                serial += joiners;
            }
            0..=6 if size > kind.least && kind.even => {
                nodes.drain(..kind.zones as usize);
            }
            0..=6 if size > kind.least => {
                nodes.swap_remove(draw.below(size) as usize);
            }
            7 if kind.weights => {
                let at = draw.below(size) as usize;
                nodes[at].weight = node(&mut draw, kind, 0).weight;
            }
            _ => continue,
        }
        owners = balanced(Some(&owners), &nodes, q, SPREAD).unwrap();
        let mut shuffled = nodes.clone();
        shuffled.reverse();
        debug_assert_eq!(Some(&owners), balanced(Some(last.owners()), &shuffled, q, SPREAD).as_ref(), "order matters");
        let next = ring(&owners, &nodes, q);
        check_balance(&next);
        check_lists(&next);
        step(sums, &last, &next);
        last = next;
    }
}

/// Runs `count` histories, a tenth of them in slow debug builds. `--nocapture` prints the sums.
fn histories(name: &str, count: u64, kind: Kind) -> Sums {
    let count = if cfg!(debug_assertions) { count / 10 } else { count };
    let mut sums = Sums::default();
    for seed in 0..count {
        history(seed, kind, &mut sums);
    }
    let ratio = |moved: u64, least: u64| moved as f64 / least as f64;
    println!(
        "{name}: {} steps, owners {:.3} (worst {:.2}), replicas {:.3} (worst {:.2}), of implied {:.3}, \
         repeats per 1000 windows: node {:.2} host {:.2} zone {:.2}",
        sums.steps,
        ratio(sums.owners_moved, sums.owners_least),
        sums.worst_owners,
        ratio(sums.replicas_moved, sums.replicas_least),
        sums.worst_replicas,
        ratio(sums.replicas_moved, sums.replicas_implied),
        sums.node_repeats as f64 * 1000.0 / sums.windows as f64,
        sums.host_repeats as f64 * 1000.0 / sums.windows as f64,
        sums.zone_repeats as f64 * 1000.0 / sums.windows as f64,
    );
    sums
}

const PLAIN: Kind =
    Kind { partitions: 256, zones: 1, nodes_per_host: 1, weights: false, even: false, least: 3, most: 20, steps: 12 };

/// Asserts that the moves over all steps exceed the least by at most a tenth, and that no single step is absurd.
fn assert_moves(sums: &Sums, replicas_moved: u64, replicas_least: u64) {
    assert!(sums.owners_moved * 10 <= sums.owners_least * 11, "{sums:?}");
    assert!(sums.worst_owners <= 1.1, "{sums:?}");
    assert!(replicas_moved * 10 <= replicas_least * 11, "{sums:?}");
}

/// For equal nodes: the least number of replicas to move follows from the shares.
fn assert_alike(sums: &Sums, repeats_per_1000_windows: u64) {
    assert_moves(sums, sums.replicas_moved, sums.replicas_least);
    assert!(sums.worst_replicas <= 1.25, "{sums:?}");
    let repeats = sums.node_repeats * 1000;
    assert!(repeats <= repeats_per_1000_windows * sums.windows, "{sums:?}");
}

#[test]
fn nodes_alike() {
    assert_alike(&histories("5 to 20 nodes", 400, Kind { least: 5, ..PLAIN }), 1);
}

#[test]
fn few_nodes() {
    // With hardly more nodes than a window, separating neighbours would move almost everything.
    assert_alike(&histories("1 to 6 nodes", 300, Kind { least: 1, most: 6, ..PLAIN }), 80);
}

#[test]
fn many_nodes() {
    assert_alike(&histories("20 to 60 nodes", 40, Kind { partitions: 1024, least: 20, most: 60, ..PLAIN }), 1);
}

#[test]
fn partitions_no_power_of_two() {
    assert_alike(&histories("1000 partitions", 60, Kind { partitions: 1000, least: 5, ..PLAIN }), 1);
}

#[test]
fn more_nodes_than_partitions() {
    let sums = histories("16 partitions", 200, Kind { partitions: 16, least: 5, most: 30, ..PLAIN });
    assert_moves(&sums, sums.replicas_moved, sums.replicas_implied);
}

#[test]
fn weights() {
    // A node with more than a third of all weight makes lists skip, so shares say less about replicas.
    let sums = histories("weights", 300, Kind { weights: true, least: 5, ..PLAIN });
    assert_moves(&sums, sums.replicas_moved, sums.replicas_implied);
}

#[test]
fn two_nodes_a_host() {
    let sums = histories("hosts", 300, Kind { nodes_per_host: 2, least: 8, most: 30, ..PLAIN });
    assert_alike(&sums, 1);
    assert!(sums.host_repeats * 200 <= sums.windows, "{sums:?}");
}

#[test]
fn three_zones_that_grow_together() {
    let sums = histories("3 even zones", 300, Kind { zones: 3, even: true, least: 6, most: 30, ..PLAIN });
    assert_moves(&sums, sums.replicas_moved, sums.replicas_least);
}

#[test]
fn five_zones_that_grow_together() {
    let sums = histories("5 even zones", 300, Kind { zones: 5, even: true, least: 10, most: 30, ..PLAIN });
    assert_moves(&sums, sums.replicas_moved, sums.replicas_least);
}

#[test]
fn uneven_zones_hosts_and_weights() {
    histories("5 uneven zones", 200, Kind { zones: 5, least: 10, most: 30, ..PLAIN });
    let kind = Kind { zones: 3, nodes_per_host: 2, weights: true, least: 6, most: 30, ..PLAIN };
    // Each zone must hold a whole copy, so a move between zones of unequal size also shifts replicas within them: at most half as much again.
    let sums = histories("3 uneven zones, hosts, weights", 200, kind);
    assert!(sums.owners_moved * 10 <= sums.owners_least * 11, "{sums:?}");
    assert!(sums.replicas_moved * 2 <= sums.replicas_implied * 3, "{sums:?}");
}
