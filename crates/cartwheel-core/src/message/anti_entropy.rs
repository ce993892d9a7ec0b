//! What homes ask each other when they compare a partition, and what they answer.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::anti_entropy::merkle::{KeyRange, Sum, TreeId};
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
        whole: bool,
        /// The sums.
        sums: Vec<Sum>,
    },
    /// Keys.
    Keys {
        /// As above.
        whole: bool,
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
