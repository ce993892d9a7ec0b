//! The nodes of a real cluster agree that a killed node and a frozen node are down, and that it is alive when it is back.

use std::time::{Duration, Instant};

use crate::harness::{CARTWHEEL, Cluster, PATIENCE};
use cartwheel_client::{Liveness, LivenessStatus};
use rustix::process::Signal;

/// The verdict of node `at` on node `of`.
async fn verdict(cluster: &Cluster, at: u16, of: u16) -> Option<Liveness> {
    let status = cluster.client(at).cluster().await.unwrap();
    let name = format!("node-{of}");
    status.members.into_iter().find(|member| member.member.name == name).unwrap().liveness
}

/// Waits until node `at` has this verdict on node `of`; returns it, and the statuses seen before it.
async fn wait(cluster: &Cluster, at: u16, of: u16, status: LivenessStatus) -> (Liveness, Vec<LivenessStatus>) {
    let (begun, mut seen) = (Instant::now(), Vec::new());
    loop {
        if let Some(liveness) = verdict(cluster, at, of).await {
            if liveness.status == status {
                return (liveness, seen);
            }
            seen.push(liveness.status);
        }
        assert!(begun.elapsed() < PATIENCE, "node-{at} never considered node-{of} {status:?}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn all_alive(cluster: &Cluster) {
    for (at, of) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        wait(cluster, at, of, LivenessStatus::Alive).await;
    }
}

#[tokio::test]
async fn a_killed_node_is_suspect_at_once_then_down_and_alive_after_a_restart() {
    let mut cluster = Cluster::start();
    all_alive(&cluster).await;
    assert_eq!(verdict(&cluster, 1, 1).await, None, "a node has no verdict on itself");
    cluster.kill(3);
    let (down, before) = wait(&cluster, 1, 3, LivenessStatus::Down).await;
    assert!(before.contains(&LivenessStatus::Suspect), "{before:?}");
    assert!(!down.why.is_empty() && down.since.ends_with('Z'), "{down:?}");
    wait(&cluster, 2, 3, LivenessStatus::Down).await;
    assert_eq!(verdict(&cluster, 1, 2).await.unwrap().status, LivenessStatus::Alive);
    let metrics = crate::harness::raw::get(&cluster.endpoint(1), "/metrics").body;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("cartwheel_members{status=\"down\"} 1"), "{metrics}");
    let shown = std::process::Command::new(CARTWHEEL)
        .args(["cluster", "status", "--node", &cluster.endpoint(1)])
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("node-3") && line.contains(" down ")), "{text}");
    assert_eq!(shown.status.code(), Some(1));
    cluster.restart(3);
    all_alive(&cluster).await;
}

#[tokio::test]
async fn a_frozen_node_is_down_though_its_connections_stay_open_and_alive_when_it_continues() {
    let cluster = Cluster::start();
    all_alive(&cluster).await;
    cluster.signal(3, Signal::STOP);
    for at in [1, 2] {
        wait(&cluster, at, 3, LivenessStatus::Down).await;
    }
    let status = cluster.client(1).cluster().await.unwrap();
    let still = status.members.iter().find(|member| member.member.name == "node-3").unwrap();
    assert_eq!(
        still.state,
        cartwheel_client::MemberState::Connected,
        "the open connection tells a frozen node from a dead one"
    );
    cluster.signal(3, Signal::CONT);
    all_alive(&cluster).await;
}
