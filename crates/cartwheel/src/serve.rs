//! Serving one node: from a data directory to open doors, and back.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::context::ClusterKey;
use cartwheel_core::dot::{NodeId, Since};
use cartwheel_core::membership::{Member, View};
use cartwheel_core::node::{Limits, Node, NodeConfig, Timing};
use cartwheel_storage::{Batch, Durability, FjallOptions, FjallStore, Store, StoreError};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info};

use crate::clock::Clock;
use crate::config::{Config, ListenAddr};
use crate::data_dir::{DataDir, DataDirError, Identity};
use crate::founding::{self, FoundError};
use crate::http::{self, Backend, Door, Readiness};
use crate::metrics::Metrics;
use crate::peers::{self, LocalNode, Peer, Peers};
use crate::random::{self, NoRandomness};
use crate::shard::{self, Running, ShardHandle, ShardMetrics};
use crate::signals;

/// The name under which a store remembers whose it is.
const OWNER: &str = "owner";

/// How long a node that starts waits for connections to its peers before it calls itself ready without them.
const PEERS_WITHIN: Duration = Duration::from_secs(2);

/// Why a node could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its data directory is wrong.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its cluster cannot be made out.
    #[error(transparent)]
    Cluster(#[from] FoundError),
    /// The node is no member of its cluster.
    #[error("{name} in {dir} is no member of its cluster in this life: replace it, or restore the directory")]
    NoMember {
        /// The node's name.
        name: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// An address is taken or not this machine's.
    #[error(
        "cannot listen on {addr} for {what}: {source}. Stop whatever uses the port, or give an address of this machine with \
         --{flag}; for `cartwheel dev`, found a cluster on other ports"
    )]
    Listen {
        /// For whom.
        what: &'static str,
        /// The address.
        addr: String,
        /// The flag that gives another one.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Other machines could connect, and nothing would keep them out.
    #[error(
        "refused to listen on {addr} for {what}: other machines can connect there, and as this version has neither TLS nor users, \
         whoever can connect can read and change everything. Listen on this machine alone (--{flag} 127.0.0.1:PORT), or say \
         --insecure if all who can reach the address may do so"
    )]
    Exposed {
        /// For whom.
        what: &'static str,
        /// The address.
        addr: String,
        /// The flag that gives another one.
        flag: &'static str,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has gone.
    #[error(
        "the records of this node are gone from {0}, and it has been started before: put them back, or replace the node"
    )]
    StoreLost(PathBuf),
    /// The store is another node's.
    #[error("the records in {0} are not this node's: put its own back, or replace the node")]
    StoreOfAnother(PathBuf),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The shard ended without being told to.
    #[error("the node's shard has failed: see the log above, then restart the node")]
    ShardFailed,
}

/// Serves a node until the process is told to stop or, if `parent` says so, until its standard input ends.
///
/// # Errors
/// If the node cannot be started, or fails.
pub async fn serve(config: &Config, parent: signals::Parent) -> Result<(), ServeError> {
    let stopped = signals::stop(parent).map_err(|source| ServeError::System { what: "listen to signals", source })?;
    let mut data_dir = DataDir::open(&config.dir)?;
    let view = Arc::new(founding::view_of(data_dir.identity(), &config.dir)?);
    let member = own_member(&view, data_dir.identity(), &config.dir)?.clone();

    // Before the boot is counted: an address that is taken should cost nothing.
    let http_listener = listen(HTTP, config.http_listen.as_ref(), &member.http_addr, config.insecure).await?;
    let peer_listener = listen(PEERS, config.peer_listen.as_ref(), &member.peer_addr, config.insecure).await?;
    let (http_addr, peer_addr) = (shown(&http_listener), shown(&peer_listener));
    let store = open_store(&data_dir, config)?;
    let boot = data_dir.begin_boot()?;
    let identity = data_dir.identity();

    let local =
        LocalNode { cluster: identity.cluster, node: member.id, name: member.name.clone(), life: identity.life, boot };
    let node = Node::new(node_config(identity, &local, &store)?, view.clone());
    let (stop_sender, stop) = watch::channel(false);
    let counted = ShardMetrics::default();
    let (shard, inbox) = shard::counted_inbox(&counted);
    let peers = Peers::dial(&local, other_members(&view, member.id), &stop);
    let (connections, board) = (peers.connections().collect(), peers.board());
    let running = shard::start(node, Box::new(store), peers, inbox, Clock::start(), Handle::current())
        .map_err(|source| ServeError::System { what: "start the shard's thread", source })?;
    tokio::spawn(peers::listen(local.clone(), peer_listener, shard.clone(), board.clone(), stop.clone()));
    let (ready_sender, readiness) = watch::channel(Readiness::Connecting);
    tokio::spawn(announce_ready(running.ready.clone(), connections, ready_sender));
    let (http_stop_sender, http_stop) = watch::channel(false);
    let metrics = Metrics::new(vec![shard.clone()], &counted, board.clone());
    let http_metrics = metrics.http.clone();
    let door = Door::new(Backend { local, shard: shard.clone(), view, readiness, board, metrics });
    let http = tokio::spawn(http::serve(http::router(door), http_listener, http_metrics, http_stop));
    info!("{} serves HTTP on {http_addr} and peers on {peer_addr}, boot {boot}", member.name);

    let failed = tokio::select! {
        why = stopped => { info!("stopping: {why}"); false }
        () = shard.ended() => true,
    };
    // Doors first, while the peers that requests under way need can still be talked to.
    http_stop_sender.send_replace(true);
    let _ = http.await;
    end_shard(&shard, running).await;
    stop_sender.send_replace(true);
    if failed {
        return Err(ServeError::ShardFailed);
    }
    info!("stopped");
    Ok(())
}

fn own_member<'a>(view: &'a View, identity: &Identity, dir: &Path) -> Result<&'a Member, ServeError> {
    let member = view.member(NodeId::of_name(&identity.name)).map(|member| &member.member);
    member
        .filter(|member| member.life == identity.life && view.cluster == identity.cluster)
        .ok_or_else(|| ServeError::NoMember { name: identity.name.clone(), dir: dir.to_path_buf() })
}

fn other_members(view: &View, own: NodeId) -> Vec<Peer> {
    let others = view.members().map(|member| &member.member).filter(|member| member.id != own);
    others.map(|member| Peer { node: member.id, name: member.name.clone(), addr: member.peer_addr.clone() }).collect()
}

/// For whom a node listens, and the flag that says where.
type For = (&'static str, &'static str);
const HTTP: For = ("HTTP", "http-listen");
const PEERS: For = ("peers", "peer-listen");

/// Listens where it is `wanted`, or at the address that the cluster knows. Where other machines can connect, only if that was
/// allowed.
async fn listen(
    (what, flag): For,
    wanted: Option<&ListenAddr>,
    known: &str,
    insecure: bool,
) -> Result<TcpListener, ServeError> {
    let addr = wanted.map_or(known, ListenAddr::as_str);
    let failed = |source| ServeError::Listen { what, addr: addr.to_owned(), flag, source };
    // The addresses that are checked are the ones that are listened on: a name may mean something else a moment later.
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host(addr).await.map_err(failed)?.collect();
    if !insecure && addrs.iter().any(|addr| !addr.ip().to_canonical().is_loopback()) {
        return Err(ServeError::Exposed { what, addr: addr.to_owned(), flag });
    }
    TcpListener::bind(&addrs[..]).await.map_err(failed)
}

fn shown(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "an unknown address".to_owned(), |addr| addr.to_string())
}

/// Opens the store of the node's shard and makes sure that it is the one that belongs there: with another one, or an empty one
/// in place of a lost one, the node would speak for records that it does not have.
fn open_store(data_dir: &DataDir, config: &Config) -> Result<FjallStore, ServeError> {
    let (dir, identity) = (data_dir.shard_dir(0), data_dir.identity());
    let mut store = FjallStore::open(&dir, FjallOptions { cache_bytes: config.cache_bytes })?;
    let owner = Bytes::copy_from_slice(&identity.life.0.to_be_bytes());
    match store.get_meta(OWNER)? {
        Some(found) if found == owner => {}
        Some(_) => return Err(ServeError::StoreOfAnother(dir)),
        None if identity.boot > 0 => return Err(ServeError::StoreLost(dir)),
        None => {
            let mut batch = Batch::new();
            batch.put_meta(OWNER, owner);
            store.commit(batch, Durability::Synced)?;
        }
    }
    Ok(store)
}

fn node_config(identity: &Identity, local: &LocalNode, store: &FjallStore) -> Result<NodeConfig, ServeError> {
    Ok(NodeConfig {
        cluster: identity.cluster,
        cluster_key: ClusterKey::derive(&identity.secret.0),
        node: local.node,
        life: local.life,
        boot: local.boot,
        // Every write is synced before it is told of, so no stop loses one.
        actor_floor: Since(0),
        hlc_ceiling: shard::hlc_ceiling(store)?,
        seed: random::number()?,
        timing: Timing::default(),
        limits: Limits::default(),
        broken: Default::default(),
    })
}

/// Calls the node ready while its shard is, once its peers are connected or have had their time: a node whose peers are down can
/// still serve what it can.
async fn announce_ready(
    mut shard: watch::Receiver<bool>,
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
        let is_ready = *shard.borrow_and_update();
        ready.send_replace(if is_ready { Readiness::Ready } else { Readiness::CannotStore });
        if shard.changed().await.is_err() {
            return;
        }
    }
}

async fn end_shard(shard: &ShardHandle, running: Running) {
    shard.stop().await;
    let joined = tokio::task::spawn_blocking(move || running.thread.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        error!("the node's shard did not end well: see the log above");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_machines_are_listened_to_only_if_that_was_said() {
        // As the cluster's history says it, or a flag.
        let any: ListenAddr = "0.0.0.0:0".parse().unwrap();
        for (wanted, known) in
            [(None, "0.0.0.0:0"), (None, "[::]:0"), (None, "192.0.2.1:1"), (Some(&any), "127.0.0.1:0")]
        {
            let refused = listen(HTTP, wanted, known, false).await;
            assert!(matches!(refused, Err(ServeError::Exposed { .. })), "{known}: {refused:?}");
        }
        let here: ListenAddr = "localhost:0".parse().unwrap();
        for (wanted, known) in [(None, "127.0.0.1:0"), (None, "127.9.9.9:0"), (Some(&here), "192.0.2.1:1")] {
            let listener = listen(PEERS, wanted, known, false).await.unwrap();
            assert!(listener.local_addr().unwrap().ip().is_loopback());
        }
        // This is allowed, and then fails for another reason: the address is no machine's.
        let elsewhere = listen(PEERS, None, "192.0.2.1:1", true).await;
        assert!(matches!(elsewhere, Err(ServeError::Listen { .. })), "{elsewhere:?}");
    }
}
