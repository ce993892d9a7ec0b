//! Counts and logs requests.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{debug, warn};

use super::ApiState;
use super::error::ErrorSummary;
use crate::metrics::{KeyOperation, Outcome, Timed};

/// Begins to count a request on a key; none if its method is not counted.
pub(super) fn begin<'a>(api: &'a ApiState, method: &Method) -> Option<Timed<'a>> {
    let operation = match *method {
        Method::GET | Method::HEAD => KeyOperation::get,
        Method::PUT => KeyOperation::put,
        Method::DELETE => KeyOperation::delete,
        _ => return None,
    };
    Some(api.metrics().http.begin(operation))
}

/// Counts the request as ended.
pub(super) fn end(timed: Option<Timed<'_>>, response: &Response) {
    let Some(timed) = timed else { return };
    timed.end(match (response.extensions().get::<ErrorSummary>(), response.status()) {
        (Some(summary), _) => Outcome(summary.code),
        (None, StatusCode::MULTIPLE_CHOICES) => Outcome("siblings"),
        (None, _) => Outcome("ok"),
    });
}

/// Logs requests that failed.
pub(super) async fn log_failures(State(api): State<ApiState>, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    log_failure(&api, &method, &uri, &response);
    response
}

/// Logs a failed request at debug; failures of the node or the cluster also at warn, at most one line a second.
pub(super) fn log_failure(api: &ApiState, method: &Method, uri: &Uri, response: &Response) {
    let Some(ErrorSummary { code, message }) = response.extensions().get() else { return };
    let (status, path) = (response.status().as_u16(), uri.path());
    debug!(%method, path, status, code, why = %message, "request failed");
    // A starting node that reports so to readiness probes has not failed.
    if (status >= 500 || status == 429)
        && path.starts_with("/v1/")
        && let Some(count) = api.failures().count(1)
    {
        warn!(%method, path, status, code, why = %message, failures = count, "requests failed");
    }
}
