//! Serves HTTP clients at an address.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::service::Service;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::debug;

use super::connection::{Connection, Within};
use crate::metrics::HttpMetrics;
use crate::tcp::clients::ClientListener;
use crate::tcp::connections::{ConnectionLimit, OpenConnection, Serves};
use crate::tls::{ClientSide, NetStream};

/// What a client without TLS is told where it is required.
const PLAIN_REFUSAL: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 131\r\nconnection: close\r\n\r\n\
    {\"error\":\"bad_request\",\"message\":\"this node talks to clients over TLS only: use https://, and --tls-ca with the cartwheel command\"}";

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

/// Serves `calls` on `listener` with as many connections as `limit` says, counted in `metrics`, until `stop` is true and the requests
/// under way have ended or timed out. Connections are dealt out to `threads`, each to the one that has fewest.
pub(crate) async fn serve<S>(
    calls: S,
    listener: TcpListener,
    limit: Arc<ConnectionLimit>,
    (tls, threads): (ClientSide, Vec<Handle>),
    metrics: HttpMetrics,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    serve_within(Limits::default(), limit, calls, listener, (tls, threads), metrics, stop).await;
}

/// Serves `calls` on the administrators' own address, where requests on keys are refused, on the calling runtime.
pub async fn serve_administrators<S>(
    calls: S,
    listener: TcpListener,
    tls: ClientSide,
    metrics: HttpMetrics,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let limits = Limits { serves: Serves::Administrators, ..Limits::default() };
    let limit = ConnectionLimit::new(ADMINISTRATORS_MAX);
    serve_within(limits, limit, calls, listener, (tls, vec![Handle::current()]), metrics, stop).await;
}

async fn serve_within<S>(
    limits: Limits,
    limit: Arc<ConnectionLimit>,
    calls: S,
    listener: TcpListener,
    (tls, threads): (ClientSide, Vec<Handle>),
    metrics: HttpMetrics,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let (accepted, open, serves) = (metrics.accepted, metrics.connections, limits.serves);
    let (clients, plain_refusal) = ("HTTP clients", PLAIN_REFUSAL);
    let clients = ClientListener { listener, clients, limit, serves, accepted, open, tls, plain_refusal, threads };
    let serve_one = move |stream: NetStream, guard: OpenConnection| async move {
        tokio::select! {
            ended = Connection::new(stream, limits.within, guard.clone()).serve(&calls) => {
                ended.unwrap_or_else(|error| debug!(%error, "HTTP connection broke"));
            }
            () = guard.evicted() => debug!("closed an idle HTTP connection to make room"),
        }
    };
    clients.serve(stop, serve_one).await;
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
