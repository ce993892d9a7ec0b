//! Lists of a bucket's keys, and the sizes of buckets: what a client asks, and what homes answer.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::sizes::Size;
use crate::ring::PartitionSet;
use crate::value::key::{Generation, Key};
use crate::value::position::Position;

/// The most keys in one list.
pub const KEYS_MAX: u32 = 1_000;

/// What is to be listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listing {
    /// Keys of a bucket, in the order of their tokens.
    Keys {
        /// The bucket.
        bucket: Bytes,
        /// Its generation.
        generation: Generation,
        /// Where the list begins.
        after: Position,
        /// What the names of the keys begin with.
        prefix: Bytes,
        /// The most keys to return, from 1 to [`KEYS_MAX`].
        keys_max: u32,
    },
    /// The sizes of all buckets.
    Sizes,
}

/// A client's request for a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListRequest {
    /// What is to be listed.
    pub listing: Listing,
    /// How many homes of each partition must answer.
    pub r: u8,
    /// The time for which the client waits.
    pub timeout: Duration,
}

/// The keys or sizes of one shard's partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listed {
    /// Keys.
    Keys {
        /// The keys with a value that a get shows, in the order of their tokens.
        keys: Vec<ListedKey>,
        /// Where the list goes on; `None` at its end.
        next: Option<Position>,
    },
    /// Sizes of buckets' live keys, on one replica of each partition.
    Sizes(BTreeMap<Bytes, Size>),
}

/// A key of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedKey {
    /// The key.
    pub key: Key,
    /// Whether all homes that answered hold a value of it. Otherwise a get tells whether it has one.
    pub is_agreed: bool,
}

/// The earlier of two places where lists go on; `None` is the end.
pub fn earlier(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The first page of sorted keys: those before `upto`, where the shortest of several lists goes on, and at most `keys_max`. Returns where the
/// next page begins.
pub fn page(keys: &mut Vec<ListedKey>, upto: Option<Position>, keys_max: usize) -> Option<Position> {
    if let Some(upto) = &upto {
        keys.retain(|listed| Position::before(&listed.key) < *upto);
    }
    if keys.len() <= keys_max {
        return upto;
    }
    keys.truncate(keys_max);
    keys.last().map(|last| Position::after(&last.key))
}

/// A question of one node to a home.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListQuestion {
    /// The partitions. The home answers for those that the shard of the first one holds.
    pub partitions: PartitionSet,
    /// What is to be listed.
    pub listing: Listing,
}

/// A home's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListAnswer {
    /// The partitions for which it answers; none if it cannot.
    pub covered: PartitionSet,
    /// What it holds of them.
    pub found: ListFound,
}

/// What a home holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListFound {
    /// Names of keys, in the order of their tokens.
    Keys {
        /// The names.
        names: Vec<Bytes>,
        /// Where the list goes on; `None` at its end.
        next: Option<Position>,
    },
    /// Sizes of buckets' live keys.
    Sizes(BTreeMap<Bytes, Size>),
}

impl ListAnswer {
    /// The answer of a node that cannot answer.
    pub fn nothing() -> Self {
        Self { covered: PartitionSet::default(), found: ListFound::Sizes(BTreeMap::new()) }
    }
}
