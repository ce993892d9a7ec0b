//! Reads from connections that are mostly idle.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

/// Reads up to `BYTES` bytes. They are copied from the stack, so that an idle connection needs no buffer.
pub(crate) fn poll_some<const BYTES: usize, S: AsyncRead>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    to: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut bytes = [MaybeUninit::uninit(); BYTES];
    let mut read = ReadBuf::uninit(&mut bytes);
    ready!(stream.poll_read(cx, &mut read))?;
    to.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}
