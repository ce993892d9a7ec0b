//! New incarnations: an empty data directory that replaces a lost one, under the same name.

use std::path::{Path, PathBuf};

use cartwheel_core::cluster::membership::{ChangeKind, History, Member, View};
use cartwheel_core::value::dot::{Incarnation, NodeId, Since};
use cartwheel_core::value::epoch::Epoch;
use cartwheel_core::value::hlc::Hlc;

use crate::data_dir::lineage::Lineage;
use crate::data_dir::{self, DataDir, DataDirError, Identity, SavedEpoch};
use crate::lifecycle::bootstrap::{self, BootstrapError};
use crate::os::clock;
use crate::os::random::{self, NoRandomness};

/// Why a node got no new directory.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The directory is not empty.
    #[error(
        "{0} is not empty: a node that has its data must keep it; if it is damaged or an old copy, move it away first, or give another \
        directory"
    )]
    NotVacant(PathBuf),
    /// The cluster has no such node.
    #[error("the cluster of {like} has no node called {name}; its nodes are {}", .there.join(", "))]
    NoMember {
        /// The name that was given.
        name: String,
        /// The directory that was read.
        like: PathBuf,
        /// The nodes of the cluster.
        there: Vec<String>,
    },
    /// The directory to read is the node's own.
    #[error("{0} is the node's own directory; give the directory of another node of the cluster")]
    Own(PathBuf),
    /// The directories to read belong to two clusters.
    #[error("{0} and {1} belong to different clusters; give directories of one cluster")]
    OtherCluster(PathBuf, PathBuf),
    /// A directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The cluster cannot be read.
    #[error(transparent)]
    Cluster(#[from] BootstrapError),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Replaces the missing or empty directories of the cluster that `dev` runs in `dir`, and returns the names of their nodes.
///
/// # Errors
/// If there is no cluster, or a directory cannot be read or written.
pub fn renew_missing(dir: &Path) -> Result<Vec<String>, RenewError> {
    let there = |path: PathBuf| path.join(data_dir::IDENTITY_FILE).exists().then_some(path);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut like: Vec<PathBuf> = entries.filter_map(|entry| there(entry.path())).collect();
    like.sort();
    let Some(first) = like.first() else { return Ok(Vec::new()) };
    // Only nodes of the bootstrap have their directories here.
    let bootstrap = bootstrap::view_of(&data_dir::read_identity(first)?, first)?;
    let known = Known::of(&like)?;
    let mut renewed = Vec::new();
    for original in bootstrap.members() {
        let (name, node_dir) = (&original.member.name, dir.join(&original.member.name));
        if there(node_dir.clone()).is_none() && known.view.member(original.member.id).is_some() {
            renew(&node_dir, &like, name)?;
            renewed.push(name.clone());
        }
    }
    Ok(renewed)
}

/// What the directories of other nodes say about a cluster.
struct Known {
    identity: Identity,
    history: History,
    view: View,
    /// The latest of the nodes' epochs.
    reached: Epoch,
}

impl Known {
    fn of(like: &[PathBuf]) -> Result<Self, RenewError> {
        let mut known: Option<(&Path, Identity, History)> = None;
        let mut reached = Epoch::UNKNOWN;
        for dir in like {
            let saved = data_dir::epoch_file(dir).load()?;
            reached = reached.max(saved.epoch).max(saved.reached);
            let identity = data_dir::read_identity(dir)?;
            let history = bootstrap::history_of(&identity, &data_dir::history_file(dir), dir)?;
            match &mut known {
                None => known = Some((dir, identity, history)),
                Some((first, of_first, _)) if of_first.cluster != identity.cluster => {
                    return Err(RenewError::OtherCluster(first.to_path_buf(), dir.clone()));
                }
                Some((.., all)) => drop(all.merge(&history)),
            }
        }
        let no_cluster = || BootstrapError::NoCluster(like.first().cloned().unwrap_or_default());
        let (_, identity, history) = known.ok_or_else(no_cluster)?;
        let view = history.view().ok_or_else(no_cluster)?;
        Ok(Self { identity, history, view, reached })
    }
}

/// Makes `dir` the directory of a new incarnation of the node `name`, from the directories `like` of other nodes.
///
/// Only the new directory records the change to the new incarnation: the node tells the others when it starts.
///
/// # Errors
/// If the directory is not vacant, there is no such node, or a directory cannot be read or written.
pub fn renew(dir: &Path, like: &[PathBuf], name: &str) -> Result<Member, RenewError> {
    if !data_dir::is_vacant(dir)? {
        return Err(RenewError::NotVacant(dir.to_path_buf()));
    }
    let Known { identity, mut history, view, reached } = Known::of(like)?;
    let Some(old) = view.member(NodeId::of_name(name)).filter(|known| known.member.name == name) else {
        let mut there: Vec<String> = view.members().map(|known| known.member.name.clone()).collect();
        there.sort();
        let like = like.first().cloned().unwrap_or_default();
        return Err(RenewError::NoMember { name: name.to_owned(), like, there });
    };
    for dir in like {
        if data_dir::read_identity(dir)?.name == name {
            return Err(RenewError::Own(dir.clone()));
        }
    }
    let member = Member { incarnation: Incarnation(random::number()?), ..old.member.clone() };
    let replace = ChangeKind::Replace { old: member.id, new: member.clone() };
    history.record(Hlc::at(clock::wall()), member.id, replace);
    // The history first: a directory without an identity holds no node.
    std::fs::create_dir_all(dir).map_err(DataDirError::io("create", dir))?;
    data_dir::history_file(dir).save(&history.encode())?;
    data_dir::epoch_file(dir).save(SavedEpoch { epoch: Epoch::UNKNOWN, reached })?;
    let (name, incarnation, boot, lineage) = (name.to_owned(), member.incarnation, 0, Lineage::default());
    DataDir::create(dir, &Identity { name, incarnation, boot, lineage, actors: None, stopped: None, ..identity })?;
    if let Some(parent) = dir.parent().filter(|parent| *parent != Path::new("")) {
        data_dir::sync_dir(parent).map_err(DataDirError::io("sync", parent))?;
    }
    Ok(member)
}

/// The loss floor of an incarnation that did not bootstrap the cluster: an earlier incarnation may have held records that this one lacks.
pub fn loss_floor(identity: &Identity, dir: &Path) -> Result<Since, BootstrapError> {
    let bootstrap = bootstrap::view_of(identity, dir)?;
    let original = bootstrap.member(NodeId::of_name(&identity.name)).map(|known| known.member.incarnation);
    Ok(if original == Some(identity.incarnation) { Since(0) } else { Since::boot(1) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::lifecycle::bootstrap::{NodeDir, Ports, open_or_bootstrap};

    fn cluster() -> (tempfile::TempDir, Vec<NodeDir>) {
        let root = tempfile::tempdir().unwrap();
        let nodes = open_or_bootstrap(&root.path().join("data"), None, None, Ports::default()).unwrap();
        (root, nodes)
    }

    fn view_in(dir: &Path) -> View {
        Known::of(&[dir.to_path_buf()]).unwrap().view
    }

    #[test]
    fn a_missing_directory_gets_a_new_incarnation_and_the_others_keep_theirs() {
        let (root, nodes) = cluster();
        let dir = root.path().join("data");
        assert_eq!(renew_missing(&dir).unwrap(), Vec::<String>::new());
        let before = data_dir::read_identity(&nodes[1].dir).unwrap();
        fs::remove_dir_all(&nodes[1].dir).unwrap();
        assert_eq!(renew_missing(&dir).unwrap(), ["node-2"]);
        let after = data_dir::read_identity(&nodes[1].dir).unwrap();
        assert_ne!(after.incarnation, before.incarnation);
        assert_eq!(after, Identity { incarnation: after.incarnation, ..before.clone() });
        assert_eq!(loss_floor(&after, &dir).unwrap(), Since::boot(1));
        assert_eq!(loss_floor(&before, &dir).unwrap(), Since(0));
        let view = view_in(&nodes[1].dir);
        assert!(view.is_gone(nodes[1].member.id, before.incarnation));
        assert_eq!(
            view.member(nodes[1].member.id).unwrap().member,
            Member { incarnation: after.incarnation, ..nodes[1].member.clone() }
        );
        assert_eq!(view.ring.owners(), view_in(&nodes[0].dir).ring.owners(), "no partition moves");
        assert_eq!(renew_missing(&dir).unwrap(), Vec::<String>::new());
        assert_eq!(open_or_bootstrap(&dir, None, None, Ports::default()).unwrap().len(), 3);

        // Again with an empty directory; only node-2 knows the previous incarnation.
        let first = dir.join("node-1");
        fs::remove_dir_all(&first).unwrap();
        fs::create_dir(&first).unwrap();
        fs::write(first.join("log"), "old lines").unwrap();
        assert_eq!(renew_missing(&dir).unwrap(), ["node-1"]);
        assert!(view_in(&first).is_gone(nodes[1].member.id, before.incarnation));
    }

    #[test]
    fn a_directory_with_data_and_an_unknown_node_are_refused() {
        let (root, nodes) = cluster();
        let like = [nodes[0].dir.clone()];
        let refused = |dir: &Path, like: &[PathBuf], name: &str| renew(dir, like, name).unwrap_err().to_string();
        assert!(refused(&nodes[1].dir, &like, "node-2").contains("is not empty"));
        let gone = root.path().join("gone");
        assert!(
            refused(&gone, &like, "node-9").contains("has no node called node-9; its nodes are node-1, node-2, node-3")
        );
        assert!(refused(&gone, &like, "node-1").contains("own directory"));
        assert!(refused(&gone, std::slice::from_ref(&gone), "node-2").contains("holds no node"));
        let (_other_root, other) = cluster();
        let both = [nodes[0].dir.clone(), other[2].dir.clone()];
        assert!(refused(&gone, &both, "node-2").contains("different clusters"));
        assert!(!gone.exists(), "nothing was made");

        // Stores without an identity are data too.
        fs::remove_file(nodes[1].dir.join("node.json")).unwrap();
        fs::create_dir(nodes[1].dir.join("shard-0")).unwrap();
        assert!(matches!(renew_missing(&root.path().join("data")), Err(RenewError::NotVacant(_))));
    }
}
