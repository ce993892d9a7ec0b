//! `/v1/backup/...`: what `cartwheel backup` reads and restores.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request as HttpRequest, Uri, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_core::cluster::configuration::{ConfigPhase, Home};
use cartwheel_core::cluster::membership::View;
use cartwheel_core::message::client::{Operation, Request, Restore};
use cartwheel_core::ring::PartitionId;
use cartwheel_core::store::record::Record;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::State as KeyState;
use cartwheel_core::wire::{CopiedRecord, decode_copies, encode_copies};
use futures_util::stream::{self, TryStreamExt as _};
use serde::Serialize;
use utoipa::ToSchema;

use super::digests::{bounds, partition_of};
use super::error::ApiError;
use super::headers::single;
use super::openapi::{CopyErrors, RestoreErrors};
use super::query::Query;
use super::{ApiState, body};
use crate::shard::{CopiesPage, CopiesRequest};

/// The prefix of the paths of the calls on a partition.
const PARTITIONS: &str = "/v1/backup/partitions/";
/// The media type of encoded records.
const RECORDS: &str = "application/vnd.cartwheel.records";
/// Where the next page of records begins.
const NEXT: HeaderName = HeaderName::from_static("cartwheel-next");
/// The most bytes of records that are restored at once: more than the state of a key can have.
const BATCH_BYTES_MAX: u32 = 224 << 20;
/// How many keys of a batch are restored at the same time.
const CONCURRENCY: usize = 32;

/// What a synced home holds of a partition.
#[derive(Serialize, ToSchema)]
pub(super) struct SumsForm {
    /// The name of the answering node.
    node: String,
    /// The id of the cluster, in hexadecimal.
    cluster: String,
    /// How many partitions the cluster has.
    partitions: u32,
    /// The keys of the partition, tombstones included.
    keys: u64,
    /// The bytes of these keys and their values.
    bytes: u64,
    /// The deepest level with sums. Level l divides the partition into 16^l ranges of tokens.
    depth: u8,
    /// The level of the sums: the one asked for, or `depth` if that is less.
    level: u8,
    /// The ranges that hold keys, in order.
    ranges: Vec<RangeForm>,
}

/// The sum over a range of a partition.
#[derive(Serialize, ToSchema)]
struct RangeForm {
    /// Its index in the level, from 0.
    range: u32,
    /// Its first storage key, as base64url.
    from: String,
    /// The storage key before which it ends, as base64url; left out at the end of the ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// The sum of its records' digests modulo 2^128, in hexadecimal. Equal sums mean equal contents.
    sum: String,
    /// Its keys.
    keys: u64,
}

/// How much was restored.
#[derive(Serialize, ToSchema)]
pub(super) struct RestoredForm {
    /// The keys of the batch, all of which are stored now.
    restored: usize,
}

/// Get the sums over a partition's records on the answering node
///
/// A backup copies only the ranges whose sums have changed. The node must be a synced home of all the partition's keys.
#[utoipa::path(get, path = "/v1/backup/partitions/{partition}", tag = "backup",
    params(
        ("partition" = u32, Path, description = "The partition, from 0"),
        ("level" = Option<u8>, Query, description = "The level of the sums, 0 (the default) to 3")
    ),
    responses((status = 200, description = "The sums", body = SumsForm), CopyErrors))]
pub(super) async fn sums(State(api): State<ApiState>, uri: Uri) -> Result<Json<SumsForm>, ApiError> {
    let partition = partition_of(&api.view(), uri.path(), (PARTITIONS, ""))?;
    let level = Query::parse(uri.query(), &["level"])?.level.unwrap_or(0);
    let (sums, grid) = api.partition_sums(partition, level).await.ok_or_else(|| no_copy(partition))?;
    let filled = (0..).zip(&sums.sums).filter(|(_, sum)| sum.keys > 0);
    let form = |(range, sum): (u32, &cartwheel_core::message::anti_entropy::Sum)| {
        let keys = grid.range(sums.level, range)?;
        Some(RangeForm {
            range,
            from: URL_SAFE_NO_PAD.encode(keys.from),
            until: keys.upto.map(|upto| URL_SAFE_NO_PAD.encode(upto)),
            sum: format!("{:032x}", sum.digests),
            keys: sum.keys,
        })
    };
    Ok(Json(SumsForm {
        node: api.local().name.clone(),
        cluster: cluster_of(&api),
        partitions: api.view().ring.partitions().count(),
        keys: sums.size.keys,
        bytes: sums.size.bytes,
        depth: sums.depth,
        level: sums.level,
        ranges: filled.filter_map(form).collect(),
    }))
}

/// Page through the records of a partition on the answering node
///
/// The body has records in the format of the chapter Backup. `Cartwheel-Next` says where the next page begins; it is absent on the last
/// one. Records without a value or a tombstone are left out, and so are those that the node holds for other nodes.
#[utoipa::path(get, path = "/v1/backup/partitions/{partition}/records", tag = "backup",
    params(
        ("partition" = u32, Path, description = "The partition, from 0"),
        ("from" = Option<String>, Query, description = "Where to begin: `from` of a range, or `Cartwheel-Next` of an earlier page"),
        ("until" = Option<String>, Query, description = "Where to end: `until` of a range")
    ),
    responses(
        (status = 200, description = "A page of records", content_type = "application/vnd.cartwheel.records"),
        CopyErrors
    ))]
pub(super) async fn records(State(api): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let view = api.view();
    let partition = partition_of(&view, uri.path(), (PARTITIONS, "/records"))?;
    let query = Query::parse(uri.query(), &["from", "until"])?;
    api.admits_any()?;
    let (start, end) = bounds(view.ring.partitions(), partition);
    let from = query.from.unwrap_or_else(|| start.clone());
    let until = query.until.or_else(|| end.clone());
    let is_within = |key: &Bytes| *key >= start && end.as_ref().is_none_or(|end| key <= end);
    if !is_within(&from) || !until.as_ref().is_none_or(is_within) {
        return Err(ApiError::bad_request(format!(
            "from or until lies outside partition {partition}: leave them out to read all of it"
        )));
    }
    let page = api.copies(partition, CopiesRequest { from, end: until }).await.ok_or_else(|| no_copy(partition))?;
    let held = api.responses().take(page.records.iter().map(|(_, record)| record.len()).sum())?;
    let copies = copies_of(&api, &view, partition, &page)?;
    let bytes = encode_copies(copies.iter().map(|(key, state)| (&key[..], state)));
    drop(held);
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(RECORDS))]);
    if let Some(next) = page.next.and_then(|next| HeaderValue::try_from(URL_SAFE_NO_PAD.encode(next)).ok()) {
        headers.insert(NEXT, next);
    }
    Ok((headers, api.responses().hold(bytes)?).into_response())
}

/// Merge records of a backup into their replicas
///
/// Each record is merged as if a replica that was long away delivered it. Writes that the cluster knows to be replaced or deleted stay so,
/// and newer ones stay. The same batch may be sent again. A key belongs to the present generation of its bucket, whatever it belonged to in
/// the backup. If any key could not be stored, the response is an error, and some of the others are stored.
#[utoipa::path(post, path = "/v1/backup/records", tag = "backup",
    params(
        ("cluster" = Option<String>, Query, description = "The id of the cluster that was backed up, in hexadecimal"),
        ("timeout_ms" = Option<u32>, Query, description = "For each key, 1 to 60000; default 5000")
    ),
    request_body(content_type = "application/vnd.cartwheel.records"),
    responses((status = 200, description = "All are stored", body = RestoredForm), RestoreErrors))]
pub(super) async fn restore(
    State(api): State<ApiState>,
    request: HttpRequest<Body>,
) -> Result<Json<RestoredForm>, ApiError> {
    let (parts, mut body) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["cluster", "timeout_ms"])?;
    if single(&parts.headers, &header::CONTENT_TYPE)?.is_none_or(|given| given != RECORDS) {
        return Err(ApiError::unsupported_media_type(format!("records of a backup are {RECORDS}: set Content-Type")));
    }
    let batch = body::read(api.values(), &parts.headers, &mut body, BATCH_BYTES_MAX, query.timeout).await?;
    let malformed = |error| ApiError::bad_request(format!("the body has no records of a backup ({error})"));
    let copies = decode_copies(batch.bytes.clone()).map_err(malformed)?;
    let is_ours = query.cluster.is_none_or(|cluster| cluster == cluster_of(&api));
    let restored = copies.len();
    let all = copies.into_iter().map(|copy| if is_ours { copy } else { copy.for_another_cluster() });
    stream::iter(all.map(|copy| Ok(restore_key(&api, copy, query.timeout))))
        .try_buffer_unordered(CONCURRENCY)
        .try_collect::<Vec<()>>()
        .await?;
    drop(batch.held);
    Ok(Json(RestoredForm { restored }))
}

async fn restore_key(api: &ApiState, copy: CopiedRecord, timeout: Duration) -> Result<(), ApiError> {
    let key = api.view().key(copy.key.bucket().clone(), copy.key.name().clone());
    let key = key.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let (place, timeout) = api.admit(&key, timeout).await?;
    // Its values share the buffer of the batch, which the replica may keep for long.
    let operation = Operation::Restore(Restore { key, state: copy.state.detached() });
    api.request(Request { operation, timeout }, Some(place)).await.map(drop)
}

/// The records of a page that the backup needs: those of which this node is a home.
fn copies_of(
    api: &ApiState,
    view: &View,
    partition: PartitionId,
    page: &CopiesPage,
) -> Result<Vec<(Bytes, KeyState)>, ApiError> {
    let phases = api.phases();
    let current = phases.get(partition.index()).map(ConfigPhase::current).ok_or_else(|| no_copy(partition))?;
    let me = Home { node: api.local().node, incarnation: api.local().incarnation };
    let mut copies = Vec::with_capacity(page.records.len());
    for (storage_key, record) in &page.records {
        let key = Key::from_storage_key(storage_key).map_err(|_| no_copy(partition))?;
        if view.is_superseded(&key) || !current.is_home(me, current.counts.group_of(key.bucket())) {
            continue;
        }
        let record = Record::decode(record, storage_key).map_err(|_| no_copy(partition))?;
        if record.header.recovering.is_some() {
            return Err(no_copy(partition));
        }
        if record.state.siblings().len() > 0 {
            copies.push((storage_key.clone(), record.state));
        }
    }
    Ok(copies)
}

fn no_copy(partition: PartitionId) -> ApiError {
    ApiError::unavailable(format!(
        "this node cannot copy partition {partition} now: it is no home of all its keys, is not synced yet, has lost or damaged records, or still builds \
         its Merkle trees: ask another home, or try again later"
    ))
}

fn cluster_of(api: &ApiState) -> String {
    format!("{:032x}", api.local().cluster.0)
}
