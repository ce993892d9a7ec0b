//! Nodes that are started elsewhere than before, one of them or all at once, and what a node says that reaches too few.

mod harness;

use harness::grown::Grown;
use harness::raw::{get, put};
use harness::{Cluster, status};

/// Three members, all ready, and a key.
fn three() -> Grown {
    let nodes = Grown::of(&["a", "b", "c"]);
    nodes.eventually("all hold what they are to hold", |nodes| {
        nodes.moves("a")["transfers"].as_array().unwrap().is_empty()
    });
    assert_eq!(put(&nodes.endpoint("a"), "/v1/kv/b/k?w=3", "v").status, 204);
    nodes
}

fn is_served_by_all(nodes: &Grown, names: &[&str]) {
    for name in names {
        nodes.wait_for(name);
        nodes.eventually("all three are reached", |nodes| get(&nodes.endpoint(name), "/v1/kv/b/k?r=3").status == 200);
    }
}

#[test]
fn a_node_that_is_started_elsewhere_is_found_there() {
    let mut nodes = three();
    let before = nodes.peer_addr("c");
    nodes.kill("c");
    nodes.moves_house("c");
    nodes.serve("c", &[]);
    is_served_by_all(&nodes, &["a", "b", "c"]);
    let after = nodes.peer_addr("c");
    let status = get(&nodes.endpoint("a"), "/v1/cluster").text();
    assert!(status.contains(&after) && !status.contains(&before), "{status}");
    // It is remembered: whoever starts with the others away knows it still.
    nodes.kill("a");
    nodes.serve("a", &[]);
    is_served_by_all(&nodes, &["a"]);
}

#[test]
fn a_cluster_that_has_moved_as_a_whole_finds_itself_by_seeds() {
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
fn the_ports_of_a_cluster_on_one_machine_are_those_that_were_asked_for_last() {
    let cluster = Cluster::start();
    assert_eq!(put(&cluster.endpoint(1), "/v1/kv/b/k?w=3", "v").status, 204);
    let cluster = cluster.moved();
    for endpoint in cluster.endpoints() {
        assert_eq!(get(&endpoint, "/v1/kv/b/k?r=3").text(), "v");
    }
    // Nothing is said of ports, so they stay.
    let cluster = cluster.crash_and_restart();
    for endpoint in cluster.endpoints() {
        assert_eq!(get(&endpoint, "/v1/kv/b/k?r=3").text(), "v");
    }
}

#[test]
fn a_cluster_that_has_moved_as_a_whole_is_told_where_its_nodes_are() {
    let mut nodes = three();
    for name in ["a", "b", "c"] {
        nodes.kill(name);
        nodes.moves_house(name);
    }
    for name in ["a", "b", "c"] {
        nodes.serve(name, &[]);
    }
    // They are up, and of no use to anybody.
    let ready = nodes.endpoint("a") + "/readyz";
    nodes.eventually("it says that it is not ready", |_| status(&ready) == Some(503));
    nodes.eventually("it says why", |nodes| get(&nodes.endpoint("a"), "/readyz").text().contains("set-address"));
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
fn a_node_that_reaches_too_few_is_not_ready_and_says_so() {
    let mut nodes = three();
    nodes.kill("b");
    let ready = nodes.endpoint("a") + "/readyz";
    assert_eq!(status(&ready), Some(200), "two of three are enough");
    nodes.kill("c");
    nodes.eventually("it is not ready", |_| status(&ready) == Some(503));
    let why = get(&nodes.endpoint("a"), "/readyz").text();
    assert!(why.contains("need 2") && why.contains("b, c cannot"), "{why}");
    nodes.serve("b", &[]);
    nodes.eventually("it is ready again", |_| status(&ready) == Some(200));
}
