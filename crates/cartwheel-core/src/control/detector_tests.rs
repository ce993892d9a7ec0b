//! The failure detector among several controls: what nodes think of each other under deaths, restarts, pauses, cuts and
//! delays.

use std::collections::{BTreeMap, BTreeSet};

use super::swim::{Identity, Packet};
use super::*;
use crate::cluster::liveness::{PeerStatus, Status, Why};
use crate::cluster::membership::{ChangeKind, Member, Strategy};
use crate::ring::Partitions;
use crate::value::hlc::{Hlc, WallMs};

const CLUSTER: ClusterId = ClusterId(7);
/// How long a message takes, one way.
const DELAY_MS: u64 = 5;

fn id(node: usize) -> NodeId {
    NodeId::of_name(&format!("node-{node}"))
}

fn bootstrap(nodes: usize) -> History {
    let member = |node: usize| Member {
        zone: "z".to_owned(),
        host: format!("h{node}"),
        ..Member::new(&format!("node-{node}"), Incarnation(node as u64))
    };
    let members: Vec<_> = (0..nodes).map(member).collect();
    let (mut history, partitions) = (History::new(), Partitions::new(8).unwrap());
    let found = ChangeKind::Bootstrap {
        cluster: CLUSTER,
        partitions,
        strategy: Strategy::Balanced,
        members,
        name: String::new(),
    };
    history.record(Hlc::at(WallMs(1)), id(0), found);
    history
}

/// Controls in simulated time. Links have delays and can be cut in one direction.
struct Lan {
    controls: Vec<Option<Control>>,
    boots: Vec<u32>,
    now_ms: u64,
    under_way: BTreeMap<(u64, u64), (usize, usize, Envelope)>,
    sent: u64,
    cuts: BTreeSet<(usize, usize)>,
    /// How long a node takes to process what has arrived.
    slow_ms: BTreeMap<usize, u64>,
    paused: BTreeSet<usize>,
}

impl Lan {
    fn new(nodes: usize) -> Self {
        let mut lan = Self {
            controls: (0..nodes).map(|_| None).collect(),
            boots: vec![0; nodes],
            now_ms: 0,
            under_way: BTreeMap::new(),
            sent: 0,
            cuts: BTreeSet::new(),
            slow_ms: BTreeMap::new(),
            paused: BTreeSet::new(),
        };
        (0..nodes).for_each(|node| lan.start(node));
        lan.pass(5_000);
        lan
    }

    fn start(&mut self, node: usize) {
        self.boots[node] += 1;
        let (incarnation, boot) = (Incarnation(node as u64), self.boots[node]);
        let seed = node as u64 + 100 * u64::from(boot);
        let config = ControlConfig {
            cluster: CLUSTER,
            node: id(node),
            incarnation,
            boot,
            seed,
            epoch: Epoch::FIRST,
            epoch_floor: Epoch::UNKNOWN,
            shards: 1,
            snapshot_after: SNAPSHOT_AFTER,
            broken: Broken::default(),
        };
        self.controls[node] = Control::new(config, bootstrap(self.controls.len()));
    }

    fn stop(&mut self, node: usize) {
        self.controls[node] = None;
    }

    fn input(&mut self, at: usize, input: ControlInput) {
        let now = Now { instant: Instant(self.now_ms * 1_000), wall: WallMs(self.now_ms) };
        let Some(control) = &mut self.controls[at] else { return };
        for (to, envelope) in control.step(now, input).sends {
            let to = (0..self.controls.len()).find(|&node| id(node) == to).unwrap();
            let delay = DELAY_MS + self.slow_ms.get(&to).unwrap_or(&0);
            self.sent += 1;
            self.under_way.insert((self.now_ms + delay, self.sent), (at, to, envelope));
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= self.now_ms) {
                let (from, to, envelope) = first.remove();
                if self.paused.contains(&to) {
                    // The socket keeps it.
                    self.sent += 1;
                    self.under_way.insert((self.now_ms + 1, self.sent), (from, to, envelope));
                } else if !self.cuts.contains(&(from, to)) {
                    self.input(to, ControlInput::Message(Box::new(envelope)));
                }
            }
            for node in 0..self.controls.len() {
                if self.now_ms.is_multiple_of(10) && !self.paused.contains(&node) {
                    self.input(node, ControlInput::Tick);
                }
            }
        }
    }

    /// Delivers a packet to a node, as if its source had sent it.
    fn deliver(&mut self, to: usize, packet: &Packet) {
        let Identity { node, incarnation, boot, .. } = packet.header.src;
        let message = Message::Notice(Notice::Swim(packet.encode().into()));
        let envelope = Envelope {
            cluster: CLUSTER,
            from: node,
            from_incarnation: incarnation,
            from_boot: boot,
            sent: Now { wall: WallMs(1), ..Now::default() },
            config_stamp: crate::cluster::configuration::ConfigStamp::default(),
            losses: crate::cluster::losses::Losses::NONE,
            trace: None,
            message,
        };
        self.input(to, ControlInput::Message(Box::new(envelope)));
    }

    fn peer_status(&self, at: usize, of: usize) -> PeerStatus {
        *self.controls[at].as_ref().unwrap().liveness().get(id(of)).unwrap()
    }

    fn status(&self, at: usize, of: usize) -> Status {
        self.peer_status(at, of).status
    }

    /// The statuses of `of` that `at` sees while time passes.
    fn watch(&mut self, ms: u64, at: usize, of: usize) -> BTreeSet<Status> {
        let mut seen = BTreeSet::new();
        for _ in 0..ms / 10 {
            self.pass(10);
            seen.insert(self.status(at, of));
        }
        seen
    }

    fn cut(&mut self, one: usize, other: usize) {
        self.cuts.extend([(one, other), (other, one)]);
    }

    fn assert_all_alive(&self) {
        for at in 0..self.controls.len() {
            for of in (0..self.controls.len()).filter(|&of| of != at) {
                assert_eq!(self.status(at, of), Status::Alive, "{at} of {of}: {:?}", self.peer_status(at, of));
            }
        }
    }
}

#[test]
fn a_quiet_cluster_is_alive_and_stays_so() {
    let mut lan = Lan::new(5);
    lan.assert_all_alive();
    assert_eq!(lan.peer_status(0, 1).why, Why::Heard);
    for _ in 0..60 {
        lan.pass(1_000);
        lan.assert_all_alive();
    }
}

#[test]
fn a_dead_node_is_suspect_then_down_and_alive_again_when_it_starts() {
    let mut lan = Lan::new(5);
    lan.stop(4);
    // Each of four others probes in turn, and a probe takes a second to fail; the first node to find out tells the
    // rest.
    lan.pass(6_000);
    assert!((0..4).all(|at| lan.status(at, 4) != Status::Alive));
    lan.pass(6_000);
    for at in 0..4 {
        let peer_status = lan.peer_status(at, 4);
        assert_eq!(peer_status.status, Status::Down, "{at}: {peer_status:?}");
        assert!(matches!(peer_status.why, Why::SuspicionConfirmed | Why::DeclaredDownByOthers));
    }
    lan.pass(60_000);
    assert!((0..4).all(|at| lan.status(at, 4) == Status::Down));
    lan.start(4);
    lan.pass(2_000);
    lan.assert_all_alive();
}

#[test]
fn an_unnoticed_restart_leaves_no_trace() {
    let mut lan = Lan::new(3);
    lan.stop(2);
    lan.start(2);
    assert_eq!(lan.watch(20_000, 0, 2), BTreeSet::from([Status::Alive]));
    lan.assert_all_alive();
}

#[test]
fn a_node_that_missed_a_restart_learns_of_it_when_it_probes_the_old_boot() {
    for unlucky in 1..5 {
        let mut lan = Lan::new(5);
        lan.cuts.insert((0, unlucky));
        lan.stop(0);
        lan.start(0);
        lan.pass(200);
        lan.cuts.clear();
        assert!(!lan.watch(10_000, unlucky, 0).contains(&Status::Down), "{unlucky}");
        lan.assert_all_alive();
    }
}

#[test]
fn a_node_cannot_invent_another_node_or_its_boot() {
    let mut lan = Lan::new(3);
    let header = foca::Header {
        src: Identity { boot: 1, ..Identity::unheard(id(2), 0, Incarnation(2)) },
        src_incarnation: 0,
        dst: Identity { boot: 1, ..Identity::unheard(id(0), 0, Incarnation(0)) },
        message: foca::Message::Gossip,
    };
    let later = Identity { boot: 9, ..Identity::unheard(id(1), 0, Incarnation(1)) };
    let stranger = Identity { boot: 1, ..Identity::unheard(id(7), 0, Incarnation(7)) };
    lan.deliver(0, &Packet { header, updates: vec![foca::Member::alive(later), foca::Member::alive(stranger)] });
    assert_eq!(lan.watch(20_000, 0, 1), BTreeSet::from([Status::Alive]));
    assert_eq!(lan.controls[0].as_ref().unwrap().liveness().iter().count(), 2);
}

#[test]
fn two_processes_with_one_id_cause_no_message_storm() {
    let mut lan = Lan::new(3);
    // A second process of node 2, with a later boot.
    let header = foca::Header {
        src: Identity { boot: 9, ..Identity::unheard(id(2), 0, Incarnation(2)) },
        src_incarnation: 0,
        dst: Identity { boot: 1, ..Identity::unheard(id(0), 0, Incarnation(0)) },
        message: foca::Message::Announce,
    };
    lan.deliver(0, &Packet { header, updates: vec![] });
    let before = lan.sent;
    lan.pass(10_000);
    let sent = lan.sent - before;
    assert!(sent < 500, "{sent} messages in 10 s among 3 nodes");
}

#[test]
fn a_node_that_was_never_there_is_down() {
    let mut lan = Lan::new(3);
    lan.stop(2);
    lan.stop(1);
    lan.stop(0);
    lan.start(0);
    lan.start(1);
    lan.pass(12_000);
    assert_eq!((lan.status(0, 1), lan.status(0, 2)), (Status::Alive, Status::Down));
}

#[test]
fn a_paused_node_is_down_and_returns_without_suspecting_others() {
    let mut lan = Lan::new(5);
    // In some rounds it is waiting for a response when it is paused.
    lan.slow_ms.insert(4, 250);
    for _ in 0..8 {
        lan.pass(60_130);
        returns_without_suspecting_others(&mut lan);
    }
}

fn returns_without_suspecting_others(lan: &mut Lan) {
    lan.paused.insert(4);
    lan.pass(20_000);
    assert!((0..4).all(|at| lan.status(at, 4) == Status::Down));
    // Its timers run before it reads its sockets.
    lan.paused.remove(&4);
    lan.input(4, ControlInput::Tick);
    for _ in 0..1_000 {
        assert!((0..4).all(|of| lan.status(4, of) == Status::Alive), "it was paused itself");
        lan.pass(10);
    }
    lan.assert_all_alive();
}

#[test]
fn a_link_cut_in_one_direction_makes_suspect_not_down() {
    let mut lan = Lan::new(5);
    lan.cuts.insert((0, 1));
    lan.pass(10_000);
    for _ in 0..60 {
        lan.pass(1_000);
        let peer_status = lan.peer_status(0, 1);
        assert_eq!((peer_status.status, peer_status.why), (Status::Suspect, Why::OnlyOthersReachIt));
        assert!((2..5).all(|at| lan.status(at, 0) == Status::Alive && lan.status(at, 1) == Status::Alive));
        // None of its own probes is answered either, because its probes or their responses do not arrive.
        assert_ne!(lan.status(1, 0), Status::Down);
    }
    lan.cuts.clear();
    lan.pass(30_000);
    lan.assert_all_alive();
}

#[test]
fn a_node_that_hears_no_others_is_down_though_it_sends() {
    let mut lan = Lan::new(5);
    lan.cuts.extend((0..4).map(|from| (from, 4)));
    lan.pass(15_000);
    assert!((0..4).all(|at| lan.status(at, 4) == Status::Down), "{:?}", lan.peer_status(0, 4));
    assert!((0..4).all(|of| lan.status(4, of) == Status::Down), "{:?}", lan.peer_status(4, 0));
    lan.cuts.clear();
    lan.pass(20_000);
    lan.assert_all_alive();
}

#[test]
fn a_slow_node_is_suspect_again_and_again_and_never_down() {
    let mut lan = Lan::new(5);
    for slow_ms in [1_500, 3_500] {
        lan.slow_ms.insert(4, slow_ms);
        let mut seen = BTreeSet::new();
        for _ in 0..90 {
            seen.extend(lan.watch(1_000, 0, 4));
            assert!((0..4).all(|at| lan.status(at, 4) != Status::Down), "{slow_ms} ms: {:?}", lan.peer_status(0, 4));
        }
        assert!(seen.contains(&Status::Suspect));
        lan.slow_ms.clear();
        lan.pass(40_000);
        lan.assert_all_alive();
    }
}

#[test]
fn a_lost_connection_makes_suspect_at_once_and_not_down() {
    let mut lan = Lan::new(3);
    lan.input(0, ControlInput::Unreachable(id(1)));
    let peer_status = lan.peer_status(0, 1);
    assert_eq!((peer_status.status, peer_status.why), (Status::Suspect, Why::ConnectionLost));
    lan.pass(10_000);
    assert_eq!(lan.status(0, 1), Status::Suspect);
    lan.input(0, ControlInput::Reachable(id(1)));
    assert_eq!(lan.status(0, 1), Status::Alive);
    // Nothing is kept about a non-member.
    lan.input(0, ControlInput::Unreachable(NodeId::new(99)));
    assert_eq!(lan.controls[0].as_ref().unwrap().liveness().iter().count(), 2);
}

#[test]
fn nodes_find_each_other_again_after_each_was_cut_off_alone() {
    for nodes in [2, 3, 5] {
        let mut lan = Lan::new(nodes);
        for one in 0..nodes {
            (0..one).for_each(|other| lan.cut(one, other));
        }
        lan.pass(60_000);
        assert_eq!(lan.status(0, 1), Status::Down, "{nodes} nodes");
        lan.cuts.clear();
        lan.pass(10_000);
        lan.assert_all_alive();
    }
}

#[test]
fn a_cut_in_the_middle_heals() {
    let mut lan = Lan::new(6);
    for one in 0..3 {
        (3..6).for_each(|other| lan.cut(one, other));
    }
    lan.pass(30_000);
    assert_eq!((lan.status(0, 1), lan.status(0, 4)), (Status::Alive, Status::Down));
    lan.cuts.clear();
    lan.pass(10_000);
    lan.assert_all_alive();
}

#[test]
fn one_seed_is_one_run() {
    let run = || {
        let mut lan = Lan::new(5);
        lan.cut(0, 1);
        lan.stop(3);
        lan.pass(20_000);
        lan.start(3);
        lan.cuts.clear();
        lan.pass(3_000);
        (lan.sent, lan.under_way)
    };
    assert_eq!(run(), run());
}
