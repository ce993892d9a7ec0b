//! `/v1/debug/log` and `/v1/debug/node`: what a support engineer asks of one node. For administrators only.

use std::fs;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::openapi::QueryErrors;
use super::query::Query;
use super::{ApiState, show};
use crate::log;

/// How many lines are given if the request does not say.
const LINES_DEFAULT: usize = 1_000;

/// The last lines of a node's log.
#[derive(Serialize, ToSchema)]
pub(super) struct LogForm {
    /// The name of the answering node.
    node: String,
    /// The lines as they were logged, the oldest first. The node keeps about a thousand, of its present process.
    lines: Vec<String>,
    /// How many lines could not be written to the log since the process began.
    lost: u64,
}

/// A node, its settings and its machine.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeForm {
    /// The name of the answering node.
    node: String,
    /// The version of its program.
    version: &'static str,
    /// The process.
    pid: u32,
    /// When its API server started, as RFC 3339.
    started: String,
    /// The settings in force, without secrets.
    settings: Vec<SettingForm>,
    /// The machine, as the process sees it.
    machine: MachineForm,
}

/// A setting in force.
#[derive(Serialize, ToSchema)]
struct SettingForm {
    /// Its name.
    name: &'static str,
    /// Its value, as text.
    value: String,
}

/// The machine of a node. What the system does not tell is null.
#[derive(Serialize, ToSchema)]
struct MachineForm {
    /// The operating system's name, release and architecture.
    system: String,
    /// How many processors the process may use.
    processors: usize,
    /// The memory of the machine, in bytes.
    memory_bytes: Option<u64>,
    /// The memory that programs could still get, in bytes.
    memory_available_bytes: Option<u64>,
    /// The limit of the process's group (cgroup v2), in bytes.
    memory_limit_bytes: Option<u64>,
    /// How many files the process may open.
    open_files_max: Option<u64>,
    /// The load of the last 1, 5 and 15 minutes.
    load: Option<String>,
    /// The size of the data directory's file system, in bytes.
    disk_bytes: Option<u64>,
    /// What is free of it, in bytes.
    disk_free_bytes: Option<u64>,
}

/// Get the last lines of the node's log
#[utoipa::path(get, path = "/v1/debug/log", tag = "node",
    params(("limit" = Option<usize>, Query, description = "The most lines; default 1000")),
    responses((status = 200, description = "The last lines, the oldest first", body = LogForm), QueryErrors))]
pub(super) async fn recent_log(State(api): State<ApiState>, uri: Uri) -> Result<Json<LogForm>, ApiError> {
    let limit = Query::parse(uri.query(), &["limit"])?.limit.unwrap_or(LINES_DEFAULT);
    Ok(Json(LogForm { node: api.local().name.clone(), lines: log::recent(limit), lost: log::lines_lost() }))
}

/// Get the node's settings and facts about its machine
#[utoipa::path(get, path = "/v1/debug/node", tag = "node",
    responses((status = 200, description = "The node", body = NodeForm), QueryErrors))]
pub(super) async fn node(State(api): State<ApiState>, uri: Uri) -> Result<Json<NodeForm>, ApiError> {
    Query::none(uri.query())?;
    let settings = api.settings().iter().map(|(name, value)| SettingForm { name, value: value.clone() }).collect();
    Ok(Json(NodeForm {
        node: api.local().name.clone(),
        version: crate::VERSION,
        pid: std::process::id(),
        started: show::rfc3339(api.opened()),
        settings,
        machine: machine(&api).await,
    }))
}

async fn machine(api: &ApiState) -> MachineForm {
    let space = api.disk().space().await;
    let system = rustix::system::uname();
    let of_meminfo = |name: &str| {
        let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
    };
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    MachineForm {
        system: format!(
            "{} {} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy(),
            system.machine().to_string_lossy()
        ),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: of_meminfo("MemTotal"),
        memory_available_bytes: of_meminfo("MemAvailable"),
        memory_limit_bytes: number("/sys/fs/cgroup/memory.max"),
        open_files_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        load: fs::read_to_string("/proc/loadavg").ok().map(|load| load.trim().to_owned()),
        disk_bytes: space.map(|space| space.total),
        disk_free_bytes: space.map(|space| space.free),
    }
}
