//! Serves Redis clients at an address.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::debug;

use super::api::RespApi;
use super::connection::RespConnection;
use super::session::Session;
use crate::tcp::clients::ClientListener;
use crate::tcp::connections::{ConnectionLimit, OpenConnection, Serves};
use crate::tcp::keepalive;
use crate::tls::{ClientSide, NetStream};

/// What a client without TLS is told where it is required.
const PLAIN_REFUSAL: &[u8] = b"-ERR this node talks to clients over TLS only: use rediss://, or redis-cli --tls\r\n";

/// Serves Redis clients on `listener`, with as many connections as `limit` says, until `stop` is true and the commands under way have ended
/// or timed out. Connections are dealt out to `threads`, each to the one that has fewest.
pub(crate) async fn serve(
    api: Arc<RespApi>,
    listener: TcpListener,
    limit: Arc<ConnectionLimit>,
    tls: ClientSide,
    threads: Vec<Handle>,
    stop: watch::Receiver<bool>,
) {
    api.set_port(listener.local_addr().map_or(0, |addr| addr.port()));
    let metrics = api.backend().metrics.resp.clone();
    let (accepted, open, serves) = (metrics.accepted, metrics.connections, Serves::All);
    let (clients, plain_refusal) = ("Redis clients", PLAIN_REFUSAL);
    let clients = ClientListener { listener, clients, limit, serves, accepted, open, tls, plain_refusal, threads };
    clients.serve(stop, move |stream, guard| serve_one(api, stream, guard)).await;
}

async fn serve_one(api: Arc<RespApi>, stream: NetStream, guard: OpenConnection) {
    // Clients keep connections open without commands for as long as they like, so only the system can tell that one has vanished.
    let _ = keepalive::watch(stream.tcp());
    let registered = api.clients().register(stream.tcp().peer_addr().ok(), stream.tcp().local_addr().ok());
    let session = Session::new(api, registered.client.clone());
    tokio::select! {
        ended = RespConnection::new(stream, session, guard.clone()).serve() => {
            ended.unwrap_or_else(|error| debug!(%error, "the connection with a Redis client broke"));
        }
        () = guard.evicted() => debug!("closed an idle connection with a Redis client to make room"),
        () = registered.client.killed.notified() => debug!("closed a connection with a Redis client by CLIENT KILL"),
    }
}
