//! The report of a bench, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Measurements;
use super::job::JobSettings;
use super::servers::Servers;
use super::{BenchArgs, BenchProtocol, Writes};
use crate::terminal::table::table_of_numbers;

/// A report. `--json` prints its fields, which are stable: fields may be added but not removed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    nodes: Vec<String>,
    bucket: String,
    keys: u64,
    key_choice: &'static str,
    value_bytes: u32,
    read_share: f64,
    writes: &'static str,
    protocol: &'static str,
    connections: u32,
    /// The operations in flight on each connection.
    pipeline: u32,
    /// The scheduled operations per second; none in a closed loop.
    rate: Option<u32>,
    /// Scheduled operations that were skipped because no connection was free.
    #[serde(rename = "left_out")]
    skipped: u64,
    strong: bool,
    r: Option<u8>,
    w: Option<u8>,
    /// The length of the measurement.
    seconds: f64,
    interrupted: bool,
    /// Operations that succeeded within the measurement.
    ops: u64,
    ops_per_second: f64,
    read_latency: Latency,
    write_latency: Latency,
    errors: BTreeMap<String, u64>,
    not_found: u64,
    gets_with_siblings: u64,
    siblings_max: u64,
    /// Operations that were aborted because they did not end in time after the measurement.
    unfinished: u64,
    server_cpu_us_per_op: Option<f64>,
    server_cpu: Vec<ServerCpu>,
    client_cpu_us_per_op: Option<f64>,
}

/// The latencies of operations that began before the end, including those that ended after it.
#[derive(Debug, Serialize)]
struct Latency {
    count: u64,
    mean_us: f64,
    p50_us: u64,
    p95_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

#[derive(Debug, Serialize)]
struct ServerCpu {
    pid: u32,
    name: String,
    us_per_op: f64,
}

impl Report {
    pub(super) fn new(args: &BenchArgs, settings: &JobSettings, measured: &Measurements, servers: &Servers) -> Self {
        let Measurements { stats, ops, elapsed, .. } = measured;
        let per_op = |time: &std::time::Duration| time.as_secs_f64() * 1e6 / (*ops).max(1) as f64;
        let cpu = |(&pid, time)| ServerCpu { pid, name: servers.name(pid).to_owned(), us_per_op: per_op(time) };
        let server_cpu: Vec<ServerCpu> = measured.server_cpu.iter().map(cpu).collect();
        // If a process ended during the measurement, the sum would be meaningless.
        let is_complete = !server_cpu.is_empty() && server_cpu.len() == servers.count();
        Self {
            nodes: args.endpoints.addresses().into_iter().map(str::to_owned).collect(),
            bucket: settings.bucket.clone(),
            keys: args.keys,
            key_choice: settings.keys.name(),
            value_bytes: args.value_size,
            read_share: args.reads,
            writes: settings.writes.name(),
            protocol: args.protocol.name(),
            connections: args.connections,
            pipeline: args.pipeline,
            rate: args.rate,
            skipped: stats.skipped,
            strong: args.strong,
            r: args.r,
            w: args.w,
            seconds: elapsed.as_secs_f64(),
            interrupted: measured.interrupted,
            ops: *ops,
            ops_per_second: *ops as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            read_latency: Latency::of(&stats.reads),
            write_latency: Latency::of(&stats.writes),
            errors: stats.errors.clone(),
            not_found: stats.not_found,
            gets_with_siblings: stats.gets_with_siblings,
            siblings_max: stats.siblings_max,
            unfinished: measured.unfinished,
            server_cpu_us_per_op: is_complete.then(|| server_cpu.iter().map(|cpu| cpu.us_per_op).sum()),
            server_cpu,
            client_cpu_us_per_op: measured.client_cpu.as_ref().map(per_op),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{:.0} ops/s{} ({} operations in {:.1} s{}; {}% reads, write = {}, {} keys {}, {} bytes, {} connections{}{}{})\n\n",
            self.ops_per_second,
            self.rate.map(|rate| format!(" of {rate} scheduled")).unwrap_or_default(),
            self.ops,
            self.seconds,
            if self.interrupted { ", interrupted" } else { "" },
            round(self.read_share * 100.0),
            self.writes,
            self.keys,
            self.key_choice,
            self.value_bytes,
            self.connections,
            if self.strong { ", strong" } else { "" },
            if self.protocol == BenchProtocol::Http.name() { String::new() } else { format!(", {}", self.protocol) },
            if self.pipeline > 1 { format!(" with {} commands in flight each", self.pipeline) } else { String::new() },
        );
        let latencies = [("reads", &self.read_latency), ("writes", &self.write_latency)];
        let rows =
            latencies.into_iter().filter(|(_, latency)| latency.count > 0).map(|(name, latency)| latency.row(name));
        text += &table_of_numbers(["ms", "count", "mean", "p50", "p95", "p99", "p99.9", "max"], rows);
        text.push('\n');
        self.write_cpu(&mut text);
        self.write_remarks(&mut text);
        text
    }

    fn write_cpu(&self, text: &mut String) {
        let each = |cpu: &ServerCpu| format!("{} ({}) {:.1}", cpu.name, cpu.pid, cpu.us_per_op);
        let each = self.server_cpu.iter().map(each).collect::<Vec<_>>().join(", ");
        let _ = match self.server_cpu_us_per_op {
            Some(sum) => writeln!(text, "server CPU  {sum:.1} us per operation: {each}"),
            None if each.is_empty() => {
                writeln!(text, "server CPU  unknown: no server was found on this machine; pass --pid")
            }
            None => {
                writeln!(text, "server CPU  unknown: a server process ended during the measurement; the others: {each}")
            }
        };
        if let Some(client) = self.client_cpu_us_per_op {
            let _ = writeln!(text, "client CPU  {client:.1} us per operation");
        }
    }

    fn write_remarks(&self, text: &mut String) {
        let gets = match self.writes {
            writes if writes == Writes::Update.name() => "gets, including those of writes",
            _ => "gets",
        };
        for (kind, count) in &self.errors {
            let _ = writeln!(text, "errors      {count} {kind}");
        }
        if self.skipped > 0 {
            let _ = writeln!(
                text,
                "skipped     {} operations: no connection was free; use more --connections, or more CPU here",
                self.skipped
            );
        }
        if self.unfinished > 0 {
            let _ = writeln!(text, "unfinished  {} operations did not end in time", self.unfinished);
        }
        if self.not_found > 0 {
            let _ = writeln!(text, "not found   {} {gets}: put every key first with --load", self.not_found);
        }
        if self.gets_with_siblings > 0 {
            let _ = writeln!(text, "siblings    {} {gets}; {} at most", self.gets_with_siblings, self.siblings_max);
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }

    fn row(&self, name: &str) -> [String; 8] {
        let ms = |us: f64| format!("{:.2}", us / 1e3);
        let [p50, p95, p99, p999, max] =
            [self.p50_us, self.p95_us, self.p99_us, self.p999_us, self.max_us].map(|us| ms(us as f64));
        [name.to_owned(), self.count.to_string(), ms(self.mean_us), p50, p95, p99, p999, max]
    }
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
