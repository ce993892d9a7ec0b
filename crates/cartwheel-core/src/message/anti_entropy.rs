//! What homes ask each other when they compare a partition, and what they answer.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use bytes::Bytes;

use crate::cluster::sizes::TreeId;
use crate::ring::PartitionId;
use crate::value::digest::ContentDigest;

/// What a home asks another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// The sums at these places of one level of a tree.
    Nodes {
        /// The tree.
        tree: TreeId,
        /// The level; the root's is 0.
        level: u8,
        /// The places.
        nodes: Vec<u32>,
    },
    /// The keys of a range and the digests of what they hold: as many of the first as one scan reads.
    Keys {
        /// The tree whose keys.
        tree: TreeId,
        /// The range.
        range: KeyRange,
    },
}

impl Question {
    /// The partition in question.
    pub const fn partition(&self) -> PartitionId {
        match self {
            Self::Nodes { tree, .. } | Self::Keys { tree, .. } => tree.partition,
        }
    }
}

/// What the other answers. Nothing in it is less than durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The sums that were asked for, in that order.
    Sums {
        /// The depth of the tree.
        depth: u8,
        /// Every record that it is over counts, so what it lacks was not lost here.
        is_recovered: bool,
        /// The sums.
        sums: Vec<Sum>,
    },
    /// Keys.
    Keys {
        /// As above.
        is_recovered: bool,
        /// The keys.
        page: ListPage,
    },
    /// It does not say.
    Refused(Refused),
}

/// The first keys of a range.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    /// Storage keys that have content, and its digests.
    pub entries: BTreeMap<Bytes, ContentDigest>,
    /// Where the range goes on; none if these are all.
    pub next: Option<Bytes>,
}

/// Why a home does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Asker and asked are not both homes of the partition.
    NotAHome,
    /// Its tree is being made, or is not so deep any more.
    NotReady,
    /// Too many others ask.
    Busy,
    /// The question makes no sense.
    Nonsense,
}

/// What a node of a tree says of the keys below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// The sum of their digests, modulo 2^128.
    pub digests: u128,
    /// How many have any content.
    pub keys: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.digests = self.digests.wrapping_add(other.digests);
        self.keys = self.keys.saturating_add(other.keys);
    }
}

/// Storage keys from one on, up to another that is left out; up to the end of the ring if there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    /// The first.
    pub from: Bytes,
    /// The first that is left out.
    pub upto: Option<Bytes>,
}

impl KeyRange {
    /// Whether `storage_key` is in it.
    pub fn contains(&self, storage_key: &[u8]) -> bool {
        self.from.as_ref() <= storage_key && self.ends_after(storage_key)
    }

    /// Whether it has keys, and all that it has are in this range too.
    pub fn covers(&self, other: &Self) -> bool {
        let ends_in_it = match (&other.upto, &self.upto) {
            (Some(upto), Some(end)) => upto <= end,
            (None, Some(_)) => false,
            (_, None) => true,
        };
        self.contains(&other.from) && ends_in_it && other.ends_after(&other.from)
    }

    /// Whether `storage_key` lies before its end.
    pub fn ends_after(&self, storage_key: &[u8]) -> bool {
        self.upto.as_ref().is_none_or(|upto| storage_key < upto.as_ref())
    }
}
