//! The wire codec and contexts: every message decodes to itself, contexts open for their key only, and no bytes cause a
//! panic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::counts::Group;
use cartwheel_core::cluster::losses::Loss;
use cartwheel_core::cluster::membership::History;
use cartwheel_core::cluster::sizes::{NodeSizes, Size, TreeId};
use cartwheel_core::message::client::{Acks, Consistency, Got, Put, PutDone, Refusal, Retry, Shortfall};
use cartwheel_core::message::gossip::{Changes, EpochNotice, Inquiry, InquiryId, MembersDigest, Notice};
use cartwheel_core::message::trace::TraceContext;
use cartwheel_core::message::{
    Confirm, Envelope, Failure, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, StateDigest, Want,
};
use cartwheel_core::mutation::Broken;
use cartwheel_core::ring::{PartitionId, RingVersion};
use cartwheel_core::value::clock::Clock;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::context::{Context, ContextError};
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Epoch, Note, Notes, Seen, Sibling, State};
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::value::write_id::WriteId;
use cartwheel_core::wire::context::{ClusterKey, Sealer};
use cartwheel_core::wire::{self, Protocol, WireError};
use proptest::prelude::*;

fn key(name: &'static str) -> Key {
    Key::new(Bytes::from_static(b"carts"), Bytes::from_static(name.as_bytes())).expect("a valid key")
}

fn sibling() -> Sibling {
    let actor = Actor { node: NodeId::new(1), incarnation: Incarnation(2), since: Since(3) };
    Sibling {
        dot: Dot { actor, counter: 4 },
        content: Content::typed("milk", "text/plain"),
        hlc: Hlc::at(WallMs(5)),
        epoch: Epoch(6),
        write_id: WriteId::from_bytes([7; 16]),
        expires: Some(WallMs(8)),
    }
}

fn state() -> State {
    State::from_parts(
        Clock::new(),
        [sibling()],
        Notes::from_iter([(WriteId::from_bytes([9; 16]), Note { hlc: Hlc::at(WallMs(1)), shown: true })]),
    )
}

fn put() -> Put {
    Put {
        key: key("alice"),
        content: Content::Tombstone,
        expires: None,
        context: Some(Bytes::from_static(b"context")),
        retry: Retry::Named(WriteId::from_bytes([3; 16])),
        stamp: Some(Hlc::at(WallMs(7))),
        rewrites: None,
        consistency: Consistency::Strong,
        w: Some(2),
        return_body: true,
    }
}

fn messages() -> Vec<Message> {
    let request_id = RequestId { requester: Requester::Coordinator, operation: 1 << 41, round: u32::MAX };
    let digest = StateDigest::of(&state());
    let acks = Acks { home: 2, standin: 1, zones: 2 };
    let got = Got { siblings: vec![sibling()], context: Some(Bytes::from_static(b"c")), acks };
    let short = || Shortfall { answered: 1, needed: 2, why: "slow".to_owned() };
    let merge = |confirm, heals, stands_in_for| ReplicaRequest::Merge {
        key: key("alice"),
        state: state(),
        epoch: Epoch(3),
        heals,
        confirm,
        stands_in_for,
    };
    let mut all = vec![
        Message::Request(request_id, ReplicaRequest::Read { key: key("alice"), want: Want::State, role: Role::Home }),
        Message::Request(
            request_id,
            ReplicaRequest::Read { key: key("alice"), want: Want::Digest, role: Role::StandIn },
        ),
        Message::Request(request_id, merge(Confirm::Stored, Some(Loss(5)), None)),
        Message::Request(request_id, merge(Confirm::Exactly, None, Some(NodeId::new(7)))),
        Message::Forward(request_id, Box::new(put()), Duration::from_millis(1_500), Epoch(3)),
    ];
    let answers = [
        ReplicaResponse::State { state: state(), epoch: Epoch(1), loss: None },
        ReplicaResponse::State { state: State::default(), epoch: Epoch(0), loss: Some(Loss(5)) },
        ReplicaResponse::Digest { digest, loss: None },
        ReplicaResponse::Stored,
        ReplicaResponse::Holds { digest, state: Some(state()), loss: None },
        ReplicaResponse::Holds { digest, state: None, loss: Some(Loss(5)) },
        ReplicaResponse::Failed(Failure::Storage),
        ReplicaResponse::Failed(Failure::Overloaded),
        ReplicaResponse::Failed(Failure::DiskFull),
        ReplicaResponse::Failed(Failure::NotAHome),
    ];
    all.extend(answers.map(|answer| Message::Response(request_id, answer)));
    let results = [
        Ok(PutDone { context: None, acks, body: Some(got) }),
        Err(Refusal::BadRequest("r=9".to_owned())),
        Err(Refusal::BadContext("forged".to_owned())),
        Err(Refusal::TooManySiblings(128)),
        Err(Refusal::TooLarge(9, 8)),
        Err(Refusal::SiblingsTooLarge(9, 8)),
        Err(Refusal::Overloaded),
        Err(Refusal::Unavailable(short())),
        Err(Refusal::Unverified(short())),
        Err(Refusal::DiskFull),
    ];
    all.extend(results.map(|result| Message::Forwarded(request_id, result)));
    let of = |requester| RequestId { requester, ..request_id };
    all.extend([Message::ClocksRequest(of(Requester::Exchange)), Message::Clocks(of(Requester::Transfer))]);
    let id = InquiryId(1 << 40);
    let partitions = vec![PartitionId(0), PartitionId(65_535)];
    let tree = TreeId { partition: PartitionId(7), group: Group(3) };
    let sizes = NodeSizes {
        trees: BTreeMap::from([(tree, Size { keys: 2, bytes: 1 << 40 })]),
        leaves: BTreeSet::from([PartitionId(0), PartitionId(9)]),
    };
    let version = |changes: u64| RingVersion { changes, digest: u64::MAX };
    let notices = [
        Notice::Have(version(3)),
        Notice::Want(vec![version(3), version(1)]),
        Notice::Changes(Changes { since: version(1), version: version(3), changes: History::new(), is_answer: true }),
        Notice::Epoch(EpochNotice {
            epoch: Epoch(8),
            finished: Epoch(7),
            members: MembersDigest(u128::MAX - 1),
            done: [true, false, true].into_iter().collect(),
            done_before: [true; 17].into_iter().collect(),
            drains: true,
        }),
        Notice::History(History::new()),
        Notice::Complement(History::new()),
        Notice::Inquiry(Inquiry { id, partitions }),
        Notice::Inquiry(Inquiry { id, partitions: Vec::new() }),
        Notice::Report(id, sizes),
        Notice::Report(id, NodeSizes::default()),
        Notice::Swim(Bytes::from_static(b"packet")),
    ];
    all.extend(notices.map(Message::Notice));
    all
}

fn envelope(message: Message) -> Envelope {
    Envelope {
        cluster: ClusterId(u128::MAX - 1),
        from: NodeId::new(u64::MAX),
        from_incarnation: Incarnation(1),
        from_boot: 2,
        sent: Now { instant: Instant(5), wall: WallMs(3) },
        config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
        losses: cartwheel_core::cluster::losses::Losses::NONE,
        trace: None,
        message,
    }
}

#[test]
fn every_message_decodes_to_itself() {
    for message in messages() {
        let sent = envelope(message);
        assert_eq!(wire::decode_envelope(wire::encode_envelope(&sent)), Ok(sent));
    }
}

#[test]
fn a_message_keeps_its_place_in_a_trace_and_none_is_refused_for_it() {
    let trace = TraceContext { trace: u128::MAX - 1, span: 7 };
    let sent = Envelope { trace: Some(Box::new(trace)), ..envelope(messages().remove(0)) };
    assert_eq!(wire::decode_envelope(wire::encode_envelope(&sent)), Ok(sent));
    let without = envelope(messages().remove(0));
    for odd in [&[][..], &[1, 2, 3], &[0; 24], &[1; 23], &[1; 25]] {
        let mut frame = wire::encode_envelope(&without).to_vec();
        // Field 65, in bytes.
        frame.extend([0x8a, 0x04, odd.len() as u8]);
        frame.extend(odd);
        assert_eq!(wire::decode_envelope(frame.into()).as_ref(), Ok(&without), "{odd:?}");
    }
}

#[test]
fn a_frame_of_another_protocol_version_is_refused_by_its_number() {
    let mut frame = wire::encode_envelope(&envelope(messages().remove(0))).to_vec();
    assert_eq!(frame[..2], [8, wire::PROTOCOL_VERSION as u8], "the version is the first field");
    frame[1] = 9;
    assert_eq!(wire::decode_envelope(frame.into()), Err(WireError::Version(9)));
}

#[test]
fn a_frame_has_the_version_that_was_agreed_on() {
    let sent = envelope(messages().remove(0));
    for agreed in [Protocol::OLDEST, Protocol::NEWEST] {
        let frame = wire::encode_envelope_as(&sent, agreed);
        assert_eq!(wire::decode_envelope_as(frame.clone(), agreed).as_ref(), Ok(&sent));
        assert_eq!(wire::decode_envelope(frame.clone()).as_ref(), Ok(&sent));
        let other = Protocol(agreed.0 + 1);
        let refused = Err(WireError::NotAgreed { said: agreed, agreed: other });
        assert_eq!(wire::decode_envelope_as(frame, other), refused);
    }
}

fn sealer(cluster: u128, secret: &[u8]) -> Sealer {
    Sealer::new(ClusterId(cluster), ClusterKey::derive(secret), Broken::default())
}

#[test]
fn a_context_opens_for_its_own_key_and_cluster_only() {
    let context = Context { seen: state().seen(), epoch: Epoch(4), needs: state().clock().clone() };
    let sealed = sealer(1, b"secret").seal(&context, &key("alice"));
    assert_eq!(sealer(1, b"secret").open(&sealed, &key("alice")), Ok(context));
    assert_eq!(sealer(1, b"secret").open(&sealed, &key("bob")), Err(ContextError::NotOurs));
    assert_eq!(sealer(2, b"secret").open(&sealed, &key("alice")), Err(ContextError::NotOurs));
    assert_eq!(sealer(1, b"other").open(&sealed, &key("alice")), Err(ContextError::NotOurs));
    let newer = [&[2], &sealed[1..]].concat();
    assert_eq!(sealer(1, b"secret").open(&newer, &key("alice")), Err(ContextError::Version(2)));
}

#[test]
fn a_context_of_many_actors_and_siblings_stays_under_4_kb_in_a_header() {
    let mut seen = Seen::default();
    for node in 0..40 {
        let actor = Actor {
            node: NodeId::new(u64::MAX - node),
            incarnation: Incarnation(u64::MAX),
            since: Since((1 << 40) | node),
        };
        seen.clock.insert(Dot { actor, counter: 1 });
    }
    for number in 0..128u8 {
        seen.ids.insert(WriteId::from_bytes([number; 16]), Hlc::at(WallMs(1_700_000_000_000)));
    }
    let sealed = sealer(1, b"secret").seal(&Context { seen, epoch: Epoch(9), needs: Clock::new() }, &key("alice"));
    assert!(sealed.len().div_ceil(3) * 4 < 4_096, "{} bytes", sealed.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = wire::decode_envelope(bytes.clone().into());
        prop_assert!(sealer(1, b"secret").open(&bytes, &key("alice")).is_err());
    }

    /// Almost valid frames reach further into the decoder than noise does.
    #[test]
    fn no_changed_byte_of_a_frame_makes_the_decoder_panic(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let messages = messages();
        let mut frame = wire::encode_envelope(&envelope(messages[which.index(messages.len())].clone())).to_vec();
        let at = at.index(frame.len());
        frame[at] = byte;
        let _ = wire::decode_envelope(frame.clone().into());
        frame.truncate(cut.index(frame.len()));
        let _ = wire::decode_envelope(frame.into());
    }
}
