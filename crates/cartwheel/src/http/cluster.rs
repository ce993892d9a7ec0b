//! `/v1/cluster/...`, and whether the node lives and is ready.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cartwheel_core::membership::ViewMember;
use cartwheel_core::ring::Replica;
use serde::Serialize;

use super::Door;
use super::error::ApiError;
use super::target::{self, key_of};

const LOCATE: &str = "/v1/cluster/locate/";

/// What a client needs to find a key's homes by itself.
#[derive(Serialize)]
pub(super) struct RingForm {
    version: String,
    partitions: u32,
    /// The position of each partition's owner among the members.
    owners: Vec<usize>,
    members: Vec<MemberForm>,
}

#[derive(Serialize)]
struct MemberForm {
    name: String,
    id: String,
    zone: String,
    host: String,
    http: String,
    resp: String,
    peers: String,
}

/// `GET /v1/cluster/ring`.
pub(super) async fn ring(State(door): State<Door>) -> Json<RingForm> {
    let ring = &door.view.ring;
    // Members come sorted by id.
    let ids: Vec<_> = door.view.members().map(|member| member.member.id).collect();
    let position = |owner| ids.binary_search(owner).unwrap_or(usize::MAX);
    Json(RingForm {
        version: ring.version().to_string(),
        partitions: ring.partitions().count(),
        owners: ring.owners().iter().map(position).collect(),
        members: door.view.members().map(member).collect(),
    })
}

fn member(ViewMember { member, .. }: &ViewMember) -> MemberForm {
    MemberForm {
        name: member.name.clone(),
        id: member.id.to_string(),
        zone: member.zone.clone(),
        host: member.host.clone(),
        http: member.http_addr.clone(),
        resp: member.resp_addr.clone(),
        peers: member.peer_addr.clone(),
    }
}

/// Where a key lies.
#[derive(Serialize)]
pub(super) struct LocationForm {
    /// In hexadecimal.
    token: String,
    partition: u32,
    /// Homes first, then who stands in for them, in that order.
    preference_list: Vec<ReplicaForm>,
}

#[derive(Serialize)]
struct ReplicaForm {
    node: String,
    role: &'static str,
}

/// `GET /v1/cluster/locate/{bucket}/{key}`.
pub(super) async fn locate(State(door): State<Door>, uri: Uri) -> Result<Json<LocationForm>, ApiError> {
    let key = key_of(LOCATE, uri.path())?;
    let partition = door.view.ring.partition_of(key.token());
    let n = door.view.settings(key.bucket()).n;
    let form = |replica: Replica| ReplicaForm {
        node: door.view.member(replica.node()).map_or_else(String::new, |known| known.member.name.clone()),
        role: match replica {
            Replica::Home(_) => "home",
            Replica::StandIn(_) => "standin",
        },
    };
    Ok(Json(LocationForm {
        token: key.token().to_string(),
        partition: partition.0,
        preference_list: door.view.ring.preference_list(partition, usize::from(n)).map(form).collect(),
    }))
}

/// A path that ends where the bucket should begin.
pub(super) async fn no_key() -> ApiError {
    target::no_key(LOCATE)
}

#[derive(Serialize)]
pub(super) struct Status {
    status: &'static str,
    /// Which process answers: at an address that is taken, it may be another one than was expected.
    pid: u32,
}

fn status(status: &'static str) -> Json<Status> {
    Json(Status { status, pid: std::process::id() })
}

/// `GET /healthz`: whether the process should live on.
pub(super) async fn healthz(State(door): State<Door>) -> Result<Json<Status>, ApiError> {
    if door.shard.is_running() {
        Ok(status("alive"))
    } else {
        Err(ApiError::unavailable("the node has stopped serving: see its log, then restart it"))
    }
}

/// `GET /readyz`: whether requests should be sent here.
pub(super) async fn readyz(State(door): State<Door>) -> Result<Json<Status>, ApiError> {
    if *door.ready.borrow() && door.shard.is_running() {
        Ok(status("ready"))
    } else {
        Err(ApiError::unavailable("the node is starting or stopping: ask another one, or try again in a moment"))
    }
}
