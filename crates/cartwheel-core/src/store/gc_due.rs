//! Index entries of records that are due for garbage collection.

use bytes::Bytes;

use crate::value::epoch::Epoch;
use crate::value::hlc::WallMs;

/// The first byte of an entry, by kind.
const EPOCH_MARK: u8 = b'r';

const WALL_MARK: u8 = b'x';

const HEAD_BYTES: usize = 9;

/// The storage key of an entry; `None` if the entry is not of this kind.
pub fn parse(entry: &Bytes) -> Option<Bytes> {
    let &mark = entry.first()?;
    (matches!(mark, EPOCH_MARK | WALL_MARK) && entry.len() >= HEAD_BYTES).then(|| entry.slice(HEAD_BYTES..))
}

/// When a record is due for garbage collection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GcDue {
    /// In this epoch.
    In(Epoch),
    /// At this time of the node's clock, when a value has expired.
    At(WallMs),
}

impl GcDue {
    const fn head(self) -> (u8, u64) {
        match self {
            Self::In(Epoch(number)) => (EPOCH_MARK, number),
            Self::At(WallMs(number)) => (WALL_MARK, number),
        }
    }

    /// The index entry for a record that is due then.
    pub fn entry(self, storage_key: &[u8]) -> Bytes {
        [&self.first()[..], storage_key].concat().into()
    }

    /// The least entry for this time.
    pub fn first(self) -> Bytes {
        let (mark, number) = self.head();
        let mut head = [mark; HEAD_BYTES];
        head[1..].copy_from_slice(&number.to_be_bytes());
        Bytes::copy_from_slice(&head)
    }

    /// The range of entries that are due at this time: the first, and the end, excluded.
    pub fn due(self) -> (Bytes, Bytes) {
        let (mark, number) = self.head();
        let end = number.checked_add(1).map(|next| match self {
            Self::In(_) => Self::In(Epoch(next)).first(),
            Self::At(_) => Self::At(WallMs(next)).first(),
        });
        (Bytes::copy_from_slice(&[mark]), end.unwrap_or_else(|| Bytes::copy_from_slice(&[mark + 1])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_when_they_are_due() {
        let (first, end) = GcDue::In(Epoch(7)).due();
        let entry = |due: GcDue| due.entry(b"key");
        for (epoch, is_due) in [(7, true), (1, true), (8, false), (u64::MAX, false)] {
            let entry = entry(GcDue::In(Epoch(epoch)));
            assert_eq!(first <= entry && entry < end, is_due, "{epoch}");
            assert_eq!(parse(&entry), Some(Bytes::from_static(b"key")));
        }
        let other = entry(GcDue::At(WallMs(1)));
        assert!(other < first || other >= end);
        assert_eq!(parse(&Bytes::from_static(b"hint")), None);
    }
}
