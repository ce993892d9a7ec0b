//! How far a data directory has come, and whether it went back in time.
//!
//! A directory restored from a copy lacks what was stored since the copy was made. Its peers detect this: each commit of a store carries a
//! mark, which rises by one, and a node sends the marks of its synced commits before anything else it says. So a peer that got an
//! acknowledgement knows a mark that the directory lacks, unless it has what was acknowledged. Each boot draws a random number, which
//! distinguishes two boots with the same number from two copies.

use std::fmt;

use bytes::Bytes;
use cartwheel_storage::{Batch, Store, StoreError};

/// The name under which a store keeps its mark.
const MARK: &[u8] = b"mark";
/// How many boots a directory remembers.
const BOOTS_MAX: usize = 32;
/// How many marks fit into a hello.
const MARKS_IN_HELLO: usize = 160;

/// How far a store has come: the last boot that wrote to it, and the number of that boot's commits in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mark {
    /// The boot, within its incarnation.
    pub boot: u32,
    /// The number of the boot's commit, from 1.
    pub commit: u64,
}

impl Mark {
    const BYTES: usize = 12;

    /// The stored form.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.boot.to_be_bytes());
        bytes[4..].copy_from_slice(&self.commit.to_be_bytes());
        bytes
    }

    /// Parses the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (boot, commit) = bytes.split_first_chunk::<4>()?;
        Some(Self { boot: u32::from_be_bytes(*boot), commit: u64::from_be_bytes(commit.try_into().ok()?) })
    }

    /// Adds the mark to a batch.
    pub fn put(self, batch: &mut Batch) {
        batch.put_meta(MARK, Bytes::copy_from_slice(&self.to_bytes()));
    }

    /// The mark of a store; zero if a build without marks wrote it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn of_store(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(store.get_meta(MARK)?.and_then(|bytes| Self::from_bytes(&bytes)).unwrap_or_default())
    }
}

/// A boot of a directory, and the marks of its stores when the boot began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Begun {
    /// Its number within the incarnation.
    pub boot: u32,
    /// Its random number.
    pub drawn: u64,
    /// The marks of the stores, by shard index.
    pub marks: Vec<Mark>,
}

/// The last boots of a directory, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineage(Vec<Begun>);

/// The least that a peer must have, according to its own reports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Its latest boot.
    pub boot: u32,
    /// The random number of that boot; 0 if unknown.
    pub drawn: u64,
    /// The highest marks that it has sent.
    pub marks: Vec<Mark>,
}

/// Why a directory is an old copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// A later boot is known.
    LaterBoot {
        /// The directory's boot.
        boot: u32,
        /// The latest known boot.
        latest: u32,
    },
    /// Another boot of this number is known.
    OtherBoot {
        /// The boot's number.
        boot: u32,
    },
    /// The directory lacks commits that a peer knows of.
    LacksCommits {
        /// The shard.
        shard: usize,
        /// The mark of its store.
        has: Mark,
        /// The mark that a peer knows.
        known: Mark,
    },
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LaterBoot { boot, latest } => write!(f, "its boot is {boot}, and a peer has seen boot {latest}"),
            Self::OtherBoot { boot } => write!(f, "another copy has run as boot {boot}"),
            Self::LacksCommits { shard, has, known } => write!(
                f,
                "the store of shard {shard} ends at commit {} of boot {}, and a peer knows commit {} of boot {}",
                has.commit, has.boot, known.commit, known.boot
            ),
        }
    }
}

impl Lineage {
    /// A lineage of these boots.
    pub fn of(boots: Vec<Begun>) -> Self {
        Self(boots)
    }

    /// The boots, in order.
    pub fn boots(&self) -> &[Begun] {
        &self.0
    }

    /// This lineage with one more boot.
    #[must_use]
    pub fn with(&self, begun: Begun) -> Self {
        let kept = self.0.len().saturating_sub(BOOTS_MAX - 1);
        Self(self.0[kept..].iter().cloned().chain([begun]).collect())
    }

    /// As many of the last boots as fit into a hello.
    #[must_use]
    pub fn for_hello(&self) -> Self {
        let mut room = MARKS_IN_HELLO;
        let fits = self.0.iter().rev().take_while(|begun| {
            let fits = begun.marks.len() < room;
            room = room.saturating_sub(begun.marks.len() + 1);
            fits
        });
        let kept = self.0.len() - fits.count();
        Self(self.0[kept..].to_vec())
    }

    /// Checks that a directory with this lineage may be the one that a peer knows.
    ///
    /// # Errors
    /// If it is an old copy.
    pub fn judge(&self, boot: u32, known: &Known) -> Result<(), Behind> {
        let boot = self.0.last().map_or(boot, |begun| begun.boot);
        if known.boot > boot {
            return Err(Behind::LaterBoot { boot, latest: known.boot });
        }
        let same = self.0.iter().find(|begun| begun.boot == known.boot);
        if same.is_some_and(|begun| known.drawn != 0 && begun.drawn != known.drawn) {
            return Err(Behind::OtherBoot { boot: known.boot });
        }
        // The first boot after the known one shows how far the known one came. A known boot that is too old to be remembered cannot be
        // compared.
        let is_remembered = same.is_some() || self.0.first().is_some_and(|first| first.boot == known.boot + 1);
        let Some(next) = self.0.iter().find(|begun| begun.boot > known.boot).filter(|_| is_remembered) else {
            return Ok(());
        };
        for (shard, &known) in known.marks.iter().enumerate() {
            let has = next.marks.get(shard).copied().unwrap_or_default();
            if has < known {
                return Err(Behind::LacksCommits { shard, has, known });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(boot: u32, commit: u64) -> Mark {
        Mark { boot, commit }
    }

    fn begun(boot: u32, drawn: u64, marks: &[Mark]) -> Begun {
        Begun { boot, drawn, marks: marks.to_vec() }
    }

    #[test]
    fn an_old_copy_is_detected_whenever_it_was_made() {
        let original = Lineage::default().with(begun(1, 11, &[mark(0, 0)])).with(begun(2, 22, &[mark(1, 9)]));
        let known = Known { boot: 2, drawn: 22, marks: vec![mark(2, 50)] };
        assert_eq!(original.judge(2, &known), Ok(()), "the boot still runs");
        let restarted = |commit| original.with(begun(3, 33, &[mark(2, commit)]));
        assert_eq!(restarted(50).judge(3, &known), Ok(()));
        assert_eq!(restarted(60).judge(3, &known), Ok(()), "no peer knows the last commits");
        let lacks = Behind::LacksCommits { shard: 0, has: mark(2, 49), known: mark(2, 50) };
        assert_eq!(restarted(49).judge(3, &known), Err(lacks), "copied in the same boot, one commit before the end");
        // The copy has run since without this peer hearing of it.
        let ran_on = restarted(49).with(begun(4, 44, &[mark(3, 7_000)]));
        assert_eq!(ran_on.judge(4, &known), Err(lacks));
        let before = Lineage::default().with(begun(1, 11, &[mark(0, 0)]));
        assert_eq!(before.judge(1, &known), Err(Behind::LaterBoot { boot: 1, latest: 2 }));
        let other = before.with(begun(2, 23, &[mark(1, 9)]));
        assert_eq!(
            other.judge(2, &known),
            Err(Behind::OtherBoot { boot: 2 }),
            "the original has used this boot number too"
        );
        assert_eq!(other.with(begun(3, 34, &[mark(2, 99)])).judge(3, &known), Err(Behind::OtherBoot { boot: 2 }));
    }

    #[test]
    fn what_a_peer_knew_too_long_ago_is_accepted() {
        let lineage = Lineage::default().with(begun(8, 88, &[mark(7, 1)])).with(begun(9, 99, &[mark(8, 1)]));
        for known in [
            Known { boot: 3, drawn: 33, marks: vec![mark(3, 1_000)] },
            Known { boot: 7, drawn: 77, marks: vec![mark(7, 1)] },
            Known { boot: 8, drawn: 0, marks: vec![] },
            Known::default(),
        ] {
            assert_eq!(lineage.judge(9, &known), Ok(()), "{known:?}");
        }
        assert!(lineage.judge(9, &Known { boot: 7, drawn: 77, marks: vec![mark(7, 2)] }).is_err());
        assert_eq!(Lineage::default().judge(5, &Known { boot: 4, ..Known::default() }), Ok(()));
        assert!(Lineage::default().judge(3, &Known { boot: 4, ..Known::default() }).is_err());
    }

    #[test]
    fn a_lineage_and_a_hello_are_bounded() {
        let mut lineage = Lineage::default();
        for boot in 1..100 {
            lineage = lineage.with(begun(boot, boot.into(), &vec![mark(boot, 1); 40]));
        }
        assert_eq!((lineage.boots().len(), lineage.boots().last().unwrap().boot), (BOOTS_MAX, 99));
        let hello = lineage.for_hello();
        assert_eq!((hello.boots().len(), hello.boots().last().unwrap().boot), (3, 99));
        assert_eq!(Mark::from_bytes(&mark(7, 9).to_bytes()), Some(mark(7, 9)));
        assert_eq!(Mark::from_bytes(b"short"), None);
    }
}
