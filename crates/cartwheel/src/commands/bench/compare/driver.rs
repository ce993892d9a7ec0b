//! The closed loop of clients, the same for both stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::StoreClient;
use super::report::RunFigures;
use super::usage::Usage;
use crate::commands::bench::job::{AFTER_FAILURE, LATE, OperationError};
use crate::commands::bench::keys::{self, Keys};
use crate::commands::bench::local::LocalError;
use crate::commands::bench::stats::{Kind, Recorder};

/// The maximum number of attempts to store a key before the measurement.
const TRIES: u32 = 20;

/// The load of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) keys: Keys,
    pub(super) read_share: f64,
    pub(super) value_bytes: usize,
    /// The operations per second of an open loop; none for a closed loop.
    pub(super) rate: Option<u32>,
    pub(super) warmup: Duration,
    pub(super) length: Duration,
}

/// Writes every key below `keys` once.
///
/// # Errors
/// If a key cannot be stored.
pub(super) async fn fill(clients: Vec<StoreClient>, keys: u64, value_bytes: usize) -> Result<(), LocalError> {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::<Result<(), LocalError>>::new();
    for mut client in clients {
        let next = next.clone();
        workers.spawn(async move {
            let (mut random, mut value) = (fastrand::Rng::new(), vec![0; value_bytes]);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= keys {
                    return Ok(());
                }
                random.fill(&mut value);
                fill_one(&mut client, &keys::name(number), &value).await?;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|_| LocalError::Panicked)??;
    }
    Ok(())
}

async fn fill_one(client: &mut StoreClient, key: &str, value: &[u8]) -> Result<(), LocalError> {
    let mut tries = 1;
    loop {
        match client.put(key, value).await {
            Ok(()) => return Ok(()),
            Err(OperationError(why)) if tries == TRIES => {
                return Err(LocalError::Fill { key: key.to_owned(), tries, why });
            }
            Err(_) => tokio::time::sleep(AFTER_FAILURE * tries).await,
        }
        tries += 1;
    }
}

/// Runs the load through `clients`, and measures it and the server processes after the warm-up.
///
/// # Errors
/// If a client's task panics, or a server process has ended.
pub(super) async fn run(load: Load, clients: Vec<StoreClient>, pids: &[u32]) -> Result<RunFigures, LocalError> {
    let recorder = Arc::new(Recorder::new()?);
    let stopped = CancellationToken::new();
    let schedule = load.rate.map(|rate| Arc::new(Schedule { begun: Instant::now(), rate, taken: AtomicU64::new(0) }));
    let mut workers = JoinSet::new();
    for client in clients {
        workers.spawn(work(load, schedule.clone(), client, recorder.clone(), stopped.clone()));
    }
    tokio::time::sleep(load.warmup).await;
    let own = [std::process::id()];
    let (servers_before, own_before) = (Usage::read(pids), Usage::read(&own));
    recorder.begin();
    let begun = Instant::now();
    tokio::time::sleep(load.length).await;
    // Stop first: operations that begin from here on would count as begun before the end.
    stopped.cancel();
    let (ops, _) = recorder.progress();
    let elapsed = begun.elapsed();
    let servers = Usage::read(pids).since(&servers_before).ok_or(LocalError::ServerEnded)?;
    let own = Usage::read(&own).since(&own_before);
    // Each operation has a timeout, so this ends.
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|_| LocalError::Panicked)?;
    }
    Ok(RunFigures::new(&recorder.stats(), ops, elapsed, &servers, own.map(|own| own.cpu)))
}

/// The starts of an open loop's operations, which the clients take in turn.
#[derive(Debug)]
struct Schedule {
    begun: Instant,
    rate: u32,
    taken: AtomicU64,
}

impl Schedule {
    /// Waits until the next operation is due, and returns when that was; none if no client took it in time.
    async fn next(&self) -> Option<Instant> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let due = self.begun + Duration::from_secs_f64(number as f64 / f64::from(self.rate));
        tokio::time::sleep_until(due.into()).await;
        (due.elapsed() <= LATE).then_some(due)
    }
}

async fn work(
    load: Load,
    schedule: Option<Arc<Schedule>>,
    mut client: StoreClient,
    recorder: Arc<Recorder>,
    stopped: CancellationToken,
) {
    let (mut random, mut value) = (fastrand::Rng::new(), vec![0; load.value_bytes]);
    loop {
        let due = match &schedule {
            // At a low rate, the next operation may be due long after the end.
            Some(schedule) => tokio::select! {
                due = schedule.next() => due,
                () = stopped.cancelled() => return,
            },
            None => None,
        };
        if stopped.is_cancelled() {
            return;
        }
        if schedule.is_some() && due.is_none() {
            recorder.record_skip();
            continue;
        }
        let key = keys::name(load.keys.next(&mut random));
        let kind = if random.f64() < load.read_share { Kind::Read } else { Kind::Write };
        if kind == Kind::Write {
            random.fill(&mut value);
        }
        let begun = due.unwrap_or_else(Instant::now);
        let done = match kind {
            Kind::Read => client.get(&key).await,
            Kind::Write => client.put(&key, &value).await,
        };
        match done {
            Ok(()) => recorder.record_success(kind, begun.elapsed()),
            Err(OperationError(why)) => {
                recorder.record_failure(&why);
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}
