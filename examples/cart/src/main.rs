//! Replays real purchases as shopping carts and proves that no add is lost.

use std::path::PathBuf;
use std::process::ExitCode;

use cart::cluster::Cluster;
use cart::experiment::{Experiment, ExperimentResult};
use cart::purchases;
use clap::Parser;

/// Replay real purchases as shopping carts
///
/// Concurrent writers add 69,659 purchases of 23,570 customers to shopping carts, and remove some of them again. Then all carts are
/// read and compared with the purchases: no add may be lost.
///
/// Each change is made to two carts: one is merged by union, as in the Dynamo paper, so deleted items may resurface; the other marks
/// removed items, so none does.
///
/// Start a cluster first with `cargo run --release -- dev`, or pass --cluster.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// Nodes to write through and read from
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8081,http://127.0.0.1:8082,http://127.0.0.1:8083"
    )]
    nodes: Vec<String>,
    /// Run on three nodes of its own, and kill one half-way
    ///
    /// The nodes are in a temporary directory. The killed node is restarted later.
    #[arg(long, conflicts_with = "nodes")]
    cluster: bool,
    /// Path of the cartwheel binary for --cluster [default: beside this program]
    #[arg(long, value_name = "PATH", requires = "cluster")]
    bin: Option<PathBuf>,
    /// Replay only the first LIMIT purchases
    #[arg(long)]
    limit: Option<usize>,
    /// Share of purchases that are removed from the cart again
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    removes: u8,
    /// Prefix of the names of the two buckets [default: new]
    ///
    /// Items are added to the existing carts of the buckets.
    #[arg(long)]
    bucket: Option<String>,
    /// Number of concurrent writers, and then readers
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1000))]
    writers: u16,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start threads: {error}")),
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run(&args) => ended,
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        }
    });
    match ended.and_then(|result| result.verdict()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<ExperimentResult, String> {
    let mut purchases = purchases::parse(purchases::CDNOW).map_err(|error| error.to_string())?;
    purchases.truncate(args.limit.unwrap_or(usize::MAX));
    let bucket = match &args.bucket {
        Some(bucket) => bucket.clone(),
        None => new_bucket()?,
    };
    let (writers, removes_percent) = (usize::from(args.writers), args.removes);
    let experiment = Experiment { purchases: purchases.into(), removes_percent, bucket, writers, silent: false };
    if !args.cluster {
        return experiment.run(&args.nodes).await.map_err(|error| error.to_string());
    }
    let bin = args.bin.clone().map_or_else(beside_this, Ok)?;
    let mut cluster = Cluster::start(&bin).await.map_err(|error| error.to_string())?;
    let ended = experiment.run_with_a_kill(&mut cluster).await.map_err(|error| error.to_string());
    cluster.stop().await;
    ended
}

/// The cartwheel binary in the directory of this one, where cargo puts it.
fn beside_this() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| format!("cannot find the path of this program: {error}"))?;
    let bin = this.with_file_name("cartwheel");
    if bin.exists() {
        Ok(bin)
    } else {
        Err(format!("no binary at {}: build it with `cargo build --release` or pass --bin", bin.display()))
    }
}

/// A new bucket name. Data of an earlier run in the same bucket could hide the loss of this run's data.
fn new_bucket() -> Result<String, String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let random =
        getrandom::u32().map_err(|error| format!("cannot read random bytes from the operating system: {error}"))?;
    Ok(format!("carts-{}-{random:08x}", now.as_secs()))
}
