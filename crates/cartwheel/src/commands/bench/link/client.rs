//! Operations through the Rust client.

use std::sync::Arc;

use cartwheel_client::{Cause, Client, Consistency, Context, Error, Options, Value};
use hyper::header::HeaderValue;

use super::Found;
use crate::commands::bench::job::{CODE_CHARS_MAX, JobSettings, OperationError};

const MEDIA_TYPE: &str = "application/octet-stream";

/// The parts of all requests that do not depend on the key.
pub(in crate::commands::bench) struct ClientRequests {
    bucket: String,
    get: Options,
    put: Options,
}

/// A clone of the client that all links share.
pub(in crate::commands::bench) struct ClientLink {
    requests: Arc<ClientRequests>,
    client: Client,
}

impl ClientRequests {
    pub(super) fn new(settings: &JobSettings) -> Self {
        let consistency = if settings.strong { Consistency::Strong } else { Consistency::Eventual };
        let options = |replicas| Options {
            consistency,
            replicas,
            timeout: Some(settings.timeout),
            // The client's own retries are part of an operation.
            deadline: Some(settings.timeout),
            ..Options::default()
        };
        Self { bucket: settings.bucket.clone(), get: options(settings.r), put: options(settings.w) }
    }
}

impl ClientLink {
    pub(super) fn new(requests: Arc<ClientRequests>, client: Client) -> Self {
        Self { requests, client }
    }

    pub(super) async fn get(&self, key: &str) -> Result<Found, OperationError> {
        let ClientRequests { bucket, get, .. } = &*self.requests;
        let read = self.client.get_with(bucket, key, get).await.map_err(|error| failure(&error))?;
        Ok(Found { values: read.values.len() as u64, context: read.context.as_ref().and_then(header) })
    }

    pub(super) async fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        context: Option<HeaderValue>,
    ) -> Result<Option<HeaderValue>, OperationError> {
        let ClientRequests { bucket, put, .. } = &*self.requests;
        let context: Option<Context> = context.and_then(|header| header.to_str().ok()?.parse().ok());
        let written = self.client.put_with(bucket, key, Value::new(value, MEDIA_TYPE), context.as_ref(), put).await;
        Ok(written.map_err(|error| failure(&error))?.context.as_ref().and_then(header))
    }
}

fn header(context: &Context) -> Option<HeaderValue> {
    HeaderValue::try_from(context.to_string()).ok()
}

/// The kind of an error: its text names addresses, so that each would be a kind of its own.
fn failure(error: &Error) -> OperationError {
    let kind = match error {
        Error::Refused { code, .. } => code,
        Error::Unavailable { cause, .. } => match cause {
            Cause::Unreachable => "no node could be reached",
            Cause::TimedOut => "no response in time",
            Cause::TooFewReplicas => "too few replicas",
            Cause::Overloaded => "overloaded",
            Cause::DiskFull => "disk full",
        },
        Error::UnexpectedResponse(_) => "unexpected response",
        Error::Endpoint(_) | Error::Tls(_) | Error::NoRandomness(_) => "no request could be made",
    };
    OperationError(kind.chars().take(CODE_CHARS_MAX).collect())
}
