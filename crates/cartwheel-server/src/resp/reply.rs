//! Replies, and how they are written in the two versions of the protocol.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::memory::MemoryShare;

/// Strings up to this length are copied beside what is written before them; longer ones are written from where they are.
const COPIED_BYTES: usize = 16 << 10;

/// The version of the protocol of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Version {
    /// RESP2, in which every connection begins.
    #[default]
    Two,
    /// RESP3, which a client asks for with `HELLO 3`.
    Three,
}

/// A reply to a command.
#[derive(Debug)]
pub(super) enum Reply {
    /// A line of text that is not data.
    Status(&'static str),
    /// An error: a code in capitals, and what happened.
    Error(Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// Text for people.
    Verbatim(String),
    /// No value.
    Null,
    /// A list.
    Array(Vec<Reply>),
    /// A list whose order does not matter. RESP2 has lists only.
    Set(Vec<Reply>),
    /// Names with values. In RESP2 a list of both in turn.
    Map(Vec<(Reply, Reply)>),
    /// A reply with its share of the memory for replies.
    Held(Box<Reply>, MemoryShare),
}

impl Reply {
    /// The usual reply of a command that has nothing to say.
    pub(super) const OK: Self = Self::Status("OK");

    /// An error.
    pub(super) fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// A string.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Bulk(Bytes::from(text.into()))
    }

    /// A list of strings.
    pub(super) fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Array(texts.into_iter().map(Self::text).collect())
    }

    /// 1 for yes, 0 for no.
    pub(super) const fn yes_or_no(yes: bool) -> Self {
        Self::Integer(yes as i64)
    }
}

/// What is to be written to a client.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Before `end`.
    pieces: VecDeque<Bytes>,
    end: BytesMut,
    shares: Vec<MemoryShare>,
}

impl Output {
    /// Adds a reply.
    pub(super) fn push(&mut self, reply: Reply, version: Version) {
        match reply {
            Reply::Status(text) => self.line(b'+', text),
            Reply::Error(text) => {
                // A line's end in what the error quotes would end the error.
                let text = if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], " ").into() } else { text };
                self.line(b'-', &text);
            }
            Reply::Integer(number) => self.number(b':', number),
            Reply::Bulk(bytes) => self.bulk(bytes),
            Reply::Verbatim(text) if version == Version::Two => self.bulk(text.into()),
            Reply::Verbatim(text) => {
                self.number(b'=', text.len() as i64 + 4);
                self.end.put_slice(b"txt:");
                self.end.put_slice(text.as_bytes());
                self.end.put_slice(b"\r\n");
            }
            Reply::Null => self.end.put_slice(match version {
                Version::Two => b"$-1\r\n",
                Version::Three => b"_\r\n",
            }),
            Reply::Array(replies) => self.list(b'*', replies, version),
            Reply::Set(replies) => self.list(if version == Version::Two { b'*' } else { b'~' }, replies, version),
            Reply::Map(entries) => {
                match version {
                    Version::Two => self.number(b'*', 2 * entries.len() as i64),
                    Version::Three => self.number(b'%', entries.len() as i64),
                }
                for (name, value) in entries {
                    self.push(name, version);
                    self.push(value, version);
                }
            }
            Reply::Held(reply, share) => {
                self.push(*reply, version);
                self.shares.push(share);
            }
        }
    }

    fn list(&mut self, kind: u8, replies: Vec<Reply>, version: Version) {
        self.number(kind, replies.len() as i64);
        replies.into_iter().for_each(|reply| self.push(reply, version));
    }

    fn bulk(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED_BYTES {
            return self.copy(&bytes);
        }
        self.number(b'$', bytes.len() as i64);
        self.pieces.extend([self.end.split().freeze(), bytes]);
        self.end.put_slice(b"\r\n");
    }

    /// Writes a string by copying it.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        self.number(b'$', bytes.len() as i64);
        self.end.put_slice(bytes);
        self.end.put_slice(b"\r\n");
    }

    fn line(&mut self, kind: u8, text: &str) {
        self.end.put_u8(kind);
        self.end.put_slice(text.as_bytes());
        self.end.put_slice(b"\r\n");
    }

    fn number(&mut self, kind: u8, number: i64) {
        let mut digits = [0; 20];
        let (mut at, mut rest) = (digits.len(), number.unsigned_abs());
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.end.put_u8(kind);
        if number < 0 {
            self.end.put_u8(b'-');
        }
        self.end.put_slice(&digits[at..]);
        self.end.put_slice(b"\r\n");
    }

    /// What is to be written next; none if everything is.
    pub(super) fn front(&self) -> Option<&[u8]> {
        match self.pieces.front() {
            Some(piece) => Some(piece),
            None => (!self.end.is_empty()).then_some(&self.end[..]),
        }
    }

    /// The first so many bytes of [`Self::front`] are written.
    pub(super) fn advance(&mut self, written: usize) {
        match self.pieces.front_mut() {
            Some(piece) if written < piece.len() => drop(piece.split_to(written)),
            Some(_) => drop(self.pieces.pop_front()),
            None => self.end.advance(written),
        }
        if self.front().is_none() {
            self.shares.clear();
            self.end.clear();
        }
    }

    /// Its size in bytes, without long strings.
    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|piece| piece.to_vec()).chain(self.end.to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: Reply, version: Version) -> String {
        let mut output = Output::default();
        output.push(reply, version);
        String::from_utf8(output.to_vec()).unwrap()
    }

    #[test]
    fn replies_have_a_form_in_each_version() {
        let pair = || (Reply::text("a"), Reply::Integer(-1));
        let reply = || {
            Reply::Array(vec![
                Reply::OK,
                Reply::error("ERR a\r\nb"),
                Reply::Integer(i64::MIN),
                Reply::Null,
                Reply::Map(vec![pair()]),
                Reply::Set(vec![Reply::Integer(0)]),
                Reply::Verbatim("x".to_owned()),
                Reply::texts([]),
            ])
        };
        let two = "*8\r\n+OK\r\n-ERR a  b\r\n:-9223372036854775808\r\n$-1\r\n*2\r\n$1\r\na\r\n:-1\r\n*1\r\n:0\r\n$1\r\nx\r\n*0\r\n";
        let three = "*8\r\n+OK\r\n-ERR a  b\r\n:-9223372036854775808\r\n_\r\n%1\r\n$1\r\na\r\n:-1\r\n~1\r\n:0\r\n=5\r\ntxt:x\r\n*0\r\n";
        assert_eq!(written(reply(), Version::Two), two);
        assert_eq!(written(reply(), Version::Three), three);
    }

    #[test]
    fn long_strings_are_written_from_where_they_are() {
        let (short, long) = (Bytes::from(vec![b's'; COPIED_BYTES]), Bytes::from(vec![b'l'; COPIED_BYTES + 1]));
        let mut output = Output::default();
        for bytes in [&short, &long, &short] {
            output.push(Reply::Bulk(bytes.clone()), Version::Two);
        }
        assert!(output.pieces.iter().any(|piece| piece.as_ptr() == long.as_ptr()));
        let expected =
            [&short, &long, &short].map(|bytes| [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat());
        assert!(output.to_vec() == expected.concat());
        let mut written = Vec::new();
        while let Some(front) = output.front() {
            let some = front.len().min(1_000);
            written.extend_from_slice(&front[..some]);
            output.advance(some);
        }
        assert!(written == expected.concat());
    }
}
