//! The state of the connections to each peer: for operators and metrics, never for the protocol.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::SystemTime;

use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::message::Envelope;
use cartwheel_core::node::clock_guard::ClockGuard;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::time::Now;
use cartwheel_core::wire::{Protocol, Spoken};
use tokio::sync::watch;

use super::Peer;
use super::hello::Remote;
use crate::os::clock::Clock;

/// One entry per peer that is dialled. Clones share the entries.
#[derive(Clone, Debug)]
pub struct Board {
    /// The clock that the peers' clocks are compared with.
    clock: Clock,
    peers: Arc<RwLock<BTreeMap<NodeId, Arc<PeerStats>>>>,
    refusals: Arc<AtomicU64>,
    nonsense: Arc<[AtomicU64; ProtocolError::ALL.len()]>,
}

/// Invalid input from a peer. It closes the connection that it came on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// A frame that is not a message.
    Frame,
    /// A frame that is too long.
    TooLong,
    /// A message in another node's name.
    OtherName,
}

impl ProtocolError {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Frame, Self::TooLong, Self::OtherName];

    /// The label in metrics.
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
    /// Messages sent to it.
    pub sent: Traffic,
    /// Messages received from it.
    pub received: Traffic,
    /// Bytes of anti-entropy messages sent to it, repairs included.
    pub exchange_bytes: AtomicU64,
    /// Messages that were dropped instead of sent.
    pub dropped: AtomicU64,
    /// Connections made to it.
    pub connects: AtomicU64,
    /// How often the peer has dialled this node.
    pub(super) called: watch::Sender<u64>,
    link: Mutex<LinkState>,
    /// The bytes in each queue that leads to it, for as long as there is the queue.
    queued: Mutex<Vec<Weak<AtomicUsize>>>,
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
    /// Whether it is open.
    pub connected: bool,
    /// When that began.
    pub since: SystemTime,
    /// Why it is not open; the last error, if nothing was tried since.
    pub last_error: Option<String>,
    /// The peer's boot, as it last reported.
    pub boot: Option<u32>,
    /// The version of the peer's program, as it last reported.
    pub version: Option<String>,
    /// The versions of the protocol that the peer speaks, as it last reported.
    pub spoken: Option<Spoken>,
    /// The version in use on the connection, while it is open.
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

    /// The time with which all peers' clocks are compared.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The entry of a peer.
    pub fn get(&self, node: NodeId) -> Option<Arc<PeerStats>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// Adds a peer that is dialled from now on.
    pub(super) fn add(&self, node: NodeId, stats: Arc<PeerStats>) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).insert(node, stats);
    }

    /// Removes a peer that is no longer dialled.
    pub(super) fn remove(&self, node: NodeId) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// How many connections to this node were refused, or closed before a hello.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    pub(super) fn refused(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// How often peers sent invalid input of this kind.
    pub fn protocol_errors(&self, kind: ProtocolError) -> u64 {
        self.nonsense[kind as usize].load(Ordering::Relaxed)
    }

    pub(super) fn sent_invalid(&self, kind: ProtocolError) {
        self.nonsense[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All peers with their entries, by id.
    pub fn all(&self) -> Vec<(NodeId, Arc<PeerStats>)> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(&node, peer)| (node, peer.clone())).collect()
    }

    /// The entries of all peers.
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
            called: watch::Sender::new(0),
            link: Mutex::new(link),
            queued: Mutex::default(),
            clock_guard: Mutex::default(),
        }
    }

    /// The present state of the connection.
    pub fn link(&self) -> LinkState {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The peer's clock minus this node's at the board's time `now`, in milliseconds; none if no message came lately.
    pub fn clock_offset_ms(&self, now: Now) -> Option<i64> {
        let clock_guard = self.clock_guard.lock().unwrap_or_else(PoisonError::into_inner);
        clock_guard.compare(now, 2, |_| Status::Alive).map(|comparison| comparison.offset_ms)
    }

    /// Adds queues that lead to the peer, by the bytes in them.
    pub(super) fn add_queues(&self, queues: [&Arc<AtomicUsize>; 2]) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.retain(|queue| queue.strong_count() > 0);
        queued.extend(queues.map(Arc::downgrade));
    }

    /// The bytes that wait to be sent to the peer.
    pub fn queued_bytes(&self) -> usize {
        let queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.iter().filter_map(Weak::upgrade).map(|queue| queue.load(Ordering::Relaxed)).sum()
    }

    /// How many queues lead to the peer.
    pub fn queues(&self) -> usize {
        let queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.iter().filter(|queue| queue.strong_count() > 0).count()
    }

    /// Records what the peer speaks, even if this node speaks none of it.
    pub(super) fn set_spoken(&self, spoken: Spoken) {
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

    pub(super) fn compare_clock(&self, message: &Envelope, now: Now) {
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
