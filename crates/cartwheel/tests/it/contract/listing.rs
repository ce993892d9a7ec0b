//! `GET /v1/kv/{bucket}`, `DELETE /v1/buckets/{bucket}` and the sizes in `GET /v1/buckets`: through any node, and while nodes are away.

use std::time::{Duration, Instant};

use crate::harness::raw::{Reply, call, get, put, put_seen, set_bucket};
use crate::harness::{Cluster, PATIENCE};

/// All keys that a bucket's pages list, in the order in which they do.
fn all_keys(nodes: &[String], query: &str) -> Vec<String> {
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    for page in 0.. {
        let node = &nodes[page % nodes.len()];
        let found = get(node, &format!("/v1/kv/listed?{query}{cursor}"));
        assert_eq!(found.status, 200, "{}", found.text());
        let found = found.json();
        keys.extend(found["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()));
        match found["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    keys
}

fn sorted(mut keys: Vec<String>) -> Vec<String> {
    keys.sort();
    keys
}

/// Waits until a node's sizes of the bucket are these, in keys.
fn wait_for_size(node: &str, keys: Option<u64>) {
    let begun = Instant::now();
    loop {
        let found = get(node, "/v1/buckets").json();
        let buckets = found["buckets"].as_array().unwrap();
        let size = buckets.iter().find(|bucket| bucket["bucket"] == "listed").map(|bucket| bucket["keys"].as_u64());
        if size == Some(keys) || keys == Some(0) && size.is_none() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn delete_bucket(node: &str) -> Reply {
    call(node, "DELETE", "/v1/buckets/listed", &[], b"")
}

#[test]
fn pages_list_each_key_with_a_value_once() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    assert_eq!(get(&nodes[0], "/v1/kv/listed").json(), serde_json::json!({ "keys": [] }));
    let mut wanted: Vec<String> = (0..300).map(|number| format!("user-{number}")).collect();
    wanted.extend(["a%20b%FF", "path/to/it", "%E2%82%AC"].map(str::to_owned));
    for (number, key) in wanted.iter().enumerate() {
        assert_eq!(put(&nodes[number % 3], &format!("/v1/kv/listed/{key}"), "12345").status, 204);
    }
    // Other buckets, deleted keys and expired ones are not listed.
    put(&nodes[0], "/v1/kv/listed2/other", "v");
    let gone = get(&nodes[0], "/v1/kv/listed/user-7");
    let context = [("cartwheel-context", gone.context())];
    assert_eq!(call(&nodes[0], "DELETE", "/v1/kv/listed/user-7", &context, b"").status, 204);
    wanted.retain(|key| key != "user-7");
    nodes.iter().for_each(|node| wait_for_size(node, Some(302)));
    assert_eq!(call(&nodes[0], "PUT", "/v1/kv/listed/short", &[("cartwheel-ttl", "1")], b"v").status, 204);
    std::thread::sleep(Duration::from_millis(1_100));

    let listed = all_keys(&nodes, "limit=7&r=2");
    assert_eq!(sorted(listed.clone()), sorted(wanted.clone()), "each once, whichever node lists a page");
    assert_eq!(all_keys(&nodes, "limit=1000&r=2"), listed, "in one order, that of the tokens");
    let prefixed = all_keys(&nodes, "prefix=user-1&limit=20&r=2");
    let expected = wanted.iter().filter(|key| key.starts_with("user-1")).cloned().collect();
    assert_eq!(sorted(prefixed), sorted(expected));
    assert_eq!(all_keys(&nodes, "prefix=a%20b%FF&r=2"), ["a%20b%FF"]);

    // A node that is away is not missed, with one replica of each partition and with two.
    cluster.kill(3);
    for query in ["limit=50", "limit=50&r=2"] {
        assert_eq!(sorted(all_keys(&nodes[..2], query)), sorted(wanted.clone()), "{query}");
    }
    let too_many = get(&nodes[0], "/v1/kv/listed?r=3&timeout_ms=2500");
    assert_eq!(too_many.status, 503, "{}", too_many.text());
}

#[test]
fn what_cannot_be_listed_is_refused_with_the_reason() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    let long = format!("prefix={}", "x".repeat(5_000));
    for query in ["limit=0", "limit=1001", "limit=x", "r=0", "cursor=%25", "timeout_ms=0", "page=2", &long] {
        let refused = get(&node, &format!("/v1/kv/listed?{query}"));
        assert_eq!(refused.error().0, 400, "{query}: {}", refused.text());
    }
    // A cursor of a client's own making lists from there on.
    assert_eq!(get(&node, "/v1/kv/listed?cursor=_____________________w").status, 200);

    assert_eq!(set_bucket(&node, "listed", r#"{"index": false}"#).status, 200);
    assert_eq!(put(&node, "/v1/kv/listed/k", "v").status, 204);
    let refused = get(&node, "/v1/kv/listed");
    assert!(refused.status == 400 && refused.text().contains("no index"), "{}", refused.text());
    let sizes = get(&node, "/v1/buckets").json();
    assert_eq!(sizes["buckets"][0]["index"], false, "{sizes}");
    wait_for_size(&node, Some(1));
    for change in [r#"{"index": true}"#, r#"{"placement": "slot"}"#, r#"{"placement": {"prefix": 4}}"#] {
        let refused = set_bucket(&node, "listed", change);
        assert!(refused.status == 400 && refused.text().contains("holds 1 keys"), "{change}: {}", refused.text());
    }
    assert_eq!(get(&node, "/v1/kv/listed/k").text(), "v");
    for change in [r#"{"placement": "zone"}"#, r#"{"placement": {"prefix": 0}}"#, r#"{"index": 1}"#] {
        assert_eq!(set_bucket(&node, "empty", change).status, 400, "{change}");
    }
    // Once it is empty it can be set, and then be listed.
    assert_eq!(delete_bucket(&node).status, 204);
    let set = set_bucket(&node, "listed", r#"{"index": true, "placement": {"prefix": 4}}"#);
    assert_eq!(set.status, 200, "{}", set.text());
    put(&node, "/v1/kv/listed/doc1-a", "v");
    put(&node, "/v1/kv/listed/doc1-b", "v");
    assert_eq!(all_keys(&[node], "r=2"), ["doc1-a", "doc1-b"]);
}

#[test]
fn a_deleted_bucket_is_empty_and_stays_so_when_a_node_comes_back() {
    let mut cluster = Cluster::start();
    let nodes = cluster.endpoints();
    assert_eq!(set_bucket(&nodes[0], "listed", r#"{"r": 1}"#).status, 200);
    for number in 0..100 {
        assert_eq!(put(&nodes[0], &format!("/v1/kv/listed/k{number}"), "old").status, 204);
    }
    assert_eq!(put(&nodes[0], "/v1/kv/listed2/k", "other").status, 204);
    let before = get(&nodes[0], "/v1/kv/listed/k1");
    cluster.kill(3);
    let deleted = delete_bucket(&nodes[1]);
    assert_eq!((deleted.status, deleted.text().as_str()), (204, ""));
    for node in &nodes[..2] {
        assert_eq!(get(node, "/v1/kv/listed/k1").status, 404);
        assert_eq!(get(node, "/v1/kv/listed").json()["keys"], serde_json::json!([]));
        wait_for_size(node, Some(0));
        assert_eq!(get(node, "/v1/kv/listed2/k").text(), "other", "another bucket keeps its keys");
        assert_eq!(get(node, "/v1/buckets/listed").json()["r"], 1, "its settings stay");
    }
    // A write with a context from before is a write that has seen nothing of the new generation.
    assert_eq!(put(&nodes[0], "/v1/kv/listed/k1", "new").status, 204);
    assert_eq!(put_seen(&nodes[1], "/v1/kv/listed/k1", before.context(), "newer").status, 204);
    assert_eq!(sorted(get(&nodes[0], "/v1/kv/listed/k1").values()), ["new", "newer"]);

    // Node 3 has all 100 keys on its disk, and is asked by itself.
    cluster.restart(3);
    let begun = Instant::now();
    while get(&nodes[2], "/v1/kv/listed/k2").status != 404 {
        assert!(begun.elapsed() < PATIENCE, "node 3 never learned of it");
        std::thread::sleep(Duration::from_millis(50));
    }
    for number in (0..100).filter(|&number| number != 1) {
        for node in &nodes {
            assert_eq!(get(node, &format!("/v1/kv/listed/k{number}")).status, 404, "k{number}");
        }
    }
    assert_eq!(all_keys(&nodes, "limit=10&r=3"), ["k1"]);
    nodes.iter().for_each(|node| wait_for_size(node, Some(1)));
    // The records of the old generation leave the disks.
    let records = |node: &String| -> usize {
        let page = |partition: u32| get(node, &format!("/v1/cluster/partitions/{partition}/digests")).json();
        (0..256).map(|partition| page(partition)["records"].as_array().unwrap().len()).sum()
    };
    let begun = Instant::now();
    while nodes.iter().map(records).sum::<usize>() != 3 * 2 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", nodes.iter().map(records).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(200));
    }
}
