//! Helpers of the benches: `cartwheel bench` as a child process, and a node's metrics.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{CARTWHEEL, Cluster};

/// Starts `cartwheel bench` against these nodes. [`end`] returns its report.
pub fn begin(cluster: &Cluster, nodes: &[u16], args: &[String]) -> Child {
    begin_in("measured", cluster, nodes, args)
}

/// Like [`begin`], in another bucket.
pub fn begin_in(bucket: &str, cluster: &Cluster, nodes: &[u16], args: &[String]) -> Child {
    spawn(Command::new(CARTWHEEL), bucket, cluster, nodes, args)
}

/// Like [`begin_in`], with clients at the lowest CPU priority. Clients of a real cluster run on other machines; here a load of large
/// values would take CPU time from the nodes.
pub fn begin_yielding_in(bucket: &str, cluster: &Cluster, nodes: &[u16], args: &[String]) -> Child {
    let mut nice = Command::new("nice");
    nice.args(["-n", "19", CARTWHEEL]);
    spawn(nice, bucket, cluster, nodes, args)
}

fn spawn(mut command: Command, bucket: &str, cluster: &Cluster, nodes: &[u16], args: &[String]) -> Child {
    command.args(["bench", "--json", "--bucket", bucket]).args(args).stdout(Stdio::piped());
    for &node in nodes {
        command.args(["--node", &cluster.endpoint(node)]);
    }
    command.spawn().expect("cartwheel bench starts")
}

/// Waits for the end of a run and returns its report.
pub fn end(bench: Child) -> Value {
    let output = bench.wait_with_output().expect("cartwheel bench ends");
    serde_json::from_slice(&output.stdout).expect("cartwheel bench prints a JSON report")
}

/// The 99th percentile of the latencies named `kind` in a report, in milliseconds.
pub fn p99_ms(report: &Value, kind: &str) -> f64 {
    report[kind]["p99_us"].as_u64().unwrap_or_default() as f64 / 1e3
}

/// The body of a GET.
pub fn get(url: &str) -> Option<String> {
    let (addr, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect(addr).ok()?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// The sum of a node's metric samples whose lines begin with `name`.
pub fn metric(cluster: &Cluster, node: u16, name: &str) -> f64 {
    let text = get(&(cluster.endpoint(node) + "/metrics")).unwrap_or_default();
    let samples = text.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// The number after `--NAME` on this bench's command line.
pub fn flag(name: &str, default: u64) -> u64 {
    text_flag(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("give --{name} as a number")))
}

/// The text after `--NAME` on this bench's command line.
pub fn text_flag(name: &str) -> Option<String> {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == &format!("--{name}"))?;
    args.get(at + 1).cloned()
}

/// Splits arguments at spaces.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
