//! The settings of buckets in a restore.

use std::time::{Duration, Instant};

use cartwheel_client::{Bucket, BucketChange, BucketSettings, Buckets, Client, decode_key};

use super::BackupError;
use crate::cli::Endpoints;
use crate::terminal::output::note;

/// How long the nodes may count their keys, and how long they may take to learn settings.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

/// Which buckets got the settings of the backup.
#[derive(Default)]
pub(super) struct SettingsRestored {
    pub(super) restored: Vec<String>,
    pub(super) kept: Vec<String>,
}

/// Gives buckets without keys the settings of the backup, and waits until the nodes that answer know them. Where keys are placed depends on them.
pub(super) async fn restore(
    client: &Client,
    endpoints: &Endpoints,
    backed_up: &Buckets,
    only: &[String],
) -> Result<SettingsRestored, BackupError> {
    let present = counted(client).await?;
    let mut done = SettingsRestored::default();
    for bucket in &backed_up.buckets {
        let Some(name) = decode_key(&bucket.bucket) else { continue };
        if !only.is_empty() && only.iter().all(|wanted| *wanted.as_bytes() != *name) {
            continue;
        }
        let there = present.buckets.iter().find(|there| there.bucket == bucket.bucket);
        let now = there.map_or(&present.defaults, |there| &there.settings);
        let Some(change) = change(now, &bucket.settings) else { continue };
        if there.is_some_and(|there| there.keys != Some(0)) {
            done.kept.push(bucket.bucket.clone());
            continue;
        }
        let changed = client.set_bucket(&name, &change).await?;
        changed.warnings.iter().for_each(|warning| note(format_args!("warning: {}: {warning}", bucket.bucket)));
        done.restored.push(bucket.bucket.clone());
        await_settings(client, endpoints, &name, bucket).await?;
    }
    Ok(done)
}

/// The buckets, once the nodes have counted their keys.
async fn counted(client: &Client) -> Result<Buckets, BackupError> {
    let begun = Instant::now();
    loop {
        let buckets = client.buckets().await?;
        if buckets.buckets.iter().all(|bucket| bucket.keys.is_some()) || begun.elapsed() > PATIENCE {
            return Ok(buckets);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn await_settings(
    client: &Client,
    endpoints: &Endpoints,
    name: &[u8],
    bucket: &Bucket,
) -> Result<(), BackupError> {
    let begun = Instant::now();
    for member in client.ring().await?.members {
        let node = endpoints.client_of([&member.http])?.with_timeout(Duration::from_secs(2));
        loop {
            match node.bucket(name).await {
                Ok(settings) if change(&settings, &bucket.settings).is_some() && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                // One that does not answer learns them before it serves.
                Ok(_) | Err(_) => break,
            }
        }
    }
    Ok(())
}

/// The change from some settings to others; none if they are the same.
fn change(now: &BucketSettings, wanted: &BucketSettings) -> Option<BucketChange> {
    fn new<T: PartialEq + Clone>(now: &T, wanted: &T) -> Option<T> {
        (now != wanted).then(|| wanted.clone())
    }
    let change = BucketChange {
        n: new(&now.n, &wanted.n),
        r: new(&now.r, &wanted.r),
        w: new(&now.w, &wanted.w),
        conflict: new(&now.conflict, &wanted.conflict),
        sloppy: new(&now.sloppy, &wanted.sloppy),
        durability: new(&now.durability, &wanted.durability),
        max_value_bytes: new(&now.max_value_bytes, &wanted.max_value_bytes),
        placement: new(&now.placement, &wanted.placement),
        index: new(&now.index, &wanted.index),
    };
    (change != BucketChange::default()).then_some(change)
}
