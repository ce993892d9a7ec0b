//! Controls that are told nonsense about their cluster, by a stranger and by a member gone mad.

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

/// How many inputs one message of a mad member may lead to, over all nodes.
const ECHOES_MAX: usize = 200;
const TIMEOUT: Duration = Duration::from_secs(3);

/// Three controls, and what each has saved.
struct Mesh {
    controls: BTreeMap<NodeId, Control>,
    files: BTreeMap<NodeId, Bytes>,
    now_ms: u64,
    /// What the shards of all nodes say when they are asked, and whether saving works.
    shards_say: bool,
    saves: bool,
    asked: BTreeMap<ClientId, (NodeId, SettingsChange)>,
    answered: BTreeMap<ClientId, u32>,
    /// The settings that a client of this node was told are made.
    told: Vec<(NodeId, SettingsChange)>,
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
    Control::new(config, saved).expect("it is founded")
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
            told: Vec::new(),
            surveyed: Vec::new(),
        }
    }

    /// Gives a node an input, and everyone whatever follows from it.
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
        assert!(before.is_within(control.history()), "a change is forgotten");
        // Nobody is thought of who is no member, whatever is said of it.
        let members = control.view().members().count();
        assert!(control.liveness().iter().count() <= members, "{:?}", control.liveness());
        for (client, reply) in replies {
            *self.answered.entry(client).or_default() += 1;
            if reply.is_ok() {
                self.told.push(self.asked[&client].clone());
            }
        }
        let mut follow = Vec::new();
        for (to, sent) in sends {
            // What goes out must be such as comes in.
            let arrived = wire::decode_envelope(wire::encode_envelope(&sent)).expect("a node sends what can be read");
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
        let change = SettingsChange { bucket: Bytes::from_static(b"carts"), settings, timeout: TIMEOUT };
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
        // Its clients have nobody to hear from.
        for (client, (at, _)) in &self.asked {
            if *at == node {
                self.answered.entry(*client).or_insert(1);
            }
        }
    }

    /// Whoever was told that a change is made finds it there, after a crash too.
    fn nothing_told_is_lost(&mut self) {
        (1..=3).for_each(|node| self.crash(id(node)));
        for (node, SettingsChange { bucket, settings, .. }) in &self.told {
            let mut changes = self.controls[node].history().changes();
            let made = ChangeKind::Bucket { name: bucket.clone(), settings: *settings };
            assert!(changes.any(|change| change.what == made), "{settings:?} is gone");
        }
    }
}

/// Settings that say which change they are of.
fn settings(number: usize, with_n: bool) -> SettingsPatch {
    let n = with_n.then_some((4 + number % 5) as u8);
    SettingsPatch { n, n_by_versions: with_n, max_value_bytes: Some(1_000 + number as u32), ..SettingsPatch::default() }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// The third node, gone mad, says something to one of the others.
    Says(usize, Box<Message>),
    /// It says once more what was said before, with some bytes changed.
    Distorts(Index, Vec<Spoil>),
    /// A client of a node wants settings changed, with n or without.
    Client(usize, bool),
    /// Whether the shards can say what they hold from now on, and whether files can be written.
    Turns(bool, bool),
    /// A node dies and comes back.
    Crashes(usize),
    /// A connection breaks or comes about.
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
    fn a_member_gone_mad_takes_no_change_back(acts in vec(act(), 1..40)) {
        let (mut mesh, mut said) = (Mesh::new(), Vec::new());
        acts.into_iter().for_each(|act| does(&mut mesh, &mut said, act));
        mesh.pass(5_000);
        for client in mesh.asked.keys() {
            prop_assert_eq!(mesh.answered.get(client), Some(&1), "{:?} of {:?}", client, mesh.asked[client]);
        }
        mesh.nothing_told_is_lost();
    }

    #[test]
    fn a_stranger_is_not_heard(
        said in vec((1usize..=3, notice(), any::<bool>()), 1..10),
    ) {
        let mut mesh = Mesh::new();
        for (to, notice, is_of_another_cluster) in said {
            let message = Message::Notice(notice);
            let stranger = match is_of_another_cluster {
                true => envelope(ClusterId(2), id(3), message),
                false => envelope(CLUSTER, id(4), message),
            };
            // At the first step it gossips of its own accord.
            mesh.input(id(to), ControlInput::Tick);
            let follow = mesh.step(id(to), ControlInput::Message(Box::new(stranger)));
            prop_assert!(follow.is_empty(), "{:?}", follow);
        }
        prop_assert!(mesh.controls.values().all(|control| *control.history() == history()));
    }
}

/// A node whose shards could not say for a while says so of later questions, however many there were.
#[test]
fn questions_that_could_not_be_answered_are_not_kept() {
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
