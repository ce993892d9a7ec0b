//! Each rule of the protocol that is broken on purpose must be noticed.
#![cfg(feature = "mutations")]

use cartwheel_core::mutation::{Broken, Mutation};
use cartwheel_sim::run::{Settings, run};

/// In at most so many runs each mutation must be noticed. The rarest shows in one of some four thousand.
const SEEDS_MAX: u64 = 10_000;

/// Rules that the simulator does not show the breaking of: the windows in which it would be seen are too short. The search of every state
/// does (`cartwheel-core/tests/steps`).
const SHOWN_BY_SEARCH: [Mutation; 3] = [Mutation::FillingCounts, Mutation::StaleStepAccepted, Mutation::OldHomeForgets];

#[test]
fn every_mutation_is_caught() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL.into_iter().filter(|mutation| !SHOWN_BY_SEARCH.contains(mutation)) {
        let settings = Settings { broken: Broken::rule(mutation), ..Settings::default() };
        let caught = (1..=SEEDS_MAX).find_map(|seed| Some((seed, run(seed, settings).failure?)));
        match caught {
            Some((seed, failure)) => println!("{}: seed {seed}: {}", mutation.name(), failure.check),
            None => missed.push(mutation.name()),
        }
    }
    assert!(missed.is_empty(), "not noticed in {SEEDS_MAX} seeds: {missed:?}");
}
