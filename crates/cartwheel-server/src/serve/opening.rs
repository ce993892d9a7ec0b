//! Asks peers whether a data directory may be served, before its next boot begins.

use std::time::Duration;

use cartwheel_core::cluster::membership::Member;
use tracing::warn;

use crate::peers::{self, KnownPeers, LocalNode, Peer, Peers, Unwelcome};

/// How often to ask again whether another process that serves a copy of the directory has ended: a process that was just stopped may take a
/// moment, and messages of a killed one may still arrive.
const TRIES_MAX: u32 = 5;
const TRY_AFTER: Duration = Duration::from_secs(1);

/// The node itself as a peer.
pub(super) fn own_peer(member: &Member) -> Peer {
    Peer { node: member.id, name: member.name.clone(), addr: member.peer_addr.clone() }
}

/// Asks until no peer reports that the node runs already, or the tries are used up.
pub(super) async fn introduce(
    local: &LocalNode,
    peers_to_query: &[Peer],
    known_peers: &KnownPeers,
) -> Result<(), Unwelcome> {
    for _ in 1..TRIES_MAX {
        match peers::introduce(local, peers_to_query, known_peers).await {
            Err(Unwelcome::Runs { reported_by }) => {
                warn!(node = %local.name, reported_by, "the node runs already; waiting for it to stop");
                tokio::time::sleep(TRY_AFTER).await;
            }
            result => return result,
        }
    }
    peers::introduce(local, peers_to_query, known_peers).await
}

/// How long a node that stopped in order waits until most members know of its new boot, before it goes on with new actors instead.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);

/// Whether a majority of the members, this node included, know of the new boot, so that no copy of the directory can ever take its own boot
/// of this number for the only one.
pub(super) async fn is_confirmed(peers: &Peers) -> bool {
    let mut waiting = peers.connections().into_iter().map(|(_, connected)| connected).collect::<Vec<_>>();
    let needed = waiting.len().div_ceil(2);
    if needed == 0 {
        return false;
    }
    let begun = tokio::time::Instant::now();
    let mut confirmed = 0;
    while begun.elapsed() < CONFIRMED_WITHIN {
        waiting.retain(|connected| !*connected.borrow());
        confirmed = peers.connections().len().saturating_sub(waiting.len());
        if confirmed >= needed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    confirmed >= needed
}
