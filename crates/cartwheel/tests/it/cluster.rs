//! The promises to users hold on three real processes: any node serves any request, and acknowledged writes survive kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, PATIENCE};
use cartwheel_client::{Acks, Client, Error, Options};
use tokio::task::JoinSet;

type Test = Result<(), Error>;

fn texts(siblings: &cartwheel_client::Siblings) -> Vec<String> {
    let mut texts: Vec<_> =
        siblings.values.iter().map(|value| String::from_utf8_lossy(&value.bytes).into_owned()).collect();
    texts.sort();
    texts
}

/// The number of writes that are acknowledged before all nodes are killed.
const LOAD: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn any_node_serves_any_request() -> Test {
    let cluster = Cluster::start();
    let nodes = [cluster.client(1), cluster.client(2), cluster.client(3)];
    assert_eq!(nodes[0].get("b", "k").await?.context, None);

    // Two writers that have not seen each other's writes make siblings, whichever nodes they use.
    let written = nodes[0].put("b", "k", "one", None).await?;
    assert_eq!(written.acks, Acks { home: 2, standin: 0, zones: 1 });
    nodes[1].put("b", "k", "two", None).await?;
    let both = nodes[2].get("b", "k").await?;
    assert_eq!(texts(&both), ["one", "two"]);

    // A write that has seen both siblings replaces them. A write that has seen only the first value does not replace the merged one.
    nodes[0].put("b", "k", "merged", both.context.as_ref()).await?;
    assert_eq!(texts(&nodes[1].get("b", "k").await?), ["merged"]);
    nodes[2].put("b", "k", "late", written.context.as_ref()).await?;
    assert_eq!(texts(&nodes[0].get("b", "k").await?), ["late", "merged"]);

    nodes[1].delete("b", "k", None).await?;
    let gone = nodes[2].get("b", "k").await?;
    assert_eq!((texts(&gone).len(), gone.deleted), (0, true));

    let updated = nodes[0].update("b", [0xff, b'/'], |siblings| format!("{} values", siblings.values.len())).await?;
    assert_eq!(updated.written.acks.home, 2);
    assert_eq!(texts(&nodes[1].get("b", [0xff, b'/']).await?), ["0 values"]);
    nodes[1].update("b", [0xff, b'/'], |siblings| format!("{} values", siblings.values.len())).await?;
    assert_eq!(texts(&nodes[2].get("b", [0xff, b'/']).await?), ["1 values"], "an update replaces what it read");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_of_other_keys_are_refused_and_change_nothing() -> Test {
    let cluster = Cluster::start();
    let client = cluster.client(1);
    let other = client.put("b", "other", "x", None).await?;
    client.put("b", "k", "mine", None).await?;
    let borrowed = client.put("b", "k", "theirs", other.context.as_ref()).await;
    assert!(matches!(&borrowed, Err(Error::Refused { code, .. }) if code == "bad_context"), "{borrowed:?}");
    assert_eq!(texts(&cluster.client(2).get("b", "k").await?), ["mine"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_succeed_without_a_killed_node_and_it_serves_again() -> Test {
    let mut cluster = Cluster::start();
    for number in 0..30 {
        cluster.client(1).put("b", format!("before-{number}"), "v", None).await?;
    }
    cluster.kill(2);
    for number in 0..30 {
        // The dead node is first on the preference list of some of these keys.
        let key = format!("while-{number}");
        cluster.client(3).put("b", &key, "v", None).await?;
        assert_eq!(texts(&cluster.client(1).get("b", &key).await?), ["v"]);
        assert_eq!(texts(&cluster.client(1).get("b", format!("before-{number}")).await?), ["v"]);
    }
    let all = Options { replicas: Some(3), timeout: Some(Duration::from_millis(500)), ..Options::default() };
    let missed = cluster.client(1).get_with("b", "before-1", &all).await;
    assert!(matches!(missed, Err(Error::Unavailable { .. })), "the dead node cannot have answered: {missed:?}");

    cluster.restart(2);
    for number in 0..30 {
        for name in ["before", "while"] {
            let key = format!("{name}-{number}");
            assert_eq!(texts(&cluster.client(2).get("b", &key).await?), ["v"], "{key}");
        }
        cluster.client(2).put("b", format!("after-{number}"), "v", None).await?;
    }
    let begun = Instant::now();
    while !matches!(cluster.client(1).get_with("b", "before-1", &all).await, Ok(got) if got.acks.home == 3) {
        assert!(begun.elapsed() < PATIENCE, "node-2 does not answer again within {PATIENCE:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_kill_of_all_nodes() -> Test {
    let mut cluster = Cluster::start();
    for round in 0..3 {
        let clients: Vec<Client> = (1..=3).map(|number| cluster.client(number)).collect();
        let mut writers = JoinSet::new();
        let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for writer in 0..9 {
            let (client, written, stop) = (clients[writer % 3].clone(), written.clone(), stop.clone());
            writers.spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    let key = format!("{round}-{writer}-{number}");
                    let stored = client.put("b", &key, key.clone(), None).await;
                    if stored.is_err() || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                    acknowledged.push(key);
                }
                acknowledged
            });
        }
        // The kill happens while the clients write.
        let begun = Instant::now();
        while written.load(Ordering::Relaxed) < LOAD {
            assert!(begun.elapsed() < PATIENCE, "{LOAD} writes take more than {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster = tokio::task::spawn_blocking(|| cluster.crash_and_restart()).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        let acknowledged: Vec<String> = writers.join_all().await.into_iter().flatten().collect();
        let client = cluster.client(round % 3 + 1);
        for key in acknowledged {
            assert_eq!(texts(&client.get("b", &key).await?).join(" "), key);
        }
    }
    Ok(())
}
