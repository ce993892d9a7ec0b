use cartwheel_core::cluster::liveness::{Liveness, Status};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of the other members' liveness. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct LivenessMetrics {
    members: Family<Labels, Gauge>,
    changes: Family<Labels, Counter>,
    malformed: Counter,
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
            // All series exist from the start, at zero.
            let _ = self.members.get_or_create(&Labels::of(status));
            let _ = self.changes.get_or_create(&Labels::of(status));
        }
        registry.register(
            "members",
            "Other members, by the liveness status that this node gives them",
            self.members.clone(),
        );
        let help = "Changes of a member to this liveness status";
        registry.register("liveness_changes", help, self.changes.clone());
        registry.register("probe_refusals", "SWIM packets that were malformed or out of place", self.malformed.clone());
    }

    /// Counts the changes of status.
    pub(crate) fn changed(&self, before: &Liveness, now: &Liveness) {
        for status in Status::ALL {
            let members = now.iter().filter(|(_, peer_status)| peer_status.status == status).count();
            self.members.get_or_create(&Labels::of(status)).set(members as i64);
        }
        for (_, peer_status) in now.iter().filter(|&(node, peer_status)| before.status(node) != peer_status.status) {
            self.changes.get_or_create(&Labels::of(peer_status.status)).inc();
        }
    }

    /// Counts refused packets.
    pub(crate) fn refused(&self, packets: u64) {
        self.malformed.inc_by(packets);
    }
}
