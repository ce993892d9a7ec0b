//! The bodies of requests and responses, within the memory that the node has for them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use cartwheel_core::message::client::Refusal;
use http_body_util::BodyExt as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// How many bytes of values may be arriving or waiting to be stored, over all requests; and how many bytes of responses may wait for their
/// clients: of large ones, ...
const LARGE_BYTES_MAX: usize = 224 << 20;
/// ... and of those of at most [`SMALL_BYTES`], so that a few large ones leave room for small ones.
const SMALL_BYTES_MAX: usize = 32 << 20;
const SMALL_BYTES: usize = 64 << 10;
/// The first buffer for a value of unknown length.
const FIRST_BYTES: usize = 4096;
/// How much of a refused value is still read, and for how long: a client that is cut off while it sends may never read the response.
const DISCARDED_BYTES_MAX: usize = 8 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// The memory for values, or for responses.
#[derive(Debug)]
pub(super) struct Bodies {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    gauge: Gauge,
}

/// A value with its share of the memory.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) bytes: Bytes,
    pub(super) held: MemoryShare,
}

/// A share of the memory, returned when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryShare {
    permit: Option<OwnedSemaphorePermit>,
    gauge: Gauge,
}

/// Bytes with their share of the memory. A slice of them keeps all of them.
struct HeldBytes {
    bytes: Bytes,
    _held: MemoryShare,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    pub(super) fn new(gauge: Gauge) -> Self {
        let pool = |bytes: usize| Arc::new(Semaphore::new(bytes));
        Self { small: pool(SMALL_BYTES_MAX), large: pool(LARGE_BYTES_MAX), gauge }
    }

    /// Takes a share of `bytes` bytes.
    ///
    /// # Errors
    /// If too little memory is free.
    pub(super) fn take(&self, bytes: usize) -> Result<MemoryShare, ApiError> {
        let mut held = MemoryShare { permit: None, gauge: self.gauge.clone() };
        // A body larger than the whole memory may take all of it.
        held.grow_to(self, bytes.min(LARGE_BYTES_MAX))?;
        Ok(held)
    }

    /// Returns the bytes with a share of the memory that lasts until they are dropped: a connection takes in a response long before the client
    /// has read it.
    pub(super) fn hold(&self, bytes: Bytes) -> Result<Bytes, ApiError> {
        let held = self.take(bytes.len())?;
        Ok(Bytes::from_owner(HeldBytes { bytes, _held: held }))
    }

    /// Reads a value of at most `bytes_max` bytes within a time limit, so that a slow client does not hold a connection for ever.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
        bytes_max: u32,
        within: Duration,
    ) -> Result<Value, ApiError> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(LARGE_BYTES_MAX);
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
        let mut held = MemoryShare { permit: None, gauge: self.gauge.clone() };
        // It is copied into memory of its own: the connection's read buffer is larger, and would live as long as the value.
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
                // The buffer grows with the bytes that arrive, not with the announced length.
                let doubled = (bytes.capacity() * 2).max(FIRST_BYTES).min(declared.unwrap_or(usize::MAX));
                let wanted = doubled.min(bytes_max).max(needed);
                held.grow_to(self, wanted)?;
                bytes.reserve_exact(wanted - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Value { bytes: bytes.into(), held })
    }
}

impl MemoryShare {
    /// Grows the share to `bytes`.
    fn grow_to(&mut self, bodies: &Bodies, bytes: usize) -> Result<(), ApiError> {
        let held = self.bytes();
        let (was_small, is_small) = (held <= SMALL_BYTES, bytes <= SMALL_BYTES);
        let pool = if is_small { &bodies.small } else { &bodies.large };
        let wanted = if was_small == is_small { bytes - held } else { bytes };
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let more = pool.clone().try_acquire_many_owned(wanted).map_err(|_| Refusal::Overloaded)?;
        self.gauge.inc_by((bytes - held) as i64);
        match &mut self.permit {
            Some(permit) if was_small == is_small => permit.merge(more),
            permit => *permit = Some(more),
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.gauge.dec_by(self.bytes() as i64);
    }
}

/// The root cause of an error. The outer errors have little detail.
fn root(error: &axum::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn too_large(bytes: &str, bytes_max: usize) -> ApiError {
    ApiError::too_large(format!(
        "the value has {bytes} bytes, the bucket takes {bytes_max}: store a smaller value, or raise the bucket's max_value_bytes"
    ))
}

/// Reads the rest of a refused value, within bounds. Returns whether it reached the end; if not, the connection must be closed.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Body) -> bool {
    // The client waits for permission to send; reading would grant it.
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
        let first = read(LARGE_BYTES_MAX - 100_000).await.unwrap();
        let held = LARGE_BYTES_MAX - 100_000;
        assert_eq!((first.bytes.len(), gauge.get()), (held, held as i64));
        assert_eq!(read(100_001).await.unwrap_err().code(), "overloaded");
        assert_eq!(gauge.get(), held as i64, "a refused value holds no memory");
        assert_eq!(read(SMALL_BYTES).await.unwrap().bytes.len(), SMALL_BYTES, "small values have room");
        drop(first);
        assert_eq!(gauge.get(), 0);
        assert_eq!(read(100_001).await.unwrap().bytes.len(), 100_001);
        assert_eq!(read(LARGE_BYTES_MAX + 1).await.unwrap_err().code(), "too_large");
        let small: Vec<MemoryShare> =
            (0..SMALL_BYTES_MAX / SMALL_BYTES).map(|_| bodies.take(SMALL_BYTES).unwrap()).collect();
        assert_eq!(bodies.take(1).unwrap_err().code(), "overloaded");
        drop(small);
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn a_value_takes_memory_as_it_arrives() {
        let gauge = Gauge::default();
        let bodies = Bodies::new(gauge.clone());
        let headers = [(header::CONTENT_LENGTH, (16 << 20).into())].into_iter().collect();
        let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]);
        let never = futures_util::StreamExt::chain(begun, futures_util::stream::pending());
        let mut body = Body::from_stream(never);
        let mut reading = Box::pin(bodies.read(&headers, &mut body, 16 << 20, Duration::from_secs(60)));
        tokio::select! {
            biased;
            _ = &mut reading => panic!("the value has not arrived yet"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(gauge.get(), FIRST_BYTES as i64);
        drop(reading);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn memory_for_a_response_is_held_until_its_last_part_is_dropped() {
        let gauge = Gauge::default();
        let bodies = Bodies::new(gauge.clone());
        let response = |size: usize| bodies.hold(Bytes::from(vec![7; size]));
        let mut first = response(LARGE_BYTES_MAX - 100_000).unwrap();
        assert_eq!(response(100_001).unwrap_err().code(), "overloaded");
        assert_eq!(response(100_000).unwrap().len(), 100_000);
        let end = first.split_off(first.len() - 1);
        drop(first);
        assert_eq!(gauge.get(), LARGE_BYTES_MAX as i64 - 100_000);
        drop(end);
        assert_eq!(gauge.get(), 0);
        drop(response(LARGE_BYTES_MAX + 100).unwrap());
    }

    #[tokio::test]
    async fn a_slow_value_times_out() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let bodies = Bodies::new(Gauge::default());
        let read = bodies.read(&HeaderMap::new(), &mut Body::from_stream(never), 10, Duration::from_millis(1)).await;
        assert_eq!(read.unwrap_err().code(), "bad_request");
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        assert!(!discard(&HeaderMap::new(), &mut Body::from_stream(never)).await);
    }
}
