//! Decodes chunked bodies (RFC 9112, section 7.1), strictly: what proxies might read differently is an error.

use bytes::{Buf as _, Bytes, BytesMut};

/// How many bytes of extensions and trailers a body may have in all. Their contents are ignored.
const IGNORED_BYTES_MAX: usize = 16 << 10;

/// How far a chunked body has been decoded.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct Chunks {
    at: At,
    ignored_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum At {
    /// Before the first digit of a chunk's size.
    #[default]
    Start,
    /// Among the digits, which amount to this so far.
    Size(u64),
    /// In the white space after them.
    SizeEnd(u64),
    /// In an extension.
    Extension(u64),
    /// Before the line feed after a size.
    SizeLineFeed(u64),
    /// In the data, with this many bytes left.
    Data(u64),
    /// Before the end of the line after the data.
    DataEnd,
    DataLineFeed,
    /// At the beginning of a line after the last chunk.
    Trailer,
    /// Inside such a line.
    InTrailer,
    TrailerLineFeed,
    /// Before the last line feed.
    LastLineFeed,
    /// After the body.
    Over,
}

/// A body that is not chunked as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the chunked body is malformed: see RFC 9112, section 7.1")]
pub(super) struct Malformed;

impl Chunks {
    /// Decodes what comes next in `arrived`, and removes it from there. Returns a piece of the body; none if more must arrive, or if the body is over.
    pub(super) fn decode(&mut self, arrived: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        while let Some(&byte) = arrived.first() {
            match self.at {
                At::Over => break,
                At::Data(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(arrived.len());
                    let left = left - taken as u64;
                    self.at = if left == 0 { At::DataEnd } else { At::Data(left) };
                    return Ok(Some(arrived.split_to(taken).freeze()));
                }
                at => self.at = self.after(at, byte)?,
            }
            arrived.advance(1);
        }
        Ok(None)
    }

    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// The state after `byte`, outside of data.
    fn after(&mut self, at: At, byte: u8) -> Result<At, Malformed> {
        Ok(match (at, byte) {
            (At::Start, _) => At::Size(digit(byte).ok_or(Malformed)?),
            (At::Size(size) | At::SizeEnd(size) | At::Extension(size), b'\r') => At::SizeLineFeed(size),
            (At::Size(size) | At::SizeEnd(size), b' ' | b'\t') => {
                self.ignore()?;
                At::SizeEnd(size)
            }
            (At::Size(size) | At::SizeEnd(size), b';') => At::Extension(size),
            (At::Size(size), _) => {
                let more = digit(byte).ok_or(Malformed)?;
                At::Size(size.checked_mul(16).and_then(|size| size.checked_add(more)).ok_or(Malformed)?)
            }
            (At::Extension(size), byte) if byte != b'\n' => {
                self.ignore()?;
                At::Extension(size)
            }
            (At::SizeLineFeed(0), b'\n') => At::Trailer,
            (At::SizeLineFeed(size), b'\n') => At::Data(size),
            (At::DataEnd, b'\r') => At::DataLineFeed,
            (At::DataLineFeed, b'\n') => At::Start,
            (At::Trailer, b'\r') => At::LastLineFeed,
            (At::InTrailer, b'\r') => At::TrailerLineFeed,
            (At::Trailer | At::InTrailer, byte) if byte != b'\n' => {
                self.ignore()?;
                At::InTrailer
            }
            (At::TrailerLineFeed, b'\n') => At::Trailer,
            (At::LastLineFeed, b'\n') => At::Over,
            _ => return Err(Malformed),
        })
    }

    fn ignore(&mut self) -> Result<(), Malformed> {
        self.ignored_bytes += 1;
        if self.ignored_bytes > IGNORED_BYTES_MAX { Err(Malformed) } else { Ok(()) }
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoded body, and what is left; none if it is malformed or not over.
    fn decoded(parts: &[&[u8]]) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut chunks, mut arrived, mut body) = (Chunks::default(), BytesMut::new(), Vec::new());
        for part in parts {
            arrived.extend_from_slice(part);
            while let Some(piece) = chunks.decode(&mut arrived).ok()? {
                assert!(!piece.is_empty());
                body.extend_from_slice(&piece);
            }
        }
        chunks.is_over().then(|| (body, arrived.to_vec()))
    }

    #[test]
    fn a_body_is_decoded_in_any_fragmentation() {
        for (body, data) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("00A ;x=\"y\"\r\n0123456789\r\n1\r\n\n\r\n0\r\nTrailer: 0\r\nOther: x\r\n\r\n", "0123456789\n"),
        ] {
            let sent = format!("{body}GET / HTTP/1.1\r\n");
            for cut in 0..sent.len() {
                let (first, second) = sent.as_bytes().split_at(cut);
                let expected = (data.as_bytes().to_vec(), b"GET / HTTP/1.1\r\n".to_vec());
                assert_eq!(decoded(&[first, second]), Some(expected), "{body:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(IGNORED_BYTES_MAX + 1));
        for bytes in [
            "zz\r\n\r\n\r\n",
            "-1\r\n",
            "\r\n0\r\n\r\n",
            "ffffffffffffffffffff\r\nx",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1 1\r\na\r\n0\r\n\r\n",
            "1;\n\r\na\r\n0\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\rx",
            &long,
        ] {
            let mut chunks = Chunks::default();
            let mut arrived = BytesMut::from(bytes.as_bytes());
            let decoded = std::iter::from_fn(|| chunks.decode(&mut arrived).transpose()).take(100);
            assert!(decoded.into_iter().any(|piece| piece.is_err()), "{bytes:?}");
        }
    }
}
