//! The writers: clients in each zone that put real purchases into their customers' carts, one after another.

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
use crate::ledger::{Ledger, Requester};

/// The bucket of carts with eventual requests.
pub const CARTS: &str = "carts";
/// The bucket of carts with strong requests.
const STRONG_CARTS: &str = "strong-carts";
/// How long a writer waits for a cart before it adds an item without having read it.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long one node may take for a read.
const ONE_READ_WITHIN: Duration = Duration::from_secs(1);
/// The pause of a writer between two updates. This is a test of faults under traffic, not of throughput.
const BETWEEN_UPDATES: Duration = Duration::from_millis(3);

/// How the writers work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// The number of replicas that must store a write or answer a read; the bucket's setting if `None`.
    pub replicas: Option<u8>,
    /// How long one node may take for a write. It must be much shorter than a fault, or a client could wait for the fault's end.
    pub within: Duration,
    /// Whether two more clients in each zone make strong requests: one writes, the other reads.
    pub with_strong: bool,
    /// How often all purchases were made before; it keeps the items of different rounds distinct.
    pub round: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WriterKind {
    /// Adds purchases with eventual requests.
    Eventual,
    /// Adds purchases with strong requests.
    Strong,
    /// Reads carts with strong requests. A client that also wrote would spend most of its time on writes that are refused.
    StrongReader,
}

impl WriterKind {
    const ALL: [Self; 4] = [Self::Eventual, Self::Eventual, Self::Strong, Self::StrongReader];

    /// The writers of a zone, each with a number. Each begins with another node.
    fn all(workload: Workload) -> impl Iterator<Item = (usize, Self)> {
        let is_wanted = move |kind: &Self| workload.with_strong || *kind == Self::Eventual;
        Self::ALL.into_iter().filter(is_wanted).enumerate()
    }
}

/// Running writers. Dropping it stops them.
#[derive(Debug)]
pub struct Traffic {
    stop: watch::Sender<bool>,
    /// For each zone and each of its writers: the endpoints in the order in which it tries them.
    endpoints: Vec<watch::Sender<Vec<Vec<String>>>>,
    workload: Workload,
    zones: JoinSet<Result<(), FaultsError>>,
}

impl Traffic {
    /// Starts the writers of all zones, each on a host in its zone.
    ///
    /// # Errors
    /// If the purchases cannot be read.
    pub fn start(cluster: &Cluster, ledger: &Arc<Ledger>, workload: Workload) -> Result<Self, FaultsError> {
        let purchases = purchases::parse(purchases::CDNOW)
            .map_err(|error| FaultsError::system("read the purchases")(std::io::Error::other(error)))?;
        let next = AtomicUsize::new(workload.round * purchases.len());
        let queue = Arc::new(Queue { purchases, next });
        let (stop, stopped) = watch::channel(false);
        let (mut senders, mut zones) = (Vec::new(), JoinSet::new());
        for zone in 0..ZONES {
            let (sender, endpoints) = watch::channel(endpoints_of(cluster, zone, workload));
            senders.push(sender);
            let (queue, ledger, stopped) = (queue.clone(), ledger.clone(), stopped.clone());
            let writers = Writers { zone, endpoints, queue, ledger, workload, stopped };
            let inside = cluster.network().inside(cluster.clients_of(zone), move || writers.write());
            zones.spawn(async move { inside.await? });
        }
        Ok(Self { stop, endpoints: senders, workload, zones })
    }

    /// Gives all writers the addresses of the nodes that serve now.
    pub fn redirect(&self, cluster: &Cluster) {
        for (zone, endpoints) in self.endpoints.iter().enumerate() {
            endpoints.send_replace(endpoints_of(cluster, zone, self.workload));
        }
    }

    /// Lets all writers finish their requests, and waits for them.
    ///
    /// # Errors
    /// If a writer failed.
    pub async fn stop(mut self) -> Result<(), FaultsError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.zones.join_next().await {
            ended.map_err(|error| FaultsError::system("write")(std::io::Error::other(error)))??;
        }
        Ok(())
    }
}

/// The endpoints of each writer of a zone.
fn endpoints_of(cluster: &Cluster, zone: usize, workload: Workload) -> Vec<Vec<String>> {
    WriterKind::all(workload).map(|(number, _)| cluster.endpoints_for(zone, number)).collect()
}

/// The purchases, each of which is made once.
struct Queue {
    purchases: Vec<Purchase>,
    next: AtomicUsize,
}

impl Queue {
    /// A purchase that was probably made recently.
    fn recent(&self) -> &Purchase {
        let at = self.next.load(Ordering::Relaxed).saturating_sub(1);
        &self.purchases[at % self.purchases.len()]
    }

    /// The next purchase. After the last one all are made again, as different items.
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
    endpoints: watch::Receiver<Vec<Vec<String>>>,
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    workload: Workload,
    stopped: watch::Receiver<bool>,
}

impl Writers {
    async fn write(self) -> Result<(), FaultsError> {
        let mut writers: JoinSet<Result<(), FaultsError>> = JoinSet::new();
        for (number, kind) in WriterKind::all(self.workload) {
            let (endpoints, ledger) = (self.endpoints.clone(), self.ledger.clone());
            let requester = Requester { zone: self.zone, is_strong: kind != WriterKind::Eventual };
            let mut writer = Writer::new(number, endpoints, ledger, requester, self.workload)?;
            let (queue, stopped) = (self.queue.clone(), self.stopped.clone());
            writers.spawn(async move {
                while !*stopped.borrow() {
                    match kind {
                        WriterKind::Eventual | WriterKind::Strong => writer.make(&queue.next()).await,
                        WriterKind::StrongReader => drop(writer.read(&queue.recent().customer).await),
                    }
                    tokio::time::sleep(BETWEEN_UPDATES).await;
                    writer.update_endpoints()?;
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
    requester: Requester,
    workload: Workload,
}

impl Writer {
    fn new(
        number: usize,
        mut endpoints: watch::Receiver<Vec<Vec<String>>>,
        ledger: Arc<Ledger>,
        requester: Requester,
        workload: Workload,
    ) -> Result<Self, FaultsError> {
        let client = client(&endpoints.borrow_and_update()[number], &ledger, requester)?;
        Ok(Self { number, endpoints, client, ledger, requester, workload })
    }

    /// Changes to other endpoints if there are new ones.
    fn update_endpoints(&mut self) -> Result<(), FaultsError> {
        if self.endpoints.has_changed().unwrap_or(false) {
            self.client = client(&self.endpoints.borrow_and_update()[self.number], &self.ledger, self.requester)?;
        }
        Ok(())
    }

    /// Reads, merges and writes a cart. If it cannot be read, the item is written without a context: an add is never refused because a read failed.
    async fn make(&self, purchase: &Purchase) {
        let bucket = self.bucket();
        self.ledger.begin_add(bucket, purchase);
        let (mut cart, context): (PlainCart, _) = match self.read(&purchase.customer).await {
            Some(read) => (merged(&read), read.context),
            None => {
                self.ledger.record_blind();
                (PlainCart::default(), None)
            }
        };
        cart.add(purchase);
        let value = Value::new(cart.encode(), "text/plain");
        let options = self.options(self.workload.within);
        let begun = Instant::now();
        let put = self.client.put_with(bucket, &purchase.customer, value, context.as_ref(), &options).await;
        self.ledger.record_latency(true, begun);
        match put {
            Ok(_) => self.ledger.acknowledge(bucket, purchase),
            Err(_) => self.ledger.abandon(self.requester, begun),
        }
    }

    /// The customer's cart, if it can be read in time.
    async fn read(&self, customer: &str) -> Option<Siblings> {
        let options = self.options(ONE_READ_WITHIN);
        let begun = Instant::now();
        let read = self.client.get_with(self.bucket(), customer, &options);
        let read = tokio::time::timeout(READ_WITHIN, read).await;
        self.ledger.record_latency(false, begun);
        read.ok().and_then(Result::ok)
    }

    const fn bucket(&self) -> &'static str {
        if self.requester.is_strong { STRONG_CARTS } else { CARTS }
    }

    fn options(&self, within: Duration) -> Options {
        let consistency = if self.requester.is_strong { Consistency::Strong } else { Consistency::Eventual };
        let replicas = self.workload.replicas;
        Options { consistency, replicas, timeout: Some(within), ..Options::default() }
    }
}

fn client(endpoints: &[String], ledger: &Arc<Ledger>, requester: Requester) -> Result<Client, FaultsError> {
    let ledger = ledger.clone();
    // The nodes of other zones may be out of the client's reach, so it does not go by the ring.
    Ok(Client::new(endpoints)?.without_routing().on_attempt(move |attempt| ledger.record_attempt(requester, attempt)))
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
