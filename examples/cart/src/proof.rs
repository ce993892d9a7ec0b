//! The proof: every cart read back, and compared item by item with what was bought.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cartwheel_client::{Client, Error, Options};
use tokio::task::JoinSet;

use crate::cart;
use crate::progress::Progress;
use crate::purchases::{Purchase, by_customer};

/// What the carts hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// Carts that were read.
    pub carts: usize,
    /// Items found that were bought.
    pub found: usize,
    /// Carts that were still siblings: concurrent writers were the last to write them.
    pub unmerged: usize,
    /// What should be there and is not, or is there and should not.
    pub faults: Vec<Fault>,
}

/// A cart that is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Whose cart.
    pub customer: String,
    /// Items that were acknowledged and are gone.
    pub missing: Vec<String>,
    /// Items that nobody bought, or that are there twice.
    pub surplus: Vec<String>,
}

impl Proof {
    fn add(&mut self, other: Self) {
        self.carts += other.carts;
        self.found += other.found;
        self.unmerged += other.unmerged;
        self.faults.extend(other.faults);
    }
}

/// Reads every customer's cart in `bucket` from two replicas and compares it with the purchases, one reader a client.
///
/// # Errors
/// If a cart cannot be read.
pub async fn prove(
    clients: Vec<Client>,
    bucket: &str,
    purchases: &[Purchase],
    progress: &Arc<Progress>,
) -> Result<Proof, Error> {
    let owned = |(customer, items): (&str, Vec<&str>)| {
        (customer.to_owned(), items.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let expected: Arc<[(String, Vec<String>)]> = by_customer(purchases).into_iter().map(owned).collect();
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for client in clients {
        let (bucket, expected, next, progress) = (bucket.to_owned(), expected.clone(), next.clone(), progress.clone());
        readers.spawn(async move {
            let options = Options { replicas: Some(2), ..Options::default() };
            let mut proof = Proof::default();
            while let Some((customer, items)) = expected.get(next.fetch_add(1, Ordering::Relaxed)) {
                let siblings = client.get_with(&bucket, customer, &options).await?;
                let found = match &siblings.values[..] {
                    [one] => cart::items(&one.bytes),
                    _ => cart::merged(&siblings).into_iter().collect(),
                };
                proof.unmerged += usize::from(siblings.values.len() > 1);
                proof.check(customer, items, found);
                progress.step();
            }
            Ok::<_, Error>(proof)
        });
    }
    let mut proof = Proof::default();
    while let Some(ended) = readers.join_next().await {
        proof.add(ended.map_err(|error| Error::Strange(format!("a reader that failed ({error})")))??);
    }
    proof.faults.sort_by(|a, b| a.customer.cmp(&b.customer));
    Ok(proof)
}

impl Proof {
    /// Compares one cart, as multisets.
    fn check(&mut self, customer: &str, expected: &[String], found: Vec<String>) {
        self.carts += 1;
        let (mut missing, mut surplus) = (Vec::new(), found);
        for item in expected {
            match surplus.iter().position(|found| found == item) {
                Some(at) => {
                    surplus.swap_remove(at);
                    self.found += 1;
                }
                None => missing.push(item.clone()),
            }
        }
        if !missing.is_empty() || !surplus.is_empty() {
            self.faults.push(Fault { customer: customer.to_owned(), missing, surplus });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &[&str], found: &[&str]) -> Proof {
        let owned = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let mut proof = Proof::default();
        proof.check("1", &owned(expected), owned(found));
        proof
    }

    #[test]
    fn every_difference_is_a_fault() {
        let whole = check(&["a", "b"], &["b", "a"]);
        assert_eq!((whole.found, whole.faults.len()), (2, 0));
        let one_gone = check(&["a", "b"], &["b"]);
        assert_eq!((one_gone.found, &one_gone.faults[0].missing[..]), (1, &["a".to_owned()][..]));
        assert_eq!(check(&["a"], &["a", "x"]).faults[0].surplus, ["x"]);
        assert_eq!(check(&["a"], &["a", "a"]).faults[0].surplus, ["a"]);
        assert_eq!(check(&["a"], &[]).faults.len(), 1);
    }
}
