//! Limits of siblings and value sizes hold exactly: the largest permitted request succeeds, and the next larger is refused.

use crate::harness::Cluster;
use crate::harness::raw::{call, call_chunked, exchange, get, put, put_seen};

#[test]
fn blind_puts_are_refused_at_128_siblings_and_puts_with_a_context_never_are() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    let path = "/v1/kv/limits/many";
    let mut stale = String::new();
    for number in 0..128 {
        let written = put(&nodes[number % 3], &format!("{path}?w=3"), &format!("{number:03}"));
        assert_eq!(written.status, 204, "{number}");
        stale = written.context().to_owned();
    }
    for node in &nodes {
        let refused = put(node, path, "one too many");
        assert_eq!(refused.error(), (409, "too_many_siblings".to_owned()));
        assert!(refused.text().contains("128") && refused.text().contains("merge"), "{}", refused.text());
        let full = get(node, path);
        assert_eq!(full.siblings().len(), 128);
        assert!(full.context().len() < 4_096, "a context of {} bytes", full.context().len());
    }
    // A put with a context always succeeds, whether the context has seen few siblings or all.
    let kept = put_seen(&nodes[1], path, &stale, "one for one");
    assert_eq!(kept.status, 204);
    assert!(kept.context().len() < 4_096);
    let full = get(&nodes[2], path);
    assert_eq!(full.siblings().len(), 128);
    assert_eq!(put_seen(&nodes[0], path, full.context(), "merged").status, 204);
    assert_eq!(get(&nodes[1], path).values(), ["merged"]);
    assert_eq!(put(&nodes[2], path, "there is room again").status, 204);
}

#[test]
fn values_over_a_mebibyte_are_refused_with_and_without_a_declared_length() {
    let cluster = Cluster::start();
    let whole = vec![b'x'; 1 << 20];
    for (at, node) in cluster.endpoints().iter().enumerate() {
        let path = |name: &str| format!("/v1/kv/limits/{name}-{at}");
        assert_eq!(call(node, "PUT", &path("declared"), &[], &whole).status, 204);
        let parts: Vec<&[u8]> = whole.chunks(100_000).collect();
        assert_eq!(call_chunked(node, "PUT", &path("chunked"), &[], &parts).status, 204);
        for name in ["declared", "chunked"] {
            assert_eq!(get(node, &path(name)).body, whole);
        }

        let one_more = [&parts[..], &[b"y"]].concat();
        let too_large = call_chunked(node, "PUT", &path("chunked"), &[], &one_more);
        assert_eq!(too_large.error(), (413, "too_large".to_owned()));
        // With a declared length, the value is refused before it is sent.
        let head = |length: &str| {
            format!(
                "PUT {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n",
                path("declared")
            )
        };
        for length in ["1048577", "9223372036854775807"] {
            let too_large = exchange(node, &head(length), b"");
            assert_eq!(too_large.error(), (413, "too_large".to_owned()));
            assert!(too_large.text().contains("max_value_bytes"), "{}", too_large.text());
        }
        for length in ["-1", "1, 2", "18446744073709551616", "ten"] {
            assert_eq!(exchange(node, &head(length), b"").error(), (400, "bad_request".to_owned()), "{length}");
        }
        assert_eq!(get(node, &path("declared")).body, whole, "the stored value is unchanged");

        let empty = path("empty");
        assert_eq!(put(node, &empty, "").status, 204);
        let empty = get(node, &empty);
        assert_eq!((empty.status, empty.body.len(), empty.header("content-length")), (200, 0, "0"));
    }
}
