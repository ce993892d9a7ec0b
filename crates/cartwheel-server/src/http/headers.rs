//! Request headers.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_core::message::client::Retry;
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::wire::context::SEALED_BYTES_MAX;

use super::error::ApiError;

pub(super) const CONTEXT: HeaderName = HeaderName::from_static("cartwheel-context");
/// Marks the responses of a node that drains, so that clients choose other nodes.
pub(super) const DRAINING: HeaderName = HeaderName::from_static("cartwheel-draining");
pub(super) const TTL: HeaderName = HeaderName::from_static("cartwheel-ttl");
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest idempotency key and the longest media type, in bytes.
const TEXT_BYTES_MAX: usize = 255;
const JSON: &str = "application/json";
/// The longest lifetime of a value, in seconds: 136 years.
const TTL_SECONDS_MAX: u64 = u32::MAX as u64;

/// The sealed context in a request.
pub(super) fn context(headers: &HeaderMap) -> Result<Option<Bytes>, ApiError> {
    let Some(value) = single(headers, &CONTEXT)? else { return Ok(None) };
    if value.len() > SEALED_BYTES_MAX.div_ceil(3) * 4 {
        return Err(ApiError::bad_context(
            "the context is too long to be one that a node made; send it back as Cartwheel-Context gave it",
        ));
    }
    let decoded = URL_SAFE_NO_PAD.decode(value).map_err(|_| {
        ApiError::bad_context("the context is not base64url without padding: send it back as Cartwheel-Context gave it")
    })?;
    Ok(Some(decoded.into()))
}

/// The idempotency key of a write, under which it can be retried.
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

/// The encoding of a value; empty if it has none. The node stores it and returns it with the value, and does not decode.
pub(super) fn content_encoding(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = single(headers, &header::CONTENT_ENCODING)? else { return Ok(String::new()) };
    let is_in_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~, ".contains(c);
    let text = value.to_str().ok().map(str::trim);
    let text = text.filter(|text| (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.chars().all(is_in_token));
    match text {
        Some(text) if text.eq_ignore_ascii_case("identity") => Ok(String::new()),
        Some(text) => Ok(text.to_owned()),
        None => Err(ApiError::bad_request(format!(
            "the Content-Encoding is not a list of encodings of 1 to {TEXT_BYTES_MAX} characters; give for example gzip or br"
        ))),
    }
}

/// Whether the client asks for the JSON form.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    accepts(headers, JSON)
}

/// Whether the client names a media type among those that it accepts. A wildcard does not name it.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let accepts = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|range| is_of_type(range, media_type) && !is_unacceptable(range))
}

/// Refuses a body that is not declared as JSON. A browser sends JSON to another site only after a preflight request, which no node grants.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    match single(headers, &header::CONTENT_TYPE)?.map(|value| value.to_str()) {
        Some(Ok(content_type)) if is_of_type(content_type, JSON) => Ok(()),
        _ => Err(ApiError::unsupported_media_type(
            "changes are sent as JSON: add the header `Content-Type: application/json` (curl -H 'Content-Type: application/json')",
        )),
    }
}

/// Checks that a change without a body does not claim to have another one.
pub(super) fn refuse_other_than_json(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::CONTENT_TYPE) { require_json(headers) } else { Ok(()) }
}

/// Whether a media type or range is `media_type`, whatever its parameters.
fn is_of_type(range: &str, media_type: &str) -> bool {
    range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

/// Whether a media range has weight 0, which excludes it.
fn is_unacceptable(range: &str) -> bool {
    let parameters = range.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let mut weights = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weights.next().is_some_and(|(_, weight)| weight.trim().parse() == Ok(0.0))
}

/// The lifetime that the request gives its value, if it does.
pub(super) fn lifetime(headers: &HeaderMap) -> Result<Option<Lifetime>, ApiError> {
    let Some(given) = single(headers, &TTL)? else { return Ok(None) };
    let seconds = given.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match seconds.and_then(|text| text.parse().ok()) {
        Some(seconds @ 1..=TTL_SECONDS_MAX) => Ok(Some(Lifetime { seconds })),
        _ => Err(ApiError::bad_request(format!(
            "Cartwheel-TTL is not a number of seconds from 1 to {TTL_SECONDS_MAX}: give for example 3600 for an hour"
        ))),
    }
}

/// How long a value lives from its write.
#[derive(Clone, Copy)]
pub(super) struct Lifetime {
    seconds: u64,
}

impl Lifetime {
    /// When a value expires that is written at the time `now`.
    pub(super) const fn end(self, now: WallMs) -> WallMs {
        WallMs(now.0.saturating_add(self.seconds * 1_000))
    }
}

/// Refuses a TTL with a delete.
pub(super) fn refuse_ttl(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.contains_key(&TTL) {
        true => Err(ApiError::bad_request("a delete does not expire: leave Cartwheel-TTL out")),
        false => Ok(()),
    }
}

/// The seconds until a value expires, rounded up, at the time `now`.
pub(super) fn ttl(expires: WallMs, now: WallMs) -> u64 {
    expires.0.saturating_sub(now.0).div_ceil(1_000)
}

/// The value of a header that may occur once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(ApiError::bad_request(format!("the header {name} is given twice: give it once"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_with_a_weight_above_zero_asks_for_json() {
        for (accept, wants) in [
            ("application/json", true),
            ("text/html, Application/JSON ; Q=0.001", true),
            ("application/json;q=1;x=0", true),
            ("application/json;q=0", false),
            ("text/html;q=1, application/json; q=0.000", false),
            ("application/json;charset=utf-8;q=0.0", false),
            ("text/html;q=0, application/json", true),
            ("application/json;q=nonsense", true),
            ("application/jsonp, */*", false),
            ("", false),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(wants_json(&headers), wants, "{accept}");
        }
    }

    #[test]
    fn a_lifetime_is_a_number_of_seconds() {
        let expires_at = |ttl: &str| {
            let headers = [(TTL, HeaderValue::from_str(ttl).unwrap())].into_iter().collect();
            lifetime(&headers).ok().map(|lifetime| lifetime.map(|lifetime| lifetime.end(WallMs(5))))
        };
        assert_eq!(expires_at("1"), Some(Some(WallMs(1_005))));
        assert_eq!(expires_at("4294967295"), Some(Some(WallMs(4_294_967_295_005))));
        for bad in ["", "0", "-1", "+1", "1.5", "1s", " 1 1", "4294967296", "99999999999999999999"] {
            assert_eq!(expires_at(bad), None, "{bad:?}");
        }
        assert!(matches!(lifetime(&HeaderMap::new()), Ok(None)));
        assert_eq!(
            (ttl(WallMs(1_005), WallMs(5)), ttl(WallMs(1_005), WallMs(6)), ttl(WallMs(7), WallMs(9))),
            (1, 1, 0)
        );
    }

    #[test]
    fn a_change_must_be_declared_as_json() {
        for (content_type, is_taken) in [
            ("application/json", true),
            ("Application/Json; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("multipart/form-data; boundary=application/json", false),
            ("text/plain; application/json", false),
            ("", false),
        ] {
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().collect();
            assert_eq!(require_json(&headers).is_ok(), is_taken, "{content_type}");
        }
        assert!(require_json(&HeaderMap::new()).is_err());
    }
}
