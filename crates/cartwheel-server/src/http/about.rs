//! The node's front page and its metrics.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::ApiState;
use crate::metrics;

/// List the addresses that the node serves
#[utoipa::path(get, path = "/", tag = "node",
    responses((status = 200, description = "The addresses", body = String, content_type = "text/plain")))]
pub(super) async fn root(State(api): State<ApiState>) -> String {
    let name = &api.local().name;
    format!(
        "{name} of a Cartwheel cluster, version {}

  GET, PUT, DELETE /v1/kv/{{bucket}}/{{key}}            values
  GET /v1/buckets                                   buckets with settings of their own
  GET, PUT /v1/buckets/{{bucket}}                     settings of a bucket
  GET /v1/buckets/{{bucket}}/staleness                how soon reads of a bucket see a write
  GET /v1/cluster                                   members, with their status as this node sees it
  GET /v1/cluster/ring                              partitions and their owners
  POST /v1/cluster/members                          plan or make changes of the members
  GET /v1/cluster/transfers                         partitions under way, and what they wait for
  GET /v1/cluster/locate/{{bucket}}/{{key}}             location of a key
  GET /v1/cluster/replicas                          since when replicas are verified equal
  GET /v1/cluster/partitions/{{partition}}/digests    records of a partition on this node's disk
  GET /v1/users                                     users, their roles and access tokens
  GET, PUT, DELETE /v1/users/{{name}}                 a user
  POST /v1/users/{{name}}/tokens                      make an access token
  DELETE /v1/users/{{name}}/tokens/{{id}}               end an access token
  GET /v1/whoami                                    the user that you are
  GET, PUT /v1/cluster/drain                        whether this node drains before it is stopped
  GET /v1/debug/log                                 the last lines of this node's log
  GET /v1/debug/node                                this node's settings and machine
  GET /healthz                                      whether the node is alive
  GET /readyz                                       whether it takes requests
  GET /metrics                                      metrics for Prometheus
  GET /openapi.json                                 all calls, as OpenAPI
",
        env!("CARGO_PKG_VERSION")
    )
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "node",
    responses((status = 200, description = "The node's metrics", body = String,
        content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(api): State<ApiState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], api.metrics().text())
}
