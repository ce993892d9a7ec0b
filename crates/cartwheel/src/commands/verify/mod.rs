//! `cartwheel verify`: proves that every key is equal on all its replicas, from the records on the nodes' disks.
//!
//! For each partition, the records of all nodes are read side by side in key order, with one page of each node in memory. Hash trees
//! and anti-entropy are not used, since their work is what is verified.

mod args;
mod held;
mod nodes;
mod partition;
mod report;
mod stream;
mod suspects;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self as futures, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal::error::CommandError;
use crate::terminal::exit::{Exit, ToExit};
use crate::terminal::output::show;
use nodes::Nodes;
use partition::Disagree;
use report::{Tally, VerifySummary};

pub use args::VerifyArgs;

/// The maximum number of attempts at a partition while nodes disagree on the ring. They span ten seconds; a change reaches all nodes
/// within two.
const TRIES: u32 = 40;
const BETWEEN_TRIES: Duration = Duration::from_millis(250);
/// The number of differing keys after which further ones are re-read only once, since the outcome is then certain.
const PATIENT_UP_TO: u64 = 1_000;

/// The reasons why nothing was proven.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No node returned the member list.
    #[error(transparent)]
    Client(#[from] cartwheel_client::Error),
    /// The report could not be written.
    #[error(transparent)]
    Show(#[from] CommandError),
    /// The nodes still disagree on the ring after all attempts.
    #[error(
        "the nodes still disagree on the ring after ten seconds: {0}; check with `cartwheel cluster status` that all are connected, \
         then try again"
    )]
    Disagree(String),
}

impl ToExit for VerifyError {
    fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => error.exit(),
            Self::Show(error) => error.exit(),
            Self::Disagree(_) => Exit::NoQuorum,
        }
    }
}

/// The state that the verifications of all partitions share.
struct Shared {
    nodes: Nodes,
    list: usize,
    patience: Duration,
    keys: AtomicU64,
    differing: AtomicU64,
}

impl Shared {
    /// The time for which a differing key is re-read.
    fn patience(&self) -> Duration {
        if self.differing.load(Ordering::Relaxed) < PATIENT_UP_TO {
            self.patience
        } else {
            self.patience.min(Duration::from_millis(1))
        }
    }

    fn count_key(&self) {
        self.keys.fetch_add(1, Ordering::Relaxed);
    }

    fn count_difference(&self) {
        self.differing.fetch_add(1, Ordering::Relaxed);
    }
}

/// Verifies the cluster. The exit status says whether every key is equal on all its replicas.
///
/// # Errors
/// If no node returns the member list, or the nodes do not agree on the ring.
pub async fn run(args: &VerifyArgs) -> Result<ExitCode, VerifyError> {
    let begun = Instant::now();
    let ring = args.endpoints.client()?.ring().await?;
    let shared = Shared {
        nodes: Nodes::of(&ring, &args.endpoints)?,
        list: usize::from(args.list),
        patience: Duration::from_secs(args.patience),
        keys: AtomicU64::new(0),
        differing: AtomicU64::new(0),
    };
    let bar = progress_bar(ring.partitions);
    let verified = verify_all(&shared, ring.partitions, usize::from(args.concurrency), &bar).await;
    bar.finish_and_clear();
    let summary = VerifySummary::new(verified?, &shared.nodes, ring.partitions, begun.elapsed(), args.settled);
    show(args.format, &summary, |summary, _| summary.text())?;
    Ok(if summary.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn verify_all(
    shared: &Shared,
    partitions: u32,
    concurrency: usize,
    bar: &ProgressBar,
) -> Result<Tally, VerifyError> {
    let begun = Instant::now();
    let mut tallies =
        futures::iter(0..partitions).map(|partition| verify_partition(shared, partition)).buffered(concurrency);
    let mut all = Tally::default();
    while let Some(tally) = tallies.next().await {
        all.add(tally?, shared.list);
        let keys = shared.keys.load(Ordering::Relaxed);
        bar.set_message(format!("{keys} keys, {:.0}/s", keys as f64 / begun.elapsed().as_secs_f64()));
        bar.inc(1);
    }
    Ok(all)
}

async fn verify_partition(shared: &Shared, partition: u32) -> Result<Tally, VerifyError> {
    let mut tries = 1;
    loop {
        match partition::verify(shared, partition).await {
            Ok(tally) => return Ok(tally),
            Err(Disagree(why)) if tries == TRIES => return Err(VerifyError::Disagree(why)),
            Err(Disagree(_)) => tokio::time::sleep(BETWEEN_TRIES).await,
        }
        tries += 1;
    }
}

fn progress_bar(partitions: u32) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} partitions, {msg}, {eta} left");
    ProgressBar::new(partitions.into()).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
