//! Connections of HTTP clients.

use std::time::Duration;

use std::convert::Infallible;
use std::pin::Pin;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

use super::connections::{ConnectionLimit, OpenConnection, Serves};
use super::heads::{CheckedHeads, Refused};
use crate::metrics::HttpMetrics;
use crate::tcp::acceptor::Acceptor;

/// Limits on what clients may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The number of connections at once, including those reserved for administrators. Further clients wait in the system's accept queue.
    connections_max: usize,
    /// Which requests are served.
    serves: Serves,
    /// How long a client may take to send a head; also how long an idle connection is kept.
    head_within: Duration,
    /// The longest head, in bytes. It has room for a percent-encoded key of 4096 bytes together with a context.
    head_bytes_max: usize,
    /// How long a client may read nothing of a response that is ready.
    write_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            serves: Serves::All,
            head_within: Duration::from_secs(75),
            head_bytes_max: 64 << 10,
            write_within: Duration::from_secs(30),
        }
    }
}

/// The number of connections on the administrators' own address.
const ADMINISTRATORS_MAX: usize = 128;
/// How long the requests under way may take once the node stops.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Serves `calls` on `listener` with at most `connections_max` connections, counted in `metrics`, until `stop` is true and the requests
/// under way have ended or timed out.
pub async fn serve<S>(
    calls: S,
    listener: TcpListener,
    connections_max: usize,
    metrics: HttpMetrics,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    serve_within(Limits { connections_max, ..Limits::default() }, calls, listener, metrics, stop).await;
}

/// Serves `calls` on the administrators' own address, where requests on keys are refused.
pub async fn serve_administrators<S>(calls: S, listener: TcpListener, metrics: HttpMetrics, stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let limits = Limits { connections_max: ADMINISTRATORS_MAX, serves: Serves::Administrators, ..Limits::default() };
    serve_within(limits, calls, listener, metrics, stop).await;
}

async fn serve_within<S>(
    limits: Limits,
    calls: S,
    listener: TcpListener,
    metrics: HttpMetrics,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let acceptor = Acceptor::new(listener, limits.connections_max, "HTTP clients");
    let (graceful, limit) = (GracefulShutdown::new(), ConnectionLimit::new(limits.connections_max));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head_within);
    // The library checks a head's size before it has all of it; `CheckedHeads` has bounded it before.
    server.max_buf_size(limits.head_bytes_max + 1);
    // A client may close its sending side and still wait for the response.
    server.half_close(true);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = async { limit.room().await; acceptor.next().await } => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        // With Nagle's algorithm the end of a response may wait 40 ms for the client to acknowledge its beginning.
        let _ = stream.set_nodelay(true);
        let client = stream.peer_addr().ok().map(|addr| addr.ip());
        let connection_guard = limit.register(client, limits.serves);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_within));
        let (stream, refused) = CheckedHeads::new(Box::pin(stream), limits.head_bytes_max);
        let stream = TokioIo::new(stream);
        let calls = Tracked { calls: calls.clone(), connection_guard: connection_guard.clone(), refused };
        let connection = graceful.watch(server.serve_connection(stream, calls));
        let counted = Counted::new(&metrics);
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => ended.unwrap_or_else(|error| debug!(%error, "HTTP connection broke")),
                () = connection_guard.evicted() => debug!("closed an idle HTTP connection to make room"),
            }
            drop((permit, counted));
        });
    }
    drop(acceptor);
    if tokio::time::timeout(FINISH_WITHIN, graceful.shutdown()).await.is_err() {
        warn!(timeout_s = FINISH_WITHIN.as_secs(), "cut off HTTP requests that did not end in time");
    }
}

/// The service of one connection.
struct Tracked<S> {
    calls: S,
    connection_guard: OpenConnection,
    refused: Refused,
}

impl<S> Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (connection_guard, serves) = (self.connection_guard.clone(), self.connection_guard.serves());
        connection_guard.set_busy();
        if serves != Serves::All {
            request.extensions_mut().insert(serves);
        }
        if let Some(error) = self.refused.of(&request) {
            debug!(?error, "refused an HTTP request head");
            return Box::pin(async move { Ok(connection_guard.track(error.into_response())) });
        }
        let call = self.calls.call(request);
        Box::pin(async move {
            let mut response = call.await?;
            if serves == Serves::Itself {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(connection_guard.track(response))
        })
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
