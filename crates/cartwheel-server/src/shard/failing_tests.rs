//! A real node on a store that fails at its Nth command, carried out or not, and is opened again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::config::{Limits, NodeConfig, Timing};
use cartwheel_core::message::Envelope;
use cartwheel_core::message::client::{Consistency, Get, Operation, Outcome, Put, Refusal, Reply, Request};
use cartwheel_core::node::{Input, Node};
use cartwheel_core::value::dot::Since;
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::Content;
use cartwheel_core::wire::context::ClusterKey;
use cartwheel_storage::{Batch, Committer, Durability, IndexScan, MemoryStore, Scan, Store, StoreError};
use tokio::sync::oneshot;

use super::commit_thread::CommitThread;
use super::disk::Disk;
use super::load::Load;
use super::reserve::{Reserve, ReserveOptions, Space};
use super::turn::Turns;
use super::{NodeId, Outgoing, ShardReadiness};
use crate::lifecycle::bootstrap::{self, Ports};
use crate::os::clock::Clock;

/// How the command fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failing {
    /// A commit fails and was not carried out.
    CommitLost,
    /// A commit fails though it was carried out.
    CommitDone,
    /// The engine stops by itself before a commit.
    Stopped,
    /// A read fails.
    Read,
}

/// The disk's contents, and when it fails.
#[derive(Clone)]
struct Medium {
    inner: Arc<Mutex<MemoryStore>>,
    failing: Failing,
    /// Commands until the failure.
    left: Arc<AtomicU64>,
    /// How many attempts to open it fail.
    openings: Arc<AtomicU64>,
}

impl Medium {
    /// Whether this command fails.
    fn fails(&self) -> bool {
        let count_down = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down) == Ok(1)
    }

    fn broken() -> StoreError {
        StoreError::Journal { dir: "here".into(), source: std::io::Error::other("broken on purpose") }
    }
}

struct FailingStore(Medium);

impl Store for FailingStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if self.0.failing == Failing::Read && self.0.fails() {
            return Err(Medium::broken());
        }
        self.0.inner.lock().unwrap().get(key)
    }

    fn scan(&self, _start: &[u8], _end: Option<&[u8]>) -> Scan<'_> {
        Box::new(std::iter::empty())
    }

    fn scan_index(&self, _start: &[u8], _end: &[u8]) -> IndexScan<'_> {
        Box::new(std::iter::empty())
    }

    fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.inner.lock().unwrap().get_meta(name)
    }

    fn committer(&self) -> Option<Box<dyn Committer>> {
        Some(Box::new(self.0.clone()))
    }

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        Committer::commit(&mut self.0, batch, durability)
    }
}

impl Committer for Medium {
    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        if self.failing != Failing::Read && self.fails() {
            if self.failing == Failing::CommitDone {
                self.inner.lock().unwrap().commit(batch, durability)?;
            }
            return Err(if self.failing == Failing::Stopped { StoreError::Poisoned } else { Self::broken() });
        }
        self.inner.lock().unwrap().commit(batch, durability)
    }
}

/// Which thread commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Commits {
    Itself,
    OnThread,
}

struct NoPeers;

impl Outgoing for NoPeers {
    fn send(&mut self, _to: NodeId, _messages: &[Envelope], _: Option<crate::data_dir::lineage::Mark>) {}
}

/// A cluster of one node.
fn node(record_cache_bytes: usize) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let nodes = bootstrap::open_or_bootstrap(&dir.path().join("d"), Some(1), None, Ports::default()).unwrap();
    let identity = crate::data_dir::read_identity(&nodes[0].dir).unwrap();
    let data_dir = crate::data_dir::DataDir::open(&nodes[0].dir).unwrap();
    let history = bootstrap::history_of(&identity, &data_dir.history_file(), dir.path()).unwrap();
    let view = Arc::new(history.view().unwrap());
    let config = NodeConfig {
        cluster: identity.cluster,
        cluster_key: ClusterKey::derive(b"test"),
        node: nodes[0].member.id,
        incarnation: identity.incarnation,
        boot: 1,
        shard_id: cartwheel_core::cluster::shard_id::ShardId::ONLY,
        partition_states: Vec::new(),
        losses: cartwheel_core::store::loss_book::LossBook::default(),
        loss_floor: Since(0),
        durability: cartwheel_core::cluster::membership::Durability::Fsync,
        actors: cartwheel_core::store::record::ActorsSince { boot: 1, drawn: 1 },
        seed: 1,
        timing: Timing::default(),
        limits: Limits { record_cache_bytes, ..Limits::default() },
        epoch: Epoch::FIRST,
        all_speak: cartwheel_core::wire::Protocol::NEWEST,
        broken: Default::default(),
    };
    Node::new(config, view)
}

fn key(number: u64) -> Key {
    Key::new(Bytes::from_static(b"b"), Bytes::from(format!("k{number}"))).unwrap()
}

fn put(number: u64, value: &Bytes) -> Operation {
    Operation::Put(Put { w: Some(1), ..Put::blind(key(number), Content::untyped(value.clone())) })
}

fn get(number: u64) -> Operation {
    Operation::Get(Get {
        key: key(number),
        consistency: Consistency::Eventual,
        r: Some(1),
        seen: None,
        wants_context: true,
    })
}

/// Runs all requests in one turn, and returns their outcomes.
fn run_turn(turns: &mut Turns<Node, NoPeers>, operations: Vec<Operation>) -> Vec<Outcome> {
    let run_turn = |operation| {
        let (reply, outcome) = oneshot::channel();
        turns.add_request(
            Request { operation, timeout: Duration::from_secs(1) },
            (reply, Load::default().begin(None)),
            Duration::ZERO,
            None,
        );
        outcome
    };
    let mut outcomes: Vec<_> = operations.into_iter().map(run_turn).collect();
    let begun = std::time::Instant::now();
    turns.take();
    // A failed request here waits for its retry.
    outcomes
        .iter_mut()
        .map(|outcome| {
            loop {
                match outcome.try_recv() {
                    Ok(outcome) => return outcome,
                    Err(_) => {
                        assert!(begun.elapsed() < Duration::from_secs(20), "a request was not answered");
                        std::thread::sleep(Duration::from_millis(5));
                        turns.add(Input::Tick);
                        turns.take();
                    }
                }
            }
        })
        .collect()
}

fn wait_until_ready(turns: &mut Turns<Node, NoPeers>) {
    let begun = std::time::Instant::now();
    while turns.readiness() != ShardReadiness::Ready {
        assert!(begun.elapsed() < Duration::from_secs(20), "the shard stays {:?}", turns.readiness());
        std::thread::sleep(Duration::from_millis(5));
        turns.add(Input::Tick);
        turns.take();
    }
}

fn turns_on(medium: &Medium, commits: Commits) -> Turns<Node, NoPeers> {
    let again = medium.clone();
    let reopen = move || {
        let count_down = |left: u64| left.checked_sub(1);
        match again.openings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down) {
            Ok(_) => Err("not yet".into()),
            Err(_) => Ok(Box::new(FailingStore(again.clone())) as Box<dyn Store>),
        }
    };
    let disk = Disk::new(Box::new(FailingStore(medium.clone())), Box::new(reopen), Reserve::none());
    let thread = (commits == Commits::OnThread).then(|| CommitThread::start(0, disk.shared_committer()).unwrap());
    // Without a cache, so that there are reads to fail.
    let cache_bytes = if medium.failing == Failing::Read { 0 } else { 1 << 20 };
    Turns::new(node(cache_bytes), disk, NoPeers, Clock::start()).without_time_limit().with_commit_thread(thread)
}

/// The values under key `number`.
fn values(turns: &mut Turns<Node, NoPeers>, number: u64) -> BTreeSet<Bytes> {
    let outcome = run_turn(turns, vec![get(number)]).remove(0);
    let Ok(Reply::Got(got)) = outcome else { panic!("k{number}: {outcome:?}") };
    let value = |sibling: cartwheel_core::value::state::Sibling| match sibling.content {
        Content::Value { bytes, .. } => bytes,
        Content::Tombstone => panic!("the test deletes nothing"),
    };
    got.siblings.into_iter().map(value).collect()
}

fn survives(failing: Failing, at: u64, commits: Commits) {
    let medium = Medium {
        inner: Arc::default(),
        failing,
        left: Arc::new(AtomicU64::new(at)),
        openings: Arc::new(AtomicU64::new(1)),
    };
    let mut turns = turns_on(&medium, commits);
    turns.add(Input::Tick);
    turns.take();
    wait_until_ready(&mut turns);
    let (mut stored, mut unknown) = (BTreeMap::<u64, BTreeSet<Bytes>>::new(), BTreeMap::<u64, BTreeSet<Bytes>>::new());
    let mut failures = 0;
    for turn in 0..12_u64 {
        let of_turn: Vec<(u64, Bytes)> =
            (0..3).map(|place| ((turn + place) % 5, Bytes::from(format!("turn {turn} place {place}")))).collect();
        let outcomes = run_turn(&mut turns, of_turn.iter().map(|(number, value)| put(*number, value)).collect());
        let all = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(
            failing == Failing::Read || all == 0 || all == 3,
            "{failing:?} at {at}: a batch fell apart: {outcomes:?}"
        );
        for ((number, value), outcome) in of_turn.into_iter().zip(outcomes) {
            let known = if outcome.is_ok() { &mut stored } else { &mut unknown };
            known.entry(number).or_default().insert(value);
            failures += usize::from(outcome.is_err());
        }
        if turns.readiness() == ShardReadiness::StoreFailed && failing != Failing::Stopped {
            let refused = run_turn(&mut turns, vec![get(0)]).remove(0);
            assert!(
                matches!(refused, Err(Refusal::Unavailable(_) | Refusal::Unverified(_))),
                "{refused:?} of a closed store"
            );
        }
        wait_until_ready(&mut turns);
    }
    assert!(at > 12 || failures > 0, "{failing:?} at {at}: nothing failed");
    for number in 0..5 {
        // The failure may still come, at a read.
        let held = if failing == Failing::Read && failures == 0 { continue } else { values(&mut turns, number) };
        let (stored, unknown) =
            (stored.remove(&number).unwrap_or_default(), unknown.remove(&number).unwrap_or_default());
        assert!(held.is_superset(&stored), "{failing:?} at {at}: k{number} lost {:?}", stored.difference(&held));
        let unexpected: Vec<_> =
            held.iter().filter(|value| !stored.contains(*value) && !unknown.contains(*value)).collect();
        assert!(unexpected.is_empty(), "{failing:?} at {at}: k{number} holds {unexpected:?}");
    }
}

/// Each turn has one commit.
#[test]
fn a_failing_store_loses_nothing_acknowledged() {
    for failing in [Failing::CommitLost, Failing::CommitDone, Failing::Stopped, Failing::Read] {
        for at in [2, 3, 7, 11] {
            survives(failing, at, Commits::Itself);
            survives(failing, at, Commits::OnThread);
        }
    }
}

#[test]
fn a_store_that_stopped_by_itself_can_be_read() {
    let (left, openings) = (Arc::new(AtomicU64::new(2)), Arc::new(AtomicU64::new(u64::MAX)));
    let medium = Medium { inner: Arc::default(), failing: Failing::Stopped, left, openings };
    let mut turns = turns_on(&medium, Commits::OnThread);
    turns.add(Input::Tick);
    turns.take();
    wait_until_ready(&mut turns);
    let value = Bytes::from_static(b"a");
    assert!(run_turn(&mut turns, vec![put(1, &value)])[0].is_ok());
    assert!(run_turn(&mut turns, vec![put(1, &Bytes::from_static(b"b"))])[0].is_err());
    assert_eq!(turns.readiness(), ShardReadiness::StoreFailed);
    assert_eq!(values(&mut turns, 1), BTreeSet::from([value]));
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads_and_takes_writes_again() {
    let free = Arc::new(AtomicU64::new(1_000 << 20));
    let seen = free.clone();
    let probe = move || Ok(Space { free: seen.load(Ordering::Relaxed), total: 1_000 << 20 });
    let options = ReserveOptions { bytes: 50 << 20, percent_max: 10, shares: 1 };
    let reserve = Reserve::new("here".to_owned(), options, Box::new(probe));
    let reopen = || Err("it never failed".into());
    let disk = Disk::new(Box::<MemoryStore>::default(), Box::new(reopen), reserve);
    let mut turns = Turns::new(node(1 << 20), disk, NoPeers, Clock::start());
    turns.add(Input::Tick);
    turns.take();
    wait_until_ready(&mut turns);
    let (first, second, third) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"), Bytes::from_static(b"3"));
    assert!(run_turn(&mut turns, vec![put(1, &first)])[0].is_ok());
    free.store(50 << 20, Ordering::Relaxed);
    let begun = std::time::Instant::now();
    let mut stored = BTreeSet::from([first]);
    // The last check of the disk counts for a moment.
    for number in 0.. {
        assert!(begun.elapsed() < Duration::from_secs(20), "the disk never counts as full");
        let value = Bytes::from(format!("on {number}"));
        match run_turn(&mut turns, vec![put(1, &value)]).remove(0) {
            Ok(_) => drop(stored.insert(value)),
            refused => {
                assert_eq!(refused, Err(Refusal::DiskFull));
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(turns.readiness(), ShardReadiness::DiskFull);
    assert_eq!(values(&mut turns, 1), stored);
    let mixed = run_turn(&mut turns, vec![put(1, &second), get(1)]);
    assert_eq!(mixed[0], Err(Refusal::DiskFull));
    assert!(mixed[1].is_ok(), "a read beside a refused write");
    free.store(100 << 20, Ordering::Relaxed);
    // The shard notices by itself.
    wait_until_ready(&mut turns);
    assert!(run_turn(&mut turns, vec![put(1, &third)])[0].is_ok());
    stored.insert(third);
    assert_eq!(values(&mut turns, 1), stored);
}
