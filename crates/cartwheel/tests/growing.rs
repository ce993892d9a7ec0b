//! A cluster that comes to be node by node, of real processes: nodes come, die in the middle of it, are replaced and leave, and nothing
//! that was written is missed at any time.

mod harness;

use std::ops::Range;
use std::process::Command;

use harness::CARTWHEEL;
use harness::grown::Grown;
use harness::raw::{get, put};

const KEYS: u32 = 200;

/// Writes keys through a node.
fn write(nodes: &Grown, through: &str, keys: Range<u32>) {
    for key in keys {
        let reply = put(&nodes.endpoint(through), &format!("/v1/kv/carts/{key}?w=2"), &format!("milk {key}"));
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
}

/// Reads them back through one.
fn find(nodes: &Grown, through: &str, keys: Range<u32>) {
    for key in keys {
        let reply = get(&nodes.endpoint(through), &format!("/v1/kv/carts/{key}?consistency=strong&timeout_ms=30000"));
        assert_eq!((reply.status, reply.text()), (200, format!("milk {key}")), "through {through}");
    }
}

/// How many partitions a node knows to be on their way, and which members to be leaving.
fn moves(nodes: &Grown, through: &str) -> (usize, usize) {
    let told = get(&nodes.endpoint(through), "/v1/cluster/transfers").json();
    (told["transfers"].as_array().unwrap().len(), told["leaving"].as_array().unwrap().len())
}

fn on_their_way(nodes: &Grown, through: &str) {
    nodes.eventually("partitions are on their way", |nodes| moves(nodes, through).0 > 0);
}

fn settled(nodes: &Grown, all: &[&str]) {
    nodes.eventually("all is on its target nodes", |nodes| all.iter().all(|name| moves(nodes, name) == (0, 0)));
}

#[test]
fn nodes_come_die_are_replaced_and_leave_and_nothing_is_missed() {
    let mut nodes = Grown::of(&["a", "b", "c"]);
    settled(&nodes, &["a", "b", "c"]);
    write(&nodes, "b", 0..KEYS);

    // A fourth is let in. One of those who hand over to it dies, and then it dies itself.
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

    // One dies for good, and a fresh one takes its place.
    nodes.kill("c");
    nodes.waits("e", "a");
    nodes.done("a", &["replace", "c", "e", "--yes", "--wait"]);
    settled(&nodes, &["a", "b", "d", "e"]);
    find(&nodes, "e", 0..KEYS);

    // The first one leaves: it hands over what it has, and ends in order.
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
