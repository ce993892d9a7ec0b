//! Serves one node: from its data directory to its API server and peers, and back.

mod address;
mod api_shutdown;
mod checking;
mod descriptors;
mod error;
mod first_admin;
mod leave;
mod listening;
mod opening;
mod readiness;
mod store_dir;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use cartwheel_core::cluster::configuration::Home;
use cartwheel_core::cluster::membership::{Member, View};
use cartwheel_core::cluster::shard_id::ShardId;
use cartwheel_core::config::{Limits, NodeConfig, Timing};
use cartwheel_core::control::{Control, ControlConfig, SNAPSHOT_AFTER};
use cartwheel_core::mutation::Broken;
use cartwheel_core::node::Node;
use cartwheel_core::store::record::ActorsSince;
use cartwheel_core::value::dot::{NodeId, Since};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::wire::context::ClusterKey;
use cartwheel_storage::FjallStore;
use futures_util::future::{LocalBoxFuture, OptionFuture};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::access::{Access, Audit};
use crate::backend::data_disk::DataDisk;
use crate::backend::drain::Drain;
use crate::backend::{Backend, Readiness};
use crate::config::Config;
use crate::control::{self, other_members};
use crate::control_queue;
use crate::data_dir::lineage::Mark;
use crate::data_dir::{self, DataDir, DataDirError, Identity, SavedEpoch, SeenBoots};
use crate::http::{self, ApiState, Front};
use crate::lifecycle::bootstrap::{self, BootstrapError};
use crate::lifecycle::upgrade::{Upgrade, UpgradeStatus};
use crate::lifecycle::{join, renew};
use crate::metrics::Metrics;
use crate::os::clock::{self, Clock};
use crate::os::core_dumps;
use crate::os::random::{self, NoRandomness};
use crate::peers::{self, Inbound, KnownPeers, LocalNode, Peers, Retired, Unwelcome, Waiting, Welcome};
use crate::resp::{self, RespApi};
use crate::shard::disk::Disk;
use crate::shard::reserve::{self, Reserve, ReserveOptions};
use crate::shard::unsynced::{OsBoot, loss_floor};
use crate::shard::{self, Running, ShardMetrics, Shards, Watching};
use crate::tcp::connections::ConnectionLimit;
use crate::tls::{PeerSide, TlsFiles};
use crate::trace::{TraceMetrics, TraceSettings, Tracer};
use api_shutdown::ApiShutdown;
pub use checking::check;
pub use error::ServeError;
use leave::LeaveReason;
use listening::{ADMINISTRATORS, Exposable, HTTP, PEERS, listen, listen_for_redis_clients, shown};
use store_dir::StoreDir;

/// Serves a node until `stopped` completes with the reason to stop, or until the node has left its cluster.
///
/// # Errors
/// If the node cannot be started, or fails.
///
/// It returns a future of a fixed type, so that a node is compiled with this crate and not once more with each caller.
pub fn serve<'a>(
    config: &'a Config,
    stopped: LocalBoxFuture<'a, &'static str>,
) -> LocalBoxFuture<'a, Result<(), ServeError>> {
    Box::pin(run(config, stopped))
}

async fn run(config: &Config, mut stopped: LocalBoxFuture<'_, &'static str>) -> Result<(), ServeError> {
    clock::follow_test_offset().map_err(|source| ServeError::System { what: "follow the test's clock", source })?;
    if !config.access.core_dumps {
        core_dumps::forbid();
    }
    let admin_password = config.access.admin_password.as_ref().map(first_admin::read_password).transpose()?;
    let (client_tls, peer_tls) = config.tls.clone().map(TlsFiles::open).transpose()?.unwrap_or_default();
    tokio::select! {
        prepared = join::prepare(config, &peer_tls) => prepared?,
        why = &mut stopped => {
            info!(reason = why, "stopping");
            return Ok(());
        }
    }
    let mut data_dir = DataDir::open(&config.dir)?;
    let history_file = data_dir.history_file();
    let history = bootstrap::history_of(data_dir.identity(), &history_file, &config.dir)?;
    let view = history.view().ok_or_else(|| BootstrapError::NoCluster(config.dir.clone()))?;
    let home = Home { node: NodeId::of_name(&data_dir.identity().name), incarnation: data_dir.identity().incarnation };
    if readiness::is_name_taken(&view, home) {
        let (name, dir) = (data_dir.identity().name.clone(), config.dir.clone());
        return Err(ServeError::NameTaken { name, dir });
    }
    let known = own_member(&view, data_dir.identity(), &config.dir)?.clone();
    check_zone(config, &known)?;
    let member = address::served_at(&known, config);
    let has_moved = member != known;

    let (view_sender, views) = watch::channel(Arc::new(view.clone()));
    let known_peers = known_peers(&data_dir, views.clone())?;
    let store_dirs = StoreDir::of_all(&data_dir, config);
    let stores = store_dirs.iter().map(StoreDir::open).collect::<Result<Vec<_>, _>>()?;
    let marks = stores.iter().map(|store| Mark::of_store(store)).collect::<Result<Vec<_>, _>>()?;
    let was_stopped = data_dir.was_stopped(&marks);
    let next_boot = data_dir.next_boot(random::number()?, marks)?;
    let new_actors = ActorsSince { boot: next_boot.boot, drawn: next_boot.drawn };
    let lineage = data_dir.identity().lineage.with(next_boot.clone());
    let opening = LocalNode { lineage, opens: true, ..local_node(&data_dir, &view, &member, &peer_tls) };
    let peers_to_query =
        other_members(&view, member.id).into_iter().chain([opening::own_peer(&member)]).collect::<Vec<_>>();
    match opening::introduce(&opening, &peers_to_query, &known_peers).await {
        Ok(()) => {}
        Err(Unwelcome::Retired(why)) => return leave::end(&data_dir, LeaveReason::Refused(why)),
        Err(Unwelcome::Runs { reported_by }) => {
            let (name, dir) = (member.name.clone(), config.dir.clone());
            return Err(ServeError::CopyRuns { name, dir, reported_by });
        }
    }
    let exposable = Exposable::of(config, !view.users().is_empty());
    let connections_max = descriptors::share_out();
    // Before the boot is counted: an address in use should cost nothing.
    let http_listener = listen(HTTP, config.http_listen.as_ref(), &member.http_addr, exposable).await?;
    let resp_listener = listen_for_redis_clients(config.resp_listen.as_ref(), &member.resp_addr, exposable).await?;
    let peer_listener = listen(PEERS, config.peer_listen.as_ref(), &member.peer_addr, exposable).await?;
    let admin_listener = match &config.admin_listen {
        Some(addr) => Some(listen(ADMINISTRATORS, Some(addr), addr.as_str(), exposable).await?),
        None => None,
    };
    let (http_addr, peer_addr) = (shown(&http_listener), shown(&peer_listener));
    let boot = data_dir.begin_boot(next_boot)?;
    let epoch_file = data_dir.epoch_file();
    let saved_epoch = unless_newer(epoch_file.load(), |error| {
        warn!(%error, "cannot read the saved epoch; taking no writes until a peer answers");
        SavedEpoch::default()
    })?;
    let identity = data_dir.identity();
    let local = local_node(&data_dir, &view, &member, &peer_tls);
    let control = Control::new(control_config(&local, saved_epoch, identity.shards.get())?, history)
        .ok_or_else(|| BootstrapError::NoCluster(config.dir.clone()))?;
    let view = control.view().clone();
    let (stop_sender, stop) = watch::channel(false);
    let (clock, counted) = (Clock::start(), ShardMetrics::default());
    let disk = reserve::space_of(&config.dir)
        .map_err(|source| ServeError::System { what: "read the size of the data directory's disk", source })?;
    let hint_bytes_max = config.hints_share.of(disk.total);
    counted.hints().set_bytes_max(hint_bytes_max);
    let traced = TraceMetrics::default();
    let (tracer, exporter) = Tracer::new(trace_settings(config), &traced);
    let watching = Watching { view: Some(views.clone()), tracer: tracer.clone(), slow_request: config.slow_request };
    let inboxes = store_dirs.iter().map(|_| shard::counted_inbox(&counted, &watching)).collect::<Result<Vec<_>, _>>();
    let inboxes = inboxes.map_err(|source| ServeError::System { what: "prepare the shards' threads", source })?;
    let threads = inboxes.iter().map(|(shard, _)| shard.spawner().clone()).collect();
    let peers = Arc::new(Peers::dial(&local, other_members(&view, member.id), &known_peers, &stop, threads));
    let (connections, board, dialled) = (peers.connections(), peers.board(), peers.clone());
    let shard_connections = peers.shard_connections();
    let actors = match data_dir.identity().actors.filter(|_| was_stopped) {
        Some(actors) if opening::is_confirmed(&peers).await => actors,
        _ => new_actors,
    };
    data_dir.set_actors(actors)?;
    let identity = data_dir.identity();
    let mut handles = Vec::new();
    let mut running = Vec::new();
    let with_inboxes = store_dirs.into_iter().zip(stores).zip(inboxes);
    for (index, ((store_dir, mut store), (shard, inbox))) in (0..).zip(with_inboxes) {
        let shard_id = ShardId { index, count: identity.shards.get() };
        let mut node_config = node_config(config, identity, &local, shard_id, &view, saved_epoch.epoch, &mut store)?;
        node_config.limits.hint_bytes_max = hint_bytes_max / u64::from(shard_id.count.max(1));
        // The other half is the engine's cache.
        let record_cache_bytes = config.cache_bytes / 2 / u64::from(shard_id.count.max(1));
        node_config.limits.record_cache_bytes = usize::try_from(record_cache_bytes).unwrap_or(usize::MAX);
        let node = Node::new(node_config, view.clone());
        let reserve = ReserveOptions {
            bytes: config.disk_reserve_bytes,
            shares: identity.shards.get(),
            ..ReserveOptions::default()
        };
        let reserve = Reserve::of_dir(config.dir.clone(), reserve);
        let disk =
            Disk::new(Box::new(store), Box::new(move || Ok(Box::new(store_dir.reopen()?))), reserve).marked(boot);
        let started = shard::start(index, node, disk, peers.clone().of_shard(index), inbox, clock);
        running.push(started.map_err(|source| ServeError::System { what: "start a shard's thread", source })?);
        handles.push(shard);
    }
    let metrics = Metrics::new(handles.clone(), &counted, &traced, board.clone());
    let shards = Shards::new(handles, view.ring.partitions());
    let (control_handle, control_inbox) = control_queue::inbox();
    let own = Home { node: member.id, incarnation: identity.incarnation };
    let (view, mut own_view, view_at_end) = (views.clone(), views.clone(), views);
    let drained: Vec<_> = running.iter().map(|shard| shard.reports.drained.clone()).collect();
    let (liveness_sender, liveness) = watch::channel(control.liveness().clone());
    let (epochs_sender, epochs) = watch::channel(control.epoch_status().clone());
    let (history_sender, history) = watch::channel(Arc::new(control.history().clone()));
    let (encoded_sender, encoded) = watch::channel(control.history().encode());
    let waiting = Waiting::default();
    let secret = identity.secret.clone();
    let (phases_sender, phases) = watch::channel(Arc::new(control.phases().to_vec()));
    let (compared_sender, compared) = watch::channel(BTreeSet::new());
    let (unserved_sender, unserved) = watch::channel(false);
    let surroundings = control::Dependencies {
        file: history_file,
        shards: shards.clone(),
        peers,
        clock,
        view: view_sender,
        liveness: liveness_sender,
        metrics: metrics.liveness.clone(),
        epoch_file,
        reached: saved_epoch.reached,
        reports: running.iter().map(|shard| shard.reports.clone()).collect(),
        unserved,
        phases: phases_sender,
        compared: compared_sender,
        history: history_sender,
        encoded_history: encoded_sender,
        own: member.id,
        epochs: epochs_sender,
        epoch_metrics: metrics.epochs.clone(),
    };
    let mut controlling = tokio::spawn(control::run(control, control_inbox, surroundings, stop.clone()));
    let (upgrade_sender, upgrade) = watch::channel(UpgradeStatus::default());
    let upgrading = Upgrade {
        own: member.id,
        mark: data_dir.format_mark(),
        view: view.clone(),
        known_peers: known_peers.clone(),
        shards: shards.clone(),
        status: upgrade_sender,
        metrics: metrics.upgrades.clone(),
    };
    tokio::spawn(upgrading.run(stop.clone()));
    if has_moved {
        let (control, view, upgrade) = (control_handle.clone(), view.clone(), upgrade.clone());
        tokio::spawn(address::record_own_address(member.clone(), control, view, upgrade));
    }
    let exporting = exporter.map(|exporter| {
        let (cluster, node) = (local.cluster_name.clone(), member.name.clone());
        tokio::spawn(exporter.run(cluster, node, stop.clone()))
    });
    let seeds: BTreeSet<String> = config.new.seed.iter().flatten().map(|seed| seed.as_str().to_owned()).collect();
    if !seeds.is_empty() {
        let (local, control, view) = (local.clone(), control_handle.clone(), view.clone());
        tokio::spawn(address::find_moved_peers(seeds, local, dialled, control, view));
    }
    tokio::spawn(known_peers.clone().keep_marks(stop.clone()));
    let control = control_handle.clone();
    known_peers.welcome_with(Welcome { secret, history: encoded, waiting: waiting.clone(), control });
    let inbound = Inbound { shards: shards.clone(), control: control_handle.clone() };
    let peers_max = connections_max.peers;
    let (known, stop) = (known_peers.clone(), stop);
    tokio::spawn(peers::listen(local.clone(), peer_listener, peers_max, inbound, board.clone(), known, stop));
    let (ready_sender, readiness) = watch::channel(Readiness::Connecting);
    let ready = running.iter().map(|shard| shard.ready.clone()).collect();
    let peers_known = readiness::peers_known(connections, shard_connections, compared);
    tokio::spawn(readiness::publish_readiness(ready, peers_known, view.clone(), own, ready_sender));
    let audit = Audit::open(&member.name, &config.dir, &metrics.access)
        .map_err(|source| ServeError::System { what: "open the audit log", source })?;
    let access = Access::new(view.clone(), config.access.requires_users(), audit, metrics.access.clone())?;
    let (http_stop_sender, http_stop) = watch::channel(false);
    let http_metrics = metrics.http.clone();
    let control = control_handle;
    let backend = Arc::new(Backend {
        local,
        shards: shards.clone(),
        control,
        view,
        liveness,
        epochs,
        upgrade,
        phases,
        history,
        waiting,
        durability: config.durability,
        readiness,
        board,
        access,
        metrics,
        drain: Drain::default(),
        disk: DataDisk::new(config.dir.clone(), config.disk_reserve_bytes),
        settings: config.in_force(),
        tracer,
        connections_max: connections_max.clients,
    });
    if let Some(password) = admin_password {
        tokio::spawn(first_admin::make(backend.clone(), password, config.access.resets_admin));
    }
    let front = Front::new(ApiState::new(backend.clone()), Handle::current());
    if let Some(listener) = admin_listener {
        info!(addr = shown(&listener), "serving administrators");
        let (front, tls, metrics, stop) = (front.clone(), client_tls.clone(), http_metrics.clone(), http_stop.clone());
        tokio::spawn(http::serve_administrators(front, listener, tls, metrics, stop));
    }
    let threads = shards.threads();
    // An idle connection of either API makes room for one of the other.
    let clients = ConnectionLimit::new(connections_max.clients);
    let resp_addr = resp_listener.as_ref().map_or_else(|| "none".to_owned(), shown);
    let resp_api = RespApi::new(backend, clients.connections_max());
    let resp = resp_listener.map(|listener| {
        let (tls, threads, stop) = (client_tls.clone(), threads.clone(), http_stop.clone());
        resp::serve(resp_api, listener, clients.clone(), tls, threads, stop)
    });
    let http = http::serve(front, http_listener, clients, (client_tls, threads), http_metrics, http_stop);
    let serving = tokio::spawn(async {
        let _ = tokio::join!(http, OptionFuture::from(resp));
    });
    let api_shutdown = ApiShutdown::new(serving, http_stop_sender, drained.clone(), unserved_sender);
    info!(node = %member.name, http_addr, resp_addr, peer_addr, boot, "serving");

    let ended = tokio::select! {
        why = stopped => { info!(reason = why, "stopping"); Ok(()) }
        () = shards.any_ended() => Err(ServeError::PartFailed),
        _ = &mut controlling => Err(ServeError::PartFailed),
        why = known_peers.retired() => {
            let reason = LeaveReason::of(why, &view_at_end.borrow(), own, &drained);
            leave::end(&data_dir, reason)
        }
        Ok(view) = own_view.wait_for(|view| view.is_gone(own.node, own.incarnation)) => {
            leave::end(&data_dir, LeaveReason::of(Retired::Replaced, &view, own, &drained))
        }
    };
    // Clients first, while the peers that requests under way need can still be reached.
    api_shutdown.close().await;
    let marks = end_shards(&shards, running).await;
    stop_sender.send_replace(true);
    known_peers.save_marks().await;
    if ended.is_ok()
        && let Some(marks) = marks
        && let Err(error) = data_dir.stopped(marks)
    {
        warn!(%error, "cannot record the orderly stop; the node begins new actors at its next start");
    }
    // Last, because a collector may be slow.
    if let Some(exporting) = exporting {
        let _ = exporting.await;
    }
    if ended.is_ok() {
        info!("stopped");
    }
    ended
}

fn trace_settings(config: &Config) -> Option<TraceSettings> {
    config.otlp_endpoint.clone().map(|endpoint| TraceSettings { endpoint, sample: config.trace_sample })
}

/// The value read or, where it is lost, a substitute. The format of a newer build is an error.
fn unless_newer<T>(loaded: Result<T, DataDirError>, lost: impl FnOnce(DataDirError) -> T) -> Result<T, DataDirError> {
    match loaded {
        Err(error @ DataDirError::Format { .. }) => Err(error),
        loaded => Ok(loaded.unwrap_or_else(lost)),
    }
}

fn local_node(data_dir: &DataDir, view: &View, member: &Member, tls: &PeerSide) -> LocalNode {
    let Identity { cluster, incarnation, boot, ref lineage, .. } = *data_dir.identity();
    let Member { id: node, name, peer_addr, http_addr, .. } = member.clone();
    let (cluster_name, lineage, tls) = (view.cluster_name.clone(), lineage.clone(), tls.clone());
    let opens = false;
    LocalNode { cluster, cluster_name, node, name, incarnation, boot, lineage, opens, peer_addr, http_addr, tls }
}

fn known_peers(data_dir: &DataDir, view: watch::Receiver<Arc<View>>) -> Result<KnownPeers, DataDirError> {
    let file = data_dir.seen_file();
    let seen = unless_newer(file.load(), |error| {
        warn!(%error, "cannot read the saved boots of peers; an old copy of a peer may pass unnoticed");
        SeenBoots::new()
    })?;
    let known_peers = KnownPeers::new(view, file, seen);
    known_peers.speak_from(data_dir.identity().all_speak);
    Ok(known_peers)
}

/// The cluster as the node's directory has it.
fn view_in(dir: &Path, identity: &Identity) -> Result<View, ServeError> {
    let history = bootstrap::history_of(identity, &data_dir::history_file(dir), dir)?;
    Ok(history.view().ok_or_else(|| BootstrapError::NoCluster(dir.to_path_buf()))?)
}

fn check_zone(config: &Config, known: &Member) -> Result<(), ServeError> {
    match config.new.zone.clone() {
        Some(given) if given != known.zone => {
            Err(ServeError::OtherZone { name: known.name.clone(), zone: known.zone.clone(), given })
        }
        _ => Ok(()),
    }
}

fn own_member<'a>(view: &'a View, identity: &Identity, dir: &Path) -> Result<&'a Member, ServeError> {
    let member = view.member(NodeId::of_name(&identity.name)).map(|member| &member.member);
    member
        .filter(|member| member.incarnation == identity.incarnation && view.cluster == identity.cluster)
        .ok_or_else(|| ServeError::NoMember { name: identity.name.clone(), dir: dir.to_path_buf() })
}

fn control_config(local: &LocalNode, saved: SavedEpoch, shards: u32) -> Result<ControlConfig, NoRandomness> {
    let LocalNode { cluster, node, incarnation, boot, .. } = *local;
    let (SavedEpoch { epoch, reached: epoch_floor }, seed) = (saved, random::number()?);
    Ok(ControlConfig {
        cluster,
        node,
        incarnation,
        boot,
        seed,
        epoch,
        epoch_floor,
        shards,
        snapshot_after: SNAPSHOT_AFTER,
        broken: Broken::default(),
    })
}

fn node_config(
    config: &Config,
    identity: &Identity,
    local: &LocalNode,
    shard_id: ShardId,
    view: &View,
    epoch: Epoch,
    store: &mut FjallStore,
) -> Result<NodeConfig, ServeError> {
    let loss_floor = loss_floor(store, local.boot, &OsBoot::current())?.max(renew::loss_floor(identity, &config.dir)?);
    if loss_floor == Since::boot(local.boot) && local.boot > 1 {
        warn!(
            shard = shard_id.index,
            "the machine stopped with unsynced acknowledged writes; records count again one by one as other homes confirm them"
        );
    }
    Ok(NodeConfig {
        cluster: identity.cluster,
        cluster_key: ClusterKey::derive(&identity.secret.0),
        node: local.node,
        incarnation: local.incarnation,
        boot: local.boot,
        actors: identity.actors.unwrap_or(ActorsSince { boot: local.boot, drawn: 0 }),
        shard_id,
        partition_states: shard::partition_states(store, view.ring.partitions(), shard_id)?,
        losses: shard::losses(store)?,
        loss_floor,
        durability: config.durability.into(),
        seed: random::number()?,
        timing: Timing {
            exchange_every: Some(config.exchange_every),
            background_p99_target: config.background_p99_target,
            ..Timing::default()
        },
        limits: Limits::default(),
        epoch,
        all_speak: identity.all_speak,
        broken: Broken::default(),
    })
}

/// Stops the shards, and returns the marks of their stores if all stopped in order.
async fn end_shards(shards: &Shards, running: Vec<Running>) -> Option<Vec<Mark>> {
    shards.stop().await;
    let mut marks = Some(Vec::new());
    for shard in running {
        let joined = tokio::task::spawn_blocking(move || shard.thread.join()).await;
        match joined {
            Ok(Ok(mark)) => marks = marks.zip(mark).map(|(marks, mark)| [marks, vec![mark]].concat()),
            _ => {
                error!("a shard did not stop in order; see the log above");
                marks = None;
            }
        }
    }
    marks
}
