//! The node's liveness and readiness.

use axum::Json;
use axum::extract::State;
use cartwheel_core::cluster::liveness;
use cartwheel_core::value::dot::NodeId;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::error::ApiError;
use super::openapi::NotReady;
use crate::backend::Readiness;

/// The response of a healthy node.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    /// `alive`, `ready`, or `disk_full`: ready, except to store writes.
    status: &'static str,
    /// The answering process: another one than expected may have the address.
    pid: u32,
}

fn status(status: &'static str) -> Json<Status> {
    Json(Status { status, pid: std::process::id() })
}

/// Check whether the process should stay alive
#[utoipa::path(get, path = "/healthz", tag = "node",
    responses((status = 200, description = "It should", body = Status), NotReady))]
pub(super) async fn healthz(State(api): State<ApiState>) -> Result<Json<Status>, ApiError> {
    if api.is_running() {
        Ok(status("alive"))
    } else {
        Err(ApiError::unavailable("the node has stopped serving: see its log, then restart it"))
    }
}

/// Check whether requests should be sent to the node
#[utoipa::path(get, path = "/readyz", tag = "node",
    responses((status = 200, description = "They should", body = Status), NotReady))]
pub(super) async fn readyz(State(api): State<ApiState>) -> Result<Json<Status>, ApiError> {
    if api.drain().is_on() {
        return Err(ApiError::unavailable(
            "draining: the node is about to be stopped, and an administrator has drained it; ask another node",
        ));
    }
    match why_not_ready(&api) {
        None => Ok(status("ready")),
        // It still serves reads: without it, full disks would end those too.
        Some(_) if api.is_running() && api.readiness() == Readiness::DiskFull => Ok(status("disk_full")),
        Some(why) => Err(ApiError::unavailable(why)),
    }
}

/// Why the node is not ready; none if it is.
pub(super) fn why_not_ready(api: &ApiState) -> Option<String> {
    if !api.is_running() {
        return Some("the node is stopping: ask another one".to_owned());
    }
    match api.readiness() {
        Readiness::Ready => too_few_in_reach(api),
        Readiness::CannotStore => {
            Some("the node cannot store writes yet: it is new and has not heard from its cluster, or its timestamps could not be saved; \
            see its log, and ask another node".to_owned())
        }
        Readiness::StoreFailed => Some(
            "store_failed: the node's disk has failed, and its store is being opened again; see its log, and ask another node"
                .to_owned(),
        ),
        Readiness::NameTaken => Some(
            "name_taken: another node of this name joined the cluster at the same time and is the member; this node is not. Stop it, keep its \
            directory until the data is checked, and join again with an empty directory and another name"
                .to_owned(),
        ),
        Readiness::DiskFull => Some(
            "disk_full: too little disk space is free, so the node stores no writes; it serves reads; free space there, or add nodes"
                .to_owned(),
        ),
        Readiness::Connecting => {
            let peers = api.board().peers().into_iter().filter_map(|peer| {
                let link = peer.link();
                let why = link.last_error.map_or_else(String::new, |error| format!(" ({error})"));
                (!link.connected).then(|| format!("{}{why}", peer.name))
            });
            let peers: Vec<String> = peers.collect();
            let peers = if peers.is_empty() { String::new() } else { format!(": waiting for {}", peers.join(", ")) };
            Some(format!("the node has just started{peers}; try again in a moment, or ask another node"))
        }
    }
}

/// Why most keys cannot be read or written through this node with their buckets' settings; none if they can.
///
/// In sloppy buckets any W nodes are enough; in others W homes of a partition must be reachable. A node that has just started takes all
/// others as alive until they have not answered for some seconds.
fn too_few_in_reach(api: &ApiState) -> Option<String> {
    let (view, statuses) = (api.view(), api.liveness());
    let settings = view.settings(b"");
    let is_in_reach = |node: NodeId| node == api.local().node || statuses.status(node) != liveness::Status::Down;
    let members: Vec<_> = view.members().filter(|known| known.member.weight > 0).map(|known| &known.member).collect();
    let reached = members.iter().filter(|member| is_in_reach(member.id)).count();
    // A cluster with fewer nodes has yet to grow.
    let needed = usize::from(settings.w).min(members.len());
    let is_short = |homes: &[NodeId]| homes.iter().filter(|&&home| is_in_reach(home)).count() < needed.min(homes.len());
    let are_most_short = || {
        let partitions = view.ring.partitions();
        let short = partitions.iter().filter(|&of| is_short(view.ring.homes(of, usize::from(settings.n)))).count();
        2 * short > partitions.iter().count()
    };
    let is_too_few = if settings.sloppy { reached < needed } else { are_most_short() };
    is_too_few.then(|| {
        let gone = members.iter().filter(|member| !is_in_reach(member.id)).map(|member| member.name.as_str());
        let mut gone: Vec<_> = gone.collect();
        gone.sort_unstable();
        format!(
            "too few nodes can be reached: writes need {needed} by default, and {reached} of {} nodes can be reached ({} cannot); start them, \
            or repair the network; if their addresses have changed, see `cartwheel cluster set-address`",
            members.len(),
            gone.join(", ")
        )
    })
}
