use cartwheel_core::wire::Protocol;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::UpgradeStatus;

/// The metrics of the cluster's upgrade. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct UpgradeMetrics {
    all_speak: Gauge,
    waits_for: Gauge,
}

impl UpgradeMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let newest: Gauge = Gauge::default();
        newest.set(Protocol::NEWEST.0.into());
        registry.register("protocol_newest", "Newest version of the protocol that this node speaks", newest);
        let help = "Version of the protocol in use, which all members are known to speak";
        registry.register("protocol_in_use", help, self.all_speak.clone());
        let help = "Members that are not known to speak the newest version that this node speaks";
        registry.register("protocol_older_members", help, self.waits_for.clone());
    }

    pub(crate) fn changed(&self, status: &UpgradeStatus) {
        self.all_speak.set(status.all_speak.0.into());
        self.waits_for.set(status.waits_for.len() as i64);
    }
}
