//! Serving one node: from a data directory to open doors, and back.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::context::ClusterKey;
use cartwheel_core::control::{Control, ControlConfig};
use cartwheel_core::dot::{NodeId, Since};
use cartwheel_core::membership::{Member, View};
use cartwheel_core::message::Lane;
use cartwheel_core::mutation::Broken;
use cartwheel_core::node::{Limits, Node, NodeConfig, Timing};
use cartwheel_storage::{Batch, Durability, FjallOptions, FjallStore, Store, StoreError};
use futures_util::future::select_all;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info};

use crate::clock::Clock;
use crate::config::{Config, ListenAddr};
use crate::control;
use crate::data_dir::{DataDir, DataDirError, Identity};
use crate::founding::{self, FoundError};
use crate::http::{self, Backend, Door, Readiness};
use crate::metrics::Metrics;
use crate::peers::{self, Inbound, LocalNode, Peer, Peers};
use crate::random::{self, NoRandomness};
use crate::shard::disk::Disk;
use crate::shard::reserve::{Reserve, ReserveOptions};
use crate::shard::{self, Running, ShardMetrics, Shards};
use crate::signals;

/// The name under which a store remembers whose it is.
const OWNER: &[u8] = b"owner";

/// The least that a store keeps in memory before it writes it out in order.
const MEMTABLE_BYTES_MIN: u64 = 8 << 20;

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
    let history_file = data_dir.history_file();
    let history = founding::history_of(data_dir.identity(), &history_file, &config.dir)?;
    let view = history.view().ok_or_else(|| FoundError::NoCluster(config.dir.clone()))?;
    let member = own_member(&view, data_dir.identity(), &config.dir)?.clone();

    // Before the boot is counted: an address that is taken should cost nothing.
    let http_listener = listen(HTTP, config.http_listen.as_ref(), &member.http_addr, config.insecure).await?;
    let peer_listener = listen(PEERS, config.peer_listen.as_ref(), &member.peer_addr, config.insecure).await?;
    let (http_addr, peer_addr) = (shown(&http_listener), shown(&peer_listener));
    let places = StorePlace::all(&data_dir, config);
    let stores = places.iter().map(StorePlace::open).collect::<Result<Vec<_>, _>>()?;
    let boot = data_dir.begin_boot()?;
    let identity = data_dir.identity();

    let local =
        LocalNode { cluster: identity.cluster, node: member.id, name: member.name.clone(), life: identity.life, boot };
    let control =
        Control::new(control_config(&local)?, history).ok_or_else(|| FoundError::NoCluster(config.dir.clone()))?;
    let view = control.view().clone();
    let (stop_sender, stop) = watch::channel(false);
    let (clock, counted) = (Clock::start(), ShardMetrics::default());
    let peers = Arc::new(Peers::dial(&local, other_members(&view, member.id), &stop));
    let (connections, board) = (peers.connections().collect(), peers.board());
    let mut handles = Vec::new();
    let mut running = Vec::new();
    for (index, (place, store)) in (0..).zip(places.into_iter().zip(stores)) {
        let lane = Lane { index, count: identity.shards.get() };
        let node = Node::new(node_config(identity, &local, lane, &store)?, view.clone());
        let (shard, inbox) = shard::counted_inbox(&counted);
        let reserve = ReserveOptions {
            bytes: config.disk_reserve_bytes,
            shares: identity.shards.get(),
            ..ReserveOptions::default()
        };
        let reserve = Reserve::of_dir(config.dir.clone(), reserve);
        let disk = Disk::new(Box::new(store), Box::new(move || Ok(Box::new(place.reopen()?))), reserve);
        let started = shard::start(index, node, disk, peers.clone(), inbox, clock, Handle::current());
        running.push(started.map_err(|source| ServeError::System { what: "start a shard's thread", source })?);
        handles.push(shard);
    }
    let metrics = Metrics::new(handles.clone(), &counted, board.clone());
    let shards = Shards::new(handles, view.ring.partitions());
    let (control_handle, control_inbox) = control::inbox();
    let (view_sender, view) = watch::channel(view);
    let surroundings =
        control::Surroundings { file: history_file, shards: shards.clone(), peers, clock, view: view_sender };
    tokio::spawn(control::run(control, control_inbox, surroundings, stop.clone()));
    let inbound = Inbound { shards: shards.clone(), control: control_handle.clone() };
    tokio::spawn(peers::listen(local.clone(), peer_listener, inbound, board.clone(), stop.clone()));
    let (ready_sender, readiness) = watch::channel(Readiness::Connecting);
    let ready = running.iter().map(|shard| shard.ready.clone()).collect();
    tokio::spawn(announce_ready(ready, connections, ready_sender));
    let (http_stop_sender, http_stop) = watch::channel(false);
    let http_metrics = metrics.http.clone();
    let control = control_handle;
    let door = Door::new(Backend { local, shards: shards.clone(), control, view, readiness, board, metrics });
    let http = tokio::spawn(http::serve(http::router(door), http_listener, http_metrics, http_stop));
    info!("{} serves HTTP on {http_addr} and peers on {peer_addr}, boot {boot}", member.name);

    let failed = tokio::select! {
        why = stopped => { info!("stopping: {why}"); false }
        () = shards.any_ended() => true,
    };
    // Doors first, while the peers that requests under way need can still be talked to.
    http_stop_sender.send_replace(true);
    let _ = http.await;
    end_shards(&shards, running).await;
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

/// Where the store of a shard of the node is, and whose it must be: with another one, or an empty one in place of a lost one, the node
/// would speak for records that it does not have.
struct StorePlace {
    dir: PathBuf,
    options: FjallOptions,
    owner: Bytes,
    /// The node has been started before, so there must be one.
    is_old: bool,
}

impl StorePlace {
    /// Those of all shards, which share the memory that the node may use.
    fn all(data_dir: &DataDir, config: &Config) -> Vec<Self> {
        let identity = data_dir.identity();
        let shards = identity.shards.get();
        let memtable_bytes = (FjallOptions::default().memtable_bytes / u64::from(shards)).max(MEMTABLE_BYTES_MIN);
        let options = FjallOptions { cache_bytes: config.cache_bytes / u64::from(shards), memtable_bytes };
        let place = |shard: u32| {
            let owner = [&identity.life.0.to_be_bytes()[..], &shard.to_be_bytes()].concat().into();
            Self { dir: data_dir.shard_dir(shard), options, owner, is_old: identity.boot > 0 }
        };
        (0..shards).map(place).collect()
    }

    fn open(&self) -> Result<FjallStore, ServeError> {
        let mut store = FjallStore::open(&self.dir, self.options)?;
        match store.get_meta(OWNER)? {
            None if !self.is_old => {
                let mut batch = Batch::new();
                batch.put_meta(OWNER, self.owner.clone());
                store.commit(batch, Durability::Synced)?;
                Ok(store)
            }
            found => self.owned(store, found),
        }
    }

    /// Opens the store again after it has failed in this process.
    fn reopen(&self) -> Result<FjallStore, ServeError> {
        let store = FjallStore::reopen(&self.dir, self.options)?;
        let found = store.get_meta(OWNER)?;
        self.owned(store, found)
    }

    fn owned(&self, store: FjallStore, found: Option<Bytes>) -> Result<FjallStore, ServeError> {
        match found {
            Some(found) if found == self.owner => Ok(store),
            Some(_) => Err(ServeError::StoreOfAnother(self.dir.clone())),
            None => Err(ServeError::StoreLost(self.dir.clone())),
        }
    }
}

fn control_config(local: &LocalNode) -> Result<ControlConfig, NoRandomness> {
    let LocalNode { cluster, node, life, boot, .. } = *local;
    Ok(ControlConfig { cluster, node, life, boot, seed: random::number()?, broken: Broken::default() })
}

fn node_config(
    identity: &Identity,
    local: &LocalNode,
    lane: Lane,
    store: &FjallStore,
) -> Result<NodeConfig, ServeError> {
    Ok(NodeConfig {
        cluster: identity.cluster,
        cluster_key: ClusterKey::derive(&identity.secret.0),
        node: local.node,
        life: local.life,
        boot: local.boot,
        lane,
        // Every write is synced before it is told of, so no stop loses one.
        actor_floor: Since(0),
        hlc_ceiling: shard::hlc_ceiling(store)?,
        seed: random::number()?,
        timing: Timing::default(),
        limits: Limits::default(),
        broken: Broken::default(),
    })
}

/// Calls the node ready while all its shards are, once its peers are connected or have had their time: a node whose peers are
/// down can still serve what it can.
async fn announce_ready(
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
        // The worst of them.
        let readiness = shards.iter_mut().map(|shard| *shard.borrow_and_update()).min();
        let readiness = match readiness.unwrap_or(shard::Readiness::Starting) {
            shard::Readiness::StoreFailed => Readiness::StoreFailed,
            shard::Readiness::Starting => Readiness::CannotStore,
            shard::Readiness::DiskFull => Readiness::DiskFull,
            shard::Readiness::Ready => Readiness::Ready,
        };
        ready.send_replace(readiness);
        let changes = shards.iter_mut().map(|shard| Box::pin(shard.changed()));
        if select_all(changes).await.0.is_err() {
            return;
        }
    }
}

async fn end_shards(shards: &Shards, running: Vec<Running>) {
    shards.stop().await;
    for shard in running {
        let joined = tokio::task::spawn_blocking(move || shard.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            error!("a shard of the node did not end well: see the log above");
        }
    }
}
