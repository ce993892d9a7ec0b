//! `cartwheel backup create`.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytesize::ByteSize;
use cartwheel_client::Client;
use futures_util::stream::{self, StreamExt as _};
use indicatif::ProgressBar;
use serde::Serialize;

use super::BackupError;
use super::copy::{CopyCounts, Copying};
use super::manifest::{BackupPart, BegunBackup, FORMAT, Manifest};
use super::place::Place;
use crate::cli::BackupCreateArgs;
use crate::terminal::exit::Exit;
use crate::terminal::output::{note, show};

/// How long a backup waits until the nodes name their members.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// What a backup has done.
#[derive(Serialize)]
struct CreateSummary {
    backup: String,
    /// The backup that it continues.
    base: Option<String>,
    /// Whether an earlier run had begun it.
    resumed: bool,
    partitions: u32,
    /// Partitions that an earlier run had finished.
    partitions_before: usize,
    /// Partitions of which fewer replicas were read than wanted.
    partitions_short: usize,
    copied_records: u64,
    copied_objects: u64,
    copied_bytes: u64,
    unchanged_objects: u64,
    unchanged_bytes: u64,
    seconds: f64,
}

/// Backs up the cluster, or goes on with a backup.
pub(super) async fn run(args: &BackupCreateArgs) -> Result<ExitCode, BackupError> {
    let clock = Instant::now();
    let client = args.endpoints.client()?;
    let (cluster, partitions) = identity(&client).await?;
    // With all members known, the backup survives the loss of the given nodes. A failure here is harmless: a node may answer later.
    let _ = client.learn_members().await;
    let place = Place::open_or_make(&args.place).await?;
    let (begun, finished) = begin(args, &place, &client, &cluster, partitions).await?;
    let base = match &begun.base {
        Some(base) => Some(place.backup(base).await?),
        None => None,
    };
    let (before, resumed) = (finished.len(), !finished.is_empty());
    let bar = super::progress(partitions.into(), "partitions");
    bar.inc(before as u64);
    let copying = Copying {
        client,
        endpoints: args.endpoints.clone(),
        place: place.clone(),
        cluster,
        partitions,
        replicas: args.replicas.into(),
        object_bytes: args.object_size.as_u64().max(1),
        counts: CopyCounts::default(),
        failed: std::sync::Mutex::default(),
    };
    let parts = copy_all(args, &copying, &begun, base.as_ref(), finished, &bar).await?;
    bar.finish_and_clear();
    let partitions_short = parts.iter().filter(|part| part.nodes.len() < usize::from(args.replicas)).count();
    let manifest = Manifest { begun, ended: now(), parts };
    place.finish(&manifest).await?;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counts = &copying.counts;
    let summary = CreateSummary {
        backup: manifest.begun.id,
        base: manifest.begun.base,
        resumed,
        partitions,
        partitions_before: before,
        partitions_short,
        copied_records: count(&counts.copied_records),
        copied_objects: count(&counts.copied_objects),
        copied_bytes: count(&counts.copied_bytes),
        unchanged_objects: count(&counts.unchanged_objects),
        unchanged_bytes: count(&counts.unchanged_bytes),
        seconds: clock.elapsed().as_secs_f64(),
    };
    show(args.format, &summary, |summary, _| summary.text())?;
    if partitions_short > 0 && !args.format.is_for_programs() {
        note(format_args!(
            "warning: of {partitions_short} partitions fewer than {} replicas could be read",
            args.replicas
        ));
    }
    Ok(Exit::Done.into())
}

/// Copies the partitions that are left. Returns all, in order.
async fn copy_all(
    args: &BackupCreateArgs,
    copying: &Copying,
    begun: &BegunBackup,
    base: Option<&Manifest>,
    finished: Vec<BackupPart>,
    bar: &ProgressBar,
) -> Result<Vec<BackupPart>, BackupError> {
    let is_left = |partition: &u32| finished.iter().all(|part| part.partition != *partition);
    let left: Vec<u32> = (0..begun.partitions).filter(is_left).collect();
    let copy = async |partition: u32| {
        let before = base.and_then(|base| base.parts.iter().find(|part| part.partition == partition));
        let part = copying.partition(partition, before).await?;
        copying.place.put_part(&begun.id, &part).await?;
        Ok::<_, BackupError>(part)
    };
    let copies = stream::iter(left).map(async |partition| copy(partition).await);
    let mut copies = std::pin::pin!(copies.buffer_unordered(args.concurrency.into()));
    let mut parts = finished;
    while let Some(part) = copies.next().await {
        parts.push(part?);
        bar.set_message(format!("{} copied", ByteSize(copying.counts.copied_bytes.load(Ordering::Relaxed))));
        bar.inc(1);
    }
    parts.sort_by_key(|part| part.partition);
    Ok(parts)
}

/// The id of the cluster and its number of partitions.
async fn identity(client: &Client) -> Result<(String, u32), BackupError> {
    let begun = Instant::now();
    loop {
        let ring = client.ring().await?;
        let status = client.cluster().await?;
        if !ring.members.is_empty() && !status.cluster.is_empty() {
            return Ok((status.cluster, ring.partitions));
        }
        if begun.elapsed() > FIRST_PATIENCE {
            return Err(BackupError::NoHome(0, "the nodes name no members".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The backup to work on, and its partitions that are finished: one that an earlier run has begun, or a new one.
async fn begin(
    args: &BackupCreateArgs,
    place: &Place,
    client: &Client,
    cluster: &str,
    partitions: u32,
) -> Result<(BegunBackup, Vec<BackupPart>), BackupError> {
    let all = place.backups().await?;
    for unfinished in place.unfinished().await? {
        // One that is finished was stopped while it removed its notes.
        if args.anew || all.contains(&unfinished.id) {
            place.forget(&unfinished.id).await?;
        } else if unfinished.cluster == cluster && unfinished.partitions == partitions {
            let finished = place.parts(&unfinished.id).await?;
            return Ok((unfinished, finished));
        } else {
            return Err(BackupError::UnfinishedOfOther(unfinished.id, unfinished.cluster));
        }
    }
    let mut base = None;
    for id in all.iter().rev() {
        let before = place.backup(id).await?.begun;
        if before.cluster == cluster && before.partitions == partitions {
            base = Some(id.clone());
            break;
        }
    }
    let buckets = client.buckets().await?;
    let mut id: String = now().chars().filter(char::is_ascii_alphanumeric).collect();
    // Two in one second have different names.
    while all.contains(&id) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        id = now().chars().filter(char::is_ascii_alphanumeric).collect();
    }
    let begun = BegunBackup { format: FORMAT, id, cluster: cluster.to_owned(), partitions, base, buckets };
    place.begin(&begun).await?;
    Ok((begun, Vec::new()))
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

impl CreateSummary {
    fn text(&self) -> String {
        let base = self.base.as_ref().map_or_else(String::new, |base| format!(" since {base}"));
        format!(
            "backup {}{base}: {} partitions in {:.1} s\n{} records in {} objects copied ({}), {} objects unchanged ({})\n",
            self.backup,
            self.partitions,
            self.seconds,
            self.copied_records,
            self.copied_objects,
            ByteSize(self.copied_bytes),
            self.unchanged_objects,
            ByteSize(self.unchanged_bytes)
        )
    }
}
