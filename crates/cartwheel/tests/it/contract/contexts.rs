//! Contexts that are damaged, forged or of another key are refused and change nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::harness::Cluster;
use crate::harness::raw::{Reply, call, get, put, put_seen};

const PATH: &str = "/v1/kv/carts/alice";

/// Checks that `context` is refused by every request that takes one.
fn refused_everywhere(node: &str, context: &str, what: &str) {
    let header = [("cartwheel-context", context)];
    let tries: [Reply; 4] = [
        call(node, "GET", PATH, &header, b""),
        call(node, "PUT", PATH, &header, b"forged"),
        call(node, "PUT", &format!("{PATH}?consistency=strong&w=1"), &header, b"forged"),
        call(node, "DELETE", PATH, &header, b""),
    ];
    for refused in tries {
        assert_eq!(refused.error(), (400, "bad_context".to_owned()), "{what}");
    }
}

/// A forged context must not cover a later write, which would then be lost. That happens where contexts are not
/// authenticated.
#[test]
fn forged_contexts_are_refused_and_cause_no_lost_write() {
    let (cluster, other_cluster) = (Cluster::start(), Cluster::start());
    let nodes = cluster.endpoints();
    put(&nodes[0], PATH, "first");
    put(&nodes[1], PATH, "second");
    let shown = get(&nodes[2], PATH);
    let real = URL_SAFE_NO_PAD.decode(shown.context()).unwrap();

    for at in 0..real.len() {
        let mut forged = real.clone();
        forged[at] ^= 1 << (at % 8);
        refused_everywhere(&nodes[at % 3], &URL_SAFE_NO_PAD.encode(&forged), &format!("byte {at} flipped"));
    }
    for length in [0, 1, 32, 33, real.len() / 2, real.len() - 1] {
        refused_everywhere(&nodes[length % 3], &URL_SAFE_NO_PAD.encode(&real[..length]), &format!("cut at {length}"));
    }
    let longer = [&real[..], b"\x08\x01"].concat();
    refused_everywhere(&nodes[0], &URL_SAFE_NO_PAD.encode(&longer), "lengthened");
    for text in ["", "=", "AA==", "not base64!", &"A".repeat(21_852), &"A".repeat(60_000)] {
        refused_everywhere(&nodes[1], text, &text[..text.len().min(12)]);
    }

    for (node, path, whose) in [
        (&nodes[0], "/v1/kv/carts/bob", "another key's"),
        (&nodes[1], "/v1/kv/baskets/alice", "another bucket's"),
        (&nodes[2], "/v1/kv/cart/salice", "another key's whose bucket and name together have the same bytes"),
        (&other_cluster.endpoint(1), PATH, "another cluster's"),
    ] {
        let borrowed = put(node, path, "x");
        assert_eq!(borrowed.status, 204);
        refused_everywhere(&nodes[0], borrowed.context(), whose);
    }

    for node in &nodes {
        assert_eq!(get(node, PATH).values(), ["first", "second"], "no value was written or deleted");
    }
    // Later acknowledged writes are kept, and the real context still replaces the values that it has seen, and no others.
    for (at, node) in nodes.iter().enumerate() {
        assert_eq!(put(node, PATH, &format!("later {at}")).status, 204);
    }
    assert_eq!(put_seen(&nodes[1], PATH, shown.context(), "merged").status, 204);
    for node in &nodes {
        assert_eq!(get(node, PATH).values(), ["later 0", "later 1", "later 2", "merged"]);
    }
}

#[test]
fn a_repeated_context_header_is_refused() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    let written = put(&node, PATH, "v");
    let context = ("cartwheel-context", written.context());
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(call(&node, method, PATH, &[context, context], b"").error(), (400, "bad_request".to_owned()));
    }
}
