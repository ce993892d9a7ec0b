//! Of a client that has not proven which user it is, nothing reaches the node behind the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cartwheel_core::node::{Effects, Input};
use cartwheel_core::value::time::Now;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::api::RespApi;
use super::commands::TABLE;
use super::connection::RespConnection;
use super::session::Session;
use crate::access::{Access, AccessMetrics, Audit};
use crate::backend::tests::backend_of;
use crate::shard::Machine;
use crate::tcp::connections::{ConnectionLimit, Serves};

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

fn command(arguments: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
    }
    bytes
}

async fn received(api: &Arc<RespApi>, sent: &[u8]) -> String {
    let (mut client, server) = duplex(1 << 20);
    let registered = api.clients().register(None, None);
    let guard = ConnectionLimit::new(10).register(None, Serves::All);
    let session = Session::new(api.clone(), registered.client.clone());
    let served = RespConnection::new(server, session, guard).serve();
    let talked = async {
        let _ = client.write_all(sent).await;
        let _ = client.shutdown().await;
        let mut received = Vec::new();
        let _ = client.read_to_end(&mut received).await;
        String::from_utf8_lossy(&received).into_owned()
    };
    tokio::join!(talked, served).0
}

fn api(reached: &Arc<AtomicUsize>) -> Arc<RespApi> {
    let (mut backend, _readiness) = backend_of(Counted(reached.clone()));
    backend.access = Access::new(backend.view.clone(), true, Audit::none(), AccessMetrics::default()).unwrap();
    RespApi::new(Arc::new(backend), 100)
}

#[tokio::test]
async fn every_command_but_those_of_the_login_is_refused() {
    let reached = Arc::new(AtomicUsize::new(0));
    let api = api(&reached);
    for spec in TABLE {
        let count = spec.arity.unsigned_abs() as usize;
        let arguments: Vec<&str> = [spec.name].into_iter().chain(std::iter::repeat_n("k", count.max(3) - 1)).collect();
        let exact = &arguments[..if spec.arity > 0 { count } else { arguments.len() }];
        let reply = received(&api, &command(exact)).await;
        match spec.name {
            "quit" | "reset" => assert!(reply.starts_with('+'), "{}: {reply}", spec.name),
            "auth" => assert!(reply.starts_with("-WRONGPASS"), "{reply}"),
            "hello" => assert!(reply.starts_with('-'), "{reply}"),
            name => assert!(reply.starts_with("-NOAUTH"), "{name}: {reply}"),
        }
    }
    assert!(received(&api, b"HELLO 3\r\n").await.starts_with("-NOAUTH"));
    assert!(received(&api, b"HELLO 3 AUTH a b\r\n").await.starts_with("-WRONGPASS"));
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_unknown_client_can_announce_little() {
    let api = api(&Arc::default());
    assert!(received(&api, b"*11\r\n").await.contains("unauthenticated multibulk length"));
    assert!(received(&api, b"*2\r\n$16385\r\n").await.contains("unauthenticated bulk length"));
    assert!(received(&api, &command(&["AUTH", "a", &"x".repeat(16_384)])).await.starts_with("-WRONGPASS"));
}

#[tokio::test]
async fn no_byte_of_an_unknown_client_reaches_the_node() {
    let reached = Arc::new(AtomicUsize::new(0));
    let api = api(&reached);
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for _ in 0..2_000 {
        let mut sent = Vec::new();
        for _ in 0..random.usize(1..5) {
            let spec = random.choice(TABLE).unwrap();
            // A wrong password takes time.
            if !["auth", "hello"].contains(&spec.name) {
                let more = random.usize(0..4);
                let arguments: Vec<&str> = [spec.name].into_iter().chain(std::iter::repeat_n("k", more)).collect();
                sent.extend(command(&arguments));
            }
        }
        for _ in 0..random.usize(0..3) {
            let at = random.usize(0..sent.len().max(1));
            match random.u8(0..3) {
                0 if at < sent.len() => sent[at] = random.u8(..),
                1 => sent.insert(at.min(sent.len()), random.u8(..)),
                _ if at < sent.len() => drop(sent.remove(at)),
                _ => {}
            }
        }
        let reply = received(&api, &sent).await;
        refused += usize::from(reply.contains("-NOAUTH"));
        let is_value = |line: &str| line.starts_with(['$', ':', '*']);
        assert!(!reply.lines().any(is_value), "{reply:?} to {:?}", String::from_utf8_lossy(&sent));
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    assert!(refused > 500, "most commands were whole: {refused}");
}
