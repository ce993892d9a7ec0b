use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::shard::ShardHandle;

/// Registers the constant metrics: when the process began, and its version.
pub(super) fn register(registry: &mut Registry) {
    let started = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    started.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    let help = "Unix time at which the process started";
    registry.register("process_start_time_seconds", help, started);
    let build = Family::<[(&str, &str); 1], Gauge>::default();
    build.get_or_create(&[("version", crate::VERSION)]).set(1);
    registry.register("cartwheel_build_info", "Always 1; the label has the version", build);
}

/// What the system says of the process, under the names that Prometheus' own libraries give it. What it does not say is left out.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(seconds) = cpu_seconds() {
            let help = "Processor time of the process, in user and system mode.";
            let descriptor = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(descriptor)?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Memory of the process that is in RAM.", resident_bytes()),
            ("process_open_fds", "Open files and connections of the process.", open_files()),
            ("process_max_fds", "The most files and connections that it may have open.", files_max()),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

/// The sum of the fields `utime` and `stime` of `proc_pid_stat(5)`.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn resident_bytes() -> Option<i64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)
}

fn open_files() -> Option<i64> {
    i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}

fn files_max() -> Option<i64> {
    i64::try_from(rustix::process::getrlimit(rustix::process::Resource::Nofile).current?).ok()
}

/// The lost lines of the log.
#[derive(Debug)]
pub(super) struct LostLines;

impl Collector for LostLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Log lines that were dropped because they could not be written or the reader is too slow.";
        let lost = ConstCounter::new(crate::log::lines_lost());
        lost.encode(encoder.encode_descriptor("log_lines_lost", help, None, MetricType::Counter)?)
    }
}

/// The queues of the shards, collected on each scrape.
#[derive(Debug)]
pub(super) struct Inboxes(pub(super) Vec<ShardHandle>);

impl Collector for Inboxes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Requests and messages in a shard's queue.";
        let mut family = encoder.encode_descriptor("shard_inbox_waiting", help, None, MetricType::Gauge)?;
        for (index, shard) in self.0.iter().enumerate() {
            let waiting = i64::try_from(shard.waiting()).unwrap_or(i64::MAX);
            ConstGauge::new(waiting).encode(family.encode_family(&[("shard", index.to_string())])?)?;
        }
        let help = "Capacity of a shard's queue; client requests are admitted while half of it is free.";
        let limit = ConstGauge::new(i64::try_from(crate::shard::INBOX_MAX).unwrap_or(i64::MAX));
        limit.encode(encoder.encode_descriptor("shard_inbox_limit", help, None, MetricType::Gauge)?)?;
        let help = "Client requests that a shard has under way.";
        let mut family = encoder.encode_descriptor("shard_requests_under_way", help, None, MetricType::Gauge)?;
        for (index, shard) in self.0.iter().enumerate() {
            let count = i64::try_from(shard.under_way()).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&[("shard", index.to_string())])?)?;
        }
        let help = "Bytes of peers' messages in a shard's queue or turn.";
        let mut family = encoder.encode_descriptor("shard_inbox_bytes", help, None, MetricType::Gauge)?;
        for (index, shard) in self.0.iter().enumerate() {
            let bytes = i64::try_from(shard.waiting_bytes()).unwrap_or(i64::MAX);
            ConstGauge::new(bytes).encode(family.encode_family(&[("shard", index.to_string())])?)?;
        }
        Ok(())
    }
}
