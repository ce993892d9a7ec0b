//! Several controls that talk to each other: changes of settings and members, epochs, surveys, phases, departures.

use std::collections::{BTreeSet, VecDeque};

use super::spread::LEARNT_MAX;
use super::*;
use crate::cluster::configuration::{ConfigPhase, ConfigVersion, Configuration};
use crate::cluster::counts::Group;
use crate::cluster::liveness::Status;
use crate::cluster::membership::{BadSettings, Change, ChangeKind, Member, SettingsPatch, Strategy};
use crate::cluster::sizes::{NodeSizes, Size, TreeId};
use crate::message::gossip::{EpochNotice, INQUIRY_PARTITIONS_MAX, Marks, MembersDigest};
use crate::ring::Partitions;
use crate::value::hlc::{Hlc, WallMs};

const CLUSTER: ClusterId = ClusterId(7);

fn member(number: u64) -> Member {
    Member {
        zone: "z".to_owned(),
        host: format!("h{number}"),
        ..Member::new(&format!("node-{number}"), Incarnation(number))
    }
}

fn control(number: u64, history: History) -> Control {
    let config = ControlConfig {
        cluster: CLUSTER,
        node: NodeId::of_name(&format!("node-{number}")),
        incarnation: Incarnation(number),
        boot: 1,
        seed: number,
        epoch: Epoch::FIRST,
        epoch_floor: Epoch::UNKNOWN,
        shards: 1,
        snapshot_after: 8,
        broken: Broken::default(),
    };
    Control::new(config, history).unwrap()
}

fn bootstrap(cluster: ClusterId) -> History {
    let members: Vec<_> = (1..=3).map(member).collect();
    let founder = members[0].id;
    let mut history = History::new();
    let partitions = Partitions::new(8).unwrap();
    let found =
        ChangeKind::Bootstrap { cluster, partitions, strategy: Strategy::Balanced, members, name: String::new() };
    history.record(Hlc::at(WallMs(1)), founder, found);
    history
}

/// Three controls. What one sends arrives at once, unless the receiver is cut off.
struct Mesh {
    controls: Vec<Control>,
    now_ms: u64,
    cut_off: Option<usize>,
    saves_fail: bool,
    replies: Vec<Result<Changed, Refusal>>,
    surveyed: Vec<Surveyed>,
}

impl Mesh {
    fn new() -> Self {
        let controls = (1..=3).map(|number| control(number, bootstrap(CLUSTER))).collect();
        Self { controls, now_ms: 1_000, cut_off: None, saves_fail: false, replies: vec![], surveyed: vec![] }
    }

    fn input(&mut self, at: usize, input: ControlInput) {
        let mut inputs = VecDeque::from([(at, input)]);
        let mut steps = 0;
        while let Some((at, input)) = inputs.pop_front() {
            steps += 1;
            assert!(steps < 1_000, "the controls never stop talking");
            let now = Now { instant: Instant(self.now_ms * 1_000), wall: WallMs(self.now_ms) };
            let effects = self.controls[at].step(now, input);
            for (to, envelope) in effects.sends {
                // A message to a node that does not exist is lost.
                let Some(to) = self.controls.iter().position(|control| control.config.node == to) else { continue };
                if self.cut_off != Some(to) && self.cut_off != Some(at) {
                    inputs.push_back((to, ControlInput::Message(Box::new(envelope))));
                }
            }
            if effects.save.is_some() {
                let saved = if self.saves_fail { Err(WriteFailed::Uncertain) } else { Ok(()) };
                inputs.push_back((at, ControlInput::Saved(saved)));
            }
            if effects.save_epoch.is_some() {
                inputs.push_back((at, ControlInput::EpochSaved(Ok(()))));
            }
            for inquiry in effects.inquiries {
                inputs.push_back((at, ControlInput::Report(inquiry.id, Some(self.report(at, &inquiry.partitions)))));
            }
            self.surveyed.extend(effects.surveyed.into_iter().map(|(_, surveyed)| surveyed));
            self.replies.extend(effects.replies.into_iter().map(|(_, reply)| reply));
        }
    }

    /// The report of a node's shards.
    fn report(&self, at: usize, partitions: &[PartitionId]) -> NodeSizes {
        let size = |partition: PartitionId| {
            let (partition, keys) = (partition, u64::from(partition.0));
            (TreeId { partition, group: Group(3) }, Size { keys, bytes: 100 * keys })
        };
        NodeSizes {
            trees: partitions.iter().copied().map(size).collect(),
            leaves: BTreeSet::from([PartitionId(at as u32)]),
        }
    }

    /// Makes the first control survey nodes for the sizes of their first partitions.
    fn survey(&mut self, of: &[(usize, u32)]) {
        let node = |at: usize| self.controls[at].config.node;
        let of = of.iter().map(|&(at, count)| (node(at), (0..count).map(PartitionId).collect())).collect();
        self.input(0, ControlInput::Survey(ClientId(9), Survey { of, timeout: Duration::from_secs(1) }));
    }

    /// The controls that take the first node as one that drains.
    fn see_the_first_drain(&self) -> Vec<bool> {
        let first = self.controls[0].config.node;
        self.controls[1..].iter().map(|control| control.liveness().is_draining(first)).collect()
    }

    fn epochs(&self) -> Vec<u64> {
        self.controls.iter().map(|control| control.epoch().0).collect()
    }

    /// The shards of these nodes finish an epoch.
    fn finish(&mut self, nodes: &[usize], epoch: u64) {
        nodes.iter().for_each(|&at| self.input(at, ControlInput::Finished(0, Epoch(epoch))));
    }

    fn change(&mut self, at: usize, settings: SettingsPatch) {
        let (bucket, timeout) = (Bytes::from_static(b"carts"), Duration::from_secs(3));
        self.input(at, ControlInput::Change(ClientId(1), SettingsChange { bucket, settings, empties: None, timeout }));
    }

    /// Sends a history from the second control to another.
    fn deliver(&mut self, to: usize, history: History) {
        let envelope = Envelope {
            cluster: CLUSTER,
            from: self.controls[1].config.node,
            from_incarnation: Incarnation(2),
            from_boot: 1,
            sent: Now { wall: WallMs(1), ..Now::default() },
            config_stamp: crate::cluster::configuration::ConfigStamp::default(),
            losses: crate::cluster::losses::Losses::NONE,
            trace: None,
            message: Message::Notice(Notice::History(history)),
        };
        self.input(to, ControlInput::Message(Box::new(envelope)));
    }

    fn tick(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now_ms += 100;
            (0..self.controls.len()).for_each(|at| self.input(at, ControlInput::Tick));
        }
    }

    fn w_of(&self, at: usize) -> u8 {
        self.controls[at].view().settings(b"carts").w
    }
}

fn w(w: u8) -> SettingsPatch {
    SettingsPatch { w: Some(w), ..SettingsPatch::default() }
}

fn n(n: u8) -> SettingsPatch {
    SettingsPatch { n: Some(n), r: Some(1), w: Some(1), ..SettingsPatch::default() }
}

#[test]
fn a_change_reaches_all_members_before_the_reply() {
    let mut mesh = Mesh::new();
    mesh.change(1, w(3));
    let [Ok(changed)] = mesh.replies[..] else { panic!("{:?}", mesh.replies) };
    assert_eq!((changed.settings.w, changed.nodes, changed.members), (3, 3, 3));
    assert_eq!((0..3).map(|at| mesh.w_of(at)).collect::<Vec<_>>(), [3, 3, 3]);
    mesh.change(0, w(3));
    assert_eq!(mesh.controls[0].history().len(), 2, "a change without effect is not recorded");
}

#[test]
fn a_new_node_known_only_to_a_dead_one_makes_itself_known() {
    let mut mesh = Mesh::new();
    // The first one adds a fourth, and dies before any other learns of it.
    let mut history = mesh.controls[0].history().clone();
    let (fourth, founder) = (member(4), mesh.controls[0].config.node);
    history.record(Hlc::at(WallMs(mesh.now_ms)), founder, ChangeKind::Add(fourth.clone()));
    mesh.controls.push(control(4, history.clone()));
    mesh.cut_off = Some(0);
    mesh.tick(30_000);
    for at in 1..4 {
        assert_eq!(mesh.controls[at].history(), &history, "{at}");
        assert!(mesh.controls[at].view().member(fourth.id).is_some());
    }
    let liveness = mesh.controls[1].liveness();
    assert_eq!(liveness.status(fourth.id), Status::Alive, "its messages count from then on");
}

#[test]
fn a_node_that_was_not_added_is_not_heard_though_it_claims_to_be_a_member() {
    let mut mesh = Mesh::new();
    mesh.controls.push(control(4, bootstrap(CLUSTER)));
    let founder = mesh.controls[0].config.node;
    let claim = |what: ChangeKind| {
        let mut history = bootstrap(CLUSTER);
        history.record(Hlc::at(WallMs(2)), founder, what);
        let (version, changes) = (history.version(), history.without(&bootstrap(CLUSTER)));
        Message::Notice(Notice::Changes(Changes { since: version, version, changes, is_answer: false }))
    };
    let by = |message: Message, from_incarnation: Incarnation| Envelope {
        cluster: CLUSTER,
        from: member(4).id,
        from_incarnation,
        from_boot: 1,
        sent: Now { wall: WallMs(1), ..Now::default() },
        config_stamp: ConfigStamp::default(),
        losses: crate::cluster::losses::Losses::NONE,
        trace: None,
        message,
    };
    let weight = ChangeKind::Weight { node: founder, weight: 1 };
    for (what, incarnation) in [(weight, 4), (ChangeKind::Add(member(5)), 4), (ChangeKind::Add(member(4)), 5)] {
        mesh.input(0, ControlInput::Message(Box::new(by(claim(what), Incarnation(incarnation)))));
        assert_eq!(mesh.controls[0].history().len(), 1);
    }
    mesh.input(0, ControlInput::Message(Box::new(by(claim(ChangeKind::Add(member(4))), Incarnation(4)))));
    assert_eq!(mesh.controls[0].history().len(), 2);
}

#[test]
fn both_sides_of_a_cut_converge_when_it_heals() {
    let mut mesh = Mesh::new();
    mesh.cut_off = Some(2);
    mesh.change(0, w(3));
    mesh.now_ms += 10;
    mesh.change(2, SettingsPatch { r: Some(1), ..SettingsPatch::default() });
    assert!(mesh.replies.is_empty());
    mesh.tick(1_500);
    let nodes: Vec<_> = mesh.replies.iter().map(|reply| reply.as_ref().unwrap().nodes).collect();
    assert_eq!(nodes, [2, 1], "a change needs no quorum, and the reply says how many know of it");
    mesh.cut_off = None;
    mesh.tick(10_000);
    for at in 0..3 {
        let settings = mesh.controls[at].view().settings(b"carts");
        assert_eq!((settings.r, settings.w), (1, 3));
    }
}

#[test]
fn n_is_a_setting_like_any_other_and_is_the_target_of_configurations() {
    let mut mesh = Mesh::new();
    mesh.change(0, n(5));
    assert_eq!(mesh.replies[0].as_ref().unwrap().settings.n, 5);
    let view = mesh.controls[2].view();
    assert_eq!((view.settings(b"carts").n, view.target_counts().n(b"carts")), (5, 5));
    assert_eq!((view.first_counts().n(b"carts"), view.first_configuration(PartitionId(0)).counts.n(b"carts")), (3, 3));
    mesh.change(1, n(3));
    let view = mesh.controls[2].view();
    assert!(view.target_counts().is_empty(), "it can be undone");
}

#[test]
fn a_change_that_cannot_be_saved_is_not_sent() {
    let mut mesh = Mesh::new();
    mesh.saves_fail = true;
    mesh.change(0, w(3));
    mesh.tick(3_100);
    assert!(matches!(mesh.replies[..], [Err(Refusal::Unavailable(_))]), "{:?}", mesh.replies);
    assert_eq!((0..3).map(|at| mesh.w_of(at)).collect::<Vec<_>>(), [2, 2, 2]);
    mesh.saves_fail = false;
    mesh.tick(5_000);
    assert_eq!((0..3).map(|at| mesh.w_of(at)).collect::<Vec<_>>(), [3, 3, 3], "it appears later, as the reply said");
}

#[test]
fn two_nodes_that_cannot_save_what_they_learn_do_not_exchange_messages_forever() {
    let mut mesh = Mesh::new();
    mesh.cut_off = Some(2);
    mesh.change(0, w(3));
    mesh.change(2, SettingsPatch { r: Some(1), ..SettingsPatch::default() });
    mesh.cut_off = None;
    mesh.saves_fail = true;
    // Each knows of the other's change and has not saved it. The mesh bounds the messages that one input may cause.
    mesh.tick(10_000);
    mesh.saves_fail = false;
    mesh.tick(5_000);
    assert!((1..3).all(|at| mesh.controls[at].history() == mesh.controls[0].history()));
}

#[test]
fn invalid_settings_are_refused() {
    let mut mesh = Mesh::new();
    mesh.change(0, w(4));
    let expected = Refusal::BadRequest(BadSettings::W(4, 3).to_string());
    assert_eq!(mesh.replies, [Err(expected)]);
}

#[test]
fn the_history_of_another_cluster_is_not_merged() {
    let mut mesh = Mesh::new();
    let mut other = History::new();
    let earlier = bootstrap(ClusterId(8)).changes().next().unwrap().what.clone();
    other.record(Hlc::ZERO, NodeId::new(1), earlier);
    mesh.deliver(0, other);
    assert_eq!(mesh.controls[0].history(), &bootstrap(CLUSTER));
}

#[test]
fn a_history_over_the_limit_is_not_merged() {
    let mut mesh = Mesh::new();
    let mut endless = bootstrap(CLUSTER);
    for number in 0..LEARNT_MAX as u64 {
        let what = ChangeKind::Bucket { name: Bytes::from_static(b"carts"), settings: w(1) };
        endless.insert(Change { hlc: Hlc::from_bits(number), node: NodeId::new(1), number, what });
    }
    mesh.deliver(0, endless);
    assert_eq!(mesh.controls[0].history(), &bootstrap(CLUSTER));
    mesh.change(0, w(3));
    assert_eq!(mesh.w_of(0), 3);
}

#[test]
fn a_snapshot_replaces_many_changes_once_all_members_know_them() {
    let mut mesh = Mesh::new();
    let r = |number: u8| 1 + number % 3;
    let settings = |number: u8| SettingsPatch { r: Some(r(number)), ..SettingsPatch::default() };
    (1..=30).for_each(|number| mesh.change(usize::from(number) % 3, settings(number)));
    mesh.tick(2_000);
    assert_eq!(mesh.replies.len(), 30);
    for (at, control) in mesh.controls.iter().enumerate() {
        assert!(control.history().has_snapshot() && control.history().len() <= 10, "{}", control.history().len());
        assert_eq!(control.history().version(), mesh.controls[0].history().version());
        assert_eq!(control.view().settings(b"carts").r, r(30), "at {at}");
    }
    // A member that is away knows less, and what it records meanwhile must not be lost.
    mesh.cut_off = Some(2);
    (31..=60).for_each(|number| mesh.change(usize::from(number) % 2, settings(number)));
    mesh.change(2, w(3));
    mesh.tick(2_000);
    assert!(mesh.controls[0].history().len() > 30);
    mesh.cut_off = None;
    (0..10).for_each(|_| mesh.tick(2_000));
    for control in &mesh.controls {
        let settings = control.view().settings(b"carts");
        assert_eq!((settings.r, settings.w), (r(60), 3));
        assert!(control.history().len() <= 10, "{}", control.history().len());
        assert_eq!(control.history().version(), mesh.controls[0].history().version());
    }
}

#[test]
fn an_epoch_ends_when_every_member_has_finished_it() {
    let mut mesh = Mesh::new();
    mesh.tick(1_000);
    mesh.finish(&[0, 1], 1);
    mesh.tick(20_000);
    assert_eq!(mesh.epochs(), [1, 1, 1]);
    let third = mesh.controls[2].config.node;
    assert_eq!(mesh.controls[0].epoch_status().waits_for.iter().copied().collect::<Vec<_>>(), [third]);
    mesh.finish(&[2], 1);
    mesh.tick(20_000);
    assert_eq!(mesh.epochs(), [2, 2, 2]);
}

#[test]
fn a_member_that_is_away_holds_the_epoch_back_and_no_other_gets_two_ahead() {
    let mut mesh = Mesh::new();
    mesh.cut_off = Some(2);
    for epoch in 1..=5 {
        mesh.finish(&[0, 1], epoch);
        mesh.tick(20_000);
    }
    assert_eq!(mesh.epochs(), [1, 1, 1], "it has not reported that it has finished");
    mesh.cut_off = None;
    mesh.finish(&[2], 1);
    mesh.cut_off = Some(2);
    mesh.tick(20_000);
    assert_eq!(mesh.epochs(), [2, 2, 2], "it had heard the others' reports, and they its own");
    mesh.finish(&[0, 1], 2);
    mesh.tick(20_000);
    assert_eq!(mesh.epochs(), [2, 2, 2]);
}

/// A control that does not know the epoch, of a new incarnation that the others know or not.
fn renewed(mesh: &mut Mesh, at: usize, incarnation: u64, others_know: bool) {
    let (config, history) = (mesh.controls[at].config.clone(), mesh.controls[at].history.clone());
    let old = mesh.controls[at].view.member(config.node).unwrap().member.clone();
    let mut history = history;
    let new = Member { incarnation: Incarnation(incarnation), ..old.clone() };
    history.record(Hlc::at(WallMs(5)), config.node, ChangeKind::Replace { old: old.id, new });
    let config =
        ControlConfig { incarnation: Incarnation(incarnation), epoch: Epoch::UNKNOWN, epoch_floor: Epoch(1), ..config };
    mesh.controls[at] = Control::new(config, history.clone()).unwrap();
    if others_know {
        mesh.tick(20_000);
    }
}

#[test]
fn a_new_incarnation_begins_in_the_epoch_of_the_members_that_know_it() {
    let mut mesh = Mesh::new();
    for epoch in 1..=3 {
        mesh.finish(&[0, 1, 2], epoch);
        mesh.tick(20_000);
    }
    // A message sent before the incarnation was known may be from any time.
    let members = MembersDigest::of(&mesh.controls[0].view);
    let (done, done_before) = (Marks::default(), [true; 3].into_iter().collect());
    let late = EpochNotice { epoch: Epoch(2), finished: Epoch(1), members, done, done_before, drains: false };
    renewed(&mut mesh, 2, 33, false);
    let envelope = Envelope {
        cluster: CLUSTER,
        from: mesh.controls[0].config.node,
        from_incarnation: Incarnation(1),
        from_boot: 1,
        sent: Now { wall: WallMs(1), ..Now::default() },
        config_stamp: crate::cluster::configuration::ConfigStamp::default(),
        losses: crate::cluster::losses::Losses::NONE,
        trace: None,
        message: Message::Notice(Notice::Epoch(late)),
    };
    mesh.cut_off = Some(2);
    let now = Now { instant: Instant(mesh.now_ms * 1_000), wall: WallMs(mesh.now_ms) };
    let effects = mesh.controls[2].step(now, ControlInput::Message(Box::new(envelope)));
    assert_eq!(effects.save_epoch, None);
    mesh.cut_off = None;
    mesh.tick(20_000);
    assert_eq!(mesh.epochs(), [4, 4, 4]);
}

#[test]
fn if_all_incarnations_are_new_they_begin_in_an_epoch_that_none_has_reached() {
    let mut mesh = Mesh::new();
    mesh.finish(&[0, 1, 2], 1);
    mesh.tick(5_000);
    assert_eq!(mesh.epochs(), [2, 2, 2]);
    (0..3).for_each(|at| renewed(&mut mesh, at, 40 + at as u64, false));
    assert_eq!(mesh.epochs(), [0, 0, 0]);
    mesh.tick(30_000);
    assert_eq!(mesh.epochs(), [3, 3, 3], "after the epochs that each knew to be reached");
}

#[test]
fn a_new_incarnation_that_does_not_know_the_epoch_has_finished_none() {
    let mut mesh = Mesh::new();
    mesh.tick(1_000);
    renewed(&mut mesh, 2, 33, false);
    let history = mesh.controls[2].history().clone();
    (0..2).for_each(|at| mesh.controls[at] = Control::new(mesh.controls[at].config.clone(), history.clone()).unwrap());
    let members = MembersDigest::of(&mesh.controls[0].view);
    let (done, done_before) = (Marks::default(), Marks::default());
    // Its floor holds only until it begins, which may be in an older epoch.
    let floor = EpochNotice { epoch: Epoch::UNKNOWN, finished: Epoch(5), members, done, done_before, drains: false };
    let envelope = Envelope {
        cluster: CLUSTER,
        from: mesh.controls[2].config.node,
        from_incarnation: Incarnation(33),
        from_boot: 1,
        config_stamp: crate::cluster::configuration::ConfigStamp::default(),
        losses: crate::cluster::losses::Losses::NONE,
        trace: None,
        sent: Now { wall: WallMs(1), ..Now::default() },
        message: Message::Notice(Notice::Epoch(floor)),
    };
    mesh.cut_off = Some(2);
    mesh.input(0, ControlInput::Message(Box::new(envelope)));
    mesh.finish(&[0, 1], 1);
    mesh.tick(5_000);
    assert_eq!(mesh.epochs()[..2], [1, 1]);
}

#[test]
fn a_survey_has_the_sizes_of_the_nodes_that_answer() {
    let mut mesh = Mesh::new();
    mesh.survey(&[(0, 2), (1, 0), (2, 8)]);
    let surveyed = mesh.surveyed.remove(0);
    let of = |at: usize| &surveyed[&mesh.controls[at].config.node];
    assert_eq!((of(0).trees.len(), of(1).trees.len(), of(2).trees.len()), (2, 0, 8));
    assert_eq!(of(2).trees[&TreeId { partition: PartitionId(7), group: Group(3) }], Size { keys: 7, bytes: 700 });
    assert_eq!(of(1).leaves, BTreeSet::from([PartitionId(1)]), "partitions to hand over are always reported");

    mesh.cut_off = Some(2);
    mesh.survey(&[(1, 1), (2, 8)]);
    mesh.tick(900);
    assert!(mesh.surveyed.is_empty(), "a node may still answer");
    mesh.tick(200);
    let surveyed = mesh.surveyed.remove(0);
    assert_eq!(surveyed.keys().copied().collect::<Vec<_>>(), [mesh.controls[1].config.node]);
    // A node that is known to be down gets no inquiry, so the survey does not wait for it.
    mesh.tick(20_000);
    mesh.survey(&[(1, 1), (2, 8)]);
    assert_eq!(mesh.surveyed.remove(0).len(), 1);
}

#[test]
fn a_node_that_has_answered_half_of_its_requests_is_left_out() {
    let mut mesh = Mesh::new();
    let node = mesh.controls[1].config.node;
    let of = BTreeMap::from([(node, (0..2 * INQUIRY_PARTITIONS_MAX as u32).map(PartitionId).collect())]);
    let now = Now { instant: Instant(2_000_000), wall: WallMs(2_000) };
    let survey = Survey { of, timeout: Duration::from_secs(1) };
    let control = &mut mesh.controls[0];
    let sends = control.step(now, ControlInput::Survey(ClientId(1), survey)).sends;
    let ids: Vec<InquiryId> = sends
        .iter()
        .filter_map(|(_, envelope)| match &envelope.message {
            Message::Notice(Notice::Inquiry(inquiry)) => Some(inquiry.id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 2);
    let report = Notice::Report(ids[0], NodeSizes::default());
    let envelope = Envelope {
        from: node,
        from_incarnation: Incarnation(2),
        message: Message::Notice(report),
        ..sends[0].1.clone()
    };
    let effects = control.step(now, ControlInput::Message(Box::new(envelope)));
    assert!(effects.surveyed.is_empty());
    let later = Now { instant: now.instant + Duration::from_secs(1), ..now };
    assert_eq!(control.step(later, ControlInput::Tick).surveyed, [(ClientId(1), Surveyed::new())]);
}

#[test]
fn a_node_that_starts_asks_for_phases_and_remembers_which_nodes_have_reported_theirs() {
    let mut mesh = Mesh::new();
    let [first, second, third] = [0, 1, 2].map(|at: usize| mesh.controls[at].config.node);
    let next = Configuration { number: 1, ..mesh.controls[0].phases()[3].current().clone() };
    mesh.cut_off = Some(1);
    mesh.input(0, ControlInput::Phases(vec![(PartitionId(3), ConfigPhase::Stable(next))]));
    mesh.cut_off = None;
    assert_eq!((mesh.controls[1].compared().len(), mesh.controls[1].phases()[3].version()), (0, ConfigVersion(0)));
    mesh.input(1, ControlInput::Reachable(first));
    assert_eq!(mesh.controls[1].phases()[3].version(), ConfigVersion(2));
    assert!(mesh.controls[1].compared().contains(&first));
    // A node that knows the same reports so, and one that knows less learns.
    mesh.input(1, ControlInput::Reachable(third));
    assert_eq!(*mesh.controls[1].compared(), BTreeSet::from([first, third]));
    assert!(mesh.controls[2].compared().contains(&second));
    assert_eq!(mesh.controls[2].phases()[3].version(), ConfigVersion(2));
}

#[test]
fn a_node_that_has_not_learned_the_phases_does_not_record_that_a_dead_node_has_left() {
    let mut mesh = Mesh::new();
    // A fourth node joined, is named by a partition, and was removed. It is dead.
    let mut history = bootstrap(CLUSTER);
    let (first, gone) = (mesh.controls[0].config.node, Home { node: member(4).id, incarnation: Incarnation(4) });
    history.record(Hlc::at(WallMs(2)), first, ChangeKind::Add(member(4)));
    history.record(Hlc::at(WallMs(3)), first, ChangeKind::Remove { node: gone.node, incarnation: gone.incarnation });
    let least = (0..3).min_by_key(|&at| mesh.controls[at].config.node).unwrap();
    mesh.controls = (1..=3).map(|number| control(number, history.clone())).collect();
    let first_one = mesh.controls[0].phases()[3].current().clone();
    let names_it = Configuration { number: 1, homes: vec![gone], ..first_one.clone() };
    mesh.cut_off = Some(least);
    let others: Vec<usize> = (0..3).filter(|&at| at != least).collect();
    mesh.input(others[0], ControlInput::Phases(vec![(PartitionId(3), ConfigPhase::Stable(names_it))]));
    let is_down = |mesh: &Mesh, at: usize| mesh.controls[at].liveness().status(gone.node) == Status::Down;
    let says_left = |mesh: &Mesh, at: usize| mesh.controls[at].history.says_left(gone);
    mesh.tick(60_000);
    assert!(is_down(&mesh, least) && !says_left(&mesh, least), "it knows only the bootstrap");
    mesh.cut_off = None;
    mesh.tick(20_000);
    assert!((0..3).all(|at| is_down(&mesh, at) && !says_left(&mesh, at)), "a partition names it");
    let without_it = Configuration { number: 2, ..first_one };
    mesh.input(others[0], ControlInput::Phases(vec![(PartitionId(3), ConfigPhase::Stable(without_it))]));
    mesh.tick(20_000);
    assert!((0..3).all(|at| says_left(&mesh, at)));
}

#[test]
fn all_others_know_at_once_that_a_node_drains_and_forget_it_when_it_starts_again() {
    let mut mesh = Mesh::new();
    mesh.tick(1_000);
    assert_eq!(mesh.see_the_first_drain(), [false, false]);
    mesh.input(0, ControlInput::Drain(true));
    assert_eq!(mesh.see_the_first_drain(), [true, true]);
    mesh.input(0, ControlInput::Drain(false));
    assert_eq!(mesh.see_the_first_drain(), [false, false]);

    mesh.cut_off = Some(2);
    mesh.input(0, ControlInput::Drain(true));
    assert_eq!(mesh.see_the_first_drain(), [true, false]);
    mesh.cut_off = None;
    mesh.tick(30_000);
    assert_eq!(mesh.see_the_first_drain(), [true, true], "gossip makes up for a lost message");

    let mut again = control(1, bootstrap(CLUSTER));
    again.config.boot = 2;
    mesh.controls[0] = again;
    mesh.tick(2_000);
    assert_eq!(mesh.see_the_first_drain(), [false, false]);
}
