//! Known answers: the paper's figure 3 and the cases that follow from it, on real replicas.

use std::cmp::Ordering;

use cartwheel_core::value::clock::Clock;
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::state::{Seen, State};
use proptest::prelude::*;

use crate::harness::{TestReplica, Write, join};

/// The clock in the paper's notation. Nodes 1, 2, 3 are Sx, Sy, Sz.
fn vector(clock: &Clock) -> String {
    let name = |node: NodeId| ["?", "Sx", "Sy", "Sz"][node.get() as usize];
    clock.runs().map(|run| format!("[{},{}]", name(run.actor.node), run.upto)).collect()
}

/// What a client has seen after it wrote and got the reply.
fn seen_after(write: &Write, made: Option<(Dot, Hlc)>) -> Seen {
    let (dot, hlc) = made.expect("a new write");
    let mut seen = write.seen.clone();
    seen.clock.insert(dot);
    seen.hlc = seen.hlc.max(hlc);
    seen.ids.insert(write.id, hlc);
    seen
}

fn values(state: &State) -> Vec<String> {
    let value = |held: &cartwheel_core::value::state::Sibling| match &held.content {
        cartwheel_core::value::state::Content::Value { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        cartwheel_core::value::state::Content::Tombstone => "deleted".to_owned(),
    };
    state.siblings().map(value).collect()
}

fn write(number: u64, seen: &Seen) -> Write {
    Write::numbered(number, seen.clone())
}

#[test]
fn figure_3() {
    let [mut sx, mut sy, mut sz] = [1, 2, 3].map(TestReplica::new);
    let d1 = write(1, &Seen::default());
    let after_d1 = seen_after(&d1, sx.write(&d1));
    assert_eq!(vector(sx.state().clock()), "[Sx,1]");

    let d2 = write(2, &after_d1);
    let after_d2 = seen_after(&d2, sx.write(&d2));
    assert_eq!((vector(sx.state().clock()).as_str(), values(&sx.state())), ("[Sx,2]", vec!["v2".to_owned()]));

    sy.merge(&sx.state());
    sz.merge(&sx.state());
    let d3 = write(3, &after_d2);
    sy.write(&d3);
    assert_eq!(vector(sy.state().clock()), "[Sx,2][Sy,1]");
    let d4 = write(4, &after_d2);
    sz.write(&d4);
    assert_eq!(vector(sz.state().clock()), "[Sx,2][Sz,1]");

    let both = join([sy.state(), sz.state()]);
    assert_eq!(vector(both.clock()), "[Sx,2][Sy,1][Sz,1]");
    assert_eq!(values(&both), ["v3", "v4"]);

    let d5 = write(5, &both.seen());
    sx.merge(&both);
    sx.write(&d5);
    assert_eq!(vector(sx.state().clock()), "[Sx,3][Sy,1][Sz,1]");
    assert_eq!(values(&sx.state()), ["v5"]);

    // A node that holds D1 or D2 learns that both are replaced.
    sy.merge(&sx.state());
    assert_eq!(values(&sy.state()), ["v5"]);
}

#[test]
fn two_writes_from_one_context_through_one_coordinator_are_siblings() {
    let mut sx = TestReplica::new(1);
    let first = write(1, &Seen::default());
    let seen = seen_after(&first, sx.write(&first));
    sx.write(&write(2, &seen));
    sx.write(&write(3, &seen));
    assert_eq!(values(&sx.state()), ["v2", "v3"]);
}

/// Riak's issue kv#679: with one counter for all writes of a node, the second clock covers the first write.
#[test]
fn a_stand_in_that_writes_hands_over_drops_its_record_and_writes_again_loses_nothing() {
    let [mut standin, mut home] = [1, 2].map(TestReplica::new);
    standin.write(&write(1, &Seen::default()));
    home.merge(&standin.state());
    standin.lose();
    standin.write(&write(2, &Seen::default()));
    home.merge(&standin.state());
    assert_eq!(values(&home.state()), ["v1", "v2"]);
}

#[test]
fn a_retry_through_another_node_is_one_write_and_does_not_come_back() {
    let [mut sx, mut sy] = [1, 2].map(TestReplica::new);
    let cart = write(1, &Seen::default());
    let seen = seen_after(&cart, sx.write(&cart));
    sy.write(&cart);
    let both = join([sx.state(), sy.state()]);
    assert_eq!((both.siblings().len(), both.distinct_siblings().len()), (2, 1));

    // The client saw one of the two. Its next write replaces both.
    sx.write(&write(2, &seen));
    sx.merge(&sy.state());
    assert_eq!(values(&sx.state()), ["v2"]);
    assert_eq!(sx.write(&cart), None, "it was replaced");
    assert_eq!(values(&sx.state()), ["v2"]);
}

#[test]
fn last_write_wins_replaces_what_its_coordinator_holds_and_merge_keeps_the_rest() {
    let [mut sx, mut sy] = [1, 2].map(TestReplica::new);
    let lww = |number| Write { covers_held: true, ..write(number, &Seen::default()) };
    sx.write(&lww(1));
    sx.write(&lww(2));
    assert_eq!(values(&sx.state()), ["v2"]);
    sy.set_wall(WallMs(2_000_000));
    sy.restart();
    sy.write(&lww(3));
    let both = join([sx.state(), sy.state()]);
    assert_eq!(both.siblings().len(), 2, "merge does not decide");
    assert_eq!(both.latest().map(|held| held.hlc.wall()), Some(WallMs(2_000_000)));
    // A coordinator whose clock is behind still stamps above all that it replaces.
    sx.merge(&both);
    sx.write(&lww(4));
    assert_eq!(values(&sx.state()), ["v4"]);
    assert!(sx.state().hlc().wall() >= WallMs(2_000_000));
}

/// Found by the simulator: each of two retried writes has replaced the other on some replica. A merge must not drop
/// both.
#[test]
fn two_retried_writes_that_replaced_each_other_leave_one() {
    let [mut sx, mut sy] = [1, 2].map(TestReplica::new);
    let [a, b] = [1, 2].map(|number| Write { covers_held: true, ..write(number, &Seen::default()) });
    sx.write(&a);
    sx.write(&b);
    sy.write(&b);
    sy.write(&a);
    let both = join([sx.state(), sy.state()]);
    assert!(both.latest().is_some());
}

/// A boot starts from its wall clock, wherever that is. A write is still stamped above what it replaces.
#[test]
fn a_write_is_stamped_above_what_it_replaces_after_a_restart_with_a_clock_set_back() {
    let mut sx = TestReplica::new(1);
    let first = sx.write(&write(1, &Seen::default())).map(|(_, hlc)| hlc);
    sx.set_wall(WallMs(10));
    sx.restart();
    let second = sx.write(&Write { covers_held: true, ..write(2, &Seen::default()) }).map(|(_, hlc)| hlc);
    assert!(second > first);
    assert_eq!(values(&sx.state()), ["v2"]);
}

#[test]
fn notes_are_bounded_and_the_oldest_go_first() {
    let mut sx = TestReplica::new(1);
    let first = write(0, &Seen::default());
    let mut seen = seen_after(&first, sx.write(&first));
    for number in 1..=200 {
        let next = Write::numbered(number, Seen { ids: sx.state().seen().ids, ..seen.clone() });
        seen = seen_after(&next, sx.write(&next));
    }
    let state = sx.state();
    assert_eq!(state.siblings().len(), 1);
    assert_eq!(state.notes().len(), cartwheel_core::value::state::NOTES_MAX);
    assert_eq!(state.knows(write(199, &Seen::default()).id), Some(cartwheel_core::value::state::Known::Replaced));
    assert_eq!(state.knows(write(1, &Seen::default()).id), None);
}

/// An event of a process that acts alone or takes in another's last event, with the events that happened before it.
#[derive(Clone, Debug)]
struct Happened {
    process: u64,
    clock: Clock,
    lamport: u64,
    before: Vec<bool>,
}

fn histories() -> impl Strategy<Value = Vec<(u64, Option<usize>)>> {
    prop::collection::vec(
        (0u64..4, prop::option::of(any::<prop::sample::Index>().prop_map(|index| index.index(30)))),
        1..30,
    )
}

fn happen(history: &[(u64, Option<usize>)]) -> Vec<Happened> {
    let mut events: Vec<Happened> = Vec::new();
    for (number, &(process, takes_in)) in history.iter().enumerate() {
        let own = events.iter().rposition(|event| event.process == process);
        let causes: Vec<usize> = own.into_iter().chain(takes_in.filter(|&cause| cause < number)).collect();
        let mut event = Happened { process, clock: Clock::new(), lamport: 0, before: vec![false; number] };
        for cause in causes {
            event.clock.merge(&events[cause].clock);
            event.lamport = event.lamport.max(events[cause].lamport);
            event.before[cause] = true;
            for (earlier, &is_before) in events[cause].before.iter().enumerate() {
                event.before[earlier] |= is_before;
            }
        }
        event.lamport += 1;
        let actor = Actor { node: NodeId::new(process), incarnation: Incarnation(0), since: Since(0) };
        let counter = events.iter().filter(|event| event.process == process).count() as u64 + 1;
        event.clock.insert(Dot { actor, counter });
        events.push(event);
    }
    events
}

proptest! {
    #[test]
    fn a_clock_dominates_if_and_only_if_it_happened_after(history in histories()) {
        let events = happen(&history);
        for (later, event) in events.iter().enumerate() {
            for (earlier, other) in events.iter().enumerate().take(later) {
                prop_assert_eq!(event.before[earlier], other.clock < event.clock);
                prop_assert_ne!(event.clock.partial_cmp(&other.clock), Some(Ordering::Less));
                if event.before[earlier] {
                    prop_assert!(other.lamport < event.lamport);
                }
            }
        }
    }

    /// The replicas' wall clocks differ. Each write is stamped above what it has seen.
    #[test]
    fn a_timestamp_is_above_all_that_its_write_has_seen(
        writes in prop::collection::vec((0usize..3, any::<bool>()), 1..20),
        walls in prop::array::uniform3(1_000_000u64..1_009_000),
    ) {
        let mut replicas = [1, 2, 3].map(TestReplica::new);
        for (replica, wall) in replicas.iter_mut().zip(walls) {
            replica.set_wall(WallMs(wall));
            replica.restart();
        }
        let (mut seen, nothing) = (Seen::default(), Seen::default());
        for (number, (node, reads)) in writes.into_iter().enumerate() {
            let next = write(number as u64, if reads { &seen } else { &nothing });
            let before = next.seen.hlc;
            let made = replicas[node].write(&next);
            prop_assert!(made.is_some_and(|(_, hlc)| hlc > before));
            seen.merge(&seen_after(&next, made));
        }
    }
}

#[test]
fn a_smaller_timestamp_does_not_mean_before() {
    let [mut sx, mut sy] = [1, 2].map(TestReplica::new);
    sy.set_wall(WallMs(2_000_000));
    sy.restart();
    let first = sx.write(&write(1, &Seen::default()));
    let second = sy.write(&write(2, &Seen::default()));
    assert!(first.map(|(_, hlc)| hlc) < second.map(|(_, hlc)| hlc));
    assert_eq!(sx.state().clock().partial_cmp(sy.state().clock()), None, "neither has seen the other");
}
