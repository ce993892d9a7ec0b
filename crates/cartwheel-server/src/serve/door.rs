//! When clients are served no more: when the node stops, or as soon as one that leaves has handed over everything.
//!
//! The others cut a node off once they have recorded that it has left. What its last clients ask for may need them, so a node that
//! leaves first ends what was asked of it, and then says that it has handed over everything.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

/// The clients' door, which closes by itself.
#[derive(Debug)]
pub(super) struct ClosingDoor {
    told: watch::Sender<bool>,
    closing: JoinHandle<()>,
}

impl ClosingDoor {
    /// Has a door closed as soon as all shards have `drained`. `serving` ends when the last request has, after `stop` is true;
    /// then `unserved` becomes true.
    pub(super) fn new(
        serving: JoinHandle<()>,
        stop: watch::Sender<bool>,
        drained: Vec<watch::Receiver<bool>>,
        unserved: watch::Sender<bool>,
    ) -> Self {
        let (told, mut is_told) = watch::channel(false);
        let closing = tokio::spawn(async move {
            tokio::select! {
                () = all(drained) => info!("this node leaves and has handed over everything: it serves no more clients"),
                _ = is_told.wait_for(|told| *told) => {}
            }
            stop.send_replace(true);
            let _ = serving.await;
            unserved.send_replace(true);
        });
        Self { told, closing }
    }

    /// Closes it, and waits until the last request has ended.
    pub(super) async fn close(self) {
        self.told.send_replace(true);
        let _ = self.closing.await;
    }
}

/// Waits until all are true at the same time.
async fn all(mut those: Vec<watch::Receiver<bool>>) {
    while !those.iter_mut().all(|it| *it.borrow_and_update()) {
        for it in &mut those {
            if it.wait_for(|it| *it).await.is_err() {
                // Whoever would have told it has ended, and the node is about to.
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A door, what its shards tell, and whether it serves.
    fn door() -> (ClosingDoor, [watch::Sender<bool>; 2], watch::Receiver<bool>, watch::Sender<bool>) {
        let (stop, mut stopped) = watch::channel(false);
        let (last_request, mut ended) = watch::channel(false);
        let serving = tokio::spawn(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            let _ = ended.wait_for(|ended| *ended).await;
        });
        let shards = [false; 2].map(watch::Sender::new);
        let (unserved, is_unserved) = watch::channel(false);
        let drained = shards.iter().map(watch::Sender::subscribe).collect();
        (ClosingDoor::new(serving, stop, drained, unserved), shards, is_unserved, last_request)
    }

    async fn nothing_happens(unserved: &mut watch::Receiver<bool>) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!*unserved.borrow_and_update());
    }

    #[tokio::test]
    async fn it_closes_once_everything_is_handed_over_and_the_last_request_has_ended() {
        let (door, [first, second], mut unserved, last_request) = door();
        first.send_replace(true);
        nothing_happens(&mut unserved).await;
        // What was handed over by one has come back before the other has.
        first.send_replace(false);
        second.send_replace(true);
        nothing_happens(&mut unserved).await;
        first.send_replace(true);
        nothing_happens(&mut unserved).await;
        last_request.send_replace(true);
        assert!(unserved.wait_for(|unserved| *unserved).await.is_ok());
        door.close().await;
    }

    #[tokio::test]
    async fn it_closes_when_it_is_told_to() {
        let (door, shards, mut unserved, last_request) = door();
        drop(shards);
        nothing_happens(&mut unserved).await;
        last_request.send_replace(true);
        door.close().await;
        assert!(*unserved.borrow());
    }
}
