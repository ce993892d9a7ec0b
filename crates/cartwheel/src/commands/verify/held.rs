//! The contents of a key's replicas, and their comparison.

use cartwheel_client::{DigestProblem, HeldRecord};
use serde::{Serialize, Serializer};

/// The contents that one node holds for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// Contents with this digest; zero for a record without contents.
    Content(u128),
    /// No record.
    Absent,
    /// A record that differs from what was written to disk.
    Damaged,
    /// The disk cannot read the record.
    Unreadable,
    /// The node does not answer.
    Unreachable,
}

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// The comparison of all homes of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// All homes hold the same contents.
    Equal,
    /// The reachable homes hold the same contents.
    Unverified,
    /// Two homes hold different contents, or a home cannot read its record.
    Different,
}

impl Held {
    /// Parses a node's report of a record; none if it is malformed.
    pub(super) fn of(record: &HeldRecord) -> Option<Self> {
        match (&record.digest, record.problem) {
            (Some(digest), None) if digest.len() == 32 => u128::from_str_radix(digest, 16).ok().map(Self::Content),
            (None, Some(DigestProblem::Damaged)) => Some(Self::Damaged),
            (None, Some(DigestProblem::Unreadable)) => Some(Self::Unreadable),
            _ => None,
        }
    }

    /// The contents, if they are known. A record without contents equals an absent record.
    fn content(self) -> Option<u128> {
        match self {
            Self::Content(digest) => Some(digest),
            Self::Absent => Some(0),
            Self::Damaged | Self::Unreadable | Self::Unreachable => None,
        }
    }

    /// Whether the node answered and holds contents, readable or not.
    pub(super) fn has_contents(self) -> bool {
        !matches!(self, Self::Unreachable) && self.content() != Some(0)
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Content(0) => "empty".to_owned(),
            Self::Content(digest) => format!("{digest:032x}"),
            Self::Absent => "absent".to_owned(),
            Self::Damaged => "damaged".to_owned(),
            Self::Unreadable => "unreadable".to_owned(),
            Self::Unreachable => "unreachable".to_owned(),
        }
    }
}

/// Compares the homes of a key.
pub(super) fn compare(held: &[Held]) -> Verdict {
    let mut read = held.iter().filter(|held| **held != Held::Unreachable).map(|held| held.content());
    let first = read.next();
    if first == Some(None) || read.any(|content| Some(content) != first) {
        Verdict::Different
    } else if held.contains(&Held::Unreachable) {
        Verdict::Unverified
    } else {
        Verdict::Equal
    }
}

/// Whether every home has changed between two reads. The key is then being written, and a difference at one moment proves nothing.
pub(super) fn all_changed(before: &[Held], now: &[Held]) -> bool {
    before.iter().zip(now).all(|(before, now)| {
        let (before, now) = (before.content(), now.content());
        before.is_some() && now.is_some() && before != now
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Held = Held::Content(1);
    const B: Held = Held::Content(2);
    const EMPTY: Held = Held::Content(0);

    #[test]
    fn keys_are_equal_only_if_all_homes_hold_the_same() {
        use Held::{Absent, Damaged, Unreachable, Unreadable};
        for (held, verdict) in [
            (&[A, A, A][..], Verdict::Equal),
            (&[], Verdict::Equal),
            (&[EMPTY, Absent], Verdict::Equal),
            (&[Absent, Absent], Verdict::Equal),
            (&[A, Unreachable, A], Verdict::Unverified),
            (&[Unreachable], Verdict::Unverified),
            (&[A, Absent, A], Verdict::Different),
            (&[A, B], Verdict::Different),
            (&[Unreachable, A, B], Verdict::Different),
            (&[Damaged, Damaged], Verdict::Different),
            (&[A, Damaged], Verdict::Different),
            (&[Unreadable], Verdict::Different),
            (&[Unreachable, Damaged], Verdict::Different),
        ] {
            assert_eq!(compare(held), verdict, "{held:?}");
        }
    }

    #[test]
    fn a_home_that_has_not_changed_is_not_being_written() {
        assert!(all_changed(&[A, B], &[B, A]));
        assert!(!all_changed(&[A, B], &[B, B]));
        assert!(!all_changed(&[Held::Absent, A], &[EMPTY, B]));
        assert!(!all_changed(&[Held::Damaged, A], &[A, B]));
    }

    #[test]
    fn reports_of_nodes_are_parsed_or_refused() {
        let record = |digest: Option<&str>, problem| HeldRecord {
            storage_key: String::new(),
            n: 3,
            home: true,
            digest: digest.map(str::to_owned),
            problem,
            bytes: 0,
        };
        assert_eq!(Held::of(&record(Some("00000000000000000000000000000002"), None)), Some(B));
        assert_eq!(Held::of(&record(None, Some(DigestProblem::Damaged))), Some(Held::Damaged));
        assert_eq!(Held::of(&record(None, Some(DigestProblem::Unreadable))), Some(Held::Unreadable));
        for digest in [None, Some(""), Some("2"), Some("0000000000000000000000000000000x")] {
            assert_eq!(Held::of(&record(digest, None)), None);
        }
    }
}
