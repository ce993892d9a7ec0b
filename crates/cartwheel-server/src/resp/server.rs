//! Serves Redis clients at an address.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::debug;

use super::api::RespApi;
use super::connection::RespConnection;
use super::session::Session;
use crate::tcp::clients::ClientListener;
use crate::tcp::connections::{ConnectionLimit, OpenConnection, Serves};
use crate::tcp::keepalive;

/// Serves Redis clients on `listener`, with as many connections as `limit` says, until `stop` is true and the commands under way have ended
/// or timed out. Connections are dealt out to `threads`, each to the one that has fewest.
pub(crate) async fn serve(
    api: Arc<RespApi>,
    listener: TcpListener,
    limit: Arc<ConnectionLimit>,
    threads: Vec<Handle>,
    stop: watch::Receiver<bool>,
) {
    api.set_port(listener.local_addr().map_or(0, |addr| addr.port()));
    let metrics = api.backend().metrics.resp.clone();
    let (accepted, open, serves) = (metrics.accepted, metrics.connections, Serves::All);
    let clients = ClientListener { listener, clients: "Redis clients", limit, serves, accepted, open, threads };
    clients.serve(stop, move |stream, guard| serve_one(api, stream, guard)).await;
}

async fn serve_one(api: Arc<RespApi>, stream: TcpStream, guard: OpenConnection) {
    // Clients keep connections open without commands for as long as they like, so only the system can tell that one has vanished.
    let _ = keepalive::watch(&stream);
    let registered = api.clients().register(stream.peer_addr().ok(), stream.local_addr().ok());
    let session = Session::new(api, registered.client.clone());
    tokio::select! {
        ended = RespConnection::new(stream, session, guard.clone()).serve() => {
            ended.unwrap_or_else(|error| debug!(%error, "the connection with a Redis client broke"));
        }
        () = guard.evicted() => debug!("closed an idle connection with a Redis client to make room"),
        () = registered.client.killed.notified() => debug!("closed a connection with a Redis client by CLIENT KILL"),
    }
}
