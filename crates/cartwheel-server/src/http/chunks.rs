//! Finds the end of a chunked body (RFC 9112, section 7.1).

/// How far a chunked body has been read. It is exact for what the HTTP library accepts; anything else makes the library close the
/// connection, so its end does not matter.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Chunks {
    at: At,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// In the digits of a chunk's size, which amount to this so far.
    Size(u64),
    /// After the digits, on the same line.
    SizeEnd(u64),
    /// In the data, with this many bytes left.
    Data(u64),
    /// Before the end of the line after the data.
    DataEnd,
    /// In the trailers, on a line that is or is not empty so far.
    Trailers { is_empty: bool },
    /// After the body.
    Over,
}

impl Default for At {
    fn default() -> Self {
        Self::Size(0)
    }
}

impl Chunks {
    /// How many of `bytes`, which come next, belong to the body.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_over() {
            taken += self.step(&bytes[taken..]);
        }
        taken
    }

    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Consumes at least one byte of `bytes`, which is not empty, and returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        self.at = match self.at {
            At::Data(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - taken as u64;
                self.at = if left == 0 { At::DataEnd } else { At::Data(left) };
                return taken;
            }
            At::Size(size) => match char::from(byte).to_digit(16) {
                Some(digit) => At::Size(size.saturating_mul(16).saturating_add(digit.into())),
                None => Self::behind_size(size, byte),
            },
            At::SizeEnd(size) => Self::behind_size(size, byte),
            At::DataEnd if byte == b'\n' => At::Size(0),
            At::DataEnd => At::DataEnd,
            At::Trailers { is_empty: true } if byte == b'\n' => At::Over,
            At::Trailers { is_empty } => At::Trailers { is_empty: byte == b'\n' || (is_empty && byte == b'\r') },
            At::Over => At::Over,
        };
        1
    }

    fn behind_size(size: u64, byte: u8) -> At {
        match (byte, size) {
            (b'\n', 0) => At::Trailers { is_empty: true },
            (b'\n', size) => At::Data(size),
            _ => At::SizeEnd(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_body_is_found_in_any_fragmentation() {
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "00A ;x=\"y\"\r\n0123456789\r\n1\r\n\n\r\n0\r\nTrailer: 0\r\nOther: x\r\n\r\n",
        ] {
            let sent = format!("{body}GET / HTTP/1.1\r\n");
            for cut in 0..sent.len() {
                let (mut chunks, (first, second)) = (Chunks::default(), sent.as_bytes().split_at(cut));
                let taken = chunks.take(first);
                let taken = taken + if taken == cut { chunks.take(second) } else { 0 };
                assert_eq!((taken, chunks.is_over()), (body.len(), true), "{body:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn malformed_chunks_do_not_panic() {
        for bytes in ["ffffffffffffffffffffffff\r\nx", "zz\r\n\r\n\r\n", "", "\r\n\r\n\r\n0\r\n", "-1\r\n"] {
            let mut chunks = Chunks::default();
            assert!(chunks.take(bytes.as_bytes()) <= bytes.len());
        }
    }
}
