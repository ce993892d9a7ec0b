//! Generators of values that favour edge cases, and ways to corrupt bytes.

use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::losses::Loss;
use cartwheel_core::message::client::{Acks, Consistency, Got, Put, PutDone, Refusal, Retry, Shortfall};
use cartwheel_core::message::{
    Confirm, Failure, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, StateDigest, Want,
};
use cartwheel_core::value::clock::{Clock, Run};
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Epoch, Note, Sibling, State};
use cartwheel_core::value::write_id::WriteId;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::exchange::{fetch, fetched, finding, question};
use super::listing::{generation, list_answer, list_question};
use super::net::{BOOT, id};
use super::notices::notice;
use super::reconfiguration::{harmless_message, home, notice_of_holders, partition, reconfiguration_message};

/// A run of so many cases, unless PROPTEST_CASES says otherwise.
pub fn cases(count: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { ProptestConfig { cases: count, ..default } }
}

/// Numbers that a faulty program might send.
pub fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..6,
        2 => any::<u64>(),
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(1 << 63),
        1 => Just(1 << 48),
    ]
}

pub fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![5 => (1usize..=5).prop_map(id), 1 => any::<u64>().prop_map(NodeId::new)]
}

/// Actors of real nodes, including future ones.
fn actor() -> impl Strategy<Value = Actor> {
    let since =
        prop_oneof![4 => (0u64..6).prop_map(|begun| Since(Since::boot(BOOT).0 | begun)), 1 => number().prop_map(Since)];
    let incarnation = prop_oneof![4 => (1u64..=3).prop_map(Incarnation), 1 => number().prop_map(Incarnation)];
    (node(), incarnation, since).prop_map(|(node, incarnation, since)| Actor { node, incarnation, since })
}

pub fn clock() -> BoxedStrategy<Clock> {
    let run = (actor(), number(), vec(number(), 0..4)).prop_map(|(actor, upto, beyond)| Run { actor, upto, beyond });
    vec(run, 0..5)
        .prop_map(|runs| {
            let mut clock = Clock::new();
            runs.iter().for_each(|run| clock.insert_run(run));
            clock
        })
        .boxed()
}

fn hlc() -> impl Strategy<Value = Hlc> {
    prop_oneof![number().prop_map(Hlc::from_bits), (0u64..2_000_000).prop_map(|wall| Hlc::at(WallMs(wall)))]
}

fn write_id() -> impl Strategy<Value = WriteId> {
    prop_oneof![(0u8..4).prop_map(|id| WriteId::from_bytes([id; 16])), any::<[u8; 16]>().prop_map(WriteId::from_bytes)]
}

fn content() -> impl Strategy<Value = Content> {
    option::of((vec(any::<u8>(), 0..20), ".{0,8}", ".{0,4}")).prop_map(|value| match value {
        Some((bytes, content_type, content_encoding)) => {
            Content::Value { bytes: bytes.into(), content_type, content_encoding }
        }
        None => Content::Tombstone,
    })
}

/// Never the first millisecond, which is encoded like "never".
fn expires() -> impl Strategy<Value = Option<WallMs>> {
    option::of(number().prop_map(|wall| WallMs(wall.max(1))))
}

fn sibling() -> BoxedStrategy<Sibling> {
    (actor(), number(), content(), hlc(), number(), write_id(), expires())
        .prop_map(|(actor, counter, content, hlc, epoch, write_id, expires)| Sibling {
            dot: Dot { actor, counter: counter.max(1) },
            content,
            hlc,
            epoch: Epoch(epoch),
            write_id,
            expires,
        })
        .boxed()
}

pub fn state() -> BoxedStrategy<State> {
    let note = (write_id(), hlc(), any::<bool>()).prop_map(|(id, hlc, shown)| (id, Note { hlc, shown }));
    (clock(), vec(sibling(), 0..4), vec(note, 0..4))
        .prop_map(|(clock, siblings, notes)| State::from_parts(clock, siblings, notes.into_iter().collect()))
        .boxed()
}

/// One of a few keys of the bucket that forged messages name.
fn key() -> impl Strategy<Value = Key> {
    let first = || (0usize..3).prop_map(forged_key);
    prop_oneof![3 => first(), 1 => (first(), generation()).prop_map(|(key, generation)| key.in_generation(generation))]
}

/// The `number`-th key that forged messages may name.
pub fn forged_key(number: usize) -> Key {
    Key::new(Bytes::from_static(b"forged"), number.to_string().into()).expect("a valid key")
}

fn loss() -> impl Strategy<Value = Option<Loss>> {
    option::of(number().prop_map(|number| Loss(number.max(1))))
}

fn digest() -> impl Strategy<Value = StateDigest> {
    prop_oneof![any::<[u8; 16]>().prop_map(StateDigest), state().prop_map(|state| StateDigest::of(&state))]
}

fn ask() -> BoxedStrategy<ReplicaRequest> {
    let want = prop_oneof![Just(Want::State), Just(Want::Digest)];
    let confirm = prop_oneof![Just(Confirm::Stored), Just(Confirm::Exactly)];
    let role = prop_oneof![Just(Role::Home), Just(Role::StandIn)];
    let merge = (key(), state(), number(), loss(), confirm, option::of(node())).prop_map(
        |(key, state, epoch, heals, confirm, stands_in_for)| ReplicaRequest::Merge {
            key,
            state,
            epoch: Epoch(epoch),
            heals,
            confirm,
            stands_in_for,
        },
    );
    prop_oneof![
        1 => (key(), want, role).prop_map(|(key, want, role)| ReplicaRequest::Read { key, want, role }).boxed(),
        1 => (key(), home(), number()).prop_map(|(key, home, since)| ReplicaRequest::Recover { key, home, since: Since(since) }).boxed(),
        4 => merge.boxed(),
    ]
    .boxed()
}

fn answer() -> BoxedStrategy<ReplicaResponse> {
    let failure = prop_oneof![
        Just(Failure::Storage),
        Just(Failure::Overloaded),
        Just(Failure::NotAHome),
        Just(Failure::Superseded)
    ];
    let held = (state(), number(), loss());
    let held = held.prop_map(|(state, epoch, loss)| ReplicaResponse::State { state, epoch: Epoch(epoch), loss });
    let holds = (digest(), option::of(state()), loss());
    let holds = holds.prop_map(|(digest, state, loss)| ReplicaResponse::Holds { digest, state, loss });
    prop_oneof![
        held.boxed(),
        (digest(), loss()).prop_map(|(digest, loss)| ReplicaResponse::Digest { digest, loss }).boxed(),
        Just(ReplicaResponse::Stored).boxed(),
        holds.boxed(),
        failure.prop_map(ReplicaResponse::Failed).boxed(),
    ]
    .boxed()
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn put() -> BoxedStrategy<Put> {
    let strong = prop_oneof![Just(Consistency::Eventual), Just(Consistency::Strong)];
    let how = (option::of(1u8..=255), option::of(hlc().prop_map(|hlc| hlc.max(Hlc::from_bits(1)))), any::<bool>());
    (key(), content(), expires(), option::of(bytes()), write_id(), strong, how)
        .prop_map(|(key, content, expires, context, id, consistency, (w, stamp, return_body))| Put {
            key,
            content,
            expires,
            context,
            retry: Retry::Named(id),
            stamp,
            rewrites: None,
            consistency,
            w,
            return_body,
        })
        .boxed()
}

fn outcome() -> BoxedStrategy<Result<PutDone, Refusal>> {
    let acks =
        || (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(home, standin, zones)| Acks { home, standin, zones });
    let got = (vec(sibling(), 0..3), option::of(bytes()), acks()).prop_map(|(siblings, context, acks)| Got {
        siblings,
        context,
        acks,
    });
    let short = || {
        (any::<u32>(), any::<u32>(), ".{0,8}").prop_map(|(answered, needed, why)| Shortfall { answered, needed, why })
    };
    let refusal = prop_oneof![
        ".{0,8}".prop_map(Refusal::BadRequest).boxed(),
        ".{0,8}".prop_map(Refusal::BadContext).boxed(),
        any::<u32>().prop_map(Refusal::TooManySiblings).boxed(),
        (number(), number()).prop_map(|(bytes, bytes_max)| Refusal::TooLarge(bytes, bytes_max)).boxed(),
        (number(), number()).prop_map(|(bytes, bytes_max)| Refusal::SiblingsTooLarge(bytes, bytes_max)).boxed(),
        Just(Refusal::Overloaded).boxed(),
        short().prop_map(Refusal::Unavailable).boxed(),
        short().prop_map(Refusal::Unverified).boxed(),
    ];
    let done = (option::of(bytes()), acks(), option::of(got));
    let done = done.prop_map(|(context, acks, body)| PutDone { context, acks, body });
    prop_oneof![done.prop_map(Ok).boxed(), refusal.prop_map(Err).boxed()].boxed()
}

/// Request ids, including those of operations under way.
fn request_id() -> impl Strategy<Value = RequestId> {
    let begun = |(incarnation, begun)| (Incarnation(incarnation).mark_of_boot(BOOT) << 40) + begun;
    let operation = prop_oneof![4 => (0u64..4, 0u64..40).prop_map(begun), 1 => number()];
    let round = prop_oneof![6 => 0u32..5, 1 => any::<u32>(), 1 => Just(u32::MAX)];
    let requester = prop_oneof![2 => Just(Requester::Coordinator), 1 => Just(Requester::Exchange), 1 => Just(Requester::Transfer), 1 => Just(Requester::Listing)];
    (requester, operation, round).prop_map(|(requester, operation, round)| RequestId { requester, operation, round })
}

/// Any message of one node to another that makes no claim about a partition's configuration.
pub fn message() -> BoxedStrategy<Message> {
    let budget =
        prop_oneof![number().prop_map(Duration::from_micros), (0u64..10_000_000).prop_map(Duration::from_micros)];
    let forward = (request_id(), put(), budget, number());
    let forward = forward
        .prop_map(|(request_id, put, budget, epoch)| Message::Forward(request_id, Box::new(put), budget, Epoch(epoch)));
    let says = (partition(), harmless_message());
    // Each is boxed: side by side they are too large for the stack of a test.
    prop_oneof![
        3 => (request_id(), ask()).prop_map(|(request_id, ask)| Message::Request(request_id, ask)).boxed(),
        3 => (request_id(), answer()).prop_map(|(request_id, answer)| Message::Response(request_id, answer)).boxed(),
        2 => forward.boxed(),
        1 => (request_id(), outcome()).prop_map(|(request_id, outcome)| Message::Forwarded(request_id, outcome)).boxed(),
        2 => (request_id(), question()).prop_map(|(request_id, question)| Message::Compare(request_id, question)).boxed(),
        2 => (request_id(), finding()).prop_map(|(request_id, finding)| Message::Compared(request_id, finding)).boxed(),
        1 => (request_id(), fetch()).prop_map(|(request_id, fetch)| Message::Fetch(request_id, fetch)).boxed(),
        1 => (request_id(), fetched()).prop_map(|(request_id, fetched)| Message::Fetched(request_id, fetched)).boxed(),
        1 => (request_id(), list_question()).prop_map(|(request_id, question)| Message::List(request_id, Box::new(question))).boxed(),
        1 => (request_id(), list_answer()).prop_map(|(request_id, answer)| Message::Listed(request_id, answer)).boxed(),
        1 => prop_oneof![request_id().prop_map(Message::ClocksRequest), request_id().prop_map(Message::Clocks)].boxed(),
        1 => says.prop_map(|(partition, message)| Message::Reconfiguration(partition, message)).boxed(),
        1 => notice().prop_map(Message::Notice).boxed(),
    ]
    .boxed()
}

/// Any message of one node to another.
pub fn any_message() -> BoxedStrategy<Message> {
    let says = (partition(), reconfiguration_message())
        .prop_map(|(partition, message)| Message::Reconfiguration(partition, message));
    prop_oneof![10 => message(), 4 => says.boxed(), 1 => notice_of_holders().prop_map(Message::Notice).boxed()].boxed()
}

/// A way to corrupt bytes.
#[derive(Clone, Debug)]
pub enum Spoil {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
    /// Doubles the bytes, which protobuf merges.
    Double,
}

pub fn spoils() -> impl Strategy<Value = Vec<Spoil>> {
    let long_number = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let inserted = prop_oneof![vec(any::<u8>(), 1..4), Just(long_number)];
    let spoil = prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Set(at, byte)),
        4 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        2 => (any::<Index>(), inserted).prop_map(|(at, bytes)| Spoil::Insert(at, bytes)),
        2 => (any::<Index>(), 1usize..5).prop_map(|(at, count)| Spoil::Remove(at, count)),
        1 => any::<Index>().prop_map(Spoil::Cut),
        1 => Just(Spoil::Double),
    ];
    vec(spoil, 1..4)
}

/// `bytes`, corrupted.
pub fn spoilt(bytes: &[u8], spoils: &[Spoil]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for spoil in spoils {
        let at = |index: &Index| if bytes.is_empty() { 0 } else { index.index(bytes.len()) };
        match spoil {
            Spoil::Set(index, byte) => {
                let at = at(index);
                bytes.iter_mut().skip(at).take(1).for_each(|there| *there = *byte);
            }
            Spoil::Flip(index, bit) => {
                let at = at(index);
                bytes.iter_mut().skip(at).take(1).for_each(|there| *there ^= 1 << bit);
            }
            Spoil::Insert(index, inserted) => {
                let at = at(index);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Spoil::Remove(index, count) => {
                let from = at(index);
                let to = (from + count).min(bytes.len());
                bytes.drain(from..to);
            }
            Spoil::Cut(index) => {
                let at = at(index);
                bytes.truncate(at);
            }
            Spoil::Double => bytes.extend_from_within(..),
        }
    }
    bytes.into()
}
