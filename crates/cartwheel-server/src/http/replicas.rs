//! `/v1/cluster/replicas`: since when which replicas are proven equal.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cartwheel_core::cluster::sizes::TreeId;
use cartwheel_core::value::hlc::WallMs;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::AskErrors;
use super::query::Query;
use super::{Door, show};

/// How a node's replicas compare with those of the other homes.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplicasForm {
    /// The name of the node that answers.
    node: String,
    /// All that was known to this node or to another home of the same partition then, both hold, as RFC 3339; null as long as one
    /// comparison has never come to its end.
    equal_since: Option<String>,
    /// How many comparisons never have.
    unproven: usize,
    /// One for each partition of the node and each other home of it.
    replicas: Vec<ReplicaForm>,
}

#[derive(Serialize, ToSchema)]
struct ReplicaForm {
    /// The partition.
    partition: u32,
    /// The keys of buckets with so many replicas.
    n: u8,
    /// The name of the other home.
    peer: String,
    /// All that either held then, both hold, as RFC 3339; null if that was never shown.
    equal_since: Option<String>,
}

/// Since when this node's replicas are proven equal to those of the other homes
#[utoipa::path(get, path = "/v1/cluster/replicas", tag = "cluster",
    responses((status = 200, description = "What comparisons of replicas have shown", body = ReplicasForm), AskErrors))]
pub(super) async fn replicas(State(door): State<Door>, uri: Uri) -> Result<Json<ReplicasForm>, ApiError> {
    Query::none(uri.query())?;
    let mut proofs = door.proofs().await;
    proofs.sort_unstable_by_key(|proof| (proof.tree, proof.peer));
    let unproven = proofs.iter().filter(|proof| proof.since.is_none()).count();
    let oldest = proofs.iter().filter_map(|proof| proof.since).min();
    let view = door.view();
    let phases = door.phases();
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
        node: door.local().name.clone(),
        equal_since: oldest.filter(|_| unproven == 0).map(rfc3339),
        unproven,
        replicas: proofs.into_iter().map(form).collect(),
    }))
}

fn rfc3339(wall: WallMs) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(wall.0));
    show::rfc3339(time.unwrap_or(SystemTime::UNIX_EPOCH))
}
