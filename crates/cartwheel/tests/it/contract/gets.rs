//! `GET` and `HEAD /v1/kv/{bucket}/{key}`: the answer for each state of a key, the encodings, contexts and quorums.

use crate::harness::Cluster;
use crate::harness::raw::{Reply, call, decoded, get, put, put_seen};

/// Sends one get through all nodes and checks that their replies are the same. Returns one of them.
fn everywhere(cluster: &Cluster, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let replies: Vec<Reply> = cluster.endpoints().iter().map(|node| call(node, method, path, headers, b"")).collect();
    for reply in &replies {
        assert_eq!(reply.header("cartwheel-acks"), "home=2 standin=0 zones=1");
        for name in ["content-type", "content-encoding", "content-length", "etag", "last-modified"] {
            assert_eq!(reply.header(name), replies[0].header(name), "{name} of {path}");
        }
        assert_eq!(reply.status, replies[0].status);
        assert_eq!(reply.context().is_empty(), replies[0].context().is_empty());
    }
    replies[0].clone()
}

fn is_base64url(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[test]
fn each_state_of_a_key_has_its_answer() {
    let cluster = Cluster::start();
    for node in 1..=3 {
        let (written_at, path) = (cluster.endpoint(node), format!("/v1/kv/gets/key-{node}"));
        never_written(&cluster, &path);
        one_value(&cluster, &written_at, &path);
        several_values(&cluster, &written_at, &path);
        a_deleted_sibling(&cluster, &written_at, &path);
        deleted(&cluster, &written_at, &path);
    }
}

fn never_written(cluster: &Cluster, path: &str) {
    let never = everywhere(cluster, "GET", path, &[]);
    assert_eq!((never.error(), never.context()), ((404, "not_found".to_owned()), ""));
    assert_eq!((never.header("etag"), never.header("last-modified")), ("", ""));
    head_says_the_same(cluster, path, &[]);
}

fn one_value(cluster: &Cluster, written_at: &str, path: &str) {
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(2);
    call(written_at, "PUT", path, &[("content-type", "text/x; a=b")], b"one");
    let one = everywhere(cluster, "GET", path, &[]);
    assert_eq!((one.status, one.text()), (200, "one".to_owned()));
    assert_eq!(one.header("content-type"), "text/x; a=b");
    assert!(is_base64url(one.context()));
    let etag = one.header("etag");
    assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    let modified = httpdate::parse_http_date(one.header("last-modified")).unwrap();
    assert!(modified >= before, "the value was modified a moment ago, not at {modified:?}");
    head_says_the_same(cluster, path, &[]);

    let accept = [("accept", "application/json")];
    let json = everywhere(cluster, "GET", path, &accept);
    assert_eq!((json.status, json.header("etag")), (200, etag));
    let form = json.json();
    assert_eq!(form["context"], json.context());
    let siblings = json.siblings();
    assert_eq!((siblings.len(), decoded(&siblings[0]).as_str()), (1, "one"));
    assert_eq!((&siblings[0]["deleted"], &siblings[0]["content_type"]), (&false.into(), &"text/x; a=b".into()));
    let shown = humantime::parse_rfc3339(siblings[0]["modified"].as_str().unwrap()).unwrap();
    assert!(shown >= before && siblings[0]["modified"].as_str().unwrap().len() == "2026-01-01T00:00:00.000Z".len());
    assert!(!siblings[0]["version"].as_str().unwrap().is_empty());
    head_says_the_same(cluster, path, &accept);
}

#[test]
fn an_encoded_value_is_returned_unchanged_with_its_content_encoding() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    let (path, gzip) = ("/v1/kv/pages/index", [0x1f, 0x8b, 8, 0]);
    let put = call(&node, "PUT", path, &[("content-type", "text/html"), ("content-encoding", "gzip, br")], &gzip);
    assert_eq!(put.status, 204);
    let got = everywhere(&cluster, "GET", path, &[]);
    assert_eq!((got.header("content-type"), got.header("content-encoding")), ("text/html", "gzip, br"));
    assert_eq!(got.body, gzip);
    head_says_the_same(&cluster, path, &[]);
    let form = everywhere(&cluster, "GET", path, &[("accept", "application/json")]);
    assert_eq!((form.header("content-encoding"), &form.siblings()[0]["content_encoding"]), ("", &"gzip, br".into()));
    // Each write sets the encoding of its own value.
    call(&node, "PUT", path, &[("cartwheel-context", got.context()), ("content-encoding", "identity")], b"plain");
    let plain = everywhere(&cluster, "GET", path, &[]);
    assert_eq!((plain.header("content-encoding"), plain.text()), ("", "plain".to_owned()));
    let form = everywhere(&cluster, "GET", path, &[("accept", "application/json")]);
    assert_eq!(form.siblings()[0].get("content_encoding"), None);
}

fn several_values(cluster: &Cluster, written_at: &str, path: &str) {
    let one = get(written_at, path);
    put(written_at, path, "two");
    let both = everywhere(cluster, "GET", path, &[]);
    assert_eq!((both.status, both.values()), (300, vec!["one".to_owned(), "two".to_owned()]));
    assert_eq!(both.json()["context"], both.context());
    assert!(both.header("etag") != one.header("etag") && !both.header("last-modified").is_empty());
    let versions: Vec<_> = both.siblings().iter().map(|sibling| sibling["version"].clone()).collect();
    assert_ne!(versions[0], versions[1]);
    head_says_the_same(cluster, path, &[]);
}

fn a_deleted_sibling(cluster: &Cluster, written_at: &str, path: &str) {
    let both = get(written_at, path);
    let merged = put_seen(written_at, path, both.context(), "merged");
    put(written_at, path, "unseen");
    assert_eq!(call(written_at, "DELETE", path, &[("cartwheel-context", merged.context())], b"").status, 204);
    let beside = everywhere(cluster, "GET", path, &[]);
    assert_eq!((beside.status, beside.values()), (300, vec!["unseen".to_owned()]));
    let tombstone = beside.siblings().into_iter().find(|sibling| sibling["deleted"] == true).unwrap();
    assert!(tombstone.get("value").is_none() && tombstone.get("content_type").is_none(), "{tombstone}");
    assert!(tombstone["modified"].is_string() && tombstone["version"].is_string());
}

fn deleted(cluster: &Cluster, written_at: &str, path: &str) {
    let all = get(written_at, path);
    call(written_at, "DELETE", path, &[("cartwheel-context", all.context())], b"");
    let gone = everywhere(cluster, "GET", path, &[]);
    assert_eq!(gone.error(), (404, "not_found".to_owned()));
    assert!(is_base64url(gone.context()), "the key has a tombstone");
    head_says_the_same(cluster, path, &[]);
    let as_json = everywhere(cluster, "GET", path, &[("accept", "application/json")]);
    assert_eq!(as_json.error().0, 404);
}

fn head_says_the_same(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) {
    let (got, head) = (everywhere(cluster, "GET", path, headers), everywhere(cluster, "HEAD", path, headers));
    assert!(head.body.is_empty());
    assert_eq!(head.status, got.status);
    for name in ["content-type", "content-encoding", "content-length", "etag", "last-modified"] {
        assert_eq!(head.header(name), got.header(name), "{name} of a HEAD of {path}");
    }
}

#[test]
fn a_get_covers_its_context_or_is_refused() {
    let mut cluster = Cluster::start();
    let nodes = cluster.endpoints();
    // A get with the write's context returns the write, through every node and with any r.
    for (at, node) in nodes.iter().enumerate() {
        let path = format!("/v1/kv/seen/{at}");
        let written = put(node, &(path.clone() + "?w=1"), "mine");
        for other in &nodes {
            let seen = call(other, "GET", &(path.clone() + "?r=1"), &[("cartwheel-context", written.context())], b"");
            assert_eq!((seen.status, seen.text()), (200, "mine".to_owned()));
        }
    }

    // Only a dead node has the write.
    (2..=3).for_each(|node| cluster.kill(node));
    let path = "/v1/kv/seen/alone";
    let alone = put(&nodes[0], &format!("{path}?w=1"), "only here");
    assert_eq!((alone.status, alone.header("cartwheel-acks")), (204, "home=1 standin=0 zones=1"));
    let unverified = get(&nodes[0], "/v1/kv/seen/never?timeout_ms=300");
    assert_eq!(unverified.error(), (503, "unverified".to_owned()));
    assert!(unverified.text().contains("1 of 2 replicas"), "{}", unverified.text());
    cluster.kill(1);
    cluster.restart(2);
    cluster.restart(3);
    let asks = |node: &str, timeout_ms: u32| {
        let path = format!("{path}?timeout_ms={timeout_ms}");
        call(node, "GET", &path, &[("cartwheel-context", alone.context())], b"")
    };
    for node in &nodes[1..] {
        assert_eq!(get(node, path).status, 404, "a get without a context does not need the write");
        assert_eq!(asks(node, 500).error(), (503, "unavailable".to_owned()));
    }
    cluster.restart(1);
    for node in &nodes {
        // The other nodes may take a second to connect to it again.
        let seen = asks(node, 30_000);
        assert_eq!((seen.status, seen.text()), (200, "only here".to_owned()));
    }
}

#[test]
fn a_get_needs_answers_from_r_replicas() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(2);
    put(&node, "/v1/kv/b/k?w=3", "v");
    for (query, acks) in [("r=1", 1), ("r=2", 2), ("r=3", 3), ("consistency=strong", 2), ("consistency=eventual", 2)] {
        let got = get(&node, &format!("/v1/kv/b/k?{query}"));
        assert_eq!((got.status, got.header("cartwheel-acks")), (200, &*format!("home={acks} standin=0 zones=1")));
    }
    cluster.kill(3);
    let short = get(&node, "/v1/kv/b/k?r=3&timeout_ms=300");
    assert_eq!(short.error(), (503, "unavailable".to_owned()));
    assert!(short.text().contains("2 of 3 replicas"), "{}", short.text());
    assert_eq!(get(&node, "/v1/kv/b/k?consistency=strong").status, 200);
    cluster.kill(1);
    assert_eq!(get(&node, "/v1/kv/b/k?consistency=strong&timeout_ms=300").error(), (503, "unavailable".to_owned()));
    assert_eq!(get(&node, "/v1/kv/b/k?r=1").text(), "v");
}
