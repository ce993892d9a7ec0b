//! The part of a node that is there once, whatever number of shards it has: it keeps the history of changes, lets it spread, and
//! hands each shard the view that follows from it.
//!
//! Like [`crate::node::Node`] it is a state machine without input or output. Nothing that is not saved is told to anyone: a
//! change that a client or a peer has heard of survives a crash of this node.
//!
//! **Spreading.** Every second a node tells one random member which version of the history it has. Who has had that version answers
//! with what came since, who has not asks for what it lacks; both then hold the union, for histories merge as sets. A new change is
//! told to everyone at once or, in a large cluster, to a handful, who tell a handful each. Whoever let a node in may die before others
//! hear of it: so that node tells those who do not answer what let it in, and that is the one word of a stranger that is heard.

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
pub use change::{Changed, SNAPSHOT_AFTER, SettingsChange};
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

/// How often a node tells another which version it has.
const GOSSIP_EVERY: Duration = Duration::from_secs(1);
/// How long a node waits before it tries again to save what it could not.
const SAVE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many changes may be under way at once, of clients of this node.
const PENDING_MAX: usize = 64;
/// How many others a node tells of something when it does not tell all.
const TOLD: usize = 4;

/// What has happened.
#[derive(Clone, Debug)]
pub enum ControlInput {
    /// A client of this node wants a bucket's settings changed.
    Change(ClientId, SettingsChange),
    /// An administrator wants members changed.
    ChangeMembers(ClientId, MembersChange),
    /// An administrator wants to know how much nodes hold.
    Survey(ClientId, Survey),
    /// The shards of this node go by these phases from now on.
    Phases(Vec<(PartitionId, ConfigPhase)>),
    /// The shard with this index holds nothing any more that its node, which is leaving, is to hand over; or it does.
    Drained(u32, bool),
    /// A peer's message has arrived.
    Message(Box<Envelope>),
    /// What this node's shards say to one of [`ControlEffects::inquiries`]; none if they cannot say.
    Report(InquiryId, Option<NodeSizes>),
    /// The connection to a node has come about.
    Reachable(NodeId),
    /// The connection to a node broke, or cannot be made.
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

/// What is to be done after a step, in any order.
#[derive(Debug, Default)]
pub struct ControlEffects {
    /// Messages to peers.
    pub sends: Vec<(NodeId, Envelope)>,
    /// Answers to clients.
    pub replies: Vec<(ClientId, Result<Changed, Refusal>)>,
    /// Answers to administrators.
    pub member_replies: Vec<(ClientId, Result<MembersChanged, Refusal>)>,
    /// Answers to surveys; they never fail, but may say nothing of some nodes.
    pub surveyed: Vec<(ClientId, Surveyed)>,
    /// What holds in partitions, as others know it, for the shards.
    pub phases: Vec<(PartitionId, ConfigPhase)>,
    /// [`Control::phases`] says something else than before.
    pub phases_changed: bool,
    /// The encoded history, to be kept in the place of the one before, synced; answered by one [`ControlInput::Saved`]. There is
    /// never more than one under way.
    pub save: Option<Bytes>,
    /// The epoch to be kept in the place of the one before, synced; answered by one [`ControlInput::EpochSaved`].
    pub save_epoch: Option<Epoch>,
    /// The epoch from now on, for the shards.
    pub epoch: Option<Epoch>,
    /// How far the cluster is with it from now on, as this node sees it.
    pub epoch_status: Option<EpochStatus>,
    /// The view from now on.
    pub view: Option<Arc<View>>,
    /// What to think of the other nodes from now on.
    pub liveness: Option<Arc<Liveness>>,
    /// How many packets of SWIM made no sense.
    pub nonsense: u64,
    /// Questions to the shards; each is answered by one [`ControlInput::Report`].
    pub inquiries: Vec<Inquiry>,
    /// When it wants a [`ControlInput::Tick`] at the latest.
    pub wake_at: Option<Instant>,
}

/// What it is told at its start.
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
    /// Where its randomness starts. Two boots must not share one.
    pub seed: u64,
    /// The epoch that is saved; [`Epoch::UNKNOWN`] in an incarnation that has not heard of any.
    pub epoch: Epoch,
    /// One that the cluster had reached when this incarnation was made.
    pub epoch_floor: Epoch,
    /// How many shards it has.
    pub shards: u32,
    /// How many changes the history holds when a snapshot takes their place ([`SNAPSHOT_AFTER`]).
    pub snapshot_after: usize,
    /// Which rule of the protocol is broken on purpose; none, but in a test of the tests.
    pub broken: Broken,
}

/// The control state machine of one node.
#[derive(Debug)]
pub struct Control {
    config: ControlConfig,
    /// What is saved, and so may be told.
    history: History,
    /// What follows from it.
    view: Arc<View>,
    /// What is to be saved: `history`, and what was learnt since.
    wanted: History,
    /// What is being saved.
    saving: Option<History>,
    next_save: Instant,
    next_gossip: Instant,
    random: ChaCha8Rng,
    views: Box<dyn Views>,
    /// The members of the view but this node.
    others: Vec<NodeId>,
    recent: Recent,
    /// The version that each peer last said it has.
    peers: BTreeMap<NodeId, RingVersion>,
    pending: Vec<Pending>,
    recordings: Vec<Recording>,
    surveys: Vec<Surveying>,
    phases: Phases,
    /// Which shards hold nothing any more that this node is to hand over.
    drained: Vec<bool>,
    inquiries: Inquiries,
    epochs: Epochs,
    detector: Detector,
    /// The view whose members the detector goes by.
    detected: Option<Arc<View>>,
}

impl Control {
    /// The control of a node that has saved `history`; none if that makes no cluster.
    pub fn new(config: ControlConfig, history: History) -> Option<Self> {
        Self::with_views(config, history, Box::new(Folded::default()))
    }

    /// The same, with its views made by `views`.
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

    /// The view that follows from what is saved.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// What this node thinks of every other; nothing before the first step.
    pub const fn liveness(&self) -> &Arc<Liveness> {
        self.detector.liveness()
    }

    /// What is saved.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// Takes in one input at the time `now` and says what is to be done.
    pub fn step(&mut self, now: Now, input: ControlInput) -> ControlEffects {
        let mut effects = ControlEffects::default();
        self.detect_members(now, &mut effects);
        self.go_by_members();
        match input {
            ControlInput::Change(client, change) => self.change(now, client, change, &mut effects),
            ControlInput::ChangeMembers(client, change) => self.change_members(now, client, change, &mut effects),
            ControlInput::Survey(client, survey) => self.survey(now, client, survey, &mut effects),
            ControlInput::Phases(phases) => self.phases_here(now, phases, &mut effects),
            ControlInput::Drained(shard_id, is_drained) => self.drained(shard_id, is_drained),
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
            self.see_off(now, &mut effects);
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

    /// A random number below `bound`, which is not 0.
    fn random_below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound as u64) as usize
    }

    fn gossip(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.others.is_empty() {
            return;
        }
        let place = self.random_below(self.others.len());
        let peer = self.others[place];
        self.send(now, peer, self.greeting(peer), effects);
        self.tell_epoch_again(now, peer, effects);
        self.tell_phases(now, peer, effects);
    }

    fn version(&self) -> RingVersion {
        self.view.ring.version()
    }

    /// Takes in what a member says, and who it is that nobody here has heard of.
    fn message(&mut self, now: Now, envelope: Envelope, effects: &mut ControlEffects) {
        let (from, sender) = (envelope.from, (envelope.from, envelope.from_incarnation, envelope.from_boot));
        let Message::Notice(notice) = envelope.message else { return };
        if envelope.cluster != self.config.cluster || self.view.is_gone(from, envelope.from_incarnation) {
            return;
        }
        if self.view.member(from).is_none() {
            if let Notice::Changes(Changes { changes, .. }) = notice {
                self.stranger_came(Home { node: from, incarnation: envelope.from_incarnation }, &changes);
            }
            return;
        }
        match notice {
            Notice::Epoch(notice) => self.epochs.heard(from, envelope.from_incarnation, &notice),
            Notice::Swim(packet) => self.hear(now, sender, &packet, effects),
            Notice::Phases(notice) => self.phases_there(now, from, notice, effects),
            Notice::Drained(incarnation, version) => self.has_drained(now, from, incarnation, version, effects),
            Notice::Have(version) => self.peer_has(now, from, version, effects),
            Notice::Want(had) => self.wanted_by(now, from, &had, effects),
            Notice::Changes(changes) => self.changes_came(now, from, changes, effects),
            Notice::History(history) => self.history_came(now, from, &history, effects),
            Notice::Complement(history) => drop(self.learn_all(now, from, &history, effects)),
            Notice::Inquiry(inquiry) => self.inquiries.asked(from, inquiry, effects),
            Notice::Report(id, report) => self.surveyed(from, id, report),
        }
    }

    fn hear(&mut self, now: Now, sender: (NodeId, Incarnation, u32), packet: &[u8], effects: &mut ControlEffects) {
        let mut output = DetectorOutput::default();
        if !self.detector.heard(now, sender, packet, &mut output) {
            effects.nonsense += 1;
        }
        self.tell(now, output, effects);
    }

    fn connected(&mut self, now: Now, node: NodeId, connected: bool, effects: &mut ControlEffects) {
        let mut output = DetectorOutput::default();
        self.detector.connected(now, node, connected, &mut output);
        self.tell(now, output, effects);
        if connected && self.view.member(node).is_some() {
            self.tell_phases(now, node, effects);
        }
    }

    /// Has the detector go by the members of the view.
    fn detect_members(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.detected.as_ref().is_none_or(|detected| !Arc::ptr_eq(detected, &self.view)) {
            let mut output = DetectorOutput::default();
            self.detector.set_members(now, &self.view, &mut output);
            self.detected = Some(self.view.clone());
            self.tell(now, output, effects);
        }
    }

    /// Lets the detector do what is due.
    fn detect(&mut self, now: Now, effects: &mut ControlEffects) {
        self.detect_members(now, effects);
        let mut output = DetectorOutput::default();
        effects.liveness = self.detector.tick(now, &mut output);
        self.tell(now, output, effects);
    }

    fn tell(&self, now: Now, output: DetectorOutput, effects: &mut ControlEffects) {
        for (to, packet) in output.sends {
            self.send(now, to, Notice::Swim(packet), effects);
        }
    }

    /// Whether there is anything to save: what is wanted grows out of what is saved.
    fn has_unsaved(&self) -> bool {
        self.history.is_before(&self.wanted)
    }

    /// Has a snapshot take the place of the changes once there are many, and every member has said that it knows exactly these, whether or not it
    /// is there now. One that is there sees to it, or whoever finds it so if that one does not: as long as changes come one upon the other, only
    /// those hear from everybody through whom they come. Who knows the same comes to the same.
    fn take_snapshot(&mut self) {
        // A snapshot and the founding are left at the least.
        let after = self.config.snapshot_after.max(2);
        if self.history.len() <= after || self.saving.is_some() || self.has_unsaved() {
            return;
        }
        let is_first = self.first_of_those_who_stay() == Some(self.config.node);
        let is_mine = is_first || self.history.len() > 2 * after;
        if !is_mine || self.nodes_up_to_date() < self.view.members().len() {
            return;
        }
        if let Some(snapshot) = self.views.snapshot(&self.history) {
            self.wanted.take_snapshot(self.config.node, snapshot);
        }
    }

    /// Begins to save what is not saved, unless that is under way.
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
