//! The cost of the ring on and off the request path: `cargo bench -p cartwheel-core --bench ring`.

use cartwheel_core::cluster::membership::{ChangeKind, Folded, History, Member, Strategy};
use cartwheel_core::ring::balanced::{SPREAD, balanced};
use cartwheel_core::ring::{NodeInfo, Partitions, Ring, RingVersion};
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::value::token::Token;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

fn nodes(count: u64) -> Vec<NodeInfo> {
    let id = |serial: u64| NodeId::of_name(&format!("node-{serial}"));
    (0..count).map(|serial| NodeInfo { zone: format!("z{}", serial % 3), ..NodeInfo::new(id(serial)) }).collect()
}

fn owners(nodes: &[NodeInfo], q: Partitions) -> Vec<NodeId> {
    balanced(None, nodes, q, SPREAD).expect("there are nodes")
}

fn ring(nodes: &[NodeInfo], q: Partitions) -> Ring {
    Ring::new(RingVersion::default(), q, owners(nodes, q), nodes.to_vec()).expect("owners are nodes")
}

const LARGE: u32 = 16_384;

/// Token to partition to the three homes, with 1,000 nodes: 1,000 lookups an iteration.
#[divan::bench]
fn lookup_1000_times(bencher: Bencher<'_, '_>) {
    let ring = ring(&nodes(1000), Partitions::new(LARGE).expect("in bounds"));
    let tokens: Vec<Token> = (0..1000u32).map(|key| Token::of_key(b"bucket", &key.to_be_bytes())).collect();
    bencher.bench(|| {
        let homes = |token: &Token| ring.homes(ring.partition_of(black_box(*token)), 3)[0].get();
        tokens.iter().map(homes).fold(0, u64::wrapping_add)
    });
}

/// The first assignment of a new cluster.
#[divan::bench(args = [(3, 256), (30, 256), (1000, LARGE)])]
fn bootstrap(bencher: Bencher<'_, '_>, (count, q): (u64, u32)) {
    let (nodes, q) = (nodes(count), Partitions::new(q).expect("in bounds"));
    bencher.bench(|| owners(&nodes, q));
}

/// The whole ring of a new cluster: the first assignment and all preference lists.
#[divan::bench(args = [(3, 256), (30, 256), (1000, LARGE), (5000, LARGE)])]
fn bootstrap_ring(bencher: Bencher<'_, '_>, (count, q): (u64, u32)) {
    let (nodes, q) = (nodes(count), Partitions::new(q).expect("in bounds"));
    bencher.bench(|| ring(&nodes, q));
}

/// The assignment after a node is added.
#[divan::bench(args = [(3, 256), (30, 256), (1000, LARGE)])]
fn add(bencher: Bencher<'_, '_>, (count, q): (u64, u32)) {
    let (before, after, q) = (nodes(count), nodes(count + 1), Partitions::new(q).expect("in bounds"));
    let owners = owners(&before, q);
    bencher.bench(|| balanced(Some(&owners), &after, q, SPREAD));
}

/// The assignment after a node is removed.
#[divan::bench(args = [(4, 256), (30, 256), (1000, LARGE)])]
fn remove(bencher: Bencher<'_, '_>, (count, q): (u64, u32)) {
    let (before, after, q) = (nodes(count), nodes(count - 1), Partitions::new(q).expect("in bounds"));
    let owners = owners(&before, q);
    bencher.bench(|| balanced(Some(&owners), &after, q, SPREAD));
}

/// The preference lists of all partitions.
#[divan::bench(args = [(3, 256), (30, 256), (1000, LARGE)])]
fn preference_lists(bencher: Bencher<'_, '_>, (count, q): (u64, u32)) {
    let (nodes, q) = (nodes(count), Partitions::new(q).expect("in bounds"));
    let owners = owners(&nodes, q);
    bencher.bench(|| Ring::new(RingVersion::default(), q, owners.clone(), nodes.clone()));
}

/// A bootstrap with one node, and `joiners` others that are added one by one.
fn grown(joiners: u64, partitions: u32) -> History {
    let member = |serial: u64| {
        let name = format!("node-{serial}");
        let (id, zone) = (NodeId::of_name(&name), format!("z{}", serial % 3));
        let addr = || format!("{name}.example.com:7400");
        let (peer_addr, http_addr, resp_addr) = (addr(), addr(), addr());
        Member {
            id,
            incarnation: Incarnation(serial),
            weight: 100,
            zone,
            host: String::new(),
            peer_addr,
            http_addr,
            resp_addr,
            name,
        }
    };
    let mut history = History::new();
    let partitions = Partitions::new(partitions).expect("in bounds");
    let (cluster, strategy, members) = (ClusterId(1), Strategy::Balanced, vec![member(0)]);
    let first = member(0).id;
    history.record(
        Hlc::ZERO,
        first,
        ChangeKind::Bootstrap { cluster, partitions, strategy, members, name: String::new() },
    );
    for serial in 1..=joiners {
        history.record(Hlc::ZERO, first, ChangeKind::Add(member(serial)));
    }
    history
}

/// From a history to its ring.
#[divan::bench(args = [(30, 256), (1000, 256), (1000, LARGE)], sample_count = 3)]
fn fold(bencher: Bencher<'_, '_>, (joiners, q): (u64, u32)) {
    let history = grown(joiners, q);
    bencher.bench(|| history.view());
}

/// From a history to its ring, if all but the last change were folded before.
#[divan::bench(args = [(30, 256), (1000, 256), (1000, LARGE)], sample_count = 20)]
fn fold_one_more(bencher: Bencher<'_, '_>, (joiners, q): (u64, u32)) {
    let mut folded = Folded::default();
    folded.view(&grown(joiners - 1, q));
    let history = grown(joiners, q);
    bencher.with_inputs(|| folded.clone()).bench_values(|mut folded| folded.view(&history));
}
