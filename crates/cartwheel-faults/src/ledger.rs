//! What the clients of a scenario did, and what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cart::purchases::Purchase;
use cartwheel_client::{Attempt, Outcome};

use crate::outages::Outages;

/// So many of each kind of failure.
pub type Kinds = BTreeMap<String, u64>;

/// Each customer's items.
pub type Carts = BTreeMap<String, BTreeSet<String>>;

/// What is counted of a scenario.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Updates of a cart that were acknowledged.
    pub updates: u64,
    /// Updates that were given up: no node took the write.
    pub given_up: u64,
    /// Updates whose read failed, and which were therefore written without having seen anything.
    pub blind: u64,
    /// Requests to write that were answered with an error, or not answered though the node could be reached. Those that
    /// another node then made up for are among them.
    pub writes_refused: Kinds,
    /// The same of reads.
    pub reads_refused: Kinds,
    /// Requests that got no answer because the scenario had made the node unreachable.
    pub unreachable: u64,
}

/// The clients' common ledger.
#[derive(Debug)]
pub struct Ledger {
    outages: Arc<Outages>,
    counts: Mutex<Counts>,
    tried: Mutex<Carts>,
    acknowledged: Mutex<Carts>,
}

impl Ledger {
    /// An empty one of clients for whom nodes may have outages.
    pub fn new(outages: Arc<Outages>) -> Self {
        Self { outages, counts: Mutex::default(), tried: Mutex::default(), acknowledged: Mutex::default() }
    }

    /// Takes down how a request of a client in `zone` went, which has just ended.
    pub fn attempted(&self, zone: usize, attempt: &Attempt<'_>) {
        let ended = Instant::now();
        let kind = match &attempt.outcome {
            // A key that is absent was answered as it should be.
            Outcome::Answered { code: None, status: 200..=399 } => return,
            Outcome::Answered { code: Some(code), status: 404 } if code == "not_found" => return,
            Outcome::Answered { code, status } => format!("{status} {}", code.as_deref().unwrap_or("without a code")),
            unanswered => {
                let begun = ended.checked_sub(attempt.took).unwrap_or(ended);
                if self.outages.touched(attempt.endpoint, zone, begun, ended) {
                    locked(&self.counts).unreachable += 1;
                    return;
                }
                format!("{} ({})", how(unanswered), attempt.endpoint.trim_start_matches("http://"))
            }
        };
        let mut counts = locked(&self.counts);
        let kinds = if attempt.is_write { &mut counts.writes_refused } else { &mut counts.reads_refused };
        *kinds.entry(kind).or_default() += 1;
    }

    /// A purchase is about to be put into its cart.
    pub fn trying(&self, purchase: &Purchase) {
        note(&self.tried, purchase);
    }

    /// Its write was acknowledged: from now on it must never be missing.
    pub fn acknowledged(&self, purchase: &Purchase) {
        note(&self.acknowledged, purchase);
        locked(&self.counts).updates += 1;
    }

    /// Nobody took its write: it may be there or not.
    pub fn given_up(&self) {
        locked(&self.counts).given_up += 1;
    }

    /// The cart could not be read before it was written.
    pub fn unread(&self) {
        locked(&self.counts).blind += 1;
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        locked(&self.counts).clone()
    }

    /// What must be there.
    pub fn must_hold(&self) -> Carts {
        locked(&self.acknowledged).clone()
    }

    /// Whether anybody ever tried to put `item` into the customer's cart.
    pub fn was_tried(&self, customer: &str, item: &str) -> bool {
        locked(&self.tried).get(customer).is_some_and(|items| items.contains(item))
    }
}

fn how(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered { .. } => "answered",
        Outcome::NoConnection => "no connection",
        Outcome::Broken => "broken off",
        Outcome::TimedOut => "timeout",
    }
}

fn note(carts: &Mutex<Carts>, purchase: &Purchase) {
    locked(carts).entry(purchase.customer.clone()).or_default().insert(purchase.item.clone());
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outages::Cause;

    fn answered(status: u16, code: Option<&str>) -> Outcome {
        Outcome::Answered { status, code: code.map(str::to_owned) }
    }

    fn counts_of(outage: bool, outcomes: &[Outcome]) -> Counts {
        let ledger = Ledger::new(Arc::default());
        if outage {
            ledger.outages.begin("http://a", &[0], Cause::Process);
        }
        for outcome in outcomes {
            let took = Duration::from_millis(1);
            let attempt = Attempt { endpoint: "http://a", is_write: true, outcome: outcome.clone(), took };
            ledger.attempted(0, &attempt);
        }
        ledger.counts()
    }

    #[test]
    fn each_answer_that_is_an_error_is_a_refusal_even_of_a_node_that_has_an_outage() {
        let outcomes = [
            answered(204, None),
            answered(404, Some("not_found")),
            answered(503, Some("unavailable")),
            answered(503, Some("unavailable")),
            answered(507, Some("disk_full")),
            answered(500, None),
        ];
        let refused = [("500 without a code", 1), ("503 unavailable", 2), ("507 disk_full", 1)];
        let refused: Kinds = refused.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect();
        for outage in [false, true] {
            assert_eq!(counts_of(outage, &outcomes), Counts { writes_refused: refused.clone(), ..Counts::default() });
        }
    }

    #[test]
    fn silence_is_a_refusal_unless_the_node_has_an_outage() {
        let outcomes = [Outcome::TimedOut, Outcome::Broken, Outcome::NoConnection];
        assert_eq!(counts_of(false, &outcomes).writes_refused.values().sum::<u64>(), 3);
        assert_eq!(counts_of(true, &outcomes), Counts { unreachable: 3, ..Counts::default() });
    }
}
