//! What a node that fetches a partition asks a home, and what that answers.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::cluster::counts::Group;
use crate::message::anti_entropy::{KeyRange, Refused};
use crate::ring::PartitionId;
use crate::value::state::{Epoch, State};

/// What is asked for: the first records of a range, as many as one page holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// The partition.
    pub partition: PartitionId,
    /// Of the keys of these groups.
    pub groups: BTreeSet<Group>,
    /// The range, which lies in the partition.
    pub range: KeyRange,
}

/// What a home answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// The first records.
    Page(Page),
    /// It sends none.
    Refused(Refused),
}

/// Records of a range, from its beginning on. Nothing in it is less than durable where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The epoch in which they were read.
    pub epoch: Epoch,
    /// Storage keys and what they hold.
    pub records: Vec<(Bytes, State)>,
    /// Where the range goes on; none if these are all.
    pub next: Option<Bytes>,
    /// How many bytes the records take in the store where they were read.
    pub bytes: u64,
}
