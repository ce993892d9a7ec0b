//! One connection, with one request in flight.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A node as connections see it.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// As `host:port`.
    pub(super) authority: String,
    pub(super) host: HeaderValue,
}

/// A whole reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// No connection came about.
    Connect,
    /// The connection ended.
    Closed,
    /// It took too long.
    Timeout,
}

impl Broken {
    /// What it is called in a report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "cannot connect",
            Self::Closed => "connection closed",
            Self::Timeout => "no answer in time",
        }
    }
}

/// A connection to one node, opened when it is needed; after a failure to the next node.
pub(super) struct Connection {
    endpoints: Arc<[Endpoint]>,
    at: usize,
    timeout: Duration,
    open: Option<Open>,
}

struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    /// What moves the bytes. It is driven by the task that waits for the reply, so a reply wakes one task and no other.
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
}

impl Connection {
    /// The connection of the worker `number`.
    pub(super) fn new(endpoints: Arc<[Endpoint]>, number: usize, timeout: Duration) -> Self {
        Self { at: number % endpoints.len(), endpoints, timeout, open: None }
    }

    /// Makes a request and waits for the whole reply.
    pub(super) async fn call(&mut self, mut request: Request<Full<Bytes>>) -> Result<Reply, Broken> {
        request.headers_mut().insert(HOST, self.endpoints[self.at].host.clone());
        let replied = tokio::time::timeout(self.timeout, self.exchange(request)).await.unwrap_or(Err(Broken::Timeout));
        if let Err(broken) = replied {
            // A reply that is yet to come must not be taken for the next request's.
            self.open = None;
            if broken != Broken::Timeout {
                self.at = (self.at + 1) % self.endpoints.len();
            }
        }
        replied
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, Broken> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(connect(&self.endpoints[self.at].authority).await.ok_or(Broken::Connect)?),
        };
        let reply = async {
            let (parts, body) = open.sender.send_request(request).await.map_err(|_| Broken::Closed)?.into_parts();
            let body = body.collect().await.map_err(|_| Broken::Closed)?.to_bytes();
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        let mut reply = pin!(reply);
        tokio::select! {
            biased;
            reply = &mut reply => reply,
            // What it has read before it ended may still be the reply.
            _ = &mut open.driver => reply.await,
        }
    }
}

async fn connect(authority: &str) -> Option<Open> {
    let stream = TcpStream::connect(authority).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    Some(Open { sender, driver: Box::pin(driver) })
}
