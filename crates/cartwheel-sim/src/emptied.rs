//! A bucket that an administrator empties now and then, and its clients.
//!
//! What was written before the bucket was emptied must never be read afterwards, whatever was away meanwhile, and must leave the disks. What was
//! acknowledged since must be there, and be listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::SettingsPatch;
use cartwheel_core::control::{NewForm, SettingsChange};
use cartwheel_core::message::client::{ClientId, Consistency, Get, Operation, Outcome, Put, Reply, Request};
use cartwheel_core::store::record::Record;
use cartwheel_core::value::key::{Key, Placement};
use cartwheel_core::value::state::Content;

use crate::failure::Failure;
use crate::rng::{Rng, Stream};
use crate::run::Alarm;
use crate::world::World;

/// The share of runs with such a bucket, in a thousand.
const RUNS_PER_MILLE: u32 = 300;
/// The most requests and changes in a run.
const REQUESTS_MAX: u32 = 150;
/// The bucket.
pub const BUCKET: &[u8] = b"emptied";
/// How many names its keys have.
const NAMES: u64 = 6;

/// A write of the bucket.
#[derive(Clone, Debug)]
struct Written {
    key: Key,
    /// Whether it was acknowledged.
    is_acknowledged: bool,
}

/// The clients of the bucket, and its administrator.
#[derive(Debug)]
pub struct EmptiedBucket {
    rng: Rng,
    every_us: u64,
    left: u32,
    is_over: bool,
    /// The writes, by their values.
    written: BTreeMap<Bytes, Written>,
    /// Requests without a response, with their keys; of a write its value, too.
    waiting: BTreeMap<ClientId, (Key, Option<Bytes>)>,
    failure: Option<Failure>,
}

impl EmptiedBucket {
    /// The bucket of a run; `None` in most runs.
    pub fn draw(seed: u64) -> Option<Self> {
        let mut rng = Rng::new(seed, Stream::Emptied);
        let every_us = rng.magnitude(20_000, 1_000_000);
        rng.chance(RUNS_PER_MILLE).then_some(Self {
            rng,
            every_us,
            left: REQUESTS_MAX,
            is_over: false,
            written: BTreeMap::new(),
            waiting: BTreeMap::new(),
            failure: None,
        })
    }

    /// Schedules the next request, if requests are left.
    pub fn start(&mut self, world: &mut World) {
        if self.left > 0 {
            self.left -= 1;
            let after_us = 1 + self.rng.waiting_us(self.every_us);
            world.alarm(after_us, Alarm::Emptied.number());
        }
    }

    /// Makes no more requests.
    pub fn end(&mut self) {
        (self.left, self.is_over) = (0, true);
    }

    /// Makes a request or empties the bucket, and schedules the next.
    pub fn act(&mut self, world: &mut World) {
        if self.is_over {
            return;
        }
        self.start(world);
        let node = self.rng.index(world.cluster().len());
        if self.rng.chance(60) {
            return self.empty(world, node);
        }
        let name = format!("k{}", self.rng.below(NAMES));
        let is_write = self.rng.chance(600);
        let timeout = Duration::from_micros(self.rng.magnitude(10_000, 5_000_000));
        // The key is that of the generation that the node knows, as its API servers make it.
        let Some(view) = world.machine(node).node().map(|node| node.view().clone()) else { return };
        let Ok(key) = view.key(Bytes::from_static(BUCKET), name.into()) else { return };
        let (operation, value) = if is_write {
            let value = Bytes::from(format!("value {}", self.written.len()));
            self.written.insert(value.clone(), Written { key: key.clone(), is_acknowledged: false });
            (Operation::Put(Put::blind(key.clone(), Content::untyped(value.clone()))), Some(value))
        } else {
            (
                Operation::Get(Get {
                    key: key.clone(),
                    consistency: Consistency::Eventual,
                    r: None,
                    seen: None,
                    wants_context: true,
                }),
                None,
            )
        };
        if let Some(id) = world.submit(node, "a client of the emptied bucket", Request { operation, timeout }) {
            self.waiting.insert(id, (key, value));
        }
    }

    fn empty(&mut self, world: &mut World, node: usize) {
        let placement = *self.rng.pick(&[Placement::Name, Placement::Slot, Placement::Prefix(1)]);
        let is_indexed = self.rng.chance(800);
        let change = SettingsChange {
            bucket: Bytes::from_static(BUCKET),
            settings: SettingsPatch::default(),
            empties: Some(NewForm { placement, is_indexed }),
            timeout: Duration::from_micros(self.rng.magnitude(10_000, 5_000_000)),
        };
        world.change_settings(node, change);
    }

    /// Whether a request is of this bucket. It is not waited for any longer.
    pub fn broken(&mut self, id: ClientId) -> bool {
        self.waiting.remove(&id).is_some()
    }

    /// Takes the response to a request; returns it if the request is not of this bucket.
    pub fn replied(&mut self, world: &World, id: ClientId, outcome: Outcome) -> Option<Outcome> {
        let Some((key, value)) = self.waiting.remove(&id) else { return Some(outcome) };
        match (value, outcome) {
            (Some(value), Ok(_)) => {
                if let Some(written) = self.written.get_mut(&value) {
                    written.is_acknowledged = true;
                }
            }
            (None, Ok(Reply::Got(got))) => {
                for sibling in &got.siblings {
                    if let Content::Value { bytes, .. } = &sibling.content
                        && self.written.get(bytes).is_none_or(|written| written.key != key)
                    {
                        let message = format!("a get of {key:?} shows {:?}", bytes.escape_ascii().to_string());
                        self.fail(world, "an emptied bucket shows what was written since", message);
                    }
                }
            }
            _ => {}
        }
        None
    }

    fn fail(&mut self, world: &World, check: &'static str, message: String) {
        self.failure.get_or_insert(Failure { check, key: None, at_us: world.now_us(), message });
    }

    /// The first violation.
    pub const fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Why a disk holds what it should not: a value of a generation that is over.
    pub fn stale_value(&self, world: &World) -> Option<String> {
        world.members().into_iter().find_map(|index| {
            let node = world.machine(index).node()?;
            let is_left = |(storage_key, bytes): (&Bytes, &Bytes)| {
                let key = Key::from_storage_key(storage_key).ok()?;
                let is_live = Record::decode(bytes, storage_key).is_ok_and(|record| {
                    record.state.siblings().any(|held| matches!(held.content, Content::Value { .. }))
                });
                (is_live && node.view().is_superseded(&key)).then_some(key)
            };
            let left = world.machine(index).disk().current().records.iter().find_map(is_left)?;
            Some(format!("{} holds {left:?}", world.cluster().name(index)))
        })
    }

    /// The keys that a list of the bucket must show, and those that it may show: what was acknowledged since the bucket was emptied last, and what
    /// may have been stored.
    pub fn expected(&self, world: &World, node: usize) -> (BTreeSet<Key>, BTreeSet<Key>) {
        let Some(node) = world.machine(node).node() else { return Default::default() };
        let generation = node.view().form(BUCKET).generation;
        let present = self.written.values().filter(|written| written.key.generation() == generation);
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for written in present {
            may.insert(written.key.clone());
            if written.is_acknowledged {
                must.insert(written.key.clone());
            }
        }
        (must, may)
    }
}
