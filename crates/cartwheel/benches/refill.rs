//! Measures client latency while a wiped node is synced again (the paper's section 6.5).
//!
//! A closed loop of clients runs on three nodes: first alone, then while node 3 returns with an empty disk.

#[path = "../tests/it/harness/mod.rs"]
mod harness;
mod measure;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{CARTWHEEL, Cluster};
use measure::{begin, end, flag, get, metric, p99_ms, words};
use serde_json::Value;

const SHOW_EVERY: Duration = Duration::from_secs(5);

fn main() {
    let (keys, size, seconds) = (flag("keys", 300_000), flag("value-size", 500), flag("seconds", 60));
    let connections = flag("connections", 8);
    let mut cluster = Cluster::start_sharded(1);
    println!("loading {keys} keys of {size} bytes");
    let load = format!("--load --connections 64 --keys {keys} --value-size {size} --seconds 1 --warmup 0");
    end(begin(&cluster, &[1, 2, 3], &words(&load)));
    let run = words(&format!(
        "--connections {connections} --keys {keys} --value-size {size} --seconds {seconds} --warmup 3 --uniform"
    ));
    let alone = end(begin(&cluster, &[1, 2, 3], &run));
    show("alone", &alone);

    cluster.kill(3);
    let dir = cluster.node_dir(3);
    fs::remove_dir_all(&dir).expect("node 3 is wiped");
    let renewed = Command::new(CARTWHEEL)
        .args(["renew", "--name", "node-3", "--dir"])
        .arg(&dir)
        .arg("--like")
        .arg(cluster.node_dir(1))
        .output()
        .expect("cartwheel renew runs");
    assert!(renewed.status.success(), "{}", String::from_utf8_lossy(&renewed.stderr));
    cluster.restart(3);
    let mut clients = begin(&cluster, &[1, 2, 3], &run);
    let begun = Instant::now();
    println!("\nnode 3 is back with an empty disk\n    s  unequal  keys sent    rates let in, tail and limit in ms");
    let mut is_measuring = true;
    let mut filled = None;
    while is_measuring || filled.is_none() {
        std::thread::sleep(SHOW_EVERY);
        is_measuring = is_measuring && matches!(clients.try_wait(), Ok(None));
        let unequal = unequal(&cluster);
        let rates: Vec<f64> = (1..=3).map(|node| metric(&cluster, node, "cartwheel_background_rate{")).collect();
        let elapsed = begun.elapsed();
        let ms = |name: &str| {
            let of = |node| 1e3 * metric(&cluster, node, &format!("cartwheel_{name}_seconds{{"));
            (1..=3).map(|node| format!("{:.1}", of(node))).collect::<Vec<_>>().join(" ")
        };
        println!(
            "{:5.0}  {:7}  {:9}    {rates:?}, {}, {}",
            elapsed.as_secs_f64(),
            unequal.unwrap_or(0),
            sent(&cluster),
            ms("foreground_tail"),
            ms("foreground_tail_limit")
        );
        if filled.is_none() && unequal == Some(0) {
            filled = Some((elapsed, is_measuring));
        }
        assert!(elapsed < Duration::from_secs(1_800), "the refill does not end");
    }
    let during = end(clients);
    show("during the refill", &during);
    let (took, was_measuring) = filled.expect("the loop ends with it");
    let seconds_filled = took.as_secs_f64();
    println!(
        "the refill took {seconds_filled:.0} s ({:.0} keys/s){}",
        keys as f64 / seconds_filled,
        if was_measuring { ": it ended before the clients did, so ask for more --keys" } else { "" }
    );
    for kind in ["read_latency", "write_latency"] {
        let (before, after) = (p99_ms(&alone, kind), p99_ms(&during, kind));
        println!("{kind}: p99 {before:.1} ms alone, {after:.1} ms during the refill: {:.2} times", after / before);
    }
}

fn show(when: &str, report: &Value) {
    println!(
        "{when}: {:.0} ops/s, p99 of reads {:.1} ms, of writes {:.1} ms, errors {}",
        report["ops_per_second"].as_f64().unwrap_or_default(),
        p99_ms(report, "read_latency"),
        p99_ms(report, "write_latency"),
        report["errors"]
    );
}

/// The number of partitions of node 3 that are not yet verified equal to another home's.
fn unequal(cluster: &Cluster) -> Option<u64> {
    let text = get(&(cluster.endpoint(3) + "/v1/cluster/replicas"))?;
    serde_json::from_str::<Value>(&text).ok()?["unproven"].as_u64()
}

/// The number of records that all nodes sent to replicas that lacked them.
fn sent(cluster: &Cluster) -> f64 {
    let repairs = |kind: &str| {
        let name = format!("cartwheel_repairs_total{{kind=\"{kind}\"");
        (1..=3).map(|node| metric(cluster, node, &name)).sum::<f64>()
    };
    repairs("exchange") + repairs("heal")
}
