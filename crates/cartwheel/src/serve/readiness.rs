//! When a node calls itself ready.

use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;

use crate::http::Readiness;
use crate::shard;

/// How long a node that starts waits for connections to its peers before it calls itself ready without them.
const PEERS_WITHIN: Duration = Duration::from_secs(2);

/// Calls the node ready while all its shards are, once its peers are connected or have had their time: a node whose peers are
/// down can still serve what it can.
pub(super) async fn announce(
    mut shards: Vec<watch::Receiver<shard::Readiness>>,
    connections: Vec<watch::Receiver<bool>>,
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
        ready.send_replace(of_all(&each));
        let changes = shards.iter_mut().map(|shard| Box::pin(shard.changed()));
        if select_all(changes).await.0.is_err() {
            return;
        }
    }
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
