use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};

use crate::Tls;
use crate::attempt::{Attempt, Watcher};
use crate::call::{Call, KeyName, context_and_acks};
use crate::http::{self, Http};
use crate::retry::Budget;
use crate::router::Router;
use crate::siblings;
use crate::{Acks, BadEndpoint, Context, Credentials, Error, Options, Siblings, Value};

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
/// # Routing
///
/// Any node can serve any request, but only a home replica of a key can coordinate a write of it: other nodes forward the write. So the client reads
/// the ring from one of its endpoints, and sends each request on a key to the key's first home.
///
/// - Only the first request waits for the ring, for a second at most. After that the ring is read in the background: from time to time while the
///   client is in use, and when a node fails or the ring has changed. As long as no ring is known, and for requests that are not about a key, the
///   client uses its endpoints: it sends requests to one of them, and moves on to the next when that one fails.
/// - A node that fails is avoided: requests go to the key's next home. From time to time, from once a second to once in 30 s, one request tries
///   the node again.
/// - A get that takes longer than 95% of the recent ones is sent to a second home too, and the first answer counts. At most 5% of the gets are
///   sent twice; strong gets are not.
///
/// If the nodes' addresses in the ring cannot be reached from here, or requests should go through certain nodes, turn routing off:
/// [`Client::without_routing`].
///
/// # Failover and retries
///
/// - While no node can be reached, each one is tried up to three times.
/// - A request that reached a node and failed is repeated up to three times, after growing pauses of random length. The client keeps to the nodes'
///   `Retry-After`. If all of them request a longer wait than [`Options::timeout`], the request fails at once.
/// - Under sustained failure, no more than a tenth of a client's requests is repeated, so that retries do not keep an overloaded cluster
///   overloaded.
/// - All attempts at one write carry one [idempotency key](Options::idempotency_key): the cluster stores the write once, whichever nodes it
///   reached.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) http: Http,
    endpoints: Arc<RwLock<Arc<[Arc<str>]>>>,
    pub(crate) budget: Arc<Budget>,
    /// The endpoint that sent the last response.
    pub(crate) preferred: Arc<AtomicUsize>,
    /// `None` if requests are not routed by the ring.
    pub(crate) router: Option<Arc<Router>>,
    pub(crate) watcher: Watcher,
    /// The time limit of requests about the cluster and changes to it, over all attempts.
    pub(crate) timeout: Option<Duration>,
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
    ///
    /// No connection is made until the first request.
    ///
    /// # Errors
    /// [`Error::Endpoint`] if there is no endpoint, or one is not of the form `http://host:port`, `https://host:port` or `host:port`.
    pub fn new<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        let endpoints: Arc<[Arc<str>]> = endpoints
            .into_iter()
            .map(|endpoint| http::parse_endpoint(endpoint.as_ref()).map(Arc::from))
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(BadEndpoint::None.into());
        }
        Ok(Self {
            http: Http::new(&Tls::default(), endpoints[0].starts_with("https://")),
            endpoints: Arc::new(RwLock::new(endpoints)),
            budget: Arc::new(Budget::of_retries()),
            preferred: Arc::default(),
            router: Some(Arc::new(Router::new())),
            watcher: Watcher::default(),
            timeout: None,
        })
    }

    /// Reaches all nodes over TLS, also at endpoints that were given without it. Their certificates must name the hosts of their addresses.
    ///
    /// The connections made so far are not used any more.
    #[must_use]
    pub fn with_tls(self, tls: &Tls) -> Self {
        let endpoints: Arc<[Arc<str>]> =
            self.endpoints().iter().map(|endpoint| http::over_tls(endpoint).into()).collect();
        Self { http: self.http.with_tls(tls), endpoints: Arc::new(RwLock::new(endpoints)), ..self }
    }

    /// Shows the nodes these credentials.
    ///
    /// Without TLS they can be read on the way.
    #[must_use]
    pub fn with_credentials(self, credentials: &Credentials) -> Self {
        Self { http: self.http.with_authorization(credentials.header()), ..self }
    }

    /// Sends requests on keys to the endpoints given, as all other requests, instead of to the homes of their keys. Nor are gets hedged.
    ///
    /// Use it if the addresses in the ring cannot be reached from here, or to read and write through certain nodes.
    #[must_use]
    pub fn without_routing(self) -> Self {
        Self { router: None, ..self }
    }

    /// Calls `callback` after each attempt, also after those that failed and were made up for by another node. Not reported are an attempt under
    /// way when the request's future is dropped, the slower attempt of a hedged get, and reads of the ring.
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
        let key = KeyName::new(&bucket, &key);
        let call = Call { context: options.seen.as_ref(), ..Call::of_key(Method::GET, key, options) };
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
        let key = KeyName::new(&bucket, &key);
        let call = Call {
            context: options.seen.as_ref(),
            accept: Some("application/json"),
            ..Call::of_key(Method::GET, key, options)
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
        let key = KeyName::new(&bucket, &key);
        let call = Call { context, value: Some(value), ..Call::of_key(Method::PUT, key, options) };
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
        let key = KeyName::new(&bucket, &key);
        let call = Call { context, ..Call::of_key(Method::DELETE, key, options) };
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

    pub(crate) fn endpoints(&self) -> Arc<[Arc<str>]> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn add_endpoints(&self, found: impl Iterator<Item = String>) {
        let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = endpoints.to_vec();
        for endpoint in found.map(Arc::from) {
            if !all.contains(&endpoint) {
                all.push(endpoint);
            }
        }
        *endpoints = all.into();
    }
}
