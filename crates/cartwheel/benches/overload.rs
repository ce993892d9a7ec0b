//! Measures a cluster's goodput at three times its peak throughput.
//!
//! A closed loop finds the peak throughput of three nodes, then an open loop sends requests at three times that rate. On a small machine the
//! clients need a core of their own, or the measurement shows the clients' limit: `--node-cpus 0 --client-cpus 1`.

#[path = "../tests/it/harness/mod.rs"]
mod harness;
mod measure;

use std::fs;
use std::process::Command;
use std::time::Duration;

use harness::{CARTWHEEL, Cluster};
use measure::{begin, end, flag, p99_ms, text_flag, words};
use serde_json::Value;

/// The numbers of connections that are tried to find the peak.
const CLOSED: [u64; 4] = [16, 64, 128, 256];

fn main() {
    let (keys, size, seconds) = (flag("keys", 20_000), flag("value-size", 500), flag("seconds", 20));
    let (open, times) = (flag("connections", 2_000), flag("times", 3));
    let cluster = Cluster::start_sharded(1);
    let pids: Vec<u32> = (1..=3).filter_map(|node| pid(&cluster, node)).collect();
    let (ours, theirs) = (text_flag("client-cpus"), text_flag("node-cpus"));
    if let Some(cpus) = &theirs {
        pids.iter().for_each(|&pid| pin(pid, cpus));
    }
    if let Some(cpus) = &ours {
        pin(std::process::id(), cpus);
    }
    let set = Command::new(CARTWHEEL)
        .args(["bucket", "set", "measured", "--conflict", "lww", "--node", &cluster.endpoint(1)])
        .output()
        .expect("cartwheel bucket set runs");
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    // With blind writes, each operation is one request.
    let common = format!("--keys {keys} --value-size {size} --writes blind --reads 50% --timeout-ms 2000");
    let nodes = [1, 2, 3];
    end(begin(&cluster, &nodes, &words(&format!("{common} --load --connections 64 --seconds 1 --warmup 0"))));
    let mut peak: f64 = 0.0;
    for connections in CLOSED {
        let report = end(begin(&cluster, &nodes, &words(&format!("{common} --connections {connections} --seconds 8"))));
        let rate = goodput(&report);
        println!("{connections:4} connections: {rate:.0} ops/s, p99 {:.0} ms{}", p99(&report), rss(&pids));
        peak = peak.max(rate);
    }
    let rate = (peak * times as f64) as u64;
    let args = format!("{common} --connections {open} --seconds {seconds} --rate {rate}");
    let bench = begin(&cluster, &nodes, &words(&args));
    let report = end(bench);
    let errors = report["errors"].as_object().cloned().unwrap_or_default();
    let failed: u64 = errors.values().filter_map(Value::as_u64).sum();
    let refused = errors.get("429 overloaded").and_then(Value::as_u64).unwrap_or_default();
    let answered = report["ops"].as_u64().unwrap_or_default() + failed;
    let begun = answered as f64 / report["seconds"].as_f64().unwrap_or(1.0);
    println!(
        "\nasked for {rate} ops/s ({times} times the peak of {peak:.0}), begun {begun:.0} ops/s, {} left out for want of a connection",
        report["left_out"]
    );
    println!("goodput {:.0} ops/s: {:.0}% of the peak", goodput(&report), 100.0 * goodput(&report) / peak);
    println!("refused with 429: {:.0}%; all errors: {}", 100.0 * refused as f64 / answered as f64, report["errors"]);
    println!("p99 of what was done {:.0} ms{}", p99(&report), rss(&pids));
    std::thread::sleep(Duration::from_secs(2));
    let after = end(begin(&cluster, &nodes, &words(&format!("{common} --connections 64 --seconds 8"))));
    println!("afterwards, 64 connections: {:.0} ops/s", goodput(&after));
}

fn goodput(report: &Value) -> f64 {
    report["ops_per_second"].as_f64().unwrap_or_default()
}

fn p99(report: &Value) -> f64 {
    p99_ms(report, "read_latency").max(p99_ms(report, "write_latency"))
}

fn pid(cluster: &Cluster, node: u16) -> Option<u32> {
    let ready: Value = serde_json::from_str(&measure::get(&(cluster.endpoint(node) + "/readyz"))?).ok()?;
    u32::try_from(ready["pid"].as_u64()?).ok()
}

/// The peak memory of each process.
fn rss(pids: &[u32]) -> String {
    let of = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?.split_whitespace().nth(1)?;
        Some(format!("{} MiB", line.parse::<u64>().ok()? >> 10))
    };
    let all: Vec<String> = pids.iter().filter_map(of).collect();
    if all.is_empty() { String::new() } else { format!(", memory at most {}", all.join(", ")) }
}

/// Restricts a process, all its threads and its later children to these CPUs.
fn pin(pid: u32, cpus: &str) {
    let done = Command::new("taskset").args(["-a", "-p", "-c", cpus, &pid.to_string()]).output();
    assert!(done.is_ok_and(|done| done.status.success()), "taskset cannot pin process {pid} to CPUs {cpus}");
}
