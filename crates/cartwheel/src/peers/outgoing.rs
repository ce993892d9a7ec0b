//! The connection that this node dials to one peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::exchange::EXCHANGE;
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::wire::{Protocol, encode_envelope_as};
use futures_util::SinkExt;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::codec::{FramedWrite, LengthDelimitedCodec};
use tracing::{debug, info, warn};

use super::hello::{self, HelloError, Remote};
use super::{Acquaintances, FRAME_BYTES_MAX, LocalNode, Peer, PeerStats, Unwelcome, codec, keepalive};
use crate::lineage::Mark;
use crate::random;
use crate::rate_limit::RateLimit;

/// How many batches of frames, and how many bytes in them, may wait for a peer. One frame may always wait.
const BATCHES_MAX: usize = 1_024;
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// How many bytes are gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;
/// How long dialling may take, and how long a peer may take no bytes before the connection counts as broken.
const DIAL_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take to reach a peer that is to say what it knows of this node, and how long the peer may take in all, before that goes
/// on without it.
const REACHED_WITHIN: Duration = Duration::from_secs(1);
const INTRODUCED_WITHIN: Duration = Duration::from_secs(4);
/// The tag of field 31 with a wire type that protobuf does not have.
const MARK_FRAME: u8 = 0xff;
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait before the next dial: at first, and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Frames that wait for a peer.
#[derive(Debug)]
struct Batch {
    /// The version of the protocol that they are of.
    protocol: Protocol,
    /// The shard that they are of, and the mark of its store that goes before them.
    synced: Option<(u32, Mark)>,
    frames: Vec<Bytes>,
}

/// The way to one peer.
#[derive(Debug)]
pub(super) struct Link {
    stats: Arc<PeerStats>,
    batches: mpsc::Sender<Batch>,
    /// The version of the protocol that was agreed on with the peer for the latest connection.
    agreed: Arc<AtomicU32>,
    queued_bytes: Arc<AtomicUsize>,
    connected: watch::Receiver<bool>,
    drops: RateLimit,
}

impl Link {
    /// Begins to dial `peer`, until `stop` is true or whoever would tell of `ended` is gone.
    pub(super) fn start(
        local: LocalNode,
        peer: Peer,
        stats: Arc<PeerStats>,
        acquaintances: Acquaintances,
        stop: watch::Receiver<bool>,
        ended: watch::Receiver<()>,
    ) -> Self {
        let (batches, receiver) = mpsc::channel(BATCHES_MAX);
        let (connected_sender, connected) = watch::channel(false);
        let (queued_bytes, agreed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU32::new(Protocol::OLDEST.0)));
        let link = Self {
            stats: stats.clone(),
            batches,
            agreed: agreed.clone(),
            queued_bytes: queued_bytes.clone(),
            connected,
            drops: RateLimit::new(LOG_EVERY),
        };
        let connected = connected_sender;
        let dialler = Dialler { local, peer, stats, acquaintances, batches: receiver, agreed, queued_bytes, connected };
        tokio::spawn(dialler.run(stop, ended));
        link
    }

    /// Whether a connection stands.
    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Sends `messages`, or drops them: while there is no connection, and when too much waits for a slow one.
    pub(super) fn send(&self, messages: &[Envelope], synced: Option<(u32, Mark)>) {
        if !*self.connected.borrow() {
            return self.dropped(messages.len(), "there is no connection");
        }
        let protocol = Protocol(self.agreed.load(Ordering::Acquire));
        let mut frames = Vec::with_capacity(messages.len());
        let (mut bytes, mut exchange_bytes) = (0, 0);
        for message in messages {
            let frame = encode_envelope_as(message, protocol);
            if frame.len() > FRAME_BYTES_MAX {
                self.dropped(1, "it is longer than a frame may be");
                continue;
            }
            bytes += frame.len();
            exchange_bytes += if is_exchange(&message.message) { frame.len() } else { 0 };
            frames.push(frame);
        }
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let count = frames.len();
        if (queued > 0 && queued + bytes > QUEUED_BYTES_MAX)
            || self.batches.try_send(Batch { protocol, synced, frames }).is_err()
        {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return self.dropped(count, "too much waits for it already");
        }
        self.stats.exchange_bytes.fetch_add(exchange_bytes as u64, Ordering::Relaxed);
    }

    fn dropped(&self, count: usize, why: &str) {
        self.stats.dropped.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(count) = self.drops.count(count as u64) {
            warn!("dropped {count} messages to {}: {why}", self.stats.name);
        }
    }
}

/// Whether a message is one of those by which replicas are compared and made equal.
const fn is_exchange(message: &Message) -> bool {
    match message {
        Message::Compare(..) | Message::Compared(..) => true,
        Message::Ask(ticket, _) | Message::Answer(ticket, _) => ticket.round & EXCHANGE != 0,
        Message::Forward(..) | Message::Forwarded(..) | Message::Fetch(..) | Message::Fetched(..) => false,
        Message::Succession(..) | Message::Notice(_) => false,
    }
}

/// Dials a peer and writes to it what the link's queue holds.
struct Dialler {
    local: LocalNode,
    peer: Peer,
    stats: Arc<PeerStats>,
    acquaintances: Acquaintances,
    batches: mpsc::Receiver<Batch>,
    agreed: Arc<AtomicU32>,
    queued_bytes: Arc<AtomicUsize>,
    connected: watch::Sender<bool>,
}

impl Dialler {
    async fn run(mut self, mut stop: watch::Receiver<bool>, mut ended: watch::Receiver<()>) {
        tokio::select! {
            () = self.dial_for_ever() => {}
            _ = ended.changed() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.connected.send_replace(false);
    }

    async fn dial_for_ever(&mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut last_error = String::new();
        loop {
            match self.dial().await {
                Ok((stream, remote, protocol)) => {
                    self.stats.connected(&remote, protocol);
                    let peer = &self.peer;
                    info!("connected to {} at {}, in protocol version {protocol}", peer.name, peer.addr);
                    (backoff, last_error) = (BACKOFF_MIN, String::new());
                    let known = self.acquaintances.clone();
                    let error = tokio::select! {
                        error = self.serve(stream, protocol) => error,
                        // It is told why when it is dialled again.
                        () = known.refused(&remote) => std::io::Error::other("it is refused from now on"),
                    };
                    self.connected.send_replace(false);
                    self.stats.failed(format!("the connection broke: {error}"));
                    warn!("the connection to {} broke: {error}", self.peer.name);
                }
                Err(error) => {
                    match error {
                        HelloError::Retired(why) => self.acquaintances.retire(why, &self.peer.name),
                        HelloError::Version { theirs, .. } => self.stats.speaks(theirs),
                        _ => {}
                    }
                    let error = error.to_string();
                    self.stats.failed(error.clone());
                    self.connected.send_replace(false);
                    // The same error again and again is one piece of news.
                    if error == last_error {
                        debug!("cannot connect to {}: {error}", self.peer.name);
                    } else {
                        warn!("cannot connect to {} at {}: {error}", self.peer.name, self.peer.addr);
                        last_error = error;
                    }
                }
            }
            tokio::time::sleep(jittered(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn dial(&self) -> Result<(TcpStream, Remote, Protocol), HelloError> {
        dial(&self.local, &self.peer, &self.acquaintances).await
    }

    /// Writes until the connection breaks, and says why it did.
    async fn serve(&mut self, stream: TcpStream, protocol: Protocol) -> std::io::Error {
        // Messages that waited for the last connection are stale by now.
        while let Ok(batch) = self.batches.try_recv() {
            self.taken(&batch);
        }
        self.agreed.store(protocol.0, Ordering::Release);
        self.connected.send_replace(true);
        let (read, write) = stream.into_split();
        let mut frames = FramedWrite::new(write, codec(FRAME_BYTES_MAX));
        frames.set_backpressure_boundary(WRITE_BYTES);
        tokio::select! {
            error = closed(read) => error,
            error = self.write(&mut frames, protocol) => error,
        }
    }

    async fn write(
        &mut self,
        frames: &mut FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>,
        protocol: Protocol,
    ) -> std::io::Error {
        let (mut gathered, mut told) = (Vec::new(), BTreeMap::new());
        loop {
            if self.batches.recv_many(&mut gathered, BATCHES_MAX).await == 0 {
                return std::io::Error::other("this node is stopping");
            }
            let write_out = async {
                for batch in gathered.drain(..) {
                    let bytes = self.taken(&batch);
                    // What was made for the last connection while this one came about.
                    if batch.protocol != protocol {
                        self.stats.dropped.fetch_add(batch.frames.len() as u64, Ordering::Relaxed);
                        continue;
                    }
                    self.stats.sent.count(batch.frames.len(), bytes);
                    // Before what it may be needed for: it must not be acknowledged what a peer would not miss.
                    if let Some((shard, mark)) = batch.synced
                        && told.insert(shard, mark) != Some(mark)
                    {
                        frames.feed(mark_frame(shard, mark)).await?;
                    }
                    for frame in batch.frames {
                        frames.feed(frame).await?;
                    }
                }
                SinkExt::<Bytes>::flush(frames).await
            };
            match tokio::time::timeout(WRITE_WITHIN, write_out).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return std::io::ErrorKind::TimedOut.into(),
            }
        }
    }

    /// Counts a batch out of the queue, and says how many bytes it has.
    fn taken(&self, batch: &Batch) -> usize {
        let bytes = batch.frames.iter().map(Bytes::len).sum();
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        bytes
    }
}

/// Connects to a peer, and lets both sides say who they are.
async fn dial(
    local: &LocalNode,
    peer: &Peer,
    acquaintances: &Acquaintances,
) -> Result<(TcpStream, Remote, Protocol), HelloError> {
    let mut stream = connect(peer, DIAL_WITHIN).await?;
    let (remote, protocol) = hello::call(&mut stream, local, peer.node, acquaintances).await?;
    Ok((stream, remote, protocol))
}

async fn connect(peer: &Peer, within: Duration) -> Result<TcpStream, HelloError> {
    let dialled = tokio::time::timeout(within, TcpStream::connect(&peer.addr)).await;
    let dialled = dialled.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let stream = dialled.map_err(HelloError::Unreachable)?;
    stream.set_nodelay(true)?;
    keepalive::watch(&stream)?;
    Ok(stream)
}

/// See [`super::introduce`]. A peer that does not answer soon says nothing.
pub(super) async fn introduce(local: &LocalNode, peer: &Peer, acquaintances: &Acquaintances) -> Result<(), Unwelcome> {
    let asked = async {
        let mut stream = connect(peer, REACHED_WITHIN).await?;
        hello::call(&mut stream, local, peer.node, acquaintances).await
    };
    match tokio::time::timeout(INTRODUCED_WITHIN, asked).await {
        Ok(Err(HelloError::Retired(why))) => Err(Unwelcome::Retired(why)),
        Ok(Err(HelloError::Runs { .. })) => Err(Unwelcome::Runs { told_by: peer.name.clone() }),
        _ => Ok(()),
    }
}

/// The frame that says how far the store of a shard has come. No message begins with its first byte.
fn mark_frame(shard: u32, mark: Mark) -> Bytes {
    [&[MARK_FRAME][..], &shard.to_be_bytes(), &mark.to_bytes()].concat().into()
}

/// What such a frame says; none if it is another one.
pub(super) fn read_mark_frame(frame: &[u8]) -> Option<(u32, Mark)> {
    let (shard, mark) = frame.strip_prefix(&[MARK_FRAME])?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*shard), Mark::from_bytes(mark)?))
}

/// Waits for the end of a connection on which the peer says nothing more.
async fn closed(mut read: OwnedReadHalf) -> std::io::Error {
    let mut byte = [0; 1];
    match read.read(&mut byte).await {
        Ok(0) => std::io::Error::other("the peer closed it"),
        Ok(_) => std::io::Error::other("the peer spoke where it should not"),
        Err(error) => error,
    }
}

/// A time around `backoff`, so that nodes which lost each other at once do not dial each other at once.
fn jittered(backoff: Duration) -> Duration {
    let random = random::number().unwrap_or_default() as u32;
    backoff / 2 + backoff.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
