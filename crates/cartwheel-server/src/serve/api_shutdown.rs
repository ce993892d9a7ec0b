//! Stops serving clients: when the node stops, or when a leaving node has handed over everything.
//!
//! The others stop talking to a node once they have recorded that it has left, and its last client requests may need them. So a leaving node
//! first ends all requests, and then reports that it has handed over everything.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

/// Stops the API server, by itself or on request.
#[derive(Debug)]
pub(super) struct ApiShutdown {
    requested: watch::Sender<bool>,
    closing: JoinHandle<()>,
}

impl ApiShutdown {
    /// Stops the API server as soon as all shards have `drained`. After `stop` becomes true, `serving` ends with the last request; then
    /// `unserved` becomes true.
    pub(super) fn new(
        serving: JoinHandle<()>,
        stop: watch::Sender<bool>,
        drained: Vec<watch::Receiver<bool>>,
        unserved: watch::Sender<bool>,
    ) -> Self {
        let (requested, mut is_requested) = watch::channel(false);
        let closing = tokio::spawn(async move {
            tokio::select! {
                () = all(drained) => info!("handed over everything; serving no more clients"),
                _ = is_requested.wait_for(|requested| *requested) => {}
            }
            stop.send_replace(true);
            let _ = serving.await;
            unserved.send_replace(true);
        });
        Self { requested, closing }
    }

    /// Stops the API server, and waits until the last request has ended.
    pub(super) async fn close(self) {
        self.requested.send_replace(true);
        let _ = self.closing.await;
    }
}

/// Waits until all are true at the same time.
async fn all(mut flags: Vec<watch::Receiver<bool>>) {
    while !flags.iter_mut().all(|it| *it.borrow_and_update()) {
        for it in &mut flags {
            if it.wait_for(|it| *it).await.is_err() {
                // A sender is gone: the node is about to end.
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A running API server, its shards' `drained` flags, whether it is unserved, and what ends its last request.
    fn running() -> (ApiShutdown, [watch::Sender<bool>; 2], watch::Receiver<bool>, watch::Sender<bool>) {
        let (stop, mut stopped) = watch::channel(false);
        let (last_request, mut ended) = watch::channel(false);
        let serving = tokio::spawn(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            let _ = ended.wait_for(|ended| *ended).await;
        });
        let shards = [false; 2].map(watch::Sender::new);
        let (unserved, is_unserved) = watch::channel(false);
        let drained = shards.iter().map(watch::Sender::subscribe).collect();
        (ApiShutdown::new(serving, stop, drained, unserved), shards, is_unserved, last_request)
    }

    async fn nothing_happens(unserved: &mut watch::Receiver<bool>) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!*unserved.borrow_and_update());
    }

    #[tokio::test]
    async fn it_stops_once_everything_is_handed_over_and_the_last_request_has_ended() {
        let (shutdown, [first, second], mut unserved, last_request) = running();
        first.send_replace(true);
        nothing_happens(&mut unserved).await;
        // The first shard has data again before the second one is drained.
        first.send_replace(false);
        second.send_replace(true);
        nothing_happens(&mut unserved).await;
        first.send_replace(true);
        nothing_happens(&mut unserved).await;
        last_request.send_replace(true);
        assert!(unserved.wait_for(|unserved| *unserved).await.is_ok());
        shutdown.close().await;
    }

    #[tokio::test]
    async fn it_stops_on_request() {
        let (shutdown, shards, mut unserved, last_request) = running();
        drop(shards);
        nothing_happens(&mut unserved).await;
        last_request.send_replace(true);
        shutdown.close().await;
        assert!(*unserved.borrow());
    }
}
