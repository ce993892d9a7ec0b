//! Each rule of the protocol that is broken on purpose must be noticed.
#![cfg(feature = "mutations")]

use std::sync::Mutex;
use std::thread;

use cartwheel_core::mutation::{Broken, Mutation};
use cartwheel_sim::run::{Settings, run};

/// In at most so many runs each mutation must be noticed. The rarest shows in one of some four thousand.
const SEEDS_MAX: u64 = 10_000;

/// Rules that the simulator does not show the breaking of: the windows in which it would be seen are too short. The search of every state
/// does (`cartwheel-core/tests/steps`).
const SHOWN_BY_SEARCH: [Mutation; 3] = [Mutation::FillingCounts, Mutation::StaleStepAccepted, Mutation::OldHomeForgets];

#[test]
fn every_mutation_is_caught() {
    let mutations = Mutation::ALL.into_iter().filter(|mutation| !SHOWN_BY_SEARCH.contains(mutation));
    let (mutations, missed) = (Mutex::new(mutations), Mutex::new(Vec::new()));
    let next = || mutations.lock().expect("no thread panics").next();
    let try_them = || {
        while let Some(mutation) = next() {
            let settings = Settings { broken: Broken::rule(mutation), ..Settings::default() };
            let caught = (1..=SEEDS_MAX).find_map(|seed| Some((seed, run(seed, settings).failure?)));
            match caught {
                Some((seed, failure)) => println!("{}: seed {seed}: {}", mutation.name(), failure.check),
                None => missed.lock().expect("no thread panics").push(mutation.name()),
            }
        }
    };
    thread::scope(|scope| {
        (0..thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(try_them)));
    });
    let missed = missed.into_inner().expect("no thread panics");
    assert!(missed.is_empty(), "not noticed in {SEEDS_MAX} seeds: {missed:?}");
}
