//! Checks request heads before the HTTP library sees them.
//!
//! The library drops a raw `#` and what follows it in a target, accepts two lengths or two framings of one request, and answers unparsable
//! heads without a body. So the connection checks each head first. A refused head never reaches the library: a request made here takes its
//! place, the last on the connection, and the service answers it with an error in the usual form. A body passes unchanged; the connection
//! follows it only to find where the next head begins.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Uri;
use bytes::{Buf as _, Bytes, BytesMut};
use hyper::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::chunks::Chunks;
use super::error::ApiError;

/// How many headers the HTTP library accepts.
const HEADERS_MAX: usize = 100;
/// The longest target that the HTTP library accepts, in bytes.
const TARGET_BYTES_MAX: usize = 65_534;
/// How many bytes of a head are read at once.
const READ_BYTES: usize = 4_096;
/// How much of what follows a refused head is read and discarded, and for how long: a client that is cut off while it sends may never
/// read the response.
const DISCARDED_BYTES_MAX: usize = 8 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// The header that marks a request made in place of a refused head.
const MARK: &str = "cartwheel-refused";

/// Why the last head of a connection was refused, once it is. Clones share one.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Arc<OnceLock<RefusedHead>>);

#[derive(Debug)]
struct RefusedHead {
    error: fn(String) -> ApiError,
    why: String,
}

impl Refused {
    /// The error for a request whose head was refused; none for any other.
    pub(super) fn of<B>(&self, request: &Request<B>) -> Option<ApiError> {
        // A client's own header of this name means nothing: a refused head is the last.
        let RefusedHead { error, why } = self.0.get().filter(|_| request.headers().contains_key(MARK))?;
        Some(error(why.clone()).closing())
    }
}

/// A client's connection, whose heads are checked as they are read.
#[derive(Debug)]
pub(super) struct CheckedHeads<S> {
    stream: S,
    head_bytes_max: usize,
    /// What was read and not passed on yet.
    held: BytesMut,
    /// How many of its first bytes are a checked head, to be passed on.
    checked: usize,
    /// How many of its first bytes were searched in vain for the end of a head.
    searched: usize,
    /// What comes after that head.
    next: Next,
    refused: Refused,
    discarding: Option<Pin<Box<Sleep>>>,
    discarded: usize,
}

#[derive(Debug)]
enum Next {
    Head,
    Body(Framing),
    /// A head was refused.
    Nothing,
}

/// How to find the end of a body.
#[derive(PartialEq, Eq, Debug)]
enum Framing {
    Length(u64),
    Chunked(Chunks),
}

impl Framing {
    /// How many of `bytes`, which come next, belong to the body.
    fn take(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                taken
            }
            Self::Chunked(chunks) => chunks.take(bytes),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_over(),
        }
    }
}

impl<S> CheckedHeads<S> {
    /// Checks the heads that arrive on `stream`, each of at most `head_bytes_max` bytes.
    pub(super) fn new(stream: S, head_bytes_max: usize) -> (Self, Refused) {
        let refused = Refused::default();
        let checked = Self {
            stream,
            head_bytes_max,
            held: BytesMut::new(),
            checked: 0,
            searched: 0,
            next: Next::Head,
            refused: refused.clone(),
            discarding: None,
            discarded: 0,
        };
        (checked, refused)
    }

    /// Checks the head at the front of `held`. Returns whether it is complete.
    fn check(&mut self) -> bool {
        // Bytes that are no head fail at once; a head is parsed again only when its end arrives.
        let is_worth_parsing = self.searched == 0 || has_end(&self.held[self.searched.saturating_sub(2)..]);
        self.searched = self.held.len();
        let head = if is_worth_parsing { parse(&self.held) } else { Ok(None) };
        let head = match head {
            Ok(Some((bytes, _))) if bytes > self.head_bytes_max => Err(too_large(&self.held, self.head_bytes_max)),
            Ok(None) if self.held.len() > self.head_bytes_max => Err(too_large(&self.held, self.head_bytes_max)),
            head => head,
        };
        match head {
            Ok(None) => return false,
            Ok(Some((bytes, framing))) => {
                self.checked = bytes;
                self.next = if framing.is_over() { Next::Head } else { Next::Body(framing) };
            }
            Err(refused) => self.refuse(refused),
        }
        self.searched = 0;
        true
    }

    fn refuse(&mut self, refused: RefusedHead) {
        // The response to a HEAD has no body.
        let method = if self.held.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
        let instead = format!("{method} / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{MARK}: 1\r\n\r\n");
        self.held = BytesMut::from(instead.as_bytes());
        self.checked = self.held.len();
        self.next = Next::Nothing;
        // Nothing is read after a refused head, so this is the first.
        let _ = self.refused.0.set(refused);
    }

    /// Passes on what it can of `held`. Returns whether that is anything.
    fn pass_on(&mut self, to: &mut ReadBuf<'_>) -> bool {
        let room = to.remaining().min(self.held.len());
        let passed = match &mut self.next {
            _ if self.checked > 0 => {
                let passed = self.checked.min(room);
                self.checked -= passed;
                passed
            }
            Next::Body(framing) => framing.take(&self.held[..room]),
            Next::Head | Next::Nothing => 0,
        };
        to.put_slice(&self.held[..passed]);
        self.held.advance(passed);
        if self.held.is_empty() {
            // An idle connection holds no buffer.
            self.held = BytesMut::new();
        }
        self.end_body();
        passed > 0
    }

    fn end_body(&mut self) {
        if matches!(&self.next, Next::Body(framing) if framing.is_over()) {
            self.next = Next::Head;
        }
    }
}

impl<S: AsyncRead + Unpin> CheckedHeads<S> {
    /// Reads more of a head. Returns whether anything arrived.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.held.extend_from_slice(read.filled());
        Poll::Ready(Ok(!read.filled().is_empty()))
    }

    /// Reads more of a body, and keeps what follows it.
    fn poll_body(&mut self, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, to))?;
        let came = &to.filled()[before..];
        let taken = if let Next::Body(framing) = &mut self.next { framing.take(came) } else { came.len() };
        self.held.extend_from_slice(&came[taken..]);
        to.set_filled(before + taken);
        self.end_body();
        Poll::Ready(Ok(()))
    }

    /// Discards what follows a refused head.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.discarding.get_or_insert_with(|| Box::pin(tokio::time::sleep(DISCARD_WITHIN)));
        if sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while self.discarded < DISCARDED_BYTES_MAX {
            let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => self.discarded += read.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CheckedHeads<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if to.remaining() == 0 || this.pass_on(to) {
                return Poll::Ready(Ok(()));
            }
            match this.next {
                Next::Nothing => return Poll::Ready(Ok(())),
                Next::Body(_) => return this.poll_body(cx, to),
                Next::Head => {
                    let is_checked = this.held.len() > this.searched && this.check();
                    if !is_checked && !ready!(this.poll_head(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for CheckedHeads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.discarding.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if matches!(self.next, Next::Nothing) {
            ready!(self.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
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

/// The length and framing of the head at the start of `bytes`; none if it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Framing)>, RefusedHead> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut []);
    let parsed = head.parse_with_uninit_headers(bytes, &mut headers).map_err(|error| match error {
        httparse::Error::TooManyHeaders => {
            refused(ApiError::head_too_large, format!("the request has more than {HEADERS_MAX} headers: send fewer"))
        }
        error => bad(format!(
            "this is not an HTTP/1.1 request ({error}): see RFC 9112, and check whether the client speaks TLS or HTTP/2"
        )),
    })?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    check_target(head.path.unwrap_or_default())?;
    let is_http_11 = head.version == Some(1);
    Ok(Some((length, framing(head.headers, is_http_11)?)))
}

fn check_target(target: &str) -> Result<(), RefusedHead> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(refused(
            ApiError::target_too_long,
            format!("the target has more than {TARGET_BYTES_MAX} bytes: shorten it"),
        ));
    }
    if target.contains('#') {
        return Err(bad("the target has a raw #: write it as %23"));
    }
    // Like the library, it parses from a shared buffer.
    let parsed = Uri::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes()));
    parsed.map(drop).map_err(|error| bad(format!("the target cannot be parsed ({error}): percent-encode its bytes")))
}

/// The framing of the body. An ambiguous one is refused: a proxy in between may read it differently.
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
#[path = "heads_tests.rs"]
mod tests;
