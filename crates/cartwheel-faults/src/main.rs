//! Plays faults on real processes and prints what came of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cartwheel_faults::leftovers;
use cartwheel_faults::network::Network;
use cartwheel_faults::play::Stage;
use cartwheel_faults::random;
use cartwheel_faults::report;
use cartwheel_faults::scenario::{Pace, Scenario};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Runs five real nodes in three zones, each in a network namespace of its own; lets clients put real purchases into carts; kills,
/// pauses, cuts off, fills up, wipes, restarts, adds, removes and replaces nodes; and counts what was refused and lost. Needs root
/// and iproute2.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which scenarios; all of them if none is named.
    #[arg(value_parser = scenario)]
    scenarios: Vec<Scenario>,
    /// A few seconds each, as for every commit.
    #[arg(long)]
    short: bool,
    /// How many at the same time, each on a cluster of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    at_once: u8,
    /// How many nodes, but in scenarios that need a certain number.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(5..=30))]
    nodes: u8,
    /// The cartwheel binary, if it is not beside this one; `cargo build --release` makes it.
    #[arg(long, value_name = "PATH", global = true)]
    bin: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays faults that are drawn from a seed
    ///
    /// Each seed is a cluster of its own and three rounds of faults that overlap. After each round no acknowledged write may be missing,
    /// replicas must be equal, and registers must have shown what they may. Prints each seed with its schedule. The same seed draws the
    /// same schedule again.
    ///
    /// Example: just faults random --seed 1 --for 1h
    Random {
        /// The first seed; drawn if not given.
        #[arg(long)]
        seed: Option<u64>,
        /// Ends after so many seeds.
        #[arg(long)]
        runs: Option<u64>,
        /// Begins no further seed after so long, such as 90m or 3h.
        #[arg(long = "for", value_parser = humantime::parse_duration, conflicts_with = "minutes")]
        within: Option<Duration>,
        /// The same in minutes.
        #[arg(long)]
        minutes: Option<u64>,
        /// Prints schedules only.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Command {
    async fn run(self, bin: PathBuf) -> Result<bool, String> {
        let Self::Random { seed, runs, within, minutes, dry_run } = self;
        let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
        let within = within.or_else(|| minutes.map(|minutes| Duration::from_secs(60 * minutes)));
        // Forever only if that is said.
        let runs = runs.or_else(|| within.is_none().then_some(1));
        if dry_run {
            for seed in (seed..).take(runs.unwrap_or(1).try_into().unwrap_or(usize::MAX)) {
                println!("seed {seed}: {}", random::Plan::draw(seed));
            }
            return Ok(true);
        }
        random::play_seeds(&bin, seed, runs, within).await.map_err(|error| error.to_string())
    }
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let names =
        || Scenario::ALL.into_iter().chain(Scenario::CANARIES).map(Scenario::name).collect::<Vec<_>>().join(", ");
    Scenario::of_name(name).ok_or_else(|| format!("there are {}", names()))
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
    leftovers::remove().map_err(|error| error.to_string())?;
    if let Some(why) = Network::unavailable() {
        return Err(format!("no network namespaces can be made here: {why}. Run it as root on Linux, with iproute2"));
    }
    let bin = args.bin.map_or_else(beside_this, Ok)?;
    let handle = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
    let (mut interrupt, mut terminate) = (handle(SignalKind::interrupt())?, handle(SignalKind::terminate())?);
    // Whatever is dropped half-way is removed.
    tokio::select! {
        is_good = async {
            match args.command {
                Some(command) => command.run(bin).await,
                None => {
                    let pace = if args.short { Pace::SHORT } else { Pace::LONG };
                    let stage = Stage { bin, nodes: args.nodes, pace };
                    Ok(play_named(&stage, args.scenarios, args.at_once).await)
                }
            }
        } => is_good,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("told to stop".to_owned()),
    }
}

async fn play_named(stage: &Stage, scenarios: Vec<Scenario>, at_once: u8) -> bool {
    let scenarios = if scenarios.is_empty() { Scenario::ALL.to_vec() } else { scenarios };
    let rows = stage.play_all(&scenarios, usize::from(at_once)).await;
    println!("{}", report::table(&rows));
    rows.iter().all(report::is_good)
}

/// Where cargo puts the binary that this goes with.
fn beside_this() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
    let bin = this.with_file_name("cartwheel");
    if bin.exists() {
        Ok(bin)
    } else {
        Err(format!("{} is not there: build it with cargo build --release, or give --bin", bin.display()))
    }
}
