//! How a shard's thread waits for its queue.
//!
//! It parks itself. Waiting through the runtime would set a timer for every turn, behind a lock that all threads of the runtime share.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Lets one thread wait for a queue.
pub(super) struct Waiter(Waker);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

impl Waiter {
    /// A waiter for the calling thread, which must be the one that waits.
    pub(super) fn of_this_thread() -> Self {
        Self(Waker::from(Arc::new(Unpark(thread::current()))))
    }

    /// Gathers up to `max` entries of `queue`. Waits for the first one for `patience`, or for ever if that is none, and no longer once the queue
    /// is closed.
    pub(super) fn gather<T>(
        &self,
        queue: &mut mpsc::Receiver<T>,
        gathered: &mut Vec<T>,
        max: usize,
        patience: Option<Duration>,
    ) {
        let begun = Instant::now();
        // A thread may wake up spuriously.
        while queue.poll_recv_many(&mut Context::from_waker(&self.0), gathered, max).is_pending() {
            match patience.map(|patience| patience.saturating_sub(begun.elapsed())) {
                None => thread::park(),
                Some(Duration::ZERO) => return,
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(queue: &mut mpsc::Receiver<u32>, max: usize, patience: Option<Duration>) -> Vec<u32> {
        let mut gathered = Vec::new();
        Waiter::of_this_thread().gather(queue, &mut gathered, max, patience);
        gathered
    }

    #[test]
    fn it_takes_what_is_there_up_to_the_maximum() {
        let (sender, mut queue) = mpsc::channel(8);
        (0..5).for_each(|number| sender.try_send(number).unwrap());
        assert_eq!(gather(&mut queue, 3, None), [0, 1, 2]);
        assert_eq!(gather(&mut queue, 3, Some(Duration::ZERO)), [3, 4]);
        assert_eq!(gather(&mut queue, 3, Some(Duration::ZERO)), [] as [u32; 0]);
        assert_eq!(gather(&mut queue, 3, Some(Duration::from_millis(1))), [] as [u32; 0], "the time is over");
    }

    #[test]
    fn an_entry_or_the_end_of_the_queue_wakes_it() {
        let (sender, mut queue) = mpsc::channel(1);
        let others = thread::spawn(move || (0..1_000).for_each(|number| sender.blocking_send(number).unwrap()));
        let mut all = Vec::new();
        loop {
            match gather(&mut queue, 8, None) {
                some if some.is_empty() => break,
                some => all.extend(some),
            }
        }
        others.join().unwrap();
        assert!(all.into_iter().eq(0..1_000));
    }
}
