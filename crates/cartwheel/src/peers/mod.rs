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
mod keepalive;
mod outgoing;

use std::collections::BTreeMap;
use std::sync::Arc;

use cartwheel_core::dot::NodeId;
use cartwheel_core::message::Envelope;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::codec::LengthDelimitedCodec;

use crate::shard::Outgoing;
use outgoing::Link;

pub use acquaintances::{Acquaintances, Retired};
pub use board::{Board, LinkState, Nonsense, PeerStats, Traffic};
pub use hello::{HelloError, LocalNode};
pub use inbound::Inbound;

/// The longest frame, in bytes. A state of 128 siblings, as many as blind puts may pile up, of 1 MiB each fits in twice.
const FRAME_BYTES_MAX: usize = 256 << 20;

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
    links: BTreeMap<NodeId, Link>,
    board: Board,
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
        let peers: Vec<Peer> = peers.into_iter().collect();
        let board = Board::of(&peers);
        let start = |peer: Peer| {
            let stats = board.get(peer.node)?.clone();
            Some((peer.node, Link::start(local.clone(), peer, stats, acquaintances.clone(), stop.clone())))
        };
        Self { links: peers.into_iter().filter_map(start).collect(), board: board.clone() }
    }

    /// What is known of each peer.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// For each peer, whether a connection to it stands; told anew each time when dialling fails.
    pub fn connections(&self) -> impl Iterator<Item = (NodeId, watch::Receiver<bool>)> + '_ {
        self.links.iter().map(|(&node, link)| (node, link.connected()))
    }
}

impl Peers {
    /// Sends `messages` to a peer, or drops them: while there is no connection, and when too much waits for a slow one.
    pub fn send(&self, to: NodeId, messages: &[Envelope]) {
        match self.links.get(&to) {
            Some(link) => link.send(messages),
            None => tracing::warn!("dropped {} messages to {to}, which is no peer", messages.len()),
        }
    }
}

impl Outgoing for Arc<Peers> {
    fn send(&mut self, to: NodeId, messages: Vec<Envelope>) {
        Peers::send(self, to, &messages);
    }
}

/// Asks all peers that can be reached at once whether this node's data directory may be served: `local` says the last boot that has
/// been, before the next one begins.
///
/// # Errors
/// If one of them says that it may not.
pub async fn introduce(local: &LocalNode, peers: &[Peer], acquaintances: &Acquaintances) -> Result<(), Retired> {
    let asked = peers.iter().map(|peer| outgoing::introduce(local, peer, acquaintances));
    futures_util::future::join_all(asked).await.into_iter().collect()
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
