//! The clients: in each zone some writers that put real purchases into their customers' carts, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cart::cart::{Cart as _, PlainCart, merged};
use cart::purchases::{self, Purchase};
use cartwheel_client::{Client, Options, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::FaultsError;
use crate::cluster::{Cluster, ZONES};
use crate::ledger::Ledger;

/// The bucket of all carts.
pub const BUCKET: &str = "carts";
/// How many write in each zone at the same time: each begins with another node.
const WRITERS_PER_ZONE: usize = 2;
/// How long a customer waits for the cart to be shown before an item is put into it unseen.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long one node may take to show it.
const ONE_READ_WITHIN: Duration = Duration::from_secs(1);
/// A customer's moment between two updates: these are faults under traffic, not a bench.
const BETWEEN_UPDATES: Duration = Duration::from_millis(3);

/// How the writers write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writing {
    /// How many replicas must have stored a write or show a cart; what the bucket says, if not said.
    pub replicas: Option<u8>,
    /// How long one node may take over a write. Much shorter than a fault lasts, or waiting for its end would do.
    pub within: Duration,
}

/// Writers at work. They end when this is dropped.
#[derive(Debug)]
pub struct Traffic {
    stop: watch::Sender<bool>,
    zones: JoinSet<Result<(), FaultsError>>,
}

impl Traffic {
    /// Lets clients in all zones write, each from a host in its zone.
    ///
    /// # Errors
    /// If the purchases cannot be read.
    pub fn start(cluster: &Cluster, ledger: &Arc<Ledger>, writing: Writing) -> Result<Self, FaultsError> {
        let purchases = purchases::parse(purchases::CDNOW)
            .map_err(|error| FaultsError::system("read the purchases")(std::io::Error::other(error)))?;
        let queue = Arc::new(Queue { purchases, next: AtomicUsize::new(0) });
        let (stop, stopped) = watch::channel(false);
        let mut zones = JoinSet::new();
        for zone in 0..ZONES {
            let endpoints = (0..WRITERS_PER_ZONE).map(|first| cluster.endpoints_for(zone, first)).collect();
            let (queue, ledger, stopped) = (queue.clone(), ledger.clone(), stopped.clone());
            let writers = Writers { zone, endpoints, queue, ledger, writing, stopped };
            let inside = cluster.network().inside(cluster.clients_of(zone), move || writers.write());
            zones.spawn(async move { inside.await? });
        }
        Ok(Self { stop, zones })
    }

    /// Lets all writers finish what they are at, and waits for that.
    ///
    /// # Errors
    /// If one of them failed.
    pub async fn stop(mut self) -> Result<(), FaultsError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.zones.join_next().await {
            ended.map_err(|error| FaultsError::system("write")(std::io::Error::other(error)))??;
        }
        Ok(())
    }
}

/// The purchases, each of which is made once.
struct Queue {
    purchases: Vec<Purchase>,
    next: AtomicUsize,
}

impl Queue {
    /// After the last purchase all are made once more, as new ones.
    fn next(&self) -> Purchase {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let (round, at) = (at / self.purchases.len(), at % self.purchases.len());
        let mut purchase = self.purchases[at].clone();
        if round > 0 {
            purchase.item += &format!(" again {round}");
        }
        purchase
    }
}

/// The writers of one zone.
struct Writers {
    zone: usize,
    /// Of each.
    endpoints: Vec<Vec<String>>,
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    writing: Writing,
    stopped: watch::Receiver<bool>,
}

impl Writers {
    async fn write(self) -> Result<(), FaultsError> {
        let mut writers = JoinSet::new();
        for endpoints in &self.endpoints {
            let (zone, ledger) = (self.zone, self.ledger.clone());
            let client = Client::new(endpoints)?.watched(move |attempt| ledger.attempted(zone, attempt));
            let (queue, ledger, stopped) = (self.queue.clone(), self.ledger.clone(), self.stopped.clone());
            let writer = Writer { client, ledger, writing: self.writing };
            writers.spawn(async move {
                while !*stopped.borrow() {
                    writer.make(&queue.next()).await;
                    tokio::time::sleep(BETWEEN_UPDATES).await;
                }
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended.map_err(|error| FaultsError::system("write")(std::io::Error::other(error)))?;
        }
        Ok(())
    }
}

struct Writer {
    client: Client,
    ledger: Arc<Ledger>,
    writing: Writing,
}

impl Writer {
    /// Read, merge, write. "Add to cart" is never refused for want of a read: then it is written beside whatever is there.
    async fn make(&self, purchase: &Purchase) {
        self.ledger.trying(purchase);
        let Writing { replicas, within } = self.writing;
        let reading = Options { replicas, timeout: Some(ONE_READ_WITHIN), ..Options::default() };
        let read = self.client.get_with(BUCKET, &purchase.customer, &reading);
        let read = tokio::time::timeout(READ_WITHIN, read).await;
        let (mut cart, context): (PlainCart, _) = match read {
            Ok(Ok(read)) => (merged(&read), read.context),
            Ok(Err(_)) | Err(_) => {
                self.ledger.unread();
                (PlainCart::default(), None)
            }
        };
        cart.add(purchase);
        let value = Value { bytes: cart.encode().into(), content_type: "text/plain".to_owned() };
        let options = Options { replicas, timeout: Some(within), ..Options::default() };
        match self.client.put_with(BUCKET, &purchase.customer, value, context.as_ref(), &options).await {
            Ok(_) => self.ledger.acknowledged(purchase),
            Err(_) => self.ledger.given_up(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_purchase_is_made_twice() {
        let purchases = purchases::parse(purchases::CDNOW).unwrap();
        let queue = Queue { purchases: purchases[..3].to_vec(), next: AtomicUsize::new(0) };
        let made: Vec<Purchase> = (0..6).map(|_| queue.next()).collect();
        assert_eq!(made[..3], purchases[..3]);
        let items: std::collections::BTreeSet<_> = made.iter().map(|purchase| &purchase.item).collect();
        assert_eq!(items.len(), 6);
        assert_eq!(made[5].customer, purchases[2].customer);
    }
}
