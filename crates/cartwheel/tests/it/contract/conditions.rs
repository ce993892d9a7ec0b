//! Conditional requests: conditions on reads are evaluated, and a write with a condition is refused, never made without it.

use crate::harness::Cluster;
use crate::harness::raw::{call, get, put, set_bucket};

const PATH: &str = "/v1/kv/b/k";

#[test]
fn conditional_reads_are_answered_and_conditional_writes_refused() {
    let cluster = Cluster::start();
    let lww = set_bucket(&cluster.endpoint(1), "b", r#"{"conflict":"lww"}"#);
    assert_eq!(lww.status, 200);
    for node in cluster.endpoints() {
        assert_eq!(put(&node, &format!("{PATH}?w=3"), "kept").status, 204);
        let kept = get(&node, PATH);
        let etag = kept.header("etag").to_owned();
        for method in ["GET", "HEAD"] {
            let known = call(&node, method, PATH, &[("if-none-match", &etag)], b"");
            assert_eq!((known.status, known.text().as_str(), known.header("etag")), (304, "", &*etag), "{method}");
            assert_eq!(known.header("content-length"), "", "a 304 has no content-length");
            assert_eq!(call(&node, method, PATH, &[("if-match", "\"other\"")], b"").status, 412, "{method}");
        }
        let wrong = call(&node, "GET", PATH, &[("if-match", "\"other\"")], b"");
        assert_eq!(wrong.error(), (412, "precondition_failed".to_owned()));
        for (method, header) in [
            ("PUT", ("if-none-match", "*")),
            ("PUT", ("if-match", "\"other\"")),
            ("PUT", ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")),
            ("PUT", ("content-range", "bytes 0-2/5")),
            ("DELETE", ("if-match", "\"other\"")),
            ("DELETE", ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")),
        ] {
            let refused = call(&node, method, PATH, &[header], b"lost");
            assert_eq!(refused.error(), (501, "not_implemented".to_owned()), "{method} {header:?}");
            assert_eq!(get(&node, PATH).text(), "kept", "{method} {header:?}");
        }
    }
}
