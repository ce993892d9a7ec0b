//! The thread of a shard: one runtime, on which the shard and all tasks that serve it take turns.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime of a shard's thread, before the thread runs. Its tasks end when it is dropped.
#[derive(Debug)]
pub(super) struct ShardRuntime(Option<Runtime>);

impl ShardRuntime {
    /// # Errors
    /// If the system has no resources for it.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Some(Builder::new_current_thread().enable_all().build()?)))
    }

    /// Spawns tasks on the thread, also before it runs.
    pub(super) fn spawner(&self) -> Handle {
        self.running().handle().clone()
    }

    /// Runs `shard` on the calling thread, and all spawned tasks meanwhile.
    pub(super) fn run<T>(self, shard: impl Future<Output = T>) -> T {
        self.running().block_on(shard)
    }

    fn running(&self) -> &Runtime {
        self.0.as_ref().expect("a runtime is there until it is dropped")
    }
}

impl Drop for ShardRuntime {
    fn drop(&mut self) {
        // Otherwise a runtime must not be dropped by a task of another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
