//! What this node knows of its connections to each peer: for operators and metrics, never for the protocol.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::message::Envelope;
use cartwheel_core::node::clock_guard::ClockGuard;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::time::Now;
use cartwheel_core::wire::{Protocol, Spoken};
use tokio::sync::Notify;

use super::Peer;
use super::hello::Remote;
use crate::os::clock::Clock;

/// One entry for each peer that is dialled. Clones show the same.
#[derive(Clone, Debug)]
pub struct Board {
    /// What the peers' clocks are compared with.
    clock: Clock,
    peers: Arc<RwLock<BTreeMap<NodeId, Arc<PeerStats>>>>,
    refusals: Arc<AtomicU64>,
    nonsense: Arc<[AtomicU64; Nonsense::ALL.len()]>,
}

/// What a peer sent that made no sense: the connection that it came on is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nonsense {
    /// A frame that is no message.
    Frame,
    /// A frame that is longer than one may be.
    TooLong,
    /// A message in another node's name.
    OtherName,
}

impl Nonsense {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Frame, Self::TooLong, Self::OtherName];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame => "no_message",
            Self::TooLong => "too_long",
            Self::OtherName => "other_name",
        }
    }
}

/// What is known of one peer.
#[derive(Debug)]
pub struct PeerStats {
    /// Its name.
    pub name: String,
    /// Messages that went out to it.
    pub sent: Traffic,
    /// Messages that came in from it.
    pub received: Traffic,
    /// Bytes of those of them that compare replicas, and of the states that this shows one to lack.
    pub exchange_bytes: AtomicU64,
    /// Messages that were dropped instead of sent.
    pub dropped: AtomicU64,
    /// How often a connection to it came about.
    pub connects: AtomicU64,
    /// It has dialled this node.
    pub(super) called: Notify,
    link: Mutex<LinkState>,
    clock_guard: Mutex<ClockGuard>,
}

/// Messages in one direction.
#[derive(Debug, Default)]
pub struct Traffic {
    /// How many.
    pub messages: AtomicU64,
    /// How many bytes they had.
    pub bytes: AtomicU64,
}

/// The connection that this node dials to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkState {
    /// Whether it stands.
    pub connected: bool,
    /// Since when that is so.
    pub since: SystemTime,
    /// Why it does not stand; what went wrong last, if nothing has been tried since.
    pub last_error: Option<String>,
    /// The peer's boot, as it last said.
    pub boot: Option<u32>,
    /// The version of the peer's program, as it last said.
    pub version: Option<String>,
    /// The versions of the protocol that the peer speaks, as it last said.
    pub spoken: Option<Spoken>,
    /// The one that is used on the connection, while it stands.
    pub protocol: Option<Protocol>,
}

impl Board {
    pub(super) fn of<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> Self {
        let peers = peers.into_iter().map(|peer| (peer.node, Arc::new(PeerStats::new(peer.name.clone()))));
        Self {
            clock: Clock::start(),
            peers: Arc::new(RwLock::new(peers.collect())),
            refusals: Arc::default(),
            nonsense: Arc::default(),
        }
    }

    /// The clocks that all peers' are compared with.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// What is known of a peer.
    pub fn get(&self, node: NodeId) -> Option<Arc<PeerStats>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// A peer that is dialled from now on.
    pub(super) fn add(&self, node: NodeId, stats: Arc<PeerStats>) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).insert(node, stats);
    }

    /// A peer that is not dialled any more.
    pub(super) fn remove(&self, node: NodeId) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// How many connections that were dialled to this node came to nothing: whoever dialled was no peer, or said nothing.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// How often peers sent what makes no sense.
    pub fn nonsense(&self, kind: Nonsense) -> u64 {
        self.nonsense[kind as usize].load(Ordering::Relaxed)
    }

    pub(super) fn sent_nonsense(&self, kind: Nonsense) {
        self.nonsense[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All peers and what is known of them, by id.
    pub fn all(&self) -> Vec<(NodeId, Arc<PeerStats>)> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(&node, peer)| (node, peer.clone())).collect()
    }

    /// What is known of all peers.
    pub fn peers(&self) -> Vec<Arc<PeerStats>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::of([])
    }
}

impl PeerStats {
    pub(super) fn new(name: String) -> Self {
        let link = LinkState {
            connected: false,
            since: SystemTime::now(),
            last_error: None,
            boot: None,
            version: None,
            spoken: None,
            protocol: None,
        };
        Self {
            name,
            sent: Traffic::default(),
            received: Traffic::default(),
            exchange_bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            called: Notify::new(),
            link: Mutex::new(link),
            clock_guard: Mutex::default(),
        }
    }

    /// The connection, as it is now.
    pub fn link(&self) -> LinkState {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The peer's clock less this node's at the board's time `now`, in milliseconds; none if nothing was heard of it lately.
    pub fn clock_offset_ms(&self, now: Now) -> Option<i64> {
        let clock_guard = self.clock_guard.lock().unwrap_or_else(PoisonError::into_inner);
        clock_guard.compare(now, 2, |_| Status::Alive).map(|comparison| comparison.offset_ms)
    }

    /// What the peer speaks, though it is nothing that this node does.
    pub(super) fn speaks(&self, spoken: Spoken) {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).spoken = Some(spoken);
    }

    pub(super) fn connected(&self, remote: &Remote, protocol: Protocol) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        *link = LinkState {
            connected: true,
            since: SystemTime::now(),
            last_error: None,
            boot: Some(remote.boot),
            version: remote.version.clone(),
            spoken: Some(remote.spoken),
            protocol: Some(protocol),
        };
    }

    pub(super) fn failed(&self, error: String) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.connected {
            link.since = SystemTime::now();
        }
        (link.connected, link.protocol) = (false, None);
        link.last_error = Some(error);
    }

    pub(super) fn heard(&self, message: &Envelope, bytes: usize, now: Now) {
        self.received.count(1, bytes);
        let mut clock_guard = self.clock_guard.lock().unwrap_or_else(PoisonError::into_inner);
        clock_guard.heard(message.from, (message.from_incarnation, message.from_boot), message.sent, now);
    }
}

impl Traffic {
    pub(super) fn count(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
