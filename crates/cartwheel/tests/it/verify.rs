//! `cartwheel verify` on real nodes: equal replicas pass, and each difference is found and named. Writes in flight are no differences.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_core::value::key::Key;
use cartwheel_storage::{Batch, Durability, FjallOptions, FjallStore, Store as _};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::raw::{call, get, put, set_bucket};
use crate::harness::{CARTWHEEL, Cluster, PATIENCE};

/// A verification's JSON report and exit status.
struct Verified {
    status: i32,
    told: Value,
}

fn run(cluster: &Cluster, args: &[&str]) -> Output {
    let nodes = cluster.endpoints().into_iter().flat_map(|node| ["--node".to_owned(), node]);
    Command::new(CARTWHEEL).arg("verify").args(args).args(nodes).output().unwrap()
}

fn verify(cluster: &Cluster, args: &[&str]) -> Verified {
    let output = run(cluster, &[&["--json"], args].concat());
    let told = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no summary: {}", String::from_utf8_lossy(&output.stderr)));
    Verified { status: output.status.code().unwrap(), told }
}

impl Verified {
    fn number(&self, field: &str) -> u64 {
        self.told[field].as_u64().unwrap_or_else(|| panic!("{field}: {}", self.told))
    }

    /// The keys that differ, with the state at each node or, where it has a digest, the digest's length.
    fn differences(&self) -> Vec<(String, Vec<String>)> {
        let text = |held: &Value| held.as_str().unwrap().to_owned();
        let replicas = |difference: &Value| {
            let mut held: Vec<(String, String)> = difference["replicas"]
                .as_array()
                .unwrap()
                .iter()
                .map(|replica| (text(&replica["node"]), text(&replica["held"])))
                .collect();
            held.sort();
            held.into_iter().map(|(_, held)| if held.len() == 32 { "a digest".to_owned() } else { held }).collect()
        };
        let differences = self.told["differences"].as_array().unwrap();
        differences.iter().map(|difference| (text(&difference["key"]), replicas(difference))).collect()
    }
}

/// Changes the stores of a node that does not run.
fn edit(cluster: &Cluster, node: u16, mut change: impl FnMut(&mut FjallStore)) {
    for shard in 0..2 {
        let dir = cluster.node_dir(node).join(format!("shard-{shard}"));
        change(&mut FjallStore::open(&dir, FjallOptions::default()).unwrap());
    }
}

fn storage_key(bucket: &'static str, key: &str) -> Bytes {
    Key::new(bucket.into(), key.to_owned().into()).unwrap().storage_key()
}

fn fill(cluster: &Cluster, keys: u32) {
    for key in 0..keys {
        let path = format!("/v1/kv/carts/{key}?w=3");
        assert_eq!(put(&cluster.endpoint(1 + (key % 3) as u16), &path, "milk").status, 204);
    }
}

#[test]
fn equal_replicas_are_verified_and_an_unreachable_node_is_reported() {
    let cluster = Cluster::start();
    let empty = verify(&cluster, &[]);
    assert_eq!((empty.status, empty.number("keys")), (0, 0), "{}", empty.told);
    fill(&cluster, 600);
    assert_eq!(call(&cluster.endpoint(1), "DELETE", "/v1/kv/carts/7?w=3", &[], b"").status, 204);
    put(&cluster.endpoint(1), "/v1/kv/carts/8?w=3", "a sibling");
    let all = verify(&cluster, &["--settled"]);
    assert_eq!((all.status, all.number("keys"), all.number("records")), (0, 600, 1_800), "{}", all.told);
    assert!(all.told["equal"].as_bool().unwrap() && all.number("partitions") == 256);
    let told = String::from_utf8(run(&cluster, &[]).stdout).unwrap();
    assert!(told.contains("1800 records of 600 keys") && told.contains("EQUAL: every key is equal"), "{told}");

    cluster.kill(3);
    let without = verify(&cluster, &[]);
    assert_eq!((without.status, without.number("differing"), without.number("unverified")), (1, 0, 600));
    assert_eq!(without.told["unreachable"][0]["node"], "node-3", "{}", without.told);
    let told = String::from_utf8(run(&cluster, &[]).stdout).unwrap();
    assert!(told.contains("cannot read node-3") && told.contains("NOT EQUAL"), "{told}");
}

#[test]
fn differences_on_disk_are_found_and_named() {
    let mut cluster = Cluster::start();
    fill(&cluster, 100);
    assert_eq!(put(&cluster.endpoint(1), "/v1/kv/carts/5?w=3", "a second sibling").status, 204);
    // The replica's record from before the second sibling. A record of another key, stored under this key, would count as damaged.
    let (lost, spoilt) = (storage_key("carts", "3"), storage_key("carts", "4"));
    let digest = || "a digest".to_owned();
    let expected = BTreeSet::from([
        ("carts/3".to_owned(), vec![digest(), "absent".to_owned(), digest()]),
        ("carts/4".to_owned(), vec![digest(), "damaged".to_owned(), digest()]),
    ]);
    // The nodes heal the differences during the verification, so it may take several attempts to see all of them.
    let mut seen = BTreeSet::new();
    for attempt in 1.. {
        cluster.stop(2, Signal::KILL);
        edit(&cluster, 2, |store| {
            let mut batch = Batch::new();
            if store.get(&lost).unwrap().is_some() {
                batch.remove(lost.clone());
            }
            if let Some(record) = store.get(&spoilt).unwrap() {
                let mut record = record.to_vec();
                *record.last_mut().unwrap() ^= 1;
                batch.put(spoilt.clone(), record.into());
            }
            store.commit(batch, Durability::Synced).unwrap();
        });
        cluster.restart(2);
        let found = verify(&cluster, &["--patience", "0"]);
        let differences = found.differences();
        assert_eq!(found.number("differing"), differences.len() as u64, "{}", found.told);
        assert_eq!(found.status, i32::from(!differences.is_empty()), "{}", found.told);
        assert_eq!((found.number("keys"), found.number("unverified")), (100, 0), "{}", found.told);
        // A node that has noticed the damage by itself holds an empty record until it is healed.
        seen.extend(differences.into_iter().filter(|(_, held)| held.iter().all(|held| held != "empty")));
        assert!(seen.is_subset(&expected), "{}", found.told);
        if seen == expected {
            break;
        }
        assert!(attempt < 20, "of {expected:?} only {seen:?} was found");
        let healed = verify(&cluster, &["--patience", "300"]);
        assert_eq!(healed.status, 0, "{}", healed.told);
    }

    // Reads heal the keys. Then a replica that missed a write while it was down holds an older state, which is a difference, too.
    for key in [3, 4] {
        let path = format!("/v1/kv/carts/{key}?r=3&timeout_ms=30000");
        assert_eq!(get(&cluster.endpoint(2), &path).status, 200);
    }
    let healed = verify(&cluster, &["--patience", "300"]);
    assert_eq!(healed.status, 0, "{}", healed.told);
}

#[test]
fn records_at_nodes_other_than_homes_are_hints() {
    let mut cluster = Cluster::start();
    let settings = set_bucket(&cluster.endpoint(1), "one", r#"{"n":1,"r":1,"w":1}"#);
    assert_eq!(settings.status, 200, "{}", settings.text());
    assert_eq!(put(&cluster.endpoint(1), "/v1/kv/one/k", "milk").status, 204);
    // The partitions change to the bucket's n one after the other. Nodes that are no longer homes purge the key.
    let begun = Instant::now();
    loop {
        let alone = verify(&cluster, &["--settled"]);
        if (alone.status, alone.number("keys"), alone.number("records")) == (0, 1, 1) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the key is not on a single node within {PATIENCE:?}: {}", alone.told);
        std::thread::sleep(Duration::from_millis(100));
    }

    let located = get(&cluster.endpoint(1), "/v1/cluster/locate/one/k").json();
    let node = |at: usize| -> u16 {
        located["preference_list"][at]["node"].as_str().unwrap().strip_prefix("node-").unwrap().parse().unwrap()
    };
    let (home, standin) = (node(0), node(1));
    (1..=3).for_each(|node| cluster.kill(node));
    let storage_key = storage_key("one", "k");
    let mut record = None;
    edit(&cluster, home, |store| record = record.take().or(store.get(&storage_key).unwrap()));
    let record = record.unwrap();
    // Only one of the two shards serves the key. The other is never asked for it, so both may get the record.
    edit(&cluster, standin, |store| {
        let mut batch = Batch::new();
        batch.put(storage_key.clone(), record.clone());
        store.commit(batch, Durability::Synced).unwrap();
    });
    (1..=3).for_each(|node| cluster.restart(node));
    let hinted = verify(&cluster, &[]);
    assert_eq!((hinted.status, hinted.number("hints"), hinted.number("differing")), (0, 1, 0), "{}", hinted.told);
    assert_eq!(verify(&cluster, &["--settled"]).status, 1);
}

#[test]
fn keys_with_writes_in_flight_are_no_differences() {
    let cluster = Cluster::start();
    fill(&cluster, 200);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for writer in 0..3 {
            let (cluster, done) = (&cluster, &done);
            threads.spawn(move || {
                let mut number = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    // Half of the writes go to a single key.
                    let key = if number.is_multiple_of(2) { 0 } else { number % 200 };
                    let node = cluster.endpoint(writer + 1);
                    let path = format!("/v1/kv/carts/{key}?w=1");
                    let context = get(&node, &path.replace("w=", "r=")).context().to_owned();
                    let value = format!("{writer} {number}");
                    call(&node, "PUT", &path, &[("cartwheel-context", &context)], value.as_bytes());
                    number += 1;
                }
            });
        }
        let verified: Vec<Verified> = (0..5).map(|_| verify(&cluster, &["--patience", "10"])).collect();
        done.store(true, Ordering::Relaxed);
        for verified in verified {
            assert_eq!((verified.status, verified.number("differing")), (0, 0), "{}", verified.told);
        }
    });
    let after = verify(&cluster, &["--settled", "--patience", "30"]);
    assert_eq!((after.status, after.number("keys")), (0, 200), "{}", after.told);
}

#[test]
fn a_page_of_digests_is_bounded_and_its_query_is_checked() {
    let cluster = Cluster::start();
    fill(&cluster, 30);
    let node = cluster.endpoint(1);
    let mut met = 0;
    for partition in 0..256 {
        let path = format!("/v1/cluster/partitions/{partition}/digests?limit=1");
        let (mut from, mut last) = (String::new(), None);
        loop {
            let page = get(&node, &format!("{path}{from}")).json();
            let records = page["records"].as_array().unwrap();
            assert!(records.len() <= 1 && page["node"] == "node-1" && page["walk"].as_array().unwrap().len() == 3);
            for record in records {
                assert!(record["home"] == true && record["n"] == 3 && record["digest"].as_str().unwrap().len() == 32);
                assert_ne!(last.replace(record["storage_key"].clone()), Some(record["storage_key"].clone()));
                met += 1;
            }
            let Some(next) = page["next"].as_str() else { break };
            from = format!("&from={next}");
        }
    }
    assert_eq!(met, 30);
    let digests = |rest: &str| get(&node, &format!("/v1/cluster/partitions/{rest}")).error();
    let bad = || (400, "bad_request".to_owned());
    for rest in ["256/digests", "-1/digests", "x/digests", "0/digests?limit=0", "0/digests?from=%25", "0/digests?r=1"] {
        assert_eq!(digests(rest), bad(), "{rest}");
    }
    // A cursor in another partition.
    assert_eq!(digests("0/digests?from=_w"), bad());
}
