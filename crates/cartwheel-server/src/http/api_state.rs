//! The state of the API server: the node that its calls act on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cartwheel_core::anti_entropy::ReplicaProof;
use cartwheel_core::anti_entropy::merkle::Grid;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::latency::RoundTrips;
use cartwheel_core::cluster::liveness::Liveness;
use cartwheel_core::cluster::membership::{History, UserPatch, View};
use cartwheel_core::cluster::sizes::Size;
use cartwheel_core::control::{Changed, EpochStatus, SettingsChange, Survey, Surveyed};
use cartwheel_core::message::client::{Get, Got, Refusal, Reply, Request};
use cartwheel_core::node::sums::PartitionSums;
use cartwheel_core::ring::PartitionId;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Key;

use super::error::ApiError;
use super::staleness::Predictions;
use super::target;
use crate::access::Access;
use crate::backend::data_disk::DataDisk;
use crate::backend::drain::Drain;
use crate::backend::listing::{KeysPage, KeysWanted};
use crate::backend::{Backend, Readiness};
use crate::config::Durability;
use crate::control_queue::ControlHandle;
use crate::lifecycle::upgrade::UpgradeStatus;
use crate::log::RateLimit;
use crate::memory::MemoryPool;
use crate::metrics::Metrics;
use crate::peers::{Board, LocalNode, Waiting};
use crate::shard::{CopiesPage, CopiesRequest, DigestPage, DigestsRequest, HintsBoard, Place};
use crate::trace::Tracer;

/// How long nodes have to report how much they hold. Late ones are left out, and estimated.
const SURVEY_WITHIN: Duration = Duration::from_secs(1);

/// The state of the API server. Clones share it.
#[derive(Clone, Debug)]
pub struct ApiState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Arc<Backend>,
    values: MemoryPool,
    responses: MemoryPool,
    opened: SystemTime,
    failures: RateLimit,
    predictions: Predictions,
}

impl ApiState {
    /// The state for a node.
    pub fn new(backend: Arc<Backend>) -> Self {
        let values = MemoryPool::new(backend.metrics.http.value_bytes.clone());
        let responses = MemoryPool::new(backend.metrics.http.response_bytes.clone());
        let failures = RateLimit::new(super::LOG_EVERY);
        Self(Arc::new(Inner {
            backend,
            values,
            responses,
            opened: SystemTime::now(),
            failures,
            predictions: Predictions::default(),
        }))
    }

    /// Reads a key.
    pub(super) async fn get(&self, get: Get, timeout: Duration) -> Result<Got, ApiError> {
        Ok(self.0.backend.get(get, timeout).await?)
    }

    /// Carries out a request on a key.
    pub(super) async fn request(&self, request: Request, place: Option<Place>) -> Result<Reply, ApiError> {
        Ok(self.0.backend.request(request, place).await?)
    }

    /// The key in the raw path of a `PREFIX{bucket}/{key}` call, as this node knows the bucket now.
    pub(super) fn key_of(&self, prefix: &str, path: &str) -> Result<Key, ApiError> {
        target::key_of(&self.0.backend.view.borrow(), prefix, path)
    }

    /// A page of a bucket's keys.
    pub(super) async fn keys(&self, wanted: KeysWanted) -> Result<KeysPage, ApiError> {
        Ok(self.0.backend.keys(wanted).await?)
    }

    /// The sizes of all buckets that hold data.
    pub(super) async fn bucket_sizes(&self, timeout: Duration) -> Result<BTreeMap<Bytes, Size>, ApiError> {
        Ok(self.0.backend.bucket_sizes(timeout).await?)
    }

    /// Empties a bucket.
    pub(super) async fn empty_bucket(&self, bucket: Bytes, timeout: Duration) -> Result<Changed, ApiError> {
        Ok(self.0.backend.empty_bucket(bucket, timeout).await?)
    }

    /// Waits until the node admits a request on `key`. Returns its place, and what is left of the request's time.
    ///
    /// # Errors
    /// If it is overloaded.
    pub(super) async fn admit(&self, key: &Key, timeout: Duration) -> Result<(Place, Duration), ApiError> {
        Ok(self.0.backend.admit(key, timeout).await?)
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
        Ok(self.0.backend.change_bucket(change).await?)
    }

    /// How much nodes hold. Those that do not respond in time are missing.
    pub(super) async fn survey(&self, of: BTreeMap<NodeId, BTreeSet<PartitionId>>) -> Result<Surveyed, ApiError> {
        Ok(self.0.backend.control.survey(Survey { of, timeout: SURVEY_WITHIN }).await?)
    }

    /// The digests of a partition's records on the node's disk; none if it cannot be read now.
    pub(super) async fn digests(&self, partition: PartitionId, request: DigestsRequest) -> Option<DigestPage> {
        self.0.backend.shards.digests(partition, request).await
    }

    /// The records of a partition on the node's disk; none if one cannot be read now.
    pub(super) async fn copies(&self, partition: PartitionId, request: CopiesRequest) -> Option<CopiesPage> {
        self.0.backend.shards.copies(partition, request).await
    }

    /// The sums of a partition and the grid of their ranges, if the node is a synced home of all its keys.
    pub(super) async fn partition_sums(&self, partition: PartitionId, level: u8) -> Option<(PartitionSums, Grid)> {
        let sums = self.0.backend.shards.partition_sums(partition, level).await?;
        Some((sums, Grid::of(self.view().ring.partitions(), partition)))
    }

    /// Since when each of the node's replicas is verified equal to each other home's.
    pub(super) async fn proofs(&self) -> Vec<ReplicaProof> {
        self.0.backend.shards.proofs().await
    }

    /// The round trips to each peer that the node has measured.
    pub(super) async fn round_trips(&self) -> BTreeMap<NodeId, RoundTrips> {
        self.0.backend.shards.round_trips().await
    }

    /// The predictions of staleness of the last seconds.
    pub(super) fn predictions(&self) -> &Predictions {
        &self.0.predictions
    }

    /// Whether the node drains.
    pub(super) fn drain(&self) -> &Drain {
        &self.0.backend.drain
    }

    /// The disk of the node's data directory.
    pub(super) fn disk(&self) -> &DataDisk {
        &self.0.backend.disk
    }

    /// The settings in force, without secrets.
    pub(super) fn settings(&self) -> &[(&'static str, String)] {
        &self.0.backend.settings
    }

    /// The current view of the cluster.
    pub(super) fn view(&self) -> Arc<View> {
        self.0.backend.view()
    }

    /// The current liveness of the other nodes.
    pub(super) fn liveness(&self) -> Arc<Liveness> {
        self.0.backend.liveness()
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
        self.0.backend.phases()
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

    /// The node.
    pub(super) fn backend(&self) -> &Backend {
        &self.0.backend
    }

    /// Traces of requests.
    pub(super) fn tracer(&self) -> &Tracer {
        &self.0.backend.tracer
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.backend.metrics
    }

    /// The memory for arriving values.
    pub(super) fn values(&self) -> &MemoryPool {
        &self.0.values
    }

    /// The memory for responses.
    pub(super) fn responses(&self) -> &MemoryPool {
        &self.0.responses
    }

    /// What lets users in.
    pub(super) fn access(&self) -> &Access {
        &self.0.backend.access
    }

    /// Makes, changes or removes a user.
    pub(super) async fn change_user(
        &self,
        name: String,
        patch: Option<UserPatch>,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        self.0.backend.change_user(name, patch, timeout).await?;
        Ok(())
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
