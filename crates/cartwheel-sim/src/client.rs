//! Clients: each makes one request at a time, keeps the contexts that it was shown, and records the responses in the history.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::message::client::{
    Acks, ClientId, Consistency, Got, Operation, Outcome, PutDone, Refusal, Reply, Request,
};
use cartwheel_core::value::dot::Dot;
use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::value::state::Content;
use cartwheel_core::wire::context::Sealer;

use crate::cluster::{BucketSpec, Cluster, key};
use crate::failure::Failure;
use crate::history::{Fate, KeyHistory, Moment, Read, Shown, WriteSet};
use crate::options::Workload;
use crate::rng::Rng;
use crate::run::Alarm;
use crate::workload;
use crate::world::{Minted, TURN_US_MAX, World};

/// How long after its timeout a response may come: timers are exact here, and messages between clients and nodes take no time. A node may take
/// the request and the end of its time each a turn late.
const SLACK_US: u64 = 1_000 + 2 * TURN_US_MAX;

/// The most attempts of one write.
const ATTEMPTS_MAX: u32 = 4;

/// A context that a client holds, and the writes that it covers.
#[derive(Clone, Debug)]
pub(crate) struct HeldContext {
    pub(crate) sealed: Bytes,
    pub(crate) shown: WriteSet,
    pub(crate) hlc: Hlc,
}

/// The contexts that a client holds of one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// The context of its last get.
    pub(crate) got: Option<HeldContext>,
    /// The context of its last put.
    pub(crate) put: Option<HeldContext>,
}

#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) home: usize,
    /// By key.
    pub(crate) memory: Vec<Memory>,
    pending: Option<Pending>,
    /// Whether its last request succeeded.
    succeeded: bool,
}

/// A request under way.
#[derive(Debug)]
struct Pending {
    key: usize,
    entry: HistoryEntry,
    request: Request,
    attempts: u32,
    /// The unanswered attempt, and its node.
    attempt: Option<(ClientId, usize)>,
    sent_us: u64,
}

/// A request's entry in the history.
#[derive(Clone, Debug)]
pub(crate) enum HistoryEntry {
    /// A read; `refused` if its context is invalid.
    Read { invoked: Moment, r: u8, strong: bool, seen: WriteSet, seen_hlc: Hlc, refused: bool },
    /// A write, by its index in the history; `refused` if its context is invalid.
    Write { index: usize, w: u8, refused: bool },
}

/// All clients of a run.
#[derive(Debug)]
pub struct Clients {
    pub(crate) options: Workload,
    pub(crate) rng: Rng,
    pub(crate) clients: Vec<Client>,
    pub(crate) buckets: Vec<BucketSpec>,
    histories: Vec<KeyHistory>,
    waiting: BTreeMap<ClientId, usize>,
    sealer: Sealer,
    begun: usize,
    order: u64,
    failure: Option<Failure>,
    /// The numbers of successful and of all responses.
    responses: (u64, u64),
}

impl Clients {
    /// The clients of a workload, and one more ([`Clients::extra`]) that acts on command only.
    pub fn new(options: Workload, cluster: &Cluster, mut rng: Rng) -> Self {
        let mut histories = Vec::new();
        let mut buckets = Vec::new();
        for bucket in &cluster.spec().buckets {
            for name in 0..options.keys {
                let number = histories.len();
                let key = key(&bucket.name, &format!("k{name}"));
                let (n, replicas) = (cluster.n_least(&key), cluster.replicas_max(&key));
                histories.push(KeyHistory::new(key, number, bucket.conflict, bucket.strong_only, replicas));
                // The least n of the run decides what a request needs.
                buckets.push(BucketSpec { n, ..bucket.clone() });
            }
        }
        let clients = (0..=options.clients)
            .map(|_| Client {
                home: rng.index(cluster.len()),
                memory: vec![Memory::default(); histories.len()],
                ..Client::default()
            })
            .collect();
        Self {
            options,
            rng,
            clients,
            buckets,
            histories,
            waiting: BTreeMap::new(),
            sealer: cluster.sealer(),
            begun: 0,
            order: 0,
            failure: None,
            responses: (0, 0),
        }
    }

    /// The client that acts on command only.
    pub fn extra(&self) -> usize {
        self.clients.len() - 1
    }

    /// The requests and responses so far, by key.
    pub fn histories(&self) -> &[KeyHistory] {
        &self.histories
    }

    /// The requests and responses of the run, by key.
    pub fn into_histories(self) -> Vec<KeyHistory> {
        self.histories
    }

    /// Records under which dots writes were stored.
    pub fn learn_minted(&mut self, world: &World) {
        let minted = world.minted();
        let clocks_within_us = world.clocks_within_us();
        for history in &mut self.histories {
            history.clocks_within_us = Some(clocks_within_us);
            let homes = world.unmoved_homes(&history.key);
            let is_home = |dot: &Dot| homes.contains(&dot.actor.node);
            for write in &mut history.writes {
                let dots = write.id.and_then(|id| minted.get(&id)).map(|stored| &stored.dots);
                write.made_at_homes = dots.is_some_and(|dots| !dots.is_empty() && dots.keys().all(is_home));
            }
        }
        for write in self.histories.iter_mut().flat_map(|history| &mut history.writes) {
            let stored = write.id.and_then(|id| minted.get(&id));
            write.earliest = stored.and_then(Minted::earliest);
            write.latest = stored.and_then(Minted::latest);
            write.collected_from_us = write.id.and_then(|id| world.collected_from_us(id));
            write.forwards = stored.map_or(0, |stored| stored.forwards);
            // The network may deliver a forwarded write twice. A refusal is then about one delivery only.
            if write.forwards > 0 && write.fate == Fate::Refused {
                write.fate = Fate::Unknown;
            }
        }
    }

    pub(crate) fn history_mut(&mut self, key: usize) -> &mut KeyHistory {
        &mut self.histories[key]
    }

    /// The numbers of successful and of all responses.
    pub const fn responses(&self) -> (u64, u64) {
        self.responses
    }

    /// Takes the first failure, if there is one.
    pub const fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Whether all requests of the workload have been made and have ended.
    pub fn are_done(&self) -> bool {
        self.begun >= self.options.operations && self.clients.iter().all(|client| client.pending.is_none())
    }

    /// Whether a client has no request under way.
    pub fn is_idle(&self, client: usize) -> bool {
        self.clients[client].pending.is_none()
    }

    /// Whether a client's last request succeeded.
    pub fn succeeded(&self, client: usize) -> bool {
        self.clients[client].succeeded
    }

    /// Starts all clients but the extra one.
    pub fn start(&mut self, world: &mut World) {
        for client in 0..self.extra() {
            let after = self.rng.waiting_us(self.options.think_us);
            world.alarm(after, Alarm::Client(client).number());
        }
    }

    /// Lets a client that has finished thinking make a request.
    pub fn wake(&mut self, world: &mut World, client: usize) {
        if self.clients[client].pending.is_none() {
            if self.begun >= self.options.operations {
                return;
            }
            if world.up_nodes().is_empty() {
                self.think(world, client);
                return;
            }
            self.begun += 1;
            workload::begin(self, world, client);
        }
        self.send(world, client, None);
    }

    fn think(&mut self, world: &mut World, client: usize) {
        let after = 1 + self.rng.waiting_us(self.options.think_us);
        world.alarm(after, Alarm::Client(client).number());
    }

    pub(crate) fn moment(&mut self, world: &World) -> Moment {
        self.order += 1;
        Moment { order: self.order, at_us: world.now_us() }
    }

    /// Sets a client's next request.
    pub(crate) fn set_pending(&mut self, client: usize, key: usize, entry: HistoryEntry, request: Request) {
        self.clients[client].pending = Some(Pending { key, entry, request, attempts: 0, attempt: None, sent_us: 0 });
    }

    /// Sends a client's pending request to `node`, or to one that the client chooses.
    pub(crate) fn send(&mut self, world: &mut World, client: usize, node: Option<usize>) {
        let up = world.up_nodes();
        let chosen = node.or_else(|| {
            let home = self.clients[client].home;
            let first = self.clients[client].pending.as_ref().is_some_and(|pending| pending.attempts == 0);
            let sticks = first && up.contains(&home) && self.rng.chance(self.options.sticky_per_mille);
            if sticks { Some(home) } else { (!up.is_empty()).then(|| *self.rng.pick(&up)) }
        });
        let Some(pending) = &mut self.clients[client].pending else { return };
        let sent =
            chosen.and_then(|node| Some((node, world.submit(node, &format!("c{client}"), pending.request.clone())?)));
        let Some((node, id)) = sent else {
            self.wait_for_a_node(world, client);
            return;
        };
        pending.attempts += 1;
        pending.attempt = Some((id, node));
        pending.sent_us = world.now_us();
        let timeout_us = pending.request.timeout.as_micros() as u64;
        if let HistoryEntry::Write { index, .. } = pending.entry {
            let write = &mut self.histories[pending.key].writes[index];
            write.attempts = pending.attempts;
            if pending.attempts > 1 {
                // The refusal of an earlier attempt does not apply to this one.
                write.fate = Fate::Unknown;
            }
        }
        self.waiting.insert(id, client);
        world.alarm(timeout_us + SLACK_US, Alarm::Deadline(id).number());
    }

    fn wait_for_a_node(&mut self, world: &mut World, client: usize) {
        // No node has received the request: it can wait until one is up.
        world.alarm(10_000, Alarm::Client(client).number());
    }

    /// Checks that a request has been answered by its timeout.
    pub fn check_deadline(&mut self, world: &mut World, id: ClientId) {
        let Some(&client) = self.waiting.get(&id) else { return };
        let Some(pending) = &self.clients[client].pending else { return };
        let Some((_, node)) = pending.attempt.filter(|(attempt, _)| *attempt == id) else { return };
        let machine = world.machine(node);
        let timeout_us = pending.request.timeout.as_micros() as u64;
        // A paused node may have received the request only when it resumed.
        let since_us = pending.sent_us.max(machine.running_since_us());
        if machine.is_paused() || world.now_us() < since_us + timeout_us + SLACK_US {
            let at_us = if machine.is_paused() { world.now_us() } else { since_us } + timeout_us + SLACK_US;
            world.alarm(at_us - world.now_us(), Alarm::Deadline(id).number());
            return;
        }
        let message = format!("q{} was not answered in {timeout_us} us by {}", id.0, world.cluster().name(node));
        let key = self.histories[pending.key].key.clone();
        self.fail("every request is answered in time", Some(key), world.now_us(), message);
    }

    fn fail(&mut self, check: &'static str, key: Option<cartwheel_core::value::key::Key>, at_us: u64, message: String) {
        self.failure.get_or_insert(Failure { check, key, at_us, message });
    }

    /// Handles the crash of a node that has not answered a request.
    pub fn broken(&mut self, world: &mut World, id: ClientId) {
        let short =
            cartwheel_core::message::client::Shortfall { answered: 0, needed: 0, why: "connection lost".to_owned() };
        self.replied(world, id, Err(Refusal::Unavailable(short)));
    }

    /// Handles the response to a request.
    pub fn replied(&mut self, world: &mut World, id: ClientId, outcome: Outcome) {
        let Some(client) = self.waiting.remove(&id) else { return };
        let Some(pending) = self.clients[client].pending.take() else { return };
        let at = self.moment(world);
        let ok = outcome.is_ok();
        self.responses.1 += 1;
        self.responses.0 += u64::from(ok);
        self.clients[client].succeeded = ok;
        let retry = match pending.entry {
            HistoryEntry::Read { .. } => {
                self.read_ended(client, &pending, at, outcome);
                false
            }
            HistoryEntry::Write { index, w, refused } => {
                self.write_ended(client, &pending, (index, w, refused), at, outcome);
                !ok && !refused && client != self.extra() && self.may_retry(&pending)
            }
        };
        if retry {
            self.clients[client].pending = Some(Pending { attempt: None, ..pending });
        }
        if client != self.extra() {
            self.think(world, client);
        }
    }

    fn may_retry(&mut self, pending: &Pending) -> bool {
        let named = matches!(&pending.request.operation,
            Operation::Put(put) if put.retry != cartwheel_core::message::client::Retry::Unnamed);
        named && pending.attempts < ATTEMPTS_MAX && self.rng.chance(self.options.retry_per_mille)
    }

    fn read_ended(&mut self, client: usize, pending: &Pending, answered: Moment, outcome: Outcome) {
        let HistoryEntry::Read { invoked, r, strong, seen, seen_hlc, refused } = pending.entry else { return };
        let got = match outcome {
            Ok(Reply::Got(got)) if !refused => got,
            Err(Refusal::BadContext(_)) if refused => return,
            Err(Refusal::Unavailable(_) | Refusal::Unverified(_) | Refusal::Overloaded) => return,
            other => return self.wrong_response(pending.key, answered, &other),
        };
        if u32::from(r) > got.acks.home + got.acks.standin {
            let message = format!("a read that needs {r} homes was answered by {:?}", got.acks);
            return self.fail_at("an answer has enough acknowledgements", pending.key, answered, message);
        }
        let held = self.hold(pending.key, &got);
        self.clients[client].memory[pending.key].got = held;
        // Reads of homes need not see what stand-ins hold.
        let (r, siblings) = (homes(r, got.acks), got.siblings);
        self.histories[pending.key].reads.push(Read { invoked, answered, r, strong, seen, seen_hlc, siblings });
    }

    /// The context of a response, and the writes that it covers.
    fn hold(&self, key: usize, got: &Got) -> Option<HeldContext> {
        let sealed = got.context.clone()?;
        let shown = self.histories[key].writes_of(&got.siblings);
        let hlc = got.siblings.iter().map(|sibling| sibling.hlc).max().unwrap_or_default();
        Some(HeldContext { sealed, shown, hlc })
    }

    fn fail_at(&mut self, check: &'static str, key: usize, at: Moment, message: String) {
        let key = self.histories[key].key.clone();
        self.fail(check, Some(key), at.at_us, message);
    }

    fn wrong_response(&mut self, key: usize, at: Moment, outcome: &Outcome) {
        let message = format!("a client got {outcome:?}");
        self.fail_at("a response matches its request", key, at, message);
    }

    fn write_ended(
        &mut self,
        client: usize,
        pending: &Pending,
        (index, w, refused): (usize, u8, bool),
        at: Moment,
        outcome: Outcome,
    ) {
        let write = &mut self.histories[pending.key].writes[index];
        match outcome {
            Ok(Reply::Put(done)) if !refused => self.write_done(client, pending, index, w, at, done),
            Err(Refusal::BadContext(_)) if refused => {}
            Err(Refusal::Overloaded) => {
                if pending.attempts == 1 {
                    write.fate = Fate::Refused;
                }
            }
            // The network may deliver a forwarded write twice. That shows only for a named write; see `learn_minted`.
            Err(Refusal::DiskFull) => {
                if pending.attempts == 1 && write.id.is_some() {
                    write.fate = Fate::Refused;
                }
            }
            // The coordinator has not stored it, but one that did not answer in time may have.
            Err(Refusal::StampTooLow(held)) if write.rewrites.is_some_and(|rewritten| held > rewritten) => {
                write.fate = Fate::Unknown;
            }
            Err(Refusal::ReadTooOld) if write.rewrites.is_some() && !refused => {
                if pending.attempts == 1 {
                    write.fate = Fate::Refused;
                }
            }
            Err(Refusal::TooManySiblings(_) | Refusal::SiblingsTooLarge(..)) if !refused => {
                if pending.attempts == 1 {
                    write.fate = Fate::Refused;
                }
            }
            Err(Refusal::Unavailable(_) | Refusal::Unverified(_)) => {
                if !refused {
                    write.fate = Fate::Unknown;
                }
            }
            other => self.wrong_response(pending.key, at, &other),
        }
    }

    fn write_done(&mut self, client: usize, pending: &Pending, index: usize, w: u8, at: Moment, done: PutDone) {
        let key = pending.key;
        let Operation::Put(put) = &pending.request.operation else { return };
        let Some(sealed) = done.context else {
            if put.content != Content::Tombstone || put.context.is_some() {
                self.fail_at("a stored write has a context", key, at, format!("w{index} has none"));
            }
            self.histories[key].writes[index].fate = Fate::FoundNothing { at };
            return;
        };
        let context = match self.sealer.open(&sealed, &self.histories[key].key) {
            Ok(context) => context,
            Err(error) => return self.fail_at("contexts are good for their key", key, at, error.to_string()),
        };
        if u32::from(w) > done.acks.home + done.acks.standin {
            let message = format!("a write that needs {w} homes was stored by {:?}", done.acks);
            return self.fail_at("an answer has enough acknowledgements", key, at, message);
        }
        let write = &mut self.histories[key].writes[index];
        // A write that was replaced before this attempt is not in the context of the attempt's reply.
        let hlc = match write.id {
            Some(id) => context.seen.ids.get(&id).copied(),
            None => Some(context.seen.hlc).filter(|hlc| *hlc > write.shown_hlc),
        };
        write.fate = Fate::Acknowledged { at, w: homes(w, done.acks), hlc };
        // A body is in the context too, but the delete has not replaced what the body shows.
        if write.shown == Shown::Unknown && pending.attempts == 1 && done.body.is_none() {
            let others = context.seen.ids.keys().copied().filter(|name| Some(*name) != write.id);
            write.shown = Shown::Names(others.collect());
        }
        let own = match write.shown {
            Shown::Writes(shown) => {
                let shown = if hlc.is_some() { shown.union(WriteSet::of(index)) } else { shown };
                Some(HeldContext { sealed, shown, hlc: context.seen.hlc })
            }
            Shown::Names(_) | Shown::Unknown => None,
        };
        let (invoked, mut own) = (write.invoked, own);
        if let (Some(body), Some(held)) = (done.body, &mut own) {
            let (seen, seen_hlc) = (held.shown, held.hlc);
            // A body shows all values, and the context covers it.
            held.shown = seen.union(self.histories[key].writes_of(&body.siblings));
            let read = Read { invoked, answered: at, r: 0, strong: false, seen, seen_hlc, siblings: body.siblings };
            self.histories[key].reads.push(read);
        }
        self.clients[client].memory[key].put = own;
    }

    /// Lets the extra client read a key at `r` homes through `node`.
    pub fn read_now(&mut self, world: &mut World, key: usize, node: usize, r: u8, consistency: Consistency) {
        let client = self.extra();
        workload::read(self, world, client, key, workload::Reading { consistency, r, seen: None, override_r: true });
        self.extend_timeout(client);
        self.send(world, client, Some(node));
    }

    /// Lets the extra client write a key through `node`, or delete it, with the context of its last get.
    pub fn write_now(&mut self, world: &mut World, key: usize, node: usize, delete: bool) {
        let client = self.extra();
        let context = self.clients[client].memory[key].got.clone();
        workload::write(self, world, client, key, workload::Writing::plain(context, delete));
        self.extend_timeout(client);
        self.send(world, client, Some(node));
    }

    fn extend_timeout(&mut self, client: usize) {
        if let Some(pending) = &mut self.clients[client].pending {
            pending.request.timeout = Duration::from_secs(5);
        }
    }
}

/// The number of homes that are known to have answered a request for `wanted` replicas.
fn homes(wanted: u8, acks: Acks) -> u8 {
    wanted.min(u8::try_from(acks.home).unwrap_or(u8::MAX))
}
