//! `/v1/buckets` and `/v1/buckets/{bucket}`: settings are read and changed through any node, and invalid ones are refused.

use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::harness::raw::{JSON, Reply, call, call_chunked, get, put, put_seen, set_bucket};

/// The settings of a bucket that was never changed.
fn defaults() -> Value {
    json!({
        "n": 3,
        "r": 2,
        "w": 2,
        "conflict": "siblings",
        "sloppy": true,
        "durability": "fsync",
        "max_value_bytes": 1_048_576,
    })
}

/// `settings` with the fields of `change` replaced.
fn with(settings: &Value, change: &Value) -> Value {
    let mut settings = settings.clone();
    for (name, value) in change.as_object().unwrap() {
        assert!(settings.get(name).is_some(), "{name} is not a setting");
        settings[name] = value.clone();
    }
    settings
}

fn set(node: &str, bucket: &str, change: &Value) -> Reply {
    set_bucket(node, bucket, &change.to_string())
}

/// The settings in an answer, without the warnings about too few nodes.
fn settings_of(answer: &Value) -> Value {
    let mut settings = answer.clone();
    settings.as_object_mut().unwrap().remove("warnings");
    settings
}

#[test]
fn a_put_changes_the_settings_that_it_names() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    for node in &nodes {
        let fresh = get(node, "/v1/buckets/carts");
        assert_eq!((fresh.status, fresh.json()), (200, defaults()), "a bucket needs no creation");
        assert_eq!(get(node, "/v1/buckets").json(), json!({ "defaults": defaults(), "buckets": [] }));
        assert_eq!(call(node, "HEAD", "/v1/buckets/carts", &[], b"").status, 200);
    }
    let mut wanted = defaults();
    for (at, change) in [
        json!({}),
        json!({ "r": 1 }),
        json!({ "w": 3 }),
        json!({ "conflict": "lww" }),
        json!({ "sloppy": false }),
        json!({ "durability": "os" }),
        json!({ "max_value_bytes": 16_777_216 }),
        json!({ "n": 5, "r": 3, "w": 5 }),
        json!({ "n": 1, "r": 1, "w": 1, "conflict": "siblings", "sloppy": true, "durability": "fsync",
            "max_value_bytes": 1 }),
    ]
    .iter()
    .enumerate()
    {
        wanted = with(&wanted, change);
        let changed = set(&nodes[at % 3], "carts", change);
        assert_eq!((changed.status, settings_of(&changed.json())), (200, wanted.clone()), "{change}");
        let warns = changed.json().get("warnings").is_some();
        assert_eq!(warns, change.get("n") == Some(&json!(5)), "the cluster has three nodes: {}", changed.text());
        // The answer arrives after all nodes know the settings.
        assert!(nodes.iter().all(|node| settings_of(&get(node, "/v1/buckets/carts").json()) == wanted), "{change}");
    }
    let entry = with(&wanted, &json!({}));
    let listed = get(&nodes[0], "/v1/buckets").json();
    assert_eq!(listed["buckets"][0]["bucket"], "carts");
    assert!(entry.as_object().unwrap().iter().all(|(name, value)| listed["buckets"][0][name] == *value), "{listed}");
}

#[test]
fn a_buckets_name_is_its_bytes() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    let long = "%ff".repeat(255);
    for (name, same, listed) in [
        ("%63arts", "carts", "carts"),
        ("a%2fb", "%61%2Fb", "a%2Fb"),
        ("%00%FF", "%00%ff", "%00%FF"),
        ("a+b", "a%2Bb", "a%2Bb"),
        ("%25", "%25", "%25"),
        (&long, &long, &long.to_uppercase()),
    ] {
        assert_eq!(set(&nodes[0], name, &json!({ "max_value_bytes": 7 })).status, 200, "{name}");
        assert_eq!(get(&nodes[1], &format!("/v1/buckets/{same}")).json()["max_value_bytes"], 7, "{name}");
        let all = get(&nodes[2], "/v1/buckets").json();
        let names: Vec<_> = all["buckets"].as_array().unwrap().iter().map(|form| form["bucket"].as_str()).collect();
        assert!(names.contains(&Some(listed)), "{listed} is not in {names:?}");
        // The key API's paths name the same bucket.
        let too_large = put(&nodes[1], &format!("/v1/kv/{same}/k"), "8 bytes!");
        assert_eq!(too_large.error(), (413, "too_large".to_owned()), "{name}");
    }
    let too_long = "b".repeat(256);
    for (name, why) in [
        ("", "the path names no bucket"),
        ("a/b", "a slash in its name is written %2F"),
        ("%zz", "is not percent-encoded"),
        ("%", "is not percent-encoded"),
        (too_long.as_str(), "the bucket name is 256 bytes long: use 1 to 255"),
    ] {
        for refused in [get(&nodes[0], &format!("/v1/buckets/{name}")), set(&nodes[0], name, &json!({}))] {
            assert_eq!(refused.error(), (400, "bad_request".to_owned()), "{name}");
            assert!(refused.text().contains(why), "{}", refused.text());
        }
    }
}

#[test]
fn invalid_settings_are_refused_and_change_nothing() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(2);
    let path = "/v1/buckets/carts";
    for (body, why) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("r=1", "expected value"),
        ("{} {}", "trailing characters"),
        ("null", "invalid type: null"),
        ("3", "invalid type: integer"),
        (" []", "it is an array"),
        (r#"[3, 1, 1, "lww", false, "os", 9]"#, "it is an array"),
        (r#"{"replicas": 3}"#, "unknown field `replicas`, expected one of `n`, `r`, `w`"),
        (r#"{"r": 1, "r": 1}"#, "duplicate field `r`"),
        (r#"{"r": null}"#, "invalid type: null"),
        (r#"{"r": "1"}"#, "invalid type: string"),
        (r#"{"r": 1.0}"#, "invalid type: floating point"),
        (r#"{"r": -1}"#, "invalid value: integer `-1`"),
        (r#"{"n": 256}"#, "invalid value: integer `256`"),
        (r#"{"sloppy": 1}"#, "invalid type: integer"),
        (r#"{"conflict": "LWW"}"#, "expected `siblings` or `lww`"),
        (r#"{"durability": "memory"}"#, "expected `fsync` or `os`"),
        (r#"{"n": 0}"#, "n must be from 1 to 16, not 0"),
        (r#"{"n": 17}"#, "n must be from 1 to 16, not 17"),
        (r#"{"n": 1}"#, "r must be from 1 to n, which is 1, not 2"),
        (r#"{"r": 0}"#, "r must be from 1 to n, which is 3, not 0"),
        (r#"{"r": 4}"#, "r must be from 1 to n, which is 3, not 4"),
        (r#"{"w": 0}"#, "w must be from 1 to n, which is 3, not 0"),
        (r#"{"w": 4}"#, "w must be from 1 to n, which is 3, not 4"),
        (r#"{"max_value_bytes": 0}"#, "max_value_bytes must be from 1 to 16777216, not 0"),
        (r#"{"max_value_bytes": 16777217}"#, "max_value_bytes must be from 1 to 16777216, not 16777217"),
    ] {
        let refused = call(&node, "PUT", path, JSON, body.as_bytes());
        assert_eq!(refused.error(), (400, "bad_request".to_owned()), "{body}");
        assert!(refused.text().contains(why), "{body}: {}", refused.text());
        assert!(!refused.text().contains("struct"), "internal names do not show: {}", refused.text());
    }
    let long = format!(r#"{{"r": 1{}}}"#, " ".repeat(4096));
    assert_eq!(call(&node, "PUT", path, JSON, long.as_bytes()).error(), (413, "too_large".to_owned()));
    assert_eq!(call_chunked(&node, "PUT", path, JSON, &[long.as_bytes()]).error(), (413, "too_large".to_owned()));
    for query in ["x=1", "w=1", "timeout_ms=0", "timeout_ms=60001", "timeout_ms=1&timeout_ms=1"] {
        let refused = call(&node, "PUT", &format!("{path}?{query}"), JSON, br#"{"r": 1}"#);
        assert_eq!(refused.error(), (400, "bad_request".to_owned()), "{query}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let refused = call(&node, "PUT", path, &[("content-type", content_type)], br#"{"r": 1}"#);
        assert_eq!(refused.error(), (415, "unsupported_media_type".to_owned()), "{content_type}");
    }
    assert_eq!(call(&node, "PUT", path, &[], br#"{"r": 1}"#).error(), (415, "unsupported_media_type".to_owned()));
    assert_eq!(get(&node, "/v1/buckets?x=1").error(), (400, "bad_request".to_owned()));
    assert_eq!(get(&node, &format!("{path}?r=1")).error(), (400, "bad_request".to_owned()));
    for (method, path, allowed) in [
        ("POST", path, "GET,HEAD,PUT,DELETE"),
        ("PATCH", path, "GET,HEAD,PUT,DELETE"),
        ("PUT", "/v1/buckets", "GET,HEAD"),
    ] {
        let refused = call(&node, method, path, &[], b"{}");
        assert_eq!(refused.error(), (405, "method_not_allowed".to_owned()));
        assert_eq!(refused.header("allow"), allowed);
    }
    assert_eq!(get(&node, "/v1/buckets").json(), json!({ "defaults": defaults(), "buckets": [] }));
}

#[test]
fn n_changes_in_a_bucket_with_keys_and_tombstones() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    assert_eq!(set(&nodes[0], "carts", &json!({ "n": 2 })).json()["n"], 2);
    let written = put(&nodes[1], "/v1/kv/carts/alice", "milk");
    let deleted = call(&nodes[2], "DELETE", "/v1/kv/carts/alice", &[("cartwheel-context", written.context())], b"");
    assert_eq!(deleted.status, 204);
    let raised = set(&nodes[1], "carts", &json!({ "n": 5 })).json();
    assert!(raised["warnings"][0].as_str().unwrap().contains("the cluster has 3 data nodes"), "{raised}");
    let undone = set(&nodes[2], "carts", &json!({ "n": 2, "max_value_bytes": 3 })).json();
    assert!(undone.get("warnings").is_none(), "{undone}");
    assert_eq!(put_seen(&nodes[0], "/v1/kv/carts/alice", deleted.context(), "tea").status, 204);
    assert_eq!(put(&nodes[0], "/v1/kv/carts/bob", "four").error().0, 413);
    let cluster = cluster.crash_and_restart();
    let settings = get(&cluster.endpoint(3), "/v1/buckets/carts").json();
    assert_eq!(settings, with(&defaults(), &json!({ "n": 2, "max_value_bytes": 3 })));
}
