use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::http::{Method, Request, header};
use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::metrics::{Loss, TraceMetrics};
use super::otlp;
use super::span::Span;
use crate::config::{OtlpEndpoint, Share};
use crate::log::RateLimit;

/// How many spans are sent at once, at most, and how long the first of them waits for others.
const BATCH_MAX: usize = 512;
const BATCH_AFTER: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch. Meanwhile spans gather in the queue.
const SENT_WITHIN: Duration = Duration::from_secs(5);
/// How long a node that stops goes on sending.
const LAST_WITHIN: Duration = Duration::from_secs(2);
/// How much of a collector's response is read.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

static FAILURES: RateLimit = RateLimit::new(Duration::from_secs(60));

/// Where traces go, and which there are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceSettings {
    /// The collector.
    pub endpoint: OtlpEndpoint,
    /// The share of the requests without a trace that begin one.
    pub sample: Share,
}

/// Sends spans to the collector. What it cannot send is dropped, and counted.
#[derive(Debug)]
pub struct Exporter {
    endpoint: OtlpEndpoint,
    waiting: mpsc::Receiver<Span>,
    metrics: TraceMetrics,
}

impl Exporter {
    pub(super) fn new(settings: TraceSettings, waiting: mpsc::Receiver<Span>, metrics: TraceMetrics) -> Self {
        Self { endpoint: settings.endpoint, waiting, metrics }
    }

    /// Sends spans of the node called `node` until `stop`, and what waits then.
    pub async fn run(mut self, cluster: String, node: String, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::new();
        let stopped = async move { drop(stop.wait_for(|stops| *stops).await) };
        let mut stopped = pin!(stopped);
        loop {
            let is_last = tokio::select! {
                received = self.waiting.recv_many(&mut batch, BATCH_MAX) => received == 0,
                () = &mut stopped => true,
            };
            if is_last {
                break;
            }
            let is_last = tokio::select! {
                () = gather(&mut self.waiting, &mut batch) => false,
                () = &mut stopped => true,
            };
            if is_last {
                break;
            }
            self.send(&cluster, &node, &mut batch, SENT_WITHIN).await;
        }
        self.waiting.close();
        let until = tokio::time::Instant::now() + LAST_WITHIN;
        loop {
            while batch.len() < BATCH_MAX
                && let Ok(span) = self.waiting.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            self.send(&cluster, &node, &mut batch, until - tokio::time::Instant::now()).await;
        }
    }

    async fn send(&self, cluster: &str, node: &str, batch: &mut Vec<Span>, within: Duration) {
        let (spans, body) = (batch.len(), otlp::encode(cluster, node, batch));
        batch.clear();
        let sent = tokio::time::timeout(within, post(&self.endpoint, body)).await;
        match sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => self.metrics.exported(spans),
            Err(error) => {
                self.metrics.lost(Loss::NotTaken, spans);
                if let Some(failures) = FAILURES.count(1) {
                    warn!(endpoint = %self.endpoint, %error, spans, failures, "cannot export traces; dropped the spans");
                }
            }
        }
    }
}

/// Waits for more spans, for a moment or until the batch is full.
async fn gather(waiting: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    let gathering = async {
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            if waiting.recv_many(batch, room).await == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(BATCH_AFTER, gathering).await;
}

/// Sends a batch on a connection of its own.
pub(super) async fn post(endpoint: &OtlpEndpoint, body: Bytes) -> io::Result<()> {
    let stream = TcpStream::connect(endpoint.address()).await?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(endpoint.path())
        .header(header::HOST, endpoint.address())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::USER_AGENT, concat!("cartwheel/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(io::Error::other)?;
    let exchange = pin!(async {
        let response = requests.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        // Read to the end, so that the collector does not see a broken connection. Its length is the collector's choice.
        let _ = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await;
        if status.is_success() { Ok(()) } else { Err(io::Error::other(format!("the collector answered {status}"))) }
    });
    // A collector that closes the connection at once ends it while the exchange still holds its answer. Without one the exchange fails by itself.
    match select(exchange, pin!(connection)).await {
        Either::Left((done, _)) => done,
        Either::Right((_, exchange)) => exchange.await,
    }
}
