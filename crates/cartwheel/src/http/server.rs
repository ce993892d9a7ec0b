//! Connections of HTTP clients.

use std::time::Duration;

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
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

use crate::acceptor::Acceptor;
use crate::metrics::HttpMetrics;

/// What a client may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many connections may stand at once. Further clients wait in the system's queue.
    connections_max: usize,
    /// How long a client may take to send a request's head, and so how long an idle connection is kept.
    head_within: Duration,
    /// The longest head, in bytes, give or take what is read at once. A key of 4096 bytes, each percent-encoded, and a context
    /// fit in together.
    head_bytes_max: usize,
    /// How long a client may take nothing of an answer that is ready for it.
    write_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_within: Duration::from_secs(75),
            head_bytes_max: 64 << 10,
            write_within: Duration::from_secs(30),
        }
    }
}

/// How long the requests under way may take once the node is told to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Serves `calls` on `listener`, at most so many connections at once and counted in `metrics`, until `stop` is true and the
/// requests under way have ended, or had their time.
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
    let graceful = GracefulShutdown::new();
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head_within).max_buf_size(limits.head_bytes_max);
    // A client may say that it has said all, and still wait for the answer.
    server.half_close(true);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = acceptor.next() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        // Without it, the end of an answer may wait 40 ms for the client's acknowledgement of its beginning.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_within));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = server.serve_connection(stream, calls.clone());
        let connection = graceful.watch(connection);
        let counted = Counted::new(&metrics);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!("an HTTP connection broke: {error}");
            }
            drop((permit, counted));
        });
    }
    drop(acceptor);
    if tokio::time::timeout(FINISH_WITHIN, graceful.shutdown()).await.is_err() {
        warn!("some HTTP requests did not end in {} s and are cut off", FINISH_WITHIN.as_secs());
    }
}

/// A connection that stands, until it is dropped.
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
