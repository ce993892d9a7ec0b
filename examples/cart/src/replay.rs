//! The replay: several writers make the purchases in order, and so often change the same customer's cart concurrently.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cartwheel_client::{Client, Error};
use tokio::task::JoinSet;

use crate::cart::{self, Cart, MarkedCart, PlainCart};
use crate::progress::Progress;
use crate::purchases::Purchase;

/// How long one change is tried again before the replay fails.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// The parameters of a replay.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order in which they are made.
    pub purchases: Arc<[Purchase]>,
    /// The share of purchases that are removed again, right after they were added.
    pub removes_percent: u8,
    /// The bucket of the plain carts.
    pub plain: String,
    /// The bucket of the marked carts. Each change is made to both at the same time.
    pub marked: String,
}

/// The counts of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplayCounts {
    /// Purchases added to both carts and acknowledged.
    pub adds: u64,
    /// Purchases removed from both again.
    pub removes: u64,
    /// Retries of changes that no node could make.
    pub retries: u64,
    /// Reads that returned several siblings (status 300), which the writer then merged.
    pub merges: u64,
    /// The most siblings of one read.
    pub siblings_max: u64,
}

#[derive(Debug, Default)]
struct Counts {
    adds: AtomicU64,
    removes: AtomicU64,
    retries: AtomicU64,
    merges: AtomicU64,
    siblings_max: AtomicU64,
}

/// Makes `count` clients. Each begins with another one of `nodes`, from the `first` on.
///
/// # Errors
/// If a node's address is invalid.
pub fn clients(nodes: &[String], count: usize, first: usize) -> Result<Vec<Client>, Error> {
    let rotated = |by: usize| nodes.iter().cycle().skip(by % nodes.len().max(1)).take(nodes.len());
    (first..first + count).map(|by| Client::new(rotated(by))).collect()
}

/// Makes every purchase. Each client is one writer.
///
/// # Errors
/// If a change fails for good.
pub async fn replay(clients: Vec<Client>, plan: &Plan, progress: &Arc<Progress>) -> Result<ReplayCounts, Error> {
    let (next, counts) = (Arc::new(AtomicUsize::new(0)), Arc::new(Counts::default()));
    let mut writers = JoinSet::new();
    for client in clients {
        let (plan, progress, next, counts) = (plan.clone(), progress.clone(), next.clone(), counts.clone());
        writers.spawn(async move {
            let writer = Writer { client, plan, counts };
            while let Some(purchase) = writer.plan.purchases.get(next.fetch_add(1, Ordering::Relaxed)) {
                writer.make(purchase).await?;
                progress.step();
            }
            Ok::<_, Error>(())
        });
    }
    // The first writer that fails ends the others.
    while let Some(ended) = writers.join_next().await {
        match ended {
            Ok(ended) => ended?,
            Err(error) => return Err(Error::UnexpectedResponse(format!("a writer that failed ({error})"))),
        }
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(ReplayCounts {
        adds: count(&counts.adds),
        removes: count(&counts.removes),
        retries: count(&counts.retries),
        merges: count(&counts.merges),
        siblings_max: count(&counts.siblings_max),
    })
}

struct Writer {
    client: Client,
    plan: Plan,
    counts: Arc<Counts>,
}

impl Writer {
    async fn make(&self, purchase: &Purchase) -> Result<(), Error> {
        tokio::try_join!(
            self.change(&self.plan.plain, purchase, PlainCart::add),
            self.change(&self.plan.marked, purchase, MarkedCart::add),
        )?;
        self.counts.adds.fetch_add(1, Ordering::Relaxed);
        if purchase.is_removed(self.plan.removes_percent) {
            tokio::try_join!(
                self.change(&self.plan.plain, purchase, PlainCart::remove),
                self.change(&self.plan.marked, purchase, MarkedCart::remove),
            )?;
            self.counts.removes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Changes the customer's cart in `bucket`, trying again while nodes are unavailable.
    async fn change<C: Cart>(
        &self,
        bucket: &str,
        purchase: &Purchase,
        how: fn(&mut C, &Purchase),
    ) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            match self.try_change(bucket, purchase, how).await {
                // The change may have been made. Making the same change again does no harm.
                Err(Error::Unavailable { .. }) if begun.elapsed() < PATIENCE => {
                    self.counts.retries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                done => return done,
            }
        }
    }

    /// Read, merge, write: all that a client of Dynamo has to do.
    async fn try_change<C: Cart>(
        &self,
        bucket: &str,
        purchase: &Purchase,
        how: fn(&mut C, &Purchase),
    ) -> Result<(), Error> {
        let change = |siblings: &cartwheel_client::Siblings| {
            let mut cart: C = cart::merged(siblings);
            how(&mut cart, purchase);
            cart.encode()
        };
        let updated = self.client.update(bucket, &purchase.customer, change).await?;
        let siblings = updated.read.values.len() as u64;
        self.counts.siblings_max.fetch_max(siblings, Ordering::Relaxed);
        self.counts.merges.fetch_add(u64::from(siblings > 1), Ordering::Relaxed);
        Ok(())
    }
}
