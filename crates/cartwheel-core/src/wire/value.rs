//! Encodings of clocks, siblings, states, contexts and records.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::{WireError, fixed};
use crate::cluster::losses::Loss;
use crate::store::gc_due::GcDue;
use crate::store::record::{Idle, LocalHeader, OwnActor, Record};
use crate::value::clock::{Clock, Run};
use crate::value::context::Context;
use crate::value::digest::ContentDigest;
use crate::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use crate::value::hlc::{Hlc, WallMs};
use crate::value::state::{Content, Epoch, Notes, Seen, Sibling, State};
use crate::value::write_id::WriteId;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbActor {
    #[prost(fixed64, tag = "1")]
    node: u64,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    since: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbRun {
    #[prost(message, required, tag = "1")]
    actor: PbActor,
    #[prost(uint64, tag = "2")]
    upto: u64,
    #[prost(uint64, repeated, tag = "3")]
    beyond: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbShown {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(fixed64, tag = "2")]
    hlc: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbSibling {
    #[prost(message, required, tag = "1")]
    actor: PbActor,
    #[prost(uint64, tag = "2")]
    counter: u64,
    #[prost(fixed64, tag = "3")]
    hlc: u64,
    #[prost(uint64, tag = "4")]
    epoch: u64,
    #[prost(bytes = "bytes", tag = "5")]
    write_id: Bytes,
    /// Milliseconds since the Unix epoch; 0: never.
    #[prost(uint64, tag = "6")]
    expires: u64,
    /// Absent: a tombstone.
    #[prost(message, optional, tag = "7")]
    value: Option<PbValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbValue {
    #[prost(bytes = "bytes", tag = "1")]
    bytes: Bytes,
    #[prost(string, tag = "2")]
    content_type: String,
    #[prost(string, tag = "3")]
    content_encoding: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PbState {
    #[prost(message, repeated, tag = "1")]
    clock: Vec<PbRun>,
    #[prost(message, repeated, tag = "2")]
    siblings: Vec<PbSibling>,
    /// [`Notes::as_bytes`].
    #[prost(bytes = "bytes", tag = "4")]
    notes: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbContext {
    #[prost(message, repeated, tag = "1")]
    clock: Vec<PbRun>,
    #[prost(fixed64, tag = "2")]
    hlc: u64,
    #[prost(message, repeated, tag = "3")]
    ids: Vec<PbShown>,
    #[prost(uint64, tag = "4")]
    epoch: u64,
    #[prost(message, repeated, tag = "5")]
    needs: Vec<PbRun>,
    /// The time of the bucket's generation.
    #[prost(fixed64, tag = "6")]
    since: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbRecord {
    /// Absent: the next write begins a new actor.
    #[prost(message, optional, tag = "1")]
    own: Option<PbOwnActor>,
    /// 0: none.
    #[prost(uint64, tag = "2")]
    recovering: u64,
    #[prost(uint64, tag = "3")]
    changed: u64,
    #[prost(message, required, tag = "4")]
    state: PbState,
    #[prost(uint64, tag = "5")]
    recovered_since: u64,
    #[prost(fixed64, repeated, tag = "6")]
    owed: Vec<u64>,
    /// Absent: no digest was stored.
    #[prost(bytes = "bytes", optional, tag = "7")]
    content: Option<Bytes>,
    /// The epoch of each entry of `owed`.
    #[prost(uint64, repeated, tag = "8")]
    owed_since: Vec<u64>,
    /// 0: none. At most one of the two is set.
    #[prost(uint64, tag = "9")]
    gc_due_in: u64,
    #[prost(uint64, tag = "10")]
    gc_due_at: u64,
    /// 0: none.
    #[prost(uint64, tag = "11")]
    expired_since: u64,
    #[prost(message, optional, tag = "12")]
    idle: Option<PbIdle>,
    #[prost(bool, tag = "13")]
    is_listed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbIdle {
    #[prost(uint64, tag = "1")]
    since: u64,
    #[prost(message, repeated, tag = "2")]
    noted: Vec<PbRun>,
    #[prost(message, repeated, tag = "3")]
    gone: Vec<PbRun>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbOwnActor {
    #[prost(uint64, tag = "1")]
    since: u64,
    #[prost(uint64, tag = "2")]
    count: u64,
}

fn actor_to_pb(actor: Actor) -> PbActor {
    PbActor { node: actor.node.get(), incarnation: actor.incarnation.0, since: actor.since.0 }
}

fn actor_from_pb(actor: &PbActor) -> Actor {
    Actor { node: NodeId::new(actor.node), incarnation: Incarnation(actor.incarnation), since: Since(actor.since) }
}

fn clock_to_pb(clock: &Clock) -> Vec<PbRun> {
    clock.runs().map(|run| PbRun { actor: actor_to_pb(run.actor), upto: run.upto, beyond: run.beyond }).collect()
}

fn clock_from_pb(runs: Vec<PbRun>) -> Clock {
    let mut clock = Clock::new();
    for run in runs {
        clock.insert_run(&Run { actor: actor_from_pb(&run.actor), upto: run.upto, beyond: run.beyond });
    }
    clock
}

/// The ids as slices of one buffer. With a buffer for each, and another for the encoder's copy, allocation would cost more than the rest of the
/// work on a context.
fn ids_to_pb<'a>(ids: impl ExactSizeIterator<Item = &'a WriteId>) -> Vec<Bytes> {
    const ID_BYTES: usize = size_of::<WriteId>();
    let count = ids.len();
    let mut buffer = BytesMut::with_capacity(count * ID_BYTES);
    ids.for_each(|id| buffer.extend_from_slice(&id.to_bytes()));
    let mut rest = buffer.freeze();
    (0..count).map(|_| rest.split_to(ID_BYTES)).collect()
}

fn shown_to_pb(ids: &BTreeMap<WriteId, Hlc>) -> Vec<PbShown> {
    let shown = |(id, hlc): (Bytes, &Hlc)| PbShown { id, hlc: hlc.to_bits() };
    ids_to_pb(ids.keys()).into_iter().zip(ids.values()).map(shown).collect()
}

fn shown_from_pb(ids: &[PbShown]) -> Result<BTreeMap<WriteId, Hlc>, WireError> {
    ids.iter().map(|shown| Ok((write_id(&shown.id)?, Hlc::from_bits(shown.hlc)))).collect()
}

fn write_id(bytes: &[u8]) -> Result<WriteId, WireError> {
    fixed(bytes, "write id").map(WriteId::from_bytes)
}

fn content_digest(bytes: Option<Bytes>) -> Result<Option<ContentDigest>, WireError> {
    bytes.map(|bytes| fixed(&bytes, "content digest").map(ContentDigest)).transpose()
}

/// The loss with this number; a real loss is never 0.
pub(super) fn loss_from_pb(number: u64) -> Option<Loss> {
    (number > 0).then_some(Loss(number))
}

pub(super) fn sibling_to_pb(sibling: &Sibling) -> PbSibling {
    PbSibling {
        actor: actor_to_pb(sibling.dot.actor),
        counter: sibling.dot.counter,
        hlc: sibling.hlc.to_bits(),
        epoch: sibling.epoch.0,
        write_id: Bytes::copy_from_slice(&sibling.write_id.to_bytes()),
        expires: sibling.expires.map_or(0, |wall| wall.0.max(1)),
        value: content_to_pb(&sibling.content),
    }
}

pub(super) fn sibling_from_pb(sibling: PbSibling) -> Result<Sibling, WireError> {
    if sibling.counter == 0 {
        return Err(WireError::Field("counter"));
    }
    Ok(Sibling {
        dot: Dot { actor: actor_from_pb(&sibling.actor), counter: sibling.counter },
        content: content_from_pb(sibling.value),
        hlc: Hlc::from_bits(sibling.hlc),
        epoch: Epoch(sibling.epoch),
        write_id: write_id(&sibling.write_id)?,
        expires: (sibling.expires > 0).then_some(WallMs(sibling.expires)),
    })
}

pub(super) fn content_to_pb(content: &Content) -> Option<PbValue> {
    match content {
        Content::Value { bytes, content_type, content_encoding } => Some(PbValue {
            bytes: bytes.clone(),
            content_type: content_type.clone(),
            content_encoding: content_encoding.clone(),
        }),
        Content::Tombstone => None,
    }
}

pub(super) fn content_from_pb(value: Option<PbValue>) -> Content {
    value.map_or(Content::Tombstone, |PbValue { bytes, content_type, content_encoding }| Content::Value {
        bytes,
        content_type,
        content_encoding,
    })
}

pub(super) fn state_to_pb(state: &State) -> PbState {
    PbState {
        clock: clock_to_pb(state.clock()),
        siblings: state.siblings().map(sibling_to_pb).collect(),
        notes: state.notes().as_bytes().clone(),
    }
}

pub(super) fn state_from_pb(state: PbState) -> Result<State, WireError> {
    let siblings = state.siblings.into_iter().map(sibling_from_pb).collect::<Result<Vec<_>, _>>()?;
    let notes = Notes::from_bytes(state.notes).ok_or(WireError::Field("notes"))?;
    Ok(State::from_parts(clock_from_pb(state.clock), siblings, notes))
}

/// Encodes a context of a bucket's generation that began at `since`.
pub(crate) fn encode_context(context: &Context, since: Hlc) -> Vec<u8> {
    PbContext {
        clock: clock_to_pb(&context.seen.clock),
        hlc: context.seen.hlc.to_bits(),
        ids: shown_to_pb(&context.seen.ids),
        epoch: context.epoch.0,
        needs: clock_to_pb(&context.needs),
        since: since.to_bits(),
    }
    .encode_to_vec()
}

/// Decodes a context, and the time at which its bucket's generation began.
pub(crate) fn decode_context(bytes: &[u8]) -> Result<(Context, Hlc), WireError> {
    let context = PbContext::decode(bytes)?;
    let since = Hlc::from_bits(context.since);
    let context = Context {
        seen: Seen {
            clock: clock_from_pb(context.clock),
            hlc: Hlc::from_bits(context.hlc),
            ids: shown_from_pb(&context.ids)?,
        },
        epoch: Epoch(context.epoch),
        needs: clock_from_pb(context.needs),
    };
    Ok((context, since))
}

/// Encodes a record behind a head of `head_bytes` zeros, in one buffer.
pub(crate) fn encode_record(record: &Record, head_bytes: usize) -> Vec<u8> {
    let pb = PbRecord {
        own: record.header.own.map(|own| PbOwnActor { since: own.since.0, count: own.count }),
        recovering: record.header.recovering.map_or(0, |loss| loss.0),
        changed: record.header.changed.0,
        state: state_to_pb(&record.state),
        recovered_since: record.header.recovered_since.0,
        owed: record.header.owed.keys().map(|node| node.get()).collect(),
        owed_since: record.header.owed.values().map(|since| since.0).collect(),
        gc_due_in: record.header.gc_due.map_or(0, |due| if let GcDue::In(epoch) = due { epoch.0 } else { 0 }),
        gc_due_at: record.header.gc_due.map_or(0, |due| if let GcDue::At(wall) = due { wall.0 } else { 0 }),
        expired_since: record.header.expired_since.map_or(0, |since| since.0),
        idle: record.header.idle.as_ref().map(|idle| PbIdle {
            since: idle.since.0,
            noted: clock_to_pb(&idle.noted),
            gone: clock_to_pb(&idle.gone),
        }),
        content: record.header.content.map(|content| Bytes::copy_from_slice(&content.0)),
        is_listed: record.header.is_listed,
    };
    let mut bytes = Vec::with_capacity(head_bytes + pb.encoded_len());
    bytes.resize(head_bytes, 0);
    pb.encode_raw(&mut bytes);
    bytes
}

pub(crate) fn decode_record(bytes: Bytes) -> Result<Record, WireError> {
    let record = PbRecord::decode(bytes)?;
    let owed_since = record.owed_since.into_iter().map(Epoch).chain(std::iter::repeat(Epoch::UNKNOWN));
    Ok(Record {
        header: LocalHeader {
            own: record.own.map(|own| OwnActor { since: Since(own.since), count: own.count }),
            recovering: loss_from_pb(record.recovering),
            changed: Epoch(record.changed),
            recovered_since: Since(record.recovered_since),
            owed: record.owed.into_iter().map(NodeId::new).zip(owed_since).collect(),
            gc_due: match (record.gc_due_in, record.gc_due_at) {
                (0, 0) => None,
                (0, wall) => Some(GcDue::At(WallMs(wall))),
                (epoch, _) => Some(GcDue::In(Epoch(epoch))),
            },
            expired_since: (record.expired_since > 0).then_some(Epoch(record.expired_since)),
            idle: record.idle.map(|idle| Idle {
                since: Epoch(idle.since),
                noted: clock_from_pb(idle.noted),
                gone: clock_from_pb(idle.gone),
            }),
            is_listed: record.is_listed,
            content: content_digest(record.content)?,
        },
        state: state_from_pb(record.state)?,
    })
}
