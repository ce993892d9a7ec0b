use cartwheel_core::control::EpochStatus;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of the epoch. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct EpochMetrics {
    epoch: Gauge,
    entered: Gauge,
    waits_for: Gauge,
}

impl EpochMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Epoch of the cluster, as this node knows it; 0 while unknown";
        registry.register("epoch", help, self.epoch.clone());
        let help = "Unix time at which this node entered the epoch, or started";
        registry.register("epoch_entered_seconds", help, self.entered.clone());
        let help = "Members that have not finished the epoch; while there are any, no tombstone is collected";
        registry.register("epoch_unfinished_members", help, self.waits_for.clone());
    }

    pub(crate) fn changed(&self, status: &EpochStatus) {
        self.epoch.set(i64::try_from(status.epoch.0).unwrap_or(i64::MAX));
        self.entered.set(i64::try_from(status.since.0 / 1_000).unwrap_or(i64::MAX));
        self.waits_for.set(status.waits_for.len() as i64);
    }
}
