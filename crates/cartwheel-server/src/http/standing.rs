//! The connections of clients that stand. Where there are as many as may be, a new one takes the place of one that is idle; and where none is, it
//! is still asked what it wants: whoever looks after the node is always answered.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// How many connections beyond those that may stand are answered what the node is asked about itself.
const RESERVED_MAX: usize = 64;
/// A connection is idle once nothing was asked on it for so long: before that, an answer may still be on its way.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// How often it is looked whether one is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Answers of so many bytes may take long to be read. While they do the connection is not idle.
const LONG_BYTES: u64 = 32 << 10;

/// What is answered on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Serves {
    /// Everything.
    All,
    /// Nothing about keys, and one request: there are too many connections.
    Itself,
    /// Nothing about keys: it came to where administrators are listened to.
    Administrators,
}

/// Each with its client, by number.
type Connections = BTreeMap<u64, (Option<IpAddr>, Arc<State>)>;

/// The connections to one address.
#[derive(Debug)]
pub(super) struct Standing {
    /// How many may stand, and how many with those that are one too many.
    max: usize,
    max_in_all: usize,
    begun: Instant,
    numbers: AtomicU64,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when, in milliseconds, nothing is asked on it; [`BUSY`] while something is.
    idle_since: AtomicU64,
    /// It is to be closed.
    told: AtomicBool,
    tell: Notify,
}

const BUSY: u64 = u64::MAX;

/// A connection that stands, until the last clone of this is dropped.
#[derive(Clone, Debug)]
pub(super) struct Stands(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    of: Arc<Standing>,
    number: u64,
    state: Arc<State>,
    serves: Serves,
}

impl Standing {
    /// Of at most so many connections, some of which are kept for those who look after the node.
    pub(super) fn new(connections_max: usize) -> Arc<Self> {
        let max = connections_max - RESERVED_MAX.min(connections_max / 4);
        let (begun, numbers, connections) = (Instant::now(), AtomicU64::new(0), Mutex::default());
        Arc::new(Self { max, max_in_all: connections_max, begun, numbers, connections })
    }

    /// Waits until there is room for another connection. Until then, those are closed that become idle.
    pub(super) async fn room(&self) {
        while !self.has_room() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn has_room(&self) -> bool {
        let connections = self.lock();
        let has_room = connections.len() < self.max_in_all;
        if !has_room {
            self.close_one(&connections);
        }
        has_room
    }

    /// A connection from a client, on which as much is answered as `serves` says, and less where it is one too many.
    pub(super) fn begin(self: &Arc<Self>, client: Option<IpAddr>, serves: Serves) -> Stands {
        let mut connections = self.lock();
        let leaving = connections.values().filter(|(_, state)| state.told.load(Ordering::Relaxed)).count();
        let is_one_too_many = connections.len() - leaving >= self.max && !self.close_one(&connections);
        let serves = if is_one_too_many && serves == Serves::All { Serves::Itself } else { serves };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(State { idle_since: AtomicU64::new(self.now()), ..State::default() });
        connections.insert(number, (client, state.clone()));
        Stands(Arc::new(Inner { of: self.clone(), number, state, serves }))
    }

    /// Has a connection closed that is idle: of the client with the most connections, the one that has been idle for the longest. False if
    /// none is.
    fn close_one(&self, connections: &Connections) -> bool {
        let mut counts: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        for (client, _) in connections.values() {
            *counts.entry(*client).or_default() += 1;
        }
        let now = self.now();
        let idle = connections.values().filter(|(_, state)| {
            let idle_from = state.idle_since.load(Ordering::Relaxed).saturating_add(IDLE_AFTER.as_millis() as u64);
            idle_from <= now && !state.told.load(Ordering::Relaxed)
        });
        let most = idle.max_by_key(|(client, state)| {
            (counts.get(client), std::cmp::Reverse(state.idle_since.load(Ordering::Relaxed)))
        });
        let Some((_, state)) = most else { return false };
        state.told.store(true, Ordering::Relaxed);
        state.tell.notify_one();
        true
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stands {
    /// What is answered on it.
    pub(super) fn serves(&self) -> Serves {
        self.0.serves
    }

    /// Something is asked on it.
    pub(super) fn is_busy(&self) {
        self.0.state.idle_since.store(BUSY, Ordering::Relaxed);
    }

    fn is_idle(&self) {
        self.0.state.idle_since.store(self.0.of.now(), Ordering::Relaxed);
    }

    /// It has been answered, once the answer is on its way.
    pub(super) fn answered(&self, answer: Response) -> Response {
        if answer.body().size_hint().lower() < LONG_BYTES && answer.body().size_hint().upper().is_some() {
            self.is_idle();
            return answer;
        }
        let stands = self.clone();
        answer.map(|body| Body::new(Long { body, stands }))
    }

    /// Completes when it is to be closed, and still idle.
    pub(super) async fn given_up(&self) {
        loop {
            self.0.state.tell.notified().await;
            if self.0.state.idle_since.load(Ordering::Relaxed) != BUSY {
                return;
            }
            self.0.state.told.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.of.lock().remove(&self.number);
    }
}

/// The body of an answer whose connection is idle again once it was taken in.
struct Long {
    body: Body,
    stands: Stands,
}

impl HttpBody for Long {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.stands.is_idle();
    }
}
