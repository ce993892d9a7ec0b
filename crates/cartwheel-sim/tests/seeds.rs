//! The simulator tests itself, then the core.

use cartwheel_sim::run::{Settings, run};

/// Seeds of fresh runs, and seeds that once failed and must not again.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=300;

/// The same seed is the same run, to the byte; without that no failure could be replayed.
#[test]
fn a_seed_replays() {
    for seed in 1..=25 {
        let readable = Settings { readable: true, ..Settings::default() };
        let (first, second) = (run(seed, readable), run(seed, readable));
        assert_eq!(first.trace.text(), second.trace.text(), "seed {seed}");
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.failure, second.failure, "seed {seed}");
        let quick = run(seed, Settings::default());
        assert_eq!(quick.trace_hash, first.trace_hash, "seed {seed}: keeping the text changes nothing");
        assert!(first.trace.lines().len() > 20, "seed {seed}: something happens");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let hash = |seed| run(seed, Settings::default()).trace_hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn seeds_pass() {
    for seed in SEEDS {
        let report = run(seed, Settings::default());
        if report.failure.is_some() {
            panic!("{}", cartwheel_sim::report::describe(&report, Settings::default(), ""));
        }
    }
}
