//! `cartwheel backup list` and `prune`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use bytesize::ByteSize;
use serde::Serialize;

use super::BackupError;
use super::place::Place;
use crate::cli::{BackupListArgs, BackupPruneArgs};
use crate::terminal::confirm::confirm;
use crate::terminal::exit::Exit;
use crate::terminal::output::{print, show};
use crate::terminal::table::table;

/// The backups in a place.
#[derive(Serialize)]
struct BackupsListed {
    /// The oldest first.
    backups: Vec<BackupListed>,
    /// Backups that `create` will go on with.
    unfinished: Vec<String>,
}

/// A backup.
#[derive(Serialize)]
struct BackupListed {
    backup: String,
    ended: String,
    cluster: String,
    partitions: u32,
    records: u64,
    /// The size of all objects that it needs.
    bytes: u64,
    /// The size of those that the backup before it in the list does not need.
    new_bytes: u64,
    base: Option<String>,
}

/// What a prune removed.
#[derive(Serialize)]
struct Pruned {
    removed: Vec<String>,
    kept: Vec<String>,
    objects_removed: usize,
    bytes_removed: u64,
}

/// Lists the backups.
pub(super) async fn run(args: &BackupListArgs) -> Result<ExitCode, BackupError> {
    let place = Place::open(&args.place).await?;
    let mut listed = BackupsListed { backups: Vec::new(), unfinished: Vec::new() };
    let mut before: BTreeSet<String> = BTreeSet::new();
    for id in place.backups().await? {
        let manifest = place.backup(&id).await?;
        let objects = manifest.objects();
        let new = objects.values().filter(|object| !before.contains(&object.id));
        let new_bytes = new.map(|object| object.bytes).sum();
        before = objects.keys().map(|&id| id.to_owned()).collect();
        listed.backups.push(BackupListed {
            backup: id,
            records: manifest.records(),
            bytes: manifest.bytes(),
            new_bytes,
            ended: manifest.ended,
            cluster: manifest.begun.cluster,
            partitions: manifest.begun.partitions,
            base: manifest.begun.base,
        });
    }
    listed.unfinished = place.unfinished().await?.into_iter().map(|begun| begun.id).collect();
    show(args.format, &listed, |listed, _| listed.text())?;
    Ok(if listed.backups.is_empty() { Exit::Negative } else { Exit::Done }.into())
}

/// Removes all but the last backups, then the objects that no backup needs.
pub(super) async fn prune(args: &BackupPruneArgs) -> Result<ExitCode, BackupError> {
    let place = Place::open(&args.place).await?;
    // Its partitions refer to objects that no finished backup names.
    if let Some(unfinished) = place.unfinished().await?.pop() {
        return Err(BackupError::Unfinished(unfinished.id));
    }
    let mut removed = place.backups().await?;
    let kept = removed.split_off(removed.len().saturating_sub(args.keep as usize));
    let mut needed = BTreeSet::new();
    for id in &kept {
        needed.extend(place.backup(id).await?.objects().keys().map(|&id| id.to_owned()));
    }
    let question = format!("Remove {} of {} backups?", removed.len(), removed.len() + kept.len());
    if !args.yes && !removed.is_empty() && !confirm(&question)? {
        print(b"Nothing was removed.\n")?;
        return Ok(Exit::Negative.into());
    }
    for id in &removed {
        place.remove_backup(id).await?;
    }
    let (mut objects_removed, mut bytes_removed) = (0, 0);
    for (id, bytes) in place.objects().await?.into_iter().filter(|(id, _)| !needed.contains(id)) {
        place.remove_object(&id).await?;
        (objects_removed, bytes_removed) = (objects_removed + 1, bytes_removed + bytes);
    }
    let pruned = Pruned { removed, kept, objects_removed, bytes_removed };
    show(args.format, &pruned, |pruned, _| {
        format!(
            "{} backups and {} objects removed ({}), {} backups kept\n",
            pruned.removed.len(),
            pruned.objects_removed,
            ByteSize(pruned.bytes_removed),
            pruned.kept.len()
        )
    })?;
    Ok(Exit::Done.into())
}

impl BackupsListed {
    fn text(&self) -> String {
        let row = |listed: &BackupListed| {
            [
                listed.backup.clone(),
                listed.ended.clone(),
                listed.records.to_string(),
                ByteSize(listed.bytes).to_string(),
                ByteSize(listed.new_bytes).to_string(),
                listed.cluster.clone(),
            ]
        };
        let mut text = table(["BACKUP", "ENDED", "RECORDS", "SIZE", "NEW", "CLUSTER"], self.backups.iter().map(row));
        for id in &self.unfinished {
            text += &format!("{id} is not finished: `cartwheel backup create` goes on with it\n");
        }
        text
    }
}
