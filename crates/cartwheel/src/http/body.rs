//! The bodies of requests and answers: as much of them at a time as the node has memory for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use cartwheel_core::request::Refusal;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// How many bytes of values may be arriving or wait to be stored, over all requests; and how many bytes of answers may wait
/// for their clients to read them.
const BYTES_MAX: usize = 256 << 20;
/// The first memory that a value of unknown length is given.
const FIRST_BYTES: usize = 4096;
/// How much of a value that is refused is read all the same, and for how long: a client that is cut off while it sends may never
/// read why.
const DISCARDED_BYTES_MAX: usize = 8 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// The memory for values, or for answers.
#[derive(Debug)]
pub(super) struct Bodies {
    permits: Arc<Semaphore>,
    gauge: Gauge,
}

/// A value, and its share of the memory.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) bytes: Bytes,
    pub(super) held: Held,
}

/// A share of the memory, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    permit: Option<OwnedSemaphorePermit>,
    gauge: Gauge,
}

impl Bodies {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { permits: Arc::new(Semaphore::new(BYTES_MAX)), gauge }
    }

    /// An answer that takes its share of the memory until its client has read it, or a refusal if there is no more.
    pub(super) fn hold(&self, answer: Response) -> Result<Response, ApiError> {
        let mut held = Held { permit: None, gauge: self.gauge.clone() };
        let bytes = answer.body().size_hint().lower();
        // One that is larger than all of the memory may have all of it.
        held.grow(self, usize::try_from(bytes).unwrap_or(usize::MAX).min(BYTES_MAX))?;
        Ok(answer.map(|body| Body::new(HeldBody { body, _held: held })))
    }

    /// Reads a value of at most `bytes_max` bytes within a time: a client that trickles must not cost a connection.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
        bytes_max: u32,
        within: Duration,
    ) -> Result<Value, ApiError> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(BYTES_MAX);
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if let Some(declared) = declared.filter(|&declared| declared > bytes_max as u64) {
            return Err(too_large(&format!("{declared}"), bytes_max));
        }
        let declared = declared.and_then(|declared| usize::try_from(declared).ok());
        match tokio::time::timeout(within, self.collect(body, declared, bytes_max)).await {
            Ok(read) => read,
            Err(_) => Err(ApiError::bad_request(format!(
                "the value did not arrive within {} ms: send it faster, or give a longer timeout_ms",
                within.as_millis()
            ))),
        }
    }

    async fn collect(&self, body: &mut Body, declared: Option<usize>, bytes_max: usize) -> Result<Value, ApiError> {
        let mut held = Held { permit: None, gauge: self.gauge.clone() };
        // Into memory of its own: what the connection reads into is larger, and would be held as long as the value.
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                ApiError::bad_request(format!("the value did not arrive whole ({}): send it again", root(&error)))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let needed = bytes.len() + data.len();
            if needed > bytes_max {
                return Err(too_large(&format!("more than {bytes_max}"), bytes_max));
            }
            if needed > bytes.capacity() {
                let wanted = declared.unwrap_or((bytes.capacity() * 2).max(FIRST_BYTES)).min(bytes_max).max(needed);
                held.grow(self, wanted - bytes.capacity())?;
                bytes.reserve_exact(wanted - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Value { bytes: bytes.into(), held })
    }
}

impl Held {
    fn grow(&mut self, bodies: &Bodies, bytes: usize) -> Result<(), ApiError> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = bodies.permits.clone().try_acquire_many_owned(count).map_err(|_| Refusal::Overloaded)?;
        self.gauge.inc_by(i64::from(count));
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.gauge.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// An answer's body with its share of the memory.
struct HeldBody {
    body: Body,
    _held: Held,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What lies beneath an error: what is above it says little.
fn root(error: &axum::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn too_large(bytes: &str, bytes_max: usize) -> ApiError {
    ApiError::too_large(format!(
        "the value has {bytes} bytes, the bucket takes {bytes_max}: store less, or raise the bucket's max_value_bytes"
    ))
}

/// Reads on, within bounds, what a client sends of a value that was refused. Whether it came to the end: if not, the connection
/// must be closed.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Body) -> bool {
    // Such a client waits to hear whether it may send at all; to read would be to say yes.
    if headers.contains_key(header::EXPECT) {
        return false;
    }
    let to_the_end = async {
        let mut read = 0;
        while read < DISCARDED_BYTES_MAX {
            match body.frame().await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        false
    };
    tokio::time::timeout(DISCARD_WITHIN, to_the_end).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_for_values_is_bounded_and_given_back() {
        let (gauge, second) = (Gauge::default(), Duration::from_secs(60));
        let bodies = Bodies::new(gauge.clone());
        let headers = HeaderMap::new();
        let read = async |size: usize| bodies.read(&headers, &mut Body::from(vec![7; size]), u32::MAX, second).await;
        let first = read(BYTES_MAX - 100).await.unwrap();
        assert_eq!((first.bytes.len(), gauge.get()), (BYTES_MAX - 100, BYTES_MAX as i64 - 100));
        assert_eq!(read(5_000).await.unwrap_err().code(), "overloaded");
        assert_eq!(gauge.get(), BYTES_MAX as i64 - 100, "a refused value holds nothing");
        drop(first);
        assert_eq!(gauge.get(), 0);
        assert_eq!(read(5_000).await.unwrap().bytes.len(), 5_000);
        assert_eq!(read(BYTES_MAX + 1).await.unwrap_err().code(), "too_large");
    }

    #[tokio::test]
    async fn memory_for_answers_is_held_until_they_are_read() {
        let gauge = Gauge::default();
        let bodies = Bodies::new(gauge.clone());
        let answer = |size: usize| bodies.hold(Response::new(Body::from(vec![7; size])));
        let first = answer(BYTES_MAX - 100).unwrap();
        assert_eq!(answer(101).unwrap_err().code(), "overloaded");
        let second = answer(100).unwrap();
        assert_eq!(second.body().size_hint().exact(), Some(100), "its length is still known");
        assert_eq!(second.into_body().collect().await.unwrap().to_bytes().len(), 100);
        assert_eq!(gauge.get(), BYTES_MAX as i64 - 100);
        drop(first);
        assert_eq!(gauge.get(), 0);
        drop(answer(BYTES_MAX + 100).unwrap());
    }

    #[tokio::test]
    async fn a_value_that_dribbles_has_its_time() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let bodies = Bodies::new(Gauge::default());
        let read = bodies.read(&HeaderMap::new(), &mut Body::from_stream(never), 10, Duration::from_millis(1)).await;
        assert_eq!(read.unwrap_err().code(), "bad_request");
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        assert!(!discard(&HeaderMap::new(), &mut Body::from_stream(never)).await);
    }
}
