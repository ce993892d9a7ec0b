//! Cartwheel's HTTP, as much of it as the comparison needs.

use std::io::Write as _;

use cartwheel_client::kv_path;

use crate::commands::bench::wire::{Malformed, Parsed};

/// The end of a response's head.
const END: &[u8] = b"\r\n\r\n";
/// The maximum length of a response's head. Without it, a peer that sends no end would be buffered without a limit.
const HEAD_BYTES_MAX: usize = 65_536;

/// Encodes a get.
pub(super) fn get(request: &mut Vec<u8>, host: &str, bucket: &str, key: &str, query: &str) {
    head(request, "GET", host, bucket, key, query, "\r\n");
}

/// Encodes a put.
pub(super) fn put(request: &mut Vec<u8>, host: &str, bucket: &str, key: &str, query: &str, value: &[u8]) {
    head(request, "PUT", host, bucket, key, query, &format!("content-length: {}\r\n\r\n", value.len()));
    request.extend_from_slice(value);
}

fn head(request: &mut Vec<u8>, method: &str, host: &str, bucket: &str, key: &str, query: &str, rest: &str) {
    request.clear();
    let path = kv_path(bucket.as_bytes(), key.as_bytes());
    // Writing to a vector cannot fail.
    let _ = write!(request, "{method} {path}{query} HTTP/1.1\r\nhost: {host}\r\n{rest}");
}

/// Parses a response with a `Content-Length`: its status and its body.
///
/// # Errors
/// If the bytes are not such a response.
pub(super) fn response(bytes: &[u8]) -> Parsed<(u16, &[u8])> {
    let Some(end) = bytes.windows(END.len()).position(|window| window == END) else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|line| line.get(..3));
    let status: u16 = status.and_then(|status| status.parse().ok()).ok_or(Malformed)?;
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some((_, length)) => length.trim().parse().map_err(|_| Malformed)?,
        None if status == 204 => 0,
        None => return Err(Malformed),
    };
    let begin = end + END.len();
    let total = begin.checked_add(length).ok_or(Malformed)?;
    Ok(bytes.get(begin..total).map(|body| ((status, body), total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_the_key_and_carry_the_value() {
        let mut request = Vec::new();
        get(&mut request, "h:1", "b", "user 1", "?r=2");
        assert_eq!(request, b"GET /v1/kv/b/user%201?r=2 HTTP/1.1\r\nhost: h:1\r\n\r\n");
        put(&mut request, "h:1", "b", "k", "?w=2", b"xyz");
        assert_eq!(request, b"PUT /v1/kv/b/k?w=2 HTTP/1.1\r\nhost: h:1\r\ncontent-length: 3\r\n\r\nxyz");
    }

    #[test]
    fn responses_are_parsed_once_they_are_complete() {
        let whole = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 3\r\n\r\nabc";
        for length in 0..whole.len() {
            assert_eq!(response(&whole[..length]), Ok(None), "{length}");
        }
        assert_eq!(response(whole), Ok(Some(((200, &b"abc"[..]), whole.len()))));
        let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(response(empty), Ok(Some(((204, &b""[..]), empty.len()))));
    }

    #[test]
    fn other_bytes_are_malformed() {
        let huge = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", usize::MAX);
        for bad in ["SSH-2.0\r\n\r\n", "HTTP/1.1 2\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", &huge, &"x".repeat(70_000)] {
            assert_eq!(response(bad.as_bytes()), Err(Malformed), "{bad:.40}");
        }
        assert_eq!(response(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"), Err(Malformed));
    }
}
