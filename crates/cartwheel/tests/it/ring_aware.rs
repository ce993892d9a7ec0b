//! The Rust client goes by the ring of a real cluster.

use crate::harness::grown::Grown;
use crate::harness::raw::{get, set_bucket};
use cartwheel_client::Client;

const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];
const WRITES: u64 = 500;

/// The number of writes that the nodes have forwarded so far.
fn forwarded(nodes: &Grown) -> u64 {
    let of = |name: &&str| -> u64 {
        let metrics = get(&nodes.endpoint(name), "/metrics").text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("cartwheel_writes_forwarded_total "));
        line.unwrap().parse().unwrap()
    };
    NODES.iter().map(of).sum()
}

/// Buckets whose keys are placed by name, by slot and by prefix.
fn bucket(number: u64) -> &'static str {
    ["b", "slotted", "prefixed"][number as usize % 3]
}

async fn write(client: &Client, what: &str) {
    for number in 0..WRITES {
        client.put(bucket(number), format!("{what}-{number}"), what.to_owned(), None).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_of_one_endpoint_writes_to_homes_and_outlives_that_endpoint() {
    let mut nodes = Grown::of(&NODES);
    nodes.eventually("every partition is on its target nodes", |nodes| {
        let moves = |name| get(&nodes.endpoint(name), "/v1/cluster/transfers").json();
        NODES.iter().all(|name| moves(name)["transfers"].as_array().unwrap().is_empty())
    });
    for (bucket, placement) in [("slotted", r#""slot""#), ("prefixed", r#"{"prefix": 9}"#)] {
        let set = set_bucket(&nodes.endpoint("b"), bucket, &format!(r#"{{"placement": {placement}}}"#));
        assert_eq!(set.status, 200, "{}", set.text());
    }
    let client = Client::new([nodes.endpoint("a")]).unwrap();
    // On a busy machine, the first writes may not wait for the ring until it has come.
    write(&client, "first").await;
    let before = forwarded(&nodes);
    write(&client, "routed").await;
    let routed = forwarded(&nodes) - before;
    assert!(routed * 100 < WRITES, "{routed} of {WRITES} writes were forwarded");
    write(&client.clone().without_routing(), "through-a").await;
    assert!(forwarded(&nodes) - before - routed > WRITES / 10, "two of five nodes are no homes of a key");

    nodes.kill("a");
    write(&client, "later").await;
    for what in ["routed", "through-a", "later"] {
        for number in 0..WRITES {
            let read = client.get(bucket(number), format!("{what}-{number}")).await.unwrap();
            assert_eq!(read.values.first().map(|value| &value.bytes[..]), Some(what.as_bytes()), "{what}-{number}");
        }
    }
}
