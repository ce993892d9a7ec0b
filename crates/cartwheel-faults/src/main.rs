//! Plays faults on real processes and prints what came of them.

use std::path::PathBuf;
use std::process::ExitCode;

use cartwheel_faults::leftovers;
use cartwheel_faults::network::Network;
use cartwheel_faults::play::Stage;
use cartwheel_faults::report;
use cartwheel_faults::scenario::{Pace, Scenario};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Runs five real nodes in three zones, each in a network namespace of its own; lets clients put real purchases into carts; kills,
/// pauses, cuts off, fills up, wipes, restarts, adds, removes and replaces nodes; and counts what was refused and lost. Needs root
/// and iproute2.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
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
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
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
    let pace = if args.short { Pace::SHORT } else { Pace::LONG };
    let stage = Stage { bin, nodes: args.nodes, pace };
    let scenarios = if args.scenarios.is_empty() { Scenario::ALL.to_vec() } else { args.scenarios };
    let handle = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
    let (mut interrupt, mut terminate) = (handle(SignalKind::interrupt())?, handle(SignalKind::terminate())?);
    // Whatever is dropped half-way is removed.
    let rows = tokio::select! {
        rows = stage.play_all(&scenarios, usize::from(args.at_once)) => rows,
        _ = interrupt.recv() => return Err("interrupted".to_owned()),
        _ = terminate.recv() => return Err("told to stop".to_owned()),
    };
    println!("{}", report::table(&rows));
    Ok(rows.iter().all(report::is_good))
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
