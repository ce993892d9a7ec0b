//! Connections between nodes.
//!
//! Each node dials each other node and says everything it has to say to it, questions and answers alike, on the connection
//! that it dialled; what it is told comes in on the connections that were dialled to it. A message may be lost: what cannot be
//! sent now is dropped and counted, and the protocol asks again.

mod acquaintances;
mod board;
mod frames;
mod hello;
mod inbound;
mod incoming;
mod joining;
mod outgoing;
mod waiting;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use cartwheel_core::cluster::liveness::{Liveness, Status};
use cartwheel_core::config::SIBLING_BYTES_MAX;
use cartwheel_core::message::Envelope;
use cartwheel_core::ring::N_MAX;
use cartwheel_core::value::dot::NodeId;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::codec::LengthDelimitedCodec;

use crate::data_dir::lineage::Mark;
use crate::shard::Outgoing;
pub use acquaintances::{Acquaintances, PeersSpeak, Retired};
pub use board::{Board, Nonsense, PeerStats};
pub(crate) use hello::called;
pub use hello::{Found, HelloError, LocalNode};
pub use inbound::Inbound;
pub use joining::{Invitation, JoinError, ask_to_join};
use outgoing::Link;
pub use waiting::{Waiting, Welcome};

/// How many coordinators may take on siblings of one key apart, each up to its bound, before the joined state no longer fits a
/// frame: every home of the largest n, and half as many stand-ins.
const COORDINATORS_MAX: usize = N_MAX + N_MAX / 2;

/// The longest frame, in bytes: whatever a key's siblings come to, with clock and notes. Only what arrives takes memory.
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

/// The connections of a node.
#[derive(Debug)]
pub struct Peers {
    local: LocalNode,
    acquaintances: Acquaintances,
    stop: watch::Receiver<bool>,
    links: RwLock<BTreeMap<NodeId, Dialled>>,
    board: Board,
}

/// A peer that is dialled.
#[derive(Debug)]
struct Dialled {
    peer: Peer,
    link: Link,
    /// Ends the dialling.
    _end: watch::Sender<()>,
}

impl Peers {
    /// Begins to dial `peers`, again and again until `stop` is true, and gives back the way to them.
    ///
    /// It must be called within a tokio runtime.
    pub fn dial(
        local: &LocalNode,
        peers: impl IntoIterator<Item = Peer>,
        acquaintances: &Acquaintances,
        stop: &watch::Receiver<bool>,
    ) -> Self {
        let (local, acquaintances, stop) = (local.clone(), acquaintances.clone(), stop.clone());
        let dialled = Self { local, acquaintances, stop, links: RwLock::default(), board: Board::default() };
        dialled.go_by(peers);
        dialled
    }

    /// Dials these peers from now on and no others, and returns those that are new, or have moved.
    pub fn go_by(&self, peers: impl IntoIterator<Item = Peer>) -> Vec<NodeId> {
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
            let (local, known, stop) = (self.local.clone(), self.acquaintances.clone(), self.stop.clone());
            let link = Link::start(local, peer.clone(), stats, known, stop, ended);
            links.insert(node, Dialled { peer, link, _end: end });
            new.push(node);
        }
        new
    }

    /// What is known of each peer.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// For each peer, whether a connection to it stands; told anew each time when dialling fails.
    pub fn connections(&self) -> Vec<(NodeId, watch::Receiver<bool>)> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|(&node, dialled)| (node, dialled.link.connected())).collect()
    }
}

impl Peers {
    /// Has peers looked after that do not answer this node, as far as it knows: a connection to one that was cut off is made anew as soon as it
    /// can be reached again.
    pub fn doubt(&self, liveness: &Liveness) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().for_each(|(&node, dialled)| dialled.link.doubt(liveness.status(node) != Status::Alive));
    }

    /// Sends `messages` to a peer, or drops them: while there is no connection, and when too much waits for a slow one.
    pub fn send(&self, to: NodeId, messages: &[Envelope]) {
        self.send_of(to, messages, None);
    }

    /// The same for the shard with this index.
    pub fn of_shard(self: Arc<Self>, shard: u32) -> ShardPeers {
        ShardPeers { peers: self, shard }
    }

    fn send_of(&self, to: NodeId, messages: &[Envelope], synced: Option<(u32, Mark)>) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        match links.get(&to) {
            Some(dialled) => dialled.link.send(messages, synced),
            // It may have left a moment ago, or come.
            None => tracing::debug!("dropped {} messages to {to}, which is no peer", messages.len()),
        }
    }
}

/// The way of a shard to the peers.
#[derive(Debug)]
pub struct ShardPeers {
    peers: Arc<Peers>,
    shard: u32,
}

impl Outgoing for ShardPeers {
    fn send(&mut self, to: NodeId, messages: Vec<Envelope>, synced: Option<Mark>) {
        self.peers.send_of(to, &messages, synced.map(|mark| (self.shard, mark)));
    }
}

/// Why a data directory cannot be served now, or ever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unwelcome {
    /// It must not be.
    Retired(Retired),
    /// Another process serves a copy of it.
    Runs {
        /// The node that says so.
        told_by: String,
    },
}

/// Asks all peers that can be reached at once whether this node's data directory may be served, before the next boot begins; and whoever
/// is at its own address, which must not be listened on yet: a node that runs there serves a copy.
///
/// # Errors
/// If one of them says that it may not.
pub async fn introduce(local: &LocalNode, peers: &[Peer], acquaintances: &Acquaintances) -> Result<(), Unwelcome> {
    let asked = peers.iter().map(|peer| outgoing::introduce(local, peer, acquaintances));
    let answers = futures_util::future::join_all(asked).await;
    // A copy that lacks what its original has learnt meanwhile is refused for good only when the original does not run.
    let runs = answers.iter().find(|answer| matches!(answer, Err(Unwelcome::Runs { .. }))).cloned();
    runs.into_iter().chain(answers).collect()
}

/// Asks who is at an address.
///
/// # Errors
/// If nobody is there, or no node of this cluster.
pub async fn who_is_at(local: &LocalNode, addr: &str) -> Result<Found, HelloError> {
    outgoing::who_is_at(local, addr).await
}

/// Takes in what peers say on at most `connections_max` connections to `listener`, hands it to `inbound` and counts it on `board`, until `stop` is true.
pub async fn listen(
    local: LocalNode,
    listener: TcpListener,
    connections_max: usize,
    inbound: Inbound,
    board: Board,
    acquaintances: Acquaintances,
    stop: watch::Receiver<bool>,
) {
    incoming::listen(local, listener, connections_max, inbound, board, acquaintances, stop).await;
}

fn codec(frame_bytes_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(frame_bytes_max).new_codec()
}

#[cfg(test)]
mod tests;
