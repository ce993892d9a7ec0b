//! All shards of a node, and how requests and messages find their shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::anti_entropy::ReplicaProof;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::latency::RoundTrips;
use cartwheel_core::cluster::liveness::Liveness;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::cluster::sizes::NodeSizes;
use cartwheel_core::message::client::{Get, Outcome, Refusal, Request};
use cartwheel_core::message::listing::{ListRequest, Listed};
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::node::FoundAtOnce;
use cartwheel_core::node::sums::PartitionSums;
use cartwheel_core::ring::{PartitionId, Partitions};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::key::Key;
use cartwheel_core::wire::Protocol;
use futures_util::future::{join_all, select_all, try_join_all};
use tokio::runtime::Handle;

use super::{CopiesPage, CopiesRequest, DigestPage, DigestsRequest, Place, ShardHandle, ShardReport, Stopped};

/// A handle to a node's shards. Each owns some of the partitions; they share nothing.
#[derive(Clone, Debug)]
pub struct Shards {
    handles: Arc<[ShardHandle]>,
    partitions: Partitions,
}

impl Shards {
    /// The shards behind `handles`, of which there must be at least one, in a ring of `partitions`.
    pub fn new(handles: Vec<ShardHandle>, partitions: Partitions) -> Self {
        assert!(!handles.is_empty(), "a node has at least one shard");
        Self { handles: handles.into(), partitions }
    }

    fn count(&self) -> u32 {
        self.handles.len() as u32
    }

    /// Spawn tasks on the threads of the shards.
    pub fn threads(&self) -> Vec<Handle> {
        self.handles.iter().map(|shard| shard.spawner().clone()).collect()
    }

    /// Spawns tasks on the thread of the shard with this index, or of another one if there are fewer.
    pub fn spawner(&self, shard: u32) -> &Handle {
        self.handles[(shard % self.count()) as usize].spawner()
    }

    fn of_key(&self, key: &Key) -> &ShardHandle {
        self.of_partition(self.partitions.of(key.token()))
    }

    fn of_partition(&self, partition: PartitionId) -> &ShardHandle {
        &self.handles[ShardId::of_partition(partition, self.count()) as usize]
    }

    /// The shard that a message is for; none if it is for the node's control.
    fn of_message(&self, message: &Message) -> Option<&ShardHandle> {
        match message {
            Message::Request(_, request) => Some(self.of_key(request.key())),
            Message::Forward(_, put, ..) => Some(self.of_key(&put.key)),
            Message::Compare(_, question) => Some(self.of_partition(question.partition())),
            Message::Fetch(_, fetch) => Some(self.of_partition(fetch.partition)),
            // Any shard can answer that it can list nothing.
            Message::List(_, question) => {
                Some(self.of_partition(question.partitions.first().unwrap_or(PartitionId(0))))
            }
            Message::Reconfiguration(partition, _) => Some(self.of_partition(*partition)),
            // Any shard can report the node's clocks.
            Message::ClocksRequest(request_id)
            | Message::Clocks(request_id)
            | Message::Response(request_id, _)
            | Message::Forwarded(request_id, _)
            | Message::Compared(request_id, _)
            | Message::Fetched(request_id, _)
            | Message::Listed(request_id, _) => Some(&self.handles[request_id.shard(self.count()) as usize]),
            Message::Notice(_) => None,
        }
    }

    /// Sends a client's request to the key's shard ([`ShardHandle::request`]).
    ///
    /// # Errors
    /// If the shard stops before it responds. A write may or may not have been done.
    pub async fn request(&self, request: Request, place: Option<Place>) -> Result<Outcome, Stopped> {
        self.of_key(request.operation.key()).request(request, place).await
    }

    /// Answers a read at once, if the key's shard can ([`ShardHandle::read_at_once`]).
    pub fn read_at_once<T>(&self, get: &Get, take: impl FnOnce(&FoundAtOnce<'_>) -> T) -> Option<T> {
        self.of_key(&get.key).read_at_once(get, take)
    }

    /// Lists keys or the sizes of buckets ([`ShardHandle::list`]): one answer of each shard.
    ///
    /// # Errors
    /// If a shard stops before it responds.
    pub async fn list(&self, request: &ListRequest) -> Result<Vec<Result<Listed, Refusal>>, Stopped> {
        try_join_all(self.handles.iter().map(|shard| shard.list(request.clone()))).await
    }

    /// Waits until the key's shard admits a request ([`ShardHandle::admit`]).
    ///
    /// # Errors
    /// If it is overloaded.
    pub async fn admit(&self, key: &Key, patience: Duration) -> Result<Place, Refusal> {
        self.of_key(key).admit(patience).await
    }

    /// Checks that some shard admits a request now.
    ///
    /// # Errors
    /// If all are overloaded.
    pub fn admits_any(&self) -> Result<(), Refusal> {
        match self.handles.iter().any(|shard| !shard.refuses()) {
            true => Ok(()),
            false => self.handles[0].admits(),
        }
    }

    /// Hands a peer's message to its shard ([`ShardHandle::deliver`]); returns it if it is for no shard.
    ///
    /// # Errors
    /// If the shard has stopped.
    pub async fn deliver(&self, message: Envelope, bytes: usize) -> Result<Option<Envelope>, Stopped> {
        match self.of_message(&message.message) {
            Some(shard) => shard.deliver(message, bytes).await.map(|()| None),
            None => Ok(Some(message)),
        }
    }

    /// Sets the view of all shards.
    pub async fn set_view(&self, view: &Arc<View>) {
        join_all(self.handles.iter().map(|shard| shard.set_view(view.clone()))).await;
    }

    /// Sets the liveness of the other nodes for all shards.
    pub async fn set_liveness(&self, liveness: &Arc<Liveness>) {
        join_all(self.handles.iter().map(|shard| shard.set_liveness(liveness.clone()))).await;
    }

    /// Sets the epoch of all shards.
    pub async fn set_epoch(&self, epoch: Epoch) {
        join_all(self.handles.iter().map(|shard| shard.set_epoch(epoch))).await;
    }

    /// Sets the version of the protocol that all members speak. It must be saved in the data directory before.
    pub async fn set_all_speak(&self, protocol: Protocol) {
        join_all(self.handles.iter().map(|shard| shard.set_all_speak(protocol))).await;
    }

    /// Passes on configurations that others know.
    pub async fn set_phases(&self, phases: Vec<(PartitionId, ConfigPhase)>) {
        let mut by_shard_id: BTreeMap<usize, Vec<(PartitionId, ConfigPhase)>> = BTreeMap::new();
        for (partition, phase) in phases {
            let shard_id = ShardId::of_partition(partition, self.count()) as usize;
            by_shard_id.entry(shard_id).or_default().push((partition, phase));
        }
        join_all(by_shard_id.into_iter().map(|(shard_id, phases)| self.handles[shard_id].set_phases(phases))).await;
    }

    /// A page of digests of a partition; none if the disk cannot be read.
    pub async fn digests(&self, partition: PartitionId, request: DigestsRequest) -> Option<DigestPage> {
        self.handles[ShardId::of_partition(partition, self.count()) as usize].digests(request).await
    }

    /// A page of the records of a partition; none if one of them cannot be read.
    pub async fn copies(&self, partition: PartitionId, request: CopiesRequest) -> Option<CopiesPage> {
        self.handles[ShardId::of_partition(partition, self.count()) as usize].copies(request).await
    }

    /// The sums of a partition, if this node is a synced home of all its keys.
    pub async fn partition_sums(&self, partition: PartitionId, level: u8) -> Option<PartitionSums> {
        self.handles[ShardId::of_partition(partition, self.count()) as usize].partition_sums(partition, level).await
    }

    /// Since when each replica is verified equal to each other home's; shards that stop are left out.
    pub async fn proofs(&self) -> Vec<ReplicaProof> {
        join_all(self.handles.iter().map(ShardHandle::proofs)).await.into_iter().flatten().collect()
    }

    /// The round trips to each peer that all shards together have measured.
    pub async fn round_trips(&self) -> BTreeMap<NodeId, RoundTrips> {
        let mut all: BTreeMap<NodeId, RoundTrips> = BTreeMap::new();
        for measured in join_all(self.handles.iter().map(ShardHandle::round_trips)).await {
            measured.into_iter().for_each(|(node, round_trips)| all.entry(node).or_default().merge(&round_trips));
        }
        all
    }

    /// How much the node holds of these partitions; none if a shard stops.
    pub async fn sizes(&self, partitions: &[PartitionId]) -> Option<NodeSizes> {
        let of_shard_id = |shard_id: u32| {
            let its = |partition: &&PartitionId| ShardId::of_partition(**partition, self.count()) == shard_id;
            partitions.iter().filter(its).copied().collect()
        };
        let reported = (0..).zip(self.handles.iter()).map(|(shard_id, shard)| shard.sizes(of_shard_id(shard_id)));
        let mut sizes = NodeSizes::default();
        for reported in join_all(reported).await {
            sizes.merge(reported?);
        }
        Some(sizes)
    }

    /// The shards, in their order.
    pub fn handles(&self) -> &[ShardHandle] {
        &self.handles
    }

    /// What each shard does at the moment, by its index; those that stop are left out.
    pub async fn reports(&self) -> Vec<(usize, ShardReport)> {
        let reports = join_all(self.handles.iter().map(ShardHandle::report)).await;
        reports.into_iter().enumerate().filter_map(|(index, report)| Some((index, report?))).collect()
    }

    /// Makes all shards finish their queues, sync their stores and end.
    pub async fn stop(&self) {
        join_all(self.handles.iter().map(ShardHandle::stop)).await;
    }

    /// Whether all shards run.
    pub fn are_running(&self) -> bool {
        self.handles.iter().all(ShardHandle::is_running)
    }

    /// Waits until a shard has ended.
    pub async fn any_ended(&self) {
        select_all(self.handles.iter().map(|shard| Box::pin(shard.ended()))).await;
    }
}
