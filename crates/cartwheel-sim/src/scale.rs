//! A large cluster's control state machines without data: the cost of gossip, and how soon a change is known everywhere.
//!
//! All nodes have the bootstrap history from the start, and their shards finish each epoch some seconds after it began. The network delays messages
//! randomly and loses some. A run has four phases: the nodes introduce themselves to each other; nothing changes; one node records a change of the
//! members; a tenth of the nodes is down, and the second and third phases are repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cartwheel_core::cluster::configuration::ConfigStamp;
use cartwheel_core::cluster::liveness::Status;
use cartwheel_core::cluster::membership::{ChangeKind, History, Member, Strategy, View};
use cartwheel_core::control::{Control, ControlConfig, ControlEffects, ControlInput, SNAPSHOT_AFTER, Views};
use cartwheel_core::message::gossip::{Changes, Notice};
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::mutation::Broken;
use cartwheel_core::ring::{Partitions, RingVersion};
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::wire;

use crate::clock::START_WALL_MS;
use crate::rng::{Rng, Stream};

const CLUSTER: ClusterId = ClusterId(0x5ca1e);
const SECOND_US: u64 = 1_000_000;
/// The delay of a message, in microseconds, and the share of messages that are lost, in a thousand.
const DELAY_US: (u64, u64) = (1_000, 50_000);
const LOST_PER_MILLE: u32 = 10;
/// The time to save a history or an epoch, in microseconds.
const SAVE_US: (u64, u64) = (1_000, 10_000);
/// The time in which shards finish an epoch, in microseconds.
const FINISH_US: (u64, u64) = (3 * SECOND_US, 10 * SECOND_US);
/// The number of nodes that a node meets in a second: it introduces itself to 32, and as many introduce themselves to it.
const INTRODUCTIONS: u64 = 64;
/// The size of a frame without its envelope, in bytes.
const FRAME_BYTES: u64 = 4;

/// The parameters of a simulation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// The number of nodes.
    pub nodes: usize,
    /// The number of partitions of the ring.
    pub partitions: u32,
    /// How long traffic is measured while nothing changes.
    pub quiet: Duration,
    /// How long the nodes have to detect which others are down.
    pub settle: Duration,
    /// How long a change may take to be known everywhere.
    pub patience: Duration,
    /// The seed.
    pub seed: u64,
}

impl Scale {
    /// The parameters of the tests, for a cluster of this size.
    pub const fn of(nodes: usize, seed: u64) -> Self {
        let seconds = Duration::from_secs;
        Self { nodes, partitions: 16_384, quiet: seconds(8), settle: seconds(20), patience: seconds(60), seed }
    }
}

/// The traffic of nodes, in bytes for each node and second.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// The mean of all nodes that are up.
    pub mean_sent: u64,
    /// The node that sent most.
    pub worst_sent: u64,
    /// The node that received most.
    pub worst_received: u64,
    /// The mean that was sent, by kind of notice.
    pub by_kind: BTreeMap<&'static str, u64>,
}

/// The measurements while a certain part of the nodes was up.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// The number of nodes that were up.
    pub up: usize,
    /// The traffic while nothing changed.
    pub quiet: Traffic,
    /// The time until a change was known to all nodes that were up; `None` if it took too long.
    pub known_after: Option<Duration>,
    /// The traffic during that time.
    pub spreading: Traffic,
}

/// The measurements of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// With all nodes up.
    pub whole: Phase,
    /// The number of epochs that ended meanwhile.
    pub epochs: u64,
    /// The longest time from the moment at which the last node finished an epoch until all nodes were in the next one.
    pub epoch_turns_within: Duration,
    /// With a tenth of the nodes down.
    pub part: Phase,
    /// The share of pairs of a running and a dead node in which the dead one still seems alive, once the nodes had time to detect that. In a
    /// thousand.
    pub undetected_per_mille: u64,
}

/// The views by version of their history, so that each history is folded once.
#[derive(Debug, Default)]
struct ViewCache(BTreeMap<RingVersion, Arc<View>>);

/// The cache that all controls share.
#[derive(Clone, Debug, Default)]
struct SharedViews(Arc<Mutex<ViewCache>>);

impl Views for SharedViews {
    fn view(&mut self, history: &History) -> Option<Arc<View>> {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = history.version();
        if let Some(view) = views.0.get(&version) {
            return Some(view.clone());
        }
        let view = Arc::new(history.view()?);
        views.0.insert(version, view.clone());
        Some(view)
    }
}

#[derive(Debug)]
enum Event {
    Arrives(usize, Box<Envelope>, u64),
    Input(usize, ControlInput),
    Tick(usize),
}

#[derive(Debug)]
struct Machine {
    control: Control,
    up: bool,
    wake_at_us: u64,
    sent: u64,
    received: u64,
}

#[derive(Debug)]
struct World {
    scale: Scale,
    machines: Vec<Machine>,
    indices: BTreeMap<NodeId, usize>,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    now_us: u64,
    rng: Rng,
    by_kind: BTreeMap<&'static str, u64>,
    /// The nodes that do not apply the latest history yet.
    behind: BTreeSet<usize>,
    latest: RingVersion,
    /// When the last node finished each epoch.
    finished_us: BTreeMap<Epoch, u64>,
    /// The number of nodes that have entered each epoch, and when the last one did.
    entered_us: BTreeMap<Epoch, (usize, u64)>,
}

/// Simulates a large cluster.
///
/// # Panics
/// If there are no nodes, or more than partitions.
pub fn run(scale: Scale) -> Figures {
    let mut world = World::new(scale);
    let warm_up_us = (3 + scale.nodes as u64 / INTRODUCTIONS) * SECOND_US;
    world.advance(warm_up_us);
    let mut figures = Figures { whole: world.measure(), ..Figures::default() };
    (figures.epochs, figures.epoch_turns_within) = world.epochs();
    for index in (0..scale.nodes).filter(|index| index % 10 == 5) {
        world.machines[index].up = false;
    }
    world.advance(scale.settle.as_micros() as u64);
    figures.undetected_per_mille = world.undetected_per_mille();
    figures.part = world.measure();
    figures
}

fn member(number: usize) -> Member {
    let name = format!("node-{number}");
    Member {
        zone: format!("zone-{}", number % 5),
        host: format!("host-{number}.example.net"),
        peer_addr: format!("host-{number}.example.net:7400"),
        http_addr: format!("host-{number}.example.net:8080"),
        resp_addr: format!("host-{number}.example.net:6380"),
        ..Member::new(&name, incarnation(number))
    }
}

const fn incarnation(number: usize) -> Incarnation {
    Incarnation(number as u64 + 1)
}

impl World {
    fn new(scale: Scale) -> Self {
        let members: Vec<Member> = (0..scale.nodes).map(member).collect();
        let partitions = Partitions::new(scale.partitions).expect("the number of partitions is valid");
        let indices = members.iter().enumerate().map(|(index, member)| (member.id, index)).collect();
        let mut bootstrap = History::new();
        let (founder, strategy) = (members[0].id, Strategy::Balanced);
        let found = ChangeKind::Bootstrap { cluster: CLUSTER, partitions, strategy, members, name: String::new() };
        bootstrap.record(Hlc::at(WallMs(1)), founder, found);
        let views = SharedViews::default();
        let control = |index: usize| {
            let config = ControlConfig {
                cluster: CLUSTER,
                node: member(index).id,
                incarnation: incarnation(index),
                boot: 1,
                seed: scale.seed << 32 | index as u64,
                epoch: Epoch::FIRST,
                epoch_floor: Epoch::UNKNOWN,
                shards: 1,
                snapshot_after: SNAPSHOT_AFTER,
                broken: Broken::default(),
            };
            Control::with_views(config, bootstrap.clone(), Box::new(views.clone())).expect("the history is valid")
        };
        let machine = |index| Machine { control: control(index), up: true, wake_at_us: 0, sent: 0, received: 0 };
        let mut world = Self {
            scale,
            machines: (0..scale.nodes).map(machine).collect(),
            indices,
            events: BTreeMap::new(),
            scheduled: 0,
            now_us: 0,
            rng: Rng::new(scale.seed, Stream::Network),
            by_kind: BTreeMap::new(),
            behind: BTreeSet::new(),
            latest: bootstrap.version(),
            finished_us: BTreeMap::new(),
            entered_us: BTreeMap::new(),
        };
        for index in 0..scale.nodes {
            let start_us = world.rng.below(SECOND_US);
            world.machines[index].wake_at_us = start_us;
            world.schedule(start_us, Event::Tick(index));
            world.finish_later(index, Epoch::FIRST);
        }
        world
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((at_us, self.scheduled), event);
    }

    fn finish_later(&mut self, index: usize, epoch: Epoch) {
        let at_us = self.now_us + self.rng.range(FINISH_US.0, FINISH_US.1);
        self.schedule(at_us, Event::Input(index, ControlInput::Finished(0, epoch)));
    }

    fn advance(&mut self, us: u64) {
        let until_us = self.now_us + us;
        while self.step(until_us) {}
        self.now_us = until_us;
    }

    /// Handles the next event, if it is due until `until_us`.
    fn step(&mut self, until_us: u64) -> bool {
        let Some(first) = self.events.first_entry().filter(|first| first.key().0 <= until_us) else { return false };
        self.now_us = first.key().0;
        match first.remove() {
            Event::Arrives(to, envelope, bytes) => {
                self.machines[to].received += bytes;
                self.input(to, ControlInput::Message(envelope));
            }
            Event::Input(index, input) => {
                if let ControlInput::Finished(_, epoch) = input {
                    self.finished_us.insert(epoch, self.now_us);
                }
                self.input(index, input);
            }
            Event::Tick(index) if self.machines[index].wake_at_us == self.now_us => {
                self.input(index, ControlInput::Tick);
            }
            Event::Tick(_) => {}
        }
        true
    }

    fn now(&self) -> Now {
        Now { instant: Instant(self.now_us), wall: WallMs(START_WALL_MS + self.now_us / 1_000) }
    }

    fn input(&mut self, index: usize, input: ControlInput) {
        let now = self.now();
        let machine = &mut self.machines[index];
        if machine.up {
            let effects = machine.control.step(now, input);
            self.carry_out(index, effects);
        }
    }

    fn carry_out(&mut self, index: usize, effects: ControlEffects) {
        for (to, envelope) in effects.sends {
            self.send(index, to, envelope);
        }
        let save_us = self.now_us + self.rng.range(SAVE_US.0, SAVE_US.1);
        if effects.save.is_some() {
            self.schedule(save_us, Event::Input(index, ControlInput::Saved(Ok(()))));
        }
        if effects.save_epoch.is_some() {
            self.schedule(save_us, Event::Input(index, ControlInput::EpochSaved(Ok(()))));
        }
        if let Some(epoch) = effects.epoch {
            let (count, last_us) = self.entered_us.entry(epoch).or_default();
            (*count, *last_us) = (*count + 1, self.now_us);
            self.finish_later(index, epoch);
        }
        if effects.view.is_some_and(|view| view.ring.version() == self.latest) {
            self.behind.remove(&index);
        }
        if let Some(wake_at) = effects.wake_at {
            let at_us = wake_at.0.max(self.now_us + 1);
            if self.machines[index].wake_at_us != at_us {
                self.machines[index].wake_at_us = at_us;
                self.schedule(at_us, Event::Tick(index));
            }
        }
    }

    fn send(&mut self, from: usize, to: NodeId, envelope: Envelope) {
        let bytes = wire::encode_envelope(&envelope).len() as u64 + FRAME_BYTES;
        self.machines[from].sent += bytes;
        *self.by_kind.entry(kind(&envelope.message)).or_default() += bytes;
        let delay_us = self.rng.range(DELAY_US.0, DELAY_US.1);
        let is_lost = self.rng.chance(LOST_PER_MILLE);
        // The change adds a member that is never started.
        if let Some(&to) = self.indices.get(&to).filter(|_| !is_lost) {
            self.schedule(self.now_us + delay_us, Event::Arrives(to, Box::new(envelope), bytes));
        }
    }

    fn up(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.up)
    }

    /// The traffic since the last call, `us` ago. Resets the counters.
    fn traffic(&mut self, us: u64) -> Traffic {
        let count = self.up().count() as u64;
        let each_second = |bytes: u64| bytes * SECOND_US / us.max(1);
        let sum: u64 = self.up().map(|machine| machine.sent).sum();
        let by_kind = std::mem::take(&mut self.by_kind);
        let traffic = Traffic {
            mean_sent: each_second(sum) / count,
            worst_sent: each_second(self.up().map(|machine| machine.sent).max().unwrap_or_default()),
            worst_received: each_second(self.up().map(|machine| machine.received).max().unwrap_or_default()),
            by_kind: by_kind.into_iter().map(|(kind, bytes)| (kind, each_second(bytes) / count)).collect(),
        };
        for machine in &mut self.machines {
            (machine.sent, machine.received) = (0, 0);
        }
        traffic
    }

    /// Measures some quiet time, and then the spread of a change.
    fn measure(&mut self) -> Phase {
        self.traffic(1);
        let quiet_us = self.scale.quiet.as_micros() as u64;
        self.advance(quiet_us);
        let quiet = self.traffic(quiet_us);
        let begun_us = self.now_us;
        self.change();
        let until_us = begun_us + self.scale.patience.as_micros() as u64;
        while !self.behind.is_empty() && self.step(until_us) {}
        let took_us = self.now_us - begun_us;
        let known_after = self.behind.is_empty().then(|| Duration::from_micros(took_us));
        Phase { up: self.up().count(), quiet, known_after, spreading: self.traffic(took_us) }
    }

    /// Sends one node the addition of a member, as the node that an administrator requested it from would. The receiver is the first to save
    /// the change.
    fn change(&mut self) {
        let (first, sender) = (0, 1);
        let before = self.machines[first].control.history().clone();
        let mut after = before.clone();
        let number = self.scale.nodes + before.len();
        after.record(Hlc::at(self.now().wall), member(first).id, ChangeKind::Add(member(number)));
        self.latest = after.version();
        self.behind = (0..self.machines.len()).filter(|&index| self.machines[index].up).collect();
        let (since, version, changes) = (before.version(), self.latest, after.without(&before));
        let envelope = Envelope {
            cluster: CLUSTER,
            from: member(sender).id,
            from_incarnation: incarnation(sender),
            from_boot: 1,
            sent: Now { wall: self.now().wall, ..Now::default() },
            config_stamp: ConfigStamp::default(),
            losses: cartwheel_core::cluster::losses::Losses::NONE,
            trace: None,
            message: Message::Notice(Notice::Changes(Changes { since, version, changes, is_answer: true })),
        };
        self.input(first, ControlInput::Message(Box::new(envelope)));
    }

    /// The number of epochs that have ended everywhere, and the longest time that the turn to the next took.
    fn epochs(&self) -> (u64, Duration) {
        let turned = self.entered_us.iter().filter(|(_, entered)| entered.0 == self.machines.len());
        let took_us: Vec<u64> = turned
            .filter_map(|(epoch, &(_, entered_us))| {
                Some(entered_us.saturating_sub(*self.finished_us.get(&Epoch(epoch.0 - 1))?))
            })
            .collect();
        (took_us.len() as u64, Duration::from_micros(took_us.iter().copied().max().unwrap_or_default()))
    }

    fn undetected_per_mille(&self) -> u64 {
        let down: Vec<NodeId> =
            (0..self.machines.len()).filter(|&index| !self.machines[index].up).map(|index| member(index).id).collect();
        let seems_alive = |machine: &Machine| {
            let status = |&&node: &&NodeId| machine.control.liveness().status(node) == Status::Alive;
            down.iter().filter(status).count() as u64
        };
        let pairs = (self.up().count() * down.len()) as u64;
        1_000 * self.up().map(seems_alive).sum::<u64>() / pairs.max(1)
    }
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Notice(Notice::Swim(_)) => "probes",
        Message::Notice(Notice::Epoch(_)) => "epochs",
        Message::Notice(Notice::Have(_) | Notice::Want(_)) => "versions",
        _ => "changes",
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean_sent, worst_sent, worst_received, by_kind } = self;
        let kinds: Vec<String> = by_kind.iter().map(|(kind, bytes)| format!("{kind} {bytes}")).collect();
        write!(
            f,
            "{mean_sent} bytes a node and second ({}); the worst node sends {worst_sent} and receives {worst_received}",
            kinds.join(", ")
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known_after.map_or("not in time".to_owned(), |after| format!("after {after:?}"));
        write!(
            f,
            "{} nodes up\n  without changes: {}\n  a change is known everywhere {known}; meanwhile {}",
            self.up, self.quiet, self.spreading
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whole, epochs, epoch_turns_within, part, undetected_per_mille } = self;
        writeln!(
            f,
            "{whole}\n  {epochs} epochs ended, each at most {epoch_turns_within:?} after the last node finished it"
        )?;
        write!(f, "{part}\n  of the nodes that are down, {undetected_per_mille} in 1000 still seem alive to another")
    }
}
