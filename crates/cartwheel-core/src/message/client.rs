//! Requests of clients and their replies: the contract's operations, independent of HTTP and RESP.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::{Failure, Role, StateDigest};
use crate::value::clock::Clock;
use crate::value::dot::{Dot, NodeId};
use crate::value::hlc::{Hlc, WallMs};
use crate::value::key::Key;
use crate::value::state::{Content, Sibling, State};
use crate::value::write_id::WriteId;

/// The guarantee that a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// The first R or W replicas that respond.
    #[default]
    Eventual,
    /// Majorities of the home replicas: linearizable per key, if all writes of the key are strong.
    Strong,
}

/// A client's request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The operation.
    pub operation: Operation,
    /// The time for which the client waits.
    pub timeout: Duration,
}

/// An operation on a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Read a key.
    Get(Get),
    /// Write a key, or delete it by writing a tombstone.
    Put(Put),
    /// Learn what each replica of a key holds, without joining or repairing them.
    Inspect(Key),
    /// Merge what a backup holds of a key. The reply is that of a put without a context.
    Restore(Restore),
}

impl Operation {
    /// The key of the operation.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Get(get) => &get.key,
            Self::Put(put) => &put.key,
            Self::Inspect(key) => key,
            Self::Restore(restore) => &restore.key,
        }
    }
}

/// A key's state out of a backup. It is merged, so it replaces nothing that it does not know, and what it knows as replaced or deleted stays so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restore {
    /// The key, in the present generation of its bucket.
    pub key: Key,
    /// The state as a replica held it.
    pub state: State,
}

/// A read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Get {
    /// The key to read.
    pub key: Key,
    /// The guarantee that it asks for.
    pub consistency: Consistency,
    /// The number of replicas that must answer, instead of the bucket's r.
    pub r: Option<u8>,
    /// A sealed context that the response must cover.
    pub seen: Option<Bytes>,
    /// Whether the response has a context. A client that writes nothing on the strength of it needs none, and to seal one takes time.
    pub wants_context: bool,
}

/// A write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// The key to write.
    pub key: Key,
    /// The content to write. A tombstone without a context deletes what a get sees.
    pub content: Content,
    /// When the value expires.
    pub expires: Option<WallMs>,
    /// The sealed context of what this write has seen. Without it a value is written blindly, as a sibling of whatever is there.
    pub context: Option<Bytes>,
    /// The name under which the write may be repeated.
    pub retry: Retry,
    /// The timestamp that the first node gave the write when it forwarded it; `None` at the first node. Every attempt carries the same one, so
    /// that a late attempt does not win over later writes (last write wins).
    pub stamp: Option<Hlc>,
    /// The timestamp of the value that this write only changes in part, such as when it expires. Under last write wins an eventual write of this
    /// kind is stamped one tick above that value and no higher, so that it never wins over a write that was concurrent with its read. A coordinator
    /// that holds a later write refuses it ([`Refusal::StampTooLow`]). It needs the context of that read, and the first node refuses it if the read
    /// was so long ago that a later delete may have been collected since ([`Refusal::ReadTooOld`]).
    pub rewrites: Option<Hlc>,
    /// The guarantee that it asks for.
    pub consistency: Consistency,
    /// The number of replicas that must store it, instead of the bucket's w.
    pub w: Option<u8>,
    /// Whether the reply contains the key as it is after the write.
    pub return_body: bool,
}

impl Put {
    /// A write without a context that follows the bucket's settings.
    pub const fn blind(key: Key, content: Content) -> Self {
        Self {
            key,
            content,
            expires: None,
            context: None,
            retry: Retry::Unnamed,
            stamp: None,
            rewrites: None,
            consistency: Consistency::Eventual,
            w: None,
            return_body: false,
        }
    }
}

/// The name by which a repeated write is recognized.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Retry {
    /// The client gave none: the first node draws one.
    Unnamed,
    /// The client's idempotency key.
    Key(Bytes),
    /// The id that the first node gave the write.
    Named(WriteId),
}

/// The outcome of a request.
pub type Outcome = Result<Reply, Refusal>;

/// The reply to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The result of a get.
    Got(Got),
    /// The write is stored.
    Put(PutDone),
    /// What the replicas hold.
    Inspected(Inspected),
}

/// The result of a get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Got {
    /// The visible writes, including tombstones, in the order of their dots. Under last write wins at most one.
    pub siblings: Vec<Sibling>,
    /// The sealed context of the siblings; `None` if the key was never written.
    pub context: Option<Bytes>,
    /// The replicas behind the response.
    pub acks: Acks,
}

impl Got {
    /// The live values that a reader at `wall` sees.
    pub fn live(&self, wall: WallMs) -> impl Iterator<Item = &Sibling> {
        self.siblings.iter().filter(move |sibling| !sibling.is_deleted(wall))
    }

    /// The value that a client at `wall` sees that takes only one: the last.
    pub fn last(&self, wall: WallMs) -> Option<&Sibling> {
        last_live(&self.siblings, wall)
    }
}

/// The last of those that are not deleted.
pub(crate) fn last_live<'a>(siblings: impl IntoIterator<Item = &'a Sibling>, wall: WallMs) -> Option<&'a Sibling> {
    siblings.into_iter().filter(|sibling| !sibling.is_deleted(wall)).max_by_key(|sibling| sibling.recency())
}

/// A stored write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutDone {
    /// The sealed context of what the write had seen and of the write itself; `None` if a delete found nothing.
    pub context: Option<Bytes>,
    /// The replicas that stored the write.
    pub acks: Acks,
    /// The key as it is now, if the request wants the body.
    pub body: Option<Got>,
}

/// What the replicas of a key hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspected {
    /// The homes, then as many of the next nodes on the walk as the bucket's n: they may stand in for homes.
    pub replicas: Vec<InspectedReplica>,
}

/// One replica of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InspectedReplica {
    /// The node.
    pub node: NodeId,
    /// Whether it is a home of the key, or one that may stand in.
    pub role: Role,
    /// What it holds.
    pub contents: ReplicaContents,
}

/// What a replica of a key holds, without the values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaContents {
    /// It has responded.
    Held {
        /// The dots of all writes that it knows.
        clock: Clock,
        /// The writes that none of these replaced.
        versions: Vec<HeldVersion>,
        /// The digest of its state: replicas with equal digests are equal.
        digest: StateDigest,
        /// It has lost records and has not recovered: what it says does not count towards a quorum.
        is_recovering: bool,
    },
    /// It could not say.
    Failed(Failure),
    /// It has not responded in time.
    Silent,
}

/// A write that a replica holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldVersion {
    /// The write's identity in clocks.
    pub dot: Dot,
    /// Its timestamp.
    pub hlc: Hlc,
    /// The size of its value in bytes; none for a tombstone.
    pub bytes: Option<u64>,
    /// When the value expires, if it does.
    pub expires: Option<WallMs>,
}

/// The replicas behind a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Acks {
    /// Home replicas that answered. While a partition's configuration is joint, a write counts those of the list of homes that has fewer.
    pub home: u32,
    /// Stand-ins that answered.
    pub standin: u32,
    /// Distinct zones among them.
    pub zones: u32,
}

/// Why a request was not carried out, or may not have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request is invalid, for the reason given.
    BadRequest(String),
    /// The context was not issued by this cluster for this key.
    BadContext(String),
    /// The key already holds this many siblings, and the write would add one: it has no context, or one that replaces none of them.
    TooManySiblings(u32),
    /// The write would make the key's siblings too large: their size, and the limit, in bytes.
    SiblingsTooLarge(u64, u64),
    /// The value is too large for the bucket: its size, and the limit, in bytes.
    TooLarge(u64, u64),
    /// The node has reached its limit of requests. Nothing was done; the request can be retried.
    Overloaded,
    /// Too few replicas answered. A write may yet appear.
    Unavailable(Shortfall),
    /// Nothing was found, but too few home replicas answered to say that nothing is there.
    Unverified(Shortfall),
    /// The coordinator holds a write with this timestamp that would win over this one. Nothing was written. The first node gives a forwarded write
    /// a later timestamp; a client sees this only of a write that [rewrites](Put::rewrites) a value.
    StampTooLow(Hlc),
    /// The write [rewrites](Put::rewrites) a value that was read so long ago that it may have been deleted since and no replica would know. Nothing
    /// was written by this attempt; the client reads again.
    ReadTooOld,
    /// The disks of too many of the key's replicas are full. Nothing was written on any of them, and nothing of the write will appear.
    DiskFull,
}

/// How many replicas answered of how many needed, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shortfall {
    /// Replicas that answered.
    pub answered: u32,
    /// Replicas that were needed.
    pub needed: u32,
    /// The reason, for the client.
    pub why: String,
}

impl Refusal {
    /// A refusal because this node cannot carry a request out now, whatever others answer.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable(Shortfall { answered: 0, needed: 1, why: why.into() })
    }

    /// The contract's error code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::BadContext(_) => "bad_context",
            Self::TooManySiblings(_) | Self::SiblingsTooLarge(..) => "too_many_siblings",
            Self::TooLarge(..) => "too_large",
            Self::Overloaded => "overloaded",
            Self::Unavailable(_) | Self::StampTooLow(_) | Self::ReadTooOld => "unavailable",
            Self::Unverified(_) => "unverified",
            Self::DiskFull => "disk_full",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why) | Self::BadContext(why) => f.write_str(why),
            Self::TooManySiblings(held) => write!(
                f,
                "the key holds {held} unmerged siblings and this write would add one: get the key, merge its siblings, and put the \
                 result with the context of that reply"
            ),
            Self::SiblingsTooLarge(bytes, bytes_max) => write!(
                f,
                "this write would make the key's unmerged siblings {bytes} bytes large, and {bytes_max} is the most: get the key, merge \
                 its siblings, and put the result with the context of that reply"
            ),
            Self::TooLarge(bytes, bytes_max) => write!(
                f,
                "the value has {bytes} bytes, the bucket takes {bytes_max}: store less, or raise the bucket's max_value_bytes"
            ),
            Self::Overloaded => f.write_str("the node has more requests than it takes on: try again in a moment"),
            Self::Unavailable(short) | Self::Unverified(short) => {
                write!(f, "{}: {} of {} replicas answered", short.why, short.answered, short.needed)
            }
            Self::StampTooLow(_) => f.write_str("the key holds a later value; nothing was written: try again"),
            Self::ReadTooOld => f.write_str(
                "the value was read too long ago to change it without a new read; nothing was written: get the key and try again",
            ),
            Self::DiskFull => f.write_str(
                "too many of the key's replicas have full disks, so nothing was written, and reads go on: free space on the nodes whose \
                 /readyz says disk_full (a delete needs room too), or add nodes, then try again",
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// A client's request, as the caller of the core numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientId(pub u64);
