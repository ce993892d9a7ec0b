//! Purge: removes the records of a partition that this node need not hold any more, a page at a time. Hints for other
//! nodes stay.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Reconfiguration, ReconfigurationContext};
use crate::admission::WorkClass;
use crate::anti_entropy::merkle::Grid;
use crate::cluster::counts::Group;
use crate::mutation::Mutation;
use crate::ring::PartitionId;
use crate::store::command::{ScanLimit, StoreCommand, StoreId, StoreResult};
use crate::store::record::Record;
use crate::value::key::Key;

/// How much is read at once.
const PAGE: ScanLimit = ScanLimit { records: 256, bytes: 1 << 20 };
/// Removing a record takes about as long as scanning this many.
const RECORDS_IN_A_REMOVAL: usize = 4;

/// The purge of one partition.
#[derive(Debug)]
pub(super) struct Purge {
    waiting_for: Option<StoreId>,
    /// The records that are being removed.
    removing: BTreeSet<Key>,
    /// Where the scan goes on; none once it has reached the end.
    next: Option<Bytes>,
    /// Whether anything was found since the scan last began at the start.
    found: bool,
}

impl Purge {
    pub(super) fn waits_for(&self, id: StoreId) -> bool {
        self.waiting_for == Some(id)
    }
}

fn must_keep(cx: &ReconfigurationContext<'_>, partition: PartitionId, group: Group) -> bool {
    let drops_all = cx.broken.is(Mutation::ReplacedHomePurges) && cx.held.is_leaving(partition);
    !drops_all && cx.held.keeps(partition, group)
}

impl Reconfiguration {
    /// Goes on with the purges that wait for the admission controller, as far as it allows.
    pub(super) fn resume_purges(&mut self, cx: &mut ReconfigurationContext<'_>) {
        while !self.purges_waiting.is_empty() && cx.admission.room(WorkClass::Purge, cx.now) > 0 {
            if let Some(partition) = self.purges_waiting.pop_first() {
                self.purge(cx, partition);
            }
        }
    }

    /// Begins a purge, or goes on with it. Each page waits for the admission controller: a partition may hold millions
    /// of records.
    pub(super) fn purge(&mut self, cx: &mut ReconfigurationContext<'_>, partition: PartitionId) {
        if cx.held.groups(partition).into_iter().all(|group| must_keep(cx, partition, group)) {
            self.purges.remove(&partition);
            return self.change(cx, partition, |partition_state| partition_state.has_stale_data = false, Vec::new());
        }
        let full_range = Grid::of(cx.held.view().ring.partitions(), partition).whole();
        let begin = || Purge {
            waiting_for: None,
            removing: BTreeSet::new(),
            next: Some(full_range.from.clone()),
            found: false,
        };
        let purge = self.purges.entry(partition).or_insert_with(begin);
        if purge.waiting_for.is_some() || !purge.removing.is_empty() {
            return;
        }
        match purge.next.take() {
            Some(from) if !cx.admission.may_begin(WorkClass::Purge, cx.now) => {
                purge.next = Some(from);
                self.purges_waiting.insert(partition);
            }
            Some(from) => {
                let id = cx.replica.next_store();
                purge.next = Some(from.clone());
                purge.waiting_for = Some(id);
                self.stores.insert(id, partition);
                cx.out.stores.push((id, StoreCommand::Scan { from, upto: full_range.upto, at_most: PAGE }));
            }
            None if purge.found => {
                // Records that the store failed to remove are still there: scan again.
                (purge.next, purge.found) = (Some(full_range.from), false);
                self.purge(cx, partition);
            }
            None => {
                self.purges.remove(&partition);
                self.change(cx, partition, |partition_state| partition_state.has_stale_data = false, Vec::new());
            }
        }
    }

    /// A page has been read.
    pub(super) fn page_read(
        &mut self,
        cx: &mut ReconfigurationContext<'_>,
        partition: PartitionId,
        result: StoreResult,
    ) {
        let Some(purge) = self.purges.get_mut(&partition) else { return };
        purge.waiting_for = None;
        if !cx.held.partition_state(partition).is_some_and(|partition_state| partition_state.has_stale_data) {
            // This node is to hold the partition again.
            self.purges.remove(&partition);
            return;
        }
        let StoreResult::Scanned(Ok(scanned)) = result else { return };
        purge.next = scanned.next();
        cx.admission.has_read(WorkClass::Purge, scanned.records.len(), cx.now);
        let may_remove = |(storage_key, record): &(Bytes, Bytes)| {
            Record::decode(record, storage_key).map_or(true, |record| record.header.owed.is_empty())
        };
        let keys = scanned.records.iter().filter(|found| may_remove(found)).map(|(key, _)| key).chain(&scanned.damaged);
        purge.removing.extend(keys.filter_map(|key| Key::from_storage_key(key).ok()));
        let is_kept = |key: &Key| {
            let (partition, group) = cx.held.group_of(key);
            must_keep(cx, partition, group)
        };
        purge.removing.retain(|key| !is_kept(key));
        purge.found |= !purge.removing.is_empty();
        cx.admission.has_read(WorkClass::Purge, RECORDS_IN_A_REMOVAL * purge.removing.len(), cx.now);
        cx.out.calls.drops.extend(purge.removing.iter().cloned());
        if purge.removing.is_empty() {
            self.purge(cx, partition);
        }
    }

    /// A record was removed, or could not be.
    pub fn dropped(&mut self, cx: &mut ReconfigurationContext<'_>, key: &Key) {
        let partition = cx.held.partition_of(key);
        let Some(purge) = self.purges.get_mut(&partition) else { return };
        if purge.removing.remove(key) && purge.removing.is_empty() {
            self.purge(cx, partition);
        }
    }
}
