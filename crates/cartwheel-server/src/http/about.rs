//! The node's front page and its metrics.
//!
//! The front page is the dashboard for browsers, and a list of the calls for other programs.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::{ApiState, dashboard};
use crate::metrics;

/// List the calls; for clients that accept `text/html`, the dashboard
#[utoipa::path(get, path = "/", tag = "node",
    responses((status = 200, description = "The calls, or the dashboard", content(
        (String = "text/plain"), (String = "text/html")))))]
pub(super) async fn root(State(api): State<ApiState>, headers: HeaderMap) -> Response {
    if dashboard::is_for_browser(&headers) {
        return dashboard::page(&api.view(), &headers);
    }
    ([(header::VARY, "Accept")], calls(&api.local().name)).into_response()
}

fn calls(name: &str) -> String {
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
  GET /v1/cluster/replicas/{{bucket}}/{{key}}           versions of a key on each of its replicas
  GET /v1/cluster/sizes                             how much each node holds
  GET /v1/cluster/partitions/{{partition}}/digests    records of a partition on this node's disk
  GET /v1/users                                     users, their roles and access tokens
  GET, PUT, DELETE /v1/users/{{name}}                 a user
  POST /v1/users/{{name}}/tokens                      make an access token
  DELETE /v1/users/{{name}}/tokens/{{id}}               end an access token
  GET /v1/whoami                                    the user that you are
  GET, PUT /v1/cluster/drain                        whether this node drains before it is stopped
  GET /v1/debug/log                                 the last lines of this node's log
  GET /v1/debug/node                                this node's settings and machine
  GET /v1/backup/partitions/{{partition}}             sums over a partition, for backups
  GET /v1/backup/partitions/{{partition}}/records     its records, for backups
  POST /v1/backup/records                           restore records of a backup
  GET /v1/debug/queues, partitions, connections     what this node does at the moment
  GET /v1/debug/queues                              queues of this node, and how long turns of shards take
  GET /v1/debug/partitions                          partitions with slow requests
  GET /v1/debug/connections                         connections of this node
  GET /healthz                                      whether the node is alive
  GET /readyz                                       whether it takes requests
  GET /metrics                                      metrics for Prometheus
  GET /openapi.json                                 all calls, as OpenAPI
  GET /                                             dashboard, for browsers
",
        env!("CARGO_PKG_VERSION")
    )
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "node",
    responses((status = 200, description = "The node's metrics", body = String,
        content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(api): State<ApiState>) -> impl IntoResponse {
    if let Some(space) = api.disk().space().await {
        api.metrics().set_disk(space.free, space.total);
    }
    ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], api.metrics().text())
}
