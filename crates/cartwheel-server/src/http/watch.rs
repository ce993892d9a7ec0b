//! Counts and logs requests.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;
use tracing::{debug, warn};

use super::ApiState;
use super::error::ErrorSummary;
use crate::metrics::{KeyOperation, Outcome, Timed};
use crate::trace::Span;

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

/// Begins the span of a request on a key, if it is to be in a trace.
pub(super) fn begin_trace<B>(api: &ApiState, request: &axum::http::Request<B>) -> Option<Span> {
    let tracer = api.tracer();
    if !tracer.is_on() {
        return None;
    }
    let name = match *request.method() {
        Method::GET => "GET /v1/kv",
        Method::HEAD => "HEAD /v1/kv",
        Method::PUT => "PUT /v1/kv",
        Method::DELETE => "DELETE /v1/kv",
        _ => return None,
    };
    let mut parents = request.headers().get_all("traceparent").iter();
    let parent = parents.next().filter(|_| parents.next().is_none());
    let mut span = tracer.root(name, parent.map(|parent| parent.as_bytes()))?;
    span.set("http.request.method", request.method().as_str());
    span.set("http.route", "/v1/kv/{bucket}/{key}");
    Some(span)
}

/// Ends the span of a request on a key.
pub(super) fn end_trace(api: &ApiState, mut span: Span, response: &Response) {
    span.set("http.response.status_code", u32::from(response.status().as_u16()));
    if let Some(ErrorSummary { code, message }) = response.extensions().get() {
        span.set("cartwheel.outcome", *code);
        // What the client did wrong is no failure of the node.
        span.failure = response.status().is_server_error().then(|| message.clone());
    }
    api.tracer().end(span);
}

/// Counts the request as ended.
pub(super) fn end(timed: Option<Timed<'_>>, response: &Response) {
    let Some(timed) = timed else { return };
    timed.end(match (response.extensions().get::<ErrorSummary>(), response.status()) {
        (Some(summary), _) => Outcome(summary.code),
        (None, StatusCode::MULTIPLE_CHOICES) => Outcome("siblings"),
        (None, _) => Outcome::OK,
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
