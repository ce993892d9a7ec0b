//! The memory of clients' connections: values that arrive, and responses that wait to be read.

use std::sync::Arc;

use bytes::Bytes;
use cartwheel_core::message::client::Refusal;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many bytes of values may be arriving or waiting to be stored, over all requests; and how many bytes of responses may wait for their
/// clients: of large ones, ...
pub(crate) const LARGE_BYTES_MAX: usize = 224 << 20;
/// ... and of those of at most [`SMALL_BYTES`], so that a few large ones leave room for small ones.
const SMALL_BYTES_MAX: usize = 32 << 20;
/// All of it.
pub(crate) const BYTES_MAX: usize = LARGE_BYTES_MAX + SMALL_BYTES_MAX;
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// The memory for values, or for responses, of one kind of clients.
#[derive(Debug)]
pub(crate) struct MemoryPool {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    gauge: Gauge,
}

/// A share of the memory, returned when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
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

impl MemoryPool {
    /// A pool whose bytes in use are counted in `gauge`.
    pub(crate) fn new(gauge: Gauge) -> Self {
        let pool = |bytes: usize| Arc::new(Semaphore::new(bytes));
        Self { small: pool(SMALL_BYTES_MAX), large: pool(LARGE_BYTES_MAX), gauge }
    }

    /// A share of nothing, which can grow.
    pub(crate) fn nothing(&self) -> MemoryShare {
        MemoryShare { permit: None, gauge: self.gauge.clone() }
    }

    /// Takes a share of `bytes` bytes.
    ///
    /// # Errors
    /// If too little memory is free.
    pub(crate) fn take(&self, bytes: usize) -> Result<MemoryShare, Refusal> {
        let mut held = self.nothing();
        // One that is larger than the whole memory may take all of it.
        held.grow_to(self, bytes.min(LARGE_BYTES_MAX))?;
        Ok(held)
    }

    /// Returns the bytes with a share of the memory that lasts until they are dropped: a connection takes in a response long before the client
    /// has read it.
    ///
    /// # Errors
    /// If too little memory is free.
    pub(crate) fn hold(&self, bytes: Bytes) -> Result<Bytes, Refusal> {
        let held = self.take(bytes.len())?;
        Ok(Bytes::from_owner(HeldBytes { bytes, _held: held }))
    }
}

impl MemoryShare {
    /// Grows the share to `bytes`.
    ///
    /// # Errors
    /// If too little memory is free. The share stays as it is.
    pub(crate) fn grow_to(&mut self, pool: &MemoryPool, bytes: usize) -> Result<(), Refusal> {
        let held = self.bytes();
        let (was_small, is_small) = (held <= SMALL_BYTES, bytes <= SMALL_BYTES);
        let bytes_free = if is_small { &pool.small } else { &pool.large };
        let wanted = if was_small == is_small { bytes - held } else { bytes };
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let more = bytes_free.clone().try_acquire_many_owned(wanted).map_err(|_| Refusal::Overloaded)?;
        self.gauge.inc_by((bytes - held) as i64);
        match &mut self.permit {
            Some(permit) if was_small == is_small => permit.merge(more),
            permit => *permit = Some(more),
        }
        Ok(())
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.gauge.dec_by(self.bytes() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_shares_leave_memory_for_small_ones() {
        let gauge = Gauge::default();
        let pool = MemoryPool::new(gauge.clone());
        let large = pool.take(LARGE_BYTES_MAX).unwrap();
        assert_eq!(pool.take(SMALL_BYTES + 1).unwrap_err(), Refusal::Overloaded);
        let small: Vec<MemoryShare> =
            (0..SMALL_BYTES_MAX / SMALL_BYTES).map(|_| pool.take(SMALL_BYTES).unwrap()).collect();
        assert_eq!(pool.take(1).unwrap_err(), Refusal::Overloaded);
        drop((large, small));
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn memory_for_a_response_is_held_until_its_last_part_is_dropped() {
        let gauge = Gauge::default();
        let pool = MemoryPool::new(gauge.clone());
        let response = |size: usize| pool.hold(Bytes::from(vec![7; size]));
        let mut first = response(LARGE_BYTES_MAX - 100_000).unwrap();
        assert_eq!(response(100_001).unwrap_err(), Refusal::Overloaded);
        assert_eq!(response(100_000).unwrap().len(), 100_000);
        let end = first.split_off(first.len() - 1);
        drop(first);
        assert_eq!(gauge.get(), LARGE_BYTES_MAX as i64 - 100_000);
        drop(end);
        assert_eq!(gauge.get(), 0);
        drop(response(LARGE_BYTES_MAX + 100).unwrap());
    }
}
