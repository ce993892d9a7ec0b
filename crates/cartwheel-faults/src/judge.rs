//! The guarantees that must hold after each scenario, and their violations.

use std::time::Duration;

use crate::ledger::{Counts, FailureCounts};
use crate::proof::{CartCheck, Equality};
use crate::sides::Sides;

/// The number of items shown of a long list.
const SHOWN: usize = 3;

/// The limits that a scenario's result must keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The most write requests that may be refused.
    pub writes_refused_max: u64,
    /// The most updates that no node may have accepted.
    pub abandoned_max: u64,
    /// The most acknowledged adds that may be missing.
    pub adds_lost_max: usize,
    /// The time after the healing within which all replicas must become equal.
    pub equal_within: Duration,
}

/// The limits of every scenario: each leaves W nodes within every client's reach.
pub const EXPECTED: Expected =
    Expected { writes_refused_max: 0, abandoned_max: 0, adds_lost_max: 0, equal_within: Duration::from_secs(60) };

/// The result of a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The counts of the clients' requests.
    pub counts: Counts,
    /// The content of the carts at the end.
    pub found: CartCheck,
    /// Whether all replicas became equal.
    pub equality: Equality,
    /// The name of a node that ended without being stopped.
    pub died: Option<String>,
    /// Violations found during the scenario.
    pub problems: Vec<String>,
    /// Whether strong requests must have been refused on the minority side of a cut, and only there.
    pub was_cut: bool,
}

impl Outcome {
    /// The violations; empty if there are none.
    pub fn violations(&self, expected: &Expected) -> Vec<String> {
        let Self { counts, found, equality, died, problems, was_cut } = self;
        let mut violations = Vec::new();
        let mut check_limit = |count: u64, max: u64, what: &str, detail: String| {
            if count > max {
                violations.push(format!("{count} {what}, more than {max}: {detail}"));
            }
        };
        check_limit(
            total(&counts.writes_refused),
            expected.writes_refused_max,
            "refused writes",
            list_counts(&counts.writes_refused),
        );
        check_limit(counts.abandoned, expected.abandoned_max, "abandoned updates", "no node accepted them".to_owned());
        check_limit(found.missing.len() as u64, expected.adds_lost_max as u64, "lost adds", first_few(&found.missing));
        check_limit(found.invented.len() as u64, 0, "items that were never bought", first_few(&found.invented));
        check_limit(found.unreadable.len() as u64, 0, "carts that cannot be read", first_few(&found.unreadable));
        if let Equality::Not(output) = equality {
            violations.push(format!(
                "the replicas are not equal {} s after healing: {output}",
                expected.equal_within.as_secs()
            ));
        }
        if let Some(name) = died {
            violations.push(format!("{name} ended without being stopped"));
        }
        violations.extend(problems.iter().take(SHOWN).cloned());
        violations.extend(self::sides(&counts.sides, *was_cut));
        // Without writes there is nothing to lose.
        if counts.updates == 0 {
            violations.push("no update was acknowledged at all".to_owned());
        }
        violations
    }
}

/// The violation on one of the sides of a cut, if there is one.
fn sides(sides: &Sides, was_cut: bool) -> Option<String> {
    let Sides { minority, majority } = sides;
    if minority.reads + minority.writes > 0 {
        return Some(format!(
            "the minority side answered {} strong reads and {} strong writes",
            minority.reads, minority.writes
        ));
    }
    if was_cut && (minority.reads_refused == 0 || minority.writes_refused == 0) {
        return Some("the minority side refused no strong requests: it was not cut off".to_owned());
    }
    if was_cut && (majority.reads == 0 || majority.writes == 0) {
        return Some("the majority side answered no strong reads or no strong writes".to_owned());
    }
    None
}

/// The number of failures of all kinds.
pub fn total(counts_by_kind: &FailureCounts) -> u64 {
    counts_by_kind.values().sum()
}

/// The number of failures of each kind, as text.
pub fn list_counts(counts_by_kind: &FailureCounts) -> String {
    counts_by_kind.iter().map(|(kind, count)| format!("{count} x {kind}")).collect::<Vec<_>>().join(", ")
}

fn first_few(list: &[String]) -> String {
    let more = if list.len() > SHOWN { "; ..." } else { "" };
    list[..list.len().min(SHOWN)].join("; ") + more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sides::Side;

    fn good() -> Outcome {
        let counts = Counts { updates: 7, unreachable: 3, blind: 2, ..Counts::default() };
        let equality = Equality::After(Duration::from_secs(1));
        let found = CartCheck { carts: 5, ..CartCheck::default() };
        Outcome { counts, found, equality, died: None, problems: Vec::new(), was_cut: false }
    }

    #[test]
    fn a_good_outcome_has_no_violations() {
        let mut outcome = good();
        assert_eq!(outcome.violations(&EXPECTED), [""; 0]);
        outcome.counts.reads_refused.insert("503 unverified".to_owned(), 9);
        assert_eq!(outcome.violations(&EXPECTED), [""; 0], "reads may be refused");
    }

    #[test]
    fn each_defect_is_a_violation() {
        let defects: [fn(&mut Outcome); 10] = [
            |outcome| outcome.counts.updates = 0,
            |outcome| outcome.counts.abandoned = 1,
            |outcome| *outcome.counts.writes_refused.entry("503 unavailable".to_owned()).or_default() += 1,
            |outcome| outcome.found.missing.push("customer 1: CD".to_owned()),
            |outcome| outcome.found.invented.push("customer 1: CD".to_owned()),
            |outcome| outcome.found.unreadable.push("customer 1".to_owned()),
            |outcome| outcome.equality = Equality::Not("3 keys differ".to_owned()),
            |outcome| outcome.died = Some("node-1".to_owned()),
            |outcome| outcome.problems.push("partition 1 is still in transfer".to_owned()),
            |outcome| outcome.counts.sides.minority.reads = 1,
        ];
        for defect in defects {
            let mut outcome = good();
            defect(&mut outcome);
            assert_eq!(outcome.violations(&EXPECTED).len(), 1, "{outcome:?}");
        }
    }

    #[test]
    fn a_cut_must_stop_strong_requests_on_the_minority_side_only() {
        let mut outcome = good();
        outcome.was_cut = true;
        outcome.counts.sides.minority = Side { reads_refused: 1, writes_refused: 1, ..Side::default() };
        outcome.counts.sides.majority = Side { reads: 1, writes: 1, ..Side::default() };
        assert_eq!(outcome.violations(&EXPECTED), [""; 0]);
        let defects: [fn(&mut Sides); 6] = [
            |sides| sides.minority.reads = 1,
            |sides| sides.minority.writes = 1,
            |sides| sides.minority.reads_refused = 0,
            |sides| sides.minority.writes_refused = 0,
            |sides| sides.majority.reads = 0,
            |sides| sides.majority.writes = 0,
        ];
        for defect in defects {
            let mut defective = outcome.clone();
            defect(&mut defective.counts.sides);
            assert_eq!(defective.violations(&EXPECTED).len(), 1, "{defective:?}");
        }
    }
}
