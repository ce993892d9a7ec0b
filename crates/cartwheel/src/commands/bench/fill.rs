//! Puts every key once, before the measurement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::BenchError;
use super::job::{Job, OperationError};
use super::link::Link;

/// The maximum number of attempts for a key.
const TRIES: u32 = 20;
/// The wait before the next attempt, multiplied by the attempts so far.
const BETWEEN_TRIES: Duration = Duration::from_millis(25);

/// Puts the keys with numbers below `keys`. Each put replaces the values of its key.
///
/// # Errors
/// If a key cannot be stored.
pub(super) async fn fill(job: &Arc<Job>, links: Vec<Link>, keys: u64) -> Result<(), BenchError> {
    let style = ProgressStyle::with_template("loading {wide_bar} {pos}/{len} keys, {per_sec}, {eta} left");
    let bar = ProgressBar::new(keys).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::<Result<(), BenchError>>::new();
    for mut link in links {
        let (job, next, bar) = (job.clone(), next.clone(), bar.clone());
        workers.spawn(async move {
            let mut random = fastrand::Rng::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= keys {
                    return Ok(());
                }
                fill_one(&job, &mut link, number, &mut random).await?;
                bar.inc(1);
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|_| BenchError::Panicked)??;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn fill_one(job: &Job, link: &mut Link, number: u64, random: &mut fastrand::Rng) -> Result<(), BenchError> {
    let mut tries = 1;
    loop {
        match job.replace(link, number, random).await {
            Ok(()) => return Ok(()),
            Err(OperationError(why)) if tries == TRIES => return Err(BenchError::Fill { number, tries, why }),
            Err(_) => tokio::time::sleep(BETWEEN_TRIES * tries).await,
        }
        tries += 1;
    }
}
