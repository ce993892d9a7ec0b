//! The clients: in each zone some writers that put real purchases into their customers' carts, one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cart::cart::{Cart as _, PlainCart, merged};
use cart::purchases::{self, Purchase};
use cartwheel_client::{Client, Consistency, Options, Siblings, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::FaultsError;
use crate::cluster::{Cluster, ZONES};
use crate::ledger::{Asker, Ledger};

/// The bucket of the carts that are always to be had.
pub const CARTS: &str = "carts";
/// The bucket of the carts that are read and written strongly.
const STRONG_CARTS: &str = "strong-carts";
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
    /// Whether two more in each zone make strong requests: one writes, and one only looks.
    pub strongly_too: bool,
    /// How often the purchases were all made before, so that none is made twice.
    pub round: usize,
}

/// What a writer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// Buys, whatever happens.
    Shops,
    /// Buys by strong requests.
    ShopsStrongly,
    /// Looks into carts by strong requests: it would wait long for a write that is refused.
    LooksStrongly,
}

impl Habit {
    const ALL: [Self; 4] = [Self::Shops, Self::Shops, Self::ShopsStrongly, Self::LooksStrongly];

    /// What each writer of a zone does: each begins with another node.
    fn all(writing: Writing) -> impl Iterator<Item = (usize, Self)> {
        let is_wanted = move |habit: &Self| writing.strongly_too || *habit == Self::Shops;
        Self::ALL.into_iter().filter(is_wanted).enumerate()
    }
}

/// Writers at work. They end when this is dropped.
#[derive(Debug)]
pub struct Traffic {
    stop: watch::Sender<bool>,
    /// For each zone, the nodes that each of its writers tries, in this order.
    endpoints: Vec<watch::Sender<Vec<Vec<String>>>>,
    writing: Writing,
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
        let next = AtomicUsize::new(writing.round * purchases.len());
        let queue = Arc::new(Queue { purchases, next });
        let (stop, stopped) = watch::channel(false);
        let (mut senders, mut zones) = (Vec::new(), JoinSet::new());
        for zone in 0..ZONES {
            let (sender, endpoints) = watch::channel(endpoints_of(cluster, zone, writing));
            senders.push(sender);
            let (queue, ledger, stopped) = (queue.clone(), ledger.clone(), stopped.clone());
            let writers = Writers { zone, endpoints, queue, ledger, writing, stopped };
            let inside = cluster.network().inside(cluster.clients_of(zone), move || writers.write());
            zones.spawn(async move { inside.await? });
        }
        Ok(Self { stop, endpoints: senders, writing, zones })
    }

    /// Tells all writers which nodes serve now.
    pub fn redirect(&self, cluster: &Cluster) {
        for (zone, endpoints) in self.endpoints.iter().enumerate() {
            endpoints.send_replace(endpoints_of(cluster, zone, self.writing));
        }
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

/// The nodes that each writer of a zone tries.
fn endpoints_of(cluster: &Cluster, zone: usize, writing: Writing) -> Vec<Vec<String>> {
    Habit::all(writing).map(|(number, _)| cluster.endpoints_for(zone, number)).collect()
}

/// The purchases, each of which is made once.
struct Queue {
    purchases: Vec<Purchase>,
    next: AtomicUsize,
}

impl Queue {
    /// One that may have been made lately.
    fn made_before(&self) -> &Purchase {
        let at = self.next.load(Ordering::Relaxed).saturating_sub(1);
        &self.purchases[at % self.purchases.len()]
    }

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
    endpoints: watch::Receiver<Vec<Vec<String>>>,
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    writing: Writing,
    stopped: watch::Receiver<bool>,
}

impl Writers {
    async fn write(self) -> Result<(), FaultsError> {
        let mut writers: JoinSet<Result<(), FaultsError>> = JoinSet::new();
        for (number, habit) in Habit::all(self.writing) {
            let (endpoints, ledger) = (self.endpoints.clone(), self.ledger.clone());
            let asker = Asker { zone: self.zone, is_strong: habit != Habit::Shops };
            let mut writer = Writer::new(number, endpoints, ledger, asker, self.writing)?;
            let (queue, stopped) = (self.queue.clone(), self.stopped.clone());
            writers.spawn(async move {
                while !*stopped.borrow() {
                    match habit {
                        Habit::Shops | Habit::ShopsStrongly => writer.make(&queue.next()).await,
                        Habit::LooksStrongly => drop(writer.read(&queue.made_before().customer).await),
                    }
                    tokio::time::sleep(BETWEEN_UPDATES).await;
                    writer.look_for_nodes()?;
                }
                Ok(())
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended.map_err(|error| FaultsError::system("write")(std::io::Error::other(error)))??;
        }
        Ok(())
    }
}

struct Writer {
    number: usize,
    endpoints: watch::Receiver<Vec<Vec<String>>>,
    client: Client,
    ledger: Arc<Ledger>,
    asker: Asker,
    writing: Writing,
}

impl Writer {
    fn new(
        number: usize,
        mut endpoints: watch::Receiver<Vec<Vec<String>>>,
        ledger: Arc<Ledger>,
        asker: Asker,
        writing: Writing,
    ) -> Result<Self, FaultsError> {
        let client = client(&endpoints.borrow_and_update()[number], &ledger, asker)?;
        Ok(Self { number, endpoints, client, ledger, asker, writing })
    }

    /// Goes to other nodes if it was told to.
    fn look_for_nodes(&mut self) -> Result<(), FaultsError> {
        if self.endpoints.has_changed().unwrap_or(false) {
            self.client = client(&self.endpoints.borrow_and_update()[self.number], &self.ledger, self.asker)?;
        }
        Ok(())
    }

    /// Read, merge, write. "Add to cart" is never refused for want of a read: then it is written beside whatever is there.
    async fn make(&self, purchase: &Purchase) {
        let bucket = self.bucket();
        self.ledger.trying(bucket, purchase);
        let (mut cart, context): (PlainCart, _) = match self.read(&purchase.customer).await {
            Some(read) => (merged(&read), read.context),
            None => {
                self.ledger.unread();
                (PlainCart::default(), None)
            }
        };
        cart.add(purchase);
        let value = Value::new(cart.encode(), "text/plain");
        let options = self.options(self.writing.within);
        let begun = Instant::now();
        let put = self.client.put_with(bucket, &purchase.customer, value, context.as_ref(), &options).await;
        self.ledger.took(true, begun);
        match put {
            Ok(_) => self.ledger.acknowledged(bucket, purchase),
            Err(_) => self.ledger.given_up(self.asker, begun),
        }
    }

    /// The customer's cart, if it is shown in time.
    async fn read(&self, customer: &str) -> Option<Siblings> {
        let options = self.options(ONE_READ_WITHIN);
        let begun = Instant::now();
        let read = self.client.get_with(self.bucket(), customer, &options);
        let read = tokio::time::timeout(READ_WITHIN, read).await;
        self.ledger.took(false, begun);
        read.ok().and_then(Result::ok)
    }

    const fn bucket(&self) -> &'static str {
        if self.asker.is_strong { STRONG_CARTS } else { CARTS }
    }

    fn options(&self, within: Duration) -> Options {
        let consistency = if self.asker.is_strong { Consistency::Strong } else { Consistency::Eventual };
        let replicas = self.writing.replicas;
        Options { consistency, replicas, timeout: Some(within), ..Options::default() }
    }
}

fn client(endpoints: &[String], ledger: &Arc<Ledger>, asker: Asker) -> Result<Client, FaultsError> {
    let ledger = ledger.clone();
    Ok(Client::new(endpoints)?.watched(move |attempt| ledger.attempted(asker, attempt)))
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
