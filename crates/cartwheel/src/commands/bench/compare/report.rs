//! The figures of runs, their medians, and the report as tables, JSON and a chart.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::{CompareArgs, ProtocolName, StoreName};
use super::plan::Case;
use crate::commands::bench::local::nodes;
use crate::commands::bench::stats::{Stats, median};
use crate::terminal::chart::bars::Bars;
use crate::terminal::table::table_of_numbers;

/// The report. `--json` writes its fields, which are stable: fields may be added but not removed.
#[derive(Debug, Serialize)]
pub(super) struct CompareReport {
    /// The processors of this machine, which servers and clients share.
    pub(super) processors: usize,
    pub(super) keys: u64,
    pub(super) key_choice: &'static str,
    pub(super) value_bytes: u32,
    pub(super) connections: u32,
    /// The operations per second of an open loop; none for a closed loop.
    pub(super) rate: Option<u32>,
    pub(super) seconds: u64,
    pub(super) warmup_seconds: u64,
    pub(super) rounds: u32,
    pub(super) stores: Vec<StoreInfo>,
    /// What was not measured, and why.
    pub(super) skipped: Vec<String>,
    pub(super) cases: Vec<CaseReport>,
}

/// A store that was measured.
#[derive(Debug, Serialize)]
pub(super) struct StoreInfo {
    pub(super) store: StoreName,
    pub(super) version: String,
    /// The number of server processes.
    pub(super) processes: usize,
}

/// The results of one case.
#[derive(Debug, Serialize)]
pub(super) struct CaseReport {
    #[serde(flatten)]
    pub(super) case: Case,
    read_share: f64,
    /// The median of each figure over the rounds.
    median: RunFigures,
    /// The median, over the rounds, of the server CPU time per operation divided by that of Redis in the same round.
    cpu_ratio_to_redis: Option<f64>,
    rounds: Vec<RunFigures>,
}

/// The figures of one run, or their medians. A figure is missing if `/proc` does not tell it.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(super) struct RunFigures {
    /// Operations that succeeded within the run.
    ops: f64,
    ops_per_second: f64,
    server_cpu_us_per_op: Option<f64>,
    /// The part of it that the kernel used.
    server_kernel_us_per_op: Option<f64>,
    client_cpu_us_per_op: Option<f64>,
    voluntary_switches_per_op: Option<f64>,
    /// Calls that `/proc/PID/io` counts as reads and writes; neither `send`, `recv` nor `fsync` is among them.
    file_reads_and_writes_per_op: Option<f64>,
    read_us: Option<Quantiles>,
    write_us: Option<Quantiles>,
    /// Operations that failed.
    failed: f64,
    /// Operations of an open loop that were skipped because no client was free.
    skipped: f64,
    /// The failed operations of a run by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<String, u64>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    p999: f64,
}

impl RunFigures {
    pub(super) fn new(
        stats: &Stats,
        ops: u64,
        elapsed: Duration,
        servers: &super::usage::UsageSum,
        client_cpu: Option<Duration>,
    ) -> Self {
        let per_op = |amount: f64| (ops > 0).then(|| amount / ops as f64);
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        Self {
            ops: ops as f64,
            ops_per_second: ops as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            server_cpu_us_per_op: per_op(us(servers.cpu)),
            server_kernel_us_per_op: per_op(us(servers.kernel)),
            client_cpu_us_per_op: client_cpu.and_then(|cpu| per_op(us(cpu))),
            voluntary_switches_per_op: servers.voluntary_switches.and_then(|count| per_op(count as f64)),
            file_reads_and_writes_per_op: servers.file_calls.and_then(|count| per_op(count as f64)),
            read_us: Quantiles::of(&stats.reads),
            write_us: Quantiles::of(&stats.writes),
            failed: stats.failed() as f64,
            skipped: stats.skipped as f64,
            errors: stats.errors.clone(),
        }
    }

    fn median(runs: &[Self]) -> Self {
        let all = |figure: fn(&Self) -> Option<f64>| median(runs.iter().filter_map(figure).collect());
        let of_each = |figure: fn(&Self) -> f64| median(runs.iter().map(figure).collect()).unwrap_or_default();
        let quantiles = |latency: fn(&Self) -> Option<Quantiles>| {
            let each = |quantile: fn(Quantiles) -> f64| median(runs.iter().filter_map(latency).map(quantile).collect());
            Some(Quantiles { p50: each(|us| us.p50)?, p99: each(|us| us.p99)?, p999: each(|us| us.p999)? })
        };
        Self {
            ops: of_each(|run| run.ops),
            ops_per_second: of_each(|run| run.ops_per_second),
            server_cpu_us_per_op: all(|run| run.server_cpu_us_per_op),
            server_kernel_us_per_op: all(|run| run.server_kernel_us_per_op),
            client_cpu_us_per_op: all(|run| run.client_cpu_us_per_op),
            voluntary_switches_per_op: all(|run| run.voluntary_switches_per_op),
            file_reads_and_writes_per_op: all(|run| run.file_reads_and_writes_per_op),
            read_us: quantiles(|run| run.read_us),
            write_us: quantiles(|run| run.write_us),
            failed: of_each(|run| run.failed),
            skipped: of_each(|run| run.skipped),
            errors: BTreeMap::new(),
        }
    }
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64;
        (!histogram.is_empty()).then(|| Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    }
}

/// The reports of all cases. `runs` holds the runs of each case by round.
pub(super) fn cases(cases: &[Case], runs: &[Vec<RunFigures>]) -> Vec<CaseReport> {
    let report = |(case, rounds): (&Case, &Vec<RunFigures>)| {
        let beside = cases.iter().zip(runs).find(|(other, _)| other.is_redis_beside(case));
        let ratio = |(run, redis): (&RunFigures, &RunFigures)| {
            Some(run.server_cpu_us_per_op? / redis.server_cpu_us_per_op.filter(|&us| us > 0.0)?)
        };
        CaseReport {
            case: *case,
            read_share: case.workload.read_share(),
            median: RunFigures::median(rounds),
            cpu_ratio_to_redis: beside
                .and_then(|(_, redis)| median(rounds.iter().zip(redis).filter_map(ratio).collect())),
            rounds: rounds.clone(),
        }
    };
    cases.iter().zip(runs).map(report).collect()
}

/// The bars of a workload and a durability: their places in the group, and their heights.
struct BarGroup {
    name: String,
    bars: Vec<(usize, f64)>,
}

impl CompareReport {
    pub(super) fn new(args: &CompareArgs, key_choice: &'static str) -> Self {
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            keys: args.keys,
            key_choice,
            value_bytes: args.value_size,
            connections: args.connections,
            rate: args.rate,
            seconds: args.seconds,
            warmup_seconds: args.warmup,
            rounds: args.rounds,
            stores: Vec::new(),
            skipped: Vec::new(),
            cases: Vec::new(),
        }
    }

    pub(super) fn text(&self) -> String {
        let stores = self
            .stores
            .iter()
            .map(|store| format!("{} {} ({} processes)", title(store.store), store.version, store.processes));
        let mut text = format!(
            "{}; {} keys {}, {} bytes, {} connections{}, {} processors;\nmedians of {} rounds of {} s\n\n{}\n{}",
            stores.collect::<Vec<_>>().join(" beside "),
            self.keys,
            self.key_choice,
            self.value_bytes,
            self.connections,
            self.rate.map(|rate| format!(", {rate} operations/s")).unwrap_or_default(),
            self.processors,
            self.rounds,
            self.seconds,
            self.cost_table(),
            self.latency_table(),
        );
        for case in self.cases.iter().filter(|case| case.median.skipped > 0.0) {
            text.push_str(&format!(
                "\n{}: {:.0} operations were skipped, so the load was below --rate; use a lower rate or more --connections\n",
                case.case.name(),
                case.median.skipped
            ));
        }
        for skipped in &self.skipped {
            text.push_str(&format!("\nskipped: {skipped}\n"));
        }
        text
    }

    fn cost_table(&self) -> String {
        let header = [
            "CASE",
            "OPS/S",
            "CPU US/OP",
            "KERNEL US",
            "CPU/REDIS",
            "SWITCHES/OP",
            "FILE RW/OP",
            "CLIENT US/OP",
            "FAILED",
        ];
        let row = |case: &CaseReport| {
            let of = |figure: Option<f64>, digits: usize| figure.map_or("-".to_owned(), |it| format!("{it:.digits$}"));
            let CaseReport { median, cpu_ratio_to_redis: ratio, .. } = case;
            [
                case.case.name(),
                of(Some(median.ops_per_second), 0),
                of(median.server_cpu_us_per_op, 1),
                of(median.server_kernel_us_per_op, 1),
                of(*ratio, 2),
                of(median.voluntary_switches_per_op, 2),
                of(median.file_reads_and_writes_per_op, 2),
                of(median.client_cpu_us_per_op, 1),
                of(Some(median.failed), 0),
            ]
        };
        table_of_numbers(header, self.cases.iter().map(row))
    }

    fn latency_table(&self) -> String {
        let header = ["MS", "READ P50", "P99", "P99.9", "WRITE P50", "P99", "P99.9"];
        let row = |case: &CaseReport| {
            let ms = |latency: Option<Quantiles>, quantile: fn(Quantiles) -> f64| {
                latency.map_or("-".to_owned(), |latency| format!("{:.2}", quantile(latency) / 1e3))
            };
            let cells = |latency| [ms(latency, |us| us.p50), ms(latency, |us| us.p99), ms(latency, |us| us.p999)];
            let ([a, b, c], [d, e, f]) = (cells(case.median.read_us), cells(case.median.write_us));
            [case.case.name(), a, b, c, d, e, f]
        };
        table_of_numbers(header, self.cases.iter().map(row))
    }

    /// The server CPU time per operation: a group for each workload and durability, a bar for each R and for Redis.
    pub(super) fn bars(&self) -> Bars {
        let mut series: Vec<String> = Vec::new();
        let mut groups: Vec<BarGroup> = Vec::new();
        for CaseReport { case, median, .. } in &self.cases {
            let store = match case.protocol {
                Some(ProtocolName::Resp) => "Cartwheel over RESP",
                Some(ProtocolName::Http) | None => title(case.store),
            };
            let name = case.r.map_or_else(|| store.to_owned(), |r| format!("{store}, reads with R={r}"));
            // Writes do not depend on R: their bar stands first.
            let of_reads = format!("{store}, ");
            let is_it = |known: &String| *known == name || case.r.is_none() && known.starts_with(&of_reads);
            let at = match series.iter().position(is_it) {
                Some(at) => at,
                None => {
                    series.push(name);
                    series.len() - 1
                }
            };
            let group = format!("{:?} {}", case.workload, nodes::name(case.durability));
            if groups.last().is_none_or(|last| last.name != group) {
                groups.push(BarGroup { name: group, bars: Vec::new() });
            }
            if let (Some(group), Some(us)) = (groups.last_mut(), median.server_cpu_us_per_op) {
                group.bars.push((at, us));
            }
        }
        let group = |BarGroup { name, bars }| {
            let height = |at: usize| bars.iter().find(|(bar, _)| *bar == at).map(|&(_, us)| us);
            (name, (0..series.len()).map(height).collect())
        };
        let groups = groups.into_iter().map(group).collect();
        Bars { title: "Server CPU time per operation".into(), label: "us per operation".into(), series, groups }
    }
}

/// The name of a store in text.
pub(super) const fn title(store: StoreName) -> &'static str {
    match store {
        StoreName::Cartwheel => "Cartwheel",
        StoreName::Redis => "Redis Cluster",
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Workload;
    use super::super::plan;
    use super::*;
    use crate::cli::Durability;

    fn run(us: f64) -> RunFigures {
        RunFigures { server_cpu_us_per_op: Some(us), ..RunFigures::default() }
    }

    #[test]
    fn ratios_are_of_runs_in_the_same_round() {
        let stores = [StoreName::Cartwheel, StoreName::Redis];
        let plan = plan::cases(&stores, &[ProtocolName::Http], &[Workload::A], &[Durability::Os], &[1]);
        let runs = [vec![run(10.0), run(30.0), run(90.0)], vec![run(10.0), run(10.0), run(10.0)]];
        let found = cases(&plan, &runs);
        assert_eq!(found.iter().map(|case| case.cpu_ratio_to_redis).collect::<Vec<_>>(), [Some(3.0), None]);
        assert_eq!(found[0].median, run(30.0));
        let alone = plan::cases(&stores[..1], &[ProtocolName::Http], &[Workload::A], &[Durability::Os], &[1]);
        assert_eq!(cases(&alone, &runs)[0].cpu_ratio_to_redis, None);
    }

    #[test]
    fn the_bars_of_writes_stand_beside_those_of_redis() {
        let stores = [StoreName::Cartwheel, StoreName::Redis];
        let (http, both) = ([ProtocolName::Http], [ProtocolName::Http, ProtocolName::Resp]);
        let plan = plan::cases(&stores, &http, &[Workload::A, Workload::W], &[Durability::Fsync], &[1, 2]);
        let runs: Vec<_> = (1..=6).map(|us| vec![run(f64::from(us))]).collect();
        let mut report = CompareReport::empty();
        report.cases = cases(&plan, &runs[..plan.len()]);
        let bars = report.bars();
        assert_eq!(bars.series, ["Cartwheel, reads with R=1", "Cartwheel, reads with R=2", "Redis Cluster"]);
        assert_eq!(
            bars.groups,
            [
                ("A fsync".to_owned(), vec![Some(1.0), Some(2.0), Some(3.0)]),
                ("W fsync".to_owned(), vec![Some(4.0), None, Some(5.0)]),
            ]
        );
        let plan = plan::cases(&stores, &both, &[Workload::A, Workload::W], &[Durability::Fsync], &[1]);
        report.cases = cases(&plan, &runs[..plan.len()]);
        let bars = report.bars();
        assert_eq!(bars.series, ["Cartwheel, reads with R=1", "Cartwheel over RESP, reads with R=1", "Redis Cluster"]);
        assert_eq!(bars.groups[1], ("W fsync".to_owned(), vec![Some(4.0), Some(5.0), Some(6.0)]));
    }

    impl CompareReport {
        fn empty() -> Self {
            Self {
                processors: 1,
                keys: 1,
                key_choice: "uniform",
                value_bytes: 1,
                connections: 1,
                rate: None,
                seconds: 1,
                warmup_seconds: 0,
                rounds: 1,
                stores: Vec::new(),
                skipped: Vec::new(),
                cases: Vec::new(),
            }
        }
    }
}
