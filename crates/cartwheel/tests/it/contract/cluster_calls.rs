//! `/v1/cluster/...`, `/healthz` and `/readyz`: nodes agree on the cluster, and report their verdicts and health.

use crate::harness::Cluster;
use crate::harness::raw::{call, get};

#[test]
fn all_nodes_report_the_same_cluster() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    let ring = get(&nodes[0], "/v1/cluster/ring").json();
    assert_eq!((ring["partitions"].as_u64(), ring["owners"].as_array().map(Vec::len)), (Some(256), Some(256)));
    let members = ring["members"].as_array().unwrap();
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(get(node, "/v1/cluster/ring").json(), ring);
        let name = format!("node-{}", at + 1);
        let member = members.iter().find(|member| member["name"] == name.as_str()).unwrap();
        assert_eq!(format!("http://{}", member["http"].as_str().unwrap()), *node);
        assert!(["id", "zone", "host", "resp", "peers"].iter().all(|field| member[field].is_string()), "{member}");
        assert_eq!(call(node, "HEAD", "/v1/cluster/ring", &[], b"").status, 200);
    }
    for key in ["carts/alice", "b/%00%ff", "b/a/b", "%2F/."] {
        let path = format!("/v1/cluster/locate/{key}");
        let located = get(&nodes[0], &path).json();
        let token = u128::from_str_radix(located["token"].as_str().unwrap(), 16).unwrap();
        let partition = located["partition"].as_u64().unwrap();
        assert_eq!(u128::from(partition), token >> 120, "the ring has 256 equal partitions");
        let list = located["preference_list"].as_array().unwrap();
        let mut names: Vec<_> = list.iter().map(|replica| replica["node"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["node-1", "node-2", "node-3"]);
        assert!(list.iter().all(|replica| replica["role"] == "home"));
        let owner = ring["owners"][partition as usize].as_u64().unwrap() as usize;
        assert_eq!(list[0]["node"], members[owner]["name"]);
        assert!(nodes.iter().all(|node| get(node, &path).json() == located));
    }
}

#[test]
fn each_node_reports_its_verdict_on_the_others() {
    let cluster = Cluster::start();
    for (at, node) in cluster.endpoints().iter().enumerate() {
        let own = format!("node-{}", at + 1);
        for member in get(node, "/v1/cluster").json()["members"].as_array().unwrap() {
            let liveness = &member["liveness"];
            assert_eq!(liveness.is_null(), member["name"] == own.as_str(), "{member}");
            if !liveness.is_null() {
                assert!(["alive", "suspect", "down"].iter().any(|status| liveness["status"] == *status), "{member}");
                assert!(liveness["since"].is_string() && liveness["why"].is_string(), "{member}");
            }
        }
    }
}

#[test]
fn nodes_report_that_they_live_and_are_ready() {
    let mut cluster = Cluster::start();
    for node in cluster.endpoints() {
        for (path, status) in [("/healthz", "alive"), ("/readyz", "ready")] {
            let said = get(&node, path);
            assert_eq!((said.status, &said.json()["status"]), (200, &status.into()));
        }
    }
    // A node without its peers still lives, and is ready to serve the requests that it can.
    (1..=3).for_each(|node| cluster.kill(node));
    cluster.restart(1);
    assert_eq!(get(&cluster.endpoint(1), "/healthz").status, 200);
    assert_eq!(get(&cluster.endpoint(1), "/readyz").status, 200);
}
