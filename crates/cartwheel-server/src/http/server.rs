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

use super::heads::{CheckedHeads, Refused};
use super::standing::{Serves, Standing, Stands};
use crate::metrics::HttpMetrics;
use crate::tcp::acceptor::Acceptor;

/// What a client may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many connections may stand at once, those among them that are kept for who looks after the node. Further clients wait in the
    /// system's queue.
    connections_max: usize,
    /// What is answered.
    serves: Serves,
    /// How long a client may take to send a request's head, and so how long an idle connection is kept.
    head_within: Duration,
    /// The longest head, in bytes. A key of 4096 bytes, each percent-encoded, and a context fit in together.
    head_bytes_max: usize,
    /// How long a client may take nothing of an answer that is ready for it.
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

/// How many connections administrators may have where they are listened to apart from others.
const ADMINISTRATORS_MAX: usize = 128;
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

/// The same where administrators are listened to, who ask for nothing about keys.
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
    let (graceful, standing) = (GracefulShutdown::new(), Standing::new(limits.connections_max));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head_within);
    // The library counts what it was given of a head before it has all of it; `CheckedHeads` has bounded the head before.
    server.max_buf_size(limits.head_bytes_max + 1);
    // A client may say that it has said all, and still wait for the answer.
    server.half_close(true);
    loop {
        let (stream, permit) = tokio::select! {
            accepted = async { standing.room().await; acceptor.next().await } => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        // Without it, the end of an answer may wait 40 ms for the client's acknowledgement of its beginning.
        let _ = stream.set_nodelay(true);
        let client = stream.peer_addr().ok().map(|addr| addr.ip());
        let stands = standing.begin(client, limits.serves);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_within));
        let (stream, refused) = CheckedHeads::new(Box::pin(stream), limits.head_bytes_max);
        let stream = TokioIo::new(stream);
        let calls = Tracked { calls: calls.clone(), stands: stands.clone(), refused };
        let connection = graceful.watch(server.serve_connection(stream, calls));
        let counted = Counted::new(&metrics);
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => ended.unwrap_or_else(|error| debug!("an HTTP connection broke: {error}")),
                () = stands.given_up() => debug!("an idle HTTP connection is closed to make room for another"),
            }
            drop((permit, counted));
        });
    }
    drop(acceptor);
    if tokio::time::timeout(FINISH_WITHIN, graceful.shutdown()).await.is_err() {
        warn!("some HTTP requests did not end in {} s and are cut off", FINISH_WITHIN.as_secs());
    }
}

/// What is asked on one connection.
struct Tracked<S> {
    calls: S,
    stands: Stands,
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
        let (stands, serves) = (self.stands.clone(), self.stands.serves());
        stands.is_busy();
        if serves != Serves::All {
            request.extensions_mut().insert(serves);
        }
        if let Some(error) = self.refused.of(&request) {
            debug!("an HTTP client sent a head that is refused: {error:?}");
            return Box::pin(async move { Ok(stands.answered(error.into_response())) });
        }
        let call = self.calls.call(request);
        Box::pin(async move {
            let mut answer = call.await?;
            if serves == Serves::Itself {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(stands.answered(answer))
        })
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
