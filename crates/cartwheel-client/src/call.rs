//! One request: its form, the nodes that it goes to, and the attempts that are made at them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};

use crate::attempt::{Attempt, Watcher};
use crate::hedge;
use crate::http::{self, Failure, Response};
use crate::retry::{self, Next, Tries};
use crate::router::Targets;
use crate::{Acks, Cause, Client, Consistency, Context, Error, Options, Value};

/// The node's share of the remaining time; its response needs the rest to arrive.
const NODE_TIME_SHARE: f64 = 0.8;

/// A key and its bucket.
#[derive(Clone, Copy)]
pub(crate) struct KeyName<'a> {
    bucket: &'a [u8],
    key: &'a [u8],
}

/// A request of the HTTP API, apart from the node that it goes to.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The key that the request is about, if it is about one.
    pub(crate) key: Option<KeyName<'a>>,
    pub(crate) context: Option<&'a Context>,
    pub(crate) value: Option<Value>,
    /// How long one node may take.
    pub(crate) timeout: Duration,
    /// How long all attempts together may take.
    pub(crate) deadline: Option<Duration>,
    /// The query without `timeout_ms`, for requests that take one.
    pub(crate) query: Option<String>,
    /// The media type of the response, where there are several.
    pub(crate) accept: Option<&'static str>,
    /// Whether two nodes may be asked at once.
    pub(crate) may_hedge: bool,
}

impl<'a> KeyName<'a> {
    pub(crate) fn new(bucket: &'a impl AsRef<[u8]>, key: &'a impl AsRef<[u8]>) -> Self {
        Self { bucket: bucket.as_ref(), key: key.as_ref() }
    }
}

impl<'a> Call<'a> {
    /// A request that is not about a key.
    pub(crate) fn new(method: Method, path: String, options: &Options) -> Self {
        Self {
            method,
            path,
            key: None,
            context: None,
            value: None,
            timeout: options.timeout(),
            deadline: options.deadline,
            query: None,
            accept: None,
            may_hedge: false,
        }
    }

    /// A request about `key`.
    pub(crate) fn of_key(method: Method, key: KeyName<'a>, options: &Options) -> Self {
        let is_read = method == Method::GET;
        Self {
            key: Some(key),
            query: Some(options.query(if is_read { 'r' } else { 'w' })),
            // Two strong reads of one key at once would have their coordinators compete for agreement.
            may_hedge: is_read && options.consistency == Consistency::Eventual,
            ..Self::new(method, http::kv_path(key.bucket, key.key), options)
        }
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

impl Client {
    /// Makes attempts at one node after another until one succeeds or none can.
    pub(crate) async fn execute(&self, call: &Call<'_>, idempotency_key: Option<&str>) -> Result<Response, Error> {
        let deadline = call.deadline.and_then(|within| Instant::now().checked_add(within));
        let targets = self.targets(call).await;
        let (count, first) = (targets.endpoints.len(), targets.first);
        let mut tries = Tries::new(&self.budget, count, first, call.timeout, deadline);
        let mut unexpected = None;
        let mut last: Option<(Cause, String)> = None;
        loop {
            let (at, endpoint) = (tries.at(), &targets.endpoints[tries.at()]);
            let (cause, retry_after) = match self.attempt_hedged(call, &targets, idempotency_key, &tries).await {
                Ok(response) => {
                    if !targets.is_routed {
                        self.preferred.store(at, Ordering::Relaxed);
                    }
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
        if !targets.is_routed {
            // The next request begins at another node. Otherwise, once the retry budget is spent, all requests would fail at this one.
            let next = (first + 1) % count;
            let _ = self.preferred.compare_exchange(first, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        match (last, unexpected) {
            (Some((Cause::Unreachable, _)) | None, Some(unexpected)) => Err(unexpected),
            (last, _) => {
                let (cause, last) = last.unwrap_or((Cause::Unreachable, String::new()));
                Err(Error::Unavailable { attempts: tries.attempts(), last, cause })
            }
        }
    }

    /// The nodes for a request: by the ring if the request is about a key and the ring is known, the endpoints otherwise.
    async fn targets(&self, call: &Call<'_>) -> Targets {
        let endpoints = self.endpoints();
        if let (Some(router), Some(KeyName { bucket, key })) = (&self.router, call.key) {
            let within = call.deadline.map_or(call.timeout, |deadline| call.timeout.min(deadline / 2));
            if let Some(targets) = router.targets((bucket, key), &self.http, &endpoints, within).await {
                return targets;
            }
        }
        let first = self.preferred.load(Ordering::Relaxed);
        Targets { endpoints: endpoints.to_vec(), first, is_routed: false, second_home: None }
    }

    /// Makes an attempt at the next node. If the first attempt at a get takes long, a second home is asked too.
    async fn attempt_hedged(
        &self,
        call: &Call<'_>,
        targets: &Targets,
        idempotency_key: Option<&str>,
        tries: &Tries<'_>,
    ) -> Result<Response, Failure> {
        let times = call.times(tries);
        let attempt = |at: usize| self.attempt(call, &targets.endpoints[at], idempotency_key, times);
        let (Some(router), Some(second)) = (&self.router, targets.second_home) else {
            return attempt(tries.at()).await;
        };
        if !call.may_hedge || tries.attempts() > 0 {
            return attempt(tries.at()).await;
        }
        let hedging = &router.hedging;
        let begun = Instant::now();
        let result = match hedging.begin() {
            None => attempt(tries.at()).await,
            Some(delay) => {
                let hedge = || hedging.may_hedge().then(|| attempt(second));
                hedge::race(attempt(tries.at()), delay, hedge, is_final).await
            }
        };
        if result.is_ok() {
            hedging.record(begun.elapsed());
        }
        result
    }

    async fn attempt(
        &self,
        call: &Call<'_>,
        endpoint: &Arc<str>,
        idempotency_key: Option<&str>,
        (timeout, within): (Duration, Duration),
    ) -> Result<Response, Failure> {
        let request = call.request(endpoint, idempotency_key, timeout).map_err(Failure::Final)?;
        let begun = Instant::now();
        let (outcome, ended) = self.http.attempt(request, within).await;
        if let Watcher(Some(callback)) = &self.watcher {
            callback(&Attempt { endpoint, is_write: call.method != Method::GET, outcome, took: begun.elapsed() });
        }
        if let (Some(router), Some(_)) = (&self.router, call.key)
            && router.ended(endpoint, &ended)
        {
            router.refresh(&self.http, &self.endpoints(), true);
        }
        ended
    }
}

/// Whether another node would return the same: a response, or a refusal of the request as such.
fn is_final(result: &Result<Response, Failure>) -> bool {
    matches!(result, Ok(_) | Err(Failure::Final(Error::Refused { .. })))
}

pub(crate) fn context_and_acks(response: &Response) -> Result<(Option<Context>, Acks), Error> {
    let context = match response.header("cartwheel-context") {
        None => None,
        Some(text) => {
            let unreadable = || Error::UnexpectedResponse("an unreadable context".to_owned());
            Some(Context::decode(text).ok_or_else(unreadable)?)
        }
    };
    Ok((context, response.header("cartwheel-acks").map(Acks::parse).unwrap_or_default()))
}
