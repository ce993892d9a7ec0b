use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

use super::*;

const HEAD_BYTES_MAX: usize = 1_000;

/// What `sent` is read as, if it arrives in parts of `cut` bytes: a line for each request, with its body, and the code of a refusal.
fn read(sent: &[u8], cut: usize) -> (Vec<String>, Option<&'static str>) {
    let (mut heads, mut arrived, mut requests) = (Heads::new(HEAD_BYTES_MAX), BytesMut::new(), Vec::new());
    let mut body: Option<(String, Framing)> = None;
    for part in sent.chunks(cut) {
        arrived.extend_from_slice(part);
        loop {
            if let Some((request, framing)) = &mut body {
                match framing.decode(&mut arrived) {
                    Ok(Some(piece)) => request.push_str(&String::from_utf8_lossy(&piece)),
                    Ok(None) if framing.is_over() => requests.extend(body.take().map(|(request, _)| request)),
                    Ok(None) => break,
                    Err(Malformed) => return (requests, Some("malformed")),
                }
                continue;
            }
            match heads.next(&mut arrived) {
                Ok(Some(Head { parts, framing, .. })) => {
                    body = Some((format!("{} {} ", parts.method, parts.uri), framing));
                }
                Ok(None) => break,
                Err(refused) => return (requests, Some(refused.error().code())),
            }
        }
    }
    (requests, None)
}

const GET: &str = "GET /v1/kv/b/k HTTP/1.1\r\nHost: x\r\n\r\n";
const PUT: &str =
    "PUT /v1/kv/b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nGET /# HTTP/1.1\r\nHost: x\r\n\r\n\r\n";
const CHUNKED: &str = "PUT /v1/kv/b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       e;x\r\nGET /# HTTP/1.\r\n0\r\nX: GET /# HTTP/1.1\r\n\r\n";

proptest! {
    #[test]
    fn requests_are_read_in_any_fragmentation_until_one_is_refused(
        requests in prop::collection::vec(prop::sample::select(vec![GET, PUT, CHUNKED]), 0..6),
        cut in 1_usize..200,
        is_refused in prop::bool::ANY,
    ) {
        let mut sent = requests.concat();
        if is_refused {
            sent.push_str("HEAD /k#1 HTTP/1.1\r\nHost: x\r\n\r\n");
            sent.push_str(GET);
        }
        let expected: Vec<&str> = requests.iter().map(|&request| match request {
            GET => "GET /v1/kv/b/k ",
            PUT => "PUT /v1/kv/b/k GET /# HTTP/1.1\r\nHost: x\r\n\r\n\r\n",
            _ => "PUT /v1/kv/b/k GET /# HTTP/1.",
        }).collect();
        let (read, refused) = read(sent.as_bytes(), cut);
        prop_assert_eq!(read, expected);
        prop_assert_eq!(refused, is_refused.then_some("bad_request"));
    }

    #[test]
    fn any_bytes_are_read_or_refused(sent in prop::collection::vec(prop::num::u8::ANY, 0..3_000), cut in 1_usize..200) {
        let _ = read(&sent, cut);
        let _ = read(&[b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", &sent[..]].concat(), cut);
    }

    #[test]
    fn the_end_of_a_head_is_found(head in "[x\r\n]{0,8}") {
        let expected = head.contains("\n\n") || head.contains("\n\r\n");
        prop_assert_eq!(has_end(head.as_bytes()), expected);
    }

    #[test]
    fn headers_are_what_was_sent(name in "[a-zA-Z][a-zA-Z0-9-]{0,20}", value in "[!-~]([ -~]{0,30}[!-~])?") {
        let sent = format!("GET / HTTP/1.1\r\nX-{name}: {value}\r\n\r\n");
        let head = Heads::new(HEAD_BYTES_MAX).next(&mut BytesMut::from(sent.as_bytes())).unwrap().unwrap();
        prop_assert_eq!(head.parts.headers.get(format!("x-{name}")).map(HeaderValue::as_bytes), Some(value.as_bytes()));
        prop_assert!(head.keeps_alive && !head.expects_continue);
    }
}

#[test]
fn malformed_and_ambiguous_heads_are_refused() {
    let long = "x".repeat(HEAD_BYTES_MAX);
    let headers = "X: x\r\n".repeat(HEADERS_MAX + 1);
    for (head, code) in [
        ("GET /a#b HTTP/1.1\r\n\r\n", "bad_request"),
        ("GET /a?b# HTTP/1.1\r\n\r\n", "bad_request"),
        ("GET http://h/a#b HTTP/1.1\r\n\r\n", "bad_request"),
        ("GET # HTTP/1.1\r\n\r\n", "bad_request"),
        ("GET a b HTTP/1.1\r\n\r\n", "bad_request"),
        ("GET / HTTP/2.0\r\n\r\n", "bad_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_request"),
        ("\u{16}\u{3}\u{1}", "bad_request"),
        ("GET / HTTP/1.1\r\nX : x\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nX: x\r\n y\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "bad_request"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "not_implemented"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", "not_implemented"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", "not_implemented"),
        (&format!("GET /{long} HTTP/1.1\r\n\r\n"), "too_large"),
        (&format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"), "too_large"),
        (&format!("GET / HTTP/1.1\r\n{headers}\r\n"), "too_large"),
    ] {
        for cut in [1, 7, 4_000] {
            assert_eq!(read(head.as_bytes(), cut), (Vec::new(), Some(code)), "{head:?} in parts of {cut}");
        }
    }
    for (head, request) in [
        ("GET /%23 HTTP/1.1\r\nX: #\r\n\r\n", "GET /%23 "),
        ("\r\n\r\nGET / HTTP/1.0\n\n", "GET / "),
        ("OPTIONS * HTTP/1.1\r\n\r\n", "OPTIONS * "),
    ] {
        assert_eq!(read(head.as_bytes(), 1), (vec![request.to_owned()], None), "{head:?}");
    }
}

#[test]
fn a_head_tells_whether_the_connection_stays_open_and_the_body_needs_permission() {
    for (version, headers, keeps_alive, expects_continue) in [
        ("1.1", "", true, false),
        ("1.1", "Connection: Close\r\n", false, false),
        ("1.1", "Connection: x, close\r\nExpect: 100-Continue\r\n", false, true),
        ("1.1", "Connection: closed\r\nExpect: 200\r\n", true, false),
        ("1.0", "", false, false),
        ("1.0", "Connection: Keep-Alive\r\nExpect: 100-continue\r\n", true, false),
    ] {
        let sent = format!("GET / HTTP/{version}\r\n{headers}\r\n");
        let head = Heads::new(HEAD_BYTES_MAX).next(&mut BytesMut::from(sent.as_bytes())).unwrap().unwrap();
        assert_eq!((head.keeps_alive, head.expects_continue), (keeps_alive, expects_continue), "{sent}");
    }
}
