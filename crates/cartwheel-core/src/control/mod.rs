//! The control state machine, one for each node, however many shards it has. It keeps the history of changes, spreads
//! it, and gives each shard the view that follows from it.
//!
//! Like [`crate::node::Node`] it does no input or output. It sends only what is saved: a change that a client or a peer
//! has seen survives a crash of this node.
//!
//! **Gossip.** Every second a node sends its version of the history to one random member. A member that has had this
//! version replies with the changes since; one that has not requests what it lacks. Then both hold the union, because
//! histories merge as sets. A new change is sent to all members at once, or, in a large cluster, to a few, which send
//! it to a few each. The node that added a member may die before it has spread that change. So a new member sends the
//! change that added it to members that do not answer, and this is the one message that is accepted from a non-member.

mod change;
mod detector;
mod epochs;
mod inquiries;
mod member_list;
mod members;
mod phases;
mod spread;
mod survey;
mod swim;
mod swim_members;
mod verdict;
mod verdicts;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::cluster::configuration::{ConfigPhase, ConfigStamp, Home};
use crate::cluster::liveness::Liveness;
use crate::cluster::membership::{Folded, History, View};
use crate::cluster::sizes::NodeSizes;
use crate::message::client::{ClientId, Refusal};
use crate::message::gossip::{Changes, Inquiry, InquiryId, Notice};
use crate::message::{Envelope, Message};
use crate::mutation::{Broken, Mutation};
use crate::ring::{PartitionId, RingVersion};
use crate::store::command::WriteFailed;
use crate::value::cluster_id::ClusterId;
use crate::value::dot::{Incarnation, NodeId};
use crate::value::epoch::Epoch;
use crate::value::time::{Instant, Now};
use change::Pending;
pub use change::{Changed, NewForm, SNAPSHOT_AFTER, SettingsChange};
pub use detector::PROBE_EVERY;
use detector::{Detector, DetectorOutput};
pub use epochs::EpochStatus;
use epochs::Epochs;
use inquiries::Inquiries;
use members::Recording;
pub use members::{MembersChange, MembersChanged};
use phases::Phases;
use spread::Recent;
use survey::Surveying;
pub use survey::{Survey, Surveyed};
pub use views::Views;

/// How often a node sends its version to a random member.
const GOSSIP_EVERY: Duration = Duration::from_secs(1);
/// How long a node waits before it saves again after a failure.
const SAVE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many changes of settings (and of members, and surveys) of this node's clients may be under way at once.
const PENDING_MAX: usize = 64;
/// How many members a message goes to when it does not go to all.
const FANOUT: usize = 4;

/// An input of the control.
#[derive(Clone, Debug)]
pub enum ControlInput {
    /// A client of this node changes a bucket's settings.
    Change(ClientId, SettingsChange),
    /// An administrator changes members.
    ChangeMembers(ClientId, MembersChange),
    /// An administrator surveys how much nodes hold.
    Survey(ClientId, Survey),
    /// The shards of this node have adopted these phases.
    Phases(Vec<(PartitionId, ConfigPhase)>),
    /// Whether the shard with this index has handed over all that its leaving node must hand over.
    Drained(u32, bool),
    /// Whether this node drains from now on. A node that starts does not.
    Drain(bool),
    /// A peer's message has arrived.
    Message(Box<Envelope>),
    /// The shards' reply to one of [`ControlEffects::inquiries`]; none if they cannot report.
    Report(InquiryId, Option<NodeSizes>),
    /// A connection to a node was made.
    Reachable(NodeId),
    /// A connection to a node broke or cannot be made.
    Unreachable(NodeId),
    /// [`ControlEffects::save`] has ended.
    Saved(Result<(), WriteFailed>),
    /// [`ControlEffects::save_epoch`] has ended.
    EpochSaved(Result<(), WriteFailed>),
    /// The shard with this index has finished an epoch.
    Finished(u32, Epoch),
    /// The time of [`ControlEffects::wake_at`] has come.
    Tick,
}

/// What the caller must do after a step, in any order.
#[derive(Debug, Default)]
pub struct ControlEffects {
    /// Messages to peers.
    pub sends: Vec<(NodeId, Envelope)>,
    /// Replies to clients that changed settings.
    pub replies: Vec<(ClientId, Result<Changed, Refusal>)>,
    /// Replies to administrators that changed members.
    pub member_replies: Vec<(ClientId, Result<MembersChanged, Refusal>)>,
    /// Replies to surveys. They never fail, but may lack some nodes.
    pub surveyed: Vec<(ClientId, Surveyed)>,
    /// Phases of partitions that peers have reported, for the shards.
    pub phases: Vec<(PartitionId, ConfigPhase)>,
    /// Whether [`Control::phases`] has changed.
    pub phases_changed: bool,
    /// The encoded history, to replace the saved one, synced. The caller answers with one [`ControlInput::Saved`].
    /// Never more than one is under way.
    pub save: Option<Bytes>,
    /// The epoch, to replace the saved one, synced. The caller answers with one [`ControlInput::EpochSaved`].
    pub save_epoch: Option<Epoch>,
    /// The new epoch, for the shards.
    pub epoch: Option<Epoch>,
    /// The new status of the epoch.
    pub epoch_status: Option<EpochStatus>,
    /// The new view.
    pub view: Option<Arc<View>>,
    /// The new liveness of the other nodes.
    pub liveness: Option<Arc<Liveness>>,
    /// The number of SWIM packets that made no sense.
    pub nonsense: u64,
    /// Requests to the shards. The caller answers each with one [`ControlInput::Report`].
    pub inquiries: Vec<Inquiry>,
    /// When it needs a [`ControlInput::Tick`] at the latest.
    pub wake_at: Option<Instant>,
}

/// The configuration of a control.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its boot.
    pub boot: u32,
    /// The seed of its random numbers. No two boots may share one.
    pub seed: u64,
    /// The saved epoch; [`Epoch::UNKNOWN`] for an incarnation that has not learned one yet.
    pub epoch: Epoch,
    /// An epoch that the cluster had reached when this incarnation was created.
    pub epoch_floor: Epoch,
    /// The number of shards.
    pub shards: u32,
    /// How many changes the history holds before a snapshot replaces them ([`SNAPSHOT_AFTER`]).
    pub snapshot_after: usize,
    /// The protocol rule that is broken on purpose, to test the tests; otherwise none.
    pub broken: Broken,
}

/// The control state machine of one node.
#[derive(Debug)]
pub struct Control {
    config: ControlConfig,
    /// What is saved, and so may be sent.
    history: History,
    view: Arc<View>,
    /// What is to be saved: `history` and all changes since.
    wanted: History,
    saving: Option<History>,
    next_save: Instant,
    next_gossip: Instant,
    random: ChaCha8Rng,
    views: Box<dyn Views>,
    /// The members of the view except this node.
    others: Vec<NodeId>,
    recent: Recent,
    /// The version that each peer last reported.
    peers: BTreeMap<NodeId, RingVersion>,
    pending: Vec<Pending>,
    recordings: Vec<Recording>,
    surveys: Vec<Surveying>,
    phases: Phases,
    /// Whether each shard has handed over all that this node must hand over.
    drained: Vec<bool>,
    inquiries: Inquiries,
    epochs: Epochs,
    detector: Detector,
    /// The view whose members the detector knows.
    detected: Option<Arc<View>>,
}

impl Control {
    /// The control of a node that has saved `history`; none if that history does not make a cluster.
    pub fn new(config: ControlConfig, history: History) -> Option<Self> {
        Self::with_views(config, history, Box::new(Folded::default()))
    }

    /// [`Self::new`], with a custom maker of views.
    pub fn with_views(config: ControlConfig, history: History, mut views: Box<dyn Views>) -> Option<Self> {
        let view = views.view(&history)?;
        Some(Self {
            views,
            others: others(&view, config.node),
            recent: Recent::default(),
            random: ChaCha8Rng::seed_from_u64(config.seed),
            wanted: history.clone(),
            history,
            saving: None,
            next_save: Instant::default(),
            next_gossip: Instant::default(),
            peers: BTreeMap::new(),
            pending: Vec::new(),
            recordings: Vec::new(),
            surveys: Vec::new(),
            phases: Phases::new(&view),
            drained: vec![false; config.shards as usize],
            inquiries: Inquiries::new(config.incarnation, config.boot),
            epochs: Epochs::new(config.epoch, config.epoch_floor, config.shards),
            detector: Detector::new(&config),
            detected: None,
            view,
            config,
        })
    }

    /// The view of the saved history.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The liveness of the other nodes; empty before the first step.
    pub const fn liveness(&self) -> &Arc<Liveness> {
        self.detector.liveness()
    }

    /// The saved history.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// Takes in one input at the time `now` and returns what is to be done.
    pub fn step(&mut self, now: Now, input: ControlInput) -> ControlEffects {
        let mut effects = ControlEffects::default();
        self.detect_members(now, &mut effects);
        self.adopt_members();
        match input {
            ControlInput::Change(client, change) => self.change(now, client, change, &mut effects),
            ControlInput::ChangeMembers(client, change) => self.change_members(now, client, change, &mut effects),
            ControlInput::Survey(client, survey) => self.survey(now, client, survey, &mut effects),
            ControlInput::Phases(phases) => self.adopt_own_phases(now, phases, &mut effects),
            ControlInput::Drained(shard_id, is_drained) => self.drained(shard_id, is_drained),
            ControlInput::Drain(drains) => self.drain(now, drains, &mut effects),
            ControlInput::Message(envelope) => self.message(now, *envelope, &mut effects),
            ControlInput::Report(id, report) => self.shards_report(now, id, report, &mut effects),
            ControlInput::Reachable(node) => self.connected(now, node, true, &mut effects),
            ControlInput::Unreachable(node) => self.connected(now, node, false, &mut effects),
            ControlInput::Saved(result) => self.saved(now, result, &mut effects),
            ControlInput::EpochSaved(result) => self.epoch_saved(now, result, &mut effects),
            ControlInput::Finished(shard_id, epoch) => self.finished(shard_id, epoch),
            ControlInput::Tick => {}
        }
        self.end_pending(now, &mut effects);
        self.take_snapshot();
        self.end_recordings(now, &mut effects);
        self.end_surveys(now, &mut effects);
        if now.instant >= self.next_gossip {
            self.next_gossip = now.instant + GOSSIP_EVERY;
            self.gossip(now, &mut effects);
            self.record_departures(now, &mut effects);
        }
        self.save(now, &mut effects);
        self.turn_epoch(now, &mut effects);
        self.detect(now, &mut effects);
        let save_at = (self.saving.is_none() && self.has_unsaved()).then_some(self.next_save);
        let pending = self.pending.iter().map(|pending| pending.wake_at());
        let recordings = self.recordings.iter().map(Recording::wake_at);
        let surveys = self.surveys.iter().map(Surveying::wake_at);
        let clients = pending.chain(recordings).chain(surveys);
        effects.wake_at = clients.chain(save_at).chain(self.detector.wake_at()).chain([self.next_gossip]).min();
        effects
    }

    fn set_view(&mut self, view: Arc<View>) {
        self.others = others(&view, self.config.node);
        self.view = view;
    }

    /// A random number below `bound`, which must not be 0.
    fn random_below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound as u64) as usize
    }

    fn gossip(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.others.is_empty() {
            return;
        }
        let index = self.random_below(self.others.len());
        let peer = self.others[index];
        self.send(now, peer, self.greeting(peer), effects);
        self.resend_epoch(now, peer, effects);
        self.send_phases_digest(now, peer, effects);
    }

    fn version(&self) -> RingVersion {
        self.view.ring.version()
    }

    /// Takes in a notice of a member; of a non-member, only the change that adds it.
    fn message(&mut self, now: Now, envelope: Envelope, effects: &mut ControlEffects) {
        let (from, sender) = (envelope.from, (envelope.from, envelope.from_incarnation, envelope.from_boot));
        let Message::Notice(notice) = envelope.message else { return };
        if envelope.cluster != self.config.cluster || self.view.is_gone(from, envelope.from_incarnation) {
            return;
        }
        if self.view.member(from).is_none() {
            if let Notice::Changes(Changes { changes, .. }) = notice {
                self.on_stranger(Home { node: from, incarnation: envelope.from_incarnation }, &changes);
            }
            return;
        }
        match notice {
            Notice::Epoch(notice) => {
                self.epochs.on_notice(from, envelope.from_incarnation, &notice);
                self.detector.drains(now, from, envelope.from_boot, notice.drains);
            }
            Notice::Swim(packet) => self.on_swim_packet(now, sender, &packet, effects),
            Notice::Phases(notice) => self.on_phases(now, from, notice, effects),
            Notice::Drained(incarnation, version) => self.on_drained(now, from, incarnation, version, effects),
            Notice::Have(version) => self.on_version(now, from, version, effects),
            Notice::Want(had) => self.on_want(now, from, &had, effects),
            Notice::Changes(changes) => self.on_changes(now, from, changes, effects),
            Notice::History(history) => self.on_history(now, from, &history, effects),
            Notice::Complement(history) => drop(self.learn_all(now, from, &history, effects)),
            Notice::Inquiry(inquiry) => self.inquiries.on_inquiry(from, inquiry, effects),
            Notice::Report(id, report) => self.on_report(from, id, report),
        }
    }

    fn on_swim_packet(
        &mut self,
        now: Now,
        sender: (NodeId, Incarnation, u32),
        packet: &[u8],
        effects: &mut ControlEffects,
    ) {
        let mut output = DetectorOutput::default();
        if !self.detector.on_packet(now, sender, packet, &mut output) {
            effects.nonsense += 1;
        }
        self.send_packets(now, output, effects);
    }

    fn connected(&mut self, now: Now, node: NodeId, connected: bool, effects: &mut ControlEffects) {
        let mut output = DetectorOutput::default();
        self.detector.connected(now, node, connected, &mut output);
        self.send_packets(now, output, effects);
        if connected && self.view.member(node).is_some() {
            self.send_phases_digest(now, node, effects);
        }
    }

    /// Gives the detector the members of the view.
    fn detect_members(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.detected.as_ref().is_none_or(|detected| !Arc::ptr_eq(detected, &self.view)) {
            let mut output = DetectorOutput::default();
            self.detector.set_members(now, &self.view, &mut output);
            self.detected = Some(self.view.clone());
            self.send_packets(now, output, effects);
        }
    }

    fn detect(&mut self, now: Now, effects: &mut ControlEffects) {
        self.detect_members(now, effects);
        let mut output = DetectorOutput::default();
        effects.liveness = self.detector.tick(now, &mut output);
        self.send_packets(now, output, effects);
    }

    fn send_packets(&self, now: Now, output: DetectorOutput, effects: &mut ControlEffects) {
        for (to, packet) in output.sends {
            self.send(now, to, Notice::Swim(packet), effects);
        }
    }

    /// Whether there is anything to save. `wanted` always contains `history`.
    fn has_unsaved(&self) -> bool {
        self.history.is_before(&self.wanted)
    }

    /// Replaces the changes by a snapshot once there are many and every member, reachable or not, has reported exactly
    /// this history. The first reachable member does so, or, with twice as many changes, any member that finds it so:
    /// under a steady stream of changes, only the members that the changes come through hear from all others. Members
    /// with the same history make the same snapshot.
    fn take_snapshot(&mut self) {
        // A snapshot and the bootstrap always remain.
        let after = self.config.snapshot_after.max(2);
        if self.history.len() <= after || self.saving.is_some() || self.has_unsaved() {
            return;
        }
        let is_first = self.first_staying() == Some(self.config.node);
        let is_mine = is_first || self.history.len() > 2 * after;
        if !is_mine || self.nodes_up_to_date() < self.view.members().len() {
            return;
        }
        if let Some(snapshot) = self.views.snapshot(&self.history) {
            self.wanted.take_snapshot(self.config.node, snapshot);
        }
    }

    /// Begins to save what is not saved, unless a save is under way.
    fn save(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.saving.is_none() && self.has_unsaved() && now.instant >= self.next_save {
            if self.config.broken.is(Mutation::SettingsUnsaved) {
                let wanted = self.wanted.clone();
                return self.adopt(now, wanted, effects);
            }
            effects.save = Some(self.wanted.encode());
            self.saving = Some(self.wanted.clone());
        }
    }

    fn saved(&mut self, now: Now, result: Result<(), WriteFailed>, effects: &mut ControlEffects) {
        let Some(saving) = self.saving.take() else { return };
        match result {
            Ok(()) => self.adopt(now, saving, effects),
            Err(_) => self.next_save = now.instant + SAVE_RETRY_AFTER,
        }
    }

    fn send(&self, now: Now, to: NodeId, notice: Notice, effects: &mut ControlEffects) {
        if self.config.broken.is(Mutation::SettingsStayHome)
            && matches!(notice, Notice::Changes(_) | Notice::History(_) | Notice::Complement(_))
        {
            return;
        }
        let envelope = Envelope {
            cluster: self.config.cluster,
            from: self.config.node,
            from_incarnation: self.config.incarnation,
            from_boot: self.config.boot,
            sent: now,
            config_stamp: ConfigStamp::default(),
            trace: None,
            losses: crate::cluster::losses::Losses::NONE,
            message: Message::Notice(notice),
        };
        effects.sends.push((to, envelope));
    }
}

fn others(view: &View, me: NodeId) -> Vec<NodeId> {
    view.members().map(|known| known.member.id).filter(|&id| id != me).collect()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod detector_tests;
