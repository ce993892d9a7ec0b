//! `cartwheel keys`, `export`, `load` of an export and `bucket delete`, against a real cluster.

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::raw::{call, get, put};
use crate::harness::{CARTWHEEL, Cluster};

fn run(cluster: &Cluster, args: &[&str]) -> Output {
    Command::new(CARTWHEEL).args(args).args(["--node", &cluster.endpoint(1)]).output().unwrap()
}

fn done(cluster: &Cluster, args: &[&str]) -> String {
    let output = run(cluster, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    // A key may be any bytes, and `keys` prints them as they are.
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_export_loads_into_another_bucket_with_siblings_types_and_lifetimes() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    for number in 0..50 {
        assert_eq!(put(&nodes[0], &format!("/v1/kv/from/k{number}"), &format!("v{number}")).status, 204);
    }
    let json = [("content-type", "application/json"), ("cartwheel-ttl", "3600")];
    assert_eq!(call(&nodes[0], "PUT", "/v1/kv/from/a%20b/%FF", &json, b"{}").status, 204);
    for value in ["left", "right"] {
        assert_eq!(put(&nodes[0], "/v1/kv/from/siblings", value).status, 204);
    }

    let keys = done(&cluster, &["keys", "from", "--prefix", "k", "-r", "2"]);
    let mut keys: Vec<&str> = keys.lines().collect();
    assert_eq!(keys.len(), 50);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((keys.len(), keys[0]), (50, "k0"));
    assert_eq!(done(&cluster, &["keys", "from", "--limit", "3"]).lines().count(), 3);
    let as_json: Value = serde_json::from_str(&done(&cluster, &["keys", "from", "--json", "--prefix", "a"])).unwrap();
    assert_eq!(as_json["keys"], serde_json::json!(["a%20b/%FF"]));
    assert_eq!(run(&cluster, &["keys", "nothing"]).status.code(), Some(1), "there are none");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("from.export.jsonl");
    let path = file.to_str().unwrap();
    done(&cluster, &["export", "from", "--output", path]);
    let exported = std::fs::read_to_string(&file).unwrap();
    assert_eq!(exported.lines().count(), 52);
    done(&cluster, &["load", path, "--bucket", "to"]);
    for number in 0..50 {
        assert_eq!(get(&nodes[1], &format!("/v1/kv/to/k{number}")).text(), format!("v{number}"));
    }
    let typed = get(&nodes[1], "/v1/kv/to/a%20b/%FF");
    assert_eq!((typed.text().as_str(), typed.header("content-type")), ("{}", "application/json"));
    let left: u64 = typed.header("cartwheel-ttl").parse().unwrap();
    assert!((3_000..=3_600).contains(&left), "{left}");
    let mut siblings = get(&nodes[1], "/v1/kv/to/siblings").values();
    siblings.sort();
    assert_eq!(siblings, ["left", "right"]);

    // A line that is no export is refused with its number, and the file keeps its place.
    let bad = dir.path().join("bad.export.jsonl");
    std::fs::write(&bad, format!("{}\n{{\"key\": \"x\"}}\n", exported.lines().next().unwrap())).unwrap();
    let refused = run(&cluster, &["load", bad.to_str().unwrap(), "--bucket", "to"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(5) && said.contains("line 2"), "{said}");

    // Without a terminal nothing can be confirmed, so nothing is deleted unless it is said beforehand.
    let unasked = run(&cluster, &["bucket", "delete", "from"]);
    assert!(!unasked.status.success(), "{}", String::from_utf8_lossy(&unasked.stdout));
    assert_eq!(done(&cluster, &["keys", "from"]).lines().count(), 52);
    assert!(done(&cluster, &["bucket", "delete", "from", "--yes"]).starts_with("Deleted."));
    assert_eq!(run(&cluster, &["keys", "from"]).status.code(), Some(1));
    assert_eq!(done(&cluster, &["keys", "to"]).lines().count(), 52);
}
