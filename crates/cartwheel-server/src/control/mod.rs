//! A node's control at work: its state machine, the file that it keeps, and who hears of a new view.

mod epoch_metrics;
mod liveness_metrics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::liveness::{Liveness, Status};
use cartwheel_core::cluster::membership::{History, View};
use cartwheel_core::control::{Changed, Control, ControlEffects, ControlInput, EpochStatus, MembersChanged, Surveyed};
use cartwheel_core::message::client::{ClientId, Refusal};
use cartwheel_core::message::gossip::Inquiry;
use cartwheel_core::store::command::WriteFailed;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::control_queue::{ControlInbox, INBOX_MAX, Work};
use crate::data_dir::{EpochFile, HistoryFile, SavedEpoch};
use crate::os::clock::Clock;
use crate::peers::{Peer, Peers};
use crate::shard::{News, PhasesBox, Shards};
pub use epoch_metrics::EpochMetrics;
pub use liveness_metrics::LivenessMetrics;

/// What a control works with.
#[derive(Debug)]
pub struct Surroundings {
    /// Where the history is kept.
    pub file: HistoryFile,
    /// Who goes by the view, and knows which buckets hold something.
    pub shards: Shards,
    /// This node.
    pub own: NodeId,
    /// Who is told of changes.
    pub peers: Arc<Peers>,
    /// What time it is.
    pub clock: Clock,
    /// Who else goes by the view.
    pub view: watch::Sender<Arc<View>>,
    /// Who else goes by what this node thinks of the others.
    pub liveness: watch::Sender<Arc<Liveness>>,
    /// Where that is counted.
    pub metrics: LivenessMetrics,
    /// Where the epoch is kept, and what is kept there.
    pub epoch_file: EpochFile,
    /// One that the cluster had reached when the directory was made, as the file says.
    pub reached: Epoch,
    /// What each shard tells.
    pub news: Vec<News>,
    /// Whether no client is served any more. Only then does a node that leaves say that it has handed over everything: the others
    /// talk to it until they have recorded that, and what its last clients asked for may need them.
    pub unserved: watch::Receiver<bool>,
    /// Who else looks at the history.
    pub history: watch::Sender<Arc<History>>,
    /// The same, encoded, for those who want to be let in.
    pub encoded_history: watch::Sender<Bytes>,
    /// Who else looks at what holds in partitions.
    pub phases: watch::Sender<Arc<Vec<ConfigPhase>>>,
    /// Who else looks at whom this node has compared with what it knows of what holds in partitions.
    pub compared: watch::Sender<BTreeSet<NodeId>>,
    /// Who else looks at epochs.
    pub epochs: watch::Sender<EpochStatus>,
    /// Where they are shown.
    pub epoch_metrics: EpochMetrics,
}

/// Runs a control until `stop` is true.
pub async fn run(control: Control, inbox: ControlInbox, around: Surroundings, mut stop: watch::Receiver<bool>) {
    let (answers, answered) = mpsc::channel(INBOX_MAX);
    for (node, connection) in around.peers.connections() {
        tokio::spawn(watch_connection(node, connection, answers.clone()));
    }
    for (shard_id, news) in (0..).zip(around.news.clone()) {
        tokio::spawn(watch_shard(news.finished, move |epoch| ControlInput::Finished(shard_id, epoch), answers.clone()));
        let drained = move |is_drained| ControlInput::Drained(shard_id, is_drained);
        let (mut unserved, told) = (around.unserved.clone(), answers.clone());
        tokio::spawn(async move {
            if unserved.wait_for(|unserved| *unserved).await.is_ok() {
                watch_shard(news.drained, drained, told).await;
            }
        });
        tokio::spawn(watch_phases(news.phases, answers.clone()));
    }
    tokio::spawn(tell_shards(around.shards.clone(), around.liveness.subscribe()));
    let running = Running {
        control,
        around,
        answers,
        clients: Waiting::default(),
        administrators: Waiting::default(),
        surveyors: Waiting::default(),
        clients_begun: 0,
        wake_at: None,
        held_at: tokio::time::Instant::now() + EPOCH_HELD_AFTER,
    };
    tokio::select! {
        () = running.serve(inbox.0, answered) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

struct Running {
    control: Control,
    around: Surroundings,
    /// Where what was begun outside the state machine ends.
    answers: mpsc::Sender<ControlInput>,
    clients: Waiting<Result<Changed, Refusal>>,
    administrators: Waiting<Result<MembersChanged, Refusal>>,
    surveyors: Waiting<Surveyed>,
    clients_begun: u64,
    wake_at: Option<Instant>,
    /// When it is said next who holds the epoch still.
    held_at: tokio::time::Instant,
}

/// Those who wait for an answer of one kind.
struct Waiting<T>(BTreeMap<ClientId, oneshot::Sender<T>>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Waiting<T> {
    /// One more waits, under a number of its own.
    fn begin(&mut self, begun: &mut u64, reply: oneshot::Sender<T>) -> ClientId {
        *begun += 1;
        let client = ClientId(*begun);
        self.0.insert(client, reply);
        client
    }

    fn answer(&mut self, replies: Vec<(ClientId, T)>) {
        for (client, reply) in replies {
            if let Some(client) = self.0.remove(&client) {
                // One that has gone away is no concern of ours.
                let _ = client.send(reply);
            }
        }
    }
}

/// How long an epoch may last before it is said who holds it still, and how often that is said.
const EPOCH_HELD_AFTER: Duration = Duration::from_secs(5 * 60);

impl Running {
    async fn serve(mut self, mut inbox: mpsc::Receiver<Work>, mut answered: mpsc::Receiver<ControlInput>) {
        self.step(ControlInput::Tick).await;
        loop {
            let patience = self.wake_at.map(|at| at.since(self.around.clock.instant()));
            let input = tokio::select! {
                Some(answer) = answered.recv() => answer,
                Some(work) = inbox.recv() => self.take(work),
                () = sleep(patience) => ControlInput::Tick,
            };
            self.step(input).await;
        }
    }

    fn tell_liveness(&self, liveness: Arc<Liveness>) {
        let before = self.around.liveness.send_replace(liveness.clone());
        self.around.metrics.changed(&before, &liveness);
        self.around.peers.doubt(&liveness);
        let view = self.control.view();
        for (node, standing) in liveness.iter().filter(|&(node, now)| before.status(node) != now.status) {
            let name = view.member(node).map_or("", |known| known.member.name.as_str());
            match standing.status {
                Status::Alive => info!("{name} is alive: {}", standing.why),
                Status::Suspect => info!("{name} is {}: {}", standing.status, standing.why),
                Status::Down => warn!("{name} is {}: {}", standing.status, standing.why),
            }
        }
    }

    fn take(&mut self, work: Work) -> ControlInput {
        match work {
            Work::Input(input) => input,
            Work::Change(change, reply) => {
                ControlInput::Change(self.clients.begin(&mut self.clients_begun, reply), change)
            }
            Work::Members(change, reply) => {
                ControlInput::ChangeMembers(self.administrators.begin(&mut self.clients_begun, reply), change)
            }
            Work::Survey(survey, reply) => {
                ControlInput::Survey(self.surveyors.begin(&mut self.clients_begun, reply), survey)
            }
        }
    }

    /// Says who holds the epoch still, if it has lasted too long: all the while nothing deleted is reclaimed anywhere.
    fn complain_of_epoch(&mut self) {
        if tokio::time::Instant::now() < self.held_at {
            return;
        }
        self.held_at = tokio::time::Instant::now() + EPOCH_HELD_AFTER;
        let (status, view) = (self.control.epoch_status(), self.control.view());
        let names = status.waits_for.iter().filter_map(|&node| Some(view.member(node)?.member.name.as_str()));
        let names: Vec<&str> = names.collect();
        warn!(
            "epoch {} has not ended for minutes, so the space of what is deleted is not reclaimed: it waits for {}; bring the node back, \
             or renew it if its disk is gone",
            status.epoch,
            names.join(", ")
        );
    }

    /// Dials those who have come, and those who have moved.
    fn dial_members(&self, view: &View) {
        let peers = &self.around.peers;
        let new = peers.go_by(other_members(view, self.around.own));
        for (node, connection) in peers.connections().into_iter().filter(|(node, _)| new.contains(node)) {
            tokio::spawn(watch_connection(node, connection, self.answers.clone()));
        }
    }

    fn save_epoch(&self, epoch: Epoch) {
        let (file, answers) = (self.around.epoch_file.clone(), self.answers.clone());
        let saved = SavedEpoch { epoch, reached: self.around.reached };
        tokio::task::spawn_blocking(move || {
            let saved = file.save(saved).map_err(|error| {
                error!("the epoch could not be saved and will be tried again; nothing deleted is reclaimed until then: {error}");
                WriteFailed::Uncertain
            });
            let _ = answers.blocking_send(ControlInput::EpochSaved(saved));
        });
    }

    async fn step(&mut self, input: ControlInput) {
        let effects = self.control.step(self.around.clock.now(), input);
        let ControlEffects {
            sends,
            replies,
            member_replies,
            surveyed,
            phases,
            phases_changed,
            save,
            save_epoch,
            epoch,
            epoch_status,
            view,
            liveness,
            nonsense,
            inquiries,
            wake_at,
        } = effects;
        self.wake_at = wake_at;
        if let Some(view) = view {
            info!("the cluster's settings are now of version {}", view.ring.version());
            // Whoever hears that a change is made finds this node going by it.
            self.around.shards.set_view(&view).await;
            self.dial_members(&view);
            self.around.history.send_replace(Arc::new(self.control.history().clone()));
            self.around.encoded_history.send_replace(self.control.history().encode());
            self.around.view.send_replace(view);
        }
        if !phases.is_empty() {
            self.around.shards.set_phases(phases).await;
        }
        self.around.compared.send_if_modified(|compared| {
            let known = self.control.compared();
            let is_news = compared != known;
            if is_news {
                compared.clone_from(known);
            }
            is_news
        });
        if phases_changed {
            self.around.phases.send_replace(Arc::new(self.control.phases().to_vec()));
        }
        self.administrators.answer(member_replies);
        self.surveyors.answer(surveyed);
        self.around.metrics.refused(nonsense);
        if let Some(liveness) = liveness {
            self.tell_liveness(liveness);
        }
        if let Some(epoch) = epoch {
            self.around.shards.set_epoch(epoch).await;
            self.held_at = tokio::time::Instant::now() + EPOCH_HELD_AFTER;
        }
        self.complain_of_epoch();
        if let Some(status) = epoch_status {
            self.around.epoch_metrics.changed(&status);
            self.around.epochs.send_replace(status);
        }
        if let Some(epoch) = save_epoch {
            self.save_epoch(epoch);
        }
        for (to, envelope) in sends {
            self.around.peers.send(to, &[envelope]);
        }
        self.clients.answer(replies);
        if let Some(history) = save {
            let (file, answers) = (self.around.file.clone(), self.answers.clone());
            tokio::task::spawn_blocking(move || {
                let saved = file.save(&history).map_err(|error| {
                    error!("a change of the cluster's settings could not be saved and will be tried again: {error}");
                    WriteFailed::Uncertain
                });
                let _ = answers.blocking_send(ControlInput::Saved(saved));
            });
        }
        for Inquiry { id, partitions } in inquiries {
            let (shards, answers) = (self.around.shards.clone(), self.answers.clone());
            tokio::spawn(async move {
                let report = shards.sizes(&partitions).await;
                let _ = answers.send(ControlInput::Report(id, report)).await;
            });
        }
    }
}

/// Tells the control what a shard says of itself, whenever that changes.
async fn watch_shard<T: Copy>(
    mut said: watch::Receiver<T>,
    input: impl Fn(T) -> ControlInput,
    control: mpsc::Sender<ControlInput>,
) {
    while said.changed().await.is_ok() {
        let now = *said.borrow_and_update();
        if control.send(input(now)).await.is_err() {
            return;
        }
    }
}

/// Tells the control what a shard knows of who holds its partitions.
async fn watch_phases(phases: PhasesBox, control: mpsc::Sender<ControlInput>) {
    loop {
        let phases = phases.take().await;
        if control.send(ControlInput::Phases(phases)).await.is_err() {
            return;
        }
    }
}

/// The other members of a cluster, and where they are.
pub fn other_members(view: &View, own: NodeId) -> Vec<Peer> {
    let others = view.members().map(|member| &member.member).filter(|member| member.id != own);
    others.map(|member| Peer { node: member.id, name: member.name.clone(), addr: member.peer_addr.clone() }).collect()
}

/// Tells the control when a connection comes about, breaks or cannot be made.
async fn watch_connection(node: NodeId, mut connection: watch::Receiver<bool>, control: mpsc::Sender<ControlInput>) {
    // At first there is none because none was tried.
    let mut last = Some(*connection.borrow_and_update()).filter(|&stands| stands);
    if last.is_some() && control.send(ControlInput::Reachable(node)).await.is_err() {
        return;
    }
    while connection.changed().await.is_ok() {
        let stands = *connection.borrow_and_update();
        if last.replace(stands) != Some(stands) {
            let input = if stands { ControlInput::Reachable(node) } else { ControlInput::Unreachable(node) };
            if control.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// Tells the shards what to think of the other nodes. A shard that is busy does not hold the control up: it answers probes.
async fn tell_shards(shards: Shards, mut liveness: watch::Receiver<Arc<Liveness>>) {
    while liveness.changed().await.is_ok() {
        let latest = liveness.borrow_and_update().clone();
        shards.set_liveness(&latest).await;
    }
}

async fn sleep(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}
