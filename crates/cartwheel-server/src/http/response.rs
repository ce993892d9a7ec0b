//! Encodes the heads of responses, and the chunks of bodies of unknown length.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, HttpBody as _};
use axum::http::{Method, Response, StatusCode, Version, header};
use bytes::{BufMut as _, BytesMut};

/// What a response answers, as far as its form depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    /// Whether the request's method is HEAD, whose response has no body.
    pub(super) is_head: bool,
    pub(super) is_http_11: bool,
    /// Whether the connection stays open if the response agrees.
    pub(super) keeps_alive: bool,
}

impl Answers {
    pub(super) fn new(method: &Method, version: Version, keeps_alive: bool) -> Self {
        Self { is_head: method == Method::HEAD, is_http_11: version >= Version::HTTP_11, keeps_alive }
    }
}

/// How a body is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sends {
    /// Not at all.
    Nothing,
    /// As it is: its length is announced, or the end of the connection ends it.
    Plain,
    /// In chunks.
    Chunks,
}

/// Encodes the head of a response. Returns how its body is sent, and whether the connection stays open afterwards.
pub(super) fn encode_head(response: &Response<Body>, answers: Answers, to: &mut BytesMut) -> (Sends, bool) {
    let (status, headers) = (response.status(), response.headers());
    let Answers { is_head, is_http_11, mut keeps_alive } = answers;
    keeps_alive &= headers.get(header::CONNECTION).is_none_or(|value| !value.as_bytes().eq_ignore_ascii_case(b"close"));
    to.put_slice(if is_http_11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
    to.put_slice(status.as_str().as_bytes());
    to.put_u8(b' ');
    to.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    to.put_slice(b"\r\n");
    for (name, value) in headers {
        // These are about the connection, which is not the caller's.
        if name != header::CONNECTION && name != header::TRANSFER_ENCODING {
            field(to, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let has_no_body = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = response.body().size_hint().exact();
    let sends = match length {
        _ if has_no_body => Sends::Nothing,
        Some(_) => Sends::Plain,
        None if is_http_11 => Sends::Chunks,
        None => {
            keeps_alive &= is_head;
            Sends::Plain
        }
    };
    match length {
        // The length of what a GET would get, if the caller knows it.
        Some(0) if is_head => {}
        Some(length) if !has_no_body && !headers.contains_key(header::CONTENT_LENGTH) => number_field(to, length),
        None if sends == Sends::Chunks => field(to, b"transfer-encoding", b"chunked"),
        _ => {}
    }
    if !keeps_alive {
        field(to, b"connection", b"close");
    } else if !is_http_11 {
        field(to, b"connection", b"keep-alive");
    }
    if !headers.contains_key(header::DATE) {
        date(to);
    }
    to.put_slice(b"\r\n");
    (if is_head { Sends::Nothing } else { sends }, keeps_alive)
}

/// Encodes the beginning of a chunk of `bytes` bytes. A line end follows the chunk.
pub(super) fn chunk_head(bytes: usize, to: &mut BytesMut) {
    let _ = write!(to, "{bytes:x}\r\n");
}

/// The end of a body that is sent in chunks.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Permission to send a body.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn field(to: &mut BytesMut, name: &[u8], value: &[u8]) {
    to.reserve(name.len() + value.len() + 4);
    to.put_slice(name);
    to.put_slice(b": ");
    to.put_slice(value);
    to.put_slice(b"\r\n");
}

fn number_field(to: &mut BytesMut, length: u64) {
    let _ = write!(to, "content-length: {length}\r\n");
}

thread_local! {
    /// The second of the last response, and its text.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

fn date(to: &mut BytesMut) {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    DATE.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            *of = second;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        field(to, b"date", text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use bytes::Bytes;

    use super::*;

    fn encoded(response: Response<Body>, answers: Answers) -> (String, Sends, bool) {
        let mut to = BytesMut::new();
        let (sends, keeps_alive) = encode_head(&response, answers, &mut to);
        let text = String::from_utf8(to.to_vec()).unwrap();
        let (before, after) = text.split_once("date: ").unwrap();
        (format!("{before}{}", &after[after.find('\n').unwrap() + 1..]), sends, keeps_alive)
    }

    fn response(status: u16, body: Body) -> Response<Body> {
        Response::builder().status(status).header("x-a", "b").body(body).unwrap()
    }

    fn endless() -> Body {
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>())
    }

    const GET: Answers = Answers { is_head: false, is_http_11: true, keeps_alive: true };

    #[test]
    fn the_form_of_a_response_follows_from_its_body_and_the_request() {
        let old = Answers { is_http_11: false, ..GET };
        let head = Answers { is_head: true, ..GET };
        let ok = "HTTP/1.1 200 OK\r\nx-a: b\r\n";
        for (response, answers, expected, sends, keeps_alive) in [
            (response(200, "abc".into()), GET, format!("{ok}content-length: 3\r\n\r\n"), Sends::Plain, true),
            (response(200, Body::empty()), GET, format!("{ok}content-length: 0\r\n\r\n"), Sends::Plain, true),
            (response(200, "abc".into()), head, format!("{ok}content-length: 3\r\n\r\n"), Sends::Nothing, true),
            (response(200, endless()), GET, format!("{ok}transfer-encoding: chunked\r\n\r\n"), Sends::Chunks, true),
            (
                response(200, endless()),
                old,
                "HTTP/1.0 200 OK\r\nx-a: b\r\nconnection: close\r\n\r\n".to_owned(),
                Sends::Plain,
                false,
            ),
            (
                response(200, "a".into()),
                old,
                "HTTP/1.0 200 OK\r\nx-a: b\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n".to_owned(),
                Sends::Plain,
                true,
            ),
            (
                response(404, "a".into()),
                Answers { keeps_alive: false, ..GET },
                "HTTP/1.1 404 Not Found\r\nx-a: b\r\ncontent-length: 1\r\nconnection: close\r\n\r\n".to_owned(),
                Sends::Plain,
                false,
            ),
            (
                response(204, Body::empty()),
                GET,
                "HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n".to_owned(),
                Sends::Nothing,
                true,
            ),
            (
                response(304, endless()),
                GET,
                "HTTP/1.1 304 Not Modified\r\nx-a: b\r\n\r\n".to_owned(),
                Sends::Nothing,
                true,
            ),
        ] {
            assert_eq!(encoded(response, answers), (expected, sends, keeps_alive));
        }
    }

    #[test]
    fn a_response_can_close_the_connection() {
        let mut closing = response(400, "a".into());
        closing.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let (text, _, keeps_alive) = encoded(closing, GET);
        assert!(text.ends_with("content-length: 1\r\nconnection: close\r\n\r\n") && !keeps_alive, "{text}");
        let mut with_length = response(200, Body::empty());
        with_length.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("7"));
        let (text, sends, _) = encoded(with_length, Answers { is_head: true, ..GET });
        assert!(text.ends_with("content-length: 7\r\n\r\n") && sends == Sends::Nothing, "{text}");
    }
}
