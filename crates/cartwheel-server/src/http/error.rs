//! Errors in the form of the contract.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use cartwheel_core::message::client::{Refusal, Shortfall};
use serde::Serialize;
use utoipa::ToSchema;

use crate::backend::NotDone;
use crate::shard::Stopped;

/// `{"error": "<code>", "message": "<what happened and what to do>"}` with a status and headers.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    lack: Option<Lack>,
}

/// What a request lacked.
#[derive(Debug)]
struct Lack {
    needed: u32,
    answered: u32,
    unreachable: Vec<String>,
}

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Body<'a> {
    /// One of the contract's codes.
    error: &'a str,
    /// What happened, and what to do.
    message: &'a str,
    /// With `unavailable` and `unverified`, where known: how many replicas had to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    needed: Option<u32>,
    /// How many replicas answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<u32>,
    /// The names of the nodes that the request needed and that cannot be reached, as far as the answering node knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<&'a [String]>,
}

/// An error's code and message, attached to the response for logs and metrics.
#[derive(Clone, Debug)]
pub(super) struct ErrorSummary {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new(), lack: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn bad_context(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_context", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The response gets an `Allow` header in addition.
    pub(super) fn method_not_allowed(method: &Method, uri: &Uri) -> Self {
        let message = format!("{} does not allow {method}: see the Allow header", uri.path());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    pub(super) fn precondition_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
    }

    pub(super) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
    }

    /// A request from a web page of another origin.
    pub(super) fn forbidden_origin(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden_origin", message)
    }

    /// A request without credentials, or with wrong ones. `challenges` say how to give them.
    pub(super) fn unauthorized(message: impl Into<String>, challenges: &'static [&'static str]) -> Self {
        let error = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
        let header = |challenge: &&'static str| (header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        Self { headers: challenges.iter().map(header).collect(), ..error }
    }

    /// A request that needs a role that the user does not have.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// A login after too many that failed.
    pub(super) fn too_many_logins(wait: Duration) -> Self {
        let message = format!("too many logins failed of late: try again in {} s", wait.as_secs() + 1);
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message);
        error.with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1))
    }

    /// A request whose `Host` is not a node's.
    pub(super) fn misdirected(message: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", message)
    }

    pub(super) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// A request whose headers are too large.
    pub(super) fn head_too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large", message)
    }

    /// A request whose first line is too long.
    pub(super) fn target_too_long(message: impl Into<String>) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "too_large", message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The contract's code.
    #[cfg(test)]
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }

    #[cfg(test)]
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    /// Closes the connection after the response.
    pub(super) fn closing(self) -> Self {
        self.with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// Adds `headers`.
    pub(super) fn with_all(mut self, headers: &HeaderMap) -> Self {
        self.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::BadRequest(_) | Refusal::BadContext(_) => StatusCode::BAD_REQUEST,
            Refusal::TooManySiblings(_) | Refusal::SiblingsTooLarge(..) => StatusCode::CONFLICT,
            Refusal::TooLarge(..) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Unavailable(_) | Refusal::Unverified(_) | Refusal::StampTooLow(_) | Refusal::ReadTooOld => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refusal::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        };
        let mut error = Self::new(status, refusal.code(), refusal.to_string());
        match refusal {
            Refusal::Unavailable(Shortfall { needed, answered, .. })
            | Refusal::Unverified(Shortfall { needed, answered, .. }) => {
                error.lack = Some(Lack { needed, answered, unreachable: Vec::new() });
                error
            }
            Refusal::Overloaded => error.with(header::RETRY_AFTER, HeaderValue::from_static("1")),
            _ => error,
        }
    }
}

impl From<NotDone> for ApiError {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Stopped => Self::from(Stopped),
            NotDone::Refused { refusal, cause, unreachable } => {
                let mut error = Self::from(refusal);
                if let Some(lack) = &mut error.lack {
                    lack.unreachable = unreachable;
                }
                if let Some(cause) = cause {
                    error.message = format!("{cause} ({})", error.message);
                }
                error
            }
        }
    }
}

impl From<Stopped> for ApiError {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(format!("{stopped}: ask another node; a write may yet appear"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let lack = self.lack.as_ref();
        let body = axum::Json(Body {
            error: self.code,
            message: &self.message,
            needed: lack.map(|lack| lack.needed),
            answered: lack.map(|lack| lack.answered),
            unreachable: lack.map(|lack| &lack.unreachable[..]),
        });
        let headers: HeaderMap = self.headers.into_iter().collect();
        let mut response = (self.status, headers, body).into_response();
        response.extensions_mut().insert(ErrorSummary { code: self.code, message: self.message });
        response
    }
}
