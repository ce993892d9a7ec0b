//! Follows the upgrade of a cluster, and switches to a newer version of the protocol when all members speak it.
//!
//! A node that speaks a new version does not use its features at once: a member with an older build could not read them, and the node could
//! not go back to its own older build. It uses them once all members have said that they speak the version. It first saves this in the data
//! directory, which older builds then refuse to open, and from then on does not talk to nodes that do not speak the version.

mod metrics;

use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::cluster::membership::View;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::wire::{Protocol, Spoken};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::data_dir::FormatMark;
use crate::peers::{KnownPeers, PeersSpeak};
use crate::shard::Shards;
pub use metrics::UpgradeMetrics;

/// The time before another attempt to save the version.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How far an upgrade has come, as a node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpgradeStatus {
    /// The version in use: all members are known to speak it.
    pub all_speak: Protocol,
    /// The members that are not known to speak the newest version that this node speaks.
    pub waits_for: Vec<NodeId>,
}

impl Default for UpgradeStatus {
    fn default() -> Self {
        Self { all_speak: Protocol::OLDEST, waits_for: Vec::new() }
    }
}

/// What it takes to follow an upgrade.
#[derive(Debug)]
pub struct Upgrade {
    /// This node.
    pub own: NodeId,
    /// Saves the version in the data directory.
    pub mark: FormatMark,
    /// The members.
    pub view: watch::Receiver<Arc<View>>,
    /// What the members speak, and what this node accepts.
    pub known_peers: KnownPeers,
    /// The shards, which use the features.
    pub shards: Shards,
    /// Publishes the status.
    pub status: watch::Sender<UpgradeStatus>,
    /// Shows it in the metrics.
    pub metrics: UpgradeMetrics,
}

impl Upgrade {
    /// Follows the upgrade until `stop` is true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn follow(mut self) {
        let mut speak = self.known_peers.peers_speak();
        let mut all_speak = self.mark.all_speak();
        self.shards.set_all_speak(all_speak).await;
        loop {
            let (lowest, waits_for) = {
                let (view, speak) = (self.view.borrow_and_update(), speak.borrow_and_update());
                (lowest_of(&view, self.own, &speak), not_newest(&view, self.own, &speak))
            };
            if let Some(lowest) = lowest.filter(|&lowest| lowest > all_speak) {
                if !self.note(lowest).await {
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
                all_speak = lowest;
                self.known_peers.speak_from(all_speak);
                self.shards.set_all_speak(all_speak).await;
                info!(protocol = %all_speak, "all members speak this protocol version; using its features from now on");
            }
            let status = UpgradeStatus { all_speak, waits_for };
            self.metrics.changed(&status);
            self.status.send_replace(status);
            let changed = tokio::select! {
                changed = self.view.changed() => changed,
                changed = speak.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn note(&mut self, protocol: Protocol) -> bool {
        let mut mark = self.mark.clone();
        let noted = tokio::task::spawn_blocking(move || mark.raise(protocol).map(|()| mark)).await;
        match noted {
            Ok(Ok(mark)) => self.mark = mark,
            Ok(Err(error)) => {
                warn!(%protocol, %error, "cannot save the protocol version that all members speak; retrying");
                return false;
            }
            Err(_) => return false,
        }
        true
    }
}

/// The highest version that all members speak; none while one has not reported its versions.
fn lowest_of(view: &View, own: NodeId, speak: &PeersSpeak) -> Option<Protocol> {
    let others = view.members().map(|member| member.member.id).filter(|&member| member != own);
    let newest = others.map(|member| speak.get(&member).map(|spoken| spoken.newest));
    newest.chain([Some(Spoken::BY_THIS_BUILD.newest)]).min().flatten()
}

fn not_newest(view: &View, own: NodeId, speak: &PeersSpeak) -> Vec<NodeId> {
    let others = view.members().map(|member| member.member.id).filter(|&member| member != own);
    others.filter(|member| speak.get(member).is_none_or(|spoken| spoken.newest < Protocol::NEWEST)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::bootstrap::{self, Ports};

    #[test]
    fn a_version_is_used_once_every_member_has_said_that_it_speaks_it() {
        let dir = tempfile::tempdir().unwrap();
        let nodes = bootstrap::open_or_bootstrap(&dir.path().join("d"), None, None, Ports::default()).unwrap();
        let identity = crate::data_dir::read_identity(&nodes[0].dir).unwrap();
        let view = bootstrap::view_of(&identity, dir.path()).unwrap();
        let [own, second, third] = [1, 2, 3].map(|number| NodeId::of_name(&format!("node-{number}")));
        let newest = Protocol::NEWEST;
        let up_to = |newest| Spoken { oldest: Protocol(1), newest };
        let mut speak = PeersSpeak::from([(second, up_to(newest))]);
        assert_eq!(lowest_of(&view, own, &speak), None, "the third member has not reported");
        assert_eq!(not_newest(&view, own, &speak), [third]);

        let older = Protocol(newest.0 - 1);
        speak.insert(third, up_to(older));
        assert_eq!(lowest_of(&view, own, &speak), Some(older));
        assert_eq!(not_newest(&view, own, &speak), [third]);
        // A node that is not a member does not count.
        speak.insert(NodeId::of_name("node-4"), up_to(Protocol(2)));
        speak.insert(third, up_to(Protocol(newest.0 + 3)));
        assert_eq!(lowest_of(&view, own, &speak), Some(newest), "never more than this node speaks");
        assert_eq!(not_newest(&view, own, &speak), []);
    }
}
