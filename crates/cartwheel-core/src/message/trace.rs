//! The place of a message in a trace.

/// A span of a trace, as W3C Trace Context names it. The protocol carries it from node to node and never looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace: u128,
    /// The span within it from which the message comes; never 0.
    pub span: u64,
}
