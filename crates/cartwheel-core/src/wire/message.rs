//! Encoding of frames between nodes.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use super::anti_entropy::{PbCompare, PbCompared, finding_from_pb, finding_to_pb, question_from_pb, question_to_pb};
use super::listing;
use super::listing::{PbList, PbListed};
use super::reconfiguration::{
    PbPhases, PbReconfiguration, phases_notice_from_pb, phases_notice_to_pb, reconfiguration_from_pb,
    reconfiguration_to_pb,
};
use super::transfer::{PbFetch, PbFetched, fetch_from_pb, fetch_to_pb, fetched_from_pb, fetched_to_pb};
use super::value::{
    PbSibling, PbState, PbValue, content_from_pb, content_to_pb, loss_from_pb, sibling_from_pb, sibling_to_pb,
    state_from_pb, state_to_pb,
};
use super::version::{framed, unframed};
use super::{Protocol, Spoken, WireError, fixed};
use crate::cluster::configuration::{ConfigStamp, ConfigVersion, Home};
use crate::cluster::counts::Group;
use crate::cluster::losses::{Loss, Memory};
use crate::cluster::membership::History;
use crate::cluster::sizes::{NodeSizes, Size, TreeId};
use crate::message::client::{Acks, Consistency, Got, Put, PutDone, Refusal, Retry, Shortfall};
use crate::message::gossip::{
    Changes, EpochNotice, INQUIRY_PARTITIONS_MAX, Inquiry, InquiryId, Marks, MembersDigest, Notice, WANT_MAX,
};
use crate::message::trace::TraceContext;
use crate::message::{
    Confirm, Envelope, Failure, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, StateDigest, Want,
};
use crate::ring::{PartitionId, RingVersion};
use crate::value::cluster_id::ClusterId;
use crate::value::dot::{Incarnation, NodeId, Since};
use crate::value::hlc::{Hlc, WallMs};
use crate::value::key::{Generation, Key, Placement};
use crate::value::state::Epoch;
use crate::value::time::{Instant, Now};
use crate::value::write_id::WriteId;

/// The request id of messages that are neither requests nor responses.
const NO_REQUEST: RequestId = RequestId { requester: Requester::Coordinator, operation: 0, round: 0 };

#[derive(Clone, PartialEq, prost::Message)]
struct PbEnvelope {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    cluster: Bytes,
    #[prost(fixed64, tag = "3")]
    from: u64,
    #[prost(fixed64, tag = "4")]
    from_incarnation: u64,
    #[prost(uint32, tag = "5")]
    from_boot: u32,
    #[prost(uint64, tag = "6")]
    wall: u64,
    #[prost(uint64, tag = "7")]
    operation: u64,
    #[prost(uint32, tag = "8")]
    round: u32,
    #[prost(
        oneof = "PbMessage",
        tags = "9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 22, 23, 24, 25, 26, 27, 28, 35, 36, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49"
    )]
    message: Option<PbMessage>,
    #[prost(uint64, tag = "50")]
    config_version: u64,
    #[prost(bool, tag = "51")]
    is_syncing: bool,
    #[prost(uint64, tag = "60")]
    memory: u64,
    #[prost(bool, tag = "61")]
    is_recovering: bool,
    #[prost(message, repeated, tag = "62")]
    losses: Vec<PbKnownLoss>,
    #[prost(uint64, tag = "63")]
    monotonic_us: u64,
    /// 0: the coordinator, 1: the exchange, 2: a transfer, 3: a list.
    #[prost(uint32, tag = "64")]
    requester: u32,
    /// The trace and the span, 16 and 8 bytes. Empty: none.
    #[prost(bytes = "bytes", tag = "65")]
    trace: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbKnownLoss {
    #[prost(fixed64, tag = "1")]
    node: u64,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    since: u64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PbMessage {
    #[prost(message, tag = "9")]
    Read(PbRead),
    #[prost(message, tag = "10")]
    Merge(PbMerge),
    #[prost(message, tag = "11")]
    State(PbHeldState),
    #[prost(message, tag = "12")]
    Digest(PbHeldDigest),
    #[prost(message, tag = "13")]
    Stored(PbNothing),
    #[prost(message, tag = "14")]
    Holds(PbHolds),
    #[prost(uint32, tag = "15")]
    Failed(u32),
    #[prost(message, tag = "16")]
    Forward(PbForward),
    #[prost(message, tag = "17")]
    Forwarded(PbOutcome),
    #[prost(message, tag = "18")]
    Have(PbVersion),
    #[prost(bytes = "bytes", tag = "19")]
    History(Bytes),
    #[prost(bytes = "bytes", tag = "22")]
    Complement(Bytes),
    #[prost(bytes = "bytes", tag = "23")]
    Swim(Bytes),
    #[prost(message, tag = "24")]
    Epoch(PbEpoch),
    #[prost(message, tag = "25")]
    Want(PbVersions),
    #[prost(message, tag = "26")]
    Changes(PbChanges),
    #[prost(message, tag = "27")]
    Phases(PbPhases),
    #[prost(message, tag = "28")]
    Drained(PbDrained),
    #[prost(message, tag = "35")]
    SizesInquiry(PbSizesInquiry),
    #[prost(message, tag = "36")]
    Sizes(PbSizes),
    #[prost(message, tag = "40")]
    Compare(PbCompare),
    #[prost(message, tag = "41")]
    Compared(PbCompared),
    #[prost(message, tag = "42")]
    Reconfiguration(PbReconfiguration),
    #[prost(message, tag = "43")]
    Fetch(PbFetch),
    #[prost(message, tag = "44")]
    Fetched(PbFetched),
    #[prost(message, tag = "45")]
    Recover(PbRecover),
    #[prost(message, tag = "46")]
    ClocksRequest(PbNothing),
    #[prost(message, tag = "47")]
    Clocks(PbNothing),
    #[prost(message, tag = "48")]
    List(PbList),
    #[prost(message, tag = "49")]
    Listed(PbListed),
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbDrained {
    #[prost(fixed64, tag = "1")]
    incarnation: u64,
    #[prost(message, optional, tag = "2")]
    version: Option<PbVersion>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbVersion {
    #[prost(uint64, tag = "1")]
    changes: u64,
    #[prost(fixed64, tag = "2")]
    digest: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbEpoch {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    finished: u64,
    #[prost(bytes = "bytes", tag = "3")]
    members: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    done: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    done_before: Bytes,
    // Older nodes ignore it, and choose a node that drains as any other.
    #[prost(bool, tag = "6")]
    drains: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbVersions {
    #[prost(message, repeated, tag = "1")]
    versions: Vec<PbVersion>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbChanges {
    #[prost(message, required, tag = "1")]
    since: PbVersion,
    #[prost(message, required, tag = "2")]
    version: PbVersion,
    #[prost(bytes = "bytes", tag = "3")]
    changes: Bytes,
    #[prost(bool, tag = "4")]
    is_answer: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbSizesInquiry {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, repeated, tag = "2")]
    partitions: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbSizes {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "2")]
    trees: Vec<PbSize>,
    #[prost(uint32, repeated, tag = "3")]
    leaves: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PbSize {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(fixed64, tag = "5")]
    group: u64,
    #[prost(uint64, tag = "3")]
    keys: u64,
    #[prost(uint64, tag = "4")]
    bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbKey {
    #[prost(bytes = "bytes", tag = "1")]
    bucket: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    name: Bytes,
    /// The time and the placement of the bucket's generation; both 0 in the first one, which is all that version 6 knows.
    #[prost(fixed64, tag = "3")]
    since: u64,
    #[prost(uint32, tag = "4")]
    placement: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbRead {
    #[prost(message, required, tag = "1")]
    key: PbKey,
    #[prost(bool, tag = "2")]
    digest: bool,
    #[prost(bool, tag = "3")]
    stand_in: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbRecover {
    #[prost(message, required, tag = "1")]
    key: PbKey,
    #[prost(message, required, tag = "2")]
    loss: PbKnownLoss,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbMerge {
    #[prost(message, required, tag = "1")]
    key: PbKey,
    #[prost(message, required, tag = "2")]
    state: PbState,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    /// The loss that it heals; 0: none.
    #[prost(uint64, tag = "4")]
    heals: u64,
    #[prost(bool, tag = "5")]
    exactly: bool,
    #[prost(fixed64, optional, tag = "6")]
    stands_in_for: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbHeldState {
    #[prost(message, required, tag = "1")]
    state: PbState,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    /// 0: none.
    #[prost(uint64, tag = "3")]
    loss: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbHeldDigest {
    #[prost(bytes = "bytes", tag = "1")]
    digest: Bytes,
    /// 0: none.
    #[prost(uint64, tag = "2")]
    loss: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbNothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct PbHolds {
    #[prost(bytes = "bytes", tag = "1")]
    digest: Bytes,
    #[prost(message, optional, tag = "2")]
    state: Option<PbState>,
    /// 0: none.
    #[prost(uint64, tag = "3")]
    loss: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbForward {
    #[prost(message, required, tag = "1")]
    key: PbKey,
    #[prost(uint64, tag = "2")]
    budget_us: u64,
    #[prost(bool, tag = "3")]
    strong: bool,
    /// 0: the bucket's w.
    #[prost(uint32, tag = "4")]
    w: u32,
    /// The sealed context of the put.
    #[prost(bytes = "bytes", optional, tag = "5")]
    context: Option<Bytes>,
    /// Absent: a tombstone.
    #[prost(message, optional, tag = "6")]
    value: Option<PbValue>,
    #[prost(uint64, tag = "7")]
    expires: u64,
    #[prost(bytes = "bytes", tag = "8")]
    write_id: Bytes,
    #[prost(bool, tag = "9")]
    return_body: bool,
    #[prost(fixed64, tag = "10")]
    stamp: u64,
    #[prost(uint64, tag = "11")]
    epoch: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbGot {
    #[prost(message, repeated, tag = "1")]
    siblings: Vec<PbSibling>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    context: Option<Bytes>,
    #[prost(message, required, tag = "3")]
    acks: PbAcks,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbPutDone {
    #[prost(bytes = "bytes", optional, tag = "1")]
    context: Option<Bytes>,
    #[prost(message, required, tag = "2")]
    acks: PbAcks,
    #[prost(message, optional, tag = "3")]
    body: Option<PbGot>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbAcks {
    #[prost(uint32, tag = "1")]
    home: u32,
    #[prost(uint32, tag = "2")]
    standin: u32,
    #[prost(uint32, tag = "3")]
    zones: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbOutcome {
    #[prost(oneof = "PbResult", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12")]
    result: Option<PbResult>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PbResult {
    #[prost(message, tag = "1")]
    Put(PbPutDone),
    #[prost(string, tag = "2")]
    BadRequest(String),
    #[prost(string, tag = "3")]
    BadContext(String),
    #[prost(uint32, tag = "4")]
    TooManySiblings(u32),
    #[prost(message, tag = "5")]
    TooLarge(PbTooLarge),
    #[prost(message, tag = "6")]
    Overloaded(PbNothing),
    #[prost(message, tag = "7")]
    Unavailable(PbShortfall),
    #[prost(message, tag = "8")]
    Unverified(PbShortfall),
    #[prost(message, tag = "9")]
    DiskFull(PbNothing),
    #[prost(message, tag = "10")]
    SiblingsTooLarge(PbTooLarge),
    #[prost(uint64, tag = "12")]
    StampTooLow(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbTooLarge {
    #[prost(uint64, tag = "1")]
    bytes: u64,
    #[prost(uint64, tag = "2")]
    bytes_max: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbShortfall {
    #[prost(uint32, tag = "1")]
    answered: u32,
    #[prost(uint32, tag = "2")]
    needed: u32,
    #[prost(string, tag = "3")]
    why: String,
}

/// A frame without a length prefix, before its bytes are put together. Large values are not copied until then.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame {
    envelope: PbEnvelope,
    protocol: Protocol,
}

impl Frame {
    /// The frame of `envelope` for a node with which this protocol version was negotiated.
    pub fn of(envelope: &Envelope, protocol: Protocol) -> Self {
        let (request_id, message) = message_to_pb(&envelope.message);
        let envelope = PbEnvelope {
            version: protocol.0,
            cluster: Bytes::copy_from_slice(&envelope.cluster.0.to_be_bytes()),
            from: envelope.from.get(),
            from_incarnation: envelope.from_incarnation.0,
            from_boot: envelope.from_boot,
            wall: envelope.sent.wall.0,
            operation: request_id.operation,
            round: request_id.round,
            requester: match request_id.requester {
                Requester::Coordinator => 0,
                Requester::Exchange => 1,
                Requester::Transfer => 2,
                Requester::Listing => 3,
            },
            message: Some(message),
            config_version: envelope.config_stamp.version.0,
            is_syncing: envelope.config_stamp.is_syncing,
            memory: envelope.config_stamp.memory.since.0,
            is_recovering: envelope.config_stamp.is_recovering,
            losses: envelope.losses.iter().map(known_loss_to_pb).collect(),
            monotonic_us: envelope.sent.instant.0,
            trace: envelope.trace.as_deref().map_or_else(Bytes::new, trace_to_pb),
        };
        Self { envelope, protocol }
    }

    /// Its size in bytes, possibly a few bytes too low.
    pub fn bytes(&self) -> usize {
        self.envelope.encoded_len()
    }

    /// Encodes it.
    pub fn encode(&self) -> Bytes {
        framed(self.envelope.encode_to_vec().into(), self.protocol)
    }

    /// Encodes it at the end of `to`, after its length as four bytes, big-endian.
    pub fn encode_to(&self, to: &mut BytesMut) {
        let start = to.len();
        to.reserve(4 + self.bytes());
        to.put_u32(0);
        if self.protocol.is_pretended() {
            to.put_slice(&self.encode());
        } else {
            self.envelope.encode(to).expect("the buffer grows as needed");
        }
        let length = u32::try_from(to.len() - start - 4).unwrap_or(u32::MAX);
        to[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Encodes the frame of `envelope`, without a length prefix, in the latest protocol version.
pub fn encode_envelope(envelope: &Envelope) -> Bytes {
    encode_envelope_as(envelope, Protocol::NEWEST)
}

/// Encodes the frame for a node with which this protocol version was negotiated.
pub fn encode_envelope_as(envelope: &Envelope, protocol: Protocol) -> Bytes {
    Frame::of(envelope, protocol).encode()
}

/// Decodes a frame of any protocol version that this build supports.
///
/// # Errors
/// If the frame is malformed or of another version.
pub fn decode_envelope(frame: Bytes) -> Result<Envelope, WireError> {
    let envelope = PbEnvelope::decode(unframed(frame)?)?;
    if !Spoken::BY_THIS_BUILD.has(Protocol(envelope.version)) {
        return Err(WireError::Version(envelope.version));
    }
    envelope_from_pb(envelope)
}

/// Decodes a frame from a node with which this protocol version was negotiated.
///
/// # Errors
/// If the frame is malformed or of another version.
pub fn decode_envelope_as(frame: Bytes, protocol: Protocol) -> Result<Envelope, WireError> {
    let envelope = PbEnvelope::decode(unframed(frame)?)?;
    if envelope.version != protocol.0 {
        return Err(WireError::NotAgreed { said: Protocol(envelope.version), agreed: protocol });
    }
    envelope_from_pb(envelope)
}

fn envelope_from_pb(envelope: PbEnvelope) -> Result<Envelope, WireError> {
    let requester = match envelope.requester {
        0 => Requester::Coordinator,
        1 => Requester::Exchange,
        2 => Requester::Transfer,
        3 => Requester::Listing,
        _ => return Err(WireError::Field("requester")),
    };
    let request_id = RequestId { requester, operation: envelope.operation, round: envelope.round };
    Ok(Envelope {
        cluster: ClusterId(u128::from_be_bytes(fixed(&envelope.cluster, "cluster")?)),
        from: NodeId::new(envelope.from),
        from_incarnation: Incarnation(envelope.from_incarnation),
        from_boot: envelope.from_boot,
        sent: Now { instant: Instant(envelope.monotonic_us), wall: WallMs(envelope.wall) },
        config_stamp: ConfigStamp {
            version: ConfigVersion(envelope.config_version),
            is_syncing: envelope.is_syncing,
            // No boot can begin at zero. The message concerns no partition.
            memory: match envelope.memory {
                0 => Memory::default(),
                since => Memory { incarnation: Incarnation(envelope.from_incarnation), since: Since(since) },
            },
            is_recovering: envelope.is_recovering,
        },
        losses: envelope.losses.iter().map(known_loss_from_pb).collect(),
        trace: trace_from_pb(&envelope.trace).map(Box::new),
        message: message_from_pb(request_id, envelope.message.ok_or(WireError::Field("message"))?)?,
    })
}

fn trace_to_pb(context: &TraceContext) -> Bytes {
    Bytes::from([&context.trace.to_be_bytes()[..], &context.span.to_be_bytes()].concat())
}

/// Anything else than a valid context is none: no message is refused for its trace.
fn trace_from_pb(bytes: &[u8]) -> Option<TraceContext> {
    let (trace, span) = bytes.split_at_checked(16)?;
    let (trace, span) = (u128::from_be_bytes(trace.try_into().ok()?), u64::from_be_bytes(span.try_into().ok()?));
    (trace != 0 && span != 0).then_some(TraceContext { trace, span })
}

fn known_loss_to_pb((home, since): (Home, Since)) -> PbKnownLoss {
    PbKnownLoss { node: home.node.get(), incarnation: home.incarnation.0, since: since.0 }
}

const fn known_loss_from_pb(loss: &PbKnownLoss) -> (Home, Since) {
    (Home { node: NodeId::new(loss.node), incarnation: Incarnation(loss.incarnation) }, Since(loss.since))
}

fn message_to_pb(message: &Message) -> (RequestId, PbMessage) {
    match message {
        Message::Request(request_id, request) => (*request_id, request_to_pb(request)),
        Message::Response(request_id, response) => (*request_id, response_to_pb(response)),
        Message::Forward(request_id, put, budget, epoch) => {
            (*request_id, PbMessage::Forward(forward_to_pb(put, *budget, *epoch)))
        }
        Message::Forwarded(request_id, outcome) => (*request_id, PbMessage::Forwarded(outcome_to_pb(outcome))),
        Message::Compare(request_id, question) => (*request_id, PbMessage::Compare(question_to_pb(question))),
        Message::Compared(request_id, finding) => (*request_id, PbMessage::Compared(finding_to_pb(finding))),
        Message::Fetch(request_id, fetch) => (*request_id, PbMessage::Fetch(fetch_to_pb(fetch))),
        Message::Fetched(request_id, fetched) => (*request_id, PbMessage::Fetched(fetched_to_pb(fetched))),
        Message::List(request_id, question) => (*request_id, PbMessage::List(listing::question_to_pb(question))),
        Message::Listed(request_id, answer) => (*request_id, PbMessage::Listed(listing::answer_to_pb(answer))),
        Message::ClocksRequest(request_id) => (*request_id, PbMessage::ClocksRequest(PbNothing {})),
        Message::Clocks(request_id) => (*request_id, PbMessage::Clocks(PbNothing {})),
        Message::Reconfiguration(partition, message) => {
            (NO_REQUEST, PbMessage::Reconfiguration(reconfiguration_to_pb(*partition, message)))
        }
        Message::Notice(notice) => (NO_REQUEST, notice_to_pb(notice)),
    }
}

fn notice_to_pb(notice: &Notice) -> PbMessage {
    match notice {
        Notice::Epoch(notice) => PbMessage::Epoch(PbEpoch {
            epoch: notice.epoch.0,
            finished: notice.finished.0,
            members: Bytes::copy_from_slice(&notice.members.0.to_be_bytes()),
            done: Bytes::copy_from_slice(notice.done.as_bytes()),
            done_before: Bytes::copy_from_slice(notice.done_before.as_bytes()),
            drains: notice.drains,
        }),
        Notice::Have(version) => PbMessage::Have(version_to_pb(*version)),
        Notice::Want(had) => PbMessage::Want(PbVersions { versions: had.iter().copied().map(version_to_pb).collect() }),
        Notice::Changes(notice) => PbMessage::Changes(PbChanges {
            since: version_to_pb(notice.since),
            version: version_to_pb(notice.version),
            changes: notice.changes.encode(),
            is_answer: notice.is_answer,
        }),
        Notice::History(history) => PbMessage::History(history.encode()),
        Notice::Complement(history) => PbMessage::Complement(history.encode()),
        Notice::Swim(packet) => PbMessage::Swim(packet.clone()),
        Notice::Drained(incarnation, version) => {
            PbMessage::Drained(PbDrained { incarnation: incarnation.0, version: Some(version_to_pb(*version)) })
        }
        Notice::Phases(notice) => PbMessage::Phases(phases_notice_to_pb(notice)),
        Notice::Inquiry(Inquiry { id, partitions }) => {
            let partitions = partitions.iter().map(|partition| partition.0).collect();
            PbMessage::SizesInquiry(PbSizesInquiry { id: id.0, partitions })
        }
        Notice::Report(id, sizes) => PbMessage::Sizes(sizes_to_pb(*id, sizes)),
    }
}

fn epoch_notice_from_pb(notice: PbEpoch) -> Result<EpochNotice, WireError> {
    let marks = |bytes: &Bytes| Marks::from_bytes(bytes).ok_or(WireError::Field("marks"));
    Ok(EpochNotice {
        epoch: Epoch(notice.epoch),
        finished: Epoch(notice.finished),
        members: MembersDigest(u128::from_be_bytes(fixed(&notice.members, "members")?)),
        done: marks(&notice.done)?,
        done_before: marks(&notice.done_before)?,
        drains: notice.drains,
    })
}

fn version_to_pb(version: RingVersion) -> PbVersion {
    PbVersion { changes: version.changes, digest: version.digest }
}

fn version_from_pb(version: &PbVersion) -> RingVersion {
    RingVersion { changes: version.changes, digest: version.digest }
}

fn versions_from_pb(versions: &PbVersions) -> Result<Vec<RingVersion>, WireError> {
    if versions.versions.len() > WANT_MAX {
        return Err(WireError::Field("versions"));
    }
    Ok(versions.versions.iter().map(version_from_pb).collect())
}

fn changes_from_pb(notice: &PbChanges) -> Result<Changes, WireError> {
    Ok(Changes {
        since: version_from_pb(&notice.since),
        version: version_from_pb(&notice.version),
        changes: history_from_pb(&notice.changes)?,
        is_answer: notice.is_answer,
    })
}

fn history_from_pb(bytes: &[u8]) -> Result<History, WireError> {
    History::decode(bytes).map_err(|error| WireError::Form(error.to_string()))
}

fn sizes_inquiry_from_pb(inquiry: PbSizesInquiry) -> Result<Inquiry, WireError> {
    if inquiry.partitions.len() > INQUIRY_PARTITIONS_MAX {
        return Err(WireError::Field("partitions"));
    }
    let partitions = inquiry.partitions.into_iter().map(PartitionId).collect();
    Ok(Inquiry { id: InquiryId(inquiry.id), partitions })
}

fn sizes_to_pb(id: InquiryId, sizes: &NodeSizes) -> PbSizes {
    let tree = |(id, size): (&TreeId, &Size)| PbSize {
        partition: id.partition.0,
        group: id.group.0,
        keys: size.keys,
        bytes: size.bytes,
    };
    let trees = sizes.trees.iter().map(tree).collect();
    PbSizes { id: id.0, trees, leaves: sizes.leaves.iter().map(|partition| partition.0).collect() }
}

fn sizes_from_pb(sizes: PbSizes) -> NodeSizes {
    let tree = |size: PbSize| {
        let id = TreeId { partition: PartitionId(size.partition), group: Group(size.group) };
        (id, Size { keys: size.keys, bytes: size.bytes })
    };
    NodeSizes {
        trees: sizes.trees.into_iter().map(tree).collect(),
        leaves: sizes.leaves.into_iter().map(PartitionId).collect(),
    }
}

fn message_from_pb(request_id: RequestId, message: PbMessage) -> Result<Message, WireError> {
    Ok(match message {
        PbMessage::Read(read) => {
            let want = if read.digest { Want::Digest } else { Want::State };
            let role = if read.stand_in { Role::StandIn } else { Role::Home };
            Message::Request(request_id, ReplicaRequest::Read { key: key_from_pb(read.key)?, want, role })
        }
        PbMessage::Recover(recover) => {
            let (home, since) = known_loss_from_pb(&recover.loss);
            Message::Request(request_id, ReplicaRequest::Recover { key: key_from_pb(recover.key)?, home, since })
        }
        PbMessage::Merge(merge) => Message::Request(
            request_id,
            ReplicaRequest::Merge {
                key: key_from_pb(merge.key)?,
                state: state_from_pb(merge.state)?,
                epoch: Epoch(merge.epoch),
                heals: loss_from_pb(merge.heals),
                confirm: if merge.exactly { Confirm::Exactly } else { Confirm::Stored },
                stands_in_for: merge.stands_in_for.map(NodeId::new),
            },
        ),
        PbMessage::State(held) => Message::Response(
            request_id,
            ReplicaResponse::State {
                state: state_from_pb(held.state)?,
                epoch: Epoch(held.epoch),
                loss: loss_from_pb(held.loss),
            },
        ),
        PbMessage::Digest(held) => Message::Response(
            request_id,
            ReplicaResponse::Digest { digest: digest_from_pb(&held.digest)?, loss: loss_from_pb(held.loss) },
        ),
        PbMessage::Stored(_) => Message::Response(request_id, ReplicaResponse::Stored),
        PbMessage::Holds(held) => Message::Response(
            request_id,
            ReplicaResponse::Holds {
                digest: digest_from_pb(&held.digest)?,
                state: held.state.map(state_from_pb).transpose()?,
                loss: loss_from_pb(held.loss),
            },
        ),
        PbMessage::Failed(failure) => Message::Response(request_id, ReplicaResponse::Failed(failure_from_pb(failure)?)),
        PbMessage::Forward(forward) => {
            let budget = Duration::from_micros(forward.budget_us);
            let epoch = Epoch(forward.epoch);
            Message::Forward(request_id, Box::new(forward_from_pb(forward)?), budget, epoch)
        }
        PbMessage::Forwarded(outcome) => Message::Forwarded(request_id, outcome_from_pb(outcome)?),
        PbMessage::ClocksRequest(_) => Message::ClocksRequest(request_id),
        PbMessage::Clocks(_) => Message::Clocks(request_id),
        PbMessage::Compare(question) => Message::Compare(request_id, question_from_pb(question)?),
        PbMessage::Compared(finding) => Message::Compared(request_id, finding_from_pb(finding)?),
        PbMessage::Fetch(fetch) => Message::Fetch(request_id, fetch_from_pb(fetch)),
        PbMessage::Fetched(fetched) => Message::Fetched(request_id, fetched_from_pb(fetched)?),
        PbMessage::List(question) => Message::List(request_id, Box::new(listing::question_from_pb(question)?)),
        PbMessage::Listed(answer) => Message::Listed(request_id, listing::answer_from_pb(answer)?),
        PbMessage::Reconfiguration(message) => {
            let (partition, message) = reconfiguration_from_pb(message)?;
            Message::Reconfiguration(partition, message)
        }
        PbMessage::Have(version) => Message::Notice(Notice::Have(version_from_pb(&version))),
        PbMessage::Want(had) => Message::Notice(Notice::Want(versions_from_pb(&had)?)),
        PbMessage::Changes(notice) => Message::Notice(Notice::Changes(changes_from_pb(&notice)?)),
        PbMessage::History(history) => Message::Notice(Notice::History(history_from_pb(&history)?)),
        PbMessage::Complement(history) => Message::Notice(Notice::Complement(history_from_pb(&history)?)),
        PbMessage::Swim(packet) => Message::Notice(Notice::Swim(packet)),
        PbMessage::Drained(drained) => {
            let version = version_from_pb(&drained.version.ok_or(WireError::Field("version"))?);
            Message::Notice(Notice::Drained(Incarnation(drained.incarnation), version))
        }
        PbMessage::Phases(notice) => Message::Notice(Notice::Phases(phases_notice_from_pb(notice)?)),
        PbMessage::Epoch(notice) => Message::Notice(Notice::Epoch(epoch_notice_from_pb(notice)?)),
        PbMessage::SizesInquiry(inquiry) => Message::Notice(Notice::Inquiry(sizes_inquiry_from_pb(inquiry)?)),
        PbMessage::Sizes(sizes) => Message::Notice(Notice::Report(InquiryId(sizes.id), sizes_from_pb(sizes))),
    })
}

fn request_to_pb(request: &ReplicaRequest) -> PbMessage {
    match request {
        ReplicaRequest::Recover { key, home, since } => {
            PbMessage::Recover(PbRecover { key: key_to_pb(key), loss: known_loss_to_pb((*home, *since)) })
        }
        ReplicaRequest::Read { key, want, role } => PbMessage::Read(PbRead {
            key: key_to_pb(key),
            digest: *want == Want::Digest,
            stand_in: *role == Role::StandIn,
        }),
        ReplicaRequest::Merge { key, state, epoch, heals, confirm, stands_in_for } => PbMessage::Merge(PbMerge {
            key: key_to_pb(key),
            state: state_to_pb(state),
            epoch: epoch.0,
            heals: loss_to_pb(*heals),
            exactly: *confirm == Confirm::Exactly,
            stands_in_for: stands_in_for.map(NodeId::get),
        }),
    }
}

fn response_to_pb(response: &ReplicaResponse) -> PbMessage {
    match response {
        ReplicaResponse::State { state, epoch, loss } => {
            PbMessage::State(PbHeldState { state: state_to_pb(state), epoch: epoch.0, loss: loss_to_pb(*loss) })
        }
        ReplicaResponse::Digest { digest, loss } => {
            PbMessage::Digest(PbHeldDigest { digest: digest_to_pb(*digest), loss: loss_to_pb(*loss) })
        }
        ReplicaResponse::Stored => PbMessage::Stored(PbNothing {}),
        ReplicaResponse::Holds { digest, state, loss } => PbMessage::Holds(PbHolds {
            digest: digest_to_pb(*digest),
            state: state.as_ref().map(state_to_pb),
            loss: loss_to_pb(*loss),
        }),
        ReplicaResponse::Failed(failure) => PbMessage::Failed(match failure {
            Failure::Storage => 1,
            Failure::Overloaded => 2,
            Failure::NotAHome => 3,
            Failure::DiskFull => 4,
            Failure::HintsFull => 5,
            Failure::WrongEpoch => 6,
            Failure::Superseded => 7,
        }),
    }
}

fn loss_to_pb(loss: Option<Loss>) -> u64 {
    loss.map_or(0, |loss| loss.0)
}

fn failure_from_pb(failure: u32) -> Result<Failure, WireError> {
    match failure {
        1 => Ok(Failure::Storage),
        2 => Ok(Failure::Overloaded),
        3 => Ok(Failure::NotAHome),
        4 => Ok(Failure::DiskFull),
        5 => Ok(Failure::HintsFull),
        6 => Ok(Failure::WrongEpoch),
        7 => Ok(Failure::Superseded),
        _ => Err(WireError::Field("failure")),
    }
}

fn key_to_pb(key: &Key) -> PbKey {
    let Generation { since, placement } = key.generation();
    PbKey {
        bucket: key.bucket().clone(),
        name: key.name().clone(),
        since: since.to_bits(),
        placement: placement.number(),
    }
}

fn key_from_pb(key: PbKey) -> Result<Key, WireError> {
    let placement = Placement::from_number(key.placement).ok_or(WireError::Field("placement"))?;
    let generation = Generation { since: Hlc::from_bits(key.since), placement };
    Key::of_generation(generation, key.bucket, key.name).map_err(|_| WireError::Field("key"))
}

fn digest_to_pb(digest: StateDigest) -> Bytes {
    Bytes::copy_from_slice(&digest.0)
}

fn digest_from_pb(digest: &[u8]) -> Result<StateDigest, WireError> {
    fixed(digest, "digest").map(StateDigest)
}

fn forward_to_pb(put: &Put, budget: Duration, epoch: Epoch) -> PbForward {
    PbForward {
        key: key_to_pb(&put.key),
        budget_us: u64::try_from(budget.as_micros()).unwrap_or(u64::MAX),
        strong: put.consistency == Consistency::Strong,
        w: put.w.map_or(0, u32::from),
        context: put.context.clone(),
        value: content_to_pb(&put.content),
        expires: put.expires.map_or(0, |wall| wall.0.max(1)),
        write_id: match put.retry {
            Retry::Named(id) => Bytes::copy_from_slice(&id.to_bytes()),
            Retry::Unnamed | Retry::Key(_) => Bytes::new(),
        },
        return_body: put.return_body,
        stamp: put.stamp.map_or(0, Hlc::to_bits),
        epoch: epoch.0,
    }
}

fn forward_from_pb(forward: PbForward) -> Result<Put, WireError> {
    let w = u8::try_from(forward.w).map_err(|_| WireError::Field("w"))?;
    Ok(Put {
        key: key_from_pb(forward.key)?,
        content: content_from_pb(forward.value),
        expires: (forward.expires > 0).then_some(WallMs(forward.expires)),
        context: forward.context,
        retry: Retry::Named(WriteId::from_bytes(fixed(&forward.write_id, "write id")?)),
        consistency: if forward.strong { Consistency::Strong } else { Consistency::Eventual },
        w: (w > 0).then_some(w),
        stamp: (forward.stamp > 0).then_some(Hlc::from_bits(forward.stamp)),
        // A coordinator never raises the timestamp of a forwarded write.
        rewrites: None,
        return_body: forward.return_body,
    })
}

fn acks_to_pb(acks: Acks) -> PbAcks {
    PbAcks { home: acks.home, standin: acks.standin, zones: acks.zones }
}

fn acks_from_pb(acks: &PbAcks) -> Acks {
    Acks { home: acks.home, standin: acks.standin, zones: acks.zones }
}

fn got_to_pb(got: &Got) -> PbGot {
    PbGot {
        siblings: got.siblings.iter().map(sibling_to_pb).collect(),
        context: got.context.clone(),
        acks: acks_to_pb(got.acks),
    }
}

fn got_from_pb(got: PbGot) -> Result<Got, WireError> {
    Ok(Got {
        siblings: got.siblings.into_iter().map(sibling_from_pb).collect::<Result<_, _>>()?,
        context: got.context,
        acks: acks_from_pb(&got.acks),
    })
}

fn outcome_to_pb(outcome: &Result<PutDone, Refusal>) -> PbOutcome {
    let result = match outcome {
        Ok(done) => PbResult::Put(PbPutDone {
            context: done.context.clone(),
            acks: acks_to_pb(done.acks),
            body: done.body.as_ref().map(got_to_pb),
        }),
        Err(Refusal::BadRequest(why)) => PbResult::BadRequest(why.clone()),
        Err(Refusal::BadContext(why)) => PbResult::BadContext(why.clone()),
        Err(Refusal::TooManySiblings(held)) => PbResult::TooManySiblings(*held),
        Err(Refusal::TooLarge(bytes, bytes_max)) => {
            PbResult::TooLarge(PbTooLarge { bytes: *bytes, bytes_max: *bytes_max })
        }
        Err(Refusal::SiblingsTooLarge(bytes, bytes_max)) => {
            PbResult::SiblingsTooLarge(PbTooLarge { bytes: *bytes, bytes_max: *bytes_max })
        }
        Err(Refusal::Overloaded) => PbResult::Overloaded(PbNothing {}),
        Err(Refusal::Unavailable(short)) => PbResult::Unavailable(shortfall_to_pb(short)),
        Err(Refusal::Unverified(short)) => PbResult::Unverified(shortfall_to_pb(short)),
        Err(Refusal::StampTooLow(held)) => PbResult::StampTooLow(held.to_bits()),
        Err(Refusal::DiskFull) => PbResult::DiskFull(PbNothing {}),
        // Only the first node refuses a write for this, and that node answers its client.
        Err(refusal @ Refusal::ReadTooOld) => {
            PbResult::Unavailable(shortfall_to_pb(&Shortfall { answered: 0, needed: 0, why: refusal.to_string() }))
        }
    };
    PbOutcome { result: Some(result) }
}

fn outcome_from_pb(outcome: PbOutcome) -> Result<Result<PutDone, Refusal>, WireError> {
    Ok(match outcome.result.ok_or(WireError::Field("outcome"))? {
        PbResult::Put(done) => Ok(PutDone {
            context: done.context,
            acks: acks_from_pb(&done.acks),
            body: done.body.map(got_from_pb).transpose()?,
        }),
        PbResult::BadRequest(why) => Err(Refusal::BadRequest(why)),
        PbResult::BadContext(why) => Err(Refusal::BadContext(why)),
        PbResult::TooManySiblings(held) => Err(Refusal::TooManySiblings(held)),
        PbResult::TooLarge(large) => Err(Refusal::TooLarge(large.bytes, large.bytes_max)),
        PbResult::SiblingsTooLarge(large) => Err(Refusal::SiblingsTooLarge(large.bytes, large.bytes_max)),
        PbResult::Overloaded(_) => Err(Refusal::Overloaded),
        PbResult::Unavailable(short) => Err(Refusal::Unavailable(shortfall_from_pb(short))),
        PbResult::Unverified(short) => Err(Refusal::Unverified(shortfall_from_pb(short))),
        PbResult::StampTooLow(held) => Err(Refusal::StampTooLow(Hlc::from_bits(held))),
        PbResult::DiskFull(_) => Err(Refusal::DiskFull),
    })
}

fn shortfall_to_pb(short: &Shortfall) -> PbShortfall {
    PbShortfall { answered: short.answered, needed: short.needed, why: short.why.clone() }
}

fn shortfall_from_pb(short: PbShortfall) -> Shortfall {
    Shortfall { answered: short.answered, needed: short.needed, why: short.why }
}
