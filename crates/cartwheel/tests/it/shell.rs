//! The commands for keys and the cluster against a real cluster: their output, exit codes and completions.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::harness::{CARTWHEEL, Cluster};
use rustix::process::Signal;
use serde_json::Value;

/// Runs `cartwheel ARGS --node URL`, with `input` on its standard input.
fn run(cluster: &Cluster, node: u16, input: &[u8], args: &[&str]) -> Output {
    let mut child = Command::new(CARTWHEEL)
        .args(args)
        .args(["--node", &cluster.endpoint(node)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn get_put_and_delete_work_from_the_shell() {
    let cluster = Cluster::start();
    let run = |node, args: &[&str]| run(&cluster, node, b"", args);

    let none = run(1, &["get", "carts", "alice"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("carts/alice has no value"));

    assert_eq!(said(&run(1, &["put", "carts", "alice", "milk"])), "stored on 2 nodes in 1 zone\n");
    let json: Value = serde_json::from_str(&said(&run(1, &["put", "carts", "bob", "tea", "--json"]))).unwrap();
    assert_eq!((&json["home"], &json["standin"], &json["zones"]), (&2.into(), &0.into(), &1.into()));
    assert_eq!(said(&run(2, &["get", "carts", "alice"])), "milk");

    said(&run(3, &["put", "carts", "alice", "bread", "--blind"]));
    let both = said(&run(1, &["get", "carts", "alice"]));
    assert!(both.contains("sibling 1 of 2") && both.contains("milk\n") && both.contains("bread\n"), "{both}");
    let json: Value = serde_json::from_str(&said(&run(2, &["get", "carts", "alice", "--json"]))).unwrap();
    let http = crate::harness::raw::get(&cluster.endpoint(2), "/v1/kv/carts/alice").json();
    assert_eq!(json, http, "the command prints the same JSON as HTTP");
    assert_eq!((json["siblings"].as_array().map(Vec::len), &json["siblings"][0]["deleted"]), (Some(2), &false.into()));

    // A put without a context reads first, so it replaces both siblings.
    said(&run(2, &["put", "carts", "alice", "milk, bread", "--strong"]));
    assert_eq!(said(&run(3, &["get", "carts", "alice", "--strong"])), "milk, bread");
    said(&run(1, &["put", "numbers", "n", "-5"]));
    assert_eq!(said(&run(1, &["get", "numbers", "n"])), "-5");
    assert!(said(&run(1, &["delete", "carts", "alice"])).starts_with("deleted on "));
    assert_eq!(run(2, &["get", "carts", "alice"]).status.code(), Some(1));
}

#[test]
fn a_value_of_any_bytes_is_stored_from_standard_input() {
    let cluster = Cluster::start();
    let value: Vec<u8> = (0..=255).collect();
    let put = run(&cluster, 1, &value, &["put", "pictures", "a/b c", "-", "--content-type", "image/png"]);
    assert!(put.status.success());
    let got = run(&cluster, 2, b"", &["get", "pictures", "a/b c"]);
    assert_eq!(got.stdout, value);
}

#[test]
fn cluster_commands_show_status_ring_and_locations() {
    let cluster = Cluster::start();
    let run = |node, args: &[&str]| run(&cluster, node, b"", args);
    said(&run(1, &["put", "carts", "alice", "milk"]));

    // On a busy machine a node may be slow to answer probes, and is suspect until it does.
    let status = loop {
        let output = run(1, &["cluster", "status"]);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        if !text.contains("suspect") {
            break said(&output);
        }
    };
    assert_eq!(status.matches(" alive ").count(), 3, "{status}");
    assert!(status.contains("as node-1 sees it") && status.contains("NAME"), "{status}");
    assert!(status.lines().filter(|line| line.starts_with("node-")).all(|line| line.contains("33.")), "{status}");
    let places: Vec<_> = ["\nnode-1", "\nnode-2", "\nnode-3"].iter().map(|name| status.find(name).unwrap()).collect();
    assert!(places.is_sorted(), "nodes are sorted by name: {status}");
    let wide = said(&run(1, &["cluster", "status", "-o", "wide"]));
    assert_eq!(wide.lines().filter(|line| line.contains(" connected ")).count(), 2, "{wide}");
    let yaml = said(&run(1, &["cluster", "status", "-o", "yaml"]));
    assert!(yaml.contains("\nnode: node-1\n") && yaml.contains("\nmembers:\n  - "), "{yaml}");
    let json: Value = serde_json::from_str(&said(&run(2, &["cluster", "status", "--json"]))).unwrap();
    assert_eq!((&json["node"], json["members"].as_array().map(Vec::len)), (&Value::from("node-2"), Some(3)));

    let ring = said(&run(1, &["cluster", "ring"]));
    assert!(ring.contains("256 partitions") && ring.contains("33."), "{ring}");
    let json: Value = serde_json::from_str(&said(&run(3, &["cluster", "ring", "--json"]))).unwrap();
    assert_eq!(json["owners"].as_array().map(Vec::len), Some(256));

    let located = said(&run(1, &["cluster", "locate", "carts", "alice"]));
    assert!(located.starts_with("token ") && located.matches(" home").count() == 3, "{located}");
    let json: Value = serde_json::from_str(&said(&run(2, &["cluster", "locate", "carts", "alice", "--json"]))).unwrap();
    assert_eq!(json["preference_list"][0]["role"], "home");
    assert!(located.contains(json["token"].as_str().unwrap()), "all nodes report the same token");

    // A dead node is listed with the failure, and the exit status is 1.
    cluster.kill(3);
    let gone = loop {
        let status = run(1, &["cluster", "status"]);
        let text = String::from_utf8(status.stdout).unwrap();
        if text.contains("cannot be reached") {
            assert_eq!(status.status.code(), Some(1));
            break text;
        }
    };
    assert!(gone.lines().any(|line| line.starts_with("node-3: ") && line.contains("cannot be reached")), "{gone}");
    assert!(gone.lines().all(|line| line.len() <= 100 || line.contains(": ")), "{gone}");
    let output = Command::new(CARTWHEEL).args(["cluster", "ring", "--node", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: no node could carry out the request"));
}

#[test]
fn contexts_files_and_addresses_work_from_the_shell() {
    let cluster = Cluster::start();
    let run = |node, args: &[&str]| run(&cluster, node, b"", args);
    let context = |output: &Output| {
        let json: Value = serde_json::from_str(&said(output)).unwrap();
        json["context"].as_str().unwrap().to_owned()
    };
    let first = context(&run(1, &["put", "carts", "alice", "milk", "--json"]));
    let second = context(&run(2, &["put", "carts", "alice", "bread", "--context", &first, "--json"]));
    // The first context does not cover the values written since.
    said(&run(3, &["put", "carts", "alice", "tea", "--context", &first]));
    let both = said(&run(1, &["get", "carts", "alice"]));
    assert!(both.contains("sibling 1 of 2") && both.contains("bread") && both.contains("tea"), "{both}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("value");
    let file = file.to_str().unwrap();
    let refused = run(1, &["get", "carts", "alice", "--output", file]);
    assert_eq!(refused.status.code(), Some(5));
    said(&run(2, &["delete", "carts", "alice", "--context", &second]));
    let left = said(&run(1, &["get", "carts", "alice"]));
    assert!(left.contains("tea\n--- and a concurrent delete") && !left.contains("bread"), "{left}");
    said(&run(2, &["put", "carts", "alice", "tea"]));
    assert_eq!(said(&run(1, &["get", "carts", "alice", "--output", file])), "");
    assert_eq!(std::fs::read(file).unwrap(), b"tea");
    assert_eq!(run(1, &["delete", "carts", "alice", "--context", "?"]).status.code(), Some(2));

    // Addresses need no scheme, and the environment may name them; an address without a node is skipped.
    let addresses = format!("127.0.0.1:9,{}", cluster.endpoint(2).trim_start_matches("http://"));
    let from_environment = |args: &[&str]| {
        let output = Command::new(CARTWHEEL).args(args).env("CARTWHEEL_ENDPOINTS", &addresses).output();
        output.unwrap()
    };
    assert_eq!(said(&from_environment(&["get", "carts", "alice"])), "tea");
    assert!(said(&from_environment(&["cluster", "ring"])).contains("256 partitions"));
}

#[test]
fn each_outcome_has_its_exit_code() {
    let cluster = Cluster::start();
    let code = |args: &[&str]| run(&cluster, 1, b"", args).status.code();
    assert_eq!(code(&["put", "b", "k", "v"]), Some(0));
    assert_eq!(code(&["get", "b", "absent"]), Some(1));
    assert_eq!(code(&["get", "b"]), Some(2));
    assert_eq!(code(&["get", "b", "k", "--node", "https://127.0.0.1:1"]), Some(2));
    assert_eq!(code(&["get", "b", "k", "--timeout", "soon"]), Some(2));
    assert_eq!(code(&["bucket", "set", "b", "--n", "17"]), Some(5));
    assert_eq!(code(&["bench", "--w", "9"]), Some(2));
    assert_eq!(code(&["bench", "--value-size", "2000000"]), Some(2));
    assert_eq!(code(&["cluster", "remove", "node-9", "--yes"]), Some(5));
    assert_eq!(code(&["cluster", "weight", "node-2", "50"]), Some(2), "the change was not confirmed");
    cluster.signal(2, Signal::STOP);
    cluster.signal(3, Signal::STOP);
    assert_eq!(code(&["put", "b", "k", "w", "--timeout", "1s"]), Some(4));
    assert_eq!(code(&["get", "b", "k", "--strong", "--timeout", "500ms"]), Some(4));
    let help = Command::new(CARTWHEEL).arg("--help").output().unwrap();
    assert!(said(&help).contains("3  no node could be reached"));
}

#[test]
fn a_hanging_node_does_not_delay_the_status() {
    let cluster = Cluster::start();
    cluster.signal(1, Signal::STOP);
    let nodes = cluster.endpoints().join(",");
    let status = Command::new(CARTWHEEL).args(["cluster", "status", "--node", &nodes]).output().unwrap();
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(text.contains("as node-2 sees it") && text.contains("(node-1 did not answer)"), "{text}");
    // Nor does it delay a key's request: where the first node does not answer, the second does.
    for args in [&["put", "b", "k", "v"][..], &["get", "b", "k"]] {
        said(&Command::new(CARTWHEEL).args(args).args(["--node", &nodes]).output().unwrap());
    }
}

#[test]
fn completions_exist_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(CARTWHEEL).args(["completions", shell]).output().unwrap();
        let script = said(&script);
        for word in ["locate", "cache-size", "blind"] {
            assert!(script.contains(word), "the {shell} completions lack {word}");
        }
    }
    assert_eq!(Command::new(CARTWHEEL).args(["completions", "cmd"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn an_unreachable_cluster_is_an_error() {
    let output =
        Command::new(CARTWHEEL).args(["get", "carts", "alice", "--node", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "));
}
