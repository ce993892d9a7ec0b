//! How one configuration succeeds another, checked in every state that a few nodes can come to.
//!
//! The model's nodes run the real [`Reconfiguration`](cartwheel_core::reconfiguration::Reconfiguration) on real [`PartitionState`](cartwheel_core::cluster::partition state::PartitionState)s,
//! choose with the real proposers and acceptors, and operations are judged by the coordinator's own tallies. What is durable is the model's state; a message is
//! delivered at any time, in any order, again, or never; a node crashes between any two things that it does. Simpler than the real thing are:
//!
//! - *Copying.* Who compares with another gets what that one holds (an old home gives, too), in one piece, and remembers how far the other
//!   was. Nothing else evens replicas out: no read repair, no comparisons between homes that both hold everything.
//! - *Clearing.* What may go goes at once.
//! - *Choosing*, where no ballots are allowed for: a majority of the choosers is there, and so the choice is made.
//! - *Time.* Everybody may think of anybody that it is down, and reports are as fresh as they need to be.
//! - *The store.* What is written is there; crashes lose what was not written.
//! - *Operations.* Homes only, no stand-ins; a write is stored and answered for in one piece. A rule of the coordinator that is private to it (whose
//!   homes it goes by, and that it does not end while it is behind) is repeated in `operations.rs`.
//!
//! Each test is a small cluster and bounds for what may happen. It visits all states within them: the printed number. With the feature `mutations`
//! each rule of the reconfiguration is broken once, and the model must find a way to something that must not be. `cargo test --release -p
//! cartwheel-core --all-features --test steps -- --nocapture` shows the numbers; `-- --ignored` runs what takes minutes.
#![allow(
    clippy::disallowed_types,
    reason = "the checker is no state machine, and looks up what it remembers without an order"
)]

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
/// Nobody writes or reads: it is about the choice.
const NO_CLIENTS: Bounds = Bounds { writes: 0, reads: 0, ..ONCE };

fn add(node: usize) -> ChangeKind {
    ChangeKind::Add(member(node, node as u64))
}

/// Visits all states; the properties hold in all of them, and what should be possible is.
fn check(setup: Setup) {
    let checker = setup.checker().spawn_bfs().join();
    println!("{}: {} states", test_name(), checker.unique_state_count());
    checker.assert_properties();
}

/// Looks for a state in which a property does not hold.
fn finds(setup: Setup, property: &'static str) {
    let checker = setup.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let actions = checker.assert_any_discovery(property).into_actions();
    println!("{}: {} states, {} actions", test_name(), checker.unique_state_count(), actions.len());
}

fn test_name() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

/// Of three homes one is exchanged.
fn one_of_three(bounds: Bounds) -> Setup {
    Setup::new(3, 3, &[&[add(4)]], bounds)
}

/// Keys that have one home get another.
fn only_home(bounds: Bounds) -> Setup {
    Setup::new(3, 1, &[&[add(4)]], bounds)
}

/// Two nodes wish different things.
fn rivals(bounds: Bounds) -> Setup {
    let mut setup = Setup::new(3, 3, &[&[add(4)], &[add(5)]], bounds);
    setup.sides[1] = 1;
    setup
}

/// A home loses its disk and comes back in a new incarnation.
fn new_incarnation(bounds: Bounds) -> Setup {
    let new = ChangeKind::Replace { old: id(1), new: member(1, 9) };
    Setup::new(3, 3, &[&[], &[new]], Bounds { renewals: 1, ..bounds })
}

/// Of three homes one is to be exchanged, and the two that are to stay are lost, at any time.
fn majority_lost(bounds: Bounds) -> Setup {
    let undisturbed = one_of_three(bounds);
    let target = undisturbed.views[0].target(undisturbed.partition);
    let stay: Vec<Home> = undisturbed.first().homes.into_iter().filter(|home| target.contains(home)).collect();
    let removed = stay.iter().map(|&Home { node, incarnation }| ChangeKind::Remove { node, incarnation });
    let mut given_up: Vec<ChangeKind> = [add(4)].into_iter().chain(removed).collect();
    given_up.push(ChangeKind::MarkLost { homes: stay, versions: vec![(undisturbed.partition, ConfigVersion(0))] });
    let setup = Setup::new(3, 3, &[&[add(4)], &given_up], bounds);
    assert_eq!(setup.partition, undisturbed.partition);
    setup
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn a_majority_is_lost_and_given_up() {
    check(majority_lost(Bounds { reads: 0, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn one_home_of_three_is_exchanged() {
    check(one_of_three(ONCE));
}

#[test]
fn the_only_home_is_exchanged() {
    check(only_home(Bounds { crashes: 1, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn one_home_of_two_is_exchanged_whatever_the_quorums() {
    for (w, r) in [(1, 2), (2, 1), (2, 2)] {
        check(Setup::new(3, 2, &[&[add(4)]], Bounds { crashes: 1, ..ONCE }).with_quorums(w, r));
    }
}

#[test]
fn a_third_home_comes() {
    check(Setup::new(2, 3, &[&[add(3)]], Bounds { crashes: 1, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn a_home_is_exchanged_that_was_removed() {
    let remove = ChangeKind::Remove { node: id(1), incarnation: Incarnation(1) };
    check(Setup::new(3, 3, &[&[add(4), remove.clone()]], ONCE));
    // Of two homes the one that stays holds whatever both have acknowledged. With r=1 a removed home that is wrongly thought dead, asked
    // alone, shows what it knows, of however many homes it is one.
    check(Setup::new(3, 2, &[&[add(4), remove.clone()]], Bounds { crashes: 1, ..ONCE }).with_quorums(2, 2));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn one_step_follows_another() {
    check(Setup::new(3, 1, &[&[add(4), add(5)]], Bounds { last: 2, ..ONCE }));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn a_bucket_comes_to_have_more_replicas() {
    let bounds = Bounds { crashes: 1, ..ONCE };
    check(Setup::new(3, 2, &[&[set_n(3)]], bounds).with_quorums(2, 2).with_settings_n(3));
    check(Setup::new(3, 1, &[&[set_n(3)]], Bounds { last: 2, ..ONCE }).with_quorums(2, 2).with_settings_n(3));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn a_bucket_comes_to_have_fewer_replicas() {
    check(Setup::new(3, 2, &[&[set_n(1)]], Bounds { crashes: 1, ..ONCE }).with_quorums(1, 1).with_settings_n(1));
    check(Setup::new(3, 3, &[&[set_n(2)]], ONCE).with_quorums(1, 2).with_settings_n(2));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn strong_reads_while_a_bucket_comes_to_have_more_or_fewer_replicas() {
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
fn a_home_comes_back_in_a_new_incarnation() {
    check(new_incarnation(ONCE));
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn what_a_strong_read_has_shown_later_ones_show() {
    check(Setup::new(2, 3, &[&[add(3)]], Bounds { reads: 2, ..ONCE }).strong());
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes in a debug build")]
fn strong_reads_count_no_incarnation_that_is_over() {
    check(new_incarnation(Bounds { reads: 2, ..ONCE }).strong());
}

/// Nothing changes but what homes hold: one loses its record, or the power while the write is not synced, and recovers.
fn settled(founders: usize, n: u8, bounds: Bounds) -> Setup {
    Setup::new(founders, n, &[&[add(founders + 1)]], Bounds { last: 0, ..bounds })
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
fn a_home_loses_what_it_holds_while_a_third_one_comes() {
    check(Setup::new(2, 3, &[&[add(3)]], Bounds { losses: 1, ..ONCE }));
}

#[test]
#[ignore = "takes minutes"]
fn a_home_loses_what_it_holds_while_another_is_exchanged() {
    check(one_of_three(Bounds { losses: 1, ..ONCE }));
}

/// A defect that this model has found, and that is mended: a home holds what a strong get is to answer, loses its disk while the get goes
/// on, and is a home again in a new incarnation that never had it.
#[test]
#[ignore = "takes minutes"]
fn tallies_that_know_no_incarnations_answer_what_is_lost() {
    finds(new_incarnation(Bounds { reads: 2, ..ONCE }).strong().counting_past_incarnations(), SEEN);
}

#[test]
#[ignore = "takes minutes"]
fn one_home_of_three_is_exchanged_over_a_crash() {
    check(one_of_three(Bounds { crashes: 1, ..ONCE }));
}

#[test]
#[ignore = "takes minutes"]
fn rivals_and_clients_and_a_crash() {
    check(only_home(Bounds { crashes: 1, ballots: 2, ..ONCE }));
}

#[test]
#[ignore = "takes minutes"]
fn one_step_follows_another_over_a_crash() {
    check(Setup::new(3, 1, &[&[add(4), add(5)]], Bounds { last: 2, crashes: 1, ..ONCE }));
}

/// Each rule of the reconfiguration, broken: the model must find what it was for.
#[cfg(feature = "mutations")]
mod broken {
    use cartwheel_core::mutation::Mutation;

    use super::model::{KEPT, LEFT, ONE_SUCCESSOR};
    use super::*;

    fn finds_broken(mutation: Mutation, setup: Setup, property: &'static str) {
        finds(setup.breaking(mutation), property);
    }

    #[test]
    fn a_step_that_is_not_saved_makes_two_successors() {
        let setup = rivals(Bounds { crashes: 1, ballots: 2, ..NO_CLIENTS });
        finds_broken(Mutation::StepsUnsaved, setup, ONE_SUCCESSOR);
    }

    #[test]
    fn a_step_that_is_not_saved_loses_writes() {
        finds_broken(Mutation::StepsUnsaved, only_home(Bounds { crashes: 1, ..ONCE }), SEEN);
    }

    #[test]
    fn a_step_that_is_not_agreed_on_makes_two_successors() {
        let setup = rivals(Bounds { crashes: 1, ballots: 2, ..NO_CLIENTS });
        finds_broken(Mutation::StepsUnagreed, setup, ONE_SUCCESSOR);
    }

    #[test]
    fn quorums_of_one_side_miss_writes() {
        finds_broken(Mutation::OneSideWritten, only_home(ONCE), SEEN);
        finds_broken(Mutation::OneSideWritten, one_of_three(ONCE), SEEN);
    }

    #[test]
    fn a_home_that_is_being_filled_must_not_count() {
        finds_broken(Mutation::SyncingCounts, only_home(ONCE), SEEN);
        finds_broken(Mutation::SyncingCounts, one_of_three(ONCE), SEEN);
    }

    #[test]
    fn a_home_that_has_copied_too_little_must_not_say_that_it_is_whole() {
        finds_broken(Mutation::SyncedTooEarly, only_home(ONCE), SEEN);
        finds_broken(Mutation::SyncedTooEarly, one_of_three(ONCE), SEEN);
    }

    #[test]
    fn an_operation_that_ends_on_a_step_that_is_over_misses_writes() {
        finds_broken(Mutation::StaleStepAccepted, only_home(ONCE), SEEN);
        finds_broken(Mutation::StaleStepAccepted, one_of_three(ONCE), SEEN);
    }

    #[test]
    fn what_a_home_said_before_a_loss_must_not_count_after_it() {
        finds_broken(Mutation::CountLost, settled(3, 3, Bounds { losses: 1, ..ONCE }), SEEN);
        finds_broken(Mutation::CountLost, settled(3, 3, Bounds { reads: 2, losses: 1, ..ONCE }).strong(), SEEN);
    }

    #[test]
    fn what_was_made_anew_must_not_speak_before_it_has_all_that_is_left() {
        finds_broken(Mutation::ForceRecoveredUnfilled, majority_lost(Bounds { reads: 0, ..ONCE }), LEFT);
    }

    #[test]
    fn an_old_home_that_forgets_at_once_loses_writes() {
        finds_broken(Mutation::OldHomePurges, only_home(ONCE), KEPT);
        finds_broken(Mutation::OldHomePurges, one_of_three(ONCE), KEPT);
    }
}
