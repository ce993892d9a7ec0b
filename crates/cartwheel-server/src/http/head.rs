//! Parses the heads of requests, strictly: a target or a framing that a proxy might read differently is an error.

use std::mem::MaybeUninit;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use bytes::{Buf as _, Bytes, BytesMut};

use super::chunks::{Chunks, Malformed};
use super::error::ApiError;

/// How many headers a request may have.
const HEADERS_MAX: usize = 100;
/// The longest target, in bytes. The type for targets takes no longer one.
const TARGET_BYTES_MAX: usize = 65_534;

/// The head of a request.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) framing: Framing,
    /// Whether the client may send another request on the connection.
    pub(super) keeps_alive: bool,
    /// Whether the client waits for permission to send the body.
    pub(super) expects_continue: bool,
}

/// How to find the end of a body.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// So many more bytes.
    Length(u64),
    Chunked(Chunks),
}

impl Framing {
    /// Removes what comes next of the body from `arrived`. None if more must arrive, or if the body is over.
    pub(super) fn decode(&mut self, arrived: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(arrived.len());
                *left -= taken as u64;
                Ok((taken > 0).then(|| arrived.split_to(taken).freeze()))
            }
            Self::Chunked(chunks) => chunks.decode(arrived),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_over(),
        }
    }
}

/// Why a head was refused.
#[derive(Debug)]
pub(super) struct RefusedHead {
    error: fn(String) -> ApiError,
    why: String,
}

impl RefusedHead {
    /// The error. The connection must be closed: what follows on it is not known to be a request.
    pub(super) fn error(self) -> ApiError {
        (self.error)(self.why).closing()
    }
}

/// Finds the heads in the bytes of a connection, each of at most `bytes_max` bytes.
#[derive(Debug)]
pub(super) struct Heads {
    bytes_max: usize,
    /// How many of the first bytes were searched in vain for the end of a head.
    searched: usize,
}

impl Heads {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, searched: 0 }
    }

    /// Removes the next head from `arrived`; none if it is incomplete.
    pub(super) fn next(&mut self, arrived: &mut BytesMut) -> Result<Option<Head>, RefusedHead> {
        // Bytes that are no head fail at once; a head is parsed again only when its end arrives.
        let is_worth_parsing = self.searched == 0 || has_end(&arrived[self.searched.saturating_sub(2)..]);
        self.searched = arrived.len();
        let parsed = if is_worth_parsing && !arrived.is_empty() { parse(arrived)? } else { None };
        match parsed {
            Some((length, _)) if length > self.bytes_max => Err(too_large(arrived, self.bytes_max)),
            Some((length, head)) => {
                arrived.advance(length);
                self.searched = 0;
                Ok(Some(head))
            }
            None if arrived.len() > self.bytes_max => Err(too_large(arrived, self.bytes_max)),
            None => Ok(None),
        }
    }
}

/// Whether `bytes` contain an empty line.
fn has_end(bytes: &[u8]) -> bool {
    let mut line = 0..0;
    let mut newlines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let Some(first) = newlines.next() else { return false };
    line.start = first + 1;
    newlines.any(|at| {
        let is_empty = matches!(&bytes[line.start..at], b"" | b"\r");
        line.start = at + 1;
        is_empty
    })
}

fn refused(error: fn(String) -> ApiError, why: impl Into<String>) -> RefusedHead {
    RefusedHead { error, why: why.into() }
}

fn bad(why: impl Into<String>) -> RefusedHead {
    refused(ApiError::bad_request, why)
}

/// The error for a head that is too large: the target's error if the first line alone is too large.
fn too_large(head: &[u8], bytes_max: usize) -> RefusedHead {
    if head[..bytes_max.min(head.len())].contains(&b'\n') {
        let why = format!("the request's headers have more than {bytes_max} bytes: send fewer or shorter ones");
        refused(ApiError::head_too_large, why)
    } else {
        refused(
            ApiError::target_too_long,
            format!("the request's first line has more than {bytes_max} bytes: shorten the target"),
        )
    }
}

/// The length and the contents of the head at the start of `bytes`; none if it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Head)>, RefusedHead> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut []);
    let not_http = |error: &dyn std::fmt::Display| {
        bad(format!(
            "this is not an HTTP/1.1 request ({error}): see RFC 9112, and check whether the client speaks TLS or HTTP/2"
        ))
    };
    let parsed = head.parse_with_uninit_headers(bytes, &mut headers).map_err(|error| match error {
        httparse::Error::TooManyHeaders => {
            refused(ApiError::head_too_large, format!("the request has more than {HEADERS_MAX} headers: send fewer"))
        }
        error => not_http(&error),
    })?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let uri = target(head.path.unwrap_or_default())?;
    let is_http_11 = head.version == Some(1);
    let framing = framing(head.headers, is_http_11)?;
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(head.method.unwrap_or_default().as_bytes()).map_err(|error| not_http(&error))?;
    parts.uri = uri;
    parts.version = if is_http_11 { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers = HeaderMap::with_capacity(head.headers.len());
    for header in head.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| not_http(&error))?;
        let value = HeaderValue::from_bytes(header.value).map_err(|error| not_http(&error))?;
        parts.headers.append(name, value);
    }
    let keeps_alive = match is_http_11 {
        true => !has_token(&parts.headers, &header::CONNECTION, "close"),
        false => has_token(&parts.headers, &header::CONNECTION, "keep-alive"),
    };
    let expects_continue = is_http_11 && has_token(&parts.headers, &header::EXPECT, "100-continue");
    Ok(Some((length, Head { parts, framing, keeps_alive, expects_continue })))
}

/// Whether one of a header's values is this token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

fn target(target: &str) -> Result<Uri, RefusedHead> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(refused(
            ApiError::target_too_long,
            format!("the target has more than {TARGET_BYTES_MAX} bytes: shorten it"),
        ));
    }
    if target.contains('#') {
        return Err(bad("the target has a raw #: write it as %23"));
    }
    let parsed = Uri::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes()));
    parsed.map_err(|error| bad(format!("the target cannot be parsed ({error}): percent-encode its bytes")))
}

/// The framing of the body. An ambiguous one is refused.
fn framing(headers: &[httparse::Header<'_>], is_http_11: bool) -> Result<Framing, RefusedHead> {
    let length = single(headers, "content-length")?;
    match (single(headers, "transfer-encoding")?, length) {
        (Some(_), Some(_)) => {
            Err(bad("the request has both a Content-Length and a Transfer-Encoding: send one of them"))
        }
        (Some(_), None) if !is_http_11 => {
            Err(bad("HTTP/1.0 has no Transfer-Encoding: send a Content-Length, or HTTP/1.1"))
        }
        (Some(coding), None) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked(Chunks::default()))
        }
        (Some(coding), None) => Err(refused(
            ApiError::not_implemented,
            format!(
                "the Transfer-Encoding {:?} is unknown: send chunked, or a Content-Length",
                String::from_utf8_lossy(coding)
            ),
        )),
        (None, Some(length)) => {
            let digits = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok()).filter(|&length| length < u64::MAX - 2);
            length.map(Framing::Length).ok_or_else(|| bad("the Content-Length is not one number of bytes"))
        }
        (None, None) => Ok(Framing::Length(0)),
    }
}

fn single<'a>(headers: &[httparse::Header<'a>], name: &str) -> Result<Option<&'a [u8]>, RefusedHead> {
    let mut values = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(bad(format!("the header {name} is given twice: give it once"))),
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
