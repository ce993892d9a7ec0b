//! The spans of a shard: what it does for requests that are in a trace.
//!
//! The machine knows nothing of traces. The shard sees every input and effect of it, so it can tell which belong to a traced request: messages by
//! the number of their operation, store commands by their key. A step that begins a traced operation has that one input, so the operation that
//! it begins is known. While no traced request is under way, nothing of this is done.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::message::client::{ClientId, Operation, Outcome, Reply, Request};
use cartwheel_core::message::trace::TraceContext;
use cartwheel_core::message::{Envelope, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester};
use cartwheel_core::node::{Effects, Input};
use cartwheel_core::store::command::{StoreCommand, StoreId, StoreResult};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;
use cartwheel_core::value::time::Instant;

use super::Watching;
use crate::trace::{Span, SpanKind};

/// How many spans, and how many operations, may be open in a shard.
pub const OPEN_MAX: usize = 1_024;
/// How long a replica may take before its span ends without its response.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How long an operation may send messages: longer than any request may take, and a while after its response, for replicas that are late.
const OPERATION_FOR: Duration = Duration::from_secs(70);
const AFTER_RESPONSE: Duration = Duration::from_secs(2);
/// How often it is looked for what has taken longer.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The spans that are open.
#[derive(Default)]
pub(super) struct Traces {
    watching: Watching,
    open: Option<Box<Open>>,
}

#[derive(Default)]
struct Open {
    /// The requests of clients.
    clients: BTreeMap<ClientId, Served>,
    /// The requests of peers.
    peers: BTreeMap<(NodeId, RequestId), Served>,
    /// The operations of the coordinator, with the span that they belong to and until when they may send messages.
    operations: BTreeMap<u64, (TraceContext, Instant)>,
    /// The requests that wait for a peer's response.
    asked: BTreeMap<(NodeId, RequestId), (Span, Instant)>,
    /// The commands under way in the store.
    stores: BTreeMap<StoreId, Span>,
    next_sweep: Instant,
}

/// A request that is carried out.
struct Served {
    span: Span,
    storage_key: Bytes,
    since: Instant,
}

/// A traced operation that the next step begins.
pub(super) struct Begins(TraceContext);

impl Traces {
    pub(super) fn new(watching: Watching) -> Self {
        Self { watching, open: None }
    }

    /// Whether no traced request is under way.
    pub(super) const fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// How many spans are open.
    pub(super) fn len(&self) -> usize {
        self.open.as_deref().map_or(0, Open::len)
    }

    /// Begins the span of a client's request.
    pub(super) fn request(&mut self, id: ClientId, parent: TraceContext, request: &Request, now: Instant) {
        let name = match &request.operation {
            Operation::Get(_) => "coordinate get",
            Operation::Put(put) if put.content == Content::Tombstone => "coordinate delete",
            Operation::Put(_) => "coordinate put",
            Operation::Inspect(_) => "coordinate inspect",
            Operation::Restore(_) => "coordinate restore",
        };
        if let Some(open) = self.open(now) {
            open.clients.insert(id, Served::begin(parent, name, request.operation.key(), now));
        }
    }

    /// Begins the span of a peer's request, if it is in a trace.
    pub(super) fn message(&mut self, envelope: &Envelope, now: Instant) {
        let Some(parent) = envelope.trace.as_deref().filter(|_| self.watching.tracer.is_on()) else { return };
        let (request_id, name, key) = match &envelope.message {
            Message::Request(request_id, request) => (*request_id, replica_span(request), request.key()),
            Message::Forward(request_id, put, ..) => (*request_id, "coordinate forwarded write", &put.key),
            _ => return,
        };
        let from = self.watching.name_of(envelope.from);
        if let Some(open) = self.open(now) {
            let mut served = Served::begin(*parent, name, key, now);
            served.span.kind = SpanKind::Server;
            served.span.set("cartwheel.peer", from);
            // A repeat has no span of its own.
            open.peers.entry((envelope.from, request_id)).or_insert(served);
        }
    }

    /// How many of the next inputs a step may take, so that one that begins a traced operation is alone.
    pub(super) fn step_of<'a>(&self, inputs: impl Iterator<Item = &'a Input>) -> usize {
        let mut count = 0;
        for input in inputs {
            if self.begins(input).is_some() {
                return count.max(1);
            }
            count += 1;
        }
        count
    }

    /// Ends the spans of what the inputs of a step are responses to.
    pub(super) fn before_step<'a>(&mut self, inputs: impl Iterator<Item = &'a Input>, now: Instant) -> Option<Begins> {
        let mut begins = None;
        for input in inputs {
            begins = self.begins(input).map(Begins);
            let Some(open) = &mut self.open else { return None };
            match input {
                Input::Stored(id, result) => {
                    if let Some(mut span) = open.stores.remove(id) {
                        if failed(result) {
                            span.failure = Some("the store failed".to_owned());
                        }
                        self.watching.tracer.end(span);
                    }
                }
                Input::Message(Envelope { from, message, .. }) => {
                    let (request_id, failure) = match message {
                        Message::Response(request_id, ReplicaResponse::Failed(failure)) => {
                            (*request_id, Some(format!("{failure:?}")))
                        }
                        Message::Response(request_id, _) | Message::Forwarded(request_id, Ok(_)) => (*request_id, None),
                        Message::Forwarded(request_id, Err(refusal)) => (*request_id, Some(refusal.code().to_owned())),
                        _ => continue,
                    };
                    if let Some((mut span, _)) = open.asked.remove(&(*from, request_id)) {
                        span.failure = failure;
                        self.watching.tracer.end(span);
                    }
                }
                _ => {}
            }
        }
        self.sweep(now);
        begins
    }

    /// Notes that a step has begun this operation.
    pub(super) fn begun(&mut self, Begins(context): Begins, operation: u64, now: Instant) {
        if let Some(open) = &mut self.open
            && open.operations.len() < OPEN_MAX
        {
            open.operations.insert(operation, (context, now + OPERATION_FOR));
        }
    }

    /// Begins and ends spans by what a step wants done, and puts its messages into their traces.
    pub(super) fn effects(&mut self, effects: &mut Effects, now: Instant) {
        for (to, envelope) in &mut effects.sends {
            self.send(*to, envelope, now);
        }
        for (id, command) in &effects.stores {
            self.store(*id, command);
        }
        for (id, outcome) in &effects.replies {
            self.replied(*id, outcome, now);
        }
    }

    fn send(&mut self, to: NodeId, envelope: &mut Envelope, now: Instant) {
        let Some(open) = &mut self.open else { return };
        let (request_id, name) = match &envelope.message {
            Message::Request(request_id, request) => (*request_id, asked_span(request)),
            Message::Forward(request_id, ..) => (*request_id, "forward write"),
            Message::Response(request_id, _) | Message::Forwarded(request_id, _) => {
                if let Some(Served { mut span, .. }) = open.peers.remove(&(to, *request_id)) {
                    open.responded(span.context, now);
                    span.failure = match &envelope.message {
                        Message::Response(_, ReplicaResponse::Failed(failure)) => Some(format!("{failure:?}")),
                        Message::Forwarded(_, Err(refusal)) => Some(refusal.code().to_owned()),
                        _ => None,
                    };
                    self.watching.tracer.end(span);
                }
                return;
            }
            _ => return,
        };
        if request_id.requester != Requester::Coordinator {
            return;
        }
        let Some(&(parent, _)) = open.operations.get(&request_id.operation) else { return };
        if let Some((span, _)) = open.asked.get(&(to, request_id)) {
            // It is sent again.
            envelope.trace = Some(Box::new(span.context));
            return;
        }
        if open.is_full() {
            return self.watching.tracer.left_out();
        }
        let mut span = Span::child_of(parent, name, SpanKind::Client);
        envelope.trace = Some(Box::new(span.context));
        span.set("cartwheel.round", request_id.round);
        let peer = self.watching.name_of(to);
        span.set("cartwheel.peer", peer);
        if let Some(open) = &mut self.open {
            open.asked.insert((to, request_id), (span, now));
        }
    }

    fn store(&mut self, id: StoreId, command: &StoreCommand) {
        let Some(open) = self.open.as_mut().filter(|open| !open.is_full()) else { return };
        let (name, storage_key) = match command {
            StoreCommand::Read { storage_key } => ("store read", storage_key),
            StoreCommand::Write { storage_key, .. } => ("store commit", storage_key),
            _ => return,
        };
        // What other requests store of the key meanwhile is shown, too: the traced one waits for it.
        let served = open.clients.values().chain(open.peers.values()).find(|served| served.storage_key == storage_key);
        if let Some(served) = served {
            let span = Span::child_of(served.span.context, name, SpanKind::Internal);
            open.stores.insert(id, span);
        }
    }

    fn replied(&mut self, id: ClientId, outcome: &Outcome, now: Instant) {
        let Some(open) = &mut self.open else { return };
        let Some(Served { mut span, .. }) = open.clients.remove(&id) else { return };
        open.responded(span.context, now);
        match outcome {
            Ok(reply) => {
                let acks = match reply {
                    Reply::Got(got) => Some(got.acks),
                    Reply::Put(done) => Some(done.acks),
                    Reply::Inspected(_) => None,
                };
                if let Some(acks) = acks {
                    span.set("cartwheel.acks.home", acks.home);
                    span.set("cartwheel.acks.standin", acks.standin);
                }
            }
            Err(refusal) => {
                span.set("cartwheel.outcome", refusal.code());
                span.failure = Some(refusal.to_string());
            }
        }
        self.watching.tracer.end(span);
    }

    /// The span whose operation an input begins.
    fn begins(&self, input: &Input) -> Option<TraceContext> {
        let open = self.open.as_deref()?;
        let served = match input {
            Input::Client(id, _) => open.clients.get(id),
            Input::Message(Envelope { from, message: Message::Forward(request_id, ..), .. }) => {
                open.peers.get(&(*from, *request_id))
            }
            _ => None,
        };
        served.map(|served| served.span.context)
    }

    /// The spans that are open, if there may be more of them.
    fn open(&mut self, now: Instant) -> Option<&mut Open> {
        let open = self.open.get_or_insert_with(|| Box::new(Open { next_sweep: now + SWEEP_EVERY, ..Open::default() }));
        if open.is_full() {
            self.watching.tracer.left_out();
            return None;
        }
        Some(open)
    }

    /// Ends what has been open for too long: a response or a completion that will not come.
    fn sweep(&mut self, now: Instant) {
        let Some(open) = self.open.as_mut().filter(|open| now >= open.next_sweep) else { return };
        open.next_sweep = now + SWEEP_EVERY;
        let is_over = |since: &Instant| now.since(*since) >= ANSWERED_WITHIN;
        let over = open.asked.iter().filter(|(_, (_, since))| is_over(since));
        let unanswered: Vec<_> = over.map(|(asked, _)| *asked).collect();
        for (mut span, _) in unanswered.into_iter().filter_map(|asked| open.asked.remove(&asked)) {
            span.failure = Some("no response".to_owned());
            self.watching.tracer.end(span);
        }
        open.operations.retain(|_, (_, until)| now < *until);
        open.peers.retain(|_, served| now.since(served.since) < OPERATION_FOR);
        open.clients.retain(|_, served| now.since(served.since) < OPERATION_FOR);
        if open.is_empty() {
            self.open = None;
        }
    }
}

impl Open {
    fn len(&self) -> usize {
        self.clients.len() + self.peers.len() + self.asked.len() + self.stores.len()
    }

    /// Notes that the request with this span has its response.
    fn responded(&mut self, context: TraceContext, now: Instant) {
        for (_, until) in self.operations.values_mut().filter(|(of, _)| *of == context) {
            *until = now + AFTER_RESPONSE;
        }
    }

    fn is_full(&self) -> bool {
        self.len() >= OPEN_MAX
    }

    fn is_empty(&self) -> bool {
        self.len() == 0 && self.operations.is_empty()
    }
}

impl Served {
    fn begin(parent: TraceContext, name: &'static str, key: &Key, now: Instant) -> Self {
        let mut span = Span::child_of(parent, name, SpanKind::Internal);
        span.set("cartwheel.bucket", key.bucket().escape_ascii().to_string());
        // Not the key, which may name a person: `cluster locate` gives a key's token.
        span.set("cartwheel.token", key.token().to_string());
        Self { span, storage_key: key.storage_key(), since: now }
    }
}

const fn asked_span(request: &ReplicaRequest) -> &'static str {
    match request {
        ReplicaRequest::Read { .. } => "ask replica to read",
        ReplicaRequest::Recover { .. } => "ask replica to recover",
        ReplicaRequest::Merge { .. } => "ask replica to merge",
    }
}

const fn replica_span(request: &ReplicaRequest) -> &'static str {
    match request {
        ReplicaRequest::Read { .. } => "replica read",
        ReplicaRequest::Recover { .. } => "replica recover",
        ReplicaRequest::Merge { .. } => "replica merge",
    }
}

const fn failed(result: &StoreResult) -> bool {
    matches!(
        result,
        StoreResult::Read(Err(_))
            | StoreResult::Written(Err(_))
            | StoreResult::Scanned(Err(_))
            | StoreResult::Listed(Err(_))
    )
}
