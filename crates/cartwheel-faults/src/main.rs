//! Runs fault scenarios on real processes and prints their results.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cartwheel_faults::cleanup;
use cartwheel_faults::network::Network;
use cartwheel_faults::random;
use cartwheel_faults::report;
use cartwheel_faults::runner::Runner;
use cartwheel_faults::scenario::{Pace, Scenario};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Run fault scenarios on real nodes
///
/// Five nodes in three zones run in network namespaces of their own while clients put real purchases into carts. The scenarios kill, pause,
/// cut off, fill, wipe, restart, add, remove and replace nodes. A table shows the refused requests and lost writes. Needs root, Linux and iproute2.
///
/// Example: just faults kill-one cut-zone --short
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Scenarios to run [default: all]
    #[arg(value_parser = scenario)]
    scenarios: Vec<Scenario>,
    /// Shorten each scenario to a few seconds
    #[arg(long)]
    short: bool,
    /// Number of scenarios to run at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    at_once: u8,
    /// Number of nodes, except in scenarios with a fixed number
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(5..=30))]
    nodes: u8,
    /// Path of the cartwheel binary [default: beside this program]
    #[arg(long, value_name = "PATH", global = true)]
    bin: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run faults that are drawn from a seed
    ///
    /// Each seed draws a cluster and three rounds of overlapping faults. After each round, no acknowledged write may be missing, all
    /// replicas must become equal, and reads of registers must have been consistent. Prints each seed with its schedule. The same seed
    /// draws the same schedule.
    ///
    /// Example: just faults random --seed 1 --for 1h
    Random {
        /// First seed [default: random]
        #[arg(long)]
        seed: Option<u64>,
        /// Number of seeds to run
        #[arg(long)]
        runs: Option<u64>,
        /// Start no further seed after this time, such as 90m or 3h
        #[arg(long = "for", value_parser = humantime::parse_duration, conflicts_with = "minutes")]
        within: Option<Duration>,
        /// The same, in minutes
        #[arg(long)]
        minutes: Option<u64>,
        /// Print the schedules without running them
        #[arg(long)]
        dry_run: bool,
    },
}

impl Command {
    async fn run(self, bin: PathBuf) -> Result<bool, String> {
        let Self::Random { seed, runs, within, minutes, dry_run } = self;
        let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
        let within = within.or_else(|| minutes.map(|minutes| Duration::from_secs(60 * minutes)));
        // Without a limit, one seed is run.
        let runs = runs.or_else(|| within.is_none().then_some(1));
        if dry_run {
            for seed in (seed..).take(runs.unwrap_or(1).try_into().unwrap_or(usize::MAX)) {
                println!("seed {seed}: {}", random::Plan::draw(seed));
            }
            return Ok(true);
        }
        random::run_seeds(&bin, seed, runs, within).await.map_err(|error| error.to_string())
    }
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let names =
        || Scenario::ALL.into_iter().chain(Scenario::CANARIES).map(Scenario::name).collect::<Vec<_>>().join(", ");
    Scenario::of_name(name).ok_or_else(|| format!("unknown scenario; choose one of {}", names()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start threads: {error}")),
    };
    match runtime.block_on(run(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: Args) -> Result<bool, String> {
    cleanup::remove().map_err(|error| error.to_string())?;
    if let Some(why) = Network::unavailable() {
        return Err(format!("cannot create network namespaces: {why}; run as root on Linux, with iproute2 installed"));
    }
    let bin = args.bin.map_or_else(beside_this, Ok)?;
    let handle = |kind| signal(kind).map_err(|error| format!("cannot install signal handlers: {error}"));
    let (mut interrupt, mut terminate) = (handle(SignalKind::interrupt())?, handle(SignalKind::terminate())?);
    // Dropping the runs removes their networks, disks and data.
    tokio::select! {
        is_good = async {
            match args.command {
                Some(command) => command.run(bin).await,
                None => {
                    let pace = if args.short { Pace::SHORT } else { Pace::LONG };
                    let runner = Runner { bin, nodes: args.nodes, pace };
                    Ok(run_named(&runner, args.scenarios, args.at_once).await)
                }
            }
        } => is_good,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("terminated".to_owned()),
    }
}

async fn run_named(runner: &Runner, scenarios: Vec<Scenario>, at_once: u8) -> bool {
    let scenarios = if scenarios.is_empty() { Scenario::ALL.to_vec() } else { scenarios };
    let rows = runner.run_all(&scenarios, usize::from(at_once)).await;
    println!("{}", report::table(&rows));
    rows.iter().all(report::is_good)
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
