//! `Cartwheel-TTL`: a value is there until it expires, and then as if it had been deleted.

use std::time::{Duration, Instant};

use cartwheel_client::Value;

use crate::harness::raw::{Reply, call, get, put_seen, set_bucket};
use crate::harness::{CARTWHEEL, Cluster, PATIENCE};

/// Longer than any test waits.
const HOUR: &str = "3600";

fn put(node: &str, path: &str, ttl: &str, context: &str) -> Reply {
    let mut headers = vec![("cartwheel-ttl", ttl)];
    headers.extend((!context.is_empty()).then_some(("cartwheel-context", context)));
    call(node, "PUT", path, &headers, b"v")
}

/// Waits until a get through `node` finds nothing.
fn wait_until_gone(node: &str, path: &str) -> Reply {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "{path} has not expired");
        let found = get(node, path);
        if found.status != 200 {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_value_is_gone_once_it_has_expired_and_a_write_that_has_seen_it_replaces_it() {
    let cluster = Cluster::start();
    let nodes = cluster.endpoints();
    let path = "/v1/kv/expiring/k";
    assert_eq!(put(&nodes[0], path, HOUR, "").status, 204);
    let found = get(&nodes[1], path);
    let left: u64 = found.header("cartwheel-ttl").parse().unwrap();
    assert!((1..=3_600).contains(&left), "{left}");
    let json = call(&nodes[1], "GET", path, &[("accept", "application/json")], b"").json();
    let left = json["siblings"][0]["ttl"].as_u64().unwrap();
    assert!((1..=3_600).contains(&left), "{left}");

    // A write that has seen the value replaces its lifetime, too.
    let short = put(&nodes[2], path, "1", found.context());
    assert_eq!(short.status, 204);
    let gone = wait_until_gone(&nodes[0], path);
    assert_eq!(gone.status, 404);
    assert!(!gone.context().is_empty(), "as with a tombstone, a write needs it to replace what expired");
    for node in &nodes {
        assert_eq!(wait_until_gone(node, path).status, 404);
    }
    assert_eq!(put_seen(&nodes[1], path, gone.context(), "for good").status, 204);
    let back = get(&nodes[0], path);
    assert_eq!((back.status, back.values(), back.header("cartwheel-ttl")), (200, vec!["for good".to_owned()], ""));
}

#[test]
fn a_value_expires_beside_its_siblings_and_in_buckets_of_last_write_wins() {
    let cluster = Cluster::start();
    let node = &cluster.endpoint(1);
    let path = "/v1/kv/expiring/siblings";
    let first = call(node, "PUT", path, &[], b"stays");
    assert_eq!((first.status, put(node, path, "1", "").status), (204, 204));
    let begun = Instant::now();
    let shown = loop {
        assert!(begun.elapsed() < PATIENCE, "{path} has not expired");
        let shown = get(node, path).siblings();
        assert_eq!(shown.len(), 2);
        if shown.iter().any(|sibling| sibling["deleted"] == true) {
            break shown;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(shown.iter().filter(|sibling| sibling["deleted"] == false).count(), 1);

    set_bucket(node, "register", r#"{"conflict": "lww"}"#);
    let path = "/v1/kv/register/k";
    assert_eq!((call(node, "PUT", path, &[], b"older").status, put(node, path, "1", "").status), (204, 204));
    // What it replaced does not come back.
    assert_eq!(wait_until_gone(node, path).status, 404);
}

#[tokio::test]
async fn the_client_and_the_command_line_give_and_show_a_lifetime() {
    let cluster = Cluster::start();
    let client = cluster.client_of_all();
    let value = Value::new("v", "text/plain").expiring_after(Duration::from_millis(3_599_001));
    client.put_with("expiring", "client", value, None, &Default::default()).await.unwrap();
    let ttl = client.get("expiring", "client").await.unwrap().values[0].ttl.unwrap();
    assert!(ttl > Duration::from_secs(3_000) && ttl <= Duration::from_secs(3_600), "{ttl:?}");

    let node = cluster.endpoint(2);
    let args = ["put", "expiring", "cli", "v", "--ttl", "1h", "--node", &node];
    let put = std::process::Command::new(CARTWHEEL).args(args).output().unwrap();
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    let ttl: u64 = get(&node, "/v1/kv/expiring/cli").header("cartwheel-ttl").parse().unwrap();
    assert!((1..=3_600).contains(&ttl), "{ttl}");
}
