//! `/v1/buckets/...`: the settings of buckets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode, Uri};
use axum::{Extension, Json};
use bytes::Bytes;
use cartwheel_core::cluster::membership::{
    BucketForm as Form, BucketRole, BucketSettings, Conflict, Durability, SettingsPatch,
};
use cartwheel_core::control::{NewForm, SettingsChange};
use cartwheel_core::ring::quorum::majority;
use cartwheel_core::value::key::{KEY_BYTES_MAX, Placement, check_bucket};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::access::AuditDetail;
use super::error::ApiError;
use super::openapi::{ChangeErrors, QueryErrors};
use super::query::Query;
use super::{ApiState, headers, target};
use crate::access::Principal;
use crate::backend::ring::PlacementForm;
use crate::config;
use crate::percent;

/// The prefix of the path of a call on a bucket.
const BUCKETS: &str = "/v1/buckets/";
/// More than all settings together take.
const BODY_BYTES_MAX: usize = 4_096;
/// How long the nodes have to say how large buckets are.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);

/// A bucket's settings.
#[derive(Serialize, ToSchema)]
pub(super) struct SettingsForm {
    /// How many nodes keep each key.
    n: u8,
    /// How many nodes answer a get.
    r: u8,
    /// How many nodes acknowledge a put.
    w: u8,
    /// How concurrent writes are shown to readers.
    #[schema(inline)]
    conflict: ConflictForm,
    /// Whether stand-ins take writes for homes that cannot be reached.
    sloppy: bool,
    /// When a node acknowledges a write.
    #[schema(inline)]
    durability: DurabilityForm,
    /// The largest value, in bytes.
    max_value_bytes: u32,
    /// Which part of a key's name decides its place on the ring; left out if it is the whole name.
    #[schema(inline)]
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<PlacementForm>,
    /// False if nodes keep no index of the bucket's keys, which then cannot be listed; else left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<bool>,
    /// Which settings the present cluster cannot honour, and what to do; left out if it can.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// A bucket, its settings and its size.
#[derive(Serialize, ToSchema)]
pub(super) struct BucketForm {
    /// Its name, percent-encoded.
    bucket: String,
    #[serde(flatten)]
    settings: SettingsForm,
    /// How many keys have a value; left out while it is not known. Values that have expired count until they are collected.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    /// The bytes of these keys and their values, once, however many replicas there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

/// The buckets that hold data or have settings of their own.
#[derive(Serialize, ToSchema)]
pub(super) struct BucketsForm {
    /// The settings of every other bucket.
    defaults: SettingsForm,
    /// The buckets, by name.
    buckets: Vec<BucketForm>,
}

/// The settings to change; the others stay as they are.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct PatchForm {
    /// 1 to 16. Replicas of existing keys follow in the background; see `/v1/cluster/transfers`.
    #[serde(default, deserialize_with = "named")]
    n: Option<u8>,
    /// 1 to n.
    #[serde(default, deserialize_with = "named")]
    r: Option<u8>,
    /// 1 to n.
    #[serde(default, deserialize_with = "named")]
    w: Option<u8>,
    #[schema(inline)]
    #[serde(default, deserialize_with = "named")]
    conflict: Option<ConflictForm>,
    #[serde(default, deserialize_with = "named")]
    sloppy: Option<bool>,
    #[schema(inline)]
    #[serde(default, deserialize_with = "named")]
    durability: Option<DurabilityForm>,
    /// 1 to 16777216.
    #[serde(default, deserialize_with = "named")]
    max_value_bytes: Option<u32>,
    /// Only while the bucket holds no keys.
    #[schema(inline)]
    #[serde(default, deserialize_with = "named")]
    placement: Option<PlacementForm>,
    /// Only while the bucket holds no keys.
    #[serde(default, deserialize_with = "named")]
    index: Option<bool>,
}

/// Parses a field that is present. Null is an error: it would change nothing and look as if it did.
fn named<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ConflictForm {
    /// All of them.
    Siblings,
    /// The latest one (last write wins).
    Lww,
}

#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum DurabilityForm {
    /// Once it is synced to disk.
    Fsync,
    /// Once the operating system has it.
    Os,
}

fn placement_of(form: PlacementForm) -> Result<Placement, ApiError> {
    match form {
        PlacementForm::Name => Ok(Placement::Name),
        PlacementForm::Slot => Ok(Placement::Slot),
        PlacementForm::Prefix(bytes) if (1..=KEY_BYTES_MAX).contains(&usize::from(bytes)) => {
            Ok(Placement::Prefix(bytes))
        }
        PlacementForm::Prefix(bytes) => {
            Err(ApiError::bad_request(format!("a placement by {bytes} bytes is invalid: use 1 to {KEY_BYTES_MAX}")))
        }
    }
}

/// List the buckets that hold data or have settings of their own, and the defaults
#[utoipa::path(get, path = "/v1/buckets", tag = "buckets",
    responses((status = 200, description = "The buckets and the defaults", body = BucketsForm), QueryErrors))]
pub(super) async fn list(
    State(api): State<ApiState>,
    requester: Option<Extension<Arc<Principal>>>,
    uri: Uri,
) -> Result<Json<BucketsForm>, ApiError> {
    Query::none(uri.query())?;
    let view = api.view();
    // Until all partitions are counted, sizes are left out.
    let sizes = api.bucket_sizes(COUNTED_WITHIN).await.ok();
    let mut names: BTreeSet<&Bytes> = view.buckets().map(|(name, _)| name).collect();
    names.extend(view.emptied().map(|(name, _)| name));
    names.extend(sizes.iter().flat_map(|sizes| sizes.keys()));
    // A user learns nothing of buckets that it may not read.
    if let Some(requester) = requester {
        names.retain(|name| requester.user().has(BucketRole::Read, name));
    }
    let form = |name: &Bytes| {
        let size = sizes.as_ref().map(|sizes| sizes.get(name).copied().unwrap_or_default());
        BucketForm {
            bucket: percent::encode(name),
            settings: settings_form(&api, view.settings(name), view.form(name)),
            keys: size.map(|size| size.keys),
            bytes: size.map(|size| size.bytes),
        }
    };
    Ok(Json(BucketsForm {
        defaults: settings_form(&api, &BucketSettings::default(), Form::FIRST),
        buckets: names.into_iter().map(form).collect(),
    }))
}

/// Get a bucket's settings, whether or not it holds data
#[utoipa::path(get, path = "/v1/buckets/{bucket}", tag = "buckets",
    params(("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes")),
    responses((status = 200, description = "The bucket's settings", body = SettingsForm), QueryErrors))]
pub(super) async fn get(State(api): State<ApiState>, uri: Uri) -> Result<Json<SettingsForm>, ApiError> {
    let bucket = bucket_in(uri.path())?;
    Query::none(uri.query())?;
    let view = api.view();
    Ok(Json(settings_form(&api, view.settings(&bucket), view.form(&bucket))))
}

/// Change the settings that the body names
#[utoipa::path(put, path = "/v1/buckets/{bucket}", tag = "buckets",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")
    ),
    request_body = PatchForm,
    responses(
        (status = 200, description = "The new settings; this node has saved them and sends them to the others", body = SettingsForm),
        ChangeErrors
    ))]
pub(super) async fn put(
    State(api): State<ApiState>,
    request: HttpRequest<Body>,
) -> Result<(Extension<AuditDetail>, Json<SettingsForm>), ApiError> {
    let (parts, body) = request.into_parts();
    let bucket = bucket_in(parts.uri.path())?;
    let timeout = Query::parse(parts.uri.query(), &["timeout_ms"])?.timeout;
    let text = read_change(&parts.headers, body, timeout).await?;
    let patch = PatchForm::parse(&text)?;
    let detail = AuditDetail(serde_json::from_slice(&text).unwrap_or_default());
    let empties = new_form(&api, &bucket, &patch, timeout).await?;
    let change = SettingsChange { bucket: bucket.clone(), settings: patch.into(), empties, timeout };
    let changed = api.change(change).await?;
    Ok((Extension(detail), Json(settings_form(&api, &changed.settings, api.view().form(&bucket)))))
}

/// The form that a patch gives to a bucket, if it is another one. A bucket that holds keys keeps its form: they would have to move.
async fn new_form(
    api: &ApiState,
    bucket: &Bytes,
    patch: &PatchForm,
    timeout: Duration,
) -> Result<Option<NewForm>, ApiError> {
    let form = api.view().form(bucket);
    let placement = patch.placement.map_or(Ok(form.generation.placement), placement_of)?;
    let is_indexed = patch.index.unwrap_or(form.is_indexed);
    if (placement, is_indexed) == (form.generation.placement, form.is_indexed) {
        return Ok(None);
    }
    let sizes = api.bucket_sizes(timeout).await?;
    if let Some(size) = sizes.get(bucket).filter(|size| size.keys > 0) {
        return Err(ApiError::bad_request(format!(
            "the bucket holds {} keys, and its placement and index can be changed only while it holds none: delete the bucket first, or use another one",
            size.keys
        )));
    }
    Ok(Some(NewForm { placement, is_indexed }))
}

/// Delete all keys of a bucket
///
/// The bucket is empty at once for every node that knows it, and nothing of what it held comes back. Its settings stay. The space is freed in the
/// background.
#[utoipa::path(delete, path = "/v1/buckets/{bucket}", tag = "buckets",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")
    ),
    responses(
        (status = 204, description = "Empty; this node has saved it and sends it to the others"),
        ChangeErrors
    ))]
pub(super) async fn delete(State(api): State<ApiState>, uri: Uri, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    let bucket = bucket_in(uri.path())?;
    let query = Query::parse(uri.query(), &["timeout_ms"])?;
    // It has no body, and browsers ask before they send a DELETE from elsewhere.
    headers::refuse_other_than_json(&headers)?;
    api.empty_bucket(bucket, query.timeout).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl PatchForm {
    fn parse(text: &[u8]) -> Result<Self, ApiError> {
        let bad = |why: &str| {
            ApiError::bad_request(format!(
                "the body is not a JSON object of settings ({why}): give some of n, r, w, conflict, sloppy, durability, \
                 max_value_bytes, placement, index"
            ))
        };
        // serde would also accept an array of all settings in order.
        if text.trim_ascii_start().first() == Some(&b'[') {
            return Err(bad("it is an array"));
        }
        serde_json::from_slice(text).map_err(|error| bad(&error.to_string()))
    }
}

/// Reads the body of a change, which must be declared as JSON.
pub(super) async fn read_change(headers: &HeaderMap, body: Body, within: Duration) -> Result<Bytes, ApiError> {
    headers::require_json(headers)?;
    match tokio::time::timeout(within, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(text)) => Ok(text.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(format!(
            "the body has more than {BODY_BYTES_MAX} bytes: send fewer changes at once"
        ))),
        Ok(Err(_)) => Err(ApiError::bad_request("the body did not arrive whole: send it again")),
        Err(_) => Err(ApiError::bad_request(format!(
            "the body did not arrive within {} ms: send it again",
            within.as_millis()
        ))),
    }
}

/// A path without a bucket.
pub(super) async fn no_bucket() -> ApiError {
    ApiError::bad_request(format!("the path names no bucket: it is {BUCKETS}{{bucket}}"))
}

/// A path with more than a bucket.
pub(super) async fn more_than_a_bucket() -> ApiError {
    ApiError::bad_request("the path names more than a bucket: a slash in its name is written %2F")
}

/// The bucket in the raw path of a call on it.
pub(super) fn bucket_in(path: &str) -> Result<Bytes, ApiError> {
    let encoded = path.strip_prefix(BUCKETS).unwrap_or_default();
    let bucket = target::decode(encoded)?;
    check_bucket(&bucket).map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(bucket)
}

fn settings_form(api: &ApiState, settings: &BucketSettings, form: Form) -> SettingsForm {
    let BucketSettings { n, r, w, conflict, sloppy, durability, max_value_bytes } = *settings;
    let conflict = match conflict {
        Conflict::Siblings => ConflictForm::Siblings,
        Conflict::Lww => ConflictForm::Lww,
    };
    let durability = match durability {
        Durability::NodeDefault => api.durability().into(),
        Durability::Fsync => DurabilityForm::Fsync,
        Durability::Os => DurabilityForm::Os,
    };
    let warnings = warnings(settings, api.view().ring.nodes().len());
    let placement = Some(form.generation.placement).filter(|&placement| placement != Placement::Name);
    let (placement, index) = (placement.map(Into::into), (!form.is_indexed).then_some(false));
    SettingsForm { n, r, w, conflict, sloppy, durability, max_value_bytes, placement, index, warnings }
}

/// The settings that a cluster with `nodes` data nodes cannot honour.
fn warnings(settings: &BucketSettings, nodes: usize) -> Vec<String> {
    let BucketSettings { n, r, w, .. } = *settings;
    let is_more = |count: u8| usize::from(count) > nodes;
    let mut warnings = Vec::new();
    if is_more(n) {
        let keys = format!("n={n}, but the cluster has {nodes} data nodes, so each key has {nodes} replicas");
        warnings.push(format!("{keys}: add nodes, or set a smaller n"));
    }
    if is_more(r) {
        warnings.push(format!("gets fail: r={r}, but there are {nodes} data nodes; add nodes, or set a smaller r"));
    }
    if is_more(w) {
        warnings.push(format!("puts fail: w={w}, but there are {nodes} data nodes; add nodes, or set a smaller w"));
    }
    if majority(n.into()) > nodes {
        let needed = majority(n.into());
        warnings
            .push(format!("strong requests fail: they need {needed} of n={n} replicas; add nodes, or set a smaller n"));
    }
    warnings
}

impl From<config::Durability> for DurabilityForm {
    fn from(durability: config::Durability) -> Self {
        match durability {
            config::Durability::Fsync => Self::Fsync,
            config::Durability::Os => Self::Os,
        }
    }
}

impl From<PatchForm> for SettingsPatch {
    fn from(form: PatchForm) -> Self {
        let PatchForm { n, r, w, conflict, sloppy, durability, max_value_bytes, .. } = form;
        let conflict = conflict.map(|conflict| match conflict {
            ConflictForm::Siblings => Conflict::Siblings,
            ConflictForm::Lww => Conflict::Lww,
        });
        let durability = durability.map(|durability| match durability {
            DurabilityForm::Fsync => Durability::Fsync,
            DurabilityForm::Os => Durability::Os,
        });
        Self { n, n_by_versions: false, r, w, conflict, sloppy, durability, max_value_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_the_cluster_cannot_honour_get_warnings() {
        let of = |n, r, w| warnings(&BucketSettings { n, r, w, ..BucketSettings::default() }, 3);
        assert!(of(3, 3, 3).is_empty());
        assert!(matches!(&of(5, 3, 3)[..], [n] if n.contains("each key has 3 replicas")));
        assert!(matches!(&of(5, 4, 5)[..], [_, r, w] if r.starts_with("gets fail") && w.starts_with("puts fail")));
        assert!(matches!(&of(16, 2, 2)[..], [_, strong] if strong.contains("they need 9 of n=16")));
    }
}
