//! The connections that peers dial to this node.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::wire::{Protocol, decode_envelope_as};
use futures_util::StreamExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::codec::FramedRead;
use tracing::{debug, warn};

use super::board::ProtocolError;
use super::frames::Frames;
use super::hello::Remote;
use super::outgoing::read_mark_frame;
use super::{Board, FRAME_BYTES_MAX, HelloError, Inbound, KnownPeers, LocalNode, hello};
use crate::log::RateLimit;
use crate::tcp::acceptor::Acceptor;
use crate::tcp::keepalive;
use crate::tls::DetachedStream;

const LOG_EVERY: Duration = Duration::from_secs(10);

/// See [`super::listen`].
pub(super) async fn listen(
    local: LocalNode,
    listener: TcpListener,
    connections_max: usize,
    inbound: Inbound,
    board: Board,
    known_peers: KnownPeers,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = Acceptor::new(listener, connections_max, "peers");
    let refusals = Arc::new(RateLimit::new(LOG_EVERY));
    loop {
        let (stream, permit) = tokio::select! {
            accepted = acceptor.next() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (local, inbound, board) = (local.clone(), inbound.clone(), board.clone());
        let (known_peers, refusals, mut stop) = (known_peers.clone(), refusals.clone(), stop.clone());
        tokio::spawn(async move {
            let mut until = stop.clone();
            let met = tokio::select! {
                met = meet(stream, &local, &board, &known_peers, &refusals) => met,
                _ = until.wait_for(|stop| *stop) => return,
            };
            let Some(Met { stream, remote, protocol }) = met else { return };
            let spawner = inbound.spawner(remote.shard);
            let receive = async move {
                let from = Receiving { remote, protocol, inbound, board, known_peers, refusals };
                tokio::select! {
                    () = from.receive(stream) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                drop(permit);
            };
            spawner.spawn(receive);
        });
    }
}

/// A connection after both hellos.
struct Met {
    stream: DetachedStream,
    remote: Remote,
    protocol: Protocol,
}

/// Exchanges hellos. None if nothing follows.
async fn meet(
    tcp: TcpStream,
    local: &LocalNode,
    board: &Board,
    known_peers: &KnownPeers,
    refusals: &RateLimit,
) -> Option<Met> {
    let _ = keepalive::watch(&tcp);
    let addr = tcp.peer_addr().map_or_else(|_| "an unknown address".to_owned(), |addr| addr.to_string());
    let met = async {
        let mut stream = local.tls.accept(tcp).await?;
        let (remote, protocol) = hello::accept(&mut stream, local, known_peers).await?;
        Ok((stream, remote, protocol))
    };
    let (stream, remote, protocol) = match met.await {
        Ok(met) => met,
        Err(HelloError::IdentityQuery { name }) => {
            debug!(peer = name, addr, "a peer asked for this node's identity");
            return None;
        }
        Err(error) => {
            board.refused();
            if let Some(count) = refusals.count(1) {
                warn!(addr, refusals = count, %error, "refused a connection from a peer");
            }
            return None;
        }
    };
    debug!(peer = %remote.name, shard = remote.shard, addr, %protocol, "peer connected");
    if remote.opens {
        return None;
    }
    known_peers.record_address(&remote);
    // It may be another thread's from now on.
    let stream = stream.detach().ok()?;
    Some(Met { stream, remote, protocol })
}

/// Receives what a peer sends on one connection.
struct Receiving {
    remote: Remote,
    protocol: Protocol,
    inbound: Inbound,
    board: Board,
    known_peers: KnownPeers,
    refusals: Arc<RateLimit>,
}

impl Receiving {
    async fn receive(self, stream: DetachedStream) {
        let Self { remote, protocol, inbound, board, known_peers, refusals } = self;
        let Ok(stream) = stream.attach() else { return };
        let connected = known_peers.connected(&remote);
        let stats = board.get(remote.node);
        stats.iter().for_each(|stats| stats.called.send_modify(|count| *count += 1));
        let mut frames = FramedRead::new(stream, Frames::new(FRAME_BYTES_MAX));
        let mut refused = pin!(known_peers.refused(&remote));
        loop {
            // The peer dials again, and then gets the reason.
            let frame = tokio::select! {
                () = &mut refused => return warn!(peer = %remote.name, "closed the connection of a peer that is refused from now on"),
                frame = frames.next() => frame,
            };
            let Some(frame) = frame else { return };
            connected.received();
            if let Ok(frame) = &frame
                && let Some((shard, mark)) = read_mark_frame(frame)
            {
                connected.marked(shard, mark);
                continue;
            }
            let bytes = frame.as_ref().map_or(0, |frame| frame.len());
            let message = match frame.map(|frame| decode_envelope_as(frame, protocol)) {
                Ok(Ok(message)) if message.from == remote.node => message,
                Ok(Ok(message)) => {
                    let why = format!("it sent a message of {}", message.from);
                    return cut_off(&remote.name, &board, &refusals, ProtocolError::OtherName, &why);
                }
                Ok(Err(error)) => {
                    return cut_off(&remote.name, &board, &refusals, ProtocolError::Frame, &error.to_string());
                }
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return cut_off(&remote.name, &board, &refusals, ProtocolError::TooLong, &error.to_string());
                }
                Err(error) => return debug!(peer = %remote.name, %error, "connection from peer broke"),
            };
            if let Some(stats) = &stats {
                stats.received.count(1, bytes);
                // The control's messages say enough about clocks, and shards share no lock.
                if remote.shard.is_none() {
                    stats.compare_clock(&message, board.now());
                }
            }
            // Waits while a shard is busy: the socket fills, and in the end the peer drops what it cannot send.
            if inbound.deliver(message, bytes).await.is_err() {
                return;
            }
        }
    }
}

/// Logs that a peer's connection is closed because of its input. The peer may dial again, and repeat it at once.
fn cut_off(peer: &str, board: &Board, refusals: &RateLimit, kind: ProtocolError, why: &str) {
    board.sent_invalid(kind);
    if let Some(count) = refusals.count(1) {
        warn!(peer, refusals = count, reason = why, "closed the connection of a peer");
    }
}
