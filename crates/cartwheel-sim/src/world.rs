//! The simulated world: machines, links and time. It does what it is told; who tells it, and what is right, is decided
//! elsewhere.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use bytes::Bytes;
use cartwheel_core::control::ControlInput;
use cartwheel_core::event::Event as Reported;
use cartwheel_core::message::client::{ClientId, Outcome, Put, Reply, Request, Retry};
use cartwheel_core::message::{Envelope, Message};
use cartwheel_core::node::{Effects, Input};
use cartwheel_core::store::command::{StoreCommand, StoreId, StoreResult};
use cartwheel_core::store::record::{ActorsSince, Record, RecordError};
use cartwheel_core::value::dot::{Dot, Incarnation, Since};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;
use cartwheel_core::value::write_id::WriteId;
use cartwheel_core::wire;

use crate::clock::Clock;
use crate::cluster::{Cluster, Start, first_incarnation, losses_in};
use crate::disk::{Disk, Durable};
use crate::failure::Failure;
use crate::machine::{DirCopy, Machine, MachineStatus};
use crate::network::Network;
use crate::options::{DiskOptions, NetworkOptions};
use crate::rng::{Rng, Stream};
use crate::show;
use crate::trace::{Kind, Trace};

mod controls;
mod epochs;
mod homes;
mod liveness;
mod members;

use controls::{Controls, MachineControl};

/// What the world tells whoever drives it.
#[derive(Debug)]
pub enum Happening {
    /// A request was answered.
    Replied(ClientId, Outcome),
    /// The node that a request was sent to has crashed before it answered.
    Broken(ClientId),
    /// The time of an alarm has come.
    Alarm(u64),
}

/// What is going to happen.
#[derive(Debug)]
enum Event {
    /// A message arrives: the only copy of it, or one of two.
    Deliver { from: usize, to: usize, number: u64, is_only: bool, envelope: Box<Envelope> },
    /// A store command of this boot ends.
    Stored { machine: usize, boot: u32, id: StoreId, result: StoreResult, durable: Durable },
    /// A node wanted a tick at this time.
    Tick { machine: usize, boot: u32 },
    /// A notice arrives.
    DeliverNotice { from: usize, to: usize, envelope: Box<Envelope> },
    /// A control's history is on its disk, or not.
    SettingsSaved { machine: usize, boot: u32, history: Bytes, stored: bool, failed: bool },
    /// A control hears how that ended.
    SettingsEnded { machine: usize, boot: u32, failed: bool },
    /// An epoch is on a node's disk, or not, and its control hears of that.
    EpochSaved { machine: usize, boot: u32, epoch: Epoch, stored: bool, failed: bool },
    /// A control wanted a tick at this time.
    ControlTick { machine: usize, boot: u32 },
    /// The driver wanted to be told.
    Alarm(u64),
}

/// An event and its place in time. Events of one instant happen in the order in which they were scheduled.
#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.sequence).cmp(&(other.at_us, other.sequence))
    }
}

/// The world.
#[derive(Debug)]
pub struct World {
    cluster: Cluster,
    machines: Vec<Machine>,
    machine_controls: Vec<MachineControl>,
    /// None if the nodes have no controls: their settings stay as they were founded.
    controls: Option<Controls>,
    network: Network,
    nodes_rng: Rng,
    now_us: u64,
    sequence: u64,
    messages: u64,
    /// In which boot of its receiver the first copy arrived of each message that was sent twice. Both come over one connection, so what a
    /// node has had does not come again after its restart.
    arrived_in: BTreeMap<u64, u32>,
    clients: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    happenings: VecDeque<Happening>,
    trace: Trace,
    failure: Option<Failure>,
    /// What each write was stored as, anywhere.
    minted: BTreeMap<WriteId, Minted>,
    /// How far most clocks were ahead, at the most.
    most_ahead_ms: i64,
    /// The least and the most that any clock was ever ahead.
    clocks_ms: (i64, i64),
    /// When a node first entered each epoch.
    epochs: BTreeMap<Epoch, u64>,
    /// In which epoch of its node each operation first asked another.
    operations: BTreeMap<(usize, u64), Epoch>,
}

impl World {
    /// A world in which all nodes of `cluster` have just started with empty disks and right clocks. With `controls` they have
    /// controls, for which settings travel by the first and probes by the second.
    pub fn new(
        cluster: Cluster,
        network: NetworkOptions,
        disks: &DiskOptions,
        seed: u64,
        trace: Trace,
        controls: Option<(Rng, Rng, Rng)>,
    ) -> Self {
        let mut disks_rng = Rng::new(seed, Stream::Disks);
        let machines = (0..cluster.len())
            .map(|index| {
                let rng = Rng::new(disks_rng.bits(), Stream::Disks);
                Machine::new(first_incarnation(index), Disk::new(disks.clone(), rng), Clock::default())
            })
            .collect();
        let network = Network::new(network, cluster.len(), Rng::new(seed, Stream::Network));
        let mut world = Self {
            machines,
            machine_controls: (0..cluster.len()).map(|_| MachineControl::default()).collect(),
            controls: controls.map(|(settings, probes, epochs)| Controls::new(settings, probes, epochs)),
            network,
            nodes_rng: Rng::new(seed, Stream::Nodes),
            now_us: 0,
            sequence: 0,
            messages: 0,
            arrived_in: BTreeMap::new(),
            clients: 0,
            queue: BinaryHeap::new(),
            happenings: VecDeque::new(),
            trace,
            failure: None,
            minted: BTreeMap::new(),
            most_ahead_ms: 0,
            clocks_ms: (0, 0),
            epochs: BTreeMap::from([(Epoch::FIRST, 0)]),
            operations: BTreeMap::new(),
            cluster,
        };
        let founders = world.cluster.first_members();
        for index in founders..world.machines.len() {
            (world.machines[index].status, world.machines[index].epoch) = (MachineStatus::Spare, Epoch::UNKNOWN);
        }
        for index in 0..founders {
            world.start(index);
        }
        world
    }

    /// Simulated time, in microseconds since the start.
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The cluster.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// One machine.
    pub fn machine(&self, index: usize) -> &Machine {
        &self.machines[index]
    }

    /// The machines that take requests.
    pub fn up_nodes(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|&index| self.machines[index].is_up()).collect()
    }

    /// What each write was stored as, anywhere. A write that was tried more than once may have several dots.
    pub const fn minted(&self) -> &BTreeMap<WriteId, Minted> {
        &self.minted
    }

    /// How many messages were sent.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// What happened, when it is over.
    pub fn into_trace(self) -> Trace {
        self.trace
    }

    /// What happened so far.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What a machine would read under `key` now; none if nothing is stored there.
    pub fn record(&self, index: usize, key: &Key) -> Option<Result<Record, RecordError>> {
        let storage_key = key.storage_key();
        let bytes = self.machines[index].disk.current().records.get(&storage_key)?;
        Some(Record::decode(bytes, &storage_key))
    }

    /// What a machine has durably stored under `key`; none if nothing is stored there.
    pub fn durable_record(&self, index: usize, key: &Key) -> Option<Result<Record, RecordError>> {
        let storage_key = key.storage_key();
        let bytes = self.machines[index].disk.durable().records.get(&storage_key)?;
        Some(Record::decode(bytes, &storage_key))
    }

    /// Whether a record of a bucket is damaged on some disk.
    pub(crate) fn has_damaged(&self, bucket: &[u8]) -> bool {
        let is_of_it = |key: &Bytes| Key::from_storage_key(key).is_ok_and(|key| key.bucket() == bucket);
        self.machines.iter().map(|machine| machine.disk().durable()).any(|image| {
            let mut records = image.records.iter().filter(|(key, _)| is_of_it(key));
            records.any(|(key, bytes)| Record::decode(bytes, key).is_err())
        })
    }

    /// Notes something that the driver did.
    pub fn note(&mut self, kind: Kind, bytes: &[u8], text: impl FnOnce(&Cluster) -> String) {
        let cluster = &self.cluster;
        self.trace.note(self.now_us, kind, &[bytes], || text(cluster));
    }

    /// Takes out what was found to be wrong, if anything was.
    pub const fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    fn fail(&mut self, check: &'static str, key: Option<Key>, message: String) {
        let at_us = self.now_us;
        self.failure.get_or_insert(Failure { check, key, at_us, message });
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled { at_us: at_us.max(self.now_us), sequence: self.sequence, event }));
    }

    /// Asks for [`Happening::Alarm`] after `after_us` microseconds.
    pub fn alarm(&mut self, after_us: u64, number: u64) {
        self.schedule(self.now_us + after_us, Event::Alarm(number));
    }

    /// Goes on until something happens that the driver wants to know; none if nothing will.
    pub fn advance(&mut self) -> Option<Happening> {
        loop {
            if let Some(happening) = self.happenings.pop_front() {
                return Some(happening);
            }
            let Reverse(next) = self.queue.pop()?;
            self.now_us = next.at_us;
            self.happen(next.event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, number, is_only, envelope } => {
                self.deliver((from, to), number, is_only, *envelope);
            }
            Event::Stored { machine, boot, id, result, durable } => self.stored(machine, boot, id, result, durable),
            Event::Tick { machine, boot } => {
                let at = &mut self.machines[machine];
                if at.boot == boot && at.wake_at_us == Some(self.now_us) {
                    at.wake_at_us = None;
                    self.input(machine, Input::Tick);
                }
            }
            Event::DeliverNotice { from, to, envelope } => self.deliver_notice(from, to, *envelope),
            Event::SettingsSaved { machine, boot, history, stored, failed } => {
                self.settings_saved(machine, boot, history, stored, failed);
            }
            Event::SettingsEnded { machine, boot, failed } => self.settings_ended(machine, boot, failed),
            Event::EpochSaved { machine, boot, epoch, stored, failed } => {
                self.epoch_saved(machine, boot, epoch, stored, failed);
            }
            Event::ControlTick { machine, boot } => self.control_tick(machine, boot),
            Event::Alarm(number) => self.happenings.push_back(Happening::Alarm(number)),
        }
    }

    fn deliver(&mut self, (from, to): (usize, usize), number: u64, is_only: bool, envelope: Envelope) {
        let is_connected = number >= self.machines[from].connected_from.max(self.machines[to].connected_from);
        let is_heard = is_connected && self.machines[to].is_up() && self.network.arrives(from, to);
        let arrives = is_heard && (is_only || self.may_come_again(number, self.machines[to].boot));
        let cluster = &self.cluster;
        self.trace.note(self.now_us, Kind::Deliver, &[&number.to_le_bytes(), &[u8::from(arrives)]], || {
            let (from, to) = (cluster.name(from), cluster.name(to));
            format!("{to} {} m{number} of {from}", if arrives { "gets" } else { "does not get" })
        });
        if arrives {
            self.input(to, Input::Message(envelope));
        }
    }

    /// Whether a copy of a message that was sent twice arrives in this boot of its receiver: the first does, and the second if the first did not
    /// arrive in another.
    fn may_come_again(&mut self, number: u64, boot: u32) -> bool {
        match self.arrived_in.remove(&number) {
            Some(first) => first == boot,
            None => self.arrived_in.insert(number, boot).is_none(),
        }
    }

    fn stored(&mut self, machine: usize, boot: u32, id: StoreId, result: StoreResult, durable: Durable) {
        let at = &mut self.machines[machine];
        if at.boot != boot || !at.is_up() {
            return;
        }
        at.disk.end(durable);
        let cluster = &self.cluster;
        let failed = matches!(result, StoreResult::Read(Err(_)) | StoreResult::Written(Err(_)));
        self.trace.note(
            self.now_us,
            Kind::Stored,
            &[&(machine as u64).to_le_bytes(), &id.0.to_le_bytes(), &[u8::from(failed)]],
            || format!("{} {} s{}", cluster.name(machine), show::store_result(&result), id.0),
        );
        self.input(machine, Input::Stored(id, result));
    }

    /// Hands an input to a node, or keeps it while the node stands still.
    fn input(&mut self, index: usize, input: Input) {
        let machine = &mut self.machines[index];
        if machine.paused {
            machine.backlog.push_back(input);
            return;
        }
        let now = machine.clock.read(self.now_us);
        if let Some(node) = &mut machine.node {
            let effects = node.step(now, input);
            self.carry_out(index, effects);
        }
    }

    fn carry_out(&mut self, index: usize, effects: Effects) {
        for (to, envelope) in effects.sends {
            match self.cluster.index(to) {
                Some(to) => self.send(index, to, envelope),
                None => {
                    self.fail("messages go to members", None, format!("{} sends to {to}", self.cluster.name(index)))
                }
            }
        }
        for (id, command) in effects.stores {
            self.store(index, id, command);
        }
        for (client, outcome) in effects.replies {
            self.reply(index, client, outcome);
        }
        for event in effects.events {
            self.report(index, &event);
        }
        if let Some(epoch) = effects.finished {
            self.note(Kind::Report, &[index as u8], |cluster| {
                format!("{} has finished epoch {epoch}", cluster.name(index))
            });
            self.judge_finished(index, epoch);
            self.control_input(index, ControlInput::Finished(0, epoch));
        }
        if !effects.phases.is_empty() {
            self.control_input(index, ControlInput::Phases(effects.phases));
        }
        if let Some(is_drained) = effects.drained {
            self.control_input(index, ControlInput::Drained(0, is_drained));
        }
        let machine = &mut self.machines[index];
        if machine.node.is_none() {
            // It has heard meanwhile that it has left.
            return;
        }
        let wake_at_us = effects.wake_at.map(|at| machine.clock.simulated_us(at).max(self.now_us));
        if machine.wake_at_us != wake_at_us {
            machine.wake_at_us = wake_at_us;
            if let Some(at_us) = wake_at_us {
                let boot = machine.boot;
                self.schedule(at_us, Event::Tick { machine: index, boot });
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, envelope: Envelope) {
        if let Message::Forward(_, Put { retry: Retry::Named(id), .. }, ..) = &envelope.message {
            self.minted.entry(*id).or_default().forwards += 1;
        }
        self.judge_stamp(from, &envelope.message);
        let frame = wire::encode_envelope(&envelope);
        self.messages += 1;
        let number = self.messages;
        let delays = self.network.send(from, to);
        let cluster = &self.cluster;
        let route = [from as u8, to as u8, delays.len() as u8];
        self.trace.note(self.now_us, Kind::Send, &[&route, &frame], || {
            let fate = ["lost: ", "", "twice: "][delays.len().min(2)];
            let (from, to, said) = (cluster.name(from), cluster.name(to), show::envelope(cluster, &envelope));
            format!("{from} -> {to} m{number} {fate}{said}")
        });
        match wire::decode_envelope(frame) {
            Ok(decoded) if decoded == envelope => {}
            decoded => {
                self.fail("a message survives its codec", None, format!("sent {envelope:?}, decoded {decoded:?}"));
            }
        }
        let is_only = delays.len() == 1;
        for delay_us in delays {
            self.schedule(
                self.now_us + delay_us,
                Event::Deliver { from, to, number, is_only, envelope: Box::new(envelope.clone()) },
            );
        }
    }

    fn store(&mut self, index: usize, id: StoreId, command: StoreCommand) {
        let cluster = &self.cluster;
        let bytes: &[u8] = match &command {
            StoreCommand::Write { storage_key, record: Some(record), .. } => {
                // What a full disk refuses was never stored, whatever else may fail.
                if !self.machines[index].disk.is_full() {
                    note_minted(&mut self.minted, storage_key, record);
                }
                record
            }
            StoreCommand::Remember { value, .. } => value,
            _ => &[],
        };
        self.trace.note(self.now_us, Kind::Store, &[&(index as u64).to_le_bytes(), bytes], || {
            format!("{} s{} {}", cluster.name(index), id.0, show::store_command(cluster, &command))
        });
        self.judge_forgetting(index, &command);
        let machine = &mut self.machines[index];
        let started = machine.disk.start(&command);
        let boot = machine.boot;
        let event = Event::Stored { machine: index, boot, id, result: started.result, durable: started.durable };
        self.schedule(self.now_us + started.delay_us, event);
    }

    fn reply(&mut self, index: usize, client: ClientId, outcome: Outcome) {
        let cluster = &self.cluster;
        let bytes = match &outcome {
            Ok(Reply::Got(got)) => got.context.clone().unwrap_or_default(),
            Ok(Reply::Put(done)) => done.context.clone().unwrap_or_default(),
            Err(refusal) => Bytes::from_static(refusal.code().as_bytes()),
        };
        self.trace.note(self.now_us, Kind::Reply, &[&client.0.to_le_bytes(), &bytes], || {
            format!("{} answers q{}: {}", cluster.name(index), client.0, show::outcome(cluster, &outcome))
        });
        if self.machines[index].unanswered.remove(&client) {
            self.happenings.push_back(Happening::Replied(client, outcome));
        } else {
            self.fail("each request gets one reply", None, format!("q{} was answered twice, or never asked", client.0));
        }
    }

    fn report(&mut self, index: usize, event: &Reported) {
        let cluster = &self.cluster;
        self.trace.note(self.now_us, Kind::Report, &[&[index as u8]], || {
            format!("{} reports: {}", cluster.name(index), show::event(cluster, event))
        });
        if let Reported::TreeWrong(partition) = event {
            let message = format!("{} finds its tree of {partition:?} wrong", self.cluster.name(index));
            self.fail("trees match the data", None, message);
        }
        if let Reported::DotCollision(key) = event {
            let who = self.cluster.name(index).to_owned();
            self.fail("no dot is made twice", Some(key.clone()), format!("{who} saw one dot with two contents"));
        }
    }

    /// Sends a client's request to a node; none if the node is down, and nothing was sent.
    pub fn submit(&mut self, index: usize, who: &str, request: Request) -> Option<ClientId> {
        if !self.machines[index].is_up() {
            return None;
        }
        self.clients += 1;
        let client = ClientId(self.clients);
        let cluster = &self.cluster;
        self.trace.note(self.now_us, Kind::Ask, &[&client.0.to_le_bytes(), &[index as u8]], || {
            let asked = show::operation(&request.operation);
            format!("{who} asks {} q{}: {asked}, waits {:?}", cluster.name(index), client.0, request.timeout)
        });
        self.machines[index].unanswered.insert(client);
        self.input(index, Input::Client(client, request));
        Some(client)
    }

    /// Whether a node has yet to answer a request.
    pub fn is_unanswered(&self, index: usize, client: ClientId) -> bool {
        self.machines[index].unanswered.contains(&client)
    }

    /// A node crashes: what was not synced is lost, but for the first `least` changes. Returns the keys whose records have lost
    /// changes.
    pub fn crash(&mut self, index: usize, least: usize) -> Vec<Key> {
        self.note(Kind::Fault, &[1, index as u8], |cluster| format!("{} crashes", cluster.name(index)));
        let (unanswered, lost) = self.machines[index].crash(least);
        self.machines[index].down_since_us = self.now_us;
        self.machine_controls[index].crash();
        self.happenings.extend(unanswered.into_iter().map(Happening::Broken));
        lost.iter().filter_map(|storage_key| Key::from_storage_key(storage_key).ok()).collect()
    }

    /// A node that is down loses its disk. What comes in its place is empty but for the history that an administrator put there.
    pub fn wipe(&mut self, index: usize, incarnation: Incarnation, rng: Rng) {
        self.note(Kind::Fault, &[10, index as u8], |cluster| format!("the disk of {} is lost", cluster.name(index)));
        let floor = self.epoch_floor_for(index);
        self.machines[index].wipe(incarnation, floor, rng);
        self.renew_control(index);
    }

    /// A copy of a running node's disk, for [`Self::put_back`].
    pub(crate) fn copy_disk(&mut self, index: usize) -> DirCopy {
        self.note(Kind::Fault, &[12, index as u8], |cluster| format!("the disk of {} is copied", cluster.name(index)));
        self.machines[index].copy()
    }

    /// A node that is down gets a copy of its disk in the place of the disk, and nobody notices.
    ///
    /// What the disk lacks then no protocol could know of, so the node counts as one that knows of a loss; but it knows nothing of
    /// when the copy was made, and its next boot has a number that another one has had.
    pub(crate) fn put_back(&mut self, index: usize, copy: DirCopy) {
        self.note(Kind::Fault, &[13, index as u8], |cluster| {
            format!("the disk of {} is a copy of boot {} from now on", cluster.name(index), copy.boot)
        });
        self.machines[index].connected_from = self.messages + 1;
        self.machines[index].put_back(copy);
    }

    /// Whether another node was told of a loss of `index` in a boot after this one.
    pub(crate) fn others_heard_of_a_loss_after(&self, index: usize, boot: u32) -> bool {
        let (home, next) = (self.home(index), Since::boot(boot + 1));
        let heard = |machine: &Machine| {
            let saved = losses_in(machine.disk().current()).latest_of(home);
            let told = machine.node().map(|node| node.losses().latest_of(home));
            saved.max(told.unwrap_or_default()) > next
        };
        self.machines.iter().any(heard)
    }

    /// The latest epoch that the disks of the others know.
    fn epoch_floor_for(&self, index: usize) -> Epoch {
        let others = self.machines.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, other)| other.epoch.max(other.epoch_floor)).max().unwrap_or_default()
    }

    /// A node stops in order: it remembers what it wants to, and all it has written is synced.
    pub fn stop(&mut self, index: usize) -> Vec<Key> {
        self.note(Kind::Fault, &[11, index as u8], |cluster| format!("{} stops in order", cluster.name(index)));
        self.input(index, Input::Stop);
        let all = self.machines[index].disk.unsynced().count();
        let lost = self.crash(index, all);
        self.machines[index].was_stopped = true;
        lost
    }

    /// A node starts from its disk.
    pub fn start(&mut self, index: usize) {
        self.retire();
        if self.machines[index].status != MachineStatus::Member {
            return;
        }
        self.judge_death(index);
        let seed = self.nodes_rng.bits();
        let machine = &mut self.machines[index];
        machine.boot += 1;
        machine.clock.instant_offset_us = self.nodes_rng.below(1 << 40);
        machine.running_since_us = self.now_us;
        // A node whose writes were all synced knows that it has lost none.
        let was_stopped = std::mem::take(&mut machine.was_stopped);
        if !was_stopped {
            machine.actors = ActorsSince { boot: machine.start().boot, drawn: seed };
        }
        let start = machine.start();
        // It may have been saved by a node that died before it knew.
        self.epochs.entry(start.epoch).or_insert(self.now_us);
        let Start { incarnation, boot, .. } = start;
        if std::mem::take(&mut machine.went_back) || boot > 1 && self.cluster.leaves_writes_to_the_os() && !was_stopped
        {
            machine.loss_floor = Since::boot(boot);
        } else if boot == 1 && incarnation != first_incarnation(index) {
            machine.loss_floor = Since::boot(1);
        }
        let loss_floor = machine.loss_floor;
        let view = self.machine_controls[index].view().unwrap_or_else(|| self.cluster.view().clone());
        machine.node = Some(self.cluster.make_node(index, start, loss_floor, machine.disk.current(), view, seed));
        self.note(Kind::Fault, &[2, index as u8], |cluster| format!("{} starts, boot {boot}", cluster.name(index)));
        // Its control is there first, to hear what the node says of what holds.
        self.start_control(index);
        self.input(index, Input::Tick);
    }

    /// A node stands still.
    pub fn pause(&mut self, index: usize) {
        self.note(Kind::Fault, &[3, index as u8], |cluster| format!("{} stands still", cluster.name(index)));
        self.machines[index].paused = true;
    }

    /// A node goes on, and takes in what came meanwhile.
    pub fn resume(&mut self, index: usize) {
        self.note(Kind::Fault, &[4, index as u8], |cluster| format!("{} goes on", cluster.name(index)));
        let machine = &mut self.machines[index];
        machine.paused = false;
        machine.running_since_us = self.now_us;
        for input in std::mem::take(&mut machine.backlog) {
            self.input(index, input);
        }
    }

    /// Cuts one direction between two nodes. Cuts add up: each is healed by itself.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.note(Kind::Fault, &[6, from as u8, to as u8], |cluster| {
            format!("{} -> {} is cut", cluster.name(from), cluster.name(to))
        });
        self.network.cut(from, to);
    }

    /// Takes back one cut of one direction.
    pub fn heal_link(&mut self, from: usize, to: usize) {
        self.note(Kind::Fault, &[7, from as u8, to as u8], |cluster| {
            format!("{} -> {} is healed", cluster.name(from), cluster.name(to))
        });
        self.network.heal(from, to);
    }

    /// Takes back all cuts.
    pub fn heal_links(&mut self) {
        self.note(Kind::Fault, &[8], |_| "all links are healed".to_owned());
        self.network.heal_all();
    }

    /// Sets how far a wall clock is ahead, or behind if negative.
    pub fn set_clock(&mut self, index: usize, wall_offset_ms: i64) {
        self.note(Kind::Fault, &wall_offset_ms.to_le_bytes(), |cluster| {
            format!("the clock of {} is off by {wall_offset_ms} ms", cluster.name(index))
        });
        self.machines[index].clock.wall_offset_ms = wall_offset_ms;
        let (least, most) = self.clocks_ms;
        self.clocks_ms = (least.min(wall_offset_ms), most.max(wall_offset_ms));
        let mut offsets: Vec<i64> = self.machines.iter().map(|machine| machine.clock.wall_offset_ms).collect();
        offsets.sort_unstable();
        self.most_ahead_ms = self.most_ahead_ms.max(offsets[(offsets.len() - 1) / 2]);
    }

    /// By how much the timestamps of two writes can be apart at most that were made at the same time, in microseconds.
    pub const fn clocks_within_us(&self) -> u64 {
        let (least, most) = self.clocks_ms;
        (most.abs_diff(least) + TIMESTAMPS_AHEAD_MS) * 1_000
    }

    /// How far a wall clock is ahead, in milliseconds.
    pub fn clock_offset_ms(&self, index: usize) -> i64 {
        self.machines[index].clock.wall_offset_ms
    }

    /// Flips a bit of what a node has stored under `key`.
    pub fn damage(&mut self, index: usize, key: &Key) {
        self.note(Kind::Fault, &key.storage_key(), |cluster| format!("{key:?} is damaged on {}", cluster.name(index)));
        self.machines[index].disk.damage(&key.storage_key());
    }

    /// A node's disk is full, or has room again.
    pub fn set_full(&mut self, index: usize, full: bool) {
        self.note(Kind::Fault, &[9, index as u8, u8::from(full)], |cluster| {
            let name = cluster.name(index);
            if full { format!("the disk of {name} is full") } else { format!("the disk of {name} has room") }
        });
        self.machines[index].disk.set_full(full);
    }

    /// All faults end: links are whole, disks good, clocks right, nodes up.
    pub fn heal(&mut self) {
        self.note(Kind::Fault, &[5], |_| "all faults end".to_owned());
        self.network.become_reliable();
        for index in 0..self.machines.len() {
            self.machines[index].disk.become_reliable();
            self.set_clock(index, 0);
            if !self.machines[index].is_up() {
                self.start(index);
            }
            if self.machines[index].is_paused() {
                self.resume(index);
            }
        }
    }
}

/// How far a timestamp may be ahead of its node's clock though nothing that it replaced was: a forwarded write on a busy key is raised by up to a
/// second, in steps.
const TIMESTAMPS_AHEAD_MS: u64 = 1_500;

/// Under which dots a write was stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Minted {
    /// How often one node asked another to carry it out.
    pub forwards: usize,
    /// The dots with their timestamps.
    pub dots: BTreeMap<Dot, Hlc>,
    /// The epoch of the delete that it is, if it is one, or the first in which a node found that it had expired.
    pub deleted_in: Option<Epoch>,
    /// When it expires.
    pub expires: Option<WallMs>,
    /// The earliest timestamp in a note of it: a dot that was replaced in the step that made it is never stored.
    pub noted: Option<Hlc>,
}

impl Minted {
    /// The earliest timestamp.
    pub fn earliest(&self) -> Option<Hlc> {
        self.dots.values().copied().chain(self.noted).min()
    }

    /// The latest timestamp.
    pub fn latest(&self) -> Option<Hlc> {
        self.dots.values().copied().max()
    }
}

fn note_minted(minted: &mut BTreeMap<WriteId, Minted>, storage_key: &[u8], record: &Bytes) {
    let Ok(record) = Record::decode(record, storage_key) else { return };
    for sibling in record.state.siblings() {
        let known = minted.entry(sibling.write_id).or_default();
        known.dots.insert(sibling.dot, sibling.hlc);
        let is_tombstone = sibling.content == Content::Tombstone;
        // A value may be found to have expired when another of the key's has been found so for long.
        let deleted_in = if is_tombstone { Some(sibling.epoch) } else { record.header.expired_since };
        known.expires = sibling.expires;
        if is_tombstone || sibling.expires.is_some() {
            known.deleted_in = known.deleted_in.into_iter().chain(deleted_in).min();
        }
    }
    for (id, note) in record.state.notes().iter() {
        let known = minted.entry(id).or_default();
        known.noted = known.noted.into_iter().chain([note.hlc]).min();
    }
}
