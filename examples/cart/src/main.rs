//! Replays real purchases as shopping carts and proves that every add is there.

use std::path::PathBuf;
use std::process::ExitCode;

use cart::cluster::Cluster;
use cart::purchases;
use cart::story::{Ending, Story};
use clap::Parser;

/// Replays 69,659 real purchases of 23,570 customers as "add to cart", some of which are taken out again, by writers that do
/// not wait for each other. Then reads all carts back and proves that every add is there.
///
/// Each change is made to two carts: one that is merged by union, as in the Dynamo paper, where a deleted item may resurface,
/// and one that marks what was taken out, where none does.
///
/// Start a cluster first, with `cargo run --release -- dev`, or let --cluster start one.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// The nodes to write through and read from.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8081,http://127.0.0.1:8082,http://127.0.0.1:8083"
    )]
    nodes: Vec<String>,
    /// Start three nodes in a temporary directory, kill one of them with SIGKILL half-way, and start it again later.
    #[arg(long, conflicts_with = "nodes")]
    cluster: bool,
    /// The cartwheel binary for --cluster, if it is not beside this one; `cargo build --release` makes it.
    #[arg(long, value_name = "PATH", requires = "cluster")]
    bin: Option<PathBuf>,
    /// Replay only the first so many purchases.
    #[arg(long)]
    limit: Option<usize>,
    /// How many of a hundred purchases are taken out of the cart again.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    removes: u8,
    /// Begin the names of the two buckets with this; without it they are new ones with the time in their names. Carts that are
    /// there already are added to.
    #[arg(long)]
    bucket: Option<String>,
    /// How many write, and then read, at the same time.
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
    match ended.and_then(|ending| ending.verdict()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: &Args) -> Result<Ending, String> {
    let mut purchases = purchases::parse(purchases::CDNOW).map_err(|error| error.to_string())?;
    purchases.truncate(args.limit.unwrap_or(usize::MAX));
    let bucket = match &args.bucket {
        Some(bucket) => bucket.clone(),
        None => new_bucket()?,
    };
    let (writers, removes_percent) = (usize::from(args.writers), args.removes);
    let story = Story { purchases: purchases.into(), removes_percent, bucket, writers, silent: false };
    if !args.cluster {
        return story.tell(&args.nodes).await.map_err(|error| error.to_string());
    }
    let bin = args.bin.clone().map_or_else(beside_this, Ok)?;
    let mut cluster = Cluster::start(&bin).await.map_err(|error| error.to_string())?;
    let ended = story.tell_with_a_death(&mut cluster).await.map_err(|error| error.to_string());
    cluster.stop().await;
    ended
}

/// Where cargo puts the binary that this example goes with.
fn beside_this() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
    let bin = this.with_file_name("cartwheel");
    if bin.exists() {
        Ok(bin)
    } else {
        Err(format!("{} is not there: build it with cargo build --release, or give --bin", bin.display()))
    }
}

/// Buckets that no run before used, so that what other runs left cannot stand in for what this one loses.
fn new_bucket() -> Result<String, String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let random = getrandom::u32().map_err(|error| format!("the operating system gave no random bytes: {error}"))?;
    Ok(format!("carts-{}-{random:08x}", now.as_secs()))
}
