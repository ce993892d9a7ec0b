//! How what a node holds of a partition, and nobody needs there any more, goes: a page of records after the other, until none is left
//! but what is kept for others.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Reconfiguration, Scx};
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
/// To remove a record takes about as long as to scan so many.
const RECORDS_IN_A_REMOVAL: usize = 4;

/// The clearing of one partition.
#[derive(Debug)]
pub(super) struct Purge {
    waiting_for: Option<StoreId>,
    /// The records that are on their way out.
    going: BTreeSet<Key>,
    /// Where it goes on; none once the end is reached.
    next: Option<Bytes>,
    /// Something was found since it began from the beginning.
    found: bool,
}

impl Purge {
    pub(super) fn waits_for(&self, id: StoreId) -> bool {
        self.waiting_for == Some(id)
    }
}

fn keeps(cx: &Scx<'_>, partition: PartitionId, group: Group) -> bool {
    let forgets = cx.broken.is(Mutation::ReplacedHomePurges) && cx.held.goes(partition);
    !forgets && cx.held.keeps(partition, group)
}

impl Reconfiguration {
    /// Goes on with the clearings that wait for the admission controller, as far as it lets them.
    pub(super) fn clear_waiting(&mut self, cx: &mut Scx<'_>) {
        while !self.purges_waiting.is_empty() && cx.admission.room(WorkClass::Purge, cx.now) > 0 {
            if let Some(partition) = self.purges_waiting.pop_first() {
                self.clear(cx, partition);
            }
        }
    }

    /// Begins to clear, or goes on after the store failed. Each page waits until the admission controller lets it begin: a partition
    /// may hold millions of records.
    pub(super) fn clear(&mut self, cx: &mut Scx<'_>, partition: PartitionId) {
        if cx.held.groups(partition).into_iter().all(|group| keeps(cx, partition, group)) {
            self.purges.remove(&partition);
            return self.change(cx, partition, |partition_state| partition_state.has_stale_data = false, Vec::new());
        }
        let whole = Grid::of(cx.held.view().ring.partitions(), partition).whole();
        let begin =
            || Purge { waiting_for: None, going: BTreeSet::new(), next: Some(whole.from.clone()), found: false };
        let purge = self.purges.entry(partition).or_insert_with(begin);
        if purge.waiting_for.is_some() || !purge.going.is_empty() {
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
                cx.out.stores.push((id, StoreCommand::Scan { from, upto: whole.upto, at_most: PAGE }));
            }
            None if purge.found => {
                // What the store failed to remove is still there.
                (purge.next, purge.found) = (Some(whole.from), false);
                self.clear(cx, partition);
            }
            None => {
                self.purges.remove(&partition);
                self.change(cx, partition, |partition_state| partition_state.has_stale_data = false, Vec::new());
            }
        }
    }

    /// A page has been read.
    pub(super) fn cleared(&mut self, cx: &mut Scx<'_>, partition: PartitionId, result: StoreResult) {
        let Some(purge) = self.purges.get_mut(&partition) else { return };
        purge.waiting_for = None;
        if !cx.held.partition_state(partition).is_some_and(|partition_state| partition_state.has_stale_data) {
            // It is wanted again.
            self.purges.remove(&partition);
            return;
        }
        let StoreResult::Scanned(Ok(scanned)) = result else { return };
        purge.next = scanned.next();
        cx.admission.has_read(WorkClass::Purge, scanned.records.len(), cx.now);
        let may_go = |(storage_key, record): &(Bytes, Bytes)| {
            Record::decode(record, storage_key).map_or(true, |record| record.header.owed.is_empty())
        };
        let keys = scanned.records.iter().filter(|found| may_go(found)).map(|(key, _)| key).chain(&scanned.damaged);
        purge.going.extend(keys.filter_map(|key| Key::from_storage_key(key).ok()));
        let is_kept = |key: &Key| {
            let (partition, group) = cx.held.group_of(key);
            keeps(cx, partition, group)
        };
        purge.going.retain(|key| !is_kept(key));
        purge.found |= !purge.going.is_empty();
        cx.admission.has_read(WorkClass::Purge, RECORDS_IN_A_REMOVAL * purge.going.len(), cx.now);
        cx.out.calls.drops.extend(purge.going.iter().cloned());
        if purge.going.is_empty() {
            self.clear(cx, partition);
        }
    }

    /// A record has gone, or could not go.
    pub fn dropped(&mut self, cx: &mut Scx<'_>, key: &Key) {
        let partition = cx.held.partition_of(key);
        let Some(purge) = self.purges.get_mut(&partition) else { return };
        if purge.going.remove(key) && purge.going.is_empty() {
            self.clear(cx, partition);
        }
    }
}
