//! When a node reports that it is ready.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::cluster::configuration::Home;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::ring::quorum::majority;
use cartwheel_core::value::dot::NodeId;
use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::error;

use crate::backend::Readiness;
use crate::shard;

/// How long a starting node waits for connections to its peers before it is ready without them, ...
const PEERS_WITHIN: Duration = Duration::from_secs(2);
/// ... and how long, in all, for connected peers to send their configurations.
const COMPARED_WITHIN: Duration = Duration::from_secs(10);
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// Waits until this node's peers are connected, and until most members, or all reachable ones, have sent it their configurations: before
/// that it might send requests to nodes that are no longer homes. It does not wait long for peers that are down: a node can serve without.
pub(super) async fn peers_known(
    connections: Vec<(NodeId, watch::Receiver<bool>)>,
    shard_connections: Vec<watch::Receiver<bool>>,
    mut compared: watch::Receiver<BTreeSet<NodeId>>,
) {
    let all_connected = async {
        let of_control = connections.iter().map(|(_, connection)| connection.clone());
        for mut connection in of_control.chain(shard_connections) {
            let _ = connection.wait_for(|connected| *connected).await;
        }
    };
    let begun = Instant::now();
    let _ = tokio::time::timeout(PEERS_WITHIN, all_connected).await;
    let know_enough = |compared: &BTreeSet<NodeId>| {
        let is_silent =
            |(node, connected): &(NodeId, watch::Receiver<bool>)| *connected.borrow() && !compared.contains(node);
        compared.len() + 1 >= majority(connections.len() + 1) || !connections.iter().any(is_silent)
    };
    while begun.elapsed() < COMPARED_WITHIN && !know_enough(&compared.borrow_and_update()) {
        // A connection may break without a change to the compared peers.
        let _ = tokio::time::timeout(CHECK_EVERY, compared.changed()).await;
    }
}

/// Reports the node as ready while all its shards are, after `peers_known` completes.
pub(super) async fn publish_readiness(
    mut shards: Vec<watch::Receiver<shard::ShardReadiness>>,
    peers_known: impl Future<Output = ()>,
    mut view: watch::Receiver<Arc<View>>,
    own: Home,
    ready: watch::Sender<Readiness>,
) {
    peers_known.await;
    loop {
        let each: Vec<_> = shards.iter_mut().map(|shard| *shard.borrow_and_update()).collect();
        let is_taken = is_name_taken(&view.borrow_and_update(), own);
        let readiness = if is_taken { Readiness::NameTaken } else { of_all(&each) };
        if ready.send_replace(readiness) != Readiness::NameTaken && is_taken {
            error!(
                alarm = "name_taken",
                "not ready: another node of this name joined at the same time and is the member; join again with an empty directory and \
            another name"
            );
        }
        let changes = shards.iter_mut().map(|shard| Box::pin(shard.changed()));
        let changed = tokio::select! {
            (changed, ..) = select_all(changes) => changed,
            changed = view.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Whether another node has the name of `own` in the cluster without having replaced it: two nodes of one name joined at once, through members
/// that did not know of each other, and the history can hold only one of them.
pub(super) fn is_name_taken(view: &View, own: Home) -> bool {
    let is_other = view.member(own.node).is_some_and(|known| known.member.incarnation != own.incarnation);
    is_other && !view.is_removed(own)
}

/// The readiness of a node: that of its worst shard.
fn of_all(shards: &[shard::ShardReadiness]) -> Readiness {
    let any = |readiness| shards.contains(&readiness);
    if any(shard::ShardReadiness::StoreFailed) {
        Readiness::StoreFailed
    } else if any(shard::ShardReadiness::Starting) {
        Readiness::CannotStore
    } else if any(shard::ShardReadiness::DiskFull) {
        Readiness::DiskFull
    } else {
        Readiness::Ready
    }
}

#[cfg(test)]
mod tests {
    use cartwheel_core::cluster::membership::{ChangeKind, History, Member, Strategy};
    use cartwheel_core::ring::Partitions;
    use cartwheel_core::value::cluster_id::ClusterId;
    use cartwheel_core::value::dot::Incarnation;
    use cartwheel_core::value::hlc::Hlc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_waits_for_most_members_and_alone_not_for_long() {
        let peers = [1, 2, 3, 4].map(NodeId::new);
        let (senders, connected): (Vec<_>, Vec<_>) = peers.iter().map(|_| watch::channel(true)).unzip();
        let connections: Vec<_> = peers.into_iter().zip(connected).collect();
        let (known, compared) = watch::channel(BTreeSet::from([peers[0]]));
        let waiting = tokio::spawn(peers_known(connections.clone(), Vec::new(), compared.clone()));
        tokio::time::sleep(PEERS_WITHIN * 2).await;
        assert!(!waiting.is_finished(), "two of five are no majority");
        known.send_replace(peers[..2].iter().copied().collect());
        waiting.await.unwrap();

        known.send_replace(BTreeSet::from([peers[0]]));
        let connect = |of: &[watch::Sender<bool>], stands| {
            of.iter().for_each(|connected| connected.send(stands).unwrap());
        };
        connect(&senders[1..], false);
        peers_known(connections.clone(), Vec::new(), compared.clone()).await;
        connect(&senders, true);
        known.send_replace(BTreeSet::new());
        let begun = Instant::now();
        peers_known(connections, Vec::new(), compared).await;
        assert!(begun.elapsed() >= COMPARED_WITHIN, "the peers send nothing");
    }

    /// The history after a bootstrap and these changes.
    fn history(changes: &[(u64, ChangeKind)]) -> History {
        let members = vec![Member::new("a", Incarnation(1))];
        let (partitions, strategy) = (Partitions::default(), Strategy::default());
        let bootstrap =
            ChangeKind::Bootstrap { cluster: ClusterId(1), partitions, strategy, members, name: String::new() };
        let mut history = History::new();
        for (at, what) in [(1, bootstrap)].iter().chain(changes) {
            history.record(Hlc::from_bits(*at), NodeId::of_name("a"), what.clone());
        }
        history
    }

    /// Each seed has added its node before it learned of the other.
    #[tokio::test]
    async fn of_two_nodes_that_join_under_one_name_the_one_that_is_not_the_member_reports_it() {
        let (first, second) = (Member::new("b", Incarnation(1)), Member::new("b", Incarnation(2)));
        let (mut all, other) = (history(&[(5, ChangeKind::Add(first))]), history(&[(7, ChangeKind::Add(second))]));
        let own = Home { node: NodeId::of_name("b"), incarnation: Incarnation(2) };
        let (views, view) = watch::channel(Arc::new(other.view().unwrap()));
        let (_shard, shard_ready) = watch::channel(shard::ShardReadiness::Ready);
        let (sender, mut ready) = watch::channel(Readiness::Connecting);
        tokio::spawn(publish_readiness(vec![shard_ready], async {}, view, own, sender));
        ready.wait_for(|ready| *ready == Readiness::Ready).await.unwrap();
        all.merge(&other);
        let merged = all.view().unwrap();
        assert!(!is_name_taken(&merged, Home { incarnation: Incarnation(1), ..own }), "the other is the member");
        views.send_replace(Arc::new(merged));
        ready.wait_for(|ready| *ready == Readiness::NameTaken).await.unwrap();

        let renewed = ChangeKind::Replace { old: own.node, new: Member::new("b", Incarnation(3)) };
        let renewed = history(&[(5, ChangeKind::Add(Member::new("b", Incarnation(2)))), (9, renewed)]).view().unwrap();
        assert!(!is_name_taken(&renewed, own), "the node was replaced, so its name is not taken");
    }
}
