//! Processes start, refuse to start and end as documented: exit codes, error texts, settings and signals.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::harness::{CARTWHEEL, Cluster, PATIENCE, free_bases, status};
use rustix::process::{Pid, Signal, kill_process};

/// Runs a process that should end by itself, and kills it if it does not.
fn run(args: &[&str]) -> Output {
    let child = Command::new(CARTWHEEL).args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let (ended, wait) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    output
}

/// The error of a run that must fail with an error message, not with a panic.
fn refused(args: &[&str]) -> String {
    let output = run(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{error}");
    assert!(error.contains("error: ") && !error.contains("panicked"), "{error}");
    error
}

#[test]
fn dev_stops_all_its_nodes_on_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut cluster = Cluster::start();
        assert_eq!(status(&(cluster.endpoint(2) + "/healthz")), Some(200));
        assert!(cluster.end_dev(signal).success());
        assert!(cluster.all_gone());
        for number in 1..=3 {
            let log = std::fs::read_to_string(cluster.node_dir(number).join("log")).unwrap();
            assert!(log.contains("stopped"), "the node did not stop cleanly: {log}");
            assert!(
                !log.contains(" WARN ") && !log.contains(" ERROR "),
                "a clean start and stop log no warnings: {log}"
            );
        }
    }
}

#[test]
fn no_node_outlives_a_killed_dev() {
    let mut cluster = Cluster::start();
    cluster.end_dev(Signal::KILL);
    assert!(cluster.all_gone());
}

#[test]
fn a_node_that_cannot_start_reports_why() {
    let cluster = Cluster::start();
    let (first, dir) = (cluster.node_dir(1), tempfile::tempdir().unwrap());
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    assert!(refused(&["serve", "--dir", &path(&first)]).contains("is in use by another process"));
    assert!(refused(&["serve", "--dir", &path(dir.path())]).contains("holds no node"));

    let cluster_dir = path(first.parent().unwrap());
    assert!(refused(&["dev", "--nodes", "4", "--dir", &cluster_dir]).contains("a cluster of 3 nodes, not 4"));
    let taken = refused(&["dev", "--dir", &cluster_dir]);
    assert!(taken.contains("node-1 cannot listen on") && taken.contains("nothing was started"), "{taken}");
    let (http_base, peer_base) = free_bases();
    let elsewhere = ["--http-base", &http_base.to_string(), "--peer-base", &peer_base.to_string()];
    let in_use = refused(&[&["dev", "--dir", &cluster_dir][..], &elsewhere].concat());
    assert!(in_use.contains("before it was ready") && in_use.contains("is in use by another process"), "{in_use}");
    let port = cluster.endpoint(1).rsplit_once(':').unwrap().1.parse::<u16>().unwrap() - 1;
    let other = path(&dir.path().join("other"));
    let taken = refused(&["dev", "--dir", &other, "--http-base", &port.to_string(), "--peer-base", "11000"]);
    assert!(taken.contains("node-1 cannot listen on 127.0.0.1") && taken.contains("--http-base"), "{taken}");
    assert!(!std::path::Path::new(&other).exists(), "a cluster was bootstrapped on ports that are taken");
    assert_eq!(status(&(cluster.endpoint(1) + "/readyz")), Some(200), "the running cluster did not notice");
}

#[test]
fn settings_are_shown_and_checked_without_starting_a_node() {
    let cluster = Cluster::start();
    let dir = cluster.node_dir(1);
    let ask = |what: &str, args: &[&str]| {
        Command::new(CARTWHEEL).args(["config", what, "--dir"]).arg(&dir).args(args).output().unwrap()
    };
    let said = |output: &std::process::Output| {
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
    };
    cluster.kill(1);

    let kept = ask("check", &[]);
    let address = cluster.endpoint(1).trim_start_matches("http://").to_owned();
    assert!(
        kept.status.success() && said(&kept).contains(&format!("holds node-1, at {address} for HTTP")),
        "{}",
        said(&kept)
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let moved = ask("check", &["--http-listen", &free]);
    assert!(moved.status.success() && said(&moved).contains(&format!("at {free} for HTTP")), "{}", said(&moved));
    let other = ask("check", &["--zone", "elsewhere"]);
    assert!(other.status.code() == Some(2) && said(&other).contains("zone"), "{}", said(&other));

    let shown = ask("show", &["--http-listen", &free, "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let text = shown.to_string();
    assert!(text.contains(&free) && text.contains("flag"), "{text}");
}

#[test]
fn invalid_settings_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    let refused_file = |text: &str| {
        std::fs::write(&file, text).unwrap();
        refused(&["serve", "--config", file.to_str().unwrap()])
    };
    let misspelt = refused_file("dir = 'd'\ncache_sise = '1GiB'\n");
    assert!(misspelt.contains("node.toml, line 2") && misspelt.contains("did you mean cache_size?"), "{misspelt}");
    let typed = refused_file("insecure = 'yes'");
    assert!(typed.contains("node.toml, line 1: insecure is \"yes\": give true or false"), "{typed}");
    assert!(refused_file("dir = ").contains("write it as TOML"));
    assert!(refused(&["serve"]).contains("no data directory is given"));
    assert!(
        refused(&["serve", "--config", "/nowhere/node.toml"])
            .contains("cannot read the configuration /nowhere/node.toml")
    );
    for (flag, allowed) in [
        ("--cache-size=lots", "256MiB"),
        ("--http-listen=8080", "HOST:PORT"),
        ("--durability=fast", "fsync, os"),
        ("--log-level=loud", "error, warn, info"),
        ("--cache-sise=1", "--cache-size"),
    ] {
        let output = run(&["serve", "--dir", "d", flag]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains(allowed), "{error}");
    }
}

#[test]
fn a_node_listens_to_other_machines_only_with_insecure() {
    let mut cluster = Cluster::start();
    assert!(cluster.end_dev(Signal::TERM).success());
    let dir = cluster.node_dir(1);
    let dir = dir.to_str().unwrap();
    for (flag, what) in [("--http-listen", "HTTP"), ("--peer-listen", "peers")] {
        let error = refused(&["serve", "--dir", dir, flag, "0.0.0.0:0"]);
        assert!(error.contains(&format!("refused to listen on 0.0.0.0:0 for {what}")), "{error}");
        assert!(error.contains("--insecure") && error.contains(flag), "{error}");
    }
    let elsewhere = refused(&["serve", "--dir", dir, "--insecure", "--http-listen", "192.0.2.1:1"]);
    assert!(elsewhere.contains("cannot listen on 192.0.2.1:1 for HTTP"), "{elsewhere}");
}

#[test]
fn a_directory_of_a_newer_build_is_left_unchanged() {
    let mut cluster = Cluster::start();
    assert!(cluster.end_dev(Signal::TERM).success());
    let file = cluster.node_dir(1).join("node.json");
    let whole = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = whole.split_once("\"format\": ").unwrap();
    let newer = format!("{head}\"format\": 1000{}", rest.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    std::fs::write(&file, &newer).unwrap();
    let error = refused(&["serve", "--dir", cluster.node_dir(1).to_str().unwrap()]);
    assert!(error.contains("has format 1000") && error.contains("start a newer cartwheel"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), newer);
}

#[test]
fn a_node_reads_its_settings_from_the_file_and_the_environment() {
    let mut cluster = Cluster::start();
    assert!(cluster.end_dev(Signal::TERM).success());
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("node.toml"), dir.path().join("log"));
    let node = cluster.node_dir(1);
    std::fs::write(&file, format!("dir = {node:?}\nlog_format = 'human'\nhttp_listen = '192.0.2.1:1'")).unwrap();
    let child = Command::new(CARTWHEEL)
        .args(["serve", "--config"])
        .arg(&file)
        .env("CARTWHEEL_HTTP_LISTEN", "127.0.0.1:0")
        .env("CARTWHEEL_LOG_FORMAT", "json")
        .env("CARTWHEEL_DISK_RESERV", "1")
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let served = loop {
        let text = std::fs::read_to_string(&log).unwrap();
        if let Some(line) = text.lines().find(|line| line.contains("\"serving\"")) {
            break line.to_owned();
        }
        assert!(child.0.try_wait().unwrap().is_none(), "{text}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let line: serde_json::Value = serde_json::from_str(&served).unwrap();
    let addr = line["http_addr"].as_str().unwrap();
    assert_eq!(status(&format!("http://{addr}/healthz")), Some(200), "{line}");
    let pid = Pid::from_raw(child.0.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(child.0.wait().unwrap().success());
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warned = "ignored unknown environment variable CARTWHEEL_DISK_RESERV; did you mean CARTWHEEL_DISK_RESERVE?";
    assert!(lines.iter().any(|line| line["level"] == "WARN" && line["message"].as_str().unwrap().contains(warned)));
}

/// A process that is killed when the test ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_without_its_own_records_refuses_to_start() {
    let mut cluster = Cluster::start();
    assert!(cluster.end_dev(Signal::TERM).success());
    let node = cluster.node_dir(1);
    std::fs::rename(node.join("shard-0"), node.join("aside")).unwrap();
    let error = refused(&["serve", "--dir", node.to_str().unwrap()]);
    assert!(error.contains("the records of this node are missing"), "{error}");
    std::fs::remove_dir_all(node.join("shard-0")).unwrap();
    std::fs::rename(cluster.node_dir(2).join("shard-0"), node.join("shard-0")).unwrap();
    let error = refused(&["serve", "--dir", node.to_str().unwrap()]);
    assert!(error.contains("are another node's"), "{error}");
}
