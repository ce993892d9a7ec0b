//! Accepts the connections of HTTP clients, and deals them out to threads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::connection::{Connection, Within};
use crate::metrics::HttpMetrics;
use crate::tcp::acceptor::Acceptor;
use crate::tcp::connections::{ConnectionLimit, Serves};

/// Limits on what clients may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Which requests are served.
    serves: Serves,
    /// What each connection may cost.
    within: Within,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            serves: Serves::All,
            // A head has room for a percent-encoded key of 4096 bytes together with a context.
            within: Within { head: Duration::from_secs(75), head_bytes_max: 64 << 10, write: Duration::from_secs(30) },
        }
    }
}

/// The number of connections on the administrators' own address.
const ADMINISTRATORS_MAX: usize = 128;
/// How long the requests under way may take once the node stops.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Serves `calls` on `listener` with as many connections as `limit` says, counted in `metrics`, until `stop` is true and the requests
/// under way have ended or timed out. Connections are dealt out to `threads`, each to the one that has fewest.
pub(crate) async fn serve<S>(
    calls: S,
    listener: TcpListener,
    limit: Arc<ConnectionLimit>,
    threads: Vec<Handle>,
    metrics: HttpMetrics,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    serve_within(Limits::default(), limit, calls, listener, threads, metrics, stop).await;
}

/// Serves `calls` on the administrators' own address, where requests on keys are refused, on the calling runtime.
pub async fn serve_administrators<S>(calls: S, listener: TcpListener, metrics: HttpMetrics, stop: watch::Receiver<bool>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let limits = Limits { serves: Serves::Administrators, ..Limits::default() };
    let limit = ConnectionLimit::new(ADMINISTRATORS_MAX);
    serve_within(limits, limit, calls, listener, vec![Handle::current()], metrics, stop).await;
}

async fn serve_within<S>(
    limits: Limits,
    limit: Arc<ConnectionLimit>,
    calls: S,
    listener: TcpListener,
    threads: Vec<Handle>,
    metrics: HttpMetrics,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let acceptor = Acceptor::new(listener, limit.connections_max(), "HTTP clients");
    let threads: Vec<_> = threads.into_iter().map(|thread| (thread, Arc::new(()))).collect();
    // Each connection holds a sender until it has ended.
    let (open, mut all_ended) = mpsc::channel::<Infallible>(1);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = async { limit.room().await; acceptor.next().await } => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        // With Nagle's algorithm the end of a response may wait 40 ms for the client to acknowledge its beginning.
        let _ = stream.set_nodelay(true);
        let client = stream.peer_addr().ok().map(|addr| addr.ip());
        let guard = limit.register(client, limits.serves);
        let counted = Counted::new(&metrics);
        let least = threads.iter().min_by_key(|(_, connections)| Arc::strong_count(connections));
        let (Some((thread, connections)), Ok(stream)) = (least, stream.into_std()) else { continue };
        let held = (permit, counted, connections.clone(), open.clone());
        let calls = calls.clone();
        thread.spawn(async move {
            let _held = held;
            // It is this thread's from now on.
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            tokio::select! {
                ended = Connection::new(stream, limits.within, guard.clone()).serve(&calls) => {
                    ended.unwrap_or_else(|error| debug!(%error, "HTTP connection broke"));
                }
                () = guard.evicted() => debug!("closed an idle HTTP connection to make room"),
            }
        });
    }
    drop((acceptor, open));
    limit.stop();
    if tokio::time::timeout(FINISH_WITHIN, all_ended.recv()).await.is_err() {
        warn!(timeout_s = FINISH_WITHIN.as_secs(), "cut off HTTP requests that did not end in time");
    }
}

/// Counts an open connection until it is dropped.
struct Counted(HttpMetrics);

impl Counted {
    fn new(metrics: &HttpMetrics) -> Self {
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

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
