//! The threads that serve HTTP clients.
//!
//! They are separate from the threads for peers, and yield to those and to the shards. When clients ask for more than the node can do, most
//! of the work is reading and refusing requests. On shared threads, responses from replicas would wait behind all of that until hardly any
//! request ended in time; with an equal share of the CPU, refusals would leave little of it for accepted requests. With lower priority, an
//! overloaded node reads requests later, and they wait in their sockets.

use std::io;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::os::priority;

/// Threads that end at once when this is dropped.
#[derive(Debug)]
pub(super) struct ClientThreads(Option<Runtime>);

impl ClientThreads {
    /// Starts one thread per core.
    ///
    /// # Errors
    /// If the system cannot start them.
    pub(super) fn start() -> io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        runtime.thread_name("clients").on_thread_start(priority::yield_to_others).enable_all();
        Ok(Self(Some(runtime.build()?)))
    }

    /// Serves a listener on these threads.
    ///
    /// # Errors
    /// If the listener cannot be handed over.
    pub(super) fn serve<F>(
        &self,
        listener: TcpListener,
        serve: impl FnOnce(TcpListener) -> F,
    ) -> io::Result<JoinHandle<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let Some(runtime) = &self.0 else { return Err(io::ErrorKind::NotConnected.into()) };
        let listener = listener.into_std()?;
        let _there = runtime.enter();
        Ok(runtime.spawn(serve(TcpListener::from_std(listener)?)))
    }
}

impl Drop for ClientThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
