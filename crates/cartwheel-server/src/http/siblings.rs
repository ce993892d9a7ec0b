//! Bodies that hold a key's values, sent piece by piece: a connection takes in no more of a large value than its client reads, and the
//! JSON form is encoded meanwhile, so that no base64 copy of the value is held.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::memory::MemoryShare;

/// How much of a value is encoded at once. Three bytes make four characters.
const CHUNK_BYTES: usize = 48 << 10;
/// How much of an unencoded value is handed to a connection at once.
const PIECE_BYTES: usize = 256 << 10;
/// Values up to this length are encoded in place.
const SHORT_BYTES: usize = 4 << 10;

/// Text with values in it.
#[derive(Default)]
pub(super) struct Text {
    pieces: VecDeque<Piece>,
    bytes: u64,
    values: usize,
}

enum Piece {
    Text(String),
    Value(Bytes),
}

impl Text {
    /// Adds text.
    pub(super) fn push(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        match self.pieces.back_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.pieces.push_back(Piece::Text(text.to_owned())),
        }
    }

    /// Adds a value, as base64.
    pub(super) fn push_value(&mut self, value: &Bytes) {
        if value.len() <= SHORT_BYTES {
            return self.push(&STANDARD.encode(value));
        }
        self.bytes += 4 * (value.len() as u64).div_ceil(3);
        self.values += value.len();
        self.pieces.push_back(Piece::Value(value.clone()));
    }

    /// How many bytes it holds while it is sent.
    pub(super) fn held(&self) -> usize {
        let text = |piece: &Piece| if let Piece::Text(text) = piece { text.len() } else { 0 };
        self.values + self.pieces.iter().map(text).sum::<usize>()
    }

    /// The body of a response, with its share of the memory.
    pub(super) fn body(self, held: MemoryShare) -> SiblingsBody {
        SiblingsBody { text: self, _held: held }
    }
}

/// A body that is one value, sent piece by piece.
pub(super) struct ValueBody(pub(super) Bytes);

impl HttpBody for ValueBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = PIECE_BYTES.min(self.0.len());
        Poll::Ready((piece > 0).then(|| Ok(Frame::data(self.0.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// A body that is encoded as it is sent.
pub(super) struct SiblingsBody {
    text: Text,
    _held: MemoryShare,
}

impl HttpBody for SiblingsBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = match self.text.pieces.pop_front() {
            None => return Poll::Ready(None),
            Some(Piece::Text(text)) => Bytes::from(text),
            Some(Piece::Value(mut value)) => {
                let chunk = value.split_to(CHUNK_BYTES.min(value.len()));
                if !value.is_empty() {
                    self.text.pieces.push_front(Piece::Value(value));
                }
                STANDARD.encode(chunk).into()
            }
        };
        self.text.bytes -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.bytes)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::memory::MemoryPool;

    #[tokio::test]
    async fn a_value_is_sent_in_pieces() {
        for length in [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 1] {
            let value = Bytes::from((0..length).map(|at| at as u8).collect::<Vec<_>>());
            let mut body = ValueBody(value.clone());
            let mut sent = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                let piece = frame.into_data().unwrap();
                assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
                sent.extend_from_slice(&piece);
                assert_eq!(body.size_hint().exact(), Some((length - sent.len()) as u64));
            }
            assert!(sent == value);
        }
    }

    #[tokio::test]
    async fn a_body_sent_in_parts_equals_one_sent_at_once() {
        let memory = MemoryPool::new(Gauge::default());
        for length in [0, 1, SHORT_BYTES, SHORT_BYTES + 1, CHUNK_BYTES, CHUNK_BYTES + 2, 3 * CHUNK_BYTES + 1] {
            let value = Bytes::from((0..length).map(|at| at as u8).collect::<Vec<_>>());
            let mut text = Text::default();
            text.push("{\"a\":\"");
            text.push_value(&value);
            text.push("\",");
            text.push("\"b\":1}");
            let held = memory.take(text.held()).unwrap();
            let body = text.body(held);
            let exact = body.size_hint().exact().unwrap();
            let sent = body.collect().await.unwrap().to_bytes();
            assert_eq!(sent, format!("{{\"a\":\"{}\",\"b\":1}}", STANDARD.encode(&value)));
            assert_eq!(exact, sent.len() as u64);
        }
    }
}
