//! The nodes' epochs, and the check that no node collects anything too early.

use bytes::Bytes;
use cartwheel_core::control::ControlInput;
use cartwheel_core::message::{Message, ReplicaRequest, Requester};
use cartwheel_core::node::Input;
use cartwheel_core::replica::hint;
use cartwheel_core::store::command::{StoreCommand, WriteFailed};
use cartwheel_core::store::record::Record;
use cartwheel_core::value::epoch::{Epoch, KEPT_FOR};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Sibling};
use cartwheel_core::value::write_id::WriteId;

use super::controls::PAUSED_US;
use super::{Event, World};
use crate::clock::START_WALL_MS;
use crate::trace::TraceKind;

/// How far a node's clock may be ahead of most others while the node still uses it.
const AHEAD_MAX_MS: u64 = 12_000;

impl World {
    /// Saves an epoch on a node's disk.
    pub(super) fn save_epoch(&mut self, machine: usize, epoch: Epoch) {
        let boot = self.machines[machine].boot;
        let rng = &mut self.controls.as_mut().expect("the nodes have controls").epochs_rng;
        let (delay_us, stored, is_reported) = (rng.waiting_us(5_000), !rng.chance(50), !rng.chance(20));
        let event = Event::EpochSaved { machine, boot, epoch, stored, failed: !(stored && is_reported) };
        self.schedule(self.now_us + 1 + delay_us, event);
    }

    pub(super) fn epoch_saved(&mut self, machine: usize, boot: u32, epoch: Epoch, stored: bool, failed: bool) {
        if self.machines[machine].boot != boot || !self.machines[machine].is_up() {
            return;
        }
        if stored {
            self.machines[machine].epoch = epoch;
        }
        if self.machines[machine].is_paused() {
            let event = Event::EpochSaved { machine, boot, epoch, stored, failed };
            return self.schedule(self.now_us + PAUSED_US, event);
        }
        let result = if failed { Err(WriteFailed::Uncertain) } else { Ok(()) };
        self.control_input(machine, ControlInput::EpochSaved(result));
    }

    /// Handles a node's entry into an epoch.
    pub(super) fn enter_epoch(&mut self, index: usize, epoch: Epoch) {
        self.note(TraceKind::Report, &[index as u8], |cluster| format!("{} enters epoch {epoch}", cluster.name(index)));
        let now_us = self.now_us;
        self.epochs.entry(epoch).or_insert(now_us);
        let others = self.epochs_now();
        if let (Some(low), Some(high)) = (others.iter().min(), others.iter().max())
            && high.0 > low.0 + 1
        {
            self.fail("no two nodes are more than one epoch apart", None, format!("{low} and {high}"));
        }
        self.input(index, Input::Epoch(epoch));
    }

    /// The epochs of the nodes that know theirs.
    pub fn epochs_now(&self) -> Vec<Epoch> {
        let epochs = self.machine_controls.iter().filter_map(|at| Some(at.control.as_ref()?.epoch()));
        epochs.filter(|&epoch| epoch > Epoch::UNKNOWN).collect()
    }

    /// From when on a delete or an expired value may be collected: when the first node entered the epoch in which it is due.
    pub fn collected_from_us(&self, write: WriteId) -> Option<u64> {
        let minted = self.minted.get(&write)?;
        let due_us = self.epochs.range(minted.deleted_in?.end()..).next().map(|(_, &at_us)| at_us)?;
        let ahead_ms = AHEAD_MAX_MS.saturating_add_signed(self.most_ahead_ms);
        let expired_ms = minted.expires.map_or(0, |expires| expires.0.saturating_sub(START_WALL_MS + ahead_ms));
        Some(due_us.max(expired_ms * 1_000))
    }

    /// Checks that state is sent with the epoch in which its operation began, or an older one. Each key of an exchange is an operation of its own.
    pub(super) fn judge_stamp(&mut self, from: usize, message: &Message) {
        let Message::Request(request_id, request) = message else { return };
        let Some(control) =
            self.machine_controls[from].control.as_ref().filter(|_| request_id.requester != Requester::Exchange)
        else {
            return;
        };
        let begun = *self.operations.entry((from, request_id.operation)).or_insert(control.epoch());
        if let ReplicaRequest::Merge { epoch, .. } = request
            && *epoch > begun
        {
            let message = format!("{} stamps {epoch} on an operation of {begun}", self.cluster.name(from));
            self.fail("state is stamped with its operation's epoch", None, message);
        }
    }

    /// Checks a node that has finished an epoch: it must hold no hint from before that epoch.
    pub(super) fn judge_finished(&mut self, index: usize, epoch: Epoch) {
        let (first, end) = hint::all();
        let image = self.machines[index].disk.current();
        let since = |entry: &Bytes| {
            let (home, storage_key) = hint::parse(entry)?;
            let record = Record::decode(image.records.get(&storage_key)?, &storage_key).ok()?;
            record.header.owed.get(&home).copied()
        };
        let oldest = image.index.range(first..end).filter_map(since).min();
        if let Some(oldest) = oldest.filter(|&oldest| oldest < epoch) {
            let message = format!("{} has finished {epoch} and keeps a hint of {oldest}", self.cluster.name(index));
            self.fail("no hint outlives its epoch", None, message);
        }
    }

    /// Checks a write to a store: it must not drop a tombstone or an expired value before its time, nor store a tombstone after it.
    pub(super) fn judge_collection(&mut self, index: usize, command: &StoreCommand) {
        let StoreCommand::Write { storage_key, record, .. } = command else { return };
        let Some(control) = &self.machine_controls[index].control else { return };
        // The disk may hold the next epoch already without having reported it. The shard does not know that epoch.
        let epoch = control.epoch();
        let decode = |bytes| Record::decode(bytes, storage_key).ok();
        let before = self.machines[index].disk.current().records.get(storage_key).and_then(decode);
        let after = record.as_ref().and_then(decode).unwrap_or_default();
        // Lost records, and records of keys that the node is no home of any more, are not collected.
        let key = Key::from_storage_key(storage_key).ok();
        let is_kept = |key: &Key| self.machines[index].node().is_some_and(|node| node.held().is_home(key));
        if after.header.recovering.is_some() || record.is_none() && !key.is_some_and(|key| is_kept(&key)) {
            return;
        }
        let is_tombstone = |held: &&Sibling| held.content == Content::Tombstone;
        let deleted_in = |held: &Sibling| match held.content {
            Content::Tombstone => Some(held.epoch),
            // Once a node has collected the value, the others follow. A value that no node has found expired is not collected.
            Content::Value { .. } => held.expires.map(|_| {
                let found = self.minted.get(&held.write_id).and_then(|minted| minted.deleted_in);
                found.unwrap_or(Epoch(u64::MAX - KEPT_FOR))
            }),
        };
        let owed = before.as_ref().is_some_and(|record| !record.header.owed.is_empty());
        let held = || before.iter().flat_map(|record| record.state.siblings());
        // Where the last write wins, a value that lost against a delete is dropped together with it.
        let has_lost = |value: &Sibling| held().any(|held| is_tombstone(&held) && held.recency() > value.recency());
        let gone = held().filter(|held| is_tombstone(held) || !has_lost(held));
        let gone = gone.filter_map(|held| Some((held, deleted_in(held)?)));
        // A write that replaced the value is in the record, or has left a note.
        let is_replaced =
            |held: &Sibling| after.state.siblings().len() > 0 || after.state.notes().get(held.write_id).is_some();
        let latest = self.epochs.keys().next_back().copied().unwrap_or_default();
        let mut early =
            gone.filter(|(held, deleted_in)| !owed && !is_replaced(held) && deleted_in.0 + KEPT_FOR > latest.0);
        if let Some((held, deleted_in)) = early.next() {
            let message =
                format!("{:?}, deleted in epoch {deleted_in}, is dropped while the epoch is {latest}", held.dot);
            return self.fail("deletes are kept for five epochs", None, message);
        }
        if let Some(held) = after.state.siblings().filter(is_tombstone).find(|held| held.epoch.0 + KEPT_FOR <= epoch.0)
        {
            let message = format!("{:?} of epoch {} is stored in epoch {epoch}", held.dot, held.epoch);
            self.fail("no tombstone is stored after its collection is due", None, message);
        }
    }
}
