//! One run of a seed. In the first phase faults strike, and every response must be correct. In the second phase all faults have ended, and the
//! cluster must converge.

mod listing;
mod loss;

use cartwheel_core::cluster::membership::{ChangeKind, Conflict};
use cartwheel_core::message::client::{ClientId, Consistency, Refusal};
use cartwheel_core::message::listing::Listed;
use cartwheel_core::mutation::Broken;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::State;

use crate::administrator::Administrator;
use crate::client::Clients;
use crate::cluster::Cluster;
use crate::emptied::EmptiedBucket;
use crate::failure::Failure;
use crate::faults::{Fault, Faults};
use crate::history::{KeyHistory, WriteSet};
use crate::options::Options;
use crate::oracle::{self, converged, trees};
use crate::rng::{Rng, Stream};
use crate::topology::Topology;
use crate::trace::Trace;
use crate::world::{World, WorldEvent};

/// How long the healed cluster is left alone before it is checked: longer than any message or request is under way.
const QUIET_US: u64 = 30_000_000;

/// How long a healed cluster may take to hand over all hints.
const HAND_OVER_US: u64 = 10_000_000;
/// How long a healthy cluster may take to collect deletes: some ten epochs.
const COLLECTED_US: u64 = 10 * 60 * 1_000_000;

/// The share of runs that end with the crash of a node, in a thousand.
const CRASHES_PER_MILLE: u32 = 125;
/// The share of runs whose nodes take several inputs in a step, as the server's do under load.
const TURNS_PER_MILLE: u32 = 250;
/// How often, and for how long each time, the cluster is waited for until its replicas are equal.
const WAITS_MAX: u32 = 12;
const WAIT_US: u64 = 5_000_000;
/// How often [`WAIT_US`] is waited for until all partitions have their target configurations.
const SETTLE_WAITS_MAX: u32 = 60;

/// The number of rounds of reads of all keys after which replicas must be equal. Reads may fail in the first rounds: nodes must find
/// that clocks agree again, and replicas must recover lost records.
const ROUNDS_MAX: usize = 6;
const ROUNDS_MAY_FAIL: usize = 3;

/// The most attempts at a write in a healed cluster, with reads through all nodes in between.
const WRITE_ATTEMPTS_MAX: u32 = 4;

/// Longer than the window in which a node compares clocks.
const CLOCK_WINDOW_US: u64 = 31_000_000;

/// The longest simulated time of a run.
const TIME_MAX_US: u64 = 3600 * 1_000_000;
/// The same for a run of a day.
const DAYS_MAX_US: u64 = 96 * 3600 * 1_000_000;

/// The settings of a run, apart from its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunSettings {
    /// Keep the text of the trace.
    pub readable: bool,
    /// Stop at this simulated time, in microseconds, to inspect the stores.
    pub until_us: Option<u64>,
    /// Slow everything down: the run lasts about a day of simulated time.
    pub takes_a_day: bool,
    /// The rule of the protocol to break, for tests of the simulator itself.
    pub broken: Broken,
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The hash of the trace: equal for equal runs.
    pub trace_hash: u64,
    /// The counts of the run.
    pub stats: Stats,
    /// The first violation.
    pub failure: Option<Failure>,
    /// The trace; without text unless it was to be kept.
    pub trace: Trace,
    /// The records of the homes of each key at the end, as text; empty unless the trace's text is kept.
    pub holdings: Vec<(Key, String)>,
    /// The requests and responses of clients, by key.
    pub histories: Vec<KeyHistory>,
}

/// The counts of one or more runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Requests with a successful response.
    pub succeeded: u64,
    /// Requests with a response.
    pub answered: u64,
    /// Messages sent.
    pub messages: u64,
    /// Keys for which the search for a linear order exceeded its bound.
    pub inconclusive: u64,
    /// Keys checked.
    pub keys: u64,
    /// The simulated time, in microseconds.
    pub simulated_us: u64,
}

impl Stats {
    /// Adds another run's counts.
    pub const fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.answered += other.answered;
        self.messages += other.messages;
        self.inconclusive += other.inconclusive;
        self.keys += other.keys;
        self.simulated_us += other.simulated_us;
    }
}

/// The purpose of an alarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// A client has finished thinking.
    Client(usize),
    /// A request must have had its response.
    Deadline(ClientId),
    /// A fault strikes.
    Fault(Fault),
    /// A fault ends.
    EndFault(usize),
    /// The administrator changes a bucket's settings.
    Settings,
    /// The administrator changes the members.
    Topology,
    /// A client of the emptied bucket acts, or its administrator.
    Emptied,
    /// A wait of the run is over.
    Phase,
}

const KIND_SHIFT: u32 = 56;

impl Alarm {
    /// The alarm as a number, for [`World::alarm`].
    pub const fn number(self) -> u64 {
        let (kind, value) = match self {
            Self::Client(client) => (0, client as u64),
            Self::Deadline(id) => (1, id.0),
            Self::Fault(fault) => (2, fault as u64),
            Self::EndFault(index) => (3, index as u64),
            Self::Phase => (4, 0),
            Self::Settings => (5, 0),
            Self::Topology => (6, 0),
            Self::Emptied => (7, 0),
        };
        kind << KIND_SHIFT | value
    }

    /// The alarm with this number.
    pub const fn of_number(number: u64) -> Self {
        let value = number & ((1 << KIND_SHIFT) - 1);
        match number >> KIND_SHIFT {
            0 => Self::Client(value as usize),
            1 => Self::Deadline(ClientId(value)),
            2 => Self::Fault(Fault::ALL[value as usize]),
            3 => Self::EndFault(value as usize),
            5 => Self::Settings,
            6 => Self::Topology,
            7 => Self::Emptied,
            _ => Self::Phase,
        }
    }
}

/// Runs a seed. The same seed and settings give the same run, byte for byte.
pub fn run(seed: u64, settings: RunSettings) -> Report {
    let mut run = Run::new(seed, settings);
    let failure = run.all_phases().err();
    run.report(seed, failure)
}

/// Why a run ends early.
#[derive(Debug)]
enum Stop {
    /// A check failed.
    Failed(Box<Failure>),
    /// [`RunSettings::until_us`] has come.
    Until,
}

struct Run {
    world: World,
    clients: Clients,
    faults: Faults,
    settings: RunSettings,
    administrator: Option<Administrator>,
    topology: Option<Topology>,
    emptied: Option<EmptiedBucket>,
    /// The list that was asked for last, once it is made.
    listed: Option<(ClientId, Result<Listed, Refusal>)>,
    /// The node that crashes at the end, if one does.
    crashes_at_end: Option<usize>,
    /// The generator for the loss of majorities at the end, if the run ends with that.
    loss_rng: Option<Rng>,
    /// Whether majorities have been lost: from then on the guarantees do not hold.
    are_guarantees_over: bool,
    rng: Rng,
    phase_over: bool,
    inconclusive: u64,
    /// The longest delay of a message.
    latest_us: u64,
}

impl Run {
    fn new(seed: u64, settings: RunSettings) -> Self {
        let options = if settings.takes_a_day { Options::draw_a_day(seed) } else { Options::draw(seed) };
        let trace = if settings.readable { Trace::readable() } else { Trace::default() };
        let latest_us = options.network.tail_max_us;
        let mut cluster = Cluster::new(options.cluster, settings.broken);
        let mut settings_rng = Rng::new(seed, Stream::Settings);
        let mut administrator = Administrator::draw(&mut settings_rng);
        if let Some(administrator) = &mut administrator {
            administrator.draw_ns(&mut cluster, options.topology.is_some());
        }
        let clients = Clients::new(options.workload, &cluster, Rng::new(seed, Stream::Clients));
        let topology_rng = Rng::new(seed, Stream::Topology);
        let topology = options.topology.clone().map(|options| Topology::new(options, topology_rng));
        let mut probes_rng = Rng::new(seed, Stream::Probes);
        let crashes_at_end = probes_rng.chance(CRASHES_PER_MILLE).then(|| probes_rng.index(cluster.founders()));
        let world = World::new(
            cluster,
            options.network,
            &options.disks,
            seed,
            trace,
            Some((settings_rng, probes_rng, Rng::new(seed, Stream::Epochs))),
        );
        let mut turns_rng = Rng::new(seed, Stream::Turns);
        let world = world.with_turns(turns_rng.chance(TURNS_PER_MILLE).then_some(turns_rng));
        let mut faults_rng = Rng::new(seed, Stream::Faults);
        let rng = Rng::new(faults_rng.bits(), Stream::Faults);
        let mut room_rng = Rng::new(seed, Stream::Room);
        let room_rng = Rng::new(room_rng.bits(), Stream::Room);
        let mut wipe_rng = Rng::new(seed, Stream::Wipe);
        let wipe_rng = Rng::new(wipe_rng.bits(), Stream::Wipe);
        let mut stops_rng = Rng::new(seed, Stream::Exchange);
        let stops_rng = Rng::new(stops_rng.bits(), Stream::Exchange);
        let outages_rng = Rng::new(seed, Stream::Outages);
        let mut founders_rng = Rng::new(seed, Stream::Founders);
        let founders_rng = Rng::new(founders_rng.bits(), Stream::Founders);
        let faults = Faults::new(
            options.faults,
            options.clocks,
            faults_rng,
            room_rng,
            wipe_rng,
            stops_rng,
            (outages_rng, Rng::new(seed, Stream::Copies), founders_rng),
        );
        Self {
            world,
            clients,
            faults,
            settings,
            administrator,
            topology,
            emptied: if settings.takes_a_day { None } else { EmptiedBucket::draw(seed) },
            listed: None,
            crashes_at_end,
            loss_rng: loss::draw(seed),
            are_guarantees_over: false,
            rng,
            phase_over: false,
            inconclusive: 0,
            latest_us,
        }
    }

    fn all_phases(&mut self) -> Result<(), Stop> {
        if self.world.cluster().spec().outlives_founder {
            self.replace_founder()?;
        }
        self.faults.start(&mut self.world);
        self.clients.start(&mut self.world);
        if let Some(administrator) = &mut self.administrator {
            administrator.start(&mut self.world);
        }
        if let Some(topology) = &mut self.topology {
            topology.start(&mut self.world);
        }
        if let Some(emptied) = &mut self.emptied {
            emptied.start(&mut self.world);
        }
        while !self.clients.are_done() {
            self.turn()?;
        }
        self.faults.end();
        self.administrator = None;
        self.topology = None;
        if let Some(emptied) = &mut self.emptied {
            emptied.end();
        }
        self.world.heal();
        self.quiet(QUIET_US + self.latest_us)?;
        self.settle()?;
        if let Some(failure) = self.world.judge_settings() {
            return Err(Stop::Failed(Box::new(failure)));
        }
        if let Err(message) = converged::no_hint_is_left(&self.world) {
            return Err(self.fail("all hints are handed over", None, message));
        }
        self.all_are_seen_alive()?;
        self.become_equal()?;
        let states = self.converge()?;
        self.judge(&states)?;
        self.lists_are_right(&states)?;
        self.reads_agree(&states)?;
        self.writes_succeed(false)?;
        // A stand-in may have taken the last of these writes.
        self.quiet(HAND_OVER_US)?;
        if let Err(message) = converged::no_hint_is_left(&self.world) {
            return Err(self.fail("all hints are handed over", None, message));
        }
        let states = self.converge()?;
        self.judge(&states)?;
        if self.settings.takes_a_day {
            self.deletes_leave_no_records()?;
        } else if let Some(rng) = self.loss_rng.take() {
            return self.majorities_are_lost(rng, &states);
        }
        let crashes_at_end = self.crashes_at_end.filter(|node| self.world.members().contains(node));
        crashes_at_end.map_or(Ok(()), |node| self.crash_is_detected(node))
    }

    /// Lets the other nodes join the founder, and the last of them replace it.
    fn replace_founder(&mut self) -> Result<(), Stop> {
        let spares = self.world.spares();
        let (&last, joining) = spares.split_last().expect("there are nodes that join");
        self.change_members(joining, |world, node| ChangeKind::Add(world.member_of(node)))?;
        let old = self.world.cluster().id(0);
        self.change_members(&[last], |world, node| ChangeKind::Replace { old, new: world.member_of(node) })
    }

    /// Makes each of these spare machines a member, and waits until their configurations are in effect.
    fn change_members(&mut self, come: &[usize], change: impl Fn(&World, usize) -> ChangeKind) -> Result<(), Stop> {
        while let Some(next) = come.iter().find(|node| !self.world.members().contains(node)) {
            let change = change(&self.world, *next);
            self.world.change_members(0, vec![change]);
            self.quiet(WAIT_US)?;
        }
        self.settle()
    }

    /// Deletes every key, and checks that no disk holds anything of them some minutes later.
    fn deletes_leave_no_records(&mut self) -> Result<(), Stop> {
        for index in 0..self.keys().len() {
            let node = self.any_member();
            let replicas = self.world.cluster().replicas(&self.keys()[index]);
            self.read(index, node, replicas, Consistency::Eventual)?;
        }
        self.writes_succeed(true)?;
        self.quiet(COLLECTED_US)?;
        for index in self.world.members() {
            let (name, image) = (self.world.cluster().name(index), self.world.machine(index).disk().current());
            if !image.records.is_empty() || !image.index.is_empty() {
                let message = format!("{name} holds {} records and {} entries", image.records.len(), image.index.len());
                return Err(self.fail("deleted keys leave no records", None, message));
            }
        }
        Ok(())
    }

    fn any_member(&mut self) -> usize {
        let members = self.world.members();
        members[self.rng.index(members.len())]
    }

    /// Waits until all partitions have their target configurations.
    fn settle(&mut self) -> Result<(), Stop> {
        for _ in 0..SETTLE_WAITS_MAX {
            if self.world.unsettled().is_none() {
                let short = self.world.under_replicated();
                return short.map_or(Ok(()), |short| Err(self.fail("no partition has too few homes", None, short)));
            }
            self.quiet(WAIT_US)?;
        }
        self.world.unsettled().map_or(Ok(()), |why| Err(self.fail("the target configuration is reached", None, why)))
    }

    fn all_are_seen_alive(&self) -> Result<(), Stop> {
        self.world.judge_liveness().map_or(Ok(()), |failure| Err(Stop::Failed(Box::new(failure))))
    }

    /// Crashes a node, and checks that the others detect that; then restarts it, and checks that they detect that too.
    fn crash_is_detected(&mut self, node: usize) -> Result<(), Stop> {
        let unsynced = self.world.machine(node).disk().unsynced().count();
        self.world.crash(node, unsynced);
        self.quiet(self.world.detected_within_us())?;
        self.world.start(node);
        self.quiet(QUIET_US)?;
        self.all_are_seen_alive()
    }

    /// Advances to the next event of the world and handles it.
    fn turn(&mut self) -> Result<(), Stop> {
        let event = self.world.advance();
        match event {
            Some(WorldEvent::Replied(id, outcome)) => {
                let outcome = match &mut self.emptied {
                    Some(emptied) => emptied.replied(&self.world, id, outcome),
                    None => Some(outcome),
                };
                if let Some(outcome) = outcome {
                    self.clients.replied(&mut self.world, id, outcome);
                }
            }
            Some(WorldEvent::Listed(id, listed)) => self.listed = Some((id, listed)),
            Some(WorldEvent::Broken(id)) => {
                if !self.emptied.as_mut().is_some_and(|emptied| emptied.broken(id)) {
                    self.clients.broken(&mut self.world, id);
                }
            }
            Some(WorldEvent::Alarm(number)) => self.handle_alarm(Alarm::of_number(number)),
            None => return Err(self.stuck("there are no more events")),
        }
        let emptied = |run: &mut Self| run.emptied.as_mut().and_then(EmptiedBucket::take_failure);
        if let Some(failure) =
            self.world.take_failure().or_else(|| self.clients.take_failure()).or_else(|| emptied(self))
        {
            return Err(Stop::Failed(Box::new(failure)));
        }
        if self.settings.until_us.is_some_and(|until_us| self.world.now_us() >= until_us) {
            return Err(Stop::Until);
        }
        let time_max_us = if self.settings.takes_a_day { DAYS_MAX_US } else { TIME_MAX_US };
        if self.world.now_us() > time_max_us { Err(self.stuck("the run takes too long")) } else { Ok(()) }
    }

    fn stuck(&self, why: &str) -> Stop {
        self.fail("every run ends", None, why.to_owned())
    }

    fn fail(&self, check: &'static str, key: Option<Key>, message: String) -> Stop {
        Stop::Failed(Box::new(Failure { check, key, at_us: self.world.now_us(), message }))
    }

    fn handle_alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Client(client) => self.clients.wake(&mut self.world, client),
            Alarm::Deadline(id) => self.clients.check_deadline(&mut self.world, id),
            Alarm::EndFault(index) => {
                let keys: Vec<&Key> = self.clients.histories().iter().map(|history| &history.key).collect();
                for index in self.faults.end_fault(&mut self.world, index, &keys) {
                    self.clients.history_mut(index).damaged = true;
                }
            }
            Alarm::Phase => self.phase_over = true,
            Alarm::Settings => {
                if let Some(administrator) = &mut self.administrator {
                    administrator.change(&mut self.world);
                }
            }
            Alarm::Topology => {
                if let Some(topology) = &mut self.topology {
                    topology.change(&mut self.world);
                }
            }
            Alarm::Emptied => {
                if let Some(emptied) = &mut self.emptied {
                    emptied.act(&mut self.world);
                }
            }
            Alarm::Fault(fault) => {
                let keys: Vec<&Key> = self.clients.histories().iter().map(|history| &history.key).collect();
                for index in self.faults.strike(&mut self.world, fault, &keys) {
                    self.clients.history_mut(index).damaged = true;
                }
            }
        }
    }

    /// Lets time pass.
    fn quiet(&mut self, for_us: u64) -> Result<(), Stop> {
        self.phase_over = false;
        self.world.alarm(for_us, Alarm::Phase.number());
        while !self.phase_over {
            self.turn()?;
        }
        Ok(())
    }

    fn keys(&self) -> Vec<Key> {
        self.clients.histories().iter().map(|history| history.key.clone()).collect()
    }

    /// Checks that, without reads and writes, the replicas become equal and the trees match the data.
    fn become_equal(&mut self) -> Result<(), Stop> {
        let keys = self.keys();
        let mut waits = 0;
        loop {
            let unequal = keys.iter().find_map(|key| Some((key, converged::common_content(&self.world, key).err()?)));
            let (check, key, message) = match (unequal, trees::judge(&self.world)) {
                (None, None) => return Ok(()),
                (Some((key, holdings)), _) => ("replicas become equal without reads", Some(key.clone()), holdings),
                (None, Some(wrong)) => ("trees match the data", None, wrong),
            };
            if waits == WAITS_MAX {
                return Err(self.fail(check, key, message));
            }
            waits += 1;
            self.quiet(WAIT_US)?;
        }
    }

    /// Reads every key at all its homes until they are equal.
    fn converge(&mut self) -> Result<Vec<State>, Stop> {
        let keys = self.keys();
        for round in 0..ROUNDS_MAX {
            for (index, key) in keys.iter().enumerate() {
                let node = self.any_member();
                let replicas = self.replicas(key);
                let succeeded = self.read(index, node, replicas, Consistency::Eventual)?;
                if !succeeded && round >= ROUNDS_MAY_FAIL {
                    let message = format!("a get failed: {}", self.world.describe_members(node));
                    return Err(self.fail("a healed cluster answers", Some(key.clone()), message));
                }
                if !succeeded {
                    // A home that lost its record does not count until it has recovered it by a read of its own.
                    for home in self.world.homes(key) {
                        self.read(index, home, replicas / 2 + 1, Consistency::Eventual)?;
                    }
                }
            }
            self.quiet(1_000_000)?;
            let states: Result<Vec<State>, _> =
                keys.iter().map(|key| converged::common_state(&self.world, key)).collect();
            if let Ok(states) = states {
                return Ok(states);
            }
        }
        let differs = |key: &Key| Some((key.clone(), converged::common_state(&self.world, key).err()?));
        let (key, holdings) = keys.iter().find_map(differs).expect("the replicas of a key differ");
        let message = format!("after {ROUNDS_MAX} rounds of reads its homes hold\n{holdings}");
        Err(self.fail("replicas become equal", Some(key), message))
    }

    /// The number of replicas of a key. Concurrent changes by administrators may have left fewer nodes than it should have.
    fn replicas(&self, key: &Key) -> u8 {
        let homes = self.world.homes(key).len().max(1);
        self.world.cluster().replicas(key).min(homes.try_into().unwrap_or(u8::MAX))
    }

    /// Reads a key through a node, twice if necessary, and returns whether that succeeded.
    fn read(&mut self, index: usize, node: usize, r: u8, consistency: Consistency) -> Result<bool, Stop> {
        self.clients.read_now(&mut self.world, index, node, r, consistency);
        if self.has_succeeded()? {
            return Ok(true);
        }
        // The node may still be busy with repairs of earlier reads, and refuse more work.
        self.quiet(1_000_000)?;
        self.clients.read_now(&mut self.world, index, node, r, consistency);
        self.has_succeeded()
    }

    /// Waits for the extra client's request to end, and returns whether it succeeded.
    fn has_succeeded(&mut self) -> Result<bool, Stop> {
        let client = self.clients.extra();
        while !self.clients.is_idle(client) {
            self.turn()?;
        }
        Ok(self.clients.succeeded(client))
    }

    /// Checks that reads succeed through every node, and agree with what the replicas hold.
    fn reads_agree(&mut self, states: &[State]) -> Result<(), Stop> {
        for (index, key) in self.keys().iter().enumerate() {
            for node in self.world.members() {
                let r = self.rng.range(1, u64::from(self.replicas(key))) as u8;
                let consistency = *self.rng.pick(&[Consistency::Eventual, Consistency::Strong]);
                if !self.read(index, node, r, consistency)? {
                    let message = format!("a get with r={r} failed: {}", self.world.describe_members(node));
                    return Err(self.fail("a healed cluster answers", Some(key.clone()), message));
                }
                self.clients.learn_minted(&self.world);
                let history = &self.clients.histories()[index];
                let shown = history.reads.last().map(|read| history.writes_of(&read.siblings));
                let held = match history.conflict {
                    Conflict::Siblings => history.writes_of(states[index].distinct_siblings()),
                    Conflict::Lww => history.writes_of(states[index].latest()),
                };
                let collected: WriteSet = (0..history.writes.len())
                    .filter(|&index| history.writes[index].may_be_collected(u64::MAX))
                    .collect();
                if shown.map(|shown| shown.without(collected)) != Some(held.without(collected)) {
                    let message =
                        format!("a get through {} differs from what all homes hold", self.world.cluster().name(node));
                    return Err(self.fail("a healed cluster agrees", Some(key.clone()), message));
                }
            }
        }
        Ok(())
    }

    /// Checks that every key with at least W replicas takes a write, or a delete, through any node.
    ///
    /// A node remembers for a minute that its clock differed from its peers', and needs their messages to find that it is right again. So a
    /// failed write is tried again after some reads, a bounded number of times.
    fn writes_succeed(&mut self, delete: bool) -> Result<(), Stop> {
        for (index, key) in self.keys().iter().enumerate() {
            if self.replicas(key) < self.world.cluster().bucket(key).w {
                continue;
            }
            let node = self.any_member();
            let mut attempt = 1;
            loop {
                self.clients.write_now(&mut self.world, index, node, delete);
                if self.has_succeeded()? {
                    break;
                }
                if attempt == WRITE_ATTEMPTS_MAX {
                    return Err(self.fail("a healed cluster answers", Some(key.clone()), "a put failed".to_owned()));
                }
                attempt += 1;
                self.quiet(CLOCK_WINDOW_US)?;
                for through in self.world.members() {
                    for index in 0..self.clients.histories().len() {
                        self.read(index, through, 1, Consistency::Eventual)?;
                    }
                }
                // Background repairs after the reads count as work of the nodes too.
                self.quiet(1_000_000)?;
            }
        }
        Ok(())
    }

    fn judge(&mut self, states: &[State]) -> Result<(), Stop> {
        self.inconclusive = 0;
        self.clients.learn_minted(&self.world);
        for (history, state) in self.clients.histories().iter().zip(states) {
            let verdict = oracle::judge(history, Some(state));
            self.inconclusive += u64::from(verdict.inconclusive);
            if let Some(mut failure) = verdict.failure {
                failure.at_us = failure.at_us.min(self.world.now_us());
                return Err(Stop::Failed(failure));
            }
        }
        Ok(())
    }

    fn report(mut self, seed: u64, stop: Option<Stop>) -> Report {
        let mut failure = match stop {
            Some(Stop::Failed(failure)) => Some(*failure),
            Some(Stop::Until) | None => None,
        };
        if self.settings.until_us.is_none()
            && !self.are_guarantees_over
            && let Some(stopped) = failure.take()
        {
            failure = Some(self.earliest(stopped));
        }
        let holdings = if self.settings.readable {
            self.keys().into_iter().map(|key| (key.clone(), converged::holdings(&self.world, &key))).collect()
        } else {
            Vec::new()
        };
        let (succeeded, answered) = self.clients.responses();
        let stats = Stats {
            succeeded,
            answered,
            messages: self.world.messages(),
            inconclusive: self.inconclusive,
            keys: self.clients.histories().len() as u64,
            simulated_us: self.world.now_us(),
        };
        Report {
            seed,
            trace_hash: self.world.trace().hash(),
            stats,
            failure,
            histories: self.clients.into_histories(),
            trace: self.world.into_trace(),
            holdings,
        }
    }

    /// The first violation: the histories may show one that happened before `stopped` was found.
    fn earliest(&mut self, stopped: Failure) -> Failure {
        self.clients.learn_minted(&self.world);
        let violations = self
            .clients
            .histories()
            .iter()
            .filter_map(|history| oracle::judge(history, None).failure.map(|failure| *failure));
        violations.chain([stopped.clone()]).min_by_key(|failure| failure.at_us).unwrap_or(stopped)
    }
}
