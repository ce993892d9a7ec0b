//! `cartwheel top`: one screen of all nodes, as text.

use std::process::Command;

use crate::harness::raw::{get, put};
use crate::harness::{CARTWHEEL, Cluster};

/// One screen of a cluster's load.
fn screen(endpoint: &str) -> String {
    let output =
        Command::new(CARTWHEEL).args(["top", "--once", "--every", "500ms", "--node", endpoint]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The words of the line that begins with this one.
fn line<'a>(screen: &'a str, first: &str) -> Vec<&'a str> {
    let mut lines = screen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.first() == Some(&first)).unwrap_or_else(|| panic!("no {first} in\n{screen}"))
}

#[test]
fn a_screen_shows_the_load_of_every_node_and_which_do_not_answer() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let load = {
        let node = node.clone();
        std::thread::spawn(move || {
            let mut number = 0;
            while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let path = format!("/v1/kv/top/{number}");
                assert_eq!(put(&node, &path, "value").status, 204);
                get(&node, &path);
                number += 1;
            }
        })
    };
    let busy = screen(&node);
    drop(done);
    load.join().unwrap();
    assert!(busy.lines().all(|line| line.chars().count() <= 80) && busy.lines().count() <= 24, "{busy}");
    assert!(busy.contains("3 of 3 nodes answer"), "{busy}");
    let [_, rate, p50, p99, ..] = line(&busy, "put")[..] else { panic!("{busy}") };
    assert!(rate.parse::<f64>().unwrap() > 0.0 && p50.ends_with('s') && p99.ends_with('s'), "{busy}");
    let [_, status, reads, writes, ..] = line(&busy, "node-1")[..] else { panic!("{busy}") };
    assert!(status == "alive" && reads != "0" && writes != "0", "{busy}");
    assert_eq!(line(&busy, "node-2")[2..4], ["0", "0"], "only node-1 has clients: {busy}");

    cluster.kill(3);
    let without = screen(&node);
    assert!(without.contains("2 of 3 nodes answer"), "{without}");
    assert_eq!(line(&without, "node-3")[2..], ["-"; 8], "{without}");
}

#[test]
fn administrators_see_queues_partitions_and_connections() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    for number in 0..20 {
        assert_eq!(put(&node, &format!("/v1/kv/secret-bucket/secret-key-{number}"), "value").status, 204);
    }
    let reply = get(&node, "/v1/debug/queues");
    let queues = reply.json();
    assert_eq!(queues["node"], "node-1");
    let shards = queues["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 2);
    for shard in shards {
        assert!(shard["turns"]["count"].as_u64().unwrap() > 0, "{shard}");
        let inbox = shard["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "inbox").unwrap();
        assert_eq!((&inbox["unit"], &inbox["limit"]), (&"items".into(), &8_192.into()));
    }
    let to_peers = queues["queues"].as_array().unwrap().iter().filter(|queue| queue["name"] == "peer");
    assert!(to_peers.clone().all(|queue| queue["limit"].as_u64().unwrap() > 0), "{queues}");
    assert_eq!(to_peers.count(), 2);
    let partitions = get(&node, "/v1/debug/partitions");
    let listed = partitions.json()["partitions"].as_array().unwrap().clone();
    let requests: u64 = listed.iter().map(|partition| partition["requests"]["count"].as_u64().unwrap()).sum();
    assert_eq!(requests, 20);
    assert!(listed.iter().all(|partition| partition["homes"].as_array().unwrap().len() == 3));
    let connections = get(&node, "/v1/debug/connections");
    let peers = connections.json()["peers"].as_array().unwrap().clone();
    assert!(peers.len() == 2 && peers.iter().all(|peer| peer["connected"] == true), "{peers:?}");
    assert!(peers.iter().all(|peer| peer["sent_messages"].as_u64().unwrap() > 0), "{peers:?}");
    for shown in [reply, partitions, connections] {
        assert!(!shown.text().contains("secret"), "no call names a key or bucket: {}", shown.text());
    }
    assert_eq!(get(&node, "/v1/debug/queues?all=1").error(), (400, "bad_request".to_owned()));
}
