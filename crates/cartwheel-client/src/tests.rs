//! Requests of a client to nodes that are faked on the same machine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::{Cause, Client, Error, Member, Options, Ring, Value};

/// A node that sends every request the same response (none if it is empty), and the number of requests that it has received.
async fn node(response: &'static str) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (endpoint, seen) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicU32::new(0)));
    let count = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = count.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4_096]).await;
                count.fetch_add(1, Ordering::Relaxed);
                if response.is_empty() {
                    std::future::pending::<()>().await;
                }
                let _ = stream.write_all(response.as_bytes()).await;
            });
        }
    });
    (endpoint, seen)
}

const OVERLOADED: &str = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-length: 41\r\n\r\n\
    {\"error\":\"overloaded\",\"message\":\"later.\"}";
const OVERLOADED_FOR_LONG: &str = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 3600\r\ncontent-length: 41\r\n\r\n\
    {\"error\":\"overloaded\",\"message\":\"later.\"}";
const DONE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
const ANOTHER_PROGRAM: &str = "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 3\r\n\r\nno.";

fn requests(nodes: &[(String, Arc<AtomicU32>)]) -> u32 {
    nodes.iter().map(|(_, seen)| seen.load(Ordering::Relaxed)).sum()
}

fn client(nodes: &[(String, Arc<AtomicU32>)]) -> Client {
    Client::new(nodes.iter().map(|(endpoint, _)| endpoint)).unwrap().without_routing()
}

#[tokio::test]
async fn an_overloaded_cluster_gets_few_repeated_requests() {
    let nodes = [node(OVERLOADED).await, node(OVERLOADED).await, node(OVERLOADED).await];
    let client = client(&nodes);
    let one = client.put("b", "k", "v", None).await;
    assert!(matches!(one, Err(Error::Unavailable { cause: Cause::Overloaded, .. })), "{one:?}");
    assert_eq!(requests(&nodes), 4, "one request and three repetitions");
    for _ in 0..99 {
        assert!(client.put("b", "k", "v", None).await.is_err());
    }
    assert!((110..=120).contains(&requests(&nodes)), "a tenth more, and a few to begin with: {}", requests(&nodes));
}

#[tokio::test]
async fn a_node_gets_no_request_within_its_retry_after() {
    let alone = [node(OVERLOADED_FOR_LONG).await];
    assert!(client(&alone).put("b", "k", "v", None).await.is_err());
    assert_eq!(requests(&alone), 1);
    let beside = [node(OVERLOADED_FOR_LONG).await, node(DONE).await];
    client(&beside).put("b", "k", "v", None).await.unwrap();
    assert_eq!(requests(&beside), 2);
}

#[tokio::test]
async fn with_a_deadline_a_silent_node_leaves_time_for_the_next() {
    let options = Options { deadline: Some(Duration::from_secs(2)), ..Options::default() };
    let value = || Value::new("v", "text/plain");
    let nodes = [node("").await, node(DONE).await];
    client(&nodes).put_with("b", "k", value(), None, &options).await.unwrap();
    let silent = [node("").await, node("").await];
    let late = client(&silent).put_with("b", "k", value(), None, &options).await;
    assert!(matches!(late, Err(Error::Unavailable { cause: Cause::TimedOut, attempts: 2, .. })), "{late:?}");
}

#[tokio::test]
async fn a_port_of_another_program_is_skipped() {
    let nodes = [node(ANOTHER_PROGRAM).await, node(DONE).await];
    client(&nodes).put("b", "k", "v", None).await.unwrap();
    let none = client(&nodes[..1]).put("b", "k", "v", None).await;
    assert!(matches!(none, Err(Error::UnexpectedResponse(_))), "{none:?}");
}

#[tokio::test]
async fn learned_members_are_tried_when_the_given_endpoint_is_gone() {
    let (endpoint, _) = node(DONE).await;
    let body = serde_json::json!({"cluster": "", "node": "a", "ring_version": "", "members": [{
        "name": "b", "id": "", "zone": "", "host": "", "http": endpoint, "resp": "", "peers": "", "weight": 100, "incarnation": "",
        "leaving": false, "state": "connected"
    }]});
    let body = body.to_string();
    let response = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new([listener.local_addr().unwrap().to_string()]).unwrap().without_routing();
    // It answers once and is gone.
    let once = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4_096]).await;
        stream.write_all(response.as_bytes()).await.unwrap();
    });
    client.learn_members().await.unwrap();
    once.await.unwrap();
    client.put("b", "k", "v", None).await.unwrap();
}

fn member(http: &str) -> Member {
    let [name, id, zone, host, resp, peers] = std::array::from_fn(|_| String::new());
    Member { name, id, zone, host, http: http.to_owned(), resp, peers }
}

/// A ring whose partitions have these homes, and whose members have these addresses.
pub(crate) fn ring<S: AsRef<str>>(homes: Vec<Vec<usize>>, members: &[S]) -> Ring {
    let member = |http: &S| member(http.as_ref());
    let (version, owners, partitions) = ("1".to_owned(), Vec::new(), homes.len() as u32);
    Ring {
        version,
        partitions,
        owners,
        homes,
        placements: BTreeMap::new(),
        members: members.iter().map(member).collect(),
    }
}

/// The limit of a wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(300);

/// Nodes that share a ring of one partition.
struct FakeCluster {
    endpoints: Vec<String>,
    state: Arc<FakeState>,
}

#[derive(Default)]
struct FakeState {
    /// The homes of all keys.
    homes: Mutex<Vec<usize>>,
    /// The requests on keys that each node has received.
    received: Mutex<BTreeMap<usize, u32>>,
    /// The reads of the ring.
    rings_read: AtomicU32,
    /// The nodes that send no response to gets.
    silent: Mutex<Vec<usize>>,
    /// The nodes that close each connection.
    gone: Mutex<Vec<usize>>,
}

impl FakeCluster {
    async fn start(count: usize, homes: &[usize]) -> Self {
        let state = Arc::new(FakeState::default());
        *state.homes.lock().unwrap() = homes.to_vec();
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let endpoints: Vec<String> =
            listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        for (node, listener) in listeners.into_iter().enumerate() {
            let (state, members) = (state.clone(), endpoints.clone());
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (state, members) = (state.clone(), members.clone());
                    tokio::spawn(async move {
                        let mut bytes = vec![0; 4_096];
                        while let Ok(1..) = stream.read(&mut bytes).await {
                            let Some(response) = state.respond(node, &bytes, &members) else { return };
                            if response.is_empty() {
                                std::future::pending::<()>().await;
                            }
                            let _ = stream.write_all(response.as_bytes()).await;
                            bytes.fill(0);
                        }
                    });
                }
            });
        }
        Self { endpoints, state }
    }

    /// A client that was told of the first node only, and has learned the ring.
    async fn client(&self) -> Client {
        let client = Client::new(&self.endpoints[..1]).unwrap();
        let learning = async {
            while !client.router.as_ref().is_some_and(|router| router.knows_ring()) {
                client.put("b", "k", "v", None).await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, learning).await.expect("the ring is not learned");
        self.received();
        client
    }

    fn received(&self) -> BTreeMap<usize, u32> {
        std::mem::take(&mut *self.state.received.lock().unwrap())
    }
}

impl FakeState {
    /// The response to a request; empty for none, `None` to close the connection.
    fn respond(&self, node: usize, request: &[u8], members: &[String]) -> Option<String> {
        if self.gone.lock().unwrap().contains(&node) {
            return None;
        }
        let ok = |body: &str| Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        if request.starts_with(b"GET /v1/cluster/ring") {
            self.rings_read.fetch_add(1, Ordering::Relaxed);
            let homes = self.homes.lock().unwrap().clone();
            let ring = ring(vec![homes], members);
            return ok(&serde_json::to_string(&ring).unwrap());
        }
        *self.received.lock().unwrap().entry(node).or_default() += 1;
        if request.starts_with(b"PUT") {
            return Some("HTTP/1.1 204 No Content\r\n\r\n".to_owned());
        }
        if self.silent.lock().unwrap().contains(&node) { Some(String::new()) } else { ok("value") }
    }
}

#[tokio::test]
async fn requests_go_to_the_first_home_of_their_key() {
    let cluster = FakeCluster::start(4, &[2, 3, 1]).await;
    let client = cluster.client().await;
    for _ in 0..10 {
        client.put("b", "k", "v", None).await.unwrap();
        client.clone().get("b", "k").await.unwrap();
    }
    assert_eq!(cluster.received(), BTreeMap::from([(2, 20)]));
}

#[tokio::test]
async fn without_routing_the_ring_is_not_read() {
    let cluster = FakeCluster::start(2, &[1]).await;
    let client = Client::new(&cluster.endpoints[..1]).unwrap().without_routing();
    client.put("b", "k", "v", None).await.unwrap();
    assert_eq!(cluster.received(), BTreeMap::from([(0, 1)]));
    assert_eq!(cluster.state.rings_read.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn when_a_home_fails_the_next_one_is_used_and_the_ring_is_read_again() {
    let cluster = FakeCluster::start(4, &[2, 3, 1]).await;
    let client = cluster.client().await;
    client.put("b", "k", "v", None).await.unwrap();
    cluster.state.gone.lock().unwrap().push(2);
    client.put("b", "k", "v", None).await.unwrap();
    assert_eq!(cluster.received(), BTreeMap::from([(2, 1), (3, 1)]));
    *cluster.state.homes.lock().unwrap() = vec![1, 3];
    let moved = async {
        while !cluster.received().contains_key(&1) {
            client.put("b", "k", "v", None).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.expect("the client goes by the old ring");
}

#[tokio::test]
async fn while_all_homes_fail_other_members_are_used() {
    let cluster = FakeCluster::start(4, &[2, 3]).await;
    let client = cluster.client().await;
    client.put("b", "k", "v", None).await.unwrap();
    *cluster.state.gone.lock().unwrap() = vec![0, 2, 3];
    client.put("b", "k", "v", None).await.unwrap();
    assert_eq!(cluster.received(), BTreeMap::from([(1, 1), (2, 1)]), "not only the endpoint that the client was given");
}

#[tokio::test]
async fn a_client_without_a_ring_uses_its_endpoints() {
    let nodes = [node(ANOTHER_PROGRAM).await, node(DONE).await];
    let client = Client::new(nodes.iter().map(|(endpoint, _)| endpoint)).unwrap();
    client.put("b", "k", "v", None).await.unwrap();
    client.put("b", "k", "v", None).await.unwrap();
}

#[tokio::test]
async fn slow_gets_are_hedged_but_strong_gets_are_not() {
    let cluster = FakeCluster::start(3, &[0, 1, 2]).await;
    let client = cluster.client().await;
    for _ in 0..100 {
        client.get("b", "k").await.unwrap();
    }
    assert_eq!(cluster.received(), BTreeMap::from([(0, 100)]), "it is not known yet what is slow");
    cluster.state.silent.lock().unwrap().push(0);
    let read = client.get("b", "k").await.unwrap();
    assert_eq!(read.values[0].bytes, "value");
    let strong = Options {
        consistency: crate::Consistency::Strong,
        timeout: Some(Duration::from_secs(1)),
        ..Options::default()
    };
    assert_eq!(cluster.received(), BTreeMap::from([(0, 1), (1, 1)]));
    client.get_with("b", "k", &strong).await.unwrap();
    assert_eq!(cluster.received(), BTreeMap::from([(0, 1), (1, 1)]), "after the time limit, as a retry");
}
