//! A cluster of real processes loses no acknowledged write while nodes join, crash during transfers, are replaced and leave.

use std::ops::Range;
use std::process::Command;

use crate::harness::CARTWHEEL;
use crate::harness::grown::Grown;
use crate::harness::raw::{get, put};

const KEYS: u32 = 200;

/// Writes keys through the node `through`.
fn write(nodes: &Grown, through: &str, keys: Range<u32>) {
    for key in keys {
        let reply = put(&nodes.endpoint(through), &format!("/v1/kv/carts/{key}?w=2"), &format!("milk {key}"));
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
}

/// Reads keys through the node `through` and checks their values.
fn find(nodes: &Grown, through: &str, keys: Range<u32>) {
    for key in keys {
        let reply = get(&nodes.endpoint(through), &format!("/v1/kv/carts/{key}?consistency=strong&timeout_ms=30000"));
        assert_eq!((reply.status, reply.text()), (200, format!("milk {key}")), "through {through}");
    }
}

/// The number of partitions in transfer and of leaving members, as the node `through` knows them.
fn moves(nodes: &Grown, through: &str) -> (usize, usize) {
    let told = get(&nodes.endpoint(through), "/v1/cluster/transfers").json();
    (told["transfers"].as_array().unwrap().len(), told["leaving"].as_array().unwrap().len())
}

fn on_their_way(nodes: &Grown, through: &str) {
    nodes.eventually("partitions are in transfer", |nodes| moves(nodes, through).0 > 0);
}

fn settled(nodes: &Grown, all: &[&str]) {
    nodes.eventually("every partition is on its target nodes", |nodes| {
        all.iter().all(|name| moves(nodes, name) == (0, 0))
    });
}

#[test]
fn no_write_is_lost_while_nodes_join_crash_are_replaced_and_leave() {
    let mut nodes = Grown::of(&["a", "b", "c"]);
    settled(&nodes, &["a", "b", "c"]);
    write(&nodes, "b", 0..KEYS);

    // A fourth node is added. A node that hands over partitions to it is killed, then the new node itself.
    nodes.waits("d", "c");
    nodes.done("c", &["add", "d", "--yes"]);
    nodes.wait_for("d");
    on_their_way(&nodes, "b");
    nodes.kill("a");
    write(&nodes, "b", KEYS..2 * KEYS);
    nodes.serve("a", &[]);
    nodes.wait_for("a");
    on_their_way(&nodes, "b");
    nodes.kill("d");
    write(&nodes, "b", 2 * KEYS..3 * KEYS);
    nodes.serve("d", &[]);
    nodes.wait_for("d");
    settled(&nodes, &["a", "b", "c", "d"]);

    // A node is lost for good, and a new node replaces it.
    nodes.kill("c");
    nodes.waits("e", "a");
    nodes.done("a", &["replace", "c", "e", "--yes", "--wait"]);
    settled(&nodes, &["a", "b", "d", "e"]);
    find(&nodes, "e", 0..KEYS);

    // The first node leaves: it hands over its partitions and stops cleanly.
    nodes.done("b", &["remove", "a", "--yes", "--wait"]);
    let ended = nodes.ends("a");
    assert!(ended.success() && nodes.log("a").contains("delete the directory"), "{}", nodes.log("a"));
    nodes.serve("a", &[]);
    let told = nodes.refused("a");
    assert!(told.contains("start the node with an empty directory"), "{told}");

    settled(&nodes, &["b", "d", "e"]);
    find(&nodes, "d", 0..3 * KEYS);
    nodes.eventually("all replicas are equal", |nodes| {
        let verify = ["verify", "--settled", "--node", &nodes.endpoint("d")];
        Command::new(CARTWHEEL).args(verify).output().unwrap().status.success()
    });
}
