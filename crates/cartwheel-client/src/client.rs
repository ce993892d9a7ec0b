use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

use crate::attempt::{Attempt, Watcher};
use crate::http::{self, Failure, Http, Reply};
use crate::retry::{self, Budget, Next, Tries};
use crate::siblings;
use crate::{
    Acks, BadEndpoint, BucketChange, BucketSettings, Buckets, Cause, ClusterStatus, Context, DigestPage, Error,
    Location, MemberChange, MembersPlan, Moves, Options, Replicas, Ring, Siblings, Value,
};

/// Which part of a time that has become short a node is told to use: its answer needs the rest.
const NODES_PART: f64 = 0.8;

/// How often an update reads at most.
const UPDATES_MAX: u32 = 3;
/// With these refusals a write says that what it had read is not enough to go by: too much has appeared beside a key that was
/// absent, or the context was given out before the cluster's secret changed.
const READ_AGAIN: [&str; 2] = ["too_many_siblings", "bad_context"];

/// A client of one cluster. Clones share its connections.
///
/// Requests go to one node; when it cannot be reached or is overloaded, they go to the next, and stay there. A write that is
/// tried again is the same write to the cluster, whichever node it went to first.
///
/// What reached a node and failed is repeated up to three times, after pauses that grow and are random in length, and not before the time that a
/// node names in `Retry-After`. Beyond a few, no more than a tenth of a client's requests is repeated at all.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
    endpoints: Arc<RwLock<Arc<[String]>>>,
    budget: Arc<Budget>,
    /// The endpoint that answered last.
    preferred: Arc<AtomicUsize>,
    watcher: Watcher,
    /// How long questions about the cluster and changes of it may take in all.
    timeout: Option<Duration>,
}

/// A stored write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// What the write had seen, and the write itself; none where a delete found nothing.
    pub context: Option<Context>,
    /// What it stands on.
    pub acks: Acks,
}

/// A completed [`Client::update`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Updated {
    /// What was read and merged.
    pub read: Siblings,
    /// The write of the result.
    pub written: Written,
}

impl Client {
    /// A client of the cluster whose nodes, some or all, serve HTTP at `endpoints`. The first is tried first.
    ///
    /// # Errors
    /// If there is no endpoint, or one is not of the form `http://host:port` or `host:port`.
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

    /// The same client, which tells `watcher` of each attempt that it makes, also of those that another node makes up for. Of a
    /// request whose future is dropped the attempt under way is not told of.
    #[must_use]
    pub fn watched(self, watcher: impl Fn(&Attempt<'_>) + Send + Sync + 'static) -> Self {
        Self { watcher: Watcher(Some(Arc::new(watcher))), ..self }
    }

    /// The same client, whose questions about the cluster and changes of it take no longer than `timeout` in all. Reads and writes of keys have
    /// [`Options`] of their own.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// If the key makes no sense, or no node could answer.
    pub async fn get(&self, bucket: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Siblings, Error> {
        self.get_with(bucket, key, &Options::default()).await
    }

    /// Reads a key in a certain way.
    ///
    /// # Errors
    /// As [`Self::get`], and if the options ask for more than the bucket offers.
    pub async fn get_with(
        &self,
        bucket: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
        options: &Options,
    ) -> Result<Siblings, Error> {
        let (path, query) = (http::kv_path(bucket.as_ref(), key.as_ref()), options.query('r'));
        let call = Call { context: options.seen.as_ref(), query: Some(query), ..Call::new(Method::GET, path, options) };
        let reply = self.carry_out(&call, None).await?;
        let (context, acks) = standing(&reply)?;
        let (values, deleted) = match reply.status {
            StatusCode::MULTIPLE_CHOICES => siblings::parse(&reply.body)?,
            StatusCode::NOT_FOUND => (Vec::new(), context.is_some()),
            _ => {
                let header = |name| reply.header(name).unwrap_or_default().to_owned();
                let (content_type, content_encoding) = (header("content-type"), header("content-encoding"));
                (vec![Value { bytes: reply.body, content_type, content_encoding }], false)
            }
        };
        Ok(Siblings { values, deleted, context, acks })
    }

    /// Reads a key as [`Self::get_with`] does, and gives what is there as nodes say it in JSON: a `context`, and `siblings`, of which there
    /// are none where nothing is stored.
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
        let reply = self.carry_out(&call, None).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(serde_json::json!({ "context": reply.header("cartwheel-context"), "siblings": [] }));
        }
        serde_json::from_slice(&reply.body)
            .map_err(|error| Error::Strange(format!("a list of siblings that cannot be read ({error})")))
    }

    /// Writes a key. With a context the write replaces what that context was shown; without one it stands beside whatever is
    /// there.
    ///
    /// # Errors
    /// If the write makes no sense or is too large, or too few nodes could store it: then it may yet appear.
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

    /// Writes a key in a certain way, and a value of a certain media type.
    ///
    /// # Errors
    /// As [`Self::put`], and if the options ask for more than the bucket offers.
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

    /// Deletes a key: with a context what that context was shown, without one what a get sees.
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

    /// Deletes a key in a certain way.
    ///
    /// # Errors
    /// As [`Self::delete`], and if the options ask for more than the bucket offers.
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

    /// Reads a key, has `merge` make one value of all that is there, and writes that in its place.
    ///
    /// Nothing is locked: another writer's value that appears meanwhile becomes a sibling of this one, and whoever reads next
    /// merges both. So `merge` must keep what it is given, as a union does, and bear being applied again.
    ///
    /// # Errors
    /// As [`Self::get`] and [`Self::put`].
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

    /// The members of the cluster, and what the node that answers thinks of each.
    ///
    /// # Errors
    /// If no node could answer.
    pub async fn cluster(&self) -> Result<ClusterStatus, Error> {
        self.ask("/v1/cluster".to_owned()).await
    }

    /// Since when the replicas of the node that answers are proven equal to those of the other homes.
    ///
    /// # Errors
    /// If no node could answer.
    pub async fn replicas(&self) -> Result<Replicas, Error> {
        self.ask("/v1/cluster/replicas".to_owned()).await
    }

    /// How the partitions are shared out.
    ///
    /// # Errors
    /// If no node could answer.
    pub async fn ring(&self) -> Result<Ring, Error> {
        self.ask("/v1/cluster/ring".to_owned()).await
    }

    /// What the disk of the node that answers holds of a partition: `limit` records at most, from the first one or `from`
    /// ([`DigestPage::next`], or a record's place) on. It makes sense for a client of one node.
    ///
    /// # Errors
    /// If the node could not answer.
    pub async fn digests(&self, partition: u32, from: Option<&str>, limit: usize) -> Result<DigestPage, Error> {
        let from = from.map_or_else(String::new, |from| format!("&from={from}"));
        self.ask(format!("/v1/cluster/partitions/{partition}/digests?limit={limit}{from}")).await
    }

    /// Where a key lies, whether or not it has a value.
    ///
    /// # Errors
    /// If the key makes no sense, or no node could answer.
    pub async fn locate(&self, bucket: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Location, Error> {
        self.ask(http::locate_path(bucket.as_ref(), key.as_ref())).await
    }

    /// How a bucket's keys are kept and served, whether or not it holds any.
    ///
    /// # Errors
    /// If the bucket's name makes no sense, or no node could answer.
    pub async fn bucket(&self, bucket: impl AsRef<[u8]>) -> Result<BucketSettings, Error> {
        self.ask(http::bucket_path(bucket.as_ref())).await
    }

    /// Changes some of a bucket's settings, and says what all of them are then.
    ///
    /// # Errors
    /// If the change makes no sense, or could not be saved: then it may yet appear.
    pub async fn set_bucket(&self, bucket: impl AsRef<[u8]>, change: &BucketChange) -> Result<BucketSettings, Error> {
        let bytes = serde_json::to_vec(change).unwrap_or_default();
        let value = Some(Value::new(bytes, "application/json"));
        self.ask_with(Method::PUT, http::bucket_path(bucket.as_ref()), value).await
    }

    /// What changes of the members would lead to.
    ///
    /// # Errors
    /// If they make no sense, or no node could answer.
    pub async fn plan_members(&self, changes: &[MemberChange]) -> Result<MembersPlan, Error> {
        self.members(serde_json::json!({ "changes": changes })).await
    }

    /// Makes changes of the members that were planned on this version of the cluster. Data moves in the background from then on.
    ///
    /// # Errors
    /// If they make no sense, or the cluster has changed since, or they could not be saved: then they may yet appear.
    pub async fn change_members(&self, changes: &[MemberChange], planned_on: &str) -> Result<MembersPlan, Error> {
        self.members(serde_json::json!({ "changes": changes, "planned_on": planned_on, "apply": true })).await
    }

    async fn members(&self, wanted: serde_json::Value) -> Result<MembersPlan, Error> {
        let bytes = wanted.to_string();
        let value = Some(Value::new(bytes, "application/json"));
        self.ask_with(Method::POST, "/v1/cluster/members".to_owned(), value).await
    }

    /// What is on its way to where it is wished.
    ///
    /// # Errors
    /// If no node could answer.
    pub async fn moves(&self) -> Result<Moves, Error> {
        self.ask("/v1/cluster/moves".to_owned()).await
    }

    /// The buckets whose settings were changed, and what all others have.
    ///
    /// # Errors
    /// If no node could answer.
    pub async fn buckets(&self) -> Result<Buckets, Error> {
        self.ask("/v1/buckets".to_owned()).await
    }

    async fn ask<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        self.ask_with(Method::GET, path, None).await
    }

    async fn ask_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        value: Option<Value>,
    ) -> Result<T, Error> {
        let options = Options { timeout: self.timeout, deadline: self.timeout, ..Options::default() };
        let call = Call { value, ..Call::new(method, path, &options) };
        let reply = self.carry_out(&call, None).await?;
        serde_json::from_slice(&reply.body).map_err(|error| Error::Strange(format!("what cannot be read ({error})")))
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
        // One name for all attempts: a write that was carried out, but whose answer got lost, makes no second sibling.
        let name = match &options.idempotency_key {
            Some(name) => name.clone(),
            None => {
                let mut random = [0; 16];
                getrandom::fill(&mut random)?;
                format!("{:032x}", u128::from_be_bytes(random))
            }
        };
        let (context, acks) = standing(&self.carry_out(call, Some(&name)).await?)?;
        Ok(Written { context, acks })
    }

    /// Makes attempts at one node after the other until one succeeds or it makes no sense to go on.
    async fn carry_out(&self, call: &Call<'_>, name: Option<&str>) -> Result<Reply, Error> {
        let endpoints = self.endpoints();
        let first = self.preferred.load(Ordering::Relaxed);
        let deadline = call.deadline.and_then(|within| Instant::now().checked_add(within));
        let mut tries = Tries::new(&self.budget, endpoints.len(), first, call.timeout, deadline);
        let mut strange = None;
        let mut last: Option<(Cause, String)> = None;
        loop {
            let (at, endpoint) = (tries.at(), &endpoints[tries.at()]);
            let (cause, busy_for) = match self.attempt(call, endpoint, name, &tries).await? {
                Ok(reply) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(reply);
                }
                // Some other program's port may be among those given.
                Err(Failure::Final(error @ Error::Strange(_))) if tries.others_wait() => {
                    strange = Some(error);
                    (Cause::Unreachable, None)
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Retry { cause, why, busy_for }) => {
                    if last.as_ref().is_none_or(|(known, _)| cause >= *known) {
                        last = Some((cause, format!("{endpoint}: {why}")));
                    }
                    (cause, busy_for)
                }
            };
            match tries.failed(cause, busy_for, retry::random()) {
                Next::After(pause) => tokio::time::sleep(pause).await,
                Next::GiveUp => break,
            }
        }
        // The next request begins elsewhere, so that where none is repeated any more, not all fail at one node.
        let next = (first + 1) % endpoints.len();
        let _ = self.preferred.compare_exchange(first, next, Ordering::Relaxed, Ordering::Relaxed);
        match (last, strange) {
            (Some((Cause::Unreachable, _)) | None, Some(strange)) => Err(strange),
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
        name: Option<&str>,
        tries: &Tries<'_>,
    ) -> Result<Result<Reply, Failure>, Error> {
        let (timeout, within) = call.times(tries);
        let request = call.request(endpoint, name, timeout)?;
        let begun = Instant::now();
        let (outcome, ended) = self.http.attempt(request, within).await;
        if let Watcher(Some(tell)) = &self.watcher {
            tell(&Attempt { endpoint, is_write: call.method != Method::GET, outcome, took: begun.elapsed() });
        }
        Ok(ended)
    }

    fn endpoints(&self) -> Arc<[String]> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the cluster's members, and from then on tries those too whose addresses were not given: what is asked of the cluster does not
    /// depend on a few of its nodes any more.
    ///
    /// # Errors
    /// If no node could answer.
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

/// A call of the contract, for whichever node.
struct Call<'a> {
    method: Method,
    path: String,
    context: Option<&'a Context>,
    value: Option<Value>,
    /// How long one node may take.
    timeout: Duration,
    /// How long all attempts may take.
    deadline: Option<Duration>,
    /// For a call that takes one: the query, but for the time that the node has.
    query: Option<String>,
    /// In which form the answer is wanted, where there are several.
    accept: Option<&'static str>,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: String, options: &'a Options) -> Self {
        let (timeout, deadline) = (options.timeout(), options.deadline);
        Self { method, path, context: None, value: None, timeout, deadline, query: None, accept: None }
    }

    /// How long the node may take over the next attempt, and how long to wait for its answer.
    fn times(&self, tries: &Tries<'_>) -> (Duration, Duration) {
        let within = self.timeout + http::GRACE;
        match tries.left() {
            Some(left) if !tries.others_wait() && left < within => (left.mul_f64(NODES_PART), left),
            Some(left) if tries.others_wait() && left / 2 < within => ((left / 2).mul_f64(NODES_PART), left / 2),
            _ => (self.timeout, within),
        }
    }

    fn request(&self, endpoint: &str, name: Option<&str>, timeout: Duration) -> Result<Request<Full<Bytes>>, Error> {
        let mut uri = format!("{endpoint}{}", self.path);
        if let Some(query) = &self.query {
            uri += &format!("?timeout_ms={}{query}", timeout.as_millis().max(1));
        }
        let mut request = Request::builder().method(self.method.clone()).uri(uri);
        if let Some(context) = self.context {
            request = request.header("cartwheel-context", context.encode());
        }
        if let Some(name) = name {
            request = request.header("idempotency-key", name);
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
            body = value.bytes.clone();
        }
        request.body(Full::new(body)).map_err(|error| Error::Refused {
            code: "bad_request".to_owned(),
            message: format!("the request cannot be put into HTTP: {error}"),
        })
    }
}

fn standing(reply: &Reply) -> Result<(Option<Context>, Acks), Error> {
    let context = match reply.header("cartwheel-context") {
        None => None,
        Some(text) => {
            let strange = || Error::Strange("a context that cannot be read".to_owned());
            Some(Context::decode(text).ok_or_else(strange)?)
        }
    };
    Ok((context, reply.header("cartwheel-acks").map(Acks::parse).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A node that gives every request the same answer, and how many it has seen.
    async fn node(answer: &'static str) -> (String, Arc<AtomicU32>) {
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
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
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
    async fn an_overloaded_cluster_is_asked_little_more_often_than_there_are_requests() {
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
    async fn a_node_that_asks_to_be_left_alone_is() {
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
    async fn a_port_of_another_program_is_passed_over() {
        let nodes = [node(ANOTHER_PROGRAM).await, node(DONE).await];
        client(&nodes).put("b", "k", "v", None).await.unwrap();
        let none = client(&nodes[..1]).put("b", "k", "v", None).await;
        assert!(matches!(none, Err(Error::Strange(_))), "{none:?}");
    }

    #[tokio::test]
    async fn members_that_were_asked_for_are_tried_when_the_first_is_gone() {
        let (endpoint, _) = node(DONE).await;
        let body = serde_json::json!({"cluster": "", "node": "a", "ring_version": "", "members": [{
            "name": "b", "id": "", "zone": "", "host": "", "http": endpoint, "resp": "", "peers": "", "weight": 100, "incarnation": "",
            "leaving": false, "state": "connected"
        }]});
        let body = body.to_string();
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new([listener.local_addr().unwrap().to_string()]).unwrap();
        // It answers once and is gone.
        let once = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4_096]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        client.learn_members().await.unwrap();
        once.await.unwrap();
        client.put("b", "k", "v", None).await.unwrap();
    }
}
