use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The metrics of traces. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct TraceMetrics {
    exported: Counter,
    lost: Family<[(&'static str, &'static str); 1], Counter>,
    refused: Counter,
}

/// Why spans were dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Loss {
    /// Too many waited for the exporter.
    QueueFull,
    /// Too many were open at once.
    TooManyOpen,
    /// The collector did not take them.
    NotTaken,
}

impl Loss {
    const ALL: [Self; 3] = [Self::QueueFull, Self::TooManyOpen, Self::NotTaken];

    const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooManyOpen => "too_many_open",
            Self::NotTaken => "not_taken",
        }
    }
}

impl TraceMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        // All kinds exist from the start, at zero.
        for loss in Loss::ALL {
            drop(self.lost.get_or_create(&[("kind", loss.name())]));
        }
        registry.register(
            "trace_spans_exported",
            "Spans that the collector of traces has taken",
            self.exported.clone(),
        );
        registry.register("trace_spans_dropped", "Spans that were dropped, by the reason", self.lost.clone());
        let help = "Requests that their clients trace and this node does not, because there are too many";
        registry.register("trace_requests_refused", help, self.refused.clone());
    }

    pub(super) fn exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    pub(super) fn lost(&self, loss: Loss, spans: usize) {
        self.lost.get_or_create(&[("kind", loss.name())]).inc_by(spans as u64);
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }
}
