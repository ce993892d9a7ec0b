//! The Redis protocol (RESP2), as much of it as the benches need.

use super::job::{CODE_CHARS_MAX, OperationError};
use super::wire::{Malformed, Parsed};

/// The maximum length of a reply's first line. Without it, a peer that sends no end would be buffered without a limit.
const LINE_BYTES_MAX: usize = 65_536;

/// A reply. No command that is sent has an array as its reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reply<'a> {
    Status(&'a str),
    Error(&'a str),
    Integer(i64),
    Bulk(&'a [u8]),
    Nil,
}

/// Appends a command.
pub(super) fn command(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

/// Parses the first reply in `bytes`.
///
/// # Errors
/// If the bytes are not a reply, or the reply is an array.
pub(super) fn reply(bytes: &[u8]) -> Parsed<Reply<'_>> {
    let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else {
        return if bytes.len() > LINE_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed)?;
    let (kind, rest) = line.split_at_checked(1).ok_or(Malformed)?;
    let length = end + 2;
    let number = || rest.parse::<i64>().map_err(|_| Malformed);
    let reply = match kind {
        "+" => Reply::Status(rest),
        "-" => Reply::Error(rest),
        ":" => Reply::Integer(number()?),
        "$" if number()? == -1 => Reply::Nil,
        "$" => {
            let bulk = usize::try_from(number()?).map_err(|_| Malformed)?;
            let total = length.checked_add(bulk).and_then(|sum| sum.checked_add(2)).ok_or(Malformed)?;
            return Ok(bytes.get(length..total).map(|found| (Reply::Bulk(&found[..bulk]), total)));
        }
        _ => return Err(Malformed),
    };
    Ok(Some((reply, length)))
}

/// The failure of an operation whose reply this is: the first word of an error, such as `MOVED`.
///
/// # Errors
/// If the reply is no error.
pub(super) fn error(reply: Reply<'_>) -> Result<OperationError, Malformed> {
    match reply {
        Reply::Error(text) => {
            let word = text.split(' ').next().unwrap_or_default();
            Ok(OperationError(word.chars().take(CODE_CHARS_MAX).collect()))
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut request = Vec::new();
        command(&mut request, &[b"SET", b"k", b"\r\n"]);
        command(&mut request, &[b"PING"]);
        assert_eq!(request, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n*1\r\n$4\r\nPING\r\n");
    }

    #[test]
    fn replies_are_parsed_once_they_are_complete() {
        for (whole, parsed) in [
            (&b"+OK\r\n"[..], Reply::Status("OK")),
            (b"-MOVED 1 x:1\r\n", Reply::Error("MOVED 1 x:1")),
            (b":-12\r\n", Reply::Integer(-12)),
            (b"$4\r\na\r\nb\r\n", Reply::Bulk(b"a\r\nb")),
            (b"$0\r\n\r\n", Reply::Bulk(b"")),
            (b"$-1\r\n", Reply::Nil),
        ] {
            for length in 0..whole.len() {
                assert_eq!(reply(&whole[..length]), Ok(None), "{whole:?} {length}");
            }
            assert_eq!(reply(&[whole, b"+next"].concat()), Ok(Some((parsed, whole.len()))));
        }
    }

    #[test]
    fn other_bytes_are_malformed() {
        let long = "x".repeat(70_000);
        for bad in ["HTTP/1.1\r\n", "\r\n", "$-2\r\n", "$x\r\n", ":\r\n", "*1\r\n", "é\r\n", &long] {
            assert_eq!(reply(bad.as_bytes()), Err(Malformed), "{bad:.40}");
        }
        assert_eq!(reply(format!("${}\r\n", i64::MAX).as_bytes()), Ok(None));
    }
}
