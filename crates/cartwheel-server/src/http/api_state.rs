//! The state of the API server: the node that its calls act on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

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
use crate::shard::{DigestPage, DigestsRequest, HintsBoard, Place, Shards};

/// How long nodes have to report how much they hold. Late ones are left out, and estimated.
const SURVEY_WITHIN: Duration = Duration::from_secs(1);

/// The parts of a node that the API server uses.
#[derive(Debug)]
pub struct Backend {
    /// The node's identity.
    pub local: LocalNode,
    /// Where requests on keys go.
    pub shards: Shards,
    /// Where changes of settings and members go.
    pub control: ControlHandle,
    /// The cluster's members, ring and settings.
    pub view: watch::Receiver<Arc<View>>,
    /// The node's view of the other nodes' liveness.
    pub liveness: watch::Receiver<Arc<Liveness>>,
    /// All changes that it knows.
    pub history: watch::Receiver<Arc<History>>,
    /// Nodes that wait to join.
    pub waiting: Waiting,
    /// The configuration of each partition, as far as the node knows.
    pub phases: watch::Receiver<Arc<Vec<ConfigPhase>>>,
    /// The epoch, as the node sees it.
    pub epochs: watch::Receiver<EpochStatus>,
    /// The upgrade of the cluster, as the node sees it.
    pub upgrade: watch::Receiver<UpgradeStatus>,
    /// When the node acknowledges a write, for buckets that leave this to the node.
    pub durability: Durability,
    /// Whether the node is ready to serve.
    pub readiness: watch::Receiver<Readiness>,
    /// The node's connections to its peers.
    pub board: Board,
    /// The node's metrics.
    pub metrics: Metrics,
}

/// Whether a node is ready to serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// The node has started and waits a moment for its peers.
    Connecting,
    /// The node cannot store writes: its timestamps are not saved yet.
    CannotStore,
    /// The store has failed and is being opened again.
    StoreFailed,
    /// Another node of this name is the member: both joined at once, through members that did not know of each other.
    NameTaken,
    /// The disk has too little room to store writes. The node still serves reads, and writes for which other homes have room.
    DiskFull,
    /// The node serves everything.
    Ready,
}

/// The state of the API server. Clones share it.
#[derive(Clone, Debug)]
pub struct ApiState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Backend,
    values: Bodies,
    responses: Bodies,
    opened: SystemTime,
    failures: RateLimit,
}

impl ApiState {
    /// The state for a node.
    pub fn new(backend: Backend) -> Self {
        let values = Bodies::new(backend.metrics.http.value_bytes.clone());
        let responses = Bodies::new(backend.metrics.http.response_bytes.clone());
        let failures = RateLimit::new(super::LOG_EVERY);
        Self(Arc::new(Inner { backend, values, responses, opened: SystemTime::now(), failures }))
    }

    /// Carries out a request on a key.
    pub(super) async fn request(&self, request: Request, place: Option<Place>) -> Result<Reply, ApiError> {
        let requirement = QuorumRequest::of(&request.operation);
        let outcome = self.0.backend.shards.request(request, place).await?;
        outcome.map_err(|refusal| requirement.refused(self, refusal))
    }

    /// Waits until the node admits a request on `key`. Returns its place, and what is left of the request's time.
    ///
    /// # Errors
    /// If it is overloaded.
    pub(super) async fn admit(&self, key: &Key, timeout: Duration) -> Result<(Place, Duration), ApiError> {
        let begun = Instant::now();
        let place = self.0.backend.shards.admit(key, timeout).await?;
        Ok((place, timeout.saturating_sub(begun.elapsed())))
    }

    /// Checks that the node admits a request on any key now.
    ///
    /// # Errors
    /// If it is overloaded.
    pub(super) fn admits_any(&self) -> Result<(), Refusal> {
        self.0.backend.shards.admits_any()
    }

    /// Changes a bucket's settings.
    pub(super) async fn change(&self, change: SettingsChange) -> Result<Changed, ApiError> {
        Ok(self.0.backend.control.change(change).await??)
    }

    /// How much nodes hold. Those that do not respond in time are missing.
    pub(super) async fn survey(&self, of: BTreeMap<NodeId, BTreeSet<PartitionId>>) -> Result<Surveyed, ApiError> {
        Ok(self.0.backend.control.survey(Survey { of, timeout: SURVEY_WITHIN }).await?)
    }

    /// The digests of a partition's records on the node's disk; none if it cannot be read now.
    pub(super) async fn digests(&self, partition: PartitionId, request: DigestsRequest) -> Option<DigestPage> {
        self.0.backend.shards.digests(partition, request).await
    }

    /// Since when each of the node's replicas is verified equal to each other home's.
    pub(super) async fn proofs(&self) -> Vec<ReplicaProof> {
        self.0.backend.shards.proofs().await
    }

    /// The current view of the cluster.
    pub(super) fn view(&self) -> Arc<View> {
        self.0.backend.view.borrow().clone()
    }

    /// The current liveness of the other nodes.
    pub(super) fn liveness(&self) -> Arc<Liveness> {
        self.0.backend.liveness.borrow().clone()
    }

    /// The current status of the epoch.
    pub(super) fn epoch(&self) -> EpochStatus {
        self.0.backend.epochs.borrow().clone()
    }

    /// The current status of the upgrade.
    pub(super) fn upgrade(&self) -> UpgradeStatus {
        self.0.backend.upgrade.borrow().clone()
    }

    /// When the node acknowledges a write, for buckets that leave this to the node.
    pub(super) fn durability(&self) -> Durability {
        self.0.backend.durability
    }

    /// Whether the node still serves.
    pub(super) fn is_running(&self) -> bool {
        self.0.backend.shards.are_running()
    }

    pub(super) fn readiness(&self) -> Readiness {
        *self.0.backend.readiness.borrow()
    }

    /// The hints that the node keeps.
    pub(super) fn hints(&self) -> &HintsBoard {
        self.0.backend.metrics.hints()
    }

    /// How often a key got two values with one version.
    pub(super) fn dot_collisions(&self) -> u64 {
        self.0.backend.metrics.dot_collisions()
    }

    /// All changes that the node knows.
    pub(super) fn history(&self) -> Arc<History> {
        self.0.backend.history.borrow().clone()
    }

    /// Nodes that wait to join.
    pub(super) fn waiting(&self) -> &Waiting {
        &self.0.backend.waiting
    }

    /// The configuration of each partition.
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

    /// The memory for arriving values.
    pub(super) fn values(&self) -> &Bodies {
        &self.0.values
    }

    /// The memory for responses.
    pub(super) fn responses(&self) -> &Bodies {
        &self.0.responses
    }

    /// When the API server started.
    pub(super) fn opened(&self) -> SystemTime {
        self.0.opened
    }

    /// Limits the log lines about failed requests.
    pub(super) fn failures(&self) -> &RateLimit {
        &self.0.failures
    }
}
