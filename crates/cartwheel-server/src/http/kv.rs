//! `/v1/kv/{bucket}/{key}`.

use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use cartwheel_core::message::client::{Get, Operation, Put, PutDone, Reply, Request};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;

use super::error::ApiError;
use super::openapi::{ReadErrors, WriteErrors};
use super::query::Query;
use super::{ApiState, body, conditions, headers, show, target};
use crate::os::clock;
use crate::shard::Place;

/// For how long a write keeps its place among the requests under way while its value arrives.
const PLACE_KEPT_FOR: Duration = Duration::from_millis(100);

/// Read a key
///
/// `HEAD` does the same without the body.
#[utoipa::path(method(get, head), path = "/v1/kv/{bucket}/{key}", tag = "keys",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("key" = String, Path, description = "The key, percent-encoded: 1 to 4096 bytes, slashes included"),
        ("r" = Option<u8>, Query, description = "How many replicas must answer; default: the bucket's r"),
        ("consistency" = Option<String>, Query, description = "`eventual` (the default) or `strong`"),
        ("timeout_ms" = Option<u32>, Query, description = "1 to 60000; default 5000"),
        ("Cartwheel-Context" = Option<String>, Header, description = "The answer must cover what this context has seen"),
        ("Accept" = Option<String>, Header, description = "With `application/json` a single value has the JSON form too"),
        ("If-None-Match" = Option<String>, Header, description = "304 if the ETag is one of these"),
        ("If-Modified-Since" = Option<String>, Header, description = "Without If-None-Match: 304 if nothing was written later"),
        ("If-Match" = Option<String>, Header, description = "412 if the ETag is none of these"),
        ("If-Unmodified-Since" = Option<String>, Header, description = "Without If-Match: 412 if something was written later")
    ),
    responses(
        (status = 200, description = "One value: the body is the value, with the Content-Type it was stored with",
            content_type = "application/octet-stream",
            headers(
                ("Cartwheel-Context" = String, description = "What the response shows: send it with the next write"),
                ("Cartwheel-Acks" = String, description = "The replicas that answered: home=2 standin=0 zones=1"),
                ("Cartwheel-TTL" = u32, description = "The seconds until the value expires, if it does"),
                ("ETag" = String, description = "Opaque"),
                ("Last-Modified" = String, description = "When the latest of the values was written")
            )),
        (status = 300, description = "Concurrent values, with the same headers", body = show::Form),
        (status = 304, description = "The client has the current representation; with the same headers"),
        ReadErrors
    ))]
pub(super) async fn get(api: &ApiState, uri: &Uri, headers: &HeaderMap) -> Result<Response, ApiError> {
    let key = api.key_of(target::KV, uri.path())?;
    let query = Query::parse(uri.query(), &["r", "consistency", "timeout_ms"])?;
    let seen = headers::context(headers)?;
    let get = Get { key, consistency: query.consistency, r: query.r, seen, wants_context: true };
    let got = api.get(get, query.timeout).await?;
    api.metrics().http.shown(got.siblings.len());
    show::got(api.responses(), &got, got.acks, headers, clock::wall())
}

/// Write a key
///
/// With the context of a read, the write replaces what that read showed. Without a context it becomes a sibling of any value there.
#[utoipa::path(put, path = "/v1/kv/{bucket}/{key}", tag = "keys",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("key" = String, Path, description = "The key, percent-encoded: 1 to 4096 bytes, slashes included"),
        ("w" = Option<u8>, Query, description = "How many replicas must store it; default: the bucket's w"),
        ("consistency" = Option<String>, Query, description = "`eventual` (the default) or `strong`"),
        ("timeout_ms" = Option<u32>, Query, description = "1 to 60000, for the value's arrival and again for storing it; default 5000"),
        ("return" = Option<String>, Query, description = "With `body` the response is that of a read of the key"),
        ("Cartwheel-Context" = Option<String>, Header, description = "What this write has seen and replaces"),
        ("Content-Encoding" = Option<String>, Header, description = "The value's encoding; it is stored with the value, which stays as it is"),
        ("Cartwheel-TTL" = Option<u32>, Header, description = "The value expires after so many seconds"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated write with the same idempotency key is one write; 1 to 255 bytes"),
        ("Content-Type" = Option<String>, Header, description = "Stored with the value; default application/octet-stream")
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The value"),
    responses(
        (status = 200, description = "Stored; with `return=body`, one value", content_type = "application/octet-stream"),
        (status = 204, description = "Stored",
            headers(
                ("Cartwheel-Context" = String, description = "What the write had seen, and the write itself"),
                ("Cartwheel-Acks" = String, description = "The replicas that stored it: home=2 standin=0 zones=1")
            )),
        (status = 300, description = "Stored; with `return=body`, several values", body = show::Form),
        WriteErrors
    ))]
pub(super) async fn put(api: &ApiState, request: HttpRequest<Body>) -> Result<Response, ApiError> {
    let (parts, mut body) = request.into_parts();
    let stored = store(api, &parts, &mut body).await;
    if stored.is_err() && !body::discard(&parts.headers, &mut body).await {
        return stored.map_err(|error| error.closing());
    }
    stored
}

async fn store(api: &ApiState, parts: &Parts, body: &mut Body) -> Result<Response, ApiError> {
    let key = api.key_of(target::KV, parts.uri.path())?;
    let query = Query::parse(parts.uri.query(), &["w", "consistency", "timeout_ms", "return"])?;
    let content_type = headers::content_type(&parts.headers)?;
    let content_encoding = headers::content_encoding(&parts.headers)?;
    // Before the value is read, which would be in vain.
    let (place, _) = api.admit(&key, query.timeout).await?;
    let bytes_max = api.view().settings(key.bucket()).max_value_bytes;
    let write = write(key, Content::Tombstone, &query, &parts.headers)?;
    let lifetime = headers::lifetime(&parts.headers)?;
    let mut reading = pin!(body::read(api.values(), &parts.headers, body, bytes_max, query.timeout));
    let (value, place) = match tokio::time::timeout(PLACE_KEPT_FOR, &mut reading).await {
        Ok(value) => (value?, Some(place)),
        Err(_) => {
            // Another request may use the time.
            drop(place);
            (reading.await?, None)
        }
    };
    let content = Content::Value { bytes: value.bytes, content_type, content_encoding };
    // It counts from when the value has arrived.
    let expires = lifetime.map(|lifetime| lifetime.end(clock::wall()));
    let done = carry_out(api, Put { content, expires, ..write }, query.timeout, place).await;
    // The value keeps its part of the memory until here.
    drop(value.held);
    let done = done?;
    match &done.body {
        Some(body) => show::got(api.responses(), body, done.acks, &parts.headers, clock::wall()),
        None => Ok(written(&done)),
    }
}

/// Delete a key
///
/// With a context it deletes what that context has seen, without one what a read of the key shows.
#[utoipa::path(delete, path = "/v1/kv/{bucket}/{key}", tag = "keys",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("key" = String, Path, description = "The key, percent-encoded: 1 to 4096 bytes, slashes included"),
        ("w" = Option<u8>, Query, description = "How many replicas must store the delete; default: the bucket's w"),
        ("consistency" = Option<String>, Query, description = "`eventual` (the default) or `strong`"),
        ("timeout_ms" = Option<u32>, Query, description = "1 to 60000; default 5000"),
        ("Cartwheel-Context" = Option<String>, Header, description = "What to delete"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated delete with the same idempotency key is one delete; 1 to 255 bytes")
    ),
    responses(
        (status = 204, description = "Deleted, or absent before",
            headers(("Cartwheel-Acks" = String, description = "The replicas that stored it: home=2 standin=0 zones=1"))),
        WriteErrors
    ))]
pub(super) async fn delete(api: &ApiState, uri: &Uri, headers: &HeaderMap) -> Result<Response, ApiError> {
    let key = api.key_of(target::KV, uri.path())?;
    let query = Query::parse(uri.query(), &["w", "consistency", "timeout_ms"])?;
    let (place, timeout) = api.admit(&key, query.timeout).await?;
    headers::refuse_ttl(headers)?;
    let write = write(key, Content::Tombstone, &query, headers)?;
    carry_out(api, write, timeout, Some(place)).await.map(|done| written(&done))
}

/// A path without a bucket.
pub(super) async fn no_key() -> ApiError {
    target::no_key(target::KV)
}

fn write(key: Key, content: Content, query: &Query, headers: &HeaderMap) -> Result<Put, ApiError> {
    conditions::refuse_on_write(headers)?;
    Ok(Put {
        key,
        content,
        expires: None,
        context: headers::context(headers)?,
        stamp: None,
        rewrites: None,
        retry: headers::retry(headers)?,
        consistency: query.consistency,
        w: query.w,
        return_body: query.return_body,
    })
}

async fn carry_out(api: &ApiState, put: Put, timeout: Duration, place: Option<Place>) -> Result<PutDone, ApiError> {
    let request = Request { operation: Operation::Put(put), timeout };
    match api.request(request, place).await? {
        Reply::Put(done) => Ok(done),
        Reply::Got(_) | Reply::Inspected(_) => Err(mismatched()),
    }
}

fn written(done: &PutDone) -> Response {
    (StatusCode::NO_CONTENT, show::ack_headers(done.context.as_ref(), done.acks)).into_response()
}

/// Cannot happen: the response to a get is what was read, and that to a put is what was written.
fn mismatched() -> ApiError {
    ApiError::unavailable("the node's response does not match the request: report this as a bug")
}
