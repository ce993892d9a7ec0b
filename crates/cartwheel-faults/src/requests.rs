//! Single requests through one node, for scenarios that need to know which node served them.

use std::sync::Arc;
use std::time::Duration;

use cart::cart::{Cart as _, PlainCart};
use cart::purchases::Purchase;
use cartwheel_client::{BucketChange, Client, Error, Options, Value};

use crate::FaultsError;
use crate::cluster::Cluster;
use crate::ledger::Ledger;

/// How long one node may take for a request.
const WITHIN: Duration = Duration::from_secs(5);

impl Cluster {
    /// Runs `work` with a client of one node, from that node's zone.
    ///
    /// # Errors
    /// If no client can be made there.
    pub async fn through<T, F>(
        &self,
        node: usize,
        work: impl FnOnce(Client) -> F + Send + 'static,
    ) -> Result<T, FaultsError>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (client, zone) = (Client::new([self.nodes()[node].endpoint()])?.without_routing(), self.nodes()[node].zone);
        self.network().inside(self.clients_of(zone), move || work(client)).await
    }

    /// The homes of a key, as `node` knows them.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn homes_of(&self, node: usize, bucket: &'static str, key: &str) -> Result<Vec<usize>, FaultsError> {
        let key = key.to_owned();
        let location = self.through(node, move |client| async move { client.locate(bucket, &key).await }).await??;
        let homes = location.preference_list.iter().filter(|replica| replica.role == "home");
        let index_of = |name: &str| self.nodes().iter().position(|node| node.name == name);
        Ok(homes.filter_map(|home| index_of(&home.node)).collect())
    }

    /// Changes a bucket's settings through `node`. The inner result is the node's response.
    ///
    /// # Errors
    /// If no client can be made there.
    pub async fn set_bucket(
        &self,
        node: usize,
        bucket: &'static str,
        change: BucketChange,
    ) -> Result<Result<(), Error>, FaultsError> {
        self.through(node, move |client| async move { client.set_bucket(bucket, &change).await.map(drop) }).await
    }

    /// Puts one item into each of several carts through one node, without reading them first. Returns the acknowledged adds, which must never be
    /// missing from then on.
    ///
    /// # Errors
    /// If no client can be made there.
    pub async fn add_through(
        &self,
        node: usize,
        ledger: &Arc<Ledger>,
        bucket: &'static str,
        adds: Vec<Purchase>,
        replicas: Option<u8>,
    ) -> Result<Vec<Added>, FaultsError> {
        let ledger = ledger.clone();
        self.through(node, move |client| async move {
            let options = Options { replicas, timeout: Some(WITHIN), ..Options::default() };
            let mut added = Vec::new();
            for purchase in adds {
                let mut cart = PlainCart::default();
                cart.add(&purchase);
                let value = Value::new(cart.encode(), "text/plain");
                ledger.begin_add(bucket, &purchase);
                if let Ok(written) = client.put_with(bucket, &purchase.customer, value, None, &options).await {
                    ledger.preload(bucket, &purchase);
                    let standins = written.acks.standin;
                    added.push(Added { purchase, standins });
                }
            }
            added
        })
        .await
    }
}

/// An acknowledged add.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// The item and the cart.
    pub purchase: Purchase,
    /// The number of stand-ins that acknowledged it.
    pub standins: u32,
}
