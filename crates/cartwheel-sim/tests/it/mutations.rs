//! Each mutation (a rule of the protocol that is broken on purpose) must be detected.
#![cfg(feature = "mutations")]

use cartwheel_core::mutation::{Broken, Mutation};
use cartwheel_sim::failure::Failure;
use cartwheel_sim::run::{RunSettings, run};

use crate::cores::on_all_cores;

/// The number of runs in which each mutation must be detected. The rarest shows in one of about four thousand.
const SEEDS_MAX: u64 = 10_000;

/// Mutations that the simulator does not detect, because the windows in which they show are too short. The exhaustive search in
/// `search/` does.
const SHOWN_BY_SEARCH: [Mutation; 7] = [
    Mutation::SyncingCounts,
    Mutation::StaleStepAccepted,
    Mutation::StepsUnagreed,
    Mutation::OldHomePurges,
    Mutation::ForceRecoveredUnfilled,
    Mutation::CountLost,
    Mutation::SyncedTooEarly,
];

/// Mutations that hardly a seed detects. A test with a few nodes does (`cluster.rs` and `sloppy.rs` in `cartwheel-core/tests`), or one of a single
/// function (`record.rs`).
const SHOWN_BY_TEST: [Mutation; 12] = [
    Mutation::ExchangeCountsAmnesiac,
    Mutation::StandInCountsForStrong,
    Mutation::BootsNamedAlike,
    Mutation::LateForwardRaised,
    Mutation::RefusedForwardTaken,
    Mutation::DebtSettledWithoutHome,
    Mutation::ListsStandApart,
    Mutation::VacantPlacesStayEmpty,
    Mutation::BootsLead,
    Mutation::CountAfterPowerLoss,
    Mutation::HintDroppedThoughNewer,
    Mutation::AtOnceUnchecked,
];

/// Seeds that detect mutations which few seeds do. They are tried first, which saves time and is not required.
const SHOWN_BY: [(Mutation, u64); 5] = [
    (Mutation::StrongGetUnchecked, 24),
    (Mutation::ActorsOutliveBoots, 905),
    (Mutation::ForwardStoredBelow, 685),
    (Mutation::ExchangeSkipsLastLeaf, 342),
    (Mutation::OneSideWritten, 1_597),
];

/// A seed that fails with a mutation and passes without it, and its failure.
fn caught(mutation: Mutation) -> Option<(u64, Failure)> {
    let known = SHOWN_BY.into_iter().filter(|&(shown, _)| shown == mutation).map(|(_, seed)| seed);
    let broken = RunSettings { broken: Broken::rule(mutation), ..RunSettings::default() };
    known.chain(1..=SEEDS_MAX).find_map(|seed| {
        let failure = run(seed, broken).failure?;
        run(seed, RunSettings::default()).failure.is_none().then_some((seed, failure))
    })
}

#[test]
fn every_mutation_is_detected() {
    let is_shown_here = |mutation: &Mutation| !SHOWN_BY_SEARCH.contains(mutation) && !SHOWN_BY_TEST.contains(mutation);
    let mutations = Mutation::ALL.into_iter().filter(is_shown_here);
    let missed = on_all_cores(mutations, |mutation| match caught(mutation) {
        Some((seed, failure)) => {
            println!("{}: seed {seed}: {}", mutation.name(), failure.check);
            None
        }
        None => Some(mutation.name()),
    });
    let missed: Vec<_> = missed.into_iter().flatten().collect();
    assert!(missed.is_empty(), "not detected in {SEEDS_MAX} seeds: {missed:?}");
}
