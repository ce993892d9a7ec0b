//! Requests that make no sense: a code, a sentence, and nothing done.

use crate::harness::Cluster;
use crate::harness::raw::{call, exchange, get, put};

#[test]
fn every_refusal_has_its_code() {
    let cluster = Cluster::start();
    let long = "i".repeat(256);
    for node in cluster.endpoints() {
        let path = "/v1/kv/b/k";
        for query in [
            "r=0",
            "r=4",
            "r=256",
            "r=",
            "r",
            "r=two",
            "r=1&r=1",
            "w=1",
            "R=1",
            "timeout_ms=0",
            "timeout_ms=60001",
            "x=1",
            "consistency=maybe",
            "return=body",
            "r=%zz",
            "r=%ff",
        ] {
            let refused = get(&node, &format!("{path}?{query}"));
            assert_eq!(refused.error(), (400, "bad_request".to_owned()), "GET ?{query}");
        }
        for query in ["w=0", "w=4", "r=1", "return=all", "return", "ttl=3", "consistency=", "w=1&w=2", "timeout_ms=-1"]
        {
            let refused = put(&node, &format!("{path}?{query}"), "v");
            assert_eq!(refused.error(), (400, "bad_request".to_owned()), "PUT ?{query}");
            let refused = call(&node, "DELETE", &format!("{path}?{query}"), &[], b"");
            assert_eq!(refused.error(), (400, "bad_request".to_owned()), "DELETE ?{query}");
        }
        for (name, value) in [
            ("idempotency-key", ""),
            ("idempotency-key", long.as_str()),
            ("content-type", long.as_str()),
            ("cartwheel-ttl", "3"),
        ] {
            assert_eq!(
                call(&node, "PUT", path, &[(name, value)], b"v").error(),
                (400, "bad_request".to_owned()),
                "{name}"
            );
        }
        for name in ["idempotency-key", "content-type"] {
            let twice = call(&node, "PUT", path, &[(name, "a"), (name, "a")], b"v");
            assert_eq!(twice.error(), (400, "bad_request".to_owned()), "{name} twice");
        }
        assert_eq!(get(&node, path).error(), (404, "not_found".to_owned()), "nothing of it was done");
    }
}

#[test]
fn other_methods_are_told_which_there_are() {
    let cluster = Cluster::start();
    for node in cluster.endpoints() {
        for (path, allowed) in [
            ("/v1/kv/b/k", "GET,HEAD,PUT,DELETE"),
            ("/v1/cluster/ring", "GET,HEAD"),
            ("/v1/cluster/locate/b/k", "GET,HEAD"),
            ("/healthz", "GET,HEAD"),
            ("/readyz", "GET,HEAD"),
        ] {
            for method in ["POST", "PATCH", "OPTIONS", "BREW"] {
                let refused = call(&node, method, path, &[], b"");
                assert_eq!(refused.error(), (405, "method_not_allowed".to_owned()), "{method} {path}");
                let mut allow: Vec<&str> = refused.header("allow").split(',').map(str::trim).collect();
                allow.sort_unstable();
                let mut expected: Vec<&str> = allowed.split(',').collect();
                expected.sort_unstable();
                assert_eq!(allow, expected, "{method} {path}");
            }
        }
        for path in ["/v2/kv/b/k", "/v1/nothing", "/v1/kv2/b/k", "/favicon.ico"] {
            assert_eq!(get(&node, path).error(), (404, "not_found".to_owned()), "{path}");
        }
    }
}

#[test]
fn what_is_not_http_is_no_request() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    for bytes in
        ["\r\n\r\n\0\0 GET", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /v1/kv/b/k y HTTP/1.1\r\nhost: t\r\n\r\n"]
    {
        assert_eq!(exchange(&node, bytes, b"").status, 400, "{bytes:?}");
    }
    assert_eq!(get(&node, "/readyz").status, 200);
}
