//! Slow, lying and malformed clients, over real sockets.

use std::net::SocketAddr;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use cartwheel_core::message::client::Operation;
use cartwheel_core::value::state::Content;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::http::tests::{api, busy, got, put_done};
use crate::http::{ApiState, Front};
use crate::metrics::tests::parse;

/// How long a test waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// More connections than a test opens, unless it is about their number.
const CONNECTIONS_MAX: usize = 1_000;

struct Serving {
    addr: SocketAddr,
    metrics: HttpMetrics,
    _stop: watch::Sender<bool>,
}

async fn serving(api: ApiState, limits: Limits) -> Serving {
    serving_at_most(CONNECTIONS_MAX, Front::new(api, Handle::current()), limits).await
}

async fn serving_at_most<S>(connections_max: usize, calls: S, limits: Limits) -> Serving
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, metrics) = (listener.local_addr().unwrap(), HttpMetrics::default());
    let (stop, stopped) = watch::channel(false);
    let threads = vec![Handle::current()];
    let limit = ConnectionLimit::new(connections_max);
    tokio::spawn(serve_within(
        limits,
        limit,
        calls,
        listener,
        (ClientSide::default(), threads),
        metrics.clone(),
        stopped,
    ));
    Serving { addr, metrics, _stop: stop }
}

async fn keys() -> Serving {
    serving(api(put_done(None)).0, Limits::default()).await
}

async fn bounded<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("the test timed out")
}

/// A response: status, headers and body.
#[derive(Debug)]
struct Received(u16, HeaderMap, String);

impl Received {
    fn code(&self) -> String {
        let error: serde_json::Value = serde_json::from_str(&self.2).unwrap();
        error["error"].as_str().unwrap().to_owned()
    }

    fn closes(&self) -> bool {
        self.1.get("connection").is_some_and(|value| value == "close")
    }
}

/// Reads one response; none if the connection ends before it.
async fn response(stream: &mut TcpStream) -> Option<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match bounded(stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let length = headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    bounded(stream.read_exact(&mut body)).await.unwrap();
    Some(Received(status, headers, String::from_utf8(body).unwrap()))
}

/// Whether the server closes the connection without sending another byte.
async fn is_closed(stream: &mut TcpStream) -> bool {
    !matches!(bounded(stream.read(&mut [0; 1])).await, Ok(1..))
}

/// Whether the connection can be used for another request.
async fn is_usable(stream: &mut TcpStream) -> bool {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    response(stream).await.is_some_and(|response| response.0 == 200)
}

/// Sends `bytes` on a new connection and reads one response.
async fn send(serving: &Serving, bytes: impl AsRef<[u8]>) -> (TcpStream, Received) {
    let mut stream = TcpStream::connect(serving.addr).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    let response = response(&mut stream).await.expect("a response");
    (stream, response)
}

fn put(path: &str, headers: &str, body: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_content_length_is_handled() {
    let (api, received) = api(put_done(None));
    let serving = serving(api, Limits::default()).await;
    // Too long, and the client waits.
    let (mut stream, slow) = send(&serving, put("/v1/kv/b/k?timeout_ms=50", "Content-Length: 10\r\n", "abc")).await;
    assert_eq!((slow.0, slow.code().as_str(), slow.closes()), (400, "bad_request", true));
    assert!(slow.2.contains("within 50 ms") && is_closed(&mut stream).await);
    // Too long, and the client has closed its sending side.
    let mut stream = TcpStream::connect(serving.addr).await.unwrap();
    stream.write_all(put("/v1/kv/b/k", "Content-Length: 10\r\n", "abc").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let cut = response(&mut stream).await.unwrap();
    assert_eq!((cut.0, cut.code().as_str()), (400, "bad_request"));
    assert!(cut.2.contains("did not arrive whole") && is_closed(&mut stream).await);
    assert!(received.lock().unwrap().is_none(), "half a value reached the node");
    // Too short: the value has the declared length, and what follows is not a request.
    let (mut stream, put) =
        send(&serving, put("/v1/kv/b/k", "Content-Length: 3\r\n", "abc \r\n garbage\r\n\r\n")).await;
    assert_eq!(put.0, 204);
    let Some(Operation::Put(stored)) = received.lock().unwrap().take().map(|received| received.operation) else {
        panic!()
    };
    assert!(matches!(stored.content, Content::Value { bytes, .. } if bytes == "abc"));
    assert_eq!(response(&mut stream).await.unwrap().0, 400);
    assert!(is_closed(&mut stream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_over_the_limit_is_refused_and_the_client_gets_the_response() {
    let serving = keys().await;
    let large = "x".repeat(3 << 20);
    let (mut stream, declared) =
        send(&serving, put("/v1/kv/b/k", &format!("Content-Length: {}\r\n", large.len()), &large)).await;
    assert_eq!((declared.0, declared.code().as_str()), (413, "too_large"));
    assert!(declared.2.contains("has 3145728 bytes, the bucket takes 1048576") && is_usable(&mut stream).await);

    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = put("/v1/kv/b/k", "Transfer-Encoding: chunked\r\n", &format!("{}0\r\n\r\n", chunk.repeat(40)));
    let (mut stream, chunked) = send(&serving, chunked).await;
    assert_eq!((chunked.0, chunked.code().as_str()), (413, "too_large"));
    assert!(chunked.2.contains("has more than 1048576 bytes") && is_usable(&mut stream).await);

    // A client that request for permission gets the refusal before it sends a byte.
    let request = put("/v1/kv/b/k", "Content-Length: 3145728\r\nExpect: 100-continue\r\n", "");
    let (mut stream, received) = send(&serving, request).await;
    assert_eq!((received.0, received.code().as_str(), received.closes()), (413, "too_large", true));
    assert!(is_closed(&mut stream).await);

    // An endless value is cut off.
    let endless = put("/v1/kv/b/k", "Content-Length: 999999999999\r\n", &"x".repeat(100_000));
    let (mut stream, endless) = send(&serving, endless).await;
    assert_eq!((endless.0, endless.closes()), (413, true));
    assert!(is_closed(&mut stream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_continue_and_pipelining_work() {
    let serving = keys().await;
    let (mut stream, interim) =
        send(&serving, put("/v1/kv/b/k", "Content-Length: 3\r\nExpect: 100-continue\r\n", "")).await;
    assert_eq!(interim.0, 100);
    stream.write_all(b"abc").await.unwrap();
    assert_eq!(response(&mut stream).await.unwrap().0, 204);

    let first = put("/v1/kv/b/k", "Content-Length: 3\r\n", "abc");
    let refused = put("/v1/kv/b/k?w=0", "Content-Length: 200000\r\n", &"x".repeat(200_000));
    let last = "POST /v1/kv/b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    let mut statuses = Vec::new();
    let (mut stream, at_first) = send(&serving, format!("{first}{refused}{first}{last}")).await;
    statuses.push(at_first.0);
    for _ in 0..3 {
        statuses.push(response(&mut stream).await.unwrap().0);
    }
    assert_eq!(statuses, [204, 400, 204, 405]);
    assert!(is_usable(&mut stream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closed_its_sending_side_gets_its_response() {
    let serving =
        serving(api(Ok(cartwheel_core::message::client::Reply::Got(got(&[Some("v")])))).0, Limits::default()).await;
    let mut stream = TcpStream::connect(serving.addr).await.unwrap();
    stream.write_all(b"GET /v1/kv/b/k HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let got = response(&mut stream).await.unwrap();
    assert_eq!((got.0, got.2.as_str()), (200, "v"));
    assert!(is_closed(&mut stream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_bounded() {
    let serving = keys().await;
    let longest = format!("/v1/kv/{}/{}", "%41".repeat(255), "%42".repeat(4096));
    let context = "A".repeat(20_000);
    let (mut stream, longest) =
        send(&serving, put(&longest, &format!("Cartwheel-Context: {context}\r\nContent-Length: 1\r\n"), "v")).await;
    assert_eq!(longest.0, 204, "the longest key fits beside a long context: {}", longest.2);
    assert!(is_usable(&mut stream).await);
    let over = format!("/v1/kv/b/{}", "%42".repeat(4097));
    let (mut stream, over) = send(&serving, put(&over, "Content-Length: 1\r\n", "v")).await;
    assert_eq!((over.0, over.code().as_str()), (400, "bad_request"));
    assert!(over.2.contains("4097 bytes") && is_usable(&mut stream).await);

    let get = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let wrong = [
        (get("/", &format!("X: {}\r\n", "x".repeat(1 << 20))), 431),
        (get("/", &"X: x\r\n".repeat(200)), 431),
        (get(&format!("/{}", "x".repeat(66_000)), ""), 414),
        ("\u{16}\u{3}\u{1} hello TLS\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        (put("/v1/kv/b/k", "Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), 400),
        (put("/v1/kv/b/k", "Content-Length: -3\r\n", ""), 400),
        (put("/v1/kv/b/k", "Transfer-Encoding: chunked\r\n", "zz\r\nabc\r\n0\r\n\r\n"), 400),
    ];
    for (bytes, status) in wrong {
        let shown = bytes.chars().take(60).collect::<String>();
        let mut stream = TcpStream::connect(serving.addr).await.unwrap();
        // The server may close the connection in the middle of it.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let refused = response(&mut stream).await;
        // A client that is cut off while it sends may lose the response; the server must go on serving.
        if bytes.len() < 60_000 || refused.is_some() {
            let refused = refused.expect("a response");
            assert_eq!(refused.0, status, "{shown}");
            assert_eq!(refused.code(), if status == 400 { "bad_request" } else { "too_large" }, "{shown}");
        }
        assert!(is_closed(&mut stream).await, "{shown}");
    }
    let (_, well) = send(&serving, get("/healthz", "")).await;
    assert_eq!(well.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_have_64_kib() {
    let serving = keys().await;
    let head = |bytes: usize| {
        let empty = "GET /healthz HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n";
        empty.replace("X: ", &format!("X: {}", "x".repeat(bytes - empty.len())))
    };
    let (mut stream, longest) = send(&serving, head(64 << 10)).await;
    assert!(longest.0 == 200 && is_usable(&mut stream).await);
    for bytes in [(64 << 10) + 1, 1 << 20] {
        let (mut stream, longer) = send(&serving, head(bytes)).await;
        assert_eq!((longer.0, longer.code().as_str(), longer.closes()), (431, "too_large", true));
        assert!(is_closed(&mut stream).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_fragments_and_ambiguous_lengths_are_refused_anywhere_on_a_connection() {
    let (api, received) = api(put_done(None));
    let serving = serving(api, Limits::default()).await;
    let fine = put("/v1/kv/b/k%23", "Content-Length: 3\r\n", "PUT");
    let chunked = put("/v1/kv/b/k", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n");
    for (refused, status) in [
        (put("/v1/kv/b/k#1", "Content-Length: 3\r\n", "abc"), 400),
        (put("/v1/kv/b/k?w=1#", "Content-Length: 3\r\n", "abc"), 400),
        (put("/v1/kv/b/k", "Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), 400),
        (put("/v1/kv/b/k", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "abc"), 400),
        (put("/v1/kv/b/k", "Transfer-Encoding: identity\r\n", ""), 501),
        (put("/v1/kv/b/k", "Transfer-Encoding: gzip, chunked\r\n", ""), 501),
    ] {
        let (mut stream, mut last) = send(&serving, format!("{fine}{chunked}{fine}{refused}{fine}")).await;
        for _ in 0..3 {
            assert_eq!((last.0, last.closes()), (204, false), "{refused}");
            last = response(&mut stream).await.unwrap();
        }
        assert_eq!((last.0, last.closes()), (status, true), "{refused}");
        assert_eq!(last.code(), if status == 400 { "bad_request" } else { "not_implemented" });
        assert!(is_closed(&mut stream).await, "{refused}");
        let Some(Operation::Put(stored)) = received.lock().unwrap().take().map(|received| received.operation) else {
            panic!()
        };
        assert_eq!(stored.key.name(), "k#", "what was refused was stored: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_repeated_headers_are_refused_and_the_connection_stays_open() {
    let serving = keys().await;
    for (path, headers, code) in [
        ("/v1/kv/b/%zz", "", "bad_request"),
        ("/v1/kv/b/%4", "", "bad_request"),
        ("/v1/kv/%/k", "", "bad_request"),
        ("/v1/kv/b/k?w=%zz", "", "bad_request"),
        ("/v1/kv/b/k?w=1&w=2", "", "bad_request"),
        ("/v1/kv/b/k?W=1", "", "bad_request"),
        ("/v1/kv/b/k", "Cartwheel-Context: AA\r\nCartwheel-Context: AA\r\n", "bad_request"),
        ("/v1/kv/b/k", "Idempotency-Key: a\r\nIdempotency-Key: b\r\n", "bad_request"),
        ("/v1/kv/b/k", "Content-Type: a/b\r\nContent-Type: a/b\r\n", "bad_request"),
        ("/v1/kv/b/k", "Cartwheel-Context: !\r\n", "bad_context"),
    ] {
        let (mut stream, refused) = send(&serving, put(path, &format!("Content-Length: 3\r\n{headers}"), "abc")).await;
        assert_eq!((refused.0, refused.code().as_str()), (400, code), "{path} {headers}");
        assert!(is_usable(&mut stream).await, "{path} {headers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_slow_heads_time_out() {
    let within = Within { head: Duration::from_millis(50), ..Limits::default().within };
    let limits = Limits { within, ..Limits::default() };
    let serving = serving(api(put_done(None)).0, limits).await;
    for begun in ["", "GET / HTTP/1.1\r\nHost"] {
        let mut stream = TcpStream::connect(serving.addr).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        bounded(async { while !matches!(stream.read(&mut [0; 256]).await, Ok(0) | Err(_)) {} }).await;
    }
    let (mut stream, _) = send(&serving, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(is_closed(&mut stream).await, "an idle connection is kept for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_cut_off() {
    let large = || async { vec![0_u8; 64 << 20] };
    let router = Router::new().route("/", get(large));
    let within = Within { write: Duration::from_millis(50), ..Limits::default().within };
    let serving =
        serving_at_most(CONNECTIONS_MAX, TowerToHyperService::new(router), Limits { within, ..Limits::default() })
            .await;
    let mut stream = TcpStream::connect(serving.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    bounded(async {
        while serving.metrics.accepted.get() == 0 || serving.metrics.connections.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut read = Vec::new();
    let _ = bounded(stream.read_to_end(&mut read)).await;
    assert!(read.len() < 64 << 20, "the response was kept for a client that did not read it");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_further_ones_wait() {
    let front = Front::new(api(put_done(None)).0, Handle::current());
    let serving = serving_at_most(2, front, Limits::default()).await;
    let (first, _) = send(&serving, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (_second, _) = send(&serving, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut third = TcpStream::connect(serving.addr).await.unwrap();
    third.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!((serving.metrics.accepted.get(), serving.metrics.connections.get()), (2, 2));
    drop(first);
    assert_eq!(response(&mut third).await.unwrap().0, 200);
    assert_eq!(serving.metrics.accepted.get(), 3);
}

#[tokio::test]
async fn an_overloaded_node_refuses_requests_on_keys_and_serves_others() {
    let (api, _, _busy) = busy().await;
    let serving = serving_at_most(CONNECTIONS_MAX, Front::new(api.clone(), Handle::current()), Limits::default()).await;
    let mut stream = TcpStream::connect(serving.addr).await.unwrap();
    for request in [
        "PUT /v1/kv/b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nsocks",
        "GET /v1/kv/b/k HTTP/1.1\r\nHost: h\r\n\r\n",
        "DELETE /v1/kv/b/k HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        bounded(stream.write_all(request.as_bytes())).await.unwrap();
        let refused = response(&mut stream).await.unwrap();
        assert_eq!((refused.0, refused.code().as_str(), refused.closes()), (429, "overloaded", false), "{request}");
        assert!(refused.1.contains_key("retry-after"));
    }
    bounded(stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")).await.unwrap();
    assert_eq!(response(&mut stream).await.unwrap().0, 200);
    let samples = parse(&api.metrics().text());
    for operation in ["get", "put", "delete"] {
        let name = format!("cartwheel_requests_total{{operation=\"{operation}\",outcome=\"overloaded\"}}");
        assert!(samples[&name] >= 1.0, "{name}");
    }
    // The request that filled the queue, and the three above.
    assert_eq!(samples["cartwheel_shard_inbox_refusals_total"], 4.0);
}
