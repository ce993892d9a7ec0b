//! One client's connection: HTTP/1.0 and 1.1 (RFC 9112), one request after the other.
//!
//! A general library would cost more than the requests on keys themselves. This reads a head, hands the request to the calls, and writes the response;
//! the calls decide everything else. Its tests compare it with such a library.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{Method, Request, Response, Version, header};
use axum::response::IntoResponse as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::service::Service;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep};
use tracing::debug;

use super::head::{Framing, Head, Heads, RefusedHead};
use super::request_body::{self, Source};
use super::response::{Answers, CONTINUE, LAST_CHUNK, Sends, chunk_head, encode_head};
use super::{long_response, target};
use crate::tcp::connections::{OpenConnection, Serves};
use crate::tcp::read;

/// How many bytes of a head are read at once.
const HEAD_READ_BYTES: usize = 4 << 10;
/// How many bytes of a body are read at once.
const BODY_READ_BYTES: usize = 64 << 10;
/// Pieces of a body up to this size are copied behind the head, to be written at once.
const COPIED_BYTES: usize = 16 << 10;
/// What a connection keeps of its buffers between requests.
const KEPT_BYTES: usize = 4 << 10;
/// How much of what follows the last request is read and discarded, and for how long: a client that is cut off while it sends may never
/// read the response.
const DISCARDED_BYTES_MAX: usize = 8 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// Limits on what a connection may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within {
    /// How long a client may take to send a head; also how long an idle connection is kept.
    pub(super) head: Duration,
    /// The longest head, in bytes.
    pub(super) head_bytes_max: usize,
    /// How long a client may read nothing of a response that is ready.
    pub(super) write: Duration,
}

/// A connection with its buffers.
pub(super) struct Connection<S> {
    stream: S,
    within: Within,
    /// What was read and not taken yet.
    arrived: BytesMut,
    heads: Heads,
    /// What is to be written.
    out: BytesMut,
    /// Fires some time after the deadline of the present head, or of an earlier one.
    timer: Pin<Box<Sleep>>,
    guard: OpenConnection,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// It must be made within the runtime that serves it.
    pub(super) fn new(stream: S, within: Within, guard: OpenConnection) -> Self {
        Self {
            stream,
            within,
            arrived: BytesMut::new(),
            heads: Heads::new(within.head_bytes_max),
            out: BytesMut::new(),
            timer: Box::pin(tokio::time::sleep(within.head)),
            guard,
        }
    }

    /// Serves requests until one of the sides has had enough.
    pub(super) async fn serve<C>(mut self, calls: &C) -> io::Result<()>
    where
        C: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        loop {
            let head = match self.next_head().await? {
                None => break,
                Some(Ok(head)) => head,
                Some(Err(refused)) => {
                    self.guard.set_busy();
                    self.refuse(refused).await?;
                    break;
                }
            };
            self.guard.set_busy();
            if !self.serve_one(head, calls).await? {
                break;
            }
        }
        self.stream.shutdown().await
    }

    /// Reads the next head; none if the connection is idle and ends.
    async fn next_head(&mut self) -> io::Result<Option<Result<Head, RefusedHead>>> {
        if self.arrived.is_empty() && self.arrived.capacity() > KEPT_BYTES {
            self.arrived = BytesMut::new();
        }
        let until = Instant::now() + self.within.head;
        loop {
            match self.heads.next(&mut self.arrived) {
                Ok(None) => {}
                Ok(Some(head)) => return Ok(Some(Ok(head))),
                Err(refused) => return Ok(Some(Err(refused))),
            }
            let Self { stream, arrived, timer, guard, .. } = self;
            let is_idle = arrived.is_empty();
            let read = std::future::poll_fn(|cx| {
                if let Poll::Ready(read) = read::poll_some::<HEAD_READ_BYTES, _>(Pin::new(&mut *stream), cx, arrived) {
                    return Poll::Ready(read);
                }
                if is_idle && guard.poll_stopping(cx).is_ready() {
                    return Poll::Ready(Ok(0));
                }
                // The timer is set anew only when it has fired.
                while timer.as_mut().poll(cx).is_ready() {
                    if Instant::now() >= until {
                        return Poll::Ready(Ok(0));
                    }
                    timer.as_mut().reset(until);
                }
                Poll::Pending
            });
            if read.await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Serves one request. Returns whether the connection stays open.
    async fn serve_one<C>(&mut self, head: Head, calls: &C) -> io::Result<bool>
    where
        C: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let Head { mut parts, mut framing, keeps_alive, mut expects_continue } = head;
        let serves = self.guard.serves();
        if serves != Serves::All {
            parts.extensions.insert(serves);
        }
        // Most requests on keys do without, which saves them an allocation.
        if let Some(client) = self.guard.client()
            && (parts.headers.contains_key(header::AUTHORIZATION) || !target::names_key(parts.uri.path()))
        {
            parts.extensions.insert(client);
        }
        let mut answers = Answers::new(&parts.method, parts.version, keeps_alive);
        let response = match self.whole(&mut framing) {
            Some(body) => call(calls, Request::from_parts(parts, body)).await,
            None => {
                let length = if let Framing::Length(length) = framing { Some(length) } else { None };
                let (body, source) = request_body::arriving(length);
                let mut called = pin!(call(calls, Request::from_parts(parts, body)));
                tokio::select! {
                    biased;
                    response = &mut called => response,
                    () = self.read_body(&mut framing, source, &mut expects_continue) => called.await,
                }
            }
        };
        if !framing.is_over() {
            // The call does not want the rest.
            while let Ok(Some(_)) = framing.decode(&mut self.arrived) {}
        }
        answers.keeps_alive &= framing.is_over() && serves != Serves::Itself && !self.guard.is_stopping();
        let response = long_response::track(&self.guard, response);
        let stays = self.respond(response, answers).await?;
        if !framing.is_over() {
            self.discard().await;
        }
        Ok(stays)
    }

    /// The body, if all of it has arrived with the head.
    fn whole(&mut self, framing: &mut Framing) -> Option<Body> {
        let Framing::Length(length) = framing else { return None };
        if *length > self.arrived.len() as u64 {
            return None;
        }
        let body = framing.decode(&mut self.arrived).ok().flatten();
        Some(body.map_or_else(Body::empty, Body::from))
    }

    /// Reads as much of the body as the call asks for. Completes when there is no more.
    async fn read_body(&mut self, framing: &mut Framing, mut source: Source, expects_continue: &mut bool) {
        while source.is_asked().await {
            let piece = self.next_piece(framing, expects_continue).await;
            let is_last = !matches!(piece, Ok(Some(_)));
            match piece {
                Ok(Some(piece)) => source.send(Ok(piece)),
                Ok(None) => {}
                Err(error) => source.send(Err(error)),
            }
            if is_last {
                return;
            }
        }
        // The call has dropped the body, and is about to end.
        std::future::pending().await
    }

    async fn next_piece(&mut self, framing: &mut Framing, expects_continue: &mut bool) -> io::Result<Option<Bytes>> {
        loop {
            let piece = framing.decode(&mut self.arrived);
            if let Some(piece) = piece.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                return Ok(Some(piece));
            }
            if framing.is_over() {
                return Ok(None);
            }
            if std::mem::take(expects_continue) {
                self.out.put_slice(CONTINUE);
                self.flush().await?;
            }
            self.arrived.reserve(BODY_READ_BYTES);
            let Self { stream, arrived, .. } = self;
            if tokio::io::AsyncReadExt::read_buf(stream, arrived).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before it"));
            }
        }
    }

    /// Answers a head that is no request. Nothing that follows is known to be one.
    async fn refuse(&mut self, refused: RefusedHead) -> io::Result<()> {
        let response = refused.error().into_response();
        debug!(status = response.status().as_u16(), "refused an HTTP request head");
        // The response to a HEAD has no body.
        let is_head = self.arrived.starts_with(b"HEAD ");
        let answers = Answers { is_head, ..Answers::new(&Method::GET, Version::HTTP_11, false) };
        self.respond(long_response::track(&self.guard, response), answers).await?;
        self.discard().await;
        Ok(())
    }

    /// Writes a response. Returns whether the connection stays open.
    async fn respond(&mut self, response: Response<Body>, answers: Answers) -> io::Result<bool> {
        let (sends, keeps_alive) = encode_head(&response, answers, &mut self.out);
        let mut body = response.into_body();
        while sends != Sends::Nothing && !body.is_end_stream() {
            let Some(frame) = body.frame().await else { break };
            let frame = frame.map_err(io::Error::other)?;
            let Ok(piece) = frame.into_data() else { continue };
            if piece.is_empty() {
                continue;
            }
            if sends == Sends::Chunks {
                chunk_head(piece.len(), &mut self.out);
            }
            if piece.len() <= COPIED_BYTES {
                self.out.put_slice(&piece);
            } else {
                self.write(&piece).await?;
            }
            if sends == Sends::Chunks {
                self.out.put_slice(b"\r\n");
            }
            if self.out.len() > COPIED_BYTES {
                self.flush().await?;
            }
        }
        if sends == Sends::Chunks {
            self.out.put_slice(LAST_CHUNK);
        }
        // Its share of the memory is free once the client has it.
        self.flush().await?;
        drop(body);
        if self.out.capacity() > 2 * COPIED_BYTES {
            self.out = BytesMut::new();
        }
        Ok(keeps_alive)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.write(&[]).await
    }

    /// Writes what has gathered, and then `piece`.
    async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let Self { stream, out, within, .. } = self;
        let too_slow = |_| io::Error::new(io::ErrorKind::TimedOut, "the client does not read the response");
        for mut bytes in [&out[..], piece] {
            while !bytes.is_empty() {
                // A timer is needed only if the client does not read.
                let written = poll_once(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await;
                let written = match written {
                    Some(written) => written?,
                    None => {
                        let write = stream.write(bytes);
                        tokio::time::timeout(within.write, write).await.map_err(too_slow)??
                    }
                };
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                bytes = &bytes[written..];
            }
        }
        // TLS may have kept a part.
        match poll_once(|cx| Pin::new(&mut *stream).poll_flush(cx)).await {
            Some(flushed) => flushed?,
            None => tokio::time::timeout(within.write, stream.flush()).await.map_err(too_slow)??,
        }
        out.clear();
        Ok(())
    }

    /// Closes the sending side, and discards what the client still sends.
    async fn discard(&mut self) {
        let _ = self.stream.shutdown().await;
        let to_the_end = async {
            let mut discarded = 0;
            while discarded < DISCARDED_BYTES_MAX {
                self.arrived.clear();
                let Self { stream, arrived, .. } = self;
                match std::future::poll_fn(|cx| {
                    read::poll_some::<HEAD_READ_BYTES, _>(Pin::new(&mut *stream), cx, arrived)
                })
                .await
                {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => discarded += bytes,
                }
            }
        };
        let _ = tokio::time::timeout(DISCARD_WITHIN, to_the_end).await;
    }
}

async fn call<C>(calls: &C, request: Request<Body>) -> Response<Body>
where
    C: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let Ok(response) = calls.call(request).await;
    response
}

/// The result of polling once; none if it is not ready.
async fn poll_once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    std::future::poll_fn(|cx| {
        Poll::Ready(match poll(cx) {
            Poll::Ready(ready) => Some(ready),
            Poll::Pending => None,
        })
    })
    .await
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
