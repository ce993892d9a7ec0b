use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::parent::Parent;
use super::*;

#[test]
fn a_traceparent_is_read_as_the_specification_says() {
    let header = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
    let parent = Parent { trace, span: 0xb7ad_6b71_6920_3331, sampled: true };
    assert_eq!(Parent::parse(header), Some(parent));
    let unsampled = Parent::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02");
    assert_eq!(unsampled, Some(Parent { sampled: false, ..parent }));
    let later = Parent::parse(b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-else");
    assert_eq!(later, Some(parent));
    for bad in [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00 0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319\u{e9}-b7ad6b716920333-01",
    ] {
        assert_eq!(Parent::parse(bad.as_bytes()), None, "{bad}");
    }
}

fn tracer(endpoint: &str, sample: &str) -> (Tracer, Exporter, TraceMetrics) {
    let (metrics, settings) = (
        TraceMetrics::default(),
        TraceSettings { endpoint: endpoint.parse().unwrap(), sample: sample.parse().unwrap() },
    );
    let (tracer, exporter) = Tracer::new(Some(settings), &metrics);
    (tracer, exporter.unwrap(), metrics)
}

#[test]
fn requests_are_traced_if_their_clients_trace_them_or_they_are_drawn() {
    const SAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let (off, _) = Tracer::new(None, &TraceMetrics::default());
    assert!(off.root("get", Some(SAMPLED)).is_none() && !off.is_on());
    let (never, _exporter, _) = tracer("http://127.0.0.1:4318", "0");
    assert!(never.root("get", None).is_none() && never.root("get", Some(b"nonsense")).is_none());
    let span = never.root("get", Some(SAMPLED)).unwrap();
    assert_eq!((span.parent, span.context.trace >> 64), (Some(0xb7ad_6b71_6920_3331), 0x0af7_6519_16cd_43dd));
    let (always, _exporter, _) = tracer("http://127.0.0.1:4318", "1");
    assert!(always.root("get", None).unwrap().parent.is_none());
    assert!(always.root("get", Some(UNSAMPLED)).is_none(), "its client has decided");
}

#[tokio::test]
async fn spans_that_find_no_room_are_counted_and_dropped() {
    let (tracer, _exporter, metrics) = tracer("http://127.0.0.1:1", "1");
    for _ in 0..SPANS_MAX + 3 {
        tracer.end(tracer.root("get", None).unwrap());
    }
    let text = text(&metrics);
    assert!(text.contains("trace_spans_dropped_total{kind=\"queue_full\"} 3\n"), "{text}");
}

/// The metrics as `/metrics` gives them.
fn text(metrics: &TraceMetrics) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// Takes one batch, and closes the connection once it has answered.
async fn take_batch(collector: &TcpListener) {
    let (mut stream, _) = collector.accept().await.unwrap();
    let mut request = vec![0; 64 << 10];
    let read = stream.read(&mut request).await.unwrap();
    assert!(request[..read].starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
}

#[tokio::test]
async fn a_stopping_node_sends_what_waits() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tracer, exporter, _) = tracer(&format!("http://{}/v1/traces", collector.local_addr().unwrap()), "1");
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(exporter.run("shop".to_owned(), "node-1".to_owned(), stopped));
    tracer.end(tracer.root("get", None).unwrap());
    stop.send_replace(true);
    take_batch(&collector).await;
    tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_batch_was_taken_also_if_the_collector_closes_the_connection_at_once() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap()).parse().unwrap();
    for _ in 0..20 {
        let (taken, ()) = tokio::join!(super::export::post(&endpoint, "spans".into()), take_batch(&collector));
        taken.unwrap();
    }
}
