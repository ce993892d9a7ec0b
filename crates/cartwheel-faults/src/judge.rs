//! What must hold after each scenario, and whether it does.

use std::time::Duration;

use crate::ledger::{Counts, Kinds};
use crate::proof::{Equality, Found};
use crate::sides::Sides;

/// How much is shown of a list that may be long.
const SHOWN: usize = 3;

/// What must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// At most so many requests to write are refused.
    pub writes_refused_max: u64,
    /// At most so many updates are given up.
    pub given_up_max: u64,
    /// At most so many acknowledged adds are missing.
    pub adds_lost_max: usize,
    /// So long after the healing all replicas are equal.
    pub equal_within: Duration,
}

/// Of every scenario, for each leaves W nodes within every client's reach.
pub const EXPECTED: Expected =
    Expected { writes_refused_max: 0, given_up_max: 0, adds_lost_max: 0, equal_within: Duration::from_secs(60) };

/// What came of a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What the clients met.
    pub counts: Counts,
    /// What is there in the end.
    pub found: Found,
    /// Whether all replicas became equal.
    pub equality: Equality,
    /// A node that ended by itself.
    pub died: Option<String>,
    /// What is not where it should be.
    pub trouble: Vec<String>,
    /// Whether strong requests must have been refused on the smaller side of a cut, and on that alone.
    pub was_cut: bool,
}

impl Outcome {
    /// What is not as it should be: nothing, if all is well.
    pub fn complaints(&self, expected: &Expected) -> Vec<String> {
        let Self { counts, found, equality, died, trouble, was_cut } = self;
        let mut complaints = Vec::new();
        let mut complain = |count: u64, max: u64, what: &str, detail: String| {
            if count > max {
                complaints.push(format!("{count} {what}, not {max}: {detail}"));
            }
        };
        complain(
            total(&counts.writes_refused),
            expected.writes_refused_max,
            "refused writes",
            listed(&counts.writes_refused),
        );
        complain(counts.given_up, expected.given_up_max, "updates given up", "no node took them".to_owned());
        complain(found.missing.len() as u64, expected.adds_lost_max as u64, "lost adds", some(&found.missing));
        complain(found.invented.len() as u64, 0, "items that nobody bought", some(&found.invented));
        complain(found.unreadable.len() as u64, 0, "carts that cannot be read", some(&found.unreadable));
        if let Equality::Not(said) = equality {
            complaints.push(format!(
                "the replicas are not equal {} s after healing: {said}",
                expected.equal_within.as_secs()
            ));
        }
        if let Some(name) = died {
            complaints.push(format!("{name} ended by itself"));
        }
        complaints.extend(trouble.iter().take(SHOWN).cloned());
        complaints.extend(self::sides(&counts.sides, *was_cut));
        // Nothing was lost where nothing was written.
        if counts.updates == 0 {
            complaints.push("no update was acknowledged at all".to_owned());
        }
        complaints
    }
}

/// What is wrong about the two sides of a cut.
fn sides(sides: &Sides, was_cut: bool) -> Option<String> {
    let Sides { minority, majority } = sides;
    if minority.reads + minority.writes > 0 {
        return Some(format!(
            "the side without a majority answered {} strong reads and {} strong writes",
            minority.reads, minority.writes
        ));
    }
    if was_cut && (minority.reads_refused == 0 || minority.writes_refused == 0) {
        return Some("the side without a majority refused no strong requests: it was not cut off".to_owned());
    }
    if was_cut && (majority.reads == 0 || majority.writes == 0) {
        return Some("no strong requests went on where the majority is".to_owned());
    }
    None
}

/// How many there are of all kinds together.
pub fn total(kinds: &Kinds) -> u64 {
    kinds.values().sum()
}

/// The kinds, and how many there are of each.
pub fn listed(kinds: &Kinds) -> String {
    kinds.iter().map(|(kind, count)| format!("{count} x {kind}")).collect::<Vec<_>>().join(", ")
}

/// The first few of a list that may be long.
fn some(list: &[String]) -> String {
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
        let found = Found { carts: 5, ..Found::default() };
        Outcome { counts, found, equality, died: None, trouble: Vec::new(), was_cut: false }
    }

    #[test]
    fn what_is_well_is_not_complained_of() {
        let mut outcome = good();
        assert_eq!(outcome.complaints(&EXPECTED), [""; 0]);
        outcome.counts.reads_refused.insert("503 unverified".to_owned(), 9);
        assert_eq!(outcome.complaints(&EXPECTED), [""; 0], "reads may be refused");
    }

    #[test]
    fn each_fault_is_complained_of() {
        let spoils: [fn(&mut Outcome); 10] = [
            |outcome| outcome.counts.updates = 0,
            |outcome| outcome.counts.given_up = 1,
            |outcome| *outcome.counts.writes_refused.entry("503 unavailable".to_owned()).or_default() += 1,
            |outcome| outcome.found.missing.push("customer 1: CD".to_owned()),
            |outcome| outcome.found.invented.push("customer 1: CD".to_owned()),
            |outcome| outcome.found.unreadable.push("customer 1".to_owned()),
            |outcome| outcome.equality = Equality::Not("3 keys differ".to_owned()),
            |outcome| outcome.died = Some("node-1".to_owned()),
            |outcome| outcome.trouble.push("partition 1 is on its way still".to_owned()),
            |outcome| outcome.counts.sides.minority.reads = 1,
        ];
        for spoil in spoils {
            let mut outcome = good();
            spoil(&mut outcome);
            assert_eq!(outcome.complaints(&EXPECTED).len(), 1, "{outcome:?}");
        }
    }

    #[test]
    fn a_cut_must_be_felt_on_the_smaller_side_alone() {
        let mut outcome = good();
        outcome.was_cut = true;
        outcome.counts.sides.minority = Side { reads_refused: 1, writes_refused: 1, ..Side::default() };
        outcome.counts.sides.majority = Side { reads: 1, writes: 1, ..Side::default() };
        assert_eq!(outcome.complaints(&EXPECTED), [""; 0]);
        let spoils: [fn(&mut Sides); 6] = [
            |sides| sides.minority.reads = 1,
            |sides| sides.minority.writes = 1,
            |sides| sides.minority.reads_refused = 0,
            |sides| sides.minority.writes_refused = 0,
            |sides| sides.majority.reads = 0,
            |sides| sides.majority.writes = 0,
        ];
        for spoil in spoils {
            let mut spoilt = outcome.clone();
            spoil(&mut spoilt.counts.sides);
            assert_eq!(spoilt.complaints(&EXPECTED).len(), 1, "{spoilt:?}");
        }
    }
}
