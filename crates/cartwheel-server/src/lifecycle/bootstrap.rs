//! Bootstrap of a cluster: the identities of its nodes and, for a cluster on one machine, their data directories.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::{fs, io};

use cartwheel_core::cluster::membership::{ChangeKind, History, Member, Strategy, View};
use cartwheel_core::ring::Partitions;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::{Incarnation, NodeId};
use cartwheel_core::value::hlc::Hlc;
use cartwheel_core::wire::Protocol;

use crate::data_dir::lineage::Lineage;
use crate::data_dir::{self, ClusterSecret, DataDir, DataDirError, HistoryFile, Identity, SavedEpoch};
use crate::os::clock;
use crate::os::random::{self, NoRandomness};

/// How many nodes a new cluster on one machine has.
pub const NODES_DEFAULT: u16 = 3;

/// The ports of a cluster on one machine: node i, counted from 1, has each base plus i.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// For HTTP.
    pub http_base: u16,
    /// For RESP.
    pub resp_base: u16,
    /// For peers.
    pub peer_base: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { http_base: 8080, resp_base: 6380, peer_base: 7400 }
    }
}

impl Ports {
    /// The addresses of node `number`.
    ///
    /// # Errors
    /// If a port number is too large.
    pub fn site(self, number: u16) -> Result<Site, BootstrapError> {
        let addr = |base: u16| {
            base.checked_add(number).map(|port| format!("127.0.0.1:{port}")).ok_or(BootstrapError::Port(number))
        };
        Ok(Site {
            zone: "local".to_owned(),
            host: "localhost".to_owned(),
            peer_addr: addr(self.peer_base)?,
            http_addr: addr(self.http_base)?,
            resp_addr: addr(self.resp_base)?,
        })
    }
}

/// Where a node of a new cluster is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// Its zone: the replicas of a key are in as many zones as possible.
    pub zone: String,
    /// Its machine: within a zone, the replicas of a key are on as many machines as possible.
    pub host: String,
    /// Its address for peers, as `host:port`.
    pub peer_addr: String,
    /// Its address for HTTP clients.
    pub http_addr: String,
    /// Its address for RESP clients.
    pub resp_addr: String,
}

impl Site {
    /// The member with this name and incarnation at these addresses.
    pub fn member(&self, name: &str, incarnation: Incarnation) -> Member {
        let Self { zone, host, peer_addr, http_addr, resp_addr } = self.clone();
        Member { zone, host, peer_addr, http_addr, resp_addr, ..Member::new(name, incarnation) }
    }
}

/// Why a directory holds no cluster, and none was bootstrapped there.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The directory holds something else.
    #[error("{0} is not empty and holds no cluster; give an empty or another directory with --dir")]
    NotEmpty(PathBuf),
    /// It holds a cluster of another size.
    #[error(
        "{dir} holds a cluster of {found} nodes, not {wanted}; leave --nodes out, or give another directory with --dir"
    )]
    OtherSize {
        /// The directory.
        dir: PathBuf,
        /// The number of nodes in it.
        found: usize,
        /// The requested number of nodes.
        wanted: u16,
    },
    /// No node was requested.
    #[error("a cluster needs at least one node")]
    NoSite,
    /// A port number is too large.
    #[error("node {0} would have a port above 65535; give lower port bases or fewer nodes")]
    Port(u16),
    /// A node's directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A node's history has no bootstrap.
    #[error(
        "{0} holds a node without a cluster; restore the directory from a copy, or bootstrap a cluster in another one"
    )]
    NoCluster(PathBuf),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A node's data directory in a cluster on one machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeDir {
    /// The path of the directory.
    pub dir: PathBuf,
    /// The node.
    pub member: Member,
}

/// The view of the cluster at the node's bootstrap.
///
/// # Errors
/// If the identity has no bootstrap.
pub fn view_of(identity: &Identity, dir: &Path) -> Result<View, BootstrapError> {
    let history = History::decode(&identity.bootstrap).ok();
    history.and_then(|history| history.view()).ok_or_else(|| BootstrapError::NoCluster(dir.to_path_buf()))
}

/// All changes that a node knows: its bootstrap, and those in its history file.
///
/// # Errors
/// If the file cannot be read, or there was no bootstrap.
pub fn history_of(identity: &Identity, file: &HistoryFile, dir: &Path) -> Result<History, BootstrapError> {
    let bootstrap = History::decode(&identity.bootstrap).map_err(|_| BootstrapError::NoCluster(dir.to_path_buf()))?;
    let mut history = file.load()?.unwrap_or_default();
    history.merge(&bootstrap);
    Ok(history)
}

/// The nodes of the cluster in `dir`. If the directory is new, a cluster of `nodes` nodes (default 3) with `shards` shards each (default: a
/// fair share of the cores) is bootstrapped there.
///
/// # Errors
/// If the directory holds something else or a cluster of another size, or cannot be written.
pub fn open_or_bootstrap(
    dir: &Path,
    nodes: Option<u16>,
    shards: Option<NonZeroU32>,
    ports: Ports,
) -> Result<Vec<NodeDir>, BootstrapError> {
    if is_new(dir)? {
        let nodes = nodes.unwrap_or(NODES_DEFAULT);
        let sites = (1..=nodes).map(|number| ports.site(number)).collect::<Result<Vec<_>, _>>()?;
        make(dir, &sites, shards.unwrap_or_else(|| fair_share(nodes)))?;
    }
    let there = open(dir)?;
    match nodes {
        Some(wanted) if usize::from(wanted) != there.len() => {
            Err(BootstrapError::OtherSize { dir: dir.to_path_buf(), found: there.len(), wanted })
        }
        _ => Ok(there),
    }
}

/// Bootstraps a cluster in `dir`, with a node of `shards` shards at each of `sites`: node i, counted from 1, is called node-i and has its
/// data in DIR/node-i.
///
/// # Errors
/// If the directory is not empty, or cannot be written.
pub fn bootstrap(dir: &Path, sites: &[Site], shards: NonZeroU32) -> Result<Vec<NodeDir>, BootstrapError> {
    if !is_new(dir)? {
        return Err(BootstrapError::NotEmpty(dir.to_path_buf()));
    }
    make(dir, sites, shards)?;
    open(dir)
}

/// Bootstraps a cluster of this name, with `member` as its only node and its data in `dir`.
///
/// # Errors
/// If the directory cannot be written.
pub fn bootstrap_alone(dir: &Path, name: &str, member: &Member, shards: NonZeroU32) -> Result<(), BootstrapError> {
    NewCluster::of(name, vec![member.clone()])?.make_node_dir(dir, member, shards)
}

/// A cluster during its bootstrap: what all its nodes know.
struct NewCluster {
    cluster: ClusterId,
    secret: ClusterSecret,
    history: History,
}

impl NewCluster {
    fn of(name: &str, members: Vec<Member>) -> Result<Self, BootstrapError> {
        let Some(first) = members.first().map(|first| first.id) else { return Err(BootstrapError::NoSite) };
        let cluster = ClusterId(u128::from_be_bytes(random::bytes()?));
        let (partitions, strategy) = (Partitions::default(), Strategy::default());
        let mut history = History::new();
        let bootstrap = ChangeKind::Bootstrap { cluster, partitions, strategy, members, name: name.to_owned() };
        history.record(Hlc::at(clock::wall()), first, bootstrap);
        Ok(Self { cluster, secret: ClusterSecret(random::bytes()?), history })
    }

    /// Makes a node's data directory. The identity is written last: a directory without one holds no node.
    fn make_node_dir(&self, dir: &Path, member: &Member, shards: NonZeroU32) -> Result<(), BootstrapError> {
        let (name, incarnation, secret) = (member.name.clone(), member.incarnation, self.secret.clone());
        let (cluster, bootstrap, all_speak) = (self.cluster, self.history.encode(), Protocol::OLDEST);
        let lineage = Lineage::default();
        let identity = Identity {
            name,
            incarnation,
            boot: 0,
            lineage,
            actors: None,
            stopped: None,
            shards,
            cluster,
            secret,
            bootstrap,
            all_speak,
        };
        fs::create_dir_all(dir).map_err(DataDirError::io("create", dir))?;
        data_dir::epoch_file(dir).save(SavedEpoch::BOOTSTRAPPED)?;
        Ok(DataDir::create(dir, &identity)?)
    }
}

/// Whether `dir` is absent or empty, so that a cluster can be bootstrapped there.
///
/// # Errors
/// If it cannot be read.
pub fn is_new(dir: &Path) -> Result<bool, BootstrapError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(DataDirError::io("read", dir)(error).into()),
    }
}

fn open(dir: &Path) -> Result<Vec<NodeDir>, BootstrapError> {
    let first = dir.join(name_of(1));
    let identity = match data_dir::read_identity(&first) {
        Err(DataDirError::NoNode(_)) => return Err(BootstrapError::NotEmpty(dir.to_path_buf())),
        identity => identity?,
    };
    let view = view_of(&identity, &first)?;
    let mut nodes = Vec::new();
    for number in 1..=view.members().len() as u16 {
        let node_dir = dir.join(name_of(number));
        let identity = data_dir::read_identity(&node_dir)?;
        let member = |view: &View| view.member(NodeId::of_name(&identity.name)).map(|known| known.member.clone());
        // What changed since the bootstrap, such as addresses. The node itself reports a file that cannot be read.
        let history = history_of(&identity, &data_dir::history_file(&node_dir), &node_dir).ok();
        let latest = history.and_then(|history| history.view()).and_then(|view| member(&view));
        let member = latest.or_else(|| member(&view)).ok_or_else(|| BootstrapError::NoCluster(node_dir.clone()))?;
        nodes.push(NodeDir { dir: node_dir, member });
    }
    Ok(nodes)
}

/// Makes the data directories of a new cluster: all of them or, after a crash, none.
fn make(dir: &Path, sites: &[Site], shards: NonZeroU32) -> Result<(), BootstrapError> {
    let member = |(number, site): (u16, &Site)| Ok(site.member(&name_of(number), Incarnation(random::number()?)));
    let members = (1..).zip(sites).map(member).collect::<Result<Vec<_>, BootstrapError>>()?;
    // A cluster on one machine needs no name.
    let bootstrap = NewCluster::of("", members.clone())?;
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(DataDirError::io("create", parent))?;
    let unfinished = unfinished(dir);
    for member in &members {
        bootstrap.make_node_dir(&unfinished.join(&member.name), member, shards)?;
    }
    let sync = |dir: &Path| data_dir::sync_dir(dir).map_err(DataDirError::io("sync", dir));
    sync(&unfinished)?;
    // The rename replaces an empty directory. If another process was faster, its cluster stays.
    if let Err(error) = fs::rename(&unfinished, dir) {
        let _ = fs::remove_dir_all(&unfinished);
        return Err(DataDirError::io("create", dir)(error).into());
    }
    sync(parent)?;
    Ok(())
}

/// The number of shards for each of `nodes` nodes on this machine, about one per core in all.
fn fair_share(nodes: u16) -> NonZeroU32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroU32::new((cores / usize::from(nodes.max(1))) as u32).unwrap_or(NonZeroU32::MIN)
}

/// The path where a cluster is made before it is renamed.
fn unfinished(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or("cluster".as_ref()).to_os_string();
    name.push(format!(".bootstrap-{}", std::process::id()));
    dir.with_file_name(name)
}

/// The name of node `number`.
pub fn name_of(number: u16) -> String {
    format!("node-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_bootstrapped_once() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new/data");
        let nodes = open_or_bootstrap(&dir, None, None, Ports::default()).unwrap();
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[2].member.http_addr, "127.0.0.1:8083");
        assert_eq!(nodes[2].member.peer_addr, "127.0.0.1:7403");
        assert_eq!(open_or_bootstrap(&dir, Some(3), None, Ports { http_base: 1, ..Ports::default() }).unwrap(), nodes);
        assert_eq!(fs::read_dir(parent.path().join("new")).unwrap().count(), 1, "nothing unfinished is left");

        let identities: Vec<_> = nodes.iter().map(|node| data_dir::read_identity(&node.dir).unwrap()).collect();
        assert!(identities.iter().all(|identity| identity.secret == identities[0].secret && identity.boot == 0));
        assert!(identities[0].incarnation != identities[1].incarnation);
        let view = view_of(&identities[1], &nodes[1].dir).unwrap();
        assert_eq!((view.members().len(), view.ring.partitions().count()), (3, 256));
    }

    #[test]
    fn a_cluster_is_bootstrapped_over_zones() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let site = |number: u16| Site {
            zone: format!("zone-{}", number % 3),
            host: format!("10.0.0.{number}"),
            ..Ports::default().site(number).unwrap()
        };
        let sites: Vec<_> = (1..=5).map(site).collect();
        let nodes = bootstrap(&dir, &sites, NonZeroU32::MIN).unwrap();
        let zones: Vec<_> = nodes.iter().map(|node| (&*node.member.name, &*node.member.zone)).collect();
        assert_eq!(zones[..2], [("node-1", "zone-1"), ("node-2", "zone-2")]);
        assert_eq!(open_or_bootstrap(&dir, Some(5), None, Ports::default()).unwrap(), nodes);
        let view = view_of(&data_dir::read_identity(&nodes[4].dir).unwrap(), &dir).unwrap();
        for partition in view.ring.partitions().iter() {
            let zone = |&home: &NodeId| &*view.member(home).unwrap().member.zone;
            let zones: std::collections::BTreeSet<_> = view.ring.homes(partition, 3).iter().map(zone).collect();
            assert_eq!(zones.len(), 3, "{partition:?}");
        }
        assert!(matches!(bootstrap(&dir, &sites, NonZeroU32::MIN), Err(BootstrapError::NotEmpty(_))));
        assert!(matches!(bootstrap(&parent.path().join("none"), &[], NonZeroU32::MIN), Err(BootstrapError::NoSite)));
    }

    #[test]
    fn a_directory_that_does_not_match_is_refused_and_left_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        open_or_bootstrap(dir.path(), Some(2), None, Ports::default()).unwrap();
        let error = open_or_bootstrap(dir.path(), Some(3), None, Ports::default()).unwrap_err();
        assert!(error.to_string().contains("holds a cluster of 2 nodes, not 3"), "{error}");

        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("thesis.txt"), "mine").unwrap();
        let error = open_or_bootstrap(other.path(), None, None, Ports::default()).unwrap_err();
        assert!(matches!(error, BootstrapError::NotEmpty(_)), "{error}");

        fs::remove_dir_all(dir.path().join("node-2")).unwrap();
        let error = open_or_bootstrap(dir.path(), None, None, Ports::default()).unwrap_err();
        assert!(error.to_string().contains("node-2"), "{error}");

        let ports = Ports { http_base: u16::MAX, ..Ports::default() };
        assert!(matches!(
            open_or_bootstrap(&dir.path().join("far"), Some(1), None, ports),
            Err(BootstrapError::Port(1))
        ));
    }
}
