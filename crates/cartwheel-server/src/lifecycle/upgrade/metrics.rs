use cartwheel_core::wire::Protocol;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::UpgradeStatus;

/// How far the node sees the upgrade of its cluster. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct UpgradeMetrics {
    all_speak: Gauge,
    waits_for: Gauge,
}

impl UpgradeMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let newest: Gauge = Gauge::default();
        newest.set(Protocol::NEWEST.0.into());
        registry.register("protocol_newest", "The newest version of the protocol that this node speaks", newest);
        let help = "The version of the protocol that all members are known to speak, and which is in use";
        registry.register("protocol_in_use", help, self.all_speak.clone());
        let help = "How many members are not known to speak the newest version that this node does";
        registry.register("protocol_older_members", help, self.waits_for.clone());
    }

    pub(crate) fn changed(&self, status: &UpgradeStatus) {
        self.all_speak.set(status.all_speak.0.into());
        self.waits_for.set(status.waits_for.len() as i64);
    }
}
