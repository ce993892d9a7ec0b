//! Of a client that has not proven which user it is, nothing reaches the node behind the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cartwheel_core::node::{Effects, Input};
use cartwheel_core::value::time::Now;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;

use super::connection::{Connection, Within};
use super::{ApiState, Front};
use crate::access::{Access, AccessMetrics, Audit};
use crate::backend::tests::backend_of;
use crate::shard::Machine;
use crate::tcp::connections::{ConnectionLimit, Serves};

const WITHIN: Within = Within { head: Duration::from_secs(5), head_bytes_max: 64 << 10, write: Duration::from_secs(5) };

/// Counts what reaches it.
struct Counted(Arc<AtomicUsize>);

impl Machine for Counted {
    fn step(&mut self, _now: Now, input: Input) -> Effects {
        if matches!(input, Input::Client(..) | Input::List(..)) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Effects::default()
    }
}

/// A request that nearly any part of the API would take.
fn nearly_a_request(random: &mut fastrand::Rng) -> Vec<u8> {
    const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS", "PATCH"];
    const PATHS: [&str; 13] = [
        "/v1/kv/carts/k",
        "/v1/kv/carts",
        "/v1/kv//k",
        "/v1/kv/%2e%2e/k?w=1",
        "//v1/kv/carts/k",
        "/v1/kv/carts/k?timeout_ms=1",
        "/v1/buckets",
        "/v1/buckets/carts",
        "/v1/cluster/members",
        "/v1/cluster/ring",
        "/v1/users/admin",
        "/v1/users/admin/tokens",
        "/metrics",
    ];
    const HEADERS: [&str; 12] = [
        "Authorization: Basic YWRtaW46YWRtaW4=",
        "Authorization: Basic",
        "Authorization: Bearer cwt_00000000_AAAA",
        "Authorization: Bearer ",
        "authorization:",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "Cartwheel-Context: AAAA",
        "Origin: http://127.0.0.1:8081",
        "Connection: close",
        "Host: other",
    ];
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        random.choice(METHODS).unwrap(),
        random.choice(PATHS).unwrap()
    );
    for _ in 0..random.usize(0..4) {
        text += random.choice(HEADERS).unwrap();
        text += "\r\n";
    }
    let body = "{\"apply\": true}";
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut bytes = text.into_bytes();
    for _ in 0..random.usize(0..3) {
        let at = random.usize(0..bytes.len());
        match random.u8(0..3) {
            0 => bytes[at] = random.u8(..),
            1 => bytes.insert(at, random.u8(..)),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

#[tokio::test]
async fn no_byte_of_an_unknown_client_reaches_the_node() {
    let reached = Arc::new(AtomicUsize::new(0));
    let (mut backend, _readiness) = backend_of(Counted(reached.clone()));
    backend.access = Access::new(backend.view.clone(), true, Audit::none(), AccessMetrics::default()).unwrap();
    let front = Front::new(ApiState::new(Arc::new(backend)), Handle::current());
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for _ in 0..2_000 {
        let sent = nearly_a_request(&mut random);
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let guard = ConnectionLimit::new(10).register(None, Serves::All);
        let served = Connection::new(server, WITHIN, guard).serve(&front);
        let talked = async {
            let _ = client.write_all(&sent).await;
            let _ = client.shutdown().await;
            let mut received = Vec::new();
            let _ = client.read_to_end(&mut received).await;
            String::from_utf8_lossy(&received).into_owned()
        };
        let (received, _) = tokio::join!(talked, served);
        let shown = String::from_utf8_lossy(&sent).into_owned();
        for line in received.lines().filter(|line| line.starts_with("HTTP/1")) {
            let code = line.split(' ').nth(1).unwrap();
            assert!(code.starts_with('4') || code == "501" || code == "505" || code == "100", "{line} to {shown:?}");
            refused += usize::from(code == "401");
        }
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    assert!(refused > 300, "most requests were whole: {refused}");
}
