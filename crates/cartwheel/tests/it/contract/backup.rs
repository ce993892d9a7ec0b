//! `/v1/backup/...`: copies of partitions, through any node, and what their restore refuses.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::harness::raw::{Reply, call, get, put};
use crate::harness::{Cluster, PATIENCE};

const RECORDS: [(&str, &str); 1] = [("content-type", "application/vnd.cartwheel.records")];

fn post(node: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    call(node, "POST", path, headers, body).error()
}

fn refused(reply: &Reply) -> (u16, String) {
    reply.error()
}

#[test]
fn every_home_gives_the_same_records_and_takes_them_back() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    assert_eq!(put(&nodes[0], "/v1/kv/carts/alice?w=3", "milk").status, 204);
    let partition = get(&nodes[0], "/v1/cluster/locate/carts/alice").json()["partition"].as_u64().unwrap();
    let path = format!("/v1/backup/partitions/{partition}");
    let begun = Instant::now();
    let sums = || nodes.iter().map(|node| get(node, &path).json()["ranges"].clone()).collect::<Vec<_>>();
    while sums().iter().any(|ranges| ranges[0]["keys"] != 1 || *ranges != sums()[0]) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", sums());
    }
    let range = sums().remove(0).as_array().unwrap().clone().remove(0);
    assert_eq!(range["range"], 0);
    let until = range["until"].as_str().map_or_else(String::new, |until| format!("&until={until}"));
    let records = format!("{path}/records?from={}{until}", range["from"].as_str().unwrap());
    let pages: Vec<Reply> = nodes.iter().map(|node| get(node, &records)).collect();
    for page in &pages {
        assert_eq!((page.status, page.header("content-type"), page.header("cartwheel-next")), (200, RECORDS[0].1, ""));
        assert_eq!(page.body, pages[0].body);
        assert!(page.body.starts_with(b"CWR\x01"));
    }

    let restored = call(&nodes[1], "POST", "/v1/backup/records", &RECORDS, &pages[0].body);
    assert_eq!((restored.status, restored.json()), (200, serde_json::json!({ "restored": 1 })));
    assert_eq!(get(&nodes[2], "/v1/kv/carts/alice").values(), ["milk"], "the same once more");

    let bad_request = |reply: (u16, String)| assert_eq!(reply, (400, "bad_request".to_owned()));
    let outside = URL_SAFE_NO_PAD.encode([0xff; 17]);
    for bad in [
        "/v1/backup/partitions/256".to_owned(),
        "/v1/backup/partitions/x".to_owned(),
        "/v1/backup/partitions/-1/records".to_owned(),
        format!("{path}?level=4"),
        format!("{path}?limit=1"),
        format!("{path}/records?from=%20"),
        format!("/v1/backup/partitions/0/records?from={outside}"),
        format!("/v1/backup/partitions/0/records?until={outside}"),
    ] {
        bad_request(refused(&get(&nodes[0], &bad)));
    }
    for bad in [&b""[..], b"CWR\x02", b"CWR\x01\0\0\0\x09", &pages[0].body[..20], b"milk"] {
        bad_request(post(&nodes[0], "/v1/backup/records", &RECORDS, bad));
    }
    bad_request(post(&nodes[0], "/v1/backup/records?cluster=here", &RECORDS, &pages[0].body));
    for headers in [&[("content-type", "application/json")][..], &[]] {
        let (status, code) = post(&nodes[0], "/v1/backup/records", headers, &pages[0].body);
        assert_eq!((status, code.as_str()), (415, "unsupported_media_type"));
    }
    let page = [RECORDS[0], ("origin", "http://evil.example")];
    assert_eq!(post(&nodes[0], "/v1/backup/records", &page, &pages[0].body), (403, "forbidden_origin".to_owned()));
}
