//! A shard's writes on their way to the disk, and the reads that wait for them.
//!
//! One commit is under way at a time, and further writes gather behind it. Commands on one key take effect in order, and nothing is read that
//! is not durable: a read of a key waits for the commit with its last write, and what concerns many keys waits for all earlier writes and
//! takes place before any later one.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use cartwheel_core::store::command::{StoreCommand, StoreId};
use cartwheel_core::value::time::Instant;
use cartwheel_storage::{Batch, Durability};
use tokio::sync::oneshot;

use super::copies::{CopiesPage, CopiesRequest};
use super::digests::{DigestPage, DigestsRequest};
use crate::data_dir::lineage::Mark;

/// The writes of one commit.
#[derive(Default)]
pub(super) struct Writes {
    pub(super) batch: Batch,
    pub(super) commands: Vec<StoreId>,
    keys: HashSet<Bytes>,
    pub(super) sync: bool,
    /// The bytes for which the disk admitted them.
    pub(super) admitted_bytes: u64,
    /// What follows the commit, in order.
    pub(super) waiting: Vec<WaitingRead>,
    /// The keys that are read then.
    keys_read: HashSet<Bytes>,
    /// Something is read then that a later write would change.
    is_complete: bool,
}

impl Writes {
    pub(super) fn add(&mut self, id: StoreId, sync: bool) {
        self.commands.push(id);
        self.sync |= sync;
    }

    fn takes_key(&self, storage_key: &Bytes) -> bool {
        !self.is_complete && (self.keys_read.is_empty() || !self.keys_read.contains(storage_key))
    }

    fn wait(&mut self, waiting: WaitingRead) {
        match &waiting {
            WaitingRead::Command(_, StoreCommand::Read { storage_key }) => {
                self.keys_read.insert(storage_key.clone());
            }
            _ => self.is_complete = true,
        }
        self.waiting.push(waiting);
    }
}

/// A read that waits for earlier writes.
pub(super) enum WaitingRead {
    Command(StoreId, StoreCommand),
    Digests(DigestsRequest, oneshot::Sender<Option<DigestPage>>),
    Copies(CopiesRequest, oneshot::Sender<Option<CopiesPage>>),
}

/// A commit under way.
pub(super) struct CommitUnderWay {
    pub(super) writes: Writes,
    pub(super) mark: Option<Mark>,
    pub(super) durability: Durability,
    pub(super) begun: Instant,
}

/// The commit under way, and the writes behind it.
#[derive(Default)]
pub(super) struct Commits {
    under_way: Option<CommitUnderWay>,
    /// The writes of the next commits. The last takes further writes.
    gathered: VecDeque<Writes>,
}

impl Commits {
    /// The writes to which a write of this key, or of none, is to be added.
    pub(super) fn taking(&mut self, storage_key: Option<&Bytes>) -> &mut Writes {
        let takes = |writes: &Writes| storage_key.map_or(!writes.is_complete, |key| writes.takes_key(key));
        if !self.gathered.back().is_some_and(takes) {
            self.gathered.push_back(Writes::default());
        }
        let last = self.gathered.len() - 1;
        let writes = &mut self.gathered[last];
        writes.keys.extend(storage_key.cloned());
        writes
    }

    /// Keeps a read until the writes before it are committed; returns it if there are none.
    pub(super) fn wait(&mut self, waiting: WaitingRead) -> Option<WaitingRead> {
        let key = match &waiting {
            WaitingRead::Command(_, StoreCommand::Read { storage_key }) => Some(storage_key),
            _ => None,
        };
        let concerns = |writes: &Writes| key.is_none_or(|key| writes.keys.contains(key));
        let under_way = self.under_way.iter_mut().map(|it| &mut it.writes);
        match under_way.chain(self.gathered.iter_mut()).rev().find(|writes| concerns(writes)) {
            Some(writes) => {
                writes.wait(waiting);
                None
            }
            None => Some(waiting),
        }
    }

    /// Whether a commit is under way.
    pub(super) const fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// How many commits wait for the one under way.
    pub(super) fn waiting(&self) -> usize {
        self.gathered.len()
    }

    /// When the commit under way began, if there is one.
    pub(super) fn since(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|under_way| under_way.begun)
    }

    /// Whether nothing is to be committed, and no commit is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_none() && self.gathered.is_empty()
    }

    /// The writes of the next commit, if there are any and none is under way.
    pub(super) fn next(&mut self) -> Option<Writes> {
        if self.is_under_way() { None } else { self.gathered.pop_front() }
    }

    /// Records that a commit has begun.
    pub(super) fn begun(&mut self, under_way: CommitUnderWay) {
        self.under_way = Some(under_way);
    }

    /// Ends the commit under way.
    pub(super) const fn ended(&mut self) -> Option<CommitUnderWay> {
        self.under_way.take()
    }
}
