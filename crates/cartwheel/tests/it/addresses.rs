//! Nodes that start at other addresses, one of them or all at once, are found again; a node that reaches too few peers reports that it is not ready.

use crate::harness::grown::Grown;
use crate::harness::raw::{get, put};
use crate::harness::{Cluster, status};

/// Starts three members, waits until all are ready, and writes a key.
fn three() -> Grown {
    let nodes = Grown::of(&["a", "b", "c"]);
    nodes.eventually("all nodes hold their target partitions", |nodes| {
        nodes.moves("a")["transfers"].as_array().unwrap().is_empty()
    });
    assert_eq!(put(&nodes.endpoint("a"), "/v1/kv/b/k?w=3", "v").status, 204);
    nodes
}

fn is_served_by_all(nodes: &Grown, names: &[&str]) {
    for name in names {
        nodes.wait_for(name);
        nodes.eventually("all three nodes answer a read", |nodes| {
            get(&nodes.endpoint(name), "/v1/kv/b/k?r=3").status == 200
        });
    }
}

#[test]
fn a_node_that_starts_at_another_address_is_found_there() {
    let mut nodes = three();
    let before = nodes.peer_addr("c");
    nodes.kill("c");
    nodes.moves_house("c");
    nodes.serve("c", &[]);
    is_served_by_all(&nodes, &["a", "b", "c"]);
    let after = nodes.peer_addr("c");
    let status = get(&nodes.endpoint("a"), "/v1/cluster").text();
    assert!(status.contains(&after) && !status.contains(&before), "{status}");
    // The address is stored: a node that starts while the others are down still knows it.
    nodes.kill("a");
    nodes.serve("a", &[]);
    is_served_by_all(&nodes, &["a"]);
}

#[test]
fn a_cluster_whose_nodes_all_changed_address_reconnects_through_seeds() {
    let mut nodes = three();
    for name in ["a", "b", "c"] {
        nodes.kill(name);
        nodes.moves_house(name);
    }
    let seed = nodes.peer_addr("a");
    nodes.serve("a", &[]);
    for name in ["b", "c"] {
        nodes.serve(name, &["--seed", &seed]);
    }
    is_served_by_all(&nodes, &["a", "b", "c"]);
}

#[test]
fn dev_keeps_the_ports_that_were_last_requested() {
    let cluster = Cluster::start();
    assert_eq!(put(&cluster.endpoint(1), "/v1/kv/b/k?w=3", "v").status, 204);
    let cluster = cluster.moved();
    for endpoint in cluster.endpoints() {
        assert_eq!(get(&endpoint, "/v1/kv/b/k?r=3").text(), "v");
    }
    // Without port flags the ports stay the same.
    let cluster = cluster.crash_and_restart();
    for endpoint in cluster.endpoints() {
        assert_eq!(get(&endpoint, "/v1/kv/b/k?r=3").text(), "v");
    }
}

#[test]
fn set_address_reconnects_a_cluster_whose_nodes_all_changed_address() {
    let mut nodes = three();
    for name in ["a", "b", "c"] {
        nodes.kill(name);
        nodes.moves_house(name);
    }
    for name in ["a", "b", "c"] {
        nodes.serve(name, &[]);
    }
    // The nodes run but cannot reach each other, so none of them is ready.
    let ready = nodes.endpoint("a") + "/readyz";
    nodes.eventually("the node reports that it is not ready", |_| status(&ready) == Some(503));
    nodes.eventually("the node reports why it is not ready", |nodes| {
        get(&nodes.endpoint("a"), "/readyz").text().contains("set-address")
    });
    for name in ["b", "c"] {
        let addr = nodes.peer_addr(name);
        let http = nodes.endpoint(name).replace("http://", "");
        nodes.done("a", &["set-address", name, "--peer-address", &addr, "--http-address", &http, "--yes"]);
    }
    is_served_by_all(&nodes, &["a", "b", "c"]);
    let refused = nodes.declined("a", &["set-address", "b", "--peer-address", "0.0.0.0:7400", "--yes"]);
    assert!(refused.contains("is not one address"), "{refused}");
}

#[test]
fn a_node_that_reaches_too_few_peers_reports_that_it_is_not_ready() {
    let mut nodes = three();
    nodes.kill("b");
    let ready = nodes.endpoint("a") + "/readyz";
    assert_eq!(status(&ready), Some(200), "two of three nodes are enough");
    nodes.kill("c");
    nodes.eventually("the node is not ready", |_| status(&ready) == Some(503));
    let why = get(&nodes.endpoint("a"), "/readyz").text();
    assert!(why.contains("need 2") && why.contains("b, c cannot"), "{why}");
    nodes.serve("b", &[]);
    nodes.eventually("the node is ready again", |_| status(&ready) == Some(200));
}
