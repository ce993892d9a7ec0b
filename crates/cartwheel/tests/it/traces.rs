//! Traces: a request across nodes is one trace, with spans of each node below those that caused them; what goes wrong with the collector harms no
//! request; slow requests are logged with the replicas that were late.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Instant;

use prost::Message as _;
use rustix::process::Signal;

use crate::harness::raw::{call, get, put, set_bucket};
use crate::harness::{Cluster, PATIENCE};

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, required, tag = "1")]
    resource: Resource,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    begun: u64,
    #[prost(fixed64, tag = "8")]
    ended: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    found.and_then(|attribute| attribute.value.as_ref()?.text.as_deref()).unwrap_or_default()
}

/// A collector of OTLP that keeps what it receives.
struct Collector {
    endpoint: String,
    requests: mpsc::Receiver<ExportRequest>,
    /// The spans received so far, with the name of their node.
    spans: Vec<(String, Span)>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let sender = sender.clone();
                std::thread::spawn(move || collect(stream.unwrap(), &sender));
            }
        });
        Self { endpoint, requests, spans: Vec::new() }
    }

    /// Waits until `is_enough` of the spans of `trace`.
    fn wait_for(&mut self, trace: &str, is_enough: impl Fn(&[(String, Span)]) -> bool) -> Vec<(String, Span)> {
        let begun = Instant::now();
        loop {
            let of_trace = self.spans.iter().filter(|(_, span)| hex(&span.trace) == trace).cloned().collect::<Vec<_>>();
            if is_enough(&of_trace) {
                return of_trace;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let request = self.requests.recv_timeout(left).unwrap_or_else(|_| panic!("only {:#?}", of_trace));
            for resource in request.resources {
                let attributes = &resource.resource.attributes;
                assert_eq!(text(attributes, "service.name"), "cartwheel");
                let node = text(attributes, "service.instance.id").to_owned();
                let spans = resource.scopes.into_iter().flat_map(|scope| scope.spans);
                self.spans.extend(spans.map(|span| (node.clone(), span)));
            }
        }
    }
}

fn collect(mut stream: TcpStream, sender: &mpsc::Sender<ExportRequest>) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return;
        }
        request.extend_from_slice(&buffer[..read]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1\r\n") && head.contains("application/x-protobuf"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if let Some(body) = request.get(end + 4..end + 4 + length.parse::<usize>().unwrap()) {
            let _ = sender.send(ExportRequest::decode(body).unwrap());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            return;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The two homes of a key, and the node of three that is none, once all nodes know them: a changed `n` reaches the partitions one after the other,
/// and a node that does not know it yet is a home itself.
fn homes(cluster: &Cluster, path: &str) -> (Vec<String>, u16) {
    let begun = Instant::now();
    loop {
        let mut located = (1..=3).map(|number| homes_by(&cluster.endpoint(number), path)).collect::<Vec<_>>();
        located.dedup();
        if let [homes] = &located[..]
            && homes.len() == 2
        {
            let other = (1..=3).find(|number| !homes.contains(&format!("node-{number}"))).unwrap();
            return (homes.clone(), other);
        }
        assert!(begun.elapsed() < PATIENCE, "{located:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The homes of a key, as the node at `endpoint` knows them.
fn homes_by(endpoint: &str, path: &str) -> Vec<String> {
    let located = get(endpoint, &format!("/v1/cluster/locate/{path}")).json();
    let entries = located["preference_list"].as_array().unwrap();
    let homes = entries.iter().filter(|entry| entry["role"] == "home");
    homes.map(|entry| entry["node"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_put_through_a_node_that_is_no_home_is_one_trace_over_three_nodes() {
    let mut collector = Collector::start();
    let cluster = Cluster::start_with(&["--otlp-endpoint", &collector.endpoint]);
    assert_eq!(set_bucket(&cluster.endpoint(1), "traced", r#"{"n": 2, "r": 2, "w": 2}"#).status, 200);
    let (homes, other) = homes(&cluster, "traced/key");
    let other_name = format!("node-{other}");

    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = [("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))];
    let parent: Vec<(&str, &str)> = parent.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(call(&cluster.endpoint(other), "PUT", "/v1/kv/traced/key", &parent, b"value").status, 204);
    // Requests that nothing asks to trace are not traced.
    assert_eq!(put(&cluster.endpoint(other), "/v1/kv/traced/untraced", "value").status, 204);

    let names = [
        "PUT /v1/kv",
        "coordinate put",
        "forward write",
        "coordinate forwarded write",
        "ask replica to merge",
        "replica merge",
    ];
    let commits = |spans: &[(String, Span)]| spans.iter().filter(|(_, span)| span.name == "store commit").count();
    let spans = collector.wait_for(trace, |spans| {
        names.iter().all(|name| spans.iter().any(|(_, span)| span.name == *name)) && commits(spans) >= 2
    });
    let by_id: BTreeMap<String, &(String, Span)> = spans.iter().map(|both| (hex(&both.1.id), both)).collect();
    assert_eq!(by_id.len(), spans.len(), "ids are unique");
    // The chain from the replica's commit up to the client's own span.
    let is_on_replica = |(node, span): &&(String, Span)| {
        span.name == "store commit" && by_id[&hex(&span.parent)].1.name == "replica merge" && *node != other_name
    };
    let (replica, commit) = spans.iter().find(is_on_replica).expect("the replica commits");
    let mut chain = vec![(replica.clone(), commit.name.clone())];
    let mut span = commit;
    while let Some((node, above)) = by_id.get(&hex(&span.parent)).map(|both| (&both.0, &both.1)) {
        assert!(above.begun <= above.ended);
        chain.push((node.clone(), above.name.clone()));
        span = above;
    }
    let coordinator = homes.iter().find(|home| *home != replica).unwrap();
    let on = |node: &String, name: &str| (node.clone(), name.to_owned());
    assert_eq!(
        chain,
        [
            on(replica, "store commit"),
            on(replica, "replica merge"),
            on(coordinator, "ask replica to merge"),
            on(coordinator, "coordinate forwarded write"),
            on(&other_name, "forward write"),
            on(&other_name, "coordinate put"),
            on(&other_name, "PUT /v1/kv"),
        ]
    );
    assert_eq!(hex(&span.parent), "b7ad6b7169203331", "the client's span is above all");
    let own = spans.iter().find(|(node, span)| span.name == "store commit" && node == coordinator);
    let (_, own) = own.expect("the coordinator commits, too");
    assert_eq!(by_id[&hex(&own.parent)].1.name, "coordinate forwarded write");
    let bucket = spans
        .iter()
        .find(|(_, span)| span.name == "replica merge")
        .map(|(_, span)| text(&span.attributes, "cartwheel.bucket"));
    assert_eq!(bucket, Some("traced"));
    let all: Vec<String> = collector.spans.iter().map(|(_, span)| hex(&span.trace)).collect();
    assert!(all.iter().all(|other| other == trace), "only the request that its client traced: {all:?}");
}

#[test]
fn requests_are_served_as_ever_while_the_collector_is_away_and_slow_ones_are_logged() {
    // No process listens there.
    let mut cluster = Cluster::start();
    cluster.stop(1, Signal::TERM);
    let flags = ["--otlp-endpoint=http://127.0.0.1:9", "--trace-sample=1", "--slow-request=300ms", "--log-format=json"];
    cluster.restart_with_flags(1, &flags);
    let node = cluster.endpoint(1);
    for number in 0..50 {
        assert_eq!(put(&node, &format!("/v1/kv/b/{number}"), "value").status, 204);
        assert_eq!(get(&node, &format!("/v1/kv/b/{number}")).status, 200);
    }
    let begun = Instant::now();
    let metric = |name: &str| {
        let metrics = get(&node, "/metrics").text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name}"))
    };
    while metric("cartwheel_trace_spans_dropped_total{kind=\"not_taken\"}") == 0.0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Two of three nodes stand still: a write waits for them, in vain.
    cluster.signal(2, Signal::STOP);
    cluster.signal(3, Signal::STOP);
    let failed = call(&node, "PUT", "/v1/kv/b/slow%0Akey?timeout_ms=900", &[], b"value");
    cluster.signal(2, Signal::CONT);
    cluster.signal(3, Signal::CONT);
    assert_eq!(failed.status, 503);
    assert_eq!(metric("cartwheel_requests_slow_total{operation=\"put\"}"), 1.0);
    let begun = Instant::now();
    let line = loop {
        let log = std::fs::read_to_string(cluster.log_of_restarted(1)).unwrap();
        if let Some(line) = log.lines().find(|line| line.contains("\"slow request\"")) {
            break serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "{log}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!((&line["operation"], &line["bucket"], &line["key"]), (&"put".into(), &"b".into(), &"slow\\nkey".into()));
    assert_eq!((&line["level"], &line["outcome"]), (&"WARN".into(), &"unavailable".into()));
    let mut late: Vec<&str> = line["late"].as_str().unwrap().split(',').collect();
    late.sort_unstable();
    assert_eq!(late, ["node-2", "node-3"], "{line}");
    assert_eq!(line["trace"].as_str().unwrap().len(), 32, "{line}");
    assert!(line["took_ms"].as_u64().unwrap() >= 300, "{line}");
}
