//! The record of a scenario's requests: how they went, and which adds were acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cart::purchases::Purchase;
use cartwheel_client::{Attempt, Outcome};

use crate::outages::Outages;
use crate::sides::{Cut, CutSide, Sides};
use crate::timing::{Phase, Stopwatch, Tails};

/// The number of failures of each kind.
pub type FailureCounts = BTreeMap<String, u64>;

/// The bucket and the customer of a cart.
pub type CartName = (&'static str, String);

/// The items of each cart.
pub type Carts = BTreeMap<CartName, BTreeSet<String>>;

/// The kind of client that makes a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requester {
    /// The zone of the client, counted from 0.
    pub zone: usize,
    /// Whether it makes strong requests.
    pub is_strong: bool,
}

/// The counts of a scenario.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Acknowledged updates of a cart.
    pub updates: u64,
    /// Updates that no node accepted.
    pub abandoned: u64,
    /// Updates that were written without a context, because the cart could not be read.
    pub blind: u64,
    /// Write requests that failed at a node that could be reached, by kind: those that failed with an error, and those without a response. They count
    /// even if another node then took the write.
    pub writes_refused: FailureCounts,
    /// The same for reads.
    pub reads_refused: FailureCounts,
    /// Requests without a response from a node that the scenario had made unreachable.
    pub unreachable: u64,
    /// Requests that failed with an error that the scenario excuses: the node's clock was off, or too few nodes were within reach.
    pub excused: u64,
    /// The strong requests on the two sides of a cut.
    pub sides: Sides,
}

/// The record that all clients share.
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
    /// An empty ledger. `outages` are those of the nodes that its clients use.
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

    /// Records that the network was just cut: clients in `zone` reach no majority of any key's homes.
    pub fn cut(&self, zone: usize) {
        *locked(&self.cut) = Some(Cut::begin(zone));
    }

    /// Records that the cut is about to be healed.
    pub fn heal(&self) {
        if let Some(cut) = &mut *locked(&self.cut) {
            cut.heal();
        }
    }

    fn cut_side(&self, requester: Requester, begun: Instant, ended: Instant) -> CutSide {
        let cut = *locked(&self.cut);
        cut.filter(|_| requester.is_strong).map_or(CutSide::Neither, |cut| cut.of(requester.zone, begun, ended))
    }

    /// Records an attempt that has just ended.
    pub fn record_attempt(&self, requester: Requester, attempt: &Attempt<'_>) {
        let ended = Instant::now();
        let begun = ended.checked_sub(attempt.took).unwrap_or(ended);
        let cut_side = self.cut_side(requester, begun, ended);
        let kind = kind_of(attempt);
        if self.count_on_side(cut_side, attempt.is_write, kind.is_none()) {
            return;
        }
        let Some(kind) = kind else { return };
        let mut counts = locked(&self.counts);
        let is_unanswered = !matches!(attempt.outcome, Outcome::Answered { .. });
        if is_unanswered && self.outages.overlaps(attempt.endpoint, requester.zone, begun, ended) {
            counts.unreachable += 1;
            return;
        }
        if self.outages.excused(Some(attempt.endpoint), begun, ended) {
            counts.excused += 1;
            return;
        }
        let kind = if requester.is_strong { format!("strong: {kind}") } else { kind };
        let counts_by_kind = if attempt.is_write { &mut counts.writes_refused } else { &mut counts.reads_refused };
        *counts_by_kind.entry(kind).or_default() += 1;
    }

    /// Counts a strong request while the network is cut. Returns whether it needs no further counting.
    fn count_on_side(&self, cut_side: CutSide, is_write: bool, was_answered: bool) -> bool {
        let sides = &mut locked(&self.counts).sides;
        match cut_side {
            CutSide::Neither => return false,
            CutSide::Majority => {
                sides.majority.count(is_write, was_answered);
                return false;
            }
            // The node may have carried it out before or after the cut.
            CutSide::PartlyMinority if was_answered => {}
            CutSide::Minority | CutSide::PartlyMinority => sides.minority.count(is_write, was_answered),
        }
        true
    }

    /// Records the time of a request with all its retries.
    pub fn record_latency(&self, is_write: bool, begun: Instant) {
        self.stopwatch.record(is_write, begun.elapsed());
    }

    /// Assigns the times from now on to `phase`.
    pub fn enter(&self, phase: Phase) {
        self.stopwatch.enter(phase);
    }

    /// The 99th percentiles of reads and of writes.
    pub fn tails(&self) -> (Tails, Tails) {
        self.stopwatch.tails()
    }

    /// Records that a purchase is about to be put into its cart in `bucket`.
    pub fn begin_add(&self, bucket: &'static str, purchase: &Purchase) {
        note(&self.tried, bucket, purchase);
    }

    /// Records that its write was acknowledged: from now on it must never be missing.
    pub fn acknowledge(&self, bucket: &'static str, purchase: &Purchase) {
        note(&self.acknowledged, bucket, purchase);
        locked(&self.counts).updates += 1;
    }

    /// Records a purchase that was stored before the scenario, and does not count as an update.
    pub fn preload(&self, bucket: &'static str, purchase: &Purchase) {
        note(&self.tried, bucket, purchase);
        note(&self.acknowledged, bucket, purchase);
    }

    /// Records an update, begun at `begun`, that no node accepted: its purchase may be in the cart or not.
    pub fn abandon(&self, requester: Requester, begun: Instant) {
        let now = Instant::now();
        if self.outages.excused(None, begun, now) {
            return;
        }
        match self.cut_side(requester, begun, now) {
            // It had to fail, and the failed request is counted already.
            CutSide::Minority | CutSide::PartlyMinority => {}
            CutSide::Majority | CutSide::Neither => locked(&self.counts).abandoned += 1,
        }
    }

    /// Records that the cart could not be read before it was written.
    pub fn record_blind(&self) {
        locked(&self.counts).blind += 1;
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        locked(&self.counts).clone()
    }

    /// The purchases that must be in the carts.
    pub fn must_hold(&self) -> Carts {
        locked(&self.acknowledged).clone()
    }

    /// Whether any client tried to put `item` into this cart.
    pub fn was_tried(&self, cart: &CartName, item: &str) -> bool {
        locked(&self.tried).get(cart).is_some_and(|items| items.contains(item))
    }
}

/// The kind of a failed attempt; `None` if it succeeded.
fn kind_of(attempt: &Attempt<'_>) -> Option<String> {
    match &attempt.outcome {
        Outcome::Answered { code: None, status: 200..=399 } => None,
        // For an absent key this is the correct response.
        Outcome::Answered { code: Some(code), status: 404 } if code == "not_found" => None,
        Outcome::Answered { code, status } => Some(format!("{status} {}", code.as_deref().unwrap_or("without a code"))),
        unanswered => Some(format!("{} ({})", failure(unanswered), attempt.endpoint.trim_start_matches("http://"))),
    }
}

fn failure(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered { .. } => "answered",
        Outcome::NoConnection => "no connection",
        Outcome::Broken => "connection broken",
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
            ledger.record_attempt(Requester { zone: 0, is_strong: false }, &attempt);
        }
        ledger.counts()
    }

    #[test]
    fn each_error_counts_as_a_refusal_even_during_an_outage() {
        let outcomes = [
            answered(204, None),
            answered(404, Some("not_found")),
            answered(503, Some("unavailable")),
            answered(503, Some("unavailable")),
            answered(507, Some("disk_full")),
            answered(500, None),
        ];
        let refused = [("500 without a code", 1), ("503 unavailable", 2), ("507 disk_full", 1)];
        let refused: FailureCounts = refused.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect();
        for outage in [false, true] {
            assert_eq!(counts_of(outage, &outcomes), Counts { writes_refused: refused.clone(), ..Counts::default() });
        }
    }

    #[test]
    fn a_missing_response_counts_as_a_refusal_except_during_an_outage() {
        let outcomes = [Outcome::TimedOut, Outcome::Broken, Outcome::NoConnection];
        assert_eq!(counts_of(false, &outcomes).writes_refused.values().sum::<u64>(), 3);
        assert_eq!(counts_of(true, &outcomes), Counts { unreachable: 3, ..Counts::default() });
    }

    #[test]
    fn a_minority_must_refuse_strong_requests_and_a_majority_must_not() {
        let ledger = Ledger::new(Arc::default());
        let attempted = |zone, is_strong, outcome| {
            let attempt = Attempt { endpoint: "http://a", is_write: true, outcome, took: Duration::ZERO };
            ledger.record_attempt(Requester { zone, is_strong }, &attempt);
        };
        ledger.cut(0);
        let refused = || answered(503, Some("unavailable"));
        for (zone, is_strong) in [(0, true), (1, true), (0, false)] {
            attempted(zone, is_strong, answered(204, None));
            attempted(zone, is_strong, refused());
        }
        ledger.abandon(Requester { zone: 0, is_strong: true }, Instant::now());
        ledger.abandon(Requester { zone: 1, is_strong: true }, Instant::now());
        ledger.heal();
        std::thread::sleep(Duration::from_millis(2));
        attempted(0, true, refused());
        let counts = ledger.counts();
        let one_of_each = crate::sides::Side { writes: 1, writes_refused: 1, ..Default::default() };
        assert_eq!(counts.sides, Sides { minority: one_of_each, majority: one_of_each });
        let refused: Vec<_> = counts.writes_refused.into_iter().collect();
        let kind = |kind: &str, count| (kind.to_owned(), count);
        assert_eq!(refused, [kind("503 unavailable", 1), kind("strong: 503 unavailable", 2)]);
        assert_eq!(counts.abandoned, 1);
    }
}
