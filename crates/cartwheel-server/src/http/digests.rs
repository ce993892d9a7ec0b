//! `/v1/cluster/partitions/{partition}/digests`: digests of the records of a partition on this node's disk.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_core::cluster::configuration::{ConfigPhase, Configuration};
use cartwheel_core::cluster::counts::ReplicaCounts;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::ring::{PartitionId, Partitions};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Key;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::error::ApiError;
use super::openapi::DiskErrors;
use super::query::Query;
use crate::backend::name_of;
use crate::shard::{DigestsRequest, HeldContent, HeldRecord, PAGE_RECORDS_MAX, Rest};

const PREFIX: &str = "/v1/cluster/partitions/";
const SUFFIX: &str = "/digests";

/// What a node's disk holds of a partition, in key order.
#[derive(Serialize, ToSchema)]
pub(super) struct DigestsForm {
    /// The name of the answering node.
    node: String,
    /// The version of the history that the node uses.
    ring_version: String,
    /// The names of the partition's possible homes: a key's homes are the first n of them.
    walk: Vec<String>,
    /// How many homes the partition has, for keys of the bucket with the largest n.
    homes: usize,
    /// How many homes it should have: the largest n, or the number of data nodes if that is less.
    homes_target: usize,
    /// The records.
    records: Vec<HeldForm>,
    /// Where the next page begins; none on the last page.
    next: Option<String>,
    /// The disk failed to read the records that follow. There is no next page then.
    unreadable: bool,
}

/// One record.
#[derive(Serialize, ToSchema)]
struct HeldForm {
    /// The storage key, as base64url: the key's token (16 bytes), the length of the bucket's name (one byte), bucket, key.
    storage_key: String,
    /// How many homes the key has.
    n: u8,
    /// Whether this node is one of them; otherwise it is a stand-in.
    home: bool,
    /// The digest of the contents, in hexadecimal: equal digests mean equal contents, zeros mean an empty record.
    digest: Option<String>,
    /// Why there is no digest.
    #[schema(inline)]
    problem: Option<ProblemForm>,
    /// The size of the record; 0 if it cannot be read.
    bytes: usize,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ProblemForm {
    /// The contents differ from what was written.
    Damaged,
    /// The disk failed to read it, or its format is unknown.
    Unreadable,
}

/// Page through the digests of a partition's records on the answering node's disk, for operators
///
/// `cartwheel verify` compares all nodes with it. Each page reads the records themselves, within a bound. It covers the answering node
/// only.
#[utoipa::path(get, path = "/v1/cluster/partitions/{partition}/digests", tag = "cluster",
    params(
        ("partition" = u32, Path, description = "The partition, from 0"),
        ("from" = Option<String>, Query, description = "Where to begin: `next` of an earlier page, or a record's `storage_key`"),
        ("limit" = Option<usize>, Query, description = "The largest number of records, at most 256")
    ),
    responses((status = 200, description = "A page of records", body = DigestsForm), DiskErrors))]
pub(super) async fn page(State(api): State<ApiState>, uri: Uri) -> Result<Json<DigestsForm>, ApiError> {
    let view = api.view();
    let partition = partition_of(&view, uri.path(), (PREFIX, SUFFIX))?;
    let query = Query::parse(uri.query(), &["from", "limit"])?;
    let (start, end) = bounds(view.ring.partitions(), partition);
    let from = query.from.unwrap_or_else(|| start.clone());
    if from < start || end.as_ref().is_some_and(|end| from >= *end) {
        return Err(ApiError::bad_request(format!(
            "from lies outside partition {partition}: leave it out to begin at the start"
        )));
    }
    let request = DigestsRequest { from, end, limit: query.limit.unwrap_or(PAGE_RECORDS_MAX) };
    let page = api.digests(partition, request).await.ok_or_else(|| {
        ApiError::unavailable("this node's store cannot be read now: see its log, and try again later")
    })?;
    let (phases, me) = (api.phases(), api.local().node);
    let phase = phases.get(partition.index());
    let current = phase.map(ConfigPhase::current);
    // After the homes of any key there may be nodes that have left.
    let homes = current.into_iter().flat_map(Configuration::homes_of_any);
    let walk: Vec<NodeId> = homes.map(|home| home.node).collect();
    let counts = current.map(|current| current.counts.clone()).unwrap_or_default();
    Ok(Json(DigestsForm {
        node: api.local().name.clone(),
        ring_version: view.ring.version().to_string(),
        walk: walk.iter().map(|&node| name_of(&view, node)).collect(),
        homes: phase.map_or(0, |phase| view.homes_left(phase)),
        homes_target: view.homes_wanted(),
        records: page.records.iter().map(|record| form(&counts, &walk, me, record)).collect(),
        next: if let Rest::From(next) = &page.rest { Some(URL_SAFE_NO_PAD.encode(next)) } else { None },
        unreadable: page.rest == Rest::Unreadable,
    }))
}

/// The partition in a path, between what comes before and after it.
pub(super) fn partition_of(view: &View, path: &str, (prefix, suffix): (&str, &str)) -> Result<PartitionId, ApiError> {
    let count = view.ring.partitions().count();
    let number = path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix)?.parse().ok());
    number.filter(|&number| number < count).map(PartitionId).ok_or_else(|| {
        ApiError::bad_request(format!("the path names no partition: give a number from 0 to {}", count - 1))
    })
}

/// The storage keys of a partition: the first one, and the first one after the partition, if it is not the last.
pub(super) fn bounds(partitions: Partitions, partition: PartitionId) -> (Bytes, Option<Bytes>) {
    let start = |partition| Bytes::copy_from_slice(&partitions.start(partition).to_bytes());
    let next = PartitionId(partition.0 + 1);
    (start(partition), (next.0 < partitions.count()).then(|| start(next)))
}

fn form(counts: &ReplicaCounts, walk: &[NodeId], me: NodeId, record: &HeldRecord) -> HeldForm {
    let HeldRecord { storage_key, held, bytes } = record;
    let n = counts.n(Key::bucket_of_storage_key(storage_key).unwrap_or_default());
    let (digest, problem) = match *held {
        HeldContent::Content(digest) => (Some(digest.to_string()), None),
        HeldContent::Damaged => (None, Some(ProblemForm::Damaged)),
        HeldContent::Unreadable => (None, Some(ProblemForm::Unreadable)),
    };
    let home = walk.iter().take(usize::from(n)).any(|&node| node == me);
    HeldForm { storage_key: URL_SAFE_NO_PAD.encode(storage_key), n, home, digest, problem, bytes: *bytes }
}
