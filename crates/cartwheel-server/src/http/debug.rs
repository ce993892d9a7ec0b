//! `/v1/debug/...`: what a node does at the moment, for administrators.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::QueryErrors;
use super::query::Query;
use super::{ApiState, show};
use crate::memory;
use crate::peers;
use crate::shard::{self, Times};

/// How many partitions are listed.
const PARTITIONS_MAX: usize = 100;

/// The queues of a node.
#[derive(Serialize, ToSchema)]
pub(super) struct QueuesForm {
    /// The name of the answering node.
    node: String,
    /// The queues of each shard.
    shards: Vec<ShardForm>,
    /// The queues of the whole node.
    queues: Vec<QueueForm>,
}

/// A queue, with what is in it and what may be.
#[derive(Serialize, ToSchema)]
struct QueueForm {
    /// What it is called.
    name: &'static str,
    /// The peer that it leads to, if it leads to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// `items` or `bytes`.
    unit: &'static str,
    /// How much is in it.
    used: u64,
    /// How much may be in it; null if it is bounded by what leads to it.
    limit: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct ShardForm {
    /// The shard, from 0.
    shard: usize,
    /// Its queues.
    queues: Vec<QueueForm>,
    /// How long the oldest request of a client has been in the shard.
    oldest_request_ms: f64,
    /// For how long a commit has been under way; null if none is.
    commit_ms: Option<f64>,
    /// How long the shard's turns took in the last 10 to 20 seconds.
    turns: TimesForm,
}

/// How long something took.
#[derive(Serialize, ToSchema)]
struct TimesForm {
    /// How often it was done.
    count: u64,
    /// How long it took on average.
    mean_ms: f64,
    /// How long the longest took.
    longest_ms: f64,
}

/// The partitions whose requests took the longest.
#[derive(Serialize, ToSchema)]
pub(super) struct PartitionsForm {
    /// The name of the answering node.
    node: String,
    /// The slowest first, by the time that all their requests took together; at most 100.
    partitions: Vec<PartitionForm>,
}

#[derive(Serialize, ToSchema)]
struct PartitionForm {
    /// The partition.
    partition: u32,
    /// The shard that it belongs to.
    shard: usize,
    /// The names of its homes.
    homes: Vec<String>,
    /// How long requests of this node's clients for its keys took in the last 10 to 20 seconds. Reads from memory are not among them.
    requests: TimesForm,
}

/// The connections of a node.
#[derive(Serialize, ToSchema)]
pub(super) struct ConnectionsForm {
    /// The name of the answering node.
    node: String,
    /// Open connections of HTTP clients.
    http: u64,
    /// Open connections of Redis clients.
    resp: u64,
    /// The most connections of both.
    limit: u64,
    /// The connections to each peer.
    peers: Vec<PeerForm>,
}

#[derive(Serialize, ToSchema)]
struct PeerForm {
    /// The peer's name.
    peer: String,
    /// Whether the connection of this node's control is open.
    connected: bool,
    /// Since when it is, or is not, as RFC 3339.
    since: String,
    /// Why it is not open.
    last_error: Option<String>,
    /// The version of the protocol in use.
    protocol: Option<u32>,
    /// The peer's version.
    version: Option<String>,
    /// The peer's clock less this node's, in milliseconds, while messages come.
    clock_offset_ms: Option<i64>,
    /// Connections made to it since the node started.
    connects: u64,
    /// Messages sent to it.
    sent_messages: u64,
    /// Bytes of these.
    sent_bytes: u64,
    /// Messages received from it.
    received_messages: u64,
    /// Bytes of these.
    received_bytes: u64,
    /// Messages dropped instead of sent.
    dropped_messages: u64,
    /// Bytes that wait to be sent, over all connections to it.
    queued_bytes: u64,
}

/// List the queues of this node
///
/// Each with what is in it and what may be, and how long the turns of shards take. For administrators.
#[utoipa::path(get, path = "/v1/debug/queues", tag = "node",
    responses((status = 200, description = "The queues", body = QueuesForm), QueryErrors))]
pub(super) async fn queues(State(api): State<ApiState>, uri: Uri) -> Result<Json<QueuesForm>, ApiError> {
    Query::none(uri.query())?;
    let backend = api.backend();
    let mut shards = Vec::new();
    for (shard, report) in backend.shards.reports().await {
        let handle = &backend.shards.handles()[shard];
        let queues = vec![
            items("inbox", handle.waiting(), Some(shard::INBOX_MAX)),
            bytes("inbox_messages", handle.waiting_bytes() as u64, Some(handle.waiting_bytes_max() as u64)),
            items("requests_under_way", handle.under_way(), Some(handle.under_way_max())),
            items("requests_unanswered", report.requests, None),
            items("inputs_left", report.inputs_left, None),
            items("large_inputs", report.large_inputs, None),
            items("large_reads", report.large_reads, None),
            items("commits_waiting", report.commits_waiting, None),
            items("spans_open", report.open_spans, Some(shard::OPEN_SPANS_MAX)),
        ];
        let (oldest_request_ms, commit_ms) = (ms(report.oldest_request), report.commit_for.map(ms));
        shards.push(ShardForm { shard, queues, oldest_request_ms, commit_ms, turns: times(&report.turns) });
    }
    let metrics = api.metrics();
    let held = |gauge: &prometheus_client::metrics::gauge::Gauge| u64::try_from(gauge.get()).unwrap_or(0);
    let memory_max = Some(memory::BYTES_MAX as u64);
    let (control, control_max) = backend.control.waiting();
    let mut queues = vec![
        items("control", control, Some(control_max)),
        bytes("http_values", held(&metrics.http.value_bytes), memory_max),
        bytes("http_responses", held(&metrics.http.response_bytes), memory_max),
        bytes("resp_requests", held(&metrics.resp.request_bytes), memory_max),
        bytes("resp_replies", held(&metrics.resp.reply_bytes), memory_max),
    ];
    queues.extend(backend.tracer.waiting().map(|(spans, spans_max)| items("spans_waiting", spans, Some(spans_max))));
    for peer in api.board().peers() {
        let limit = Some((peer.queues() * peers::QUEUED_BYTES_MAX) as u64);
        queues.push(QueueForm { peer: Some(peer.name.clone()), ..bytes("peer", peer.queued_bytes() as u64, limit) });
    }
    Ok(Json(QueuesForm { node: api.local().name.clone(), shards, queues }))
}

/// List the slowest partitions
///
/// By the time that requests of this node's clients took. For administrators.
#[utoipa::path(get, path = "/v1/debug/partitions", tag = "node",
    responses((status = 200, description = "The partitions", body = PartitionsForm), QueryErrors))]
pub(super) async fn partitions(State(api): State<ApiState>, uri: Uri) -> Result<Json<PartitionsForm>, ApiError> {
    Query::none(uri.query())?;
    let (view, phases) = (api.view(), api.phases());
    let reports = api.backend().shards.reports().await.into_iter();
    let mut all: Vec<_> = reports
        .flat_map(|(shard, report)| {
            report.partitions.into_iter().map(move |(partition, times)| (shard, partition, times))
        })
        .collect();
    all.sort_by_key(|(_, partition, times)| (std::cmp::Reverse(times.total), *partition));
    let form = |(shard, partition, requests): (usize, cartwheel_core::ring::PartitionId, Times)| {
        let homes =
            phases.get(partition.index()).map(|phase| phase.homes(phase.counts().group_of(b""), |_| false).all());
        let name = |node| crate::backend::name_of(&view, node);
        PartitionForm {
            partition: partition.0,
            shard,
            homes: homes.unwrap_or_default().into_iter().map(name).collect(),
            requests: times(&requests),
        }
    };
    let partitions = all.into_iter().take(PARTITIONS_MAX).map(form).collect();
    Ok(Json(PartitionsForm { node: api.local().name.clone(), partitions }))
}

/// List the connections of this node
///
/// The number of those of clients, and those to each peer with what went through them. For administrators.
#[utoipa::path(get, path = "/v1/debug/connections", tag = "node",
    responses((status = 200, description = "The connections", body = ConnectionsForm), QueryErrors))]
pub(super) async fn connections(State(api): State<ApiState>, uri: Uri) -> Result<Json<ConnectionsForm>, ApiError> {
    use std::sync::atomic::Ordering::Relaxed;
    Query::none(uri.query())?;
    let now = api.board().now();
    let form = |peer: std::sync::Arc<peers::PeerStats>| {
        let link = peer.link();
        PeerForm {
            peer: peer.name.clone(),
            connected: link.connected,
            since: show::rfc3339(link.since),
            last_error: link.last_error,
            protocol: link.protocol.map(|protocol| protocol.0),
            version: link.version,
            clock_offset_ms: peer.clock_offset_ms(now),
            connects: peer.connects.load(Relaxed),
            sent_messages: peer.sent.messages.load(Relaxed),
            sent_bytes: peer.sent.bytes.load(Relaxed),
            received_messages: peer.received.messages.load(Relaxed),
            received_bytes: peer.received.bytes.load(Relaxed),
            dropped_messages: peer.dropped.load(Relaxed),
            queued_bytes: peer.queued_bytes() as u64,
        }
    };
    let open = |gauge: &prometheus_client::metrics::gauge::Gauge| u64::try_from(gauge.get()).unwrap_or(0);
    Ok(Json(ConnectionsForm {
        node: api.local().name.clone(),
        http: open(&api.metrics().http.connections),
        resp: open(&api.metrics().resp.connections),
        limit: api.backend().connections_max as u64,
        peers: api.board().peers().into_iter().map(form).collect(),
    }))
}

fn items(name: &'static str, used: usize, limit: Option<usize>) -> QueueForm {
    QueueForm { name, peer: None, unit: "items", used: used as u64, limit: limit.map(|limit| limit as u64) }
}

const fn bytes(name: &'static str, used: u64, limit: Option<u64>) -> QueueForm {
    QueueForm { name, peer: None, unit: "bytes", used, limit }
}

fn times(times: &Times) -> TimesForm {
    TimesForm { count: times.count, mean_ms: ms(times.mean()), longest_ms: ms(times.longest) }
}

fn ms(time: Duration) -> f64 {
    // To a microsecond.
    (time.as_secs_f64() * 1e6).round() / 1e3
}
