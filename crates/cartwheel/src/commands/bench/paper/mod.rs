//! `cartwheel bench paper`: what the Dynamo paper measures, on a local cluster.

mod args;
mod figures;
mod published;
mod report;

use std::f64::consts::TAU;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cartwheel_client::HomeTable;
use cartwheel_sim::placement::imbalance::{self, ImbalancePoint, ImbalanceSettings};

use super::connection::Endpoint;
use super::job::{Job, JobSettings};
use super::keys::Keys;
use super::link::LinkPlan;
use super::local::nodes::{self, LocalCluster};
use super::local::{self, LocalError};
use super::servers::{self, Servers};
use super::stats::Stats;
use super::{BenchError, Writes, fill};
use crate::cli::Durability;
use crate::terminal::output;
pub use args::PaperArgs;
use args::Part;
use report::{Coordination, PaperReport, VersionCounts, Window};

const FSYNC_BUCKET: &str = "paper-fsync";
const OS_BUCKET: &str = "paper-os";
const SIBLINGS_BUCKET: &str = "paper-siblings";
/// The time limit of an operation.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The warm-up before a run of Table 2, in which each connection is opened.
const WARMUP: Duration = Duration::from_secs(3);
/// The warm-up before a window.
const WINDOW_WARMUP: Duration = Duration::from_secs(1);
/// The days that the windows imitate.
const DAYS: f64 = 2.0;
/// The load at night, as a share of the peak.
const NIGHT: f64 = 0.2;
/// The defaults of `cartwheel simulate placement`.
const FIGURE_6: ImbalanceSettings = ImbalanceSettings {
    nodes: 30,
    replicas: 3,
    state_bytes: 64 << 10,
    clusters: 20,
    windows: 4,
    keys: 40_000,
    requests: 100_000,
    skew: 0.7,
    seed: 1,
};

/// A running cluster and its ring.
struct Setup<'a> {
    args: &'a PaperArgs,
    endpoints: Arc<[Endpoint]>,
    home_table: Arc<HomeTable>,
    /// The members in the order to which the table refers.
    members: Arc<[Endpoint]>,
}

/// Measures the parts, and prints and writes the results.
///
/// # Errors
/// If the nodes do not start, a run fails, or a result cannot be written.
pub async fn run(args: &PaperArgs) -> Result<ExitCode, BenchError> {
    let mut report = PaperReport::new(args);
    let needs_nodes = args.part.iter().any(|&part| part != Part::Figure6);
    if needs_nodes {
        let dir = local::directory(args.dir.as_deref())?;
        let mut running = None;
        let result = local::until_stopped(measure_all(args, dir.path(), &mut running, &mut report)).await;
        if let Some(cluster) = running {
            cluster.stop().await;
        }
        // The nodes have ended, so nothing writes there any more.
        drop(dir);
        result?;
    }
    if args.part.contains(&Part::Figure6) {
        report.figure_6 = Some(local::until_stopped(figure_6()).await?);
    }
    output::print(report.text().as_bytes()).map_err(LocalError::Show)?;
    if let Some(path) = &args.json {
        // The report consists of text and numbers, which always have a JSON form.
        let json = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
        local::write(path, "--json", Ok(json))?;
    }
    if let Some(dir) = &args.svg_dir {
        write_charts(dir, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_charts(dir: &Path, report: &PaperReport) -> Result<(), LocalError> {
    let created = std::fs::create_dir_all(dir);
    created.map_err(|source| LocalError::File { path: dir.to_path_buf(), flag: "--svg-dir", source })?;
    let windows = report.windows.as_deref();
    let charts = [
        ("figure-4.svg", windows.map(figures::latencies)),
        ("figure-5.svg", windows.map(figures::buffered_writes)),
        ("figure-6.svg", report.figure_6.as_deref().map(figures::imbalance)),
    ];
    for (name, chart) in charts {
        if let Some(chart) = chart {
            local::write(&dir.join(name), "--svg-dir", chart.to_svg())?;
        }
    }
    Ok(())
}

/// Starts a cluster and measures the parts that need one.
async fn measure_all(
    args: &PaperArgs,
    dir: &Path,
    running: &mut Option<LocalCluster>,
    report: &mut PaperReport,
) -> Result<(), BenchError> {
    let cluster = running.insert(LocalCluster::start(dir, args.nodes, None)?);
    cluster.wait().await?;
    let buckets = [
        (FSYNC_BUCKET, "lww", Durability::Fsync),
        (OS_BUCKET, "lww", Durability::Os),
        (SIBLINGS_BUCKET, "siblings", Durability::Fsync),
    ];
    for (bucket, conflict, durability) in buckets {
        cluster.set_bucket(bucket, conflict, durability, nodes::R).await?;
    }
    let (home_table, members) = servers::ring(&cluster.client()?, &super::dial::Dial::default()).await?;
    let setup = Setup { args, endpoints: cluster.endpoints().into(), home_table, members };
    for (bucket, ..) in buckets {
        setup.fill(bucket).await?;
    }
    if args.part.contains(&Part::Table2) {
        report.table_2 = Some(setup.table_2().await?);
    }
    if args.part.contains(&Part::Latencies) {
        report.windows = Some(setup.windows().await?);
    }
    if args.part.contains(&Part::Versions) {
        report.versions = Some(setup.versions(cluster).await?);
    }
    Ok(())
}

/// Computes figure 6.
async fn figure_6() -> Result<Vec<ImbalancePoint>, LocalError> {
    let mut points = Vec::new();
    for eighths in imbalance::LEVELS {
        // Each level takes a while, in which a signal must be noticed.
        let level = tokio::task::spawn_blocking(move || imbalance::measure(FIGURE_6, eighths));
        points.push(level.await.map_err(|_| LocalError::Panicked)?);
    }
    Ok(points)
}

impl Setup<'_> {
    /// An open loop, half of it reads, with plain puts.
    fn open_loop(&self, bucket: &str, rate: u32, warmup: Duration, seconds: u64) -> JobSettings {
        JobSettings {
            bucket: bucket.to_owned(),
            keys: Keys::Zipfian(self.args.keys),
            reads: 0.5,
            writes: Writes::Blind,
            value_bytes: self.args.value_size as usize,
            strong: false,
            r: None,
            w: None,
            pipeline: 1,
            rate: Some(rate),
            warmup,
            seconds,
            ops: None,
            timeout: TIMEOUT,
        }
    }

    async fn fill(&self, bucket: &str) -> Result<(), BenchError> {
        let settings = self.open_loop(bucket, self.args.rate, WARMUP, 1);
        let plan = LinkPlan::http(&settings, self.endpoints.clone(), None);
        let links = plan.links(self.args.connections as usize);
        fill::fill(&Arc::new(Job::new(&settings)?), links, self.args.keys).await
    }

    async fn measure(&self, settings: &JobSettings, is_client_driven: bool) -> Result<Stats, BenchError> {
        let plan = if is_client_driven {
            LinkPlan::http(settings, self.members.clone(), Some(self.home_table.clone()))
        } else {
            LinkPlan::http(settings, self.endpoints.clone(), None)
        };
        let job = Arc::new(Job::new(settings)?);
        // The caller handles signals.
        let never = pin!(std::future::pending());
        let links = plan.links(self.args.connections as usize);
        Ok(super::measure(settings, &job, links, &Servers::default(), never).await?.stats)
    }

    /// Table 2. The two kinds of coordination alternate, and every other round begins with the other.
    async fn table_2(&self) -> Result<Vec<Coordination>, BenchError> {
        let (mut server, mut client) = (Vec::new(), Vec::new());
        let settings = self.open_loop(FSYNC_BUCKET, self.args.rate, WARMUP, self.args.seconds);
        for round in 0..self.args.rounds {
            let client_first = !round.is_multiple_of(2);
            for is_client_driven in [client_first, !client_first] {
                let stats = self.measure(&settings, is_client_driven).await?;
                if is_client_driven { client.push(stats) } else { server.push(stats) }
            }
        }
        Ok(vec![Coordination::new("server-driven", &server), Coordination::new("client-driven", &client)])
    }

    /// Figures 4 and 5. Each window runs under both durabilities.
    async fn windows(&self) -> Result<Vec<Window>, BenchError> {
        let mut windows = Vec::new();
        for number in 0..self.args.windows {
            let rate = rate_at(f64::from(number) / f64::from(self.args.windows), self.args.rate);
            let run = async |bucket: &str| {
                let settings = self.open_loop(bucket, rate, WINDOW_WARMUP, self.args.window_seconds);
                self.measure(&settings, false).await
            };
            let (fsync, os) = (run(FSYNC_BUCKET).await?, run(OS_BUCKET).await?);
            windows.push(Window::new(number, rate, &fsync, &os));
        }
        Ok(windows)
    }

    /// Section 6.3. The nodes that are alive take over from the one that is killed.
    async fn versions(&self, cluster: &mut LocalCluster) -> Result<Vec<VersionCounts>, BenchError> {
        let uniform = JobSettings {
            keys: Keys::Uniform(self.args.keys),
            writes: Writes::Update,
            rate: None,
            ..self.open_loop(SIBLINGS_BUCKET, self.args.rate, Duration::ZERO, self.args.seconds)
        };
        let zipfian = JobSettings { keys: Keys::Zipfian(self.args.keys), ..uniform.clone() };
        let mut found = Vec::new();
        for settings in [&uniform, &zipfian] {
            found.push(VersionCounts::new("calm", settings.keys, &self.measure(settings, false).await?));
        }
        cluster.kill_one();
        for settings in [&uniform, &zipfian] {
            found.push(VersionCounts::new("a node killed", settings.keys, &self.measure(settings, false).await?));
        }
        Ok(found)
    }
}

/// The rate at a point of the days, from 0 to 1: at night at the beginning of each day.
fn rate_at(point: f64, peak: u32) -> u32 {
    let day = (1.0 - (point * DAYS * TAU).cos()) / 2.0;
    ((f64::from(peak) * (NIGHT + (1.0 - NIGHT) * day)) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls_with_each_day() {
        let rates = [0.0, 0.25, 0.5, 0.75].map(|point| rate_at(point, 1_000));
        assert_eq!(rates, [200, 1_000, 200, 1_000]);
        assert_eq!(rate_at(0.0, 1), 1);
    }
}
