//! How far a data directory has come, and whether it went back.
//!
//! A directory that was put back from a copy, of whatever time, lacks what was stored since. Its peers tell: each commit of a store carries
//! a mark, which rises by one each time, and what a node says to a peer is preceded by the marks of what it has synced. So whoever got an
//! acknowledgement knows a mark that the directory cannot have, unless it has what was acknowledged. Each boot draws a number, so that
//! two boots of one number, from two copies, are told from each other.

use std::fmt;

use bytes::Bytes;
use cartwheel_storage::{Batch, Store, StoreError};

/// The name under which a store keeps its mark.
const MARK: &[u8] = b"mark";
/// How many boots a directory remembers.
const BOOTS_MAX: usize = 32;
/// How many marks fit into a hello.
const MARKS_IN_HELLO: usize = 160;

/// How far a store has come: the boot that wrote to it last, and how many commits that boot had made in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mark {
    /// The boot, within its incarnation.
    pub boot: u32,
    /// The number of its commit, from 1.
    pub commit: u64,
}

impl Mark {
    const BYTES: usize = 12;

    /// Its stored form.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.boot.to_be_bytes());
        bytes[4..].copy_from_slice(&self.commit.to_be_bytes());
        bytes
    }

    /// The mark of this form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (boot, commit) = bytes.split_first_chunk::<4>()?;
        Some(Self { boot: u32::from_be_bytes(*boot), commit: u64::from_be_bytes(commit.try_into().ok()?) })
    }

    /// Puts it into a batch.
    pub fn put(self, batch: &mut Batch) {
        batch.put_meta(MARK, Bytes::copy_from_slice(&self.to_bytes()));
    }

    /// The mark of a store; zero if a build that knew of none wrote it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn of_store(store: &dyn Store) -> Result<Self, StoreError> {
        Ok(store.get_meta(MARK)?.and_then(|bytes| Self::from_bytes(&bytes)).unwrap_or_default())
    }
}

/// A boot of a directory, and how far its stores had come when it began.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Begun {
    /// Its number within its incarnation.
    pub boot: u32,
    /// What it drew at random.
    pub drawn: u64,
    /// The marks of the stores, by their shards' indexes.
    pub marks: Vec<Mark>,
}

/// The last boots of a directory, the latest last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lineage(Vec<Begun>);

/// How far a peer has come at the least, by what it has said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Its latest boot.
    pub boot: u32,
    /// What that boot drew; 0 if that is not known.
    pub drawn: u64,
    /// The highest marks that it has spoken of.
    pub marks: Vec<Mark>,
}

/// Why a directory is an old copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// A later boot has been seen.
    LaterBoot {
        /// What it says.
        boot: u32,
        /// The latest that was seen.
        latest: u32,
    },
    /// Another boot of this number has been seen.
    OtherBoot {
        /// The number.
        boot: u32,
    },
    /// It lacks commits of a store that have been heard of.
    LacksCommits {
        /// The shard.
        shard: usize,
        /// How far its store has come.
        has: Mark,
        /// How far it had come.
        known: Mark,
    },
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LaterBoot { boot, latest } => write!(f, "it says boot {boot}, and boot {latest} has been seen"),
            Self::OtherBoot { boot } => write!(f, "another copy of it has been served as boot {boot}"),
            Self::LacksCommits { shard, has, known } => write!(
                f,
                "the store of shard {shard} has come to commit {} of boot {}, and commit {} of boot {} has been heard of",
                has.commit, has.boot, known.commit, known.boot
            ),
        }
    }
}

impl Lineage {
    /// That of these boots.
    pub fn of(boots: Vec<Begun>) -> Self {
        Self(boots)
    }

    /// Its boots, the latest last.
    pub fn boots(&self) -> &[Begun] {
        &self.0
    }

    /// The same with one boot more.
    #[must_use]
    pub fn with(&self, begun: Begun) -> Self {
        let kept = self.0.len().saturating_sub(BOOTS_MAX - 1);
        Self(self.0[kept..].iter().cloned().chain([begun]).collect())
    }

    /// As many of the last boots as a hello has room for.
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

    /// Whether a directory of this lineage may be all that a peer knows of.
    ///
    /// # Errors
    /// If it is not: then it is an old copy.
    pub fn judge(&self, boot: u32, known: &Known) -> Result<(), Behind> {
        let boot = self.0.last().map_or(boot, |begun| begun.boot);
        if known.boot > boot {
            return Err(Behind::LaterBoot { boot, latest: known.boot });
        }
        let same = self.0.iter().find(|begun| begun.boot == known.boot);
        if same.is_some_and(|begun| known.drawn != 0 && begun.drawn != known.drawn) {
            return Err(Behind::OtherBoot { boot: known.boot });
        }
        // The first boot after the one that was known tells how far that one had come. What is known of one that is too long ago to be
        // remembered cannot be compared.
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
    fn a_directory_that_went_back_is_told_whenever_it_was_copied() {
        let original = Lineage::default().with(begun(1, 11, &[mark(0, 0)])).with(begun(2, 22, &[mark(1, 9)]));
        let known = Known { boot: 2, drawn: 22, marks: vec![mark(2, 50)] };
        assert_eq!(original.judge(2, &known), Ok(()), "it runs");
        let restarted = |commit| original.with(begun(3, 33, &[mark(2, commit)]));
        assert_eq!(restarted(50).judge(3, &known), Ok(()));
        assert_eq!(restarted(60).judge(3, &known), Ok(()), "nobody was told of the last commits");
        let lacks = Behind::LacksCommits { shard: 0, has: mark(2, 49), known: mark(2, 50) };
        assert_eq!(restarted(49).judge(3, &known), Err(lacks), "copied in the same boot, one commit before the end");
        // It has run on meanwhile, where this peer did not hear of it.
        let ran_on = restarted(49).with(begun(4, 44, &[mark(3, 7_000)]));
        assert_eq!(ran_on.judge(4, &known), Err(lacks));
        let before = Lineage::default().with(begun(1, 11, &[mark(0, 0)]));
        assert_eq!(before.judge(1, &known), Err(Behind::LaterBoot { boot: 1, latest: 2 }));
        let other = before.with(begun(2, 23, &[mark(1, 9)]));
        assert_eq!(
            other.judge(2, &known),
            Err(Behind::OtherBoot { boot: 2 }),
            "the original has opened this number, too"
        );
        assert_eq!(other.with(begun(3, 34, &[mark(2, 99)])).judge(3, &known), Err(Behind::OtherBoot { boot: 2 }));
    }

    #[test]
    fn a_peer_that_was_away_for_long_is_no_reason_to_refuse() {
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
