//! The connections that a shard, or the control, dials to one peer: one that is always open, and one for frames with large values, dialled when
//! there are any. Small frames would otherwise wait behind large ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use cartwheel_core::message::{Envelope, Message, RequestId, Requester};
use cartwheel_core::wire::{Frame, Protocol};
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::codec::FramedWrite;
use tracing::{debug, info, warn};

use super::hello::{self, Found, HelloError, Remote};
use super::{FRAME_BYTES_MAX, KnownPeers, LocalNode, Peer, PeerStats, Unwelcome, codec};
use crate::data_dir::lineage::Mark;
use crate::log::RateLimit;
use crate::os::random;
use crate::tcp::keepalive;
use crate::tls::NetStream;

/// How many batches of frames, and how many bytes in them, may wait for a peer. A single frame may always wait.
const BATCHES_MAX: usize = 1_024;
pub(crate) const QUEUED_BYTES_MAX: usize = 64 << 20;
/// How many bytes are gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;
/// How long dialling may take, how long a peer may accept no bytes before the connection counts as broken, and ...
const DIAL_WITHIN: Duration = Duration::from_secs(3);
/// ... how often another connection is requested meanwhile. The system would repeat a lost request after one, three and seven seconds: too
/// late to notice that a cut has healed.
const DIAL_EVERY: Duration = Duration::from_millis(500);
/// How long a peer may be missing before the log warns.
const MISSING_FOR: Duration = Duration::from_secs(5);
/// How long a suspected peer that was reached is left alone before the next check.
const REACHED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long it may take to reach a peer that is asked what it knows of this node, and how long the peer may take in all, before this node
/// continues without its response.
const REACHED_WITHIN: Duration = Duration::from_secs(1);
const INTRODUCED_WITHIN: Duration = Duration::from_secs(4);
/// The tag of field 31 with a wire type that protobuf does not have.
const MARK_FRAME: u8 = 0xff;
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait before the next dial: at first, and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(350);
const LOG_EVERY: Duration = Duration::from_secs(10);
/// The length in front of a frame.
const LENGTH_BYTES: usize = 4;
/// From this size on a frame goes by the connection for large frames.
const LARGE_BYTES: usize = 64 << 10;
/// How long that connection stays open while there are none.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Frames that wait for a peer.
#[derive(Debug)]
struct Batch {
    /// The version of the protocol in which they are encoded.
    protocol: Protocol,
    /// The shard that sends them, and the mark of its store that precedes them.
    synced: Option<(u32, Mark)>,
    /// How many they are.
    count: usize,
    /// All of them, each after its length, so that they are written at once.
    bytes: BytesMut,
}

/// A frame with a large value that waits for a peer.
#[derive(Debug)]
struct Large {
    /// The version of the protocol in which it is encoded.
    protocol: Protocol,
    /// The shard that sends it, and the mark of its store that precedes it.
    synced: Option<(u32, Mark)>,
    /// It is encoded when its turn comes, and not by the shard, which has other work waiting.
    frame: Frame,
    /// The request to which it is the response, if it is one.
    pending_response: Option<PendingResponse>,
}

/// The requests of a peer whose large responses wait to be sent. Such a response travels long, and the peer repeats its request meanwhile.
#[derive(Clone, Debug, Default)]
struct PendingResponses(Arc<Mutex<BTreeSet<RequestId>>>);

impl PendingResponses {
    /// Registers a response to this request until the result is dropped; none if one is registered already.
    fn begin(&self, request_id: RequestId) -> Option<PendingResponse> {
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(request_id);
        is_first.then(|| PendingResponse { request_id, of: self.clone() })
    }
}

/// A request whose response is on its way.
#[derive(Debug)]
struct PendingResponse {
    request_id: RequestId,
    of: PendingResponses,
}

impl Drop for PendingResponse {
    fn drop(&mut self) {
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.request_id);
    }
}

/// This node, and which part of it dials.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) local: LocalNode,
    /// The shard; none for the control.
    pub(super) shard: Option<u32>,
}

/// The sender to one peer.
#[derive(Debug)]
pub(super) struct Link {
    stats: Arc<PeerStats>,
    batches: mpsc::Sender<Batch>,
    large: mpsc::Sender<Large>,
    /// The version of the protocol agreed with the peer on the latest connection.
    agreed: Arc<AtomicU32>,
    queued_bytes: Arc<AtomicUsize>,
    large_bytes: Arc<AtomicUsize>,
    pending_responses: PendingResponses,
    connected: watch::Receiver<bool>,
    /// Whether the failure detector reports that the peer does not answer this node.
    doubted: watch::Sender<bool>,
    drops: RateLimit,
    /// Where frames are encoded. Batches are parts of it, and once they are written it is used again.
    buffer: Mutex<BytesMut>,
}

impl Link {
    /// Dials `peer` until `stop` is true or the sender of `ended` is dropped. What belongs to large values is done in the `background`, on this side and
    /// on the other.
    pub(super) fn start(
        caller: Caller,
        background: &Handle,
        peer: Peer,
        stats: Arc<PeerStats>,
        known_peers: KnownPeers,
        stop: watch::Receiver<bool>,
        ended: watch::Receiver<()>,
    ) -> Self {
        let (batches, receiver) = mpsc::channel(BATCHES_MAX);
        let (large, large_receiver) = mpsc::channel(BATCHES_MAX);
        let (connected_sender, connected) = watch::channel(false);
        let (doubted_sender, doubted) = watch::channel(false);
        let (queued_bytes, agreed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU32::new(Protocol::OLDEST.0)));
        let large_bytes = Arc::new(AtomicUsize::new(0));
        stats.add_queues([&queued_bytes, &large_bytes]);
        let link = Self {
            stats: stats.clone(),
            batches,
            large,
            agreed: agreed.clone(),
            queued_bytes: queued_bytes.clone(),
            large_bytes: large_bytes.clone(),
            pending_responses: PendingResponses::default(),
            connected,
            doubted: doubted_sender,
            drops: RateLimit::new(LOG_EVERY),
            buffer: Mutex::default(),
        };
        let carrier = Carrier {
            caller: Caller { shard: None, ..caller.clone() },
            peer: peer.clone(),
            stats: stats.clone(),
            known_peers: known_peers.clone(),
            frames: large_receiver,
            queued_bytes: large_bytes,
        };
        let connected = connected_sender;
        let called = stats.called.subscribe();
        let dialler = Dialler {
            caller,
            called,
            peer,
            stats,
            known_peers,
            batches: receiver,
            agreed,
            queued_bytes,
            connected,
            doubted,
        };
        background.spawn(carrier.run(stop.clone(), ended.clone()));
        tokio::spawn(dialler.run(stop, ended));
        link
    }

    /// Whether a connection is open.
    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Sets whether the peer is reported not to answer.
    pub(super) fn doubt(&self, is_doubted: bool) {
        self.doubted.send_if_modified(|doubted| std::mem::replace(doubted, is_doubted) != is_doubted);
    }

    /// Sends `messages`, or drops them if there is no connection or the queue is full.
    pub(super) fn send(&self, messages: &[Envelope], synced: Option<(u32, Mark)>) {
        if !*self.connected.borrow() {
            // The lost connection was logged, and the messages are counted.
            self.stats.dropped.fetch_add(messages.len() as u64, Ordering::Relaxed);
            return;
        }
        let protocol = Protocol(self.agreed.load(Ordering::Acquire));
        let mut frames = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut count, mut exchange_bytes) = (0, 0);
        for message in messages {
            let frame = Frame::of(message, protocol);
            let frame_bytes = frame.bytes();
            if frame_bytes > FRAME_BYTES_MAX {
                self.dropped(1, "too long for a frame");
                continue;
            }
            exchange_bytes += if is_exchange(&message.message) { frame_bytes } else { 0 };
            if frame_bytes >= LARGE_BYTES {
                self.send_large(message, Large { protocol, synced, frame, pending_response: None });
                continue;
            }
            frame.encode_to(&mut frames);
            count += 1;
        }
        if exchange_bytes > 0 {
            self.stats.exchange_bytes.fetch_add(exchange_bytes as u64, Ordering::Relaxed);
        }
        if count == 0 {
            return;
        }
        let frames = frames.split();
        let bytes = frames.len();
        let queued = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if (queued > 0 && queued + bytes > QUEUED_BYTES_MAX)
            || self.batches.try_send(Batch { protocol, synced, count, bytes: frames }).is_err()
        {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped(count, "queue full");
        }
    }

    /// Sends a frame with a large value, or drops it if the queue is full or its request is being answered already.
    fn send_large(&self, message: &Envelope, large: Large) {
        let pending_response = match &message.message {
            Message::Response(request_id, _) => match self.pending_responses.begin(*request_id) {
                Some(pending_response) => Some(pending_response),
                None => {
                    return debug!(peer = %self.stats.name, "dropped a repeated request: the response is on its way");
                }
            },
            _ => None,
        };
        let bytes = large.frame.bytes();
        let queued = self.large_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_too_much = queued > 0 && queued + bytes > QUEUED_BYTES_MAX;
        if is_too_much || self.large.try_send(Large { pending_response, ..large }).is_err() {
            self.large_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped(1, "queue full");
        }
    }

    fn dropped(&self, count: usize, why: &str) {
        self.stats.dropped.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(count) = self.drops.count(count as u64) {
            warn!(peer = %self.stats.name, dropped = count, reason = why, "dropped messages to peer");
        }
    }
}

/// Whether a message belongs to anti-entropy.
const fn is_exchange(message: &Message) -> bool {
    match message {
        Message::Compare(..) | Message::Compared(..) => true,
        Message::Request(request_id, _) | Message::Response(request_id, _) => {
            matches!(request_id.requester, Requester::Exchange)
        }
        Message::Forward(..) | Message::Forwarded(..) | Message::Fetch(..) | Message::Fetched(..) => false,
        Message::List(..) | Message::Listed(..) => false,
        Message::ClocksRequest(_) | Message::Clocks(_) | Message::Reconfiguration(..) | Message::Notice(_) => false,
    }
}

/// Dials a peer and writes to it what the link's queue holds.
struct Dialler {
    caller: Caller,
    /// Changes when the peer dials this node.
    called: watch::Receiver<u64>,
    peer: Peer,
    stats: Arc<PeerStats>,
    known_peers: KnownPeers,
    batches: mpsc::Receiver<Batch>,
    agreed: Arc<AtomicU32>,
    queued_bytes: Arc<AtomicUsize>,
    connected: watch::Sender<bool>,
    doubted: watch::Receiver<bool>,
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
        let (mut missing_since, mut last_error) = (Instant::now(), (String::new(), false));
        loop {
            match self.dial().await {
                Ok((stream, remote, protocol)) => {
                    self.connected_to(&remote, protocol);
                    backoff = BACKOFF_MIN;
                    let known = self.known_peers.clone();
                    let (local, peer, doubted) = (self.caller.local.clone(), self.peer.clone(), self.doubted.clone());
                    let healed = cut_healed(&local, &peer, &known, doubted);
                    let error = tokio::select! {
                        error = self.serve(stream, protocol) => error,
                        error = healed => error,
                        // The peer gets the reason when it is dialled again.
                        () = known.refused(&remote) => std::io::Error::other("the peer is refused from now on"),
                    };
                    self.connected.send_replace(false);
                    self.broke(&error);
                    (missing_since, last_error) = (Instant::now(), (String::new(), false));
                }
                // The control reports the error.
                Err(error) if self.caller.shard.is_some() => {
                    self.connected.send_replace(false);
                    debug!(peer = %self.peer.name, shard = self.caller.shard, %error, "cannot connect to peer");
                }
                Err(error) => {
                    // A peer that is starting is no cause for a warning.
                    let alarms = !matches!(error, HelloError::Unreachable(_) | HelloError::Broken(_))
                        || missing_since.elapsed() > MISSING_FOR;
                    match error {
                        HelloError::Retired(why) => self.known_peers.retire(why, &self.peer.name),
                        HelloError::Version { theirs, .. } => self.stats.set_spoken(theirs),
                        _ => {}
                    }
                    let error = error.to_string();
                    self.stats.failed(error.clone());
                    self.connected.send_replace(false);
                    // A repeated error is logged once.
                    let Peer { name, addr, .. } = &self.peer;
                    match (alarms, last_error == (error.clone(), alarms)) {
                        (_, true) => debug!(peer = %name, %addr, error, "cannot connect to peer"),
                        (true, false) => warn!(peer = %name, %addr, error, "cannot connect to peer"),
                        (false, false) => info!(peer = %name, %addr, error, "cannot connect to peer yet"),
                    }
                    last_error = (error, alarms);
                }
            }
            // A peer that reaches this node can usually be reached.
            tokio::select! {
                () = tokio::time::sleep(jittered(backoff)) => {}
                _ = self.called.changed() => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn dial(&self) -> Result<(NetStream, Remote, Protocol), HelloError> {
        dial(&self.caller, &self.peer, &self.known_peers).await
    }

    /// Reports a connection. Those of the shards are not shown.
    fn connected_to(&self, remote: &Remote, protocol: Protocol) {
        let Peer { name, addr, .. } = &self.peer;
        match self.caller.shard {
            Some(shard) => debug!(peer = %name, shard, %addr, %protocol, "connected to peer"),
            None => {
                self.stats.connected(remote, protocol);
                info!(peer = %name, %addr, %protocol, "connected to peer");
            }
        }
    }

    fn broke(&self, error: &std::io::Error) {
        match self.caller.shard {
            Some(shard) => debug!(peer = %self.peer.name, shard, %error, "connection to peer broke"),
            None => {
                self.stats.failed(format!("the connection broke: {error}"));
                info!(peer = %self.peer.name, %error, "connection to peer broke");
            }
        }
    }

    /// Writes until the connection breaks, and returns the cause.
    async fn serve(&mut self, stream: NetStream, protocol: Protocol) -> std::io::Error {
        // Messages that waited for the previous connection are stale by now.
        while let Ok(batch) = self.batches.try_recv() {
            self.taken(&batch);
        }
        self.agreed.store(protocol.0, Ordering::Release);
        self.connected.send_replace(true);
        let (read, write) = tokio::io::split(stream);
        tokio::select! {
            error = closed(read) => error,
            error = self.write(write, protocol) => error,
        }
    }

    async fn write(&mut self, mut stream: WriteHalf<NetStream>, protocol: Protocol) -> std::io::Error {
        let (mut gathered, mut marks_sent, mut out) = (Vec::new(), BTreeMap::new(), BytesMut::new());
        loop {
            if self.batches.recv_many(&mut gathered, BATCHES_MAX).await == 0 {
                return std::io::Error::other("this node is stopping");
            }
            let write_out = async {
                for batch in gathered.drain(..) {
                    let bytes = self.taken(&batch);
                    // The batch was encoded for the previous connection while this one was made.
                    if batch.protocol != protocol {
                        self.stats.dropped.fetch_add(batch.count as u64, Ordering::Relaxed);
                        continue;
                    }
                    self.stats.sent.count(batch.count, bytes - LENGTH_BYTES * batch.count);
                    // The mark goes first: no acknowledgement may reach a peer that would not miss it in an old copy.
                    if let Some((shard, mark)) = batch.synced
                        && marks_sent.insert(shard, mark) != Some(mark)
                    {
                        let frame = mark_frame(shard, mark);
                        out.put_u32(frame.len() as u32);
                        out.put_slice(&frame);
                    }
                    out.put_slice(&batch.bytes);
                    if out.len() >= WRITE_BYTES {
                        stream.write_all(&out).await?;
                        out.clear();
                    }
                }
                stream.write_all(&out).await?;
                stream.flush().await?;
                out.clear();
                Ok(())
            };
            match tokio::time::timeout(WRITE_WITHIN, write_out).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return std::io::ErrorKind::TimedOut.into(),
            }
        }
    }

    /// Removes a batch from the count of queued bytes, and returns its size.
    fn taken(&self, batch: &Batch) -> usize {
        let bytes = batch.bytes.len();
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        bytes
    }
}

/// Sends frames with large values to a peer, one after the other.
struct Carrier {
    caller: Caller,
    peer: Peer,
    stats: Arc<PeerStats>,
    known_peers: KnownPeers,
    frames: mpsc::Receiver<Large>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Carrier {
    async fn run(mut self, mut stop: watch::Receiver<bool>, mut ended: watch::Receiver<()>) {
        tokio::select! {
            () = self.carry() => {}
            _ = ended.changed() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn carry(&mut self) {
        while let Some(first) = self.frames.recv().await {
            let carried = match dial(&self.caller, &self.peer, &self.known_peers).await {
                Ok((stream, remote, protocol)) => {
                    let known = self.known_peers.clone();
                    tokio::select! {
                        carried = self.serve(stream, protocol, first) => carried,
                        () = known.refused(&remote) => Ok(()),
                    }
                }
                // The other connection reports the error.
                Err(error) => {
                    self.drop_frame(first);
                    Err(std::io::Error::other(error))
                }
            };
            if let Err(error) = carried {
                debug!(peer = %self.peer.name, %error, "connection to peer for large values ended");
                // The peer repeats requests for what it still needs.
                while let Ok(large) = self.frames.try_recv() {
                    self.drop_frame(large);
                }
            }
        }
    }

    /// Sends queued frames until there have been none for a while.
    async fn serve(&mut self, stream: NetStream, protocol: Protocol, first: Large) -> std::io::Result<()> {
        let (read, write) = tokio::io::split(stream);
        let mut frames = FramedWrite::new(write, codec(FRAME_BYTES_MAX));
        let write = async {
            let (mut next, mut marks_sent) = (Some(first), BTreeMap::new());
            while let Some(large) = next {
                let bytes = large.frame.bytes();
                self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                if large.protocol == protocol {
                    self.stats.sent.count(1, bytes);
                    let frame = tokio::task::spawn_blocking(move || large.frame.encode()).await?;
                    let send = async {
                        if let Some((shard, mark)) = large.synced
                            && marks_sent.insert(shard, mark) != Some(mark)
                        {
                            frames.feed(mark_frame(shard, mark)).await?;
                        }
                        frames.send(frame).await
                    };
                    tokio::time::timeout(WRITE_WITHIN, send)
                        .await
                        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
                } else {
                    self.stats.dropped.fetch_add(1, Ordering::Relaxed);
                }
                drop(large.pending_response);
                next = tokio::time::timeout(IDLE_FOR, self.frames.recv()).await.ok().flatten();
            }
            Ok(())
        };
        tokio::select! {
            error = closed(read) => Err(error),
            written = write => written,
        }
    }

    fn drop_frame(&self, large: Large) {
        self.queued_bytes.fetch_sub(large.frame.bytes(), Ordering::Relaxed);
        self.stats.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connects to a peer and exchanges hellos.
async fn dial(
    caller: &Caller,
    peer: &Peer,
    known_peers: &KnownPeers,
) -> Result<(NetStream, Remote, Protocol), HelloError> {
    let mut stream = connect(&caller.local, &peer.addr, DIAL_WITHIN).await?;
    let (remote, protocol) = hello::call(&mut stream, &caller.local, caller.shard, peer.node, known_peers).await?;
    Ok((stream, remote, protocol))
}

/// See [`super::identify`].
pub(super) async fn identify(local: &LocalNode, addr: &str) -> Result<Found, HelloError> {
    let mut stream = connect(local, addr, REACHED_WITHIN).await?;
    hello::query_identity(&mut stream, local).await
}

async fn connect(local: &LocalNode, addr: &str, within: Duration) -> Result<NetStream, HelloError> {
    let dialled = tokio::time::timeout(within, first_to_connect(addr)).await;
    let dialled = dialled.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let stream = dialled.map_err(HelloError::Unreachable)?;
    stream.set_nodelay(true)?;
    keepalive::watch(&stream)?;
    Ok(local.tls.dial(stream).await?)
}

/// Requests a connection again and again, until one is made or refused.
async fn first_to_connect(addr: &str) -> std::io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    loop {
        attempts.push(TcpStream::connect(addr));
        tokio::select! {
            Some(ended) = attempts.next() => return ended,
            () = tokio::time::sleep(DIAL_EVERY) => {}
        }
    }
}

/// Waits until a peer that does not answer cannot be reached, and then can be again. The existing connection is useless by then: TCP
/// retransmits what was lost on it at ever longer intervals.
pub(super) async fn cut_healed(
    local: &LocalNode,
    peer: &Peer,
    known_peers: &KnownPeers,
    mut doubted: watch::Receiver<bool>,
) -> std::io::Error {
    let mut was_cut = false;
    loop {
        // What the peer sends by then on another connection does not repair this one.
        if !was_cut && doubted.wait_for(|doubted| *doubted).await.is_err() {
            return std::io::Error::other("this node does not talk to it any more");
        }
        let begun = tokio::time::Instant::now();
        let reached = connect(local, &peer.addr, DIAL_WITHIN).await;
        // The first request was lost.
        was_cut |= reached.is_err() || begun.elapsed() >= DIAL_EVERY;
        let Ok(mut stream) = reached else {
            // A refused connection would be refused again at once.
            if begun.elapsed() < DIAL_EVERY {
                tokio::time::sleep(jittered(BACKOFF_MAX)).await;
            }
            continue;
        };
        // A hello is sent because the peer counts a connection without one as refused.
        let _ =
            tokio::time::timeout(REACHED_WITHIN, hello::call(&mut stream, local, None, peer.node, known_peers)).await;
        if was_cut {
            return std::io::Error::other("it was cut off, and can be reached again");
        }
        tokio::time::sleep(REACHED_AGAIN_AFTER).await;
    }
}

/// See [`super::introduce`]. A peer that does not answer in time counts as having no objection.
pub(super) async fn introduce(local: &LocalNode, peer: &Peer, known_peers: &KnownPeers) -> Result<(), Unwelcome> {
    let exchange = async {
        let mut stream = connect(local, &peer.addr, REACHED_WITHIN).await?;
        hello::call(&mut stream, local, None, peer.node, known_peers).await
    };
    match tokio::time::timeout(INTRODUCED_WITHIN, exchange).await {
        Ok(Err(HelloError::Retired(why))) => Err(Unwelcome::Retired(why)),
        Ok(Err(HelloError::Runs { .. })) => Err(Unwelcome::Runs { reported_by: peer.name.clone() }),
        _ => Ok(()),
    }
}

/// The frame with the mark of a shard's store. No message begins with its first byte.
fn mark_frame(shard: u32, mark: Mark) -> Bytes {
    [&[MARK_FRAME][..], &shard.to_be_bytes(), &mark.to_bytes()].concat().into()
}

/// Decodes such a frame; none if it is another one.
pub(super) fn read_mark_frame(frame: &[u8]) -> Option<(u32, Mark)> {
    let (shard, mark) = frame.strip_prefix(&[MARK_FRAME])?.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*shard), Mark::from_bytes(mark)?))
}

/// Waits for the end of a connection on which the peer sends nothing more.
async fn closed(mut read: ReadHalf<NetStream>) -> std::io::Error {
    let mut byte = [0; 1];
    match read.read(&mut byte).await {
        Ok(0) => std::io::Error::other("the peer closed it"),
        Ok(_) => std::io::Error::other("the peer sent data on a one-way connection"),
        Err(error) => error,
    }
}

/// A random time around `backoff`, so that nodes which lost each other do not dial each other at the same moment.
fn jittered(backoff: Duration) -> Duration {
    let random = random::number().unwrap_or_default() as u32;
    backoff / 2 + backoff.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
