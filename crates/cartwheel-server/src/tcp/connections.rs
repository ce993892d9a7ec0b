//! The open connections of clients. When the maximum is reached, a new connection replaces an idle one. If none is idle, it is accepted
//! for one request about the node itself, so that administrators always get a response.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// How many connections above the maximum are accepted for requests about the node itself.
const RESERVED_MAX: usize = 64;
/// A connection is idle after this long without a request: before that, a response may still be on its way.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// How often to check for an idle connection.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// Which requests are served on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Serves {
    /// Everything.
    All,
    /// One request, and none on keys: there are too many connections.
    Itself,
    /// No requests on keys: it is a connection to the administrators' address.
    Administrators,
}

/// The connections with their clients, by number.
type Connections = BTreeMap<u64, (Option<IpAddr>, Arc<State>)>;

/// The connections of clients that have one limit, whichever API they use.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    /// The maximum, without the reserved connections.
    max: usize,
    max_in_all: usize,
    begun: Instant,
    numbers: AtomicU64,
    /// The node stops: no further requests are served.
    stopping: AtomicBool,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct State {
    /// Wakes the connection while it waits for a request.
    waits: AtomicWaker,
    /// When the connection became idle, in milliseconds; [`BUSY`] during a request.
    idle_since: AtomicU64,
    /// The connection is to be closed.
    closing: AtomicBool,
    notify: Notify,
}

const BUSY: u64 = u64::MAX;

/// An open connection. It counts until its last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct OpenConnection(Arc<Inner>);

/// The address of the client that sent a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientAddr(pub(crate) IpAddr);

#[derive(Debug)]
struct Inner {
    of: Arc<ConnectionLimit>,
    number: u64,
    state: Arc<State>,
    serves: Serves,
    client: Option<IpAddr>,
}

impl ConnectionLimit {
    /// At most `connections_max` connections, some of which are reserved for administrators.
    pub(crate) fn new(connections_max: usize) -> Arc<Self> {
        let max = connections_max - RESERVED_MAX.min(connections_max / 4);
        let (begun, numbers, stopping) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { max, max_in_all: connections_max, begun, numbers, stopping, connections: Mutex::default() })
    }

    /// The most connections at once.
    pub(crate) const fn connections_max(&self) -> usize {
        self.max_in_all
    }

    /// Waits until there is room for another connection; meanwhile closes idle ones.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// Lets connections end after the request that they serve, and idle ones at once.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.lock().values().for_each(|(_, state)| state.waits.wake());
    }

    fn has_room(&self) -> bool {
        let connections = self.lock();
        let has_room = connections.len() < self.max_in_all;
        if !has_room {
            self.evict_idle(&connections);
        }
        has_room
    }

    /// Registers a connection from a client that is served as `serves` says, or less if it is one too many.
    pub(crate) fn register(self: &Arc<Self>, client: Option<IpAddr>, serves: Serves) -> OpenConnection {
        let mut connections = self.lock();
        let leaving = connections.values().filter(|(_, state)| state.closing.load(Ordering::Relaxed)).count();
        let is_one_too_many = connections.len() - leaving >= self.max && !self.evict_idle(&connections);
        let serves = if is_one_too_many && serves == Serves::All { Serves::Itself } else { serves };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(State { idle_since: AtomicU64::new(self.now()), ..State::default() });
        connections.insert(number, (client, state.clone()));
        OpenConnection(Arc::new(Inner { of: self.clone(), number, state, serves, client }))
    }

    /// Closes an idle connection: that of the client with the most connections that has been idle longest. Returns false if none is idle.
    fn evict_idle(&self, connections: &Connections) -> bool {
        let mut counts: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        for (client, _) in connections.values() {
            *counts.entry(*client).or_default() += 1;
        }
        let now = self.now();
        let idle = connections.values().filter(|(_, state)| {
            let idle_from = state.idle_since.load(Ordering::Relaxed).saturating_add(IDLE_AFTER.as_millis() as u64);
            idle_from <= now && !state.closing.load(Ordering::Relaxed)
        });
        let most = idle.max_by_key(|(client, state)| {
            (counts.get(client), std::cmp::Reverse(state.idle_since.load(Ordering::Relaxed)))
        });
        let Some((_, state)) = most else { return false };
        state.closing.store(true, Ordering::Relaxed);
        state.notify.notify_one();
        true
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnection {
    /// The client's address, if it is known.
    pub(crate) fn client(&self) -> Option<ClientAddr> {
        self.0.client.map(ClientAddr)
    }

    /// Which requests are served on it.
    pub(crate) fn serves(&self) -> Serves {
        self.0.serves
    }

    /// Marks the connection as busy: a request has arrived.
    pub(crate) fn set_busy(&self) {
        self.0.state.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// Whether the connection is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.of.stopping.load(Ordering::SeqCst)
    }

    /// Waits until the connection, which waits for a request, is to end.
    pub(crate) fn poll_stopping(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.state.waits.register(cx.waker());
        if self.is_stopping() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Marks the connection as idle: it waits for a request.
    pub(crate) fn set_idle(&self) {
        self.0.state.idle_since.store(self.0.of.now(), Ordering::Relaxed);
    }

    /// Completes when the connection is to be closed and is still idle.
    pub(crate) async fn evicted(&self) {
        loop {
            self.0.state.notify.notified().await;
            if self.0.state.idle_since.load(Ordering::Relaxed) != BUSY {
                return;
            }
            self.0.state.closing.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.of.lock().remove(&self.number);
    }
}
