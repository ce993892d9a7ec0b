use cartwheel_core::cluster::liveness::{Liveness, Status};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What a node's control counts of what it thinks of the others. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct LivenessMetrics {
    members: Family<Labels, Gauge>,
    changes: Family<Labels, Counter>,
    nonsense: Counter,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Labels {
    status: &'static str,
}

impl Labels {
    const fn of(status: Status) -> Self {
        Self { status: status.name() }
    }
}

impl LivenessMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        for status in Status::ALL {
            // So that all are there, at zero, from the start.
            let _ = self.members.get_or_create(&Labels::of(status));
            let _ = self.changes.get_or_create(&Labels::of(status));
        }
        registry.register("members", "Other members, by what this node thinks of them", self.members.clone());
        let help = "How often this node began to think so of a member";
        registry.register("liveness_changes", help, self.changes.clone());
        registry.register("probe_refusals", "Packets of SWIM that made no sense", self.nonsense.clone());
    }

    /// The node thinks otherwise than before.
    pub(crate) fn changed(&self, before: &Liveness, now: &Liveness) {
        for status in Status::ALL {
            let members = now.iter().filter(|(_, standing)| standing.status == status).count();
            self.members.get_or_create(&Labels::of(status)).set(members as i64);
        }
        for (_, standing) in now.iter().filter(|&(node, standing)| before.status(node) != standing.status) {
            self.changes.get_or_create(&Labels::of(standing.status)).inc();
        }
    }

    /// So many packets made no sense.
    pub(crate) fn refused(&self, packets: u64) {
        self.nonsense.inc_by(packets);
    }
}
