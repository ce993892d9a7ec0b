//! A node for the tests of its API servers.

use std::sync::{Arc, LazyLock, Mutex};

use cartwheel_core::cluster::liveness::{PeerStatus, Status, Why};
use cartwheel_core::message::Envelope;
use cartwheel_core::message::client::Outcome;
use cartwheel_core::node::{Effects, Input};
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::time::Now;
use cartwheel_storage::MemoryStore;

use super::*;
use crate::control_queue;
use crate::lifecycle::bootstrap::{self, Ports};
use crate::os::clock::Clock;
use crate::shard::{self, Machine, Outgoing, ShardMetrics};

/// Gives every request the same response and keeps the last request.
pub(crate) struct Fixed(pub(crate) Outcome, pub(crate) Arc<Mutex<Option<Request>>>);

impl Machine for Fixed {
    fn step(&mut self, _now: Now, input: Input) -> Effects {
        let (id, request) = match input {
            Input::Client(id, request) => (id, request),
            Input::List(id, _) => {
                let lists = vec![(id, Err(Refusal::Overloaded))];
                return Effects { lists, ..Effects::default() };
            }
            _ => return Effects::default(),
        };
        *self.1.lock().unwrap() = Some(request);
        Effects { replies: vec![(id, self.0.clone())], ..Effects::default() }
    }
}

/// The cluster of [`backend_of`].
pub(crate) fn view() -> &'static View {
    static VIEW: LazyLock<View> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let nodes = bootstrap::open_or_bootstrap(&dir.path().join("d"), None, None, Ports::default()).unwrap();
        let identity = crate::data_dir::read_identity(&nodes[0].dir).unwrap();
        bootstrap::view_of(&identity, dir.path()).unwrap()
    });
    &VIEW
}

struct NoPeers;

impl Outgoing for NoPeers {
    fn send(&mut self, _to: NodeId, _messages: &[Envelope], _: Option<crate::data_dir::lineage::Mark>) {}
}

/// Node-1 of three, whose shard is `machine`, and what sets its readiness.
pub(crate) fn backend_of(machine: impl Machine) -> (Backend, watch::Sender<Readiness>) {
    let dir = tempfile::tempdir().unwrap();
    let nodes = bootstrap::open_or_bootstrap(&dir.path().join("d"), None, None, Ports::default()).unwrap();
    let identity = crate::data_dir::read_identity(&nodes[0].dir).unwrap();
    let view = Arc::new(bootstrap::view_of(&identity, dir.path()).unwrap());
    let counted = ShardMetrics::default();
    let (shard, inbox) = shard::counted_inbox(&counted, &shard::Watching::default()).unwrap();
    let disk = shard::disk::Disk::of_memory(Box::<MemoryStore>::default());
    shard::start(0, machine, disk, NoPeers, inbox, Clock::start()).unwrap();
    let (states, readiness) = watch::channel(Readiness::Ready);
    let member = &nodes[0].member;
    let local = LocalNode {
        cluster: identity.cluster,
        cluster_name: String::new(),
        node: member.id,
        name: identity.name,
        incarnation: identity.incarnation,
        boot: 1,
        lineage: identity.lineage,
        opens: false,
        peer_addr: member.peer_addr.clone(),
        http_addr: member.http_addr.clone(),
        tls: crate::tls::PeerSide::default(),
    };
    let board = Board::default();
    let metrics = Metrics::new(vec![shard.clone()], &counted, &Default::default(), board.clone());
    let shards = Shards::new(vec![shard], view.ring.partitions());
    let (control, _) = control_queue::inbox();
    let first = |partition| ConfigPhase::Stable(view.first_configuration(partition));
    let phases = watch::channel(Arc::new(view.ring.partitions().iter().map(first).collect())).1;
    let (_views, view) = watch::channel(view);
    let access = Access::new(view.clone(), false, crate::access::Audit::none(), metrics.access.clone()).unwrap();
    let gone = PeerStatus { status: Status::Down, since: WallMs(1_700_000_000_123), why: Why::SuspicionConfirmed };
    let (_verdicts, liveness) = watch::channel(Arc::new(Liveness::new([(NodeId::of_name("node-3"), gone)])));
    let waits_for = vec![NodeId::of_name("node-2")];
    let upgrade = UpgradeStatus { waits_for, ..UpgradeStatus::default() };
    (
        Backend {
            local,
            shards,
            control,
            view,
            liveness,
            epochs: watch::channel(EpochStatus::default()).1,
            upgrade: watch::channel(upgrade).1,
            phases,
            history: watch::channel(Arc::default()).1,
            waiting: Waiting::default(),
            durability: Default::default(),
            readiness,
            board,
            access,
            metrics,
            drain: Drain::default(),
            disk: DataDisk::new(std::env::temp_dir(), 0),
            settings: Vec::new(),
            tracer: crate::trace::Tracer::default(),
            connections_max: 100,
        },
        states,
    )
}
