//! Messages of a transfer: a syncing home fetches a partition from an existing home.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::cluster::counts::Group;
use crate::message::anti_entropy::{KeyRange, Refused};
use crate::ring::PartitionId;
use crate::value::state::{Epoch, State};

/// A request for the first records of a range, as many as one page holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// The partition.
    pub partition: PartitionId,
    /// The groups of keys to send.
    pub groups: BTreeSet<Group>,
    /// The range, which lies in the partition.
    pub range: KeyRange,
}

/// The response to [`Fetch`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// The first records of the range.
    Page(Page),
    /// The home refuses.
    Refused(Refused),
}

/// Records from the beginning of a range. All of them are durable at the sender.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The epoch in which they were read.
    pub epoch: Epoch,
    /// Storage keys and their states.
    pub records: Vec<(Bytes, State)>,
    /// Where the range continues; `None` if these are all.
    pub next: Option<Bytes>,
    /// The size of the records in the sender's store, in bytes.
    pub bytes: u64,
}
