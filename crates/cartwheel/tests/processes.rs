//! How processes start, refuse to, and end.

mod harness;

use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use harness::{CARTWHEEL, Cluster, status};
use rustix::process::{Pid, Signal, kill_process};

/// Runs a process that should end by itself; one that does not is killed.
fn run(args: &[&str]) -> Output {
    let child = Command::new(CARTWHEEL).args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let (ended, wait) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    output
}

/// The error of a run that must fail, and fail with a sentence rather than a panic.
fn refused(args: &[&str]) -> String {
    let output = run(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("error: ") && !error.contains("panicked"), "{error}");
    error
}

#[test]
fn dev_stops_all_its_nodes_when_told_to() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut cluster = Cluster::start();
        assert_eq!(status(&(cluster.endpoint(2) + "/healthz")), Some(200));
        assert!(cluster.end_dev(signal).success());
        assert!(cluster.all_gone());
        let log = std::fs::read_to_string(cluster.node_dir(1).join("log")).unwrap();
        assert!(log.contains("stopped"), "it did not end in order: {log}");
    }
}

#[test]
fn no_node_outlives_a_killed_dev() {
    let mut cluster = Cluster::start();
    cluster.end_dev(Signal::KILL);
    assert!(cluster.all_gone());
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let cluster = Cluster::start();
    let (first, dir) = (cluster.node_dir(1), tempfile::tempdir().unwrap());
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    assert!(refused(&["serve", "--dir", &path(&first)]).contains("is served by another process"));
    assert!(refused(&["serve", "--dir", &path(dir.path())]).contains("holds no node"));

    let cluster_dir = path(first.parent().unwrap());
    assert!(refused(&["dev", "--nodes", "4", "--dir", &cluster_dir]).contains("a cluster of 3 nodes, not 4"));
    let in_use = refused(&["dev", "--dir", &cluster_dir]);
    assert!(in_use.contains("before it was ready") && in_use.contains("is served by another process"), "{in_use}");
    let port = cluster.endpoint(1).rsplit_once(':').unwrap().1.parse::<u16>().unwrap() - 1;
    let other = path(&dir.path().join("other"));
    let taken = refused(&["dev", "--dir", &other, "--http-base", &port.to_string(), "--peer-base", "11000"]);
    assert!(taken.contains("cannot listen on 127.0.0.1"), "{taken}");
    assert_eq!(status(&(cluster.endpoint(1) + "/readyz")), Some(200), "the running cluster did not notice");
}

#[test]
fn a_node_whose_records_are_gone_refuses_to_speak_for_them() {
    let mut cluster = Cluster::start();
    assert!(cluster.end_dev(Signal::TERM).success());
    let node = cluster.node_dir(1);
    std::fs::rename(node.join("shard-0"), node.join("aside")).unwrap();
    let error = refused(&["serve", "--dir", node.to_str().unwrap()]);
    assert!(error.contains("the records of this node are gone"), "{error}");
    std::fs::remove_dir_all(node.join("shard-0")).unwrap();
    std::fs::rename(cluster.node_dir(2).join("shard-0"), node.join("shard-0")).unwrap();
    let error = refused(&["serve", "--dir", node.to_str().unwrap()]);
    assert!(error.contains("are not this node's"), "{error}");
}
