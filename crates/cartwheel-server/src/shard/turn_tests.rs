use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cartwheel_core::message::client::{Acks, Consistency, Get, Got, Operation, Reply};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::time::Now;
use cartwheel_storage::{Batch, Committer, IndexScan, MemoryStore, Scan, Store, StoreError};

use super::*;
use crate::shard::load::Load;

/// What happened, in order.
type Diary = Arc<Mutex<Vec<String>>>;

/// A machine that runs a test's closure.
struct Script<F>(F);

impl<F: FnMut(Input) -> Effects + Send + 'static> Machine for Script<F> {
    fn step(&mut self, _now: Now, input: Input) -> Effects {
        self.0(input)
    }
}

/// A store that records its commands and fails its first commits.
struct DiaryStore {
    diary: Diary,
    inner: MemoryStore,
    failures: u32,
}

impl Store for DiaryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.diary.lock().unwrap().push("get".to_owned());
        self.inner.get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>) -> Scan<'_> {
        self.inner.scan(start, end)
    }

    fn scan_index(&self, start: &[u8], end: &[u8]) -> IndexScan<'_> {
        self.inner.scan_index(start, end)
    }

    fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get_meta(name)
    }

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        if self.failures > 0 {
            self.failures -= 1;
            self.diary.lock().unwrap().push("commit fails".to_owned());
            return Err(broken());
        }
        self.diary.lock().unwrap().push(format!("commit {durability:?}"));
        self.inner.commit(batch, durability)
    }
}

fn broken() -> StoreError {
    StoreError::Journal { dir: "here".into(), source: std::io::Error::other("broken") }
}

struct DiaryOutgoing(Diary);

impl Outgoing for DiaryOutgoing {
    fn send(&mut self, to: NodeId, messages: &[Envelope], _: Option<crate::data_dir::lineage::Mark>) {
        self.0.lock().unwrap().push(format!("send {} to {}", messages.len(), to.get()));
    }
}

fn turns<F>(diary: &Diary, failures: u32, script: F) -> Turns<Script<F>, DiaryOutgoing>
where
    F: FnMut(Input) -> Effects + Send + 'static,
{
    let store = DiaryStore { diary: diary.clone(), inner: MemoryStore::default(), failures };
    Turns::new(Script(script), Disk::of_memory(Box::new(store)), DiaryOutgoing(diary.clone()), Clock::start())
}

fn request() -> Request {
    let key = Key::new(Bytes::from_static(b"b"), Bytes::from_static(b"k")).unwrap();
    let get = Get { key, consistency: Consistency::Eventual, r: None, seen: None, wants_context: true };
    Request { operation: Operation::Get(get), timeout: Duration::from_secs(1) }
}

fn write(key: &'static [u8], sync: bool) -> StoreCommand {
    StoreCommand::Write {
        storage_key: Bytes::from_static(key),
        record: Some(Bytes::from_static(b"new")),
        index: Vec::new(),
        sync,
    }
}

fn got() -> Outcome {
    Ok(Reply::Got(Got { siblings: Vec::new(), context: None, acks: Acks::default() }))
}

/// Writes once for each client and replies when the write is done.
fn write_then_reply() -> impl FnMut(Input) -> Effects + Send + 'static {
    let mut effects_of = BTreeMap::new();
    move |input| match input {
        Input::Client(client, _) => {
            let store = StoreId(client.0 * 10);
            effects_of.insert(store, client);
            Effects { stores: vec![(store, write(b"k", true))], ..Effects::default() }
        }
        Input::Stored(store, StoreResult::Written(written)) => {
            let outcome =
                if written.is_ok() { got() } else { Err(cartwheel_core::message::client::Refusal::Overloaded) };
            Effects { replies: vec![(effects_of[&store], outcome)], ..Effects::default() }
        }
        _ => Effects::default(),
    }
}

#[test]
fn one_sync_serves_a_whole_turn_and_precedes_its_replies() {
    let diary = Diary::default();
    let mut turns = turns(&diary, 0, write_then_reply());
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        let (reply, outcome) = oneshot::channel();
        turns.add_request(request(), (reply, Load::default().begin(None)), Duration::ZERO, None);
        outcomes.push(outcome);
    }
    turns.take();
    assert_eq!(*diary.lock().unwrap(), ["commit Synced"]);
    for mut outcome in outcomes {
        assert_eq!(outcome.try_recv().unwrap(), got());
    }
}

#[test]
fn after_a_failed_commit_requests_fail_until_the_store_is_reopened() {
    let diary = Diary::default();
    let mut turns = turns(&diary, 1, write_then_reply());
    let mut run_turn = || {
        let (reply, outcome) = oneshot::channel();
        turns.add_request(request(), (reply, Load::default().begin(None)), Duration::ZERO, None);
        let (second_reply, second) = oneshot::channel();
        turns.add_request(request(), (second_reply, Load::default().begin(None)), Duration::ZERO, None);
        turns.take();
        [outcome, second].map(|mut outcome| outcome.try_recv().unwrap().is_ok())
    };
    assert_eq!(run_turn(), [false, false], "both writes were in the batch");
    // The store would accept writes now, but only its recovery shows whether it holds the failed ones.
    assert_eq!(run_turn(), [false, false]);
    assert_eq!(turns.readiness(), ShardReadiness::StoreFailed);
    assert_eq!(*diary.lock().unwrap(), ["commit fails"]);
}

#[test]
fn a_read_sees_the_write_before_it() {
    let diary = Diary::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let mut turns = turns(&diary, 0, move |input| match input {
        Input::Tick => {
            let read = StoreCommand::Read { storage_key: Bytes::from_static(b"k") };
            let other = StoreCommand::Read { storage_key: Bytes::from_static(b"other") };
            let stores = vec![(StoreId(1), write(b"k", false)), (StoreId(2), other), (StoreId(3), read)];
            Effects { stores, ..Effects::default() }
        }
        Input::Stored(id, result) => {
            noted.lock().unwrap().push((id.0, result));
            Effects::default()
        }
        _ => Effects::default(),
    });
    turns.add(Input::Tick);
    turns.take();
    let new = Some(Bytes::from_static(b"new"));
    assert_eq!(
        *seen.lock().unwrap(),
        [(2, StoreResult::Read(Ok(None))), (1, StoreResult::Written(Ok(()))), (3, StoreResult::Read(Ok(new))),]
    );
    // The first unsynced commit of a boot is synced after all, with the mark for unsynced writes.
    assert_eq!(*diary.lock().unwrap(), ["get", "commit Synced", "get"], "only a read of the written key waits for it");
}

/// A message.
fn response() -> Envelope {
    Envelope {
        cluster: cartwheel_core::value::cluster_id::ClusterId(1),
        from: NodeId::new(1),
        from_incarnation: cartwheel_core::value::dot::Incarnation(1),
        from_boot: 1,
        sent: Now { wall: cartwheel_core::value::hlc::WallMs(0), ..Now::default() },
        config_stamp: cartwheel_core::cluster::configuration::ConfigStamp::default(),
        losses: cartwheel_core::cluster::losses::Losses::NONE,
        trace: None,
        message: cartwheel_core::message::Message::Response(
            cartwheel_core::message::RequestId {
                requester: cartwheel_core::message::Requester::Coordinator,
                operation: 1,
                round: 1,
            },
            cartwheel_core::message::ReplicaResponse::Stored,
        ),
    }
}

#[test]
fn messages_that_need_no_disk_do_not_wait_for_it() {
    let diary = Diary::default();
    let envelope = response();
    let mut turns = turns(&diary, 0, move |input| match input {
        Input::Tick => Effects {
            sends: vec![(NodeId::new(7), envelope.clone()), (NodeId::new(7), envelope.clone())],
            stores: vec![(StoreId(1), StoreCommand::Remember { name: "mark".into(), value: "9".into() })],
            ..Effects::default()
        },
        Input::Stored(..) => Effects { sends: vec![(NodeId::new(8), envelope.clone())], ..Effects::default() },
        _ => Effects::default(),
    });
    turns.add(Input::Tick);
    turns.take();
    assert_eq!(*diary.lock().unwrap(), ["send 2 to 7", "commit Synced", "send 1 to 8"]);
    let store = turns.disk.open_store().unwrap();
    assert_eq!(store.get_meta(&super::remembered(b"mark")).unwrap().unwrap(), "9");
}

#[test]
fn a_request_whose_client_has_stopped_waiting_is_not_begun() {
    let diary = Diary::default();
    let mut turns = turns(&diary, 0, |input| panic!("the request was begun: {input:?}"));
    let (reply, mut outcome) = oneshot::channel();
    turns.add_request(request(), (reply, Load::default().begin(None)), Duration::from_secs(1), None);
    assert!(matches!(outcome.try_recv(), Ok(Err(Refusal::Overloaded))));
    turns.take();
}

#[test]
fn endless_work_does_not_keep_a_turn_from_ending() {
    let diary = Diary::default();
    let mut begun = 0;
    let mut turns = turns(&diary, 0, move |_| {
        begun += 1;
        let read = StoreCommand::Read { storage_key: Bytes::from_static(b"k") };
        Effects { stores: vec![(StoreId(begun), read)], ..Effects::default() }
    });
    turns.add(Input::Tick);
    turns.take();
    let first = diary.lock().unwrap().len();
    assert!(turns.has_more(), "the work goes on in the next turn");
    turns.take();
    assert!(diary.lock().unwrap().len() > first);
}

#[test]
fn small_inputs_pass_large_ones_which_come_one_per_turn() {
    let (diary, order) = (Diary::default(), Diary::default());
    let noted = order.clone();
    let mut turns = turns(&diary, 0, move |input| {
        if let Input::Message(message) = input {
            noted.lock().unwrap().push(format!("{}", message.from_boot));
        }
        Effects::default()
    });
    for (boot, bytes) in [(1, LARGE_BYTES), (2, LARGE_BYTES), (3, 10), (4, 10)] {
        turns.add_message(Envelope { from_boot: boot, ..response() }, bytes, None);
    }
    turns.take();
    assert_eq!(*order.lock().unwrap(), ["3", "4", "1"]);
    turns.add_message(Envelope { from_boot: 5, ..response() }, 10, None);
    turns.take();
    assert_eq!(*order.lock().unwrap(), ["3", "4", "1", "5", "2"]);
    assert!(!turns.has_more());
}

/// A machine that requests these records at each tick, and notes which it gets.
fn reading(keys: [Bytes; 4], seen: Arc<Mutex<Vec<u64>>>) -> impl FnMut(Input) -> Effects + Send + 'static {
    move |input| match input {
        Input::Tick => {
            let read = |(number, storage_key)| (StoreId(number), StoreCommand::Read { storage_key });
            Effects { stores: (0..).zip(keys.clone()).map(read).collect(), ..Effects::default() }
        }
        Input::Stored(id, StoreResult::Read(Ok(Some(_)))) => {
            seen.lock().unwrap().push(id.0);
            Effects::default()
        }
        _ => Effects::default(),
    }
}

fn large_and_small() -> ([Bytes; 4], Batch) {
    let keys = [&b"large-1"[..], b"large-2", b"large-3", b"small"].map(Bytes::from_static);
    let mut batch = Batch::new();
    for key in keys.clone() {
        let bytes = if key.starts_with(b"large") { LARGE_BYTES } else { 10 };
        batch.put(key, Bytes::from(vec![0; bytes]));
    }
    (keys, batch)
}

#[test]
fn small_records_are_read_before_further_large_ones() {
    let (diary, seen, (keys, batch)) = (Diary::default(), Arc::default(), large_and_small());
    let mut turns = turns(&diary, 0, reading(keys, Arc::clone(&seen)));
    turns.disk.commit(batch, Durability::Os, Instant::default()).unwrap();
    turns.add(Input::Tick);
    turns.take();
    assert_eq!(*seen.lock().unwrap(), [0, 3, 1], "the size of the first record is unknown until it is read");
    turns.take();
    assert_eq!(*seen.lock().unwrap(), [0, 3, 1, 2]);
    assert!(!turns.has_more());
}

/// A reader that has every record, and returns it on request.
struct Slow(std::sync::mpsc::Receiver<()>);

impl cartwheel_storage::Reader for Slow {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.recv().unwrap();
        Ok(Some(vec![0; LARGE_BYTES].into()))
    }
}

#[test]
fn large_records_are_read_on_another_thread_one_at_a_time() {
    let (diary, seen, (keys, batch)) = (Diary::default(), Arc::default(), large_and_small());
    let ((proceed, waits), (report, reports)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let shared_reader = reader::SharedReader::default();
    shared_reader.open(Some(Box::new(Slow(waits))));
    let reader = ReaderThread::start(0, shared_reader, move |id, read| report.send((id, read)).unwrap());
    let mut turns = turns(&diary, 0, reading(keys, Arc::clone(&seen))).with_reader(reader);
    turns.disk.commit(batch, Durability::Os, Instant::default()).unwrap();
    turns.add(Input::Tick);
    turns.take();
    assert_eq!(*seen.lock().unwrap(), [0, 3], "the size of the first record was unknown");
    assert!(!turns.has_more() && reports.try_recv().is_err(), "the turn waits for the reader");
    proceed.send(()).unwrap();
    let (id, read) = reports.recv().unwrap();
    turns.has_read(id, read);
    turns.take();
    assert_eq!(*seen.lock().unwrap(), [0, 3, 1]);
    // Closing does not wait for the third record.
    turns.close();
    assert_eq!(*seen.lock().unwrap(), [0, 3, 1, 2]);
    assert_eq!(diary.lock().unwrap().iter().filter(|did| *did == "get").count(), 2 + 1 + 3, "and sizes were checked");
    proceed.send(()).unwrap();
}

/// A store to which another thread commits, as often as the test lets it.
#[derive(Clone)]
struct Gated {
    inner: Arc<Mutex<MemoryStore>>,
    /// Whether the next commit succeeds.
    gate: Arc<Mutex<std::sync::mpsc::Receiver<bool>>>,
    commits: Arc<Mutex<u32>>,
}

impl Store for Gated {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.lock().unwrap().get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>) -> Scan<'_> {
        let all: Vec<_> = self.inner.lock().unwrap().scan(start, end).collect();
        Box::new(all.into_iter())
    }

    fn scan_index(&self, _: &[u8], _: &[u8]) -> IndexScan<'_> {
        Box::new(std::iter::empty())
    }

    fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.lock().unwrap().get_meta(name)
    }

    fn committer(&self) -> Option<Box<dyn Committer>> {
        Some(Box::new(self.clone()))
    }

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.inner.lock().unwrap().commit(batch, durability)
    }
}

impl Committer for Gated {
    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        if !self.gate.lock().unwrap().recv().unwrap_or(true) {
            return Err(broken());
        }
        *self.commits.lock().unwrap() += 1;
        self.inner.lock().unwrap().commit(batch, durability)
    }
}

type BoxedScript = Box<dyn FnMut(Input) -> Effects + Send>;

/// Turns with a thread for commits: the machine requests the commands of `script` at its ticks, one list after the other.
struct OnThread {
    turns: Turns<Script<BoxedScript>, DiaryOutgoing>,
    gate: std::sync::mpsc::Sender<bool>,
    commits: Arc<Mutex<u32>>,
    ended: Arc<Mutex<Vec<(u64, StoreResult)>>>,
}

impl OnThread {
    fn new(script: Vec<Vec<(u64, StoreCommand)>>) -> Self {
        let (gate, waits) = std::sync::mpsc::channel();
        let (commits, ended) = (Arc::default(), Arc::new(Mutex::new(Vec::new())));
        let store = Gated { inner: Arc::default(), gate: Arc::new(Mutex::new(waits)), commits: Arc::clone(&commits) };
        let (mut script, noted) = (script.into_iter(), Arc::clone(&ended));
        let machine = move |input| match input {
            Input::Tick => {
                let stores = script.next().unwrap_or_default();
                let stores = stores.into_iter().map(|(id, command)| (StoreId(id), command)).collect();
                Effects { stores, ..Effects::default() }
            }
            Input::Stored(id, result) => {
                noted.lock().unwrap().push((id.0, result));
                Effects::default()
            }
            _ => Effects::default(),
        };
        let disk = Disk::of_memory(Box::new(store));
        let thread = CommitThread::start(0, disk.shared_committer());
        let machine: BoxedScript = Box::new(machine);
        let turns = Turns::new(Script(machine), disk, DiaryOutgoing(Diary::default()), Clock::start());
        Self { turns: turns.with_commit_thread(thread), gate, commits, ended }
    }

    /// Takes a turn with a tick, and returns what has ended in all.
    fn tick(&mut self) -> Vec<u64> {
        self.turns.add(Input::Tick);
        self.turns.take();
        self.ended()
    }

    fn ended(&self) -> Vec<u64> {
        self.ended.lock().unwrap().iter().map(|(id, _)| *id).collect()
    }

    fn result(&self, id: u64) -> StoreResult {
        self.ended.lock().unwrap().iter().find(|(ended, _)| *ended == id).unwrap().1.clone()
    }

    /// Lets one commit end, and takes turns until `count` commands have ended in all.
    fn commit(&mut self, succeeds: bool, count: usize) -> Vec<u64> {
        self.gate.send(succeeds).unwrap();
        let begun = std::time::Instant::now();
        while self.ended().len() < count {
            assert!(begun.elapsed() < Duration::from_secs(20), "only {:?} have ended", self.ended());
            std::thread::sleep(Duration::from_millis(1));
            self.turns.take();
        }
        self.ended()
    }
}

fn read(key: &'static [u8]) -> StoreCommand {
    StoreCommand::Read { storage_key: Bytes::from_static(key) }
}

fn scan() -> StoreCommand {
    let at_most = cartwheel_core::store::command::ScanLimit { records: 100, bytes: 1_000 };
    StoreCommand::Scan { from: Bytes::from_static(b"a"), upto: None, at_most }
}

#[test]
fn only_what_depends_on_a_commit_under_way_waits_for_it() {
    let mut it = OnThread::new(vec![
        vec![(1, write(b"k", true)), (2, read(b"other")), (3, read(b"k"))],
        vec![(4, write(b"l", true)), (5, read(b"k")), (6, read(b"l")), (7, read(b"other"))],
    ]);
    assert_eq!(it.tick(), [2]);
    assert_eq!(it.tick(), [2, 7]);
    assert_eq!(it.commit(true, 5), [2, 7, 1, 3, 5]);
    let new = StoreResult::Read(Ok(Some(Bytes::from_static(b"new"))));
    assert_eq!((it.result(3), it.result(5)), (new.clone(), new.clone()));
    assert_eq!(it.commit(true, 7), [2, 7, 1, 3, 5, 4, 6]);
    assert_eq!(it.result(6), new);
}

#[test]
fn a_scan_shows_all_earlier_writes_and_no_later_one() {
    let mut it = OnThread::new(vec![
        vec![(1, write(b"a", true))],
        vec![(2, write(b"b", true)), (3, scan()), (4, write(b"c", true)), (5, scan())],
        vec![(6, write(b"d", true))],
    ]);
    let shown = |it: &OnThread, id: u64| match it.result(id) {
        StoreResult::Scanned(Ok(scanned)) => scanned.records.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    (0..3).for_each(|_| assert!(it.tick().is_empty()));
    assert_eq!(it.commit(true, 1), [1]);
    assert_eq!(it.commit(true, 3), [1, 2, 3]);
    assert_eq!(shown(&it, 3), ["a", "b"]);
    assert_eq!(it.commit(true, 5), [1, 2, 3, 4, 5]);
    assert_eq!(shown(&it, 5), ["a", "b", "c"]);
    assert_eq!(it.commit(true, 6), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_read_that_waits_does_not_see_a_later_write_of_its_key() {
    let old = |record: &'static [u8]| StoreCommand::Write {
        storage_key: Bytes::from_static(b"k"),
        record: Some(Bytes::from_static(record)),
        index: Vec::new(),
        sync: true,
    };
    let mut it = OnThread::new(vec![
        vec![(1, write(b"j", true))],
        vec![(2, old(b"first")), (3, read(b"k")), (4, write(b"l", true)), (5, old(b"second"))],
    ]);
    (0..2).for_each(|_| assert!(it.tick().is_empty()));
    it.commit(true, 1);
    assert_eq!(it.commit(true, 4), [1, 2, 4, 3], "a write of another key shares the commit");
    assert_eq!(it.result(3), StoreResult::Read(Ok(Some(Bytes::from_static(b"first")))));
    assert_eq!(it.commit(true, 5), [1, 2, 4, 3, 5]);
}

#[test]
fn writes_gather_while_a_commit_is_under_way_and_share_the_next() {
    let keys: [&'static [u8]; 4] = [b"a", b"b", b"c", b"d"];
    let mut it = OnThread::new((1..).zip(keys).map(|(id, key)| vec![(id, write(key, true))]).collect());
    (0..4).for_each(|_| assert!(it.tick().is_empty()));
    assert_eq!(it.commit(true, 1), [1]);
    assert_eq!(it.commit(true, 4), [1, 2, 3, 4]);
    assert_eq!(*it.commits.lock().unwrap(), 2);
}

#[test]
fn a_commit_that_fails_on_the_thread_fails_what_waits_for_it() {
    let mut it = OnThread::new(vec![
        vec![(1, write(b"k", true)), (2, read(b"k"))],
        vec![(3, write(b"l", true)), (4, read(b"l"))],
        vec![(5, write(b"m", true))],
    ]);
    (0..2).for_each(|_| assert!(it.tick().is_empty()));
    let ended = it.commit(false, 4);
    assert_eq!(ended.len(), 4, "{ended:?}");
    for write in [1, 3] {
        assert_eq!(it.result(write), StoreResult::Written(Err(WriteFailed::Uncertain)));
    }
    for read in [2, 4] {
        assert_eq!(it.result(read), StoreResult::Read(Err(cartwheel_core::store::command::ReadFailed::Unreadable)));
    }
    assert_eq!(it.turns.readiness(), ShardReadiness::StoreFailed);
    it.tick();
    assert_eq!(it.result(5), StoreResult::Written(Err(WriteFailed::Uncertain)), "it is not begun");
    assert_eq!(*it.commits.lock().unwrap(), 0);
}

#[test]
fn closing_waits_for_the_commit_under_way_and_commits_the_rest() {
    let mut it = OnThread::new(vec![vec![(1, write(b"k", true))], vec![(2, write(b"l", false)), (3, read(b"l"))]]);
    (0..2).for_each(|_| assert!(it.tick().is_empty()));
    let gate = it.gate.clone();
    let opens = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        gate.send(true).unwrap();
    });
    it.turns.close();
    opens.join().unwrap();
    assert_eq!(it.ended(), [1, 2, 3]);
    assert_eq!(it.result(3), StoreResult::Read(Ok(Some(Bytes::from_static(b"new")))));
}
