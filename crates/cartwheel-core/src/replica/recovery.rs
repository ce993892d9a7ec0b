//! Records that are lost or damaged, and how they count again.

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
    /// The keys of a tree hold all that enough other homes held after the last loss of writes: they count again.
    pub fn catch_up(&mut self, tree: TreeId) {
        self.recovered.insert(tree);
    }

    pub(super) fn is_recovered(&self, key: &Key) -> bool {
        let (partition, group) = self.held.group_of(key);
        self.recovered.contains(&TreeId { partition, group })
    }

    /// The stored record. One that cannot be read is replaced at once by the mark of its loss, so that the loss has one number; none if
    /// a newer build can read it.
    ///
    /// What is to be forgotten is forgotten before anybody sees it.
    pub(super) fn parse(
        &mut self,
        now: Now,
        key: &Key,
        bytes: Option<Bytes>,
        since: Epoch,
        out: &mut Outbox<ReplicaCalls>,
    ) -> Option<StoredRecord> {
        let len = bytes.as_ref().map_or(0, Bytes::len);
        let (mut record, fresh) = match bytes.map(|bytes| Record::decode(&bytes, &key.storage_key())) {
            None => (Record::default(), Fresh::No),
            Some(Ok(record)) => (record, Fresh::No),
            Some(Err(error @ RecordError::Version(_))) => {
                out.events.push(Event::RecordNotKnown(key.clone(), error));
                return None;
            }
            Some(Err(error)) => (self.lost(key, error, out), Fresh::Yes),
        };
        self.note_loss(key, &mut record);
        let mut held = self.held(key, record, len, fresh, since);
        self.collect_due(now, key, &mut held);
        Some(held)
    }

    /// Whatever a record says of its losses is from before the store's last one. A stand-in makes no promise about what it does not hold.
    pub(super) fn note_loss(&self, key: &Key, record: &mut Record) {
        let may_count = self.broken.is(Mutation::CountAfterPowerLoss) || !self.is_home(key);
        if record.header.recovered_since < self.loss_floor && !may_count {
            let lost = self.minter.loss_before(self.loss_floor);
            record.header.recovering = if self.is_recovered(key) { None } else { Some(lost) };
        }
    }

    /// What stands in the place of a record that cannot be read: on a home the mark of its loss, elsewhere nothing.
    pub(super) fn lost(&mut self, key: &Key, error: RecordError, out: &mut Outbox<ReplicaCalls>) -> Record {
        out.events.push(Event::RecordLost(key.clone(), error));
        out.calls.changes.push(RecordChange::Lost(key.clone()));
        // Whatever it was owed for cannot be told any more: a home may have stood in for another before it became one.
        self.hints.forget();
        if !self.is_home(key) {
            return Record::default();
        }
        if self.broken.is(Mutation::CountAmnesiac) {
            return Record::default();
        }
        Record::lost(self.minter.lose(), self.loss_floor)
    }
}
