//! OTLP's messages for traces, as far as they are sent (opentelemetry-proto, `trace/v1/trace.proto` and what it includes).

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;

use super::span::{Span, SpanKind, SpanValue};

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, required, tag = "1")]
    resource: Resource,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, required, tag = "1")]
    scope: Scope,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<PbSpan>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbSpan {
    #[prost(bytes = "bytes", tag = "1")]
    trace_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    span_id: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    parent_span_id: Bytes,
    #[prost(string, tag = "5")]
    name: String,
    /// 1: internal, 2: server, 3: client.
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    /// 2: an error.
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, required, tag = "2")]
    value: AnyValue,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// The body of a request to a collector: spans of the node with this name.
pub(super) fn encode(cluster: &str, node: &str, spans: &[Span]) -> Bytes {
    let resource = [
        ("service.name", "cartwheel"),
        ("service.namespace", cluster),
        ("service.instance.id", node),
        ("service.version", crate::VERSION),
    ];
    let attributes = resource.map(|(key, value)| attribute(key, &value.into())).into();
    let scope = Scope { name: "cartwheel".to_owned(), version: crate::VERSION.to_owned() };
    let scope_spans = vec![ScopeSpans { scope, spans: spans.iter().map(span_to_pb).collect() }];
    let resource_spans = vec![ResourceSpans { resource: Resource { attributes }, scope_spans }];
    ExportRequest { resource_spans }.encode_to_vec().into()
}

fn span_to_pb(span: &Span) -> PbSpan {
    let id = |id: u64| Bytes::copy_from_slice(&id.to_be_bytes());
    PbSpan {
        trace_id: Bytes::copy_from_slice(&span.context.trace.to_be_bytes()),
        span_id: id(span.context.span),
        parent_span_id: span.parent.map_or_else(Bytes::new, id),
        name: span.name.to_owned(),
        kind: match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
        start_time_unix_nano: nanoseconds(span.begun),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes: span.attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        status: span.failure.clone().map(|message| Status { message, code: 2 }),
    }
}

fn attribute(key: &str, value: &SpanValue) -> KeyValue {
    let value = match value {
        SpanValue::Text(text) => Value::Text(text.clone()),
        SpanValue::Number(number) => Value::Number(*number),
    };
    KeyValue { key: key.to_owned(), value: AnyValue { value: Some(value) } }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
