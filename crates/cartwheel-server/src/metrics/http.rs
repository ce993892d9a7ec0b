use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::shard::latency_buckets;

/// The operation of a request on a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the labels' values")]
pub enum KeyOperation {
    /// A read of a key.
    get,
    /// A write of a key.
    put,
    /// A delete of a key.
    delete,
}

/// The outcome of a request: `ok`, `siblings`, a code of the contract's errors, or `client_gone`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outcome(pub &'static str);

impl Outcome {
    /// That of nearly every request.
    pub const OK: Self = Self("ok");
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RequestLabels {
    operation: KeyOperation,
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OperationLabels {
    operation: KeyOperation,
}

type Histograms = Family<OperationLabels, Histogram, fn() -> Histogram>;

/// The metrics of the API server. Clones count together.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Histograms,
    /// What nearly every request needs of the two, by operation: to look it up would cost more than to count.
    usual: [(Counter, Histogram); 3],
    siblings: Histogram,
    /// Open connections.
    pub connections: Gauge,
    /// Accepted connections.
    pub accepted: Counter,
    /// Bytes of values that are arriving or waiting to be stored.
    pub value_bytes: Gauge,
    /// Bytes of responses that wait for clients to read them.
    pub response_bytes: Gauge,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        // The bucket above 4 holds five to eight siblings.
        let siblings = [1.0, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
        let requests = Family::<RequestLabels, Counter>::default();
        let durations: Histograms = Family::new_with_constructor(|| Histogram::new(latency_buckets()));
        let usual = [KeyOperation::get, KeyOperation::put, KeyOperation::delete].map(|operation| {
            let succeeded = requests.get_or_create(&RequestLabels { operation, outcome: Outcome::OK.0 }).clone();
            (succeeded, durations.get_or_create(&OperationLabels { operation }).clone())
        });
        Self {
            requests,
            durations,
            usual,
            siblings: Histogram::new(siblings),
            connections: Gauge::default(),
            accepted: Counter::default(),
            value_bytes: Gauge::default(),
            response_bytes: Gauge::default(),
        }
    }
}

impl HttpMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Requests on keys, by operation and outcome";
        registry.register("requests", help, self.requests.clone());
        let help = "Time from a request's head to its response, including the arrival of a value";
        registry.register("request_duration_seconds", help, self.durations.clone());
        let help = "Siblings, including deletes, in the response to a read";
        registry.register("read_siblings", help, self.siblings.clone());
        registry.register("http_connections", "Open HTTP connections", self.connections.clone());
        registry.register("http_connections_accepted", "Accepted HTTP connections", self.accepted.clone());
        let help = "Memory held for values that are arriving or not stored yet";
        registry.register("http_value_bytes", help, self.value_bytes.clone());
        let help = "Memory held for responses that clients have not read yet";
        registry.register("http_answer_bytes", help, self.response_bytes.clone());
    }

    /// Counts a read that showed this many siblings.
    pub fn shown(&self, siblings: usize) {
        if siblings > 0 {
            self.siblings.observe(siblings as f64);
        }
    }

    /// Begins to time a request. If it is dropped before it ends, its client has gone.
    pub fn begin(&self, operation: KeyOperation) -> Timed<'_> {
        Timed { metrics: self, operation, begun: Instant::now(), outcome: Outcome("client_gone") }
    }

    /// Counts a request that has begun then.
    pub fn ended(&self, operation: KeyOperation, outcome: Outcome, begun: Instant) {
        let (succeeded, durations) = &self.usual[operation as usize];
        if outcome == Outcome::OK {
            succeeded.inc();
        } else {
            self.requests.get_or_create(&RequestLabels { operation, outcome: outcome.0 }).inc();
        }
        durations.observe(begun.elapsed().as_secs_f64());
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Timed<'a> {
    metrics: &'a HttpMetrics,
    operation: KeyOperation,
    begun: Instant,
    outcome: Outcome,
}

impl Timed<'_> {
    /// Counts the request as ended.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.metrics.ended(self.operation, self.outcome, self.begun);
    }
}
