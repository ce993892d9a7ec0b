//! Runs a node's control: its state machine, its history file, and the parts of the node that follow its view.

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
use crate::shard::{PhasesBox, ShardReports, Shards};
pub use epoch_metrics::EpochMetrics;
pub use liveness_metrics::LivenessMetrics;

/// What a control works with.
#[derive(Debug)]
pub struct Dependencies {
    /// The file of the history.
    pub file: HistoryFile,
    /// They follow the view, and know which buckets hold data.
    pub shards: Shards,
    /// This node.
    pub own: NodeId,
    /// The peers to which changes are sent.
    pub peers: Arc<Peers>,
    /// The node's clock.
    pub clock: Clock,
    /// Publishes the view.
    pub view: watch::Sender<Arc<View>>,
    /// Publishes the statuses of the other nodes.
    pub liveness: watch::Sender<Arc<Liveness>>,
    /// Counts changes of status.
    pub metrics: LivenessMetrics,
    /// The file of the epoch.
    pub epoch_file: EpochFile,
    /// An epoch that the cluster had reached when the directory was made, as the file records it.
    pub reached: Epoch,
    /// What each shard reports.
    pub reports: Vec<ShardReports>,
    /// True once no client is served any more. Only then does a leaving node report that it has handed over everything: the others stop
    /// talking to it when they have recorded that, and the last client requests may still need them.
    pub unserved: watch::Receiver<bool>,
    /// Publishes the history.
    pub history: watch::Sender<Arc<History>>,
    /// Publishes the encoded history, for nodes that join.
    pub encoded_history: watch::Sender<Bytes>,
    /// Publishes the configuration of each partition.
    pub phases: watch::Sender<Arc<Vec<ConfigPhase>>>,
    /// Publishes the nodes with which this node has compared its configurations.
    pub compared: watch::Sender<BTreeSet<NodeId>>,
    /// Publishes the status of the epoch.
    pub epochs: watch::Sender<EpochStatus>,
    /// Shows it in the metrics.
    pub epoch_metrics: EpochMetrics,
}

/// Runs a control until `stop` is true.
pub async fn run(control: Control, inbox: ControlInbox, deps: Dependencies, mut stop: watch::Receiver<bool>) {
    let (results, results_inbox) = mpsc::channel(INBOX_MAX);
    for (node, connection) in deps.peers.connections() {
        tokio::spawn(watch_connection(node, connection, results.clone()));
    }
    for (shard_id, reports) in (0..).zip(deps.reports.clone()) {
        tokio::spawn(watch_shard(
            reports.finished,
            move |epoch| ControlInput::Finished(shard_id, epoch),
            results.clone(),
        ));
        let drained = move |is_drained| ControlInput::Drained(shard_id, is_drained);
        let (mut unserved, control_inbox) = (deps.unserved.clone(), results.clone());
        tokio::spawn(async move {
            if unserved.wait_for(|unserved| *unserved).await.is_ok() {
                watch_shard(reports.drained, drained, control_inbox).await;
            }
        });
        tokio::spawn(watch_phases(reports.phases, results.clone()));
    }
    tokio::spawn(publish_to_shards(deps.shards.clone(), deps.liveness.subscribe()));
    let running = Running {
        control,
        deps,
        results,
        clients: Waiting::default(),
        administrators: Waiting::default(),
        surveyors: Waiting::default(),
        clients_begun: 0,
        wake_at: None,
        held_at: tokio::time::Instant::now() + EPOCH_HELD_AFTER,
    };
    tokio::select! {
        () = running.serve(inbox.0, results_inbox) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

struct Running {
    control: Control,
    deps: Dependencies,
    /// Results of work that was begun outside the state machine.
    results: mpsc::Sender<ControlInput>,
    clients: Waiting<Result<Changed, Refusal>>,
    administrators: Waiting<Result<MembersChanged, Refusal>>,
    surveyors: Waiting<Surveyed>,
    clients_begun: u64,
    wake_at: Option<Instant>,
    /// When to log again which members hold the epoch.
    held_at: tokio::time::Instant,
}

/// Clients that wait for one kind of result.
struct Waiting<T>(BTreeMap<ClientId, oneshot::Sender<T>>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Waiting<T> {
    /// Adds a waiting client under a new number.
    fn begin(&mut self, begun: &mut u64, reply: oneshot::Sender<T>) -> ClientId {
        *begun += 1;
        let client = ClientId(*begun);
        self.0.insert(client, reply);
        client
    }

    fn reply(&mut self, replies: Vec<(ClientId, T)>) {
        for (client, reply) in replies {
            if let Some(client) = self.0.remove(&client) {
                // The client may have gone away.
                let _ = client.send(reply);
            }
        }
    }
}

/// How long an epoch may last before the node logs which members hold it, and the time between such lines.
const EPOCH_HELD_AFTER: Duration = Duration::from_secs(5 * 60);

impl Running {
    async fn serve(mut self, mut inbox: mpsc::Receiver<Work>, mut results_inbox: mpsc::Receiver<ControlInput>) {
        self.step(ControlInput::Tick).await;
        loop {
            let patience = self.wake_at.map(|at| at.since(self.deps.clock.instant()));
            let input = tokio::select! {
                Some(result) = results_inbox.recv() => result,
                Some(work) = inbox.recv() => self.take(work),
                () = sleep(patience) => ControlInput::Tick,
            };
            self.step(input).await;
        }
    }

    fn publish_liveness(&self, liveness: Arc<Liveness>) {
        let before = self.deps.liveness.send_replace(liveness.clone());
        self.deps.metrics.changed(&before, &liveness);
        self.deps.peers.doubt(&liveness);
        let view = self.control.view();
        for (node, status) in liveness.iter().filter(|&(node, now)| before.status(node) != now.status) {
            let name = view.member(node).map_or("", |known| known.member.name.as_str());
            match status.status {
                Status::Alive => info!(peer = name, why = %status.why, "peer is alive"),
                Status::Suspect => info!(peer = name, why = %status.why, "peer is suspect"),
                Status::Down => warn!(peer = name, why = %status.why, "peer is down"),
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

    /// Logs which members hold the epoch if it has lasted too long: meanwhile no node collects the garbage of deletes.
    fn warn_of_held_epoch(&mut self) {
        if tokio::time::Instant::now() < self.held_at {
            return;
        }
        self.held_at = tokio::time::Instant::now() + EPOCH_HELD_AFTER;
        let (status, view) = (self.control.epoch_status(), self.control.view());
        let names = status.waits_for.iter().filter_map(|&node| Some(view.member(node)?.member.name.as_str()));
        let names: Vec<&str> = names.collect();
        warn!(
        epoch = %status.epoch,
        waits_for = names.join(", "),
        "epoch has not ended for minutes, so the space of deletes is not freed; bring these nodes back, or renew those that lost their disk"
        );
    }

    /// Dials members that are new or have moved.
    fn dial_members(&self, view: &View) {
        let peers = &self.deps.peers;
        let new = peers.set_peers(other_members(view, self.deps.own));
        for (node, connection) in peers.connections().into_iter().filter(|(node, _)| new.contains(node)) {
            tokio::spawn(watch_connection(node, connection, self.results.clone()));
        }
    }

    fn save_epoch(&self, epoch: Epoch) {
        let (file, results) = (self.deps.epoch_file.clone(), self.results.clone());
        let saved = SavedEpoch { epoch, reached: self.deps.reached };
        tokio::task::spawn_blocking(move || {
            let saved = file.save(saved).map_err(|error| {
                error!(%error, "cannot save the epoch; retrying, and no garbage of deletes is collected until then");
                WriteFailed::Uncertain
            });
            let _ = results.blocking_send(ControlInput::EpochSaved(saved));
        });
    }

    async fn step(&mut self, input: ControlInput) {
        let effects = self.control.step(self.deps.clock.now(), input);
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
            info!(version = %view.ring.version(), "cluster view changed");
            // The view is in force here before the change is reported as made.
            self.deps.shards.set_view(&view).await;
            self.dial_members(&view);
            self.deps.history.send_replace(Arc::new(self.control.history().clone()));
            self.deps.encoded_history.send_replace(self.control.history().encode());
            self.deps.view.send_replace(view);
        }
        if !phases.is_empty() {
            self.deps.shards.set_phases(phases).await;
        }
        self.deps.compared.send_if_modified(|compared| {
            let known = self.control.compared();
            let is_news = compared != known;
            if is_news {
                compared.clone_from(known);
            }
            is_news
        });
        if phases_changed {
            self.deps.phases.send_replace(Arc::new(self.control.phases().to_vec()));
        }
        self.administrators.reply(member_replies);
        self.surveyors.reply(surveyed);
        self.deps.metrics.refused(nonsense);
        if let Some(liveness) = liveness {
            self.publish_liveness(liveness);
        }
        if let Some(epoch) = epoch {
            self.deps.shards.set_epoch(epoch).await;
            self.held_at = tokio::time::Instant::now() + EPOCH_HELD_AFTER;
        }
        self.warn_of_held_epoch();
        if let Some(status) = epoch_status {
            self.deps.epoch_metrics.changed(&status);
            self.deps.epochs.send_replace(status);
        }
        if let Some(epoch) = save_epoch {
            self.save_epoch(epoch);
        }
        for (to, envelope) in sends {
            self.deps.peers.send(to, &[envelope]);
        }
        self.clients.reply(replies);
        if let Some(history) = save {
            let (file, results) = (self.deps.file.clone(), self.results.clone());
            tokio::task::spawn_blocking(move || {
                let saved = file.save(&history).map_err(|error| {
                    error!(%error, "cannot save a change of the cluster; retrying");
                    WriteFailed::Uncertain
                });
                let _ = results.blocking_send(ControlInput::Saved(saved));
            });
        }
        for Inquiry { id, partitions } in inquiries {
            let (shards, results) = (self.deps.shards.clone(), self.results.clone());
            tokio::spawn(async move {
                let report = shards.sizes(&partitions).await;
                let _ = results.send(ControlInput::Report(id, report)).await;
            });
        }
    }
}

/// Passes a shard's report to the control whenever it changes.
async fn watch_shard<T: Copy>(
    mut reports: watch::Receiver<T>,
    input: impl Fn(T) -> ControlInput,
    control: mpsc::Sender<ControlInput>,
) {
    while reports.changed().await.is_ok() {
        let now = *reports.borrow_and_update();
        if control.send(input(now)).await.is_err() {
            return;
        }
    }
}

/// Passes what a shard knows of its partitions' configurations to the control.
async fn watch_phases(phases: PhasesBox, control: mpsc::Sender<ControlInput>) {
    loop {
        let phases = phases.take().await;
        if control.send(ControlInput::Phases(phases)).await.is_err() {
            return;
        }
    }
}

/// The other members of a cluster, with their addresses.
pub fn other_members(view: &View, own: NodeId) -> Vec<Peer> {
    let others = view.members().map(|member| &member.member).filter(|member| member.id != own);
    others.map(|member| Peer { node: member.id, name: member.name.clone(), addr: member.peer_addr.clone() }).collect()
}

/// Reports to the control when a connection is made, breaks or cannot be made.
async fn watch_connection(node: NodeId, mut connection: watch::Receiver<bool>, control: mpsc::Sender<ControlInput>) {
    // Not connected at first means only that no connection was tried.
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

/// Passes the statuses of the other nodes to the shards. It is a task of its own: a busy shard must not delay the control, which answers
/// probes.
async fn publish_to_shards(shards: Shards, mut liveness: watch::Receiver<Arc<Liveness>>) {
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
