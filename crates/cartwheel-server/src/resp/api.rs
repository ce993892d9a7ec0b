//! The state of the Redis API server: the node that its commands act on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::SystemTime;

use super::clients::Clients;
use crate::backend::Backend;
use crate::backend::ring::ring_of;
use crate::log::RateLimit;
use crate::memory::MemoryPool;
use crate::metrics::HttpMetrics;

/// The state of the API server.
#[derive(Debug)]
pub struct RespApi {
    backend: Arc<Backend>,
    /// The memory for requests.
    requests: MemoryPool,
    /// The memory for replies.
    replies: MemoryPool,
    clients: Arc<Clients>,
    connections_max: usize,
    port: AtomicU16,
    commands: AtomicU64,
    opened: SystemTime,
    failures: RateLimit,
}

impl RespApi {
    /// The state for a node that takes at most `connections_max` connections.
    pub fn new(backend: Arc<Backend>, connections_max: usize) -> Arc<Self> {
        let metrics = &backend.metrics.resp;
        Arc::new(Self {
            requests: MemoryPool::new(metrics.request_bytes.clone()),
            replies: MemoryPool::new(metrics.reply_bytes.clone()),
            clients: Arc::default(),
            connections_max,
            port: AtomicU16::new(0),
            commands: AtomicU64::new(0),
            opened: SystemTime::now(),
            failures: RateLimit::new(super::LOG_EVERY),
            backend,
        })
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The metrics of requests on keys.
    pub(super) fn metrics(&self) -> &HttpMetrics {
        &self.backend.metrics.http
    }

    pub(super) fn requests(&self) -> &MemoryPool {
        &self.requests
    }

    pub(super) fn replies(&self) -> &MemoryPool {
        &self.replies
    }

    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    pub(super) fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// The port on which the node serves Redis clients.
    pub(super) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    pub(super) fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// How many commands were carried out.
    pub(super) fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    pub(super) fn count_commands(&self, commands: usize) {
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
        self.backend.metrics.resp.commands.inc_by(commands as u64);
    }

    /// When the API server started.
    pub(super) fn opened(&self) -> SystemTime {
        self.opened
    }

    /// Limits the log lines about failed commands.
    pub(super) fn failures(&self) -> &RateLimit {
        &self.failures
    }

    /// The ring, as HTTP shows it.
    pub(super) fn ring_json(&self) -> String {
        let ring = ring_of(&self.backend.view(), &self.backend.phases());
        // A form of texts and numbers can always be written.
        serde_json::to_string(&ring).unwrap_or_default()
    }
}
