//! Invalid requests are refused with a code and a message, and change nothing.

use crate::harness::Cluster;
use crate::harness::raw::{JSON, call, exchange, get, put};

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
            ("cartwheel-ttl", "0"),
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
        assert_eq!(get(&node, path).error(), (404, "not_found".to_owned()), "refused requests change nothing");
    }
}

#[test]
fn unsupported_methods_are_refused_with_the_supported_ones() {
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
fn bytes_that_are_not_http_are_refused() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    for bytes in
        ["\r\n\r\n\0\0 GET", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /v1/kv/b/k y HTTP/1.1\r\nhost: t\r\n\r\n"]
    {
        assert_eq!(exchange(&node, bytes, b"").error(), (400, "bad_request".to_owned()), "{bytes:?}");
    }
    assert_eq!(get(&node, "/readyz").status, 200);
}

#[test]
fn ambiguous_or_oversized_requests_are_refused() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    let says = |target: &str, headers: &str| {
        let head = format!("PUT {target} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
        exchange(&node, &head, b"v").error()
    };
    let host = "host: localhost\r\n";
    for (target, headers, status) in [
        ("/v1/kv/b/k#1", format!("{host}content-length: 1\r\n"), 400),
        ("/v1/kv/b/k", "content-length: 1\r\n".to_owned(), 400),
        ("/v1/kv/b/k", format!("{host}{host}content-length: 1\r\n"), 400),
        ("/v1/kv/b/k", format!("{host}content-length: 1\r\ncontent-length: 1\r\n"), 400),
        ("/v1/kv/b/k", format!("{host}content-length: 1\r\ntransfer-encoding: chunked\r\n"), 400),
        ("/v1/kv/b/k", format!("{host}transfer-encoding: gzip, chunked\r\n"), 501),
        ("/v1/kv/b/k", format!("{host}x: {}\r\n", "x".repeat(64 << 10)), 431),
        (&*format!("/{}", "x".repeat(65 << 10)), host.to_owned(), 414),
    ] {
        let code = match status {
            400 => "bad_request",
            501 => "not_implemented",
            _ => "too_large",
        };
        assert_eq!(says(target, &headers), (status, code.to_owned()), "{headers:.100}");
    }
    assert_eq!(get(&node, "/v1/kv/b/k").status, 404, "refused requests store nothing");
}

#[test]
fn a_foreign_web_page_cannot_change_a_node() {
    let cluster = Cluster::start();
    let removal = br#"{"changes": [{"op": "remove", "node": "node-2"}], "apply": true}"#;
    for node in cluster.endpoints() {
        let addr = node.strip_prefix("http://").unwrap();
        let says = |method: &str, path: &str, host: &str, headers: &[(&str, &str)], body: &[u8]| {
            let length = body.len().to_string();
            let headers = [headers, &[("content-length", &*length)]].concat();
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            exchange(
                &node,
                &format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"),
                body,
            )
        };
        let origin = format!("http://{addr}");
        let foreign = [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")];
        for page in foreign {
            for (method, path, body) in [
                ("POST", "/v1/cluster/members", &removal[..]),
                ("PUT", "/v1/buckets/b", br#"{"w": 1}"#),
                ("PUT", "/v1/kv/b/k", b"v"),
                ("DELETE", "/v1/kv/b/k", b""),
            ] {
                let refused = says(method, path, addr, &[JSON[0], page], body);
                assert_eq!(refused.error(), (403, "forbidden_origin".to_owned()), "{method} {path} {page:?}");
                let rebound =
                    says(method, path, "evil.example:8081", &[JSON[0], ("origin", "http://evil.example:8081")], body);
                assert_eq!(rebound.error(), (421, "misdirected".to_owned()), "{method} {path}");
            }
        }
        // A browser sends a form without asking the node first, and old browsers do not name the page that sends it.
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let form = says("POST", "/v1/cluster/members", addr, &[("content-type", content_type)], removal);
            assert_eq!(form.error(), (415, "unsupported_media_type".to_owned()), "{content_type}");
        }
        assert_eq!(get(&node, "/v1/kv/b/k").status, 404);
        let members = get(&node, "/v1/cluster").json()["members"].as_array().unwrap().clone();
        assert!(members.len() == 3 && members.iter().all(|member| member["leaving"] == false));
        // Pages of the node itself and programs are permitted.
        let own = says(
            "PUT",
            "/v1/buckets/b",
            addr,
            &[JSON[0], ("origin", &origin), ("sec-fetch-site", "same-origin")],
            br#"{"w": 2}"#,
        );
        assert_eq!(own.status, 200, "{}", own.text());
        assert_eq!(says("DELETE", "/v1/kv/own/k", addr, &[("origin", &origin)], b"").status, 204);
        let read = says("GET", "/v1/kv/own/k", "evil.example", &[("origin", "null")], b"");
        assert_eq!(read.status, 404, "reads are not refused");
    }
}
