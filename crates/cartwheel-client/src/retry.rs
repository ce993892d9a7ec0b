//! When a failed request is sent again, to which node, and how often: enough to outlast the death of a node, and too little to keep an overloaded
//! cluster overloaded.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::Cause;

/// The most repetitions of a request that reached a node.
const REPEATS_MAX: u32 = 3;
/// The most attempts at each endpoint while no node can be reached.
const ROUNDS: u32 = 3;
/// The longest pause before the first repetition. It doubles with each further one, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The cost of a repetition. A request earns 1, so a tenth of the requests may be repeated.
const COST: u32 = 10;
/// The number of repetitions that a budget holds at most.
const BURST: u32 = 10;

/// The extra requests (retries, or hedges) that all clones of a client share: a bounded part of its requests. Where many requests fail, most are
/// not retried: the retries would keep the cluster from recovering.
#[derive(Debug)]
pub(crate) struct Budget {
    saved: AtomicU32,
    /// The cost of an extra request. A request earns 1.
    cost: u32,
    saved_max: u32,
}

impl Budget {
    /// The budget of retries. It begins full, so that the first requests can be repeated.
    pub(crate) fn of_retries() -> Self {
        Self { saved: AtomicU32::new(BURST * COST), ..Self::empty(COST, BURST) }
    }

    /// An empty budget in which `cost` requests earn an extra one, and which saves up to `burst` of them.
    pub(crate) const fn empty(cost: u32, burst: u32) -> Self {
        Self { saved: AtomicU32::new(0), cost, saved_max: cost * burst }
    }

    /// Counts a request that is sent for the first time.
    pub(crate) fn earn(&self) {
        let more = |saved| (saved < self.saved_max).then_some(saved + 1);
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes the cost of an extra request, if the budget has it.
    pub(crate) fn spend(&self) -> bool {
        let less = |saved: u32| saved.checked_sub(self.cost);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// The attempts at one request.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    budget: &'a Budget,
    /// When the request must have ended.
    deadline: Option<Instant>,
    /// The longest `Retry-After` that is waited for.
    patience: Duration,
    /// For each endpoint, the end of its `Retry-After`.
    busy_until: Vec<Option<Instant>>,
    at: usize,
    attempts: u32,
    repeats: u32,
    pauses: u32,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Make another attempt after this pause.
    After(Duration),
    /// Report the failure.
    GiveUp,
}

impl<'a> Tries<'a> {
    /// Attempts at `endpoints` nodes, beginning with number `first`. A node whose `Retry-After` exceeds `patience` is not waited for.
    pub(crate) fn new(
        budget: &'a Budget,
        endpoints: usize,
        first: usize,
        patience: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        budget.earn();
        let busy_until = vec![None; endpoints];
        Self { budget, deadline, patience, busy_until, at: first, attempts: 0, repeats: 0, pauses: 0 }
    }

    /// The endpoint to try.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// The number of failed attempts.
    pub(crate) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether there are other endpoints that were not tried yet.
    pub(crate) fn has_untried(&self) -> bool {
        (self.attempts as usize) + 1 < self.busy_until.len()
    }

    /// The time until the deadline; `None` if there is none.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Records a failed attempt. `random`, from 0 to 1, scales the pause.
    pub(crate) fn failed(&mut self, cause: Cause, retry_after: Option<Duration>, random: f64) -> Next {
        let now = Instant::now();
        self.attempts += 1;
        self.busy_until[self.at] = retry_after.and_then(|retry_after| now.checked_add(retry_after));
        let count = self.busy_until.len();
        // An unreachable node says nothing about the others, and attempts at it cost the cluster no work.
        let is_free = cause == Cause::Unreachable;
        if is_free && self.attempts >= ROUNDS * count as u32 {
            return Next::GiveUp;
        }
        if !is_free && (self.repeats == REPEATS_MAX || !self.budget.spend()) {
            return Next::GiveUp;
        }
        self.repeats += u32::from(!is_free);
        let mut pause = Duration::ZERO;
        if !is_free || (self.attempts as usize).is_multiple_of(count) {
            pause = PAUSE.saturating_mul(1 << self.pauses.min(8)).min(PAUSE_MAX).mul_f64(random);
            self.pauses += 1;
        }
        let wait = |at: usize| self.busy_until[at].map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let others = (1..=count).map(|step| (self.at + step) % count);
        let Some((busy, at)) = others.map(|at| (wait(at), at)).min_by_key(|&(busy, _)| busy) else {
            return Next::GiveUp;
        };
        // The random pause is added, so that clients with one `Retry-After` do not return together.
        let pause = busy + pause;
        let too_long = busy > self.patience || self.deadline.is_some_and(|deadline| now + pause >= deadline);
        if too_long {
            return Next::GiveUp;
        }
        self.at = at;
        Next::After(pause)
    }
}

/// A number from 0 to 1; 1 if the system provides no randomness.
pub(crate) fn random() -> f64 {
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tries(budget: &Budget, endpoints: usize) -> Tries<'_> {
        Tries::new(budget, endpoints, 0, 5 * SECOND, None)
    }

    /// The longest pauses before each repetition, until the request fails.
    fn pauses(mut tries: Tries<'_>, cause: Cause) -> Vec<u128> {
        std::iter::from_fn(|| match tries.failed(cause, None, 1.0) {
            Next::After(pause) => Some(pause.as_millis()),
            Next::GiveUp => None,
        })
        .collect()
    }

    #[test]
    fn pauses_grow_until_the_request_fails() {
        let budget = Budget::of_retries();
        assert_eq!(pauses(tries(&budget, 3), Cause::Overloaded), [100, 200, 400]);
        assert_eq!(pauses(tries(&budget, 3), Cause::Unreachable), [0, 0, 100, 0, 0, 200, 0, 0]);
        let mut jittered = tries(&budget, 3);
        assert_eq!(jittered.failed(Cause::Overloaded, None, 0.25), Next::After(PAUSE / 4));
    }

    #[test]
    fn at_most_a_tenth_of_failing_requests_is_repeated() {
        let budget = Budget::of_retries();
        let repeated: usize = (0..1_000).map(|_| pauses(tries(&budget, 3), Cause::TooFewReplicas).len()).sum();
        assert!((100..=110).contains(&repeated), "{repeated}");
        assert_eq!(pauses(tries(&budget, 1), Cause::Unreachable).len(), 2, "an unreachable node costs nothing");
    }

    #[test]
    fn a_retry_after_is_kept_and_other_nodes_are_tried_meanwhile() {
        let budget = Budget::of_retries();
        let mut two = tries(&budget, 2);
        assert_eq!(two.failed(Cause::Overloaded, Some(3 * SECOND), 0.0), Next::After(Duration::ZERO));
        assert_eq!(two.at(), 1);
        let Next::After(pause) = two.failed(Cause::Overloaded, Some(SECOND), 0.0) else { panic!("no further attempt") };
        assert_eq!(two.at(), 1, "its Retry-After ends first");
        assert!(pause <= SECOND && pause > SECOND / 2);

        let mut one = tries(&budget, 1);
        assert_eq!(one.failed(Cause::Overloaded, Some(60 * SECOND), 0.0), Next::GiveUp, "longer than the patience");
        let soon = Some(Instant::now() + SECOND);
        let mut hurried = Tries::new(&budget, 1, 0, 5 * SECOND, soon);
        assert_eq!(hurried.failed(Cause::Overloaded, Some(2 * SECOND), 0.0), Next::GiveUp, "after the deadline");
    }
}
