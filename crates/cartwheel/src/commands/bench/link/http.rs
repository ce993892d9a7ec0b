//! Operations over plain HTTP.

use std::sync::Arc;

use bytes::Bytes;
use cartwheel_client::{HomeTable, kv_path};
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Found;
use crate::commands::bench::connection::{Connection, Response, TransportError};
use crate::commands::bench::job::{CODE_CHARS_MAX, JobSettings, OperationError};

const CONTEXT: HeaderName = HeaderName::from_static("cartwheel-context");

/// The parts of all requests that do not depend on the key.
pub(in crate::commands::bench) struct HttpRequests {
    bucket: String,
    get_query: String,
    put_query: String,
    /// The nodes that hold each key, if requests go to them.
    home_table: Option<Arc<HomeTable>>,
}

/// A connection to one node at a time.
pub(in crate::commands::bench) struct HttpLink {
    requests: Arc<HttpRequests>,
    connection: Connection,
}

#[derive(Deserialize)]
struct ErrorForm<'a> {
    error: &'a str,
}

#[derive(Deserialize)]
struct SiblingsForm {
    siblings: Vec<IgnoredAny>,
}

impl HttpRequests {
    pub(super) fn new(settings: &JobSettings, home_table: Option<Arc<HomeTable>>) -> Self {
        Self {
            bucket: settings.bucket.clone(),
            get_query: query(settings, 'r', settings.r),
            put_query: query(settings, 'w', settings.w),
            home_table,
        }
    }

    fn path(&self, key: &str, query: &str) -> String {
        let mut path = kv_path(self.bucket.as_bytes(), key.as_bytes());
        path.push_str(query);
        path
    }
}

impl HttpLink {
    pub(super) fn new(requests: Arc<HttpRequests>, connection: Connection) -> Self {
        Self { requests, connection }
    }

    pub(super) async fn get(&mut self, key: &str) -> Result<Found, OperationError> {
        let request = Request::get(self.requests.path(key, &self.requests.get_query));
        let request = request.body(Full::default()).map_err(|_| invalid_request())?;
        let response = self.call(key, request).await?;
        let values = match response.status {
            StatusCode::OK => 1,
            StatusCode::MULTIPLE_CHOICES => siblings(&response.body)?,
            StatusCode::NOT_FOUND if code(&response.body) == Some("not_found") => 0,
            _ => return Err(failure(&response)),
        };
        Ok(Found { values, context: response.headers.get(CONTEXT).cloned() })
    }

    pub(super) async fn put(
        &mut self,
        key: &str,
        value: Vec<u8>,
        context: Option<HeaderValue>,
    ) -> Result<Option<HeaderValue>, OperationError> {
        let mut request = Request::put(self.requests.path(key, &self.requests.put_query));
        if let (Some(context), Some(headers)) = (context, request.headers_mut()) {
            headers.insert(CONTEXT, context);
        }
        let request = request.body(Full::new(Bytes::from(value))).map_err(|_| invalid_request())?;
        let response = self.call(key, request).await?;
        if response.status != StatusCode::NO_CONTENT {
            return Err(failure(&response));
        }
        Ok(response.headers.get(CONTEXT).cloned())
    }

    async fn call(&mut self, key: &str, request: Request<Full<Bytes>>) -> Result<Response, TransportError> {
        let HttpRequests { bucket, home_table, .. } = &*self.requests;
        let homes = home_table.as_ref().map(|table| table.homes_of(bucket.as_bytes(), key.as_bytes()));
        if let Some(&home) = homes.and_then(<[usize]>::first) {
            self.connection.turn_to(home);
        }
        self.connection.call(request).await
    }
}

fn query(settings: &JobSettings, quorum: char, replicas: Option<u8>) -> String {
    let mut query = format!("?timeout_ms={}", settings.timeout.as_millis());
    if let Some(replicas) = replicas {
        query.push_str(&format!("&{quorum}={replicas}"));
    }
    if settings.strong {
        query.push_str("&consistency=strong");
    }
    query
}

fn siblings(body: &[u8]) -> Result<u64, OperationError> {
    let form: SiblingsForm =
        serde_json::from_slice(body).map_err(|_| OperationError("unreadable list of siblings".to_owned()))?;
    Ok(form.siblings.len() as u64)
}

fn failure(response: &Response) -> OperationError {
    let code: String = code(&response.body).unwrap_or("without an error code").chars().take(CODE_CHARS_MAX).collect();
    OperationError(format!("{} {code}", response.status.as_u16()))
}

/// The code in the body of an error response.
pub(in crate::commands::bench) fn code(body: &[u8]) -> Option<&str> {
    serde_json::from_slice::<ErrorForm<'_>>(body).ok().map(|form| form.error)
}

/// Unreachable in practice: a path of encoded bytes always makes a valid request.
fn invalid_request() -> OperationError {
    OperationError("cannot encode the request as HTTP".to_owned())
}
