use std::time::SystemTime;

use cartwheel_core::message::trace::TraceContext;

/// A piece of work within a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// The trace, and the span's own id.
    pub context: TraceContext,
    /// The span that caused it.
    pub parent: Option<u64>,
    /// What was done.
    pub name: &'static str,
    /// Whether it took a request, or sent one.
    pub kind: SpanKind,
    /// When it began.
    pub begun: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What else is known. Names are those of the page on traces.
    pub attributes: Vec<(&'static str, SpanValue)>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// Which side of a request a span is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    /// Neither.
    Internal,
    /// It took a request.
    Server,
    /// It sent a request.
    Client,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpanValue {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for SpanValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for SpanValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for SpanValue {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl Span {
    /// Begins a span of `trace`.
    pub fn begin(name: &'static str, kind: SpanKind, trace: u128, parent: Option<u64>) -> Self {
        let (context, now) = (TraceContext { trace, span: fastrand::u64(1..) }, SystemTime::now());
        Self { context, parent, name, kind, begun: now, ended: now, attributes: Vec::new(), failure: None }
    }

    /// Begins a span that another one causes.
    pub fn child_of(parent: TraceContext, name: &'static str, kind: SpanKind) -> Self {
        Self::begin(name, kind, parent.trace, Some(parent.span))
    }

    /// Adds an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<SpanValue>) {
        self.attributes.push((name, value.into()));
    }
}
