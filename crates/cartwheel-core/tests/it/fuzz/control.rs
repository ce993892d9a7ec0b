//! Controls that get nonsense about their cluster, from a non-member and from a faulty member: no acknowledged change
//! is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::{ChangeKind, History, SettingsPatch};
use cartwheel_core::cluster::sizes::NodeSizes;
use cartwheel_core::control::{
    Control, ControlConfig, ControlEffects, ControlInput, SNAPSHOT_AFTER, SettingsChange, Survey, Surveyed,
};
use cartwheel_core::message::client::ClientId;
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::mutation::Broken;
use cartwheel_core::store::command::WriteFailed;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::wire;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::arbitrary::{Spoil, cases, spoils, spoilt};
use super::net::{BOOT, CLUSTER, envelope, history, id};
use super::notices::notice;

/// How many inputs one message of the faulty member may cause, over all nodes.
const ECHOES_MAX: usize = 200;
const TIMEOUT: Duration = Duration::from_secs(3);

/// Three controls, and what each has saved.
struct Mesh {
    controls: BTreeMap<NodeId, Control>,
    files: BTreeMap<NodeId, Bytes>,
    now_ms: u64,
    /// Whether the shards answer inquiries, and whether saving works.
    shards_say: bool,
    saves: bool,
    asked: BTreeMap<ClientId, (NodeId, SettingsChange)>,
    answered: BTreeMap<ClientId, u32>,
    /// The changes of settings that were acknowledged to clients of each node.
    acknowledged: Vec<(NodeId, SettingsChange)>,
    surveyed: Vec<Surveyed>,
}

fn control(node: NodeId, boot: u32, saved: History) -> Control {
    let number = (1..=3).find(|&number| id(number) == node).expect("one of three");
    let config = ControlConfig {
        cluster: CLUSTER,
        node,
        incarnation: Incarnation(number as u64),
        boot,
        seed: node.get() ^ u64::from(boot),
        epoch: Epoch::FIRST,
        epoch_floor: Epoch::UNKNOWN,
        shards: 1,
        snapshot_after: SNAPSHOT_AFTER,
        broken: Broken::default(),
    };
    Control::new(config, saved).expect("a history with its bootstrap")
}

impl Mesh {
    fn new() -> Self {
        let ids = || (1..=3).map(id);
        Self {
            controls: ids().map(|node| (node, control(node, BOOT, history()))).collect(),
            files: ids().map(|node| (node, history().encode())).collect(),
            now_ms: 1_000,
            shards_say: true,
            saves: true,
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            acknowledged: Vec::new(),
            surveyed: Vec::new(),
        }
    }

    /// Gives a node an input, and all nodes the inputs that follow from it.
    fn input(&mut self, node: NodeId, input: ControlInput) {
        let mut inputs = VecDeque::from([(node, input)]);
        let mut count = 0;
        while let Some((node, input)) = inputs.pop_front() {
            count += 1;
            assert!(count < ECHOES_MAX, "the controls never stop talking");
            inputs.extend(self.step(node, input));
        }
    }

    fn step(&mut self, node: NodeId, input: ControlInput) -> Vec<(NodeId, ControlInput)> {
        let now = Now { instant: Instant(self.now_ms * 1_000), wall: WallMs(self.now_ms) };
        let control = self.controls.get_mut(&node).expect("one of three");
        let before = control.history().clone();
        let ControlEffects { sends, replies, save, inquiries, surveyed, .. } = control.step(now, input);
        self.surveyed.extend(surveyed.into_iter().map(|(_, surveyed)| surveyed));
        assert!(before.is_within(control.history()), "a change is lost");
        // There is no verdict on a node that is not a member, whatever others report about it.
        let members = control.view().members().count();
        assert!(control.liveness().iter().count() <= members, "{:?}", control.liveness());
        for (client, reply) in replies {
            *self.answered.entry(client).or_default() += 1;
            if reply.is_ok() {
                self.acknowledged.push(self.asked[&client].clone());
            }
        }
        let mut follow = Vec::new();
        for (to, sent) in sends {
            // A node sends only what a node can decode.
            let arrived =
                wire::decode_envelope(wire::encode_envelope(&sent)).expect("a node sends what can be decoded");
            if self.controls.contains_key(&to) {
                follow.push((to, ControlInput::Message(Box::new(arrived))));
            }
        }
        if let Some(history) = save {
            if self.saves {
                self.files.insert(node, history);
            }
            let result = if self.saves { Ok(()) } else { Err(WriteFailed::Uncertain) };
            follow.push((node, ControlInput::Saved(result)));
        }
        let report = || self.shards_say.then(NodeSizes::default);
        follow.extend(inquiries.iter().map(|inquiry| (node, ControlInput::Report(inquiry.id, report()))));
        follow
    }

    /// A node asks another how much it holds.
    fn survey(&mut self, node: NodeId, of: NodeId) {
        let survey = Survey { of: BTreeMap::from([(of, BTreeSet::new())]), timeout: Duration::from_secs(1) };
        self.input(node, ControlInput::Survey(ClientId(0), survey));
    }

    fn change(&mut self, node: NodeId, settings: SettingsPatch) {
        let client = ClientId(self.asked.len() as u64 + 1);
        let change = SettingsChange { bucket: Bytes::from_static(b"carts"), settings, empties: None, timeout: TIMEOUT };
        self.asked.insert(client, (node, change.clone()));
        self.input(node, ControlInput::Change(client, change));
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(250) {
            self.now_ms += 250;
            (1..=3).for_each(|node| self.input(id(node), ControlInput::Tick));
        }
    }

    /// A node loses all but its file.
    fn crash(&mut self, node: NodeId) {
        let saved = History::decode(&self.files[&node]).expect("it was encoded");
        let boot = BOOT + 1 + self.asked.len() as u32;
        self.controls.insert(node, control(node, boot, saved));
        // Its clients get no reply.
        for (client, (at, _)) in &self.asked {
            if *at == node {
                self.answered.entry(*client).or_insert(1);
            }
        }
    }

    /// Each change that was acknowledged is in its node's history, even after a crash.
    fn assert_nothing_acknowledged_is_lost(&mut self) {
        (1..=3).for_each(|node| self.crash(id(node)));
        for (node, SettingsChange { bucket, settings, .. }) in &self.acknowledged {
            let mut changes = self.controls[node].history().changes();
            let made = ChangeKind::Bucket { name: bucket.clone(), settings: *settings };
            assert!(changes.any(|change| change.what == made), "{settings:?} is gone");
        }
    }
}

/// Settings that identify the change that made them.
fn settings(number: usize, with_n: bool) -> SettingsPatch {
    let n = with_n.then_some((4 + number % 5) as u8);
    SettingsPatch { n, n_by_versions: with_n, max_value_bytes: Some(1_000 + number as u32), ..SettingsPatch::default() }
}

/// An event of a run.
#[derive(Clone, Debug)]
enum Act {
    /// The third node, which is faulty, sends a message to one of the others.
    Says(usize, Box<Message>),
    /// It sends an earlier message again, with some bytes changed.
    Distorts(Index, Vec<Spoil>),
    /// A client of a node changes settings, with n or without.
    Client(usize, bool),
    /// Whether the shards answer from now on, and whether files can be written.
    Turns(bool, bool),
    /// A node crashes and restarts.
    Crashes(usize),
    /// A connection breaks or is made.
    Connects(usize, usize, bool),
    /// Time passes, in milliseconds.
    Passes(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let says = || notice().prop_map(|notice| Box::new(Message::Notice(notice)));
    prop_oneof![
        6 => (1usize..=2, says()).prop_map(|(to, message)| Act::Says(to, message)),
        3 => (any::<Index>(), spoils()).prop_map(|(which, spoils)| Act::Distorts(which, spoils)),
        4 => (1usize..=2, any::<bool>()).prop_map(|(at, with_n)| Act::Client(at, with_n)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(shards_say, saves)| Act::Turns(shards_say, saves)),
        1 => (1usize..=2).prop_map(Act::Crashes),
        1 => (1usize..=2, 1usize..6, any::<bool>()).prop_map(|(at, to, comes)| Act::Connects(at, to, comes)),
        2 => (0u64..2_000).prop_map(Act::Passes),
    ]
}

fn does(mesh: &mut Mesh, said: &mut Vec<(usize, Envelope)>, act: Act) {
    let hear = |mesh: &mut Mesh, to, heard| mesh.input(id(to), ControlInput::Message(Box::new(heard)));
    match act {
        Act::Says(to, message) => {
            let says = envelope(CLUSTER, id(3), *message);
            said.push((to, says.clone()));
            hear(mesh, to, says);
        }
        Act::Distorts(which, spoils) if !said.is_empty() => {
            let (to, before) = said[which.index(said.len())].clone();
            if let Ok(distorted) = wire::decode_envelope(spoilt(&wire::encode_envelope(&before), &spoils)) {
                hear(mesh, to, distorted);
            }
        }
        Act::Distorts(..) => {}
        Act::Client(at, with_n) => mesh.change(id(at), settings(mesh.asked.len(), with_n)),
        Act::Turns(shards_say, saves) => (mesh.shards_say, mesh.saves) = (shards_say, saves),
        Act::Crashes(node) => mesh.crash(id(node)),
        Act::Connects(at, to, true) => mesh.input(id(at), ControlInput::Reachable(id(to))),
        Act::Connects(at, to, false) => mesh.input(id(at), ControlInput::Unreachable(id(to))),
        Act::Passes(ms) => mesh.pass(ms),
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_faulty_member_takes_no_change_back(acts in vec(act(), 1..40)) {
        let (mut mesh, mut said) = (Mesh::new(), Vec::new());
        acts.into_iter().for_each(|act| does(&mut mesh, &mut said, act));
        mesh.pass(5_000);
        for client in mesh.asked.keys() {
            prop_assert_eq!(mesh.answered.get(client), Some(&1), "{:?} of {:?}", client, mesh.asked[client]);
        }
        mesh.assert_nothing_acknowledged_is_lost();
    }

    #[test]
    fn a_non_member_is_not_heard(
        said in vec((1usize..=3, notice(), any::<bool>()), 1..10),
    ) {
        let mut mesh = Mesh::new();
        for (to, notice, is_of_another_cluster) in said {
            let message = Message::Notice(notice);
            let stranger = match is_of_another_cluster {
                true => envelope(ClusterId(2), id(3), message),
                false => envelope(CLUSTER, id(4), message),
            };
            // At its first step it gossips anyway.
            mesh.input(id(to), ControlInput::Tick);
            let follow = mesh.step(id(to), ControlInput::Message(Box::new(stranger)));
            prop_assert!(follow.is_empty(), "{:?}", follow);
        }
        prop_assert!(mesh.controls.values().all(|control| *control.history() == history()));
    }
}

/// Once its shards can answer again, a node answers, however many inquiries they could not answer before.
#[test]
fn inquiries_that_could_not_be_answered_are_not_kept() {
    let mut mesh = Mesh::new();
    mesh.shards_say = false;
    for _ in 0..60 {
        (0..10).for_each(|_| mesh.survey(id(1), id(2)));
        mesh.pass(4_000);
    }
    assert!(mesh.surveyed.iter().all(Surveyed::is_empty) && mesh.surveyed.len() == 600);
    mesh.shards_say = true;
    mesh.survey(id(1), id(2));
    assert!(mesh.surveyed.last().is_some_and(|surveyed| surveyed.contains_key(&id(2))));
}
