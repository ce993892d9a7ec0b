//! Keeps a connection busy while its client reads a long response.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::tcp::connections::OpenConnection;

/// Responses from this size on may take long to be read. Meanwhile the connection is not idle.
const LONG_BYTES: u64 = 32 << 10;

/// Marks the connection of a response as idle: now for a short response, or once a long one is sent.
pub(super) fn track(connection: &OpenConnection, response: Response) -> Response {
    if response.body().size_hint().lower() < LONG_BYTES && response.body().size_hint().upper().is_some() {
        connection.set_idle();
        return response;
    }
    let connection = connection.clone();
    response.map(|body| Body::new(Long { body, connection }))
}

/// The body of a long response. When it is dropped, its connection is idle again.
struct Long {
    body: Body,
    connection: OpenConnection,
}

impl HttpBody for Long {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.connection.set_idle();
    }
}
