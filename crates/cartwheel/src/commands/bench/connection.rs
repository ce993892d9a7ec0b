//! HTTP connections with one request in flight.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;

use super::dial::{Dial, Io};

#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// The address as `host:port`.
    pub(super) authority: String,
    pub(super) host: HeaderValue,
    pub(super) dial: Dial,
}

/// A response with its complete body.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The reasons why a request gets no response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TransportError {
    /// The connection could not be opened.
    Connect,
    /// The connection ended.
    Closed,
    /// The request timed out.
    Timeout,
    /// The bytes received are not a response.
    Malformed,
}

impl TransportError {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "cannot connect",
            Self::Closed => "connection closed",
            Self::Timeout => "no response in time",
            Self::Malformed => "malformed response",
        }
    }
}

/// A connection to one node at a time, opened on demand. After a failure it turns to the next node.
pub(super) struct Connection {
    endpoints: Arc<[Endpoint]>,
    at: usize,
    timeout: Duration,
    /// The open connection to each endpoint.
    open: Vec<Option<Open>>,
}

type Driver = http1::Connection<TokioIo<Box<dyn Io>>, Full<Bytes>>;

struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    /// The future that drives the connection's I/O. The task that waits for the response polls it, so a response wakes a single task.
    driver: Pin<Box<Driver>>,
}

impl Connection {
    /// The connection of the worker `number`, which begins with that node.
    pub(super) fn new(endpoints: Arc<[Endpoint]>, number: usize, timeout: Duration) -> Self {
        let open = endpoints.iter().map(|_| None).collect();
        Self { at: number % endpoints.len(), endpoints, timeout, open }
    }

    /// Turns to another node for the next request. The connection to the node before stays open.
    pub(super) fn turn_to(&mut self, endpoint: usize) {
        self.at = endpoint % self.endpoints.len();
    }

    /// Makes a request and waits for the whole response.
    pub(super) async fn call(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response, TransportError> {
        let endpoint = &self.endpoints[self.at];
        request.headers_mut().insert(HOST, endpoint.host.clone());
        if let Some(credentials) = endpoint.dial.credentials() {
            request.headers_mut().insert(AUTHORIZATION, credentials.header());
        }
        let result =
            tokio::time::timeout(self.timeout, self.exchange(request)).await.unwrap_or(Err(TransportError::Timeout));
        if let Err(error) = result {
            // The connection is closed: after a timeout, a late response must not be taken for that of the next request.
            self.open[self.at] = None;
            if error != TransportError::Timeout {
                self.at = (self.at + 1) % self.endpoints.len();
            }
        }
        result
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response, TransportError> {
        let open = match &mut self.open[self.at] {
            Some(open) => open,
            none => none.insert(connect(&self.endpoints[self.at]).await.ok_or(TransportError::Connect)?),
        };
        let response = async {
            let (parts, body) =
                open.sender.send_request(request).await.map_err(|_| TransportError::Closed)?.into_parts();
            let body = body.collect().await.map_err(|_| TransportError::Closed)?.to_bytes();
            Ok(Response { status: parts.status, headers: parts.headers, body })
        };
        let mut response = pin!(response);
        tokio::select! {
            biased;
            response = &mut response => response,
            // The bytes read before the connection ended may still complete the response.
            _ = &mut open.driver => response.await,
        }
    }
}

async fn connect(endpoint: &Endpoint) -> Option<Open> {
    let stream = endpoint.dial.connect(&endpoint.authority).await?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    Some(Open { sender, driver: Box::pin(driver) })
}
