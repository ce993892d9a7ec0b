//! `PUT /v1/kv/{bucket}/{key}`: acknowledgements, contexts, idempotency and too few replicas.

use serde_json::json;

use crate::harness::Cluster;
use crate::harness::raw::{call, get, put, put_seen};

#[test]
fn a_put_reports_its_acks_and_replaces_what_its_context_has_seen() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    for (at, node) in nodes.iter().enumerate() {
        let path = |query: &str| format!("/v1/kv/puts/{at}{query}");
        // At least w homes have stored the value. How many more have stored it by then is chance.
        for w in 1..=3 {
            let written = put(node, &path(&format!("?w={w}")), "v");
            assert_eq!((written.status, written.text().as_str()), (204, ""));
            assert!(!written.context().is_empty());
            let acks = written.header("cartwheel-acks");
            assert!((w..=3).any(|home| acks == format!("home={home} standin=0 zones=1")), "w={w}: {acks}");
        }
        let strong = put(node, &path("?consistency=strong"), "v");
        assert_eq!((strong.status, strong.header("cartwheel-acks")), (204, "home=2 standin=0 zones=1"));

        // The content type is stored, and has a default.
        let all = get(node, &path(""));
        assert_eq!(all.siblings().len(), 4, "each put was a separate write");
        assert!(all.siblings().iter().all(|sibling| sibling["content_type"] == "application/octet-stream"));
        let headers = [("cartwheel-context", all.context()), ("content-type", "application/vnd.x+json")];
        call(node, "PUT", &path(""), &headers, b"{}");
        let typed = get(&nodes[(at + 1) % 3], &path(""));
        assert_eq!((typed.status, typed.header("content-type")), (200, "application/vnd.x+json"));

        // A put replaces the values that its context has seen. The context that it returns covers these and the new value.
        put(&nodes[(at + 2) % 3], &path(""), "theirs");
        let mine = put_seen(node, &path(""), typed.context(), "mine");
        put_seen(node, &path(""), mine.context(), "mine, again");
        let both = get(node, &path(""));
        assert_eq!(both.values(), ["mine, again", "theirs"]);
    }
}

#[test]
fn a_put_returns_the_keys_new_state_on_request() {
    let cluster = Cluster::start();
    for (at, node) in cluster.endpoints().iter().enumerate() {
        let path = format!("/v1/kv/shown/{at}?return=body");
        let one = call(node, "PUT", &path, &[("content-type", "text/x")], b"one");
        assert_eq!((one.status, one.text(), one.header("content-type")), (200, "one".to_owned(), "text/x"));
        assert!(!one.header("etag").is_empty() && !one.header("last-modified").is_empty());
        let two = put(node, &path, "two");
        assert_eq!((two.status, two.values()), (300, vec!["one".to_owned(), "two".to_owned()]));
        // The answer showed both values, so its context covers both.
        let merged =
            call(node, "PUT", &path, &[("cartwheel-context", two.context()), ("accept", "application/json")], b"m");
        assert_eq!((merged.status, merged.siblings().len()), (200, 1));
    }
}

#[test]
fn a_repeated_write_with_an_idempotency_key_makes_one_sibling() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    let named =
        |node: &str, path: &str, name: &str, value: &[u8]| call(node, "PUT", path, &[("idempotency-key", name)], value);
    for (at, node) in nodes.iter().enumerate() {
        let path = format!("/v1/kv/once/{at}");
        for again in [node, &nodes[(at + 1) % 3], &nodes[(at + 2) % 3], node] {
            assert_eq!(named(again, &path, "order-17", b"milk").status, 204);
        }
        assert_eq!(get(node, &path).values(), ["milk"]);
        // Another idempotency key, or another value under the same one, is another write.
        named(node, &path, "order-18", b"milk");
        named(node, &path, "order-17", b"bread");
        let three = get(node, &path);
        assert_eq!(three.values(), ["bread", "milk", "milk"]);
        // Repeating a write that was replaced does not bring its value back, through any node.
        put_seen(node, &path, three.context(), "all");
        for again in &nodes {
            assert_eq!(named(again, &path, "order-17", b"milk").status, 204);
        }
        assert_eq!(get(node, &path).values(), ["all"]);
    }
}

#[test]
fn a_put_below_w_reports_how_many_replicas_stored_it() {
    let cluster = Cluster::start();
    cluster.kill(3);
    for node in [1, 2] {
        let short = put(&cluster.endpoint(node), "/v1/kv/b/k?w=3&timeout_ms=5000", "v");
        assert_eq!(short.error(), (503, "unavailable".to_owned()));
        assert!(short.text().contains("2 of 3") && short.text().contains("may yet appear"), "{}", short.text());
        let said = short.json();
        assert_eq!((&said["needed"], &said["answered"]), (&json!(3), &json!(2)), "{said}");
        assert_eq!(said["unreachable"], json!(["node-3"]), "{said}");
        assert!(
            short.text().contains("the request needs w=3 of n=3, but only 2 of the key's 3 homes can be reached"),
            "{said}"
        );
    }
    cluster.kill(2);
    let short = put(&cluster.endpoint(1), "/v1/kv/b/k?consistency=strong&timeout_ms=300", "v");
    assert_eq!(short.error(), (503, "unavailable".to_owned()));
    assert!(short.text().contains("nothing was written"), "{}", short.text());
}
