//! The replay: writers that take the purchases in their order, several at once, and so often the same customer's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cartwheel_client::{Client, Error};
use tokio::task::JoinSet;

use crate::cart;
use crate::progress::Progress;
use crate::purchases::Purchase;

/// For how long one add is tried again before the replay is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// What a replay met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Adds that the cluster acknowledged.
    pub adds: u64,
    /// Adds that were tried anew because no node could take them.
    pub repeated: u64,
    /// Reads that found siblings (answered with 300), which the writer then merged.
    pub merges: u64,
    /// The most siblings that one read found.
    pub siblings_max: u64,
}

#[derive(Debug, Default)]
struct Counts {
    adds: AtomicU64,
    repeated: AtomicU64,
    merges: AtomicU64,
    siblings_max: AtomicU64,
}

/// Clients for `count` workers, each of which begins with another one of `nodes`, from the `first` on.
///
/// # Errors
/// If a node's address makes no sense.
pub fn clients(nodes: &[String], count: usize, first: usize) -> Result<Vec<Client>, Error> {
    let rotated = |by: usize| nodes.iter().cycle().skip(by % nodes.len().max(1)).take(nodes.len());
    (first..first + count).map(|by| Client::new(rotated(by))).collect()
}

/// Adds every purchase to its customer's cart in `bucket`, one writer a client.
///
/// # Errors
/// If an add fails for good.
pub async fn replay(
    clients: Vec<Client>,
    bucket: &str,
    purchases: Arc<[Purchase]>,
    progress: &Arc<Progress>,
) -> Result<Replayed, Error> {
    let (next, counts) = (Arc::new(AtomicUsize::new(0)), Arc::new(Counts::default()));
    let mut writers = JoinSet::new();
    for client in clients {
        let (bucket, purchases, progress) = (bucket.to_owned(), purchases.clone(), progress.clone());
        let (next, counts) = (next.clone(), counts.clone());
        writers.spawn(async move {
            while let Some(purchase) = purchases.get(next.fetch_add(1, Ordering::Relaxed)) {
                add_patiently(&client, &bucket, purchase, &counts).await?;
                progress.step();
            }
            Ok::<_, Error>(())
        });
    }
    // The first writer that fails ends the others.
    while let Some(ended) = writers.join_next().await {
        match ended {
            Ok(ended) => ended?,
            Err(error) => return Err(Error::Strange(format!("a writer that failed ({error})"))),
        }
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Replayed {
        adds: count(&counts.adds),
        repeated: count(&counts.repeated),
        merges: count(&counts.merges),
        siblings_max: count(&counts.siblings_max),
    })
}

async fn add_patiently(client: &Client, bucket: &str, purchase: &Purchase, counts: &Counts) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match add(client, bucket, purchase, counts).await {
            // It may have been carried out. Adding the same item again is harmless: a cart is a set.
            Err(Error::Unavailable { .. }) if begun.elapsed() < PATIENCE => {
                counts.repeated.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            done => return done,
        }
    }
}

/// Read, merge, write: the whole of what a client of Dynamo has to do.
async fn add(client: &Client, bucket: &str, purchase: &Purchase, counts: &Counts) -> Result<(), Error> {
    let add_item = |siblings: &cartwheel_client::Siblings| {
        let mut items = cart::merged(siblings);
        items.insert(purchase.item.clone());
        cart::encode(&items)
    };
    let updated = client.update(bucket, &purchase.customer, add_item).await?;
    counts.adds.fetch_add(1, Ordering::Relaxed);
    let siblings = updated.read.values.len() as u64;
    counts.siblings_max.fetch_max(siblings, Ordering::Relaxed);
    if siblings > 1 {
        counts.merges.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
