//! The bodies of requests and responses, within the memory that the node has for them.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::error::ApiError;
use crate::memory::{LARGE_BYTES_MAX, MemoryPool, MemoryShare};

/// The first buffer for a value of unknown length.
const FIRST_BYTES: usize = 4096;
/// How much of a refused value is still read, and for how long: a client that is cut off while it sends may never read the response.
const DISCARDED_BYTES_MAX: usize = 8 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// A value with its share of the memory.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) bytes: Bytes,
    pub(super) held: MemoryShare,
}

/// Reads a value of at most `bytes_max` bytes within a time limit, so that a slow client does not hold a connection for ever.
pub(super) async fn read(
    pool: &MemoryPool,
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
    match tokio::time::timeout(within, collect(pool, body, declared, bytes_max)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::bad_request(format!(
            "the value did not arrive within {} ms: send it faster, or give a longer timeout_ms",
            within.as_millis()
        ))),
    }
}

async fn collect(
    pool: &MemoryPool,
    body: &mut Body,
    declared: Option<usize>,
    bytes_max: usize,
) -> Result<Value, ApiError> {
    let mut held = pool.nothing();
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
            held.grow_to(pool, wanted)?;
            bytes.reserve_exact(wanted - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Value { bytes: bytes.into(), held })
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
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::memory::SMALL_BYTES;

    #[tokio::test]
    async fn memory_for_values_is_bounded_and_given_back() {
        let (gauge, second) = (Gauge::default(), Duration::from_secs(60));
        let pool = MemoryPool::new(gauge.clone());
        let headers = HeaderMap::new();
        let read =
            async |size: usize| super::read(&pool, &headers, &mut Body::from(vec![7; size]), u32::MAX, second).await;
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
    }

    #[tokio::test]
    async fn a_value_takes_memory_as_it_arrives() {
        let gauge = Gauge::default();
        let pool = MemoryPool::new(gauge.clone());
        let headers = [(header::CONTENT_LENGTH, (16 << 20).into())].into_iter().collect();
        let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]);
        let never = futures_util::StreamExt::chain(begun, futures_util::stream::pending());
        let mut body = Body::from_stream(never);
        let mut reading = Box::pin(super::read(&pool, &headers, &mut body, 16 << 20, Duration::from_secs(60)));
        tokio::select! {
            biased;
            _ = &mut reading => panic!("the value has not arrived yet"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(gauge.get(), FIRST_BYTES as i64);
        drop(reading);
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn a_slow_value_times_out() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let pool = MemoryPool::new(Gauge::default());
        let read = read(&pool, &HeaderMap::new(), &mut Body::from_stream(never), 10, Duration::from_millis(1)).await;
        assert_eq!(read.unwrap_err().code(), "bad_request");
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        assert!(!discard(&HeaderMap::new(), &mut Body::from_stream(never)).await);
    }
}
