//! A thread that commits a shard's batches, so that the shard goes on meanwhile.
//!
//! One commit is under way at a time. What is to be stored meanwhile gathers for the next one: the slower the disk, the more writes share a
//! sync.

use std::io;
use std::sync::mpsc as thread_queue;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use cartwheel_storage::{Batch, Committer, Durability, StoreError};
use tokio::sync::mpsc;
use tracing::warn;

use super::shared::Shared;

/// The store for commits on another thread, while it is open.
pub(super) type SharedCommitter = Shared<dyn Committer>;

impl SharedCommitter {
    /// Commits a batch. After a failure nothing more is committed until the store is open again.
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mut committer = self.lock();
        let committed = committer.as_mut().map_or(Err(StoreError::Poisoned), |it| it.commit(batch, durability));
        if committed.is_err() {
            // It keeps the store's files open.
            *committer = None;
        }
        committed
    }
}

/// A handle to such a thread. The thread ends when this is dropped.
pub(super) struct CommitThread {
    batches: thread_queue::Sender<(Batch, Durability)>,
    results: mpsc::UnboundedReceiver<Result<(), StoreError>>,
    thread: JoinHandle<()>,
}

impl CommitThread {
    /// Starts a thread for the shard with this index. None if the store cannot be committed to on another thread, or the system cannot start
    /// one; the shard then commits by itself.
    pub(super) fn start(index: u32, committer: SharedCommitter) -> Option<Self> {
        if !committer.is_open() {
            return None;
        }
        let (batches, submitted) = thread_queue::channel();
        let (report, results) = mpsc::unbounded_channel();
        let body = move || {
            for (batch, durability) in submitted {
                // The shard may have ended.
                let _ = report.send(committer.commit(batch, durability));
            }
        };
        match spawn(index, body) {
            Ok(thread) => Some(Self { batches, results, thread }),
            Err(error) => {
                warn!(%error, "cannot start the thread for commits; requests wait while the shard commits");
                None
            }
        }
    }

    /// Submits a batch. The one before it must have ended.
    pub(super) fn submit(&self, batch: Batch, durability: Durability) {
        // The thread lives as long as this.
        let _ = self.batches.send((batch, durability));
    }

    /// The result of the commit under way.
    pub(super) fn poll_result(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        self.results.poll_recv(cx).map(|result| result.unwrap_or(Err(StoreError::Poisoned)))
    }

    /// The result of the commit under way, if it has ended.
    pub(super) fn try_result(&mut self) -> Option<Result<(), StoreError>> {
        self.results.try_recv().ok()
    }

    /// Ends the thread, after the commit under way, and returns its result.
    pub(super) fn end(self) -> Option<Result<(), StoreError>> {
        let Self { batches, mut results, thread } = self;
        drop(batches);
        let _ = thread.join();
        results.try_recv().ok()
    }
}

fn spawn(index: u32, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("commits-{index}")).spawn(body)
}
