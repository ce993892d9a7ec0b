//! `cartwheel bench` against a real cluster.

mod harness;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::raw::get;
use harness::{CARTWHEEL, Cluster, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn bench(cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = Command::new(CARTWHEEL);
    command
        .args(["bench", "--json", "--keys", "200", "--value-size", "100", "--warmup", "0", "--seconds", "600"])
        .args(args);
    for endpoint in cluster.endpoints() {
        command.args(["--node", &endpoint]);
    }
    command
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_run_counts_what_it_does() {
    let cluster = Cluster::start();
    let args = ["--load", "--ops", "200", "--connections", "4", "--reads", "50%"];
    let found = report(&bench(&cluster, &args).output().unwrap());
    let (reads, writes) =
        (found["read_latency"]["count"].as_u64().unwrap(), found["write_latency"]["count"].as_u64().unwrap());
    let ops = found["ops"].as_u64().unwrap();
    assert!(reads > 0 && writes > 0, "{found}");
    // At most one operation a connection began before the end and ended after it.
    assert!((ops..=ops + 4).contains(&(reads + writes)), "{found}");
    assert_eq!(found["not_found"], 0, "all keys were loaded");
    assert_eq!(found["errors"], serde_json::json!({}));
    assert_eq!(found["server_cpu"].as_array().map(Vec::len), Some(3), "the nodes tell their processes");
    assert!(found["server_cpu_us_per_op"].as_f64().is_some_and(|us| us > 0.0));
    assert!(found["write_latency"]["p50_us"].as_u64() <= found["write_latency"]["p999_us"].as_u64());

    let args = ["--ops", "50", "--reads", "0", "--writes", "known", "--uniform", "--strong"];
    let found = report(&bench(&cluster, &args).output().unwrap());
    assert_eq!(found["read_latency"]["count"], 0);
    assert!(found["write_latency"]["count"].as_u64().is_some_and(|count| count > 0));
}

#[test]
fn an_open_loop_begins_what_is_due() {
    let cluster = Cluster::start();
    let args = ["--ops", "50", "--connections", "50", "--reads", "100%", "--rate", "100"];
    let found = report(&bench(&cluster, &args).output().unwrap());
    assert_eq!(found["rate"], 100);
    let begun = found["read_latency"]["count"].as_u64().unwrap();
    let left_out = found["left_out"].as_u64().unwrap();
    // One is due every 10 ms, however many connections are free; each may have had one under way when the counting began.
    let due = (found["seconds"].as_f64().unwrap() * 100.0) as u64 + 2 + 50;
    assert!(begun > 0 && begun + left_out <= due, "{found}");
}

#[test]
fn one_connection_replaces_what_it_wrote_unless_it_writes_blindly() {
    let cluster = Cluster::start();
    let siblings = |writes: &str| {
        let args = ["--ops", "200", "--connections", "1", "--reads", "50%", "--bucket", writes, "--writes", writes];
        report(&bench(&cluster, &args).output().unwrap())["siblings_max"].as_u64().unwrap()
    };
    assert!(siblings("update") <= 1);
    assert!(siblings("known") <= 1);
    assert!(siblings("blind") > 1);
}

#[test]
fn a_run_that_is_interrupted_reports_what_it_measured() {
    let cluster = Cluster::start();
    let args = ["--reads", "100%"];
    let child = bench(&cluster, &args).stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let has_begun = || {
        get(&cluster.endpoint(1), "/metrics").text().contains(r#"requests_total{operation="get",outcome="not_found"}"#)
    };
    while !has_begun() {
        assert!(begun.elapsed() < PATIENCE, "it asks for nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Longer than it takes until it measures.
    std::thread::sleep(Duration::from_secs(2));
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::INT).unwrap();
    let found = report(&child.wait_with_output().unwrap());
    assert_eq!(found["interrupted"], true);
    assert!(found["not_found"].as_u64().is_some_and(|count| count > 0), "nothing was loaded: {found}");
}

#[test]
fn errors_are_counted_by_kind() {
    let cluster = Cluster::start();
    cluster.kill(2);
    cluster.kill(3);
    let args = ["--ops", "300", "--reads", "0", "--writes", "blind", "--timeout-ms", "500"];
    let output = bench(&cluster, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "nothing succeeded");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["errors"]["503 unavailable"].as_u64().is_some_and(|count| count > 0), "{found}");
    assert!(found["errors"]["cannot connect"].as_u64().is_some_and(|count| count > 0), "{found}");
    assert_eq!(found["ops"], 0);
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (args, why) in [
        (&["--node", "http://127.0.0.1:9"][..], "no node answers at http://127.0.0.1:9"),
        (&["--node", "https://127.0.0.1:9"], "is no endpoint"),
        (&["--bucket", ""], "the bucket name is 0 bytes long"),
        (&["--reads", "2"], "give a share"),
        (&["--keys", "0"], "0 is not in 1.."),
    ] {
        let output = Command::new(CARTWHEEL).arg("bench").args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
}
