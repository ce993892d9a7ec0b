//! The nodes' controls, the settings that an administrator changes, and their spread.
//!
//! Controls draw from a stream of their own, so their messages do not change what happens to the data.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use cartwheel_core::cluster::membership::{Change, ChangeKind, History, Member, View};
use cartwheel_core::control::{Control, ControlEffects, ControlInput, SettingsChange};
use cartwheel_core::message::client::ClientId;
use cartwheel_core::message::gossip::{Changes, Notice};
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::node::Input;
use cartwheel_core::store::command::WriteFailed;
use cartwheel_core::value::hlc::Hlc;

use super::{Event, World};
use crate::failure::Failure;
use crate::rng::Rng;
use crate::trace::TraceKind;

/// What the world knows of all nodes' controls.
#[derive(Debug)]
pub(super) struct Controls {
    rng: Rng,
    /// The generator for probes, which do not change what is drawn for settings.
    probes_rng: Rng,
    /// The generator for messages about epochs.
    pub(super) epochs_rng: Rng,
    /// The number of changes requested.
    requested: u32,
    /// The marks of the acknowledged changes. A mark is a `max_value_bytes` that no other change has.
    acknowledged: BTreeSet<u32>,
    /// The marks of changes that a node may have taken along when it left without a hand-over.
    excused: BTreeSet<u32>,
    /// Whether such a node alone had some of what was recorded.
    has_excused: bool,
    /// The buckets for which an administrator has requested n = 1, whether or not that took effect.
    single_home: BTreeSet<Bytes>,
    /// All changes that were ever on a disk, without snapshots.
    recorded: History,
}

/// The control of one machine.
#[derive(Debug, Default)]
pub(super) struct MachineControl {
    pub(super) control: Option<Control>,
    /// The history on its disk; `None` if it is the bootstrap.
    saved: Option<Bytes>,
    wake_at_us: Option<u64>,
    /// Whether it has reported to another node, in this incarnation, that it has handed over everything, and its history.
    has_handed_over: bool,
}

/// The interval at which an event for a paused machine is tried again.
pub(super) const PAUSED_US: u64 = 100_000;

/// Above every size that the workload uses.
const MARK_BASE: u32 = 1 << 20;

impl Controls {
    /// Whether keys of this bucket may get a single home.
    pub(super) fn may_have_one_home(&self, bucket: &[u8]) -> bool {
        self.single_home.contains(bucket)
    }

    pub(super) fn new(rng: Rng, probes_rng: Rng, epochs_rng: Rng) -> Self {
        Self {
            rng,
            probes_rng,
            epochs_rng,
            requested: 0,
            acknowledged: BTreeSet::new(),
            excused: BTreeSet::new(),
            has_excused: false,
            single_home: BTreeSet::new(),
            recorded: History::new(),
        }
    }
}

impl Controls {
    /// Records the changes of a history that is on a disk.
    fn record(&mut self, history: &History) {
        for change in history.changes().filter(|change| !matches!(change.what, ChangeKind::Snapshot(_))) {
            self.recorded.insert(change.clone());
        }
    }
}

impl MachineControl {
    /// The view of the saved history; `None` if only the bootstrap is saved.
    pub(super) fn view(&self) -> Option<Arc<View>> {
        let saved = History::decode(self.saved.as_ref()?).expect("saved data can be decoded");
        saved.view().map(Arc::new)
    }

    /// Puts a history on its disk.
    pub(super) fn save(&mut self, history: &History) {
        self.saved = Some(history.encode());
    }

    pub(super) fn crash(&mut self) {
        self.control = None;
        self.wake_at_us = None;
    }
}

impl World {
    /// Starts a node's control from its saved history, and gives the node its view.
    pub(super) fn start_control(&mut self, index: usize) {
        let Some(controls) = &mut self.controls else { return };
        let (mut start, seed) = (self.machines[index].start(), controls.rng.bits());
        start.boot += self.machines[index].boots_undone;
        let at = &mut self.machine_controls[index];
        let saved = at.saved.as_ref().map(|saved| History::decode(saved).expect("saved data can be decoded"));
        controls.record(saved.as_ref().unwrap_or(&self.cluster.bootstrap()));
        let control = self.cluster.make_control(index, start, saved, seed);
        let view = control.view().clone();
        at.control = Some(control);
        self.input(index, Input::View(view));
        self.control_input(index, ControlInput::Tick);
    }

    /// The union of the histories on all other nodes' disks.
    fn history_of_others(&self, index: usize) -> History {
        let mut history = self.cluster.bootstrap();
        for (_, at) in self.machine_controls.iter().enumerate().filter(|(other, _)| *other != index) {
            if let Some(saved) = &at.saved {
                history.merge(&History::decode(saved).expect("saved data can be decoded"));
            }
        }
        history
    }

    /// Whether the other nodes' disks hold every change that this node's disk holds. A change is acknowledged once one disk has it.
    pub fn others_know_settings(&self, index: usize) -> bool {
        let saved = self.machine_controls[index].saved.as_ref();
        saved.is_none_or(|saved| {
            History::decode(saved).expect("saved data can be decoded").is_within(&self.history_of_others(index))
        })
    }

    /// Lets an administrator make a new incarnation of a node that lost its disk, from the histories on the other nodes' disks.
    pub(super) fn renew_control(&mut self, index: usize) {
        if self.controls.is_none() {
            return;
        }
        let (id, incarnation) = (self.cluster.id(index), self.machines[index].start().incarnation);
        let mut history = self.history_of_others(index);
        let view = history.view().expect("the history is valid");
        let member = view.member(id).expect("the node is a member").member.clone();
        let new = Member { incarnation, ..member };
        let now = self.machines[index].clock.read(self.now_us).wall;
        history.record(Hlc::at(now), id, ChangeKind::Replace { old: id, new });
        self.machine_controls[index].saved = Some(history.encode());
    }

    /// Lets an administrator change a bucket's settings through a node.
    pub fn change_settings(&mut self, index: usize, mut change: SettingsChange) {
        let Some(controls) = &mut self.controls else { return };
        controls.requested += 1;
        let mark = MARK_BASE + controls.requested;
        change.settings.max_value_bytes = Some(mark);
        if change.settings.n == Some(1) {
            controls.single_home.insert(change.bucket.clone());
        }
        self.note(TraceKind::Ask, &mark.to_le_bytes(), |cluster| {
            format!("{} is to change settings: {:?} of {:?}", cluster.name(index), change.settings, change.bucket)
        });
        self.control_input(index, ControlInput::Change(ClientId(u64::from(mark)), change));
    }

    /// Handles a machine that has left. If it was removed as dead and could not hand over what it knows, that need not be known.
    pub(super) fn excuse_settings(&mut self, index: usize) {
        let is_known = self.others_know_settings(index);
        let at = &mut self.machine_controls[index];
        let has_handed_over = std::mem::take(&mut at.has_handed_over);
        let saved = at.saved.as_ref().map(|saved| History::decode(saved).expect("saved data can be decoded"));
        if let Some(controls) = &mut self.controls
            && let Some(saved) = saved.filter(|_| !has_handed_over)
        {
            controls.excused.extend(marks(saved.changes()));
            controls.has_excused |= !is_known;
        }
    }

    /// Checks that all nodes have the same changes, every acknowledged one among them.
    pub fn judge_settings(&self) -> Option<Failure> {
        let controls = self.controls.as_ref()?;
        let check = "settings become equal everywhere, and no acknowledged change is lost";
        let fail = |message| Some(Failure { check, key: None, at_us: self.now_us, message });
        let histories: Vec<&History> =
            self.machine_controls.iter().filter_map(|at| at.control.as_ref().map(Control::history)).collect();
        // A snapshot adds no change, and may still be spreading.
        let is_snapshot = |change: &Change| matches!(change.what, ChangeKind::Snapshot(_));
        let lacks_nothing = |one: &History, other: &History| other.without(one).changes().all(is_snapshot);
        if histories.windows(2).any(|two| !lacks_nothing(two[0], two[1]) || !lacks_nothing(two[1], two[0])) {
            let versions: Vec<String> = histories.iter().map(|history| history.version().to_string()).collect();
            return fail(format!("the nodes have the versions {}", versions.join(", ")));
        }
        let &history = histories.first()?;
        let known = marks(controls.recorded.changes().filter(|change| history.knows(change)));
        let lost: Vec<&u32> =
            controls.acknowledged.difference(&known).filter(|mark| !controls.excused.contains(mark)).collect();
        if !lost.is_empty() {
            return fail(format!("no node knows the changes {lost:?}"));
        }
        let short = histories.iter().find(|history| history.has_snapshot())?;
        let (view, folded) = (short.view()?, controls.recorded.view()?);
        let is_alike = view.places_like(&folded) && view.buckets().eq(folded.buckets());
        if is_alike || controls.has_excused || !controls.excused.is_empty() {
            return None;
        }
        fail("a snapshot differs from the changes that it replaces".to_owned())
    }

    pub(super) fn control_input(&mut self, index: usize, input: ControlInput) {
        let machine = &mut self.machines[index];
        if machine.paused {
            // A request to a paused node is as good as lost.
            return;
        }
        let now = machine.clock.read(self.now_us);
        if let Some(control) = &mut self.machine_controls[index].control {
            let effects = control.step(now, input);
            self.carry_out_control(index, effects);
        }
    }

    fn carry_out_control(&mut self, index: usize, effects: ControlEffects) {
        if let Some(view) = effects.view {
            self.note(TraceKind::Report, &[index as u8], |cluster| {
                format!("{} applies history {}", cluster.name(index), view.ring.version())
            });
            self.input(index, Input::View(view));
            self.retire();
            if !self.machines[index].is_up() {
                return;
            }
        }
        if !effects.phases.is_empty() {
            self.input(index, Input::Phases(effects.phases));
        }
        if let Some(epoch) = effects.save_epoch {
            self.save_epoch(index, epoch);
        }
        if let Some(epoch) = effects.epoch {
            self.enter_epoch(index, epoch);
        }
        if let Some(liveness) = effects.liveness {
            self.note_liveness(index, &liveness);
            self.input(index, Input::Liveness(liveness));
        }
        for (to, envelope) in effects.sends {
            self.send_notice(index, self.cluster.index(to).expect("notices go to members"), envelope);
        }
        let boot = self.machines[index].boot;
        if let Some(history) = effects.save {
            let rng = &mut self.controls.as_mut().expect("the nodes have controls").rng;
            let (delay_us, stored, is_reported) = (rng.waiting_us(5_000), !rng.chance(50), !rng.chance(20));
            let event =
                Event::SettingsSaved { machine: index, boot, history, stored, failed: !(stored && is_reported) };
            self.schedule(self.now_us + 1 + delay_us, event);
        }
        for (client, reply) in effects.replies {
            if reply.is_ok() {
                self.controls.as_mut().expect("the nodes have controls").acknowledged.insert(client.0 as u32);
            }
            self.note(TraceKind::Reply, &client.0.to_le_bytes(), |cluster| {
                format!("{} answers a change of settings: {reply:?}", cluster.name(index))
            });
        }
        let machine = &self.machines[index];
        let wake_at_us = effects.wake_at.map(|at| machine.clock.simulated_us(at).max(self.now_us));
        let at = &mut self.machine_controls[index];
        if at.wake_at_us != wake_at_us {
            at.wake_at_us = wake_at_us;
            if let Some(at_us) = wake_at_us {
                self.schedule(at_us, Event::ControlTick { machine: index, boot });
            }
        }
    }

    fn send_notice(&mut self, from: usize, to: usize, envelope: Envelope) {
        let frame = cartwheel_core::wire::encode_envelope(&envelope);
        match cartwheel_core::wire::decode_envelope(frame.clone()) {
            Ok(decoded) if decoded == envelope => {}
            decoded => self.fail("a message survives its codec", None, format!("{envelope:?} became {decoded:?}")),
        }
        let controls = self.controls.as_mut().expect("the nodes have controls");
        let rng = match envelope.message {
            Message::Notice(Notice::Swim(_)) => &mut controls.probes_rng,
            Message::Notice(Notice::Epoch(_)) => &mut controls.epochs_rng,
            _ => &mut controls.rng,
        };
        let delays = self.network.send_by(rng, from, to);
        self.note(TraceKind::Send, &frame, |cluster| {
            let what = match &envelope.message {
                Message::Notice(Notice::History(history) | Notice::Complement(history)) => {
                    format!("history {}", history.version())
                }
                Message::Notice(Notice::Changes(Changes { since, version, .. })) => {
                    format!("the changes from {since} to {version}")
                }
                message => format!("{message:?}"),
            };
            format!(
                "{} -> {} {}: {what}",
                cluster.name(from),
                cluster.name(to),
                ["lost", "sent", "twice"][delays.len()]
            )
        });
        for delay_us in delays {
            let event = Event::DeliverNotice { from, to, envelope: Box::new(envelope.clone()) };
            self.schedule(self.now_us + delay_us, event);
        }
    }

    pub(super) fn deliver_notice(&mut self, from: usize, to: usize, envelope: Envelope) {
        if self.machines[to].is_up() && self.network.arrives(from, to) {
            if matches!(envelope.message, Message::Notice(Notice::Drained(..))) {
                self.machine_controls[from].has_handed_over = true;
            }
            self.control_input(to, ControlInput::Message(Box::new(envelope)));
        }
    }

    pub(super) fn settings_saved(&mut self, machine: usize, boot: u32, history: Bytes, stored: bool, failed: bool) {
        if self.machines[machine].boot != boot || !self.machines[machine].is_up() {
            return;
        }
        if stored {
            let known = History::decode(&history).expect("a saved history can be decoded");
            if let Some(controls) = &mut self.controls {
                controls.record(&known);
            }
            self.machine_controls[machine].saved = Some(history);
            self.start_new_members(&known);
        }
        // The disk ends its command although the machine is paused; the result reaches the node later.
        if self.machines[machine].paused {
            self.schedule(self.now_us + 1_000, Event::SettingsEnded { machine, boot, failed });
        } else {
            self.settings_ended(machine, boot, failed);
        }
    }

    pub(super) fn settings_ended(&mut self, machine: usize, boot: u32, failed: bool) {
        if self.machines[machine].boot != boot || !self.machines[machine].is_up() {
            return;
        }
        if self.machines[machine].paused {
            return self.schedule(self.now_us + PAUSED_US, Event::SettingsEnded { machine, boot, failed });
        }
        let result = if failed { Err(WriteFailed::Uncertain) } else { Ok(()) };
        self.control_input(machine, ControlInput::Saved(result));
    }

    pub(super) fn control_tick(&mut self, machine: usize, boot: u32) {
        let now_us = self.now_us;
        let at = &mut self.machine_controls[machine];
        if self.machines[machine].boot != boot || at.wake_at_us != Some(now_us) {
            return;
        }
        if self.machines[machine].paused {
            at.wake_at_us = Some(now_us + PAUSED_US);
            return self.schedule(now_us + PAUSED_US, Event::ControlTick { machine, boot });
        }
        at.wake_at_us = None;
        self.control_input(machine, ControlInput::Tick);
    }
}

/// The marks of changes.
fn marks<'c>(changes: impl Iterator<Item = &'c Change>) -> BTreeSet<u32> {
    let mark = |kind: &ChangeKind| match kind {
        ChangeKind::Bucket { settings, .. } => settings.max_value_bytes,
        _ => None,
    };
    changes.filter_map(|change| mark(&change.what)).collect()
}
