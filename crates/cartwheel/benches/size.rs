//! Loads many keys into three nodes and measures what must not grow with the data: throughput over the load, memory, the time to start after
//! SIGKILL, and what a comparison of equal replicas costs.
//!
//! `--keys` and `--value-size` say how much. All copies are on this machine: three times the data must fit on the disk under `TMPDIR`.

#[path = "../tests/it/harness/mod.rs"]
mod harness;
mod measure;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use harness::{CARTWHEEL, Cluster};
use measure::{begin, end, flag, metric, p99_ms, text_flag, words};
use plotters::prelude::*;
use rustix::process::Signal;

const NODES: [u16; 3] = [1, 2, 3];

/// One reading during the load.
struct Sample {
    /// Since the load began, in seconds.
    at: f64,
    /// Puts since the load began.
    puts: f64,
    /// Resident memory of the largest node, in MiB.
    memory_mib: f64,
}

fn main() {
    let (keys, bytes, every) = (flag("keys", 10_000_000), flag("value-size", 100), flag("every", 10));
    let mut cluster = Cluster::start_sharded(flag("shards", 1) as u32);
    let set = Command::new(CARTWHEEL)
        .args(["bucket", "set", "measured", "--conflict", "lww", "--durability", "os", "--node", &cluster.endpoint(1)])
        .output()
        .expect("cartwheel bucket set runs");
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));

    let begun = Instant::now();
    let load = format!("--keys {keys} --value-size {bytes} --load --connections 64 --seconds 1 --warmup 0");
    let mut bench = begin(&cluster, &NODES, &words(&load));
    let samples = sampled(&cluster, &mut bench, begun, every as f64);
    end(bench);
    let took = begun.elapsed().as_secs_f64();
    println!("loaded {keys} keys of {bytes} bytes in {took:.0} s, {:.0} puts/s", keys as f64 / took);
    print_samples(&samples);
    if let Some(path) = text_flag("svg") {
        chart(Path::new(&path), &samples).expect("the chart can be written");
    }

    let read = format!("--keys {keys} --value-size {bytes} --reads 100% --uniform --seconds 20 --warmup 0");
    let report = end(begin(&cluster, &NODES, &words(&read)));
    println!(
        "uniform reads of all keys: {:.0} ops/s, p99 {:.1} ms; memory of the largest node {:.0} MiB, disk of node-1 {:.1} GiB",
        report["ops_per_second"].as_f64().unwrap_or_default(),
        p99_ms(&report, "read_latency"),
        memory_mib(&cluster),
        disk_bytes(&cluster.node_dir(1)) as f64 / f64::from(1 << 30),
    );

    // An idle cluster, in which all replicas are equal, sends comparisons and nothing else of anti-entropy.
    let seconds = flag("idle-seconds", 120);
    std::thread::sleep(Duration::from_secs(10));
    let before = exchanged(&cluster);
    std::thread::sleep(Duration::from_secs(seconds));
    let after = exchanged(&cluster);
    let (bytes, compared) = (after.0 - before.0, after.1 - before.1);
    println!(
        "equal replicas: {compared:.0} comparisons of a partition in {seconds} s, {:.0} bytes each, both directions",
        bytes / compared
    );

    for node in NODES {
        cluster.kill(node);
    }
    let begun = Instant::now();
    NODES.iter().for_each(|&node| cluster.restart_unready(node));
    for node in NODES {
        cluster.wait_for(node);
        println!(
            "node-{node} ready {:.1} s after all were started at once after SIGKILL",
            begun.elapsed().as_secs_f64()
        );
    }
    cluster.stop(1, Signal::KILL);
    let begun = Instant::now();
    cluster.restart(1);
    println!("node-1 ready {:.1} s after its start alone after SIGKILL", begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let verified = Command::new(CARTWHEEL)
        .args(["verify", "--node", &cluster.endpoint(1)])
        .output()
        .expect("cartwheel verify runs");
    println!("verify, {:.0} s:\n{}", begun.elapsed().as_secs_f64(), String::from_utf8_lossy(&verified.stdout));
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// Reads figures every so many seconds until the load has ended.
fn sampled(cluster: &Cluster, bench: &mut Child, begun: Instant, every: f64) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut next = every;
    while bench.try_wait().expect("the load can be waited for").is_none() {
        std::thread::sleep(Duration::from_millis(100));
        let at = begun.elapsed().as_secs_f64();
        if at >= next {
            next += every;
            let puts =
                NODES.iter().map(|&node| metric(cluster, node, "cartwheel_requests_total{operation=\"put\"")).sum();
            samples.push(Sample { at, puts, memory_mib: memory_mib(cluster) });
        }
    }
    samples
}

/// The puts a second between each two samples.
fn rates(samples: &[Sample]) -> Vec<(f64, f64)> {
    let rate = |pair: &[Sample]| (pair[1].at, (pair[1].puts - pair[0].puts) / (pair[1].at - pair[0].at));
    samples.windows(2).map(rate).collect()
}

fn print_samples(samples: &[Sample]) {
    let rates: Vec<f64> = rates(samples).into_iter().map(|(_, rate)| rate).collect();
    let tenth = (rates.len() / 10).max(1);
    for (number, part) in rates.chunks(tenth).enumerate() {
        let (lowest, highest) =
            part.iter().fold((f64::MAX, 0.0_f64), |(low, high), &rate| (low.min(rate), high.max(rate)));
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        println!("part {:2}: {mean:.0} puts/s (windows from {lowest:.0} to {highest:.0})", number + 1);
    }
    let largest = samples.iter().map(|sample| sample.memory_mib).fold(0.0, f64::max);
    println!("memory of the largest node during the load: at most {largest:.0} MiB");
}

/// Throughput and memory over the time of the load.
fn chart(path: &Path, samples: &[Sample]) -> Result<(), Box<dyn std::error::Error>> {
    let rates = rates(samples);
    let last = samples.last().map_or(1.0, |sample| sample.at);
    let highest = rates.iter().map(|&(_, rate)| rate).fold(1.0, f64::max);
    let largest = samples.iter().map(|sample| sample.memory_mib).fold(1.0, f64::max);
    let root = SVGBackend::new(path, (760, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .right_y_label_area_size(64)
        .build_cartesian_2d(0.0..last, 0.0..highest * 1.1)?
        .set_secondary_coord(0.0..last, 0.0..largest * 1.3);
    chart.configure_mesh().x_desc("seconds since the load began").y_desc("puts/s").draw()?;
    chart.configure_secondary_axes().y_desc("memory of the largest node, MiB").draw()?;
    let (rate_color, memory_color) = (RGBColor(31, 95, 191), RGBColor(200, 90, 20));
    chart
        .draw_series(LineSeries::new(rates, rate_color.stroke_width(2)))?
        .label("puts/s")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], rate_color.stroke_width(2)));
    chart
        .draw_secondary_series(LineSeries::new(
            samples.iter().map(|sample| (sample.at, sample.memory_mib)),
            memory_color.stroke_width(2),
        ))?
        .label("memory")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], memory_color.stroke_width(2)));
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

/// The resident memory of the largest node, in MiB.
fn memory_mib(cluster: &Cluster) -> f64 {
    let resident = |node: u16| {
        let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid(node))).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    NODES.iter().filter_map(|&node| resident(node)).fold(0.0, f64::max) / 1024.0
}

/// The bytes of anti-entropy that all nodes have sent, and the comparisons of a partition that ended with both replicas equal.
fn exchanged(cluster: &Cluster) -> (f64, f64) {
    let sum = |name| NODES.iter().map(|&node| metric(cluster, node, name)).sum();
    (sum("cartwheel_exchange_sent_bytes"), sum("cartwheel_exchanges_total"))
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => disk_bytes(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}
