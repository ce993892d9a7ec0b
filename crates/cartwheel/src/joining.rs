//! How a node that has no data directory comes to one: it founds a cluster, or is let into one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cartwheel_core::configuration::Home;
use cartwheel_core::dot::{Life, NodeId};
use cartwheel_core::epoch::Epoch;
use cartwheel_core::membership::{ChangeKind, History, Member, View};
use cartwheel_core::ring::NORMAL_WEIGHT;
use cartwheel_core::wire::Protocol;
use tracing::{info, warn};

use crate::cli::NewNodeArgs;
use crate::config::Config;
use crate::data_dir::{self, DataDir, DataDirError, Identity, SavedEpoch};
use crate::founding::{self, FoundError, Site};
use crate::peers::{Invitation, JoinError, ask_to_join};
use crate::random::{self, NoRandomness};

/// The file that keeps the life of a node that waits to be let in.
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
    #[error("a new node needs a name: give it with --name")]
    NoName,
    /// It cannot be called so.
    #[error("{0:?} is no name for a node: use 1 to 63 letters, digits, dots, dashes and underscores")]
    BadName(String),
    /// A cluster was to be founded that is there.
    #[error("refused to found a cluster: {0} belongs to one that runs. Leave --bootstrap out to be let into it")]
    ClusterRuns(String),
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

/// Makes a data directory for a node that has none, if it was said how: by founding a cluster, or once it is let into one.
///
/// # Errors
/// If that is refused, or the directory cannot be written.
pub async fn prepare(config: &Config, new: &NewNodeArgs) -> Result<(), NewNodeError> {
    if config.dir.join(data_dir::IDENTITY_FILE).exists() || (new.seed.is_empty() && !new.bootstrap) {
        return Ok(());
    }
    let name = new.name.clone().ok_or(NewNodeError::NoName)?;
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > 63 || !name.chars().all(is_fit) {
        return Err(NewNodeError::BadName(name));
    }
    let site = site_of(config, new);
    let shards = new.shards.unwrap_or_else(one_a_core);
    let seeds: BTreeSet<String> = new.seed.iter().cloned().collect();
    if !is_vacant(&config.dir)? {
        return Err(NewNodeError::NotVacant(config.dir.clone()));
    }
    if new.bootstrap {
        let member = member(&name, Life(random::number()?), &site);
        // Whoever is asked notes a node that waits, which then never comes.
        if !seeds.is_empty() && ask_to_join(&seeds, &member, false).await.is_ok() {
            return Err(NewNodeError::ClusterRuns(new.seed.join(", ")));
        }
        founding::found_alone(&config.dir, &member, shards)?;
        info!("founded a cluster with {name} as its only node, in {}", config.dir.display());
        return Ok(());
    }
    let member = member(&name, waiting_life(&config.dir)?, &site);
    let invitation = wait(&seeds, &member, new.join).await?;
    settle(&config.dir, &member, shards, &invitation)?;
    info!("{name} is a member of the cluster now, in {}", config.dir.display());
    Ok(())
}

fn site_of(config: &Config, new: &NewNodeArgs) -> Site {
    let addr = |listen: &Option<crate::config::ListenAddr>, default: &str| {
        listen.as_ref().map_or_else(|| default.to_owned(), |addr| addr.as_str().to_owned())
    };
    Site {
        zone: new.zone.clone(),
        host: new.host.clone(),
        peer_addr: new.peer_address.clone().unwrap_or_else(|| addr(&config.peer_listen, PEERS_DEFAULT)),
        http_addr: new.http_address.clone().unwrap_or_else(|| addr(&config.http_listen, HTTP_DEFAULT)),
        resp_addr: RESP_DEFAULT.to_owned(),
    }
}

fn member(name: &str, life: Life, site: &Site) -> Member {
    let Site { zone, host, peer_addr, http_addr, resp_addr } = site.clone();
    let (id, name) = (NodeId::of_name(name), name.to_owned());
    Member { id, name, life, weight: NORMAL_WEIGHT, zone, host, peer_addr, http_addr, resp_addr }
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

/// The life of a node that waits: it stays what it is though the node is started again.
fn waiting_life(dir: &Path) -> Result<Life, NewNodeError> {
    let path = dir.join(WAITING_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let life = u64::from_str_radix(text.trim(), 16).map(Life);
            life.map_err(|_| DataDirError::Damaged { path, why: "it holds no life".to_owned() }.into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let life = Life(random::number()?);
            fs::create_dir_all(dir).map_err(DataDirError::io("create", dir))?;
            fs::write(&path, format!("{:016x}\n", life.0)).map_err(DataDirError::io("write", &path))?;
            Ok(life)
        }
        Err(error) => Err(DataDirError::io("read", &path)(error).into()),
    }
}

/// Asks to be let in until it is.
async fn wait(seeds: &BTreeSet<String>, member: &Member, asks_itself: bool) -> Result<Invitation, NewNodeError> {
    let mut known = BTreeSet::new();
    for round in 0_u32.. {
        let asked: BTreeSet<String> = seeds.union(&known).cloned().collect();
        match ask_to_join(&asked, member, asks_itself).await {
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
    if view.is_removed(Home { node: member.id, life: member.life }) {
        return Err(NewNodeError::Removed(member.name.clone()));
    }
    let same = view.members().find(|known| known.member.id == member.id || known.member.name == member.name);
    match same {
        Some(known) if known.member.life == member.life => Ok(true),
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
    let first = history.changes().find(|change| matches!(change.what, ChangeKind::Found { .. }));
    founding.insert(first.ok_or(NewNodeError::NoCluster)?.clone());
    // The history first: a directory without an identity is no node yet.
    data_dir::history_file(dir).save(&history.encode())?;
    data_dir::epoch_file(dir).save(SavedEpoch { epoch: Epoch::UNKNOWN, reached: Epoch::UNKNOWN })?;
    let identity = Identity {
        name: member.name.clone(),
        life: member.life,
        boot: 0,
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
