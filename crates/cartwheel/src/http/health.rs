//! Whether the node lives, and whether it is ready.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::NotReady;
use super::{Door, Readiness};

/// A good answer.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    /// `alive`, `ready`, or `disk_full`: ready for all but to store writes.
    status: &'static str,
    /// Which process answers: at an address that is taken, it may be another one than was expected.
    pid: u32,
}

fn status(status: &'static str) -> Json<Status> {
    Json(Status { status, pid: std::process::id() })
}

/// Whether the process should live on
#[utoipa::path(get, path = "/healthz", tag = "node",
    responses((status = 200, description = "It should", body = Status), NotReady))]
pub(super) async fn healthz(State(door): State<Door>) -> Result<Json<Status>, ApiError> {
    if door.is_running() {
        Ok(status("alive"))
    } else {
        Err(ApiError::unavailable("the node has stopped serving: see its log, then restart it"))
    }
}

/// Whether requests should be sent here
#[utoipa::path(get, path = "/readyz", tag = "node",
    responses((status = 200, description = "They should", body = Status), NotReady))]
pub(super) async fn readyz(State(door): State<Door>) -> Result<Json<Status>, ApiError> {
    match why_not_ready(&door) {
        None => Ok(status("ready")),
        // It still serves reads: were it left out, full disks would put an end to those too.
        Some(_) if door.is_running() && door.readiness() == Readiness::DiskFull => Ok(status("disk_full")),
        Some(why) => Err(ApiError::unavailable(why)),
    }
}

/// Why the node is not ready; none if it is.
pub(super) fn why_not_ready(door: &Door) -> Option<String> {
    if !door.is_running() {
        return Some("the node is stopping: ask another one".to_owned());
    }
    match door.readiness() {
        Readiness::Ready => None,
        Readiness::CannotStore => {
            Some("the node cannot store writes yet: it is new and has not heard from its cluster, or its timestamps could not be saved. \
                  See its log, and ask another node".to_owned())
        }
        Readiness::StoreFailed => Some(
            "store_failed: the node's disk has failed, and its store is being opened again. See its log, and ask another node"
                .to_owned(),
        ),
        Readiness::NameTaken => Some(
            "name_taken: another node of this name was let into the cluster at the same time, and is the member; this one is none. Stop \
             this one, keep its directory until the data is checked, and let it in anew with an empty directory and another name"
                .to_owned(),
        ),
        Readiness::DiskFull => Some(
            "disk_full: too little disk is free, so the node stores no writes; it serves reads. Free space there, or add nodes"
                .to_owned(),
        ),
        Readiness::Connecting => {
            let peers = door.board().peers().into_iter().filter_map(|peer| {
                let link = peer.link();
                let why = link.last_error.map_or_else(String::new, |error| format!(" ({error})"));
                (!link.connected).then(|| format!("{}{why}", peer.name))
            });
            let peers: Vec<String> = peers.collect();
            let peers = if peers.is_empty() { String::new() } else { format!(": waiting for {}", peers.join(", ")) };
            Some(format!("the node has just started{peers}. Try again in a moment, or ask another one"))
        }
    }
}
