//! `cartwheel bench`: a closed or open loop of requests against running nodes, or Redis servers.
//!
//! Each connection has one operation in flight. It begins the next operation when the current one has ended, or, in an open loop, when
//! the next one is due. Measurements begin after the warm-up. The rate and the CPU time per operation count the operations that succeed
//! before the end. The latencies cover all operations that began before the end, so that a slow last one is included.

mod args;
mod compare;
mod connection;
mod cpu;
pub(super) mod dial;
mod fill;
mod job;
mod keys;
mod link;
mod local;
mod paper;
mod report;
mod resp;
mod servers;
mod staleness;
mod stats;
mod targets;
mod wire;

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cartwheel_client::Client;
use cartwheel_core::value::key::{KeyError, check_bucket};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::terminal::exit::{Exit, ToExit};
use crate::terminal::output::{self, formatted};
use crate::terminal::signals;
pub use args::{BenchArgs, BenchCommand, BenchProtocol, Writes};
use job::{Job, JobSettings};
use link::{Link, LinkPlan};
use local::LocalError;
use report::Report;
use servers::Servers;
use stats::Stats;
use targets::Targets;

/// The time by which the bench's timeout exceeds the node's.
const GRACE: Duration = Duration::from_millis(500);
/// The time for the last operations to end.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// The reasons why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An endpoint is invalid.
    #[error(transparent)]
    BadEndpoint(#[from] cartwheel_client::BadEndpoint),
    /// An endpoint is invalid in an HTTP request.
    #[error("{0:?} is not an endpoint: pass a node's address, such as http://127.0.0.1:8081")]
    Endpoint(String),
    /// The address of a Redis server is invalid.
    #[error("{0:?} is not the address of a Redis server: pass redis://HOST:PORT")]
    RedisAddress(String),
    /// The address of a Redis server was given for another protocol.
    #[error("redis://{0} is the address of a Redis server: pass --protocol resp, or the HTTP address of a node")]
    RedisOnly(String),
    /// A node has no address for the Redis protocol.
    #[error(
        "the node at {0} does not serve the Redis protocol: pass the address of a server as --node redis://HOST:PORT"
    )]
    NoResp(String),
    /// The protocol cannot carry what the arguments ask for.
    #[error("{0}")]
    Contradiction(&'static str),
    /// The name of the bucket is invalid.
    #[error(transparent)]
    Bucket(#[from] KeyError),
    /// The settings of the bucket cannot be read.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
    /// The arguments contradict the bucket's settings, so every operation would fail.
    #[error("{0}: pass a smaller value, or change the bucket with `cartwheel bucket set`")]
    Impossible(String),
    /// No node can be reached.
    #[error("cannot reach a node at {0}: start the cluster, or pass a node's address with --node")]
    NoNode(String),
    /// The CPU time of a given server process cannot be read.
    #[error(
        "cannot read the CPU time of process {0} from /proc: pass the id of a process on this machine, or omit --pid"
    )]
    NoSuchProcess(u32),
    /// A key could not be put before the measurement.
    #[error("cannot store key {number} after {tries} attempts: {why}; see the nodes' logs")]
    Fill {
        /// The number of the key.
        number: u64,
        /// The number of attempts.
        tries: u32,
        /// The failure of the last attempt.
        why: String,
    },
    /// A bench that starts its own servers failed.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The user stopped the bench before it measured anything.
    #[error("interrupted before the measurement began")]
    Stopped,
    /// Signal handlers cannot be installed, or the report cannot be written.
    #[error("cannot {0}: {1}")]
    Io(&'static str, std::io::Error),
    /// The histograms cannot be created.
    #[error(transparent)]
    Histogram(#[from] hdrhistogram::CreationError),
    /// A task of the bench panicked.
    #[error("a connection's task panicked: report this as a bug")]
    Panicked,
}

impl ToExit for BenchError {
    fn exit(&self) -> Exit {
        match self {
            Self::BadEndpoint(_)
            | Self::Endpoint(_)
            | Self::RedisAddress(_)
            | Self::RedisOnly(_)
            | Self::NoResp(_)
            | Self::Contradiction(_)
            | Self::Bucket(_)
            | Self::NoSuchProcess(_)
            | Self::Impossible(_) => Exit::Usage,
            Self::Client(error) => error.exit(),
            Self::Local(error) => error.exit(),
            Self::NoNode(_) => Exit::Unreachable,
            Self::Fill { .. } => Exit::NoQuorum,
            Self::Stopped => Exit::Interrupted,
            Self::Io(..) | Self::Histogram(_) | Self::Panicked => Exit::Negative,
        }
    }
}

struct Measurements {
    stats: Stats,
    /// The operations that succeeded before the end.
    ops: u64,
    elapsed: Duration,
    server_cpu: BTreeMap<u32, Duration>,
    client_cpu: Option<Duration>,
    unfinished: u64,
    interrupted: bool,
}

type Stopped<'a> = Pin<&'a mut dyn Future<Output = &'static str>>;

/// Runs the bench, and prints a report. The exit status says whether any operation succeeded.
///
/// # Errors
/// If nothing could be measured.
pub async fn run(args: &BenchArgs) -> Result<ExitCode, BenchError> {
    match &args.command {
        Some(BenchCommand::Compare(args)) => return Ok(compare::run(args).await?),
        Some(BenchCommand::Paper(args)) => return paper::run(args).await,
        Some(BenchCommand::Staleness(args)) => return staleness::run(args).await,
        None => {}
    }
    let settings = args.job_settings()?;
    check_bucket(settings.bucket.as_bytes())?;
    let stopped =
        signals::stop(signals::Parent::Unwatched).map_err(|error| BenchError::Io("install signal handlers", error))?;
    let mut stopped = pin!(stopped);
    let targets = Targets::find(&args.endpoints).await?;
    if args.protocol != BenchProtocol::Resp && !targets.redis.is_empty() {
        return Err(BenchError::RedisOnly(targets.redis[0].clone()));
    }
    if let Some(client) = targets.client()? {
        check_args(args, &settings, &client).await?;
    }
    let servers = servers(args, &targets).await?;
    let plan = link_plan(args, &settings, &targets).await?;
    let job = Arc::new(Job::new(&settings)?);
    let count = args.connections as usize;
    if args.load {
        tokio::select! {
            filled = fill::fill(&job, plan.links(count), args.keys) => filled?,
            _ = &mut stopped => return Err(BenchError::Stopped),
        }
    }
    let measured = measure(&settings, &job, plan.links(count), &servers, stopped).await?;
    let report = Report::new(args, &settings, &measured, &servers);
    print(&formatted(args.format, &report, |report, _| report.text()))?;
    Ok(if measured.ops > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How the connections reach the servers.
async fn link_plan(args: &BenchArgs, settings: &JobSettings, targets: &Targets) -> Result<LinkPlan, BenchError> {
    Ok(match args.protocol {
        BenchProtocol::Http if args.ring_aware => {
            let (home_table, members) = servers::ring(&targets.client_of_nodes()?, &targets.dial()).await?;
            LinkPlan::http(settings, members, Some(home_table))
        }
        BenchProtocol::Http => LinkPlan::http(settings, targets.endpoints.clone(), None),
        BenchProtocol::Resp => {
            LinkPlan::resp(settings, targets.resp_addresses().await?, targets.dial(), args.database().unwrap_or(0))
        }
        BenchProtocol::Client => LinkPlan::client(settings, targets.client_of_nodes()?),
    })
}

/// Refuses arguments with which every operation would fail.
async fn check_args(args: &BenchArgs, settings: &JobSettings, client: &Client) -> Result<(), BenchError> {
    let (name, bucket) = (&settings.bucket, client.bucket(&settings.bucket).await?);
    for (flag, replicas) in [("--r", args.r), ("--w", args.w)] {
        if let Some(replicas) = replicas.filter(|&replicas| replicas > bucket.n) {
            let why = format!("{flag} {replicas} exceeds the n={} of the bucket {name}", bucket.n);
            return Err(BenchError::Impossible(why));
        }
    }
    if args.value_size > bucket.max_value_bytes && (args.load || args.reads < 1.0) {
        let why = format!(
            "--value-size {} exceeds the {} bytes that the bucket {name} allows",
            args.value_size, bucket.max_value_bytes
        );
        return Err(BenchError::Impossible(why));
    }
    Ok(())
}

async fn servers(args: &BenchArgs, targets: &Targets) -> Result<Servers, BenchError> {
    if !args.pid.is_empty() {
        return Servers::from_pids(&args.pid);
    }
    if targets.endpoints.is_empty() {
        return Ok(Servers::find_redis(&targets.redis).await);
    }
    let (servers, members) = Servers::find(&targets.endpoints).await;
    if servers.count() < members {
        let found = servers.count();
        output::note(format_args!(
            "{found} of the cluster's {members} nodes run on this machine: the server CPU time covers only these"
        ));
    }
    Ok(servers)
}

async fn measure(
    settings: &JobSettings,
    job: &Arc<Job>,
    links: Vec<Link>,
    servers: &Servers,
    mut stopped: Stopped<'_>,
) -> Result<Measurements, BenchError> {
    let (mut workers, rate, begun) = (JoinSet::new(), settings.rate, Instant::now());
    for link in links {
        let job = job.clone();
        workers.spawn(async move {
            match rate {
                None => job.work(link).await,
                Some(rate) => job.work_at(rate, begun, link).await,
            }
        });
    }
    tokio::select! {
        () = tokio::time::sleep(settings.warmup) => {}
        _ = &mut stopped => return Err(BenchError::Stopped),
    }
    let (servers_before, client_before) = (servers.read(), client_cpu());
    job.recorder.begin();
    let begun = Instant::now();
    let interrupted = tokio::select! {
        () = wait(job, settings.seconds, settings.ops) => false,
        _ = &mut stopped => true,
    };
    // Stop first: operations that begin from here on would count as begun before the end.
    job.stop();
    let (ops, _) = job.recorder.progress();
    let elapsed = begun.elapsed();
    let server_cpu = servers.read().since(&servers_before);
    let client_cpu = client_cpu().zip(client_before).map(|(after, before)| after.saturating_sub(before));
    let unfinished = drain(workers).await?;
    Ok(Measurements { stats: job.recorder.stats(), ops, elapsed, server_cpu, client_cpu, unfinished, interrupted })
}

/// Waits until the time is up or `enough` operations were done, and shows the progress on a terminal.
async fn wait(job: &Job, seconds: u64, enough: Option<u64>) {
    let style = ProgressStyle::with_template("measuring {wide_bar} {pos}/{len} s, {msg}");
    let bar = ProgressBar::new(seconds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let begun = tokio::time::Instant::now();
    let until = begun + Duration::from_secs(seconds);
    while tokio::time::timeout_at(until, tokio::time::sleep(SHOW_EVERY)).await.is_ok() {
        let (ops, failed) = job.recorder.progress();
        if enough.is_some_and(|enough| ops + failed >= enough) {
            break;
        }
        let elapsed = begun.elapsed().as_secs_f64();
        bar.set_position(elapsed as u64);
        bar.set_message(format!("{:.0} ops/s, {failed} failed", ops as f64 / elapsed));
    }
    bar.finish_and_clear();
}

/// Waits for the operations in flight, and returns the number of those that did not end in time.
async fn drain(mut workers: JoinSet<()>) -> Result<u64, BenchError> {
    let all = async {
        while let Some(ended) = workers.join_next().await {
            ended.map_err(|_| BenchError::Panicked)?;
        }
        Ok(())
    };
    match tokio::time::timeout(DRAIN_WITHIN, all).await {
        Ok(ended) => ended.map(|()| 0),
        Err(_) => Ok(workers.len() as u64),
    }
}

fn client_cpu() -> Option<Duration> {
    cpu::of(std::process::id()).map(|used| used.time)
}

fn print(text: &str) -> Result<(), BenchError> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| BenchError::Io("write the report", error))
}
