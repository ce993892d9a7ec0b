//! `/v1/cluster/drain`: whether the answering node drains before it is stopped.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request as HttpRequest, Uri};
use cartwheel_core::cluster::liveness::Status;
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::buckets::read_change;
use super::error::ApiError;
use super::openapi::{ChangeErrors, QueryErrors};
use super::query::Query;
use super::{ApiState, show};
use crate::backend::name_of;

/// Whether a node is to drain.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainChangeForm {
    /// True to drain, false to end it.
    draining: bool,
}

/// Whether the answering node drains, and what it still keeps for others.
#[derive(Serialize, ToSchema)]
pub(super) struct DrainForm {
    /// The name of the answering node.
    node: String,
    /// Whether it drains: it still serves, but is chosen last. It ends when the node is restarted.
    draining: bool,
    /// Since when, as RFC 3339; null if it does not drain.
    since: Option<String>,
    /// Whether it keeps no hints for members that can be reached: what it kept for them, they have.
    handed_over: bool,
    /// The hints that it keeps, by member.
    hints: Vec<OwedForm>,
}

/// The hints that a node keeps for one member.
#[derive(Serialize, ToSchema)]
struct OwedForm {
    /// The member's name.
    node: String,
    /// The number of records.
    records: u64,
    /// Their bytes.
    bytes: u64,
    /// Whether the member is down, so that the hints stay on the disk until it is back.
    down: bool,
}

/// Get whether this node drains
#[utoipa::path(get, path = "/v1/cluster/drain", tag = "cluster",
    responses((status = 200, description = "Whether it drains, and what it keeps for others", body = DrainForm), QueryErrors))]
pub(super) async fn get(State(api): State<ApiState>, uri: Uri) -> Result<Json<DrainForm>, ApiError> {
    Query::none(uri.query())?;
    Ok(Json(form(&api)))
}

/// Drain this node before it is stopped, or end that
#[utoipa::path(put, path = "/v1/cluster/drain", tag = "cluster",
    params(("timeout_ms" = Option<u64>, Query, description = "How long the client waits, 1 to 60000; default 5000")),
    request_body = DrainChangeForm,
    responses((status = 200, description = "Done: the node has told its peers", body = DrainForm), ChangeErrors))]
pub(super) async fn put(State(api): State<ApiState>, request: HttpRequest<Body>) -> Result<Json<DrainForm>, ApiError> {
    let (parts, body) = request.into_parts();
    let timeout = Query::parse(parts.uri.query(), &["timeout_ms"])?.timeout;
    let wanted: DrainChangeForm = serde_json::from_slice(&read_change(&parts.headers, body, timeout).await?)
        .map_err(|error| ApiError::bad_request(format!("the body is not {{\"draining\": true or false}}: {error}")))?;
    api.control().drain(wanted.draining).await?;
    if api.drain().set(wanted.draining) {
        match wanted.draining {
            true => info!("draining: peers and clients choose other nodes; a restart ends it"),
            false => info!("no longer draining"),
        }
    }
    Ok(Json(form(&api)))
}

fn form(api: &ApiState) -> DrainForm {
    let (view, liveness, drain) = (api.view(), api.liveness(), api.drain());
    let owed = api.hints().owed();
    let hints: Vec<OwedForm> = owed
        .iter()
        .filter(|(_, backlog)| backlog.records > 0)
        .map(|(&node, backlog)| OwedForm {
            node: name_of(&view, node),
            records: backlog.records,
            bytes: backlog.bytes,
            down: liveness.status(node) == Status::Down,
        })
        .collect();
    DrainForm {
        node: api.local().name.clone(),
        draining: drain.is_on(),
        since: drain.since().map(show::rfc3339),
        handed_over: hints.iter().all(|owed| owed.down),
        hints,
    }
}
