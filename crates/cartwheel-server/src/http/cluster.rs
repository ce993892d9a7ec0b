//! `/v1/cluster/...`: the members, the ring, and the location of keys.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use cartwheel_core::cluster::configuration::ConfigPhase;
use cartwheel_core::cluster::liveness::PeerStatus;
use cartwheel_core::cluster::membership::{View, ViewMember};
use cartwheel_core::cluster::sizes::Backlog;
use cartwheel_core::control::EpochStatus;
use cartwheel_core::ring::PreferenceEntry;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::wire::{Protocol, Spoken};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::health::why_not_ready;
use super::openapi::QueryErrors;
use super::query::Query;
use super::target;
use super::{ApiState, show};
use crate::backend::ring::{MemberForm, RingForm, member, ring_of};
use crate::lifecycle::upgrade::UpgradeStatus;

const LOCATE: &str = "/v1/cluster/locate/";

/// A cluster, as the answering node sees it.
#[derive(Serialize, ToSchema)]
pub(super) struct ClusterForm {
    /// The cluster's id, in hexadecimal.
    cluster: String,
    /// The cluster's name; left out if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    cluster_name: String,
    /// The name of the answering node.
    node: String,
    /// The version of the history that the node uses. Nodes with the same version agree on members and ring.
    ring_version: String,
    /// The epoch, which paces the garbage collection of deletes.
    epoch: EpochForm,
    /// How far an upgrade of the cluster has come.
    protocol: ProtocolForm,
    /// The hints that the node keeps for other members.
    hints: HintsForm,
    /// Whether partitions have as many replicas as they should.
    replication: ReplicationForm,
    /// How often, since the node started, a key got two values with one version. Both are kept. Above 0 it is an alarm: a disk is broken, or
    /// two nodes run on copies of one data directory.
    dot_collisions: u64,
    /// The disk of the node's data directory; null if its file system does not answer.
    disk: Option<DiskForm>,
    /// The members, by id.
    members: Vec<StatusForm>,
}

/// The disk of a node's data directory.
#[derive(Serialize, ToSchema)]
struct DiskForm {
    /// The size of the file system, in bytes.
    bytes: u64,
    /// What is free, in bytes.
    free_bytes: u64,
    /// Below this much free space the node stores no writes.
    reserve_bytes: u64,
}

/// How many homes partitions have, as far as the node knows. Homes that are down count; homes that were removed or marked lost do not.
#[derive(Serialize, ToSchema)]
struct ReplicationForm {
    /// The largest n of any bucket.
    n: u8,
    /// How many members can hold data: their weight is above 0, and they are not leaving.
    data_nodes: usize,
    /// How many homes each partition should have: n, or the number of data nodes if that is less.
    target: usize,
    /// How many partitions have fewer homes than the target.
    under_replicated: usize,
    /// The number of homes of the partition with the fewest.
    fewest: usize,
}

/// The epoch of a cluster: the garbage of deletes is collected five epochs later. An epoch ends when all members have finished it.
#[derive(Serialize, ToSchema)]
struct EpochForm {
    /// Its number; 0 while the node does not know it.
    epoch: u64,
    /// When the node entered it, or started, as RFC 3339.
    since: String,
    /// The names of the members that have not finished it, as far as the node knows.
    waits_for: Vec<String>,
}

/// The versions of the protocol between nodes. A node uses the features of a newer version, in messages and on disk, once all members
/// speak that version.
#[derive(Serialize, ToSchema)]
struct ProtocolForm {
    /// The version in use: all members are known to speak it.
    in_use: u32,
    /// The newest that the node speaks.
    newest: u32,
    /// The names of the members that are not known to speak the newest version.
    waits_for: Vec<String>,
}

/// The versions of the protocol that a member speaks.
#[derive(Serialize, ToSchema)]
struct SpokenForm {
    /// The lowest.
    oldest: u32,
    /// The highest.
    newest: u32,
    /// The version in use on the answering node's connection to it; null for that node itself, and while there is no connection.
    used: Option<u32>,
}

/// The hints that a node keeps for other members.
#[derive(Serialize, ToSchema)]
struct HintsForm {
    /// The records, counted once for each member that is owed them.
    records: u64,
    /// Their bytes.
    bytes: u64,
    /// How many bytes of hints the node may keep.
    bytes_max: u64,
    /// Whether a shard keeps as many hints as it may, so that further ones go to other nodes.
    full: bool,
}

/// The hints that a node keeps for one member.
#[derive(Serialize, ToSchema)]
struct BacklogForm {
    /// The number of records.
    records: u64,
    /// Their bytes.
    bytes: u64,
}

/// A member, and its status as the answering node sees it.
#[derive(Serialize, ToSchema)]
pub(super) struct StatusForm {
    #[serde(flatten)]
    member: MemberForm,
    /// Its share of the data; 100 is normal.
    weight: u32,
    /// The incarnation of its data directory, in hexadecimal.
    incarnation: String,
    /// It was removed and hands over what it holds, or waits because too few members would remain.
    leaving: bool,
    /// It drains: it serves, but is about to be stopped, and is chosen last.
    draining: bool,
    /// `self`, `connected` or `disconnected`.
    state: &'static str,
    /// When this state began, as RFC 3339.
    since: Option<String>,
    /// For a disconnected node, the cause; for the answering node, why it is not ready.
    problem: Option<String>,
    /// How often its data directory has been opened, as it last reported.
    boot: Option<u32>,
    /// The version of its program, as it last reported.
    version: Option<String>,
    /// The versions of the protocol between nodes that it speaks, as it last reported.
    protocol: Option<SpokenForm>,
    /// Its liveness; null for the answering node, and until that node has probed it.
    liveness: Option<LivenessForm>,
    /// Its clock minus the answering node's, in milliseconds, if a message came from it in the last ten seconds or so.
    clock_offset_ms: Option<i64>,
    /// The hints that the answering node keeps for it; null for the answering node.
    hints: Option<BacklogForm>,
}

/// A member's liveness, as the answering node sees it.
#[derive(Serialize, ToSchema)]
struct LivenessForm {
    /// `alive`, `suspect` (it may be dead, paused, slow or cut off) or `down` (no node gets an answer from it).
    status: &'static str,
    /// When this status began, as RFC 3339.
    since: String,
    /// The reason, for people.
    why: String,
}

/// List the members, with their status as this node sees it
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster",
    responses((status = 200, description = "The cluster, as this node sees it", body = ClusterForm), QueryErrors))]
pub(super) async fn status(State(api): State<ApiState>, uri: Uri) -> Result<Json<ClusterForm>, ApiError> {
    Query::none(uri.query())?;
    let (view, local, owed) = (api.view(), api.local(), api.hints().owed());
    Ok(Json(ClusterForm {
        cluster: format!("{:032x}", local.cluster.0),
        cluster_name: local.cluster_name.clone(),
        node: local.name.clone(),
        ring_version: view.ring.version().to_string(),
        epoch: epoch(&api.epoch(), &view),
        protocol: protocol(&api.upgrade(), &view),
        hints: HintsForm {
            records: owed.values().map(|backlog| backlog.records).sum(),
            bytes: owed.values().map(|backlog| backlog.bytes).sum(),
            bytes_max: api.hints().bytes_max(),
            full: api.hints().full_shards() > 0,
        },
        replication: replication(&view, &api.phases()),
        dot_collisions: api.dot_collisions(),
        disk: disk(&api).await,
        members: view.members().map(|member| status_of(&api, member, &owed)).collect(),
    }))
}

async fn disk(api: &ApiState) -> Option<DiskForm> {
    let space = api.disk().space().await?;
    Some(DiskForm { bytes: space.total, free_bytes: space.free, reserve_bytes: api.disk().reserve_bytes(&space) })
}

fn replication(view: &View, phases: &[ConfigPhase]) -> ReplicationForm {
    let target = view.homes_wanted();
    let homes = || phases.iter().map(|phase| view.homes_left(phase));
    ReplicationForm {
        n: view.n_max(),
        data_nodes: view.data_nodes(),
        target,
        under_replicated: homes().filter(|&homes| homes < target).count(),
        fewest: homes().min().unwrap_or(0),
    }
}

fn epoch(status: &EpochStatus, view: &View) -> EpochForm {
    let since = show::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(status.since.0));
    EpochForm { epoch: status.epoch.0, since, waits_for: names(&status.waits_for, view) }
}

fn protocol(status: &UpgradeStatus, view: &View) -> ProtocolForm {
    let waits_for = names(&status.waits_for, view);
    ProtocolForm { in_use: status.all_speak.0, newest: Protocol::NEWEST.0, waits_for }
}

/// The names of members, sorted.
fn names<'a>(nodes: impl IntoIterator<Item = &'a NodeId>, view: &View) -> Vec<String> {
    let names = nodes.into_iter().filter_map(|&node| Some(view.member(node)?.member.name.clone()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn spoken(spoken: Spoken, used: Option<Protocol>) -> SpokenForm {
    SpokenForm { oldest: spoken.oldest.0, newest: spoken.newest.0, used: used.map(|used| used.0) }
}

fn status_of(api: &ApiState, known: &ViewMember, owed: &BTreeMap<NodeId, Backlog>) -> StatusForm {
    let (local, board) = (api.local(), api.board());
    let mut form = StatusForm {
        member: member(known),
        weight: known.member.weight,
        incarnation: format!("{:016x}", known.member.incarnation.0),
        leaving: known.leaving,
        draining: api.liveness().is_draining(known.member.id),
        state: "disconnected",
        since: None,
        problem: None,
        boot: None,
        version: None,
        protocol: None,
        liveness: api.liveness().get(known.member.id).map(liveness),
        clock_offset_ms: None,
        hints: None,
    };
    if known.member.id != local.node {
        let Backlog { records, bytes } = owed.get(&known.member.id).copied().unwrap_or_default();
        form.hints = Some(BacklogForm { records, bytes });
    }
    if known.member.id == local.node {
        form.state = "self";
        form.draining = api.drain().is_on();
        form.since = Some(show::rfc3339(api.opened()));
        form.problem = why_not_ready(api);
        (form.boot, form.version) = (Some(local.boot), Some(crate::VERSION.to_owned()));
        let oldest = api.upgrade().all_speak;
        form.protocol = Some(spoken(Spoken { oldest, ..Spoken::BY_THIS_BUILD }, None));
    } else if let Some(peer) = board.get(known.member.id) {
        let link = peer.link();
        form.state = if link.connected { "connected" } else { "disconnected" };
        form.since = Some(show::rfc3339(link.since));
        (form.problem, form.boot, form.version) = (link.last_error, link.boot, link.version);
        form.protocol = link.spoken.map(|range| spoken(range, link.protocol));
        form.clock_offset_ms = peer.clock_offset_ms(board.now());
    }
    form
}

fn liveness(peer: &PeerStatus) -> LivenessForm {
    LivenessForm {
        status: peer.status.name(),
        since: show::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(peer.since.0)),
        why: peer.why.to_string(),
    }
}

/// Get the ring, as ring-aware clients need it
#[utoipa::path(get, path = "/v1/cluster/ring", tag = "cluster",
    responses((status = 200, description = "The partitions, their owners and the members", body = RingForm), QueryErrors))]
pub(super) async fn ring(State(api): State<ApiState>, uri: Uri) -> Result<Json<RingForm>, ApiError> {
    Query::none(uri.query())?;
    Ok(Json(ring_of(&api.view(), &api.phases())))
}

/// The location of a key.
#[derive(Serialize, ToSchema)]
pub(super) struct LocationForm {
    /// The key's token, in hexadecimal.
    token: String,
    /// The partition that holds the token.
    partition: u32,
    /// Homes first, then stand-ins, in the order in which they are used.
    preference_list: Vec<ReplicaForm>,
}

#[derive(Serialize, ToSchema)]
struct ReplicaForm {
    /// The node's name.
    node: String,
    /// `home` or `standin`.
    role: &'static str,
}

/// Locate a key, whether or not it has a value
#[utoipa::path(get, path = "/v1/cluster/locate/{bucket}/{key}", tag = "cluster",
    params(
        ("bucket" = String, Path, description = "The bucket, percent-encoded: 1 to 255 bytes"),
        ("key" = String, Path, description = "The key, percent-encoded: 1 to 4096 bytes, slashes included")
    ),
    responses((status = 200, description = "Its token, partition and preference list", body = LocationForm), QueryErrors))]
pub(super) async fn locate(State(api): State<ApiState>, uri: Uri) -> Result<Json<LocationForm>, ApiError> {
    let key = api.key_of(LOCATE, uri.path())?;
    Query::none(uri.query())?;
    let view = api.view();
    let partition = view.ring.partition_of(key.token());
    let phases = api.phases();
    let homes = |phase: &ConfigPhase| phase.homes(phase.counts().group_of(key.bucket()), |_| false).all();
    let homes = phases.get(partition.index()).map(homes).unwrap_or_default();
    let name = |node: NodeId| view.member(node).map_or_else(String::new, |known| known.member.name.clone());
    let walk = view.ring.preference_list(partition, 0).map(PreferenceEntry::node).filter(|node| !homes.contains(node));
    let stand_ins = walk.map(|node| ReplicaForm { node: name(node), role: "standin" });
    let homes = homes.iter().map(|&node| ReplicaForm { node: name(node), role: "home" });
    Ok(Json(LocationForm {
        token: key.token().to_string(),
        partition: partition.0,
        preference_list: homes.chain(stand_ins).collect(),
    }))
}

/// A path without a bucket.
pub(super) async fn no_key() -> ApiError {
    target::no_key(LOCATE)
}
