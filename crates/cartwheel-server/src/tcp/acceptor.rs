//! Accepts connections, up to a maximum.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::log::RateLimit;

const LOG_EVERY: Duration = Duration::from_secs(10);
/// How long to wait after a failure. Most likely the process is out of file descriptors, and some will be free again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Accepts connections.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    clients: &'static str,
    failures: RateLimit,
}

impl Acceptor {
    /// Accepts at most `connections_max` connections at once, from `clients` as the log calls them. Further ones wait in the system's queue.
    pub(crate) fn new(listener: TcpListener, connections_max: usize, clients: &'static str) -> Self {
        let permits = Arc::new(Semaphore::new(connections_max));
        Self { listener, permits, clients, failures: RateLimit::new(LOG_EVERY) }
    }

    /// The next connection. It counts until its permit is dropped.
    pub(crate) async fn next(&self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            match self.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    if let Some(count) = self.failures.count(1) {
                        let clients = self.clients;
                        warn!(clients, failures = count, %error, "cannot accept connections");
                    }
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn accept(&self) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let permit = self.permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, permit))
    }
}
