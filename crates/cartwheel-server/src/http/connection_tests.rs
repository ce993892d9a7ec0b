//! The same bytes to this server and to hyper: both see the same requests and send the same responses.

use std::sync::{Arc, Mutex};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::super::chunks::Chunks;
use super::*;
use crate::tcp::connections::ConnectionLimit;

/// The requests that a service has seen, as text.
type Seen = Arc<Mutex<Vec<String>>>;

const WITHIN: Within =
    Within { head: Duration::from_secs(60), head_bytes_max: 64 << 10, write: Duration::from_secs(60) };

/// Records a request with its body, and responds as its path says.
async fn respond<B>(seen: Seen, request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let (parts, body) = request.into_parts();
    let mut headers: Vec<String> = parts
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    headers.sort();
    let collected = Body::new(body).collect().await;
    let (body, is_whole) = match collected {
        Ok(body) => (body.to_bytes(), true),
        Err(_) => (Bytes::new(), false),
    };
    let (method, uri) = (&parts.method, &parts.uri);
    let line = format!("{method} {uri} {:?} {headers:?} {is_whole} {}", parts.version, String::from_utf8_lossy(&body));
    seen.lock().unwrap().push(line);
    let response = Response::builder().header("x-path", uri.path());
    let response = match uri.path() {
        _ if !is_whole => response.status(400).header("connection", "close").body("broken".into()),
        "/none" => response.status(204).body(Body::empty()),
        "/same" => response.status(304).body(Body::from_stream(futures_util::stream::empty::<io::Result<Bytes>>())),
        "/close" => response.header("connection", "close").body("bye".into()),
        "/large" => response.body(Body::from(vec![b'x'; 100_000])),
        "/parts" => {
            let parts = [&b"some"[..], b"", b" parts"].map(|part| io::Result::Ok(Bytes::from_static(part)));
            response.body(Body::from_stream(futures_util::stream::iter(parts)))
        }
        _ => response.body(body.into()),
    };
    Ok(response.unwrap())
}

/// What a server returns if `sent` arrives in parts of `cut` bytes and the client then closes its sending side.
async fn exchange<F: Future<Output = ()>>(sent: &[u8], cut: usize, serve: impl FnOnce(DuplexStream) -> F) -> Vec<u8> {
    let (client, server) = tokio::io::duplex(cut);
    let (mut read, mut write) = tokio::io::split(client);
    let mut received = Vec::new();
    let send = async {
        // A server that has refused a request may read no further.
        let _ = write.write_all(sent).await;
        let _ = write.shutdown().await;
    };
    let receive = async {
        let _ = read.read_to_end(&mut received).await;
    };
    tokio::join!(send, receive, serve(server));
    received
}

async fn ours(sent: &[u8], cut: usize) -> (Vec<String>, Vec<Received>) {
    let seen = Seen::default();
    let noted = seen.clone();
    let calls = service_fn(move |request: Request<Body>| Box::pin(respond(noted.clone(), request)));
    let received = exchange(sent, cut, |stream| async move {
        let guard = ConnectionLimit::new(10).register(None, Serves::All);
        let _ = Connection::new(stream, WITHIN, guard).serve(&calls).await;
    });
    let received = parse(received.await);
    (seen.lock().unwrap().clone(), received)
}

async fn hypers(sent: &[u8], cut: usize) -> (Vec<String>, Vec<Received>) {
    let seen = Seen::default();
    let noted = seen.clone();
    let calls = service_fn(move |request| respond(noted.clone(), request));
    let received = exchange(sent, cut, |stream| async move {
        let _ = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), calls).await;
    });
    let received = parse(received.await);
    (seen.lock().unwrap().clone(), received)
}

/// A response: status line, headers without the date in order, and body.
type Received = (String, Vec<String>, String);

fn parse(bytes: Vec<u8>) -> Vec<Received> {
    let (mut left, mut all) = (BytesMut::from(&bytes[..]), Vec::new());
    while !left.is_empty() {
        let end = left.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(left.split_to(end + 4).to_vec()).unwrap();
        let mut lines = head.lines().filter(|line| !line.is_empty());
        let status = lines.next().unwrap().to_owned();
        let mut headers: Vec<String> = lines.filter(|line| !line.starts_with("date: ")).map(str::to_owned).collect();
        headers.sort();
        let length = headers.iter().find_map(|header| header.strip_prefix("content-length: "));
        let is_to_head = headers.iter().any(|header| header.starts_with("x-path: /head"));
        let body = if headers.iter().any(|header| header == "transfer-encoding: chunked") && !is_to_head {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            while let Some(piece) = chunks.decode(&mut left).unwrap() {
                body.extend_from_slice(&piece);
            }
            assert!(chunks.is_over());
            body
        } else {
            let has_none = is_to_head || ["100", "204", "304"].iter().any(|code| status.contains(code));
            let to_the_end = if length.is_some() { 0 } else { left.len() };
            let length = length.map_or(to_the_end, |length| length.parse().unwrap());
            left.split_to(if has_none { 0 } else { length }).to_vec()
        };
        if status.starts_with("HTTP/1.0") {
            // What follows shows whether the connection was kept.
            headers.retain(|header| !header.starts_with("connection: "));
        }
        all.push((status, headers, String::from_utf8(body).unwrap()));
    }
    all
}

fn method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "PUT", "POST", "DELETE", "OPTIONS"])
}

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "/v1/kv/b/k?w=1",
        "/none",
        "/same",
        "/close",
        "/large",
        "/parts",
        "/%23%ff",
        "*",
        "http://h/echo",
    ])
}

fn header() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Host: x\r\n",
        "X-Empty:\r\n",
        "x-Space:  a b \t\r\n",
        "Cookie: a\r\nCookie: b\r\n",
        "X-Bytes: \u{e9}\r\n",
        "Connection: keep-alive\r\n",
        "Connection: x\r\n",
        "Expect: 100-continue\r\n",
        "Expect: 200-ok\r\n",
        "X-Line-Feed: only\n",
    ])
}

/// A request that both understand.
fn request() -> impl Strategy<Value = String> {
    let body = prop_oneof![
        Just(String::from("\r\n")),
        "[a-z]{0,40}".prop_map(|body| format!("Content-Length: {}\r\n\r\n{body}", body.len())),
        prop::collection::vec("[a-z]{1,20}", 0..4).prop_map(|chunks| {
            let chunks: String = chunks.iter().map(|data| format!("{:X};e=\"v\"\r\n{data}\r\n", data.len())).collect();
            format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nTrailer: x\r\n\r\n")
        }),
    ];
    let versions = prop::sample::select(vec!["1.1", "1.1", "1.1", "1.0"]);
    let parts = (method(), path(), versions, prop::collection::vec(header(), 0..4), body);
    let requests = parts.prop_filter("HTTP/1.0 has no chunks", |(_, _, version, _, body)| {
        *version == "1.1" || !body.starts_with("Transfer")
    });
    let with_method = requests.prop_map(|(method, path, version, headers, body)| {
        format!("{method} {path} HTTP/{version}\r\n{}{body}", headers.concat())
    });
    prop_oneof![9 => with_method, 1 => Just("HEAD /head HTTP/1.1\r\nHost: x\r\n\r\n".to_owned())]
}

/// Bytes that are no request, or not a whole one.
fn broken() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET / HTTP/1.1\r\nHost",
        "GET / HTTP/1.1\r\nX : x\r\n\r\n",
        "GET / HTTP/1.1\r\nX: x\r\n y\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "G\u{0}T / HTTP/1.1\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc",
        "PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\nabc",
        "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nabc",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn requests_and_responses_are_the_same_as_with_another_server(
        requests in prop::collection::vec(request(), 0..5), end in prop::option::of(broken()), cut in 1_usize..2_000,
    ) {
        let sent = format!("{}{}", requests.concat(), end.unwrap_or_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ((ours, mut responses), (theirs, mut expected)) =
            runtime.block_on(async { (ours(sent.as_bytes(), cut).await, hypers(sent.as_bytes(), cut).await) });
        prop_assert_eq!(&ours, &theirs, "{}", sent);
        // Permission to send a body that is there already is needless (RFC 9110, section 10.1.1).
        let is_permission = |(status, ..): &Received| status.contains(" 100 ");
        responses.retain(|response| !is_permission(response));
        expected.retain(|response| !is_permission(response));
        if end.is_some() {
            // Refusals have a form of their own.
            let is_refusal = |(status, ..): &Received| status.contains(" 4") || status.contains(" 5");
            responses.retain(|response| !is_refusal(response));
            expected.retain(|response| !is_refusal(response));
        }
        prop_assert_eq!(responses, expected, "{}", sent);
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_in_the_usual_form() {
    for end in ["GET / HTTP/1.1\r\nX : x\r\n\r\n", "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"]
    {
        let sent = format!("GET /echo HTTP/1.1\r\n\r\n{end}GET /unseen HTTP/1.1\r\n\r\n");
        let (seen, received) = ours(sent.as_bytes(), 7).await;
        assert_eq!((seen.len(), received.len()), (1, 2), "{received:?}");
        let (status, headers, body) = &received[1];
        assert!(status.contains(" 400 ") && body.contains("\"error\":\"bad_request\""), "{status} {body}");
        assert!(headers.contains(&"connection: close".to_owned()), "{headers:?}");
    }
}

/// The call leaves the body where it is.
#[tokio::test]
async fn a_body_that_no_call_reads_is_skipped_if_it_has_arrived_and_else_ends_the_connection() {
    for (body, served) in [
        ("Content-Length: 3\r\n\r\nabc", 2),
        ("Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 2),
        ("Content-Length: 3000\r\n\r\nabc", 1),
    ] {
        let served_calls = Arc::new(Mutex::new(0));
        let count = served_calls.clone();
        let calls = service_fn(move |request: Request<Body>| {
            drop(request);
            *count.lock().unwrap() += 1;
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::from("ok"))))
        });
        let sent = format!("PUT /a HTTP/1.1\r\n{body}GET /b HTTP/1.1\r\nConnection: close\r\n\r\n");
        let received = exchange(sent.as_bytes(), 4_096, |stream| async move {
            let guard = ConnectionLimit::new(10).register(None, Serves::All);
            let _ = Connection::new(stream, WITHIN, guard).serve(&calls).await;
        });
        let received = parse(received.await);
        assert_eq!((*served_calls.lock().unwrap(), received.len()), (served, served), "{body}");
        let closes = received.last().unwrap().1.contains(&"connection: close".to_owned());
        assert!(closes, "{body}");
    }
}
