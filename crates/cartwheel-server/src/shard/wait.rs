//! How a shard waits for its queue while the other tasks of its thread run.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// Waits for a queue, for the time, and for one more event.
pub(super) struct Waiter(Pin<Box<Sleep>>);

impl Waiter {
    /// It must be made within the shard's runtime.
    pub(super) fn new() -> Self {
        Self(Box::pin(tokio::time::sleep(Duration::ZERO)))
    }

    /// Gathers up to `max` entries of `queue`. If there are none, waits for the first one, for `event`, or for `patience` to be over; for ever if that
    /// is none. It does not wait once the queue is closed.
    pub(super) async fn gather<T>(
        &mut self,
        queue: &mut mpsc::Receiver<T>,
        gathered: &mut Vec<T>,
        max: usize,
        patience: Option<Duration>,
        mut event: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut is_set = false;
        std::future::poll_fn(|cx| {
            let has_come = queue.poll_recv_many(cx, gathered, max).is_ready();
            // Both are polled, so that either wakes the task.
            if event(cx).is_ready() || has_come || patience == Some(Duration::ZERO) {
                return Poll::Ready(());
            }
            let Some(until) = until else { return Poll::Pending };
            if !std::mem::replace(&mut is_set, true) {
                self.0.as_mut().reset(until);
            }
            self.0.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gather(queue: &mut mpsc::Receiver<u32>, max: usize, patience: Option<Duration>) -> Vec<u32> {
        let mut gathered = Vec::new();
        Waiter::new().gather(queue, &mut gathered, max, patience, |_| Poll::Pending).await;
        gathered
    }

    #[tokio::test]
    async fn it_takes_what_is_there_up_to_the_maximum() {
        let (sender, mut queue) = mpsc::channel(8);
        (0..5).for_each(|number| sender.try_send(number).unwrap());
        assert_eq!(gather(&mut queue, 3, None).await, [0, 1, 2]);
        assert_eq!(gather(&mut queue, 3, Some(Duration::ZERO)).await, [3, 4]);
        assert_eq!(gather(&mut queue, 3, Some(Duration::ZERO)).await, [] as [u32; 0]);
        assert_eq!(gather(&mut queue, 3, Some(Duration::from_millis(1))).await, [] as [u32; 0], "the time is over");
    }

    #[tokio::test]
    async fn an_entry_the_event_or_the_end_of_the_queue_wakes_it() {
        let (sender, mut queue) = mpsc::channel(1);
        let others = std::thread::spawn(move || (0..1_000).for_each(|number| sender.blocking_send(number).unwrap()));
        let mut all = Vec::new();
        loop {
            match gather(&mut queue, 8, None).await {
                some if some.is_empty() => break,
                some => all.extend(some),
            }
        }
        others.join().unwrap();
        assert!(all.into_iter().eq(0..1_000));

        let (_sender, mut queue) = mpsc::channel::<u32>(1);
        let (notify, mut notified) = mpsc::channel::<()>(1);
        std::thread::spawn(move || notify.blocking_send(()).unwrap());
        let event = |cx: &mut Context<'_>| notified.poll_recv(cx).map(drop);
        Waiter::new().gather(&mut queue, &mut Vec::new(), 1, None, event).await;
    }
}
