use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

use crate::attempt::{Attempt, Watcher};
use crate::http::{self, Failure, Http, Response};
use crate::retry::{self, Budget, Next, Tries};
use crate::siblings;
use crate::{
    Acks, BadEndpoint, BucketChange, BucketSettings, Buckets, Cause, ClusterStatus, Context, DigestPage, Error,
    Location, MemberChange, MembersPlan, Options, Replicas, Ring, Siblings, Transfers, Value,
};

/// The node's share of the remaining time; its response needs the rest to arrive.
const NODE_TIME_SHARE: f64 = 0.8;

/// The most reads that one [`Client::update`] makes.
const UPDATES_MAX: u32 = 3;
/// The refusals that a new read can resolve: `too_many_siblings` means that a key that was absent has since got many values, and `bad_context`
/// that the context was issued before the cluster's secret changed.
const READ_AGAIN: [&str; 2] = ["too_many_siblings", "bad_context"];

/// A client of one cluster, over HTTP.
///
/// A `Client` holds a pool of connections. It is cheap to clone, and clones share the pool, so make one and clone it.
///
/// ```no_run
/// # async fn example() -> Result<(), cartwheel_client::Error> {
/// use cartwheel_client::Client;
///
/// let client = Client::new(["http://127.0.0.1:8081", "http://127.0.0.1:8082"])?;
/// client.put("greetings", "world", "hello", None).await?;
/// let read = client.get("greetings", "world").await?;
/// assert_eq!(read.values[0].bytes, "hello");
/// # Ok(())
/// # }
/// ```
///
/// # Failover and retries
///
/// Any node can serve any request. The client sends requests to one node. If that node cannot be reached or is overloaded, the client moves on to
/// the next endpoint and stays there.
///
/// - While no node can be reached, each endpoint is tried up to three times.
/// - A request that reached a node and failed is repeated up to three times, after growing pauses of random length. The client keeps to the nodes'
///   `Retry-After`. If all of them request a longer wait than [`Options::timeout`], the request fails at once.
/// - Under sustained failure, no more than a tenth of a client's requests is repeated, so that retries do not keep an overloaded cluster
///   overloaded.
/// - All attempts at one write carry one [idempotency key](Options::idempotency_key): the cluster stores the write once, whichever nodes it
///   reached.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
    endpoints: Arc<RwLock<Arc<[String]>>>,
    budget: Arc<Budget>,
    /// The endpoint that sent the last response.
    preferred: Arc<AtomicUsize>,
    watcher: Watcher,
    /// The time limit of requests about the cluster and changes to it, over all attempts.
    timeout: Option<Duration>,
}

/// The result of a put or a delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The context of the write: what its own context covered, and the write itself. `None` where a delete found nothing to delete. Pass it to the
    /// next write of the same client to replace this one.
    pub context: Option<Context>,
    /// The replicas that stored the write.
    pub acks: Acks,
}

/// The result of a [`Client::update`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Updated {
    /// The values that `merge` was given.
    pub read: Siblings,
    /// The write of the merged value.
    pub written: Written,
}

impl Client {
    /// Makes a client of the cluster whose nodes serve HTTP at `endpoints`. A few of the nodes are enough; the first is tried first.
    /// [`Client::learn_members`] adds the rest.
    ///
    /// No connection is made until the first request.
    ///
    /// # Errors
    /// [`Error::Endpoint`] if there is no endpoint, or one is not of the form `http://host:port` or `host:port`.
    pub fn new<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        let endpoints: Arc<[String]> =
            endpoints.into_iter().map(|endpoint| http::parse_endpoint(endpoint.as_ref())).collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(BadEndpoint::None.into());
        }
        Ok(Self {
            http: Http::new(),
            endpoints: Arc::new(RwLock::new(endpoints)),
            budget: Arc::default(),
            preferred: Arc::default(),
            watcher: Watcher::default(),
            timeout: None,
        })
    }

    /// Calls `callback` after each attempt, also after those that failed and were made up for by another node. The attempt under way is not
    /// reported if the request's future is dropped.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), cartwheel_client::Error> {
    /// use cartwheel_client::{Client, Outcome};
    ///
    /// let client = Client::new(["127.0.0.1:8081"])?.on_attempt(|attempt| {
    ///     if !matches!(attempt.outcome, Outcome::Answered { status: 200..=399, .. }) {
    ///         eprintln!("{} after {:?}: {:?}", attempt.endpoint, attempt.took, attempt.outcome);
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_attempt(self, callback: impl Fn(&Attempt<'_>) + Send + Sync + 'static) -> Self {
        Self { watcher: Watcher(Some(Arc::new(callback))), ..self }
    }

    /// Bounds requests about the cluster and changes to it ([`Client::cluster`], [`Client::set_bucket`] and so on) to `timeout`, over all attempts.
    /// Reads and writes of keys take their limits from [`Options`].
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Reads a key with the bucket's settings.
    ///
    /// A key that was never written has no values; that is not an error. Concurrent writes show up as several values: see [`Siblings`].
    ///
    /// # Errors
    /// [`Error::Refused`] if the bucket's name or the key is empty or too long, [`Error::Unavailable`] if no node could answer.
    pub async fn get(&self, bucket: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Siblings, Error> {
        self.get_with(bucket, key, &Options::default()).await
    }

    /// Reads a key with `options`.
    ///
    /// ```no_run
    /// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
    /// use cartwheel_client::{Consistency, Options};
    ///
    /// let options = Options { consistency: Consistency::Strong, ..Options::default() };
    /// let read = client.get_with("accounts", "alice", &options).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`]; also [`Error::Refused`] if [`Options::replicas`] is more than the bucket's n.
    pub async fn get_with(
        &self,
        bucket: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        options: &Options,
    ) -> Result<Siblings, Error> {
        let (path, query) = (http::kv_path(bucket.as_ref(), key.as_ref()), options.query('r'));
        let call = Call { context: options.seen.as_ref(), query: Some(query), ..Call::new(Method::GET, path, options) };
        let response = self.execute(&call, None).await?;
        let (context, acks) = context_and_acks(&response)?;
        let (values, deleted) = match response.status {
            StatusCode::MULTIPLE_CHOICES => siblings::parse(&response.body)?,
            StatusCode::NOT_FOUND => (Vec::new(), context.is_some()),
            _ => {
                let header = |name| response.header(name).unwrap_or_default().to_owned();
                let (content_type, content_encoding) = (header("content-type"), header("content-encoding"));
                let ttl = response.header("cartwheel-ttl").and_then(|seconds| seconds.parse().ok());
                let ttl = ttl.map(Duration::from_secs);
                (vec![Value { bytes: response.body, content_type, content_encoding, ttl }], false)
            }
        };
        Ok(Siblings { values, deleted, context, acks })
    }

    /// Reads a key as [`Self::get_with`] does, and returns the HTTP API's JSON form: an object with `context` and `siblings`. `siblings` is
    /// empty where nothing is stored.
    ///
    /// # Errors
    /// As [`Self::get_with`].
    pub async fn get_json(
        &self,
        bucket: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        options: &Options,
    ) -> Result<serde_json::Value, Error> {
        let (path, query) = (http::kv_path(bucket.as_ref(), key.as_ref()), options.query('r'));
        let call = Call {
            context: options.seen.as_ref(),
            query: Some(query),
            accept: Some("application/json"),
            ..Call::new(Method::GET, path, options)
        };
        let response = self.execute(&call, None).await?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(serde_json::json!({ "context": response.header("cartwheel-context"), "siblings": [] }));
        }
        serde_json::from_slice(&response.body)
            .map_err(|error| Error::UnexpectedResponse(format!("an unreadable list of siblings ({error})")))
    }

    /// Writes a value of the media type `application/octet-stream`.
    ///
    /// With a context, the write replaces the values that the context covers. Without one it replaces nothing: it becomes a sibling of every value
    /// that is there.
    ///
    /// ```no_run
    /// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
    /// let first = client.put("greetings", "world", "hello", None).await?;
    /// // Replaces "hello", and nothing that another client has written meanwhile.
    /// client.put("greetings", "world", "good morning", first.context.as_ref()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] if the key is empty or too long, the value is too large or the context is of another key. [`Error::Unavailable`] if
    /// too few nodes stored the write: then it may or may not take effect.
    pub async fn put(
        &self,
        bucket: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        context: Option<&Context>,
    ) -> Result<Written, Error> {
        let value = Value::new(value, "application/octet-stream");
        self.put_with(bucket, key, value, context, &Options::default()).await
    }

    /// Writes a value of any media type with `options`.
    ///
    /// # Errors
    /// As [`Self::put`]; also [`Error::Refused`] if [`Options::replicas`] is more than the bucket's n.
    pub async fn put_with(
        &self,
        bucket: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        value: Value,
        context: Option<&Context>,
        options: &Options,
    ) -> Result<Written, Error> {
        let (path, query) = (http::kv_path(bucket.as_ref(), key.as_ref()), options.query('w'));
        let call = Call { context, value: Some(value), query: Some(query), ..Call::new(Method::PUT, path, options) };
        self.write(&call, options).await
    }

    /// Deletes a key. With a context, the delete replaces the values that the context covers; without one, those that a get would return. To delete
    /// an absent key is not an error.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(
        &self,
        bucket: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        context: Option<&Context>,
    ) -> Result<Written, Error> {
        self.delete_with(bucket, key, context, &Options::default()).await
    }

    /// Deletes a key with `options`.
    ///
    /// # Errors
    /// As [`Self::delete`]; also [`Error::Refused`] if [`Options::replicas`] is more than the bucket's n.
    pub async fn delete_with(
        &self,
        bucket: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        context: Option<&Context>,
        options: &Options,
    ) -> Result<Written, Error> {
        let (path, query) = (http::kv_path(bucket.as_ref(), key.as_ref()), options.query('w'));
        let call = Call { context, query: Some(query), ..Call::new(Method::DELETE, path, options) };
        self.write(&call, options).await
    }

    /// Reads a key, calls `merge` to make one value of all siblings, and writes the result in their place.
    ///
    /// Nothing is locked. A value that another client writes meanwhile becomes a sibling of the result, and the next reader merges both. So `merge`
    /// must be a merge in the mathematical sense: it keeps all that it is given, as a union does, and gives the same result when it is applied
    /// again.
    ///
    /// ```no_run
    /// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
    /// use std::collections::BTreeSet;
    ///
    /// // A set of tags, one a line. `read.values` is empty if there is no value yet.
    /// client
    ///     .update("tags", "photo-1", |read| {
    ///         let texts = read.values.iter().map(|value| String::from_utf8_lossy(&value.bytes));
    ///         let mut tags: BTreeSet<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    ///         tags.insert("sunset".to_owned());
    ///         tags.into_iter().collect::<Vec<_>>().join("\n")
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::get`] and [`Self::put`]. The read and the write are repeated, up to three times in all, if the write is refused with
    /// `too_many_siblings` or `bad_context`.
    pub async fn update<V: Into<Bytes>>(
        &self,
        bucket: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        mut merge: impl FnMut(&Siblings) -> V,
    ) -> Result<Updated, Error> {
        let (bucket, key) = (bucket.as_ref(), key.as_ref());
        for _ in 1..UPDATES_MAX {
            match self.update_once(bucket, key, &mut merge).await {
                Err(Error::Refused { code, .. }) if READ_AGAIN.contains(&code.as_str()) => {}
                done => return done,
            }
        }
        self.update_once(bucket, key, &mut merge).await
    }

    /// The members of the cluster, and the answering node's view of each.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn cluster(&self) -> Result<ClusterStatus, Error> {
        self.fetch("/v1/cluster".to_owned()).await
    }

    /// When the answering node's replicas were last proven equal to those of the other homes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn replicas(&self) -> Result<Replicas, Error> {
        self.fetch("/v1/cluster/replicas".to_owned()).await
    }

    /// The placement of the partitions on the members.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn ring(&self) -> Result<Ring, Error> {
        self.fetch("/v1/cluster/ring".to_owned()).await
    }

    /// Lists the records of a partition on the answering node's disk: at most `limit`, from `from` on ([`DigestPage::next`] or a
    /// [`HeldRecord::storage_key`](crate::HeldRecord::storage_key)), or from the first. Use a client with one endpoint: with several, pages may come from
    /// different nodes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the node could not answer.
    pub async fn digests(&self, partition: u32, from: Option<&str>, limit: usize) -> Result<DigestPage, Error> {
        let from = from.map_or_else(String::new, |from| format!("&from={from}"));
        self.fetch(format!("/v1/cluster/partitions/{partition}/digests?limit={limit}{from}")).await
    }

    /// The partition and the preference list of a key, whether or not it has a value.
    ///
    /// # Errors
    /// [`Error::Refused`] if the bucket's name or the key is empty or too long, [`Error::Unavailable`] if no node could answer.
    pub async fn locate(&self, bucket: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Location, Error> {
        self.fetch(http::locate_path(bucket.as_ref(), key.as_ref())).await
    }

    /// The settings of a bucket. A bucket without keys or settings of its own has the defaults.
    ///
    /// # Errors
    /// [`Error::Refused`] if the bucket's name is empty or too long, [`Error::Unavailable`] if no node could answer.
    pub async fn bucket(&self, bucket: impl AsRef<[u8]>) -> Result<BucketSettings, Error> {
        self.fetch(http::bucket_path(bucket.as_ref())).await
    }

    /// Changes some of a bucket's settings and returns all of them.
    ///
    /// # Errors
    /// [`Error::Refused`] if a setting is out of its bounds, [`Error::Unavailable`] if the change could not be saved: then it may still take effect.
    pub async fn set_bucket(&self, bucket: impl AsRef<[u8]>, change: &BucketChange) -> Result<BucketSettings, Error> {
        let bytes = serde_json::to_vec(change).unwrap_or_default();
        let value = Some(Value::new(bytes, "application/json"));
        self.fetch_with(Method::PUT, http::bucket_path(bucket.as_ref()), value).await
    }

    /// The plan for these changes of the members. Nothing is changed.
    ///
    /// ```no_run
    /// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
    /// use cartwheel_client::MemberChange;
    ///
    /// let changes = [MemberChange::Add { node: "node-4".to_owned(), weight: None }];
    /// let plan = client.plan_members(&changes).await?;
    /// println!("{} partitions move", plan.transfers.len());
    /// // Refused if another administrator has changed the cluster since the plan was made.
    /// client.change_members(&changes, &plan.version).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] if a change cannot be made (an unknown node, say), [`Error::Unavailable`] if no node could answer.
    pub async fn plan_members(&self, changes: &[MemberChange]) -> Result<MembersPlan, Error> {
        self.members(serde_json::json!({ "changes": changes })).await
    }

    /// Makes changes that were planned on the version `planned_on` ([`MembersPlan::version`]). The data is transferred in the background: see
    /// [`Self::transfers`].
    ///
    /// # Errors
    /// [`Error::Refused`] if a change cannot be made, or the cluster has changed since `planned_on`. [`Error::Unavailable`] if the changes could
    /// not be saved: then they may still take effect.
    pub async fn change_members(&self, changes: &[MemberChange], planned_on: &str) -> Result<MembersPlan, Error> {
        self.members(serde_json::json!({ "changes": changes, "planned_on": planned_on, "apply": true })).await
    }

    async fn members(&self, body: serde_json::Value) -> Result<MembersPlan, Error> {
        let bytes = body.to_string();
        let value = Some(Value::new(bytes, "application/json"));
        self.fetch_with(Method::POST, "/v1/cluster/members".to_owned(), value).await
    }

    /// The partitions that are being transferred to their target homes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn transfers(&self) -> Result<Transfers, Error> {
        self.fetch("/v1/cluster/transfers".to_owned()).await
    }

    /// The buckets with settings of their own, and the defaults of all others.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn buckets(&self) -> Result<Buckets, Error> {
        self.fetch("/v1/buckets".to_owned()).await
    }

    pub(crate) async fn fetch<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        self.fetch_with(Method::GET, path, None).await
    }

    async fn fetch_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        value: Option<Value>,
    ) -> Result<T, Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        let call = Call { value, ..Call::new(method, path, &options) };
        let response = self.execute(&call, None).await?;
        serde_json::from_slice(&response.body)
            .map_err(|error| Error::UnexpectedResponse(format!("an unreadable body ({error})")))
    }

    /// Sends a change that has no body.
    pub(crate) async fn send_delete(&self, path: String) -> Result<(), Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        self.execute(&Call::new(Method::DELETE, path, &options), None).await.map(drop)
    }

    async fn update_once<V: Into<Bytes>>(
        &self,
        bucket: &[u8],
        key: &[u8],
        merge: &mut impl FnMut(&Siblings) -> V,
    ) -> Result<Updated, Error> {
        let read = self.get(bucket, key).await?;
        let merged = merge(&read);
        let written = self.put(bucket, key, merged, read.context.as_ref()).await?;
        Ok(Updated { read, written })
    }

    async fn write(&self, call: &Call<'_>, options: &Options) -> Result<Written, Error> {
        // All attempts share one key: if a write was stored and its response got lost, the repeated write makes no second sibling.
        let idempotency_key = match &options.idempotency_key {
            Some(key) => key.clone(),
            None => {
                let mut random = [0; 16];
                getrandom::fill(&mut random)?;
                format!("{:032x}", u128::from_be_bytes(random))
            }
        };
        let (context, acks) = context_and_acks(&self.execute(call, Some(&idempotency_key)).await?)?;
        Ok(Written { context, acks })
    }

    /// Makes attempts at one node after another until one succeeds or none can.
    async fn execute(&self, call: &Call<'_>, idempotency_key: Option<&str>) -> Result<Response, Error> {
        let endpoints = self.endpoints();
        let first = self.preferred.load(Ordering::Relaxed);
        let deadline = call.deadline.and_then(|within| Instant::now().checked_add(within));
        let mut tries = Tries::new(&self.budget, endpoints.len(), first, call.timeout, deadline);
        let mut unexpected = None;
        let mut last: Option<(Cause, String)> = None;
        loop {
            let (at, endpoint) = (tries.at(), &endpoints[tries.at()]);
            let (cause, retry_after) = match self.attempt(call, endpoint, idempotency_key, &tries).await? {
                Ok(response) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(response);
                }
                // One of the endpoints may be another program's port: try the other endpoints.
                Err(Failure::Final(error @ Error::UnexpectedResponse(_))) if tries.has_untried() => {
                    unexpected = Some(error);
                    (Cause::Unreachable, None)
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Retry { cause, why, retry_after }) => {
                    if last.as_ref().is_none_or(|(known, _)| cause >= *known) {
                        last = Some((cause, format!("{endpoint}: {why}")));
                    }
                    (cause, retry_after)
                }
            };
            match tries.failed(cause, retry_after, retry::random()) {
                Next::After(pause) => tokio::time::sleep(pause).await,
                Next::GiveUp => break,
            }
        }
        // The next request begins at another node. Otherwise, once the retry budget is spent, all requests would fail at this one.
        let next = (first + 1) % endpoints.len();
        let _ = self.preferred.compare_exchange(first, next, Ordering::Relaxed, Ordering::Relaxed);
        match (last, unexpected) {
            (Some((Cause::Unreachable, _)) | None, Some(unexpected)) => Err(unexpected),
            (last, _) => {
                let (cause, last) = last.unwrap_or((Cause::Unreachable, String::new()));
                Err(Error::Unavailable { attempts: tries.attempts(), last, cause })
            }
        }
    }

    async fn attempt(
        &self,
        call: &Call<'_>,
        endpoint: &str,
        idempotency_key: Option<&str>,
        tries: &Tries<'_>,
    ) -> Result<Result<Response, Failure>, Error> {
        let (timeout, within) = call.times(tries);
        let request = call.request(endpoint, idempotency_key, timeout)?;
        let begun = Instant::now();
        let (outcome, ended) = self.http.attempt(request, within).await;
        if let Watcher(Some(callback)) = &self.watcher {
            callback(&Attempt { endpoint, is_write: call.method != Method::GET, outcome, took: begun.elapsed() });
        }
        Ok(ended)
    }

    fn endpoints(&self) -> Arc<[String]> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the cluster's members and adds their addresses to the endpoints. From then on the client reaches the cluster even if all
    /// endpoints that it was made with are gone.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer.
    pub async fn learn_members(&self) -> Result<(), Error> {
        let members = self.cluster().await?.members;
        let found = members.iter().filter_map(|status| http::parse_endpoint(&status.member.http).ok());
        let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = endpoints.to_vec();
        for endpoint in found {
            if !all.contains(&endpoint) {
                all.push(endpoint);
            }
        }
        *endpoints = all.into();
        Ok(())
    }
}

/// A request of the HTTP API, apart from the node that it goes to.
struct Call<'a> {
    method: Method,
    path: String,
    context: Option<&'a Context>,
    value: Option<Value>,
    /// How long one node may take.
    timeout: Duration,
    /// How long all attempts together may take.
    deadline: Option<Duration>,
    /// The query without `timeout_ms`, for requests that take one.
    query: Option<String>,
    /// The media type of the response, where there are several.
    accept: Option<&'static str>,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: String, options: &'a Options) -> Self {
        let (timeout, deadline) = (options.timeout(), options.deadline);
        Self { method, path, context: None, value: None, timeout, deadline, query: None, accept: None }
    }

    /// How long the node may take for the next attempt, and how long the client waits for its response.
    fn times(&self, tries: &Tries<'_>) -> (Duration, Duration) {
        let within = self.timeout + http::GRACE;
        match tries.left() {
            Some(left) if !tries.has_untried() && left < within => (left.mul_f64(NODE_TIME_SHARE), left),
            Some(left) if tries.has_untried() && left / 2 < within => ((left / 2).mul_f64(NODE_TIME_SHARE), left / 2),
            _ => (self.timeout, within),
        }
    }

    fn request(
        &self,
        endpoint: &str,
        idempotency_key: Option<&str>,
        timeout: Duration,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut uri = format!("{endpoint}{}", self.path);
        if let Some(query) = &self.query {
            uri += &format!("?timeout_ms={}{query}", timeout.as_millis().max(1));
        }
        let mut request = Request::builder().method(self.method.clone()).uri(uri);
        if let Some(context) = self.context {
            request = request.header("cartwheel-context", context.encode());
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(accept) = self.accept {
            request = request.header("accept", accept);
        }
        let mut body = Bytes::new();
        if let Some(value) = &self.value {
            request = request.header("content-type", &value.content_type);
            if !value.content_encoding.is_empty() {
                request = request.header("content-encoding", &value.content_encoding);
            }
            if let Some(ttl) = value.ttl {
                let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
                request = request.header("cartwheel-ttl", seconds);
            }
            body = value.bytes.clone();
        }
        request.body(Full::new(body)).map_err(|error| Error::Refused {
            code: "bad_request".to_owned(),
            message: format!("cannot encode the request as HTTP: {error}"),
        })
    }
}

fn context_and_acks(response: &Response) -> Result<(Option<Context>, Acks), Error> {
    let context = match response.header("cartwheel-context") {
        None => None,
        Some(text) => {
            let unreadable = || Error::UnexpectedResponse("an unreadable context".to_owned());
            Some(Context::decode(text).ok_or_else(unreadable)?)
        }
    };
    Ok((context, response.header("cartwheel-acks").map(Acks::parse).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A node that sends every request the same response (none if it is empty), and the number of requests that it has received.
    async fn node(response: &'static str) -> (String, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (endpoint, seen) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicU32::new(0)));
        let count = seen.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = count.clone();
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4_096]).await;
                    count.fetch_add(1, Ordering::Relaxed);
                    if response.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(response.as_bytes()).await;
                });
            }
        });
        (endpoint, seen)
    }

    const OVERLOADED: &str = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\ncontent-length: 41\r\n\r\n\
        {\"error\":\"overloaded\",\"message\":\"later.\"}";
    const OVERLOADED_FOR_LONG: &str = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 3600\r\ncontent-length: 41\r\n\r\n\
        {\"error\":\"overloaded\",\"message\":\"later.\"}";
    const DONE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    const ANOTHER_PROGRAM: &str = "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 3\r\n\r\nno.";

    fn requests(nodes: &[(String, Arc<AtomicU32>)]) -> u32 {
        nodes.iter().map(|(_, seen)| seen.load(Ordering::Relaxed)).sum()
    }

    fn client(nodes: &[(String, Arc<AtomicU32>)]) -> Client {
        Client::new(nodes.iter().map(|(endpoint, _)| endpoint)).unwrap()
    }

    #[tokio::test]
    async fn an_overloaded_cluster_gets_few_repeated_requests() {
        let nodes = [node(OVERLOADED).await, node(OVERLOADED).await, node(OVERLOADED).await];
        let client = client(&nodes);
        let one = client.put("b", "k", "v", None).await;
        assert!(matches!(one, Err(Error::Unavailable { cause: Cause::Overloaded, .. })), "{one:?}");
        assert_eq!(requests(&nodes), 4, "one request and three repetitions");
        for _ in 0..99 {
            assert!(client.put("b", "k", "v", None).await.is_err());
        }
        assert!((110..=120).contains(&requests(&nodes)), "a tenth more, and a few to begin with: {}", requests(&nodes));
    }

    #[tokio::test]
    async fn a_node_gets_no_request_within_its_retry_after() {
        let alone = [node(OVERLOADED_FOR_LONG).await];
        assert!(client(&alone).put("b", "k", "v", None).await.is_err());
        assert_eq!(requests(&alone), 1);
        let beside = [node(OVERLOADED_FOR_LONG).await, node(DONE).await];
        client(&beside).put("b", "k", "v", None).await.unwrap();
        assert_eq!(requests(&beside), 2);
    }

    #[tokio::test]
    async fn with_a_deadline_a_silent_node_leaves_time_for_the_next() {
        let options = Options { deadline: Some(Duration::from_secs(2)), ..Options::default() };
        let value = || Value::new("v", "text/plain");
        let nodes = [node("").await, node(DONE).await];
        client(&nodes).put_with("b", "k", value(), None, &options).await.unwrap();
        let silent = [node("").await, node("").await];
        let late = client(&silent).put_with("b", "k", value(), None, &options).await;
        assert!(matches!(late, Err(Error::Unavailable { cause: Cause::TimedOut, attempts: 2, .. })), "{late:?}");
    }

    #[tokio::test]
    async fn a_port_of_another_program_is_skipped() {
        let nodes = [node(ANOTHER_PROGRAM).await, node(DONE).await];
        client(&nodes).put("b", "k", "v", None).await.unwrap();
        let none = client(&nodes[..1]).put("b", "k", "v", None).await;
        assert!(matches!(none, Err(Error::UnexpectedResponse(_))), "{none:?}");
    }

    #[tokio::test]
    async fn learned_members_are_tried_when_the_given_endpoint_is_gone() {
        let (endpoint, _) = node(DONE).await;
        let body = serde_json::json!({"cluster": "", "node": "a", "ring_version": "", "members": [{
            "name": "b", "id": "", "zone": "", "host": "", "http": endpoint, "resp": "", "peers": "", "weight": 100, "incarnation": "",
            "leaving": false, "state": "connected"
        }]});
        let body = body.to_string();
        let response = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new([listener.local_addr().unwrap().to_string()]).unwrap();
        // It answers once and is gone.
        let once = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4_096]).await;
            stream.write_all(response.as_bytes()).await.unwrap();
        });
        client.learn_members().await.unwrap();
        once.await.unwrap();
        client.put("b", "k", "v", None).await.unwrap();
    }
}
