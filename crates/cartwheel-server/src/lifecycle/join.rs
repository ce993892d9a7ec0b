//! How a node that has no data directory comes to one: it founds a cluster, or is let into one.

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
use crate::lifecycle::bootstrap::{self, FoundError, Site};
use crate::os::random::{self, NoRandomness};
use crate::peers::{Invitation, JoinError, ask_to_join, called};

/// The file that keeps the incarnation of a node that waits to be let in.
const WAITING_FILE: &str = "waiting";
/// How often a node that waits asks again.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often it is said that it still waits.
const SAY_EVERY: u32 = 30;

const HTTP_DEFAULT: &str = "127.0.0.1:8080";
const RESP_DEFAULT: &str = "127.0.0.1:6380";
const PEERS_DEFAULT: &str = "127.0.0.1:7400";

/// Why a node got no data directory.
#[derive(Debug, thiserror::Error)]
pub enum NewNodeError {
    /// It was not said what it is called.
    #[error("a new node needs a name: give it with --name, as CARTWHEEL_NAME, or as name in the file of --config")]
    NoName,
    /// It was not said whom to join.
    #[error("a node that is to join needs a node of the cluster: give one with --seed HOST:PORT")]
    NoSeed,
    /// It was told to found a cluster and to join one.
    #[error("a node founds a cluster or joins one: give bootstrap or join, not both")]
    BothWays,
    /// It cannot be called so.
    #[error("{name:?} is no name for {of}: use 1 to 63 letters, digits, dots, dashes and underscores")]
    BadName {
        /// What was to be called so.
        of: &'static str,
        /// The name.
        name: String,
    },
    /// It was told to be another node than the directory's.
    #[error(
        "{dir} holds the node {name}, and it was told to be {said}: give the directory of {said}, or leave --name out"
    )]
    OtherName {
        /// The directory.
        dir: PathBuf,
        /// The node's name.
        name: String,
        /// What was said.
        said: String,
    },
    /// It was told to have another number of shards than the directory has.
    #[error(
        "{dir} has {shards} shards and it was told to have {said}: their number is fixed when a directory is made, so leave --shards out, or \
         let the node in anew with an empty directory (cartwheel renew)"
    )]
    OtherShards {
        /// The directory.
        dir: PathBuf,
        /// Its shards.
        shards: NonZeroU32,
        /// What was said.
        said: NonZeroU32,
    },
    /// It was not said what the new cluster is called.
    #[error(
        "a new cluster needs a name: give it with --cluster-name, as CARTWHEEL_CLUSTER_NAME, or as cluster_name in the file of --config; or \
         name nodes of one that is there, with --seed"
    )]
    NoClusterName,
    /// The directory's node, or those at the seeds, belong to another cluster.
    #[error("{whose} belongs to {}, and this node was told to belong to {said}", called(name))]
    OtherCluster {
        /// Whose cluster that is.
        whose: String,
        /// Its name; empty if it has none.
        name: String,
        /// What was said.
        said: String,
    },
    /// Nobody could find it.
    #[error(
        "{addr} of {listen} stands for all addresses of this machine, or for any port, so others could not find the node there: say with \
         {address} HOST:PORT where they do"
    )]
    NoPlace {
        /// The address.
        addr: String,
        /// The flag that gave it.
        listen: &'static str,
        /// The flag to give.
        address: &'static str,
    },
    /// A zone needs a name.
    #[error("the zone is empty: leave zone out, or give it a name")]
    EmptyZone,
    /// The directory holds something else.
    #[error("{0} holds something, and no node: give another directory, or an empty one")]
    NotVacant(PathBuf),
    /// Another node of the cluster has the name.
    #[error(
        "a node called {0} is a member of the cluster already: give another name, or replace it with cartwheel cluster replace"
    )]
    NameTaken(String),
    /// It was removed meanwhile.
    #[error("{0} was removed from the cluster: start it with an empty directory")]
    Removed(String),
    /// What the seeds say is no cluster.
    #[error("the nodes at the seeds belong to no cluster that this build understands")]
    NoCluster,
    /// The seeds make no sense together.
    #[error(transparent)]
    Seeds(JoinError),
    /// A directory cannot be written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The cluster cannot be founded.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// How a node comes to its data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// It has one.
    Serve,
    /// It has none, and was not told how to come to one.
    Nothing,
    /// It founds a cluster.
    Found(Newcomer),
    /// It waits to be let into one.
    Join(Newcomer),
}

/// A node that has no data directory yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Newcomer {
    /// What it is called.
    pub name: String,
    /// What its cluster is called; empty if that was not said.
    pub cluster_name: String,
    /// Where it is.
    pub site: Site,
    /// How many shards it has.
    pub shards: NonZeroU32,
    seeds: BTreeSet<String>,
    /// It was told to found a cluster, but not to do so while it has seeds.
    bootstraps: bool,
    /// It needs no administrator to be let in.
    joins: bool,
}

impl Newcomer {
    /// The seeds, for people.
    pub fn seeds(&self) -> String {
        self.seeds.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// What a node is to do first, as far as its directory and what it was told say that.
///
/// # Errors
/// If they make no sense together, or the directory cannot be read.
pub fn plan(config: &Config) -> Result<Plan, NewNodeError> {
    let new = &config.new;
    let (bootstraps, joins) = (new.bootstrap.unwrap_or(false), new.join.unwrap_or(false));
    let seeds: BTreeSet<String> = new.seed.iter().flatten().map(|seed| seed.as_str().to_owned()).collect();
    if config.dir.join(data_dir::IDENTITY_FILE).exists() {
        is_as_said(&config.dir, new)?;
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
    let shards = new.shards.unwrap_or_else(one_a_core);
    if !is_vacant(&config.dir)? {
        return Err(NewNodeError::NotVacant(config.dir.clone()));
    }
    let founds = bootstraps && seeds.is_empty();
    if founds && cluster_name.is_empty() {
        return Err(NewNodeError::NoClusterName);
    }
    let newcomer = Newcomer { name, cluster_name, site, shards, seeds, bootstraps, joins };
    Ok(if founds { Plan::Found(newcomer) } else { Plan::Join(newcomer) })
}

/// Makes a data directory for a node that has none, if it was said how: by founding a cluster, or once it is let into one.
///
/// # Errors
/// If that is refused, or the directory cannot be written.
pub async fn prepare(config: &Config) -> Result<(), NewNodeError> {
    let dir = &config.dir;
    match plan(config)? {
        Plan::Serve | Plan::Nothing => {}
        Plan::Found(Newcomer { name, cluster_name, site, shards, .. }) => {
            let member = site.member(&name, Incarnation(random::number()?));
            bootstrap::found_alone(dir, &cluster_name, &member, shards)?;
            info!("founded the cluster {cluster_name} with {name} as its only node, in {}", dir.display());
        }
        Plan::Join(newcomer) => {
            let Newcomer { name, cluster_name, site, shards, seeds, bootstraps, joins } = &newcomer;
            if *bootstraps {
                // A node that has lost its disk, with a flag of its first start, must not found a second cluster because the others are down.
                let seeds = newcomer.seeds();
                warn!(
                    "no cluster is founded, as seeds are given: {name} waits for them ({seeds}). To found one, leave --seed out"
                );
            }
            let member = site.member(name, waiting_incarnation(dir)?);
            let invitation = wait(seeds, &member, *joins, cluster_name).await?;
            settle(dir, &member, *shards, &invitation)?;
            info!("{name} is a member of the cluster now, in {}", dir.display());
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
        |said: &Option<ListenAddr>, listen: &Option<ListenAddr>, default: &str, flags: (&'static str, _)| match said
            .as_ref()
            .or(listen.as_ref())
        {
            Some(addr) if !addr.is_one_place() => {
                Err(NewNodeError::NoPlace { addr: addr.to_string(), listen: flags.0, address: flags.1 })
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
        resp_addr: RESP_DEFAULT.to_owned(),
    })
}

/// Whether a directory is the one of the node that was described, as far as it was.
fn is_as_said(dir: &Path, new: &NewNode) -> Result<(), NewNodeError> {
    let identity = data_dir::read_identity(dir)?;
    if let Some(said) = new.name.clone().filter(|said| *said != identity.name) {
        return Err(NewNodeError::OtherName { dir: dir.to_path_buf(), name: identity.name, said });
    }
    let view = bootstrap::view_of(&identity, dir)?;
    if let Some(said) = new.cluster_name.clone().filter(|said| *said != view.cluster_name) {
        return Err(NewNodeError::OtherCluster { whose: dir.display().to_string(), name: view.cluster_name, said });
    }
    match new.shards {
        Some(said) if said != identity.shards => {
            Err(NewNodeError::OtherShards { dir: dir.to_path_buf(), shards: identity.shards, said })
        }
        _ => Ok(()),
    }
}

fn one_a_core() -> NonZeroU32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroU32::new(cores as u32).unwrap_or(NonZeroU32::MIN)
}

/// Whether nothing is there but what a node leaves that waits.
fn is_vacant(dir: &Path) -> Result<bool, DataDirError> {
    if dir.join(WAITING_FILE).exists() {
        return Ok(true);
    }
    data_dir::is_vacant(dir)
}

/// The incarnation of a node that waits: it stays what it is though the node is started again.
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

/// Asks to be let in until it is.
async fn wait(
    seeds: &BTreeSet<String>,
    member: &Member,
    asks_itself: bool,
    cluster_name: &str,
) -> Result<Invitation, NewNodeError> {
    let mut known = BTreeSet::new();
    for round in 0_u32.. {
        let asked: BTreeSet<String> = seeds.union(&known).cloned().collect();
        match ask_to_join(&asked, member, asks_itself, cluster_name).await {
            Ok(invitation) => {
                let view = invitation.history.view().ok_or(NewNodeError::NoCluster)?;
                if is_in(&view, member)? {
                    return Ok(invitation);
                }
                known = view.members().map(|known| known.member.peer_addr.clone()).collect();
                if round.is_multiple_of(SAY_EVERY) {
                    let name = &member.name;
                    info!("{name} waits to be let into the cluster: add it with cartwheel cluster add {name}");
                }
            }
            // Whoever has taken over the address of a member that is gone is no seed.
            Err(errors) if !known.is_empty() && errors.iter().any(JoinError::is_final) => known.clear(),
            Err(mut errors) if errors.iter().any(JoinError::is_final) => {
                errors.retain(JoinError::is_final);
                return Err(NewNodeError::Seeds(errors.remove(0)));
            }
            Err(errors) if round.is_multiple_of(SAY_EVERY) => {
                let errors: Vec<String> = errors.iter().map(JoinError::to_string).collect();
                warn!("no seed answers: {}", errors.join("; "));
            }
            Err(_) => {}
        }
        tokio::time::sleep(ASK_EVERY).await;
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
        // One that is leaving makes room, and one that is gone for good is replaced.
        Some(known) if !known.leaving => Err(NewNodeError::NameTaken(member.name.clone())),
        _ => Ok(false),
    }
}

/// Makes the directory of a node that was let in.
fn settle(dir: &Path, member: &Member, shards: NonZeroU32, invitation: &Invitation) -> Result<(), NewNodeError> {
    let Invitation { secret, history } = invitation;
    let cluster = history.cluster().ok_or(NewNodeError::NoCluster)?;
    let mut founding = History::new();
    let first = history.changes().find(|change| matches!(change.what, ChangeKind::Bootstrap { .. }));
    founding.insert(first.ok_or(NewNodeError::NoCluster)?.clone());
    // The history first: a directory without an identity is no node yet.
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
        founding: founding.encode(),
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
        prepare(&config(dir, new)).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_node_founds_a_cluster_of_its_own_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        let new =
            NewNode { zone: Some("east".to_owned()), peer_address: Some("a.example:1".parse().unwrap()), ..named("a") };
        let config = Config { http_listen: Some("127.0.0.1:9".parse().unwrap()), ..config(&dir, new) };
        prepare(&config).await.unwrap();
        let identity = data_dir::read_identity(&dir).unwrap();
        assert_eq!((identity.name.as_str(), identity.shards.get(), identity.boot), ("a", 2, 0));
        let view = bootstrap::view_of(&identity, &dir).unwrap();
        let member = &view.member(NodeId::of_name("a")).unwrap().member;
        let places = (member.zone.as_str(), member.host.as_str(), member.peer_addr.as_str(), member.http_addr.as_str());
        assert_eq!(places, ("east", "", "a.example:1", "127.0.0.1:9"));
        // Once it has a directory nothing of this is done again. What says that it is another node's is refused.
        prepare(&Config { new: NewNode { join: Some(true), ..named("a") }, ..config.clone() }).await.unwrap();
        let other = prepare(&Config { new: named("b"), ..config.clone() }).await.unwrap_err();
        assert!(matches!(other, NewNodeError::OtherName { .. }), "{other}");
        assert_eq!(view.cluster_name, "shop");
        let stray = NewNode { cluster_name: Some("depot".to_owned()), ..named("a") };
        let stray = prepare(&Config { new: stray, ..config.clone() }).await.unwrap_err().to_string();
        assert!(stray.ends_with("belongs to the cluster shop, and this node was told to belong to depot"), "{stray}");
        let more = NewNode { shards: NonZeroU32::new(3), ..named("a") };
        let more = prepare(&Config { new: more, ..config }).await.unwrap_err();
        assert!(matches!(more, NewNodeError::OtherShards { .. }), "{more}");
        assert_eq!(data_dir::read_identity(&dir).unwrap().incarnation, identity.incarnation);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        let nameless = NewNode { name: None, ..named("a") };
        assert!(matches!(refused(&dir, nameless).await, NewNodeError::NoName));
        for name in ["", "a b", "a:1", "a/b", "\u{e4}", &"a".repeat(64)] {
            assert!(matches!(refused(&dir, named(name)).await, NewNodeError::BadName { .. }), "{name}");
        }
        let both = NewNode { join: Some(true), ..named("a") };
        assert!(matches!(refused(&dir, both).await, NewNodeError::BothWays));
        let nobody = NewNode { join: Some(true), bootstrap: None, ..named("a") };
        assert!(matches!(refused(&dir, nobody).await, NewNodeError::NoSeed));
        let nameless = NewNode { cluster_name: None, ..named("a") };
        assert!(matches!(refused(&dir, nameless).await, NewNodeError::NoClusterName));
        let odd = NewNode { cluster_name: Some("my shop".to_owned()), ..named("a") };
        assert!(matches!(refused(&dir, odd).await, NewNodeError::BadName { of: "a cluster", .. }));
        assert!(!dir.exists(), "nothing was begun");
        let zoneless = NewNode { zone: Some(String::new()), ..named("a") };
        assert!(matches!(refused(&dir, zoneless).await, NewNodeError::EmptyZone));
        for everywhere in ["0.0.0.0:1", "[::]:1", "127.0.0.1:0"] {
            let listen = |peers: bool| {
                let addr = Some(everywhere.parse().unwrap());
                let config = config(&dir, named("a"));
                if peers { Config { peer_listen: addr, ..config } } else { Config { http_listen: addr, ..config } }
            };
            for peers in [true, false] {
                let refused = prepare(&listen(peers)).await.unwrap_err();
                assert!(matches!(refused, NewNodeError::NoPlace { .. }), "{refused}");
            }
        }
        assert!(!dir.exists(), "nothing was begun");
        fs::write(root.path().join("thesis.txt"), "mine").unwrap();
        assert!(matches!(refused(root.path(), named("a")).await, NewNodeError::NotVacant(_)));
    }

    /// As after its disk was lost, while the others are down.
    #[tokio::test]
    async fn with_seeds_no_cluster_is_founded() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        let seed = Some(vec!["127.0.0.1:1".parse().unwrap()]);
        let config = config(&dir, NewNode { seed, ..named("a") });
        tokio::select! {
            prepared = prepare(&config) => panic!("it waits: {prepared:?}"),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        assert!(!dir.join(data_dir::IDENTITY_FILE).exists() && dir.join(WAITING_FILE).exists());
    }

    #[tokio::test]
    async fn a_new_file_system_is_no_obstacle() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        prepare(&config(root.path(), named("a"))).await.unwrap();
        assert_eq!(data_dir::read_identity(root.path()).unwrap().name, "a");
    }

    #[test]
    fn a_node_that_waits_stays_what_it_is() {
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
        let founding = ChangeKind::Bootstrap {
            cluster: cartwheel_core::value::cluster_id::ClusterId(7),
            partitions: cartwheel_core::ring::Partitions::default(),
            strategy: cartwheel_core::cluster::membership::Strategy::default(),
            members: vec![site().member("a", Incarnation(1))],
            name: String::new(),
        };
        let mut history = History::new();
        for (at, what) in (1..).zip([founding].into_iter().chain(changes)) {
            history.record(Hlc::from_bits(at), NodeId::of_name("a"), what);
        }
        history
    }

    #[test]
    fn a_node_is_in_once_the_history_has_it_in_this_incarnation() {
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
        assert!(!is_in(&removed, &two).unwrap(), "another incarnation of it may be let in");
    }

    #[test]
    fn a_node_that_was_let_in_settles_with_what_it_was_told() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("b");
        let member = site().member("b", waiting_incarnation(&dir).unwrap());
        let secret = ClusterSecret([9; 32]);
        let invitation = Invitation { secret: secret.clone(), history: history(vec![ChangeKind::Add(member.clone())]) };
        settle(&dir, &member, NonZeroU32::MIN, &invitation).unwrap();
        let identity = data_dir::read_identity(&dir).unwrap();
        assert_eq!(
            (identity.incarnation, identity.secret == secret, dir.join(WAITING_FILE).exists()),
            (member.incarnation, true, false)
        );
        // The identity keeps the founding alone; what came since is in the file.
        assert_eq!(bootstrap::view_of(&identity, &dir).unwrap().members().len(), 1);
        let known = bootstrap::history_of(&identity, &data_dir::history_file(&dir), &dir).unwrap();
        assert_eq!(known.version(), invitation.history.version());
        let nobody = Invitation { secret, history: History::new() };
        assert!(matches!(settle(&dir, &member, NonZeroU32::MIN, &nobody), Err(NewNodeError::NoCluster)));
    }
}
