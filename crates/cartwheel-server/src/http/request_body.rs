//! The body of a request while it arrives: its connection reads as much of it as the call asks for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// A body that arrives piece by piece.
struct Arriving {
    demand: mpsc::UnboundedSender<()>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// A piece was asked for, and has not come.
    is_asked: bool,
    /// What is left, if the length is known.
    left: Option<u64>,
    is_over: bool,
}

/// The connection's side of such a body.
#[derive(Debug)]
pub(super) struct Source {
    demand: mpsc::UnboundedReceiver<()>,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

/// A body of the given length, if that is known, and what its pieces come from.
pub(super) fn arriving(length: Option<u64>) -> (Body, Source) {
    let (ask, demand) = mpsc::unbounded_channel();
    let (sender, pieces) = mpsc::channel(1);
    let body = Arriving { demand: ask, pieces, is_asked: false, left: length, is_over: false };
    (Body::new(body), Source { demand, pieces: sender })
}

impl Source {
    /// Waits until the call asks for a piece. Returns false if it will not ask any more.
    pub(super) async fn is_asked(&mut self) -> bool {
        self.demand.recv().await.is_some()
    }

    /// Passes on a piece, or the reason why there are no more.
    pub(super) fn send(&self, piece: io::Result<Bytes>) {
        // One piece is asked for at a time; the call may have ended meanwhile.
        let _ = self.pieces.try_send(piece);
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.is_asked, true) {
            // Nobody listens once the whole body was sent.
            let _ = self.demand.send(());
        }
        let piece = ready!(self.pieces.poll_recv(cx));
        self.is_asked = false;
        match &piece {
            Some(Ok(piece)) => self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64)),
            Some(Err(_)) | None => self.is_over = true,
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn pieces_come_when_they_are_asked_for() {
        let (mut body, mut source) = arriving(Some(3));
        tokio::select! {
            biased;
            _ = source.is_asked() => panic!("nothing was asked for"),
            () = std::future::ready(()) => {}
        }
        for (piece, left) in [(&b"ab"[..], 1), (b"c", 0)] {
            let send = async {
                assert!(source.is_asked().await);
                source.send(Ok(Bytes::from_static(piece)));
            };
            let (frame, ()) = tokio::join!(body.frame(), send);
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), piece);
            assert_eq!(body.size_hint().exact(), Some(left));
        }
        assert!(body.is_end_stream());
        drop(source);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn an_error_ends_a_body_and_a_dropped_body_asks_for_nothing() {
        let (mut body, mut source) = arriving(None);
        let send = async {
            assert!(source.is_asked().await);
            source.send(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        let (frame, ()) = tokio::join!(body.frame(), send);
        assert!(frame.unwrap().is_err() && body.frame().await.is_none());
        drop(body);
        assert!(!source.is_asked().await);
    }
}
