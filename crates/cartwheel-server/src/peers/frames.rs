//! Decodes frames: a length of four bytes, and that many bytes.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// How much room is made for a frame at once.
const ROOM_BYTES: usize = 64 << 10;

/// Splits incoming bytes into frames.
///
/// Room grows with the bytes that arrive, not with the announced length, as in a codec for trusted senders: four bytes must not cost
/// 256 MiB.
#[derive(Debug)]
pub(super) struct Frames {
    bytes_max: usize,
}

impl Frames {
    /// Frames of at most `bytes_max` bytes each.
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max }
    }
}

impl Decoder for Frames {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, arrived: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let Some(head) = arrived.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > self.bytes_max {
            let why = format!("a frame has {length} bytes, more than {}", self.bytes_max);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let whole = head.len() + length;
        if arrived.len() < whole {
            arrived.reserve((whole - arrived.len()).min(ROOM_BYTES));
            return Ok(None);
        }
        arrived.advance(4);
        Ok(Some(arrived.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In any fragmentation.
        #[test]
        fn frames_arrive_as_they_were_sent(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
            piece in 1usize..60,
        ) {
            let bytes: Vec<u8> =
                sent.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes(), &frame[..]].concat()).collect();
            let (mut frames, mut arrived, mut received) = (Frames::new(49), BytesMut::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                arrived.extend_from_slice(piece);
                while let Some(frame) = frames.decode(&mut arrived).unwrap() {
                    received.push(frame.to_vec());
                }
            }
            prop_assert_eq!(received, sent);
            prop_assert!(arrived.is_empty());
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut frames = Frames::new(256 << 20);
        let mut arrived = BytesMut::from(&(256u32 << 20).to_be_bytes()[..]);
        assert_eq!(frames.decode(&mut arrived).unwrap(), None);
        assert!(arrived.capacity() < 2 * ROOM_BYTES, "{} bytes", arrived.capacity());
        let mut arrived = BytesMut::from(&((256u32 << 20) + 1).to_be_bytes()[..]);
        let error = frames.decode(&mut arrived).unwrap_err();
        assert!(error.to_string().contains("268435457"), "{error}");
    }
}
