//! The HTTP API server: the contract's calls.

mod about;
mod access;
mod amounts;
mod api_state;
mod backup;
mod body;
mod buckets;
mod chunks;
mod cluster;
mod conditions;
mod connection;
mod dashboard;
mod debug;
mod digests;
mod drain;
mod error;
mod front;
mod guard;
mod head;
mod headers;
mod health;
mod inspect;
mod keys;
mod kv;
mod long_response;
mod members;
mod openapi;
mod query;
mod replicas;
mod request_body;
mod response;
mod server;
mod show;
mod siblings;
mod sizes;
mod staleness;
mod support;
mod target;
mod transfers;
mod users;
mod watch;

use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, any, delete, get, post};

use error::ApiError;

pub use api_state::ApiState;
pub use front::Front;
pub(crate) use server::serve;
pub use server::serve_administrators;

/// The time between log lines about failed requests.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// A call: its route, its path in OpenAPI, and its handler. Bucket and key are taken from the raw path, because the router decodes text and
/// they are bytes.
type Call = (&'static str, &'static str, MethodRouter<ApiState>);

/// The contract's calls, except for those on keys, which [`Front`] carries out itself.
fn calls() -> Vec<Call> {
    vec![
        ("/v1/buckets", "/v1/buckets", get(buckets::list)),
        ("/v1/buckets/{bucket}", "/v1/buckets/{bucket}", get(buckets::get).put(buckets::put).delete(buckets::delete)),
        ("/v1/buckets/{bucket}/staleness", "/v1/buckets/{bucket}/staleness", get(staleness::staleness)),
        ("/v1/kv/{bucket}", "/v1/kv/{bucket}", any(kv::no_key).get(keys::list)),
        ("/v1/cluster", "/v1/cluster", get(cluster::status)),
        ("/v1/cluster/ring", "/v1/cluster/ring", get(cluster::ring)),
        ("/v1/cluster/members", "/v1/cluster/members", post(members::change)),
        ("/v1/cluster/transfers", "/v1/cluster/transfers", get(transfers::transfers)),
        ("/v1/cluster/replicas", "/v1/cluster/replicas", get(replicas::replicas)),
        ("/v1/cluster/drain", "/v1/cluster/drain", get(drain::get).put(drain::put)),
        ("/v1/debug/log", "/v1/debug/log", get(support::recent_log)),
        ("/v1/debug/node", "/v1/debug/node", get(support::node)),
        (
            "/v1/cluster/replicas/{*bucket_and_key}",
            "/v1/cluster/replicas/{bucket}/{key}",
            get(inspect::replicas_of_key),
        ),
        ("/v1/cluster/sizes", "/v1/cluster/sizes", get(sizes::sizes)),
        ("/v1/cluster/locate/{*bucket_and_key}", "/v1/cluster/locate/{bucket}/{key}", get(cluster::locate)),
        (
            "/v1/cluster/partitions/{partition}/digests",
            "/v1/cluster/partitions/{partition}/digests",
            get(digests::page),
        ),
        ("/v1/users", "/v1/users", get(users::list)),
        ("/v1/users/{name}", "/v1/users/{name}", get(users::get).put(users::put).delete(users::delete)),
        ("/v1/users/{name}/tokens", "/v1/users/{name}/tokens", post(users::make_token)),
        ("/v1/users/{name}/tokens/{id}", "/v1/users/{name}/tokens/{id}", delete(users::end_token)),
        ("/v1/whoami", "/v1/whoami", get(users::whoami)),
        ("/v1/backup/partitions/{partition}", "/v1/backup/partitions/{partition}", get(backup::sums)),
        (
            "/v1/backup/partitions/{partition}/records",
            "/v1/backup/partitions/{partition}/records",
            get(backup::records),
        ),
        ("/v1/backup/records", "/v1/backup/records", post(backup::restore)),
        ("/v1/debug/queues", "/v1/debug/queues", get(debug::queues)),
        ("/v1/debug/partitions", "/v1/debug/partitions", get(debug::partitions)),
        ("/v1/debug/connections", "/v1/debug/connections", get(debug::connections)),
        ("/healthz", "/healthz", get(health::healthz)),
        ("/readyz", "/readyz", get(health::readyz)),
        ("/metrics", "/metrics", get(about::metrics)),
        ("/openapi.json", "/openapi.json", get(openapi::openapi_json)),
        ("/", "/", get(about::root)),
    ]
}

/// The contract's routes.
fn router(api: ApiState) -> Router {
    calls()
        .into_iter()
        .fold(Router::new(), |router, (route, _, call)| router.route(route, call))
        .route("/assets/{name}", get(dashboard::asset))
        .route("/v1/kv", any(kv::no_key))
        .route("/v1/buckets/", any(buckets::no_bucket))
        .route("/v1/buckets/{bucket}/{*more}", any(buckets::more_than_a_bucket))
        .route("/v1/cluster/locate/", any(cluster::no_key))
        .route("/v1/cluster/locate", any(cluster::no_key))
        .fallback(no_such_call)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(api.clone(), watch::log_failures))
        .with_state(api)
}

async fn no_such_call(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no call {}: GET / lists the calls", uri.path()))
}

/// The router adds the `Allow` header.
async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(&method, &uri)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown_clients_tests;
