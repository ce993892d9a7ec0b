//! Background work of a step: draining of a node that leaves, hinted handoff, garbage collection.

use super::epoch_end::CHECK_EPOCH_EVERY;
use super::{Node, Step};
use crate::admission::WorkClass;
use crate::cluster::liveness::Status;
use crate::coordinator::HAND_OVERS_MAX;
use crate::coordinator::handoff::{HandoffTask, PAGE};
use crate::replica::gc_sweep;
use crate::replica::key_sweep::KeyTask;
use crate::value::dot::NodeId;

impl Node {
    /// Reports whether anything is left to be handed over, if this node is leaving.
    pub(super) fn check_drained(&mut self, step: &mut Step) {
        if !self.held.view().is_removed(self.held.me()) || step.now.instant < self.check_drained_at {
            return;
        }
        self.check_drained_at = step.now.instant + CHECK_EPOCH_EVERY;
        let owes = self.replica.hints().oldest().is_some();
        // A drained node takes no more hints, which would be lost with it. Until then, a task under way may be a hint.
        let takes_on = self.drained != Some(true) && !self.replica.is_idle();
        let is_drained = !owes && !takes_on && !self.reconfiguration.is_involved(&self.held);
        self.replica.close_hints(is_drained);
        if self.drained != Some(is_drained) {
            self.drained = Some(is_drained);
            step.effects.drained = self.drained;
        }
    }

    /// Hands hints over to homes that are reachable again.
    pub(super) fn hand_over(&mut self, step: &mut Step) {
        loop {
            let Self { handoff, admission, replica, coordinator, liveness, reach, held, config, .. } = &mut *self;
            let now = step.now.instant;
            let room = (HAND_OVERS_MAX - coordinator.handing_over()).min(admission.room(WorkClass::HandOver, now));
            let at_once = |node: NodeId| match liveness.status(node) {
                // The hints of a node that has left go to the homes that replace it, so its own silence does not matter.
                _ if held.view().member(node).is_none() => PAGE,
                Status::Down => 0,
                Status::Alive | Status::Suspect if !reach.is_late(node, now) => PAGE,
                Status::Alive | Status::Suspect => usize::from(reach.may_send(node, now)),
            };
            let others = held.view().members().map(|known| known.member.id).filter(|&id| id != config.node);
            let may_count = || admission.room(WorkClass::Count, now) > 0;
            match handoff.next(now, room, may_count, at_once, others, replica.hints()) {
                Some(HandoffTask::Count(command, records)) => {
                    admission.has_read(WorkClass::Count, records, now);
                    let id = replica.next_store();
                    handoff.begun(id);
                    step.effects.stores.push((id, command));
                }
                Some(HandoffTask::Store(command)) => {
                    let id = replica.next_store();
                    handoff.begun(id);
                    step.effects.stores.push((id, command));
                }
                Some(HandoffTask::HandOver(key, _)) if replica.is_superseded(&key) => {
                    admission.begin(WorkClass::HandOver, now);
                    replica.drop_record(step.now, key, &mut step.replica);
                    self.settle(step);
                }
                Some(HandoffTask::HandOver(key, to)) => {
                    admission.begin(WorkClass::HandOver, now);
                    self.with_coordinator(step, |coordinator, cx| coordinator.hand_over(cx, key, to));
                    self.settle(step);
                }
                None => return,
            }
        }
    }

    /// Collects garbage in records that are due.
    pub(super) fn collect_garbage(&mut self, step: &mut Step) {
        loop {
            let may_begin = self.admission.room(WorkClass::Collect, step.now.instant) > 0;
            let Some(task) = self.gc_sweep.next(step.now, self.replica.epoch(), may_begin) else { return };
            match task {
                gc_sweep::GcTask::Store(command) => {
                    let id = self.replica.next_store();
                    self.gc_sweep.begun(id);
                    step.effects.stores.push((id, command));
                }
                gc_sweep::GcTask::Collect(key, entry) => {
                    self.admission.begin(WorkClass::Collect, step.now.instant);
                    self.replica.collect(step.now, key, entry, &mut step.replica);
                    self.settle(step);
                }
            }
        }
    }

    /// Removes what is left of buckets that were emptied, and completes the index of keys.
    pub(super) fn sweep_keys(&mut self, step: &mut Step) {
        loop {
            let may_begin = self.admission.room(WorkClass::Purge, step.now.instant) > 0;
            let Some(task) = self.key_sweep.next(step.now.instant, self.replica.all_speak(), may_begin) else { return };
            self.admission.begin(WorkClass::Purge, step.now.instant);
            match task {
                KeyTask::Store(command) => {
                    let id = self.replica.next_store();
                    self.key_sweep.begun(id);
                    step.effects.stores.push((id, command));
                }
                KeyTask::Drop(key) => {
                    self.replica.drop_record(step.now, key, &mut step.replica);
                    self.settle(step);
                }
                KeyTask::Index(key) => {
                    self.replica.index(step.now, key, &mut step.replica);
                    self.settle(step);
                }
            }
        }
    }
}
