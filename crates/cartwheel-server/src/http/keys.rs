//! `GET /v1/kv/{bucket}`: the keys of a bucket, page by page.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cartwheel_core::message::listing::KEYS_MAX;
use cartwheel_core::value::key::{KEY_BYTES_MAX, check_bucket};
use cartwheel_core::value::position::Position;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::ReadErrors;
use super::query::Query;
use super::{ApiState, target};
use crate::backend::listing::KeysWanted;

/// How many keys a page has unless the client says otherwise.
const LIMIT_DEFAULT: usize = 100;

/// A page of a bucket's keys.
#[derive(Serialize, ToSchema)]
pub(super) struct KeysForm {
    /// The keys in the order of their tokens, each percent-encoded as in the path of a request on it; slashes stay as they are.
    keys: Vec<String>,
    /// What to give as `cursor` for the next page; left out on the last page. A page may have fewer keys than the limit, or none, and still not be
    /// the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// List the keys of a bucket
///
/// A key that is there from the first page to the last is listed once. One that is written or deleted meanwhile may be listed or not.
#[utoipa::path(get, path = "/v1/kv/{bucket}", tag = "keys",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("prefix" = Option<String>, Query, description = "Only keys that begin with these percent-encoded bytes"),
        ("limit" = Option<u32>, Query, description = "The most keys on a page, 1 to 1000; default 100"),
        ("cursor" = Option<String>, Query, description = "The `cursor` of the page before"),
        ("r" = Option<u8>, Query, description = "How many replicas of each partition are asked; default 1"),
        ("timeout_ms" = Option<u32>, Query, description = "1 to 60000; default 5000")
    ),
    responses((status = 200, description = "A page of keys", body = KeysForm), ReadErrors))]
pub(super) async fn list(State(api): State<ApiState>, uri: Uri) -> Result<Json<KeysForm>, ApiError> {
    let bucket = target::decode(uri.path().strip_prefix(target::KV).unwrap_or_default())?;
    check_bucket(&bucket).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let query = Query::parse(uri.query(), &["prefix", "limit", "cursor", "r", "timeout_ms"])?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > KEYS_MAX as usize {
        return Err(ApiError::bad_request(format!("limit={limit} is invalid: give a number from 1 to {KEYS_MAX}")));
    }
    let prefix = query.prefix.unwrap_or_default();
    if prefix.len() > KEY_BYTES_MAX {
        return Err(ApiError::bad_request(format!(
            "the prefix is longer than any key: use up to {KEY_BYTES_MAX} bytes"
        )));
    }
    let wanted = KeysWanted {
        bucket,
        after: Position::from_bytes(query.cursor.unwrap_or_default()),
        prefix,
        limit,
        r: query.r.unwrap_or(1),
        timeout: query.timeout,
    };
    let page = api.keys(wanted).await?;
    Ok(Json(KeysForm {
        keys: page.keys.iter().map(|key| target::encode_key(key.name())).collect(),
        cursor: page.next.map(|next| URL_SAFE_NO_PAD.encode(next.as_bytes())),
    }))
}
