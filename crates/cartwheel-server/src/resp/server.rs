//! Accepts the connections of Redis clients, and deals them out to threads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::api::RespApi;
use super::connection::RespConnection;
use super::session::Session;
use crate::metrics::RespMetrics;
use crate::tcp::acceptor::Acceptor;
use crate::tcp::connections::{ConnectionLimit, Serves};
use crate::tcp::keepalive;

/// How long the commands under way may take once the node stops.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Serves Redis clients on `listener`, with as many connections as `limit` says, until `stop` is true and the commands under way have ended
/// or timed out. Connections are dealt out to `threads`, each to the one that has fewest.
pub(crate) async fn serve(
    api: Arc<RespApi>,
    listener: TcpListener,
    limit: Arc<ConnectionLimit>,
    threads: Vec<Handle>,
    mut stop: watch::Receiver<bool>,
) {
    api.set_port(listener.local_addr().map_or(0, |addr| addr.port()));
    let metrics = api.backend().metrics.resp.clone();
    let acceptor = Acceptor::new(listener, limit.connections_max(), "Redis clients");
    let threads: Vec<_> = threads.into_iter().map(|thread| (thread, Arc::new(()))).collect();
    // Each connection holds a sender until it has ended.
    let (open, mut all_ended) = mpsc::channel::<Infallible>(1);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = async { limit.room().await; acceptor.next().await } => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let _ = stream.set_nodelay(true);
        // Clients keep connections open without commands for as long as they like, so only the system can tell that one has vanished.
        let _ = keepalive::watch(&stream);
        let addr = stream.peer_addr().ok();
        let registered = api.clients().register(addr, stream.local_addr().ok());
        let guard = limit.register(addr.map(|addr| addr.ip()), Serves::All);
        let counted = Counted::new(&metrics);
        let least = threads.iter().min_by_key(|(_, connections)| Arc::strong_count(connections));
        let (Some((thread, connections)), Ok(stream)) = (least, stream.into_std()) else { continue };
        let held = (permit, counted, connections.clone(), open.clone());
        let api = api.clone();
        thread.spawn(async move {
            let _held = held;
            // It is this thread's from now on.
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let session = Session::new(api, registered.client.clone());
            tokio::select! {
                ended = RespConnection::new(stream, session, guard.clone()).serve() => {
                    ended.unwrap_or_else(|error| debug!(%error, "the connection with a Redis client broke"));
                }
                () = guard.evicted() => debug!("closed an idle connection with a Redis client to make room"),
                () = registered.client.killed.notified() => debug!("closed a connection with a Redis client by CLIENT KILL"),
            }
        });
    }
    drop((acceptor, open));
    limit.stop();
    if tokio::time::timeout(FINISH_WITHIN, all_ended.recv()).await.is_err() {
        warn!(timeout_s = FINISH_WITHIN.as_secs(), "cut off commands of Redis clients that did not end in time");
    }
}

/// Counts an open connection until it is dropped.
struct Counted(RespMetrics);

impl Counted {
    fn new(metrics: &RespMetrics) -> Self {
        metrics.accepted.inc();
        metrics.connections.inc();
        Self(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
