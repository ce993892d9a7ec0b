//! How a node gets its data directory: it bootstraps a cluster, or joins one.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use cartwheel_core::cluster::configuration::Home;
use cartwheel_core::cluster::membership::{ChangeKind, History, Member, View};
use cartwheel_core::value::dot::Incarnation;
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::wire::Protocol;
use tracing::{info, warn};

use crate::config::{Config, ListenAddr, NewNode};
use crate::data_dir::lineage::Lineage;
use crate::data_dir::{self, DataDir, DataDirError, Identity, SavedEpoch};
use crate::lifecycle::bootstrap::{self, BootstrapError, Site};
use crate::os::random::{self, NoRandomness};
use crate::peers::{Invitation, JoinError, called, request_to_join};
use crate::tls::PeerSide;

/// The file that keeps the incarnation of a node that waits to join.
const WAITING_FILE: &str = "waiting";
/// The time between two attempts of a waiting node.
const JOIN_RETRY_EVERY: Duration = Duration::from_secs(1);
/// How many attempts pass between two log lines.
const LOG_EVERY: u32 = 30;

const HTTP_DEFAULT: &str = "127.0.0.1:8080";
const RESP_DEFAULT: &str = "127.0.0.1:6380";
const PEERS_DEFAULT: &str = "127.0.0.1:7400";

/// Why a node got no data directory.
#[derive(Debug, thiserror::Error)]
pub enum NewNodeError {
    /// It has no name.
    #[error("a new node needs a name; give it with --name, CARTWHEEL_NAME, or name in the configuration file")]
    NoName,
    /// It joins, but has no seed.
    #[error("a node that joins needs a node of the cluster; give one with --seed HOST:PORT")]
    NoSeed,
    /// It has both bootstrap and join.
    #[error("a node bootstraps a cluster or joins one; give --bootstrap or --join, not both")]
    BothWays,
    /// The name is invalid.
    #[error("{name:?} is not a valid name for {of}; use 1 to 63 letters, digits, dots, dashes and underscores")]
    BadName {
        /// What the name is for.
        of: &'static str,
        /// The name.
        name: String,
    },
    /// The directory is another node's.
    #[error("{dir} holds the node {name}, not {given}; give the directory of {given}, or leave --name out")]
    OtherName {
        /// The directory.
        dir: PathBuf,
        /// The node's name.
        name: String,
        /// The name that was given.
        given: String,
    },
    /// The directory has another number of shards.
    #[error(
        "{dir} has {shards} shards, not {given}: the number is fixed when a directory is made; leave --shards out, or give the node an empty \
        directory (cartwheel renew)"
    )]
    OtherShards {
        /// The directory.
        dir: PathBuf,
        /// Its shards.
        shards: NonZeroU32,
        /// The number that was given.
        given: NonZeroU32,
    },
    /// The new cluster has no name.
    #[error(
        "a new cluster needs a name; give it with --cluster-name, CARTWHEEL_CLUSTER_NAME, or cluster_name in the configuration file; to \
        join a cluster instead, give its nodes with --seed"
    )]
    NoClusterName,
    /// The directory's node, or the seeds, belong to another cluster.
    #[error(
        "{whose} belongs to {}, not to {given}; correct --cluster-name, or give another directory or other seeds",
        called(name)
    )]
    OtherCluster {
        /// What belongs to it.
        whose: String,
        /// The cluster's name; empty if it has none.
        name: String,
        /// The name that was given.
        given: String,
    },
    /// Other nodes could not connect to its address.
    #[error(
        "other nodes cannot connect to {addr} of {listen}, a wildcard address or port 0; give the address where they reach this node with \
        {address} HOST:PORT"
    )]
    NoAddress {
        /// The address.
        addr: String,
        /// The flag that gave it.
        listen: &'static str,
        /// The flag to give.
        address: &'static str,
    },
    /// The zone's name is empty.
    #[error("the zone is empty; leave --zone out, or give it a name")]
    EmptyZone,
    /// The directory holds something else.
    #[error("{0} is not empty and holds no node; give an empty or another directory")]
    NotVacant(PathBuf),
    /// Another node of the cluster has the name.
    #[error(
        "a node called {0} is a member of the cluster already; give another name, or replace it with cartwheel cluster replace"
    )]
    NameTaken(String),
    /// It was removed while it waited.
    #[error("{0} was removed from the cluster; start it with an empty directory")]
    Removed(String),
    /// The seeds' history has no bootstrap.
    #[error("the seeds belong to no cluster that this build understands; upgrade this node, or give other seeds")]
    NoCluster,
    /// The seeds contradict each other, or refuse for good.
    #[error(transparent)]
    Seeds(JoinError),
    /// A directory cannot be written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The cluster cannot be bootstrapped.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// How a node gets its data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// It has one.
    Serve,
    /// It has none, and no setting says how to get one.
    Nothing,
    /// It bootstraps a cluster.
    Bootstrap(Newcomer),
    /// It joins a cluster.
    Join(Newcomer),
}

/// A node that has no data directory yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Newcomer {
    /// Its name.
    pub name: String,
    /// Its cluster's name; empty if none was given.
    pub cluster_name: String,
    /// Where it is.
    pub site: Site,
    /// Its number of shards.
    pub shards: NonZeroU32,
    seeds: BTreeSet<String>,
    /// Bootstrap was requested, but there are seeds, which take precedence.
    bootstraps: bool,
    /// It joins without an administrator.
    joins: bool,
}

impl Newcomer {
    /// The seeds as text.
    pub fn seeds(&self) -> String {
        self.seeds.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// How a node gets its data directory, by its directory and settings.
///
/// # Errors
/// If they contradict each other, or the directory cannot be read.
pub fn plan(config: &Config) -> Result<Plan, NewNodeError> {
    let new = &config.new;
    let (bootstraps, joins) = (new.bootstrap.unwrap_or(false), new.join.unwrap_or(false));
    let seeds: BTreeSet<String> = new.seed.iter().flatten().map(|seed| seed.as_str().to_owned()).collect();
    if config.dir.join(data_dir::IDENTITY_FILE).exists() {
        check_settings(&config.dir, new)?;
        return Ok(Plan::Serve);
    }
    if seeds.is_empty() && !bootstraps && !joins {
        return Ok(Plan::Nothing);
    }
    if bootstraps && joins {
        return Err(NewNodeError::BothWays);
    }
    if seeds.is_empty() && joins {
        return Err(NewNodeError::NoSeed);
    }
    let name = new.name.clone().ok_or(NewNodeError::NoName)?;
    let cluster_name = new.cluster_name.clone().unwrap_or_default();
    if new.zone.as_ref().is_some_and(String::is_empty) {
        return Err(NewNodeError::EmptyZone);
    }
    if !is_name(&name) {
        return Err(NewNodeError::BadName { of: "a node", name });
    }
    if new.cluster_name.is_some() && !is_name(&cluster_name) {
        return Err(NewNodeError::BadName { of: "a cluster", name: cluster_name });
    }
    let site = site_of(config)?;
    let shards = new.shards.unwrap_or_else(one_per_core);
    if !is_vacant(&config.dir)? {
        return Err(NewNodeError::NotVacant(config.dir.clone()));
    }
    let is_bootstrap = bootstraps && seeds.is_empty();
    if is_bootstrap && cluster_name.is_empty() {
        return Err(NewNodeError::NoClusterName);
    }
    let newcomer = Newcomer { name, cluster_name, site, shards, seeds, bootstraps, joins };
    Ok(if is_bootstrap { Plan::Bootstrap(newcomer) } else { Plan::Join(newcomer) })
}

/// Makes a data directory for a node that has none, by bootstrap or join, if the settings say so.
///
/// # Errors
/// If it is refused, or the directory cannot be written.
pub async fn prepare(config: &Config, tls: &PeerSide) -> Result<(), NewNodeError> {
    let dir = &config.dir;
    match plan(config)? {
        Plan::Serve | Plan::Nothing => {}
        Plan::Bootstrap(Newcomer { name, cluster_name, site, shards, .. }) => {
            let member = site.member(&name, Incarnation(random::number()?));
            bootstrap::bootstrap_alone(dir, &cluster_name, &member, shards)?;
            info!(cluster = cluster_name, node = name, dir = %dir.display(), "bootstrapped a cluster with this node alone");
        }
        Plan::Join(newcomer) => {
            let Newcomer { name, cluster_name, site, shards, seeds, bootstraps, joins } = &newcomer;
            if *bootstraps {
                // A node that lost its disk and starts with its first flags must not bootstrap a second cluster because the others are down.
                let seeds = newcomer.seeds();
                warn!(
                    node = name,
                    seeds,
                    "waiting for the seeds instead of bootstrapping a cluster; to bootstrap one, leave --seed out"
                );
            }
            let member = site.member(name, waiting_incarnation(dir)?);
            let invitation = wait(seeds, &member, *joins, cluster_name, tls).await?;
            make_data_dir(dir, &member, *shards, &invitation)?;
            info!(node = name, dir = %dir.display(), "joined the cluster");
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=63).contains(&name.len()) && name.chars().all(is_fit)
}

fn site_of(config: &Config) -> Result<Site, NewNodeError> {
    let new = &config.new;
    let addr =
        |given: &Option<ListenAddr>, listen: &Option<ListenAddr>, default: &str, flags: (&'static str, _)| match given
            .as_ref()
            .or(listen.as_ref())
        {
            Some(addr) if !addr.is_specific() => {
                Err(NewNodeError::NoAddress { addr: addr.to_string(), listen: flags.0, address: flags.1 })
            }
            addr => Ok(addr.map_or(default, ListenAddr::as_str).to_owned()),
        };
    let peers = ("--peer-listen", "--peer-address");
    let http = ("--http-listen", "--http-address");
    Ok(Site {
        zone: new.zone.clone().unwrap_or_default(),
        host: new.host.clone().unwrap_or_default(),
        peer_addr: addr(&new.peer_address, &config.peer_listen, PEERS_DEFAULT, peers)?,
        http_addr: addr(&new.http_address, &config.http_listen, HTTP_DEFAULT, http)?,
        resp_addr: config
            .resp_listen
            .as_ref()
            .filter(|addr| addr.is_specific())
            .map_or(RESP_DEFAULT, ListenAddr::as_str)
            .to_owned(),
    })
}

/// Checks that a directory belongs to the node that the settings describe.
fn check_settings(dir: &Path, new: &NewNode) -> Result<(), NewNodeError> {
    let identity = data_dir::read_identity(dir)?;
    if let Some(given) = new.name.clone().filter(|given| *given != identity.name) {
        return Err(NewNodeError::OtherName { dir: dir.to_path_buf(), name: identity.name, given });
    }
    let view = bootstrap::view_of(&identity, dir)?;
    if let Some(given) = new.cluster_name.clone().filter(|given| *given != view.cluster_name) {
        return Err(NewNodeError::OtherCluster { whose: dir.display().to_string(), name: view.cluster_name, given });
    }
    match new.shards {
        Some(given) if given != identity.shards => {
            Err(NewNodeError::OtherShards { dir: dir.to_path_buf(), shards: identity.shards, given })
        }
        _ => Ok(()),
    }
}

fn one_per_core() -> NonZeroU32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroU32::new(cores as u32).unwrap_or(NonZeroU32::MIN)
}

/// Whether `dir` holds nothing but the file of a waiting node.
fn is_vacant(dir: &Path) -> Result<bool, DataDirError> {
    if dir.join(WAITING_FILE).exists() {
        return Ok(true);
    }
    data_dir::is_vacant(dir)
}

/// The incarnation of a waiting node. It stays the same when the node is restarted.
fn waiting_incarnation(dir: &Path) -> Result<Incarnation, NewNodeError> {
    let path = dir.join(WAITING_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let incarnation = u64::from_str_radix(text.trim(), 16).map(Incarnation);
            incarnation.map_err(|_| DataDirError::Damaged { path, why: "it holds no incarnation".to_owned() }.into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let incarnation = Incarnation(random::number()?);
            fs::create_dir_all(dir).map_err(DataDirError::io("create", dir))?;
            fs::write(&path, format!("{:016x}\n", incarnation.0)).map_err(DataDirError::io("write", &path))?;
            Ok(incarnation)
        }
        Err(error) => Err(DataDirError::io("read", &path)(error).into()),
    }
}

/// Asks to join until the node is a member.
async fn wait(
    seeds: &BTreeSet<String>,
    member: &Member,
    joins_at_once: bool,
    cluster_name: &str,
    tls: &PeerSide,
) -> Result<Invitation, NewNodeError> {
    let mut known = BTreeSet::new();
    for round in 0_u32.. {
        let addrs: BTreeSet<String> = seeds.union(&known).cloned().collect();
        match request_to_join(&addrs, member, joins_at_once, cluster_name, tls).await {
            Ok(invitation) => {
                let view = invitation.history.view().ok_or(NewNodeError::NoCluster)?;
                if is_in(&view, member)? {
                    return Ok(invitation);
                }
                known = view.members().map(|known| known.member.peer_addr.clone()).collect();
                if round.is_multiple_of(LOG_EVERY) {
                    let name = &member.name;
                    info!(node = name, "waiting to join; add this node with cartwheel cluster add NAME");
                }
            }
            // A node that took over the address of a departed member is no seed.
            Err(errors) if !known.is_empty() && errors.iter().any(JoinError::is_final) => known.clear(),
            Err(mut errors) if errors.iter().any(JoinError::is_final) => {
                errors.retain(JoinError::is_final);
                return Err(NewNodeError::Seeds(errors.remove(0)));
            }
            Err(errors) if round.is_multiple_of(LOG_EVERY) => {
                let errors: Vec<String> = errors.iter().map(JoinError::to_string).collect();
                warn!(errors = errors.join("; "), "no seed answers");
            }
            Err(_) => {}
        }
        tokio::time::sleep(JOIN_RETRY_EVERY).await;
    }
    Err(NewNodeError::NoCluster)
}

fn is_in(view: &View, member: &Member) -> Result<bool, NewNodeError> {
    if view.is_removed(Home { node: member.id, incarnation: member.incarnation }) {
        return Err(NewNodeError::Removed(member.name.clone()));
    }
    let same = view.members().find(|known| known.member.id == member.id || known.member.name == member.name);
    match same {
        Some(known) if known.member.incarnation == member.incarnation => Ok(true),
        // A leaving member makes room for the name; one that is gone for good is replaced.
        Some(known) if !known.leaving => Err(NewNodeError::NameTaken(member.name.clone())),
        _ => Ok(false),
    }
}

/// Makes the directory of a node that joined.
fn make_data_dir(dir: &Path, member: &Member, shards: NonZeroU32, invitation: &Invitation) -> Result<(), NewNodeError> {
    let Invitation { secret, history } = invitation;
    let cluster = history.cluster().ok_or(NewNodeError::NoCluster)?;
    let mut bootstrap = History::new();
    let first = history.changes().find(|change| matches!(change.what, ChangeKind::Bootstrap { .. }));
    bootstrap.insert(first.ok_or(NewNodeError::NoCluster)?.clone());
    // The history first: a directory without an identity holds no node.
    data_dir::history_file(dir).save(&history.encode())?;
    data_dir::epoch_file(dir).save(SavedEpoch { epoch: Epoch::UNKNOWN, reached: Epoch::UNKNOWN })?;
    let identity = Identity {
        name: member.name.clone(),
        incarnation: member.incarnation,
        boot: 0,
        lineage: Lineage::default(),
        actors: None,
        stopped: None,
        shards,
        cluster,
        secret: secret.clone(),
        bootstrap: bootstrap.encode(),
        all_speak: Protocol::OLDEST,
    };
    DataDir::create(dir, &identity)?;
    let waiting = dir.join(WAITING_FILE);
    fs::remove_file(&waiting).map_err(DataDirError::io("remove", &waiting))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use cartwheel_core::value::dot::NodeId;
    use cartwheel_core::value::hlc::Hlc;

    use super::*;
    use crate::config::{Environment, Settings};
    use crate::data_dir::ClusterSecret;

    fn config(dir: &Path, new: NewNode) -> Config {
        let settings = Settings { dir: Some(dir.to_path_buf()), new, ..Settings::default() };
        Config::resolve(settings, None, &Environment::default()).unwrap()
    }

    fn named(name: &str) -> NewNode {
        NewNode {
            name: Some(name.to_owned()),
            bootstrap: Some(true),
            cluster_name: Some("shop".to_owned()),
            shards: NonZeroU32::new(2),
            ..NewNode::default()
        }
    }

    fn site() -> Site {
        Site {
            zone: "z".to_owned(),
            host: "h".to_owned(),
            peer_addr: "127.0.0.1:1".to_owned(),
            http_addr: "127.0.0.1:2".to_owned(),
            resp_addr: "127.0.0.1:3".to_owned(),
        }
    }

    async fn refused(dir: &Path, new: NewNode) -> NewNodeError {
        prepare(&config(dir, new), &PeerSide::default()).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_node_bootstraps_a_cluster_of_its_own_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        let new =
            NewNode { zone: Some("east".to_owned()), peer_address: Some("a.example:1".parse().unwrap()), ..named("a") };
        let config = Config { http_listen: Some("127.0.0.1:9".parse().unwrap()), ..config(&dir, new) };
        prepare(&config, &PeerSide::default()).await.unwrap();
        let identity = data_dir::read_identity(&dir).unwrap();
        assert_eq!((identity.name.as_str(), identity.shards.get(), identity.boot), ("a", 2, 0));
        let view = bootstrap::view_of(&identity, &dir).unwrap();
        let member = &view.member(NodeId::of_name("a")).unwrap().member;
        let found = (member.zone.as_str(), member.host.as_str(), member.peer_addr.as_str(), member.http_addr.as_str());
        assert_eq!(found, ("east", "", "a.example:1", "127.0.0.1:9"));
        // Once the directory exists, none of this happens again. Settings of another node are refused.
        prepare(&Config { new: NewNode { join: Some(true), ..named("a") }, ..config.clone() }, &PeerSide::default())
            .await
            .unwrap();
        let other = prepare(&Config { new: named("b"), ..config.clone() }, &PeerSide::default()).await.unwrap_err();
        assert!(matches!(other, NewNodeError::OtherName { .. }), "{other}");
        assert_eq!(view.cluster_name, "shop");
        let stray = NewNode { cluster_name: Some("depot".to_owned()), ..named("a") };
        let stray =
            prepare(&Config { new: stray, ..config.clone() }, &PeerSide::default()).await.unwrap_err().to_string();
        assert!(stray.contains("belongs to the cluster shop, not to depot"), "{stray}");
        let more = NewNode { shards: NonZeroU32::new(3), ..named("a") };
        let more = prepare(&Config { new: more, ..config }, &PeerSide::default()).await.unwrap_err();
        assert!(matches!(more, NewNodeError::OtherShards { .. }), "{more}");
        assert_eq!(data_dir::read_identity(&dir).unwrap().incarnation, identity.incarnation);
    }

    #[tokio::test]
    async fn contradictory_settings_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        let nameless = NewNode { name: None, ..named("a") };
        assert!(matches!(refused(&dir, nameless).await, NewNodeError::NoName));
        for name in ["", "a b", "a:1", "a/b", "\u{e4}", &"a".repeat(64)] {
            assert!(matches!(refused(&dir, named(name)).await, NewNodeError::BadName { .. }), "{name}");
        }
        let both = NewNode { join: Some(true), ..named("a") };
        assert!(matches!(refused(&dir, both).await, NewNodeError::BothWays));
        let no_seed = NewNode { join: Some(true), bootstrap: None, ..named("a") };
        assert!(matches!(refused(&dir, no_seed).await, NewNodeError::NoSeed));
        let nameless = NewNode { cluster_name: None, ..named("a") };
        assert!(matches!(refused(&dir, nameless).await, NewNodeError::NoClusterName));
        let odd = NewNode { cluster_name: Some("my shop".to_owned()), ..named("a") };
        assert!(matches!(refused(&dir, odd).await, NewNodeError::BadName { of: "a cluster", .. }));
        assert!(!dir.exists(), "nothing was made");
        let zoneless = NewNode { zone: Some(String::new()), ..named("a") };
        assert!(matches!(refused(&dir, zoneless).await, NewNodeError::EmptyZone));
        for everywhere in ["0.0.0.0:1", "[::]:1", "127.0.0.1:0"] {
            let listen = |peers: bool| {
                let addr = Some(everywhere.parse().unwrap());
                let config = config(&dir, named("a"));
                if peers { Config { peer_listen: addr, ..config } } else { Config { http_listen: addr, ..config } }
            };
            for peers in [true, false] {
                let refused = prepare(&listen(peers), &PeerSide::default()).await.unwrap_err();
                assert!(matches!(refused, NewNodeError::NoAddress { .. }), "{refused}");
            }
        }
        assert!(!dir.exists(), "nothing was made");
        fs::write(root.path().join("thesis.txt"), "mine").unwrap();
        assert!(matches!(refused(root.path(), named("a")).await, NewNodeError::NotVacant(_)));
    }

    /// As after its disk was lost, while the others are down.
    #[tokio::test]
    async fn no_cluster_is_bootstrapped_with_seeds() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        let seed = Some(vec!["127.0.0.1:1".parse().unwrap()]);
        let config = config(&dir, NewNode { seed, ..named("a") });
        let no_tls = PeerSide::default();
        tokio::select! {
            prepared = prepare(&config, &no_tls) => panic!("it should wait: {prepared:?}"),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        assert!(!dir.join(data_dir::IDENTITY_FILE).exists() && dir.join(WAITING_FILE).exists());
    }

    #[tokio::test]
    async fn a_new_file_system_is_accepted() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        prepare(&config(root.path(), named("a")), &PeerSide::default()).await.unwrap();
        assert_eq!(data_dir::read_identity(root.path()).unwrap().name, "a");
    }

    #[test]
    fn a_waiting_node_keeps_its_incarnation() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        let incarnation = waiting_incarnation(&dir).unwrap();
        assert_eq!(waiting_incarnation(&dir).unwrap(), incarnation);
        assert!(is_vacant(&dir).unwrap());
        fs::write(dir.join(WAITING_FILE), "no incarnation").unwrap();
        let damaged = waiting_incarnation(&dir).unwrap_err();
        assert!(damaged.to_string().contains("it holds no incarnation"), "{damaged}");
    }

    /// A cluster of a, as a knows it after these changes.
    fn history(changes: Vec<ChangeKind>) -> History {
        let bootstrap = ChangeKind::Bootstrap {
            cluster: cartwheel_core::value::cluster_id::ClusterId(7),
            partitions: cartwheel_core::ring::Partitions::default(),
            strategy: cartwheel_core::cluster::membership::Strategy::default(),
            members: vec![site().member("a", Incarnation(1))],
            name: String::new(),
        };
        let mut history = History::new();
        for (at, what) in (1..).zip([bootstrap].into_iter().chain(changes)) {
            history.record(Hlc::from_bits(at), NodeId::of_name("a"), what);
        }
        history
    }

    #[test]
    fn a_node_has_joined_once_the_history_has_its_incarnation() {
        let (one, two) = (site().member("b", Incarnation(1)), site().member("b", Incarnation(2)));
        let is_in = |changes: &[&ChangeKind], member: &Member| {
            let changes = changes.iter().map(|&change| change.clone()).collect();
            super::is_in(&history(changes).view().unwrap(), member)
        };
        let (add, remove) =
            (ChangeKind::Add(one.clone()), ChangeKind::Remove { node: one.id, incarnation: one.incarnation });
        let left = ChangeKind::Left { node: one.id, incarnation: one.incarnation };
        assert!(!is_in(&[], &one).unwrap());
        assert!(is_in(&[&add], &one).unwrap());
        assert!(matches!(is_in(&[&add], &two), Err(NewNodeError::NameTaken(name)) if name == "b"));
        assert!(matches!(is_in(&[], &site().member("a", Incarnation(2))), Err(NewNodeError::NameTaken(_))));
        let removed = [&add, &remove, &left];
        assert!(matches!(is_in(&removed, &one), Err(NewNodeError::Removed(_))));
        assert!(!is_in(&removed, &two).unwrap(), "another incarnation of it may join");
    }

    #[test]
    fn a_node_that_joined_makes_its_directory_from_the_invitation() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("b");
        let member = site().member("b", waiting_incarnation(&dir).unwrap());
        let secret = ClusterSecret([9; 32]);
        let invitation = Invitation { secret: secret.clone(), history: history(vec![ChangeKind::Add(member.clone())]) };
        make_data_dir(&dir, &member, NonZeroU32::MIN, &invitation).unwrap();
        let identity = data_dir::read_identity(&dir).unwrap();
        assert_eq!(
            (identity.incarnation, identity.secret == secret, dir.join(WAITING_FILE).exists()),
            (member.incarnation, true, false)
        );
        // The identity keeps only the bootstrap; later changes are in the file.
        assert_eq!(bootstrap::view_of(&identity, &dir).unwrap().members().len(), 1);
        let known = bootstrap::history_of(&identity, &data_dir::history_file(&dir), &dir).unwrap();
        assert_eq!(known.version(), invitation.history.version());
        let no_seed = Invitation { secret, history: History::new() };
        assert!(matches!(make_data_dir(&dir, &member, NonZeroU32::MIN, &no_seed), Err(NewNodeError::NoCluster)));
    }
}
