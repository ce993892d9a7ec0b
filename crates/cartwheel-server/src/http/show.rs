//! Responses that show what a key holds.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_core::message::client::{Acks, Got};
use cartwheel_core::value::dot::{Actor, Dot};
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::state::{Content, Sibling};
use serde::Serialize;
use utoipa::ToSchema;

use super::conditions::{self, Validators, Verdict};
use super::error::ApiError;
use super::headers::{self, CONTEXT, TTL};
use super::siblings::{Text, ValueBody};
use crate::memory::MemoryPool;

const ACKS: HeaderName = HeaderName::from_static("cartwheel-acks");

/// The last second that the time formats can express: the end of the year 9999. A timestamp of a broken clock may lie beyond it.
const SHOWN_SECONDS_MAX: u64 = 253_402_300_799;

/// What is stored under a key.
#[derive(ToSchema)]
#[schema(as = Siblings)]
#[allow(dead_code, reason = "it describes what is sent; the whole is never in memory")]
pub(super) struct Form {
    /// What the response shows, as base64url; opaque. Send it with the next write.
    context: String,
    /// Concurrent values and deletes.
    siblings: Vec<SiblingForm>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Sibling)]
struct SiblingForm {
    /// The value, as base64; left out for a delete.
    #[allow(dead_code, reason = "it is sent separately")]
    #[serde(skip)]
    value: Option<String>,
    /// Whether the sibling is a delete.
    deleted: bool,
    /// The value's media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// The value's encoding, as given in Content-Encoding; left out if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    /// The seconds until the value expires, rounded up; left out if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    /// When it was written, as RFC 3339.
    modified: String,
    /// Its version; opaque.
    version: String,
}

/// The response to a get with these request headers, or to a put with `return=body`, at the time `wall`.
///
/// # Errors
/// If `responses` has too little memory for it, or a condition of the request fails.
pub(super) fn got(
    responses: &MemoryPool,
    got: &Got,
    acks: Acks,
    request_headers: &HeaderMap,
    wall: WallMs,
) -> Result<Response, ApiError> {
    let live: Vec<&Sibling> = got.live(wall).collect();
    let mut headers = ack_headers(got.context.as_ref(), acks);
    if live.is_empty() {
        return Err(ApiError::not_found("nothing is stored under this key").with_all(&headers));
    }
    let validators = validators(got);
    headers.extend(validator_headers(&validators));
    let verdict = conditions::of_read(request_headers, &validators);
    if verdict == Verdict::Failed {
        let why = "the stored state does not match the request's condition (If-Match or If-Unmodified-Since): read the key without \
        the condition, or with this response's ETag";
        return Err(ApiError::precondition_failed(why).with_all(&headers));
    }
    let shown = match &live[0].content {
        Content::Value { bytes, content_type, content_encoding }
            if got.siblings.len() == 1 && !headers::wants_json(request_headers) =>
        {
            if let Ok(encoding) = HeaderValue::from_str(content_encoding)
                && !content_encoding.is_empty()
            {
                headers.insert(header::CONTENT_ENCODING, encoding);
            }
            if let Some(expires) = live[0].expires {
                headers.insert(TTL, headers::ttl(expires, wall).into());
            }
            Shown::Value(bytes, content_type)
        }
        _ => Shown::Form,
    };
    // Caches must keep the two forms apart.
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(header::CONTENT_TYPE, shown.content_type());
    if verdict == Verdict::NotModified {
        // Without a length: 0 would pass for the length of the representation.
        let nothing = Body::from_stream(futures_util::stream::empty::<Result<Bytes, Infallible>>());
        return Ok((StatusCode::NOT_MODIFIED, headers, nothing).into_response());
    }
    let body = match shown {
        Shown::Value(bytes, _) => Body::new(ValueBody(responses.hold(bytes.clone())?)),
        Shown::Form => {
            let text = form(got, wall);
            let held = responses.take(text.held())?;
            Body::new(text.body(held))
        }
    };
    let status = if got.siblings.len() == 1 { StatusCode::OK } else { StatusCode::MULTIPLE_CHOICES };
    Ok((status, headers, body).into_response())
}

/// The form of a response.
enum Shown<'a> {
    /// The single value and its media type.
    Value(&'a Bytes, &'a str),
    /// JSON.
    Form,
}

impl Shown<'_> {
    fn content_type(&self) -> HeaderValue {
        match self {
            // What a peer stored may not be a valid header value.
            Self::Value(_, content_type) => {
                HeaderValue::from_str(media_type(content_type)).unwrap_or(HeaderValue::from_static(UNTYPED))
            }
            Self::Form => HeaderValue::from_static("application/json"),
        }
    }
}

/// The media type of a value that the Redis API has stored, which has none.
const UNTYPED: &str = "application/octet-stream";

const fn media_type(stored: &str) -> &str {
    if stored.is_empty() { UNTYPED } else { stored }
}

/// The headers with the replicas that answered and the context.
pub(super) fn ack_headers(context: Option<&Bytes>, acks: Acks) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Base64 and digits always make a header value.
    if let Some(Ok(value)) = context.map(|context| HeaderValue::try_from(URL_SAFE_NO_PAD.encode(context))) {
        headers.insert(CONTEXT, value);
    }
    let Acks { home, standin, zones } = acks;
    if let Ok(value) = HeaderValue::try_from(format!("home={home} standin={standin} zones={zones}")) {
        headers.insert(ACKS, value);
    }
    headers
}

/// The validators of the state shown.
fn validators(got: &Got) -> Validators {
    let mut hasher = blake3::Hasher::new();
    for sibling in &got.siblings {
        hasher.update(version(sibling.dot).as_bytes());
        hasher.update(b"\n");
    }
    let etag = format!("\"{}\"", &hasher.finalize().to_hex()[..32]);
    let modified = got.siblings.iter().map(|sibling| sibling.hlc.wall()).max().unwrap_or_default();
    Validators { etag, modified: shown_time(modified) }
}

/// `ETag` and `Last-Modified`.
fn validator_headers(validators: &Validators) -> HeaderMap {
    let modified = httpdate::fmt_http_date(validators.modified);
    [(header::ETAG, validators.etag.clone()), (header::LAST_MODIFIED, modified)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
        .collect()
}

/// The text of [`Form`].
fn form(got: &Got, wall: WallMs) -> Text {
    let context = got.context.as_ref().map(|context| URL_SAFE_NO_PAD.encode(context)).unwrap_or_default();
    let mut text = Text::default();
    text.push(&format!("{{\"context\":\"{context}\",\"siblings\":["));
    for (at, sibling) in got.siblings.iter().enumerate() {
        let modified = rfc3339(shown_time(sibling.hlc.wall()));
        let version = version(sibling.dot);
        if at > 0 {
            text.push(",");
        }
        match &sibling.content {
            Content::Value { bytes, content_type, content_encoding } if !sibling.is_deleted(wall) => {
                let content_type = Some(media_type(content_type).to_owned());
                let content_encoding = Some(content_encoding.clone()).filter(|encoding| !encoding.is_empty());
                let ttl = sibling.expires.map(|expires| headers::ttl(expires, wall));
                let form =
                    SiblingForm { value: None, deleted: false, content_type, content_encoding, ttl, modified, version };
                text.push("{\"value\":\"");
                text.push_value(bytes);
                text.push("\",");
                text.push(&json(&form)[1..]);
            }
            _ => text.push(&json(&SiblingForm {
                value: None,
                deleted: true,
                content_type: None,
                content_encoding: None,
                ttl: None,
                modified,
                version,
            })),
        }
    }
    text.push("]}");
    text
}

/// Strings and booleans always have a JSON form.
fn json(form: &SiblingForm) -> String {
    serde_json::to_string(form).unwrap_or_else(|_| "{}".to_owned())
}

/// The version of a sibling: opaque to clients, legible to operators.
pub(super) fn version(dot: Dot) -> String {
    format!("{}-{}", actor(dot.actor), dot.counter)
}

/// An actor, as the versions of its writes begin.
pub(super) fn actor(actor: Actor) -> String {
    format!("{}-{:x}-{:x}", actor.node, actor.incarnation.0, actor.since.0)
}

/// A time in the contract's format. It must not be after [`SHOWN_SECONDS_MAX`].
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

pub(super) fn shown_time(wall: WallMs) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(wall.0.min(SHOWN_SECONDS_MAX * 1_000))
}
