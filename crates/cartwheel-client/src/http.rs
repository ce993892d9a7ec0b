//! One attempt at one node, and the paths of the HTTP API.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;

use crate::{BadEndpoint, Cause, Error, Outcome, Tls};

/// The path of the ring.
pub(crate) const RING_PATH: &str = "/v1/cluster/ring";

/// How long to wait for a connection before the next node is tried.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How much longer the client waits than the time that it gives the node, so that a node can report its own timeout.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: HyperClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Whether the addresses of members are those of TLS.
    is_tls: bool,
    /// The `Authorization` header of all requests.
    authorization: Option<HeaderValue>,
}

/// A response with its complete body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
pub(crate) enum Failure {
    /// Another node, or the same one later, may succeed.
    Retry { cause: Cause, why: String, retry_after: Option<Duration> },
    /// No node will succeed.
    Final(Error),
}

#[derive(Deserialize)]
struct ErrorForm {
    error: String,
    message: String,
}

impl Http {
    /// A pool of connections. With `tls`, members are reached over it; without it, no certificate is trusted.
    pub(crate) fn new(tls: &Tls, is_tls: bool) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.enforce_http(false);
        let https =
            HttpsConnectorBuilder::new().with_tls_config((*tls.client_config()).clone()).https_or_http().enable_http1();
        let connector = https.wrap_connector(connector);
        let client = HyperClient::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { client, is_tls, authorization: None }
    }

    /// The same pool, over TLS.
    pub(crate) fn with_tls(self, tls: &Tls) -> Self {
        Self { authorization: self.authorization, ..Self::new(tls, true) }
    }

    /// The same pool, with an `Authorization` header.
    pub(crate) fn with_authorization(self, header: HeaderValue) -> Self {
        Self { authorization: Some(header), ..self }
    }

    /// The endpoint of a member with this address.
    pub(crate) fn endpoint(&self, address: &str) -> Option<String> {
        let endpoint = parse_endpoint(address).ok()?;
        Some(if self.is_tls { over_tls(&endpoint) } else { endpoint })
    }

    /// Sends a request and waits up to `within` for the response.
    pub(crate) async fn attempt(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> (Outcome, Result<Response, Failure>) {
        match tokio::time::timeout(within, self.exchange(request)).await {
            Ok(Ok(response)) => (response.outcome(), response.into_result()),
            Ok(Err((outcome, why))) => {
                (outcome, Err(Failure::Retry { cause: Cause::Unreachable, why, retry_after: None }))
            }
            Err(_) => {
                let why = format!("no response within {} ms", within.as_millis());
                (Outcome::TimedOut, Err(Failure::Retry { cause: Cause::TimedOut, why, retry_after: None }))
            }
        }
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Response, (Outcome, String)> {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let received = self.client.request(request).await.map_err(|error| {
            let outcome = if error.is_connect() { Outcome::NoConnection } else { Outcome::Broken };
            (outcome, with_sources(&error))
        })?;
        let (parts, body) = received.into_parts();
        let body = body.collect().await.map_err(|error| (Outcome::Broken, with_sources(&error)))?.to_bytes();
        Ok(Response { status: parts.status, headers: parts.headers, body })
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn outcome(&self) -> Outcome {
        let is_error = self.status.is_client_error() || self.status.is_server_error();
        let code = if is_error { self.error().map(|error| error.error) } else { None };
        Outcome::Answered { status: self.status.as_u16(), code }
    }

    /// Splits responses into usable ones and failures. A 404 is usable only with the API's own code: another program's 404 is not.
    fn into_result(self) -> Result<Self, Failure> {
        match self.status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::MULTIPLE_CHOICES => Ok(self),
            StatusCode::NOT_FOUND if self.error().is_some_and(|error| error.error == "not_found") => Ok(self),
            _ => Err(self.failure()),
        }
    }

    fn error(&self) -> Option<ErrorForm> {
        serde_json::from_slice(&self.body).ok()
    }

    fn failure(&self) -> Failure {
        let Some(ErrorForm { error: code, message }) = self.error() else {
            return Failure::Final(Error::UnexpectedResponse(format!("the status {}", self.status)));
        };
        let cause = match self.status {
            StatusCode::TOO_MANY_REQUESTS => Cause::Overloaded,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Cause::TooFewReplicas,
            StatusCode::INSUFFICIENT_STORAGE => Cause::DiskFull,
            _ => return Failure::Final(Error::Refused { code, message }),
        };
        // A date, the other form of the header, is not something that a node sends.
        let retry_after = self.header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        Failure::Retry { cause, why: format!("{message} ({code})"), retry_after }
    }
}

/// Parses the address of a node and returns it as `http://host:port`, without a slash at the end. `host:port` alone means the same. An address with
/// `https` keeps that.
///
/// ```
/// assert_eq!(cartwheel_client::parse_endpoint("127.0.0.1:8081/")?, "http://127.0.0.1:8081");
/// # Ok::<(), cartwheel_client::BadEndpoint>(())
/// ```
///
/// # Errors
/// If `text` is not such an address, or names another scheme than `http` and `https`, or a path.
pub fn parse_endpoint(text: &str) -> Result<String, BadEndpoint> {
    let bad = || BadEndpoint::Form(text.to_owned());
    let is_bare = !text.contains("://");
    let with_scheme = if is_bare { format!("http://{text}") } else { text.to_owned() };
    let uri: hyper::Uri = with_scheme.parse().map_err(|_| bad())?;
    let has_port = uri.authority().is_some_and(|authority| authority.as_str() != authority.host());
    if (has_port || is_bare) && uri.port_u16().is_none() {
        return Err(bad());
    }
    match (uri.scheme_str(), uri.authority(), uri.path_and_query().map(|path| path.as_str())) {
        (Some(scheme @ ("http" | "https")), Some(authority), None | Some("/")) => Ok(format!("{scheme}://{authority}")),
        _ => Err(bad()),
    }
}

/// The same endpoint over TLS.
pub(crate) fn over_tls(endpoint: &str) -> String {
    endpoint.strip_prefix("http://").map_or_else(|| endpoint.to_owned(), |authority| format!("https://{authority}"))
}

/// The path of a key in the HTTP API, percent-encoded, for callers that make requests of their own.
///
/// ```
/// assert_eq!(cartwheel_client::kv_path(b"a/b", b"key"), "/v1/kv/a%2Fb/key");
/// ```
pub fn kv_path(bucket: &[u8], key: &[u8]) -> String {
    key_path("/v1/kv/", bucket, key)
}

/// The path of a list of a bucket's keys.
pub(crate) fn list_path(bucket: &[u8]) -> String {
    let mut path = String::from("/v1/kv/");
    encode(&mut path, bucket);
    path
}

pub(crate) fn locate_path(bucket: &[u8], key: &[u8]) -> String {
    key_path("/v1/cluster/locate/", bucket, key)
}

pub(crate) fn bucket_path(bucket: &[u8]) -> String {
    let mut path = String::from("/v1/buckets/");
    encode(&mut path, bucket);
    path
}

fn key_path(prefix: &str, bucket: &[u8], key: &[u8]) -> String {
    let mut path = String::from(prefix);
    encode(&mut path, bucket);
    path.push('/');
    encode(&mut path, key);
    path
}

/// Percent-encodes a key as lists of keys show it: as in a path, where slashes and most punctuation stay as they are.
pub fn encode_key(key: &[u8]) -> String {
    let mut encoded = String::with_capacity(key.len());
    for &byte in key {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => encoded.push(byte.into()),
            byte if b"-._~!$&'()*+,;=:@/".contains(&byte) => encoded.push(byte.into()),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The key that lists of keys show so; `None` if a percent sign lacks its two hexadecimal digits.
pub fn decode_key(encoded: &str) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push(if byte == b'%' { (digit()? << 4 | digit()?) as u8 } else { byte });
    }
    Some(bytes.into())
}

pub(crate) fn encode(path: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// The text of an error and its sources. Hyper's topmost text alone does not name the cause.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_of_nodes() {
        assert_eq!(parse_endpoint("http://127.0.0.1:8081/").unwrap(), "http://127.0.0.1:8081");
        assert_eq!(parse_endpoint("http://node.example").unwrap(), "http://node.example");
        assert_eq!(parse_endpoint("node.example:8080").unwrap(), "http://node.example:8080");
        assert_eq!(parse_endpoint("https://node.example:8443/").unwrap(), "https://node.example:8443");
        assert_eq!(parse_endpoint("[::1]:8080/").unwrap(), "http://[::1]:8080");
        for bad in
            ["", "ftp://127.0.0.1:8081", "http://127.0.0.1:8081/v1", "http:///x", "http://a b", "a:b", "node", "/x"]
        {
            assert!(parse_endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_hold_any_bytes() {
        assert_eq!(kv_path(b"a/b", b"../\xff?#%k"), "/v1/kv/a%2Fb/%2E%2E%2F%FF%3F%23%25k");
    }
}
