//! Settings of buckets, from the shell and over HTTP, on a real cluster.

mod harness;

use cartwheel_client::{BucketChange, Error};
use harness::Cluster;

fn change(n: Option<u8>, r: Option<u8>, w: Option<u8>) -> BucketChange {
    BucketChange { n, r, w, ..BucketChange::default() }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, String) {
    match result {
        Err(Error::Refused { code, message }) => (code, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn settings_are_changed_through_any_node_and_survive_a_crash() {
    let cluster = Cluster::start();
    let (one, two, three) = (cluster.client(1), cluster.client(2), cluster.client(3));
    let settings = one.bucket("carts").await.unwrap();
    assert_eq!((settings.n, settings.r, settings.w, settings.max_value_bytes), (3, 2, 2, 1_048_576));
    assert_eq!(
        (settings.conflict.as_str(), settings.durability.as_str(), settings.sloppy),
        ("siblings", "fsync", true)
    );

    let small = BucketChange { max_value_bytes: Some(4), w: Some(3), ..BucketChange::default() };
    let changed = two.set_bucket("carts", &small).await.unwrap();
    assert_eq!((changed.w, changed.r, changed.max_value_bytes), (3, 2, 4));
    // Who made it has waited for the others.
    assert_eq!(three.bucket("carts").await.unwrap(), changed);
    let (code, _) = refusal(three.put("carts", "alice", "bread", None).await);
    assert_eq!(code, "too_large");
    assert_eq!(one.put("carts", "alice", "milk", None).await.unwrap().acks.home, 3);

    let last = BucketChange { conflict: Some("lww".to_owned()), ..BucketChange::default() };
    one.set_bucket("sessions/\u{e4}", &last).await.unwrap();
    two.put("sessions/\u{e4}", "s", "1", None).await.unwrap();
    three.put("sessions/\u{e4}", "s", "2", None).await.unwrap();
    assert_eq!(one.get("sessions/\u{e4}", "s").await.unwrap().values.len(), 1, "a reader sees the last write");

    let cluster = cluster.crash_and_restart();
    let listed = cluster.client(1).buckets().await.unwrap();
    let names: Vec<_> = listed.buckets.iter().map(|bucket| bucket.bucket.as_str()).collect();
    assert_eq!(names, ["carts", "sessions%2F%C3%A4"]);
    assert_eq!(listed.buckets[0].settings, changed);
}

#[tokio::test]
async fn n_is_fixed_by_the_first_write() {
    let cluster = Cluster::start();
    let (one, two) = (cluster.client(1), cluster.client(2));
    let single = one.set_bucket("cache", &change(Some(1), Some(1), Some(1))).await.unwrap();
    assert_eq!((single.n, single.r, single.w), (1, 1, 1));
    assert_eq!(two.put("cache", "k", "v", None).await.unwrap().acks.home, 1);
    for client in [&one, &two] {
        let (code, message) = refusal(client.set_bucket("cache", &change(Some(2), None, None)).await);
        assert_eq!(code, "bad_request");
        assert!(message.contains("holds keys"), "{message}");
    }
    assert_eq!(one.set_bucket("empty", &change(Some(5), Some(3), Some(3))).await.unwrap().n, 5);

    cluster.kill(3);
    let without_n = one.set_bucket("cache", &BucketChange { sloppy: Some(false), ..BucketChange::default() }).await;
    assert!(!without_n.unwrap().sloppy, "other settings need no quorum");
    match one.set_bucket("other", &change(Some(2), None, None)).await {
        Err(Error::Unavailable { last, .. }) => assert!(last.contains("2 of 3"), "{last}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_that_was_down_learns_of_a_change() {
    let mut cluster = Cluster::start();
    cluster.kill(2);
    let changed = cluster.client(1).set_bucket("carts", &change(None, Some(1), None)).await.unwrap();
    cluster.restart(2);
    let two = cluster.client(2);
    // It asks someone each second.
    let mut tries = 0;
    while two.bucket("carts").await.unwrap() != changed {
        tries += 1;
        assert!(tries < 600, "it never learns of it");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn writes_left_to_the_os_survive_a_kill_of_all_nodes() {
    let cluster = Cluster::start();
    let os = BucketChange { durability: Some("os".to_owned()), ..BucketChange::default() };
    assert_eq!(cluster.client(1).set_bucket("sessions", &os).await.unwrap().durability, "os");
    let client = cluster.client_of_all();
    for number in 0..50 {
        client.put("sessions", format!("s{number}"), format!("v{number}"), None).await.unwrap();
    }
    let cluster = cluster.crash_and_restart();
    for number in 0..50 {
        let found = cluster.client(1 + number % 3).get("sessions", format!("s{number}")).await.unwrap();
        assert_eq!(found.values.len(), 1, "s{number}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_changes_nothing() {
    let cluster = Cluster::start();
    let client = cluster.client(1);
    let word = |word: &str| Some(word.to_owned());
    let changes = [
        change(Some(0), None, None),
        change(Some(17), None, None),
        change(None, Some(4), None),
        change(None, None, Some(0)),
        BucketChange { conflict: word("newest"), ..BucketChange::default() },
        BucketChange { durability: word("memory"), ..BucketChange::default() },
        BucketChange { max_value_bytes: Some(0), ..BucketChange::default() },
        BucketChange { max_value_bytes: Some(u32::MAX), ..BucketChange::default() },
    ];
    for change in changes {
        let (code, message) = refusal(client.set_bucket("carts", &change).await);
        assert_eq!(code, "bad_request", "{change:?}");
        assert!(message.len() > 20, "{message}");
    }
    let (code, _) = refusal(client.set_bucket("b".repeat(256), &change(None, Some(1), None)).await);
    assert_eq!(code, "bad_request");
    assert!(client.buckets().await.unwrap().buckets.is_empty());
}
