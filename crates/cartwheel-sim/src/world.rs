//! The simulated world: machines, links and time. It carries out the driver's commands. The driver decides what happens, and what is correct.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use bytes::Bytes;
use cartwheel_core::control::ControlInput;
use cartwheel_core::event::Event as Reported;
use cartwheel_core::message::client::{ClientId, Outcome, Refusal, Reply, Request, Retry};
use cartwheel_core::message::listing::{ListRequest, Listed};
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
use crate::trace::{Trace, TraceKind};

mod controls;
mod epochs;
mod homes;
mod liveness;
mod members;

use controls::{Controls, MachineControl};

/// An event that the world reports to its driver.
#[derive(Debug)]
pub enum WorldEvent {
    /// A request has its response.
    Replied(ClientId, Outcome),
    /// A list has been made, or cannot be.
    Listed(ClientId, Result<Listed, Refusal>),
    /// The node of a request has crashed before it responded.
    Broken(ClientId),
    /// An alarm is due.
    Alarm(u64),
}

/// An event in the future.
#[derive(Debug)]
enum Event {
    /// A message arrives: its only copy, or one of two.
    Deliver { from: usize, to: usize, number: u64, is_only: bool, envelope: Box<Envelope> },
    /// A store command of this boot ends.
    Stored { machine: usize, boot: u32, id: StoreId, result: StoreResult, durable: Durable },
    /// A tick of a node is due.
    Tick { machine: usize, boot: u32 },
    /// A node takes the inputs that have gathered.
    Turn { machine: usize, boot: u32 },
    /// A notice arrives.
    DeliverNotice { from: usize, to: usize, envelope: Box<Envelope> },
    /// A control's history has been saved, or not.
    SettingsSaved { machine: usize, boot: u32, history: Bytes, stored: bool, failed: bool },
    /// A control gets the result of that.
    SettingsEnded { machine: usize, boot: u32, failed: bool },
    /// An epoch has been saved, or not, and the control gets the result.
    EpochSaved { machine: usize, boot: u32, epoch: Epoch, stored: bool, failed: bool },
    /// A tick of a control is due.
    ControlTick { machine: usize, boot: u32 },
    /// An alarm of the driver is due.
    Alarm(u64),
}

/// The longest time between two turns of a node.
pub(crate) const TURN_US_MAX: u64 = 2_000;

/// An event and its time. Events of the same time happen in the order in which they were scheduled.
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

/// The simulated world.
#[derive(Debug)]
pub struct World {
    cluster: Cluster,
    has_lost_a_disk: bool,
    machines: Vec<Machine>,
    machine_controls: Vec<MachineControl>,
    /// `None` if the nodes have no controls: then their settings stay as they were at bootstrap.
    controls: Option<Controls>,
    network: Network,
    nodes_rng: Rng,
    /// The times between turns, if nodes gather their inputs. Otherwise each input is a step.
    turns_rng: Option<Rng>,
    now_us: u64,
    sequence: u64,
    messages: u64,
    /// For each message that was sent twice, the boot of its receiver in which the first copy arrived. Both copies use one connection, so a copy
    /// does not arrive after a restart if the node has had the other one before.
    arrived_in: BTreeMap<u64, u32>,
    clients: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    world_events: VecDeque<WorldEvent>,
    trace: Trace,
    failure: Option<Failure>,
    /// The dots under which each write was stored, on any node.
    minted: BTreeMap<WriteId, Minted>,
    /// The largest median of the clocks' errors.
    most_ahead_ms: i64,
    /// The least and the greatest error that any clock ever had.
    clocks_ms: (i64, i64),
    /// When the first node entered each epoch.
    epochs: BTreeMap<Epoch, u64>,
    /// For each operation, the epoch of its node when it sent its first request.
    operations: BTreeMap<(usize, u64), Epoch>,
}

impl World {
    /// Makes a world in which all founders of `cluster` have just started, with empty disks and right clocks. `controls` are the generators for the
    /// delays of settings, probes and epochs; without them the nodes have no controls.
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
            has_lost_a_disk: false,
            machines,
            machine_controls: (0..cluster.len()).map(|_| MachineControl::default()).collect(),
            controls: controls.map(|(settings, probes, epochs)| Controls::new(settings, probes, epochs)),
            network,
            nodes_rng: Rng::new(seed, Stream::Nodes),
            turns_rng: None,
            now_us: 0,
            sequence: 0,
            messages: 0,
            arrived_in: BTreeMap::new(),
            clients: 0,
            queue: BinaryHeap::new(),
            world_events: VecDeque::new(),
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

    /// Lets nodes gather their inputs from now on, for random times, and take several of them in a step.
    #[must_use]
    pub fn with_turns(self, turns_rng: Option<Rng>) -> Self {
        Self { turns_rng, ..self }
    }

    /// The simulated time, in microseconds since the start.
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

    /// The dots under which each write was stored, on any node. A write with several attempts may have several.
    pub const fn minted(&self) -> &BTreeMap<WriteId, Minted> {
        &self.minted
    }

    /// The number of messages sent.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// The trace of the whole run.
    pub fn into_trace(self) -> Trace {
        self.trace
    }

    /// The trace so far.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The record of `key` that a machine would read now; `None` if there is none.
    pub fn record(&self, index: usize, key: &Key) -> Option<Result<Record, RecordError>> {
        let storage_key = key.storage_key();
        let bytes = self.machines[index].disk.current().records.get(&storage_key)?;
        Some(Record::decode(bytes, &storage_key))
    }

    /// The record of `key` that a machine has durably stored; `None` if there is none.
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

    /// Records an action of the driver in the trace.
    pub fn note(&mut self, kind: TraceKind, bytes: &[u8], text: impl FnOnce(&Cluster) -> String) {
        let cluster = &self.cluster;
        self.trace.note(self.now_us, kind, &[bytes], || text(cluster));
    }

    /// Takes the first failure, if there is one.
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

    /// Schedules [`WorldEvent::Alarm`] in `after_us` microseconds.
    pub fn alarm(&mut self, after_us: u64, number: u64) {
        self.schedule(self.now_us + after_us, Event::Alarm(number));
    }

    /// Advances to the next event that concerns the driver; `None` if there is none.
    pub fn advance(&mut self) -> Option<WorldEvent> {
        loop {
            if let Some(event) = self.world_events.pop_front() {
                return Some(event);
            }
            let Reverse(next) = self.queue.pop()?;
            self.now_us = next.at_us;
            self.handle(next.event);
        }
    }

    fn handle(&mut self, event: Event) {
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
            Event::Turn { machine, boot } => {
                let at = &mut self.machines[machine];
                if at.boot == boot {
                    at.has_turn = false;
                    // Otherwise it takes its turn when it resumes.
                    if !at.paused {
                        self.take_turn(machine);
                    }
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
            Event::Alarm(number) => self.world_events.push_back(WorldEvent::Alarm(number)),
        }
    }

    fn deliver(&mut self, (from, to): (usize, usize), number: u64, is_only: bool, envelope: Envelope) {
        let is_connected = number >= self.machines[from].connected_from.max(self.machines[to].connected_from);
        let is_heard = is_connected && self.machines[to].is_up() && self.network.arrives(from, to);
        let arrives = is_heard && (is_only || self.arrives_again(number, self.machines[to].boot));
        let cluster = &self.cluster;
        self.trace.note(self.now_us, TraceKind::Deliver, &[&number.to_le_bytes(), &[u8::from(arrives)]], || {
            let (from, to) = (cluster.name(from), cluster.name(to));
            format!("{to} {} m{number} of {from}", if arrives { "gets" } else { "does not get" })
        });
        if arrives {
            self.input(to, Input::Message(envelope));
        }
    }

    /// Whether a copy of a message that was sent twice arrives in this boot of its receiver. The first copy does; the second does if the first
    /// arrived in the same boot.
    fn arrives_again(&mut self, number: u64, boot: u32) -> bool {
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
            TraceKind::Stored,
            &[&(machine as u64).to_le_bytes(), &id.0.to_le_bytes(), &[u8::from(failed)]],
            || format!("{} {} s{}", cluster.name(machine), show::store_result(&result), id.0),
        );
        self.input(machine, Input::Stored(id, result));
    }

    /// Gives an input to a node, or keeps it while the node is paused or gathers its inputs.
    fn input(&mut self, index: usize, input: Input) {
        let machine = &mut self.machines[index];
        if machine.paused || self.turns_rng.is_some() {
            machine.backlog.push_back(input);
            if !machine.paused {
                self.schedule_turn(index);
            }
            return;
        }
        let now = machine.clock.read(self.now_us);
        if let Some(node) = &mut machine.node {
            let effects = node.step(now, input);
            self.carry_out(index, effects);
        }
    }

    /// Schedules a turn of a node that gathers its inputs, unless one is due already.
    fn schedule_turn(&mut self, index: usize) {
        let Some(rng) = &mut self.turns_rng else { return };
        let machine = &mut self.machines[index];
        if !std::mem::replace(&mut machine.has_turn, true) {
            let (at_us, boot) = (self.now_us + rng.below(TURN_US_MAX), machine.boot);
            self.schedule(at_us, Event::Turn { machine: index, boot });
        }
    }

    /// Lets a node take all inputs that have gathered, in one step.
    fn take_turn(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let now = machine.clock.read(self.now_us);
        if let Some(node) = &mut machine.node {
            let effects = node.step_all(now, std::mem::take(&mut machine.backlog).into_iter());
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
        self.world_events.extend(effects.lists.into_iter().map(|(id, listed)| WorldEvent::Listed(id, listed)));
        for event in effects.events {
            self.report(index, &event);
        }
        if let Some(epoch) = effects.finished {
            self.note(TraceKind::Report, &[index as u8], |cluster| {
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
            // It has just learned that it has left the cluster.
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
        if let Message::Forward(_, put, ..) = &envelope.message
            && let Retry::Named(id) = &put.retry
        {
            self.minted.entry(*id).or_default().forwards += 1;
        }
        self.judge_stamp(from, &envelope.message);
        let frame = wire::encode_envelope(&envelope);
        self.messages += 1;
        let number = self.messages;
        let delays = self.network.send(from, to);
        let cluster = &self.cluster;
        let route = [from as u8, to as u8, delays.len() as u8];
        self.trace.note(self.now_us, TraceKind::Send, &[&route, &frame], || {
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
                // A write that a full disk refuses is never stored, whatever else may fail.
                if !self.machines[index].disk.is_full() {
                    note_minted(&mut self.minted, storage_key, record);
                }
                record
            }
            StoreCommand::Remember { value, .. } => value,
            _ => &[],
        };
        self.trace.note(self.now_us, TraceKind::Store, &[&(index as u64).to_le_bytes(), bytes], || {
            format!("{} s{} {}", cluster.name(index), id.0, show::store_command(cluster, &command))
        });
        self.judge_collection(index, &command);
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
            Ok(Reply::Inspected(_)) => Bytes::new(),
            Err(refusal) => Bytes::from_static(refusal.code().as_bytes()),
        };
        self.trace.note(self.now_us, TraceKind::Reply, &[&client.0.to_le_bytes(), &bytes], || {
            format!("{} answers q{}: {}", cluster.name(index), client.0, show::outcome(cluster, &outcome))
        });
        if self.machines[index].unanswered.remove(&client) {
            self.world_events.push_back(WorldEvent::Replied(client, outcome));
        } else {
            self.fail("each request gets one reply", None, format!("q{} was answered twice, or never sent", client.0));
        }
    }

    fn report(&mut self, index: usize, event: &Reported) {
        let cluster = &self.cluster;
        self.trace.note(self.now_us, TraceKind::Report, &[&[index as u8]], || {
            format!("{} reports: {}", cluster.name(index), show::event(cluster, event))
        });
        if let Reported::TreeWrong(partition) = event {
            let message = format!("{} finds its tree of {partition:?} wrong", self.cluster.name(index));
            self.fail("trees match the data", None, message);
        }
        if let Reported::DotCollision(key) = event {
            let name = self.cluster.name(index).to_owned();
            self.fail("no dot is made twice", Some(key.clone()), format!("{name} saw one dot with two contents"));
        }
    }

    /// Sends the request of the client named `sender` to a node; `None` if the node is down.
    pub fn submit(&mut self, index: usize, sender: &str, request: Request) -> Option<ClientId> {
        if !self.machines[index].is_up() {
            return None;
        }
        self.clients += 1;
        let client = ClientId(self.clients);
        let cluster = &self.cluster;
        self.trace.note(self.now_us, TraceKind::Ask, &[&client.0.to_le_bytes(), &[index as u8]], || {
            let what = show::operation(&request.operation);
            format!("{sender} asks {} q{}: {what}, waits {:?}", cluster.name(index), client.0, request.timeout)
        });
        self.machines[index].unanswered.insert(client);
        self.input(index, Input::Client(client, request));
        Some(client)
    }

    /// Asks a node for a list; `None` if the node is down.
    pub fn list(&mut self, index: usize, request: ListRequest) -> Option<ClientId> {
        if !self.machines[index].is_up() {
            return None;
        }
        self.clients += 1;
        let client = ClientId(self.clients);
        self.trace.note(self.now_us, TraceKind::Ask, &[&client.0.to_le_bytes(), &[index as u8]], || {
            format!("a client asks {} for a list: {:?}", self.cluster.name(index), request.listing)
        });
        self.input(index, Input::List(client, request));
        Some(client)
    }

    /// Whether a node has not yet responded to a request.
    pub fn is_unanswered(&self, index: usize, client: ClientId) -> bool {
        self.machines[index].unanswered.contains(&client)
    }

    /// Crashes a node. Unsynced changes are lost, except the first `least`. Returns the keys whose records lost changes.
    pub fn crash(&mut self, index: usize, least: usize) -> Vec<Key> {
        self.note(TraceKind::Fault, &[1, index as u8], |cluster| format!("{} crashes", cluster.name(index)));
        let (unanswered, lost) = self.machines[index].crash(least);
        self.machines[index].down_since_us = self.now_us;
        self.machine_controls[index].crash();
        self.world_events.extend(unanswered.into_iter().map(WorldEvent::Broken));
        lost.iter().filter_map(|storage_key| Key::from_storage_key(storage_key).ok()).collect()
    }

    /// Replaces the disk of a node that is down. The new one holds nothing but the membership history, which an administrator put there.
    pub fn wipe(&mut self, index: usize, incarnation: Incarnation, rng: Rng) {
        self.note(TraceKind::Fault, &[10, index as u8], |cluster| {
            format!("the disk of {} is lost", cluster.name(index))
        });
        self.has_lost_a_disk = true;
        let floor = self.epoch_floor_for(index);
        self.machines[index].wipe(incarnation, floor, rng);
        self.renew_control(index);
    }

    /// Copies a running node's disk, for [`Self::restore_copy`].
    pub(crate) fn copy_disk(&mut self, index: usize) -> DirCopy {
        self.note(TraceKind::Fault, &[12, index as u8], |cluster| {
            format!("the disk of {} is copied", cluster.name(index))
        });
        self.machines[index].copy()
    }

    /// Replaces the disk of a node that is down with a copy. The node does not know.
    ///
    /// No protocol can know what the disk then lacks, so the node counts as one that knows of a loss. But it does not know when the copy was
    /// made, and its next boot has the number of an earlier one.
    pub(crate) fn restore_copy(&mut self, index: usize, copy: DirCopy) {
        self.note(TraceKind::Fault, &[13, index as u8], |cluster| {
            format!("the disk of {} is a copy of boot {} from now on", cluster.name(index), copy.boot)
        });
        self.has_lost_a_disk = true;
        self.machines[index].connected_from = self.messages + 1;
        self.machines[index].restore_copy(copy);
    }

    /// Whether another node knows of a loss of `index` in a boot after this one.
    pub(crate) fn others_know_of_a_loss_after(&self, index: usize, boot: u32) -> bool {
        let (home, next) = (self.home(index), Since::boot(boot + 1));
        let knows = |machine: &Machine| {
            let saved = losses_in(machine.disk().current()).latest_of(home);
            let known = machine.node().map(|node| node.losses().latest_of(home));
            saved.max(known.unwrap_or_default()) > next
        };
        self.machines.iter().any(knows)
    }

    /// Whether any disk was lost, or replaced by an older copy.
    pub const fn has_lost_a_disk(&self) -> bool {
        self.has_lost_a_disk
    }

    /// The latest epoch on the disks of the others.
    fn epoch_floor_for(&self, index: usize) -> Epoch {
        let others = self.machines.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, other)| other.epoch.max(other.epoch_floor)).max().unwrap_or_default()
    }

    /// Stops a node in order: it saves what it wants to, and all its writes are synced.
    pub fn stop(&mut self, index: usize) -> Vec<Key> {
        self.note(TraceKind::Fault, &[11, index as u8], |cluster| format!("{} stops in order", cluster.name(index)));
        self.machines[index].backlog.push_back(Input::Stop);
        self.take_turn(index);
        let all = self.machines[index].disk.unsynced().count();
        let lost = self.crash(index, all);
        self.machines[index].was_stopped = true;
        lost
    }

    /// Starts a node from its disk.
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
        // It may have been saved by a node that crashed before the save was reported.
        self.epochs.entry(start.epoch).or_insert(self.now_us);
        let Start { incarnation, boot, .. } = start;
        if std::mem::take(&mut machine.was_restored)
            || boot > 1 && self.cluster.leaves_writes_to_the_os() && !was_stopped
        {
            machine.loss_floor = Since::boot(boot);
        } else if boot == 1 && incarnation != first_incarnation(index) {
            machine.loss_floor = Since::boot(1);
        }
        let loss_floor = machine.loss_floor;
        let view = self.machine_controls[index].view().unwrap_or_else(|| self.cluster.view().clone());
        machine.node = Some(self.cluster.make_node(index, start, loss_floor, machine.disk.current(), view, seed));
        self.note(TraceKind::Fault, &[2, index as u8], |cluster| {
            format!("{} starts, boot {boot}", cluster.name(index))
        });
        // The control must exist before the node's first input, to receive its configurations.
        self.start_control(index);
        self.input(index, Input::Tick);
    }

    /// Pauses a node.
    pub fn pause(&mut self, index: usize) {
        self.note(TraceKind::Fault, &[3, index as u8], |cluster| format!("{} is paused", cluster.name(index)));
        self.machines[index].paused = true;
    }

    /// Resumes a node, which handles the inputs that came meanwhile.
    pub fn resume(&mut self, index: usize) {
        self.note(TraceKind::Fault, &[4, index as u8], |cluster| format!("{} resumes", cluster.name(index)));
        let machine = &mut self.machines[index];
        machine.paused = false;
        machine.running_since_us = self.now_us;
        if self.turns_rng.is_some() {
            return self.schedule_turn(index);
        }
        for input in std::mem::take(&mut machine.backlog) {
            self.input(index, input);
        }
    }

    /// Cuts one direction between two nodes. Cuts add up, and each is healed by itself.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.note(TraceKind::Fault, &[6, from as u8, to as u8], |cluster| {
            format!("{} -> {} is cut", cluster.name(from), cluster.name(to))
        });
        self.network.cut(from, to);
    }

    /// Removes one cut of one direction.
    pub fn heal_link(&mut self, from: usize, to: usize) {
        self.note(TraceKind::Fault, &[7, from as u8, to as u8], |cluster| {
            format!("{} -> {} is healed", cluster.name(from), cluster.name(to))
        });
        self.network.heal(from, to);
    }

    /// Removes all cuts.
    pub fn heal_links(&mut self) {
        self.note(TraceKind::Fault, &[8], |_| "all links are healed".to_owned());
        self.network.heal_all();
    }

    /// Sets the error of a wall clock: positive if it is ahead.
    pub fn set_clock(&mut self, index: usize, wall_offset_ms: i64) {
        self.note(TraceKind::Fault, &wall_offset_ms.to_le_bytes(), |cluster| {
            format!("the clock of {} is off by {wall_offset_ms} ms", cluster.name(index))
        });
        self.machines[index].clock.wall_offset_ms = wall_offset_ms;
        let (least, most) = self.clocks_ms;
        self.clocks_ms = (least.min(wall_offset_ms), most.max(wall_offset_ms));
        let mut offsets: Vec<i64> = self.machines.iter().map(|machine| machine.clock.wall_offset_ms).collect();
        offsets.sort_unstable();
        self.most_ahead_ms = self.most_ahead_ms.max(offsets[(offsets.len() - 1) / 2]);
    }

    /// The most by which the timestamps of two simultaneous writes can differ, in microseconds.
    pub const fn clocks_within_us(&self) -> u64 {
        let (least, most) = self.clocks_ms;
        (most.abs_diff(least) + TIMESTAMPS_AHEAD_MS) * 1_000
    }

    /// The error of a wall clock, in milliseconds.
    pub fn clock_offset_ms(&self, index: usize) -> i64 {
        self.machines[index].clock.wall_offset_ms
    }

    /// Flips a bit of a node's record of `key`.
    pub fn damage(&mut self, index: usize, key: &Key) {
        self.note(TraceKind::Fault, &key.storage_key(), |cluster| {
            format!("{key:?} is damaged on {}", cluster.name(index))
        });
        self.machines[index].disk.damage(&key.storage_key());
    }

    /// Makes a node's disk full, or gives it space again.
    pub fn set_full(&mut self, index: usize, full: bool) {
        self.note(TraceKind::Fault, &[9, index as u8, u8::from(full)], |cluster| {
            let name = cluster.name(index);
            if full { format!("the disk of {name} is full") } else { format!("the disk of {name} has space") }
        });
        self.machines[index].disk.set_full(full);
    }

    /// Ends all faults: heals links and disks, sets clocks right, and starts or resumes all nodes.
    pub fn heal(&mut self) {
        self.note(TraceKind::Fault, &[5], |_| "all faults end".to_owned());
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

/// How far a timestamp may be ahead of its node's clock although no timestamp that it replaced was. A forwarded write on a busy key is raised by
/// up to a second, in steps.
const TIMESTAMPS_AHEAD_MS: u64 = 1_500;

/// The dots under which a write was stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Minted {
    /// The number of times that a node forwarded it to another.
    pub forwards: usize,
    /// The dots and their timestamps.
    pub dots: BTreeMap<Dot, Hlc>,
    /// The epoch of the write if it is a delete; otherwise the first epoch in which a node found it expired.
    pub deleted_in: Option<Epoch>,
    /// When it expires.
    pub expires: Option<WallMs>,
    /// The earliest timestamp in a note of it. A dot that was replaced in the step that made it is never stored.
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
        // A value may be found expired in an epoch in which another value of the key was found so.
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
