//! An operator's membership changes on real processes: invalid ones are refused, plans are right, and removed nodes end.

use std::time::Duration;

use crate::harness::grown::Grown;
use crate::harness::raw::{JSON, Unfinished, call, get, put, set_bucket};
use serde_json::{Value, json};

fn plan(nodes: &Grown, through: &str, changes: &[&str]) -> Value {
    let args = [&["change", "--dry-run", "--json"], changes].concat();
    serde_json::from_str(&nodes.done(through, &args)).unwrap()
}

#[test]
fn invalid_changes_are_refused_with_the_reason_and_change_nothing() {
    let mut nodes = Grown::new();
    // The seed does not run yet, and its name resolves to more than one address.
    let seed = nodes.peer_addr("a").replace("127.0.0.1", "localhost");
    nodes.serve("b", &["--seed", &seed]);
    nodes.founds("a");
    nodes.wait_for("a");
    nodes.eventually("the node waits", |nodes| nodes.moves("a")["waiting"] == json!(["b"]));
    let version = nodes.version("a");

    // A plan that is only shown, or not confirmed, changes nothing.
    let added = plan(&nodes, "a", &["add=b:50"]);
    assert_eq!((&added["applied"], &added["version"]), (&json!(false), &json!(version)));
    let shown = nodes.run("a", &["add", "b"]);
    assert_eq!(shown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&shown.stderr).contains("pass --yes"), "{shown:?}");

    for (args, reason) in [
        (&["remove", "a"][..], "0 nodes would remain to hold data, and keys have up to 3 replicas"),
        (&["weight", "a", "0"], "0 nodes would remain"),
        (&["change", "remove=a", "add=b"], "1 nodes would remain"),
        (&["remove", "z"], "the cluster has no member called z"),
        (&["weight", "b", "50"], "the cluster has no member called b"),
        (&["replace", "a", "z"], "no node called z waits to join; waiting are b"),
        (&["add", "a"], "a is a member already"),
        (&["change", "add=b", "add=b"], "a member is already called b"),
    ] {
        let declined = nodes.declined("a", &[args, &["--yes"]].concat());
        assert!(declined.contains(reason), "{args:?}: {declined}");
    }
    let malformed = nodes.declined("a", &["change", "add"]);
    assert!(malformed.contains("replace=NODE:WITH"), "{malformed}");

    // The plan was made for another version of the cluster than the one it would change.
    nodes.done("a", &["zone", "a", "x", "--yes"]);
    let stale = json!({"changes": [{"op": "add", "node": "b"}], "planned_on": version, "apply": true}).to_string();
    let reply = call(&nodes.endpoint("a"), "POST", "/v1/cluster/members", JSON, stale.as_bytes());
    assert_eq!(reply.error(), (400, "bad_request".to_owned()));
    assert!(reply.text().contains("the cluster has changed since this was planned"), "{}", reply.text());

    // Nodes that do not belong to the cluster report it and end.
    let alive = nodes.peer_addr("a");
    // Like a node that has lost its disk and starts with a flag of its first start.
    nodes.serve("c", &["--bootstrap", "--seed", &alive]);
    nodes.eventually("the node bootstraps no cluster and waits", |nodes| {
        nodes.moves("a")["waiting"].as_array().unwrap().iter().any(|waits| waits == "c")
    });
    nodes.kill("c");
    nodes.serve("d", &["--join"]);
    assert!(nodes.refused("d").contains("give one with --seed"));
    nodes.serve("nameless", &["--bootstrap"]);
    assert!(nodes.refused("nameless").contains("--cluster-name"), "a restart after a lost disk needs the name");
    nodes.serve("d", &["--seed", &alive, "--join", "--cluster-name", "shop"]);
    let refused = nodes.refused("d");
    assert!(refused.contains("a there belongs to the cluster test, and this node to the cluster shop"), "{refused}");
    nodes.serve("f", &["--seed", &alive, "--cluster-name", "test"]);
    nodes.eventually("a node that knows the cluster's name waits", |nodes| {
        nodes.moves("a")["waiting"].as_array().unwrap().iter().any(|waits| waits == "f")
    });
    nodes.kill("f");
    nodes.founds("other");
    nodes.wait_for("other");
    let both = [nodes.peer_addr("a"), nodes.peer_addr("other")].join(",");
    nodes.serve("e", &["--seed", &both]);
    assert!(nodes.refused("e").contains("belong to different clusters"));
    nodes.serve_as("namesake", "a", &["--seed", &alive]);
    let taken = nodes.refused("namesake");
    assert!(taken.contains("a node called a is a member of the cluster already"), "{taken}");

    let moves = nodes.moves("a");
    assert_eq!((&moves["transfers"], &moves["leaving"]), (&json!([]), &json!([])), "refused changes have no effect");
}

fn seems_down(nodes: &Grown, through: &str, name: &str) -> bool {
    let members = get(&nodes.endpoint(through), "/v1/cluster").json();
    let of_name = |member: &&Value| member["name"] == name;
    members["members"].as_array().unwrap().iter().find(of_name).unwrap()["liveness"]["status"] == "down"
}

const KEYS: u32 = 60;

fn all_keys_are_there(nodes: &Grown, through: &str) {
    for key in 0..KEYS {
        let path = format!("/v1/kv/carts/{key}?consistency=strong&timeout_ms=30000");
        let reply = get(&nodes.endpoint(through), &path);
        assert_eq!((reply.status, reply.text()), (200, format!("milk {key}")), "{key} through {through}");
    }
}

#[test]
fn one_plan_adds_several_nodes_and_alive_or_dead_nodes_are_removed() {
    let mut nodes = Grown::new();
    nodes.serve("a", &["--bootstrap", "--cluster-name", "test", "--zone", "x"]);
    nodes.wait_for("a");
    ["b", "c", "d", "e"].iter().for_each(|name| nodes.waits(name, "a"));
    let wait = nodes.run("a", &["change", "add=b", "add=c", "add=d:50", "add=e", "weight=d:100", "--yes", "--wait"]);
    assert!(wait.status.success(), "{wait:?}");
    let (plan_shown, progress) = (String::from_utf8_lossy(&wait.stdout), String::from_utf8_lossy(&wait.stderr));
    assert!(plan_shown.contains("Every partition is on its target nodes."), "{plan_shown}");
    assert!(progress.contains("of 256 partitions"), "{progress}");
    for key in 0..KEYS {
        let reply = put(&nodes.endpoint("a"), &format!("/v1/kv/carts/{key}?w=3"), &format!("milk {key}"));
        assert_eq!(reply.status, 204, "{}", reply.text());
    }

    // All nodes are up, so the size of each transfer is known.
    let (version, planned) = (nodes.version("a"), plan(&nodes, "c", &["remove=b", "zone=a:y/h"]));
    assert_eq!((&planned["estimated"], &planned["warnings"]), (&json!(false), &json!([])));
    let of_moves = |field: &str| {
        planned["transfers"].as_array().unwrap().iter().map(|moved| moved[field].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(
        (planned["bytes"].as_u64(), planned["keys"].as_u64()),
        (Some(of_moves("bytes")), Some(of_moves("keys")))
    );
    let shares = planned["nodes"].as_array().unwrap();
    let held_by_b = shares.iter().find(|share| share["node"] == "b").unwrap();
    assert_eq!((held_by_b["before"] != json!(0), &held_by_b["after"]), (true, &json!(0)));
    assert_eq!(nodes.version("c"), version, "a plan that is only shown changes nothing");

    // A dead node is replaced, and another node is removed in the same plan.
    nodes.kill("b");
    nodes.waits("f", "a");
    nodes.eventually("the node is seen to be down", |nodes| seems_down(nodes, "a", "b"));
    let warned = plan(&nodes, "a", &["replace=b:f", "remove=d"]);
    assert!(
        warned["warnings"][0].as_str().unwrap().contains("b is down and cannot hand over its data"),
        "{}",
        warned["warnings"]
    );
    assert!(warned["bytes"].as_u64().unwrap() > 0, "other nodes hold the dead node's records");
    nodes.done("a", &["change", "replace=b:f", "remove=d", "--yes", "--wait"]);
    assert!(nodes.ends("d").success(), "{}", nodes.log("d"));
    assert!(nodes.log("d").contains("left the cluster reason=\"the node was removed"), "{}", nodes.log("d"));
    nodes.serve("d", &[]);
    let again = nodes.refused("d");
    assert!(again.contains("d must not be served again: the node was removed") && again.contains("--seed"), "{again}");
    all_keys_are_there(&nodes, "f");

    // A dead node is removed. Then the cluster has the fewest nodes that it needs.
    nodes.kill("c");
    let removed: Value = serde_json::from_str(&nodes.done("a", &["remove", "c", "--yes", "--wait", "--json"]))
        .expect("standard output is JSON alone");
    assert_eq!(removed["applied"], true);
    all_keys_are_there(&nodes, "e");
    let too_few = nodes.declined("a", &["remove", "e", "--yes"]);
    assert!(too_few.contains("2 nodes would remain to hold data"), "{too_few}");
    // The other nodes learn of it a moment later.
    nodes.eventually("three members are left", |nodes| {
        let members = get(&nodes.endpoint("f"), "/v1/cluster").json();
        let mut names: Vec<&str> =
            members["members"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        names == ["a", "e", "f"]
    });
}

#[test]
fn partitions_that_lost_a_majority_of_homes_are_recovered_with_force() {
    let mut nodes = Grown::new();
    nodes.founds("a");
    nodes.wait_for("a");
    ["b", "c"].iter().for_each(|name| nodes.waits(name, "a"));
    nodes.done("a", &["add", "b", "c", "--yes", "--wait"]);
    let small = json!({"n": 1, "r": 1, "w": 1}).to_string();
    assert_eq!(set_bucket(&nodes.endpoint("a"), "small", &small).status, 200);
    for key in 0..KEYS {
        let reply = put(&nodes.endpoint("a"), &format!("/v1/kv/carts/{key}?w=3"), &format!("milk {key}"));
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
    let nothing = nodes.declined("a", &["change", "--force", "--yes"]);
    assert!(nothing.contains("nothing to force"), "{nothing}");

    ["b", "c"].iter().for_each(|name| nodes.kill(name));
    ["d", "e"].iter().for_each(|name| nodes.waits(name, "a"));
    nodes.eventually("both nodes are seen to be down", |nodes| {
        ["b", "c"].iter().all(|name| seems_down(nodes, "a", name))
    });
    let replace = ["replace=b:d", "replace=c:e"];
    let warned = plan(&nodes, "a", &replace);
    assert_eq!(warned["force_recovered"], json!([]));
    assert!(warned["warnings"].to_string().contains("256 partitions have lost a majority of their homes"), "{warned}");
    // Without `--force` the replacement transfers nothing. `--force` is given in a later change.
    nodes.done("a", &[&["change"], &replace[..], &["--yes"]].concat());
    let refused = get(&nodes.endpoint("a"), "/v1/kv/carts/1?consistency=strong&timeout_ms=1000");
    assert_eq!(refused.error(), (503, "unavailable".to_owned()));
    let forced = plan(&nodes, "a", &["remove=b", "--force"]);
    let force_recovered = forced["force_recovered"].as_array().unwrap();
    assert!(
        force_recovered.len() == 256
            && force_recovered.iter().all(|force_recovered| force_recovered["left"] == json!(["a"])),
        "{forced}"
    );
    nodes.done("a", &["change", "--force", "--yes", "--wait"]);
    all_keys_are_there(&nodes, "d");
    for key in 0..KEYS {
        let kept = get(&nodes.endpoint("e"), &format!("/v1/kv/small/{key}"));
        assert_eq!((kept.status, kept.error().1.as_str()), (404, "not_found"), "{}", kept.text());
        let reply = put(&nodes.endpoint("e"), &format!("/v1/kv/small/{key}?consistency=strong"), "bread");
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
}

#[test]
fn a_leaving_node_completes_its_clients_requests() {
    let mut nodes = Grown::new();
    nodes.founds("a");
    nodes.wait_for("a");
    ["b", "c", "d"].iter().for_each(|name| nodes.waits(name, "a"));
    nodes.done("a", &["add", "b", "c", "d", "--yes", "--wait"]);
    // A client's write is in flight while the node hands over its last partitions.
    let path = "/v1/kv/carts/slow?consistency=strong&timeout_ms=60000";
    let mut client = Unfinished::begin(&nodes.endpoint("d"), "PUT", path, b"mi", 4);
    nodes.done("a", &["remove", "d", "--yes"]);
    nodes.eventually("the node serves no further clients", |nodes| nodes.log("d").contains("serving no more clients"));
    // The rest of the write needs the other nodes. If the node did not wait for it, they would have recorded by then that the node has left.
    std::thread::sleep(Duration::from_secs(2));
    let reply = client.end(b"lk");
    assert_eq!(reply.status, 204, "{}: {}", reply.text(), nodes.log("d"));
    assert!(nodes.ends("d").success(), "{}", nodes.log("d"));
    nodes.done("a", &["moves", "--wait"]);
    let read = get(&nodes.endpoint("a"), "/v1/kv/carts/slow?consistency=strong");
    assert_eq!((read.status, read.text()), (200, "milk".to_owned()));
}

#[test]
fn a_node_carries_out_its_own_removal() {
    let mut nodes = Grown::new();
    nodes.founds("a");
    nodes.wait_for("a");
    ["b", "c", "d"].iter().for_each(|name| nodes.waits(name, "a"));
    nodes.done("a", &["add", "b", "c", "d", "--yes", "--wait"]);
    let output = nodes.run("d", &["remove", "d", "--yes", "--wait"]);
    let (said, progress) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("Every partition is on its target nodes."), "{said} {progress}");
    let lines: Vec<&str> = progress.lines().collect();
    assert!(lines.windows(2).all(|two| two[0] != two[1]), "without a terminal only changes are printed: {progress}");
    assert!(nodes.ends("d").success(), "{}", nodes.log("d"));
}

#[test]
fn no_weight_reduces_the_number_of_replicas() {
    let mut nodes = Grown::new();
    nodes.founds("a");
    nodes.wait_for("a");
    let status =
        |nodes: &Grown, field: &str| get(&nodes.endpoint("a"), "/v1/cluster").json()["replication"][field].clone();
    assert_eq!(
        (status(&nodes, "n"), status(&nodes, "data_nodes"), status(&nodes, "target")),
        (json!(3), json!(1), json!(1))
    );
    let alone = nodes.done("a", &["status"]);
    assert!(alone.contains("Keys have up to n=3 replicas, but 1 nodes can hold data: add nodes"), "{alone}");
    nodes.waits("b", "a");
    nodes.waits("c", "a");
    nodes.done("a", &["change", "add=b", "add=c", "--yes", "--wait"]);

    for (changes, capped) in [
        (&["weight=a:1", "weight=b:1000", "weight=c:1000"][..], json!([["b", 1000, 1.0], ["c", 1000, 1.0]])),
        (&["weight=c:60000", "weight=a:100", "weight=b:100"], json!([["c", 60000, 100.0]])),
    ] {
        let plan = plan(&nodes, "a", changes);
        let told = |capped: &Value| json!([capped["node"], capped["weight"], capped["counts_as"]]);
        let mut by_name: Vec<Value> = plan["capped"].as_array().unwrap().iter().map(told).collect();
        by_name.sort_by_key(Value::to_string);
        assert_eq!(Value::from(by_name), capped, "{plan}");
        assert!(plan["warnings"].to_string().contains("a node holds at most one replica of each partition"), "{plan}");
        nodes.done("a", &[&["change", "--yes", "--wait"], changes].concat());
        let homes = get(&nodes.endpoint("a"), "/v1/cluster/ring").json()["homes"].clone();
        assert!(homes.as_array().unwrap().iter().all(|homes| homes.as_array().unwrap().len() == 3), "{homes}");
        assert_eq!((status(&nodes, "under_replicated"), status(&nodes, "fewest")), (json!(0), json!(3)));
    }
    let verify = ["verify", "--settled", "--json", "--node", &nodes.endpoint("a")];
    let verified = std::process::Command::new(crate::harness::CARTWHEEL).args(verify).output().unwrap();
    let told: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&told["equal"], &told["under_replicated"]), (&json!(true), &json!(0)), "{told}");
}
