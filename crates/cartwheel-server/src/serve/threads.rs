//! The threads that serve HTTP clients.
//!
//! They are others than those that talk with peers, and yield to them and to the shards. Where clients ask for more than the node can do,
//! most of the work is to read requests and refuse them: on the same threads, what a request under way waits for from its replicas would
//! wait behind all of that, until hardly any ended in time; and with an equal share of the CPU the refusals would leave little of it for
//! what was taken on. As it is, a node that has its hands full takes requests up later, and they wait in their sockets.

use std::io;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::os::priority;

/// Threads that end when this is dropped, whatever they are at.
#[derive(Debug)]
pub(super) struct ClientThreads(Option<Runtime>);

impl ClientThreads {
    /// As many as the machine has cores.
    ///
    /// # Errors
    /// If the system has none to give.
    pub(super) fn start() -> io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        runtime.thread_name("clients").on_thread_start(priority::yield_to_others).enable_all();
        Ok(Self(Some(runtime.build()?)))
    }

    /// Has `serve` serve a listener there.
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
