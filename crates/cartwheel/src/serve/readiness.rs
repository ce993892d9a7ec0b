//! When a node calls itself ready.

use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::configuration::Home;
use cartwheel_core::membership::View;
use futures_util::future::select_all;
use tokio::sync::watch;
use tracing::error;

use crate::http::Readiness;
use crate::shard;

/// How long a node that starts waits for connections to its peers before it calls itself ready without them.
const PEERS_WITHIN: Duration = Duration::from_secs(2);

/// Calls the node ready while all its shards are, once its peers are connected or have had their time: a node whose peers are
/// down can still serve what it can.
pub(super) async fn announce(
    mut shards: Vec<watch::Receiver<shard::Readiness>>,
    connections: Vec<watch::Receiver<bool>>,
    mut view: watch::Receiver<Arc<View>>,
    own: Home,
    ready: watch::Sender<Readiness>,
) {
    let all_connected = async {
        for mut connection in connections {
            let _ = connection.wait_for(|connected| *connected).await;
        }
    };
    let _ = tokio::time::timeout(PEERS_WITHIN, all_connected).await;
    loop {
        let each: Vec<_> = shards.iter_mut().map(|shard| *shard.borrow_and_update()).collect();
        let is_taken = is_name_taken(&view.borrow_and_update(), own);
        let readiness = if is_taken { Readiness::NameTaken } else { of_all(&each) };
        if ready.send_replace(readiness) != Readiness::NameTaken && is_taken {
            error!(
                "name_taken: another node of this name was let into the cluster at the same time, and is the member; this one is none and \
                 is not ready. Let it in anew with an empty directory and another name"
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

/// Whether another node has the name of `own` in the cluster, and did not get it by replacing `own`: two nodes of one name were let in at
/// once, by members that did not know of each other, and the history can hold only one of them.
pub(super) fn is_name_taken(view: &View, own: Home) -> bool {
    let is_other = view.member(own.node).is_some_and(|known| known.member.life != own.life);
    is_other && !view.is_removed(own)
}

/// A node is what the worst of its shards is.
fn of_all(shards: &[shard::Readiness]) -> Readiness {
    let any = |readiness| shards.contains(&readiness);
    if any(shard::Readiness::StoreFailed) {
        Readiness::StoreFailed
    } else if any(shard::Readiness::Starting) {
        Readiness::CannotStore
    } else if any(shard::Readiness::DiskFull) {
        Readiness::DiskFull
    } else {
        Readiness::Ready
    }
}

#[cfg(test)]
mod tests {
    use cartwheel_core::dot::{Life, NodeId};
    use cartwheel_core::hlc::Hlc;
    use cartwheel_core::membership::{ChangeKind, ClusterId, History, Member, Strategy};
    use cartwheel_core::ring::Partitions;

    use super::*;

    /// What a founder knows, and then this.
    fn history(changes: &[(u64, ChangeKind)]) -> History {
        let members = vec![Member::new("a", Life(1))];
        let (partitions, strategy) = (Partitions::default(), Strategy::default());
        let founding = ChangeKind::Found { cluster: ClusterId(1), partitions, strategy, members };
        let mut history = History::new();
        for (at, what) in [(1, founding)].iter().chain(changes) {
            history.record(Hlc::from_bits(*at), NodeId::of_name("a"), what.clone());
        }
        history
    }

    /// Each seed has let its own in before it heard of the other.
    #[tokio::test]
    async fn of_two_nodes_that_join_under_one_name_the_one_that_is_no_member_says_so() {
        let (first, second) = (Member::new("b", Life(1)), Member::new("b", Life(2)));
        let (mut all, other) = (history(&[(5, ChangeKind::Add(first))]), history(&[(7, ChangeKind::Add(second))]));
        let own = Home { node: NodeId::of_name("b"), life: Life(2) };
        let (views, view) = watch::channel(Arc::new(other.view().unwrap()));
        let (_shard, shard_ready) = watch::channel(shard::Readiness::Ready);
        let (sender, mut ready) = watch::channel(Readiness::Connecting);
        tokio::spawn(announce(vec![shard_ready], Vec::new(), view, own, sender));
        ready.wait_for(|ready| *ready == Readiness::Ready).await.unwrap();
        all.merge(&other);
        let merged = all.view().unwrap();
        assert!(!is_name_taken(&merged, Home { life: Life(1), ..own }), "the other is the member");
        views.send_replace(Arc::new(merged));
        ready.wait_for(|ready| *ready == Readiness::NameTaken).await.unwrap();

        let renewed = ChangeKind::Replace { old: own.node, new: Member::new("b", Life(3)) };
        let renewed = history(&[(5, ChangeKind::Add(Member::new("b", Life(2)))), (9, renewed)]).view().unwrap();
        assert!(!is_name_taken(&renewed, own), "it was replaced, which is another thing");
    }
}
