//! What the calls know of the node behind the door.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cartwheel_core::anti_entropy::ReplicaProof;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::liveness::Liveness;
use cartwheel_core::cluster::membership::{History, View};
use cartwheel_core::control::{Changed, EpochStatus, SettingsChange, Survey, Surveyed};
use cartwheel_core::message::client::{Refusal, Reply, Request};
use cartwheel_core::ring::PartitionId;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Key;
use tokio::sync::watch;

use super::body::Bodies;
use super::error::ApiError;
use super::shortfall::QuorumRequest;
use crate::config::Durability;
use crate::control_queue::ControlHandle;
use crate::lifecycle::upgrade::UpgradeStatus;
use crate::log::RateLimit;
use crate::metrics::Metrics;
use crate::peers::{Board, LocalNode, Waiting};
use crate::shard::{DigestPage, DigestsAsk, HintsBoard, Shards};

/// How long nodes have to say how much they hold: who is slower is left out, and estimated.
const SURVEY_WITHIN: Duration = Duration::from_secs(1);

/// A node, as the HTTP door is told of it.
#[derive(Debug)]
pub struct Backend {
    /// Who it is.
    pub local: LocalNode,
    /// Where requests go.
    pub shards: Shards,
    /// Who changes settings.
    pub control: ControlHandle,
    /// The cluster's members, ring and settings.
    pub view: watch::Receiver<Arc<View>>,
    /// What this node thinks of the others.
    pub liveness: watch::Receiver<Arc<Liveness>>,
    /// All changes that it knows.
    pub history: watch::Receiver<Arc<History>>,
    /// Nodes that have asked to be let in.
    pub waiting: Waiting,
    /// What holds in each partition, as far as it knows.
    pub phases: watch::Receiver<Arc<Vec<ConfigPhase>>>,
    /// How far it sees the cluster with its epoch.
    pub epochs: watch::Receiver<EpochStatus>,
    /// How far it sees the upgrade of the cluster.
    pub upgrade: watch::Receiver<UpgradeStatus>,
    /// When the node acknowledges a write, in buckets that leave that to it.
    pub durability: Durability,
    /// Whether the node is ready to serve.
    pub readiness: watch::Receiver<Readiness>,
    /// What it knows of its peers.
    pub board: Board,
    /// What it counts.
    pub metrics: Metrics,
}

/// Whether a node is ready to serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// It has begun, and waits a moment for its peers.
    Connecting,
    /// It cannot store writes: its timestamps are not saved yet.
    CannotStore,
    /// Its store has failed and is being opened again.
    StoreFailed,
    /// Another node of its name is the member: both were let in at once, through nodes that did not know of each other.
    NameTaken,
    /// It stores no writes for want of room. It still serves reads, and writes for which other homes have room.
    DiskFull,
    /// It is.
    Ready,
}

/// The door's side of a node. Clones are one door.
#[derive(Clone, Debug)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Backend,
    values: Bodies,
    answers: Bodies,
    opened: SystemTime,
    failures: RateLimit,
}

impl Door {
    /// The door of a node.
    pub fn new(backend: Backend) -> Self {
        let values = Bodies::new(backend.metrics.http.value_bytes.clone());
        let answers = Bodies::new(backend.metrics.http.answer_bytes.clone());
        let failures = RateLimit::new(super::LOG_EVERY);
        Self(Arc::new(Inner { backend, values, answers, opened: SystemTime::now(), failures }))
    }

    /// Has the node carry out a request on a key.
    pub(super) async fn request(&self, request: Request) -> Result<Reply, ApiError> {
        let asked = QuorumRequest::of(&request.operation);
        let outcome = self.0.backend.shards.request(request).await?;
        outcome.map_err(|refusal| asked.refused(self, refusal))
    }

    /// Whether the node takes on a request on `key` now.
    ///
    /// # Errors
    /// If it has too much to do.
    pub(super) fn may_ask(&self, key: &Key) -> Result<(), ApiError> {
        Ok(self.0.backend.shards.may_ask(key)?)
    }

    /// Whether the node takes on a request on any key now.
    ///
    /// # Errors
    /// If it has too much to do.
    pub(super) fn may_ask_any(&self) -> Result<(), Refusal> {
        self.0.backend.shards.may_ask_any()
    }

    /// Has a bucket's settings changed.
    pub(super) async fn change(&self, change: SettingsChange) -> Result<Changed, ApiError> {
        Ok(self.0.backend.control.change(change).await??)
    }

    /// How much nodes hold, of those that answer in time.
    pub(super) async fn survey(&self, of: BTreeMap<NodeId, BTreeSet<PartitionId>>) -> Result<Surveyed, ApiError> {
        Ok(self.0.backend.control.survey(Survey { of, timeout: SURVEY_WITHIN }).await?)
    }

    /// What the node's disk holds of a partition; none if it cannot be read now.
    pub(super) async fn digests(&self, partition: PartitionId, ask: DigestsAsk) -> Option<DigestPage> {
        self.0.backend.shards.digests(partition, ask).await
    }

    /// Since when each of the node's partitions is proven equal here and at each other home.
    pub(super) async fn proofs(&self) -> Vec<ReplicaProof> {
        self.0.backend.shards.proofs().await
    }

    /// The cluster, as it is now.
    pub(super) fn view(&self) -> Arc<View> {
        self.0.backend.view.borrow().clone()
    }

    /// What this node thinks of the others, as it is now.
    pub(super) fn liveness(&self) -> Arc<Liveness> {
        self.0.backend.liveness.borrow().clone()
    }

    /// How far it sees the cluster with its epoch, as it is now.
    pub(super) fn epoch(&self) -> EpochStatus {
        self.0.backend.epochs.borrow().clone()
    }

    /// How far it sees the upgrade of the cluster.
    pub(super) fn upgrade(&self) -> UpgradeStatus {
        self.0.backend.upgrade.borrow().clone()
    }

    /// When the node acknowledges a write, in buckets that leave that to it.
    pub(super) fn durability(&self) -> Durability {
        self.0.backend.durability
    }

    /// Whether the node incarnations.
    pub(super) fn is_running(&self) -> bool {
        self.0.backend.shards.are_running()
    }

    pub(super) fn readiness(&self) -> Readiness {
        *self.0.backend.readiness.borrow()
    }

    /// What the node keeps for others.
    pub(super) fn hints(&self) -> &HintsBoard {
        self.0.backend.metrics.hints()
    }

    /// How often a key came with two values of one version.
    pub(super) fn dot_collisions(&self) -> u64 {
        self.0.backend.metrics.dot_collisions()
    }

    /// All changes that the node knows.
    pub(super) fn history(&self) -> Arc<History> {
        self.0.backend.history.borrow().clone()
    }

    /// Nodes that have asked to be let in.
    pub(super) fn waiting(&self) -> &Waiting {
        &self.0.backend.waiting
    }

    /// What holds in each partition.
    pub(super) fn phases(&self) -> Arc<Vec<ConfigPhase>> {
        self.0.backend.phases.borrow().clone()
    }

    pub(super) fn control(&self) -> &ControlHandle {
        &self.0.backend.control
    }

    pub(super) fn local(&self) -> &LocalNode {
        &self.0.backend.local
    }

    pub(super) fn board(&self) -> &Board {
        &self.0.backend.board
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.backend.metrics
    }

    /// The memory for values that arrive.
    pub(super) fn values(&self) -> &Bodies {
        &self.0.values
    }

    /// The memory for answers that are read.
    pub(super) fn answers(&self) -> &Bodies {
        &self.0.answers
    }

    /// Since when the door is open.
    pub(super) fn opened(&self) -> SystemTime {
        self.0.opened
    }

    /// Log lines about requests that failed.
    pub(super) fn failures(&self) -> &RateLimit {
        &self.0.failures
    }
}
