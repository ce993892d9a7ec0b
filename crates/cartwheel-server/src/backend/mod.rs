//! The node behind its API servers: what they ask, and how they explain what was refused.

pub mod data_disk;
pub mod drain;
pub mod listing;
pub mod ring;
mod shortfall;
pub mod staleness;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::liveness::{Liveness, Status};
use cartwheel_core::cluster::membership::{ChangeKind, History, UserPatch, View};
use cartwheel_core::control::{EpochStatus, MembersChange, MembersChanged};
use cartwheel_core::message::client::{Get, Got, Operation, Refusal, Reply, Request};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::token::Token;
use cartwheel_core::wire::Protocol;
use tokio::sync::watch;

use crate::access::Access;
use crate::config::Durability;
use crate::control_queue::ControlHandle;
use crate::lifecycle::upgrade::UpgradeStatus;
use crate::metrics::Metrics;
use crate::peers::{Board, LocalNode, Waiting};
use crate::shard::{Place, Shards};
use crate::trace::Tracer;
use data_disk::DataDisk;
use drain::Drain;
use shortfall::QuorumRequest;

/// The parts of a node that its API servers use.
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
    /// What lets users in.
    pub access: Access,
    /// The node's metrics.
    pub metrics: Metrics,
    /// Whether the node drains.
    pub drain: Drain,
    /// The disk of the node's data directory.
    pub disk: DataDisk,
    /// The settings in force, without secrets.
    pub settings: Vec<(&'static str, String)>,
    /// Traces of its requests.
    pub tracer: Tracer,
    /// The most connections of clients.
    pub connections_max: usize,
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

/// Why a request on a key was not carried out, or may not have been.
#[derive(Clone, Debug)]
pub enum NotDone {
    /// It was refused.
    Refused {
        /// By the protocol.
        refusal: Refusal,
        /// Why too few replicas answered, if that is so and the node knows it.
        cause: Option<String>,
        /// The nodes that the request needed and that cannot be reached.
        unreachable: Vec<String>,
    },
    /// The node is stopping. A write may yet appear.
    Stopped,
}

impl From<Refusal> for NotDone {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal, cause: None, unreachable: Vec::new() }
    }
}

impl Backend {
    /// Reads a key, once the node admits that.
    ///
    /// # Errors
    /// If it is refused, or the node stops.
    pub async fn get(&self, get: Get, timeout: Duration) -> Result<Got, NotDone> {
        // It costs less than to wait for admission.
        if let Some(got) = self.shards.read_at_once(&get, |found| found.got()) {
            return Ok(got);
        }
        let (place, timeout) = self.admit(&get.key, timeout).await?;
        match self.request(Request { operation: Operation::Get(get), timeout }, Some(place)).await? {
            Reply::Got(got) => Ok(got),
            Reply::Put(_) | Reply::Inspected(_) => {
                Err(Refusal::unavailable("the node answered a read as another request: report this as a bug").into())
            }
        }
    }

    /// Carries out a request on a key.
    ///
    /// # Errors
    /// If it is refused, or the node stops.
    pub async fn request(&self, request: Request, place: Option<Place>) -> Result<Reply, NotDone> {
        let requirement = QuorumRequest::of(&request.operation);
        let outcome = self.shards.request(request, place).await.map_err(|_| NotDone::Stopped)?;
        outcome.map_err(|refusal| requirement.refused(self, refusal))
    }

    /// Makes, changes or removes a user.
    ///
    /// # Errors
    /// If the change is refused, or not saved in time.
    pub async fn change_user(
        &self,
        name: String,
        patch: Option<UserPatch>,
        timeout: Duration,
    ) -> Result<MembersChanged, NotDone> {
        if self.upgrade.borrow().all_speak < Protocol::USERS {
            let why = "some nodes run a build that knows no users: finish the upgrade, then try again";
            return Err(Refusal::unavailable(why).into());
        }
        let changes = vec![ChangeKind::User { name, patch: patch.map(Box::new) }];
        let change = MembersChange { changes, planned_on: None, timeout };
        let changed = self.control.change_members(change).await.map_err(|_| NotDone::Stopped)?;
        Ok(changed?)
    }

    /// Waits until the node admits a request on `key`. Returns its place, and what is left of the request's time.
    ///
    /// # Errors
    /// If it is overloaded.
    pub async fn admit(&self, key: &Key, timeout: Duration) -> Result<(Place, Duration), Refusal> {
        let begun = Instant::now();
        let place = self.shards.admit(key, timeout).await?;
        Ok((place, timeout.saturating_sub(begun.elapsed())))
    }

    /// The current view of the cluster.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// The homes of the keys of a bucket that have this token.
    pub fn homes_of(&self, bucket: &[u8], token: Token) -> Vec<NodeId> {
        let partition = self.view.borrow().ring.partition_of(token);
        let homes = |phase: &ConfigPhase| phase.homes(phase.counts().group_of(bucket), |_| false).all();
        self.phases.borrow().get(partition.index()).map(homes).unwrap_or_default()
    }

    /// Whether there is no sign that a node cannot be reached: no suspicion of it, and no connection to it that broke. A connection breaks at once
    /// when a process ends, while a verdict that it is down takes seconds.
    pub fn is_in_reach(&self, node: NodeId) -> bool {
        let is_cut_off = || self.board.get(node).is_some_and(|peer| !peer.link().connected);
        node == self.local.node || self.liveness.borrow().status(node) == Status::Alive && !is_cut_off()
    }

    /// Whether a node is about to be stopped, so that others are better asked.
    pub fn is_draining(&self, node: NodeId) -> bool {
        if node == self.local.node { self.drain.is_on() } else { self.liveness.borrow().is_draining(node) }
    }

    /// The current liveness of the other nodes.
    pub fn liveness(&self) -> Arc<Liveness> {
        self.liveness.borrow().clone()
    }

    /// The configuration of each partition.
    pub fn phases(&self) -> Arc<Vec<ConfigPhase>> {
        self.phases.borrow().clone()
    }
}

/// A node's name, or its id if it is no longer a member.
pub fn name_of(view: &View, node: NodeId) -> String {
    view.member(node).map_or_else(|| node.to_string(), |known| known.member.name.clone())
}

#[cfg(test)]
pub(crate) mod tests;
