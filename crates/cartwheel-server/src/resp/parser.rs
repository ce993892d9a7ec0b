//! The requests of Redis clients: arrays of bulk strings, and inline commands.
//!
//! A request may arrive in pieces; parsing goes on where it stopped. Its bytes are not copied: a [`Command`] is the part of the read buffer
//! that holds it. RequestLimits and the texts of errors are those of Redis, so that its clients understand them.

use bytes::{Buf as _, Bytes, BytesMut};
use smallvec::SmallVec;

/// The longest inline command, and the longest line that announces a length, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The most arguments of a command.
const ARGUMENTS_MAX: i64 = 1 << 20;
/// The longest argument that a client may announce, in bytes. Most of such an argument is discarded: see [`RequestLimits`].
const ANNOUNCED_BYTES_MAX: i64 = 512 << 20;
/// The most and the longest arguments of a client that has yet to say which user it is: Redis's limits.
const UNKNOWN_ARGUMENTS_MAX: i64 = 10;
const UNKNOWN_ARGUMENT_BYTES_MAX: usize = 16 << 10;
/// Arguments from this length on share the read buffer; shorter ones are copied, because they would keep all of it.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// The length of a line's end. As in Redis, its bytes are not looked at where a length says where it is.
const END: usize = 2;

/// How much of a request is kept. A larger one is read to its end and refused, and the connection goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLimits {
    /// The longest argument, in bytes.
    pub(super) argument_bytes: usize,
    /// The longest request, in bytes.
    pub(super) request_bytes: usize,
}

/// Where arguments are in a request. Few need no memory of their own.
type Arguments = SmallVec<[(u32, u32); 4]>;

/// A request: the bytes in which it came, and where its arguments are in them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Command {
    bytes: Bytes,
    arguments: Arguments,
}

impl Command {
    /// The number of arguments, the command's name included; at least 1.
    pub(super) fn len(&self) -> usize {
        self.arguments.len()
    }

    /// The argument at `index`; nothing if there are fewer.
    pub(super) fn get(&self, index: usize) -> &[u8] {
        self.arguments.get(index).map_or(&[], |&(start, end)| &self.bytes[start as usize..end as usize])
    }

    /// The argument at `index`, which keeps the bytes of the whole request in memory.
    pub(super) fn shared(&self, index: usize) -> Bytes {
        self.bytes.slice_ref(self.get(index))
    }

    /// The argument at `index`, to be kept.
    pub(super) fn bytes(&self, index: usize) -> Bytes {
        let argument = self.get(index);
        if argument.len() < SHARED_BYTES_MIN { Bytes::copy_from_slice(argument) } else { self.shared(index) }
    }

    /// All arguments from `first` on.
    pub(super) fn from(&self, first: usize) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator + Clone {
        (first..self.len()).map(|index| self.get(index))
    }

    /// Its size in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Parsed {
    /// A request.
    Command(Command),
    /// A request that was too large, and was read to its end: what to tell the client.
    TooLarge(String),
}

/// The bytes are not a request, and nothing after them can be one. The text is Redis's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NoRequest(pub(super) String);

/// Reads requests from a buffer.
#[derive(Debug)]
pub(super) struct Parser {
    limits: RequestLimits,
    /// How much of the buffer is parsed.
    parsed: usize,
    /// How much of the line after that has been searched for its end.
    searched: usize,
    state: State,
    arguments: Arguments,
    /// Why the present request is only read to its end.
    refused: Option<String>,
    /// The client has not said which user it is, though it has to.
    is_unknown: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Between requests.
    Begin,
    /// So many arguments are still to come.
    Length { more: u32 },
    /// So many bytes, the end of the line included, are still to come of an argument; after it, so many arguments.
    Argument { bytes: usize, more: u32 },
}

impl Parser {
    pub(super) fn new(limits: RequestLimits) -> Self {
        Self {
            limits,
            parsed: 0,
            searched: 0,
            state: State::Begin,
            arguments: Arguments::new(),
            refused: None,
            is_unknown: false,
        }
    }

    /// Whether part of a request has arrived.
    pub(super) fn is_within(&self, buffer: &BytesMut) -> bool {
        self.state != State::Begin || !buffer.is_empty()
    }

    /// How many more bytes the present argument needs; 0 if that is not known.
    pub(super) fn wanted(&self, buffer: &BytesMut) -> usize {
        match self.state {
            State::Argument { bytes, .. } if self.refused.is_none() => {
                (self.parsed + bytes).saturating_sub(buffer.len())
            }
            _ => 0,
        }
    }

    /// Whether the client has yet to say which user it is. Then it needs no more than a short request.
    pub(super) fn set_unknown(&mut self, is_unknown: bool) {
        self.is_unknown = is_unknown;
    }

    /// Refuses the present request, if there is one: its rest is discarded.
    pub(super) fn refuse(&mut self, why: &str) {
        self.refused.get_or_insert_with(|| why.to_owned());
    }

    /// Takes the next request from the front of `buffer`; none if it has not arrived.
    ///
    /// # Errors
    /// If the bytes are not a request.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Parsed>, NoRequest> {
        loop {
            if self.refused.is_some() {
                buffer.advance(std::mem::take(&mut self.parsed));
                self.arguments = Arguments::new();
            }
            let goes_on = match self.state {
                State::Begin => match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => self.begin(buffer)?,
                    Some(_) => match self.inline(buffer)? {
                        Inline::Incomplete => false,
                        Inline::Empty => true,
                        Inline::Command(command) => return Ok(Some(Parsed::Command(command))),
                    },
                },
                State::Length { more: 0 } => return Ok(Some(self.end(buffer))),
                State::Length { more } => self.length(buffer, more)?,
                State::Argument { bytes, more } => self.argument(buffer, bytes, more),
            };
            if !goes_on {
                return Ok(None);
            }
        }
    }

    /// Reads how many arguments there are.
    fn begin(&mut self, buffer: &mut BytesMut) -> Result<bool, NoRequest> {
        let Some(end) = self.line(buffer, "too big mbulk count string")? else { return Ok(false) };
        let count = integer(&buffer[1..end]).filter(|&count| count <= ARGUMENTS_MAX);
        let count = count.ok_or_else(|| protocol_error("invalid multibulk length"))?;
        if self.is_unknown && count > UNKNOWN_ARGUMENTS_MAX {
            return Err(protocol_error("unauthenticated multibulk length"));
        }
        match u32::try_from(count) {
            Ok(more @ 1..) => {
                self.parsed = end + END;
                self.state = State::Length { more };
            }
            // No request.
            _ => buffer.advance((end + END).min(buffer.len())),
        }
        Ok(true)
    }

    /// Reads an argument's length.
    fn length(&mut self, buffer: &BytesMut, more: u32) -> Result<bool, NoRequest> {
        let Some(end) = self.line(buffer, "too big bulk count string")? else { return Ok(false) };
        let line = &buffer[self.parsed..end];
        match line.first() {
            Some(b'$') => {}
            other => {
                let got = char::from(other.copied().unwrap_or(b'\r'));
                return Err(protocol_error(&format!("expected '$', got '{got}'")));
            }
        }
        let bytes = integer(&line[1..]).filter(|length| (0..=ANNOUNCED_BYTES_MAX).contains(length));
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| protocol_error("invalid bulk length"))?;
        if self.is_unknown && bytes > UNKNOWN_ARGUMENT_BYTES_MAX {
            return Err(protocol_error("unauthenticated bulk length"));
        }
        self.parsed = end + END;
        let RequestLimits { argument_bytes, request_bytes } = self.limits;
        if bytes > argument_bytes {
            self.refuse(&format!("an argument has {bytes} bytes, and {argument_bytes} is the most: send less"));
        } else if self.parsed + bytes > request_bytes {
            self.refuse(&format!("the command has more than {request_bytes} bytes: send it in parts"));
        }
        self.state = State::Argument { bytes: bytes + END, more: more - 1 };
        Ok(true)
    }

    fn argument(&mut self, buffer: &mut BytesMut, bytes: usize, more: u32) -> bool {
        if self.refused.is_some() {
            // Nothing of it is kept, so it begins the buffer.
            let discarded = bytes.min(buffer.len());
            buffer.advance(discarded);
            self.state = match bytes - discarded {
                0 => State::Length { more },
                bytes => State::Argument { bytes, more },
            };
            return discarded == bytes;
        }
        let end = self.parsed + bytes;
        if buffer.len() < end {
            return false;
        }
        // The limit of a request's bytes is far below 4 GiB.
        self.arguments.push((self.parsed as u32, (end - END) as u32));
        self.parsed = end;
        self.state = State::Length { more };
        true
    }

    fn end(&mut self, buffer: &mut BytesMut) -> Parsed {
        self.state = State::Begin;
        let bytes = buffer.split_to(std::mem::take(&mut self.parsed));
        let arguments = std::mem::take(&mut self.arguments);
        match self.refused.take() {
            Some(why) => Parsed::TooLarge(why),
            None => Parsed::Command(Command { bytes: bytes.freeze(), arguments }),
        }
    }

    /// Where the line that begins at `parsed` ends; none if its end has not arrived.
    fn line(&mut self, buffer: &BytesMut, too_long: &str) -> Result<Option<usize>, NoRequest> {
        let from = self.parsed + self.searched;
        let end = buffer[from..].iter().position(|&byte| byte == b'\r').map(|at| from + at);
        match end {
            // The byte after it belongs to the end.
            Some(end) if end + 1 < buffer.len() => {
                self.searched = 0;
                Ok(Some(end))
            }
            Some(end) => {
                self.searched = end - self.parsed;
                Ok(None)
            }
            None if buffer.len() - self.parsed > LINE_BYTES_MAX => Err(protocol_error(too_long)),
            None => {
                self.searched = buffer.len() - self.parsed;
                Ok(None)
            }
        }
    }

    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Inline, NoRequest> {
        let Some(end) = buffer[self.searched..].iter().position(|&byte| byte == b'\n') else {
            self.searched = buffer.len();
            let is_too_long = buffer.len() > LINE_BYTES_MAX;
            return if is_too_long { Err(protocol_error("too big inline request")) } else { Ok(Inline::Incomplete) };
        };
        let line = buffer.split_to(std::mem::take(&mut self.searched) + end + 1);
        let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..line.len() - 1]);
        let command = words(line).ok_or_else(|| protocol_error("unbalanced quotes in request"))?;
        Ok(if command.arguments.is_empty() { Inline::Empty } else { Inline::Command(command) })
    }
}

enum Inline {
    Incomplete,
    Empty,
    Command(Command),
}

fn protocol_error(what: &str) -> NoRequest {
    NoRequest(format!("ERR Protocol error: {what}"))
}

/// A number as Redis writes it: digits, after a sign if it is negative, without zeros before them.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.len() < 19 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if is_plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// The words of an inline command, with quotes as in a shell; none if a quote is not closed.
fn words(line: &[u8]) -> Option<Command> {
    let (mut bytes, mut arguments) = (BytesMut::with_capacity(line.len()), Arguments::new());
    let mut rest = line;
    loop {
        let start = rest.iter().position(|byte| !byte.is_ascii_whitespace());
        let Some(start) = start else { return Some(Command { bytes: bytes.freeze(), arguments }) };
        rest = &rest[start..];
        let from = bytes.len();
        rest = word(rest, &mut bytes)?;
        arguments.push((from as u32, bytes.len() as u32));
    }
}

/// Appends the word at the start of `text` to `to`, and returns what follows it; none if a quote is not closed.
fn word<'a>(mut text: &'a [u8], to: &mut BytesMut) -> Option<&'a [u8]> {
    let ends = |rest: &[u8]| rest.first().is_none_or(u8::is_ascii_whitespace);
    loop {
        match *text {
            [b'"', ref rest @ ..] => {
                text = quoted(rest, to)?;
                // Nothing may follow a closing quote directly.
                return ends(text).then_some(text);
            }
            [b'\'', ref rest @ ..] => {
                text = single_quoted(rest, to)?;
                return ends(text).then_some(text);
            }
            [byte, ref rest @ ..] if !byte.is_ascii_whitespace() => {
                to.extend_from_slice(&[byte]);
                text = rest;
            }
            _ => return Some(text),
        }
    }
}

fn quoted<'a>(mut text: &'a [u8], to: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        let (byte, rest) = match *text {
            [b'"', ref rest @ ..] => return Some(rest),
            [b'\\', b'x', high, low, ref rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
                (16 * digit(high) + digit(low), rest)
            }
            [b'\\', escaped, ref rest @ ..] => {
                let byte = match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                };
                (byte, rest)
            }
            [byte, ref rest @ ..] => (byte, rest),
            [] => return None,
        };
        to.extend_from_slice(&[byte]);
        text = rest;
    }
}

fn single_quoted<'a>(mut text: &'a [u8], to: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        let (byte, rest) = match *text {
            [b'\'', ref rest @ ..] => return Some(rest),
            [b'\\', b'\'', ref rest @ ..] => (b'\'', rest),
            [byte, ref rest @ ..] => (byte, rest),
            [] => return None,
        };
        to.extend_from_slice(&[byte]);
        text = rest;
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
