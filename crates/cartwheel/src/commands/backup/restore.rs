//! `cartwheel backup restore`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_client::{Client, Error};
use cartwheel_core::wire::{CopiedRecord, decode_copies, encode_copies};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::BackupError;
use super::manifest::{BackupObject, Manifest};
use super::missing;
use super::place::Place;
use super::settings;
use super::state::RestoreState;
use crate::cli::BackupRestoreArgs;
use crate::terminal::exit::Exit;
use crate::terminal::output::show;

/// How long a batch is tried while the cluster is unavailable.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// How long a node may take for a batch.
const BATCH_WITHIN: Duration = Duration::from_secs(20);
/// The most records in a batch.
const BATCH_RECORDS: usize = 128;
/// The bytes after which a batch ends; the last record may exceed it.
const BATCH_BYTES: usize = 256 << 10;

/// What a restore has done.
#[derive(Serialize)]
struct RestoreSummary {
    backup: String,
    /// The cluster that was backed up.
    from_cluster: String,
    /// The cluster into which it was restored.
    into_cluster: String,
    /// Records that were merged or, with --only-missing, keys that were written.
    restored: u64,
    /// Keys that had a value already, with --only-missing.
    kept: u64,
    objects: usize,
    /// Objects that an earlier run had restored.
    objects_before: usize,
    /// Buckets whose settings were set as in the backup.
    settings_restored: Vec<String>,
    /// Buckets that hold keys and keep settings other than those of the backup.
    settings_kept: Vec<String>,
    seconds: f64,
}

/// What the restores of all objects share.
struct Restoring<'a> {
    args: &'a BackupRestoreArgs,
    client: Client,
    place: Place,
    /// The cluster that was backed up.
    cluster: &'a str,
    restored: AtomicU64,
    kept: AtomicU64,
}

/// Restores a backup. Nothing is written before it is clear that all its objects are there; each is checked before it is used.
pub(super) async fn run(args: &BackupRestoreArgs) -> Result<ExitCode, BackupError> {
    let begun = Instant::now();
    let place = Place::open(&args.place).await?;
    let manifest = place.chosen(args.backup.as_deref()).await?;
    check_complete(&place, &manifest).await?;
    let client = args.endpoints.client()?.with_timeout(BATCH_WITHIN);
    let into_cluster = client.cluster().await?.cluster;
    // With all members known, the restore survives the loss of the given nodes. A failure here is harmless: a node may answer later.
    let _ = client.learn_members().await;
    let mut state = RestoreState::open(args.state.as_deref(), &manifest.begun.id, &into_cluster)?;
    let settings = settings::restore(&client, &args.endpoints, &manifest.begun.buckets, &args.bucket).await?;
    let objects = manifest.objects();
    let left: Vec<&BackupObject> = objects.values().copied().filter(|object| !state.has(&object.id)).collect();
    let objects_before = objects.len() - left.len();
    let restoring = Restoring {
        args,
        client,
        place,
        cluster: &manifest.begun.cluster,
        restored: AtomicU64::new(0),
        kept: AtomicU64::new(0),
    };
    let bar = super::progress(objects.len() as u64, "objects");
    bar.inc(objects_before as u64);
    let restore = async |object: &BackupObject| restoring.object(object).await.map(|()| object.id.clone());
    let all = stream::iter(left).map(async |object| restore(object).await);
    let mut all = std::pin::pin!(all.buffer_unordered(args.concurrency.into()));
    while let Some(done) = all.next().await {
        state.add(&done?)?;
        bar.set_message(format!("{} records", restoring.restored.load(Ordering::Relaxed)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let summary = RestoreSummary {
        backup: manifest.begun.id.clone(),
        from_cluster: manifest.begun.cluster.clone(),
        into_cluster,
        restored: restoring.restored.load(Ordering::Relaxed),
        kept: restoring.kept.load(Ordering::Relaxed),
        objects: objects.len(),
        objects_before,
        settings_restored: settings.restored,
        settings_kept: settings.kept,
        seconds: begun.elapsed().as_secs_f64(),
    };
    show(args.format, &summary, |summary, _| summary.text())?;
    Ok(Exit::Done.into())
}

/// Checks that a backup has all its partitions and objects, by name and size.
async fn check_complete(place: &Place, manifest: &Manifest) -> Result<(), BackupError> {
    let missing = manifest.missing();
    if !missing.is_empty() {
        return Err(BackupError::Incomplete(manifest.begun.id.clone(), missing));
    }
    let there: BTreeMap<String, u64> = place.objects().await?.into_iter().collect();
    for (id, object) in manifest.objects() {
        match there.get(id) {
            None => return Err(BackupError::Missing(format!("objects/{id}"))),
            Some(&bytes) if bytes != object.bytes => {
                let why = format!("it has {bytes} bytes, not {}", object.bytes);
                return Err(BackupError::Unusable(format!("objects/{id}"), why));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

impl Restoring<'_> {
    async fn object(&self, object: &BackupObject) -> Result<(), BackupError> {
        let payload = Bytes::from(self.place.records(object).await?);
        let unusable =
            |error: cartwheel_core::wire::WireError| BackupError::Unusable(object.id.clone(), error.to_string());
        let mut records = decode_copies(payload).map_err(unusable)?;
        let buckets = &self.args.bucket;
        records.retain(|record| {
            buckets.is_empty() || buckets.iter().any(|bucket| bucket.as_bytes() == record.key.bucket())
        });
        if self.args.only_missing {
            return self.write_missing(records).await;
        }
        for batch in batches(&records) {
            let keys: Vec<Bytes> = batch.iter().map(|record| record.key.storage_key()).collect();
            let encoded = encode_copies(keys.iter().zip(batch).map(|(key, record)| (&key[..], &record.state)));
            let restore = async || self.client.restore_records(self.cluster, encoded.clone()).await;
            self.restored.fetch_add(patiently(restore).await?, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn write_missing(&self, records: Vec<CopiedRecord>) -> Result<(), BackupError> {
        let write = async |record: CopiedRecord| {
            let count = if missing::write(&self.client, &record).await? { &self.restored } else { &self.kept };
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BackupError>(())
        };
        stream::iter(records).map(async |record| write(record).await).buffer_unordered(16).try_collect().await
    }
}

/// The records in groups that a node takes in a short time.
fn batches(records: &[CopiedRecord]) -> Vec<&[CopiedRecord]> {
    let (mut batches, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (index, record) in records.iter().enumerate() {
        bytes += record.state.weight().bytes;
        if bytes >= BATCH_BYTES || index + 1 - first == BATCH_RECORDS || index + 1 == records.len() {
            batches.push(&records[first..=index]);
            (first, bytes) = (index + 1, 0);
        }
    }
    batches
}

/// Tries again for a while if no node can carry it out: a long restore survives the loss of a node, and waits for one that is overloaded.
pub(super) async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Err(Error::Unavailable { .. }) if begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}

impl RestoreSummary {
    fn text(&self) -> String {
        let mut text = format!(
            "backup {}: {} keys restored in {:.1} s, from {} objects\n",
            self.backup, self.restored, self.seconds, self.objects
        );
        if self.kept > 0 {
            text += &format!("{} keys had a value or were deleted in the backup, and were left alone\n", self.kept);
        }
        if self.objects_before > 0 {
            text += &format!("{} objects were restored before\n", self.objects_before);
        }
        if !self.settings_restored.is_empty() {
            text += &format!("settings restored: {}\n", self.settings_restored.join(", "));
        }
        if !self.settings_kept.is_empty() {
            text += &format!(
                "settings that differ from the backup were kept, because the bucket holds keys: {}\n",
                self.settings_kept.join(", ")
            );
        }
        text
    }
}
