//! Addresses: records this node's own when they have changed, and finds peers that have moved.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cartwheel_core::cluster::membership::{ChangeKind, Member, View};
use cartwheel_core::control::MembersChange;
use cartwheel_core::wire::Protocol;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{Config, ListenAddr};
use crate::control_queue::ControlHandle;
use crate::lifecycle::upgrade::UpgradeStatus;
use crate::peers::{self, Found, LocalNode, Peers};

/// How long recording an address may take, and the time before another attempt.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);
const TRY_AFTER: Duration = Duration::from_secs(1);
/// The time between two queries of the seeds while peers are missing.
const QUERY_EVERY: Duration = Duration::from_secs(2);

/// The member with the addresses at which it is served now, as far as the configuration gives them. Advertised addresses take precedence
/// over listening addresses; wildcard addresses are ignored.
pub(super) fn served_at(member: &Member, config: &Config) -> Member {
    let own = |advertised: &Option<ListenAddr>, listen: &Option<ListenAddr>, known: &str| {
        let listened = listen.as_ref().filter(|listen| listen.is_specific());
        advertised.as_ref().or(listened).map_or(known, ListenAddr::as_str).to_owned()
    };
    Member {
        peer_addr: own(&config.new.peer_address, &config.peer_listen, &member.peer_addr),
        http_addr: own(&config.new.http_address, &config.http_listen, &member.http_addr),
        resp_addr: own(&None, &config.resp_listen, &member.resp_addr),
        ..member.clone()
    }
}

/// Records a member's addresses in the cluster, with retries until the node ends. Every node dials them from then on.
///
/// The address for Redis clients is recorded once all members know such a change.
pub(super) async fn record_own_address(
    member: Member,
    control: ControlHandle,
    mut view: watch::Receiver<Arc<View>>,
    mut upgrade: watch::Receiver<UpgradeStatus>,
) {
    info!(node = %member.name, peer_addr = %member.peer_addr, http_addr = %member.http_addr, "recording this node's new addresses");
    loop {
        // The borrow of the view ends before the wait.
        let knows_resp = upgrade.borrow_and_update().all_speak >= Protocol::KEY_INDEX;
        let resp_addr = knows_resp.then_some(member.resp_addr.as_str());
        let moved = change(&view.borrow_and_update(), &member, resp_addr);
        let Some(moved) = moved else {
            if knows_resp || upgrade.changed().await.is_err() {
                return;
            }
            continue;
        };
        if let Err(error) = record(&control, moved).await {
            warn!(node = %member.name, error, "cannot record the addresses; retrying");
            tokio::time::sleep(TRY_AFTER).await;
        }
    }
}

/// The change that records a member's addresses; none if they are known.
fn change(view: &View, member: &Member, resp_addr: Option<&str>) -> Option<ChangeKind> {
    view.moved(member.id, member.incarnation, &member.peer_addr, &member.http_addr, resp_addr)
}

async fn record(control: &ControlHandle, moved: ChangeKind) -> Result<(), String> {
    let change = MembersChange { changes: vec![moved], planned_on: None, timeout: RECORDED_WITHIN };
    match control.change_members(change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refusal)) => Err(format!("{refusal:?}")),
        Err(stopped) => Err(stopped.to_string()),
    }
}

/// Asks the seeds for their identity while peers are missing, and records the addresses of those that have moved.
pub(super) async fn find_moved_peers(
    seeds: BTreeSet<String>,
    local: LocalNode,
    peers: Arc<Peers>,
    control: ControlHandle,
    view: watch::Receiver<Arc<View>>,
) {
    loop {
        tokio::time::sleep(QUERY_EVERY).await;
        let missing: BTreeSet<_> = peers
            .connections()
            .into_iter()
            .filter(|(_, connected)| !*connected.borrow())
            .map(|(node, _)| node)
            .collect();
        if missing.is_empty() {
            continue;
        }
        for seed in &seeds {
            let Ok(Found { node, incarnation, peer_addr, http_addr }) = peers::identify(&local, seed).await else {
                continue;
            };
            let known = view.borrow().member(node).map(|known| known.member.clone());
            let Some(known) = known.filter(|known| missing.contains(&node) && known.incarnation == incarnation) else {
                continue;
            };
            // The addresses that it reports; for builds that report none, where it was found.
            let or = |found: String, otherwise: &str| if found.is_empty() { otherwise.to_owned() } else { found };
            let peer_addr = or(peer_addr, seed);
            let http_addr = or(http_addr, &known.http_addr);
            let moved = Member { peer_addr, http_addr, ..known };
            let change = change(&view.borrow(), &moved, None);
            if let Some(change) = change {
                info!(peer = %moved.name, addr = %seed, "found a peer at a new address");
                if let Err(error) = record(&control, change).await {
                    warn!(peer = %moved.name, error, "cannot record the addresses; retrying");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cartwheel_core::value::dot::Incarnation;

    use super::*;
    use crate::config::{Environment, NewNode, Settings};

    #[test]
    fn advertised_addresses_take_precedence_over_listening_addresses() {
        let member =
            Member { peer_addr: "p:1".to_owned(), http_addr: "h:1".to_owned(), ..Member::new("a", Incarnation(1)) };
        let at = |peer_listen: Option<&str>, peer_address: Option<&str>| {
            let parsed = |addr: Option<&str>| addr.map(|addr| addr.parse().unwrap());
            let new = NewNode { peer_address: parsed(peer_address), ..NewNode::default() };
            let dir = Some("/nowhere".into());
            let settings = Settings { dir, peer_listen: parsed(peer_listen), new, ..Settings::default() };
            let config = Config::resolve(settings, None, &Environment::default()).unwrap();
            let served = served_at(&member, &config);
            assert_eq!(served.http_addr, "h:1");
            served.peer_addr
        };
        assert_eq!(at(None, None), "p:1");
        assert_eq!(at(Some("127.0.0.1:2"), None), "127.0.0.1:2");
        assert_eq!(at(Some("127.0.0.1:2"), Some("name:3")), "name:3");
        assert_eq!(at(Some("0.0.0.0:2"), None), "p:1");
        assert_eq!(at(Some("[::]:2"), Some("name:3")), "name:3");
        assert_eq!(at(Some("127.0.0.1:0"), None), "p:1");
    }
}
