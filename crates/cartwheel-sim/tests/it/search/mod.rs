//! A model checker for reconfiguration: it visits every state that a few nodes can reach.
//!
//! The model's nodes run the real [`Reconfiguration`](cartwheel_core::reconfiguration::Reconfiguration) on real
//! [`PartitionState`](cartwheel_core::cluster::partition_state::PartitionState)s, and choose with the real proposers
//! and acceptors. The coordinator's own tallies judge operations. What is durable is the model's state. A message is
//! delivered at any time, in any order, repeatedly, or never. A node may crash between any two of its actions. These
//! things are simpler than in the real system:
//!
//! - *Copying.* A node that runs an exchange with another gets what that one holds (a retired home gives, too), at
//!   once, and remembers the other's version. Nothing else makes replicas equal: no read repair, and no exchanges
//!   between homes that are both synced.
//! - *Purges.* All that may be purged is purged at once.
//! - *Choosing*, where the bounds allow no ballots: if a majority of the choosers is there, the choice is made.
//! - *Time.* Any node may consider any other down, and reports are as recent as they need to be.
//! - *The store.* What is written is there. Crashes lose what was not written.
//! - *Operations.* They use homes only, no stand-ins. A write is stored and answered in one action. The coordinator's
//!   private rules (which homes it uses, and that it does not end while it is behind) are repeated in `operations.rs`.
//!
//! Each test is a small cluster, with bounds for what may happen. It visits all states within the bounds and prints
//! their number. With the feature `mutations`, each rule of reconfiguration is broken once, and the model must find a
//! violated property. `just search --nocapture` shows the numbers, `just search --ignored` runs the
//! tests that take minutes.
#![allow(clippy::disallowed_types, reason = "the checker is not a state machine, and its lookups need no order")]

mod model;
mod operations;
mod setup;
mod stage;

use cartwheel_core::cluster::configuration::{ConfigVersion, Home};
use cartwheel_core::cluster::membership::ChangeKind;
use cartwheel_core::value::dot::Incarnation;
use stateright::{Checker, HasDiscoveries, Model};

use model::SEEN;
use setup::{Bounds, Setup, id, member, set_n};

/// Clients write once, and read once afterwards.
const ONCE: Bounds =
    Bounds { writes: 1, reads: 1, crashes: 0, ballots: 0, last: 1, renewals: 0, losses: 0, failures: 0 };
/// No writes or reads: only the choice matters.
const NO_CLIENTS: Bounds = Bounds { writes: 0, reads: 0, ..ONCE };

fn add(node: usize) -> ChangeKind {
    ChangeKind::Add(member(node, node as u64))
}

/// Visits all states and checks the properties.
fn check(setup: Setup) {
    let checker = setup.checker().spawn_bfs().join();
    println!("{}: {} states", test_name(), checker.unique_state_count());
    checker.assert_properties();
}

/// Searches for a state that violates a property.
fn finds(setup: Setup, property: &'static str) {
    let checker = setup.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let actions = checker.assert_any_discovery(property).into_actions();
    println!("{}: {} states, {} actions", test_name(), checker.unique_state_count(), actions.len());
}

fn test_name() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

/// One of three homes is replaced.
fn one_of_three(bounds: Bounds) -> Setup {
    Setup::new(3, 3, &[&[add(4)]], bounds)
}

/// Keys with one home get another one.
fn only_home(bounds: Bounds) -> Setup {
    Setup::new(3, 1, &[&[add(4)]], bounds)
}

/// Two nodes have different targets.
fn rivals(bounds: Bounds) -> Setup {
    let mut setup = Setup::new(3, 3, &[&[add(4)], &[add(5)]], bounds);
    setup.sides[1] = 1;
    setup
}

/// A home loses its disk and returns in a new incarnation.
fn new_incarnation(bounds: Bounds) -> Setup {
    let new = ChangeKind::Replace { old: id(1), new: member(1, 9) };
    Setup::new(3, 3, &[&[], &[new]], Bounds { renewals: 1, ..bounds })
}

/// One of three homes is to be replaced, and the two that are to stay are lost, at any time.
fn majority_lost(bounds: Bounds) -> Setup {
    let undisturbed = one_of_three(bounds);
    let target = undisturbed.views[0].target(undisturbed.partition);
    let stay: Vec<Home> = undisturbed.first().homes.into_iter().filter(|home| target.contains(home)).collect();
    let removed = stay.iter().map(|&Home { node, incarnation }| ChangeKind::Remove { node, incarnation });
    let mut changes: Vec<ChangeKind> = [add(4)].into_iter().chain(removed).collect();
    changes.push(ChangeKind::MarkLost { homes: stay, versions: vec![(undisturbed.partition, ConfigVersion(0))] });
    let setup = Setup::new(3, 3, &[&[add(4)], &changes], bounds);
    assert_eq!(setup.partition, undisturbed.partition);
    setup
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn a_majority_is_lost_and_marked_lost() {
    check(majority_lost(Bounds { reads: 0, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn one_home_of_three_is_replaced() {
    check(one_of_three(ONCE));
}

#[test]
fn the_only_home_is_replaced() {
    check(only_home(Bounds { crashes: 1, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn one_home_of_two_is_replaced_for_any_quorums() {
    for (w, r) in [(1, 2), (2, 1), (2, 2)] {
        check(Setup::new(3, 2, &[&[add(4)]], Bounds { crashes: 1, ..ONCE }).with_quorums(w, r));
    }
}

#[test]
fn a_third_home_is_added() {
    check(Setup::new(2, 3, &[&[add(3)]], Bounds { crashes: 1, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn a_removed_home_is_replaced() {
    let remove = ChangeKind::Remove { node: id(1), incarnation: Incarnation(1) };
    check(Setup::new(3, 3, &[&[add(4), remove.clone()]], ONCE));
    // Of two homes, the one that stays holds all that both have acknowledged. With r=1, a removed home that is wrongly
    // considered dead and alone answers a read shows what it holds, with any number of homes.
    check(Setup::new(3, 2, &[&[add(4), remove.clone()]], Bounds { crashes: 1, ..ONCE }).with_quorums(2, 2));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn one_reconfiguration_follows_another() {
    check(Setup::new(3, 1, &[&[add(4), add(5)]], Bounds { last: 2, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn a_bucket_gets_more_replicas() {
    let bounds = Bounds { crashes: 1, ..ONCE };
    check(Setup::new(3, 2, &[&[set_n(3)]], bounds).with_quorums(2, 2).with_settings_n(3));
    check(Setup::new(3, 1, &[&[set_n(3)]], Bounds { last: 2, ..ONCE }).with_quorums(2, 2).with_settings_n(3));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn a_bucket_gets_fewer_replicas() {
    check(Setup::new(3, 2, &[&[set_n(1)]], Bounds { crashes: 1, ..ONCE }).with_quorums(1, 1).with_settings_n(1));
    check(Setup::new(3, 3, &[&[set_n(2)]], ONCE).with_quorums(1, 2).with_settings_n(2));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn strong_reads_while_a_bucket_gets_more_or_fewer_replicas() {
    check(Setup::new(3, 1, &[&[set_n(2)]], ONCE).with_settings_n(2).strong());
    check(Setup::new(3, 2, &[&[set_n(1)]], ONCE).with_settings_n(1).strong());
    check(Setup::new(3, 2, &[&[set_n(3)]], ONCE).with_settings_n(3).strong());
}

#[test]
fn the_choice_and_clients_and_a_crash() {
    check(only_home(Bounds { crashes: 1, ballots: 1, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn rivals_agree() {
    check(rivals(Bounds { crashes: 1, ballots: 2, ..NO_CLIENTS }));
}

#[test]
fn a_home_returns_in_a_new_incarnation() {
    check(new_incarnation(ONCE));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn later_strong_reads_show_what_an_earlier_one_has_shown() {
    check(Setup::new(2, 3, &[&[add(3)]], Bounds { reads: 2, ..ONCE }).strong());
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn strong_reads_do_not_count_an_incarnation_that_is_over() {
    check(new_incarnation(Bounds { reads: 2, ..ONCE }).strong());
}

/// Without a reconfiguration: a home loses its record, or loses power before the write was synced, and recovers.
fn settled(nodes: usize, n: u8, bounds: Bounds) -> Setup {
    Setup::new(nodes, n, &[&[add(nodes + 1)]], Bounds { last: 0, ..bounds })
}

#[test]
fn homes_lose_what_they_hold_and_recover() {
    check(settled(3, 3, Bounds { losses: 2, failures: 1, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn homes_lose_what_strong_reads_have_shown() {
    check(settled(3, 3, Bounds { reads: 2, losses: 1, ..ONCE }).strong());
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn one_of_five_homes_loses_what_it_holds() {
    check(settled(5, 5, Bounds { losses: 1, ..ONCE }));
}

#[test]
#[ignore = "has not been seen to end: its bounds are too wide"]
fn a_home_loses_what_it_holds_while_a_third_one_is_added() {
    check(Setup::new(2, 3, &[&[add(3)]], Bounds { losses: 1, ..ONCE }));
}

#[test]
#[ignore = "takes minutes"]
fn a_home_loses_what_it_holds_while_another_is_replaced() {
    check(one_of_three(Bounds { losses: 1, ..ONCE }));
}

/// A defect that this model has found, fixed since: a home holds what a strong get is about to answer, loses its disk
/// during the get, and is a home again in a new incarnation that never held it.
#[test]
#[ignore = "takes minutes"]
fn tallies_that_ignore_incarnations_answer_what_is_lost() {
    finds(new_incarnation(Bounds { reads: 2, ..ONCE }).strong().counting_past_incarnations(), SEEN);
}

#[test]
#[ignore = "takes minutes"]
fn one_home_of_three_is_replaced_with_a_crash() {
    check(one_of_three(Bounds { crashes: 1, ..ONCE }));
}

#[test]
#[ignore = "takes minutes"]
fn rivals_and_clients_and_a_crash() {
    check(only_home(Bounds { crashes: 1, ballots: 2, ..ONCE }));
}

#[test]
#[ignore = "takes minutes"]
fn one_reconfiguration_follows_another_with_a_crash() {
    check(Setup::new(3, 1, &[&[add(4), add(5)]], Bounds { last: 2, crashes: 1, ..ONCE }));
}

/// With each rule of reconfiguration broken, the model must find the violation that the rule prevents.
#[cfg(feature = "mutations")]
mod broken {
    use cartwheel_core::mutation::Mutation;

    use super::model::{KEPT, LEFT, ONE_NEXT};
    use super::*;

    fn finds_broken(mutation: Mutation, setup: Setup, property: &'static str) {
        finds(setup.breaking(mutation), property);
    }

    #[test]
    fn a_version_that_is_not_saved_makes_two_next_configurations() {
        let setup = rivals(Bounds { crashes: 1, ballots: 2, ..NO_CLIENTS });
        finds_broken(Mutation::StepsUnsaved, setup, ONE_NEXT);
    }

    #[test]
    fn a_version_that_is_not_saved_loses_writes() {
        finds_broken(Mutation::StepsUnsaved, only_home(Bounds { crashes: 1, ..ONCE }), SEEN);
    }

    #[test]
    fn a_version_that_is_not_agreed_on_makes_two_next_configurations() {
        let setup = rivals(Bounds { crashes: 1, ballots: 2, ..NO_CLIENTS });
        finds_broken(Mutation::StepsUnagreed, setup, ONE_NEXT);
    }

    #[test]
    fn quorums_of_one_configuration_only_miss_writes() {
        finds_broken(Mutation::OneSideWritten, only_home(ONCE), SEEN);
        finds_broken(Mutation::OneSideWritten, one_of_three(ONCE), SEEN);
    }

    #[test]
    fn a_syncing_home_must_not_count() {
        finds_broken(Mutation::SyncingCounts, only_home(ONCE), SEEN);
        finds_broken(Mutation::SyncingCounts, one_of_three(ONCE), SEEN);
    }

    #[test]
    fn a_home_that_has_copied_too_little_must_not_report_to_be_synced() {
        finds_broken(Mutation::SyncedTooEarly, only_home(ONCE), SEEN);
        finds_broken(Mutation::SyncedTooEarly, one_of_three(ONCE), SEEN);
    }

    #[test]
    fn an_operation_that_ends_on_an_outdated_version_misses_writes() {
        finds_broken(Mutation::StaleStepAccepted, only_home(ONCE), SEEN);
        finds_broken(Mutation::StaleStepAccepted, one_of_three(ONCE), SEEN);
    }

    #[test]
    fn an_answer_from_before_a_loss_must_not_count_after_it() {
        finds_broken(Mutation::CountLost, settled(3, 3, Bounds { losses: 1, ..ONCE }), SEEN);
        finds_broken(Mutation::CountLost, settled(3, 3, Bounds { reads: 2, losses: 1, ..ONCE }).strong(), SEEN);
    }

    #[test]
    fn a_force_recovered_home_must_not_answer_before_it_holds_all_that_is_left() {
        finds_broken(Mutation::ForceRecoveredUnfilled, majority_lost(Bounds { reads: 0, ..ONCE }), LEFT);
    }

    #[test]
    fn a_retired_home_that_purges_at_once_loses_writes() {
        finds_broken(Mutation::OldHomePurges, only_home(ONCE), KEPT);
        finds_broken(Mutation::OldHomePurges, one_of_three(ONCE), KEPT);
    }
}
