use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_core::cluster::liveness::Why;
use cartwheel_core::message::client::{
    Acks, Consistency, Got, Operation, Outcome, PutDone, Refusal, Reply, Request as KeyRequest, Retry, Shortfall,
};
use cartwheel_core::node::{Effects, Input};
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, WallMs};
use cartwheel_core::value::state::{Content, Epoch, Sibling};
use cartwheel_core::value::time::Now;
use cartwheel_core::value::write_id::WriteId;
use cartwheel_core::wire::Protocol;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::*;
use crate::backend::Readiness;
use crate::backend::tests::{Fixed, backend_of};
use crate::metrics;
use crate::shard::Machine;

const ACKS: Acks = Acks { home: 2, standin: 1, zones: 3 };

/// A response, and the request that reached the node for it.
struct Exchange {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Bytes,
    received: Option<KeyRequest>,
}

impl Exchange {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of an error. The request must not have reached the node.
    fn refused(&self) -> (u16, String) {
        assert!(self.received.is_none());
        let error = self.json();
        assert!(error["message"].as_str().unwrap().len() > 10);
        (self.status.as_u16(), error["error"].as_str().unwrap().to_owned())
    }
}

/// The API state of node-1 of three, which gives every request the response `outcome` and keeps the last request.
pub(super) fn api(outcome: Outcome) -> (ApiState, Arc<Mutex<Option<KeyRequest>>>) {
    let received = Arc::new(Mutex::new(None));
    (api_of(Fixed(outcome, received.clone())).0, received)
}

fn api_of(machine: impl Machine) -> (ApiState, watch::Sender<Readiness>) {
    let (backend, readiness) = backend_of(machine);
    (ApiState::new(Arc::new(backend)), readiness)
}

async fn exchange(outcome: Outcome, request: Request<Body>) -> Exchange {
    let (api, received) = api(outcome);
    exchange_at(api, received, request).await
}

/// The response of node-1 of three, in JSON.
pub(super) async fn call(method: &str, uri: &str, outcome: Outcome, body: String) -> (StatusCode, Value) {
    let builder = request(method, uri).header("content-type", "application/json");
    let response = exchange(outcome, builder.body(Body::from(body)).unwrap()).await;
    (response.status, response.json())
}

async fn exchange_at(api: ApiState, received: Arc<Mutex<Option<KeyRequest>>>, request: Request<Body>) -> Exchange {
    let response = front(api).call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let received = received.lock().unwrap().take();
    Exchange { status: parts.status, headers: parts.headers, body, received }
}

fn request(method: &str, uri: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(uri).header("host", "127.0.0.1:8081")
}

fn front(api: ApiState) -> Front {
    Front::new(api, Handle::current())
}

/// The paths of all calls in OpenAPI.
fn documented() -> Vec<&'static str> {
    calls().iter().map(|(_, documented, _)| *documented).chain(["/v1/kv/{bucket}/{key}"]).collect()
}

fn sibling(counter: u64, content: Option<&'static str>) -> Sibling {
    let content = match content {
        Some(value) => Content::typed(value, "text/x"),
        None => Content::Tombstone,
    };
    Sibling {
        dot: Dot { actor: Actor { node: NodeId::new(1), incarnation: Incarnation(2), since: Since(3) }, counter },
        content,
        hlc: Hlc::at(WallMs(784_111_777_000 + counter)),
        epoch: Epoch(0),
        write_id: WriteId::from_bytes([counter as u8; 16]),
        expires: None,
    }
}

pub(super) fn got(siblings: &[Option<&'static str>]) -> Got {
    let siblings = siblings.iter().enumerate().map(|(at, &content)| sibling(at as u64 + 1, content)).collect();
    Got { siblings, context: Some(Bytes::from_static(b"\xffsealed")), acks: ACKS }
}

async fn get(siblings: &[Option<&'static str>], accept: &str) -> Exchange {
    let request = request("GET", "/v1/kv/b/k").header("accept", accept).body(Body::empty()).unwrap();
    exchange(Ok(Reply::Got(got(siblings))), request).await
}

fn sealed() -> String {
    URL_SAFE_NO_PAD.encode(b"\xffsealed")
}

#[tokio::test]
async fn a_single_value_is_the_body() {
    let one = get(&[Some("v")], "*/*").await;
    assert_eq!((one.status, &one.body[..]), (StatusCode::OK, &b"v"[..]));
    assert_eq!(one.header("content-type"), "text/x");
    assert_eq!(one.header("cartwheel-context"), sealed());
    assert_eq!(one.header("cartwheel-acks"), "home=2 standin=1 zones=3");
    assert_eq!(one.header("last-modified"), "Sun, 06 Nov 1994 08:49:37 GMT");
    let etag = one.header("etag");
    assert!(etag.len() > 10 && etag.starts_with('"') && etag.ends_with('"'));
    assert_ne!(etag, get(&[Some("v"), Some("v")], "*/*").await.header("etag"));
    let left = one.received.unwrap().timeout;
    assert!(left > Duration::from_secs(1) && left <= Duration::from_secs(5), "the waiting time counts: {left:?}");
}

#[tokio::test]
async fn the_json_form_lists_all_siblings() {
    let one = get(&[Some("v")], "text/html, Application/JSON;q=0.9").await;
    assert_eq!(one.status, StatusCode::OK);
    let expected = json!({"context": sealed(), "siblings": [{
        "value": "dg==", "deleted": false, "content_type": "text/x",
        "modified": "1994-11-06T08:49:37.001Z", "version": "0000000000000001-2-3-1",
    }]});
    assert_eq!(one.json(), expected);

    let several = get(&[Some("a"), None, Some("b")], "*/*").await;
    assert_eq!(several.status, StatusCode::MULTIPLE_CHOICES);
    let body = several.json();
    assert_eq!(body["siblings"].as_array().unwrap().len(), 3);
    let tombstone =
        json!({"deleted": true, "modified": "1994-11-06T08:49:37.002Z", "version": "0000000000000001-2-3-2"});
    assert_eq!(body["siblings"][1], tombstone);
    assert_eq!(several.header("cartwheel-context"), sealed());
    let beside_a_tombstone = get(&[Some("a"), None], "*/*").await;
    assert_eq!(beside_a_tombstone.status, StatusCode::MULTIPLE_CHOICES);
}

#[tokio::test]
async fn reads_honour_their_conditions() {
    for siblings in [&[Some("v")][..], &[Some("a"), None, Some("b")]] {
        let call = async |method: &str, conditions: &[(&str, &str)]| {
            let builder = conditions
                .iter()
                .fold(request(method, "/v1/kv/b/k"), |builder, (name, value)| builder.header(*name, *value));
            exchange(Ok(Reply::Got(got(siblings))), builder.body(Body::empty()).unwrap()).await
        };
        let plain = call("GET", &[]).await;
        let (etag, modified) = (plain.header("etag"), plain.header("last-modified"));
        let shown = plain.headers.iter().filter(|(name, _)| *name != "content-length");
        let shown: axum::http::HeaderMap = shown.map(|(name, value)| (name.clone(), value.clone())).collect();
        for method in ["GET", "HEAD"] {
            let weak = format!("\"x\", W/{etag}");
            for known in [("if-none-match", &*weak), ("if-none-match", "*"), ("if-modified-since", modified)] {
                let response = call(method, &[known]).await;
                assert_eq!((response.status, response.body.len()), (StatusCode::NOT_MODIFIED, 0), "{method} {known:?}");
                assert_eq!(response.headers, shown, "{method} {known:?}");
            }
            let other = call(method, &[("if-none-match", "\"x\""), ("if-modified-since", modified)]).await;
            assert_eq!((other.status, &other.headers), (plain.status, &plain.headers), "{method}");
            for held in [("if-match", etag), ("if-match", "*"), ("if-unmodified-since", modified)] {
                assert_eq!(call(method, &[held]).await.status, plain.status, "{method} {held:?}");
            }
            for missed in [("if-match", &*weak), ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT")] {
                let response = call(method, &[missed]).await;
                assert_eq!(
                    (response.status, response.header("etag")),
                    (StatusCode::PRECONDITION_FAILED, etag),
                    "{missed:?}"
                );
                assert!(method == "HEAD" || response.json()["error"] == "precondition_failed");
            }
        }
    }
    let builder = request("GET", "/v1/kv/b/k").header("if-match", "\"x\"").header("if-none-match", "*");
    let gone = exchange(Ok(Reply::Got(got(&[None]))), builder.body(Body::empty()).unwrap()).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "an absent key has no conditions");
}

#[tokio::test]
async fn a_write_under_a_condition_is_refused_before_its_value_is_read() {
    for method in ["PUT", "DELETE"] {
        for (name, value) in [
            ("if-match", "\"x\""),
            ("if-none-match", "*"),
            ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("if-unmodified-since", "nonsense"),
            ("content-range", "bytes 0-1/3"),
        ] {
            let unread = Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>());
            let writes = request(method, "/v1/kv/b/k").header(name, value).header("expect", "100-continue");
            let refused = exchange(put_done(None), writes.body(unread).unwrap()).await;
            assert_eq!(refused.refused(), (501, "not_implemented".to_owned()), "{method} {name}");
        }
    }
}

#[tokio::test]
async fn an_absent_or_deleted_key_is_not_found() {
    let deleted = get(&[None, None], "*/*").await;
    assert_eq!((deleted.status, deleted.header("cartwheel-context")), (StatusCode::NOT_FOUND, &*sealed()));
    assert_eq!(deleted.json()["error"], "not_found");
    let nothing = Got { siblings: Vec::new(), context: None, acks: ACKS };
    let never = exchange(Ok(Reply::Got(nothing)), request("GET", "/v1/kv/b/k").body(Body::empty()).unwrap()).await;
    assert_eq!((never.status, never.header("cartwheel-context")), (StatusCode::NOT_FOUND, ""));
    assert_eq!(never.header("cartwheel-acks"), "home=2 standin=1 zones=3");
}

#[tokio::test]
async fn expired_values_are_shown_as_deleted_and_late_timestamps_are_capped() {
    let mut held = got(&[Some("a"), Some("b")]);
    held.siblings[0].expires = Some(WallMs(1));
    held.siblings[1].hlc = Hlc::from_bits(u64::MAX);
    let shown = exchange(Ok(Reply::Got(held)), request("GET", "/v1/kv/b/k").body(Body::empty()).unwrap()).await;
    assert_eq!(shown.status, StatusCode::MULTIPLE_CHOICES);
    assert_eq!(shown.header("last-modified"), "Fri, 31 Dec 9999 23:59:59 GMT");
    let body = shown.json();
    assert_eq!((&body["siblings"][0]["deleted"], &body["siblings"][0]["value"]), (&json!(true), &Value::Null));
    assert_eq!(body["siblings"][1]["modified"], "9999-12-31T23:59:59.000Z");
}

#[tokio::test]
async fn a_get_passes_its_parameters_on() {
    let builder = request("GET", "/v1/kv/a%2Fb/c/%00?r=3&consistency=strong&timeout_ms=1700")
        .header("cartwheel-context", URL_SAFE_NO_PAD.encode("seen"))
        .body(Body::empty())
        .unwrap();
    let received = exchange(Ok(Reply::Got(got(&[Some("v")]))), builder).await.received.unwrap();
    assert!(received.timeout <= Duration::from_millis(1_700), "{:?}", received.timeout);
    let Operation::Get(get) = received.operation else { panic!("not a get") };
    assert_eq!((&get.key.bucket()[..], &get.key.name()[..]), (&b"a/b"[..], &b"c/\0"[..]));
    assert_eq!((get.r, get.consistency, get.seen), (Some(3), Consistency::Strong, Some(Bytes::from_static(b"seen"))));
}

pub(super) fn put_done(body: Option<Got>) -> Outcome {
    Ok(Reply::Put(PutDone { context: Some(Bytes::from_static(b"\xffsealed")), acks: ACKS, body }))
}

#[tokio::test]
async fn a_put_passes_its_parameters_on() {
    let puts = request("PUT", "/v1/kv/b/k?w=1&timeout_ms=60000")
        .header("cartwheel-context", URL_SAFE_NO_PAD.encode("seen"))
        .header("idempotency-key", "once")
        .header("content-type", "text/plain; charset=utf-8")
        .body(Body::from("value"))
        .unwrap();
    let put = exchange(put_done(None), puts).await;
    assert_eq!((put.status, &put.body[..]), (StatusCode::NO_CONTENT, &b""[..]));
    assert_eq!(
        (put.header("cartwheel-context"), put.header("cartwheel-acks")),
        (&*sealed(), "home=2 standin=1 zones=3")
    );
    let Operation::Put(received) = put.received.unwrap().operation else { panic!("not a put") };
    assert_eq!(received.content, Content::typed("value", "text/plain; charset=utf-8"));
    assert_eq!((received.w, received.context), (Some(1), Some(Bytes::from_static(b"seen"))));
    assert_eq!((received.retry, received.return_body), (Retry::Key(Bytes::from_static(b"once")), false));

    let puts = request("PUT", "/v1/kv/b/k?return=body").body(Body::empty()).unwrap();
    let put = exchange(put_done(Some(got(&[Some("a"), Some("b")]))), puts).await;
    assert_eq!((put.status, put.json()["siblings"].as_array().unwrap().len()), (StatusCode::MULTIPLE_CHOICES, 2));
    let Operation::Put(received) = put.received.unwrap().operation else { panic!("not a put") };
    assert_eq!(received.content, Content::typed("", "application/octet-stream"));
    assert_eq!((received.retry, received.return_body, received.context), (Retry::Unnamed, true, None));
}

#[tokio::test]
async fn a_delete_writes_a_tombstone() {
    let deletes = request("DELETE", "/v1/kv/b/k").body(Body::empty()).unwrap();
    let deleted = exchange(Ok(Reply::Put(PutDone { context: None, acks: ACKS, body: None })), deletes).await;
    assert_eq!((deleted.status, deleted.header("cartwheel-context")), (StatusCode::NO_CONTENT, ""));
    let Operation::Put(received) = deleted.received.unwrap().operation else { panic!("not a put") };
    assert_eq!(received.content, Content::Tombstone);
}

#[tokio::test]
async fn invalid_requests_do_not_reach_the_node() {
    let cases = [
        (request("GET", "/v1/kv/b/%zz"), 400, "bad_request"),
        (request("GET", "/v1/kv/b/k?w=1"), 400, "bad_request"),
        (request("PUT", "/v1/kv/b/k?r=1"), 400, "bad_request"),
        (request("DELETE", "/v1/kv/b/k?return=body"), 400, "bad_request"),
        (request("PUT", "/v1/kv/b"), 400, "bad_request"),
        (request("GET", "/v1/kv/b?limit=1001"), 400, "bad_request"),
        (request("GET", "/v1/kv/b?prefix=%zz"), 400, "bad_request"),
        (request("GET", "/v1/kv/b?cursor=%2B"), 400, "bad_request"),
        (request("GET", "/v1/kv/b?w=1"), 400, "bad_request"),
        (request("GET", "/v1/kv//k"), 400, "bad_request"),
        (request("GET", "/v1/kv"), 400, "bad_request"),
        (request("GET", "/v1/kv/b/k").header("cartwheel-context", "pad=="), 400, "bad_context"),
        (request("PUT", "/v1/kv/b/k").header("cartwheel-context", "A".repeat(22_000)), 400, "bad_context"),
        (
            request("PUT", "/v1/kv/b/k").header("cartwheel-context", "AA").header("cartwheel-context", "AA"),
            400,
            "bad_request",
        ),
        (request("PUT", "/v1/kv/b/k").header("cartwheel-ttl", "0"), 400, "bad_request"),
        (request("PUT", "/v1/kv/b/k").header("idempotency-key", ""), 400, "bad_request"),
        (request("PUT", "/v1/kv/b/k").header("idempotency-key", "i".repeat(256)), 400, "bad_request"),
        (request("PUT", "/v1/kv/b/k").header("content-type", &b"\xff"[..]), 400, "bad_request"),
        (request("PUT", "/v1/kv/b/k").header("content-length", "1048577"), 413, "too_large"),
        (request("PUT", "/v1/kv/b/k").header("content-encoding", "gzip\u{e9}"), 400, "bad_request"),
        (request("PUT", "/v1/kv/b/k").header("content-encoding", ""), 400, "bad_request"),
        (request("PUT", "/v1/kv/b/k").header("content-encoding", "g".repeat(256)), 400, "bad_request"),
        (request("PUT", "/v1/buckets/b"), 415, "unsupported_media_type"),
        (request("POST", "/v1/cluster/members"), 415, "unsupported_media_type"),
        (request("POST", "/v1/kv/b/k"), 405, "method_not_allowed"),
        (request("GET", "/v1/buckets?x=1"), 400, "bad_request"),
        (request("GET", "/v1/buckets/b?r=1"), 400, "bad_request"),
        (request("GET", "/v1/cluster?x=1"), 400, "bad_request"),
        (request("GET", "/v1/cluster/ring?x=1"), 400, "bad_request"),
        (request("GET", "/v1/cluster/replicas?x=1"), 400, "bad_request"),
        (request("GET", "/v1/cluster/locate/b/k?r=1"), 400, "bad_request"),
        (request("PUT", "/v1/cluster/ring"), 405, "method_not_allowed"),
        (request("GET", "/v1/nothing"), 404, "not_found"),
    ];
    for (builder, status, code) in cases {
        let request = builder.body(Body::empty()).unwrap();
        let what = format!("{request:?}");
        let exchange = exchange(put_done(None), request).await;
        assert_eq!(exchange.refused(), (status, code.to_owned()), "{what}");
        assert_eq!(status == 405, !exchange.header("allow").is_empty(), "{what}");
    }
    let undeclared = Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(
        (0..40).map(|_| Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from(vec![0; 32 << 10])))),
    )));
    let large = exchange(put_done(None), request("PUT", "/v1/kv/b/k").body(undeclared).unwrap()).await;
    assert_eq!(large.refused(), (413, "too_large".to_owned()), "without a declared length");
}

#[tokio::test]
async fn refusals_have_the_contracts_codes() {
    let cases = [
        (Refusal::BadRequest("no".to_owned()), 400, "bad_request"),
        (Refusal::BadContext("no".to_owned()), 400, "bad_context"),
        (Refusal::TooManySiblings(128), 409, "too_many_siblings"),
        (Refusal::SiblingsTooLarge(2, 1), 409, "too_many_siblings"),
        (Refusal::TooLarge(2, 1), 413, "too_large"),
        (Refusal::Overloaded, 429, "overloaded"),
        (Refusal::DiskFull, 507, "disk_full"),
    ];
    for (refusal, status, code) in cases {
        let message = refusal.to_string();
        let refused = exchange(Err(refusal), request("GET", "/v1/kv/b/k").body(Body::empty()).unwrap()).await;
        assert_eq!(refused.status.as_u16(), status);
        assert_eq!(refused.json(), json!({"error": code, "message": message}));
    }
}

#[tokio::test]
async fn the_ring_names_the_owners() {
    let ring = exchange(put_done(None), request("GET", "/v1/cluster/ring").body(Body::empty()).unwrap()).await.json();
    assert_eq!(ring["partitions"], 256);
    let members = ring["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    assert!(members.iter().any(|member| member["name"] == "node-2" && member["http"] == "127.0.0.1:8082"));
    let owners: Vec<u64> = ring["owners"].as_array().unwrap().iter().map(|owner| owner.as_u64().unwrap()).collect();
    assert_eq!(owners.len(), 256);
    assert!((0..3).all(|member| owners.iter().filter(|&&owner| owner == member).count() >= 85));
}

#[tokio::test]
async fn a_key_is_located_by_its_bytes() {
    let call = |path: &str| exchange(put_done(None), request("GET", path).body(Body::empty()).unwrap());
    let located = call("/v1/cluster/locate/carts/a%2Fb").await.json();
    let same = call("/v1/cluster/locate/carts/a/b").await.json();
    assert_eq!(located, same, "a slash in the key is a slash");
    assert_eq!(located["token"].as_str().map(str::len), Some(32));
    let replicas = located["preference_list"].as_array().unwrap();
    assert_eq!(replicas.len(), 3);
    assert!(replicas.iter().all(|replica| replica["role"] == "home"));
    // The owner of the partition comes first.
    let ring = call("/v1/cluster/ring").await.json();
    let owner = ring["owners"][located["partition"].as_u64().unwrap() as usize].as_u64().unwrap() as usize;
    assert_eq!(ring["members"][owner]["name"], replicas[0]["node"]);
    assert_eq!(call("/v1/cluster/locate/carts").await.refused().0, 400);
}

#[tokio::test]
async fn the_status_shows_each_member() {
    let builder = request("GET", "/v1/cluster").body(Body::empty()).unwrap();
    let cluster = exchange(put_done(None), builder).await.json();
    assert_eq!((&cluster["node"], cluster["cluster"].as_str().map(str::len)), (&json!("node-1"), Some(32)));
    let members = cluster["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    let own = members.iter().find(|member| member["name"] == "node-1").unwrap();
    assert_eq!((&own["state"], &own["boot"], &own["problem"]), (&json!("self"), &json!(1), &Value::Null));
    assert_eq!(own["version"], crate::VERSION);
    let (oldest, newest) = (Protocol::OLDEST.0, Protocol::NEWEST.0);
    assert_eq!(cluster["protocol"], json!({ "in_use": oldest, "newest": newest, "waits_for": ["node-2"] }));
    assert_eq!(own["protocol"], json!({ "oldest": oldest, "newest": newest, "used": null }));
    let other = members.iter().find(|member| member["name"] == "node-2").unwrap();
    assert_eq!(
        (&other["state"], &other["boot"], &other["http"]),
        (&json!("disconnected"), &Value::Null, &json!("127.0.0.1:8082"))
    );
    assert_eq!((&own["liveness"], &other["liveness"]), (&Value::Null, &Value::Null), "a node has no verdict of itself");
    let gone = &members.iter().find(|member| member["name"] == "node-3").unwrap()["liveness"];
    assert_eq!((&gone["status"], &gone["since"]), (&json!("down"), &json!("2023-11-14T22:13:20.123Z")));
    assert_eq!(gone["why"], Why::SuspicionConfirmed.to_string());
}

#[tokio::test]
async fn the_front_page_names_every_call() {
    let page = exchange(put_done(None), request("GET", "/").body(Body::empty()).unwrap()).await;
    assert!(page.header("content-type").starts_with("text/plain"));
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    for documented in documented() {
        assert!(page.contains(documented), "{documented}");
    }
}

#[tokio::test]
async fn the_document_has_every_call_and_no_other() {
    let described = exchange(put_done(None), request("GET", "/openapi.json").body(Body::empty()).unwrap()).await.json();
    let paths = described["paths"].as_object().unwrap();
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(described, documented().into_iter().collect());
    for (path, methods) in paths {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
            let uri = path.replace("{bucket}", "b").replace("{key}", "k").replace("{partition}", "0");
            let response = exchange(put_done(None), request(method, &uri).body(Body::empty()).unwrap()).await;
            let described = methods.as_object().unwrap().contains_key(&method.to_ascii_lowercase());
            // GET implies HEAD.
            let described = described || (method == "HEAD" && methods.as_object().unwrap().contains_key("get"));
            // Of a request on a key without the key it is said what is missing.
            let lacks_key = path == "/v1/kv/{bucket}" && response.status == StatusCode::BAD_REQUEST;
            let is_allowed = response.status != StatusCode::METHOD_NOT_ALLOWED && !lacks_key;
            assert_eq!(is_allowed, described, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_document_has_every_status_of_the_contract() {
    let described = exchange(put_done(None), request("GET", "/openapi.json").body(Body::empty()).unwrap()).await.json();
    let statuses = |path: &str, method: &str| {
        let responses = described["paths"][path][method]["responses"].as_object().unwrap();
        responses.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    let key = "/v1/kv/{bucket}/{key}";
    assert_eq!(statuses(key, "get"), "200 300 304 400 401 403 404 412 429 503");
    assert_eq!(statuses(key, "head"), "200 300 304 400 401 403 404 412 429 503");
    assert_eq!(statuses(key, "put"), "200 204 300 400 401 403 409 413 415 421 429 501 503 507");
    assert_eq!(statuses(key, "delete"), "204 400 401 403 409 413 415 421 429 501 503 507");
    assert_eq!(statuses("/v1/buckets/{bucket}", "put"), "200 400 401 403 404 413 415 421 429 503");
    assert_eq!(statuses("/v1/cluster/locate/{bucket}/{key}", "get"), "200 400 401 403");
    assert_eq!(statuses("/v1/cluster/partitions/{partition}/digests", "get"), "200 400 401 403 503");
    assert_eq!(statuses("/v1/backup/partitions/{partition}", "get"), "200 400 401 403 429 503");
    assert_eq!(statuses("/v1/backup/records", "post"), "200 400 401 403 413 415 421 429 503");
    assert_eq!(statuses("/readyz", "get"), "200 503");
    // Every code of the contract occurs, and no schema is missing.
    let text = described.to_string();
    for code in [
        "bad_request",
        "bad_context",
        "not_found",
        "too_many_siblings",
        "unauthorized",
        "forbidden",
        "forbidden_origin",
        "unsupported_media_type",
        "misdirected",
        "precondition_failed",
        "too_large",
        "not_implemented",
        "overloaded",
        "unavailable",
        "unverified",
        "disk_full",
    ] {
        assert!(text.contains(&format!("`{code}`")), "{code}");
    }
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(described["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[tokio::test]
async fn requests_are_counted() {
    let two = Ok(Reply::Got(got(&[Some("a"), Some("b")])));
    let (api, received) = api(two);
    for (method, uri) in [
        ("GET", "/v1/kv/b/k"),
        ("HEAD", "/v1/kv/b/k"),
        ("GET", "/v1/kv/b/k?r=0"),
        ("PUT", "/v1/kv/b/k?w=300"),
        ("DELETE", "/v1/kv/b/%"),
        ("POST", "/v1/kv/b/k"),
        ("GET", "/healthz"),
    ] {
        exchange_at(api.clone(), received.clone(), request(method, uri).body(Body::empty()).unwrap()).await;
    }
    let metrics_reply = exchange_at(api, received, request("GET", "/metrics").body(Body::empty()).unwrap()).await;
    assert!(metrics_reply.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    let samples = metrics::tests::parse(std::str::from_utf8(&metrics_reply.body).unwrap());
    let requests = |operation: &str, outcome: &str| {
        samples.get(&format!("cartwheel_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\"}}")).copied()
    };
    assert_eq!((requests("get", "siblings"), requests("get", "bad_request")), (Some(2.0), Some(1.0)));
    assert_eq!((requests("put", "bad_request"), requests("delete", "bad_request")), (Some(1.0), Some(1.0)));
    assert_eq!(requests("get", "ok"), Some(0.0), "it exists from the start");
    assert_eq!(samples["cartwheel_request_duration_seconds_count{operation=\"get\"}"], 3.0);
    assert_eq!(samples["cartwheel_read_siblings_sum"], 4.0);
    assert_eq!(samples["cartwheel_read_siblings_bucket{le=\"1.0\"}"], 0.0);
    assert_eq!(samples["cartwheel_read_siblings_bucket{le=\"2.0\"}"], 2.0);
    assert_eq!(samples["cartwheel_http_answer_bytes"], 0.0, "all responses were read or dropped");
    assert!(samples["process_start_time_seconds"] > 1.7e9);
    assert_eq!(samples[concat!("cartwheel_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}")], 1.0);
}

#[tokio::test]
async fn a_client_that_disconnects_is_counted_as_gone() {
    /// Never answers.
    struct Mute;
    impl Machine for Mute {
        fn step(&mut self, _now: Now, _input: Input) -> Effects {
            Effects::default()
        }
    }
    let (api, _) = api_of(Mute);
    let builder = request("GET", "/v1/kv/b/k").body(Body::empty()).unwrap();
    let mut calling = front(api.clone()).call(builder);
    tokio::select! {
        biased;
        _ = &mut calling => panic!("a mute node answered"),
        () = std::future::ready(()) => {}
    }
    drop(calling);
    let samples = metrics::tests::parse(&api.metrics().text());
    assert_eq!(samples["cartwheel_requests_total{operation=\"get\",outcome=\"client_gone\"}"], 1.0);
}

/// Blocks until its test has ended.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl Machine for Stuck {
    fn step(&mut self, _now: Now, _input: Input) -> Effects {
        let _ = self.0.recv();
        Effects::default()
    }
}

/// The API state of a blocked, overloaded node; the first request that it refused; and a guard that keeps it blocked.
pub(super) async fn busy() -> (ApiState, Response<Body>, impl Sized) {
    let (let_go, stuck) = std::sync::mpsc::channel::<()>();
    let (api, _) = api_of(Stuck(stuck));
    let call = || {
        let get = request("GET", "/v1/kv/b/k").body(Body::empty()).unwrap();
        front(api.clone()).call(get)
    };
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let mut calling = call();
        tokio::select! {
            biased;
            _ = &mut calling => panic!("a request was refused though it could wait"),
            () = std::future::ready(()) => waiting.push(calling),
        }
    }
    let refused = call().await.unwrap();
    (api, refused, (waiting, let_go))
}

#[tokio::test]
async fn an_overloaded_node_refuses_a_write_before_its_value_arrives() {
    let (api, refused, _busy) = busy().await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let unread =
        Body::from_stream(futures_util::stream::poll_fn(|_| -> std::task::Poll<Option<std::io::Result<Bytes>>> {
            panic!("the value of a write that is refused was read")
        }));
    let puts = request("PUT", "/v1/kv/b/k").header("expect", "100-continue").body(unread).unwrap();
    let (status, code) = exchange_at(api.clone(), Arc::default(), puts).await.refused();
    assert_eq!((status, code.as_str()), (429, "overloaded"));
    let samples = metrics::tests::parse(&api.metrics().text());
    assert_eq!(samples["cartwheel_shard_inbox_refusals_total"], 2.0);
}

#[tokio::test]
async fn a_node_that_is_not_ready_gives_the_reason() {
    let builder = || request("GET", "/readyz").body(Body::empty()).unwrap();
    let (api, states) = api_of(Fixed(put_done(None), Arc::default()));
    let call = async |readiness| {
        states.send_replace(readiness);
        exchange_at(api.clone(), Arc::default(), builder()).await
    };
    assert_eq!(call(Readiness::Ready).await.json(), json!({"status": "ready", "pid": std::process::id()}));
    let (status, code) = call(Readiness::Connecting).await.refused();
    assert_eq!((status, code.as_str()), (503, "unavailable"));
    let why = call(Readiness::CannotStore).await.json();
    assert!(why["message"].as_str().unwrap().contains("cannot store writes"), "{why}");
}

#[tokio::test]
async fn a_refusal_states_its_cause() {
    let short = || Shortfall { answered: 1, needed: 3, why: "too few replicas answered in time".to_owned() };
    for (method, query, needs) in [
        ("GET", "r=3", "the request needs r=3 of n=3"),
        ("GET", "", "the bucket needs r=2 of n=3"),
        ("GET", "consistency=strong", "a strong request needs 2 of n=3"),
        ("PUT", "", "the bucket needs w=2 of n=3"),
        ("PUT", "w=3&consistency=strong", "the request needs w=3 of n=3"),
        ("DELETE", "w=1", "the request needs w=1 of n=3"),
    ] {
        let uri = format!("/v1/kv/b/k?{query}");
        let (status, error) = call(method, &uri, Err(Refusal::Unavailable(short())), String::new()).await;
        let message = format!(
            "{needs}, but only 2 of the key's 3 homes can be reached: node-3 cannot (too few replicas answered in time: 1 of 3 replicas \
             answered)"
        );
        assert_eq!(status.as_u16(), 503);
        let expected =
            json!({"error": "unavailable", "message": message, "needed": 3, "answered": 1, "unreachable": ["node-3"]});
        assert_eq!(error, expected, "{method} {query}");
    }
}
