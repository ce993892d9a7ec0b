//! What clients ask of a node and what they are told: the contract's calls without their doors.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::value::hlc::{Hlc, WallMs};
use crate::value::key::Key;
use crate::value::state::{Content, Sibling};
use crate::value::write_id::WriteId;

/// Which promise a request wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// R and W replicas, whichever answer first.
    #[default]
    Eventual,
    /// Majorities of the home replicas: linearizable per key, if the key is written only so.
    Strong,
}

/// A client's request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What is asked.
    pub operation: Operation,
    /// How long the client waits.
    pub timeout: Duration,
}

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Read a key.
    Get(Get),
    /// Write a key, or delete it by writing a tombstone.
    Put(Put),
}

impl Operation {
    /// The key in question.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Get(get) => &get.key,
            Self::Put(put) => &put.key,
        }
    }
}

/// A read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Get {
    /// What to read.
    pub key: Key,
    /// Which promise it wants.
    pub consistency: Consistency,
    /// How many replicas are to answer, if not as many as the bucket says.
    pub r: Option<u8>,
    /// A sealed context that the answer must cover.
    pub seen: Option<Bytes>,
}

/// A write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// What to write.
    pub key: Key,
    /// What to write there. A tombstone without a context deletes what a get sees.
    pub content: Content,
    /// When the value expires.
    pub expires: Option<WallMs>,
    /// The sealed context that says what this write has seen; without it a value is written blindly, beside whatever is there.
    pub context: Option<Bytes>,
    /// Under which name the write may be repeated.
    pub retry: Retry,
    /// The timestamp that the first node gave the write when it handed it on; none while it is there. Every attempt carries the
    /// same, so that a late one does not win over what was written since (last write wins).
    pub stamp: Option<Hlc>,
    /// Which promise it wants.
    pub consistency: Consistency,
    /// How many replicas must have stored it, if not as many as the bucket says.
    pub w: Option<u8>,
    /// Whether the reply is to show the key as it is then.
    pub return_body: bool,
}

impl Put {
    /// A write that has seen nothing and goes by the bucket's settings.
    pub const fn blind(key: Key, content: Content) -> Self {
        Self {
            key,
            content,
            expires: None,
            context: None,
            retry: Retry::Unnamed,
            stamp: None,
            consistency: Consistency::Eventual,
            w: None,
            return_body: false,
        }
    }
}

/// By which name a repeated write is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Retry {
    /// The client gave none: the first node makes one up.
    Unnamed,
    /// The client's idempotency key.
    Key(Bytes),
    /// The first node has named the write.
    Named(WriteId),
}

/// How a request ended.
pub type Outcome = Result<Reply, Refusal>;

/// A request's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// What a get saw.
    Got(Got),
    /// A write is stored.
    Put(PutDone),
}

/// What a get saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Got {
    /// The writes to be shown, tombstones among them, in the order of their dots. Under last write wins at most one.
    pub siblings: Vec<Sibling>,
    /// The sealed context of all that is shown; none if nothing was ever written.
    pub context: Option<Bytes>,
    /// What the answer stands on.
    pub acks: Acks,
}

impl Got {
    /// The live values that a reader at `wall` sees.
    pub fn live(&self, wall: WallMs) -> impl Iterator<Item = &Sibling> {
        self.siblings.iter().filter(move |sibling| !sibling.is_deleted(wall))
    }
}

/// A stored write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutDone {
    /// The sealed context of what the write had seen and the write itself; none where a delete found nothing.
    pub context: Option<Bytes>,
    /// What the write stands on.
    pub acks: Acks,
    /// The key as it is now, if that was asked for.
    pub body: Option<Got>,
}

/// The replicas behind an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Acks {
    /// Home replicas that answered. While a partition is taken over, a write counts those of the list of homes that has fewer.
    pub home: u32,
    /// The others that answered: stand-ins.
    pub standin: u32,
    /// Distinct zones among them.
    pub zones: u32,
}

/// Why a request was not carried out, or may not have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request makes no sense, for the reason given.
    BadRequest(String),
    /// The context is not one that this cluster gave out for this key.
    BadContext(String),
    /// The key holds this many siblings already, and the write would add one: it has no context, or one that replaces none of them.
    TooManySiblings(u32),
    /// The write would make the key's siblings larger than a key may be: how many bytes, and how many they may have.
    SiblingsTooLarge(u64, u64),
    /// The value has more bytes than the bucket takes: how many, and how many it takes.
    TooLarge(u64, u64),
    /// The node has more to do than it takes on. Nothing was done; try again.
    Overloaded,
    /// Too few replicas answered. A write may yet appear.
    Unavailable(Shortfall),
    /// Nothing was found, but by too few home replicas to say that nothing is there.
    Unverified(Shortfall),
    /// Between nodes only: the coordinator that the write was forwarded to holds something under this timestamp that would win over it. Nothing was
    /// written; the node that took the write gives it a later timestamp.
    StampTooLow(Hlc),
    /// Too many of the key's replicas have no room on their disks. Nothing was written, on any of them, and nothing of it will
    /// appear.
    DiskFull,
}

/// How many replicas answered of how many needed, and what to make of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shortfall {
    /// How many answered.
    pub answered: u32,
    /// How many were needed.
    pub needed: u32,
    /// What went wrong.
    pub why: String,
}

impl Refusal {
    /// The contract's name for it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::BadContext(_) => "bad_context",
            Self::TooManySiblings(_) | Self::SiblingsTooLarge(..) => "too_many_siblings",
            Self::TooLarge(..) => "too_large",
            Self::Overloaded => "overloaded",
            Self::Unavailable(_) | Self::StampTooLow(_) => "unavailable",
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
            Self::DiskFull => f.write_str(
                "too many of the key's replicas have full disks, so nothing was written, and reads go on: free space on the nodes whose \
                 /readyz says disk_full (a delete needs room too), or add nodes, then try again",
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// A client's request, as its caller numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientId(pub u64);
