//! `cartwheel-sim`: runs many seeds, or replays one as readable text.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cartwheel_core::mutation::Broken;
use cartwheel_sim::report;
use cartwheel_sim::run::{Report, RunSettings, Stats, run};
use cartwheel_sim::scale::{self, Scale};
use indicatif::{ProgressBar, ProgressStyle};

const USAGE: &str = "\
Simulate clusters of the Cartwheel core under faults that are drawn from seeds

Usage:
  cartwheel-sim --seeds COUNT [--start SEED] [--jobs N]   run COUNT seeds and stop at the first failure
  cartwheel-sim --seed SEED                               replay one seed and print its trace
  cartwheel-sim --scale NODES [--start SEED]              measure the cost and speed of gossip in a large cluster

Options:
  --start SEED       first seed (default 1)
  --keep-going       list all failing seeds instead of stopping at the first
  --hashes           print the hash of each seed's trace; a change that only moves or renames code leaves all hashes the same
  --jobs N           number of seeds to run at a time (default: one for each core)
  --day              slow everything down, so that a run takes about a day of simulated time
  --mutation NAME    break a rule of the protocol (needs a build with `--features mutations`)

Example:
  cartwheel-sim --seeds 1000 --start 1";

struct Arguments {
    seeds: u64,
    start: u64,
    jobs: usize,
    replay: Option<u64>,
    scale: Option<u64>,
    keep_going: bool,
    prints_hashes: bool,
    takes_a_day: bool,
    broken: Broken,
    /// The flags that a replay needs besides the seed, before the `--`.
    flags: String,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(arguments) => match (arguments.scale, arguments.replay) {
            (Some(nodes), _) => {
                println!("{}", scale::run(Scale::of(nodes as usize, arguments.start)));
                ExitCode::SUCCESS
            }
            (None, Some(seed)) => replay(seed, &arguments),
            (None, None) => run_many(&arguments),
        },
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments {
        seeds: 0,
        start: 1,
        jobs: cores,
        replay: None,
        scale: None,
        keep_going: false,
        prints_hashes: false,
        takes_a_day: false,
        broken: Broken::default(),
        flags: String::new(),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is not a number"));
        match word.as_str() {
            "--seeds" => arguments.seeds = number(value()?)?,
            "--start" => arguments.start = number(value()?)?,
            "--jobs" => arguments.jobs = number(value()?)?.max(1) as usize,
            "--seed" => arguments.replay = Some(number(value()?)?),
            "--scale" => arguments.scale = Some(number(value()?)?.max(1)),
            "--keep-going" => arguments.keep_going = true,
            "--hashes" => arguments.prints_hashes = true,
            "--day" => {
                arguments.takes_a_day = true;
                arguments.flags += " --day";
            }
            "--mutation" => {
                let name = value()?;
                arguments.broken = mutation(&name)?;
                arguments.flags += &format!(" --mutation {name}");
            }
            "--help" | "-h" => return Err("cartwheel-sim".to_owned()),
            other => return Err(format!("unknown argument {other}; see --help")),
        }
    }
    if arguments.replay.is_none() && arguments.scale.is_none() && arguments.seeds == 0 {
        return Err("pass --seeds, --seed or --scale".to_owned());
    }
    Ok(arguments)
}

#[cfg(feature = "mutations")]
fn mutation(name: &str) -> Result<Broken, String> {
    use cartwheel_core::mutation::Mutation;
    let found = Mutation::ALL.into_iter().find(|mutation| mutation.name() == name);
    let names = || Mutation::ALL.map(Mutation::name).join(", ");
    found.map(Broken::rule).ok_or_else(|| format!("no mutation is named {name}; choose from {}", names()))
}

#[cfg(not(feature = "mutations"))]
fn mutation(_name: &str) -> Result<Broken, String> {
    Err("this build has no mutations: build it with `--features mutations`".to_owned())
}

fn replay(seed: u64, arguments: &Arguments) -> ExitCode {
    let settings =
        RunSettings { readable: true, until_us: None, takes_a_day: arguments.takes_a_day, broken: arguments.broken };
    let report = run(seed, settings);
    println!("{:#?}", cartwheel_sim::options::Options::draw(seed));
    print!("{}", report.trace.text());
    for (key, held) in &report.holdings {
        println!("the homes of {key:?} hold\n{held}");
    }
    println!("trace hash {:016x}, {:?}", report.trace_hash, report.stats);
    match report.failure {
        None => {
            println!("seed {seed} passes");
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("seed {seed} fails: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run_many(arguments: &Arguments) -> ExitCode {
    let settings =
        RunSettings { readable: false, until_us: None, takes_a_day: arguments.takes_a_day, broken: arguments.broken };
    let next = AtomicU64::new(arguments.start);
    let end = arguments.start + arguments.seeds;
    let stop = AtomicBool::new(false);
    let first_failure: Mutex<Option<Report>> = Mutex::new(None);
    let total = Mutex::new(Stats::default());
    let bar = progress_bar(arguments.seeds);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let report = run(seed, settings);
                    total.lock().expect("no job panicked").add(&report.stats);
                    bar.inc(1);
                    if arguments.prints_hashes {
                        bar.suspend(|| println!("{seed} {:016x}", report.trace_hash));
                    }
                    if report.failure.is_some() {
                        stop.store(!arguments.keep_going, Ordering::Relaxed);
                        if arguments.keep_going {
                            bar.suspend(|| println!("seed {}: {}", report.seed, one_line(&report)));
                        }
                        let mut first = first_failure.lock().expect("no job panicked");
                        // Report the lowest seed, so that the result does not depend on which job was quicker.
                        if first.as_ref().is_none_or(|first| report.seed < first.seed) {
                            *first = Some(report);
                        }
                    }
                }
            });
        }
    });
    let (done, seconds) = (bar.position(), bar.elapsed().as_secs_f64().max(1e-3));
    bar.finish_and_clear();
    let total = total.into_inner().expect("no job panicked");
    println!(
        "{} seeds, {} of {} requests succeeded, {} messages, {} of {} keys undecided, {:.1} simulated hours, {:.0} seeds a second",
        done,
        total.succeeded,
        total.answered,
        total.messages,
        total.inconclusive,
        total.keys,
        total.simulated_us as f64 / 3.6e9,
        done as f64 / seconds
    );
    match first_failure.into_inner().expect("no job panicked") {
        None => ExitCode::SUCCESS,
        Some(_) if arguments.keep_going => ExitCode::FAILURE,
        Some(report) => {
            println!("{}", report::describe(&report, settings, &arguments.flags));
            ExitCode::FAILURE
        }
    }
}

fn one_line(report: &Report) -> String {
    let failure = report.failure.as_ref().map(ToString::to_string).unwrap_or_default();
    failure.lines().next().unwrap_or_default().chars().take(240).collect()
}

fn progress_bar(seeds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {per_sec}, {eta} left");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
