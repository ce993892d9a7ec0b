//! Connections between nodes.
//!
//! Each node dials each other node and says everything it has to say to it, questions and answers alike, on the connection
//! that it dialled; what it is told comes in on the connections that were dialled to it. A message may be lost: what cannot be
//! sent now is dropped and counted, and the protocol asks again.

mod frames;
mod hello;
mod incoming;
mod outgoing;
mod rate_limit;

use std::collections::BTreeMap;

use cartwheel_core::dot::NodeId;
use cartwheel_core::message::Envelope;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::codec::LengthDelimitedCodec;

use crate::shard::{Outgoing, ShardHandle};
use outgoing::Link;

pub use hello::{HelloError, LocalNode};

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
}

impl Peers {
    /// Begins to dial `peers`, again and again until `stop` is true, and gives back the way to them.
    ///
    /// It must be called within a tokio runtime.
    pub fn dial(local: &LocalNode, peers: impl IntoIterator<Item = Peer>, stop: &watch::Receiver<bool>) -> Self {
        let links = peers.into_iter().map(|peer| (peer.node, Link::start(local.clone(), peer, stop.clone()))).collect();
        Self { links }
    }

    /// For each peer, whether a connection to it stands.
    pub fn connections(&self) -> impl Iterator<Item = watch::Receiver<bool>> + '_ {
        self.links.values().map(Link::connected)
    }
}

impl Outgoing for Peers {
    fn send(&mut self, to: NodeId, messages: Vec<Envelope>) {
        match self.links.get(&to) {
            Some(link) => link.send(&messages),
            None => tracing::warn!("dropped {} messages to {to}, which is no peer", messages.len()),
        }
    }
}

/// Takes in what peers say on connections to `listener`, and hands it to `shard`, until `stop` is true.
pub async fn listen(local: LocalNode, listener: TcpListener, shard: ShardHandle, stop: watch::Receiver<bool>) {
    incoming::listen(local, listener, shard, stop).await;
}

fn codec(frame_bytes_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(frame_bytes_max).new_codec()
}

#[cfg(test)]
mod tests;
