//! The state that all connections of a bench share, and their operations.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_client::{HomeTable, kv_path};
use http_body_util::Full;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::connection::{Connection, Response, TransportError};
use super::keys::{self, Keys};
use super::stats::{Kind, Recorder};
use super::{BenchError, Writes};

const CONTEXT: HeaderName = HeaderName::from_static("cartwheel-context");
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
    bucket: String,
    /// The nodes that hold each key, if requests go to them.
    home_table: Option<Arc<HomeTable>>,
    get_query: String,
    put_query: String,
    keys: Keys,
    reads: f64,
    writes: Writes,
    value_bytes: usize,
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

#[derive(Deserialize)]
struct ErrorForm<'a> {
    error: &'a str,
}

#[derive(Deserialize)]
struct SiblingsForm {
    siblings: Vec<IgnoredAny>,
}

impl Job {
    /// The job of `settings`. With a `home_table`, whose members are the connections' endpoints, each request goes to the first home of its key.
    pub(super) fn new(settings: &JobSettings, home_table: Option<Arc<HomeTable>>) -> Result<Self, BenchError> {
        Ok(Self {
            bucket: settings.bucket.clone(),
            home_table,
            get_query: query(settings, 'r', settings.r),
            put_query: query(settings, 'w', settings.w),
            keys: settings.keys,
            reads: settings.reads,
            writes: settings.writes,
            value_bytes: settings.value_bytes,
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

    /// Runs operations one after the other: a closed loop.
    pub(super) async fn work(&self, mut connection: Connection) {
        let mut random = fastrand::Rng::new();
        while !self.stop.load(Ordering::Relaxed) {
            if self.operation(&mut connection, &mut random, Instant::now()).await.is_err() {
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }

    /// Runs operations of an open loop. All connections take operations in turn, each when it is due. An operation for which no connection
    /// was free is skipped: in a queue here it would be late however fast the nodes are, and so would all operations after it.
    pub(super) async fn work_at(&self, rate: u32, begun: Instant, mut connection: Connection) {
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
            let _ = self.operation(&mut connection, &mut random, due).await;
        }
    }

    /// Runs one operation, and records its outcome and the time since `begun`.
    async fn operation(
        &self,
        connection: &mut Connection,
        random: &mut fastrand::Rng,
        begun: Instant,
    ) -> Result<(), OperationError> {
        let number = self.keys.next(random);
        if let Some(table) = &self.home_table
            && let Some(&home) = table.homes_of(self.bucket.as_bytes(), keys::name(number).as_bytes()).first()
        {
            connection.turn_to(home);
        }
        let kind = if random.f64() < self.reads { Kind::Read } else { Kind::Write };
        let done = match kind {
            Kind::Read => self.get(connection, number).await.map(drop),
            Kind::Write => self.write(connection, number, random).await,
        };
        match &done {
            Ok(()) if begun.elapsed() > self.timeout => self.recorder.record_failure("response too late"),
            Ok(()) => self.recorder.record_success(kind, begun.elapsed()),
            Err(OperationError(why)) => self.recorder.record_failure(why),
        }
        done
    }

    async fn write(
        &self,
        connection: &mut Connection,
        number: u64,
        random: &mut fastrand::Rng,
    ) -> Result<(), OperationError> {
        let context = match self.writes {
            Writes::Blind => None,
            Writes::Update => self.get(connection, number).await?,
            Writes::Known => match self.known(number) {
                None => self.get(connection, number).await?,
                known => known,
            },
        };
        self.put(connection, number, context, random).await
    }

    /// Writes a key, and replaces its values.
    pub(super) async fn replace(
        &self,
        connection: &mut Connection,
        number: u64,
        random: &mut fastrand::Rng,
    ) -> Result<(), OperationError> {
        let context = self.get(connection, number).await?;
        self.put(connection, number, context, random).await
    }

    /// Reads a key, and returns the context of the response.
    async fn get(&self, connection: &mut Connection, number: u64) -> Result<Option<HeaderValue>, OperationError> {
        let request = Request::get(self.path(number, &self.get_query));
        let response = connection.call(request.body(Full::default()).map_err(|_| invalid_request())?).await?;
        self.recorder.record_get(match response.status {
            StatusCode::OK => 1,
            StatusCode::MULTIPLE_CHOICES => siblings(&response.body)?,
            StatusCode::NOT_FOUND if code(&response.body) == Some("not_found") => 0,
            _ => return Err(failure(&response)),
        });
        Ok(self.learn(number, &response.headers))
    }

    async fn put(
        &self,
        connection: &mut Connection,
        number: u64,
        context: Option<HeaderValue>,
        random: &mut fastrand::Rng,
    ) -> Result<(), OperationError> {
        let mut value = vec![0; self.value_bytes];
        random.fill(&mut value);
        let mut request = Request::put(self.path(number, &self.put_query));
        if let (Some(context), Some(headers)) = (context, request.headers_mut()) {
            headers.insert(CONTEXT, context);
        }
        let response =
            connection.call(request.body(Full::new(Bytes::from(value))).map_err(|_| invalid_request())?).await?;
        if response.status != StatusCode::NO_CONTENT {
            return Err(failure(&response));
        }
        self.learn(number, &response.headers);
        Ok(())
    }

    fn path(&self, number: u64, query: &str) -> String {
        let mut path = kv_path(self.bucket.as_bytes(), keys::name(number).as_bytes());
        path.push_str(query);
        path
    }

    /// Extracts the context of a response, and keeps it if later writes use it.
    fn learn(&self, number: u64, headers: &HeaderMap) -> Option<HeaderValue> {
        let context = headers.get(CONTEXT)?;
        if let Some(known) = &self.known {
            // A copy, since the header itself would keep the whole buffer that it was read into.
            if let Ok(copy) = HeaderValue::from_bytes(context.as_bytes()) {
                known.lock().unwrap_or_else(PoisonError::into_inner).insert(number, copy);
            }
        }
        Some(context.clone())
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

fn query(settings: &JobSettings, quorum: char, replicas: Option<u8>) -> String {
    let mut query = format!("?timeout_ms={}", settings.timeout.as_millis());
    if let Some(replicas) = replicas {
        query.push_str(&format!("&{quorum}={replicas}"));
    }
    if settings.strong {
        query.push_str("&consistency=strong");
    }
    query
}

fn siblings(body: &[u8]) -> Result<u64, OperationError> {
    let form: SiblingsForm =
        serde_json::from_slice(body).map_err(|_| OperationError("unreadable list of siblings".to_owned()))?;
    Ok(form.siblings.len() as u64)
}

fn failure(response: &Response) -> OperationError {
    let code: String = code(&response.body).unwrap_or("without an error code").chars().take(CODE_CHARS_MAX).collect();
    OperationError(format!("{} {code}", response.status.as_u16()))
}

/// The code in the body of an error response.
pub(super) fn code(body: &[u8]) -> Option<&str> {
    serde_json::from_slice::<ErrorForm<'_>>(body).ok().map(|form| form.error)
}

/// Unreachable in practice: a path of encoded bytes always makes a valid request.
fn invalid_request() -> OperationError {
    OperationError("cannot encode the request as HTTP".to_owned())
}
