//! The load of a shard, and whether it admits further client requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cartwheel_core::admission::Admitted;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::turn::LARGE_BYTES;
use super::{INBOX_MAX, TURN_MAX};

/// How many bytes of peers' messages may wait for a shard or be in its turn: of small ones, and of those with large values, so that large
/// ones do not delay small ones. One message of each kind may always wait.
const SMALL_BYTES_MAX: u32 = 16 << 20;
const LARGE_BYTES_MAX: u32 = 64 << 20;
/// How many inputs may wait before client requests are refused: at most half the queue, so that responses which end requests still get in;
/// at least one turn, which costs hardly more than a single input.
const WAITING_MAX: usize = INBOX_MAX / 2;
const WAITING_MIN: usize = TURN_MAX;
/// Between these, it is what the shard works off in this time: a client that would wait longer should try another node.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// Turns with fewer inputs are not measured: the sync of a turn would dominate the cost of an input.
const MEASURED_INPUTS_MIN: usize = TURN_MAX / 4;

/// The load of a shard, as seen from outside. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Load(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The cost of one input of a large turn, a moving average.
    input_ns: AtomicU64,
    /// The number of client requests under way.
    under_way: AtomicUsize,
    small_bytes: Arc<Semaphore>,
    large_bytes: Arc<Semaphore>,
    admitted: watch::Sender<Admitted>,
}

impl Default for Load {
    fn default() -> Self {
        Self(Arc::new(Inner {
            input_ns: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            small_bytes: Arc::new(Semaphore::new(SMALL_BYTES_MAX as usize)),
            large_bytes: Arc::new(Semaphore::new(LARGE_BYTES_MAX as usize)),
            admitted: watch::Sender::new(Admitted::default()),
        }))
    }
}

impl Load {
    /// Records a turn of `inputs` inputs that took `took`.
    pub(super) fn turn(&self, inputs: usize, took: Duration) {
        if inputs >= MEASURED_INPUTS_MIN {
            let (average, latest) = (self.0.input_ns.load(Ordering::Relaxed), took.as_nanos() as u64 / inputs as u64);
            let average = if average == 0 { latest } else { (7 * average + latest) / 8 };
            self.0.input_ns.store(average, Ordering::Relaxed);
        }
    }

    /// Counts a client's request as under way until the result is dropped.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// The number of client requests under way.
    pub(super) fn under_way(&self) -> usize {
        self.0.under_way.load(Ordering::Relaxed)
    }

    /// Whether a client's request is refused while `waiting` inputs wait.
    pub(super) fn refuses(&self, waiting: usize) -> bool {
        let input_ns = self.0.input_ns.load(Ordering::Relaxed).max(1);
        let in_time = usize::try_from(WAIT_MAX.as_nanos() as u64 / input_ns).unwrap_or(usize::MAX);
        waiting >= in_time.clamp(WAITING_MIN, WAITING_MAX)
    }

    /// Waits until there is room for a message of `bytes` bytes, and takes it until the permit is dropped.
    pub(super) async fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let (room, most) = match bytes < LARGE_BYTES {
            true => (&self.0.small_bytes, SMALL_BYTES_MAX),
            false => (&self.0.large_bytes, LARGE_BYTES_MAX),
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(most);
        room.clone().acquire_many_owned(bytes).await.ok()
    }

    /// The bytes of messages that wait or are in a turn.
    pub(super) fn bytes(&self) -> usize {
        let free = self.0.small_bytes.available_permits() + self.0.large_bytes.available_permits();
        (SMALL_BYTES_MAX + LARGE_BYTES_MAX) as usize - free
    }

    /// Records how much background work the shard admits.
    pub(super) fn admits(&self, admitted: Admitted) {
        self.0.admitted.send_replace(admitted);
    }

    /// How much background work the shard admits, as last recorded.
    pub(super) fn admitted(&self) -> Admitted {
        *self.0.admitted.borrow()
    }
}

/// A client's request under way.
#[derive(Debug)]
pub(super) struct UnderWay(Load);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_under_way_is_counted_until_it_ends() {
        let load = Load::default();
        let (_first, second) = (load.begin(), load.begin());
        assert_eq!(load.under_way(), 2);
        drop(second);
        assert_eq!(load.under_way(), 1);
    }

    #[test]
    fn as_many_inputs_may_wait_as_are_worked_off_in_time() {
        let load = Load::default();
        assert!(!load.refuses(WAITING_MAX - 1), "no turn was measured yet");
        assert!(load.refuses(WAITING_MAX));
        (0..100).for_each(|_| load.turn(TURN_MAX, TURN_MAX as u32 * Duration::from_micros(50)));
        assert!(!load.refuses(999));
        assert!(load.refuses(1_000), "50 ms of work");
        load.turn(1, Duration::from_secs(1));
        assert!(!load.refuses(999), "a small turn does not count");
        (0..100).for_each(|_| load.turn(TURN_MAX, TURN_MAX as u32 * Duration::from_millis(10)));
        assert!(!load.refuses(WAITING_MIN - 1) && load.refuses(WAITING_MIN));
    }

    #[tokio::test]
    async fn waiting_bytes_are_bounded() {
        let load = Load::default();
        let first = load.room_for(usize::MAX).await;
        assert_eq!(load.bytes(), LARGE_BYTES_MAX as usize, "a single message may always wait");
        assert!(load.room_for(1).await.is_some(), "small messages do not wait for large ones");
        let mut second = Box::pin(load.room_for(LARGE_BYTES));
        tokio::select! {
            biased;
            _ = &mut second => panic!("the second message should wait"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        assert!(second.await.is_some());
        assert_eq!(load.bytes(), 0);
    }
}
