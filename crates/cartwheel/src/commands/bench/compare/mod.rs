//! `cartwheel bench compare`: a local cluster beside a local Redis Cluster, under the same load.
//!
//! Both stores run throughout. Their runs alternate, each with its own connections and a warm-up. A figure is a median over the rounds, a
//! ratio compares two runs of one round, so that a machine that becomes slower or faster does not favor a store.

mod args;
mod client;
mod driver;
mod http;
mod nodes;
mod plan;
mod process;
mod redis;
mod report;
mod resp;
mod usage;
mod wire;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use super::keys::Keys;
use crate::terminal::error::CommandError;
use crate::terminal::exit::{Exit, ToExit};
use crate::terminal::{output, signals};
pub use args::CompareArgs;
use args::StoreName;
use driver::Load;
use nodes::LocalCluster;
use plan::Case;
use redis::RedisCluster;
use report::{CompareReport, RunFigures, StoreInfo};

/// The pause before each run, in which the store that ran before comes to rest.
const PAUSE: Duration = Duration::from_millis(500);

/// The reasons why a comparison has no result.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Redis alone was requested, but is not installed.
    #[error("--store redis needs redis-server on the PATH: install Redis, or omit --store")]
    NoRedis,
    /// No free ports were found.
    #[error("cannot find free ports between 12000 and 32000 on 127.0.0.1: stop other servers, then try again")]
    NoPorts,
    /// A server process could not be started.
    #[error("cannot start {name}: {source}; end other processes, or raise the limit (ulimit -u)")]
    Start {
        /// The name of the process.
        name: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A server process ended before it was ready.
    #[error("{name} ended before it was ready ({status}); its output ends with:\n{tail}")]
    Ended {
        /// The name of the process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its output.
        tail: String,
    },
    /// A server did not reach a state in time.
    #[error(
        "{name} was not {state} within {seconds} s; try again on a less busy machine; its output ends with:\n{tail}"
    )]
    NotReady {
        /// The name of the process.
        name: String,
        /// The state.
        state: &'static str,
        /// The time limit.
        seconds: u64,
        /// The last lines of its output.
        tail: String,
    },
    /// A server process ended during a run.
    #[error("a server process ended during a run, so its CPU time is unknown: try again with fewer --connections")]
    ServerEnded,
    /// Redis refused a command that sets up its cluster.
    #[error("Redis at {address} refused {command}: {why}; use Redis 5 or later, or pass --store cartwheel")]
    Redis {
        /// The address of the node.
        address: String,
        /// The command.
        command: String,
        /// The reason.
        why: String,
    },
    /// The settings of Cartwheel's buckets cannot be changed.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
    /// A key could not be stored before the first run.
    #[error("cannot store key {key} after {tries} attempts: {why}; use fewer --connections or a larger --timeout-ms")]
    Fill {
        /// The key.
        key: String,
        /// The number of attempts.
        tries: u32,
        /// The failure of the last attempt.
        why: String,
    },
    /// A temporary directory could not be created.
    #[error("cannot create a directory in {}: {source}; choose a writable directory with --dir", parent.display())]
    Dir {
        /// The directory that was to contain it.
        parent: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A result could not be written.
    #[error("cannot write {}: {source}; choose another file with {flag}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The flag that names it.
        flag: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The report could not be printed.
    #[error(transparent)]
    Show(#[from] CommandError),
    /// The histograms cannot be created.
    #[error(transparent)]
    Histogram(#[from] hdrhistogram::CreationError),
    /// Another call of the operating system failed.
    #[error("cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// The user stopped the comparison.
    #[error("interrupted: all servers were stopped, and their data was removed")]
    Stopped,
    /// A client's task panicked.
    #[error("a client's task panicked: report this as a bug")]
    Panicked,
}

impl ToExit for CompareError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoRedis | Self::Dir { .. } | Self::File { .. } => Exit::Usage,
            Self::Client(error) => error.exit(),
            Self::Show(error) => error.exit(),
            Self::Fill { .. } => Exit::NoQuorum,
            Self::Stopped => Exit::Interrupted,
            Self::NoPorts
            | Self::Start { .. }
            | Self::Ended { .. }
            | Self::NotReady { .. }
            | Self::ServerEnded
            | Self::Redis { .. }
            | Self::Histogram(_)
            | Self::Io(..)
            | Self::Panicked => Exit::Negative,
        }
    }
}

/// The servers that have been started.
#[derive(Debug, Default)]
struct Running {
    cartwheel: Option<LocalCluster>,
    redis: Option<RedisCluster>,
}

/// Runs the comparison, and prints and writes the results.
///
/// # Errors
/// If the servers do not start, a run fails, or a result cannot be written.
pub async fn run(args: &CompareArgs) -> Result<ExitCode, CompareError> {
    let stopped =
        signals::stop(signals::Parent::Unwatched).map_err(|error| CompareError::Io("handle signals", error))?;
    let hung_up = signals::hang_up().map_err(|error| CompareError::Io("handle signals", error))?;
    let (mut stopped, mut hung_up) = (pin!(stopped), pin!(hung_up));
    let dir = directory(args)?;
    let mut running = Running::default();
    let result = tokio::select! {
        result = compare(args, dir.path(), &mut running) => result,
        _ = &mut stopped => Err(CompareError::Stopped),
        _ = &mut hung_up => Err(CompareError::Stopped),
    };
    running.stop().await;
    // The servers have ended, so nothing writes there any more.
    drop(dir);
    let report = result?;
    output::print(report.text().as_bytes())?;
    if let Some(path) = &args.json {
        // The report consists of text and numbers, which always have a JSON form.
        write(path, "--json", Ok(serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"))?;
    }
    if let Some(path) = &args.svg {
        write(path, "--svg", report.bars().to_svg())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn directory(args: &CompareArgs) -> Result<TempDir, CompareError> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    tempfile::Builder::new()
        .prefix("cartwheel-compare-")
        .tempdir_in(&parent)
        .map_err(|source| CompareError::Dir { parent, source })
}

fn write(path: &Path, flag: &'static str, text: std::io::Result<String>) -> Result<(), CompareError> {
    let written = text.and_then(|text| std::fs::write(path, text));
    written.map_err(|source| CompareError::File { path: path.to_path_buf(), flag, source })
}

async fn compare(args: &CompareArgs, dir: &Path, running: &mut Running) -> Result<CompareReport, CompareError> {
    let keys = if args.uniform { Keys::Uniform(args.keys) } else { Keys::Zipfian(args.keys) };
    let mut report = CompareReport::new(args, keys.name());
    if args.store != Some(StoreName::Redis) {
        let cluster = running.cartwheel.insert(LocalCluster::start(dir, args.shards)?);
        cluster.set_up(&args.durability).await?;
        let (version, processes) = (env!("CARGO_PKG_VERSION").to_owned(), cluster.pids().len());
        report.stores.push(StoreInfo { store: StoreName::Cartwheel, version, processes });
    }
    match (args.store, redis::find()) {
        (Some(StoreName::Cartwheel), _) => {}
        (Some(StoreName::Redis), None) => return Err(CompareError::NoRedis),
        (None, None) => {
            report.skipped.push("Redis Cluster: redis-server is not on the PATH; install Redis to compare".to_owned());
        }
        (_, Some(binary)) => {
            let cluster = running.redis.insert(RedisCluster::start(&binary, dir)?);
            cluster.set_up().await?;
            let (version, processes) = (redis::version(&binary).await, cluster.pids().len());
            report.stores.push(StoreInfo { store: StoreName::Redis, version, processes });
        }
    }
    let stores: Vec<StoreName> = report.stores.iter().map(|info| info.store).collect();
    let cases = plan::cases(&stores, &distinct(&args.workload), &distinct(&args.durability), &distinct(&args.r));
    let bar = progress_bar(cases.len() as u64 * u64::from(args.rounds));
    running.fill(args, &bar).await?;
    let mut runs = vec![Vec::new(); cases.len()];
    for round in 0..args.rounds {
        for at in plan::order(cases.len(), round) {
            bar.set_message(cases[at].name());
            tokio::time::sleep(PAUSE).await;
            runs[at].push(running.run(args, cases[at], keys).await?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    report.cases = report::cases(&cases, &runs);
    Ok(report)
}

/// The items without repetitions, in their order.
fn distinct<T: PartialEq + Copy>(items: &[T]) -> Vec<T> {
    let mut found = Vec::new();
    for item in items {
        if !found.contains(item) {
            found.push(*item);
        }
    }
    found
}

fn progress_bar(runs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} runs, {msg}, {eta} left");
    ProgressBar::new(runs).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Running {
    /// Writes all keys to every store and bucket.
    async fn fill(&self, args: &CompareArgs, bar: &ProgressBar) -> Result<(), CompareError> {
        let bytes = args.value_size as usize;
        if let Some(cluster) = &self.cartwheel {
            for durability in distinct(&args.durability) {
                bar.set_message("filling Cartwheel");
                driver::fill(cluster.clients(args, durability, None), args.keys, bytes).await?;
            }
        }
        if let Some(cluster) = &self.redis {
            bar.set_message("filling Redis");
            driver::fill(cluster.clients(args), args.keys, bytes).await?;
        }
        Ok(())
    }

    async fn run(&mut self, args: &CompareArgs, case: Case, keys: Keys) -> Result<RunFigures, CompareError> {
        let load = Load {
            keys,
            read_share: case.workload.read_share(),
            value_bytes: args.value_size as usize,
            warmup: Duration::from_secs(args.warmup),
            length: Duration::from_secs(args.seconds),
        };
        match case.store {
            StoreName::Cartwheel => {
                let Some(cluster) = &self.cartwheel else { return Ok(RunFigures::default()) };
                driver::run(load, cluster.clients(args, case.durability, case.r), cluster.pids()).await
            }
            StoreName::Redis => {
                let Some(cluster) = &mut self.redis else { return Ok(RunFigures::default()) };
                cluster.set_durability(case.durability).await?;
                driver::run(load, cluster.clients(args), &cluster.pids()).await
            }
        }
    }

    /// Stops all servers.
    async fn stop(self) {
        if let Some(cluster) = self.cartwheel {
            cluster.stop().await;
        }
        if let Some(cluster) = self.redis {
            cluster.kill().await;
        }
    }
}
