use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The space on the disk of the node's data directory. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskMetrics {
    free: Gauge,
    total: Gauge,
}

impl DiskMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help =
            "Free space on the disk of the data directory; it stays as it was while the file system does not answer";
        registry.register("disk_free_bytes", help, self.free.clone());
        registry.register("disk_size_bytes", "Size of the file system of the data directory", self.total.clone());
    }

    pub(super) fn set(&self, free: u64, total: u64) {
        for (gauge, bytes) in [(&self.free, free), (&self.total, total)] {
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}
