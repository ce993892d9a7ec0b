//! A real replica of one key on an in-memory disk.
#![allow(dead_code, reason = "each test file uses its part of it")]

use std::sync::Arc;

use bytes::Bytes;
use cartwheel_core::cluster::configuration::Home;
use cartwheel_core::cluster::holdings::Holdings;
use cartwheel_core::cluster::membership::{ChangeKind, History, Member, Strategy};
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::config::{NodeConfig, Timing};
use cartwheel_core::message::{Confirm, ReplicaRequest, RequestId, Requester};
use cartwheel_core::outbox::Outbox;
use cartwheel_core::replica::{Caller, Done, Mint, MintRefused, Minted, Replica, ReplicaCalls, Stamp};
use cartwheel_core::ring::Partitions;
use cartwheel_core::store::command::{StoreCommand, StoreResult};
use cartwheel_core::store::image::Image;
use cartwheel_core::store::record::{ActorsSince, Minter, Record};
use cartwheel_core::value::dot::{Dot, Incarnation, NodeId};
use cartwheel_core::value::hlc::{Hlc, HlcClock, WallMs};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Epoch, Seen, State};
use cartwheel_core::value::time::{Instant, Now};
use cartwheel_core::value::write_id::WriteId;

use crate::pair::{self, CLUSTER};

const REQUEST_ID: RequestId = RequestId { requester: Requester::Coordinator, operation: 1, round: 1 };

/// The key of all these tests.
pub fn key() -> Key {
    Key::new(Bytes::from_static(b"carts"), Bytes::from_static(b"alice")).expect("a valid key")
}

/// A write as a coordinator passes it to its replica.
#[derive(Clone, Debug)]
pub struct Write {
    pub id: WriteId,
    pub value: String,
    pub seen: Seen,
    pub covers_held: bool,
}

impl Write {
    /// The `number`-th write, which has seen `seen`.
    pub fn numbered(number: u64, seen: Seen) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Self { id: WriteId::from_bytes(id), value: format!("v{number}"), seen, covers_held: false }
    }
}

/// The join of states.
pub fn join(states: impl IntoIterator<Item = State>) -> State {
    let mut all = State::default();
    for state in states {
        all.merge(&state);
    }
    all
}

/// A replica whose store answers at once.
pub struct TestReplica {
    node: NodeId,
    boot: u32,
    /// The number of boots, including those of directories that were put back.
    boots: u64,
    actors: ActorsSince,
    wall: WallMs,
    replica: Replica,
    disk: Image,
    /// The disk as it was before its last write.
    before: Image,
    copies: Vec<Copy>,
}

/// A copy of a data directory.
#[derive(Clone)]
struct Copy {
    boot: u32,
    disk: Image,
}

impl TestReplica {
    pub fn new(node: u64) -> Self {
        let (node, wall) = (NodeId::new(node), WallMs(1_000_000));
        let actors = ActorsSince { boot: 0, drawn: 0 };
        let (replica, disk, before) = (replica(node, 0, actors), Image::default(), Image::default());
        let mut new = Self { node, boot: 0, boots: 0, actors, wall, replica, disk, before, copies: Vec::new() };
        new.restart();
        new
    }

    /// An orderly stop, and a new boot whose peers confirm that no other boot had its number.
    pub fn restart(&mut self) {
        self.boot += 1;
        self.boots += 1;
        self.replica = replica(self.node, self.boot, self.actors);
    }

    /// A new boot that cannot trust what its directory holds.
    pub fn restart_unsure(&mut self) {
        self.actors = ActorsSince { boot: self.boot + 1, drawn: self.boots };
        self.restart();
    }

    /// Copies its directory while it runs.
    pub fn copy(&mut self) {
        let Self { boot, ref disk, .. } = *self;
        self.copies.push(Copy { boot, disk: disk.clone() });
    }

    /// Replaces its directory with one of the copies, or with an empty one, and starts it.
    pub fn put_back(&mut self, copy: usize) {
        let first = Copy { boot: 0, disk: Image::default() };
        let place = copy % (self.copies.len() + 1);
        let Copy { boot, disk } = self.copies.get(place).cloned().unwrap_or(first);
        (self.boot, self.disk) = (boot, disk);
        self.before = self.disk.clone();
        self.restart_unsure();
    }

    /// Loses the last write.
    pub fn roll_back(&mut self) {
        self.disk = self.before.clone();
    }

    /// Sets the wall clock.
    pub fn set_wall(&mut self, wall: WallMs) {
        self.wall = wall;
    }

    /// The record as it is stored.
    pub fn stored(&mut self) -> &mut Bytes {
        self.disk.records.get_mut(&key().storage_key()).expect("a record")
    }

    /// Loses the record.
    pub fn lose(&mut self) {
        self.disk.records.clear();
    }

    pub fn record(&self) -> Record {
        let storage_key = key().storage_key();
        let stored = self.disk.records.get(&storage_key);
        stored.map(|bytes| Record::decode(bytes, &storage_key).expect("a sound record")).unwrap_or_default()
    }

    pub fn state(&self) -> State {
        self.record().state
    }

    pub fn merge(&mut self, state: &State) {
        let (state, confirm) = (state.clone(), Confirm::Stored);
        let request =
            ReplicaRequest::Merge { key: key(), state, epoch: Epoch(1), heals: None, confirm, stands_in_for: None };
        let mut out = Outbox::default();
        self.replica.take_request(self.now(), Caller::Local(REQUEST_ID), request, &mut out);
        self.finish(out);
    }

    /// Carries out a write. Returns its dot and timestamp, unless a later write has already replaced it.
    pub fn write(&mut self, write: &Write) -> Option<(Dot, Hlc)> {
        self.mint(write).expect("the store never fails").made
    }

    pub fn mint(&mut self, write: &Write) -> Result<Minted, MintRefused> {
        let mint = Mint {
            key: key(),
            content: Content::untyped(write.value.clone()),
            expires: None,
            deadline: Instant(u64::MAX),
            write_id: write.id,
            seen: write.seen.clone(),
            covers_held: write.covers_held,
            stamp: Stamp::Here(None),
            base: None,
            stands_in_for: None,
        };
        let mut out = Outbox::default();
        self.replica.mint(self.now(), REQUEST_ID, mint, &mut out);
        match self.finish(out).pop() {
            Some(Done::Mint(_, result)) => result,
            other => panic!("a mint ends with a mint's end, not {other:?}"),
        }
    }

    fn now(&self) -> Now {
        Now { instant: Instant(1), wall: self.wall }
    }

    fn finish(&mut self, mut out: Outbox<ReplicaCalls>) -> Vec<Done> {
        while let Some((id, command)) = out.stores.pop() {
            let result = self.carry_out(command);
            self.replica.stored(self.now(), id, result, &mut out);
        }
        out.calls.done
    }

    fn carry_out(&mut self, command: StoreCommand) -> StoreResult {
        if let StoreCommand::Write { sync, .. } = &command {
            self.before = self.disk.clone();
            assert!(sync, "an acknowledged write is a synced one");
        }
        self.disk.execute(&command)
    }
}

fn replica(node: NodeId, boot: u32, actors: ActorsSince) -> Replica {
    let incarnation = Incarnation(node.get());
    let timing = Timing::default();
    let config = NodeConfig { node, incarnation, actors, seed: 1, timing, ..pair::config(1, boot, None) };
    let member = Member { id: node, ..Member::new("alone", incarnation) };
    let mut history = History::new();
    let partitions = Partitions::default();
    let found = ChangeKind::Bootstrap {
        cluster: CLUSTER,
        partitions,
        strategy: Strategy::Balanced,
        members: vec![member],
        name: String::new(),
    };
    history.record(Hlc::ZERO, node, found);
    let view = Arc::new(history.view().expect("a cluster"));
    let held = Arc::new(Holdings::new(Home { node, incarnation }, view, ShardId::ONLY, []));
    Replica::new(Minter::new(node, incarnation, boot, actors), HlcClock::new(), &config, held)
}
