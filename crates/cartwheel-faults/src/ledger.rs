//! What the clients of a scenario did, and what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cart::purchases::Purchase;
use cartwheel_client::{Attempt, Outcome};

use crate::outages::Outages;
use crate::sides::{Cut, Sides, Whereabouts};
use crate::timing::{Phase, Stopwatch, Tails};

/// So many of each kind of failure.
pub type Kinds = BTreeMap<String, u64>;

/// A cart: its bucket, and its customer.
pub type CartName = (&'static str, String);

/// Each cart's items.
pub type Carts = BTreeMap<CartName, BTreeSet<String>>;

/// Who makes a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// The client's zone.
    pub zone: usize,
    /// Whether it makes strong requests.
    pub is_strong: bool,
}

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
    /// Requests that were answered with an error when the scenario had made that right: the node's clock was off, or too few nodes were
    /// within reach.
    pub excused: u64,
    /// How strong requests went on the two sides of a cut.
    pub sides: Sides,
}

/// The clients' common ledger.
#[derive(Debug)]
pub struct Ledger {
    outages: Arc<Outages>,
    counts: Mutex<Counts>,
    tried: Mutex<Carts>,
    acknowledged: Mutex<Carts>,
    cut: Mutex<Option<Cut>>,
    stopwatch: Stopwatch,
}

impl Ledger {
    /// An empty one of clients for whom nodes may have outages.
    pub fn new(outages: Arc<Outages>) -> Self {
        Self {
            outages,
            counts: Mutex::default(),
            tried: Mutex::default(),
            acknowledged: Mutex::default(),
            cut: Mutex::default(),
            stopwatch: Stopwatch::default(),
        }
    }

    /// The network was just cut: clients in `zone` reach no majority of any key's homes.
    pub fn cut(&self, zone: usize) {
        *locked(&self.cut) = Some(Cut::begin(zone));
    }

    /// It is about to be healed.
    pub fn heal(&self) {
        if let Some(cut) = &mut *locked(&self.cut) {
            cut.heal();
        }
    }

    fn whereabouts(&self, asker: Asker, begun: Instant, ended: Instant) -> Whereabouts {
        let cut = *locked(&self.cut);
        cut.filter(|_| asker.is_strong).map_or(Whereabouts::Elsewhen, |cut| cut.of(asker.zone, begun, ended))
    }

    /// Takes down how a request went, which has just ended.
    pub fn attempted(&self, asker: Asker, attempt: &Attempt<'_>) {
        let ended = Instant::now();
        let begun = ended.checked_sub(attempt.took).unwrap_or(ended);
        let whereabouts = self.whereabouts(asker, begun, ended);
        let kind = kind_of(attempt);
        if self.counted_on_a_side(whereabouts, attempt.is_write, kind.is_none()) {
            return;
        }
        let Some(kind) = kind else { return };
        let mut counts = locked(&self.counts);
        let is_silent = !matches!(attempt.outcome, Outcome::Answered { .. });
        if is_silent && self.outages.touched(attempt.endpoint, asker.zone, begun, ended) {
            counts.unreachable += 1;
            return;
        }
        if self.outages.excused(Some(attempt.endpoint), begun, ended) {
            counts.excused += 1;
            return;
        }
        let kind = if asker.is_strong { format!("strong: {kind}") } else { kind };
        let kinds = if attempt.is_write { &mut counts.writes_refused } else { &mut counts.reads_refused };
        *kinds.entry(kind).or_default() += 1;
    }

    /// Counts a strong request while the network is cut; says whether that is all that is to be said of it.
    fn counted_on_a_side(&self, whereabouts: Whereabouts, is_write: bool, was_answered: bool) -> bool {
        let sides = &mut locked(&self.counts).sides;
        match whereabouts {
            Whereabouts::Elsewhen => return false,
            Whereabouts::Majority => {
                sides.majority.count(is_write, was_answered);
                return false;
            }
            // Its answer may come from before or after the cut.
            Whereabouts::PartlyMinority if was_answered => {}
            Whereabouts::Minority | Whereabouts::PartlyMinority => sides.minority.count(is_write, was_answered),
        }
        true
    }

    /// A client's request has ended, with all its retries.
    pub fn took(&self, is_write: bool, begun: Instant) {
        self.stopwatch.took(is_write, begun.elapsed());
    }

    /// From now on the clients' waiting counts for this part.
    pub fn enter(&self, phase: Phase) {
        self.stopwatch.enter(phase);
    }

    /// The 99th percentiles of reads, and of writes.
    pub fn tails(&self) -> (Tails, Tails) {
        self.stopwatch.tails()
    }

    /// A purchase is about to be put into its cart in `bucket`.
    pub fn trying(&self, bucket: &'static str, purchase: &Purchase) {
        note(&self.tried, bucket, purchase);
    }

    /// Its write was acknowledged: from now on it must never be missing.
    pub fn acknowledged(&self, bucket: &'static str, purchase: &Purchase) {
        note(&self.acknowledged, bucket, purchase);
        locked(&self.counts).updates += 1;
    }

    /// The same of what was there before the scenario began, and is no update.
    pub fn stocked(&self, bucket: &'static str, purchase: &Purchase) {
        note(&self.tried, bucket, purchase);
        note(&self.acknowledged, bucket, purchase);
    }

    /// Nobody took its write, which was begun at this time: it may be there or not.
    pub fn given_up(&self, asker: Asker, begun: Instant) {
        let now = Instant::now();
        if self.outages.excused(None, begun, now) {
            return;
        }
        match self.whereabouts(asker, begun, now) {
            // That is how it should be, and counted by the request.
            Whereabouts::Minority | Whereabouts::PartlyMinority => {}
            Whereabouts::Majority | Whereabouts::Elsewhen => locked(&self.counts).given_up += 1,
        }
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

    /// Whether anybody ever tried to put `item` into a cart.
    pub fn was_tried(&self, cart: &CartName, item: &str) -> bool {
        locked(&self.tried).get(cart).is_some_and(|items| items.contains(item))
    }
}

/// What kind of failure it was, if it was one.
fn kind_of(attempt: &Attempt<'_>) -> Option<String> {
    match &attempt.outcome {
        Outcome::Answered { code: None, status: 200..=399 } => None,
        // A key that is absent was answered as it should be.
        Outcome::Answered { code: Some(code), status: 404 } if code == "not_found" => None,
        Outcome::Answered { code, status } => Some(format!("{status} {}", code.as_deref().unwrap_or("without a code"))),
        unanswered => Some(format!("{} ({})", how(unanswered), attempt.endpoint.trim_start_matches("http://"))),
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

fn note(carts: &Mutex<Carts>, bucket: &'static str, purchase: &Purchase) {
    locked(carts).entry((bucket, purchase.customer.clone())).or_default().insert(purchase.item.clone());
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
            ledger.attempted(Asker { zone: 0, is_strong: false }, &attempt);
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

    #[test]
    fn a_minority_must_refuse_strong_requests_and_a_majority_must_not() {
        let ledger = Ledger::new(Arc::default());
        let attempted = |zone, is_strong, outcome| {
            let attempt = Attempt { endpoint: "http://a", is_write: true, outcome, took: Duration::ZERO };
            ledger.attempted(Asker { zone, is_strong }, &attempt);
        };
        ledger.cut(0);
        let refused = || answered(503, Some("unavailable"));
        for (zone, is_strong) in [(0, true), (1, true), (0, false)] {
            attempted(zone, is_strong, answered(204, None));
            attempted(zone, is_strong, refused());
        }
        ledger.given_up(Asker { zone: 0, is_strong: true }, Instant::now());
        ledger.given_up(Asker { zone: 1, is_strong: true }, Instant::now());
        ledger.heal();
        std::thread::sleep(Duration::from_millis(2));
        attempted(0, true, refused());
        let counts = ledger.counts();
        let one_of_each = crate::sides::Side { writes: 1, writes_refused: 1, ..Default::default() };
        assert_eq!(counts.sides, Sides { minority: one_of_each, majority: one_of_each });
        let refused: Vec<_> = counts.writes_refused.into_iter().collect();
        let kind = |kind: &str, count| (kind.to_owned(), count);
        assert_eq!(refused, [kind("503 unavailable", 1), kind("strong: 503 unavailable", 2)]);
        assert_eq!(counts.given_up, 1);
    }
}
