//! `/v1/kv/{bucket}/{key}`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use cartwheel_core::key::Key;
use cartwheel_core::request::{Get, Operation, Put, PutDone, Refusal, Reply, Request};
use cartwheel_core::state::Content;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::error::ApiError;
use super::query::Query;
use super::{Door, ask, show, target};
use crate::clock;

/// Reads a key; `HEAD` comes here too, and the server leaves the body out.
pub(super) async fn get(State(door): State<Door>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let key = target::key_of(target::KV, uri.path())?;
    let query = Query::parse(uri.query(), &["r", "consistency", "timeout_ms"])?;
    let seen = ask::context(&headers)?;
    let get = Get { key, consistency: query.consistency, r: query.r, seen };
    let request = Request { operation: Operation::Get(get), timeout: query.timeout };
    match door.shard.request(request).await?? {
        Reply::Got(got) => Ok(show::got(&got, got.acks, ask::wants_json(&headers), clock::wall())),
        Reply::Put(_) => Err(mismatched()),
    }
}

/// Writes a key.
pub(super) async fn put(State(door): State<Door>, request: HttpRequest<Body>) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let key = target::key_of(target::KV, parts.uri.path())?;
    let query = Query::parse(parts.uri.query(), &["w", "consistency", "timeout_ms", "return"])?;
    let content_type = ask::content_type(&parts.headers)?;
    let bytes_max = door.view.settings(key.bucket()).max_value_bytes;
    let write = write(key, Content::Tombstone, &query, &parts.headers)?;
    let value = read_value(&parts.headers, body, u64::from(bytes_max), &query).await?;
    let content = Content::Value { bytes: value, content_type };
    let done = carry_out(&door, Put { content, ..write }, &query).await?;
    Ok(match &done.body {
        Some(body) => show::got(body, done.acks, ask::wants_json(&parts.headers), clock::wall()),
        None => written(&done),
    })
}

/// Deletes a key.
pub(super) async fn delete(State(door): State<Door>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let key = target::key_of(target::KV, uri.path())?;
    let query = Query::parse(uri.query(), &["w", "consistency", "timeout_ms"])?;
    let write = write(key, Content::Tombstone, &query, &headers)?;
    carry_out(&door, write, &query).await.map(|done| written(&done))
}

/// A path that ends where the bucket should begin.
pub(super) async fn no_key() -> ApiError {
    target::no_key(target::KV)
}

fn write(key: Key, content: Content, query: &Query, headers: &HeaderMap) -> Result<Put, ApiError> {
    ask::refuse_ttl(headers)?;
    Ok(Put {
        key,
        content,
        expires: None,
        context: ask::context(headers)?,
        stamp: None,
        retry: ask::retry(headers)?,
        consistency: query.consistency,
        w: query.w,
        return_body: query.return_body,
    })
}

async fn carry_out(door: &Door, put: Put, query: &Query) -> Result<PutDone, ApiError> {
    let request = Request { operation: Operation::Put(put), timeout: query.timeout };
    match door.shard.request(request).await?? {
        Reply::Put(done) => Ok(done),
        Reply::Got(_) => Err(mismatched()),
    }
}

fn written(done: &PutDone) -> Response {
    (StatusCode::NO_CONTENT, show::standing(done.context.as_ref(), done.acks)).into_response()
}

/// Reads a value of at most `bytes_max` bytes, within the request's time: a client that trickles must not cost a connection.
async fn read_value(headers: &HeaderMap, body: Body, bytes_max: u64, query: &Query) -> Result<Bytes, ApiError> {
    let too_large = |bytes| ApiError::from(Refusal::TooLarge(bytes, bytes_max));
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(declared) = declared.filter(|&declared| declared > bytes_max) {
        return Err(too_large(declared));
    }
    let limited = Limited::new(body, usize::try_from(bytes_max).unwrap_or(usize::MAX));
    match tokio::time::timeout(query.timeout, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bytes_max + 1)),
        Ok(Err(error)) => {
            Err(ApiError::bad_request(format!("the value did not arrive whole ({error}): send it again")))
        }
        Err(_) => Err(ApiError::bad_request(format!(
            "the value did not arrive within {} ms: send it faster, or give a longer timeout_ms",
            query.timeout.as_millis()
        ))),
    }
}

/// Cannot happen: a node answers a get with what it got and a put with what it did.
fn mismatched() -> ApiError {
    ApiError::unavailable("the node gave an answer to another question: report this as a bug")
}
