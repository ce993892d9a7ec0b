//! Nodes that get nonsense from a non-member, which is ignored, and from a faulty member, which is not: no acknowledged
//! write is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use cartwheel_core::message::client::{Consistency, Outcome, Reply};
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;
use cartwheel_core::wire;
use proptest::collection::vec;
use proptest::prelude::*;

use super::arbitrary::{Spoil, cases, forged_key, message, spoils, spoilt};
use super::net::{CLUSTER, Net, envelope, get, get_of_all, id, put};

/// A key that no forged message names.
fn safe_key(number: usize) -> Key {
    Key::new("safe".into(), number.to_string().into()).expect("a valid key")
}

const SAFE_KEYS: usize = 4;
/// More nodes than a key has homes, so that some are stand-ins, or have no role for a key.
const NODES: usize = 5;
/// The faulty node.
const FAULTY: usize = 3;

/// A cluster in which each safe key holds its number.
fn begun() -> Net {
    let mut net = Net::of(NODES);
    for number in 0..SAFE_KEYS {
        let done = net.end_of(1 + number % 3, put(&safe_key(number), &number.to_string(), None));
        assert!(matches!(done, Ok(Reply::Put(_))), "{done:?}");
    }
    net.pass(Duration::from_secs(1));
    net
}

fn values(outcome: &Outcome) -> BTreeSet<String> {
    let Ok(Reply::Got(got)) = outcome else { panic!("not an answer to a get: {outcome:?}") };
    let value = |content: &Content| match content {
        Content::Value { bytes, .. } => Some(String::from_utf8_lossy(bytes).into_owned()),
        Content::Tombstone => None,
    };
    got.siblings.iter().filter_map(|sibling| value(&sibling.content)).collect()
}

/// Checks that each safe key has its value, on every node and for every kind of read.
fn nothing_is_lost(net: &mut Net) {
    for (number, node) in (0..SAFE_KEYS).flat_map(|number| (1..=NODES).map(move |node| (number, node))) {
        for consistency in [Consistency::Eventual, Consistency::Strong] {
            let read = net.end_of(node, get(&safe_key(number), consistency));
            assert_eq!(values(&read), [number.to_string()].into(), "key {number} at node {node}");
        }
    }
}

/// Checks that writes acknowledged after the nonsense stay, even on the forged keys: a forged clock that claims writes
/// before they are made must not suppress them, once the replicas agree on it.
fn later_writes_stay(net: &mut Net) {
    for number in 0..3 {
        let key = forged_key(number);
        for (at, writes) in [(1, "one"), (2, "two")] {
            let Ok(Reply::Got(read)) = net.end_of(at, get_of_all(&key)) else { panic!("no answer") };
            let later = format!("later {writes}");
            let done = net.end_of(at, put(&key, &later, read.context));
            assert!(matches!(done, Ok(Reply::Put(_))), "{done:?}");
            for node in 1..=NODES {
                let read = values(&net.end_of(node, get(&key, Consistency::Eventual)));
                assert!(read.contains(&later), "{later} at key {number} is not at node {node}: {read:?}");
            }
        }
    }
}

/// Checks that each request has exactly one answer.
fn all_are_answered(net: &mut Net) {
    net.pass(Duration::from_secs(70));
    assert_eq!(net.replies.len() as u64, net.asked);
    assert!(net.replies.values().all(|replies| replies.len() == 1));
}

/// An event of a run.
#[derive(Clone, Debug)]
enum Act {
    /// The faulty member sends a message to one of the others.
    Says(usize, Box<Message>),
    /// It sends an earlier message again, with some bytes changed.
    Distorts(prop::sample::Index, Vec<Spoil>),
    /// A client writes or reads one of the forged keys.
    Client(usize, usize, bool),
    /// Time passes, in milliseconds.
    Passes(u64),
}

fn correct() -> impl Strategy<Value = usize> {
    (1..=NODES).prop_filter("it is faulty", |&node| node != FAULTY)
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (correct(), message()).prop_map(|(to, message)| Act::Says(to, Box::new(message))),
        4 => (any::<prop::sample::Index>(), spoils()).prop_map(|(which, spoils)| Act::Distorts(which, spoils)),
        3 => (correct(), 0usize..3, any::<bool>()).prop_map(|(at, key, writes)| Act::Client(at, key, writes)),
        1 => (0u64..3_000).prop_map(Act::Passes),
    ]
}

fn does(net: &mut Net, said: &mut Vec<(usize, Envelope)>, act: Act) {
    match act {
        Act::Says(to, message) => {
            said.push((to, envelope(CLUSTER, id(FAULTY), *message)));
            let (to, envelope) = said.last().cloned().expect("it was just pushed");
            net.inject(to, envelope);
        }
        Act::Distorts(which, spoils) if !said.is_empty() => {
            let (to, before) = &said[which.index(said.len())];
            // The connection that it arrives on identifies the sender.
            if let Ok(distorted) = wire::decode_envelope(spoilt(&wire::encode_envelope(before), &spoils))
                && distorted.from == id(FAULTY)
            {
                net.inject(*to, distorted);
            }
        }
        Act::Distorts(..) => {}
        Act::Client(at, key, true) => drop(net.ask(at, put(&forged_key(key), "a client's", None))),
        Act::Client(at, key, false) => drop(net.ask(at, get(&forged_key(key), Consistency::Eventual))),
        Act::Passes(ms) => net.pass(Duration::from_millis(ms)),
    }
    // Not each time: a client's request must still be under way when the next nonsense arrives.
    if said.len().is_multiple_of(3) {
        net.run();
    }
}

proptest! {
    #![proptest_config(cases(1_500))]

    #[test]
    fn a_faulty_member_stops_no_other_node(acts in vec(act(), 1..40)) {
        let (mut net, mut said) = (begun(), Vec::new());
        acts.into_iter().for_each(|act| does(&mut net, &mut said, act));
        net.run();
        all_are_answered(&mut net);
        nothing_is_lost(&mut net);
        later_writes_stay(&mut net);
    }

    #[test]
    fn messages_of_non_members_are_ignored(messages in vec((1..=NODES, message(), any::<bool>()), 1..20)) {
        let mut net = begun();
        let (disks, asked) = (net.disks.clone(), net.asked);
        let count = messages.len();
        for (to, message, is_of_another_cluster) in messages {
            let stranger = match is_of_another_cluster {
                true => envelope(ClusterId(2), id(FAULTY), message),
                false => envelope(CLUSTER, id(NODES + 1), message),
            };
            net.inject(to, stranger);
        }
        net.run();
        net.pass(Duration::from_secs(1));
        prop_assert_eq!(net.strays, count, "each is reported");
        prop_assert_eq!(net.asked, asked);
        prop_assert!(net.disks == disks, "a stranger's message was stored");
        nothing_is_lost(&mut net);
    }
}
