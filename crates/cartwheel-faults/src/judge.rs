//! What must hold after each scenario, and whether it does.

use std::time::Duration;

use crate::ledger::{Counts, Kinds};
use crate::proof::{Equality, Found};

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
}

impl Outcome {
    /// What is not as it should be: nothing, if all is well.
    pub fn complaints(&self, expected: &Expected) -> Vec<String> {
        let Self { counts, found, equality, died } = self;
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
        // Nothing was lost where nothing was written.
        if counts.updates == 0 {
            complaints.push("no update was acknowledged at all".to_owned());
        }
        complaints
    }
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
    const SHOWN: usize = 3;
    let more = if list.len() > SHOWN { "; ..." } else { "" };
    list[..list.len().min(SHOWN)].join("; ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Outcome {
        let counts = Counts { updates: 7, unreachable: 3, blind: 2, ..Counts::default() };
        let equality = Equality::After(Duration::from_secs(1));
        Outcome { counts, found: Found { carts: 5, ..Found::default() }, equality, died: None }
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
        let spoils: [fn(&mut Outcome); 8] = [
            |outcome| outcome.counts.updates = 0,
            |outcome| outcome.counts.given_up = 1,
            |outcome| *outcome.counts.writes_refused.entry("503 unavailable".to_owned()).or_default() += 1,
            |outcome| outcome.found.missing.push("customer 1: CD".to_owned()),
            |outcome| outcome.found.invented.push("customer 1: CD".to_owned()),
            |outcome| outcome.found.unreadable.push("customer 1".to_owned()),
            |outcome| outcome.equality = Equality::Not("3 keys differ".to_owned()),
            |outcome| outcome.died = Some("node-1".to_owned()),
        ];
        for spoil in spoils {
            let mut outcome = good();
            spoil(&mut outcome);
            assert_eq!(outcome.complaints(&EXPECTED).len(), 1, "{outcome:?}");
        }
    }
}
