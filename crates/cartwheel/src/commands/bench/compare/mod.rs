//! `cartwheel bench compare`: a local cluster beside a local Redis Cluster, under the same load.
//!
//! Both stores run throughout. Their runs alternate, each with its own connections and a warm-up. A figure is a median over the rounds, a
//! ratio compares two runs of one round, so that a machine that becomes slower or faster does not favor a store.

mod args;
mod client;
mod driver;
mod http;
mod plan;
mod redis;
mod report;
mod usage;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::GRACE;
use super::dial::Dial;
use super::keys::Keys;
use super::link::RespLink;
use super::local::nodes::{self, LocalCluster};
use super::local::{self, LocalError};
use crate::cli::Durability;
use crate::terminal::output;
pub use args::CompareArgs;
use args::{ProtocolName, StoreName};
use client::{CartwheelClient, StoreClient};
use driver::Load;
use plan::Case;
use redis::RedisCluster;
use report::{CompareReport, RunFigures, StoreInfo};

const NODES: u16 = 3;
/// The pause before each run, in which the store that ran before comes to rest.
const PAUSE: Duration = Duration::from_millis(500);

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
pub async fn run(args: &CompareArgs) -> Result<ExitCode, LocalError> {
    let dir = local::directory(args.dir.as_deref())?;
    let mut running = Running::default();
    let result = local::until_stopped(compare(args, dir.path(), &mut running)).await;
    running.stop().await;
    // The servers have ended, so nothing writes there any more.
    drop(dir);
    let report = result?;
    output::print(report.text().as_bytes())?;
    if let Some(path) = &args.json {
        // The report consists of text and numbers, which always have a JSON form.
        local::write(path, "--json", Ok(serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"))?;
    }
    if let Some(path) = &args.svg {
        local::write(path, "--svg", report.bars().to_svg())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn compare(args: &CompareArgs, dir: &Path, running: &mut Running) -> Result<CompareReport, LocalError> {
    let keys = if args.uniform { Keys::Uniform(args.keys) } else { Keys::Zipfian(args.keys) };
    let mut report = CompareReport::new(args, keys.name());
    running.start(args, dir, &mut report).await?;
    let stores: Vec<StoreName> = report.stores.iter().map(|info| info.store).collect();
    let (protocols, workloads) = (distinct(&args.protocol), distinct(&args.workload));
    let cases = plan::cases(&stores, &protocols, &workloads, &distinct(&args.durability), &distinct(&args.r));
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

/// Clients of a bucket of Cartwheel, spread over the nodes.
fn clients(cluster: &LocalCluster, args: &CompareArgs, durability: Durability, r: Option<u8>) -> Vec<StoreClient> {
    let timeout = Duration::from_millis(args.timeout_ms);
    let addresses = cluster.addresses().iter().cycle().take(args.connections as usize);
    let client = |address: &String| CartwheelClient::new(address.clone(), bucket(durability), r, timeout);
    addresses.map(client).map(StoreClient::Cartwheel).collect()
}

/// Clients of a database of Cartwheel, spread over the nodes.
fn resp_clients(cluster: &LocalCluster, args: &CompareArgs, durability: Durability, r: Option<u8>) -> Vec<StoreClient> {
    let (timeout, database) = (Duration::from_millis(args.timeout_ms), database(durability, r.unwrap_or(nodes::R)));
    let link = |number| RespLink::new(cluster.resp_addresses(), &Dial::default(), number, database, timeout + GRACE);
    (0..args.connections as usize).map(link).map(StoreClient::CartwheelResp).collect()
}

/// The numbers of replicas for which there are databases.
fn resp_rs(args: &CompareArgs) -> Vec<u8> {
    if !args.protocol.contains(&ProtocolName::Resp) {
        return Vec::new();
    }
    // A workload of writes alone uses that with the usual number.
    distinct(&[&args.r[..], &[nodes::R]].concat())
}

/// The database with these settings. Commands of Redis cannot say how many replicas a read waits for, so there is one for each number.
fn database(durability: Durability, r: u8) -> u32 {
    let first = if durability == Durability::Fsync { 0 } else { 4 };
    first + u32::from(r)
}

fn bucket(durability: Durability) -> String {
    format!("compare-{}", nodes::name(durability))
}

fn progress_bar(runs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} runs, {msg}, {eta} left");
    ProgressBar::new(runs).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Running {
    /// Starts the stores that can be measured, and notes them and those that cannot.
    async fn start(&mut self, args: &CompareArgs, dir: &Path, report: &mut CompareReport) -> Result<(), LocalError> {
        if args.store != Some(StoreName::Redis) {
            let cluster = self.cartwheel.insert(LocalCluster::start(dir, NODES, args.shards)?);
            cluster.wait().await?;
            for durability in distinct(&args.durability) {
                cluster.set_bucket(&bucket(durability), "lww", durability, nodes::R).await?;
                for r in resp_rs(args) {
                    let bucket = format!("redis-{}", database(durability, r));
                    cluster.set_bucket(&bucket, "lww", durability, r).await?;
                }
            }
            let (version, processes) = (env!("CARGO_PKG_VERSION").to_owned(), cluster.pids().len());
            report.stores.push(StoreInfo { store: StoreName::Cartwheel, version, processes });
        }
        match (args.store, redis::find()) {
            (Some(StoreName::Cartwheel), _) => {}
            (Some(StoreName::Redis), None) => return Err(LocalError::NoRedis),
            (None, None) => {
                report
                    .skipped
                    .push("Redis Cluster: redis-server is not on the PATH; install Redis to compare".to_owned());
            }
            (_, Some(binary)) => {
                let cluster = self.redis.insert(RedisCluster::start(&binary, dir)?);
                cluster.set_up().await?;
                let (version, processes) = (redis::version(&binary).await, cluster.pids().len());
                report.stores.push(StoreInfo { store: StoreName::Redis, version, processes });
            }
        }
        Ok(())
    }

    /// Writes all keys to every store and bucket.
    async fn fill(&self, args: &CompareArgs, bar: &ProgressBar) -> Result<(), LocalError> {
        let bytes = args.value_size as usize;
        if let Some(cluster) = &self.cartwheel {
            for durability in distinct(&args.durability) {
                bar.set_message("filling Cartwheel");
                if args.protocol.contains(&ProtocolName::Http) {
                    driver::fill(clients(cluster, args, durability, None), args.keys, bytes).await?;
                }
                for r in resp_rs(args) {
                    driver::fill(resp_clients(cluster, args, durability, Some(r)), args.keys, bytes).await?;
                }
            }
        }
        if let Some(cluster) = &self.redis {
            bar.set_message("filling Redis");
            driver::fill(cluster.clients(args), args.keys, bytes).await?;
        }
        Ok(())
    }

    async fn run(&mut self, args: &CompareArgs, case: Case, keys: Keys) -> Result<RunFigures, LocalError> {
        let load = Load {
            keys,
            read_share: case.workload.read_share(),
            value_bytes: args.value_size as usize,
            rate: args.rate,
            warmup: Duration::from_secs(args.warmup),
            length: Duration::from_secs(args.seconds),
        };
        match case.store {
            StoreName::Cartwheel => {
                let Some(cluster) = &self.cartwheel else { return Ok(RunFigures::default()) };
                let clients = match case.protocol {
                    Some(ProtocolName::Resp) => resp_clients(cluster, args, case.durability, case.r),
                    _ => clients(cluster, args, case.durability, case.r),
                };
                driver::run(load, clients, cluster.pids()).await
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
