//! A node as a state machine: it takes one input at a time, routes it to its parts, and returns the effects to carry out.
//!
//! One value is one shard of a node. It does no input or output and reads no clock, so the simulator runs the same code as the server.

mod at_once;
mod contexts;

pub mod clock_guard;
mod clocks;
mod drain;
pub mod effects;
mod epoch_end;
mod inputs;
mod lists;
mod refused_forwards;
mod sizes;
mod stamps;
pub mod sums;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::admission::{Admission, Admitted, WorkClass};
use crate::anti_entropy::{Exchange, ExchangeCalls};
use crate::cluster::configuration::{ConfigVersion, Home};
use crate::cluster::holdings::Holdings;
use crate::cluster::latency::RoundTrips;
use crate::cluster::liveness::Liveness;
use crate::cluster::membership::View;
use crate::config::NodeConfig;
use crate::coordinator::full_disks::FullDisks;
use crate::coordinator::handoff::Handoff;
use crate::coordinator::reach::{Measured, Reach};
use crate::coordinator::{Coordinator, CoordinatorCalls, ReplyTo};
use crate::event::Event;
use crate::listing::answers::Answers;
use crate::listing::lister::Lister;
use crate::message::client::ClientId;
use crate::message::{Message, ReplicaRequest};
use crate::mutation::Mutation;
use crate::node::clock_guard::{ClockGuard, Comparison};
use crate::node::refused_forwards::RefusedForwards;
use crate::node::waiting::WaitingRequests;
use crate::outbox::Outbox;
use crate::reconfiguration::transfer::{TransferCalls, Transfers};
use crate::reconfiguration::{Reconfiguration, ReconfigurationCalls};
use crate::replica::gc_sweep::GcSweep;
use crate::replica::key_sweep::KeySweep;
use crate::replica::{Caller, Replica, ReplicaCalls};
use crate::ring::PartitionId;
use crate::store::loss_book::LossBook;
use crate::store::record::Minter;
use crate::value::dot::NodeId;
use crate::value::epoch::Epoch;
use crate::value::hlc::{AHEAD_MS_MAX, Hlc, HlcClock, WallMs};
use crate::value::key::Key;
use crate::value::time::{Instant, Now};
use crate::wire::context::Sealer;
pub use at_once::FoundAtOnce;
pub use effects::{Effects, Input};
use epoch_end::EpochEnd;

/// The protocol state of one shard of a node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    held: Arc<Holdings>,
    liveness: Arc<Liveness>,
    sealer: Sealer,
    coordinator: Coordinator,
    replica: Replica,
    exchange: Exchange,
    transfers: Transfers,
    reconfiguration: Reconfiguration,
    losses: LossBook,
    /// Requests that wait until a loss that they report is durable.
    waiting: WaitingRequests,
    full: FullDisks,
    reach: Reach,
    handoff: Handoff,
    gc_sweep: GcSweep,
    key_sweep: KeySweep,
    lister: Lister,
    answers: Answers,
    epoch_end: EpochEnd,
    admission: Admission,
    /// When each unanswered request began.
    begun: BTreeMap<ReplyTo, Instant>,
    refused_forwards: RefusedForwards,
    /// How long the latest client request waited before it reached this state machine.
    queued: Duration,
    clock_guard: ClockGuard,
    clock_off: Option<Comparison>,
    /// Whether the last event said that timestamps are ahead of the wall clock.
    timestamps_ahead: bool,
    random: ChaCha8Rng,
    has_reviewed: bool,
    drained: Option<bool>,
    check_drained_at: Instant,
    next_check: Instant,
}

impl Node {
    /// A node of the cluster that `view` describes. It takes writes once [`Self::is_ready`] is true.
    pub fn new(mut config: NodeConfig, view: Arc<View>) -> Self {
        let minter = Minter::new(config.node, config.incarnation, config.boot, config.actors);
        let minter = match config.broken {
            broken if broken.is(Mutation::ActorsOutliveBoots) => minter.outliving_boots(),
            broken if broken.is(Mutation::BootsNamedAlike) => minter.naming_boots_alike(),
            _ => minter,
        };
        let clock = HlcClock::new();
        let me = Home { node: config.node, incarnation: config.incarnation };
        let held = Arc::new(Holdings::new(me, view, config.shard_id, config.partition_states.iter().cloned()));
        Self {
            sealer: Sealer::new(config.cluster, config.cluster_key.clone(), config.broken)
                .naming(config.limits.context_singles_max),
            coordinator: Coordinator::new(
                config.incarnation.first_operation(config.boot, config.seed),
                config.shard_id,
                config.limits.operations_max,
            ),
            replica: Replica::new(minter, clock, &config, held.clone()),
            exchange: Exchange::new(&config, held.clone()),
            transfers: Transfers::new(&config),
            reconfiguration: Reconfiguration::new(me, config.partition_states.iter().map(|(partition, _)| *partition)),
            losses: std::mem::take(&mut config.losses),
            waiting: WaitingRequests::default(),
            full: FullDisks::default(),
            reach: Reach::default(),
            handoff: Handoff::default(),
            gc_sweep: GcSweep::default(),
            key_sweep: KeySweep::default(),
            lister: Lister::new(
                config.shard_id.first_operation(config.incarnation.first_operation(config.boot, config.seed)),
                config.shard_id.count.into(),
            ),
            answers: Answers::default(),
            epoch_end: EpochEnd::default(),
            admission: Admission::new(config.timing.background_p99_target),
            begun: BTreeMap::new(),
            refused_forwards: RefusedForwards::default(),
            queued: Duration::ZERO,
            clock_guard: ClockGuard::default(),
            clock_off: None,
            timestamps_ahead: false,
            random: ChaCha8Rng::seed_from_u64(config.seed),
            has_reviewed: false,
            drained: None,
            check_drained_at: Instant::default(),
            next_check: Instant::default(),
            config,
            held,
            liveness: Arc::default(),
        }
    }

    /// The number that the next operation of the coordinator gets ([`crate::message::RequestId::operation`]).
    pub const fn next_operation(&self) -> u64 {
        self.coordinator.next_operation()
    }

    /// The key of a client's request that is under way, and those of its homes that have answered nothing for longer than they usually take.
    pub fn late_homes(&self, client: ClientId, now: Instant) -> Option<(Key, Vec<NodeId>)> {
        let key = self.coordinator.key_of_client(client)?;
        let homes = self.held.homes_of(key).all();
        Some((key.clone(), homes.into_iter().filter(|&home| self.reach.is_late(home, now)).collect()))
    }

    /// Whether the node knows its epoch. Without it, it refuses writes.
    pub fn is_ready(&self) -> bool {
        self.replica.epoch() != Epoch::UNKNOWN
    }

    /// The membership, ring and bucket settings in force on this node.
    pub fn view(&self) -> &Arc<View> {
        self.held.view()
    }

    /// The configuration and the state of each partition of this shard.
    pub const fn held(&self) -> &Arc<Holdings> {
        &self.held
    }

    /// The status of each other node, as the failure detector has it.
    pub const fn liveness(&self) -> &Arc<Liveness> {
        &self.liveness
    }

    /// The measured round trips to each other node.
    pub fn round_trips(&self) -> impl Iterator<Item = (crate::value::dot::NodeId, &RoundTrips)> {
        self.reach.round_trips()
    }

    /// The losses that other nodes have reported to this one.
    pub const fn losses(&self) -> &LossBook {
        &self.losses
    }

    /// Anti-entropy between this shard and its peers.
    pub const fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Sets how long the following client requests waited before they came here. The wait counts towards the latency that the admission
    /// controller compares with its target.
    pub const fn queued(&mut self, waited: Duration) {
        self.queued = waited;
    }

    /// The background work that the admission controller lets begin.
    pub fn admitted(&self) -> Admitted {
        self.admission.admitted()
    }

    /// Takes one input at the time `now` and returns what is to be done. It neither blocks nor fails.
    pub fn step(&mut self, now: Now, input: Input) -> Effects {
        self.step_all(now, std::iter::once(input))
    }

    /// Takes inputs that have come since the last step, in order, at the time `now`, and returns what is to be done. It is as if each input had
    /// a step of its own, except that what depends on the time alone is done once, at the end.
    ///
    /// The order is the same for all inputs:
    ///
    /// 1. The wall clock is checked, before anything gets a timestamp, and the admission controller learns the time.
    /// 2. Each input goes to the part that handles it, and the outboxes are emptied until nothing is left in them (`settle`): the replica on
    ///    this node gets requests like any other.
    /// 3. Hints are handed over and garbage is collected, as far as admission allows.
    /// 4. Anti-entropy continues, and its outbox is emptied.
    /// 5. Reconfiguration continues, then the transfers that it steers, and their outboxes are emptied.
    /// 6. Reported losses are saved. Whether the epoch is finished and the node drained is decided last, after all that could begin a write.
    /// 7. Each part names the time when it wants to be woken.
    pub fn step_all(&mut self, now: Now, inputs: impl Iterator<Item = Input>) -> Effects {
        let step = &mut Step::new(now);
        self.begin(step);
        for input in inputs {
            self.take(step, input);
            self.settle(step);
        }
        self.finish(step);
        std::mem::take(&mut step.effects)
    }

    fn begin(&mut self, step: &mut Step) {
        let now = step.now;
        if !self.has_reviewed {
            self.has_reviewed = true;
            let known = self
                .held
                .partition_states()
                .filter(|(_, partition_state)| partition_state.phase.version() > ConfigVersion::default());
            step.effects
                .phases
                .extend(known.map(|(partition, partition_state)| (partition, partition_state.phase.clone())));
            self.reconfiguration.review(now.instant, &self.held);
            self.key_sweep.adopt(self.held.view());
            if self.config.broken.is(Mutation::BootsLead) {
                let lead = Hlc::at(WallMs(now.wall.0 + AHEAD_MS_MAX));
                self.replica.clock().observe(lead, now.wall);
            }
        }
        // Before anything gets a timestamp, so that a jump of the wall clock shows at once.
        self.check_clock(step);
        self.admission.advance(now.instant);
    }

    fn take(&mut self, step: &mut Step, input: Input) {
        let now = step.now;
        match input {
            Input::Client(id, request) => self.client(step, id, request),
            Input::List(id, request) => self.list(step, id, request),
            Input::Message(envelope) => self.message(step, envelope),
            Input::Stored(id, result) => self.stored(step, id, result),
            Input::View(view) => {
                let is_placed_alike = view.places_like(self.held.view());
                let held = self.held.with_view(view);
                let held = match self.config.broken.is(Mutation::ReplicaCountBySettings) {
                    true => held.with_counts_by_settings(),
                    false => held,
                };
                let held = Arc::new(held);
                self.adopt_holdings(step, held, &BTreeSet::new(), &BTreeSet::new());
                self.handoff.members_changed();
                self.key_sweep.adopt(self.held.view());
                if !is_placed_alike {
                    self.reconfiguration.review(now.instant, &self.held);
                }
            }
            Input::Phases(phases) => {
                for (partition, phase) in phases {
                    self.with_reconfiguration(step, |reconfiguration, cx| {
                        reconfiguration.learn(cx, cx.held.me().node, partition, phase)
                    });
                }
            }
            Input::Liveness(liveness) => {
                self.exchange.liveness_changed(now.instant, &self.liveness, &liveness);
                self.handoff.recheck_homes();
                self.liveness = liveness;
            }
            Input::Epoch(epoch) => {
                if self.epoch_end.sync.is_some() {
                    // The result of that sync is for an epoch that is over.
                    self.replica.sync_failed();
                }
                self.replica.set_epoch(epoch);
                self.epoch_end = EpochEnd { begun: Some(now.instant), ..EpochEnd::default() };
            }
            Input::AllSpeak(protocol) => self.replica.set_all_speak(protocol),
            Input::Tick => self.with_coordinator(step, |coordinator, cx| coordinator.tick(cx)),
            Input::Stop => self.with_exchange(step, |exchange, cx| exchange.stop(cx)),
        }
    }

    fn finish(&mut self, step: &mut Step) {
        let now = step.now;
        self.hand_over(step);
        self.collect_garbage(step);
        self.sweep_keys(step);
        self.tick_lists(step);
        self.with_exchange(step, |exchange, cx| exchange.tick(cx));
        self.settle(step);
        self.with_reconfiguration(step, |reconfiguration, cx| reconfiguration.tick(cx));
        self.with_transfers(step, |transfers, cx| transfers.tick(cx));
        self.settle(step);
        self.save_losses(step);
        self.finish_epoch(step);
        self.check_drained(step);
        self.check_timestamps(step);
        step.effects.events.extend(self.replica.hints().news());
        let scan_at = self.admission.next_at(WorkClass::Scan);
        let exchange = self.exchange.wake_at(now.instant, scan_at);
        let roles = [self.coordinator.wake_at(), self.handoff.wake_at(), exchange, self.admission.wake_at()];
        let epochs = [
            self.gc_sweep.wake_at(),
            self.key_sweep.wake_at(),
            self.lister.wake_at(),
            self.epoch_end.wake_at(now.instant),
            self.reconfiguration.wake_at(),
            self.losses.wake_at(),
        ];
        let transfers = self.transfers.wake_at(now.instant);
        let wakes = roles.into_iter().chain(epochs).flatten().chain(transfers);
        step.effects.wake_at = wakes.chain([self.next_check]).min();
    }

    /// Empties the outboxes until no part has anything left for another.
    fn settle(&mut self, step: &mut Step) {
        loop {
            self.settle_reconfiguration(step);
            self.settle_exchange(step);
            self.settle_transfers(step);
            for (to, request_id, request) in std::mem::take(&mut step.coordinator.requests) {
                if to != self.config.node {
                    self.reach.on_request(to, request_id, step.now.instant);
                    let kind = match &request {
                        ReplicaRequest::Read { .. } => Some(Measured::Read),
                        // What a stand-in stores says nothing about homes.
                        ReplicaRequest::Merge { stands_in_for: None, .. } => Some(Measured::Write),
                        ReplicaRequest::Merge { .. } | ReplicaRequest::Recover { .. } => None,
                    };
                    if let Some(kind) = kind {
                        self.reach.measure(to, kind, request_id, step.now.instant);
                    }
                }
                if to == self.config.node {
                    self.request_own_replica(step, Caller::Local(request_id), request);
                } else {
                    let partition = self.held.partition_of(request.key());
                    self.send_about(step, to, partition, Message::Request(request_id, request));
                }
            }
            for (request_id, mint) in std::mem::take(&mut step.coordinator.calls.mints) {
                self.replica.mint(step.now, request_id, mint, &mut step.replica);
            }
            for handed in std::mem::take(&mut step.coordinator.calls.handed_over) {
                self.replica.handed_over(step.now, handed, &mut step.replica);
            }
            let done = std::mem::take(&mut step.replica.calls.done);
            if done.is_empty() {
                break;
            }
            for done in done {
                self.done(step, done);
            }
        }
        for (to, request_id, put, budget, begun) in std::mem::take(&mut step.coordinator.calls.forwards) {
            self.reach.on_request(to, request_id, step.now.instant);
            self.send(step, to, Message::Forward(request_id, Box::new(put), budget, begun));
        }
        for (reply_to, outcome) in std::mem::take(&mut step.coordinator.calls.replies) {
            self.reply(step, reply_to, outcome);
        }
        step.effects.stores.append(&mut step.replica.stores);
        step.effects.events.append(&mut step.replica.events);
        step.effects.events.append(&mut step.coordinator.events);
    }

    /// Puts other settings or partition states in force: those of the `touched` partitions, of which the `moved` have another configuration.
    fn adopt_holdings(
        &mut self,
        step: &mut Step,
        held: Arc<Holdings>,
        touched: &BTreeSet<PartitionId>,
        moved: &BTreeSet<PartitionId>,
    ) {
        self.held = held.clone();
        self.replica.set_held(held.clone());
        self.with_exchange(step, |exchange, cx| exchange.set_held(cx, held, touched, moved));
        if !moved.is_empty() {
            self.with_coordinator(step, |coordinator, cx| coordinator.moved(cx, moved));
        }
    }

    /// Empties the outbox of the reconfiguration, and puts the partition states in force that are durable now.
    fn settle_reconfiguration(&mut self, step: &mut Step) {
        loop {
            let Outbox { sends, stores, calls, .. } = std::mem::take(&mut step.reconfiguration);
            let ReconfigurationCalls { adopted, drops } = calls;
            step.effects.stores.extend(stores);
            for (to, partition, message) in sends {
                self.send_about(step, to, partition, message);
            }
            for key in drops {
                self.replica.drop_record(step.now, key, &mut step.replica);
            }
            if adopted.is_empty() {
                return;
            }
            let mut held = Holdings::clone(&self.held);
            let (mut touched, mut moved) = (BTreeSet::new(), BTreeSet::new());
            for (partition, partition_state) in adopted {
                touched.insert(partition);
                if held.version(partition) < partition_state.phase.version() {
                    moved.insert(partition);
                    step.effects.phases.push((partition, partition_state.phase.clone()));
                }
                held.take(partition, partition_state);
                self.reconfiguration.attend_soon(step.now.instant, partition);
            }
            self.adopt_holdings(step, Arc::new(held), &touched, &moved);
        }
    }

    /// Passes changes of records to anti-entropy, and empties its outbox.
    fn settle_exchange(&mut self, step: &mut Step) {
        self.exchange.changed(std::mem::take(&mut step.replica.calls.changes));
        let Outbox { requests, sends, stores, events, calls } = std::mem::take(&mut step.exchange);
        step.coordinator.requests.extend(requests);
        step.effects.stores.extend(stores);
        for event in &events {
            if let Event::Exchanged(tree, _) = event {
                self.reconfiguration.attend_soon(step.now.instant, tree.partition);
            }
        }
        step.effects.events.extend(events);
        for (to, partition, message) in sends {
            self.send_about(step, to, partition, message);
        }
        for (key, loss) in calls.heals {
            let loss = (loss, self.replica.memory());
            self.with_coordinator(step, |coordinator, cx| coordinator.heal_key(cx, key, cx.me, loss));
        }
    }

    /// Empties the outbox of the transfers.
    fn settle_transfers(&mut self, step: &mut Step) {
        let Outbox { requests, sends, stores, events, calls } = std::mem::take(&mut step.transfers);
        for (_, request_id, request) in requests {
            self.replica.take_request(step.now, Caller::Local(request_id), request, &mut step.replica);
        }
        step.effects.stores.extend(stores);
        step.effects.events.extend(events);
        for (to, partition, message) in sends {
            self.send_about(step, to, partition, message);
        }
        for partition in calls.ended {
            self.reconfiguration.attend_soon(step.now.instant, partition);
        }
    }
}

/// A step under way: the outboxes of the parts, and the effects so far.
struct Step {
    now: Now,
    effects: Effects,
    replica: Outbox<ReplicaCalls>,
    coordinator: Outbox<CoordinatorCalls>,
    exchange: Outbox<ExchangeCalls>,
    transfers: Outbox<TransferCalls>,
    reconfiguration: Outbox<ReconfigurationCalls>,
}

impl Step {
    fn new(now: Now) -> Self {
        Self {
            now,
            effects: Effects::default(),
            replica: Outbox::default(),
            coordinator: Outbox::default(),
            exchange: Outbox::default(),
            transfers: Outbox::default(),
            reconfiguration: Outbox::default(),
        }
    }
}
