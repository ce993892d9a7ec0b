//! Connections between nodes.
//!
//! Each node dials each other node, and sends all its messages to it, requests and responses alike, on the connections that it dialled: one for
//! its control, and one for each of its shards, which is served by that shard's thread on this side and by one shard's thread on the other.
//! Messages from others arrive on the connections that they dialled. A message may be lost: what cannot be sent now is dropped and counted, and the
//! protocol sends again.

mod board;
mod frames;
mod hello;
mod inbound;
mod incoming;
mod joining;
mod known_peers;
mod outgoing;
mod waiting;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use cartwheel_core::cluster::liveness::{Liveness, Status};
use cartwheel_core::config::SIBLING_BYTES_MAX;
use cartwheel_core::message::Envelope;
use cartwheel_core::ring::N_MAX;
use cartwheel_core::value::dot::NodeId;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::codec::LengthDelimitedCodec;

use crate::data_dir::lineage::Mark;
use crate::shard::Outgoing;
pub use board::{Board, PeerStats, ProtocolError};
pub(crate) use hello::called;
pub use hello::{Found, HelloError, LocalNode};
pub use inbound::Inbound;
pub use joining::{Invitation, JoinError, request_to_join};
pub use known_peers::{KnownPeers, PeersSpeak, Retired};
pub(crate) use outgoing::QUEUED_BYTES_MAX;
use outgoing::{Caller, Link};
pub use waiting::{Waiting, Welcome};

/// How many coordinators may add siblings to one key separately, each up to its limit, before the merged state exceeds a frame: every home
/// of the largest n, and half as many stand-ins.
const COORDINATORS_MAX: usize = N_MAX + N_MAX / 2;

/// The longest frame, in bytes: the largest state of a key, with clock and notes. Only arrived bytes take memory.
const FRAME_BYTES_MAX: usize = COORDINATORS_MAX * (SIBLING_BYTES_MAX + (1 << 20));

/// A node that this one talks to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Where it listens for peers, as `host:port`.
    pub addr: String,
}

/// The connections of a node to its peers.
#[derive(Debug)]
pub struct Peers {
    local: LocalNode,
    known_peers: KnownPeers,
    stop: watch::Receiver<bool>,
    /// The threads of the shards.
    shards: Vec<Handle>,
    /// Other threads.
    background: Handle,
    links: RwLock<BTreeMap<NodeId, Dialled>>,
    /// How often `links` has changed.
    version: AtomicU64,
    board: Board,
}

/// A peer that is dialled.
#[derive(Debug)]
struct Dialled {
    peer: Peer,
    /// For messages of the node's control.
    link: Link,
    /// For messages of each shard. Each connection is served by the shard's thread.
    of_shards: Vec<Arc<Link>>,
    /// Dropping it ends the dialling.
    _end: watch::Sender<()>,
}

impl Peers {
    /// Dials `peers`, again and again until `stop` is true: once for the node's control, and once on the thread of each of `shards`.
    ///
    /// It must be called within a tokio runtime.
    pub fn dial(
        local: &LocalNode,
        peers: impl IntoIterator<Item = Peer>,
        known_peers: &KnownPeers,
        stop: &watch::Receiver<bool>,
        shards: Vec<Handle>,
    ) -> Self {
        let (local, known_peers, stop) = (local.clone(), known_peers.clone(), stop.clone());
        let (links, version) = (RwLock::default(), AtomicU64::new(0));
        let (background, board) = (Handle::current(), Board::default());
        let dialled = Self { local, known_peers, stop, shards, background, links, version, board };
        dialled.set_peers(peers);
        dialled
    }

    /// Dials exactly these peers from now on, and returns those that are new or have moved.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = Peer>) -> Vec<NodeId> {
        let peers: BTreeMap<NodeId, Peer> = peers.into_iter().map(|peer| (peer.node, peer)).collect();
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.retain(|node, dialled| {
            let stays = peers.get(node) == Some(&dialled.peer);
            if !stays {
                self.board.remove(*node);
            }
            stays
        });
        let mut new = Vec::new();
        for (node, peer) in peers {
            if links.contains_key(&node) {
                continue;
            }
            let stats = Arc::new(PeerStats::new(peer.name.clone()));
            self.board.add(node, stats.clone());
            let (end, ended) = watch::channel(());
            let start = |shard: Option<u32>| {
                let (local, known, stop) = (self.local.clone(), self.known_peers.clone(), self.stop.clone());
                Link::start(
                    Caller { local, shard },
                    &self.background,
                    peer.clone(),
                    stats.clone(),
                    known,
                    stop,
                    ended.clone(),
                )
            };
            let link = start(None);
            let of_shards = (0..).zip(&self.shards).map(|(shard, thread)| {
                let _there = thread.enter();
                Arc::new(start(Some(shard)))
            });
            let of_shards = of_shards.collect();
            links.insert(node, Dialled { peer, link, of_shards, _end: end });
            new.push(node);
        }
        self.version.fetch_add(1, Ordering::Release);
        new
    }

    /// The state of the connections.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// For each peer, whether the control's connection is open; the value is sent again each time that dialling fails.
    pub fn connections(&self) -> Vec<(NodeId, watch::Receiver<bool>)> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|(&node, dialled)| (node, dialled.link.connected())).collect()
    }

    /// For each peer, whether a connection of the shards is open, for each of them.
    pub fn shard_connections(&self) -> Vec<watch::Receiver<bool>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.values().flat_map(|dialled| dialled.of_shards.iter().map(|link| link.connected())).collect()
    }
}

impl Peers {
    /// Watches the peers that do not answer this node: a connection that was cut off is dialled again as soon as the peer can be reached.
    pub fn doubt(&self, liveness: &Liveness) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        for (&node, dialled) in links.iter() {
            let is_doubted = liveness.status(node) != Status::Alive;
            dialled.link.doubt(is_doubted);
            dialled.of_shards.iter().for_each(|link| link.doubt(is_doubted));
        }
    }

    /// Sends `messages` to a peer on the control's connection, or drops them if there is no connection or the peer's queue is full.
    pub fn send(&self, to: NodeId, messages: &[Envelope]) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        match links.get(&to) {
            Some(dialled) => dialled.link.send(messages, None),
            None => dropped_unknown(to, messages),
        }
    }

    /// The sender of the shard with this index, which must be one of those that were given.
    pub fn of_shard(self: Arc<Self>, shard: u32) -> ShardPeers {
        ShardPeers { peers: self, shard, links: BTreeMap::new(), version: 0 }
    }
}

fn dropped_unknown(to: NodeId, messages: &[Envelope]) {
    // The peer may have just left, or just joined.
    tracing::debug!(to = %to, dropped = messages.len(), "dropped messages to an unknown peer");
}

/// A shard's sender to the peers.
#[derive(Debug)]
pub struct ShardPeers {
    peers: Arc<Peers>,
    shard: u32,
    /// The shard's links, as of `version`: sending takes no lock that others share.
    links: BTreeMap<NodeId, Arc<Link>>,
    version: u64,
}

impl Outgoing for ShardPeers {
    fn send(&mut self, to: NodeId, messages: &[Envelope], synced: Option<Mark>) {
        let version = self.peers.version.load(Ordering::Acquire);
        if version != self.version {
            let links = self.peers.links.read().unwrap_or_else(PoisonError::into_inner);
            let own = |dialled: &Dialled| dialled.of_shards.get(self.shard as usize).cloned();
            self.links = links.iter().filter_map(|(&node, dialled)| Some((node, own(dialled)?))).collect();
            self.version = version;
        }
        match self.links.get(&to) {
            Some(link) => link.send(messages, synced.map(|mark| (self.shard, mark))),
            None => dropped_unknown(to, messages),
        }
    }
}

/// Why a data directory cannot be served, now or ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unwelcome {
    /// It must not be served again.
    Retired(Retired),
    /// Another process serves a copy of it.
    Runs {
        /// The node that reports this.
        reported_by: String,
    },
}

/// Asks all reachable peers at once, before the next boot begins, whether this node's data directory may be served. Also asks at the node's
/// own address, which must not be listened on yet: a node that runs there serves a copy.
///
/// # Errors
/// If one of them refuses.
pub async fn introduce(local: &LocalNode, peers: &[Peer], known_peers: &KnownPeers) -> Result<(), Unwelcome> {
    let requests = peers.iter().map(|peer| outgoing::introduce(local, peer, known_peers));
    let responses = futures_util::future::join_all(requests).await;
    // A copy that lacks what its original has stored since is refused for good only if the original does not run.
    let runs = responses.iter().find(|response| matches!(response, Err(Unwelcome::Runs { .. }))).cloned();
    runs.into_iter().chain(responses).collect()
}

/// Asks which node listens at an address.
///
/// # Errors
/// If no node of this cluster does.
pub async fn identify(local: &LocalNode, addr: &str) -> Result<Found, HelloError> {
    outgoing::identify(local, addr).await
}

/// Receives messages from peers on at most `connections_max` connections to `listener`, hands them to `inbound` and counts them on `board`,
/// until `stop` is true.
pub async fn listen(
    local: LocalNode,
    listener: TcpListener,
    connections_max: usize,
    inbound: Inbound,
    board: Board,
    known_peers: KnownPeers,
    stop: watch::Receiver<bool>,
) {
    incoming::listen(local, listener, connections_max, inbound, board, known_peers, stop).await;
}

fn codec(frame_bytes_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(frame_bytes_max).new_codec()
}

#[cfg(test)]
mod tests;
