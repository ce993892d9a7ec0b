//! Bucket settings, set from the shell and over HTTP on a real cluster: changes reach all nodes, survive crashes, and n changes under load.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::grown::Grown;
use crate::harness::raw::{get, put, put_seen};
use crate::harness::{CARTWHEEL, Cluster};
use cartwheel_client::{BucketChange, Error};
use serde_json::json;

fn change(n: Option<u8>, r: Option<u8>, w: Option<u8>) -> BucketChange {
    BucketChange { n, r, w, ..BucketChange::default() }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, String) {
    match result {
        Err(Error::Refused { code, message }) => (code, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn settings_change_through_any_node_and_survive_a_crash() {
    let cluster = Cluster::start();
    let (one, two, three) = (cluster.client(1), cluster.client(2), cluster.client(3));
    let settings = one.bucket("carts").await.unwrap();
    assert_eq!((settings.n, settings.r, settings.w, settings.max_value_bytes), (3, 2, 2, 1_048_576));
    assert_eq!(
        (settings.conflict.as_str(), settings.durability.as_str(), settings.sloppy),
        ("siblings", "fsync", true)
    );

    let small = BucketChange { max_value_bytes: Some(4), w: Some(3), ..BucketChange::default() };
    let changed = two.set_bucket("carts", &small).await.unwrap();
    assert_eq!((changed.w, changed.r, changed.max_value_bytes), (3, 2, 4));
    // The node that made the change has waited for the others.
    assert_eq!(three.bucket("carts").await.unwrap(), changed);
    let (code, _) = refusal(three.put("carts", "alice", "bread", None).await);
    assert_eq!(code, "too_large");
    assert_eq!(one.put("carts", "alice", "milk", None).await.unwrap().acks.home, 3);

    let last = BucketChange { conflict: Some("lww".to_owned()), ..BucketChange::default() };
    one.set_bucket("sessions/\u{e4}", &last).await.unwrap();
    two.put("sessions/\u{e4}", "s", "1", None).await.unwrap();
    three.put("sessions/\u{e4}", "s", "2", None).await.unwrap();
    assert_eq!(one.get("sessions/\u{e4}", "s").await.unwrap().values.len(), 1, "a reader sees the last write");

    let cluster = cluster.crash_and_restart();
    let listed = cluster.client(1).buckets().await.unwrap();
    let names: Vec<_> = listed.buckets.iter().map(|bucket| bucket.bucket.as_str()).collect();
    assert_eq!(names, ["carts", "sessions%2F%C3%A4"]);
    assert_eq!(listed.buckets[0].settings, changed);
}

/// Starts a cluster of these nodes with a bucket that no stand-in serves.
fn grown(names: &[&str]) -> Grown {
    let mut nodes = Grown::new();
    let (first, others) = names.split_first().unwrap();
    nodes.founds(first);
    nodes.wait_for(first);
    others.iter().for_each(|name| nodes.waits(name, first));
    nodes.done(first, &[&["add"], others, &["--yes", "--wait"]].concat());
    set(&nodes.endpoint(first), "--sloppy false");
    nodes
}

/// Runs `cartwheel bucket set cache FLAGS` and returns its standard error.
fn set(node: &str, flags: &str) -> String {
    let args = ["bucket", "set", "cache"].into_iter().chain(flags.split(' ')).chain(["--node", node]);
    let output = Command::new(CARTWHEEL).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{flags}: {said}");
    said
}

/// Runs the only client that writes its keys: it reads each through one node and replaces it through another until it is stopped.
/// Returns the final value of each key.
fn works(endpoints: &[String], client: usize, stop: &AtomicBool) -> Vec<(String, String)> {
    let mut held: Vec<(String, String)> =
        (0..20).map(|key| (format!("/v1/kv/cache/{client}-{key}"), "0".to_owned())).collect();
    let endpoint = |number: usize| &endpoints[number % endpoints.len()];
    for (path, value) in &held {
        assert_eq!(put(endpoint(client), path, value).status, 204);
    }
    let mut number = 1;
    while !stop.load(Ordering::Relaxed) {
        let (path, value) = &mut held[number % 20];
        let read = get(endpoint(number), path);
        assert_eq!((read.status, read.text()), (200, value.clone()), "{path}");
        *value = number.to_string();
        let written = put_seen(endpoint(number + 1 + client), path, read.context(), value);
        assert_eq!(written.status, 204, "{path}: {}", written.text());
        number += 1;
    }
    held
}

/// The number of nodes that hold each key of the bucket, and whether all of them are its homes.
fn replicas(nodes: &Grown, names: &[&str]) -> BTreeMap<String, (usize, bool)> {
    let mut found: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for (name, partition) in names.iter().flat_map(|name| (0..256).map(move |partition| (name, partition))) {
        let page = get(&nodes.endpoint(name), &format!("/v1/cluster/partitions/{partition}/digests")).json();
        for record in page["records"].as_array().unwrap_or_else(|| panic!("{page}")) {
            let (count, are_homes) =
                found.entry(record["storage_key"].as_str().unwrap().to_owned()).or_insert((0, true));
            *count += 1;
            *are_homes &= record["home"] == true;
        }
    }
    found
}

/// While n goes up and down and a mistyped n is corrected, no request is refused and every read returns the write before it. In the end each
/// key is on its homes and on no other node.
#[test]
fn n_of_a_bucket_with_keys_goes_up_and_down_under_load() {
    let names = ["a", "b", "c", "d", "e"];
    let nodes = grown(&names);
    let endpoints: Vec<String> = names.iter().map(|name| nodes.endpoint(name)).collect();
    let stop = AtomicBool::new(false);
    let held: Vec<(String, String)> = std::thread::scope(|scope| {
        let (endpoints, stop) = (&endpoints, &stop);
        let clients: Vec<_> = (0..4).map(|client| scope.spawn(move || works(endpoints, client, stop))).collect();
        // R + W always exceeds n.
        for (flags, n) in
            [("--n 2", 2), ("--n 3", 3), ("--r 3 --w 3", 3), ("--n 5", 5), ("--n 4", 4), ("--n 16", 5), ("--n 3", 3)]
        {
            let warning = set(&endpoints[n % 5], flags);
            assert_eq!(warning.contains("the cluster has 5 data nodes"), flags == "--n 16", "{flags}: {warning}");
            nodes.eventually("the partitions have the new n", |nodes| {
                let is_settled = nodes.moves("a")["transfers"] == json!([]);
                is_settled && replicas(nodes, &names).values().all(|&replicas| replicas == (n, true))
            });
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(replicas(&nodes, &names).len(), held.len());
    for (path, value) in held {
        assert_eq!(get(&endpoints[0], &format!("{path}?r=1")).text(), value, "{path}");
    }
    let verified = Command::new(CARTWHEEL).args(["verify", "--node", &endpoints[0]]).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn a_node_that_was_down_receives_a_settings_change() {
    let mut cluster = Cluster::start();
    cluster.kill(2);
    let changed = cluster.client(1).set_bucket("carts", &change(None, Some(1), None)).await.unwrap();
    cluster.restart(2);
    let two = cluster.client(2);
    // The node asks a peer each second.
    let mut tries = 0;
    while two.bucket("carts").await.unwrap() != changed {
        tries += 1;
        assert!(tries < 600, "the node never receives the change");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn writes_with_os_durability_survive_a_kill_of_all_nodes() {
    let cluster = Cluster::start();
    let os = BucketChange { durability: Some("os".to_owned()), ..BucketChange::default() };
    assert_eq!(cluster.client(1).set_bucket("sessions", &os).await.unwrap().durability, "os");
    let client = cluster.client_of_all();
    for number in 0..50 {
        client.put("sessions", format!("s{number}"), format!("v{number}"), None).await.unwrap();
    }
    let cluster = cluster.crash_and_restart();
    for number in 0..50 {
        let found = cluster.client(1 + number % 3).get("sessions", format!("s{number}")).await.unwrap();
        assert_eq!(found.values.len(), 1, "s{number}");
    }
}

#[tokio::test]
async fn invalid_settings_are_refused_and_change_nothing() {
    let cluster = Cluster::start();
    let client = cluster.client(1);
    let word = |word: &str| Some(word.to_owned());
    let changes = [
        change(Some(0), None, None),
        change(Some(17), None, None),
        change(None, Some(4), None),
        change(None, None, Some(0)),
        BucketChange { conflict: word("newest"), ..BucketChange::default() },
        BucketChange { durability: word("memory"), ..BucketChange::default() },
        BucketChange { max_value_bytes: Some(0), ..BucketChange::default() },
        BucketChange { max_value_bytes: Some(u32::MAX), ..BucketChange::default() },
    ];
    for change in changes {
        let (code, message) = refusal(client.set_bucket("carts", &change).await);
        assert_eq!(code, "bad_request", "{change:?}");
        assert!(message.len() > 20, "{message}");
    }
    let (code, _) = refusal(client.set_bucket("b".repeat(256), &change(None, Some(1), None)).await);
    assert_eq!(code, "bad_request");
    assert!(client.buckets().await.unwrap().buckets.is_empty());
}
