//! Traces: the spans of sampled requests, sent to a collector by OTLP.
//!
//! A request is in a trace if its client says so by a `traceparent` header, within a rate, or if it is drawn. All other requests cost nothing here:
//! a tracer without a collector is empty. Spans wait in a bounded queue; one that finds no room is dropped and counted.

mod export;
mod metrics;
mod otlp;
mod parent;
mod sampling;
mod span;

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use cartwheel_core::message::trace::TraceContext;
use tokio::sync::mpsc;

pub use export::{Exporter, TraceSettings};
use metrics::Loss;
pub use metrics::TraceMetrics;
use parent::Parent;
use sampling::Sampler;
pub use span::{Span, SpanKind};

/// How many ended spans may wait for the exporter.
const SPANS_MAX: usize = 4_096;

tokio::task_local! {
    /// The span of the request that the present task carries out.
    static CURRENT: TraceContext;
}

/// Begins and records spans. Clones record to the same exporter; without one, nothing is recorded.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    sampler: Sampler,
    spans: mpsc::Sender<Span>,
    metrics: TraceMetrics,
}

impl Tracer {
    /// A tracer, and the exporter that sends its spans to the collector once it [runs](Exporter::run). Without a collector it records nothing.
    pub fn new(settings: Option<TraceSettings>, metrics: &TraceMetrics) -> (Self, Option<Exporter>) {
        let Some(settings) = settings else { return (Self::default(), None) };
        let (spans, waiting) = mpsc::channel(SPANS_MAX);
        let recorder = Recorder { sampler: Sampler::new(settings.sample), spans, metrics: metrics.clone() };
        (Self(Some(Arc::new(recorder))), Some(Exporter::new(settings, waiting, metrics.clone())))
    }

    /// Whether there is a collector.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The first span of a request on this node, if the request is to be in a trace: its client sent this `traceparent`, or it is drawn.
    pub fn root(&self, name: &'static str, traceparent: Option<&[u8]>) -> Option<Span> {
        let recorder = self.0.as_deref()?;
        // As the specification wants it, an invalid header is as good as none.
        let (trace, parent) = match traceparent.and_then(Parent::parse) {
            Some(parent) if !parent.sampled => return None,
            Some(parent) => {
                if !recorder.sampler.takes_from_client() {
                    recorder.metrics.refused();
                    return None;
                }
                (parent.trace, Some(parent.span))
            }
            None if recorder.sampler.draws() => (fastrand::u128(1..), None),
            None => return None,
        };
        Some(Span::begin(name, SpanKind::Server, trace, parent))
    }

    /// Ends a span and records it.
    pub fn end(&self, mut span: Span) {
        let Some(recorder) = &self.0 else { return };
        span.ended = SystemTime::now();
        if recorder.spans.try_send(span).is_err() {
            recorder.metrics.lost(Loss::QueueFull, 1);
        }
    }

    /// How many spans wait for the exporter, and how many may; none without a collector.
    pub fn waiting(&self) -> Option<(usize, usize)> {
        let spans = &self.0.as_deref()?.spans;
        Some((spans.max_capacity() - spans.capacity(), spans.max_capacity()))
    }

    /// Counts a span that was not begun because too many are open.
    pub fn left_out(&self) {
        if let Some(recorder) = &self.0 {
            recorder.metrics.lost(Loss::TooManyOpen, 1);
        }
    }

    /// The span of the request that the present task carries out.
    pub fn current(&self) -> Option<TraceContext> {
        // Looked up only where there are traces at all.
        self.0.as_ref().and_then(|_| current())
    }
}

/// The span of the request that the present task carries out.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|context| *context).ok()
}

/// Carries out `request` within a span.
pub async fn within<F: Future>(span: &Span, request: F) -> F::Output {
    CURRENT.scope(span.context, request).await
}

#[cfg(test)]
mod tests;
