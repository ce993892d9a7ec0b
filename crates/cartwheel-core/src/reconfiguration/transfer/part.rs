//! One part of a partition in transfer. Its pages are fetched one after another, each from one home.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::message::anti_entropy::KeyRange;
use crate::value::dot::NodeId;
use crate::value::time::Instant;
use crate::value::token::Token;

/// A part of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// The range that has not been fetched.
    pub left: KeyRange,
    pub stage: Stage,
}

/// The state of a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Nothing is requested before `until`. The home that has `failed` last is the last choice for the next request.
    Idle { until: Instant, failed: Option<NodeId> },
    /// A page was requested.
    Requested { operation: u64, from: NodeId, tries: u32, again_at: Instant },
    /// A page has arrived, and its records are being stored.
    Storing { operation: u64, from: NodeId, waiting: BTreeSet<u32>, has_failed: bool, next: Option<Bytes> },
}

impl Part {
    pub const fn of(left: KeyRange) -> Self {
        Self { left, stage: Stage::Idle { until: Instant(0), failed: None } }
    }

    /// The home from which a page was requested.
    pub const fn source(&self) -> Option<NodeId> {
        match self.stage {
            Stage::Idle { .. } => None,
            Stage::Requested { from, .. } | Stage::Storing { from, .. } => Some(from),
        }
    }

    /// Whether the part waits for this operation.
    pub const fn is_at(&self, id: u64) -> bool {
        match self.stage {
            Stage::Idle { .. } => false,
            Stage::Requested { operation, .. } | Stage::Storing { operation, .. } => operation == id,
        }
    }

    /// When the next timer is due.
    pub const fn wake_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Idle { until, .. } => Some(until),
            Stage::Requested { again_at, .. } => Some(again_at),
            Stage::Storing { .. } => None,
        }
    }

    /// Halves the remaining range by tokens, keeps the first half and returns the second; none if it is too small.
    pub fn split(&mut self) -> Option<Self> {
        let position = |key: &Bytes| key.first_chunk::<16>().map(|token| u128::from_be_bytes(*token));
        let from = position(&self.left.from)?;
        let upto = match &self.left.upto {
            Some(upto) => position(upto)?,
            None => u128::MAX,
        };
        let middle = Bytes::copy_from_slice(&Token::new(from + upto.checked_sub(from)? / 2).to_bytes());
        if middle <= self.left.from || !self.left.ends_after(&middle) {
            return None;
        }
        let rest = KeyRange { from: middle.clone(), upto: self.left.upto.replace(middle) };
        Some(Self::of(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(position: u128) -> Bytes {
        Bytes::copy_from_slice(&position.to_be_bytes())
    }

    #[test]
    fn halves_meet_and_leave_nothing_out() {
        let mut part = Part::of(KeyRange { from: key(10), upto: Some(key(21)) });
        let rest = part.split().expect("two halves");
        assert_eq!(part.left, KeyRange { from: key(10), upto: Some(key(15)) });
        assert_eq!(rest.left, KeyRange { from: key(15), upto: Some(key(21)) });
        let mut last = Part::of(KeyRange { from: key(1 << 127), upto: None });
        assert_eq!(last.split().map(|rest| rest.left.upto), Some(None));
        // The range of a single token cannot be split.
        let within = [key(7).as_ref(), b"key"].concat().into();
        assert_eq!(Part::of(KeyRange { from: within, upto: Some(key(8)) }).split(), None);
        assert_eq!(Part::of(KeyRange { from: key(9), upto: Some(key(8)) }).split(), None);
    }
}
