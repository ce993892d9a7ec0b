//! Request headers.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_core::context::SEALED_BYTES_MAX;
use cartwheel_core::request::Retry;

use super::error::ApiError;

pub(super) const CONTEXT: HeaderName = HeaderName::from_static("cartwheel-context");
const TTL: HeaderName = HeaderName::from_static("cartwheel-ttl");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest idempotency key and the longest media type, in bytes.
const TEXT_BYTES_MAX: usize = 255;

/// The sealed context that a request carries.
pub(super) fn context(headers: &HeaderMap) -> Result<Option<Bytes>, ApiError> {
    let Some(value) = single(headers, &CONTEXT)? else { return Ok(None) };
    if value.len() > SEALED_BYTES_MAX.div_ceil(3) * 4 {
        return Err(ApiError::bad_context("the context is longer than any that was given out"));
    }
    let decoded = URL_SAFE_NO_PAD.decode(value).map_err(|_| {
        ApiError::bad_context("the context is not base64url without padding: send it back as Cartwheel-Context gave it")
    })?;
    Ok(Some(decoded.into()))
}

/// Under which name a write may be repeated.
pub(super) fn retry(headers: &HeaderMap) -> Result<Retry, ApiError> {
    match single(headers, &IDEMPOTENCY_KEY)? {
        None => Ok(Retry::Unnamed),
        Some(key) if (1..=TEXT_BYTES_MAX).contains(&key.len()) => {
            Ok(Retry::Key(Bytes::copy_from_slice(key.as_bytes())))
        }
        Some(key) => Err(ApiError::bad_request(format!(
            "the Idempotency-Key has {} bytes: use 1 to {TEXT_BYTES_MAX}",
            key.len()
        ))),
    }
}

/// The media type of a value.
pub(super) fn content_type(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = single(headers, &header::CONTENT_TYPE)? else { return Ok("application/octet-stream".to_owned()) };
    let text = value.to_str().ok().filter(|text| (1..=TEXT_BYTES_MAX).contains(&text.len()));
    text.map(str::to_owned).ok_or_else(|| {
        ApiError::bad_request(format!("the Content-Type is not 1 to {TEXT_BYTES_MAX} printable ASCII characters"))
    })
}

/// Whether the client asks for the JSON form.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/json")
    })
}

/// Refuses what is promised for later, rather than taking the value and forgetting the promise.
pub(super) fn refuse_ttl(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(&TTL) {
        return Err(ApiError::bad_request("this version cannot let values expire: leave Cartwheel-TTL out"));
    }
    Ok(())
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(ApiError::bad_request(format!("the header {name} is given twice: give it once"))),
    }
}
