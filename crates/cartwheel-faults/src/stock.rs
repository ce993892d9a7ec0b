//! Carts that are stored before a scenario begins, so that there is data to transfer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cart::cart::{Cart as _, PlainCart};
use cart::purchases::Purchase;
use cartwheel_client::Client;
use tokio::task::JoinSet;

use crate::FaultsError;
use crate::cluster::{Cluster, ZONES};
use crate::ledger::Ledger;

const STOCK: &str = "stock";
/// The number of concurrent writers.
const WRITERS: usize = 24;
/// The length of an item's text in bytes.
const ITEM_BYTES: usize = 1_000;

/// Stores `carts` carts with one large item each in a bucket of their own. From then on they must never be missing.
///
/// # Errors
/// If a cart is not stored.
pub async fn fill(cluster: &Cluster, ledger: &Arc<Ledger>, carts: usize) -> Result<(), FaultsError> {
    let endpoints: Vec<Vec<String>> = (0..ZONES).map(|zone| cluster.endpoints_for(zone, 0)).collect();
    let ledger = ledger.clone();
    let filling = move || async move {
        let client = |endpoints: &Vec<String>| Ok(Client::new(endpoints)?.without_routing());
        let clients = endpoints.iter().map(client).collect::<Result<Vec<_>, FaultsError>>()?;
        let (next, mut writers) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for client in clients.iter().cycle().take(WRITERS) {
            writers.spawn(write(client.clone(), ledger.clone(), next.clone(), carts));
        }
        while let Some(ended) = writers.join_next().await {
            ended.map_err(|error| FaultsError::system("fill the stock")(std::io::Error::other(error)))??;
        }
        Ok(())
    };
    cluster.network().inside(cluster.clients_of(0), filling).await?
}

async fn write(client: Client, ledger: Arc<Ledger>, next: Arc<AtomicUsize>, carts: usize) -> Result<(), FaultsError> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= carts {
            return Ok(());
        }
        let mut cart = PlainCart::default();
        let purchase = item(number);
        cart.add(&purchase);
        client.put(STOCK, &purchase.customer, cart.encode(), None).await?;
        ledger.preload(STOCK, &purchase);
    }
}

fn item(number: usize) -> Purchase {
    // Pseudo-random text, which the store cannot compress away.
    let mut state = number as u64 + 1;
    let text: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 33) as u8 % 26)
    })
    .take(ITEM_BYTES)
    .collect();
    Purchase { customer: format!("shelf {number}"), item: text, mark: number as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_items_differ() {
        let items: std::collections::BTreeSet<String> = (0..100).map(|number| item(number).item).collect();
        assert!(items.len() == 100 && items.iter().all(|item| item.len() == ITEM_BYTES && !item.contains('\n')));
    }
}
