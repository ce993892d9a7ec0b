use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;

use crate::attempt::{Attempt, Watcher};
use crate::http::{self, Failure, Http, Reply};
use crate::siblings;
use crate::{
    Acks, BadEndpoint, BucketChange, BucketSettings, Buckets, ClusterStatus, Context, DigestPage, Error, Location,
    MemberChange, MembersPlan, Moves, Options, Replicas, Ring, Siblings, Value,
};

/// How often each endpoint is tried before a request is given up.
const ROUNDS: u32 = 3;
/// How long to wait between rounds.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(100);

/// How often an update reads at most.
const UPDATES_MAX: u32 = 3;
/// With these refusals a write says that what it had read is not enough to go by: too much has appeared beside a key that was
/// absent, or the context was given out before the cluster's secret changed.
const READ_AGAIN: [&str; 2] = ["too_many_siblings", "bad_context"];

/// A client of one cluster. Clones share its connections.
///
/// Requests go to one node; when it cannot be reached or is overloaded, they go to the next, and stay there. A write that is
/// tried again is the same write to the cluster, whichever node it went to first.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
    endpoints: Arc<[String]>,
    /// The endpoint that answered last.
    preferred: Arc<AtomicUsize>,
    watcher: Watcher,
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
    /// If there is no endpoint, or one is not of the form `http://host:port`.
    pub fn new<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        let endpoints: Arc<[String]> =
            endpoints.into_iter().map(|endpoint| http::parse_endpoint(endpoint.as_ref())).collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(BadEndpoint::None.into());
        }
        Ok(Self { http: Http::new(), endpoints, preferred: Arc::default(), watcher: Watcher::default() })
    }

    /// The same client, which tells `watcher` of each attempt that it makes, also of those that another node makes up for. Of a
    /// request whose future is dropped the attempt under way is not told of.
    #[must_use]
    pub fn watched(self, watcher: impl Fn(&Attempt<'_>) + Send + Sync + 'static) -> Self {
        Self { watcher: Watcher(Some(Arc::new(watcher))), ..self }
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
        let path = http::kv_path(bucket.as_ref(), key.as_ref()) + &options.query('r');
        let call =
            Call { method: Method::GET, path, context: options.seen.as_ref(), value: None, timeout: options.timeout() };
        let reply = self.carry_out(&call, None).await?;
        let (context, acks) = standing(&reply)?;
        let (values, deleted) = match reply.status {
            StatusCode::MULTIPLE_CHOICES => siblings::parse(&reply.body)?,
            StatusCode::NOT_FOUND => (Vec::new(), context.is_some()),
            _ => {
                let content_type = reply.header("content-type").unwrap_or_default().to_owned();
                (vec![Value { bytes: reply.body, content_type }], false)
            }
        };
        Ok(Siblings { values, deleted, context, acks })
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
        let value = Value { bytes: value.into(), content_type: "application/octet-stream".to_owned() };
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
        let path = http::kv_path(bucket.as_ref(), key.as_ref()) + &options.query('w');
        let call = Call { method: Method::PUT, path, context, value: Some(value), timeout: options.timeout() };
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
        let path = http::kv_path(bucket.as_ref(), key.as_ref()) + &options.query('w');
        let call = Call { method: Method::DELETE, path, context, value: None, timeout: options.timeout() };
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
        let bytes = serde_json::to_vec(change).unwrap_or_default().into();
        let value = Some(Value { bytes, content_type: "application/json".to_owned() });
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
        let bytes = wanted.to_string().into();
        let value = Some(Value { bytes, content_type: "application/json".to_owned() });
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
        let call = Call { method, path, context: None, value, timeout: Options::default().timeout() };
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

    /// Makes attempts at one node after the other until one succeeds or none can.
    async fn carry_out(&self, call: &Call<'_>, name: Option<&str>) -> Result<Reply, Error> {
        let count = self.endpoints.len();
        let (mut attempts, mut last) = (0, String::new());
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(BETWEEN_ROUNDS * round).await;
            }
            let first = self.preferred.load(Ordering::Relaxed);
            for offset in 0..count {
                let at = (first + offset) % count;
                attempts += 1;
                match self.attempt(call, &self.endpoints[at], name).await? {
                    Ok(reply) => {
                        self.preferred.store(at, Ordering::Relaxed);
                        return Ok(reply);
                    }
                    Err(Failure::Retry(why)) => last = format!("{}: {why}", self.endpoints[at]),
                    Err(Failure::Final(error)) => return Err(error),
                }
            }
        }
        Err(Error::Unavailable { attempts, last })
    }

    async fn attempt(
        &self,
        call: &Call<'_>,
        endpoint: &str,
        name: Option<&str>,
    ) -> Result<Result<Reply, Failure>, Error> {
        let request = call.request(endpoint, name)?;
        let begun = Instant::now();
        let (outcome, ended) = self.http.attempt(request, call.timeout).await;
        if let Watcher(Some(tell)) = &self.watcher {
            tell(&Attempt { endpoint, is_write: call.method != Method::GET, outcome, took: begun.elapsed() });
        }
        Ok(ended)
    }
}

/// A call of the contract, for whichever node.
struct Call<'a> {
    method: Method,
    path: String,
    context: Option<&'a Context>,
    value: Option<Value>,
    timeout: Duration,
}

impl Call<'_> {
    fn request(&self, endpoint: &str, name: Option<&str>) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder().method(self.method.clone()).uri(format!("{endpoint}{}", self.path));
        if let Some(context) = self.context {
            request = request.header("cartwheel-context", context.encode());
        }
        if let Some(name) = name {
            request = request.header("idempotency-key", name);
        }
        let mut body = Bytes::new();
        if let Some(value) = &self.value {
            request = request.header("content-type", &value.content_type);
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
