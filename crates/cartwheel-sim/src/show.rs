//! Values, messages and events as readable text: nodes by name, and clocks as the paper writes them.

use cartwheel_core::cluster::losses::Loss;
use cartwheel_core::event::Event;
use cartwheel_core::message::client::{Consistency, Got, Operation, Outcome, Put, PutDone, Refusal, Reply};
use cartwheel_core::message::transfer::Fetched;
use cartwheel_core::message::{
    Confirm, Envelope, Message, ReplicaRequest, ReplicaResponse, RequestId, Requester, Role, Want,
};
use cartwheel_core::store::command::{ReadFailed, StoreCommand, StoreResult, WriteFailed};
use cartwheel_core::store::record::Record;
use cartwheel_core::value::clock::{Clock, Run};
use cartwheel_core::value::dot::{Actor, Dot};
use cartwheel_core::value::state::{Content, Sibling, State};

use crate::cluster::Cluster;

/// Names for actors.
pub trait Naming {
    /// The name under which an actor is shown.
    fn actor(&self, actor: Actor) -> String;
}

impl Naming for Cluster {
    /// The node's name, the boot in which the actor began, and its number in that boot.
    fn actor(&self, actor: Actor) -> String {
        format!("{}@{}.{}", self.name_of(actor.node), actor.since.0 >> 40, actor.since.0 & ((1 << 40) - 1))
    }
}

/// A clock, as `[n1,3][n2,1]` in the order of the names. Counters beyond a gap are added as in `[n1,3+5]`.
pub fn clock(names: &impl Naming, clock: &Clock) -> String {
    let entry = |run: Run| {
        let beyond: Vec<String> = run.beyond.iter().map(|counter| format!("+{counter}")).collect();
        format!("[{},{}{}]", names.actor(run.actor), run.upto, beyond.concat())
    };
    let mut entries: Vec<String> = clock.runs().map(entry).collect();
    entries.sort_unstable();
    if entries.is_empty() { "[]".to_owned() } else { entries.concat() }
}

fn dot(names: &impl Naming, dot: Dot) -> String {
    format!("{}:{}", names.actor(dot.actor), dot.counter)
}

/// The content of a write.
pub fn content(content: &Content) -> String {
    match content {
        Content::Value { bytes, .. } => bytes.escape_ascii().to_string(),
        Content::Tombstone => "deleted".to_owned(),
    }
}

fn sibling(names: &impl Naming, sibling: &Sibling) -> String {
    format!("{}={}@{:?}", dot(names, sibling.dot), content(&sibling.content), sibling.hlc)
}

fn siblings<'a>(names: &impl Naming, held: impl Iterator<Item = &'a Sibling>) -> String {
    let held: Vec<String> = held.map(|held| sibling(names, held)).collect();
    format!("{{{}}}", held.join(" "))
}

/// A key's state.
pub fn state(names: &impl Naming, held: &State) -> String {
    let notes: Vec<String> = held.notes().iter().map(|(id, _)| format!("{id:?}")).collect();
    let notes = if notes.is_empty() { String::new() } else { format!(" replaced {}", notes.join(",")) };
    format!("{} {}{notes}", clock(names, held.clock()), siblings(names, held.siblings()))
}

/// A stored record.
pub fn record(names: &impl Naming, record: &Record) -> String {
    let own = record.header.own.map_or(String::new(), |own| {
        format!(" own {}.{}:{}", own.since.0 >> 40, own.since.0 & ((1 << 40) - 1), own.count)
    });
    let recovering = if record.header.recovering.is_some() { " recovering" } else { "" };
    format!("{}{own}{recovering}", state(names, &record.state))
}

/// The part of a node that makes the request; empty for the coordinator.
const fn whose(requester: Requester) -> &'static str {
    match requester {
        Requester::Coordinator => "",
        Requester::Exchange => "exchange",
        Requester::Transfer => "transfer",
        Requester::Listing => "listing",
    }
}

fn request_id(request_id: RequestId) -> String {
    format!("{}#{:x}.{}", whose(request_id.requester), request_id.operation & 0xff_ffff, request_id.round)
}

/// A message.
pub fn envelope(names: &impl Naming, envelope: &Envelope) -> String {
    match &envelope.message {
        Message::Request(id, what) => format!("{} {}", request_id(*id), request(names, what)),
        Message::Response(id, what) => format!("{} {}", request_id(*id), response(names, what)),
        Message::Forward(id, what, budget, _) => {
            format!("{} forwards, {budget:?} left: {}", request_id(*id), put_request(what))
        }
        Message::Forwarded(id, how) => {
            let how = how.as_ref().map_or_else(refused, |done| put_done(names, done));
            format!("{} forwarded: {how}", request_id(*id))
        }
        Message::Compare(id, question) => format!("{} {question:?}", request_id(*id)),
        Message::Compared(id, finding) => format!("{} {finding:?}", request_id(*id)),
        Message::Fetch(id, fetch) => format!("{} {fetch:?}", request_id(*id)),
        Message::Fetched(id, Fetched::Page(page)) => {
            format!("{} {} records of {} bytes, then {:?}", request_id(*id), page.records.len(), page.bytes, page.next)
        }
        Message::Fetched(id, Fetched::Refused(why)) => format!("{} {why:?}", request_id(*id)),
        Message::List(id, question) => format!("{} {question:?}", request_id(*id)),
        Message::Listed(id, answer) => format!("{} {answer:?}", request_id(*id)),
        Message::ClocksRequest(id) => format!("{} asks for clocks", request_id(*id)),
        Message::Clocks(id) => format!("{} sends its clocks", request_id(*id)),
        Message::Reconfiguration(partition, message) => format!("{partition:?} {message:?}"),
        Message::Notice(notice) => format!("{notice:?}"),
    }
}

fn request(names: &impl Naming, what: &ReplicaRequest) -> String {
    match what {
        ReplicaRequest::Recover { key, home, .. } => format!("read {key:?} for the recovery of {:?}", home.node),
        ReplicaRequest::Read { key, want: Want::State, role } => format!("read {key:?}{}", as_role(*role)),
        ReplicaRequest::Read { key, want: Want::Digest, role } => format!("digest {key:?}{}", as_role(*role)),
        ReplicaRequest::Merge { key, state: sent, epoch, heals, confirm, stands_in_for } => {
            let exactly = if *confirm == Confirm::Exactly { ", confirm what is held" } else { "" };
            let heals = if heals.is_some() { ", it heals" } else { "" };
            let stand_in = stands_in_for.map_or(String::new(), |home| format!(" as a stand-in for {home}"));
            format!("merge {key:?} {} epoch {}{heals}{exactly}{stand_in}", state(names, sent), epoch.0)
        }
    }
}

const fn as_role(role: Role) -> &'static str {
    match role {
        Role::Home => "",
        Role::StandIn => " as a stand-in",
    }
}

fn response(names: &impl Naming, what: &ReplicaResponse) -> String {
    let counting = |loss: Option<Loss>| if loss.is_none() { "" } else { " (does not count)" };
    match what {
        ReplicaResponse::State { state: held, epoch, loss } => {
            format!("holds {} epoch {}{}", state(names, held), epoch.0, counting(*loss))
        }
        ReplicaResponse::Digest { digest, loss } => format!("holds digest {digest:?}{}", counting(*loss)),
        ReplicaResponse::Stored => "stored".to_owned(),
        ReplicaResponse::Holds { digest, state: held, loss } => {
            let held = held.as_ref().map_or("what was sent".to_owned(), |held| state(names, held));
            format!("stored, holds {digest:?}: {held}{}", counting(*loss))
        }
        ReplicaResponse::Failed(failure) => format!("failed: {failure:?}"),
    }
}

/// A client's request.
pub fn operation(operation: &Operation) -> String {
    match operation {
        Operation::Get(get) => {
            let r = get.r.map_or(String::new(), |r| format!(" r={r}"));
            let seen = if get.seen.is_some() { " with a seen context" } else { "" };
            format!("get {:?}{}{r}{seen}", get.key, strong(get.consistency))
        }
        Operation::Put(put) => put_request(put),
        Operation::Inspect(key) => format!("inspect {key:?}"),
        Operation::Restore(restore) => format!("restore {:?}", restore.key),
    }
}

fn put_request(put: &Put) -> String {
    let w = put.w.map_or(String::new(), |w| format!(" w={w}"));
    let context = if put.context.is_some() { " with a context" } else { "" };
    format!("put {:?} {}{}{w}{context} {:?}", put.key, content(&put.content), strong(put.consistency), put.retry)
}

const fn strong(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Eventual => "",
        Consistency::Strong => " strong",
    }
}

fn got(names: &impl Naming, got: &Got) -> String {
    format!("{} from {} homes", siblings(names, got.siblings.iter()), got.acks.home)
}

/// The end of a request.
pub fn outcome(names: &impl Naming, how: &Outcome) -> String {
    match how {
        Ok(Reply::Got(seen)) => got(names, seen),
        Ok(Reply::Put(done)) => put_done(names, done),
        Ok(Reply::Inspected(inspected)) => format!("{} replicas inspected", inspected.replicas.len()),
        Err(refusal) => refused(refusal),
    }
}

fn put_done(names: &impl Naming, done: &PutDone) -> String {
    let nothing = if done.context.is_none() { "nothing to delete, " } else { "" };
    let body = done.body.as_ref().map_or(String::new(), |body| format!(", now {}", got(names, body)));
    format!("{nothing}stored on {} homes{body}", done.acks.home)
}

/// A refusal.
pub fn refused(refusal: &Refusal) -> String {
    format!("{}: {refusal}", refusal.code())
}

/// A command to a store.
pub fn store_command(names: &impl Naming, command: &StoreCommand) -> String {
    match command {
        StoreCommand::Read { storage_key } => format!("reads {}", key_name(storage_key)),
        StoreCommand::Write { storage_key, record: Some(bytes), sync, .. } => {
            let sync = if *sync { "writes" } else { "writes without sync" };
            let held = Record::decode(bytes, storage_key).map_or("?".to_owned(), |held| record(names, &held));
            format!("{sync} {} {held}", key_name(storage_key))
        }
        StoreCommand::Write { storage_key, record: None, .. } => format!("removes {}", key_name(storage_key)),
        StoreCommand::Scan { from, upto, at_most } => format!("scans {at_most:?} from {from:?} to {upto:?}"),
        StoreCommand::ScanIndex { from, upto, .. } => format!("scans the index from {from:?} to {upto:?}"),
        StoreCommand::Remember { name, value } => format!("remembers {} bytes as {name:?}", value.len()),
        StoreCommand::Recall { name } => format!("recalls {name:?}"),
    }
}

fn key_name(storage_key: &[u8]) -> String {
    cartwheel_core::value::key::Key::from_storage_key(storage_key).map_or("?".to_owned(), |key| format!("{key:?}"))
}

/// The end of a store command.
pub fn store_result(result: &StoreResult) -> &'static str {
    match result {
        StoreResult::Read(Ok(Some(_))) => "read",
        StoreResult::Read(Ok(None)) => "found nothing",
        StoreResult::Scanned(Ok(_)) | StoreResult::Listed(Ok(_)) => "scanned",
        StoreResult::Read(Err(failed)) | StoreResult::Scanned(Err(failed)) | StoreResult::Listed(Err(failed)) => {
            match failed {
                ReadFailed::Unreadable => "could not read",
                ReadFailed::Damaged => "found damage",
            }
        }
        StoreResult::Written(Ok(())) => "wrote",
        StoreResult::Written(Err(WriteFailed::Uncertain)) => "could not write",
        StoreResult::Written(Err(WriteFailed::DiskFull)) => "has no space to write",
    }
}

/// An event that a node reports.
pub fn event(cluster: &Cluster, event: &Event) -> String {
    match event {
        Event::Repaired(key, node, how) => format!("repaired {key:?} on {} ({})", cluster.name_of(*node), how.name()),
        Event::NotAHome(node) => format!("refuses a request of {} for a key of other homes", cluster.name_of(*node)),
        Event::HintsHeld { home, now, .. } => {
            format!("keeps {} hints for {}", now.records, cluster.name_of(*home))
        }
        Event::HintsFull { is_full, .. } => {
            format!("{} the limit of its hints", if *is_full { "has reached" } else { "is below" })
        }
        Event::HintDelivered(node) => format!("has delivered a hint to {}", cluster.name_of(*node)),
        Event::StrayMessage(node) => format!("drops a stray message from {}", cluster.name_of(*node)),
        other => format!("{other:?}"),
    }
}
