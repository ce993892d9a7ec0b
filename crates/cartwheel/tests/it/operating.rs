//! What operators do every day: they ask for the cluster's health, drain nodes, watch the status, collect a bundle, and ask how stale reads may be.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::raw::{call, get};
use crate::harness::{CARTWHEEL, Cluster, eventually};

/// Runs `cartwheel ARGS`, with these nodes as endpoints.
fn run(cluster: &Cluster, nodes: &[u16], args: &[&str]) -> Output {
    let endpoints: Vec<String> = nodes.iter().map(|&node| cluster.endpoint(node)).collect();
    Command::new(CARTWHEEL).args(args).args(["--node", &endpoints.join(",")]).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The exit status of `cartwheel cluster health` and the codes of its problems. Right after the start, replicas have yet to be compared.
fn health(cluster: &Cluster, node: u16) -> (Option<i32>, Vec<String>) {
    let output = run(cluster, &[node], &["cluster", "health", "--json", "--timeout", "10s"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let codes = report["problems"].as_array().unwrap().iter().map(|problem| problem["code"].as_str().unwrap());
    let may_be = ["unverified", "member_suspect"];
    (output.status.code(), codes.filter(|code| !may_be.contains(code)).map(str::to_owned).collect())
}

/// Whether node 1 says of node 2 that it drains.
fn is_seen_to_drain(cluster: &Cluster) -> bool {
    let status = get(&cluster.endpoint(1), "/v1/cluster").json();
    let members = status["members"].as_array().unwrap().clone();
    members.iter().find(|member| member["name"] == "node-2").unwrap()["draining"] == true
}

#[test]
fn a_node_that_drains_serves_but_is_left_by_clients_and_peers_until_it_is_restarted() {
    let mut cluster = Cluster::start();
    let second = cluster.endpoint(2);
    eventually("the cluster is not healthy", || health(&cluster, 1).1.is_empty());
    assert_eq!(run(&cluster, &[2], &["cluster", "health", "--node-only"]).status.code(), Some(0));

    let drained = run(&cluster, &[1], &["cluster", "drain", "node-2"]);
    assert!(drained.status.success() && text(&drained).contains("node-2 is drained"), "{}", text(&drained));
    let ready = get(&second, "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.json()["message"].as_str().unwrap().starts_with("draining"));
    eventually("node-1 does not learn that node-2 drains", || is_seen_to_drain(&cluster));
    let put = call(&second, "PUT", "/v1/kv/b/k", &[], b"v");
    assert_eq!((put.status, put.header("cartwheel-draining"), put.header("connection")), (204, "true", "close"));
    assert_eq!(get(&cluster.endpoint(1), "/v1/kv/b/k").header("cartwheel-draining"), "");
    let node_only = run(&cluster, &[2], &["cluster", "health", "--node-only"]);
    assert_eq!(node_only.status.code(), Some(1));
    assert!(text(&node_only).contains("not ready") && text(&node_only).contains("draining"), "{}", text(&node_only));
    eventually("health does not name the node that drains", || {
        health(&cluster, 1) == (Some(1), vec!["member_draining".to_owned()])
    });

    // Two of three homes must stay.
    let refused = run(&cluster, &[1], &["cluster", "drain", "node-3"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(text(&refused).contains("also away or draining: node-2"), "{}", text(&refused));
    assert_eq!(run(&cluster, &[1], &["cluster", "drain", "node-9"]).status.code(), Some(1));

    assert!(run(&cluster, &[1], &["cluster", "drain", "node-2", "--undo"]).status.success());
    eventually("node-1 does not learn that node-2 no longer drains", || !is_seen_to_drain(&cluster));
    assert_eq!(get(&second, "/readyz").status, 200);

    let json = [("Content-Type", "application/json")];
    let put = call(&second, "PUT", "/v1/cluster/drain", &json, br#"{"draining": true}"#);
    let said = json!({ "node": "node-2", "draining": true, "handed_over": true, "hints": [] });
    let answer = put.json();
    assert!(said.as_object().unwrap().iter().all(|(name, value)| answer[name] == *value), "{answer}");
    assert_eq!(call(&second, "PUT", "/v1/cluster/drain", &json, b"{}").status, 400);
    assert_eq!(call(&second, "PUT", "/v1/cluster/drain", &[], br#"{"draining": true}"#).status, 415);
    cluster.kill(2);
    cluster.restart(2);
    assert_eq!(get(&second, "/v1/cluster/drain").json()["draining"], false);
    eventually("node-1 still takes node-2 as one that drains", || !is_seen_to_drain(&cluster));
}

#[test]
fn a_lost_node_is_named_by_health_and_the_bundle_and_the_watch_goes_on_through_another() {
    let cluster = Cluster::start();
    let all = [1, 2, 3];
    let endpoints = cluster.endpoints().join(",");
    let mut watch = Command::new(CARTWHEEL)
        .args(["cluster", "status", "--watch", "100ms", "--node", &endpoints])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("as node-1 sees it")));
    cluster.kill(1);
    assert!(lines.any(|line| line.contains("as node-2 sees it") || line.contains("as node-3 sees it")));
    kill_process(Pid::from_raw(watch.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    lines.by_ref().for_each(drop);
    assert_eq!(watch.wait().unwrap().code(), Some(130));

    eventually("node-1 is not known to be down", || health(&cluster, 2).1.contains(&"member_down".to_owned()));
    assert_eq!(health(&cluster, 2).0, Some(1));
    let line = run(&cluster, &all, &["cluster", "health"]);
    let line = text(&line);
    assert!(line.starts_with("degraded: 2 of 3 members answer; ") && line.contains("node-1 is down"), "{line}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle.tar.gz");
    let bundle = run(&cluster, &all, &["debug", "bundle", "--output", file.to_str().unwrap()]);
    assert_eq!(bundle.status.code(), Some(1), "a node is missing");
    assert!(text(&bundle).contains("missing: node-1: "), "{}", text(&bundle));
    let files = unpacked(&file);
    let of = |name: &str| &files.iter().find(|(path, _)| path.ends_with(name)).unwrap_or_else(|| panic!("no {name}")).1;
    let manifest: Value = serde_json::from_str(of("/manifest.json")).unwrap();
    assert_eq!((&manifest["nodes"], &manifest["missing"][0]["node"]), (&json!(["node-2", "node-3"]), &json!("node-1")));
    assert!(of("/nodes/node-2/debug_log.txt").contains("serving"));
    assert!(of("/nodes/node-3/metrics.txt").contains("cartwheel_"));
    let node: Value = serde_json::from_str(of("/nodes/node-2/debug_node.json")).unwrap();
    let has_setting = |name: &str| node["settings"].as_array().unwrap().iter().any(|one| one["name"] == name);
    assert!(has_setting("dir") && has_setting("durability") && node["machine"]["disk_bytes"].as_u64() > Some(0));
    assert!(
        ["/cluster/cluster.json", "/cluster/cluster_ring.json", "/cluster/buckets.json"]
            .iter()
            .all(|name| !of(name).is_empty())
    );

    cluster.kill(3);
    eventually("two of three lost nodes are not critical", || {
        let (exit, codes) = health(&cluster, 2);
        exit == Some(4) && codes.first().is_some_and(|code| code == "no_quorum")
    });
    cluster.kill(2);
    assert_eq!(run(&cluster, &all, &["cluster", "health"]).status.code(), Some(3));
    assert_eq!(run(&cluster, &[2], &["cluster", "health", "--node-only"]).status.code(), Some(3));
}

/// The files of an archive and their texts.
fn unpacked(file: &std::path::Path) -> Vec<(String, String)> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_end(&mut bytes).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let (mut files, mut at) = (Vec::new(), 0);
    while bytes[at] != 0 {
        let header = &bytes[at..at + 512];
        let length = usize::from_str_radix(&text(&header[124..135]), 8).unwrap();
        files.push((text(&header[..100]), text(&bytes[at + 512..at + 512 + length])));
        at += 512 + length.next_multiple_of(512);
    }
    files
}

#[test]
fn staleness_is_predicted_from_what_nodes_measure_and_overlapping_quorums_are_never_stale() {
    let cluster = Cluster::start();
    let none = get(&cluster.endpoint(1), "/v1/buckets/b/staleness").json();
    assert_eq!((&none["n"], &none["r"], &none["w"]), (&json!(3), &json!(2), &json!(2)));
    let bench = ["bench", "staleness", "--trials", "60", "--after", "0,2", "--json"];
    for (r, w) in [("2", "2"), ("1", "1")] {
        let output = run(&cluster, &[1], &[&bench[..], &["--r", r, "--w", w]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let lines = report["lines"].as_array().unwrap();
        assert_eq!(lines.len(), 2, "{report}");
        assert!(lines.iter().all(|line| line["trials"] == 60 && line["predicted"].is_number()), "{report}");
        if r == "2" {
            assert!(lines.iter().all(|line| line["stale"] == 0 && line["predicted"] == 1.0), "{report}");
        }
    }
    let found = get(&cluster.endpoint(1), "/v1/buckets/b/staleness?after_ms=0.5").json();
    let predictions = found["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 9, "{found}");
    for one in predictions {
        let (r, w) = (one["r"].as_u64().unwrap(), one["w"].as_u64().unwrap());
        assert_eq!(one["current"], (r, w) == (2, 2), "{one}");
        assert_eq!(one["fresh"][0]["after_ms"], 0.5);
        if r + w > 3 {
            assert_eq!((&one["fresh"][0]["probability"], &one["p999_ms"]), (&json!(1.0), &json!(0.0)), "{one}");
        }
    }
    assert_eq!(found["peers"].as_array().map(Vec::len), Some(2), "{found}");
    for refused in ["?after_ms=-1", "?after_ms=x", "?t=1"] {
        assert_eq!(get(&cluster.endpoint(1), &format!("/v1/buckets/b/staleness{refused}")).status, 400, "{refused}");
    }
    let shown = run(&cluster, &[1], &["bucket", "staleness", "b", "-t", "3", "-o", "wide"]);
    assert!(text(&shown).contains("AFTER 3 MS") && text(&shown).contains("measured by node-1"), "{}", text(&shown));
    // A bucket may have any name.
    assert_eq!(get(&cluster.endpoint(1), "/v1/buckets/staleness/staleness").status, 200);
    assert_eq!(get(&cluster.endpoint(1), "/v1/buckets/staleness").json()["n"], 3);
    assert_eq!(get(&cluster.endpoint(1), "/v1/buckets/a/b").status, 400);
}
