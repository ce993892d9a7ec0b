//! A node as a state machine: who handles what comes in.

pub mod clock_guard;
pub mod effects;
mod sizes;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::admission::{Admission, Admitted, WorkClass};
use crate::anti_entropy::{self, Exchange, Xcx};
use crate::cluster::configuration::{ConfigStamp, ConfigVersion, Home};
use crate::cluster::holdings::Holdings;
use crate::cluster::liveness::{Liveness, Status};
use crate::cluster::losses::Losses;
use crate::cluster::membership::View;
use crate::cluster::sizes::TreeId;
use crate::config::NodeConfig;
use crate::coordinator::full_disks::FullDisks;
use crate::coordinator::handoff::{Handoff, HandoffTask, PAGE};
use crate::coordinator::reach::Reach;
use crate::coordinator::{Coordinator, Cx, HAND_OVERS_MAX, Outbox, ReplyTo};
use crate::event::Event;
use crate::message::anti_entropy::{Finding, Question};
use crate::message::client::{ClientId, Operation, Outcome, Put, Refusal, Reply, Request, Retry, Shortfall};
use crate::message::{Answer, Ask, Envelope, Failure, Message, RequestId, Requester, Role};
use crate::mutation::Mutation;
use crate::node::clock_guard::{ALARM_MS, ClockGuard, Comparison, Judgement};
use crate::node::waiting::{Waiting, WaitingQuestions};
use crate::reconfiguration::transfer::{self, Tcx, Transfers};
use crate::reconfiguration::{self, Reconfiguration, Scx};
use crate::replica::gc_sweep::{self, GcSweep};
use crate::replica::{Asker, Done, Replica, Work};
use crate::ring::PartitionId;
use crate::store::command::{StoreCommand, StoreId, StoreResult};
use crate::store::loss_book::LossBook;
use crate::store::record::Minter;
use crate::value::dot::{NodeId, Since};
use crate::value::epoch::Epoch;
use crate::value::hlc::{AHEAD_MS_MAX, Hlc, HlcClock, WallMs};
use crate::value::time::{Instant, Now};
use crate::value::write_id::WriteId;
use crate::wire::context::Sealer;
pub use effects::{Effects, Input};

/// What an operation of the coordinator may know and use in this step. A macro, because it borrows parts of the node beside the
/// coordinator itself.
macro_rules! cx {
    ($node:ident, $step:ident) => {
        Cx {
            now: $step.now,
            me: $node.config.node,
            view: $node.held.view(),
            held: &$node.held,
            heard_of: ConfigVersion::default(),
            losses: Losses::NONE,
            memory: $node.replica.memory(),
            liveness: &$node.liveness,
            sealer: &$node.sealer,
            timing: &$node.config.timing,
            epoch: $node.replica.epoch(),
            begun: $node.replica.epoch(),
            clock: $node.replica.clock(),
            full: &mut $node.full,
            reach: &mut $node.reach,
            admission: &mut $node.admission,
            broken: $node.config.broken,
            out: &mut $step.out,
        }
    };
}

/// The same for the exchange.
macro_rules! xcx {
    ($node:ident, $step:ident) => {
        Xcx {
            now: $step.now,
            me: $node.config.node,
            liveness: &$node.liveness,
            timing: &$node.config.timing,
            epoch: $node.replica.epoch(),
            replica: &mut $node.replica,
            admission: &mut $node.admission,
            broken: $node.config.broken,
            out: &mut $step.exchange,
        }
    };
}

/// The same for transfers.
macro_rules! tcx {
    ($node:ident, $step:ident) => {
        Tcx {
            now: $step.now,
            held: &$node.held,
            liveness: &$node.liveness,
            timing: &$node.config.timing,
            replica: &mut $node.replica,
            admission: &mut $node.admission,
            broken: $node.config.broken,
            out: &mut $step.transfers,
        }
    };
}

/// The same for the reconfiguration.
macro_rules! scx {
    ($node:ident, $step:ident) => {
        Scx {
            now: $step.now.instant,
            held: &$node.held,
            liveness: &$node.liveness,
            exchange: &mut $node.exchange,
            transfers: &mut $node.transfers,
            replica: &mut $node.replica,
            admission: &mut $node.admission,
            random: &mut $node.random,
            broken: $node.config.broken,
            out: &mut $step.reconfiguration,
        }
    };
}

/// A node: its protocol state, and nothing of the machine it runs on.
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
    /// What is asked by those of whose loss the book is not durable yet.
    waiting: WaitingQuestions,
    full: FullDisks,
    reach: Reach,
    handoff: Handoff,
    gc_sweep: GcSweep,
    epoch_end: EpochEnd,
    admission: Admission,
    /// When requests of clients began that are not answered yet.
    begun: BTreeMap<ReplyTo, Instant>,
    /// How long clients' requests had waited before they came to the node.
    queued: Duration,
    clock_guard: ClockGuard,
    clock_off: Option<Comparison>,
    /// Whether it was told that timestamps are ahead of the wall clock.
    timestamps_ahead: bool,
    random: ChaCha8Rng,
    has_reviewed: bool,
    drained: Option<bool>,
    check_drained_at: Instant,
    next_check: Instant,
}

/// How often a node looks after its clock when nothing else happens.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether an epoch is finished.
const CHECK_EPOCH_EVERY: Duration = Duration::from_millis(200);

/// Under this name a node keeps the epoch that it finished last with writes that were not synced yet.
const FINISHED: &[u8] = b"finished";

/// The longest that a peer may let an operation run here.
const BUDGET_MAX: Duration = Duration::from_secs(60);

impl Node {
    /// A node that knows its cluster. It takes writes once [`Self::is_ready`].
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
            waiting: WaitingQuestions::default(),
            full: FullDisks::default(),
            reach: Reach::default(),
            handoff: Handoff::default(),
            gc_sweep: GcSweep::default(),
            epoch_end: EpochEnd::default(),
            admission: Admission::new(config.timing.background_p99_target),
            begun: BTreeMap::new(),
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

    /// Whether the node knows the epoch that writes need.
    pub fn is_ready(&self) -> bool {
        self.replica.epoch() != Epoch::UNKNOWN
    }

    /// The ring and the settings that the node goes by.
    pub fn view(&self) -> &Arc<View> {
        self.held.view()
    }

    /// What holds in the partitions of the shard.
    pub const fn held(&self) -> &Arc<Holdings> {
        &self.held
    }

    /// What the node thinks of every other.
    pub const fn liveness(&self) -> &Arc<Liveness> {
        &self.liveness
    }

    /// What this node was told of other nodes' losses.
    pub const fn losses(&self) -> &LossBook {
        &self.losses
    }

    /// The comparisons of this node's replicas with others'.
    pub const fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Clients' requests that come from now on have waited so long: it counts where the time that requests take is held against a
    /// target.
    pub const fn queued(&mut self, waited: Duration) {
        self.queued = waited;
    }

    /// How much background work may begin.
    pub fn admitted(&self) -> Admitted {
        self.admission.admitted()
    }

    /// Takes in one input at the time `now` and says what is to be done. It neither waits nor fails.
    pub fn step(&mut self, now: Now, input: Input) -> Effects {
        let mut step = Gathered {
            now,
            effects: Effects::default(),
            work: Work::default(),
            out: Outbox::default(),
            exchange: anti_entropy::Out::default(),
            transfers: transfer::Out::default(),
            reconfiguration: reconfiguration::Out::default(),
        };
        if !self.has_reviewed {
            self.has_reviewed = true;
            let known = self
                .held
                .partition_states()
                .filter(|(_, partition_state)| partition_state.phase.step() > ConfigVersion::default());
            step.effects
                .phases
                .extend(known.map(|(partition, partition_state)| (partition, partition_state.phase.clone())));
            self.reconfiguration.review(now.instant, &self.held);
            if self.config.broken.is(Mutation::BootsLead) {
                let lead = Hlc::at(WallMs(now.wall.0 + AHEAD_MS_MAX));
                self.replica.clock().observe(lead, now.wall);
            }
        }
        // Before anything gets a timestamp: a jump of the wall clock shows at once.
        self.check_clock(&mut step);
        self.admission.advance(now.instant);
        match input {
            Input::Client(id, request) => self.client(&mut step, id, request),
            Input::Message(envelope) => self.message(&mut step, envelope),
            Input::Stored(id, result) => self.stored(&mut step, id, result),
            Input::View(view) => {
                let is_placed_alike = view.places_like(self.held.view());
                let held = self.held.with_view(view);
                let held = match self.config.broken.is(Mutation::ReplicaCountBySettings) {
                    true => held.with_counts_by_settings(),
                    false => held,
                };
                let held = Arc::new(held);
                self.go_by(&mut step, held, &BTreeSet::new(), &BTreeSet::new());
                self.handoff.members_changed();
                if !is_placed_alike {
                    self.reconfiguration.review(now.instant, &self.held);
                }
            }
            Input::Phases(phases) => {
                for (partition, phase) in phases {
                    self.reconfiguration.learn(&mut scx!(self, step), self.config.node, partition, phase);
                }
            }
            Input::Liveness(liveness) => {
                self.exchange.liveness_changed(now.instant, &self.liveness, &liveness);
                self.handoff.look_again();
                self.liveness = liveness;
            }
            Input::Epoch(epoch) => {
                if self.epoch_end.sync.is_some() {
                    // How that ends is not looked at any more.
                    self.replica.sync_failed();
                }
                self.replica.set_epoch(epoch);
                self.epoch_end = EpochEnd { begun: Some(now.instant), ..EpochEnd::default() };
            }
            Input::AllSpeak(protocol) => self.replica.set_all_speak(protocol),
            Input::Tick => self.coordinator.tick(&mut cx!(self, step)),
            Input::Stop => self.exchange.stop(&mut xcx!(self, step)),
        }
        self.settle(&mut step);
        self.hand_over(&mut step);
        self.forget(&mut step);
        self.exchange.tick(&mut xcx!(self, step));
        self.settle(&mut step);
        self.reconfiguration.tick(&mut scx!(self, step));
        self.transfers.tick(&mut tcx!(self, step));
        self.settle(&mut step);
        self.save_losses(&mut step);
        self.finish_epoch(&mut step);
        self.check_drained(&mut step);
        self.check_timestamps(&mut step);
        step.effects.events.extend(self.replica.hints().news());
        let scan_at = self.admission.next_at(WorkClass::Scan);
        let exchange = self.exchange.wake_at(now.instant, scan_at);
        let roles = [self.coordinator.wake_at(), self.handoff.wake_at(), exchange, self.admission.wake_at()];
        let epochs = [
            self.gc_sweep.wake_at(),
            self.epoch_end.wake_at(now.instant),
            self.reconfiguration.wake_at(),
            self.losses.wake_at(),
        ];
        let transfers = self.transfers.wake_at(now.instant);
        let wakes = roles.into_iter().chain(epochs).flatten().chain(transfers);
        step.effects.wake_at = wakes.chain([self.next_check]).min();
        step.effects
    }

    fn client(&mut self, step: &mut Gathered, id: ClientId, request: Request) {
        let reply_to = ReplyTo::Client(id);
        self.begun.insert(reply_to, step.now.instant);
        let operation = match request.operation {
            Operation::Get(get) => Operation::Get(get),
            Operation::Put(put) => {
                if let Some(refusal) = self.clock_refusal().or_else(|| self.epoch_refusal()) {
                    step.out.replies.push((reply_to, Err(refusal)));
                    return;
                }
                Operation::Put(self.name_write(put))
            }
        };
        let begun = self.replica.epoch();
        self.coordinator.begin(&mut cx!(self, step), reply_to, operation, request.timeout.min(BUDGET_MAX), begun);
    }

    /// Gives a write the name under which it is tried, here and wherever it is forwarded to.
    fn name_write(&mut self, mut put: Put) -> Put {
        let of =
            |idempotency_key: &[u8]| WriteId::of_write(idempotency_key, &put.key, &put.content, put.context.as_deref());
        let id = match &put.retry {
            Retry::Named(id) => *id,
            Retry::Key(idempotency_key) => of(idempotency_key),
            Retry::Unnamed => {
                let mut made_up = [0; 16];
                self.random.fill_bytes(&mut made_up);
                of(&made_up)
            }
        };
        put.retry = Retry::Named(id);
        put
    }

    fn clock_refusal(&self) -> Option<Refusal> {
        let off = self.clock_off.filter(|off| off.refuses)?;
        let why = format!(
            "this node's clock is {} ms off its peers', so it takes no writes: set the clock, or write through another node",
            off.offset_ms.unsigned_abs()
        );
        Some(Refusal::Unavailable(Shortfall { answered: 0, needed: 1, why }))
    }

    /// A delete of a node that does not know the epoch would be forgotten too early.
    fn epoch_refusal(&self) -> Option<Refusal> {
        let why = "this node is new and has not heard from its cluster yet, so it takes no writes: write through another node";
        let is_unknown = self.replica.epoch() == Epoch::UNKNOWN;
        is_unknown.then(|| Refusal::Unavailable(Shortfall { answered: 0, needed: 1, why: why.to_owned() }))
    }

    fn message(&mut self, step: &mut Gathered, envelope: Envelope) {
        let from = envelope.from;
        // An incarnation that is not known yet is heard: what it says is as good as it would be if the news of it had come first.
        let view = self.held.view();
        let is_member = view.member(from).is_some() && !view.is_gone(from, envelope.from_incarnation);
        if envelope.cluster != self.config.cluster || !is_member {
            step.effects.events.push(Event::StrayMessage(from));
            return;
        }
        self.clock_guard.heard(from, (envelope.from_incarnation, envelope.from_boot), envelope.sent, step.now);
        let (config_stamp, losses) = (envelope.config_stamp, envelope.losses);
        match envelope.message {
            Message::Ask(request_id, ask) => {
                let partition = self.held.partition_of(ask.key());
                self.reconfiguration.heard_of(&mut scx!(self, step), from, partition, config_stamp);
                self.asked(step, from, request_id, ask);
            }
            Message::Answer(request_id, answer) => {
                if let Some(partition) = self.partition_of(request_id) {
                    self.reconfiguration.heard_of(&mut scx!(self, step), from, partition, config_stamp);
                }
                self.answered(step, from, request_id, (config_stamp, &losses), answer);
            }
            Message::Forward(request_id, put, budget, begun) => {
                self.take_over(step, (from, request_id), put, budget, begun)
            }
            Message::AskClocks(request_id) => self.send(step, from, Message::Clocks(request_id)),
            // The envelope has said it.
            Message::Clocks(_) => {}
            Message::Forwarded(request_id, result) => {
                self.coordinator.forwarded(&mut cx!(self, step), from, request_id, result);
            }
            Message::Compare(request_id, question) => {
                self.reconfiguration.heard_of(&mut scx!(self, step), from, question.partition(), config_stamp);
                self.compare(
                    step,
                    Home { node: from, incarnation: envelope.from_incarnation },
                    request_id,
                    config_stamp,
                    question,
                );
            }
            Message::Compared(request_id, finding) => {
                if let Some(partition) = self.partition_of(request_id) {
                    self.reconfiguration.heard_of(&mut scx!(self, step), from, partition, config_stamp);
                }
                self.compared(step, from, request_id, (config_stamp, &losses), finding);
            }
            Message::Fetch(request_id, fetch) => {
                self.reconfiguration.heard_of(&mut scx!(self, step), from, fetch.partition, config_stamp);
                self.transfers.asked(&mut tcx!(self, step), from, request_id, fetch);
            }
            Message::Fetched(request_id, fetched) => {
                if let Some(partition) = self.partition_of(request_id) {
                    self.reconfiguration.heard_of(&mut scx!(self, step), from, partition, config_stamp);
                }
                self.transfers.told(&mut tcx!(self, step), from, request_id, fetched);
            }
            Message::Reconfiguration(partition, word) => {
                let from = Home { node: from, incarnation: envelope.from_incarnation };
                self.reconfiguration.heard(&mut scx!(self, step), from, partition, word);
            }
            // The node's control takes these.
            Message::Notice(_) => step.effects.events.push(Event::StrayMessage(from)),
        }
    }

    /// Coordinates a write for another node.
    fn take_over(&mut self, step: &mut Gathered, from: (NodeId, RequestId), put: Put, budget: Duration, begun: Epoch) {
        let (peer, request_id) = from;
        if self.begun.contains_key(&ReplyTo::Peer(peer, request_id)) {
            // It was sent again because it takes so long. It is answered once.
            return;
        }
        if self.is_wrong_epoch(step, peer, begun) {
            let why = "the write comes too late to be carried out, or to a node that knows too little of its cluster";
            let short = Shortfall { answered: 0, needed: 1, why: why.to_owned() };
            return self.send(step, peer, Message::Forwarded(request_id, Err(Refusal::Unavailable(short))));
        }
        if let Some(refusal) = self.clock_refusal() {
            return self.send(step, peer, Message::Forwarded(request_id, Err(refusal)));
        }
        let (reply_to, put, begun) =
            (ReplyTo::Peer(peer, request_id), Operation::Put(put), begun.min(self.replica.epoch()));
        self.begun.insert(reply_to, step.now.instant);
        self.coordinator.begin(&mut cx!(self, step), reply_to, put, budget.min(BUDGET_MAX), begun);
    }

    /// Whether what was sent under this stamp may not be stored here: it is too old, or this node could not tell.
    fn is_wrong_epoch(&self, step: &mut Gathered, from: NodeId, stamp: Epoch) -> bool {
        let epoch = self.replica.epoch();
        let is_stale = stamp.is_stale(epoch, self.config.broken);
        if is_stale {
            step.effects.events.push(Event::StaleRefused(from));
        }
        is_stale || epoch == Epoch::UNKNOWN
    }

    /// A replica has answered the coordinator or the exchange.
    fn answered(
        &mut self,
        step: &mut Gathered,
        from: NodeId,
        request_id: RequestId,
        config_stamp: (ConfigStamp, &Losses),
        answer: Answer,
    ) {
        // Whoever asked: the peer is there, and not late.
        self.reach.answered(from, request_id, step.now.instant);
        match request_id.asking {
            Requester::Coordinator => {
                self.coordinator.answered(&mut cx!(self, step), from, request_id, config_stamp, answer)
            }
            Requester::Exchange => self.exchange.answered(&mut xcx!(self, step), from, request_id, answer),
            Requester::Transfer if from == self.config.node => {
                self.transfers.answered(&mut tcx!(self, step), request_id, &answer);
            }
            // No other replica is asked.
            Requester::Transfer => {}
        }
    }

    fn asked(&mut self, step: &mut Gathered, from: NodeId, request_id: RequestId, ask: Ask) {
        let (key, tree) = (ask.key(), self.held.tree_of(ask.key()));
        let TreeId { partition, group } = tree;
        // Who was a home says what it holds to those who are, until they have taken it over.
        let is_left = || {
            let leaves = self
                .held
                .partition_state(partition)
                .is_some_and(|partition_state| partition_state.leaves(self.held.me(), group));
            leaves && request_id.asking == Requester::Exchange
        };
        let is_ours = match &ask {
            Ask::Read { role: Role::StandIn, .. } => true,
            Ask::Merge { stands_in_for: Some(home), .. } => self.held.has_home(key, *home),
            Ask::Read { .. } | Ask::Recover { .. } | Ask::Merge { .. } => self.held.is_home(key) || is_left(),
        };
        // What peers repair here counts as if it were repaired from here, and keeps them from listing more.
        if request_id.asking == Requester::Exchange {
            self.admission.begin(WorkClass::Repair, step.now.instant);
        }
        let stamp = match &ask {
            Ask::Merge { epoch, .. } => Some(*epoch),
            Ask::Read { .. } | Ask::Recover { .. } => None,
        };
        if stamp.is_some_and(|stamp| self.is_wrong_epoch(step, from, stamp)) {
            self.send_about(step, from, partition, Message::Answer(request_id, Answer::Failed(Failure::WrongEpoch)));
        } else if is_ours {
            self.ask_own(step, Asker::Peer(from, request_id, tree), ask);
        } else {
            step.effects.events.push(Event::NotAHome(from));
            self.send_about(step, from, partition, Message::Answer(request_id, Answer::Failed(Failure::NotAHome)));
        }
    }

    fn stored(&mut self, step: &mut Gathered, id: StoreId, result: StoreResult) {
        if self.epoch_end.sync == Some(id) {
            self.epoch_synced(step, &result);
        } else if self.losses.waits_for(id) {
            self.losses_saved(step, &result);
        } else if self.reconfiguration.waits_for(id) {
            self.reconfiguration.stored(&mut scx!(self, step), id, result);
        } else if self.transfers.waits_for(id) {
            self.transfers.stored(&mut tcx!(self, step), id, result);
        } else if self.exchange.waits_for(id) {
            self.exchange.stored(&mut xcx!(self, step), id, result);
        } else if let Some(result) = self.handoff.stored(step.now.instant, id, result, self.replica.hints())
            && let Some(result) = self.gc_sweep.stored(step.now.instant, id, result)
        {
            self.replica.stored(step.now, id, result, &mut step.work);
        }
    }

    /// Has records looked after that have something to forget.
    fn forget(&mut self, step: &mut Gathered) {
        loop {
            let may_begin = self.admission.room(WorkClass::Reclaim, step.now.instant) > 0;
            let Some(task) = self.gc_sweep.next(step.now, self.replica.epoch(), may_begin) else { return };
            match task {
                gc_sweep::HandoffTask::Store(command) => {
                    let id = self.replica.next_store();
                    self.gc_sweep.begun(id);
                    step.effects.stores.push((id, command));
                }
                gc_sweep::HandoffTask::Forget(key, entry) => {
                    self.admission.begin(WorkClass::Reclaim, step.now.instant);
                    self.replica.forget(key, entry, &mut step.work);
                    self.settle(step);
                }
            }
        }
    }

    /// Tells whether anything is left to be handed over, if this node is leaving.
    fn check_drained(&mut self, step: &mut Gathered) {
        if !self.held.view().is_removed(self.held.me()) || step.now.instant < self.check_drained_at {
            return;
        }
        self.check_drained_at = step.now.instant + CHECK_EPOCH_EVERY;
        let owes = self.replica.hints().oldest().is_some();
        // From then on nothing is taken on for others, for that might go with it; until then, what is under way may be that.
        let takes_on = self.drained != Some(true) && !self.replica.is_idle();
        let is_drained = !owes && !takes_on && !self.reconfiguration.is_involved(&self.held);
        self.replica.close_hints(is_drained);
        if self.drained != Some(is_drained) {
            self.drained = Some(is_drained);
            step.effects.drained = self.drained;
        }
    }

    /// Tells that the epoch is finished, once all that was begun or taken on before it has ended, and every partition was compared
    /// with every other home since it began.
    fn finish_epoch(&mut self, step: &mut Gathered) {
        let now = step.now.instant;
        let epoch = self.replica.epoch();
        let begun = *self.epoch_end.begun.get_or_insert(now);
        let EpochEnd { is_finished, sync, check_at, .. } = self.epoch_end;
        if is_finished || sync.is_some() || now < check_at || epoch == Epoch::UNKNOWN {
            return;
        }
        self.epoch_end.check_at = now + CHECK_EPOCH_EVERY;
        let oldest = self.coordinator.oldest().into_iter().chain(self.replica.oldest()).min();
        let has_ended = oldest.is_none_or(|oldest| oldest >= epoch) && !self.held.has_stale_data();
        if !has_ended || !self.exchange.has_compared_since(begun, now) {
            return;
        }
        if self.replica.has_unsynced() {
            // A disk that went back further than an epoch would bring back what everyone has forgotten.
            self.replica.sync_begins();
            let id = self.replica.next_store();
            self.epoch_end.sync = Some(id);
            let (name, value) = (Bytes::from_static(FINISHED), Bytes::copy_from_slice(&epoch.0.to_be_bytes()));
            return step.effects.stores.push((id, StoreCommand::Remember { name, value }));
        }
        self.epoch_end.is_finished = true;
        step.effects.finished = Some(epoch);
    }

    /// What was written before an epoch is finished is synced, or not.
    fn epoch_synced(&mut self, step: &mut Gathered, result: &StoreResult) {
        self.epoch_end.sync = None;
        if *result == StoreResult::Written(Ok(())) {
            self.epoch_end.is_finished = true;
            step.effects.finished = Some(self.replica.epoch());
        } else {
            self.replica.sync_failed();
        }
    }

    /// Hands over what is kept for homes that seem to be there again.
    fn hand_over(&mut self, step: &mut Gathered) {
        loop {
            let Self { handoff, admission, replica, coordinator, liveness, reach, held, config, .. } = &mut *self;
            let now = step.now.instant;
            let room = (HAND_OVERS_MAX - coordinator.handing_over()).min(admission.room(WorkClass::HandOver, now));
            let at_once = |node: NodeId| match liveness.status(node) {
                // Nothing is sent to one that has left, whose last silence says nothing: others are owed it now.
                _ if held.view().member(node).is_none() => PAGE,
                Status::Down => 0,
                Status::Alive | Status::Suspect if !reach.is_late(node, now) => PAGE,
                Status::Alive | Status::Suspect => usize::from(reach.may_ask(node, now)),
            };
            let others = held.view().members().map(|known| known.member.id).filter(|&id| id != config.node);
            let may_count = || admission.room(WorkClass::Count, now) > 0;
            match handoff.next(now, room, may_count, at_once, others, replica.hints()) {
                Some(HandoffTask::Count(command, records)) => {
                    admission.has_read(WorkClass::Count, records, now);
                    let id = replica.next_store();
                    handoff.begun(id);
                    step.effects.stores.push((id, command));
                }
                Some(HandoffTask::Store(command)) => {
                    let id = replica.next_store();
                    handoff.begun(id);
                    step.effects.stores.push((id, command));
                }
                Some(HandoffTask::HandOver(key, to)) => {
                    admission.begin(WorkClass::HandOver, now);
                    self.coordinator.hand_over(&mut cx!(self, step), key, to);
                    self.settle(step);
                }
                None => return,
            }
        }
    }

    /// Lets the coordinator and the replica talk until neither has anything to say to the other.
    fn settle(&mut self, step: &mut Gathered) {
        loop {
            self.settle_reconfiguration(step);
            self.settle_exchange(step);
            self.settle_transfers(step);
            for (to, request_id, ask) in std::mem::take(&mut step.out.asks) {
                if to != self.config.node {
                    self.reach.asked(to, request_id, step.now.instant);
                }
                if to == self.config.node {
                    self.ask_own(step, Asker::Here(request_id), ask);
                } else {
                    let partition = self.held.partition_of(ask.key());
                    self.send_about(step, to, partition, Message::Ask(request_id, ask));
                }
            }
            for (request_id, mint) in std::mem::take(&mut step.out.mints) {
                self.replica.mint(request_id, mint, &mut step.work);
            }
            for handed in std::mem::take(&mut step.out.handed_over) {
                self.replica.handed_over(handed, &mut step.work);
            }
            let done = std::mem::take(&mut step.work.done);
            if done.is_empty() {
                break;
            }
            for done in done {
                self.done(step, done);
            }
        }
        for (to, request_id, put, budget, begun) in std::mem::take(&mut step.out.forwards) {
            self.reach.asked(to, request_id, step.now.instant);
            self.send(step, to, Message::Forward(request_id, put, budget, begun));
        }
        for (reply_to, outcome) in std::mem::take(&mut step.out.replies) {
            self.reply(step, reply_to, outcome);
        }
        step.effects.stores.append(&mut step.work.stores);
        step.effects.events.append(&mut step.work.events);
        step.effects.events.append(&mut step.out.events);
    }

    /// Goes by other settings or other partition states from now on: those of `touched` partitions, of which some have moved.
    fn go_by(
        &mut self,
        step: &mut Gathered,
        held: Arc<Holdings>,
        touched: &BTreeSet<PartitionId>,
        moved: &BTreeSet<PartitionId>,
    ) {
        self.held = held.clone();
        self.replica.set_held(held.clone());
        self.exchange.set_held(&mut xcx!(self, step), held, touched, moved);
        if !moved.is_empty() {
            self.coordinator.moved(&mut cx!(self, step), moved);
        }
    }

    /// Goes by the partition states that are durable now, and hands on what the reconfiguration wants done.
    fn settle_reconfiguration(&mut self, step: &mut Gathered) {
        loop {
            let reconfiguration::Out { sends, stores, taken, drops } = std::mem::take(&mut step.reconfiguration);
            step.effects.stores.extend(stores);
            for (to, partition, word) in sends {
                self.send_about(step, to, partition, Message::Reconfiguration(partition, word));
            }
            for key in drops {
                self.replica.drop_record(key, &mut step.work);
            }
            if taken.is_empty() {
                return;
            }
            let mut held = Holdings::clone(&self.held);
            let (mut touched, mut moved) = (BTreeSet::new(), BTreeSet::new());
            for (partition, partition_state) in taken {
                touched.insert(partition);
                if held.step(partition) < partition_state.phase.step() {
                    moved.insert(partition);
                    step.effects.phases.push((partition, partition_state.phase.clone()));
                }
                held.take(partition, partition_state);
                self.reconfiguration.attend_soon(step.now.instant, partition);
            }
            self.go_by(step, Arc::new(held), &touched, &moved);
        }
    }

    /// Tells the exchange what has become of records, and hands on what it wants done.
    fn settle_exchange(&mut self, step: &mut Gathered) {
        self.exchange.changed(std::mem::take(&mut step.work.changes));
        let anti_entropy::Out { asks, sends, stores, heals, events } = std::mem::take(&mut step.exchange);
        step.out.asks.extend(asks);
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
        for (key, loss) in heals {
            let loss = (loss, self.replica.memory());
            self.coordinator.heal_key(&mut cx!(self, step), key, self.config.node, loss);
        }
    }

    /// Hands on what transfers want done.
    fn settle_transfers(&mut self, step: &mut Gathered) {
        let transfer::Out { asks, sends, stores, events, ended } = std::mem::take(&mut step.transfers);
        for (request_id, ask) in asks {
            self.replica.ask(step.now, Asker::Here(request_id), ask, &mut step.work);
        }
        step.effects.stores.extend(stores);
        step.effects.events.extend(events);
        for (to, partition, message) in sends {
            self.send_about(step, to, partition, message);
        }
        for partition in ended {
            self.reconfiguration.attend_soon(step.now.instant, partition);
        }
    }

    fn done(&mut self, step: &mut Gathered, done: Done) {
        match done {
            Done::Answer(Asker::Here(request_id), answer) => {
                let (config_stamp, losses) = self.own_config_stamp(request_id);
                self.answered(step, self.config.node, request_id, (config_stamp, &losses), answer);
            }
            Done::Answer(Asker::Peer(peer, request_id, tree), answer) => {
                let losses = self.losses.of(tree.partition, self.replica.epoch());
                self.send_on(step, peer, (self.config_stamp_of(tree), losses), Message::Answer(request_id, answer));
            }
            Done::Mint(request_id, result) => {
                let (_, losses) = self.own_config_stamp(request_id);
                self.coordinator.minted(&mut cx!(self, step), request_id, &losses, result);
            }
            Done::HandedOver => {}
            Done::Dropped(key) => self.reconfiguration.dropped(&mut scx!(self, step), &key),
            Done::Forgot(deleted) => {
                self.gc_sweep.ended();
                step.effects.events.push(Event::Forgot(deleted));
            }
        }
    }

    fn reply(&mut self, step: &mut Gathered, reply_to: ReplyTo, outcome: Outcome) {
        let begun = self.begun.remove(&reply_to);
        match (begun, &outcome) {
            (Some(begun), Ok(_)) => self.admission.served(self.queued + step.now.instant.since(begun)),
            (_, Err(Refusal::Overloaded)) => self.admission.overloaded(),
            // That it failed, and how soon, says nothing of how busy this node is.
            _ => {}
        }
        match (reply_to, outcome) {
            (ReplyTo::Client(id), outcome) => step.effects.replies.push((id, outcome)),
            (ReplyTo::Peer(peer, request_id), Ok(Reply::Put(done))) => {
                self.send(step, peer, Message::Forwarded(request_id, Ok(done)));
            }
            (ReplyTo::Peer(peer, request_id), Err(refusal)) => {
                self.send(step, peer, Message::Forwarded(request_id, Err(refusal)));
            }
            // Only writes are forwarded.
            (ReplyTo::Peer(..), Ok(Reply::Got(_))) | (ReplyTo::Nobody, _) => {}
        }
    }

    /// On what this node stands in a partition.
    fn config_stamp(&self, partition: PartitionId) -> ConfigStamp {
        self.ours(partition, self.held.config_stamp(partition))
    }

    /// The same about some of its keys.
    fn config_stamp_of(&self, tree: TreeId) -> ConfigStamp {
        self.ours(tree.partition, self.held.config_stamp_of(tree))
    }

    fn ours(&self, partition: PartitionId, config_stamp: ConfigStamp) -> ConfigStamp {
        ConfigStamp {
            is_syncing: config_stamp.is_syncing && !self.config.broken.is(Mutation::SyncingCounts),
            memory: self.replica.memory(),
            is_recovering: self.exchange.is_recovering(partition),
            ..config_stamp
        }
    }

    /// The same for the partition that one of this node's own operations is about, and what is known of its homes' losses.
    fn own_config_stamp(&self, request_id: RequestId) -> (ConfigStamp, Losses) {
        let losses = |partition| self.losses.of(partition, self.replica.epoch());
        let key = match request_id.asking {
            Requester::Coordinator => self.coordinator.key_of(request_id.operation),
            Requester::Exchange | Requester::Transfer => None,
        };
        if let Some(key) = key {
            let tree = self.held.tree_of(key);
            return (self.config_stamp_of(tree), losses(tree.partition));
        }
        self.partition_of(request_id)
            .map(|partition| (self.config_stamp(partition), losses(partition)))
            .unwrap_or_default()
    }

    /// Asks this node's replica; what a home recovers from waits until the loss is durable here.
    fn ask_own(&mut self, step: &mut Gathered, asker: Asker, ask: Ask) {
        if let Ask::Recover { key, home, since } = &ask {
            let partition = self.held.partition_of(key);
            if !self.losses.has_room(partition, *home) {
                // It is asked again.
                return;
            }
            if !self.losses.note(partition, *home, *since, self.replica.epoch()) {
                return self.waiting.push(self.losses.version(), Waiting::Ask(asker, ask));
            }
        }
        self.replica.ask(step.now, asker, ask, &mut step.work);
    }

    /// A peer compares; if it recovers from a loss, it is answered once that is durable here.
    fn compare(
        &mut self,
        step: &mut Gathered,
        from: Home,
        request_id: RequestId,
        config_stamp: ConfigStamp,
        question: Question,
    ) {
        let (partition, epoch) = (question.partition(), self.replica.epoch());
        let is_noted = config_stamp.is_recovering && self.held.partition_state(partition).is_some();
        if is_noted && !self.losses.has_room(partition, from) {
            return;
        }
        if is_noted && !self.losses.note(partition, from, config_stamp.memory.since, epoch) {
            return self.waiting.push(self.losses.version(), Waiting::Compare(from.node, request_id, question));
        }
        self.exchange.asked(&mut xcx!(self, step), from.node, request_id, question);
    }

    /// A peer has answered a comparison. A new home takes over what the peer knows of losses: it must be durable before the comparison counts.
    fn compared(
        &mut self,
        step: &mut Gathered,
        from: NodeId,
        request_id: RequestId,
        (config_stamp, losses): (ConfigStamp, &Losses),
        finding: Finding,
    ) {
        // Only a new one: otherwise two homes would take over from each other, for ever, what both have long been free to forget.
        let partition = self.exchange.partition_of(request_id.operation);
        let partition = partition.filter(|&partition| self.held.config_stamp(partition).is_syncing);
        let is_durable = partition.is_none_or(|partition| {
            let is_own = |(home, _): &(Home, Since)| *home == self.held.me();
            let of_others: Losses = losses.iter().filter(|known| !is_own(known)).collect();
            self.losses.absorb(partition, &of_others, self.replica.epoch())
        });
        if is_durable {
            self.exchange.told(&mut xcx!(self, step), from, request_id, config_stamp, finding);
        } else {
            self.exchange.begin_anew(&mut xcx!(self, step), request_id.operation);
        }
    }

    /// Saves which losses this node was told of.
    fn save_losses(&mut self, step: &mut Gathered) {
        let Self { losses, replica, .. } = &mut *self;
        let epoch = replica.epoch();
        step.effects.stores.extend(losses.save(step.now.instant, epoch, || replica.next_store()));
    }

    /// They are saved, or not: questions that waited for it are answered.
    fn losses_saved(&mut self, step: &mut Gathered, result: &StoreResult) {
        let Some(version) = self.losses.stored(step.now.instant, result) else { return };
        for waiting in self.waiting.ready(version) {
            match waiting {
                Waiting::Ask(asker, ask) => self.replica.ask(step.now, asker, ask, &mut step.work),
                Waiting::Compare(from, request_id, question) => {
                    self.exchange.asked(&mut xcx!(self, step), from, request_id, question);
                }
            }
        }
    }

    /// The partition that one of this node's own operations is about.
    fn partition_of(&self, request_id: RequestId) -> Option<PartitionId> {
        match request_id.asking {
            Requester::Coordinator => {
                self.coordinator.key_of(request_id.operation).map(|key| self.held.partition_of(key))
            }
            Requester::Exchange => self.exchange.partition_of(request_id.operation),
            Requester::Transfer => self.transfers.partition_of(request_id.operation),
        }
    }

    fn send(&self, step: &mut Gathered, to: NodeId, message: Message) {
        self.send_on(step, to, (ConfigStamp::default(), Losses::NONE), message);
    }

    /// Sends what is about a partition.
    fn send_about(&self, step: &mut Gathered, to: NodeId, partition: PartitionId, message: Message) {
        let losses = self.losses.of(partition, self.replica.epoch());
        self.send_on(step, to, (self.config_stamp(partition), losses), message);
    }

    fn send_on(
        &self,
        step: &mut Gathered,
        to: NodeId,
        (config_stamp, losses): (ConfigStamp, Losses),
        message: Message,
    ) {
        let envelope = Envelope {
            cluster: self.config.cluster,
            from: self.config.node,
            from_incarnation: self.config.incarnation,
            from_boot: self.config.boot,
            sent: step.now,
            config_stamp,
            losses,
            message,
        };
        step.effects.sends.push((to, envelope));
    }

    /// Tells if writes got timestamps far ahead of the wall clock, and when that has ended.
    fn check_timestamps(&mut self, step: &mut Gathered) {
        let ahead_ms = self.replica.ahead_ms();
        let is_ahead = ahead_ms > ALARM_MS;
        let has_ended = step.now.instant >= self.next_check;
        if is_ahead != self.timestamps_ahead && (is_ahead || has_ended) {
            self.timestamps_ahead = is_ahead;
            step.effects.events.push(Event::TimestampsAhead { ahead_ms: if is_ahead { ahead_ms } else { 0 } });
        }
        if has_ended {
            self.replica.forget_ahead();
            self.next_check = step.now.instant + CHECK_EVERY;
        }
    }

    /// Keeps the clock under comparison with its peers'.
    fn check_clock(&mut self, step: &mut Gathered) {
        if self.clock_guard.has_jumped(step.now) {
            self.ask_clocks(step);
        }
        let members = self.held.view().members().len();
        let Judgement { alarm: off, borne_out } =
            self.clock_guard.judgement(step.now, members, |peer| self.liveness.status(peer));
        let told = |off: Option<Comparison>| off.map(|off| off.refuses);
        if told(off) != told(self.clock_off) {
            let now = off.unwrap_or(Comparison { offset_ms: 0, refuses: false });
            step.effects.events.push(Event::ClockOff { offset_ms: now.offset_ms, refuses: now.refuses });
        }
        self.replica.trust_clock(borne_out);
        self.clock_off = off;
    }

    /// Asks all others what their clocks read. If all jumped together, what was heard of them before says that this one is off.
    fn ask_clocks(&self, step: &mut Gathered) {
        let request_id =
            RequestId { asking: Requester::Coordinator, operation: self.config.shard_id.first_operation(0), round: 0 };
        let others = self.held.view().members().map(|known| known.member.id).filter(|&id| id != self.config.node);
        for other in others {
            self.send(step, other, Message::AskClocks(request_id));
        }
    }
}

/// How far the node is with its epoch.
#[derive(Debug, Default)]
struct EpochEnd {
    /// When it began, in this boot.
    begun: Option<Instant>,
    check_at: Instant,
    /// All that was written in it and before is being synced by this command.
    sync: Option<StoreId>,
    is_finished: bool,
}

impl EpochEnd {
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        (!self.is_finished).then(|| self.check_at.max(now + CHECK_EPOCH_EVERY / 2))
    }
}

/// What a step has gathered so far.
struct Gathered {
    now: Now,
    effects: Effects,
    work: Work,
    out: Outbox,
    exchange: anti_entropy::Out,
    transfers: transfer::Out,
    reconfiguration: reconfiguration::Out,
}
