//! `cartwheel bench` against a real cluster: its report counts operations, errors and latencies correctly.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::raw::get;
use crate::harness::{CARTWHEEL, Cluster, PATIENCE};
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
fn a_report_counts_the_operations_of_the_run() {
    let cluster = Cluster::start();
    let args = ["--load", "--ops", "200", "--connections", "4", "--reads", "50%"];
    let found = report(&bench(&cluster, &args).output().unwrap());
    let (reads, writes) =
        (found["read_latency"]["count"].as_u64().unwrap(), found["write_latency"]["count"].as_u64().unwrap());
    let ops = found["ops"].as_u64().unwrap();
    assert!(reads > 0 && writes > 0, "{found}");
    // Each connection may have one operation that began before the end and ended after it.
    assert!((ops..=ops + 4).contains(&(reads + writes)), "{found}");
    assert_eq!(found["not_found"], 0, "all keys are loaded before the run");
    assert_eq!(found["errors"], serde_json::json!({}));
    assert_eq!(found["server_cpu"].as_array().map(Vec::len), Some(3), "each node reports its process");
    assert!(found["server_cpu_us_per_op"].as_f64().is_some_and(|us| us > 0.0));
    assert!(found["write_latency"]["p50_us"].as_u64() <= found["write_latency"]["p999_us"].as_u64());

    let args = ["--ops", "50", "--reads", "0", "--writes", "known", "--uniform", "--strong"];
    let found = report(&bench(&cluster, &args).output().unwrap());
    assert_eq!(found["read_latency"]["count"], 0);
    assert!(found["write_latency"]["count"].as_u64().is_some_and(|count| count > 0));
}

#[test]
fn a_ring_aware_bench_asks_the_homes_that_it_was_not_told_of() {
    let cluster = Cluster::start();
    let output = Command::new(CARTWHEEL)
        .args(["bench", "--json", "--load", "--keys", "50", "--ops", "200", "--warmup", "0", "--seconds", "600"])
        .args(["--ring-aware", "--uniform", "--node", &cluster.endpoint(1)])
        .output()
        .unwrap();
    let found = report(&output);
    assert_eq!((found["errors"].clone(), found["not_found"].clone()), (serde_json::json!({}), 0.into()), "{found}");
    for node in 2..=3 {
        let metrics = get(&cluster.endpoint(node), "/metrics").text();
        assert!(metrics.contains(r#"requests_total{operation="get",outcome="ok"}"#), "{metrics}");
    }
}

#[test]
fn a_bench_speaks_the_redis_protocol_to_nodes_and_to_other_servers() {
    let cluster = Cluster::start();
    let args = ["--protocol", "resp", "--load", "--ops", "200", "--connections", "4"];
    let found = report(&bench(&cluster, &args).output().unwrap());
    assert_eq!((found["errors"].clone(), found["not_found"].clone()), (serde_json::json!({}), 0.into()), "{found}");
    assert_eq!(
        (&found["protocol"], &found["bucket"], &found["writes"]),
        (&"resp".into(), &"redis".into(), &"blind".into())
    );
    assert_eq!(found["server_cpu"].as_array().map(Vec::len), Some(3), "each node reports its process");
    for node in 1..=3 {
        let metrics = get(&cluster.endpoint(node), "/metrics").text();
        assert!(!metrics.contains("cartwheel_resp_commands_total 0\n"), "{metrics}");
    }

    // The bench knows the addresses only, as it would of a Redis server.
    let output = Command::new(CARTWHEEL)
        .args(["bench", "--json", "--keys", "200", "--warmup", "0", "--seconds", "600", "--ops", "500"])
        .args(["--protocol", "resp", "--pipeline", "16", "--connections", "2"])
        .args(["--node", &format!("redis://{}", cluster.redis_addr(1))])
        .output()
        .unwrap();
    let found = report(&output);
    assert_eq!((found["errors"].clone(), found["not_found"].clone()), (serde_json::json!({}), 0.into()), "{found}");
    let (reads, writes) =
        (found["read_latency"]["count"].as_u64().unwrap(), found["write_latency"]["count"].as_u64().unwrap());
    assert!(reads > 0 && writes > 0, "{found}");
    assert_eq!((&found["pipeline"], found["server_cpu"].as_array().map(Vec::len)), (&16.into(), Some(1)), "{found}");
}

#[test]
fn a_bench_of_the_client_goes_by_the_ring() {
    let cluster = Cluster::start();
    let output = Command::new(CARTWHEEL)
        .args(["bench", "--json", "--load", "--keys", "50", "--ops", "200", "--warmup", "0", "--seconds", "600"])
        .args([
            "--protocol",
            "client",
            "--writes",
            "known",
            "--uniform",
            "--node",
            &cluster.endpoint(1),
            "--timeout-ms",
            "60000",
        ])
        .output()
        .unwrap();
    let found = report(&output);
    assert_eq!((found["errors"].clone(), found["not_found"].clone()), (serde_json::json!({}), 0.into()), "{found}");
    assert_eq!((&found["protocol"], &found["connections"]), (&"client".into(), &32.into()));
    for node in 2..=3 {
        let metrics = get(&cluster.endpoint(node), "/metrics").text();
        assert!(metrics.contains(r#"requests_total{operation="get",outcome="ok"}"#), "{metrics}");
    }
}

#[test]
fn an_open_loop_begins_no_more_operations_than_are_due() {
    let cluster = Cluster::start();
    let args = ["--ops", "50", "--connections", "50", "--reads", "100%", "--rate", "100"];
    let found = report(&bench(&cluster, &args).output().unwrap());
    assert_eq!(found["rate"], 100);
    let begun = found["read_latency"]["count"].as_u64().unwrap();
    let left_out = found["left_out"].as_u64().unwrap();
    // One operation is due every 10 ms, however many connections are free. Each connection may have one in flight when the counting begins.
    let due = (found["seconds"].as_f64().unwrap() * 100.0) as u64 + 2 + 50;
    assert!(begun > 0 && begun + left_out <= due, "{found}");
}

#[test]
fn only_blind_writes_of_one_connection_make_siblings() {
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
fn an_interrupted_run_reports_what_it_measured() {
    let cluster = Cluster::start();
    let args = ["--reads", "100%"];
    let child = bench(&cluster, &args).stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let has_begun = || {
        get(&cluster.endpoint(1), "/metrics").text().contains(r#"requests_total{operation="get",outcome="not_found"}"#)
    };
    while !has_begun() {
        assert!(begun.elapsed() < PATIENCE, "the bench sends no requests");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Longer than the time until the measurement begins.
    std::thread::sleep(Duration::from_secs(2));
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::INT).unwrap();
    let found = report(&child.wait_with_output().unwrap());
    assert_eq!(found["interrupted"], true);
    assert!(
        found["not_found"].as_u64().is_some_and(|count| count > 0),
        "no keys were loaded, so every read must miss: {found}"
    );
}

#[test]
fn errors_are_counted_by_kind() {
    let cluster = Cluster::start();
    cluster.kill(2);
    cluster.kill(3);
    let args = ["--ops", "300", "--reads", "0", "--writes", "blind", "--timeout-ms", "500"];
    let output = bench(&cluster, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "no operation succeeded");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["errors"]["503 unavailable"].as_u64().is_some_and(|count| count > 0), "{found}");
    assert!(found["errors"]["cannot connect"].as_u64().is_some_and(|count| count > 0), "{found}");
    assert_eq!(found["ops"], 0);
}

#[test]
fn runs_that_cannot_be_measured_are_refused_with_the_reason() {
    for (args, why) in [
        (&["--node", "http://127.0.0.1:9"][..], "cannot reach a node at http://127.0.0.1:9"),
        (&["--node", "ftp://127.0.0.1:9"], "is not an endpoint"),
        (&["--node", "https://127.0.0.1:9"], "--tls-ca"),
        (&["--bucket", ""], "the bucket name is 0 bytes long"),
        (&["--reads", "2"], "expected a share"),
        (&["--keys", "0"], "0 is not in 1.."),
        (&["--protocol", "resp", "--node", "redis://127.0.0.1:9"], "cannot reach a node at redis://127.0.0.1:9"),
        (&["--protocol", "resp", "--node", "redis://127.0.0.1"], "pass redis://HOST:PORT"),
        (&["--protocol", "resp", "--writes", "update"], "carry no contexts"),
        (&["--protocol", "resp", "--bucket", "carts"], "redis-1 to redis-15"),
        (&["--pipeline", "2"], "only the Redis protocol has pipelines"),
        (&["--protocol", "client", "--ring-aware"], "--ring-aware is for --protocol http"),
    ] {
        let output = Command::new(CARTWHEEL).arg("bench").args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
}
