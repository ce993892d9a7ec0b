//! `/v1/cluster/replicas`: since when replicas are verified equal.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cartwheel_core::cluster::sizes::TreeId;
use cartwheel_core::value::hlc::WallMs;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::QueryErrors;
use super::query::Query;
use super::{ApiState, show};

/// How a node's replicas compare with those of the other homes.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplicasForm {
    /// The name of the answering node.
    node: String,
    /// All that this node or another home of the same partition knew at this time, both hold, as RFC 3339; null while an exchange with one of
    /// them has never completed.
    equal_since: Option<String>,
    /// The number of replicas with which no exchange has completed.
    unproven: usize,
    /// One entry for each partition of the node and each other home of it.
    replicas: Vec<ReplicaForm>,
}

#[derive(Serialize, ToSchema)]
struct ReplicaForm {
    /// The partition.
    partition: u32,
    /// The group of keys: those of buckets with this n.
    n: u8,
    /// The name of the other home.
    peer: String,
    /// All that either home held at this time, both hold, as RFC 3339; null if never verified.
    equal_since: Option<String>,
}

/// List since when this node's replicas are verified equal to those of the other homes
#[utoipa::path(get, path = "/v1/cluster/replicas", tag = "cluster",
    responses((status = 200, description = "The results of anti-entropy exchanges", body = ReplicasForm), QueryErrors))]
pub(super) async fn replicas(State(api): State<ApiState>, uri: Uri) -> Result<Json<ReplicasForm>, ApiError> {
    Query::none(uri.query())?;
    let mut proofs = api.proofs().await;
    proofs.sort_unstable_by_key(|proof| (proof.tree, proof.peer));
    let unproven = proofs.iter().filter(|proof| proof.since.is_none()).count();
    let oldest = proofs.iter().filter_map(|proof| proof.since).min();
    let view = api.view();
    let phases = api.phases();
    let n_of = |tree: TreeId| {
        let phase = phases.get(tree.partition.index());
        phase.map_or(0, |phase| phase.counts().n_of(tree.group))
    };
    let form = |proof: cartwheel_core::anti_entropy::ReplicaProof| ReplicaForm {
        partition: proof.tree.partition.0,
        n: n_of(proof.tree),
        peer: view.member(proof.peer).map_or_else(|| proof.peer.to_string(), |known| known.member.name.clone()),
        equal_since: proof.since.map(rfc3339),
    };
    Ok(Json(ReplicasForm {
        node: api.local().name.clone(),
        equal_since: oldest.filter(|_| unproven == 0).map(rfc3339),
        unproven,
        replicas: proofs.into_iter().map(form).collect(),
    }))
}

fn rfc3339(wall: WallMs) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(wall.0));
    show::rfc3339(time.unwrap_or(SystemTime::UNIX_EPOCH))
}
