//! Lost and damaged records, and their recovery.

use bytes::Bytes;

use super::turn::{Fresh, StoredRecord};
use super::{Replica, ReplicaCalls};
use crate::cluster::sizes::TreeId;
use crate::event::Event;
use crate::mutation::Mutation;
use crate::outbox::Outbox;
use crate::store::record::{Record, RecordError};
use crate::store::share::RecordChange;
use crate::value::key::Key;
use crate::value::state::Epoch;
use crate::value::time::Now;

impl Replica {
    /// Records that the keys of a tree have recovered: they hold all that enough other homes held after the last loss of writes, so they count
    /// again.
    pub fn set_recovered(&mut self, tree: TreeId) {
        self.recovered.insert(tree);
    }

    pub(super) fn is_recovered(&self, key: &Key) -> bool {
        let (partition, group) = self.held.group_of(key);
        self.recovered.contains(&TreeId { partition, group })
    }

    /// Parses a stored record. One that cannot be read is replaced at once by a record of its loss, so that the loss has one number. `None` if a
    /// newer build can read it.
    ///
    /// Due garbage is collected before the record is used.
    pub(super) fn parse(
        &mut self,
        now: Now,
        key: &Key,
        bytes: Option<Bytes>,
        since: Epoch,
        out: &mut Outbox<ReplicaCalls>,
    ) -> Option<StoredRecord> {
        let len = bytes.as_ref().map_or(0, Bytes::len);
        let (record, fresh) = match bytes.map(|bytes| Record::decode(&bytes, &key.storage_key())) {
            None => (Record::default(), Fresh::No),
            Some(Ok(record)) => (record, Fresh::No),
            Some(Err(error @ RecordError::Version(_))) => {
                out.events.push(Event::RecordNotKnown(key.clone(), error));
                return None;
            }
            Some(Err(error)) => (self.lost(key, error, out), Fresh::Yes),
        };
        if fresh == Fresh::No {
            self.cache.insert(key, &record, len);
        }
        Some(self.stored_record(now, key, (record, len), fresh, since))
    }

    /// A record of the store, of this size there, as it may be used now.
    pub(super) fn stored_record(
        &self,
        now: Now,
        key: &Key,
        (mut record, bytes): (Record, usize),
        fresh: Fresh,
        since: Epoch,
    ) -> StoredRecord {
        self.note_loss(key, &mut record);
        let mut held = self.held(key, record, bytes, fresh, since);
        self.collect_due(now, key, &mut held);
        held
    }

    /// Sets the loss of a record from before the store's last loss, in place of its header's, which is older. A stand-in needs none: what it
    /// lacks means nothing.
    pub(super) fn note_loss(&self, key: &Key, record: &mut Record) {
        let may_count = self.broken.is(Mutation::CountAfterPowerLoss) || !self.is_home(key);
        if record.header.recovered_since < self.loss_floor && !may_count {
            let lost = self.minter.loss_before(self.loss_floor);
            record.header.recovering = if self.is_recovered(key) { None } else { Some(lost) };
        }
    }

    /// The replacement for a record that cannot be read: on a home a record of the loss, elsewhere an empty one.
    pub(super) fn lost(&mut self, key: &Key, error: RecordError, out: &mut Outbox<ReplicaCalls>) -> Record {
        out.events.push(Event::RecordLost(key.clone(), error));
        out.calls.changes.push(RecordChange::Lost(key.clone()));
        // The homes for which it was kept are unknown: this home may have stood in for another before it became one.
        self.hints.recount();
        if !self.is_home(key) {
            return Record::default();
        }
        if self.broken.is(Mutation::CountAmnesiac) {
            return Record::default();
        }
        Record::lost(self.minter.lose(), self.loss_floor)
    }
}
