//! Messages of an exchange: two homes compare a partition.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use bytes::Bytes;

use crate::cluster::sizes::TreeId;
use crate::ring::PartitionId;
use crate::value::digest::ContentDigest;

/// A question of one home to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// The sums of these nodes of one level of a tree.
    Nodes {
        /// The tree.
        tree: TreeId,
        /// The level; the root's is 0.
        level: u8,
        /// The positions of the nodes in the level.
        nodes: Vec<u32>,
    },
    /// The keys of a range with their content digests: the first ones, as many as one scan reads.
    Keys {
        /// The tree of the keys.
        tree: TreeId,
        /// The range.
        range: KeyRange,
    },
}

impl Question {
    /// The partition of the question.
    pub const fn partition(&self) -> PartitionId {
        match self {
            Self::Nodes { tree, .. } | Self::Keys { tree, .. } => tree.partition,
        }
    }
}

/// The response to a [`Question`]. Everything in it is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The requested sums, in order.
    Sums {
        /// The depth of the tree.
        depth: u8,
        /// Every record of the tree counts, so what it lacks was not lost here.
        is_recovered: bool,
        /// The sums.
        sums: Vec<Sum>,
    },
    /// Keys.
    Keys {
        /// As in [`Self::Sums`].
        is_recovered: bool,
        /// The keys.
        page: ListPage,
    },
    /// The home refuses.
    Refused(Refused),
}

/// The first keys of a range.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    /// Storage keys with content, and their digests.
    pub entries: BTreeMap<Bytes, ContentDigest>,
    /// Where the range continues; `None` if these are all.
    pub next: Option<Bytes>,
}

/// Why a home refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Sender and receiver are not both homes of the partition.
    NotAHome,
    /// Its tree is being built, or is not that deep any more.
    NotReady,
    /// Too many exchanges are running.
    Busy,
    /// The question is malformed.
    Nonsense,
}

/// The sum at a node of a tree, over the keys below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// The sum of their digests, modulo 2^128.
    pub digests: u128,
    /// The number of keys with content.
    pub keys: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.digests = self.digests.wrapping_add(other.digests);
        self.keys = self.keys.saturating_add(other.keys);
    }
}

/// The storage keys from one, included, up to another, excluded; without an end, up to the end of the ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    /// The first key.
    pub from: Bytes,
    /// The end, excluded.
    pub upto: Option<Bytes>,
}

impl KeyRange {
    /// Whether it contains `storage_key`.
    pub fn contains(&self, storage_key: &[u8]) -> bool {
        self.from.as_ref() <= storage_key && self.ends_after(storage_key)
    }

    /// Whether `other` is not empty and lies within this range.
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
