//! `/openapi.json`, made from the calls themselves.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi};

use super::{
    about, backup, buckets, cluster, debug, digests, drain, error, health, inspect, keys, kv, members, replicas, show,
    sizes, staleness, support, transfers, users,
};

/// Each call is described at its function. The test of the routes finds one that is missing here.
#[derive(OpenApi)]
#[openapi(
    info(title = "Cartwheel", description = "An always-writeable, leaderless, replicated key-value store."),
    paths(
        kv::get,
        kv::put,
        kv::delete,
        keys::list,
        buckets::list,
        buckets::get,
        buckets::put,
        buckets::delete,
        staleness::staleness,
        cluster::status,
        cluster::ring,
        members::change,
        transfers::transfers,
        replicas::replicas,
        inspect::replicas_of_key,
        sizes::sizes,
        cluster::locate,
        drain::get,
        drain::put,
        support::recent_log,
        support::node,
        digests::page,
        users::list,
        users::get,
        users::put,
        users::delete,
        users::make_token,
        users::end_token,
        users::whoami,
        backup::sums,
        backup::records,
        backup::restore,
        debug::queues,
        debug::partitions,
        debug::connections,
        health::healthz,
        health::readyz,
        about::root,
        about::metrics,
        openapi_json,
    ),
    components(schemas(error::Body<'_>, show::Form)),
    tags(
        (name = "keys", description = "Values by bucket and key"),
        (name = "buckets", description = "How a bucket's keys are kept and served"),
        (name = "cluster", description = "Members, ring and location of keys"),
        (name = "users", description = "Users, their roles and access tokens"),
        (name = "backup", description = "Copies of partitions, and their restore, for administrators"),
        (name = "node", description = "The answering node")
    )
)]
pub(super) struct Document;

static TEXT: LazyLock<String> = LazyLock::new(|| Document::openapi().to_json().unwrap_or_default());

/// Get this description
#[utoipa::path(get, path = "/openapi.json", tag = "node",
    responses((status = 200, description = "The calls, as OpenAPI", content_type = "application/json")))]
pub(super) async fn openapi_json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// The meaning of each error status, with the contract's codes.
const ERRORS: [(&str, &str); 13] = [
    ("400", "`bad_request`: the request is invalid. `bad_context`: no node made the context for this key"),
    ("401", "`unauthorized`: there are no credentials, or they are wrong"),
    (
        "403",
        "`forbidden`: the user lacks the role. `forbidden_origin`: a web page of another origin may not change anything",
    ),
    ("404", "`not_found`: the key has no value; with Cartwheel-Context if it was deleted"),
    (
        "409",
        "`too_many_siblings`: the write would add to a key's 128 unmerged siblings, or make them larger than 32 MiB",
    ),
    ("412", "`precondition_failed`: the stored state does not match If-Match or If-Unmodified-Since"),
    ("413", "`too_large`: the value is larger than the bucket allows"),
    (
        "415",
        "`unsupported_media_type`: a change must be application/json, and a restore application/vnd.cartwheel.records",
    ),
    ("421", "`misdirected`: the Host is not a known node's; nothing was done"),
    ("429", "`overloaded`: the node is overloaded; nothing was done, try again"),
    ("501", "`not_implemented`: the call cannot honour the request's condition or range; nothing was done"),
    (
        "503",
        "`unavailable`: too few replicas answered; a write may yet appear. `unverified`: too few answered to say that the key has no value",
    ),
    ("507", "`disk_full`: too few nodes have room to store it"),
];

fn errors(statuses: &[&str]) -> BTreeMap<String, RefOr<Response>> {
    let known = ERRORS.iter().filter(|(status, _)| statuses.contains(status));
    let response = |what: &str| {
        let schema = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
        ResponseBuilder::new().description(what).content("application/json", schema).build()
    };
    known.map(|(status, what)| ((*status).to_owned(), response(what).into())).collect()
}

/// The errors of a read.
pub(super) struct ReadErrors;

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["400", "401", "403", "404", "412", "429", "503"])
    }
}

/// The errors of a write.
pub(super) struct WriteErrors;

impl IntoResponses for WriteErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["400", "401", "403", "409", "413", "415", "421", "429", "501", "503", "507"])
    }
}

/// The errors of a call on no key.
pub(super) struct QueryErrors;

impl IntoResponses for QueryErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["400", "401", "403"])
    }
}

/// The errors of a call that reads the node's disk.
pub(super) struct DiskErrors;

impl IntoResponses for DiskErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["400", "401", "403", "503"])
    }
}

/// The errors of a call that asks the replicas of a key.
pub(super) struct InspectErrors;

impl IntoResponses for InspectErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["400", "401", "403", "429", "503"])
    }
}

/// The errors of a call that copies a partition.
pub(super) struct CopyErrors;

impl IntoResponses for CopyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["400", "401", "403", "429", "503"])
    }
}

/// The errors of a restore.
pub(super) struct RestoreErrors;

impl IntoResponses for RestoreErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["400", "401", "403", "413", "415", "421", "429", "503"])
    }
}

/// The errors of a change of settings.
pub(super) struct ChangeErrors;

impl IntoResponses for ChangeErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["400", "401", "403", "404", "413", "415", "421", "429", "503"])
    }
}

/// The errors of a node that is not ready.
pub(super) struct NotReady;

impl IntoResponses for NotReady {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&["503"])
    }
}
