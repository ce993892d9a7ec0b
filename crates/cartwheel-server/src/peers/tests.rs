use std::sync::atomic::Ordering;
use std::time::Duration;

use cartwheel_core::cluster::membership::{ChangeKind, History, Member, Strategy, View};
use cartwheel_core::message::{Message, ReplicaResponse, RequestId, Requester};
use cartwheel_core::node::{Effects, Input};
use cartwheel_core::ring::Partitions;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::time::Now;
use cartwheel_core::wire::{PROTOCOL_VERSION, Protocol, Spoken};
use cartwheel_storage::MemoryStore;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;
use crate::control_queue;
use crate::data_dir::lineage::Lineage;
use crate::os::clock::Clock;
use crate::shard::{self, Machine, Shards};
use crate::tls::{NetStream, PeerSide};

fn local(name: &str, cluster: u128) -> LocalNode {
    let node = NodeId::of_name(name);
    let (name, incarnation, lineage) = (name.to_owned(), Incarnation(1), Lineage::default());
    let (peer_addr, http_addr) = (String::new(), String::new());
    let (cluster, cluster_name) = (ClusterId(cluster), String::new());
    let (opens, tls) = (false, PeerSide::default());
    LocalNode { cluster, cluster_name, node, name, incarnation, boot: 1, lineage, opens, peer_addr, http_addr, tls }
}

fn message(from: &LocalNode, operation: u64) -> Envelope {
    Envelope {
        cluster: from.cluster,
        from: from.node,
        from_incarnation: from.incarnation,
        from_boot: from.boot,
        sent: Now { wall: WallMs(0), ..Now::default() },
        config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
        losses: cartwheel_core::cluster::losses::Losses::NONE,
        trace: None,
        message: Message::Response(
            RequestId { requester: Requester::Coordinator, operation, round: 0 },
            ReplicaResponse::Stored,
        ),
    }
}

/// Forwards the operation number of each message it receives.
struct Ear(mpsc::UnboundedSender<u64>);

impl Machine for Ear {
    fn step(&mut self, _now: Now, input: Input) -> Effects {
        if let Input::Message(Envelope { message: Message::Response(request_id, _), .. }) = input {
            let _ = self.0.send(request_id.operation);
        }
        Effects::default()
    }
}

/// A listening node: what it receives, its address, and what stops it.
struct Listening {
    received: mpsc::UnboundedReceiver<u64>,
    peer: Peer,
    stop: watch::Sender<bool>,
}

/// A node of one shard that forwards what it receives.
fn ear(received: mpsc::UnboundedSender<u64>) -> Inbound {
    let (handle, inbox) = shard::inbox();
    let (_, stop) = watch::channel(true);
    let outgoing = Arc::new(Peers::dial(&local("ear", 1), [], &KnownPeers::default(), &stop, Vec::new()));
    let disk = shard::disk::Disk::of_memory(Box::<MemoryStore>::default());
    shard::start(0, Ear(received), disk, outgoing.of_shard(0), inbox, Clock::start()).unwrap();
    let (control, _) = control_queue::inbox();
    Inbound { shards: Shards::new(vec![handle], Partitions::default()), control }
}

/// Listens on `addr`, which a stopped listener may still hold for a moment.
async fn bound(addr: &str) -> TcpListener {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(addr).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("cannot listen on {addr}");
}

async fn listening(node: &LocalNode, addr: &str) -> Listening {
    let listener = bound(addr).await;
    let (heard_sender, received) = mpsc::unbounded_channel();
    let inbound = ear(heard_sender);
    let (stop, stopped) = watch::channel(false);
    let peer = Peer { node: node.node, name: node.name.clone(), addr: listener.local_addr().unwrap().to_string() };
    tokio::spawn(listen(node.clone(), listener, 100, inbound, Board::default(), KnownPeers::default(), stopped));
    Listening { received, peer, stop }
}

async fn connected(peers: &Peers) -> bool {
    for (_, mut connection) in peers.connections() {
        let wait = connection.wait_for(|connected| *connected);
        if tokio::time::timeout(Duration::from_millis(1_500), wait).await.is_err() {
            return false;
        }
    }
    true
}

async fn next_message(listening: &mut Listening) -> Option<u64> {
    tokio::time::timeout(Duration::from_secs(5), listening.received.recv()).await.ok().flatten()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_and_again_after_a_reconnect() {
    let (a, b) = (local("a", 1), local("b", 1));
    let mut there = listening(&b, "127.0.0.1:0").await;
    let (_stop, stopped) = watch::channel(false);
    let peers = Peers::dial(&a, [there.peer.clone()], &KnownPeers::default(), &stopped, Vec::new());
    assert!(connected(&peers).await);
    for operation in 0..1_000 {
        peers.send(b.node, &[message(&a, operation), message(&a, operation + 10_000)]);
    }
    for operation in 0..1_000 {
        assert_eq!(next_message(&mut there).await, Some(operation));
        assert_eq!(next_message(&mut there).await, Some(operation + 10_000));
    }

    there.stop.send_replace(true);
    let mut link = peers.connections().remove(0).1;
    link.wait_for(|connected| !connected).await.unwrap();
    peers.send(b.node, &[message(&a, 77)]);
    let mut again = listening(&b, &there.peer.addr).await;
    assert!(connected(&peers).await);
    peers.send(b.node, &[message(&a, 78)]);
    assert_eq!(next_message(&mut again).await, Some(78), "messages sent without a connection are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_of_one_cluster_talk() {
    let mut there = listening(&local("b", 1), "127.0.0.1:0").await;
    let (_stop, stopped) = watch::channel(false);
    let stranger = Peers::dial(&local("a", 2), [there.peer.clone()], &KnownPeers::default(), &stopped, Vec::new());
    assert!(!connected(&stranger).await, "another cluster");
    let elsewhere = Peer { node: NodeId::of_name("c"), ..there.peer.clone() };
    assert!(
        !connected(&Peers::dial(&local("a", 1), [elsewhere], &KnownPeers::default(), &stopped, Vec::new())).await,
        "another node"
    );

    let peers = Peers::dial(&local("a", 1), [there.peer.clone()], &KnownPeers::default(), &stopped, Vec::new());
    assert!(connected(&peers).await);
    peers.send(there.peer.node, &[message(&local("someone-else", 1), 1)]);
    peers.send(there.peer.node, &[message(&local("a", 1), 2)]);
    assert!(tokio::time::timeout(Duration::from_millis(500), there.received.recv()).await.is_err(), "a borrowed name");
}

#[tokio::test]
async fn refusals_state_the_reason() {
    async fn handshake(caller: LocalNode, to: &str, callee: LocalNode) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut calling = NetStream::Plain(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let mut far_end = NetStream::Plain(listener.accept().await.unwrap().0);
        let (to, none_known) = (NodeId::of_name(to), KnownPeers::default());
        let (called, accepted) = tokio::join!(
            hello::call(&mut calling, &caller, None, to, &none_known),
            hello::accept(&mut far_end, &callee, &none_known)
        );
        let text = |result: Result<(hello::Remote, Protocol), HelloError>| {
            result.map_or_else(|e| e.to_string(), |(r, _)| r.name)
        };
        (text(called), text(accepted))
    }

    assert_eq!(handshake(local("a", 1), "b", local("b", 1)).await, ("b".to_owned(), "a".to_owned()));
    let (called, accepted) = handshake(local("a", 1), "b", local("b", 2)).await;
    assert!(
        called.contains("b belongs to cluster 0000") && accepted.contains("a there belongs to cluster"),
        "{called}"
    );
    let (called, accepted) = handshake(local("a", 1), "b", local("c", 1)).await;
    assert!(called.contains("c listens there") && accepted.contains("c listens there"), "{called} {accepted}");
}

#[tokio::test]
async fn other_programs_are_refused() {
    let malformed = [&b"\0\0\0\x0ecartwheel"[..], &PROTOCOL_VERSION.to_be_bytes(), b"\xff"].concat();
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "no cartwheel node listens there"),
        (b"\0\0\0\0", "no cartwheel node listens there"),
        (b"\0\0\0\x0dcartwheel\0\0\0\x09", "it speaks protocol version 9"),
        (&malformed, "its hello is malformed"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut calling = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut far_end = NetStream::Plain(listener.accept().await.unwrap().0);
        calling.write_all(bytes).await.unwrap();
        let error = hello::accept(&mut far_end, &local("b", 1), &KnownPeers::default()).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_board_shows_connections_and_traffic() {
    let (a, b) = (local("a", 1), LocalNode { boot: 7, ..local("b", 1) });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (_stop, stopped) = watch::channel(false);
    let peer = Peer { node: b.node, name: b.name.clone(), addr: addr.clone() };
    let peers = Peers::dial(&a, [peer.clone()], &KnownPeers::default(), &stopped, Vec::new());
    let (board, mut link) = (peers.board(), peers.connections().remove(0).1);
    let b_of_a = board.get(b.node).unwrap();
    peers.send(b.node, &[message(&a, 1), message(&a, 2)]);
    assert_eq!(b_of_a.dropped.load(Ordering::Relaxed), 2);
    while b_of_a.link().last_error.is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let link_state = b_of_a.link();
    assert!(!link_state.connected && link_state.last_error.unwrap().starts_with("it cannot be reached: "));

    // The listening node has a board of its own with `a` on it.
    let listener = TcpListener::bind(&addr).await.unwrap();
    let board_of_b = Board::of([&Peer { node: a.node, name: a.name.clone(), addr: String::new() }]);
    let (heard_sender, mut received) = mpsc::unbounded_channel();
    let (stop_b, stopped_b) = watch::channel(false);
    tokio::spawn(listen(
        b.clone(),
        listener,
        100,
        ear(heard_sender),
        board_of_b.clone(),
        KnownPeers::default(),
        stopped_b,
    ));
    link.wait_for(|connected| *connected).await.unwrap();
    let link_state = b_of_a.link();
    assert_eq!((link_state.connected, link_state.last_error, link_state.boot), (true, None, Some(7)));
    assert_eq!(link_state.version.as_deref(), Some(crate::VERSION));
    assert_eq!((link_state.spoken, link_state.protocol), (Some(Spoken::BY_THIS_BUILD), Some(Protocol::NEWEST)));
    assert_eq!(b_of_a.connects.load(Ordering::Relaxed), 1);

    let a_of_b = board_of_b.get(a.node).unwrap();
    assert_eq!(a_of_b.clock_offset_ms(board_of_b.now()), None, "no message has arrived");
    let sent = Now { wall: WallMs(crate::os::clock::wall().0 + 60_000), ..Now::default() };
    peers.send(b.node, &[Envelope { sent, ..message(&a, 3) }, Envelope { sent, ..message(&a, 4) }]);
    for expected in [3, 4] {
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), received.recv()).await.unwrap(), Some(expected));
    }
    assert_eq!(a_of_b.received.messages.load(Ordering::Relaxed), 2);
    let bytes = a_of_b.received.bytes.load(Ordering::Relaxed);
    assert!(bytes > 0 && b_of_a.sent.bytes.load(Ordering::Relaxed) == bytes);
    assert_eq!(b_of_a.sent.messages.load(Ordering::Relaxed), 2);
    let offset_ms = a_of_b.clock_offset_ms(board_of_b.now()).unwrap();
    assert!((30_000..=60_100).contains(&offset_ms), "{offset_ms}");

    stop_b.send_replace(true);
    link.wait_for(|connected| !connected).await.unwrap();
    while b_of_a.link().connected {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(b_of_a.link().protocol, None);
}

/// A view of a cluster of `a` and `b`, `b` in one incarnation after the other.
fn view_of(incarnations_of_b: &[u64]) -> Arc<View> {
    let member = |name: &str, incarnation: u64| Member::new(name, Incarnation(incarnation));
    let members = vec![member("a", 1), member("b", incarnations_of_b[0])];
    let (partitions, strategy) = (Partitions::default(), Strategy::default());
    let found = ChangeKind::Bootstrap { cluster: ClusterId(1), partitions, strategy, members, name: String::new() };
    let (mut history, b) = (History::new(), NodeId::of_name("b"));
    history.record(Hlc::ZERO, b, found);
    for &incarnation in &incarnations_of_b[1..] {
        history.record(Hlc::ZERO, b, ChangeKind::Replace { old: b, new: member("b", incarnation) });
    }
    Arc::new(history.view().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_boots_and_old_incarnations_are_refused_with_the_reason() {
    let (a, b) = (local("a", 1), local("b", 1));
    let dir = tempfile::tempdir().unwrap();
    crate::lifecycle::bootstrap::open_or_bootstrap(
        &dir.path().join("d"),
        Some(1),
        None,
        crate::lifecycle::bootstrap::Ports::default(),
    )
    .unwrap();
    let data_dir = crate::data_dir::DataDir::open(&dir.path().join("d/node-1")).unwrap();
    let (views, view) = watch::channel(view_of(&[1]));
    let load = || KnownPeers::new(view.clone(), data_dir.seen_file(), data_dir.seen_file().load().unwrap());

    let listener = bound("127.0.0.1:0").await;
    let peer = Peer { node: a.node, name: a.name.clone(), addr: listener.local_addr().unwrap().to_string() };
    let (heard_sender, mut received) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(listen(a.clone(), listener, 100, ear(heard_sender), Board::default(), load(), stopped.clone()));
    let call = |boot: u32, incarnation: u64| {
        let (local, peers) = (LocalNode { boot, incarnation: Incarnation(incarnation), ..b.clone() }, [peer.clone()]);
        async move { introduce(&local, &peers, &KnownPeers::default()).await }
    };
    assert_eq!(call(7, 1).await, Ok(()));
    assert_eq!(call(6, 1).await, Err(Unwelcome::Retired(Retired::OldCopy)));
    assert_eq!(call(7, 1).await, Ok(()), "the same boot again");
    assert_eq!(call(1, 2).await, Ok(()), "an incarnation that the view does not know yet");
    assert_eq!(
        data_dir.seen_file().load().unwrap().get(&(b.node, Incarnation(1))).map(|known| known.boot),
        Some(7),
        "it outlives this node's own boot"
    );

    let known = KnownPeers::default();
    let peers = Peers::dial(&LocalNode { boot: 8, ..b.clone() }, [peer.clone()], &known, &stopped, Vec::new());
    assert!(connected(&peers).await);
    peers.send(a.node, &[message(&b, 1)]);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), received.recv()).await.unwrap(), Some(1));
    views.send_replace(view_of(&[1, 2]));
    let retired = tokio::time::timeout(Duration::from_secs(20), known.retired()).await;
    assert_eq!(retired, Ok(Retired::Replaced), "its connection is closed, and its next hello refused");
    assert_eq!(call(9, 1).await, Err(Unwelcome::Retired(Retired::Replaced)));
    assert_eq!(call(2, 2).await, Ok(()));
}

/// A listener that loses connection requests while none is accepted.
fn narrow() -> (TcpListener, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

#[tokio::test]
async fn a_connection_is_replaced_only_if_the_peer_could_not_be_reached_meanwhile() {
    let (listener, addr) = narrow();
    let (a, known) = (local("a", 1), KnownPeers::default());
    let peer = Peer { node: NodeId::of_name("b"), name: "b".to_owned(), addr: addr.clone() };
    let (_doubt, doubted) = watch::channel(true);
    let reached_twice = async {
        for _ in 0..2 {
            drop(listener.accept().await.unwrap());
        }
    };
    tokio::select! {
        error = outgoing::cut_healed(&a, &peer, &known, doubted.clone()) => panic!("it was never cut off: {error}"),
        () = reached_twice => {}
    }
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(&addr)).await {
        waiting.push(stream.unwrap());
    }
    let heals = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        loop {
            drop(listener.accept().await.unwrap());
        }
    };
    tokio::select! {
        _ = outgoing::cut_healed(&a, &peer, &known, doubted) => {}
        () = heals => {}
    }
}
