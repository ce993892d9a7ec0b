//! The proof: every cart is read and compared with the purchases, item by item.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cartwheel_client::{Client, Error, Options};
use tokio::task::JoinSet;

use crate::cart::{self, Cart};
use crate::progress::Progress;
use crate::purchases::{Purchase, by_customer};

/// The result of the comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// The number of carts that were read.
    pub carts: usize,
    /// The number of items found that were bought and not removed.
    pub found: usize,
    /// The number of items that were removed.
    pub removed: usize,
    /// The number of removed items that were found.
    pub resurfaced: usize,
    /// The number of carts with several siblings: concurrent writers were the last to write them.
    pub unmerged: usize,
    /// The carts with missing or surplus items.
    pub mismatches: Vec<Mismatch>,
}

/// A cart that differs from the purchases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The customer's number.
    pub customer: String,
    /// Acknowledged items that are missing.
    pub missing: Vec<String>,
    /// Items that were never bought.
    pub surplus: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Bought {
    customer: String,
    kept: BTreeSet<String>,
    removed: BTreeSet<String>,
}

/// Reads every customer's cart in `bucket` from two replicas and compares it with the purchases, of which `removes_percent` were removed again.
/// Each client is one reader.
///
/// # Errors
/// If a cart cannot be read.
pub async fn prove<C: Cart>(
    clients: Vec<Client>,
    bucket: &str,
    purchases: &[Purchase],
    removes_percent: u8,
    progress: &Arc<Progress>,
) -> Result<Proof, Error> {
    let expected: Arc<[Bought]> = bought(purchases, removes_percent).into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for client in clients {
        let (bucket, expected, next, progress) = (bucket.to_owned(), expected.clone(), next.clone(), progress.clone());
        readers.spawn(async move {
            let options = Options { replicas: Some(2), ..Options::default() };
            let mut proof = Proof::default();
            while let Some(bought) = expected.get(next.fetch_add(1, Ordering::Relaxed)) {
                let siblings = client.get_with(&bucket, &bought.customer, &options).await?;
                proof.unmerged += usize::from(siblings.values.len() > 1);
                proof.check(bought, &cart::merged::<C>(&siblings).items());
                progress.step();
            }
            Ok::<_, Error>(proof)
        });
    }
    let mut proof = Proof::default();
    while let Some(ended) = readers.join_next().await {
        proof.add(ended.map_err(|error| Error::UnexpectedResponse(format!("a reader that failed ({error})")))??);
    }
    proof.mismatches.sort_by(|a, b| a.customer.cmp(&b.customer));
    Ok(proof)
}

fn bought(purchases: &[Purchase], removes_percent: u8) -> Vec<Bought> {
    let of_customer = |(customer, purchases): (&str, Vec<&Purchase>)| {
        let (removed, kept): (Vec<_>, Vec<_>) =
            purchases.into_iter().partition(|purchase| purchase.is_removed(removes_percent));
        let items = |purchases: Vec<&Purchase>| purchases.into_iter().map(|purchase| purchase.item.clone()).collect();
        Bought { customer: customer.to_owned(), kept: items(kept), removed: items(removed) }
    };
    by_customer(purchases).into_iter().map(of_customer).collect()
}

impl Proof {
    fn check(&mut self, bought: &Bought, found: &BTreeSet<String>) {
        self.carts += 1;
        self.found += bought.kept.intersection(found).count();
        self.removed += bought.removed.len();
        self.resurfaced += bought.removed.intersection(found).count();
        let missing: Vec<_> = bought.kept.difference(found).cloned().collect();
        let is_surplus = |item: &&String| !bought.kept.contains(*item) && !bought.removed.contains(*item);
        let surplus: Vec<_> = found.iter().filter(is_surplus).cloned().collect();
        if !missing.is_empty() || !surplus.is_empty() {
            self.mismatches.push(Mismatch { customer: bought.customer.clone(), missing, surplus });
        }
    }

    fn add(&mut self, other: Self) {
        self.carts += other.carts;
        self.found += other.found;
        self.removed += other.removed;
        self.resurfaced += other.resurfaced;
        self.unmerged += other.unmerged;
        self.mismatches.extend(other.mismatches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kept: &[&str], removed: &[&str], found: &[&str]) -> Proof {
        let owned = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let bought = Bought { customer: "1".to_owned(), kept: owned(kept), removed: owned(removed) };
        let mut proof = Proof::default();
        proof.check(&bought, &owned(found));
        proof
    }

    #[test]
    fn every_difference_is_detected() {
        let same = check(&["a", "b"], &["c"], &["b", "a"]);
        assert_eq!((same.found, same.removed, same.resurfaced, same.mismatches.len()), (2, 1, 0, 0));
        let one_missing = check(&["a", "b"], &[], &["b"]);
        assert_eq!((one_missing.found, &one_missing.mismatches[0].missing[..]), (1, &["a".to_owned()][..]));
        assert_eq!(check(&["a"], &[], &["a", "x"]).mismatches[0].surplus, ["x"]);
        assert_eq!(check(&["a"], &[], &[]).mismatches.len(), 1);
        let back = check(&["a"], &["b", "c"], &["a", "c"]);
        assert_eq!((back.resurfaced, back.removed, back.mismatches.len()), (1, 2, 0));
    }

    #[test]
    fn removed_items_are_expected_to_be_missing() {
        let purchases = crate::purchases::parse(crate::purchases::CDNOW).unwrap();
        let all = bought(&purchases, 10);
        let (kept, removed) = all.iter().fold((0, 0), |(k, t), b| (k + b.kept.len(), t + b.removed.len()));
        assert_eq!(kept + removed, purchases.len(), "items are distinct");
        assert_eq!(removed, purchases.iter().filter(|purchase| purchase.is_removed(10)).count());
    }
}
