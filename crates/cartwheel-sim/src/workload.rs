//! The requests of clients: gets and puts of every kind, drawn by the run's weights.

use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::Conflict;
use cartwheel_core::message::client::{Consistency, Get, Operation, Put, Request, Retry};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::state::Content;
use cartwheel_core::value::write_id::WriteId;

use crate::client::{Clients, HeldContext, HistoryEntry};
use crate::clock::START_WALL_MS;
use crate::history::{Fate, Shown, WRITES_MAX, Write};
use crate::options::Shares;
use crate::world::World;

/// The number of writes of a key that are reserved for the end of the run.
const WRITES_LEFT: usize = 4;

/// An expiry after the end of any run: it is only stored.
pub(crate) const EXPIRES_LATE: WallMs = WallMs(START_WALL_MS + 1_000_000_000);

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Get,
    GetSeen,
    PutBlind,
    PutGot,
    PutOwn,
    DeleteSeen,
    DeleteBlind,
    Borrowed,
    Forged,
}

/// The parameters of a read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) consistency: Consistency,
    /// The number of homes that must respond.
    pub(crate) r: u8,
    pub(crate) override_r: bool,
    pub(crate) seen: Option<(HeldContext, Good)>,
}

/// The parameters of a write.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) delete: bool,
    pub(crate) context: Option<(HeldContext, Good)>,
    /// Whether consistency, w, name and expiry are drawn by the run's options.
    pub(crate) varied: bool,
}

impl Writing {
    /// A write of a value, or a delete, with this context.
    pub(crate) fn plain(context: Option<HeldContext>, delete: bool) -> Self {
        Self { delete, context: context.map(|held| (held, Good::Yes)), varied: false }
    }
}

/// Whether a context is valid for its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Good {
    Yes,
    /// It belongs to another key, or is damaged.
    No,
}

/// Draws the next request of `client`.
pub(crate) fn begin(clients: &mut Clients, world: &World, client: usize) {
    let key = clients.rng.index(clients.histories().len());
    let mut kind = draw_kind(clients);
    if clients.histories()[key].writes.len() + WRITES_LEFT >= WRITES_MAX && kind != Kind::GetSeen {
        kind = Kind::Get;
    }
    let memory = clients.clients[client].memory[key].clone();
    let any = if clients.rng.chance(500) {
        memory.got.clone().or(memory.put.clone())
    } else {
        memory.put.clone().or(memory.got.clone())
    };
    let good = |held: Option<HeldContext>| held.map(|held| (held, Good::Yes));
    match kind {
        Kind::Get => get(clients, world, client, key, None),
        Kind::GetSeen => get(clients, world, client, key, good(any)),
        Kind::PutBlind => put(clients, world, client, key, false, None),
        Kind::PutGot => put(clients, world, client, key, false, good(memory.got)),
        Kind::PutOwn => put(clients, world, client, key, false, good(memory.put)),
        Kind::DeleteSeen if any.is_some() => put(clients, world, client, key, true, good(any)),
        Kind::DeleteSeen => get(clients, world, client, key, None),
        Kind::DeleteBlind => put(clients, world, client, key, true, None),
        Kind::Borrowed | Kind::Forged => match bad_context(clients, client, key, kind) {
            None => get(clients, world, client, key, None),
            bad if clients.rng.chance(300) => get(clients, world, client, key, bad),
            bad => put(clients, world, client, key, false, bad),
        },
    }
}

fn draw_kind(clients: &mut Clients) -> Kind {
    let Shares { get, get_seen, put_blind, put_got, put_own, delete_seen, delete_blind, borrowed, forged } =
        clients.options.shares;
    let weights = [
        (Kind::Get, get),
        (Kind::GetSeen, get_seen),
        (Kind::PutBlind, put_blind),
        (Kind::PutGot, put_got),
        (Kind::PutOwn, put_own),
        (Kind::DeleteSeen, delete_seen),
        (Kind::DeleteBlind, delete_blind),
        (Kind::Borrowed, borrowed),
        (Kind::Forged, forged),
    ];
    let mut rest = clients.rng.below(u64::from(clients.options.shares.total()));
    for (kind, weight) in weights {
        match rest.checked_sub(u64::from(weight)) {
            None => return kind,
            Some(less) => rest = less,
        }
    }
    Kind::Get
}

/// A context of another key, or a damaged one of this key.
fn bad_context(clients: &mut Clients, client: usize, key: usize, kind: Kind) -> Option<(HeldContext, Good)> {
    let memory = &clients.clients[client].memory;
    let from = if kind == Kind::Forged {
        key
    } else {
        (0..memory.len()).find(|&other| other != key && memory[other].got.is_some())?
    };
    let mut held = memory[from].got.clone()?;
    if kind == Kind::Forged {
        let mut bytes = held.sealed.to_vec();
        let bit = clients.rng.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        held.sealed = Bytes::from(bytes);
    }
    Some((held, Good::No))
}

fn draw_consistency(clients: &mut Clients, key: usize) -> Consistency {
    if clients.buckets[key].strong_only || clients.rng.chance(clients.options.strong_per_mille) {
        Consistency::Strong
    } else {
        Consistency::Eventual
    }
}

fn get(clients: &mut Clients, world: &World, client: usize, key: usize, seen: Option<(HeldContext, Good)>) {
    let consistency = draw_consistency(clients, key);
    let override_r = clients.rng.chance(clients.options.override_per_mille);
    let replicas = u64::from(clients.histories()[key].replicas.min(clients.buckets[key].n));
    let r = if override_r { clients.rng.range(1, replicas) as u8 } else { clients.buckets[key].r };
    read(clients, world, client, key, Reading { consistency, r, override_r, seen });
}

/// The number of homes that a request needs: `homes`, or a majority of n if it is strong.
const fn effective(consistency: Consistency, homes: u8, replicas: u8, n: u8) -> u8 {
    match consistency {
        Consistency::Strong => n / 2 + 1,
        Consistency::Eventual if homes < replicas => homes,
        Consistency::Eventual => replicas,
    }
}

fn timeout(clients: &mut Clients) -> Duration {
    let (low, high) = clients.options.timeout;
    Duration::from_millis(clients.rng.range(low.as_millis() as u64, high.as_millis() as u64))
}

/// Sets a read as the next request of `client`.
pub(crate) fn read(clients: &mut Clients, world: &World, client: usize, key: usize, how: Reading) {
    let replicas = clients.histories()[key].replicas;
    let r = effective(how.consistency, how.r, replicas, clients.buckets[key].n);
    let refused = matches!(how.seen, Some((_, Good::No)));
    let (seen, seen_hlc) = how.seen.as_ref().map(|(held, _)| (held.shown, held.hlc)).unwrap_or_default();
    let invoked = clients.moment(world);
    let strong = how.consistency == Consistency::Strong;
    let get = Get {
        key: clients.histories()[key].key.clone(),
        consistency: how.consistency,
        r: how.override_r.then_some(how.r),
        seen: how.seen.map(|(held, _)| held.sealed),
        wants_context: true,
    };
    let request = Request { operation: Operation::Get(get), timeout: timeout(clients) };
    clients.set_pending(client, key, HistoryEntry::Read { invoked, r, strong, seen, seen_hlc, refused }, request);
}

fn put(
    clients: &mut Clients,
    world: &World,
    client: usize,
    key: usize,
    delete: bool,
    context: Option<(HeldContext, Good)>,
) {
    write(clients, world, client, key, Writing { delete, context, varied: true });
}

/// Sets a write as the next request of `client`.
pub(crate) fn write(clients: &mut Clients, world: &World, client: usize, key: usize, how: Writing) {
    let refused = matches!(how.context, Some((_, Good::No)));
    let consistency = draw_consistency(clients, key);
    let overrides = how.varied && clients.rng.chance(clients.options.override_per_mille);
    // Deletes, and writes to buckets where the last write wins, cannot be distinguished by their values alone, so they need a name.
    let expires = draw_expiry(clients, world, &how);
    let is_kept = expires.is_none_or(|expires| expires == EXPIRES_LATE);
    let must_name = how.delete || !how.varied || !is_kept || clients.histories()[key].conflict == Conflict::Lww;
    let named = must_name || clients.rng.chance(750);
    let return_body = how.varied && clients.rng.chance(200);
    let (replicas, w) = (clients.histories()[key].replicas, clients.buckets[key].w);
    let w = if overrides { clients.rng.range(1, u64::from(replicas.min(clients.buckets[key].n))) as u8 } else { w };
    let (index, content) = add_write(clients, world, key, &how, (named, consistency), expires);
    let name = clients.histories()[key].value(index);
    let put = Put {
        key: clients.histories()[key].key.clone(),
        content,
        expires,
        context: how.context.map(|(held, _)| held.sealed),
        stamp: None,
        rewrites: clients.histories()[key].writes[index].rewrites,
        retry: if named { Retry::Key(name) } else { Retry::Unnamed },
        consistency,
        w: overrides.then_some(w),
        return_body,
    };
    let request = Request { operation: Operation::Put(put), timeout: timeout(clients) };
    let w = effective(consistency, w, replicas, clients.buckets[key].n);
    clients.set_pending(client, key, HistoryEntry::Write { index, w, refused }, request);
}

fn draw_expiry(clients: &mut Clients, world: &World, how: &Writing) -> Option<WallMs> {
    if !how.varied || how.delete {
        return None;
    }
    if clients.options.expires_per_mille > 0 && clients.rng.chance(clients.options.expires_per_mille) {
        let within_ms = clients.rng.range(0, clients.options.expires_within.as_millis() as u64);
        return Some(WallMs(START_WALL_MS + world.now_us() / 1_000 + within_ms));
    }
    clients.rng.chance(100).then_some(EXPIRES_LATE)
}

/// Records a write in the history before it is sent.
fn add_write(
    clients: &mut Clients,
    world: &World,
    key: usize,
    how: &Writing,
    (named, consistency): (bool, Consistency),
    expires: Option<WallMs>,
) -> (usize, Content) {
    let invoked = clients.moment(world);
    let history = clients.history_mut(key);
    let index = history.writes.len();
    // As EXPIRE of the Redis API does it: what was read, and is known to have a timestamp, is changed in part.
    let may_rewrite =
        history.conflict == Conflict::Lww && consistency == Consistency::Eventual && index.is_multiple_of(3);
    let rewrites = match &how.context {
        Some((held, Good::Yes)) if may_rewrite && held.hlc > Hlc::ZERO => Some(held.hlc),
        _ => None,
    };
    let value = history.value(index);
    let content = if how.delete { Content::Tombstone } else { Content::typed(value.clone(), "text/plain") };
    let sealed = how.context.as_ref().map(|(held, _)| held.sealed.as_ref());
    let id = named.then(|| WriteId::of_write(&value, &history.key, &content, sealed));
    let (shown, shown_hlc, fate) = match &how.context {
        Some((_, Good::No)) => (Shown::Writes(Default::default()), Default::default(), Fate::Refused),
        Some((held, Good::Yes)) => (Shown::Writes(held.shown), held.hlc, Fate::Unknown),
        None if how.delete => (Shown::Unknown, Default::default(), Fate::Unknown),
        None => (Shown::Writes(Default::default()), Default::default(), Fate::Unknown),
    };
    let content_copy = content.clone();
    history.writes.push(Write {
        content: content_copy,
        expires,
        id,
        shown,
        shown_hlc,
        rewrites,
        invoked,
        attempts: 0,
        fate,
        earliest: None,
        latest: None,
        collected_from_us: None,
        made_at_homes: false,
        forwards: 0,
    });
    (index, content)
}
