//! A node whose data directory was lost returns as a new incarnation without false answers, and restored copies of a directory are refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::raw::{call, get, put};
use crate::harness::{CARTWHEEL, Cluster, PATIENCE, eventually};
use rustix::process::Signal;

const KEYS: u32 = 300;

fn fill(cluster: &Cluster) {
    for key in 0..KEYS {
        let path = format!("/v1/kv/carts/{key}");
        assert_eq!(put(&cluster.endpoint(1 + (key % 3) as u16), &path, &format!("milk {key}")).status, 204);
    }
}

fn read(cluster: &Cluster, through: u16, key: u32, query: &str) -> (u16, String) {
    let reply = get(&cluster.endpoint(through), &format!("/v1/kv/carts/{key}?{query}"));
    (reply.status, reply.text())
}

fn found(key: u32) -> (u16, String) {
    (200, format!("milk {key}"))
}

fn renew(dir: &Path, like: &Path, name: &str) {
    let output = Command::new(CARTWHEEL)
        .args(["renew", "--name", name, "--dir"])
        .arg(dir)
        .arg("--like")
        .arg(like)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("created a new, empty incarnation of"), "{told}");
}

/// Starts a node on `dir`, which it must refuse to serve; returns its log.
fn refuses_to_serve(dir: &Path, log: &Path) -> String {
    refuses_to_serve_with(dir, log, &[])
}

/// Like [`refuses_to_serve`], with further arguments.
fn refuses_to_serve_with(dir: &Path, log: &Path, args: &[&str]) -> String {
    let mut serve = Command::new(CARTWHEEL)
        .args(["serve", "--dir"])
        .arg(dir)
        .args(args)
        .stdout(Stdio::null())
        .stderr(File::create(log).unwrap())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = serve.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            serve.kill().unwrap();
            serve.wait().unwrap();
            panic!("the node serves: {}", fs::read_to_string(log).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(!status.success());
    fs::read_to_string(log).unwrap()
}

fn incarnation_of_node_2(cluster: &Cluster, through: u16) -> String {
    let told = get(&cluster.endpoint(through), "/v1/cluster").json();
    let members = told["members"].as_array().unwrap();
    let node = members.iter().find(|member| member["name"] == "node-2").unwrap();
    node["incarnation"].as_str().unwrap().to_owned()
}

#[test]
fn a_wiped_node_never_reports_a_stored_key_as_absent_and_its_old_incarnation_is_refused() {
    let mut cluster = Cluster::start();
    fill(&cluster);
    assert_eq!(call(&cluster.endpoint(1), "DELETE", "/v1/kv/carts/0", &[], b"").status, 204);
    let old_incarnation = incarnation_of_node_2(&cluster, 1);
    cluster.kill(2);
    let (dir, old) = (cluster.node_dir(2), cluster.node_dir(2).with_file_name("old-2"));
    fs::rename(&dir, &old).unwrap();
    renew(&dir, &cluster.node_dir(1), "node-2");
    cluster.restart(2);

    for key in 1..100 {
        assert_eq!(read(&cluster, 2, key, "consistency=strong&timeout_ms=30000"), found(key), "strong, {key}");
    }
    for key in 100..200 {
        assert_eq!(read(&cluster, 2, key, "timeout_ms=30000"), found(key), "eventual, {key}");
    }
    assert_eq!(read(&cluster, 2, 0, "timeout_ms=30000").0, 404, "a deleted key stays deleted");
    eventually("the other nodes learn of the new incarnation", || {
        let incarnations: Vec<String> = (1..=3).map(|node| incarnation_of_node_2(&cluster, node)).collect();
        incarnations.iter().all(|incarnation| *incarnation == incarnations[1]) && incarnations[0] != old_incarnation
    });

    // Once its partitions are synced the node counts in quorums, and one of the two other nodes may fail.
    eventually("the node has synced the partitions of its old incarnation", || {
        let told = get(&cluster.endpoint(1), "/v1/cluster/transfers").json();
        told["transfers"].as_array().unwrap().is_empty()
    });
    cluster.kill(3);
    for key in 1..200 {
        assert_eq!(read(&cluster, 2, key, "consistency=strong&timeout_ms=30000"), found(key), "synced, {key}");
    }

    // The old directory is put back.
    cluster.kill_restarted();
    let log = cluster.log_of_restarted(2);
    for _ in 0..2 {
        let told = refuses_to_serve(&old, &log);
        assert!(told.contains("was replaced by another one") && told.contains("cartwheel renew"), "{told}");
    }
    cluster.restart(2);
    assert_eq!(read(&cluster, 2, 1, "timeout_ms=30000"), found(1));
}

/// The home that answers beside the wiped one never had the keys. If both counted, they would be enough to report the keys as absent.
#[test]
fn a_wiped_node_does_not_count_for_an_absent_key() {
    let mut cluster = Cluster::start();
    cluster.kill(3);
    for key in 0..30 {
        assert_eq!(put(&cluster.endpoint(1), &format!("/v1/kv/carts/{key}?w=2"), &format!("milk {key}")).status, 204);
    }
    cluster.kill(1);
    cluster.kill(2);
    let dir = cluster.node_dir(2);
    fs::remove_dir_all(&dir).unwrap();
    renew(&dir, &cluster.node_dir(1), "node-2");
    // The node is ready when it has heard from the others.
    cluster.restart_unready(2);
    cluster.restart(3);
    cluster.wait_for(2);
    for key in 0..30 {
        for (through, query) in [(2, "timeout_ms=200"), (3, "timeout_ms=200"), (2, "consistency=strong&timeout_ms=200")]
        {
            let (status, told) = read(&cluster, through, key, query);
            assert_eq!(status, 503, "{key} through node-{through}: {told}");
        }
    }
    cluster.restart(1);
    for key in 0..30 {
        for through in [2, 3] {
            assert_eq!(read(&cluster, through, key, "consistency=strong&timeout_ms=30000"), found(key));
            assert_eq!(read(&cluster, through, key, "timeout_ms=30000"), found(key));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_restored_copy_is_refused_even_after_all_nodes_restarted() {
    let mut cluster = Cluster::start();
    fill(&cluster);
    (1..=3).for_each(|node| cluster.kill(node));
    let (dir, backup) = (cluster.node_dir(2), cluster.node_dir(2).with_file_name("backup-2"));
    copy(&dir, &backup);
    for _ in 0..2 {
        (1..=3).for_each(|node| cluster.restart(node));
        for through in [1, 3] {
            eventually("the other nodes are connected to the node", || {
                let told = get(&cluster.endpoint(through), "/v1/cluster").json();
                let members = told["members"].as_array().unwrap();
                members.iter().any(|member| member["name"] == "node-2" && member["state"] == "connected")
            });
        }
        cluster.kill_restarted();
    }
    cluster.restart(1);
    fs::rename(&dir, dir.with_file_name("newest-2")).unwrap();
    copy(&backup, &dir);
    let log = cluster.log_of_restarted(2);
    // However often it is started, the copy never reaches a boot number that no peer has seen.
    for _ in 0..4 {
        let told = refuses_to_serve(&dir, &log);
        assert!(told.contains("is an old copy") && told.contains("cartwheel renew"), "{told}");
    }

    // `cartwheel renew`, which the error recommends, works.
    fs::rename(&dir, dir.with_file_name("retired-2")).unwrap();
    renew(&dir, &cluster.node_dir(1), "node-2");
    cluster.restart(2);
    cluster.restart(3);
    for key in 0..20 {
        assert_eq!(read(&cluster, 2, key, "consistency=strong&timeout_ms=30000"), found(key));
    }
}

/// Copies the directory of node 2 as of one instant while the node runs.
fn hot_copy(cluster: &Cluster, name: &str) -> PathBuf {
    let (dir, to) = (cluster.node_dir(2), cluster.node_dir(2).with_file_name(name));
    cluster.signal(2, Signal::STOP);
    copy(&dir, &to);
    cluster.signal(2, Signal::CONT);
    to
}

/// The copy reports the same boot number that the peers know, but they know that the node acknowledged more in that boot than the copy holds.
#[test]
fn a_hot_copy_restored_within_the_same_boot_is_refused() {
    let mut cluster = Cluster::start();
    fill(&cluster);
    let hot = hot_copy(&cluster, "hot-2");
    // Each home acknowledges these writes, so an older copy of any home lacks some of them.
    for key in 0..20 {
        let path = format!("/v1/kv/carts/{key}?w=3");
        assert_eq!(put(&cluster.endpoint(1), &path, &format!("tea {key}")).status, 204);
    }
    cluster.kill(2);
    let dir = cluster.node_dir(2);
    fs::rename(&dir, dir.with_file_name("newest-2")).unwrap();
    copy(&hot, &dir);
    let log = cluster.log_of_restarted(2);
    for _ in 0..2 {
        let told = refuses_to_serve(&dir, &log);
        assert!(told.contains("is an old copy") && told.contains("cartwheel renew"), "{told}");
    }

    // The node's newest directory is still accepted.
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(dir.with_file_name("newest-2"), &dir).unwrap();
    cluster.restart(2);
    for key in 0..20 {
        let (status, told) = read(&cluster, 2, key, "consistency=strong&timeout_ms=30000");
        assert!(
            (status == 200 || status == 300) && told.contains("tea") | told.contains("dGVh"),
            "{key}: {status} {told}"
        );
    }
}

#[test]
fn a_copy_is_refused_while_its_original_runs_and_the_original_restarts() {
    let mut cluster = Cluster::start();
    fill(&cluster);
    let hot = hot_copy(&cluster, "hot-2");
    let log = cluster.log_of_restarted(2);
    let elsewhere = ["--http-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"];
    let told = refuses_to_serve_with(&hot, &log, &elsewhere);
    assert!(told.contains("node-2 runs already") && told.contains("is a copy of the directory in use"), "{told}");
    for key in 0..20 {
        assert_eq!(read(&cluster, 2, key, "consistency=strong&timeout_ms=30000"), found(key));
    }
    cluster.kill(2);
    cluster.restart(2);
    for key in 0..20 {
        assert_eq!(read(&cluster, 2, key, "consistency=strong&timeout_ms=30000"), found(key));
    }
}

#[test]
fn an_old_copy_that_starts_alone_stops_when_it_meets_a_peer() {
    let mut cluster = Cluster::start();
    (1..=3).for_each(|node| cluster.kill(node));
    let (dir, backup) = (cluster.node_dir(2), cluster.node_dir(2).with_file_name("backup-2"));
    copy(&dir, &backup);
    for _ in 0..3 {
        [1, 2].into_iter().for_each(|node| cluster.restart(node));
        eventually("the node is connected to its peer", || {
            get(&cluster.endpoint(2), "/v1/cluster").text().contains("\"connected\"")
        });
        cluster.kill_restarted();
    }
    fs::rename(&dir, dir.with_file_name("newest-2")).unwrap();
    copy(&backup, &dir);
    // No node runs that could know that the copy is old.
    cluster.restart(2);
    let log = cluster.log_of_restarted(2);
    cluster.restart(1);
    eventually("the old copy stops", || {
        let told = fs::read_to_string(&log).unwrap();
        told.contains("is an old copy") && crate::harness::status(&(cluster.endpoint(2) + "/readyz")).is_none()
    });
    assert!(refuses_to_serve(&dir, &log).contains("cartwheel renew"));
}

#[test]
fn dev_renews_a_missing_directory() {
    let cluster = Cluster::start();
    fill(&cluster);
    let old_incarnation = incarnation_of_node_2(&cluster, 1);
    cluster.kill(2);
    fs::remove_dir_all(cluster.node_dir(2)).unwrap();
    let cluster = cluster.crash_and_restart();
    for key in 0..KEYS {
        assert_eq!(read(&cluster, 2, key, "consistency=strong&timeout_ms=30000"), found(key));
    }
    eventually("all nodes learn of the new incarnation", || {
        (1..=3).all(|node| incarnation_of_node_2(&cluster, node) != old_incarnation)
    });
}
