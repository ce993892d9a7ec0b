//! One run: a phase in which everything goes wrong and nothing may be told that is not so, then a phase in which nothing goes
//! wrong and everything must come right.

mod loss;

use cartwheel_core::cluster::membership::{ChangeKind, Conflict};
use cartwheel_core::message::client::{ClientId, Consistency};
use cartwheel_core::mutation::Broken;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::State;

use crate::administrator::Administrator;
use crate::client::Clients;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::faults::{Fault, Faults};
use crate::history::{KeyHistory, WriteSet};
use crate::options::Options;
use crate::oracle::{self, converged, trees};
use crate::rng::{Rng, Stream};
use crate::topology::Topology;
use crate::trace::Trace;
use crate::world::{Happening, World};

/// How long the healed cluster is left alone before it is judged: longer than any message or request is under way.
const QUIET_US: u64 = 30_000_000;

/// How long hints may wait in a healed cluster.
const HAND_OVER_US: u64 = 10_000_000;
/// Within what time a healthy cluster has forgotten what was deleted: some ten epochs.
const RECLAIMED_US: u64 = 10 * 60 * 1_000_000;

/// How many runs in a thousand end with a death.
const DEATHS_PER_MILLE: u32 = 125;
/// How often, and how long each time, the replicas are given to become equal by themselves.
const WAITS_MAX: u32 = 12;
const WAIT_US: u64 = 5_000_000;
/// How often as long the partitions are given to come to where they are wished.
const SETTLE_WAITS_MAX: u32 = 60;

/// How often all keys are read until their replicas must be equal. The first rounds may fail: nodes must hear from each other
/// that clocks agree again, and replicas that lost records must merge them back.
const ROUNDS_MAX: usize = 6;
const ROUNDS_MAY_FAIL: usize = 3;

/// How often a write is tried in a healed cluster, with reads by all nodes in between.
const WRITE_ATTEMPTS_MAX: u32 = 4;

/// Longer than a node looks back when it compares clocks.
const CLOCK_WINDOW_US: u64 = 31_000_000;

/// A run that takes longer than this in simulated time has got stuck.
const TIME_MAX_US: u64 = 3600 * 1_000_000;
/// The same of one that is to take a day.
const DAYS_MAX_US: u64 = 96 * 3600 * 1_000_000;

/// How much of a run is kept, and whether it is broken on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Keep the trace's text.
    pub readable: bool,
    /// Stop at this time, to see what is held then.
    pub until_us: Option<u64>,
    /// Everything takes hours: the run lasts about a day.
    pub takes_a_day: bool,
    /// The rule of the protocol that is broken; none but in a test of the tests.
    pub broken: Broken,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Differs for different runs.
    pub trace_hash: u64,
    /// What happened, in numbers.
    pub stats: Stats,
    /// The first broken promise.
    pub failure: Option<Failure>,
    /// What happened, if it was to be kept.
    pub trace: Trace,
    /// What the homes of each key hold in the end, to be read by people; empty unless the trace is kept.
    pub holdings: Vec<(Key, String)>,
    /// What clients asked and were told.
    pub histories: Vec<KeyHistory>,
}

/// A run in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Requests that were answered with success.
    pub succeeded: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Messages sent.
    pub messages: u64,
    /// Keys whose linear order could not be decided.
    pub inconclusive: u64,
    /// Keys judged.
    pub keys: u64,
    /// How long it took, in microseconds of simulated time.
    pub simulated_us: u64,
}

impl Stats {
    /// Adds another run's numbers.
    pub const fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.answered += other.answered;
        self.messages += other.messages;
        self.inconclusive += other.inconclusive;
        self.keys += other.keys;
        self.simulated_us += other.simulated_us;
    }
}

/// What a run's alarms are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// A client has finished thinking.
    Client(usize),
    /// A request should have been answered.
    Deadline(ClientId),
    /// A fault strikes.
    Fault(Fault),
    /// A fault ends.
    Mend(usize),
    /// An administrator changes a bucket's settings.
    Settings,
    /// An administrator changes the members.
    Topology,
    /// The driver has waited long enough.
    Phase,
}

const KIND_SHIFT: u32 = 56;

impl Alarm {
    /// The alarm as a number, for the world.
    pub const fn number(self) -> u64 {
        let (kind, value) = match self {
            Self::Client(client) => (0, client as u64),
            Self::Deadline(id) => (1, id.0),
            Self::Fault(fault) => (2, fault as u64),
            Self::Mend(place) => (3, place as u64),
            Self::Phase => (4, 0),
            Self::Settings => (5, 0),
            Self::Topology => (6, 0),
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
            3 => Self::Mend(value as usize),
            5 => Self::Settings,
            6 => Self::Topology,
            _ => Self::Phase,
        }
    }
}

/// Runs a seed.
pub fn run(seed: u64, settings: Settings) -> Report {
    let mut run = Run::new(seed, settings);
    let failure = run.all_phases().err();
    run.report(seed, failure)
}

/// Why a run ends early.
#[derive(Debug)]
enum Stop {
    /// Something is wrong.
    Failed(Box<Failure>),
    /// [`Settings::until_us`] has come.
    Until,
}

struct Run {
    world: World,
    clients: Clients,
    faults: Faults,
    settings: Settings,
    administrator: Option<Administrator>,
    topology: Option<Topology>,
    /// Who dies for a while in the end.
    dies: Option<usize>,
    /// The end of the run loses majorities.
    loses: Option<Rng>,
    /// It has: what clients were told holds no more.
    is_promise_over: bool,
    rng: Rng,
    phase_over: bool,
    inconclusive: u64,
    /// How late the latest message may be.
    latest_us: u64,
}

impl Run {
    fn new(seed: u64, settings: Settings) -> Self {
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
        let dies = probes_rng.chance(DEATHS_PER_MILLE).then(|| probes_rng.index(cluster.founders()));
        let world = World::new(
            cluster,
            options.network,
            &options.disks,
            seed,
            trace,
            Some((settings_rng, probes_rng, Rng::new(seed, Stream::Epochs))),
        );
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
            dies,
            loses: loss::draw(seed),
            is_promise_over: false,
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
        while !self.clients.are_done() {
            self.turn()?;
        }
        self.faults.end();
        self.administrator = None;
        self.topology = None;
        self.world.heal();
        self.quiet(QUIET_US + self.latest_us)?;
        self.settle()?;
        if let Some(failure) = self.world.judge_settings() {
            return Err(Stop::Failed(Box::new(failure)));
        }
        if let Err(message) = converged::nothing_is_owed(&self.world) {
            return Err(self.fail("hints go home", None, message));
        }
        self.all_seem_alive()?;
        self.become_equal()?;
        let states = self.converge()?;
        self.judge(&states)?;
        self.reads_agree(&states)?;
        self.writes_succeed(false)?;
        // A stand-in may have taken the last of them.
        self.quiet(HAND_OVER_US)?;
        if let Err(message) = converged::nothing_is_owed(&self.world) {
            return Err(self.fail("hints go home", None, message));
        }
        let states = self.converge()?;
        self.judge(&states)?;
        if self.settings.takes_a_day {
            self.deletes_leave_nothing()?;
        } else if let Some(rng) = self.loses.take() {
            return self.majorities_are_lost(rng, &states);
        }
        let dies = self.dies.filter(|node| self.world.members().contains(node));
        dies.map_or(Ok(()), |node| self.death_is_seen(node))
    }

    /// The others join the node that founded the cluster, and the last of them replaces it.
    fn replace_founder(&mut self) -> Result<(), Stop> {
        let spares = self.world.spares();
        let (&last, joining) = spares.split_last().expect("nodes that join");
        self.change_members(joining, |world, node| ChangeKind::Add(world.member_of(node)))?;
        let old = self.world.cluster().id(0);
        self.change_members(&[last], |world, node| ChangeKind::Replace { old, new: world.member_of(node) })
    }

    /// Makes each of these spare machines a member, and waits until what is wished holds.
    fn change_members(&mut self, come: &[usize], change: impl Fn(&World, usize) -> ChangeKind) -> Result<(), Stop> {
        while let Some(next) = come.iter().find(|node| !self.world.members().contains(node)) {
            let change = change(&self.world, *next);
            self.world.change_members(0, vec![change]);
            self.quiet(WAIT_US)?;
        }
        self.settle()
    }

    /// When every key is deleted, nothing is left of any of them some minutes later, on any disk.
    fn deletes_leave_nothing(&mut self) -> Result<(), Stop> {
        for place in 0..self.keys().len() {
            let node = self.any_member();
            let replicas = self.world.cluster().replicas(&self.keys()[place]);
            self.read(place, node, replicas, Consistency::Eventual)?;
        }
        self.writes_succeed(true)?;
        self.quiet(RECLAIMED_US)?;
        for index in self.world.members() {
            let (name, image) = (self.world.cluster().name(index), self.world.machine(index).disk().current());
            if !image.records.is_empty() || !image.index.is_empty() {
                let message = format!("{name} holds {} records and {} entries", image.records.len(), image.index.len());
                return Err(self.fail("what is deleted leaves nothing", None, message));
            }
        }
        Ok(())
    }

    fn any_member(&mut self) -> usize {
        let members = self.world.members();
        members[self.rng.index(members.len())]
    }

    /// What is wished comes to hold.
    fn settle(&mut self) -> Result<(), Stop> {
        for _ in 0..SETTLE_WAITS_MAX {
            if self.world.unsettled().is_none() {
                let short = self.world.under_replicated();
                return short.map_or(Ok(()), |short| Err(self.fail("no partition has too few homes", None, short)));
            }
            self.quiet(WAIT_US)?;
        }
        self.world.unsettled().map_or(Ok(()), |why| Err(self.fail("the target configuration comes to hold", None, why)))
    }

    fn all_seem_alive(&self) -> Result<(), Stop> {
        self.world.judge_liveness().map_or(Ok(()), |failure| Err(Stop::Failed(Box::new(failure))))
    }

    /// A node dies, and the others see that; it starts again, and they see that too.
    fn death_is_seen(&mut self, node: usize) -> Result<(), Stop> {
        let unsynced = self.world.machine(node).disk().unsynced().count();
        self.world.crash(node, unsynced);
        self.quiet(self.world.seems_alive_max_us())?;
        self.world.start(node);
        self.quiet(QUIET_US)?;
        self.all_seem_alive()
    }

    /// Lets one thing happen.
    fn turn(&mut self) -> Result<(), Stop> {
        let happening = self.world.advance();
        match happening {
            Some(Happening::Replied(id, outcome)) => self.clients.replied(&mut self.world, id, outcome),
            Some(Happening::Broken(id)) => self.clients.broken(&mut self.world, id),
            Some(Happening::Alarm(number)) => self.ring(Alarm::of_number(number)),
            None => return Err(self.stuck("nothing is going to happen any more")),
        }
        if let Some(failure) = self.world.take_failure().or_else(|| self.clients.take_failure()) {
            return Err(Stop::Failed(Box::new(failure)));
        }
        if self.settings.until_us.is_some_and(|until_us| self.world.now_us() >= until_us) {
            return Err(Stop::Until);
        }
        let time_max_us = if self.settings.takes_a_day { DAYS_MAX_US } else { TIME_MAX_US };
        if self.world.now_us() > time_max_us { Err(self.stuck("the run goes on and on")) } else { Ok(()) }
    }

    fn stuck(&self, why: &str) -> Stop {
        self.fail("a run comes to its end", None, why.to_owned())
    }

    fn fail(&self, check: &'static str, key: Option<Key>, message: String) -> Stop {
        Stop::Failed(Box::new(Failure { check, key, at_us: self.world.now_us(), message }))
    }

    fn ring(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Client(client) => self.clients.wake(&mut self.world, client),
            Alarm::Deadline(id) => self.clients.check_deadline(&mut self.world, id),
            Alarm::Mend(place) => {
                let keys: Vec<&Key> = self.clients.histories().iter().map(|history| &history.key).collect();
                for place in self.faults.mend(&mut self.world, place, &keys) {
                    self.clients.history_mut(place).damaged = true;
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
            Alarm::Fault(fault) => {
                let keys: Vec<&Key> = self.clients.histories().iter().map(|history| &history.key).collect();
                for place in self.faults.strike(&mut self.world, fault, &keys) {
                    self.clients.history_mut(place).damaged = true;
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

    /// Without anybody reading or writing, the replicas become equal and the trees are what they add up to.
    fn become_equal(&mut self) -> Result<(), Stop> {
        let keys = self.keys();
        let mut waits = 0;
        loop {
            let unequal = keys.iter().find_map(|key| Some((key, converged::common_content(&self.world, key).err()?)));
            let (check, key, message) = match (unequal, trees::judge(&self.world)) {
                (None, None) => return Ok(()),
                (Some((key, holdings)), _) => ("replicas become equal unread", Some(key.clone()), holdings),
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
            for (place, key) in keys.iter().enumerate() {
                let node = self.any_member();
                let replicas = self.replicas(key);
                let answered = self.read(place, node, replicas, Consistency::Eventual)?;
                if !answered && round >= ROUNDS_MAY_FAIL {
                    let message = format!("a get failed: {}", self.world.who_is_there(node));
                    return Err(self.fail("a healed cluster answers", Some(key.clone()), message));
                }
                if !answered {
                    // A home that lost its record does not count until it has merged the others' in a read of its own.
                    for home in self.world.homes(key) {
                        self.read(place, home, replicas / 2 + 1, Consistency::Eventual)?;
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
        let (key, holdings) = keys.iter().find_map(differs).expect("some key's replicas differ");
        let message = format!("after {ROUNDS_MAX} rounds of reads its homes hold\n{holdings}");
        Err(self.fail("replicas become equal", Some(key), message))
    }

    /// How many replicas a key has. Administrators who did not know of each other may have left fewer nodes than there should be.
    fn replicas(&self, key: &Key) -> u8 {
        let homes = self.world.homes(key).len().max(1);
        self.world.cluster().replicas(key).min(homes.try_into().unwrap_or(u8::MAX))
    }

    /// Has a key read, and says whether that succeeded.
    fn read(&mut self, place: usize, node: usize, r: u8, consistency: Consistency) -> Result<bool, Stop> {
        self.clients.read_now(&mut self.world, place, node, r, consistency);
        if self.answer()? {
            return Ok(true);
        }
        // The node may still be busy with repairs of the reads before, and take on no more.
        self.quiet(1_000_000)?;
        self.clients.read_now(&mut self.world, place, node, r, consistency);
        self.answer()
    }

    fn answer(&mut self) -> Result<bool, Stop> {
        let client = self.clients.extra();
        while !self.clients.is_idle(client) {
            self.turn()?;
        }
        Ok(self.clients.succeeded(client))
    }

    /// Every node must answer every read, and the history must hold with what the replicas have come to.
    fn reads_agree(&mut self, states: &[State]) -> Result<(), Stop> {
        for (place, key) in self.keys().iter().enumerate() {
            for node in self.world.members() {
                let r = self.rng.range(1, u64::from(self.replicas(key))) as u8;
                let consistency = *self.rng.pick(&[Consistency::Eventual, Consistency::Strong]);
                if !self.read(place, node, r, consistency)? {
                    let message = format!("a get with r={r} failed: {}", self.world.who_is_there(node));
                    return Err(self.fail("a healed cluster answers", Some(key.clone()), message));
                }
                self.clients.learn_minted(&self.world);
                let history = &self.clients.histories()[place];
                let shown = history.reads.last().map(|read| history.writes_of(&read.siblings));
                let held = match history.conflict {
                    Conflict::Siblings => history.writes_of(states[place].distinct_siblings()),
                    Conflict::Lww => history.writes_of(states[place].latest()),
                };
                let forgotten: WriteSet = (0..history.writes.len())
                    .filter(|&place| history.writes[place].may_be_forgotten(u64::MAX))
                    .collect();
                if shown.map(|shown| shown.without(forgotten)) != Some(held.without(forgotten)) {
                    let message =
                        format!("a get through {} differs from what all homes hold", self.world.cluster().name(node));
                    return Err(self.fail("a healed cluster agrees", Some(key.clone()), message));
                }
            }
        }
        Ok(())
    }

    /// Every key that has W replicas takes a write, or a delete, through any node.
    ///
    /// A node remembers for a minute that its clock was off its peers', and it must hear from them to learn that it is right
    /// again: so a failed write is tried again, after some reads, a bounded number of times.
    fn writes_succeed(&mut self, delete: bool) -> Result<(), Stop> {
        for (place, key) in self.keys().iter().enumerate() {
            if self.replicas(key) < self.world.cluster().bucket(key).w {
                continue;
            }
            let node = self.any_member();
            let mut attempt = 1;
            loop {
                self.clients.write_now(&mut self.world, place, node, delete);
                if self.answer()? {
                    break;
                }
                if attempt == WRITE_ATTEMPTS_MAX {
                    return Err(self.fail("a healed cluster answers", Some(key.clone()), "a put failed".to_owned()));
                }
                attempt += 1;
                self.quiet(CLOCK_WINDOW_US)?;
                for through in self.world.members() {
                    for place in 0..self.clients.histories().len() {
                        self.read(place, through, 1, Consistency::Eventual)?;
                    }
                }
                // What the reads repair in the background counts as work too.
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
            && !self.is_promise_over
            && let Some(stopped) = failure.take()
        {
            failure = Some(self.earliest(stopped));
        }
        let holdings = if self.settings.readable {
            self.keys().into_iter().map(|key| (key.clone(), converged::holdings(&self.world, &key))).collect()
        } else {
            Vec::new()
        };
        let (succeeded, answered) = self.clients.answers();
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

    /// What was wrong first: the histories may already tell of something that happened before `stopped` was noticed.
    fn earliest(&mut self, stopped: Failure) -> Failure {
        self.clients.learn_minted(&self.world);
        let told = self
            .clients
            .histories()
            .iter()
            .filter_map(|history| oracle::judge(history, None).failure.map(|failure| *failure));
        told.chain([stopped.clone()]).min_by_key(|failure| failure.at_us).unwrap_or(stopped)
    }
}
