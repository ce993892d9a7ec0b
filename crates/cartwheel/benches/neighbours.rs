//! Measures the latency of small requests while other clients read large values, and while a backlog of hints is counted and handed over.
//!
//! A closed loop of a few clients reads and writes small values through nodes 2 and 3 of three nodes. It runs alone, then beside clients that
//! read values of 16 MiB through node 1, then while nodes 1 and 3 restart and hints for node 3 are pending.

#[path = "../tests/it/harness/mod.rs"]
mod harness;
mod measure;

use std::process::Command;

use harness::{CARTWHEEL, Cluster};
use measure::{begin, begin_in, begin_yielding_in, end, flag, metric, p99_ms, words};
use serde_json::Value;

const LARGE_BYTES: u64 = 16 << 20;

fn main() {
    let (seconds, readers, backlog) = (flag("seconds", 20), flag("readers", 20), flag("backlog", 400_000));
    let mut cluster = Cluster::start_sharded(1);
    set(&cluster, "large", &["--max-value-bytes", &LARGE_BYTES.to_string()]);
    // With n=2, one of the three nodes is not a home of a key, and stands in while a home is down.
    set(&cluster, "hinted", &["--n", "2", "--r", "1", "--w", "2"]);
    let large = format!("--keys 4 --value-size {LARGE_BYTES} --timeout-ms 60000 --warmup 0");
    end(begin_in("large", &cluster, &[1], &words(&format!("{large} --load --connections 1 --seconds 1"))));
    let small =
        words(&format!("--keys 10000 --value-size 200 --connections 4 --seconds {seconds} --warmup 2 --uniform"));
    let alone = end(begin(&cluster, &[2, 3], &small));
    show("alone", &alone, &alone);

    let reads = format!("{large} --reads 100% --connections {readers} --seconds {}", seconds + 4);
    let large_reads = begin_yielding_in("large", &cluster, &[1], &words(&reads));
    let beside = end(begin(&cluster, &[2, 3], &small));
    let read = end(large_reads)["ops"].as_u64().unwrap_or_default() * (LARGE_BYTES >> 20);
    show(&format!("beside {read} MiB of large reads"), &beside, &alone);

    cluster.kill(3);
    // Node 3 is a home of about two of three keys.
    let load = format!("--load --keys {} --value-size 100 --connections 64 --seconds 1 --warmup 0", backlog * 3 / 2);
    end(begin_in("hinted", &cluster, &[1, 2], &words(&load)));
    let hints = |cluster: &Cluster, node| metric(cluster, node, "cartwheel_hints_held{");
    println!("{:.0} records are kept for node 3", hints(&cluster, 1) + hints(&cluster, 2));
    cluster.kill(1);
    cluster.restart(1);
    let counting = begin(&cluster, &[2], &small);
    cluster.restart(3);
    let during = end(counting);
    let left = hints(&cluster, 1) + hints(&cluster, 2);
    show(&format!("during the hand-over, of which {left:.0} records are left"), &during, &alone);
}

fn set(cluster: &Cluster, bucket: &str, settings: &[&str]) {
    let set = Command::new(CARTWHEEL)
        .args(["bucket", "set", bucket, "--node", &cluster.endpoint(1)])
        .args(settings)
        .output()
        .expect("cartwheel bucket set runs");
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
}

fn show(when: &str, report: &Value, alone: &Value) {
    println!("{when}: {:.0} ops/s, errors {}", report["ops_per_second"].as_f64().unwrap_or_default(), report["errors"]);
    for kind in ["read_latency", "write_latency"] {
        let (now, before) = (p99_ms(report, kind), p99_ms(alone, kind));
        println!("    {kind}: p99 {now:.1} ms, {:.1} ms more than alone ({:.1} times)", now - before, now / before);
    }
}
