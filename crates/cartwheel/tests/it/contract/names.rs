//! Bucket names and keys are any bytes, percent-encoded, up to a length; other names are refused.

use crate::harness::Cluster;
use crate::harness::raw::{get, put};

fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn a_name_is_its_bytes_in_every_encoding() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    let all_bytes: Vec<u8> = (0..=255).collect();
    let names = [
        ("b/plain".to_owned(), "b/%70lain".to_owned()),
        ("b/a/b//c/".to_owned(), "b/a%2Fb%2f%2Fc%2f".to_owned()),
        ("b/.".to_owned(), "b/%2e".to_owned()),
        ("b/../b/x".to_owned(), "b/%2E%2E%2Fb%2Fx".to_owned()),
        ("b/+".to_owned(), "b/%2B".to_owned()),
        ("b/%20".to_owned(), "%62/%20".to_owned()),
        ("%2F/k".to_owned(), "%2f/%6B".to_owned()),
        (format!("b/{}", encoded(&all_bytes)), format!("%62/{}", encoded(&all_bytes).to_uppercase())),
        (format!("{}/k", encoded(&all_bytes[1..])), format!("{}/k", encoded(&all_bytes[1..]).to_uppercase())),
        (format!("{}/k", "b".repeat(255)), format!("{}/k", encoded(&[b'b'; 255]))),
        (format!("b/{}", "k".repeat(4096)), format!("b/{}", encoded(&[b'k'; 4096]))),
    ];
    for (at, (name, _)) in names.iter().enumerate() {
        assert_eq!(put(&nodes[at % 3], &format!("/v1/kv/{name}"), &at.to_string()).status, 204, "{name}");
    }
    // Each key returns its own value, in either encoding and through every node.
    for (at, (name, same)) in names.iter().enumerate() {
        for (node, name) in nodes.iter().flat_map(|node| [(node, name), (node, same)]) {
            assert_eq!(get(node, &format!("/v1/kv/{name}")).values(), [at.to_string()], "{name}");
        }
    }
}

#[test]
fn invalid_names_are_refused() {
    let cluster = Cluster::start();
    for node in cluster.endpoints() {
        for name in [
            "",
            "/",
            "b",
            "b/",
            "/k",
            "//k",
            "b/%",
            "b/%4",
            "b/%zz",
            "b/%+1",
            "%/k",
            "%e/k",
            "b/a%",
            "b/%%30",
            &format!("{}/k", "b".repeat(256)),
            &format!("{}/k", encoded(&[0; 256])),
            &format!("b/{}", "k".repeat(4097)),
            &format!("b/{}", encoded(&[0; 4097])),
        ] {
            for prefix in ["/v1/kv/", "/v1/cluster/locate/"] {
                if (prefix, name) == ("/v1/kv/", "b") {
                    // A bucket alone has a list of keys.
                    continue;
                }
                let refused = get(&node, &format!("{prefix}{name}"));
                assert_eq!(refused.error().0, 400, "{prefix}{name}");
            }
            assert_eq!(put(&node, &format!("/v1/kv/{name}"), "v").error(), (400, "bad_request".to_owned()), "{name}");
        }
    }
}
