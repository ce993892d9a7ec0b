use proptest::prelude::{prop, prop_assert_eq, proptest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const HEAD_BYTES_MAX: usize = 1_000;

/// What the library reads of `sent`, which arrives in parts of `cut` bytes, in reads of `room` bytes; and the code of a refusal.
fn passed(sent: &[u8], cut: usize, room: usize) -> (Vec<u8>, Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(cut);
        let (mut heads, refused) = CheckedHeads::new(server, HEAD_BYTES_MAX);
        let mut read = Vec::new();
        let write = async {
            // What follows a refused head is not read.
            let _ = client.write_all(sent).await;
            drop(client);
        };
        let reads = async {
            let mut part = vec![0; room];
            loop {
                match heads.read(&mut part).await.unwrap() {
                    0 => break,
                    bytes => read.extend_from_slice(&part[..bytes]),
                }
            }
            drop(heads);
        };
        tokio::join!(write, reads);
        (read, refused.0.get().map(|refused| (refused.error)(refused.why.clone()).code().to_owned()))
    })
}

const GET: &str = "GET /v1/kv/b/k HTTP/1.1\r\nHost: x\r\n\r\n";
const PUT: &str =
    "PUT /v1/kv/b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nGET /# HTTP/1.1\r\nHost: x\r\n\r\n\r\n";
const CHUNKED: &str = "PUT /v1/kv/b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       e;x\r\nGET /# HTTP/1.\r\n0\r\nX: GET /# HTTP/1.1\r\n\r\n";

proptest! {
    #[test]
    fn heads_and_bodies_pass_unchanged_until_one_is_refused(
        requests in prop::collection::vec(prop::sample::select(vec![GET, PUT, CHUNKED]), 0..6),
        (cut, room) in (1_usize..200, 1_usize..200),
        is_refused in prop::bool::ANY,
    ) {
        let mut sent = requests.concat();
        let mut expected = sent.clone();
        if is_refused {
            sent.push_str("HEAD /k#1 HTTP/1.1\r\nHost: x\r\n\r\n");
            sent.push_str(GET);
            expected.push_str("HEAD / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncartwheel-refused: 1\r\n\r\n");
        }
        let (read, refused) = passed(sent.as_bytes(), cut, room);
        prop_assert_eq!(String::from_utf8(read).unwrap(), expected);
        prop_assert_eq!(refused, is_refused.then(|| "bad_request".to_owned()));
    }

    #[test]
    fn any_bytes_are_read_or_refused(sent in prop::collection::vec(prop::num::u8::ANY, 0..3_000), cut in 1_usize..200) {
        let _ = passed(&sent, cut, 100);
        let _ = passed(&[b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", &sent[..]].concat(), cut, 100);
    }

    #[test]
    fn the_end_of_a_head_is_found(head in "[x\r\n]{0,8}") {
        let expected = head.contains("\n\n") || head.contains("\n\r\n");
        prop_assert_eq!(has_end(head.as_bytes()), expected);
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
            assert_eq!(passed(head.as_bytes(), cut, 100).1.as_deref(), Some(code), "{head:?} in parts of {cut}");
        }
    }
    for head in ["GET /%23 HTTP/1.1\r\nX: #\r\n\r\n", "\r\n\r\nGET / HTTP/1.0\n\n", "OPTIONS * HTTP/1.1\r\n\r\n"] {
        assert_eq!(passed(head.as_bytes(), 1, 100), (head.as_bytes().to_vec(), None), "{head:?}");
    }
}
