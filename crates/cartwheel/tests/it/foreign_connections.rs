//! Connections to a live node's peer port that come from no valid peer are refused with the reason or closed, and the node goes on serving.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cartwheel_core::message::{Confirm, Envelope, Message, ReplicaRequest, RequestId, Requester, Role, Want};
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Epoch, State};
use cartwheel_core::value::time::Now;
use cartwheel_core::wire::{PROTOCOL_VERSION, encode_envelope};
use cartwheel_server::data_dir::{Identity, read_identity};
use cartwheel_server::lifecycle::bootstrap::view_of;

use crate::harness::raw::{get, put};
use crate::harness::{Cluster, PATIENCE};

/// The data needed to talk to node 1 like one of its peers.
struct Target {
    addr: String,
    log: std::path::PathBuf,
    identity: Identity,
    endpoint: String,
}

impl Target {
    fn of(cluster: &Cluster) -> Self {
        let dir = cluster.node_dir(1);
        let identity = read_identity(&dir).unwrap();
        let view = view_of(&identity, &dir).unwrap();
        let addr = view.member(NodeId::of_name("node-1")).unwrap().member.peer_addr.clone();
        Self { addr, log: dir.join("log"), identity, endpoint: cluster.endpoint(1) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a hello and reads the answer.
    fn greet(&self, hello: &[u8]) -> (TcpStream, String) {
        let mut stream = self.connect();
        stream.write_all(&framed(hello)).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).unwrap();
        (stream, String::from_utf8_lossy(&answer).into_owned())
    }

    /// Waits until the node's log contains this text.
    fn logs(&self, said: &str) {
        let begun = Instant::now();
        while !std::fs::read_to_string(&self.log).unwrap().contains(said) {
            assert!(begun.elapsed() < PATIENCE, "the log does not contain this within {PATIENCE:?}: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn still_serves(&self, what: &str) {
        assert_eq!(put(&self.endpoint, "/v1/kv/b/k?w=3", what).status, 204, "after {what}");
        assert!(get(&self.endpoint, "/v1/kv/b/k").values().iter().any(|value| value == what), "after {what}");
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

/// The hello that node `from` of `cluster` sends to node `to`, with its protobuf encoded by hand.
fn hello(version: u32, cluster: ClusterId, from: &str, to: &str) -> Vec<u8> {
    let mut hello = [b"cartwheel", &version.to_be_bytes()[..], &[0x0a, 16], &cluster.0.to_be_bytes()].concat();
    hello.push(0x11);
    hello.extend(NodeId::of_name(from).get().to_le_bytes());
    hello.push(0x19);
    hello.extend(NodeId::of_name(to).get().to_le_bytes());
    hello.extend([0x32, from.len() as u8]);
    hello.extend(from.as_bytes());
    hello
}

/// Waits until the other side has closed the connection.
fn is_cut_off(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end, too. A timeout is not.
    if let Err(error) = stream.read_to_end(&mut rest) {
        let timed_out = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
        assert!(!timed_out.contains(&error.kind()), "the connection is still open");
    }
}

#[test]
fn hellos_of_foreign_nodes_are_refused_with_the_reason() {
    let cluster = Cluster::start();
    let target = Target::of(&cluster);
    let (ours, version) = (target.identity.cluster, PROTOCOL_VERSION);
    let speaks = format!("node-1 speaks protocol version {version}");
    for (hello, answer) in [
        (hello(version, ClusterId(7), "node-2", "node-1"), "node-1 belongs to cluster"),
        (hello(99, ours, "node-2", "node-1"), speaks.as_str()),
        (hello(version, ours, "node-2", "node-9"), "node-1 listens there"),
    ] {
        let (stream, said) = target.greet(&hello);
        assert!(said.contains(answer), "{said:?}");
        is_cut_off(stream);
        target.still_serves(answer);
    }
    let metrics = get(&target.endpoint, "/metrics").text();
    assert!(metrics.lines().any(|line| line == "cartwheel_peer_refusals_total 3"), "{metrics}");
    // The log has a line for the first refusal. The refusals of the next ten seconds share one further line, with their number.
    target.logs("refused a connection from a peer addr=\"127.0.0.1");
    target.logs("node-2 there belongs to cluster 00000000000000000000000000000007");
}

#[test]
fn connections_without_a_valid_hello_are_closed() {
    let cluster = Cluster::start();
    let target = Target::of(&cluster);
    let huge = [&(256u32 << 20).to_be_bytes()[..], b"cartwheel"].concat();
    let garbage: Vec<u8> = (0..5_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut malformed = hello(PROTOCOL_VERSION, target.identity.cluster, "node-2", "node-1");
    malformed.truncate(20);
    for (bytes, what) in [
        (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], "HTTP"),
        (&garbage, "garbage"),
        (&huge, "a hello of 256 MiB"),
        (&framed(b""), "an empty hello"),
        (&framed(b"cartwheel"), "a hello that is cut off"),
        (&framed(&malformed), "a malformed hello"),
    ] {
        let mut stream = target.connect();
        let _ = stream.write_all(bytes);
        is_cut_off(stream);
        target.still_serves(what);
    }
    // Connections that send nothing, or half of a hello, and one that is closed at once.
    let (silent, mut half) = (target.connect(), target.connect());
    half.write_all(&[0, 0, 0, 50, b'c', b'a']).unwrap();
    drop(target.connect());
    target.still_serves("silence");
    is_cut_off(silent);
    is_cut_off(half);
    target.still_serves("the end of silence");
}

#[test]
fn connections_with_invalid_messages_are_closed() {
    let cluster = Cluster::start();
    let target = Target::of(&cluster);
    let greet = || {
        let (stream, said) = target.greet(&hello(PROTOCOL_VERSION, target.identity.cluster, "node-2", "node-1"));
        assert!(said.contains("node-1"), "{said:?}");
        stream
    };
    let key = || Key::new("b".into(), "k".into()).unwrap();
    let read = || {
        Message::Request(
            RequestId { requester: Requester::Coordinator, operation: 1, round: 1 },
            ReplicaRequest::Read { key: key(), want: Want::State, role: Role::Home },
        )
    };
    let envelope = |cluster, from: &str, message| Envelope {
        cluster,
        from: NodeId::of_name(from),
        from_incarnation: target.identity.incarnation,
        from_boot: 1,
        sent: Now { wall: WallMs(0), ..Now::default() },
        config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
        losses: cartwheel_core::cluster::losses::Losses::NONE,
        trace: None,
        message,
    };
    let ours = target.identity.cluster;
    let borrowed = encode_envelope(&envelope(ours, "node-3", read()));
    let whole = encode_envelope(&envelope(ours, "node-2", read()));
    let (beyond, cut) = (u32::MAX.to_be_bytes(), framed(&whole[..whole.len() - 3]));
    for (bytes, what, kind, count) in [
        (framed(b"\xff\xff\xff"), "malformed bytes", "no_message", 1),
        (framed(b"\x08\x63"), "protocol version 99", "no_message", 2),
        (framed(&[8, PROTOCOL_VERSION as u8]), "a malformed field", "no_message", 3),
        (cut, "a truncated message", "no_message", 4),
        (beyond.to_vec(), "a frame of 4294967295 bytes", "too_long", 1),
        (framed(&borrowed), "a message of another node", "other_name", 1),
    ] {
        let mut stream = greet();
        stream.write_all(&bytes).unwrap();
        is_cut_off(stream);
        let counted = format!("cartwheel_peer_protocol_errors_total{{kind=\"{kind}\"}} {count}\n");
        let told = get(&target.endpoint, "/metrics").text();
        assert!(told.contains(&counted), "{what}: {told}");
        target.still_serves(what);
    }
    // The log has one line for all of them within an interval.
    target.logs("closed the connection of a peer peer=\"node-2\" refusals=1 reason=\"malformed bytes");

    // A message of another cluster on a connection of this one is dropped, and its request is not carried out.
    let wipe = ReplicaRequest::Merge {
        key: key(),
        state: State::default(),
        epoch: Epoch(1),
        heals: None,
        confirm: Confirm::Stored,
        stands_in_for: None,
    };
    let mut stream = greet();
    let stray = envelope(
        ClusterId(7),
        "node-2",
        Message::Request(RequestId { requester: Requester::Coordinator, operation: 1, round: 1 }, wipe),
    );
    stream.write_all(&framed(&encode_envelope(&stray))).unwrap();
    target.still_serves("another cluster's message");

    // Many connections announce a long frame and then send nothing: they cost only the memory for the bytes they sent.
    let before = reserved_kib(&target);
    let announced: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = greet();
            stream.write_all(&[&(256u32 << 20).to_be_bytes()[..], &[0; 100]].concat()).unwrap();
            stream
        })
        .collect();
    target.still_serves("announcements");
    let after = reserved_kib(&target);
    assert!(after < before + 200_000, "{before} KiB have become {after}");
    drop(announced);
    drop(stream);
    target.still_serves("their end");
}

/// The virtual memory of the node's process: reserved memory counts, touched or not.
fn reserved_kib(target: &Target) -> u64 {
    let pid = get(&target.endpoint, "/healthz").json()["pid"].as_u64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
