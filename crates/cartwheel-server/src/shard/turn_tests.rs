use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cartwheel_core::message::client::{Acks, Consistency, Get, Got, Operation, Reply};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::time::Now;
use cartwheel_storage::{IndexScan, MemoryStore, Scan, Store, StoreError};

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
    fn send(&mut self, to: NodeId, messages: Vec<Envelope>, _: Option<crate::data_dir::lineage::Mark>) {
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
    let get = Get { key, consistency: Consistency::Eventual, r: None, seen: None };
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
        turns.add_request(request(), (reply, Load::default().begin()), Duration::ZERO);
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
        turns.add_request(request(), (reply, Load::default().begin()), Duration::ZERO);
        let (second_reply, second) = oneshot::channel();
        turns.add_request(request(), (second_reply, Load::default().begin()), Duration::ZERO);
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
    turns.add_request(request(), (reply, Load::default().begin()), Duration::from_secs(1));
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
    turns.write_out(batch, Durability::Os, Instant::default()).unwrap();
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
    turns.write_out(batch, Durability::Os, Instant::default()).unwrap();
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
