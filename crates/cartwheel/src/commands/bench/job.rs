//! The state that all connections of a bench share, and their operations.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;

use super::connection::TransportError;
use super::keys::{self, Keys};
use super::link::{Link, Replied, RespLink};
use super::stats::{Kind, Recorder};
use super::{BenchError, Writes};

/// The wait of a connection after a failure. Without it, a connection that is refused immediately would retry in a busy loop.
pub(super) const AFTER_FAILURE: Duration = Duration::from_millis(10);
/// An operation of an open loop is skipped if no connection has begun it this long after it was due.
pub(super) const LATE: Duration = Duration::from_millis(10);
/// The maximum length of an error's name, which comes from the network.
pub(super) const CODE_CHARS_MAX: usize = 40;

/// A workload: what is read and written, how often and for how long.
#[derive(Clone, Debug)]
pub(super) struct JobSettings {
    pub(super) bucket: String,
    pub(super) keys: Keys,
    /// The share of reads.
    pub(super) reads: f64,
    pub(super) writes: Writes,
    pub(super) value_bytes: usize,
    pub(super) strong: bool,
    pub(super) r: Option<u8>,
    pub(super) w: Option<u8>,
    /// The operations in flight on each connection. Above 1, all links are of the Redis protocol.
    pub(super) pipeline: u32,
    /// The operations per second of an open loop; none for a closed loop.
    pub(super) rate: Option<u32>,
    pub(super) warmup: Duration,
    pub(super) seconds: u64,
    /// The number of operations after which the measurement ends early.
    pub(super) ops: Option<u64>,
    /// The time limit of an operation.
    pub(super) timeout: Duration,
}

/// The workload and its measurements.
pub(super) struct Job {
    keys: Keys,
    reads: f64,
    writes: Writes,
    value_bytes: usize,
    pipeline: u32,
    /// The time limit of an operation of an open loop. A closed loop has none here, since its connections limit each request.
    timeout: Duration,
    /// The latest context of each key, for [`Writes::Known`].
    known: Option<Mutex<HashMap<u64, HeaderValue>>>,
    pub(super) recorder: Recorder,
    stop: AtomicBool,
    /// The number of operations of an open loop that connections have taken.
    due: AtomicU64,
}

/// Why an operation failed, as a report names it.
#[derive(Debug)]
pub(super) struct OperationError(pub(super) String);

impl Job {
    pub(super) fn new(settings: &JobSettings) -> Result<Self, BenchError> {
        Ok(Self {
            keys: settings.keys,
            reads: settings.reads,
            writes: settings.writes,
            value_bytes: settings.value_bytes,
            pipeline: settings.pipeline,
            timeout: if settings.rate.is_some() { settings.timeout } else { Duration::MAX },
            known: (settings.writes == Writes::Known).then(Mutex::default),
            recorder: Recorder::new()?,
            stop: AtomicBool::new(false),
            due: AtomicU64::new(0),
        })
    }

    /// Stops each connection after its current operation.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Runs operations one after the other, or batches of them: a closed loop.
    pub(super) async fn work(&self, mut link: Link) {
        let mut random = fastrand::Rng::new();
        while !self.stop.load(Ordering::Relaxed) {
            let done = match &mut link {
                Link::Resp(link) if self.pipeline > 1 => self.batch(link, &mut random).await,
                link => self.operation(link, &mut random, Instant::now()).await,
            };
            if done.is_err() {
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }

    /// Runs operations of an open loop. All connections take operations in turn, each when it is due. An operation for which no connection
    /// was free is skipped: in a queue here it would be late however fast the nodes are, and so would all operations after it.
    pub(super) async fn work_at(&self, rate: u32, begun: Instant, mut link: Link) {
        let mut random = fastrand::Rng::new();
        loop {
            let number = self.due.fetch_add(1, Ordering::Relaxed);
            let due = begun + Duration::from_secs_f64(number as f64 / f64::from(rate));
            tokio::time::sleep_until(due.into()).await;
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if due.elapsed() > LATE {
                self.recorder.record_skip();
                continue;
            }
            // `operation` has counted the outcome.
            let _ = self.operation(&mut link, &mut random, due).await;
        }
    }

    /// Runs one operation, and records its outcome and the time since `begun`.
    async fn operation(
        &self,
        link: &mut Link,
        random: &mut fastrand::Rng,
        begun: Instant,
    ) -> Result<(), OperationError> {
        let (number, kind) = self.draw(random);
        let done = match kind {
            Kind::Read => self.get(link, number).await.map(drop),
            Kind::Write => self.write(link, number, random).await,
        };
        match &done {
            Ok(()) if begun.elapsed() > self.timeout => self.recorder.record_failure("response too late"),
            Ok(()) => self.recorder.record_success(kind, begun.elapsed()),
            Err(OperationError(why)) => self.recorder.record_failure(why),
        }
        done
    }

    /// Runs a batch of operations that are sent at once, and records each outcome. The time of each counts from the sending of the batch.
    async fn batch(&self, link: &mut RespLink, random: &mut fastrand::Rng) -> Result<(), OperationError> {
        for _ in 0..self.pipeline {
            let (number, kind) = self.draw(random);
            match kind {
                Kind::Read => link.queue_get(&keys::name(number)),
                Kind::Write => link.queue_put(&keys::name(number), &self.value(random)),
            }
        }
        let begun = Instant::now();
        let replies = link.flush().await.inspect_err(|error| {
            (0..self.pipeline).for_each(|_| self.recorder.record_failure(error.name()));
        })?;
        let mut done = Ok(());
        for Replied { kind, result, at } in replies {
            match result {
                Ok(values) => {
                    self.recorder.record_success(kind, at.saturating_duration_since(begun));
                    self.recorder.record_get(values);
                }
                Err(error) => {
                    self.recorder.record_failure(&error.0);
                    done = Err(error);
                }
            }
        }
        done
    }

    /// Draws the number of a key, and what is done with it.
    fn draw(&self, random: &mut fastrand::Rng) -> (u64, Kind) {
        let number = self.keys.next(random);
        (number, if random.f64() < self.reads { Kind::Read } else { Kind::Write })
    }

    fn value(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut value = vec![0; self.value_bytes];
        random.fill(&mut value);
        value
    }

    async fn write(&self, link: &mut Link, number: u64, random: &mut fastrand::Rng) -> Result<(), OperationError> {
        let context = match self.writes {
            Writes::Blind => None,
            Writes::Update => self.get(link, number).await?,
            Writes::Known => match self.known(number) {
                None => self.get(link, number).await?,
                known => known,
            },
        };
        self.put(link, number, context, random).await
    }

    /// Writes a key, and replaces its values.
    pub(super) async fn replace(
        &self,
        link: &mut Link,
        number: u64,
        random: &mut fastrand::Rng,
    ) -> Result<(), OperationError> {
        let context = if link.has_contexts() { self.get(link, number).await? } else { None };
        self.put(link, number, context, random).await
    }

    /// Reads a key, and returns the context of the response.
    async fn get(&self, link: &mut Link, number: u64) -> Result<Option<HeaderValue>, OperationError> {
        let found = link.get(&keys::name(number)).await?;
        self.recorder.record_get(found.values);
        self.learn(number, found.context.as_ref());
        Ok(found.context)
    }

    async fn put(
        &self,
        link: &mut Link,
        number: u64,
        context: Option<HeaderValue>,
        random: &mut fastrand::Rng,
    ) -> Result<(), OperationError> {
        let context = link.put(&keys::name(number), self.value(random), context).await?;
        self.learn(number, context.as_ref());
        Ok(())
    }

    /// Keeps the context of a response if later writes use it.
    fn learn(&self, number: u64, context: Option<&HeaderValue>) {
        // A copy, since the header itself would keep the whole buffer that it was read into.
        if let (Some(known), Some(context)) = (&self.known, context)
            && let Ok(copy) = HeaderValue::from_bytes(context.as_bytes())
        {
            known.lock().unwrap_or_else(PoisonError::into_inner).insert(number, copy);
        }
    }

    fn known(&self, number: u64) -> Option<HeaderValue> {
        self.known.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }
}

impl From<TransportError> for OperationError {
    fn from(error: TransportError) -> Self {
        Self(error.name().to_owned())
    }
}
