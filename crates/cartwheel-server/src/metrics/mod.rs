//! The metrics of a node, for Prometheus.
//!
//! Each part of the node counts in metrics of its own; here they get names. Names follow Prometheus' conventions: base units, `_total` for
//! counters.

mod background;
mod disk;
mod hints;
mod http;
mod peers;
mod process;
mod resp;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::access::AccessMetrics;
use crate::control::{EpochMetrics, LivenessMetrics};
use crate::lifecycle::upgrade::UpgradeMetrics;
use crate::peers::Board;
use crate::shard::{HintsBoard, ShardHandle, ShardMetrics};
use crate::trace::TraceMetrics;

use disk::DiskMetrics;
pub use http::{HttpMetrics, KeyOperation, Outcome, Timed};
pub use resp::RespMetrics;

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The HTTP API server's, and those of all requests on keys.
    pub http: HttpMetrics,
    /// The Redis API server's.
    pub resp: RespMetrics,
    /// The control's.
    pub liveness: LivenessMetrics,
    /// The epoch's.
    pub epochs: EpochMetrics,
    /// Those of logins.
    pub access: AccessMetrics,
    /// The upgrade's.
    pub upgrades: UpgradeMetrics,
    /// Those of the data directory's disk.
    disk: DiskMetrics,
    hints: HintsBoard,
    dot_collisions: Counter,
}

impl Metrics {
    /// The metrics of a node with these shards and peers; the shards count in `counted`, traces in `traced`.
    pub fn new(shards: Vec<ShardHandle>, counted: &ShardMetrics, traced: &TraceMetrics, board: Board) -> Self {
        let (mut registry, http) = (Registry::default(), HttpMetrics::default());
        process::register(&mut registry);
        registry.register_collector(Box::new(process::ProcessCollector));
        let ours = registry.sub_registry_with_prefix("cartwheel");
        http.register(ours);
        let resp = RespMetrics::default();
        resp.register(ours);
        let liveness = LivenessMetrics::default();
        liveness.register(ours);
        let epochs = EpochMetrics::default();
        epochs.register(ours);
        let upgrades = UpgradeMetrics::default();
        upgrades.register(ours);
        let access = AccessMetrics::default();
        access.register(ours);
        let disk = DiskMetrics::default();
        disk.register(ours);
        counted.register(ours);
        traced.register(ours);
        ours.register_collector(Box::new(background::Background(shards.clone())));
        ours.register_collector(Box::new(process::Inboxes(shards)));
        ours.register_collector(Box::new(process::LostLines));
        let hints = hints::HintsCollector { hints: counted.hints().clone(), board: board.clone() };
        ours.register_collector(Box::new(hints));
        ours.register_collector(Box::new(peers::PeerCollector(board)));
        Self {
            registry,
            http,
            resp,
            liveness,
            epochs,
            access,
            disk,
            upgrades,
            hints: counted.hints().clone(),
            dot_collisions: counted.dot_collisions().clone(),
        }
    }

    /// Sets the space on the data directory's disk, in bytes.
    pub fn set_disk(&self, free: u64, total: u64) {
        self.disk.set(free, total);
    }

    /// The hints that the shards keep.
    pub const fn hints(&self) -> &HintsBoard {
        &self.hints
    }

    /// How often a key got two values with one version.
    pub fn dot_collisions(&self) -> u64 {
        self.dot_collisions.get()
    }

    /// All metrics as text.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string cannot fail; a collector that failed would be left out.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
pub(crate) mod tests;
