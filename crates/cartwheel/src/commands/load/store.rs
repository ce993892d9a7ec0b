//! Stores records concurrently, and records of one key in the order of the file.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cartwheel_client::{Client, Context, Error as ClientError, Options, Value};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::terminal::exit::{Exit, ToExit as _};

use super::progress::{Checkpoint, Progress, RecordIndex, RecordOutcome};
use super::record::{Exported, Item, RECORD_BYTES_MAX, Record, Start};
use super::source::Source;
use super::state::Identity;
use super::{LoadArgs, LoadError};

/// The maximum number of records that wait for one worker.
const QUEUE_MAX: usize = 16;
/// The maximum size of all waiting records, in KiB.
const WAITING_KB_MAX: u32 = 64 << 10;
const KB: u64 = 1 << 10;
/// The first and the longest wait before a record is retried.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The maximum number of reads for one record: a key is read again if its context was refused.
const READS_MAX: u32 = 3;
/// The error code for a value over the limit of its bucket.
const TOO_LARGE: &str = "too_large";
/// The maximum number of bad records to show; all are counted.
pub(super) const BAD_SHOWN_MAX: usize = 10;

/// A running load.
pub(super) struct Store {
    client: Client,
    bucket: String,
    blind: bool,
    skip_bad: bool,
    patience: Duration,
    identity: Identity,
    /// A random number of this run.
    drawn: u64,
    /// The number of siblings that were given an idempotency key.
    siblings: AtomicU64,
    progress: Mutex<Progress>,
    bad: Mutex<Vec<BadRecord>>,
    failure: Mutex<Option<RecordFailure>>,
    stop: CancellationToken,
    retries: AtomicU64,
    bytes: AtomicU64,
}

/// A bad record, which was skipped.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub(super) struct BadRecord {
    pub(super) line: u64,
    pub(super) why: String,
}

/// The record that stopped a load, and the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RecordFailure {
    pub(super) line: u64,
    pub(super) why: String,
    pub(super) exit: Exit,
}

struct Job {
    line: u64,
    end: u64,
    record: Record,
    index: RecordIndex,
    /// The record's part of [`WAITING_KB_MAX`].
    _memory: OwnedSemaphorePermit,
}

impl Store {
    pub(super) fn new(args: &LoadArgs, identity: Identity, checkpoint: Checkpoint) -> Result<Self, LoadError> {
        Ok(Self {
            client: args.endpoints.client()?,
            bucket: args.bucket.clone(),
            blind: args.blind,
            skip_bad: args.skip_bad,
            patience: Duration::from_secs(args.patience),
            identity,
            drawn: getrandom::u64()?,
            siblings: AtomicU64::new(0),
            progress: Mutex::new(Progress::from(checkpoint)),
            bad: Mutex::default(),
            failure: Mutex::default(),
            stop: CancellationToken::new(),
            retries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// Stores the records of `source`, at most `workers` at the same time, until the source ends, a record fails, or the load is stopped.
    ///
    /// # Errors
    /// If the source cannot be read.
    pub(super) async fn run(self: &Arc<Self>, source: Source, workers: usize) -> Result<(), LoadError> {
        // With all members known, the load survives the loss of the given nodes. A failure here is harmless: a node may answer later.
        let _ = self.client.learn_members().await;
        let mut tasks = JoinSet::new();
        let mut senders = Vec::with_capacity(workers);
        for _ in 0..workers {
            let (sender, jobs) = mpsc::channel(QUEUE_MAX);
            senders.push(sender);
            let store = self.clone();
            tasks.spawn(async move { store.run_worker(jobs).await });
        }
        let (store, runtime) = (self.clone(), Handle::current());
        let (ended, read) = oneshot::channel();
        let body = move || drop(ended.send(store.read(source, &senders, &runtime)));
        let reader = std::thread::Builder::new().name("load".to_owned()).spawn(body);
        reader.map_err(|error| LoadError::Io("start a thread", error))?;
        let read = tokio::select! {
            read = read => read.map_err(|_| LoadError::Panicked)?.map_err(LoadError::ReadOn),
            // The reader may block on standard input without end, so a stopped load does not wait for it.
            () = self.stop.cancelled() => Ok(()),
        };
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|_| LoadError::Panicked)?;
        }
        read
    }

    /// Stops the load after the records in progress.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The position before which all records are done.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        lock(&self.progress).checkpoint()
    }

    pub(super) fn failure(&self) -> Option<RecordFailure> {
        lock(&self.failure).clone()
    }

    /// The first bad records.
    pub(super) fn bad(&self) -> Vec<BadRecord> {
        lock(&self.bad).clone()
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The bytes of values stored so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads the source and distributes its records to the workers. All records of a key go to one worker, which keeps their order.
    fn read(&self, mut source: Source, workers: &[mpsc::Sender<Job>], runtime: &Handle) -> std::io::Result<()> {
        let memory = Arc::new(Semaphore::new(WAITING_KB_MAX as usize));
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        while !self.is_stopped() {
            let Some(Item { line, next_line, end, record }) = source.next()? else { break };
            let index = lock(&self.progress).begin(Start { offset: end, line: next_line });
            match record {
                Err(why) if self.skip_bad => self.skip(BadRecord { line, why }, index),
                Err(why) => {
                    // The records before the bad one are still stored.
                    self.note_failure(RecordFailure { line, why, exit: Exit::Refused });
                    break;
                }
                Ok(record) => {
                    let kb = (record.value.len() as u64).div_ceil(KB).clamp(1, RECORD_BYTES_MAX / KB);
                    let Ok(memory) = runtime.block_on(memory.clone().acquire_many_owned(kb as u32)) else { break };
                    let worker = hasher.hash_one(&record.key) % workers.len() as u64;
                    let job = Job { line, end, record, index, _memory: memory };
                    if workers[worker as usize].blocking_send(job).is_err() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    async fn run_worker(&self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            let job = tokio::select! {
                biased;
                // The next run stores the records that still wait when the load stops.
                () = self.stop.cancelled() => return,
                job = jobs.recv() => job,
            };
            let Some(job) = job else { return };
            let bytes = job.record.value.len() as u64;
            match self.store(job.record, job.end).await {
                Ok(()) => {
                    self.bytes.fetch_add(bytes, Ordering::Relaxed);
                    lock(&self.progress).end(job.index, RecordOutcome::Stored);
                }
                Err(ClientError::Refused { code, message }) if self.skip_bad && code == TOO_LARGE => {
                    self.skip(BadRecord { line: job.line, why: format!("{message} ({code})") }, job.index);
                }
                Err(error) => self.fail(RecordFailure { line: job.line, why: error.to_string(), exit: error.exit() }),
            }
        }
    }

    /// Stores a record. All attempts use the same idempotency key and the same context: an attempt that seems to have failed may have
    /// succeeded, and the next one must not become its sibling.
    async fn store(&self, record: Record, end: u64) -> Result<(), ClientError> {
        let Record { key, value, content_type, exported } = record;
        let Exported { content_encoding, ttl, siblings } = exported;
        let value = Value { content_encoding, ttl, ..Value::new(value, content_type) };
        let options = Options { idempotency_key: Some(self.identity.idempotency_key(end)), ..Options::default() };
        let mut tries = Tries::new(self.patience);
        let mut seen = self.read_key(&key, &mut tries).await?;
        let mut reads = 1;
        loop {
            match self.client.put_with(&self.bucket, &key, value.clone(), seen.as_ref(), &options).await {
                Ok(_) => break,
                Err(ClientError::Refused { code, .. }) if code == "bad_context" && reads < READS_MAX => {
                    seen = self.read_key(&key, &mut tries).await?;
                    reads += 1;
                }
                Err(error) => self.pause(&mut tries, error).await?,
            }
        }
        for sibling in siblings {
            self.add_sibling(&key, sibling, &mut tries).await?;
        }
        Ok(())
    }

    /// Adds a value to those of a key.
    async fn add_sibling(&self, key: &[u8], value: Value, tries: &mut Tries) -> Result<(), ClientError> {
        // Not the key that another run of this load would use: by then the first value has replaced this one, and the cluster would take the write
        // for done.
        let number = self.siblings.fetch_add(1, Ordering::Relaxed);
        let idempotency_key = Some(format!("{:016x}-{number}", self.drawn));
        let options = Options { idempotency_key, ..Options::default() };
        loop {
            match self.client.put_with(&self.bucket, key, value.clone(), None, &options).await {
                Ok(_) => return Ok(()),
                Err(error) => self.pause(tries, error).await?,
            }
        }
    }

    /// Reads the context of the key's current values; none for a blind load.
    async fn read_key(&self, key: &[u8], tries: &mut Tries) -> Result<Option<Context>, ClientError> {
        if self.blind {
            return Ok(None);
        }
        loop {
            match self.client.get(&self.bucket, key).await {
                Ok(found) => return Ok(found.context),
                Err(error) => self.pause(tries, error).await?,
            }
        }
    }

    /// Waits before the next attempt. Returns the error if a retry cannot help, the load is stopped, or the time for retries is over.
    async fn pause(&self, tries: &mut Tries, error: ClientError) -> Result<(), ClientError> {
        let is_temporary = matches!(error, ClientError::Unavailable { .. });
        if !is_temporary || self.is_stopped() || tries.begun.elapsed() > tries.patience {
            return Err(error);
        }
        self.retries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(tries.backoff).await;
        tries.backoff = (tries.backoff * 2).min(BACKOFF_MAX);
        Ok(())
    }

    fn skip(&self, bad: BadRecord, index: RecordIndex) {
        let mut shown = lock(&self.bad);
        if shown.len() < BAD_SHOWN_MAX {
            shown.push(bad);
        }
        lock(&self.progress).end(index, RecordOutcome::Skipped);
    }

    /// Notes a record that cannot be stored, and stops the load.
    fn fail(&self, failure: RecordFailure) {
        self.note_failure(failure);
        self.stop();
    }

    /// Keeps the failure with the lowest line.
    fn note_failure(&self, failure: RecordFailure) {
        let mut first = lock(&self.failure);
        if first.as_ref().is_none_or(|known| failure.line < known.line) {
            *first = Some(failure);
        }
    }
}

/// The attempts at one record.
struct Tries {
    begun: Instant,
    patience: Duration,
    backoff: Duration,
}

impl Tries {
    fn new(patience: Duration) -> Self {
        Self { begun: Instant::now(), patience, backoff: BACKOFF_MIN }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
